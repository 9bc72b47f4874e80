#include "memacct/proc_text.hpp"

#include <array>

#include "memacct/kib_lines.hpp"
#include "memacct/text.hpp"

namespace memacct {
namespace {

constexpr char const* kStatm = "/proc/self/statm";
constexpr char const* kStatus = "/proc/self/status";
constexpr char const* kSmapsRollup = "/proc/self/smaps_rollup";

/// Of status.
std::optional<std::uint64_t> find_thread_count(std::string_view text) {
  constexpr std::string_view kKey = "\nThreads:\t";
  if (!text.starts_with(kKey.substr(1))) {
    auto const at = text.find(kKey);
    if (at == std::string_view::npos) return std::nullopt;
    text.remove_prefix(at + 1);
  }
  auto const line = take_line(text, kStatus);
  auto const count = parse_number(line.substr(kKey.size() - 1));
  if (!count) throw_format(kStatus, "not a number of threads", line);
  return count;
}

}  // namespace

Statm parse_statm(std::string_view text, std::uint64_t page_bytes) {
  auto line = take_line(text, kStatm);
  auto const whole = line;
  if (!text.empty()) throw_format(kStatm, "more than one line", text);
  std::array<std::uint64_t, 7> bytes{};
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    auto const end = line.find(' ');
    if ((end == std::string_view::npos) != (i + 1 == bytes.size())) {
      throw_format(kStatm, "not seven numbers", whole);
    }
    auto const value = scaled(parse_number(line.substr(0, end)), page_bytes);
    if (!value) throw_format(kStatm, "not a number of pages", whole);
    bytes[i] = *value;
    line.remove_prefix(end == std::string_view::npos ? line.size() : end + 1);
  }
  // The kernel writes zeros for a process whose main thread has ended while others run on.
  if (bytes[0] == 0) throw_format(kStatm, "no address space: its main thread has ended", whole);
  return {.vms_bytes = bytes[0], .rss_bytes = bytes[1], .shared_bytes = bytes[2]};
}

Status parse_status(std::string_view text) {
  static constexpr std::array<KibLine, 12> kLines{{{"VmPeak"},
                                                   {"VmSize", true},
                                                   {"VmLck"},
                                                   {"VmPin"},
                                                   {"VmHWM"},
                                                   {"VmRSS", true},
                                                   {"RssAnon"},
                                                   {"RssFile"},
                                                   {"RssShmem"},
                                                   {"VmPTE"},
                                                   {"VmSwap"},
                                                   {"HugetlbPages"}}};
  auto rest = text;
  auto const values = read_kib_lines(rest, kStatus, kLines);
  // The kernel writes it a few lines below the sizes.
  auto thread_count = find_thread_count(rest);
  if (!thread_count) thread_count = find_thread_count(text);
  return {.vms_bytes = *values[1],
          .rss_bytes = *values[5],
          .rss_anon_bytes = values[6],
          .rss_file_bytes = values[7],
          .rss_shmem_bytes = values[8],
          .swap_bytes = values[10],
          .hugetlb_bytes = values[11],
          .locked_bytes = values[2],
          .pinned_bytes = values[3],
          .peak_rss_bytes = values[4],
          .peak_vms_bytes = values[0],
          .page_tables_bytes = values[9],
          .thread_count = thread_count};
}

SmapsRollup parse_smaps_rollup(std::string_view text) {
  static constexpr std::array<KibLine, 12> kLines{{{"Rss", true},
                                                   {"Pss", true},
                                                   {"Shared_Clean", true},
                                                   {"Shared_Dirty", true},
                                                   {"Private_Clean", true},
                                                   {"Private_Dirty", true},
                                                   {"Pss_Anon"},
                                                   {"Pss_File"},
                                                   {"Pss_Shmem"},
                                                   {"Anonymous"},
                                                   {"Private_Hugetlb"},
                                                   {"SwapPss"}}};
  auto const values = read_kib_lines(text, kSmapsRollup, kLines);
  return {.rss_bytes = *values[0],
          .pss_bytes = *values[1],
          .shared_clean_bytes = *values[2],
          .shared_dirty_bytes = *values[3],
          .private_clean_bytes = *values[4],
          .private_dirty_bytes = *values[5],
          .pss_anon_bytes = values[6],
          .pss_file_bytes = values[7],
          .pss_shmem_bytes = values[8],
          .anonymous_bytes = values[9],
          .swap_pss_bytes = values[11],
          .private_hugetlb_bytes = values[10]};
}

}  // namespace memacct
