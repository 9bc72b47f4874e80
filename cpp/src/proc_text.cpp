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

/// A bit per letter. Most lines of a file are told from ours by their first one.
std::uint64_t letter_bit(char letter) {
  return std::uint64_t{1} << (static_cast<unsigned>(letter) & 63U);
}

bool has_key(std::string_view line, std::string_view key) {
  return line.size() > key.size() && line[key.size()] == ':' && line.starts_with(key);
}

/// The values of `lines` in `text`, in their order; lines with other keys are passed over.
/// Looks no further once it has them all. Fast if `lines` are in the kernel's order: each
/// line is first compared with the one after the last that was found.
template <std::size_t N>
std::array<std::optional<std::uint64_t>, N> read_kib_lines(std::string_view text,
                                                           char const* source,
                                                           std::array<KibLine, N> const& lines) {
  std::array<std::optional<std::uint64_t>, N> values;
  std::uint64_t first_letters = 0;
  for (auto const& line : lines) first_letters |= letter_bit(line.key.front());
  std::size_t next = 0;
  for (std::size_t found = 0; found < N && !text.empty();) {
    auto const line = take_line(text, source);
    if (line.empty() || (letter_bit(line.front()) & first_letters) == 0) continue;
    for (std::size_t tried = 0; tried < N; ++tried) {
      auto const i = next + tried < N ? next + tried : next + tried - N;
      if (!has_key(line, lines[i].key)) continue;
      if (values[i]) throw_format(source, "a second line of this name", line);
      values[i] = parse_kib(line.substr(lines[i].key.size() + 1), source, line);
      next = i + 1 < N ? i + 1 : 0;
      ++found;
      break;
    }
  }
  for (std::size_t i = 0; i < N; ++i) {
    if (lines[i].required && !values[i]) throw_format(source, "a line is missing", lines[i].key);
  }
  return values;
}

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
  auto const values = read_kib_lines(text, kStatus, kLines);
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
          .thread_count = find_thread_count(text)};
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

SystemMemory parse_meminfo(std::string_view text) {
  static constexpr std::array<KibLine, 3> kLines{
      {{"MemTotal", true}, {"MemFree", true}, {"MemAvailable"}}};
  auto const values = read_kib_lines(text, kMeminfo, kLines);
  return {.total_bytes = *values[0], .free_bytes = *values[1], .available_bytes = values[2]};
}

}  // namespace memacct
