// The devices: those of the machine (physical: devices, then MIG instances) and those that this
// process sees (ordinals, after CUDA_VISIBLE_DEVICES); their names and properties.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "config.hpp"

namespace memacct::sim {

[[nodiscard]] MEMACCT_SIM_API int physical_count();  // devices only
[[nodiscard]] MEMACCT_SIM_API int unit_count();      // and instances
[[nodiscard]] MEMACCT_SIM_API bool any_divided();    // MIG is on somewhere
[[nodiscard]] MEMACCT_SIM_API bool is_instance(int physical);
/// The instance at a place of a device; -1 if there is none.
[[nodiscard]] MEMACCT_SIM_API int instance_at(int physical, int mig_index);
/// The device itself, or the one that an instance is a part of.
[[nodiscard]] MEMACCT_SIM_API int whole_device(int physical);
[[nodiscard]] MEMACCT_SIM_API int device_count();
[[nodiscard]] MEMACCT_SIM_API int physical_index(int device);  // -1 if there is no such ordinal
[[nodiscard]] MEMACCT_SIM_API std::string device_name(int physical);
MEMACCT_SIM_API void device_uuid(int physical, uint8_t out[16]);
/// "GPU-8-4-4-4-12", of an instance "MIG-..."
MEMACCT_SIM_API void device_uuid_text(int physical, char* out, size_t size);
[[nodiscard]] MEMACCT_SIM_API int device_pci_bus(int physical);
/// By the numbers of CUdevice_attribute, which the runtime shares.
[[nodiscard]] MEMACCT_SIM_API int device_attribute(int attribute, int physical);
[[nodiscard]] MEMACCT_SIM_API int driver_version();
[[nodiscard]] MEMACCT_SIM_API bool device_integrated();
/// NVML tells totals of an integrated device after all, and none of them is true.
[[nodiscard]] MEMACCT_SIM_API bool wrong_totals();
/// Of a coherent device's memory; -1 if it is not the kernel's.
[[nodiscard]] MEMACCT_SIM_API int numa_node(int physical);

}  // namespace memacct::sim
