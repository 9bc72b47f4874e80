#include "memacct/trace_rows.hpp"

#include <algorithm>
#include <optional>
#include <variant>

namespace memacct {
namespace {

/// Fills columns that may be unknown, and their bits, one after the other.
class Columns {
 public:
  std::uint64_t operator()(std::optional<std::uint64_t> const& value) noexcept {
    note(value.has_value());
    return value.value_or(kUnknownBytes);
  }
  std::int64_t operator()(std::optional<std::int64_t> const& value) noexcept {
    note(value.has_value());
    return value.value_or(kUnknownDifference);
  }
  [[nodiscard]] std::uint32_t known() const noexcept { return known_; }

 private:
  void note(bool known) noexcept { known_ |= (known ? 1U : 0U) << count_++; }
  std::uint32_t known_ = 0;
  unsigned count_ = 0;
};

}  // namespace

// Braces evaluate from left to right, so the bits come in the columns' order, and `known` last.
HostRow row_of(HostRecord const& record) noexcept {
  Columns column;
  return {.taken_ns = record.taken_ns,
          .span_ns = record.span_ns,
          .vms_bytes = record.vms_bytes,
          .rss_bytes = record.rss_bytes,
          .shared_bytes = column(record.shared_bytes),
          .rss_anon_bytes = column(record.rss_anon_bytes),
          .rss_file_bytes = column(record.rss_file_bytes),
          .rss_shmem_bytes = column(record.rss_shmem_bytes),
          .swap_bytes = column(record.swap_bytes),
          .hugetlb_bytes = column(record.hugetlb_bytes),
          .locked_bytes = column(record.locked_bytes),
          .pinned_bytes = column(record.pinned_bytes),
          .peak_rss_bytes = column(record.peak_rss_bytes),
          .pid = record.pid,
          .known = column.known()};
}

DeviceRow row_of(DeviceRecord const& record) noexcept {
  Columns column;
  return {.taken_ns = record.taken_ns,
          .span_ns = record.span_ns,
          .total_bytes = record.total_bytes,
          .free_bytes = record.free_bytes,
          .device_used_bytes = column(record.device_used_bytes),
          .reserved_bytes = column(record.reserved_bytes),
          .own_bytes = column(record.own_bytes),
          .tree_bytes = column(record.tree_bytes),
          .foreign_bytes = column(record.foreign_bytes),
          .unattributed_bytes = column(record.unattributed_bytes),
          .own_low_bytes = column(record.own_low_bytes),
          .own_high_bytes = column(record.own_high_bytes),
          .known = column.known(),
          .device = record.device,
          .attempts_count = record.attempts_count,
          .attribution = record.attribution,
          .consistent = static_cast<std::uint8_t>(record.consistent ? 1 : 0)};
}

ProcessRow row_of(ProcessRecord const& record) noexcept {
  Columns column;
  ProcessRow row{.taken_ns = record.taken_ns,
                 .process_used_bytes = column(record.process_used_bytes),
                 .start_ticks = column(record.start_ticks),
                 .pid = record.pid,
                 .known = column.known(),
                 .device = record.device,
                 .owner = static_cast<std::uint8_t>(record.owner),
                 .name = {}};
  auto const name = record.name.view();
  std::copy_n(name.begin(), std::min(name.size(), row.name.size()), row.name.begin());
  return row;
}

void append_rows(RingReader const& ring, std::uint64_t last, TraceRows& rows) {
  RingPayload payload{};
  auto const oldest = ring.oldest();
  rows.overwritten_count += oldest - 1;
  for (auto number = oldest; number <= last; ++number) {
    auto const state = ring.read(number, payload);
    if (state == RingState::kOverwritten) ++rows.overwritten_count;
    if (state == RingState::kDamaged) ++rows.damaged_count;
    if (state != RingState::kWritten) continue;
    auto const record = unpack(payload);
    if (!record) {
      ++rows.unknown_count;
    } else if (auto const* const host = std::get_if<HostRecord>(&*record)) {
      rows.host.push_back(row_of(*host));
    } else if (auto const* const device = std::get_if<DeviceRecord>(&*record)) {
      rows.devices.push_back(row_of(*device));
    } else if (auto const* const process = std::get_if<ProcessRecord>(&*record)) {
      rows.processes.push_back(row_of(*process));
    } else {
      rows.notes.push_back(std::get<NoteRecord>(*record));
    }
  }
}

void drop_headless(TraceRows& rows) {
  if (rows.devices.empty()) {
    rows.processes.clear();
    return;
  }
  // Only at the beginning: a ring loses its oldest records.
  auto const first = std::find_if(
      rows.processes.begin(), rows.processes.end(),
      [&](ProcessRow const& row) { return row.taken_ns >= rows.devices.front().taken_ns; });
  rows.processes.erase(rows.processes.begin(), first);
}

}  // namespace memacct
