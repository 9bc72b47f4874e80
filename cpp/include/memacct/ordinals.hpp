// Which device a CUDA ordinal will mean in this process, while its driver is not initialised.
#pragma once
#include <cstdint>
#include <string>

#include "memacct/nvml_session.hpp"

namespace memacct {

// Note [Never a guess]
// The driver numbers devices by CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER as they stand at
// cuInit. Before, a number is told only where it can be no other device:
// - UUIDs in CUDA_VISIBLE_DEVICES leave no doubt. Numbers, and all devices, are counted from the
//   fastest on, by a rule that NVIDIA does not tell, unless CUDA_DEVICE_ORDER is PCI_BUS_ID, which
//   is NVML's order. Alike devices (one model, one board, one size of memory) are equally fast
//   and stay in that order.
// - Of divided GPUs a process gets one MIG instance, and no other device beside it ("will pick
//   the first one available", MIG user guide): told where there is only one to pick.
// What is read is the environment as it is now: nothing else can be asked.

/// @throws std::invalid_argument if there is no such ordinal, or if it could be more than one
///   device: with the UUIDs that name them. SourceUnavailableError if NVML lists no device, or
///   does not know the instance that the environment names.
[[nodiscard]] nvml::SessionDevice& device_of_ordinal(nvml::Session& session, std::int64_t ordinal);

/// By its whole UUID, or the older "MIG-GPU-<uuid>/<gi>/<ci>"; null if NVML does not know it.
[[nodiscard]] nvml::SessionDevice* instance_by_name(nvml::Session& session,
                                                    std::string const& name);

/// @throws SourceUnavailableError, with what NVML said last.
[[noreturn]] void no_device_listed(nvml::Session const& session);

}  // namespace memacct
