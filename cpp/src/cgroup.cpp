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
struct Usage {
  std::optional<std::uint64_t> usage_bytes;
  std::optional<std::uint64_t> inactive_file_bytes;
  std::optional<std::uint64_t> active_file_bytes;
};

Usage read_usage(Level const& level, Files const& files) {
  Usage usage{.usage_bytes = read_number(level, files.usage)};
  auto const path = level.directory + "/memory.stat";
  auto const stat = read_file(path);
  if (!stat) return usage;
  usage.inactive_file_bytes = find_cgroup_stat(*stat, files.inactive_file, path);
  usage.active_file_bytes = find_cgroup_stat(*stat, files.active_file, path);
  return usage;
}

/// The level whose limit is reached first.
struct Binding {
  std::uint64_t limit_bytes = 0;
  std::optional<std::string> path;
  Usage usage;

  /// What still fits: page cache makes way. All of the limit if the usage is unknown.
  [[nodiscard]] std::uint64_t room_bytes() const {
    if (!usage.usage_bytes) return limit_bytes;
    auto const cache = usage.inactive_file_bytes.value_or(0) + usage.active_file_bytes.value_or(0);
    auto const kept = *usage.usage_bytes - std::min(*usage.usage_bytes, cache);
    return limit_bytes - std::min(limit_bytes, kept);
  }
};

/// v1 tells each group the smallest limit over all its ancestors, those above the mount
/// included. If that one is smaller than all that are visible, it is returned.
std::optional<std::uint64_t> read_hidden_limit(Level const& own,
                                               std::optional<std::uint64_t> smallest_visible) {
  auto const path = own.directory + "/memory.stat";
  auto const stat = read_file(path);
  if (!stat) return std::nullopt;
  auto const value = find_cgroup_stat(*stat, "hierarchical_memory_limit", path);
  if (!value) return std::nullopt;
  auto const limit = parse_cgroup_number(std::to_string(*value) + "\n", path);
  if (limit && smallest_visible && *smallest_visible <= *limit) return std::nullopt;
  return limit;
}

/// nullopt if no level has a limit.
std::optional<Binding> find_binding(std::vector<Level> const& levels, Files const& files,
                                    bool with_hidden) {
  std::optional<Binding> binding;
  std::optional<std::uint64_t> smallest;
  for (auto const& level : levels) {
    auto const limit = read_number(level, files.limit);
    if (!limit) continue;
    smallest = smaller(smallest, limit);
    Binding const here{
        .limit_bytes = *limit, .path = level.path, .usage = read_usage(level, files)};
    // Of equal rooms the higher level's binds: others count against it too.
    if (!binding || here.room_bytes() <= binding->room_bytes()) binding = here;
  }
  auto const hidden = with_hidden ? read_hidden_limit(levels.front(), smallest) : std::nullopt;
  // Whose usage counts against it is not visible.
  if (hidden && (!binding || *hidden < binding->room_bytes())) {
    binding = Binding{.limit_bytes = *hidden, .path = std::nullopt, .usage = {}};
  }
  return binding;
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
  for (auto const& level : levels) {
    memory.high_bytes = smaller(memory.high_bytes, read_number(level, files.high));
  }
  auto const binding = find_binding(levels, files, name->version == 1);
  if (binding) {
    memory.limit_bytes = binding->limit_bytes;
    memory.limit_path = binding->path;
  }
  auto const usage = binding ? binding->usage : read_usage(levels.front(), files);
  memory.usage_bytes = usage.usage_bytes;
  memory.inactive_file_bytes = usage.inactive_file_bytes;
  memory.active_file_bytes = usage.active_file_bytes;
  return memory;
}

}  // namespace memacct
