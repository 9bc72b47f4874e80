#include "memacct/nvml_instances.hpp"

namespace memacct::nvml {
namespace {

std::optional<std::uint32_t> id_of(int (*function)(Device, unsigned*), Device handle) {
  unsigned id = 0;
  if (function == nullptr || function(handle, &id) != kSuccess) return std::nullopt;
  return id;
}

}  // namespace

std::optional<InstanceFacts> instance_facts(Api const& api, Device handle) {
  unsigned is_instance = 0;
  if (api.is_instance == nullptr || api.is_instance(handle, &is_instance) != kSuccess ||
      is_instance == 0) {
    return std::nullopt;
  }
  InstanceFacts facts;
  if (api.whole_of_instance != nullptr && api.whole_of_instance(handle, &facts.whole) != kSuccess) {
    facts.whole = nullptr;
  }
  facts.gpu_instance_id = id_of(api.gpu_instance_id, handle);
  facts.compute_instance_id = id_of(api.compute_instance_id, handle);
  return facts;
}

std::vector<Device> instances_of(Api const& api, Device whole, std::string& problem) {
  std::vector<Device> found;
  unsigned places = 0;
  if (api.instance_places == nullptr || api.instance_by_place == nullptr) {
    problem = "this NVML cannot list MIG instances";
    return found;
  }
  if (int const code = api.instance_places(whole, &places); code != kSuccess) {
    problem = api.describe("instance_places", code);
    return found;
  }
  for (unsigned place = 0; place < places; ++place) {
    Device instance = nullptr;
    int const code = api.instance_by_place(whole, place, &instance);
    if (code == kSuccess) found.push_back(instance);
    if (code == kSuccess || code == kNotFound) continue;
    problem = api.describe("instance_by_place", code);
    break;
  }
  return found;
}

std::string old_instance_name(std::string const& parent_uuid, std::uint32_t gpu_instance_id,
                              std::uint32_t compute_instance_id) {
  return "MIG-" + parent_uuid + "/" + std::to_string(gpu_instance_id) + "/" +
         std::to_string(compute_instance_id);
}

}  // namespace memacct::nvml
