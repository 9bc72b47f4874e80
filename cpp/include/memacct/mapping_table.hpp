// What is known of a process's mappings: a row a mapping, a table of their paths, and which
// columns the source told.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace memacct {

/// What a mapping is made of. The order is part of the public surface (the rows' `kind`).
enum class MappingKind : std::uint8_t {
  kHeap,       // the brk heap
  kStack,      // the main thread's stack
  kAnon,       // anonymous memory without a name: mmap'ed arenas, threads' stacks
  kNamedAnon,  // anonymous memory that the program has named (PR_SET_VMA_ANON_NAME)
  kFile,       // a file on a disk: page cache
  kLibrary,    // a shared object or an executable: by its name, or because part of it can run
  kShmem,      // shared memory without a path in /dev/shm: memfd, shared anonymous, System V,
               // and files on any other tmpfs
  kDevShm,     // a file in /dev/shm
  kHugetlb,    // pages of a hugetlb pool; in neither rss nor pss
  kDevice,     // a device node (/dev/nvidia*), or a driver's object without a path
  kSpecial,    // the kernel's own: vdso, vvar, vsyscall
};
inline constexpr std::size_t kMappingKindCount = 11;

/// The sizes of a mapping, in bytes. The order is that of smaps.
enum class Size : std::uint8_t {
  kVms,
  kKernelPage,
  kMmuPage,
  kRss,
  kPss,
  kPssDirty,
  kSharedClean,
  kSharedDirty,
  kPrivateClean,
  kPrivateDirty,
  kReferenced,
  kAnonymous,
  kKsm,
  kLazyFree,
  kAnonHuge,
  kShmemHuge,
  kFileHuge,
  kSharedHugetlb,
  kPrivateHugetlb,
  kSwap,
  kSwapPss,
  kLocked,
  // Derived from the others: no line of smaps. rss = held - hugetlb + reclaimable.
  kHeld,
  kReclaimable,
};
inline constexpr std::size_t kSizeCount = 24;

/// A size's line in smaps and its column's name. The derived ones have no line.
struct SizeInfo {
  std::string_view key;
  char const* name;
};
inline constexpr std::array<SizeInfo, kSizeCount> kSizes{{
    {"Size", "vms_bytes"},
    {"KernelPageSize", "kernel_page_bytes"},
    {"MMUPageSize", "mmu_page_bytes"},
    {"Rss", "rss_bytes"},
    {"Pss", "pss_bytes"},
    {"Pss_Dirty", "pss_dirty_bytes"},
    {"Shared_Clean", "shared_clean_bytes"},
    {"Shared_Dirty", "shared_dirty_bytes"},
    {"Private_Clean", "private_clean_bytes"},
    {"Private_Dirty", "private_dirty_bytes"},
    {"Referenced", "referenced_bytes"},
    {"Anonymous", "anonymous_bytes"},
    {"KSM", "ksm_bytes"},
    {"LazyFree", "lazy_free_bytes"},
    {"AnonHugePages", "anon_huge_bytes"},
    {"ShmemPmdMapped", "shmem_huge_bytes"},
    {"FilePmdMapped", "file_huge_bytes"},
    {"Shared_Hugetlb", "shared_hugetlb_bytes"},
    {"Private_Hugetlb", "private_hugetlb_bytes"},
    {"Swap", "swap_bytes"},
    {"SwapPss", "swap_pss_bytes"},
    {"Locked", "locked_bytes"},
    {"", "held_bytes"},
    {"", "reclaimable_bytes"},
}};

/// A set of columns that may be unknown: a bit per Size, then these.
using Columns = std::uint32_t;
inline constexpr Columns kVmFlagsColumn = Columns{1} << 24U;
inline constexpr Columns kThpEligibleColumn = Columns{1} << 25U;
inline constexpr Columns kProtectionKeyColumn = Columns{1} << 26U;
[[nodiscard]] constexpr Columns column(Size size) noexcept {
  return Columns{1} << static_cast<unsigned>(size);
}

/// Bits of Mapping::perms.
inline constexpr std::uint8_t kRead = 1;
inline constexpr std::uint8_t kWrite = 2;
inline constexpr std::uint8_t kExecute = 4;
inline constexpr std::uint8_t kShared = 8;  // MAP_SHARED; else private

/// The two-letter codes of VmFlags; a code's place here is its bit in Mapping::vm_flags.
/// Source: fs/proc/task_mmu.c, show_smap_vma_flags(), Linux 6.18. Only ever appended to.
inline constexpr std::array<std::string_view, 44> kVmFlagCodes{
    {"rd", "wr", "ex", "sh", "mr", "mw", "me", "ms", "gd", "pf", "dw", "lo", "io", "sr", "rr",
     "dc", "de", "lf", "ac", "nr", "ht", "sf", "nl", "ar", "wf", "dd", "sd", "mm", "hg", "nh",
     "mg", "bt", "mt", "um", "uw", "ui", "ss", "sl", "dp", "gu", "mp", "nn", "sb", "ra"}};
inline constexpr unsigned kOtherVmFlagBit = 63;  // a code that is not listed here

struct Mapping {
  std::uint64_t start{};  // addresses: [start, end)
  std::uint64_t end{};
  std::uint64_t offset{};  // in the file
  std::uint64_t inode{};   // 0: no file
  std::uint64_t vm_flags{};
  std::uint32_t dev_major{};
  std::uint32_t dev_minor{};
  std::int32_t path_index{-1};  // in MappingTable::paths; -1: no name
  MappingKind kind{};
  std::uint8_t perms{};
  std::uint8_t deleted{};  // the file's name is gone (unlinked or replaced)
  std::uint8_t thp_eligible{};
  std::uint8_t protection_key{};
  std::array<std::uint64_t, kSizeCount> sizes{};

  [[nodiscard]] std::uint64_t& operator[](Size size) noexcept {
    return sizes[static_cast<std::size_t>(size)];
  }
  [[nodiscard]] std::uint64_t operator[](Size size) const noexcept {
    return sizes[static_cast<std::size_t>(size)];
  }
  bool operator==(Mapping const&) const = default;
};

enum class MappingSource : std::uint8_t {
  kSmaps,    // /proc/<pid>/smaps: every column
  kPagemap,  // PROCMAP_QUERY and PAGEMAP_SCAN: vms, page size and rss only
};

struct MappingTable {
  MappingSource source{};
  std::int32_t pid{};
  Columns columns{};          // what is not in it is unknown in every row
  std::vector<Mapping> rows;  // by address; no two overlap
  /// Names of files and of special memory, each once. As bytes: the kernel's escape of a newline
  /// (\012) is undone, " (deleted)" is in Mapping::deleted instead.
  std::vector<std::string> paths;
  /// Fields that the kernel wrote and this memacct does not know.
  std::vector<std::string> unread_fields;

  [[nodiscard]] bool has(Size size) const noexcept { return (columns & column(size)) != 0; }
  bool operator==(MappingTable const&) const = default;
};

}  // namespace memacct
