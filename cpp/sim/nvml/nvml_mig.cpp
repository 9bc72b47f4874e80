// NVML: devices that are divided into MIG instances, and the instances' own handles.
#include "../core/device.hpp"
#include "nvml_abi.hpp"

using namespace memacct::sim;
using namespace memacct::sim::nvml;

namespace {

constexpr unsigned kMostInstances = 7;

}  // namespace

MEMACCT_SIM_EXPORT Result nvmlDeviceGetMigMode(Device device, unsigned* current,
                                               unsigned* pending) {
  NVML_ENTRY_DEVICE(device);
  if (is_instance(index) || current == nullptr || pending == nullptr) return kInvalidArgument;
  // A machine without MIG is one whose devices cannot be divided.
  if (!any_divided()) return kNotSupported;
  *current = *pending = unit_config(index).divided ? 1 : 0;
  return kSuccess;
}

MEMACCT_SIM_EXPORT Result nvmlDeviceIsMigDeviceHandle(Device device, unsigned* is_mig) {
  NVML_ENTRY_DEVICE(device);
  *is_mig = is_instance(index) ? 1 : 0;
  return kSuccess;
}

MEMACCT_SIM_EXPORT Result nvmlDeviceGetMaxMigDeviceCount(Device device, unsigned* count) {
  NVML_ENTRY_DEVICE(device);
  if (is_instance(index)) return kInvalidArgument;
  *count = any_divided() ? kMostInstances : 0;
  return kSuccess;
}

MEMACCT_SIM_EXPORT Result nvmlDeviceGetMigDeviceHandleByIndex(Device device, unsigned place,
                                                              Device* instance) {
  NVML_ENTRY_DEVICE(device);
  if (is_instance(index) || instance == nullptr) return kInvalidArgument;
  if (!unit_config(index).divided) return kNotSupported;
  int const found = instance_at(index, static_cast<int>(place));
  if (found < 0) return kNotFound;
  *instance = handle_of(found);
  return kSuccess;
}

MEMACCT_SIM_EXPORT Result nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device device,
                                                                       Device* whole) {
  NVML_ENTRY_DEVICE(device);
  if (!is_instance(index) || whole == nullptr) return kInvalidArgument;
  *whole = handle_of(whole_device(index));
  return kSuccess;
}

MEMACCT_SIM_EXPORT Result nvmlDeviceGetGpuInstanceId(Device device, unsigned* id) {
  NVML_ENTRY_DEVICE(device);
  if (!is_instance(index)) return kInvalidArgument;
  *id = static_cast<unsigned>(unit_config(index).gpu_instance);
  return kSuccess;
}

MEMACCT_SIM_EXPORT Result nvmlDeviceGetComputeInstanceId(Device device, unsigned* id) {
  NVML_ENTRY_DEVICE(device);
  if (!is_instance(index)) return kInvalidArgument;
  *id = static_cast<unsigned>(unit_config(index).compute_instance);
  return kSuccess;
}
