// MIG: the instances into which a GPU is divided, each with a handle of its own.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "memacct/nvml_api.hpp"

namespace memacct::nvml {

/// What is known of a handle that is an instance's.
struct InstanceFacts {
  Device whole = nullptr;  // the GPU that it is a part of; null if NVML does not say
  std::optional<std::uint32_t> gpu_instance_id;
  std::optional<std::uint32_t> compute_instance_id;
};

/// Nullopt if `handle` is a GPU's, or this driver knows no instances.
[[nodiscard]] std::optional<InstanceFacts> instance_facts(Api const& api, Device handle);

/// The instances of a divided GPU. Places without one are passed over; a call that failed ends
/// the search and is told in `problem`.
[[nodiscard]] std::vector<Device> instances_of(Api const& api, Device whole, std::string& problem);

/// "MIG-GPU-<uuid>/<gpu instance>/<compute instance>", as drivers before R470 named them and
/// CUDA_VISIBLE_DEVICES may still. Pure.
[[nodiscard]] std::string old_instance_name(std::string const& parent_uuid,
                                            std::uint32_t gpu_instance_id,
                                            std::uint32_t compute_instance_id);

}  // namespace memacct::nvml
