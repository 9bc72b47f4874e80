// Neighbours that move inside this process's own NVML calls, by a plan that the process gives
// itself: thousands of schedules a second, the same each time, and a log of what was true when.
// The processes are real ones; what they hold is changed for them, as by MEMACCT_SIM_FAULTS'
// `charge`. With 0 bytes a process is not listed: it appears, and is gone again.
#pragma once
#include <cstddef>
#include <cstdint>

#include "config.hpp"

namespace memacct::sim {

struct Move {
  uint32_t call = 0;  // before that NVML call, counted from 0 since the plan was given
  int32_t pid = 0;    // 0: what nobody holds
  int64_t delta_bytes = 0;
};

constexpr size_t kLoggedProcesses = 8;

/// All of device 0 from one instant to the next.
struct Instant {
  uint32_t call = 0;  // the first that found it so
  uint32_t processes_count = 0;
  uint64_t free_bytes = 0;
  uint64_t unattributed_bytes = 0;
  struct {
    int64_t pid = 0;
    uint64_t bytes = 0;
  } processes[kLoggedProcesses];  // those that hold something
};

/// To be called first in each NVML function. Does nothing without a plan.
MEMACCT_SIM_API void carry_out_moves(char const* function);

}  // namespace memacct::sim

extern "C" {
/// Replaces the plan; `moves` are sorted by call. What was not reached of the last one is dropped.
MEMACCT_SIM_API void memacct_sim_plan(memacct::sim::Move const* moves, size_t count);
/// Copies the log since the plan was given, its first entry the state at that time; returns the
/// number of entries. With `count` 0 the plan ends.
MEMACCT_SIM_API size_t memacct_sim_log(memacct::sim::Instant* out, size_t count);
}
