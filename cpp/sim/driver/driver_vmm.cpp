// Driver API: virtual memory management (PyTorch's expandable segments, vLLM's sleep mode).
#include <cstdint>
#include <map>
#include <mutex>

#include "../core/device.hpp"
#include "../core/memory.hpp"
#include "cuda_abi.hpp"

using namespace memacct::sim;

namespace {

// Made by cuMemCreate. Its memory is given back when it has been released and no mapping
// of it is left.
struct PhysicalMemory {
  int physical;
  int device;
  size_t size;
  int references;
  AllocationProperties properties;
};

std::mutex g_mutex;
// Address to what is mapped there. Never destroyed: used until the process ends.
std::map<uintptr_t, PhysicalMemory*>& mappings() {
  static auto* const map = new std::map<uintptr_t, PhysicalMemory*>;
  return *map;
}

// The mutex must be held.
void drop(PhysicalMemory* memory) {
  if (--memory->references > 0) return;
  uncharge(memory->physical, memory->size, "memrelease");
  delete memory;
}

}  // namespace

MEMACCT_SIM_EXPORT Result cuMemGetAllocationGranularity(size_t* bytes, AllocationProperties const*,
                                                        int) {
  DRIVER_ENTRY();
  *bytes = kPageBytes;
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuMemAddressReserve(DevicePointer* p, size_t size, size_t alignment,
                                              DevicePointer, unsigned long long) {
  DRIVER_ENTRY();
  void* range = nullptr;
  Status const status = reserve_range(size, alignment, &range);
  *p = reinterpret_cast<DevicePointer>(range);
  return to_result(status);
}

MEMACCT_SIM_EXPORT Result cuMemAddressFree(DevicePointer p, size_t) {
  DRIVER_ENTRY();
  return to_result(release(as_address(p)));
}

MEMACCT_SIM_EXPORT Result cuMemCreate(uint64_t* handle, size_t size,
                                      AllocationProperties const* properties, unsigned long long) {
  DRIVER_ENTRY();
  constexpr int kOnDevice = 1;
  if (size == 0 || size % kPageBytes != 0) return kCudaInvalidValue;
  int const device = properties->location.type == kOnDevice ? properties->location.id : 0;
  int const physical = physical_index(device);
  if (physical < 0) return kCudaInvalidDevice;
  Status const status = charge(physical, size, "memcreate");
  if (status == Status::Ok)
    *handle =
        reinterpret_cast<uint64_t>(new PhysicalMemory{physical, device, size, 1, *properties});
  return to_result(status);
}

MEMACCT_SIM_EXPORT Result cuMemRelease(uint64_t handle) {
  DRIVER_ENTRY();
  std::lock_guard const guard{g_mutex};
  drop(reinterpret_cast<PhysicalMemory*>(handle));
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuMemMap(DevicePointer p, size_t size, size_t, uint64_t handle,
                                   unsigned long long) {
  DRIVER_ENTRY();
  auto* const memory = reinterpret_cast<PhysicalMemory*>(handle);
  Status const status = map_range(as_address(p), size, memory->device);
  if (status != Status::Ok) return to_result(status);
  std::lock_guard const guard{g_mutex};
  ++memory->references;
  mappings()[p] = memory;
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuMemUnmap(DevicePointer p, size_t size) {
  DRIVER_ENTRY();
  std::lock_guard const guard{g_mutex};
  auto it = mappings().lower_bound(p);
  while (it != mappings().end() && it->first < p + size) {
    drop(it->second);
    it = mappings().erase(it);
  }
  return to_result(unmap_range(as_address(p), size));
}

MEMACCT_SIM_EXPORT Result cuMemSetAccess(DevicePointer, size_t, void const*, size_t) {
  DRIVER_ENTRY();
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuMemRetainAllocationHandle(uint64_t* handle, void* address) {
  DRIVER_ENTRY();
  std::lock_guard const guard{g_mutex};
  auto it = mappings().upper_bound(reinterpret_cast<uintptr_t>(address));
  if (it == mappings().begin()) return kCudaInvalidValue;
  PhysicalMemory* const memory = (--it)->second;
  ++memory->references;
  *handle = reinterpret_cast<uint64_t>(memory);
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuMemGetAllocationPropertiesFromHandle(AllocationProperties* out,
                                                                 uint64_t handle) {
  DRIVER_ENTRY();
  *out = reinterpret_cast<PhysicalMemory const*>(handle)->properties;
  return kCudaSuccess;
}

// Memory shared between processes is not simulated.
MEMACCT_SIM_EXPORT Result cuMemExportToShareableHandle(void*, uint64_t, int, unsigned long long) {
  DRIVER_ENTRY();
  return kCudaNotSupported;
}
MEMACCT_SIM_EXPORT Result cuMemImportFromShareableHandle(uint64_t*, void*, int) {
  DRIVER_ENTRY();
  return kCudaNotSupported;
}
MEMACCT_SIM_EXPORT Result cuIpcGetMemHandle(void*, DevicePointer) {
  DRIVER_ENTRY();
  return kCudaNotSupported;
}
MEMACCT_SIM_EXPORT Result cuIpcOpenMemHandle_v2(DevicePointer*, void*, unsigned) {
  DRIVER_ENTRY();
  return kCudaNotSupported;
}
