// The devices: those of the machine (physical) and those that this process sees (ordinals,
// after CUDA_VISIBLE_DEVICES); their names and properties.
#pragma once
#include <cstddef>
#include <cstdint>

#include "config.hpp"

namespace memacct::sim {

[[nodiscard]] MEMACCT_SIM_API int physical_count();
[[nodiscard]] MEMACCT_SIM_API int device_count();
[[nodiscard]] MEMACCT_SIM_API int physical_index(int device);  // -1 if there is no such ordinal
[[nodiscard]] MEMACCT_SIM_API char const* device_name();
MEMACCT_SIM_API void device_uuid(int physical, uint8_t out[16]);
/// "GPU-8-4-4-4-12"
MEMACCT_SIM_API void device_uuid_text(int physical, char* out, size_t size);
[[nodiscard]] MEMACCT_SIM_API int device_pci_bus(int physical);
/// By the numbers of CUdevice_attribute, which the runtime shares.
[[nodiscard]] MEMACCT_SIM_API int device_attribute(int attribute, int physical);
[[nodiscard]] MEMACCT_SIM_API int driver_version();
[[nodiscard]] MEMACCT_SIM_API bool device_integrated();

}  // namespace memacct::sim
