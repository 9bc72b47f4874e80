// The records of a ring as tables: rows of plain columns that numpy can view.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "memacct/ring.hpp"
#include "memacct/sample_record.hpp"

namespace memacct {

/// What stands in a column that is not known: nothing that could be taken for a size. Whether it is
/// known is said by `known`: a bit for each such column, in their order from the lowest.
inline constexpr std::uint64_t kUnknownBytes = ~std::uint64_t{0};
inline constexpr std::int64_t kUnknownDifference = INT64_MIN;

struct HostRow {
  std::uint64_t taken_ns;
  std::uint64_t span_ns;
  std::uint64_t vms_bytes;
  std::uint64_t rss_bytes;
  std::uint64_t shared_bytes;  // from here on it may be unknown
  std::uint64_t rss_anon_bytes;
  std::uint64_t rss_file_bytes;
  std::uint64_t rss_shmem_bytes;
  std::uint64_t swap_bytes;
  std::uint64_t hugetlb_bytes;
  std::uint64_t locked_bytes;
  std::uint64_t pinned_bytes;
  std::uint64_t peak_rss_bytes;
  std::uint32_t pid;
  std::uint32_t known;
};

struct DeviceRow {
  std::uint64_t taken_ns;
  std::uint64_t span_ns;
  std::uint64_t total_bytes;
  std::uint64_t free_bytes;
  std::uint64_t device_used_bytes;  // from here on it may be unknown
  std::uint64_t reserved_bytes;
  std::uint64_t own_bytes;
  std::uint64_t tree_bytes;
  std::uint64_t foreign_bytes;
  std::int64_t unattributed_bytes;
  std::uint64_t own_low_bytes;
  std::uint64_t own_high_bytes;
  std::uint32_t known;
  std::uint16_t device;  // its number in the recording
  std::uint8_t attempts_count;
  std::uint8_t attribution;
  std::uint8_t consistent;
};

struct ProcessRow {
  std::uint64_t taken_ns;            // of the device's reading
  std::uint64_t process_used_bytes;  // may be unknown
  std::uint64_t start_ticks;         // may be unknown
  std::uint32_t pid;
  std::uint32_t known;
  std::uint16_t device;
  std::uint8_t owner;
  std::array<char, 15> name;  // zeros follow it
};

static_assert(std::is_standard_layout_v<HostRow> && std::is_standard_layout_v<DeviceRow> &&
              std::is_standard_layout_v<ProcessRow>);

/// What is in a ring, each kind in the order in which it was written.
struct TraceRows {
  std::vector<HostRow> host;
  std::vector<DeviceRow> devices;
  std::vector<ProcessRow> processes;
  std::vector<NoteRecord> notes;
  std::uint64_t overwritten_count = 0;  // records that were there once
  std::uint64_t damaged_count = 0;
  std::uint64_t unknown_count = 0;  // of a kind that this memacct does not know
};

[[nodiscard]] HostRow row_of(HostRecord const& record) noexcept;
[[nodiscard]] DeviceRow row_of(DeviceRecord const& record) noexcept;
[[nodiscard]] ProcessRow row_of(ProcessRecord const& record) noexcept;

/// Adds what `ring` holds, up to record number `last`. A record that is overwritten meanwhile
/// counts as overwritten.
void append_rows(RingReader const& ring, std::uint64_t last, TraceRows& rows);

/// Processes whose device reading was overwritten, so that it is unknown who else there was.
/// Drops them. Pure.
void drop_headless(TraceRows& rows);

}  // namespace memacct
