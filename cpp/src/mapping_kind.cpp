#include "memacct/mapping_kind.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "memacct/text.hpp"

namespace memacct {
namespace {

constexpr char const* kMountinfo = "/proc/self/mountinfo";

/// Whether the base name says "shared object": x.so, x.so.1, x.so.1.2.3.
bool names_library(std::string_view path) noexcept {
  auto const base = path.substr(path.rfind('/') + 1);
  for (auto at = base.find(".so"); at != std::string_view::npos; at = base.find(".so", at + 1)) {
    auto const rest = base.substr(at + 3);
    if (at > 0 && (rest.empty() || rest.front() == '.')) return true;
  }
  return false;
}

struct Prefix {
  std::string_view text;
  MappingKind kind;
};
// The first that fits. What is in brackets is the kernel's; the kernel's own mounts (memfd, SysV,
// shared anonymous memory, hugetlb) have names without a real path.
constexpr std::array<Prefix, 19> kPrefixes{{{"[heap]", MappingKind::kHeap},
                                            {"[stack]", MappingKind::kStack},
                                            {"[stack:", MappingKind::kStack},
                                            {"[anon:", MappingKind::kNamedAnon},
                                            {"[anon_shmem:", MappingKind::kShmem},
                                            {"[", MappingKind::kSpecial},
                                            {"/memfd:", MappingKind::kShmem},
                                            {"/SYSV", MappingKind::kShmem},
                                            {"/anon_hugepage", MappingKind::kHugetlb},
                                            {"/dev/shm/", MappingKind::kDevShm},
                                            {"/dev/hugepages/", MappingKind::kHugetlb},
                                            {"/dev/", MappingKind::kDevice},
                                            {"/dmabuf:", MappingKind::kDevice},
                                            {"/drm mm object", MappingKind::kDevice},
                                            {"/i915", MappingKind::kDevice},
                                            {"anon_inode:", MappingKind::kDevice},
                                            {"socket:", MappingKind::kDevice},
                                            {"/[aio]", MappingKind::kAnon},
                                            {"/", MappingKind::kFile}}};

/// A regular file under /dev: a container's volume. A node is on a file system without a disk, or
/// its driver marks the mapping.
bool is_on_a_disk(Mapping const& row) noexcept {
  constexpr auto kDriverFlags =
      (std::uint64_t{1} << 12U) | (std::uint64_t{1} << 9U) | (std::uint64_t{1} << 27U);
  static_assert(kVmFlagCodes[12] == "io" && kVmFlagCodes[9] == "pf" && kVmFlagCodes[27] == "mm");
  return row.inode != 0 && row.dev_major != 0 && (row.vm_flags & kDriverFlags) == 0;
}

/// A file by the file system that it lies on.
MappingKind kind_of_file(MappingKind by_name, bool is_program, bool on_a_disk,
                         std::string const* type) noexcept {
  auto const otherwise = is_program ? MappingKind::kLibrary : MappingKind::kFile;
  if (on_a_disk) return otherwise;
  if (type != nullptr && *type == "hugetlbfs") return MappingKind::kHugetlb;
  if (by_name == MappingKind::kDevShm) {
    return type == nullptr || *type == "tmpfs" ? by_name : otherwise;
  }
  if (type != nullptr && *type == "tmpfs") return MappingKind::kShmem;
  return otherwise;
}

MappingKind kind_of_name(std::string_view name, bool shared) noexcept {
  // A private mapping of /dev/zero is anonymous memory, a shared one is shmem.
  if (name == "/dev/zero") return shared ? MappingKind::kShmem : MappingKind::kAnon;
  for (auto const& prefix : kPrefixes) {
    if (name.starts_with(prefix.text)) return prefix.kind;
  }
  return MappingKind::kFile;
}

std::string unescaped_newlines(std::string_view text) {
  constexpr std::string_view kEscape = "\\012";
  std::string result;
  while (true) {
    auto const at = text.find(kEscape);
    result += text.substr(0, at);
    if (at == std::string_view::npos) return result;
    result += '\n';
    text.remove_prefix(at + kEscape.size());
  }
}

std::string_view take_word(std::string_view& text) noexcept {
  auto const word = text.substr(0, text.find(' '));
  text.remove_prefix(std::min(text.size(), word.size() + 1));
  return word;
}

std::uint64_t value_if(MappingTable const& table, Mapping const& row, Size size) noexcept {
  return table.has(size) ? row[size] : 0;
}

bool all_of_it_is_held(Mapping const& row, bool locked) noexcept {
  switch (row.kind) {
    case MappingKind::kShmem:
    case MappingKind::kDevShm:
    case MappingKind::kDevice:
    case MappingKind::kSpecial:
      return true;
    default:
      return locked;
  }
}

}  // namespace

MappingName parse_mapping_name(std::string_view text) {
  constexpr std::string_view kDeleted = " (deleted)";
  auto const deleted = text.ends_with(kDeleted) && text.starts_with('/');
  if (deleted) text.remove_suffix(kDeleted.size());
  return {.path = unescaped_newlines(text), .deleted = deleted};
}

MountedTypes parse_mounted_types(std::string_view mountinfo) {
  MountedTypes types;
  while (!mountinfo.empty()) {
    // "36 35 98:0 /root /mount/point options optional-fields... - type source super-options"
    auto line = take_line(mountinfo, kMountinfo);
    auto const whole = line;
    take_word(line);
    take_word(line);
    auto const device = take_word(line);
    auto const colon = device.find(':');
    auto const separator = line.find(" - ");
    if (colon == std::string_view::npos || separator == std::string_view::npos) {
      throw_format(kMountinfo, "no device or no file system type", whole);
    }
    auto const major = parse_number(device.substr(0, colon));
    auto const minor = parse_number(device.substr(colon + 1));
    if (!major || !minor || *major > UINT32_MAX || *minor > UINT32_MAX) {
      throw_format(kMountinfo, "no device number", whole);
    }
    line.remove_prefix(separator + 3);
    types.try_emplace({static_cast<std::uint32_t>(*major), static_cast<std::uint32_t>(*minor)},
                      take_word(line));
  }
  return types;
}

bool needs_mounted_types(MappingTable const& table) noexcept {
  // The kernel gives file systems without a disk (tmpfs, overlay, nfs) devices of major 0.
  return std::any_of(table.rows.begin(), table.rows.end(),
                     [](Mapping const& row) { return row.inode != 0 && row.dev_major == 0; });
}

void classify(MappingTable& table, MountedTypes const& mounted) {
  std::vector<char> is_program(table.paths.size(), 0);
  for (auto const& row : table.rows) {
    if (row.path_index < 0) continue;
    auto const index = static_cast<std::size_t>(row.path_index);
    if ((row.perms & kExecute) != 0) is_program[index] = 1;
  }
  for (std::size_t i = 0; i < table.paths.size(); ++i) {
    if (names_library(table.paths[i])) is_program[i] = 1;
  }
  constexpr auto kHugetlbFlag = std::uint64_t{1} << 20U;
  static_assert(kVmFlagCodes[20] == "ht");
  for (auto& row : table.rows) {
    if (row.path_index < 0) {
      row.kind = row.inode == 0 ? MappingKind::kAnon : MappingKind::kFile;
      continue;
    }
    auto const index = static_cast<std::size_t>(row.path_index);
    row.kind = kind_of_name(table.paths[index], (row.perms & kShared) != 0);
    if ((row.vm_flags & kHugetlbFlag) != 0) row.kind = MappingKind::kHugetlb;
    auto const on_a_disk = is_on_a_disk(row);
    if (row.kind == MappingKind::kDevice && on_a_disk) row.kind = MappingKind::kFile;
    if (row.kind != MappingKind::kFile && row.kind != MappingKind::kDevShm) continue;
    auto const type = mounted.find({row.dev_major, row.dev_minor});
    auto const is_listed = type != mounted.end();
    row.kind = kind_of_file(row.kind, is_program[index] != 0, on_a_disk,
                            is_listed ? &type->second : nullptr);
    // A file system without a disk that is mounted nowhere we can see (unmounted lazily, or another
    // namespace's): most are a tmpfs, whose pages nobody can drop.
    if (row.kind == MappingKind::kFile && !on_a_disk && row.inode != 0 && !is_listed &&
        !mounted.empty()) {
      row.kind = MappingKind::kShmem;
    }
  }
}

void split_held(MappingTable& table) noexcept {
  constexpr std::array<Size, 4> kNeeded{Size::kRss, Size::kSharedDirty, Size::kPrivateDirty,
                                        Size::kAnonymous};
  for (auto const size : kNeeded) {
    if (!table.has(size)) return;
  }
  constexpr auto kLockedFlag = std::uint64_t{1} << 11U;
  static_assert(kVmFlagCodes[11] == "lo");
  table.columns |= column(Size::kHeld) | column(Size::kReclaimable);
  for (auto& row : table.rows) {
    auto const rss = row[Size::kRss];
    auto const hugetlb =
        value_if(table, row, Size::kSharedHugetlb) + value_if(table, row, Size::kPrivateHugetlb);
    auto const anonymous = std::min(row[Size::kAnonymous], rss);
    auto const freed = std::min(value_if(table, row, Size::kLazyFree), anonymous);
    auto const dirty = row[Size::kSharedDirty] + row[Size::kPrivateDirty];
    auto const dirty_file = std::min(dirty > anonymous ? dirty - anonymous : 0, rss - anonymous);
    auto const locked = (row.vm_flags & kLockedFlag) != 0;
    auto const held = all_of_it_is_held(row, locked) ? rss : anonymous - freed + dirty_file;
    row[Size::kHeld] = held + hugetlb;
    row[Size::kReclaimable] = rss - held;
  }
}

}  // namespace memacct
