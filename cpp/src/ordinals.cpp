#include "memacct/ordinals.hpp"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "memacct/error.hpp"
#include "memacct/visible_devices.hpp"

namespace memacct {
namespace {

using Devices = std::vector<nvml::SessionDevice*>;

std::string quoted_ordinal(std::int64_t ordinal) {
  return "device " + std::to_string(ordinal) + ": ";
}

std::invalid_argument none_such(std::int64_t ordinal, char const* visible, std::size_t count) {
  auto const leaves = visible != nullptr
                          ? "CUDA_VISIBLE_DEVICES=" + std::string(visible) + " leaves "
                          : std::string("NVML lists ");
  return std::invalid_argument(quoted_ordinal(ordinal) + leaves + std::to_string(count) +
                               (count == 1 ? " device" : " devices") +
                               (count == 0 ? "" : " (0 to " + std::to_string(count - 1) + ")"));
}

std::invalid_argument unsure(std::int64_t ordinal, std::string const& why, Devices const& devices) {
  auto text = quoted_ordinal(ordinal) + why + ". Name the device instead:";
  for (auto const* const device : devices) {
    text += (device == devices.front() ? " " : ", ") + device->uuid + " (" + device->name + ")";
  }
  return std::invalid_argument(text);
}

std::vector<std::string_view> uuids_of(Devices const& devices) {
  std::vector<std::string_view> uuids;
  for (auto const* const device : devices) uuids.emplace_back(device->uuid);
  return uuids;
}

std::optional<std::string> old_name(nvml::SessionDevice const& instance) {
  if (!instance.parent_uuid || !instance.gpu_instance_id || !instance.compute_instance_id) {
    return std::nullopt;
  }
  return nvml::old_instance_name(*instance.parent_uuid, *instance.gpu_instance_id,
                                 *instance.compute_instance_id);
}

// Learns a GPU's total; whether it can still be asked.
bool knows_total(nvml::Session& session, nvml::SessionDevice& gpu) {
  nvml::Failure ignored;
  try {
    if (!gpu.lost && !gpu.total_bytes) (void)session.read_memory(gpu, ignored);
  } catch (nvml::CallError const& error) {
    if (nvml::severity_of(error.code) != nvml::Severity::kDeviceLost) throw;
    gpu.lost = error;
  }
  return !gpu.lost;
}

// The total too: one model is sold with memory of several sizes. What a lost GPU was is not known,
// and whoever asks for it shall hear that it is lost.
bool alike(nvml::Session& session, Devices gpus) {
  std::erase_if(gpus, [&](auto* gpu) { return !knows_total(session, *gpu); });
  if (gpus.empty()) return true;
  auto const& first = *gpus.front();
  return !first.name.empty() && std::all_of(gpus.begin(), gpus.end(), [&](auto const* gpu) {
    return gpu->name == first.name && gpu->pci_model == first.pci_model &&
           gpu->total_bytes == first.total_bytes;
  });
}

bool numbered_by_place(nvml::Session& session, Devices const& gpus) {
  auto const* const order = std::getenv("CUDA_DEVICE_ORDER");
  bool const by_place = order != nullptr && std::string_view(order) == "PCI_BUS_ID";
  return by_place || gpus.size() < 2 || alike(session, gpus);
}

nvml::SessionDevice& named_instance(nvml::Session& session, std::int64_t ordinal,
                                    char const* visible, VisibleTokens asked) {
  auto const instances = session.instances();
  for (auto& token : asked.tokens) {
    for (auto const* const instance : instances) {
      if (old_name(*instance) == token) token = instance->uuid;
    }
  }
  if (ordinal < 0 || static_cast<std::size_t>(ordinal) >= asked.tokens.size()) {
    throw none_such(ordinal, visible, asked.tokens.size());
  }
  auto const uuids = uuids_of(instances);
  auto const order = match_visible(asked, uuids);
  auto const& first = asked.tokens.front();
  bool const beginning = std::any_of(
      uuids.begin(), uuids.end(), [&](std::string_view uuid) { return uuid.starts_with(first); });
  // Named twice, or the beginning of several.
  if (order.empty() && beginning) throw none_such(ordinal, visible, 0);
  // NVML may know what it does not enumerate.
  auto* const instance = order.empty() ? session.by_uuid(first) : instances[order.front()];
  if (instance == nullptr) {
    throw SourceUnavailableError(
        session.library().path(),
        "NVML does not know " + first + ", which CUDA_VISIBLE_DEVICES names");
  }
  if (ordinal > 0) {
    throw unsure(ordinal, "CUDA gives a process one MIG instance, and that is device 0", instances);
  }
  return *instance;
}

// The instance that CUDA would pick where GPUs among `asked` are divided; null if none is.
nvml::SessionDevice* picked_instance(nvml::Session& session, std::int64_t ordinal,
                                     Devices const& asked) {
  if (std::none_of(asked.begin(), asked.end(),
                   [](auto const* gpu) { return gpu->mig_enabled == true; })) {
    return nullptr;
  }
  auto instances = session.instances();
  std::erase_if(instances, [&](auto const* instance) {
    return std::none_of(asked.begin(), asked.end(),
                        [&](auto const* gpu) { return gpu->uuid == instance->parent_uuid; });
  });
  if (asked.size() == 1 && instances.size() == 1) return instances.front();
  if (instances.empty()) instances = asked;
  throw unsure(ordinal,
               "GPUs here are divided into MIG instances, of which CUDA gives a process one; "
               "which it is, is known once CUDA is initialised",
               instances);
}

}  // namespace

void no_device_listed(nvml::Session const& session) {
  throw SourceUnavailableError(session.library().path(), session.notes().empty()
                                                             ? "NVML lists no device"
                                                             : session.notes().back());
}

nvml::SessionDevice* instance_by_name(nvml::Session& session, std::string const& name) {
  for (auto* const instance : session.instances()) {
    if (instance->uuid == name || old_name(*instance) == name) return instance;
  }
  return name.starts_with("MIG-") ? session.by_uuid(name) : nullptr;
}

nvml::SessionDevice& device_of_ordinal(nvml::Session& session, std::int64_t ordinal) {
  auto const* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  auto const gpus = session.gpus();
  VisibleTokens asked;
  if (visible != nullptr) asked = parse_visible(visible);
  if (asked.kind == VisibleKind::kInstances) {
    return named_instance(session, ordinal, visible, std::move(asked));
  }
  if (gpus.empty()) no_device_listed(session);
  std::vector<std::size_t> order(gpus.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (visible != nullptr) order = match_visible(asked, uuids_of(gpus));
  if (ordinal < 0 || static_cast<std::size_t>(ordinal) >= order.size()) {
    throw none_such(ordinal, visible, order.size());
  }
  bool const by_number = asked.kind == VisibleKind::kNumbers;
  Devices candidates;
  for (auto const place : order) candidates.push_back(gpus[place]);
  if (auto* const instance = picked_instance(session, ordinal, by_number ? gpus : candidates)) {
    return *instance;
  }
  if (by_number && !numbered_by_place(session, gpus)) {
    throw unsure(ordinal,
                 "the GPUs are unlike, and CUDA numbers them from the fastest on unless "
                 "CUDA_DEVICE_ORDER is PCI_BUS_ID; the numbers are known once it is initialised",
                 gpus);
  }
  return *candidates[static_cast<std::size_t>(ordinal)];
}

}  // namespace memacct
