#include "memacct/system.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <system_error>

#include "memacct/proc_file.hpp"
#include "memacct/text.hpp"

namespace memacct {
namespace {

constinit ProcFile meminfo_file{"/proc/meminfo"};

SystemMemory read_meminfo(std::string const& root) {
  if (root.empty()) {
    std::array<char, 8192> buffer;
    return meminfo_file.read(buffer, parse_meminfo);
  }
  auto const path = root + "/proc/meminfo";
  auto const text = read_file(path);
  if (!text) throw SourceUnavailableError(path, "no such file");
  return parse_meminfo(*text);
}

std::optional<std::vector<NumaNode>> read_nodes(std::string const& root) {
  auto const folder = root + "/sys/devices/system/node/";
  auto const online = read_optional_file(folder + "online");
  if (!online) return std::nullopt;
  std::vector<NumaNode> nodes;
  for (auto const node : parse_number_list(*online, folder + "online")) {
    auto const path = folder + "node" + std::to_string(node) + "/meminfo";
    // A node that went offline meanwhile is no longer there.
    auto const text = read_optional_file(path);
    if (text) nodes.push_back(parse_node_meminfo(*text, node, path));
  }
  return nodes;
}

/// nullopt: there is no such file.
std::optional<std::uint64_t> read_count(std::string const& path) {
  auto const text = read_optional_file(path);
  if (!text) return std::nullopt;
  std::string_view rest = *text;
  auto const line = take_line(rest, path);
  auto const value = parse_number(line);
  if (!value || !rest.empty()) throw_format(path, "not a number", line);
  return value;
}

/// nullopt: the pool is not all there.
std::optional<HugetlbPool> read_pool(std::string const& folder, std::uint64_t page_bytes) {
  auto const total = read_count(folder + "/nr_hugepages");
  if (!total) return std::nullopt;
  HugetlbPool pool{.page_bytes = page_bytes, .total_count = *total};
  // Free, reserved and surplus pages are all pages of the pool: an empty one has none.
  if (*total == 0) return pool;
  auto const free = read_count(folder + "/free_hugepages");
  auto const reserved = read_count(folder + "/resv_hugepages");
  auto const surplus = read_count(folder + "/surplus_hugepages");
  if (!free || !reserved || !surplus) return std::nullopt;
  pool.free_count = *free;
  pool.reserved_count = *reserved;
  pool.surplus_count = *surplus;
  return pool;
}

std::optional<std::vector<HugetlbPool>> read_pools(std::string const& root, bool all_empty) {
  auto const folder = root + "/sys/kernel/mm/hugepages";
  std::vector<HugetlbPool> pools;
  std::error_code failed;
  for (std::filesystem::directory_iterator entry(folder, failed), end; !failed && entry != end;
       entry.increment(failed)) {
    auto const name = entry->path().filename().string();
    auto const page_bytes = parse_hugepages_name(name, folder);
    auto const pool = all_empty ? std::optional(HugetlbPool{.page_bytes = page_bytes})
                                : read_pool(folder + "/" + name, page_bytes);
    if (pool) pools.push_back(*pool);
  }
  if (failed) return std::nullopt;
  std::ranges::sort(pools, {}, &HugetlbPool::page_bytes);
  return pools;
}

}  // namespace

SystemMemory read_system(std::string const& root) {
  auto system = read_meminfo(root);
  auto const pressure_path = root + "/proc/pressure/memory";
  auto const pressure = read_optional_file(pressure_path);
  if (pressure) system.pressure = parse_pressure(*pressure, pressure_path);
  system.nodes = read_nodes(root);
  // Where meminfo counts no hugetlb page of any size, the pools need not be asked.
  system.hugetlb_pools = read_pools(root, system.hugetlb_bytes == 0);
  return system;
}

}  // namespace memacct
