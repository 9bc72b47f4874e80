// Which card a device is, read once from the settings.
#include "identity.hpp"

#include <algorithm>
#include <climits>
#include <iterator>
#include <string>
#include <vector>

#include "account.hpp"
#include "device.hpp"

namespace memacct::sim {
namespace {

constexpr int kKiB = 1024;
enum Architecture { kVolta = 5, kTuring, kAmpere, kAda, kHopper, kBlackwell };  // as NVML counts

constexpr Capability kCapabilities[] = {
    {7, 0, kVolta, 2048, 32, 96 * kKiB, 96 * kKiB, 0},
    {7, 5, kTuring, 1024, 16, 64 * kKiB, 64 * kKiB, 0},
    {8, 0, kAmpere, 2048, 32, 164 * kKiB, 163 * kKiB, kKiB},
    {8, 6, kAmpere, 1536, 16, 100 * kKiB, 99 * kKiB, kKiB},
    {8, 7, kAmpere, 1536, 16, 164 * kKiB, 163 * kKiB, kKiB},
    {8, 9, kAda, 1536, 24, 100 * kKiB, 99 * kKiB, kKiB},
    {9, 0, kHopper, 2048, 32, 228 * kKiB, 227 * kKiB, kKiB},
    {10, 0, kBlackwell, 2048, 32, 228 * kKiB, 227 * kKiB, kKiB},
    {10, 3, kBlackwell, 2048, 32, 228 * kKiB, 227 * kKiB, kKiB},
    {11, 0, kBlackwell, 1536, 24, 228 * kKiB, 227 * kKiB, kKiB},
    {12, 0, kBlackwell, 1536, 24, 100 * kKiB, 99 * kKiB, kKiB},
    {12, 1, kBlackwell, 1536, 24, 100 * kKiB, 99 * kKiB, kKiB},
};

std::vector<std::string> each(char const* name, char const* fallback, int count) {
  std::string const text = option_text(name, fallback);
  std::vector<std::string> parts;
  for (size_t at = 0; at <= text.size();) {
    size_t const end = std::min(text.find(',', at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  auto const wanted = static_cast<size_t>(count);
  if (parts.size() != 1 && parts.size() != wanted)
    fail("%s has %zu values for %zu devices", name, parts.size(), wanted);
  parts.resize(wanted, parts.front());
  return parts;
}

Capability const& capability_of(std::string const& text) {
  std::string known;
  for (Capability const& one : kCapabilities) {
    std::string const name = std::to_string(one.major) + "." + std::to_string(one.minor);
    if (name == text) return one;
    known += " " + name;
  }
  fail("MEMACCT_SIM_CAPABILITY=\"%s\" is none of%s", text.c_str(), known.c_str());
}

uint64_t number_of(char const* name, std::string const& text, uint64_t most) {
  auto const number = parse_bytes(text);
  if (!number || *number == 0 || *number > most)
    fail("%s: \"%s\" is not within 1 to %llu", name, text.c_str(),
         static_cast<unsigned long long>(most));
  return *number;
}

std::vector<Identity> read_identities() {
  int const count = physical_count();
  // What is integrated and not named is a GB10.
  auto const capabilities =
      each("MEMACCT_SIM_CAPABILITY", device_integrated() ? "12.1" : "9.0", count);
  auto const sms = each("MEMACCT_SIM_SM_COUNT", "132", count);
  auto const caches = each("MEMACCT_SIM_L2_BYTES", "50MiB", count);
  std::vector<Identity> found;
  for (size_t i = 0; i < capabilities.size(); ++i)
    found.push_back({.capability = capability_of(capabilities[i]),
                     .sm_count = static_cast<int>(number_of("MEMACCT_SIM_SM_COUNT", sms[i], 4096)),
                     .l2_bytes = number_of("MEMACCT_SIM_L2_BYTES", caches[i], INT_MAX)});
  return found;
}

}  // namespace

Identity const& device_identity(int physical) {
  static auto const* const all = new std::vector<Identity>{read_identities()};
  return (*all)[static_cast<size_t>(whole_device(physical))];
}

Peers device_peers() {
  static Peers const peers = [] {
    std::string const text = option_text("MEMACCT_SIM_PEERS", "nvlink");
    if (text == "nvlink") return Peers::NvLink;
    if (text == "pcie") return Peers::Pcie;
    if (text != "none") fail("MEMACCT_SIM_PEERS=\"%s\" is not nvlink, pcie or none", text.c_str());
    return Peers::None;
  }();
  return peers;
}

}  // namespace memacct::sim
