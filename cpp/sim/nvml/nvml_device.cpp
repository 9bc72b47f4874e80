// NVML: handles, names and properties of devices.
#include <cstdio>
#include <cstring>

#include "../core/device.hpp"
#include "../core/identity.hpp"
#include "nvml_abi.hpp"

using namespace memacct::sim;
using namespace memacct::sim::nvml;

namespace {

Result by_index(unsigned index, Device* device) {
  if (device == nullptr || static_cast<int>(index) >= physical_count()) return kInvalidArgument;
  *device = handle_of(static_cast<int>(index));
  return kSuccess;
}

Result by_pci(char const* id, Device* device) {
  unsigned domain = 0;
  unsigned bus = 0;
  if (id == nullptr || std::sscanf(id, "%x:%x:", &domain, &bus) != 2) return kInvalidArgument;
  for (int i = 0; i < physical_count(); ++i) {
    if (device_pci_bus(i) != static_cast<int>(bus)) continue;
    *device = handle_of(i);
    return kSuccess;
  }
  return kNotFound;
}

Result pci_info(int index, Pci* pci) {
  if (pci == nullptr) return kInvalidArgument;
  std::memset(pci, 0, sizeof *pci);
  pci->bus = static_cast<unsigned>(device_pci_bus(index));
  pci->pci_device_id = 0x233010de;
  // Boards of one model that are clocked unlike are sold by different makers.
  pci->pci_subsystem_id =
      0x16c10000 + static_cast<unsigned>(unit_config(whole_device(index)).speed);
  std::snprintf(pci->bus_id_legacy, sizeof pci->bus_id_legacy, "0000:%02X:00.0", pci->bus & 0xff);
  std::snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", pci->bus & 0xff);
  return kSuccess;
}

}  // namespace

// ---- handles

MEMACCT_SIM_EXPORT Result nvmlDeviceGetCount_v2(unsigned* count) {
  NVML_ENTRY();
  if (count == nullptr) return kInvalidArgument;
  *count = static_cast<unsigned>(physical_count());
  return kSuccess;
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetCount(unsigned* count) {
  NVML_ENTRY();
  if (count == nullptr) return kInvalidArgument;
  *count = static_cast<unsigned>(physical_count());
  return kSuccess;
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetHandleByIndex_v2(unsigned index, Device* device) {
  NVML_ENTRY();
  return by_index(index, device);
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetHandleByIndex(unsigned index, Device* device) {
  NVML_ENTRY();
  return by_index(index, device);
}
// The full string only: NVML knows no prefixes.
MEMACCT_SIM_EXPORT Result nvmlDeviceGetHandleByUUID(char const* uuid, Device* device) {
  NVML_ENTRY();
  if (uuid == nullptr || device == nullptr) return kInvalidArgument;
  for (int i = 0; i < unit_count(); ++i) {
    char known[48];
    device_uuid_text(i, known, sizeof known);
    if (std::strcmp(known, uuid) != 0) continue;
    *device = handle_of(i);
    return kSuccess;
  }
  return kNotFound;
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetHandleByPciBusId_v2(char const* id, Device* device) {
  NVML_ENTRY();
  return by_pci(id, device);
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetHandleByPciBusId(char const* id, Device* device) {
  NVML_ENTRY();
  return by_pci(id, device);
}

// ---- names and places

MEMACCT_SIM_EXPORT Result nvmlDeviceGetIndex(Device device, unsigned* out) {
  NVML_ENTRY_DEVICE(device);
  // Of an instance: its place in its device.
  *out = static_cast<unsigned>(is_instance(index) ? unit_config(index).mig_index : index);
  return kSuccess;
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetMinorNumber(Device device, unsigned* out) {
  NVML_ENTRY_DEVICE(device);
  *out = static_cast<unsigned>(index);
  return kSuccess;
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetName(Device device, char* out, unsigned size) {
  NVML_ENTRY_DEVICE(device);
  return put_text(out, size, device_name(index).c_str());
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetUUID(Device device, char* out, unsigned size) {
  NVML_ENTRY_DEVICE(device);
  char uuid[48];
  device_uuid_text(index, uuid, sizeof uuid);
  return put_text(out, size, uuid);
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetPciInfo_v3(Device device, Pci* pci) {
  NVML_ENTRY_DEVICE(device);
  return pci_info(index, pci);
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetPciInfo_v2(Device device, Pci* pci) {
  NVML_ENTRY_DEVICE(device);
  return pci_info(index, pci);
}

// ---- properties

MEMACCT_SIM_EXPORT Result nvmlDeviceGetCudaComputeCapability(Device device, int* major,
                                                             int* minor) {
  NVML_ENTRY_DEVICE(device);
  *major = device_identity(index).capability.major;
  *minor = device_identity(index).capability.minor;
  return kSuccess;
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetArchitecture(Device device, unsigned* architecture) {
  NVML_ENTRY_DEVICE(device);
  *architecture = static_cast<unsigned>(device_identity(index).capability.architecture);
  return kSuccess;
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetUtilizationRates(Device device, unsigned rates[2]) {
  NVML_ENTRY_DEVICE(device);
  rates[0] = rates[1] = 0;
  return kSuccess;
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetTemperature(Device device, int, unsigned* celsius) {
  NVML_ENTRY_DEVICE(device);
  *celsius = 30;
  return kSuccess;
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetPowerUsage(Device device, unsigned* milliwatts) {
  NVML_ENTRY_DEVICE(device);
  *milliwatts = 70000;
  return kSuccess;
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetP2PStatus(Device device, Device, int capability,
                                                 int* status) {
  NVML_ENTRY_DEVICE(device);
  constexpr int kNvLink = 2;
  constexpr int kFine = 0;
  constexpr int kNotSupported = 5;
  bool const there =
      device_peers() == Peers::NvLink || (device_peers() == Peers::Pcie && capability != kNvLink);
  *status = there ? kFine : kNotSupported;
  return kSuccess;
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetCpuAffinity(Device device, unsigned words,
                                                   unsigned long* set) {
  NVML_ENTRY_DEVICE(device);
  for (unsigned i = 0; i < words; ++i) set[i] = i == 0 ? ~0UL : 0;
  return kSuccess;
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetNumaNodeId(Device device, unsigned* node) {
  NVML_ENTRY_DEVICE(device);
  if (numa_node(index) < 0) return kNotSupported;
  *node = static_cast<unsigned>(numa_node(index));
  return kSuccess;
}
