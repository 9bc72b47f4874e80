// What device keys mean, remembered: to look them up takes strings, vectors and driver calls.
#include <cstdlib>
#include <cstring>

#include "memacct/device_session.hpp"

namespace memacct {
namespace {

/// What the meaning of a number depends on while the driver is not initialised.
constexpr std::array<char const*, 2> kVariables{"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"};

bool is_value(std::optional<std::string> const& known, char const* value) {
  return value == nullptr ? !known : known && *known == value;
}

}  // namespace

void TargetCache::clear() {
  keyed.clear();
  all.clear();
  of_driver.clear();
}

// Everything that a look-up depends on; what it remembers is dropped once one of it changed.
void DeviceSession::check_cache() {
  auto const state = driver.state();
  bool same = cache_.nvml_changes_count == nvml.changes_count() && cache_.state == state;
  for (std::size_t i = 0; i < kVariables.size(); ++i) {
    same = same && is_value(cache_.variables[i], std::getenv(kVariables[i]));
  }
  if (same) return;
  cache_.clear();
  cache_.nvml_changes_count = nvml.changes_count();
  cache_.state = state;
  for (std::size_t i = 0; i < kVariables.size(); ++i) {
    auto const* const value = std::getenv(kVariables[i]);
    cache_.variables[i] = value != nullptr ? std::optional<std::string>(value) : std::nullopt;
  }
}

// A device that one of the two libraries does not know may be known to it the next time.
bool DeviceSession::stays(DeviceTarget const& target) const {
  bool const of_number = driver.settled() && (nvml.settled() || target.cuda);
  return of_number && (target.nvml != nullptr || nvml.settled());
}

DeviceTarget const& DeviceSession::target(DeviceKey const& key) {
  check_cache();
  for (auto const& [known, target] : cache_.keyed) {
    if (known == key) return target;
  }
  auto found = resolve(key);
  check_cache();  // the look-up itself may have initialised NVML
  if (!stays(found)) return cache_.passing = std::move(found);
  return cache_.keyed.emplace_back(key, std::move(found)).second;
}

std::vector<DeviceTarget const*> const& DeviceSession::targets(DeviceSet set) {
  check_cache();
  cache_.chosen.clear();
  if (set == DeviceSet::kAll) {
    if (cache_.all.empty()) {
      auto found = resolve(set);
      check_cache();
      cache_.all = std::move(found);
    }
    for (auto const& target : cache_.all) cache_.chosen.push_back(&target);
    if (!driver.settled() || !nvml.settled()) cache_.state.reset();  // not to be used again
    return cache_.chosen;
  }
  auto const& devices = driver.devices();
  if (cache_.of_driver.size() != devices.size()) {
    std::deque<DeviceTarget> found;
    for (auto const& device : devices) found.push_back(from_cuda(device));
    check_cache();
    cache_.of_driver = std::move(found);
  }
  for (auto const& target : cache_.of_driver) {
    // Unknown counts as held: reading a device that we do not use does no harm.
    if (driver.has_context(*target.cuda) != false) cache_.chosen.push_back(&target);
    if (!stays(target)) cache_.state.reset();
  }
  return cache_.chosen;
}

}  // namespace memacct
