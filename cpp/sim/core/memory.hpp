// This process's allocations. Device memory is host memory that is reserved but not backed:
// only what is written to takes real memory.
#pragma once
#include <cstddef>
#include <cstdint>

#include "context.hpp"

namespace memacct::sim {

enum class Kind { Device, Managed, Host, HostRegistered, Reserved };

struct Allocation {
  uintptr_t base = 0;
  size_t size = 0;
  Kind kind = Kind::Device;
  int device = 0;
  Context* context = nullptr;  // null for host memory and reserved ranges
};

[[nodiscard]] MEMACCT_SIM_API Status device_alloc(Context* context, size_t bytes, Kind kind,
                                                  void** out);
[[nodiscard]] MEMACCT_SIM_API Status host_alloc(size_t bytes, void** out);
[[nodiscard]] MEMACCT_SIM_API Status host_register(void* address, size_t bytes);
[[nodiscard]] MEMACCT_SIM_API Status release(void* address);
[[nodiscard]] MEMACCT_SIM_API bool lookup(void const* address, Allocation* out);

// Ranges of addresses (cuMemAddressReserve): no charge until a physical handle is made.
[[nodiscard]] MEMACCT_SIM_API Status reserve_range(size_t bytes, size_t alignment, void** out);
[[nodiscard]] MEMACCT_SIM_API Status map_range(void* address, size_t bytes, int device);
[[nodiscard]] MEMACCT_SIM_API Status unmap_range(void* address, size_t bytes);

MEMACCT_SIM_API void fill(void* target, int byte, size_t size);
MEMACCT_SIM_API void copy(void* target, void const* source, size_t size);

void release_allocations_of(Context const* context);
void forget_allocations();  // in a forked child

}  // namespace memacct::sim
