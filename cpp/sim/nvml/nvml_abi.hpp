// The part of NVML's binary interface that the simulation carries out.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../core/account.hpp"
#include "../core/faults.hpp"

#define MEMACCT_SIM_EXPORT extern "C" __attribute__((visibility("default")))

namespace memacct::sim::nvml {

using Result = int;  // nvmlReturn_t
constexpr Result kSuccess = 0;
constexpr Result kUninitialized = 1;
constexpr Result kInvalidArgument = 2;
constexpr Result kNotSupported = 3;
constexpr Result kNoPermission = 4;
constexpr Result kNotFound = 6;
constexpr Result kInsufficientSize = 7;
constexpr Result kArgumentVersionMismatch = 25;

using Device = void*;  // 1 + the physical index, of a device or an instance

struct Memory {
  unsigned long long total, free, used;
};
struct MemoryV2 {
  unsigned version;
  unsigned long long total, reserved, free, used;
};
struct ProcessDetailList {
  unsigned version, mode, count;
  void* records;
};
struct Pci {
  char bus_id_legacy[16];
  unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];
};
constexpr unsigned kMemoryV2Tag = 0x02000028;
constexpr unsigned kDetailListTag = 0x01000018;
static_assert(sizeof(MemoryV2) == (kMemoryV2Tag & 0xffffff));
static_assert(sizeof(ProcessDetailList) == (kDetailListTag & 0xffffff));
static_assert(sizeof(Pci) == 68);

[[nodiscard]] bool initialized();
[[nodiscard]] int index_of(Device device);  // -1 if it is no handle of ours
[[nodiscard]] Device handle_of(int index);
[[nodiscard]] Result put_text(char* out, unsigned size, char const* text);

// What begins a function of NVML: faults first, then what each checks by itself.
#define NVML_ENTRY_UNINITIALIZED()                                                 \
  if (auto const fault_code = ::memacct::sim::fault_in_call(__func__); fault_code) \
  return *fault_code
#define NVML_ENTRY()          \
  NVML_ENTRY_UNINITIALIZED(); \
  if (!::memacct::sim::nvml::initialized()) return ::memacct::sim::nvml::kUninitialized
#define NVML_ENTRY_DEVICE(device)                           \
  NVML_ENTRY();                                             \
  int const index = ::memacct::sim::nvml::index_of(device); \
  if (index < 0) return ::memacct::sim::nvml::kInvalidArgument

}  // namespace memacct::sim::nvml
