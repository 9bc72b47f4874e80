#include "memacct/host.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <stdexcept>

#include "memacct/proc_file.hpp"
#include "memacct/process.hpp"
#include "memacct/rss_error.hpp"

namespace memacct {
namespace {

constinit ProcFile statm_file{"/proc/self/statm"};
constinit ProcFile status_file{"/proc/self/status"};
constinit ProcFile rollup_file{"/proc/self/smaps_rollup"};

// Status is about 1.5 KB, and more on machines of hundreds of CPUs or nodes. On the stack,
// since reading memory must not change it.
using Buffer = std::array<char, 8192>;

using Bytes = std::optional<std::uint64_t>;

Bytes sum(Bytes a, Bytes b) noexcept {
  if (!a || !b) return std::nullopt;
  return *a + *b;
}

std::uint64_t difference_or_zero(std::uint64_t a, std::uint64_t b) noexcept {
  return a > b ? a - b : 0;
}

SmapsRollup read_rollup() {
  Buffer buffer;
  return rollup_file.read(buffer, parse_smaps_rollup);
}

/// The sums of all columns, in one pass: a table of many mappings does not fit the caches.
class Sums {
 public:
  explicit Sums(MappingTable const& mappings) noexcept : mappings_(mappings) {
    for (auto const& row : mappings.rows) {
      for (std::size_t i = 0; i < kSizeCount; ++i) bytes_[i] += row.sizes[i];
    }
  }
  /// nullopt if the source does not tell that size.
  [[nodiscard]] Bytes operator[](Size size) const noexcept {
    return mappings_.has(size) ? Bytes(bytes_[static_cast<std::size_t>(size)]) : std::nullopt;
  }

