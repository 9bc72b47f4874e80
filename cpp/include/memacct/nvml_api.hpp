// The functions of libnvidia-ml.so.1 that memacct calls, found by name at run time.
#pragma once
#include <map>
#include <string>

#include "memacct/dylib.hpp"
#include "memacct/nvml_types.hpp"

namespace memacct::nvml {

// Every NVML function that memacct calls: our name, its C signature, and the symbols that
// are tried in this order. An absent one leaves a null pointer, which is normal.
//
// Process lists: _v2 before _v3. _v2 never changed its record's size in any driver on
// record, while _v3 had 32 bytes in R535's first releases and was then taken out for one
// (nvitop#79, #88). The plain functions keep the first ABI, 16 bytes.
#define MEMACCT_NVML_FUNCTIONS(X)                                                                  \
  X(init_with_flags, int(unsigned), "nvmlInitWithFlags")                                           \
  X(init, int(), "nvmlInit_v2", "nvmlInit")                                                        \
  X(shutdown, int(), "nvmlShutdown")                                                               \
  X(error_string, char const*(int), "nvmlErrorString")                                             \
  X(driver_version, int(char*, unsigned), "nvmlSystemGetDriverVersion")                            \
  X(device_count, int(unsigned*), "nvmlDeviceGetCount_v2", "nvmlDeviceGetCount")                   \
  X(handle_by_index, int(unsigned, Device*), "nvmlDeviceGetHandleByIndex_v2",                      \
    "nvmlDeviceGetHandleByIndex")                                                                  \
  X(handle_by_uuid, int(char const*, Device*), "nvmlDeviceGetHandleByUUID")                        \
  X(handle_by_pci, int(char const*, Device*), "nvmlDeviceGetHandleByPciBusId_v2",                  \
    "nvmlDeviceGetHandleByPciBusId")                                                               \
  X(device_index, int(Device, unsigned*), "nvmlDeviceGetIndex")                                    \
  X(device_name, int(Device, char*, unsigned), "nvmlDeviceGetName")                                \
  X(device_uuid, int(Device, char*, unsigned), "nvmlDeviceGetUUID")                                \
  X(device_pci, int(Device, PciInfo*), "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetPciInfo_v2",       \
    "nvmlDeviceGetPciInfo")                                                                        \
  X(mig_mode, int(Device, unsigned*, unsigned*), "nvmlDeviceGetMigMode")                           \
  X(is_instance, int(Device, unsigned*), "nvmlDeviceIsMigDeviceHandle")                            \
  X(instance_places, int(Device, unsigned*), "nvmlDeviceGetMaxMigDeviceCount")                     \
  X(instance_by_place, int(Device, unsigned, Device*), "nvmlDeviceGetMigDeviceHandleByIndex")      \
  X(whole_of_instance, int(Device, Device*), "nvmlDeviceGetDeviceHandleFromMigDeviceHandle")       \
  X(gpu_instance_id, int(Device, unsigned*), "nvmlDeviceGetGpuInstanceId")                         \
  X(compute_instance_id, int(Device, unsigned*), "nvmlDeviceGetComputeInstanceId")                 \
  X(compute_capability, int(Device, int*, int*), "nvmlDeviceGetCudaComputeCapability")             \
  X(numa_node, int(Device, unsigned*), "nvmlDeviceGetNumaNodeId")                                  \
  X(memory_v2, int(Device, MemoryV2*), "nvmlDeviceGetMemoryInfo_v2")                               \
  X(memory_v1, int(Device, MemoryV1*), "nvmlDeviceGetMemoryInfo")                                  \
  X(compute_processes, int(Device, unsigned*, void*), "nvmlDeviceGetComputeRunningProcesses_v2",   \
    "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses")             \
  X(graphics_processes, int(Device, unsigned*, void*), "nvmlDeviceGetGraphicsRunningProcesses_v2", \
    "nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses")           \
  X(mps_processes, int(Device, unsigned*, void*), "nvmlDeviceGetMPSComputeRunningProcesses_v2",    \
    "nvmlDeviceGetMPSComputeRunningProcesses_v3", "nvmlDeviceGetMPSComputeRunningProcesses")

/// The loaded functions, and the symbol that each came from.
struct Api {
#define MEMACCT_DECLARE(name, signature, ...) std::add_pointer_t<signature> name = nullptr;
  MEMACCT_NVML_FUNCTIONS(MEMACCT_DECLARE)
#undef MEMACCT_DECLARE

  /// Our name -> the symbol that was found; "" if none was.
  std::map<std::string, std::string> symbols;

  [[nodiscard]] static Api load(Library const& library);
  /// The C symbol behind our name, for messages; our name if none was found.
  [[nodiscard]] std::string symbol_of(char const* name) const;
  /// "nvmlX returned 4 (Insufficient Permissions)".
  [[nodiscard]] std::string describe(char const* name, int code) const;
  [[nodiscard]] std::string text_of(int code) const;
};

/// What an error code means for what comes after it.
enum class Severity {
  kNoData,         // this call has no answer here; go on with the others
  kFailed,         // this call failed, and may work the next time
  kDeviceLost,     // stop using this device
  kUninitialized,  // somebody shut NVML down, or this is a fork's child: initialise once more
  kDisabled,       // NVML is of no use to this process
};
[[nodiscard]] Severity severity_of(int code) noexcept;

/// True for the codes by which a function says that it does not exist in this driver, even
/// though its symbol does.
[[nodiscard]] bool means_absent(int code) noexcept;

}  // namespace memacct::nvml
