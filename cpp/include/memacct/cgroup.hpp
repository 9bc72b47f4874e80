// The memory limits of a process's control groups, and what counts against them.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "memacct/cgroup_text.hpp"
#include "memacct/system_text.hpp"

namespace memacct {

/// One group on the way from this process's own to the topmost that the mount shows. A limit
/// that is nullopt does not limit.
struct CgroupLevel {
  std::string path;  // in the names of /proc/self/cgroup
  std::optional<std::uint64_t> limit_bytes;
  std::optional<std::uint64_t> high_bytes;  // memory.high (v2): above it the kernel throttles
  std::optional<std::uint64_t> usage_bytes;
  // Page cache within usage, by the kernel's two lists. Some of it may be dirty or locked.
  std::optional<std::uint64_t> inactive_file_bytes;
  std::optional<std::uint64_t> active_file_bytes;
  /// usage - inactive_file, at least 0: what cAdvisor and the kubelet call the working set, by
  /// which pods are evicted.
  std::optional<std::uint64_t> working_set_bytes;
  /// usage - inactive_file - active_file, at least 0: what Ray's memory monitor goes by; what
  /// no reclaim of page cache gives back.
  std::optional<std::uint64_t> uncached_usage_bytes;
  /// Swapped out, so not in usage: memory.swap.current (v2), `total_swap` of memory.stat (v1).
  std::optional<std::uint64_t> swap_usage_bytes;
  std::optional<std::uint64_t> swap_limit_bytes;  // memory.swap.max (v2): of swap alone
  /// v1's memory.memsw.*: of memory and swap together. The usage is read only under a limit.
  std::optional<std::uint64_t> memsw_limit_bytes;
  std::optional<std::uint64_t> memsw_usage_bytes;
  /// What may still be taken before the first of the level's limits (max, high, memsw) is
  /// reached, if all page cache makes way. nullopt: no limit, or a usage is unknown.
  std::optional<std::uint64_t> room_bytes;
  bool operator==(CgroupLevel const&) const = default;
};

/// Of this process's group and its ancestors, as far as the mount shows them, the level that
/// binds is the one with the least room (limit - usage + page cache), not the one with the
/// smallest limit: a larger one that neighbours have filled is reached first. A level whose
/// usage is unknown counts with its whole limit. Limit and usage are both of that level;
/// without a limit, usage is that of the process's own group. `high_bytes` is the smallest.
///
/// This is of hard limits alone. What binds with memory.high, memsw and the machine counted
/// too, find_limits() of limits.hpp says.
struct CgroupMemory {
  int version{};     // 1 or 2
  std::string path;  // the group of this process, as /proc/self/cgroup names it
  std::optional<std::string> limit_path;     // the level that binds; nullopt if none does, or
                                             // if it lies above what the mount shows
  std::optional<std::uint64_t> limit_bytes;  // nullopt: unlimited
  std::optional<std::uint64_t> high_bytes;   // memory.high (v2): above it the kernel throttles
  std::optional<std::uint64_t> usage_bytes;  // this and the next five: as those of a level
  std::optional<std::uint64_t> inactive_file_bytes;
  std::optional<std::uint64_t> active_file_bytes;
  std::optional<std::uint64_t> working_set_bytes;
  std::optional<std::uint64_t> uncached_usage_bytes;
  std::optional<std::uint64_t> swap_usage_bytes;
  /// v1: the limit of a level above what the mount shows, if it is smaller than all that are
  /// visible. Whose usage counts against it is not visible.
  std::optional<std::uint64_t> hidden_limit_bytes;
  std::vector<CgroupLevel> levels;     // from the own group (or the nearest accounted one) upwards
  std::optional<Pressure> pressure;    // of levels[0]; nullopt: v1, or PSI is off
  std::optional<CgroupEvents> events;  // of levels[0]
  bool operator==(CgroupMemory const&) const = default;
};

/// Of the process `pid` (0: this one): nullopt if it is in no memory control group, or in one
/// that no mount shows, or if there is no such process. Where another's group lies is told by
/// this process's mounts, in whose names the kernel gives it.
/// `root` is prepended to every path, for tests on captured trees.
/// @throws SourceReadError, SourceFormatError; SourceUnavailableError if not permitted.
/// Cost: opens two files, up to six of each level and two of the own group; allocates.
/// 200 us at three levels (Linux 6.18, v1); the kernel sums memory.stat over CPUs.
/// Source: /proc/PID/cgroup, /proc/self/mountinfo; of each level memory.max, memory.high,
/// memory.current, memory.stat, memory.swap.{max,current} (v2) or memory.limit_in_bytes,
/// memory.usage_in_bytes, memory.stat, memory.memsw.{limit,usage}_in_bytes (v1); of the own
/// group memory.events, memory.pressure (v2) or memory.oom_control, memory.{,memsw.}failcnt (v1).
[[nodiscard]] std::optional<CgroupMemory> read_cgroup(std::string const& root = "", pid_t pid = 0);

/// Pure: what `limit_bytes` leaves above `usage_bytes` if the level's page cache, as far as it
/// is known, makes way. nullopt: no limit, or the usage is unknown.
[[nodiscard]] std::optional<std::uint64_t> room_within(std::optional<std::uint64_t> limit_bytes,
                                                       std::optional<std::uint64_t> usage_bytes,
                                                       CgroupLevel const& level) noexcept;

}  // namespace memacct
