// The simulated devices: an H100 SXM each, unless the settings say otherwise.
#include "device.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "account.hpp"

namespace memacct::sim {
namespace {

constexpr int kIntegrated = 18;
constexpr int kPciBus = 33;

struct Attribute {
  int number;
  int value;
};
constexpr Attribute kAttributes[] = {
    {1, 1024},         // threads per block
    {2, 1024},         // block x
    {3, 1024},         // block y
    {4, 64},           // block z
    {5, 2147483647},   // grid x
    {6, 65535},        // grid y
    {7, 65535},        // grid z
    {8, 49152},        // shared memory per block
    {9, 65536},        // constant memory
    {10, 32},          // warp size
    {11, 2147483647},  // pitch
    {12, 65536},       // registers per block
    {13, 1980000},     // clock, kHz
    {14, 512},         // texture alignment
    {15, 1},           // copies overlap with kernels
    {16, 132},         // multiprocessors
    {19, 1},           // can map host memory
    {31, 1},           // concurrent kernels
    {32, 1},           // ECC
    {36, 2619000},     // memory clock, kHz
    {37, 5120},        // bus width
    {38, 52428800},    // L2
    {39, 2048},        // threads per multiprocessor
    {40, 3},           // copy engines
    {41, 1},           // unified addressing
    {75, 9},           // compute capability 9.0
    {78, 1},           // stream priorities
    {79, 1},           // global L1
    {80, 1},           // local L1
    {81, 233472},      // shared memory per multiprocessor
    {82, 65536},       // registers per multiprocessor
    {83, 1},           // managed memory
    {89, 1},           // concurrent managed access
    {90, 1},           // compute preemption
    {91, 1},           // host pointers of registered memory
    {95, 1},           // cooperative launch
    {97, 232448},      // shared memory per block, opt-in
    {102, 1},          // virtual memory management
    {103, 1},          // POSIX file handles
    {106, 32},         // blocks per multiprocessor
    {108, 33554432},   // persisting L2
    {109, 134213632},  // access policy window
    {111, 1024},       // shared memory that the system keeps per block
    {115, 1},          // memory pools
    {120, 1},          // cluster launch
    {125, 1},          // IPC events
};

int find_by_uuid(std::string const& prefix) {
  int found = -1;
  for (int i = 0; i < physical_count(); ++i) {
    char uuid[48];
    device_uuid_text(i, uuid, sizeof uuid);
    if (std::string(uuid).compare(0, prefix.size(), prefix) != 0) continue;
    if (found >= 0) return -1;  // ambiguous
    found = i;
  }
  return found;
}

int find_by_number(std::string const& text) {
  char* rest = nullptr;
  long const number = std::strtol(text.c_str(), &rest, 10);
  bool const valid = rest != text.c_str() && number >= 0 && number < physical_count();
  return valid ? static_cast<int>(number) : -1;
}

// CUDA's own rules: what follows an invalid entry is not seen, a repeated one hides all.
std::vector<int> parse_visible(char const* text) {
  std::vector<int> visible;
  if (text == nullptr) {
    for (int i = 0; i < physical_count(); ++i) visible.push_back(i);
    return visible;
  }
  std::string const list{text};
  for (size_t at = 0; at < list.size();) {
    size_t const comma = std::min(list.find(',', at), list.size());
    std::string const item = list.substr(at, comma - at);
    at = comma + 1;
    int const found = item.compare(0, 4, "GPU-") == 0 ? find_by_uuid(item) : find_by_number(item);
    if (found < 0) break;
    for (int const before : visible)
      if (before == found) return {};
    visible.push_back(found);
  }
  return visible;
}

std::vector<int> const& visible() {
  // Read once, as the driver does.
  static auto const* const list =
      new std::vector<int>(parse_visible(std::getenv("CUDA_VISIBLE_DEVICES")));
  return *list;
}

}  // namespace

int physical_count() { return machine_config().devices; }

int device_count() { return static_cast<int>(visible().size()); }

int physical_index(int device) {
  return device >= 0 && device < device_count() ? visible()[static_cast<size_t>(device)] : -1;
}

char const* device_name() {
  static auto const* const name =
      new std::string(option_text("MEMACCT_SIM_NAME", "NVIDIA H100 80GB HBM3"));
  return name->c_str();
}

void device_uuid(int physical, uint8_t out[16]) {
  static constexpr uint8_t kBase[16] = {0x51, 0x6d, 0xcd, 0xa0, 0x00, 0x00, 0x40, 0x00,
                                        0x80, 0x00, 0x51, 0x6d, 0xcd, 0xa0, 0x00, 0x00};
  std::memcpy(out, kBase, sizeof kBase);
  out[15] = static_cast<uint8_t>(physical);
}

void device_uuid_text(int physical, char* out, size_t size) {
  uint8_t u[16];
  device_uuid(physical, u);
  std::snprintf(out, size,
                "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0],
                u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13],
                u[14], u[15]);
}

int device_pci_bus(int physical) { return 0x10 + physical; }

int driver_version() { return 13000; }

bool device_integrated() {
  static bool const integrated = option_bytes("MEMACCT_SIM_INTEGRATED", 0) != 0;
  return integrated;
}

int device_attribute(int attribute, int physical) {
  if (attribute == kPciBus) return device_pci_bus(physical);
  if (attribute == kIntegrated) return device_integrated() ? 1 : 0;
  for (auto const& known : kAttributes)
    if (known.number == attribute) return known.value;
  return 0;
}

}  // namespace memacct::sim
