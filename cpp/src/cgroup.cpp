#include "memacct/cgroup.hpp"

#include <unistd.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "memacct/cgroup_text.hpp"
#include "memacct/proc_file.hpp"

namespace memacct {
namespace {

/// The names of one version's files. An empty name: that version has no such file.
struct Files {
  char const* limit;
  char const* high;
  char const* usage;
  char const* inactive_file;  // keys in memory.stat; v1's plain keys leave out the children
  char const* active_file;
};
constexpr Files kV1{"memory.limit_in_bytes", "", "memory.usage_in_bytes", "total_inactive_file",
                    "total_active_file"};
constexpr Files kV2{"memory.max", "memory.high", "memory.current", "inactive_file", "active_file"};

/// A group on the way from this process's own to the topmost that the mount shows.
struct Level {
  std::string directory;
  std::string path;  // in the names of /proc/self/cgroup
};

/// What lies below `root` in `path`; nullopt if nothing does. "/" is above everything.
std::optional<std::string_view> below(std::string_view path, std::string_view root) {
  if (root == "/") root = "";
  if (!path.starts_with(root)) return std::nullopt;
  auto rest = path.substr(root.size());
  if (!rest.empty() && !rest.starts_with('/')) return std::nullopt;
  return rest == "/" ? "" : rest;
}

/// Own group first. Empty if no mount shows the group: a path with ".." lies outside of the
/// cgroup namespace.
std::vector<Level> find_levels(std::string const& root, CgroupName const& name,
                               std::vector<CgroupMount> const& mounts) {
  std::vector<Level> levels;
  if (name.path.find("/..") != std::string::npos) return levels;
  for (auto const& mount : mounts) {
    auto const rest = below(name.path, mount.root);
    if (!rest) continue;
    auto relative = std::string(*rest);
    while (true) {
      auto path = (mount.root == "/" ? "" : mount.root) + relative;
      levels.push_back({.directory = root + mount.mount_point + relative,
                        .path = path.empty() ? "/" : std::move(path)});
      if (relative.empty()) return levels;
      relative.resize(relative.rfind('/'));
    }
  }
  return levels;
}

bool has_controller(Level const& level) {
  return ::access((level.directory + "/memory.stat").c_str(), F_OK) == 0;
}

/// nullopt: there is no such file, or it says "no limit".
std::optional<std::uint64_t> read_number(Level const& level, char const* file) {
  if (*file == '\0') return std::nullopt;
  auto const path = level.directory + "/" + file;
  auto const text = read_file(path);
  return text ? parse_cgroup_number(*text, path) : std::nullopt;
}

std::optional<std::uint64_t> smaller(std::optional<std::uint64_t> a,
                                     std::optional<std::uint64_t> b) {
  if (!a || !b) return a ? a : b;
  return std::min(*a, *b);
}

/// Usage and page cache of one level.
void read_usage(CgroupMemory& memory, Level const& level, Files const& files) {
  memory.usage_bytes = read_number(level, files.usage);
  auto const path = level.directory + "/memory.stat";
  auto const stat = read_file(path);
  if (!stat) return;
  memory.inactive_file_bytes = find_cgroup_stat(*stat, files.inactive_file, path);
  memory.active_file_bytes = find_cgroup_stat(*stat, files.active_file, path);
}

/// v1 tells each group the smallest limit over all its ancestors, those above the mount
/// included. If that one binds, whose usage counts against it is not visible.
void apply_hidden_limit(CgroupMemory& memory, Level const& own) {
  auto const path = own.directory + "/memory.stat";
  auto const stat = read_file(path);
  if (!stat) return;
  auto const value = find_cgroup_stat(*stat, "hierarchical_memory_limit", path);
  if (!value) return;
  auto const limit = parse_cgroup_number(std::to_string(*value) + "\n", path);
  if (!limit || (memory.limit_bytes && *memory.limit_bytes <= *limit)) return;
  memory.limit_bytes = limit;
  memory.limit_path.reset();
  memory.usage_bytes.reset();
  memory.inactive_file_bytes.reset();
  memory.active_file_bytes.reset();
}

}  // namespace

std::optional<CgroupMemory> read_cgroup(std::string const& root) {
  auto const self = read_file(root + "/proc/self/cgroup");
  auto const mountinfo = read_file(root + "/proc/self/mountinfo");
  if (!self || !mountinfo) return std::nullopt;
  auto const name = parse_self_cgroup(*self);
  if (!name) return std::nullopt;
  auto levels = find_levels(root, *name, parse_cgroup_mounts(*mountinfo, name->version));
  // A group without the controller is accounted in the nearest ancestor that has it.
  std::erase_if(levels, [](Level const& level) { return !has_controller(level); });
  if (levels.empty()) return std::nullopt;

  auto const& files = name->version == 1 ? kV1 : kV2;
  CgroupMemory memory{.version = name->version, .path = name->path};
  auto const* binding = &levels.front();
  for (auto const& level : levels) {
    auto const limit = read_number(level, files.limit);
    memory.high_bytes = smaller(memory.high_bytes, read_number(level, files.high));
    // Of equal limits the higher level's binds: others count against it too.
    if (!limit || (memory.limit_bytes && *limit > *memory.limit_bytes)) continue;
    memory.limit_bytes = limit;
    memory.limit_path = level.path;
    binding = &level;
  }
  read_usage(memory, *binding, files);
  if (name->version == 1) apply_hidden_limit(memory, levels.front());
  return memory;
}

}  // namespace memacct
