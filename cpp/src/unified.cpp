#include "memacct/unified.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "memacct/kib_lines.hpp"
#include "memacct/proc_file.hpp"
#include "memacct/system_text.hpp"

namespace memacct {
namespace {

using Bytes = std::optional<std::uint64_t>;

constexpr char const* kMeminfo = "/proc/meminfo";
constinit ProcFile meminfo_file{kMeminfo};

Bytes sum(Bytes a, Bytes b) { return a && b ? Bytes(*a + *b) : std::nullopt; }

/// Unknown too if it is negative: the kernel's counters are not of one instant.
Bytes difference(Bytes a, Bytes b) { return a && b && *a >= *b ? Bytes(*a - *b) : std::nullopt; }

/// The smallest of what is known, and which one it is.
std::optional<std::pair<std::uint64_t, FreeSource>> least_free(UnifiedMemory const& memory) {
  std::optional<std::pair<std::uint64_t, FreeSource>> least;
  auto const consider = [&](Bytes free, FreeSource source) {
    if (free && (!least || *free < least->first)) least.emplace(*free, source);
  };
  consider(memory.cuda_free_bytes, FreeSource::kCuda);
  consider(memory.host_free_bytes, FreeSource::kHostFree);
  consider(memory.host_available_bytes, FreeSource::kHostAvailable);
  return least;
}

void choose_free(UnifiedMemory& memory) {
  auto const least = least_free(memory);
  if (!least) return;
  memory.free_source = least->second;
  memory.withheld_bytes = difference(memory.host_free_bytes, least->first);
}

}  // namespace

Bytes UnifiedMemory::free_bytes() const noexcept {
  auto const least = least_free(*this);
  return least ? Bytes(least->first) : std::nullopt;
}

Bytes UnifiedMemory::device_used_bytes() const noexcept {
  auto const taken = difference(host_total_bytes, host_free_bytes);
  return difference(difference(taken, page_cache_bytes), host_processes_bytes);
}

UnifiedMemory parse_integrated(std::string_view meminfo, Bytes cuda_free_bytes,
                               Bytes cuda_total_bytes) {
  static constexpr std::array<KibLine, 7> kLines{{{"MemTotal", true},
                                                  {"MemFree", true},
                                                  {"MemAvailable"},
                                                  {"Buffers"},
                                                  {"Cached"},
                                                  {"AnonPages"},
                                                  {"Shmem"}}};
  auto const values = read_kib_lines(meminfo, kMeminfo, kLines);
  auto const& shmem = values[6];  // in "Cached", but nothing that can be dropped
  UnifiedMemory memory{.kind = UnifiedKind::kIntegrated,
                       .numa_node = {},
                       .host_total_bytes = values[0],
                       .host_free_bytes = values[1],
                       .host_available_bytes = values[2],
                       .cuda_free_bytes = cuda_free_bytes,
                       .cuda_total_bytes = cuda_total_bytes,
                       .free_source = {},
                       .withheld_bytes = {},
                       .page_cache_bytes = sum(difference(values[4], shmem), values[3]),
                       .host_processes_bytes = sum(values[5], shmem)};
  choose_free(memory);
  return memory;
}

UnifiedMemory read_integrated(Bytes cuda_free_bytes, Bytes cuda_total_bytes) {
  try {
    std::array<char, 8192> buffer;
    return meminfo_file.read(buffer, [&](std::string_view text) {
      return parse_integrated(text, cuda_free_bytes, cuda_total_bytes);
    });
  } catch (SourceUnavailableError const&) {
    UnifiedMemory memory{.kind = UnifiedKind::kIntegrated,
                         .cuda_free_bytes = cuda_free_bytes,
                         .cuda_total_bytes = cuda_total_bytes};
    choose_free(memory);
    return memory;
  }
}

UnifiedMemory read_coherent(int numa_node, std::string const& root) {
  UnifiedMemory memory{.kind = UnifiedKind::kCoherent, .numa_node = numa_node};
  auto const path = root + "/sys/devices/system/node/node" + std::to_string(numa_node) + "/meminfo";
  auto const text = read_optional_file(path);
  if (!text) return memory;
  auto const node = parse_node_meminfo(*text, static_cast<std::uint32_t>(numa_node), path);
  memory.host_total_bytes = node.total_bytes;
  memory.host_free_bytes = node.free_bytes;
  memory.page_cache_bytes = sum(node.active_file_bytes, node.inactive_file_bytes);
  memory.host_processes_bytes = sum(node.anon_bytes, node.shmem_bytes);
  return memory;
}

}  // namespace memacct
