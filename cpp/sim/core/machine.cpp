// The machine's settings as its maker gives them: devices, alike or not, and MIG instances.
#include <algorithm>
#include <string>
#include <vector>

#include "account.hpp"

namespace memacct::sim {
namespace {

constexpr uint64_t kH100Bytes = 81559 * kMiB;
// Ids as the driver gives them to small instances: no order of the instances starts with them.
constexpr int32_t kFirstGpuInstance = 7;

std::vector<std::string> split(std::string const& text, char separator) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= text.size() && !text.empty();) {
    size_t const end = std::min(text.find(separator, at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

uint64_t to_bytes(char const* name, std::string const& text) {
  auto const bytes = parse_bytes(text);
  if (!bytes) fail("%s: \"%s\" is not a size such as 4096, 400MiB or 1.5GiB", name, text.c_str());
  return *bytes;
}

/// A size for each device: the one that is given, or as many as there are devices.
std::vector<uint64_t> sizes(char const* name, std::vector<uint64_t> fallback) {
  auto const parts = split(option_text(name, ""), ',');
  if (parts.empty()) return fallback;
  if (parts.size() != 1 && parts.size() != fallback.size())
    fail("%s has %zu sizes for %zu devices", name, parts.size(), fallback.size());
  for (size_t i = 0; i < fallback.size(); ++i)
    fallback[i] = to_bytes(name, parts[parts.size() == 1 ? 0 : i]);
  return fallback;
}

// "DEVICE=SIZE,SIZE,...": an instance of each size; a size of 0 leaves its place empty.
void divide(MachineConfig& config, std::string const& rule, uint64_t reserved_bytes) {
  constexpr char const* kName = "MEMACCT_SIM_MIG";
  size_t const equals = rule.find('=');
  auto const device = static_cast<int32_t>(to_bytes(kName, rule.substr(0, equals)));
  if (equals == std::string::npos || device >= config.devices)
    fail("%s: \"%s\" is not DEVICE=SIZE,SIZE,... of one of %d devices", kName, rule.c_str(),
         config.devices);
  config.units[device].divided = true;
  uint64_t left = config.units[device].total_bytes - config.units[device].reserved_bytes;
  int32_t place = -1;
  for (std::string const& size : split(rule.substr(equals + 1), ',')) {
    ++place;
    uint64_t const bytes = to_bytes(kName, size);
    if (bytes == 0) continue;
    if (bytes > left) fail("%s: device %d has not that much: %s", kName, device, rule.c_str());
    if (config.units_count == kMaxUnits) fail("%s: too many instances", kName);
    left -= bytes;
    config.units[config.units_count++] = {.total_bytes = bytes,
                                          .cuda_total_bytes = bytes,
                                          .reserved_bytes = reserved_bytes,
                                          .parent = device,
                                          .mig_index = place,
                                          .gpu_instance = kFirstGpuInstance + place,
                                          .compute_instance = 0};
  }
}

}  // namespace

MachineConfig machine_config_from_environment() {
  MachineConfig config;
  config.devices = static_cast<int32_t>(option_bytes("MEMACCT_SIM_DEVICES", 1));
  if (config.devices < 0 || config.devices > kMaxDevices)
    fail("MEMACCT_SIM_DEVICES=%d is not within 0 to %d", config.devices, kMaxDevices);
  auto const count = static_cast<size_t>(config.devices);
  auto const totals = sizes("MEMACCT_SIM_TOTAL_BYTES", std::vector(count, kH100Bytes));
  auto const cuda_totals = sizes("MEMACCT_SIM_CUDA_TOTAL_BYTES", totals);
  auto const reserved = sizes("MEMACCT_SIM_RESERVED_BYTES", std::vector(count, uint64_t{0}));
  auto const speeds = sizes("MEMACCT_SIM_SPEEDS", std::vector(count, uint64_t{1}));
  for (size_t i = 0; i < count; ++i)
    config.units[i] = {.total_bytes = totals[i],
                       .cuda_total_bytes = cuda_totals[i],
                       .reserved_bytes = reserved[i],
                       .speed = static_cast<int32_t>(speeds[i])};
  config.units_count = config.devices;
  config.unattributed_bytes = option_bytes("MEMACCT_SIM_UNATTRIBUTED_BYTES", 0);
  if (!option_text("MEMACCT_SIM_NUMA_NODE", "").empty())
    config.first_numa_node = static_cast<int32_t>(option_bytes("MEMACCT_SIM_NUMA_NODE", 0));
  uint64_t const mig_reserved = option_bytes("MEMACCT_SIM_MIG_RESERVED_BYTES", 0);
  for (std::string const& rule : split(option_text("MEMACCT_SIM_MIG", ""), ';'))
    divide(config, rule, mig_reserved);
  return config;
}

}  // namespace memacct::sim
