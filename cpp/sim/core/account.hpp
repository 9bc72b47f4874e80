// The memory account of the simulated machine: who holds how much of each device. It lives
// in POSIX shared memory, so real processes share the devices as they do in reality.
#pragma once
#include <cstdint>
#include <vector>

#include "config.hpp"

namespace memacct::sim {

constexpr int kMaxDevices = 16;
constexpr int kMaxUnits = 48;  // devices and, after them, MIG instances: each has an account
constexpr int kMaxProcesses = 2048;
constexpr uint64_t kPageBytes = 2 * kMiB;  // physical page of device memory

enum class Status {
  Ok,
  OutOfMemory,     // the simulated device is full
  InvalidValue,    // unknown pointer, bad argument
  InvalidDevice,   // no such ordinal
  InvalidContext,  // no current context, or not one of ours
  ContextDestroyed,
  NotInitialized,  // cuInit was not called in this process (or was, before a fork)
  NoDevice,
};

/// What each process has done so far; a tenant can wait for another process to reach a number.
enum class Counter {
  Launches,            // kernels
  CudaMemoryQueries,   // cuMemGetInfo, cudaMemGetInfo
  NvmlMemoryQueries,   // nvmlDeviceGetMemoryInfo and _v2
  NvmlProcessQueries,  // the process lists
  GraphCaptures,       // stream captures that began
  GraphInstantiations,
};
constexpr int kCounters = 6;

/// A device, or a MIG instance of one. "physical" numbers count both, the devices first.
struct UnitConfig {
  uint64_t total_bytes = 0;       // as NVML reports it
  uint64_t cuda_total_bytes = 0;  // as CUDA reports it: not more than total_bytes
  uint64_t reserved_bytes = 0;    // kept by the driver
  int32_t speed = 1;              // of a device: CUDA counts from the fastest on
  bool divided = false;           // of a device: MIG is on
  int32_t parent = -1;            // of an instance: its device
  int32_t mig_index = -1;         // of an instance: its place there, some of which are empty
  int32_t gpu_instance = -1;
  int32_t compute_instance = -1;
  bool operator==(UnitConfig const&) const = default;
};

/// Fixed when the machine is made.
struct MachineConfig {
  int32_t devices = 1;
  int32_t units_count = 1;  // devices and instances
  UnitConfig units[kMaxUnits];
  uint64_t unattributed_bytes = 0;  // held by nobody who is listed; can change later
  int32_t first_numa_node = -1;     // of device 0's memory, if the host's kernel manages it
  bool operator==(MachineConfig const&) const = default;
};

/// total = reserved + unattributed + processes + free, always.
struct DeviceUsage {
  uint64_t total_bytes = 0;
  uint64_t reserved_bytes = 0;
  uint64_t unattributed_bytes = 0;
  uint64_t processes_bytes = 0;
  uint64_t free_bytes = 0;
};

/// The lists of NVML that a process stands in, as bits.
enum List : uint32_t { kComputeList = 1, kGraphicsList = 2, kMpsList = 4 };

struct ProcessUsage {
  int pid = 0;       // in the caller's PID namespace; 0: not visible from there
  int host_pid = 0;  // the machine's: in the procfs of MEMACCT_SIM_HOST_PROC, if that is set, or
                     // the first of its NSpid line: the outermost that its own procfs shows
  uint32_t lists = kComputeList;
  uint64_t bytes = 0;
  int unit = -1;  // where it holds them: of a divided device the instance
  bool self = false;
  bool same_container = false;  // shares MEMACCT_SIM_CONTAINER with the caller
  uint64_t counts[kCounters] = {};
};

[[nodiscard]] MEMACCT_SIM_API MachineConfig machine_config_from_environment();
[[nodiscard]] MEMACCT_SIM_API MachineConfig const& machine_config();
[[nodiscard]] MEMACCT_SIM_API UnitConfig const& unit_config(int physical);

/// Makes the machine afresh if nobody alive holds a place on it; returns whether it is now
/// as `wanted`. To be called before anything else in the process.
[[nodiscard]] MEMACCT_SIM_API bool make_machine(MachineConfig const& wanted);

/// Whether the driver's list counts memory as its process's. It does not count managed memory:
/// that is used by the device and held by nobody.
enum class Listing { Listed, Unlisted };

/// Takes `bytes` of a device for this process. Whole or not at all.
[[nodiscard]] MEMACCT_SIM_API Status charge(int physical, uint64_t bytes, char const* what,
                                            Listing listing = Listing::Listed);
MEMACCT_SIM_API void uncharge(int physical, uint64_t bytes, char const* what,
                              Listing listing = Listing::Listed);

/// Changes what another process holds, as if it had allocated or freed at this moment.
/// `pid` 0 means the largest other holder; if there is none the bytes are held by nobody.
MEMACCT_SIM_API void change_foreign(int physical, int64_t delta_bytes, int pid);
MEMACCT_SIM_API void change_unattributed(int physical, int64_t delta_bytes);

/// All of one device at one instant.
[[nodiscard]] MEMACCT_SIM_API DeviceUsage device_usage(int physical);

/// The live processes; with `physical` >= 0 those that hold memory of that device, with -1
/// everyone who has used the machine (bytes 0).
[[nodiscard]] MEMACCT_SIM_API std::vector<ProcessUsage> processes(int physical);

MEMACCT_SIM_API void add_count(Counter counter);

}  // namespace memacct::sim
