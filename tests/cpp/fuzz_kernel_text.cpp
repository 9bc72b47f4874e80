// Fuzzing the other pure parsers of kernel text: statm, status, smaps_rollup, meminfo, stat,
// the control groups' files, mountinfo, the names of mappings, pressure, the machine's nodes and
// hugetlb pools.
//
// The first byte of an input chooses the parser, the rest is the text. Checked: only
// SourceFormatError escapes; what is a number in the result is in the text.
#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "fuzz_check.hpp"
#include "memacct/cgroup_text.hpp"
#include "memacct/error.hpp"
#include "memacct/mapping_kind.hpp"
#include "memacct/proc_text.hpp"
#include "memacct/process_stat.hpp"
#include "memacct/system_text.hpp"

namespace {

using Target = void (*)(std::string_view);

void statm(std::string_view text) {
  auto const pages = memacct::parse_statm(text, 1);
  CHECK(text.starts_with(std::to_string(pages.vms_bytes)) || text.starts_with("0"));
  auto const more = memacct::parse_statm(text, 4096);
  CHECK(more.rss_bytes == pages.rss_bytes * 4096);
}

void status(std::string_view text) {
  auto const parsed = memacct::parse_status(text);
  CHECK(parsed.vms_bytes % 1024 == 0 && parsed.rss_bytes % 1024 == 0);
  CHECK(text.find("VmRSS:") != std::string_view::npos);
  CHECK(parsed.swap_bytes.has_value() <= (text.find("VmSwap:") != std::string_view::npos));
}

void smaps_rollup(std::string_view text) {
  auto const parsed = memacct::parse_smaps_rollup(text);
  CHECK(parsed.pss_bytes % 1024 == 0 && text.find("Pss:") != std::string_view::npos);
}

void meminfo(std::string_view text) {
  auto const parsed = memacct::parse_meminfo(text);
  CHECK(parsed.total_bytes % 1024 == 0 && text.find("MemTotal:") != std::string_view::npos);
}

void stat(std::string_view text) {
  auto const parsed = memacct::parse_stat(text);
  if (!parsed) return;
  CHECK(text.find(std::to_string(parsed->parent_pid)) != std::string_view::npos ||
        text.find('0') != std::string_view::npos);
}

void self_cgroup(std::string_view text) {
  auto const parsed = memacct::parse_self_cgroup(text);
  if (!parsed) return;
  CHECK(parsed->version == 1 || parsed->version == 2);
  CHECK(text.find(parsed->path) != std::string_view::npos);
}

void cgroup_mounts(std::string_view text) {
  auto const lines_count = std::count(text.begin(), text.end(), '\n');
  for (auto const version : {1, 2}) {
    CHECK(std::ssize(memacct::parse_cgroup_mounts(text, version)) <= lines_count);
  }
}

void cgroup_number(std::string_view text) {
  auto const parsed = memacct::parse_cgroup_number(text, "limit");
  if (!parsed) return;
  auto const digits = text.find_first_not_of('0');
  CHECK(*parsed == 0 || text.substr(digits).starts_with(std::to_string(*parsed)));
}

void cgroup_stat(std::string_view text) {
  auto const parsed = memacct::find_cgroup_stat(text, "inactive_file", "stat");
  CHECK(!parsed || text.find("inactive_file ") != std::string_view::npos);
}

void mounted_types(std::string_view text) {
  auto const lines_count = std::count(text.begin(), text.end(), '\n');
  auto const types = memacct::parse_mounted_types(text);
  CHECK(std::ssize(types) <= lines_count);
  for (auto const& [device, type] : types) {
    CHECK(text.find(type) != std::string_view::npos);
  }
}

void mapping_name(std::string_view text) {
  auto const name = memacct::parse_mapping_name(text);
  CHECK(name.path.size() <= text.size());
  CHECK(!name.deleted || text.ends_with(" (deleted)"));
  CHECK(name.path.find("\\012") == std::string::npos);
}

void cgroup_events(std::string_view text) {
  auto const parsed = memacct::parse_cgroup_events(text, "events");
  CHECK(!parsed.oom_kill_count || text.find("oom_kill ") != std::string_view::npos);
}

void pressure(std::string_view text) {
  auto const parsed = memacct::parse_pressure(text, "pressure");
  CHECK(parsed.some_avg10_ratio >= 0 && parsed.some_stalled_ns % 1000 == 0);
  CHECK(parsed.full_stalled_ns.has_value() == (std::count(text.begin(), text.end(), '\n') == 2));
}

void node_meminfo(std::string_view text) {
  auto const parsed = memacct::parse_node_meminfo(text, 0, "node");
  CHECK(parsed.total_bytes % 1024 == 0 && text.find("Node 0 MemTotal:") != std::string_view::npos);
}

void number_list(std::string_view text) {
  auto const parsed = memacct::parse_number_list(text, "list");
  CHECK(std::ranges::adjacent_find(parsed, std::ranges::greater_equal()) == parsed.end());
}

void hugepages_name(std::string_view text) {
  auto const bytes = memacct::parse_hugepages_name(text, "folder");
  CHECK(bytes > 0 && bytes % 1024 == 0);
}

constexpr std::array<Target, 16> kTargets{
    statm,         status,        smaps_rollup, meminfo,       stat,         self_cgroup,
    cgroup_mounts, cgroup_number, cgroup_stat,  mounted_types, mapping_name, cgroup_events,
    pressure,      node_meminfo,  number_list,  hugepages_name};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size == 0) return 0;
  std::string_view const text(reinterpret_cast<char const*>(data) + 1, size - 1);
  try {
    kTargets[data[0] % kTargets.size()](text);
  } catch (memacct::SourceFormatError const& error) {
    CHECK(!error.source().empty() && !error.reason().empty());
  }
  return 0;
}
