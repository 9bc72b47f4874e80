// Parsers of the files that say where a control group is and what it holds. Pure, and strict
// as those of proc_text.hpp.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace memacct {

/// The control group that accounts this process's memory, from /proc/self/cgroup.
struct CgroupName {
  int version{};     // 1: the hierarchy of the memory controller; 2: the unified one
  std::string path;  // as the file names it: relative to the cgroup namespace's root
  bool operator==(CgroupName const&) const = default;
};

/// nullopt if the process is in no hierarchy that could account memory.
[[nodiscard]] std::optional<CgroupName> parse_self_cgroup(std::string_view text);

/// One mounted cgroup hierarchy, from /proc/self/mountinfo.
struct CgroupMount {
  std::string root;  // the group that is visible at the mount point
  std::string mount_point;
  bool operator==(CgroupMount const&) const = default;
};

/// The mounts of the memory hierarchy of `version`, in the order of the file, without those
/// that a later one at the same point covers.
[[nodiscard]] std::vector<CgroupMount> parse_cgroup_mounts(std::string_view text, int version);

/// Where a group's files are.
struct CgroupFolder {
  std::string directory;
  std::string path;  // in the names of /proc/self/cgroup
  bool operator==(CgroupFolder const&) const = default;
};

/// The folders of the group `name` and its ancestors, as far as the first of `mounts` that
/// holds the group shows them; own group first. Empty if none does: a path with ".." lies
/// outside of the cgroup namespace.
[[nodiscard]] std::vector<CgroupFolder> find_cgroup_folders(CgroupName const& name,
                                                            std::vector<CgroupMount> const& mounts);

/// The one number in a cgroup file; nullopt if it says "no limit": "max" (v2), or v1's
/// largest number of whole pages, which is about 2^63. `source` names the file in errors.
[[nodiscard]] std::optional<std::uint64_t> parse_cgroup_number(std::string_view text,
                                                               std::string const& source);

/// The value of `key` in a cgroup's memory.stat; nullopt if there is no such line.
[[nodiscard]] std::optional<std::uint64_t> find_cgroup_stat(std::string_view text,
                                                            std::string_view key,
                                                            std::string const& source);

/// How often a group met its limits, since it was made. v2 counts what happened in it or below
/// (memory.events). v1 tells the last kill and the limit's hits, of the group alone.
struct CgroupEvents {
  std::optional<std::uint64_t> low_count;   // reclaimed although below memory.low
  std::optional<std::uint64_t> high_count;  // throttled above memory.high
  std::optional<std::uint64_t>
      max_count;  // about to exceed the limit; v1: memory.failcnt, memory.memsw.failcnt
  std::optional<std::uint64_t> oom_count;       // at the limit, and nothing was left to reclaim
  std::optional<std::uint64_t> oom_kill_count;  // processes killed, under any level's limit
  std::optional<std::uint64_t> oom_group_kill_count;  // Linux >= 5.17
  bool operator==(CgroupEvents const&) const = default;
};

/// memory.events (v2).
[[nodiscard]] CgroupEvents parse_cgroup_events(std::string_view text, std::string const& source);

}  // namespace memacct
