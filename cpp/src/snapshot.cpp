#include "memacct/snapshot.hpp"

#include <utility>

#include "memacct/clock.hpp"
#include "memacct/dylib.hpp"
#include "memacct/error.hpp"
#include "memacct/mappings.hpp"
#include "memacct/process.hpp"
#include "memacct/residency.hpp"
#include "memacct/rss_error.hpp"

namespace memacct {
namespace {

MappingTable read_table(HostTier tier) {
  if (tier == HostTier::kResidency) {
    try {
      if (auto table = read_residency()) return *std::move(table);
    } catch (SourceUnavailableError const&) {
      // pagemap is denied to more processes (after setuid, by seccomp) than smaps is.
    }
  }
  return read_mappings();
}

bool is_one_file(HostTier tier) noexcept {
  return tier == HostTier::kCounters || tier == HostTier::kBreakdown;
}

/// Fills host and mappings in a tier that walks the page tables, or in a lesser one.
void walk_host(HostTier tier, Snapshot& result) {
  try {
    if (tier == HostTier::kRollup) {
      result.host = read_host(tier);
      return;
    }
    auto const pid = current_pid();
    auto const status = read_status();
    result.mappings = read_table(tier);
    result.host = host_from_mappings(status, *result.mappings);
    result.host.pid = pid;
    result.host.rss_error_bound_bytes = rss_error_bound(status.thread_count);
  } catch (SourceUnavailableError const&) {
    result.mappings.reset();
    result.host = read_host(HostTier::kBreakdown);
  }
}

/// Leaves `part` unknown where its source is not on this machine: the only error that may
/// become unknown.
template <typename T, typename Read>
void read_if_available(std::optional<T>& part, Read const& read) {
  try {
    part = read();
  } catch (SourceUnavailableError const&) {
    part.reset();
  }
}

void read_limits(Snapshot& result) {
  std::optional<CgroupMemory> cgroup;
  std::optional<SystemMemory> system;
  read_if_available(cgroup, [] { return read_cgroup(); });
  read_if_available(system, [] { return read_system(); });
  if (cgroup || system) result.limits = find_limits(cgroup, system);
  result.cgroup = std::move(cgroup);
  result.system = std::move(system);
}

DeviceOptions device_options(std::optional<std::vector<AllocatorMemory>> const& allocators) {
  DeviceOptions options;
  if (!allocators) return options;
  for (auto const& allocator : *allocators) {
    AllocatorClaim const claim{
        .reserved_bytes = allocator.reserved_bytes,
        .backed_bytes = allocator.backed_bytes.value_or(allocator.reserved_bytes)};
    options.allocators[allocator.uuid] = claim;
    if (allocator.cuda_ordinal) options.allocators_by_ordinal[*allocator.cuda_ordinal] = claim;
  }
  return options;
}

// CUDA's name of a MIG instance is not NVML's: the ordinal tells that it is one device.
void name_as_devices(std::vector<AllocatorMemory>& allocators,
                     std::vector<DeviceMemory> const& devices) {
  for (auto& allocator : allocators) {
    for (auto const& device : devices) {
      if (allocator.cuda_ordinal && allocator.cuda_ordinal == device.cuda_ordinal) {
        allocator.uuid = device.uuid;
      }
    }
  }
}

}  // namespace

bool reads_devices(SnapshotRequest const& request) noexcept {
  if (!request.devices) return false;
  auto const* const set = std::get_if<DeviceSet>(&*request.devices);
  return set == nullptr || *set != DeviceSet::kAuto || driver_loaded_in_process();
}

Snapshot take_snapshot(SnapshotRequest const& request, bool with_devices, std::uint64_t taken_ns,
                       std::optional<std::vector<AllocatorMemory>> allocators) {
  // Built where it stays: a copy of it would cost a tenth of what statm does.
  Snapshot result{.taken_ns = taken_ns,
                  .host = is_one_file(request.host) ? read_host(request.host) : HostMemory{},
                  .torch = std::move(allocators)};
  if (!is_one_file(request.host)) walk_host(request.host, result);
  result.pid = result.host.pid;
  if (request.limits) {
    read_limits(result);
  }
  if (with_devices) {
    auto const options = device_options(result.torch);
    read_if_available(result.devices, [&] { return read_devices(*request.devices, options); });
    if (result.torch && result.devices) name_as_devices(*result.torch, *result.devices);
  } else if (request.devices) {
    result.devices.emplace();
  }
  result.span_ns = monotonic_ns() - taken_ns;
  return result;
}

}  // namespace memacct
