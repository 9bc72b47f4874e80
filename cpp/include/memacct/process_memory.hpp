// The memory of any process that we may read, and how far reading it came.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "memacct/host.hpp"

namespace memacct {

/// A process as it was found. The pid is our procfs's; with the start time it names the
/// process for ever.
struct TreeMember {
  std::uint32_t pid{};
  std::uint32_t parent_pid{};
  std::uint64_t start_ticks{};  // since boot
  std::uint32_t depth{};        // 0: asked for; 1: a child of one, ...
  bool operator==(TreeMember const&) const = default;
};

/// What became of reading a process.
enum class ProcessState : std::uint8_t {
  kWhole,    // "read": all that was asked for
  kPartial,  // less than asked for: smaps_rollup is denied (another user's), or not there
  kDenied,   // nothing of its memory
  kGone,     // it ended before it was read, or while it was
  kZombie,   // it has ended, or is about to, and holds no memory
  kKernel,   // a kernel thread: it has no memory of its own
  kTwin,     // "shared": it runs in its parent's address space (vfork, CLONE_VM), so it is counted
             // there
};

/// Low and high, both inclusive; what is not known is nullopt.
using Bounds = std::pair<std::optional<std::uint64_t>, std::optional<std::uint64_t>>;

struct ProcessMemory {
  std::uint32_t pid{};
  std::uint32_t parent_pid{};
  std::uint64_t start_ticks{};
  std::uint32_t depth{};
  ProcessState state{};
  std::string reason;  // why it is not kWhole, where an error tells; else empty
  std::string name;    // the command, at most 15 bytes
  std::string title;   // its arguments, or the title it gave itself; empty if it has none
  std::optional<std::string> role;
  std::optional<std::string> rank;
  std::optional<HostMemory> host;
  /// Hugetlb pages that only it maps: its end gives them back to their pool.
  std::optional<std::uint64_t> private_hugetlb_bytes;
  /// What its end would free at once of the pages that it maps (see freed_bounds).
  std::optional<Bounds> freed_bounds_bytes;
  bool operator==(ProcessMemory const&) const = default;
};

/// What the end of a process frees at once, of the pages that it maps. Pure.
/// Low: anonymous pages that nobody else maps. High: pss, in which such pages count whole and
/// those that others map count in part. In between lie the file and shmem pages that only this
/// process maps: page cache stays until it is reclaimed, a file in tmpfs until it is removed,
/// and only what was unlinked goes at once. uss is the single number between the two.
/// In neither: swap, hugetlb pages, the kernel's own memory (page tables, sockets), memory
/// of devices. A page that something else than a mapping holds (pinned for a device, in a pipe)
/// outlives the process.
/// Nullopt without the rollup tier. Law: low <= uss <= high.
[[nodiscard]] std::optional<Bounds> freed_bounds(HostMemory const& host) noexcept;

/// Reads one process. One that has another start time than `member` is kGone: its number was
/// given away. All files are read through one descriptor of /proc/<pid>, which never shows a
/// later process of that number.
/// @throws SourceReadError for other failures than "gone" and "denied" (no file descriptors),
///   SourceFormatError naming this process's file.
/// Cost: 14 system calls (counters, breakdown) or 17, ~40 us; the rollup walks the page tables.
/// Source: /proc/<pid>/{stat,cmdline,statm,status,smaps_rollup}; kcmp(2).
[[nodiscard]] ProcessMemory read_process(TreeMember const& member, HostTier tier);

}  // namespace memacct
