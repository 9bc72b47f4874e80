// The memory limit that this process's control groups set, and what counts against it.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

namespace memacct {

/// Of this process's group and its ancestors, as far as the mount shows them, the level that
/// binds is the one with the least room (limit - usage + page cache), not the one with the
/// smallest limit: a larger one that neighbours have filled is reached first. A level whose
/// usage is unknown counts with its whole limit. Limit and usage are both of that level;
/// without a limit, usage is that of the process's own group. `high_bytes` is the smallest.
struct CgroupMemory {
  int version{};     // 1 or 2
  std::string path;  // the group of this process, as /proc/self/cgroup names it
  std::optional<std::string> limit_path;     // the level that binds; nullopt if none does, or
                                             // if it lies above what the mount shows
  std::optional<std::uint64_t> limit_bytes;  // nullopt: unlimited
  std::optional<std::uint64_t> high_bytes;   // memory.high (v2): above it the kernel throttles
  std::optional<std::uint64_t> usage_bytes;
  // Page cache within usage, by the kernel's two lists. usage - inactive_file is the working
  // set that container runtimes report; subtracting active_file too leaves what no reclaim
  // of cache gives back.
  std::optional<std::uint64_t> inactive_file_bytes;
  std::optional<std::uint64_t> active_file_bytes;
  bool operator==(CgroupMemory const&) const = default;
};

/// nullopt if this process is in no memory control group, or in one that no mount shows.
/// `root` is prepended to every path, for tests on captured trees.
/// @throws SourceReadError, SourceFormatError; SourceUnavailableError if not permitted.
/// Cost: opens about ten files, more with deep nesting and several limits; allocates; 50-200 us.
/// Source: /proc/self/cgroup, /proc/self/mountinfo, and of each level memory.max,
/// memory.high, memory.current, memory.stat (v2) or memory.limit_in_bytes,
/// memory.usage_in_bytes, memory.stat (v1).
[[nodiscard]] std::optional<CgroupMemory> read_cgroup(std::string const& root = "");

}  // namespace memacct
