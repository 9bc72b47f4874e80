// Parsers of what /proc says about memory. Pure: text in, struct out, no file is opened.
//
// Strict: a line that is there but not understood is a SourceFormatError that carries the
// line; a field that the kernel does not write is nullopt. Kernel units (kB, pages) end here.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

namespace memacct {

/// /proc/self/statm.
struct Statm {
  std::uint64_t vms_bytes{};
  std::uint64_t rss_bytes{};
  std::uint64_t shared_bytes{};  // file-backed and shmem pages, however many map them
  bool operator==(Statm const&) const = default;
};

/// The memory lines of /proc/self/status, and its number of threads.
struct Status {
  std::uint64_t vms_bytes{};                       // VmSize
  std::uint64_t rss_bytes{};                       // VmRSS
  std::optional<std::uint64_t> rss_anon_bytes;     // RssAnon, Linux >= 4.5
  std::optional<std::uint64_t> rss_file_bytes;     // RssFile, Linux >= 4.5
  std::optional<std::uint64_t> rss_shmem_bytes;    // RssShmem, Linux >= 4.5
  std::optional<std::uint64_t> swap_bytes;         // VmSwap, without shmem in swap
  std::optional<std::uint64_t> hugetlb_bytes;      // HugetlbPages, Linux >= 4.4; not in rss
  std::optional<std::uint64_t> locked_bytes;       // VmLck
  std::optional<std::uint64_t> pinned_bytes;       // VmPin
  std::optional<std::uint64_t> peak_rss_bytes;     // VmHWM
  std::optional<std::uint64_t> peak_vms_bytes;     // VmPeak
  std::optional<std::uint64_t> page_tables_bytes;  // VmPTE
  std::optional<std::uint64_t> thread_count;       // Threads
  bool operator==(Status const&) const = default;
};

/// /proc/self/smaps_rollup, Linux >= 4.14. Hugetlb pages are in none but the last of these.
struct SmapsRollup {
  std::uint64_t rss_bytes{};
  std::uint64_t pss_bytes{};
  std::uint64_t shared_clean_bytes{};
  std::uint64_t shared_dirty_bytes{};
  std::uint64_t private_clean_bytes{};
  std::uint64_t private_dirty_bytes{};
  std::optional<std::uint64_t> pss_anon_bytes;  // Linux >= 5.1, as the next two
  std::optional<std::uint64_t> pss_file_bytes;
  std::optional<std::uint64_t> pss_shmem_bytes;
  std::optional<std::uint64_t> anonymous_bytes;
  std::optional<std::uint64_t> swap_pss_bytes;
  std::optional<std::uint64_t> private_hugetlb_bytes;
  bool operator==(SmapsRollup const&) const = default;
};

/// @throws SourceFormatError from each parser below, if the text is not understood.
[[nodiscard]] Statm parse_statm(std::string_view text, std::uint64_t page_bytes);
[[nodiscard]] Status parse_status(std::string_view text);
[[nodiscard]] SmapsRollup parse_smaps_rollup(std::string_view text);

}  // namespace memacct
