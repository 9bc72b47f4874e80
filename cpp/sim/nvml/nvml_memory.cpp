// NVML: the memory of a device. Version 1 counts the driver's reserve as used, version 2
// tells it apart; total is the same.
#include "../core/device.hpp"
#include "nvml_abi.hpp"

using namespace memacct::sim;
using namespace memacct::sim::nvml;

namespace {

// As documented for devices that share the host's memory; some drivers answer nonsense instead.
Result of_integrated(Memory* memory) {
  if (!wrong_totals()) return kNotSupported;
  *memory = {kGiB, kGiB, 0};
  return kSuccess;
}

}  // namespace

MEMACCT_SIM_EXPORT Result nvmlDeviceGetMemoryInfo(Device device, Memory* memory) {
  NVML_ENTRY_DEVICE(device);
  if (memory == nullptr) return kInvalidArgument;
  if (device_integrated()) return of_integrated(memory);
  add_count(Counter::NvmlMemoryQueries);
  DeviceUsage const usage = device_usage(index);
  *memory = {usage.total_bytes, usage.free_bytes, usage.total_bytes - usage.free_bytes};
  return kSuccess;
}

MEMACCT_SIM_EXPORT Result nvmlDeviceGetMemoryInfo_v2(Device device, MemoryV2* memory) {
  NVML_ENTRY_DEVICE(device);
  if (memory == nullptr) return kInvalidArgument;
  if (memory->version != kMemoryV2Tag) return kArgumentVersionMismatch;
  if (device_integrated()) {
    Memory told{};
    Result const result = of_integrated(&told);
    *memory = {kMemoryV2Tag, told.total, 0, told.free, told.used};
    return result;
  }
  add_count(Counter::NvmlMemoryQueries);
  DeviceUsage const usage = device_usage(index);
  *memory = {kMemoryV2Tag, usage.total_bytes, usage.reserved_bytes, usage.free_bytes,
             usage.processes_bytes + usage.unattributed_bytes};
  return kSuccess;
}

MEMACCT_SIM_EXPORT Result nvmlDeviceGetBAR1MemoryInfo(Device device, Memory* memory) {
  NVML_ENTRY_DEVICE(device);
  constexpr unsigned long long kBar1Bytes = 128 * kGiB;
  *memory = {kBar1Bytes, kBar1Bytes, 0};
  return kSuccess;
}
