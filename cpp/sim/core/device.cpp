// The simulated devices: an H100 SXM each, unless the settings say otherwise.
#include "device.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "account.hpp"
#include "identity.hpp"

namespace memacct::sim {
namespace {

struct Attribute {
  int number;
  int value;
};
// Those that all devices have alike. Clocks and the bus are an H100's: nothing is chosen by them.
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
    {19, 1},           // can map host memory
    {31, 1},           // concurrent kernels
    {32, 1},           // ECC
    {36, 2619000},     // memory clock, kHz
    {37, 5120},        // bus width
    {40, 3},           // copy engines
    {41, 1},           // unified addressing
    {78, 1},           // stream priorities
    {79, 1},           // global L1
    {80, 1},           // local L1
    {82, 65536},       // registers per multiprocessor
    {83, 1},           // managed memory
    {89, 1},           // concurrent managed access
    {90, 1},           // compute preemption
    {91, 1},           // host pointers of registered memory
    {95, 1},           // cooperative launch
    {102, 1},          // virtual memory management
    {103, 1},          // POSIX file handles
    {109, 134213632},  // access policy window
    {115, 1},          // memory pools
    {125, 1},          // IPC events
};

/// Those that differ, by the numbers of CUdevice_attribute; -1: none of them.
int own_attribute(int attribute, int physical) {
  Identity const& card = device_identity(physical);
  Capability const& capability = card.capability;
  switch (attribute) {
    case 16:
      return card.sm_count;
    case 18:
      return device_integrated() ? 1 : 0;
    case 33:
      return device_pci_bus(physical);
    case 38:
      return static_cast<int>(card.l2_bytes);
    case 39:
      return capability.threads_per_sm;
    case 75:
      return capability.major;
    case 76:
      return capability.minor;
    case 81:
      return capability.shared_bytes_per_sm;
    case 97:
      return capability.shared_bytes_per_block;
    case 106:
      return capability.blocks_per_sm;
    case 108:  // the part of L2 that can be set aside: five eighths, as an A100 tells
      return capability.at_least(8) ? static_cast<int>(card.l2_bytes / 8 * 5) : 0;
    case 111:
      return capability.reserved_shared_bytes_per_block;
    case 120:  // cluster launch
    case 127:  // tensor maps (TMA)
      return capability.at_least(9) ? 1 : 0;
    default:
      return -1;
  }
}

}  // namespace

int physical_count() { return machine_config().devices; }

int unit_count() { return machine_config().units_count; }

bool any_divided() {
  auto const* const units = machine_config().units;
  return std::any_of(units, units + physical_count(),
                     [](UnitConfig const& unit) { return unit.divided; });
}

bool is_instance(int physical) { return unit_config(physical).parent >= 0; }

int instance_at(int physical, int mig_index) {
  for (int unit = physical_count(); unit < unit_count(); ++unit)
    if (unit_config(unit).parent == physical && unit_config(unit).mig_index == mig_index)
      return unit;
  return -1;
}

int whole_device(int physical) {
  return is_instance(physical) ? unit_config(physical).parent : physical;
}

// "A|B" are the names of devices 0 and 1; the last one serves all that follow.
std::string device_name(int physical) {
  std::string names = option_text("MEMACCT_SIM_NAME", "NVIDIA H100 80GB HBM3");
  for (int i = whole_device(physical); i > 0 && names.find('|') != std::string::npos; --i)
    names.erase(0, names.find('|') + 1);
  std::string name = names.substr(0, names.find('|'));
  if (is_instance(physical))
    name += " MIG 1g." + std::to_string(unit_config(physical).total_bytes / kGiB) + "gb";
  return name;
}

void device_uuid(int physical, uint8_t out[16]) {
  static constexpr uint8_t kBase[16] = {0x51, 0x6d, 0xcd, 0xa0, 0x00, 0x00, 0x40, 0x00,
                                        0x80, 0x00, 0x51, 0x6d, 0xcd, 0xa0, 0x00, 0x00};
  std::memcpy(out, kBase, sizeof kBase);
  out[15] = static_cast<uint8_t>(whole_device(physical));
  if (!is_instance(physical)) return;
  out[0] ^= 0x80;  // the beginnings of instances' and devices' differ
  out[14] = static_cast<uint8_t>(1 + unit_config(physical).mig_index);
}

void device_uuid_text(int physical, char* out, size_t size) {
  uint8_t u[16];
  device_uuid(physical, u);
  std::snprintf(out, size,
                "%s-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                is_instance(physical) ? "MIG" : "GPU", u[0], u[1], u[2], u[3], u[4], u[5], u[6],
                u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

int device_pci_bus(int physical) { return 0x10 + whole_device(physical); }

int driver_version() { return 13000; }

bool device_integrated() {
  static bool const integrated = !option_text("MEMACCT_SIM_INTEGRATED", "").empty();
  return integrated;
}

bool wrong_totals() {
  static bool const wrong = option_text("MEMACCT_SIM_INTEGRATED", "") == "wrong-totals";
  return wrong;
}

int numa_node(int physical) {
  int const first = machine_config().first_numa_node;
  return first < 0 ? -1 : first + whole_device(physical);
}

int device_attribute(int attribute, int physical) {
  if (int const own = own_attribute(attribute, physical); own >= 0) return own;
  for (auto const& known : kAttributes)
    if (known.number == attribute) return known.value;
  return 0;
}

}  // namespace memacct::sim
