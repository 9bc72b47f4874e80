// What a mapping is, from its name, and what of it is held. Pure.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "memacct/mapping_table.hpp"

namespace memacct {

/// A mapping's name as the kernel writes it, taken apart.
struct MappingName {
  std::string path;  // newlines unescaped, without " (deleted)"
  bool deleted = false;
};
/// A file that is literally called "x (deleted)" or has "\012" in its name reads the same as one
/// that was deleted, or whose name has a newline: the kernel's text does not tell them apart.
[[nodiscard]] MappingName parse_mapping_name(std::string_view text);

/// Device number (major, minor) -> file system type, of the mounts that matter here (tmpfs).
using MountedTypes = std::map<std::pair<std::uint32_t, std::uint32_t>, std::string>;
/// From /proc/<pid>/mountinfo. @throws SourceFormatError.
[[nodiscard]] MountedTypes parse_mounted_types(std::string_view mountinfo);

/// Sets `kind` of every row, from its path, device, perms and (if known) page size and flags.
/// A file is a library if its name says so (".so", also with a version after it) or if any of
/// its mappings in the table may be executed. A file on a device without a disk that `mounted`
/// (if it has any) does not list is taken for shmem: the side on which memory is held.
void classify(MappingTable& table, MountedTypes const& mounted);

/// Whether classify() would look at `mounted`: some file lies on a device without a disk.
[[nodiscard]] bool needs_mounted_types(MappingTable const& table) noexcept;

/// Sets held and reclaimable of every row, if the columns that they come from are known.
///
/// Held is what the kernel cannot drop: anonymous pages without those that were freed lazily
/// (MADV_FREE), shmem and hugetlb pages, dirty file pages, everything in locked mappings, devices'
/// and the kernel's own pages. The rest of rss is clean page cache and lazily freed pages:
/// reclaimable. As in rss, a page counts whole in each process and in each mapping that has it.
/// Limit: in a private file mapping whose anonymous pages are partly clean (read back from
/// swap), dirty page cache of up to that size can hide behind them.
void split_held(MappingTable& table) noexcept;

}  // namespace memacct
