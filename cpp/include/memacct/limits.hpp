// Which of all limits on this process's memory is the one that counts.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "memacct/cgroup.hpp"
#include "memacct/system.hpp"

namespace memacct {

/// What sets a limit.
enum class LimitSource : std::uint8_t {
  kMachine,      // MemTotal; its room is MemAvailable
  kCgroup,       // a group's hard limit: beyond it the kernel reclaims, then kills
  kCgroupHigh,   // memory.high (v2): beyond it the kernel reclaims and throttles, and kills not
  kCgroupMemsw,  // v1's limit of memory and swap together
};

/// The smallest limit, and the least room, of all control group levels and the machine. The
/// two may be of different levels: a large limit that neighbours have filled is reached first.
///
/// memory.high counts as a limit: a process above it is slowed down as long as it stays there,
/// so nothing should be planned beyond it. Where it is what binds, the source says so; the
/// hard limits are in CgroupMemory::levels. Swap is room for nothing here.
struct MemoryLimits {
  std::optional<std::uint64_t> effective_limit_bytes;  // nullopt: nothing limits that is known
  std::optional<LimitSource> effective_limit_source;
  std::optional<std::string> effective_limit_path;  // nullopt: the machine, or above the mount
  /// What may be taken before the first limit is reached, if page cache makes way: of a group
  /// limit - usage + page cache, of the machine MemAvailable. An estimate, since of the page
  /// cache some may be dirty, locked or soon read again.
  std::optional<std::uint64_t> headroom_bytes;
  std::optional<LimitSource> headroom_source;
  std::optional<std::string> headroom_path;
  /// False: what counts against some limit is unknown. It then stands with its whole limit, and
  /// headroom_bytes is no more than an upper bound.
  bool headroom_known{};
  bool operator==(MemoryLimits const&) const = default;
};

/// Pure. Of equal values the machine's is named, then the higher level's, then a hard limit.
[[nodiscard]] MemoryLimits find_limits(std::optional<CgroupMemory> const& cgroup,
                                       std::optional<SystemMemory> const& system);

}  // namespace memacct
