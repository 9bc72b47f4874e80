#include "memacct/cgroup_text.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "memacct/text.hpp"
#include "memacct/units.hpp"

namespace memacct {
namespace {

constexpr char const* kSelfCgroup = "/proc/self/cgroup";
constexpr char const* kMountinfo = "/proc/self/mountinfo";

// v1 writes "unlimited" as the largest signed 64-bit number, rounded down to whole pages of
// whatever size; no machine has memory within a MiB of it.
constexpr std::uint64_t kUnlimitedV1 = (std::uint64_t{1} << 63U) - kMiB;

/// Takes what precedes `separator` off `text`; all of it if there is no separator left.
std::string_view take_until(std::string_view& text, char separator) {
  auto const end = text.find(separator);
  auto const part = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return part;
}

bool lists(std::string_view names, std::string_view name) {
  while (!names.empty()) {
    if (take_until(names, ',') == name) return true;
  }
  return false;
}

/// mountinfo writes space, tab, newline and backslash in a path as \040, \011, \012, \134.
std::string unescaped(std::string_view path) {
  auto const is_octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string result;
  for (std::size_t i = 0; i < path.size(); ++i) {
    auto const code = path.substr(i + 1, 3);
    if (path[i] == '\\' && code.size() == 3 && std::ranges::all_of(code, is_octal)) {
      result += static_cast<char>((code[0] - '0') * 64 + (code[1] - '0') * 8 + (code[2] - '0'));
      i += 3;
    } else {
      result += path[i];
    }
  }
  return result;
}

/// What lies below `root` in `path`; nullopt if nothing does. "/" is above everything.
std::optional<std::string_view> below(std::string_view path, std::string_view root) {
  if (root == "/") root = "";
  if (!path.starts_with(root)) return std::nullopt;
  auto rest = path.substr(root.size());
  if (!rest.empty() && !rest.starts_with('/')) return std::nullopt;
  return rest == "/" ? "" : rest;
}

}  // namespace

std::optional<CgroupName> parse_self_cgroup(std::string_view text) {
  std::optional<CgroupName> unified;
  std::optional<CgroupName> memory;
  while (!text.empty()) {
    auto const line = take_line(text, kSelfCgroup);
    auto path = line;  // a path may hold colons: only the first two separate
    auto const hierarchy = parse_number(take_until(path, ':'));
    auto const controllers = take_until(path, ':');
    if (!hierarchy || !path.starts_with('/')) {
      throw_format(kSelfCgroup, "not hierarchy:controllers:/path", line);
    }
    if (*hierarchy == 0) unified = CgroupName{.version = 2, .path = std::string(path)};
    if (lists(controllers, "memory")) memory = CgroupName{.version = 1, .path = std::string(path)};
  }
  // A controller is in one hierarchy only: if a v1 hierarchy has it, the unified one has not.
  return memory ? memory : unified;
}

std::vector<CgroupMount> parse_cgroup_mounts(std::string_view text, int version) {
  std::vector<CgroupMount> mounts;
  while (!text.empty()) {
    auto const line = take_line(text, kMountinfo);
    // id parent major:minor root mount_point options [optional ...] - type source super_options
    auto const dash = line.find(" - ");
    if (dash == std::string_view::npos) throw_format(kMountinfo, "no file system type", line);
    auto head = line.substr(0, dash);
    auto tail = line.substr(dash + 3);
    auto const type = take_until(tail, ' ');
    if (type != (version == 1 ? "cgroup" : "cgroup2")) continue;
    take_until(tail, ' ');
    if (version == 1 && !lists(tail, "memory")) continue;
    std::array<std::string_view, 5> parts;
    for (auto& part : parts) part = take_until(head, ' ');
    if (parts[4].empty()) throw_format(kMountinfo, "no mount point", line);
    CgroupMount mount{.root = unescaped(parts[3]), .mount_point = unescaped(parts[4])};
    // A later mount at the same point covers the earlier one.
    std::erase_if(mounts,
                  [&](auto const& other) { return other.mount_point == mount.mount_point; });
    mounts.push_back(std::move(mount));
  }
  return mounts;
}

std::vector<CgroupFolder> find_cgroup_folders(CgroupName const& name,
                                              std::vector<CgroupMount> const& mounts) {
  std::vector<CgroupFolder> folders;
  if (name.path.find("/..") != std::string::npos) return folders;
  for (auto const& mount : mounts) {
    auto const rest = below(name.path, mount.root);
    if (!rest) continue;
    auto relative = std::string(*rest);
    while (true) {
      auto path = (mount.root == "/" ? "" : mount.root) + relative;
      folders.push_back({.directory = mount.mount_point + relative,
                         .path = path.empty() ? "/" : std::move(path)});
      if (relative.empty()) return folders;
      relative.resize(relative.rfind('/'));
    }
  }
  return folders;
}

std::optional<std::uint64_t> parse_cgroup_number(std::string_view text, std::string const& source) {
  auto const line = take_line(text, source);
  if (!text.empty()) throw_format(source, "more than one line", text);
  if (line == "max") return std::nullopt;
  auto const value = parse_number(line);
  if (!value) throw_format(source, "neither a number nor max", line);
  return *value >= kUnlimitedV1 ? std::nullopt : value;
}

std::optional<std::uint64_t> find_cgroup_stat(std::string_view text, std::string_view key,
                                              std::string const& source) {
  while (!text.empty()) {
    auto const line = take_line(text, source);
    auto rest = line;
    if (take_until(rest, ' ') != key) continue;
    auto const value = parse_number(rest);
    if (!value) throw_format(source, "not a name and a number", line);
    return value;
  }
  return std::nullopt;
}

CgroupEvents parse_cgroup_events(std::string_view text, std::string const& source) {
  auto const count = [&](std::string_view key) { return find_cgroup_stat(text, key, source); };
  return {.low_count = count("low"),
          .high_count = count("high"),
          .max_count = count("max"),
          .oom_count = count("oom"),
          .oom_kill_count = count("oom_kill"),
          .oom_group_kill_count = count("oom_group_kill")};
}

}  // namespace memacct
