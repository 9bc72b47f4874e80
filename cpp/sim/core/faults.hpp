// Faults and worlds: what the driver does wrong, or differently, for this process. They come
// from MEMACCT_SIM_FAULTS, so a process tree shares them and other processes do not see them.
//
//   rule ; rule ; ...            a rule is NAME: option option ...
//   nvmlDeviceGetMemoryInfo_v2: error=15 after=3 for=2
//   nvml*: latency_us=500        NAME may end in * (any function of NVML, driver or cudart)
//   cudaMemGetInfo: charge=+3GiB after=1 for=1 [pid=123] [device=0]
//                                inside that call another process's use changes
//   pids: own | host | outer | hidden
//                                which pids NVML lists: the caller's; numbers that match no
//                                process here; the machine's own, whatever namespace asks;
//                                those of the caller's container alone
//   bytes: self=na all=0 123=na  what a pid's record says instead of its bytes
//   lists: graphics=na mps=4MiB  what every record of one list says instead of its bytes
//   records: v1=16 v2=24 v3=32   size of the records that each list function writes
//   missing: nvmlA nvmlB         symbols that are not there (done by memacct.sim, not here)
#pragma once
#include <cstdint>
#include <optional>

#include "account.hpp"

namespace memacct::sim {

/// To be called first in each simulated function. Carries out latency and charges that are
/// due in this call; returns the code that the call shall fail with, if any.
[[nodiscard]] MEMACCT_SIM_API std::optional<int> fault_in_call(char const* function);

enum class PidWorld { Own, Host, Outer, Hidden };

constexpr uint64_t kNotAvailable = ~uint64_t{0};  // NVML_VALUE_NOT_AVAILABLE

[[nodiscard]] MEMACCT_SIM_API PidWorld pid_world();
/// Bytes of a process's record in one list: its own, or what a `bytes` or `lists` rule says.
[[nodiscard]] MEMACCT_SIM_API uint64_t listed_bytes(ProcessUsage const& usage, List list);
/// The number under which a process is listed; nullopt if it is not.
[[nodiscard]] MEMACCT_SIM_API std::optional<unsigned> listed_pid(ProcessUsage const& usage);
/// Size of the records of list functions of version 1 (no suffix), 2 or 3.
[[nodiscard]] MEMACCT_SIM_API unsigned record_bytes(int version);

}  // namespace memacct::sim
