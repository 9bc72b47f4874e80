#include "memacct/system_text.hpp"

#include <algorithm>
#include <array>

#include "memacct/kib_lines.hpp"
#include "memacct/text.hpp"
#include "memacct/units.hpp"

namespace memacct {
namespace {

constexpr char const* kMeminfo = "/proc/meminfo";

// More nodes than any kernel is built for (1024): a longer list is no list of nodes.
constexpr std::uint64_t kMostNodes = 65536;

/// "12.34", the percentage that the kernel prints with two digits, as a ratio.
std::optional<double> parse_percentage(std::string_view text) {
  auto const dot = text.find('.');
  if (dot == std::string_view::npos || text.size() != dot + 3) return std::nullopt;
  auto const whole = parse_number(text.substr(0, dot));
  auto const hundredths = parse_number(text.substr(dot + 1));
  if (!whole || !hundredths || *whole > 100) return std::nullopt;
  // One rounding of an exact quotient: 0.1234 is the double that Python reads in "0.1234".
  return static_cast<double>(*whole * 100 + *hundredths) / 10000.0;
}

/// What follows "key=" at the start of `text`, up to the next space, which is taken off too.
std::string_view take_value(std::string_view& text, std::string_view key, std::string_view line,
                            std::string const& source) {
  if (!text.starts_with(key)) throw_format(source, "not the averages and the total", line);
  auto const end = text.find(' ');
  auto const value = text.substr(key.size(), end - key.size());
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return value;
}

struct PressureLine {
  std::array<double, 3> ratios{};
  std::uint64_t stalled_ns{};
};

/// "some avg10=0.00 avg60=0.00 avg300=0.00 total=0"; total is in microseconds.
PressureLine parse_pressure_line(std::string_view line, std::string_view kind,
                                 std::string const& source) {
  static constexpr std::array<std::string_view, 3> kAverages{"avg10=", "avg60=", "avg300="};
  if (!line.starts_with(kind)) throw_format(source, "not a line of pressure", line);
  auto rest = line.substr(kind.size());
  PressureLine result;
  for (std::size_t i = 0; i < kAverages.size(); ++i) {
    auto const ratio = parse_percentage(take_value(rest, kAverages[i], line, source));
    if (!ratio) throw_format(source, "not a percentage", line);
    result.ratios[i] = *ratio;
  }
  auto const stalled = scaled(parse_number(take_value(rest, "total=", line, source)), 1000);
  if (!stalled || !rest.empty()) throw_format(source, "not a total in microseconds", line);
  result.stalled_ns = *stalled;
  return result;
}

}  // namespace

SystemMemory parse_meminfo(std::string_view text) {
  static constexpr std::array<KibLine, 9> kLines{{{"MemTotal", true},
                                                  {"MemFree", true},
                                                  {"MemAvailable"},
                                                  {"Cached"},
                                                  {"SwapTotal"},
                                                  {"SwapFree"},
                                                  {"Dirty"},
                                                  {"Shmem"},
                                                  {"Hugetlb"}}};
  auto const values = read_kib_lines(text, kMeminfo, kLines);
  return {.total_bytes = *values[0],
          .free_bytes = *values[1],
          .available_bytes = values[2],
          .cached_bytes = values[3],
          .shmem_bytes = values[7],
          .dirty_bytes = values[6],
          .swap_total_bytes = values[4],
          .swap_free_bytes = values[5],
          .hugetlb_bytes = values[8]};
}

NumaNode parse_node_meminfo(std::string_view text, std::uint32_t node, std::string const& source) {
  static constexpr std::array<KibLine, 6> kLines{{{"MemTotal", true},
                                                  {"MemFree", true},
                                                  {"Active(file)"},
                                                  {"Inactive(file)"},
                                                  {"AnonPages"},
                                                  {"Shmem"}}};
  auto const prefix = "Node " + std::to_string(node) + " ";
  auto const values = read_kib_lines(text, source, kLines, prefix);
  return {.node = node,
          .total_bytes = *values[0],
          .free_bytes = *values[1],
          .inactive_file_bytes = values[3],
          .active_file_bytes = values[2],
          .anon_bytes = values[4],
          .shmem_bytes = values[5]};
}

std::vector<std::uint32_t> parse_number_list(std::string_view text, std::string const& source) {
  auto const line = take_line(text, source);
  if (!text.empty()) throw_format(source, "more than one line", text);
  std::vector<std::uint32_t> numbers;
  for (auto rest = line; !rest.empty();) {
    auto const comma = rest.find(',');
    auto const range = rest.substr(0, comma);
    auto const dash = range.find('-');
    auto const first = parse_number(range.substr(0, dash));
    auto const last = dash == std::string_view::npos ? first : parse_number(range.substr(dash + 1));
    if (!first || !last || *first > *last || *last >= kMostNodes || comma + 1 == rest.size() ||
        (!numbers.empty() && *first <= numbers.back())) {
      throw_format(source, "not an ascending list of numbers", line);
    }
    for (auto number = *first; number <= *last; ++number) {
      numbers.push_back(static_cast<std::uint32_t>(number));
    }
    rest.remove_prefix(comma == std::string_view::npos ? rest.size() : comma + 1);
  }
  return numbers;
}

Pressure parse_pressure(std::string_view text, std::string const& source) {
  auto const some = parse_pressure_line(take_line(text, source), "some ", source);
  Pressure pressure{.some_avg10_ratio = some.ratios[0],
                    .some_avg60_ratio = some.ratios[1],
                    .some_avg300_ratio = some.ratios[2],
                    .some_stalled_ns = some.stalled_ns};
  if (text.empty()) return pressure;
  auto const full = parse_pressure_line(take_line(text, source), "full ", source);
  if (!text.empty()) throw_format(source, "more than two lines", text);
  pressure.full_avg10_ratio = full.ratios[0];
  pressure.full_avg60_ratio = full.ratios[1];
  pressure.full_avg300_ratio = full.ratios[2];
  pressure.full_stalled_ns = full.stalled_ns;
  return pressure;
}

std::uint64_t parse_hugepages_name(std::string_view name, std::string const& source) {
  constexpr std::string_view kStart = "hugepages-";
  constexpr std::string_view kUnit = "kB";
  if (!name.starts_with(kStart) || !name.ends_with(kUnit) ||
      name.size() < kStart.size() + kUnit.size()) {
    throw_format(source, "not hugepages-<size>kB", name);
  }
  auto const digits = name.substr(kStart.size(), name.size() - kStart.size() - kUnit.size());
  auto const bytes = scaled(parse_number(digits), kKiB);
  if (!bytes || *bytes == 0) throw_format(source, "not hugepages-<size>kB", name);
  return *bytes;
}

}  // namespace memacct