 private:
  MappingTable const& mappings_;
  std::array<std::uint64_t, kSizeCount> bytes_{};
};

/// Splits resident memory into what is held and what can be reclaimed, given how much of the
/// file-backed pages is known to be dirty.
void split_held(HostMemory& host, std::uint64_t dirty_file_bytes) noexcept {
  auto const resident = sum(host.rss_anon_bytes, host.rss_shmem_bytes);
  if (!resident || !host.rss_file_bytes) return;
  // The two files are read one after the other, so their difference may exceed the whole.
  auto const dirty = std::min(dirty_file_bytes, *host.rss_file_bytes);
  // Kernels that tell the kinds of rss apart (4.5) also report hugetlb (4.4), unless they are
  // built without it: then there are no such pages to miss.
  host.held_bytes = *resident + dirty + host.hugetlb_bytes.value_or(0);
  host.reclaimable_bytes = *host.rss_file_bytes - dirty;
}

}  // namespace

HostMemory host_from_statm(Statm const& statm) noexcept {
  return {.tier = HostTier::kCounters,
          .vms_bytes = statm.vms_bytes,
          .rss_bytes = statm.rss_bytes,
          .shared_bytes = statm.shared_bytes};
}

HostMemory host_from_status(Status const& status) noexcept {
  HostMemory host{.tier = HostTier::kBreakdown,
                  .vms_bytes = status.vms_bytes,
                  .rss_bytes = status.rss_bytes,
                  .shared_bytes = sum(status.rss_file_bytes, status.rss_shmem_bytes),
                  .rss_anon_bytes = status.rss_anon_bytes,
                  .rss_file_bytes = status.rss_file_bytes,
                  .rss_shmem_bytes = status.rss_shmem_bytes,
                  .swap_bytes = status.swap_bytes,
                  .hugetlb_bytes = status.hugetlb_bytes,
                  .locked_bytes = status.locked_bytes,
                  .pinned_bytes = status.pinned_bytes,
                  .peak_rss_bytes = status.peak_rss_bytes,
                  .peak_vms_bytes = status.peak_vms_bytes,
                  .page_tables_bytes = status.page_tables_bytes};
  split_held(host, 0);
  return host;
}

HostMemory host_from_rollup(Status const& status, SmapsRollup const& rollup) noexcept {
  auto host = host_from_status(status);
  host.tier = HostTier::kRollup;
  host.rss_exact_bytes = rollup.rss_bytes;
  host.pss_bytes = rollup.pss_bytes;
  host.pss_anon_bytes = rollup.pss_anon_bytes;
  host.pss_file_bytes = rollup.pss_file_bytes;
  host.pss_shmem_bytes = rollup.pss_shmem_bytes;
  // Private_Hugetlb stays out: the kernel counts hugetlb in neither Rss nor Pss (proc.rst),
  // and adding it would break uss <= pss <= rss on hosts with hugetlb-backed buffers.
  host.uss_bytes = rollup.private_clean_bytes + rollup.private_dirty_bytes;
  host.shared_clean_bytes = rollup.shared_clean_bytes;
  host.shared_dirty_bytes = rollup.shared_dirty_bytes;
  host.private_clean_bytes = rollup.private_clean_bytes;
  host.private_dirty_bytes = rollup.private_dirty_bytes;
  host.anonymous_bytes = rollup.anonymous_bytes;
  host.swap_pss_bytes = rollup.swap_pss_bytes;
  // Every dirty page is anonymous, shmem or file-backed. At most all of the first two are
  // dirty, so what exceeds them is surely file-backed.
  auto const not_file = sum(rollup.anonymous_bytes, status.rss_shmem_bytes);
  if (not_file) {
    auto const dirty = rollup.shared_dirty_bytes + rollup.private_dirty_bytes;
    split_held(host, difference_or_zero(dirty, *not_file));
  }
  return host;
}

HostMemory host_from_mappings(Status const& status, MappingTable const& mappings) noexcept {
  Sums const sums(mappings);
  if (mappings.source == MappingSource::kPagemap) {
    auto host = host_from_status(status);
    host.tier = HostTier::kResidency;
    host.rss_exact_bytes = sums[Size::kRss];
    return host;
  }
  auto host = host_from_status(status);
  host.tier = HostTier::kMappings;
  host.rss_exact_bytes = sums[Size::kRss];
  host.pss_bytes = sums[Size::kPss];
  host.shared_clean_bytes = sums[Size::kSharedClean];
  host.shared_dirty_bytes = sums[Size::kSharedDirty];
  host.private_clean_bytes = sums[Size::kPrivateClean];
  host.private_dirty_bytes = sums[Size::kPrivateDirty];
  host.uss_bytes = sum(host.private_clean_bytes, host.private_dirty_bytes);
  host.anonymous_bytes = sums[Size::kAnonymous];
  host.swap_pss_bytes = sums[Size::kSwapPss];
  if (auto const held = sums[Size::kHeld]) {
    host.held_bytes = held;
    host.reclaimable_bytes = sums[Size::kReclaimable];
  }
  return host;
}

Status read_status() {
  Buffer buffer;
  return status_file.read(buffer, parse_status);
}

HostMemory read_host(HostTier tier) {
  // Asked before the file is read: a fork in between is then seen by the file as well.
  auto const pid = current_pid();
  std::optional<std::uint64_t> thread_count;
  auto host = [tier, &thread_count] {
    switch (tier) {
      case HostTier::kBreakdown: {
        auto const status = read_status();
        thread_count = status.thread_count;
        return host_from_status(status);
      }
      case HostTier::kRollup: {
        auto const status = read_status();
        thread_count = status.thread_count;
        return host_from_rollup(status, read_rollup());
      }
      case HostTier::kResidency:
      case HostTier::kMappings:
        throw std::invalid_argument("this tier is read with the mappings");
      case HostTier::kCounters:
        break;
    }
    static auto const page_bytes = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    std::array<char, 256> buffer;
    return host_from_statm(statm_file.read(
        buffer, [](std::string_view text) { return parse_statm(text, page_bytes); }));
  }();
  host.pid = pid;
  host.rss_error_bound_bytes = rss_error_bound(thread_count);
  return host;
}

}  // namespace memacct
