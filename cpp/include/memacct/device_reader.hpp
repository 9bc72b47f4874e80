// One reading of one device, put together from its collect and what is remembered.
#pragma once
#include <cstdint>
#include <optional>

#include "memacct/collector.hpp"

namespace memacct {

/// Reads list, memory, list until nothing moved in between; see "What one snapshot
/// guarantees" in DESIGN.md. The session's lock must be held.
/// @throws SourceUnavailableError or DriverError if no source tells the device's memory,
///   nvml::CallError if NVML as a whole has failed.
void read_target(DeviceSession& session, DeviceTarget const& target, ReadRequest const& request,
                 DeviceMemory& device);

}  // namespace memacct
