#include "memacct/cgroup.hpp"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "memacct/cgroup_text.hpp"
#include "memacct/proc_file.hpp"

namespace memacct {
namespace {

/// The names of one version's files. An empty name: that version has no such file.
struct Files {
  char const* limit;
  char const* high;
  char const* usage;
  char const* swap_limit;
  char const* swap_usage;
  char const* memsw_limit;
  char const* memsw_usage;
  char const* inactive_file;  // keys in memory.stat; v1's plain keys leave out the children
  char const* active_file;
  char const* swap;
};
constexpr Files kV1{.limit = "memory.limit_in_bytes",
                    .high = "",
                    .usage = "memory.usage_in_bytes",
                    .swap_limit = "",
                    .swap_usage = "",
                    .memsw_limit = "memory.memsw.limit_in_bytes",
                    .memsw_usage = "memory.memsw.usage_in_bytes",
                    .inactive_file = "total_inactive_file",
                    .active_file = "total_active_file",
                    .swap = "total_swap"};
constexpr Files kV2{.limit = "memory.max",
                    .high = "memory.high",
                    .usage = "memory.current",
                    .swap_limit = "memory.swap.max",
                    .swap_usage = "memory.swap.current",
                    .memsw_limit = "",
                    .memsw_usage = "",
                    .inactive_file = "inactive_file",
                    .active_file = "active_file",
                    .swap = ""};

using Bytes = std::optional<std::uint64_t>;

/// nullopt: there is no such file, or it says "no limit".
Bytes read_number(CgroupFolder const& folder, char const* file) {
  if (*file == '\0') return std::nullopt;
  auto const path = folder.directory + "/" + file;
  auto const text = read_file(path);
  return text ? parse_cgroup_number(*text, path) : std::nullopt;
}

Bytes smaller(Bytes a, Bytes b) {
  if (!a || !b) return a ? a : b;
  return std::min(*a, *b);
}

/// a - b, at least 0: the kernel sums the two at different times.
Bytes difference(Bytes a, Bytes b) {
  if (!a || !b) return std::nullopt;
  return *a - std::min(*a, *b);
}

/// The least of what the level's limits leave; nullopt if one of them leaves it unknown how much.
Bytes least_room(CgroupLevel const& level) {
  std::array<std::pair<Bytes, Bytes>, 3> const limits{
      {{level.limit_bytes, level.usage_bytes},
       {level.high_bytes, level.usage_bytes},
       {level.memsw_limit_bytes, level.memsw_usage_bytes}}};
  Bytes least;
  for (auto const& [limit, usage] : limits) {
    if (!limit) continue;
    auto const room = room_within(limit, usage, level);
    if (!room) return std::nullopt;
    least = smaller(least, room);
  }
  return least;
}

/// v1's memory.stat names the smallest limit over the group and all above it, those out of
/// sight included.
struct HierarchicalLimit {
  bool known = false;  // false: there is no such line
  Bytes limit_bytes;   // nullopt: unlimited
};

HierarchicalLimit find_hierarchical(std::string const& stat, char const* key,
                                    std::string const& path) {
  auto const value = find_cgroup_stat(stat, key, path);
  if (!value) return {};
  return {.known = true, .limit_bytes = parse_cgroup_number(std::to_string(*value) + "\n", path)};
}

/// The files to read of each level, given the own group's memory.stat: a limit that is
/// unlimited in the whole hierarchy is not looked for in each.
Files files_to_read(HierarchicalLimit const& memory, HierarchicalLimit const& memsw) {
  auto files = kV1;
  if (memory.known && !memory.limit_bytes) files.limit = "";
  if (memsw.known && !memsw.limit_bytes) files.memsw_limit = "";
  return files;
}

/// What `stat`, the memory.stat of the folder's group, and its other files say.
CgroupLevel read_level(CgroupFolder const& folder, Files const& files, std::string const& stat) {
  auto const path = folder.directory + "/memory.stat";
  CgroupLevel level{.path = folder.path,
                    .limit_bytes = read_number(folder, files.limit),
                    .high_bytes = read_number(folder, files.high),
                    .usage_bytes = read_number(folder, files.usage),
                    .inactive_file_bytes = find_cgroup_stat(stat, files.inactive_file, path),
                    .active_file_bytes = find_cgroup_stat(stat, files.active_file, path),
                    .swap_usage_bytes = *files.swap == '\0'
                                            ? read_number(folder, files.swap_usage)
                                            : find_cgroup_stat(stat, files.swap, path),
                    .swap_limit_bytes = read_number(folder, files.swap_limit),
                    .memsw_limit_bytes = read_number(folder, files.memsw_limit)};
  if (level.memsw_limit_bytes) level.memsw_usage_bytes = read_number(folder, files.memsw_usage);
  level.working_set_bytes = difference(level.usage_bytes, level.inactive_file_bytes);
  level.uncached_usage_bytes = difference(level.working_set_bytes, level.active_file_bytes);
  level.room_bytes = least_room(level);
  return level;
}

/// Fills the levels and the hidden limit; returns the folder of the first level.
std::optional<CgroupFolder> read_levels(CgroupMemory& memory,
                                        std::vector<CgroupFolder> const& folders) {
  std::optional<CgroupFolder> own;
  auto files = kV2;
  for (auto const& folder : folders) {
    auto const path = folder.directory + "/memory.stat";
    auto const stat = read_file(path);
    // A group without the controller is accounted in the nearest ancestor that has it.
    if (!stat) continue;
    if (!own && memory.version == 1) {
      auto const limit = find_hierarchical(*stat, "hierarchical_memory_limit", path);
      auto const memsw = find_hierarchical(*stat, "hierarchical_memsw_limit", path);
      files = files_to_read(limit, memsw);
      memory.hidden_limit_bytes = limit.limit_bytes;
    }
    if (!own) own = folder;
    memory.levels.push_back(read_level(folder, files, *stat));
  }
  // Hidden is only what is smaller than all that is visible.
  for (auto const& level : memory.levels) {
    if (level.limit_bytes && level.limit_bytes <= memory.hidden_limit_bytes) {
      memory.hidden_limit_bytes.reset();
    }
  }
  return own;
}

/// The level whose hard limit is reached first; nullptr if no level has one.
CgroupLevel const* find_binding(std::vector<CgroupLevel> const& levels) {
  CgroupLevel const* binding = nullptr;
  std::uint64_t least = 0;
  for (auto const& level : levels) {
    if (!level.limit_bytes) continue;
    // All of the limit if the usage is unknown.
    auto const room =
        room_within(level.limit_bytes, level.usage_bytes, level).value_or(*level.limit_bytes);
    // Of equal rooms the higher level's binds: others count against it too.
    if (binding != nullptr && room > least) continue;
    binding = &level;
    least = room;
  }
  return binding;
}

/// What the kernel counted in the folder's group, `level`; nullopt if it tells nothing.
std::optional<CgroupEvents> read_events(CgroupFolder const& folder, int version,
                                        CgroupLevel const& level) {
  if (version == 2) {
    auto const path = folder.directory + "/memory.events";
    auto const text = read_optional_file(path);
    return text ? std::optional(parse_cgroup_events(*text, path)) : std::nullopt;
  }
  CgroupEvents events;
  auto const path = folder.directory + "/memory.oom_control";
  auto const control = read_optional_file(path);
  if (control) events.oom_kill_count = find_cgroup_stat(*control, "oom_kill", path);
  events.max_count = read_number(folder, "memory.failcnt");
  // A charge fails at one of the two limits: what hits this one is not in the other's count.
  auto const both = level.memsw_limit_bytes ? read_number(folder, "memory.memsw.failcnt") : 0;
  if (events.max_count) *events.max_count += both.value_or(0);
  return events == CgroupEvents{} ? std::nullopt : std::optional(events);
}

std::optional<Pressure> read_pressure(CgroupFolder const& folder, int version) {
  if (version != 2) return std::nullopt;
  auto const path = folder.directory + "/memory.pressure";
  auto const text = read_optional_file(path);
  return text ? std::optional(parse_pressure(*text, path)) : std::nullopt;
}

/// Says in `memory` which of its levels binds, and what counts there.
void fill_binding(CgroupMemory& memory) {
  auto const* const binding = find_binding(memory.levels);
  for (auto const& level : memory.levels) {
    memory.high_bytes = smaller(memory.high_bytes, level.high_bytes);
  }
  auto const hidden = memory.hidden_limit_bytes;
  auto const room = binding == nullptr
                        ? std::nullopt
                        : room_within(binding->limit_bytes, binding->usage_bytes, *binding);
  if (hidden && (binding == nullptr || *hidden < room.value_or(*binding->limit_bytes))) {
    memory.limit_bytes = hidden;
    return;
  }
  auto const& level = binding == nullptr ? memory.levels.front() : *binding;
  if (binding != nullptr) {
    memory.limit_bytes = level.limit_bytes;
    memory.limit_path = level.path;
  }
  memory.usage_bytes = level.usage_bytes;
  memory.inactive_file_bytes = level.inactive_file_bytes;
  memory.active_file_bytes = level.active_file_bytes;
  memory.working_set_bytes = level.working_set_bytes;
  memory.uncached_usage_bytes = level.uncached_usage_bytes;
  memory.swap_usage_bytes = level.swap_usage_bytes;
}

}  // namespace

std::optional<std::uint64_t> room_within(std::optional<std::uint64_t> limit_bytes,
                                         std::optional<std::uint64_t> usage_bytes,
                                         CgroupLevel const& level) noexcept {
  auto const held = difference(usage_bytes, level.inactive_file_bytes.value_or(0));
  return difference(limit_bytes, difference(held, level.active_file_bytes.value_or(0)));
}

std::optional<CgroupMemory> read_cgroup(std::string const& root, pid_t pid) {
  auto const process = pid == 0 ? std::string("self") : std::to_string(pid);
  auto const self = read_file(root + "/proc/" + process + "/cgroup");
  auto const mountinfo = read_file(root + "/proc/self/mountinfo");
  if (!self || !mountinfo) return std::nullopt;
  auto const name = parse_self_cgroup(*self);
  if (!name) return std::nullopt;

  CgroupMemory memory{.version = name->version, .path = name->path};
  auto folders = find_cgroup_folders(*name, parse_cgroup_mounts(*mountinfo, name->version));
  for (auto& folder : folders) folder.directory.insert(0, root);
  auto const own = read_levels(memory, folders);
  if (!own) return std::nullopt;
  memory.events = read_events(*own, name->version, memory.levels.front());
  memory.pressure = read_pressure(*own, name->version);
  fill_binding(memory);
  return memory;
}

}  // namespace memacct
