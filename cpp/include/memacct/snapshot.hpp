// All sources, read at one barrier, in a fixed order.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "memacct/allocator.hpp"
#include "memacct/boxed.hpp"
#include "memacct/cgroup.hpp"
#include "memacct/device.hpp"
#include "memacct/host.hpp"
#include "memacct/limits.hpp"
#include "memacct/mapping_table.hpp"
#include "memacct/system.hpp"

namespace memacct {

struct Snapshot {
  std::uint64_t taken_ns{};  // CLOCK_MONOTONIC before the first reading
  std::uint64_t span_ns{};   // until after the last
  std::int32_t pid{};
  HostMemory host;
  Boxed<MappingTable> mappings;  // nullopt: not asked for, or no source here
  Boxed<CgroupMemory> cgroup;
  Boxed<SystemMemory> system;
  Boxed<MemoryLimits> limits;  // what of cgroup and system binds; nullopt: neither is known
  std::optional<std::vector<DeviceMemory>> devices;  // nullopt: not asked for, or no driver
  std::optional<std::vector<AllocatorMemory>> torch;
  bool operator==(Snapshot const&) const = default;
};
// malloc serves up to 1032 bytes from the thread's own cache (glibc), and larger ones far slower.
static_assert(sizeof(Snapshot) <= 1032);

/// What a snapshot is to hold.
struct SnapshotRequest {
  HostTier host = HostTier::kBreakdown;
  bool limits = false;                     // cgroup and system as well
  std::optional<DeviceSelection> devices;  // nullopt: none are asked for
};

/// False if `request` asks for no device, or for those with a context in a process without
/// the CUDA driver. Cost: about 20 ns.
[[nodiscard]] bool reads_devices(SnapshotRequest const& request) noexcept;

/// Reads, in this order: host, cgroup and system, devices, clock. The caller has read the
/// clock (`taken_ns`) and then the allocators, whose reader is a function of the host program;
/// what they hold bounds this process's part of a device where nothing else does.
///
/// `with_devices` is what reads_devices() said: where it is false, no device is looked for.
///
/// A source that is not on this machine leaves its part empty; without smaps_rollup, or without
/// smaps, the host part is the breakdown, and without the residency's it is the mappings: its
/// tier says what it is. @throws every other error of the sources.
[[nodiscard]] Snapshot take_snapshot(SnapshotRequest const& request, bool with_devices,
                                     std::uint64_t taken_ns,
                                     std::optional<std::vector<AllocatorMemory>> allocators);

}  // namespace memacct
