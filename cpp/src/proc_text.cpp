#include "memacct/proc_text.hpp"

#include <array>

#include "memacct/text.hpp"
#include "memacct/units.hpp"

namespace memacct {
namespace {

constexpr char const* kStatm = "/proc/self/statm";
constexpr char const* kStatus = "/proc/self/status";
constexpr char const* kSmapsRollup = "/proc/self/smaps_rollup";
constexpr char const* kMeminfo = "/proc/meminfo";

/// "  123 kB", as it stands after a key and its colon, in bytes.
std::uint64_t parse_kib(std::string_view value, char const* source, std::string_view line) {
  constexpr std::string_view kUnit = " kB";
  auto const start = value.find_first_not_of(" \t");
  if (start == std::string_view::npos || !value.ends_with(kUnit)) {
    throw_format(source, "not a size in kB", line);
  }
  value = value.substr(start, value.size() - start - kUnit.size());
  auto const bytes = scaled(parse_number(value), kKiB);
  if (!bytes) throw_format(source, "not a size in kB", line);
  return *bytes;
}

/// One line that we read: its key, and whether a text without it is not this file.
struct KibLine {
  std::string_view key;
  bool required = false;
};

/// The values of `lines` in `text`, in their order; lines with other keys are passed over.
template <std::size_t N>
std::array<std::optional<std::uint64_t>, N> read_kib_lines(std::string_view text,
                                                           char const* source,
                                                           std::array<KibLine, N> const& lines) {
  std::array<std::optional<std::uint64_t>, N> values;
  while (!text.empty()) {
    auto const line = take_line(text, source);
    for (std::size_t i = 0; i < N; ++i) {
      auto const& key = lines[i].key;
      if (line.size() <= key.size() || line[key.size()] != ':' || !line.starts_with(key)) continue;
      if (values[i]) throw_format(source, "a second line of this name", line);
      values[i] = parse_kib(line.substr(key.size() + 1), source, line);
      break;
    }
  }
  for (std::size_t i = 0; i < N; ++i) {
    if (lines[i].required && !values[i]) throw_format(source, "a line is missing", lines[i].key);
  }
  return values;
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
  static constexpr std::array<KibLine, 12> kLines{{{"VmSize", true},
                                                   {"VmRSS", true},
                                                   {"RssAnon"},
                                                   {"RssFile"},
                                                   {"RssShmem"},
                                                   {"VmSwap"},
                                                   {"HugetlbPages"},
                                                   {"VmLck"},
                                                   {"VmPin"},
                                                   {"VmHWM"},
                                                   {"VmPeak"},
                                                   {"VmPTE"}}};
  auto const values = read_kib_lines(text, kStatus, kLines);
  return {.vms_bytes = *values[0],
          .rss_bytes = *values[1],
          .rss_anon_bytes = values[2],
          .rss_file_bytes = values[3],
          .rss_shmem_bytes = values[4],
          .swap_bytes = values[5],
          .hugetlb_bytes = values[6],
          .locked_bytes = values[7],
          .pinned_bytes = values[8],
          .peak_rss_bytes = values[9],
          .peak_vms_bytes = values[10],
          .page_tables_bytes = values[11]};
}

SmapsRollup parse_smaps_rollup(std::string_view text) {
  static constexpr std::array<KibLine, 11> kLines{{{"Rss", true},
                                                   {"Pss", true},
                                                   {"Shared_Clean", true},
                                                   {"Shared_Dirty", true},
                                                   {"Private_Clean", true},
                                                   {"Private_Dirty", true},
                                                   {"Pss_Anon"},
                                                   {"Pss_File"},
                                                   {"Pss_Shmem"},
                                                   {"Anonymous"},
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
          .swap_pss_bytes = values[10]};
}

SystemMemory parse_meminfo(std::string_view text) {
  static constexpr std::array<KibLine, 3> kLines{
      {{"MemTotal", true}, {"MemFree", true}, {"MemAvailable"}}};
  auto const values = read_kib_lines(text, kMeminfo, kLines);
  return {.total_bytes = *values[0], .free_bytes = *values[1], .available_bytes = values[2]};
}

}  // namespace memacct
