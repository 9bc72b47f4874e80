// Parsers of what the kernel says about the machine's memory: /proc/meminfo, its NUMA nodes,
// its hugetlb pools, pressure. Pure, and strict as those of proc_text.hpp.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace memacct {

/// Pressure stall information (Linux >= 4.20): the part of the time in which tasks waited for
/// memory. `some`: at least one task; `full`: all that were not idle at once.
struct Pressure {
  double some_avg10_ratio{};  // 0..1, of the last 10, 60 and 300 s; the kernel rounds to 1e-4
  double some_avg60_ratio{};
  double some_avg300_ratio{};
  std::uint64_t some_stalled_ns{};         // since boot, or since the group was made
  std::optional<double> full_avg10_ratio;  // nullopt: the file has no such line
  std::optional<double> full_avg60_ratio;
  std::optional<double> full_avg300_ratio;
  std::optional<std::uint64_t> full_stalled_ns;
  bool operator==(Pressure const&) const = default;
};

/// One NUMA node. The nodes' totals may be less than the machine's: memory that the kernel
/// took on without a node's zone (balloons, some hotplug) is in the machine's only.
struct NumaNode {
  std::uint32_t node{};
  std::uint64_t total_bytes{};                       // MemTotal
  std::uint64_t free_bytes{};                        // MemFree
  std::optional<std::uint64_t> inactive_file_bytes;  // page cache, by the kernel's two lists
  std::optional<std::uint64_t> active_file_bytes;
  std::optional<std::uint64_t> anon_bytes;   // AnonPages: mapped anonymous pages
  std::optional<std::uint64_t> shmem_bytes;  // Shmem: tmpfs and shared memory
  bool operator==(NumaNode const&) const = default;
};

/// The hugetlb pages of one size. total, free and surplus are the kernel's nr_hugepages
/// (surplus included), free_hugepages and surplus_hugepages; reserved pages are promised to
/// mappings but not yet touched, and still among the free ones.
struct HugetlbPool {
  std::uint64_t page_bytes{};
  std::uint64_t total_count{};
  std::uint64_t free_count{};
  std::uint64_t reserved_count{};
  std::uint64_t surplus_count{};
  bool operator==(HugetlbPool const&) const = default;
};

/// The machine: /proc/meminfo, and what lies beside it. A container sees its machine's.
struct SystemMemory {
  std::uint64_t total_bytes{};  // MemTotal, hugetlb pools included
  std::uint64_t free_bytes{};   // MemFree
  /// MemAvailable, Linux >= 3.14: the kernel's estimate of what new work may take without
  /// swapping. The free pages of hugetlb pools are not in it: only hugetlb mappings get them.
  std::optional<std::uint64_t> available_bytes;
  std::optional<std::uint64_t> cached_bytes;  // Cached: page cache, with shmem, without swap cache
  std::optional<std::uint64_t> shmem_bytes;   // Shmem: cannot be dropped, only swapped out
  std::optional<std::uint64_t> dirty_bytes;   // Dirty: must be written before it can be dropped
  std::optional<std::uint64_t> swap_total_bytes;
  std::optional<std::uint64_t> swap_free_bytes;
  std::optional<std::uint64_t> hugetlb_bytes;  // Hugetlb, Linux >= 4.20: pools of every size
  // The next three: nullopt if this kernel has none (or PSI is off), or it is not permitted.
  std::optional<Pressure> pressure;
  std::optional<std::vector<NumaNode>> nodes;
  std::optional<std::vector<HugetlbPool>> hugetlb_pools;  // by page size
  bool operator==(SystemMemory const&) const = default;
};

/// @throws SourceFormatError from each parser below, if the text is not understood; `source`
///   names the file in it.

/// The fields that /proc/meminfo gives; the others stay empty.
[[nodiscard]] SystemMemory parse_meminfo(std::string_view text);

/// /sys/devices/system/node/node<N>/meminfo, whose lines start with "Node <N> ".
[[nodiscard]] NumaNode parse_node_meminfo(std::string_view text, std::uint32_t node,
                                          std::string const& source);

/// A list of numbers as the kernel writes sets ("0-2,8"), in ascending order.
[[nodiscard]] std::vector<std::uint32_t> parse_number_list(std::string_view text,
                                                           std::string const& source);

/// /proc/pressure/memory, or a control group's memory.pressure.
[[nodiscard]] Pressure parse_pressure(std::string_view text, std::string const& source);

/// The page size in the name of a folder of /sys/kernel/mm/hugepages ("hugepages-2048kB").
[[nodiscard]] std::uint64_t parse_hugepages_name(std::string_view name, std::string const& source);

}  // namespace memacct
