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

/// The mounts of the memory hierarchy of `version`, in the order of the file.
[[nodiscard]] std::vector<CgroupMount> parse_cgroup_mounts(std::string_view text, int version);

/// The one number in a cgroup file; nullopt if it says "no limit": "max" (v2), or v1's
/// largest number of whole pages, which is about 2^63. `source` names the file in errors.
[[nodiscard]] std::optional<std::uint64_t> parse_cgroup_number(std::string_view text,
                                                               std::string const& source);

/// The value of `key` in a cgroup's memory.stat; nullopt if there is no such line.
[[nodiscard]] std::optional<std::uint64_t> find_cgroup_stat(std::string_view text,
                                                            std::string_view key,
                                                            std::string const& source);

}  // namespace memacct
