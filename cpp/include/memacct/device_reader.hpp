// One consistent reading of one device: the double collect.
#pragma once
#include <cstdint>
#include <optional>

#include "memacct/device_session.hpp"

namespace memacct {

struct ReadRequest {
  std::optional<AllocatorClaim> allocator;
  bool with_cuda = false;
};

/// How often the collects are repeated, without a pause, until two agree.
inline constexpr int kCollectAttempts = 8;

/// Reads list, memory, list until nothing moved in between; see "What one snapshot
/// guarantees" in DESIGN.md. The session's lock must be held.
/// @throws SourceUnavailableError or DriverError if no source tells the device's memory,
///   nvml::CallError if NVML as a whole has failed.
[[nodiscard]] DeviceMemory read_target(DeviceSession& session, DeviceTarget const& target,
                                       ReadRequest const& request);

/// What is known of this process apart from the list, for find_own().
[[nodiscard]] SelfFacts self_facts(DeviceSession& session, DeviceTarget const& target,
                                   std::optional<AllocatorClaim> const& allocator);

}  // namespace memacct
