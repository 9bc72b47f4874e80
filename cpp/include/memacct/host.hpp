// This process's memory as the kernel accounts it, in tiers of cost.
#pragma once
#include <cstdint>
#include <optional>

#include "memacct/mapping_table.hpp"
#include "memacct/proc_text.hpp"

namespace memacct {

enum class HostTier : std::uint8_t {
  kCounters,   // statm: about a microsecond
  kBreakdown,  // status: about ten
  kRollup,     // status and smaps_rollup: walks the page tables, ~10 ms per GiB of 4 KiB pages
  kResidency,  // status, and what of each mapping is resident: a third of a walk
  kMappings,   // status and smaps: the walk, and 1-2 us a mapping
};

/// What a tier does not know is nullopt.
struct HostMemory {
  HostTier tier{};
  std::int32_t pid{};
  std::uint64_t vms_bytes{};
  std::uint64_t rss_bytes{};  // of the kernel's counters
  /// The most by which rss_bytes can be off while the process stands still; rss_error.hpp. 0: the
  /// kernel sums its counters when they are read. Beside it, rss_exact_bytes shows by how much it
  /// is, where the pages themselves were looked at. A third of it for rss_anon, _file and _shmem.
  std::optional<std::uint64_t> rss_error_bound_bytes;
  std::optional<std::uint64_t> shared_bytes;  // file-backed and shmem pages in rss
  // breakdown; rss = rss_anon + rss_file + rss_shmem
  std::optional<std::uint64_t> rss_anon_bytes;
  std::optional<std::uint64_t> rss_file_bytes;
  std::optional<std::uint64_t> rss_shmem_bytes;
  std::optional<std::uint64_t> swap_bytes;
  std::optional<std::uint64_t> hugetlb_bytes;  // never part of rss
  std::optional<std::uint64_t> locked_bytes;
  std::optional<std::uint64_t> pinned_bytes;
  std::optional<std::uint64_t> peak_rss_bytes;  // of the process's whole life
  std::optional<std::uint64_t> peak_vms_bytes;
  std::optional<std::uint64_t> page_tables_bytes;
  /// Resident memory that the kernel cannot drop. The mappings tell it exactly (mapping_kind.hpp,
  /// split_held): there rss_exact = held - hugetlb + reclaimable. Otherwise it is a lower bound:
  /// anonymous, shmem and hugetlb pages, and of the rollup also file-backed pages that are dirty
  /// as far as that is sure (the kernel counts all dirty pages together, so some hide behind
  /// anonymous or shmem pages that are clean). It lacks locked file pages (VmLck) and what drivers
  /// map of their own (pinned buffers), which count as file pages. In no tier: what was swapped
  /// out, and page cache that this process has dirtied by write() without mapping it.
  std::optional<std::uint64_t> held_bytes;
  /// The rest of rss: page cache that the kernel can drop. rss = held - hugetlb + reclaimable.
  /// Some of it may be dirty (breakdown) or locked (VmLck), and is then not dropped at once.
  std::optional<std::uint64_t> reclaimable_bytes;
  // rollup and mappings; exact; uss <= pss <= rss_exact. Of the residency, rss_exact alone; pss by
  // sort is the rollup's alone. The
  // sum of smaps' pss is up to 1 KiB a mapping below the rollup's: each is rounded down.
  std::optional<std::uint64_t> rss_exact_bytes;
  std::optional<std::uint64_t> pss_bytes;
  std::optional<std::uint64_t> pss_anon_bytes;
  std::optional<std::uint64_t> pss_file_bytes;
  std::optional<std::uint64_t> pss_shmem_bytes;
  std::optional<std::uint64_t> uss_bytes;
  std::optional<std::uint64_t> shared_clean_bytes;
  std::optional<std::uint64_t> shared_dirty_bytes;
  std::optional<std::uint64_t> private_clean_bytes;
  std::optional<std::uint64_t> private_dirty_bytes;
  std::optional<std::uint64_t> anonymous_bytes;
  std::optional<std::uint64_t> swap_pss_bytes;
  bool operator==(HostMemory const&) const = default;
};

/// Pure: what the tiers make of the texts.
[[nodiscard]] HostMemory host_from_statm(Statm const& statm) noexcept;
[[nodiscard]] HostMemory host_from_status(Status const& status) noexcept;
[[nodiscard]] HostMemory host_from_rollup(Status const& status, SmapsRollup const& rollup) noexcept;
/// Of either source; the tier is that of the table's source.
[[nodiscard]] HostMemory host_from_mappings(Status const& status,
                                            MappingTable const& mappings) noexcept;

/// Reads this process, in one of the first three tiers.
/// @throws std::invalid_argument for the others; SourceUnavailableError (a kernel without
/// smaps_rollup), SourceReadError,
///   SourceFormatError.
/// Cost: one pread of a kept fd for counters and breakdown, two for rollup; no allocation.
/// Source: /proc/self/{statm,status,smaps_rollup}.
[[nodiscard]] HostMemory read_host(HostTier tier);

/// What status says of this process; what host_from_mappings() needs. @throws as read_host.
[[nodiscard]] Status read_status();

}  // namespace memacct
