// The memory of whole process trees, each page counted once.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "memacct/process_memory.hpp"

namespace memacct {

/// The members of some trees at one moment, roots first, each followed by its descendants in
/// the order of their start.
struct TreeMembers {
  std::vector<TreeMember> members;
  bool settled = false;  // the last look at /proc found no new member
  /// /proc lists a process that it does not let us look at (hidepid=1). Whether that one is a
  /// member cannot be told.
  bool hides_some = false;
  /// No process of /proc outside the trees can map an anonymous page of a member: such pages are
  /// shared only by fork() without exec, and by KSM. So each root has called exec, and nobody
  /// outside was forked from a member (and left the tree) without having called it since.
  /// False where that cannot be told, as where /proc hides some.
  bool anonymous_pages_own = false;
};

/// Looks through /proc until no new member appears, at most eight times.
///
/// Not found: a process whose parent had ended before it was looked at (the kernel then gives
/// it to init or to a subreaper), and one that /proc does not even list (hidepid=2). One that was
/// made after the last look is a matter of a later snapshot.
///
/// @throws std::invalid_argument if a root is not there, or is a thread;
///   SourceUnavailableError if it may not be looked at, or there is no /proc; SourceReadError
///   if any process cannot be looked at for another reason (out of file descriptors);
///   SourceFormatError if the stat of one is not understood.
/// Cost: ~10 us a process of the machine.
/// Source: /proc/<pid>/stat.
[[nodiscard]] TreeMembers find_members(std::vector<std::uint32_t> const& roots);

/// The sums are of what was read; nullopt where the tier, or the kernel, does not tell it of
/// every process that was read, and where none was.
struct TreeSnapshot {
  std::uint64_t taken_ns{};  // CLOCK_MONOTONIC before the search for the members
  std::uint64_t span_ns{};   // until after the last reading
  HostTier tier{};           // that was asked for
  std::vector<std::uint32_t> root_pids;
  std::vector<ProcessMemory> processes;
  std::uint64_t processes_count{};
  std::uint64_t unread_count{};  // gone, denied or partial
  /// Every member was found and read: otherwise the sums are lower bounds. False also where /proc
  /// lists a process that may not be looked at (hidepid=1), since it may be a member or not.
  bool complete = false;
  std::optional<std::uint64_t> rss_bytes;  // counts a page as often as it is mapped
  std::optional<std::uint64_t> pss_bytes;  // counts it once
  std::optional<std::uint64_t> pss_anon_bytes;
  std::optional<std::uint64_t> pss_file_bytes;
  std::optional<std::uint64_t> pss_shmem_bytes;
  std::optional<std::uint64_t> uss_bytes;
  std::optional<std::uint64_t> swap_bytes;  // counts a page as often as it is mapped
  std::optional<std::uint64_t> swap_pss_bytes;
  std::optional<std::uint64_t> private_hugetlb_bytes;
  /// What the end of the whole tree would free at once of the pages that it maps. Low: the
  /// anonymous part of pss if nobody outside the trees can share such pages, else the sum of
  /// the processes' lows. High: pss, which counts whole what only the tree maps; not known
  /// unless the reading is complete.
  std::optional<Bounds> freed_bounds_bytes;
  bool operator==(TreeSnapshot const&) const = default;
};

/// Reads processes one after the other; sums them up. @throws as read_process.
[[nodiscard]] TreeSnapshot read_members(TreeMembers const& found, HostTier tier);

/// Both at once: the trees of `roots`, or of this process if there are none.
/// @throws as find_members and read_process.
[[nodiscard]] TreeSnapshot snapshot_tree(std::vector<std::uint32_t> roots, HostTier tier);

}  // namespace memacct
