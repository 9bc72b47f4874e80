// The part of NVML's ABI that memacct uses, declared here so that no NVIDIA header is needed.
// Layouts: nvml.h, API 13. Each size is asserted.
#pragma once
#include <cstddef>
#include <cstdint>

namespace memacct::nvml {

using Device = void*;  // nvmlDevice_t: an opaque pointer

/// nvmlReturn_t, as far as memacct tells codes apart.
enum Code : int {
  kSuccess = 0,
  kUninitialized = 1,
  kInvalidArgument = 2,
  kNotSupported = 3,
  kNoPermission = 4,
  kNotFound = 6,
  kInsufficientSize = 7,
  kDriverNotLoaded = 9,
  kLibraryNotFound = 12,
  kFunctionNotFound = 13,
  kGpuIsLost = 15,
  kResetRequired = 16,
  kOperatingSystem = 17,
  kUnknownError = 999,
  kLibraryVersionMismatch = 18,
  kMemory = 20,
  kNoData = 21,
  kArgumentVersionMismatch = 25,
  kDeprecated = 26,
  kNotReady = 27,
  kResetTypeNotSupported = 30,
};

/// NVML_VALUE_NOT_AVAILABLE: the driver knows the row, but not this number.
inline constexpr std::uint64_t kNotAvailable = ~std::uint64_t{0};
inline constexpr std::uint32_t kNotAvailable32 = ~std::uint32_t{0};

struct MemoryV1 {
  std::uint64_t total;
  std::uint64_t free;
  std::uint64_t used;  // with what the driver reserves
};
static_assert(sizeof(MemoryV1) == 24);

struct MemoryV2 {
  std::uint32_t version;
  std::uint64_t total;
  std::uint64_t reserved;
  std::uint64_t free;
  std::uint64_t used;
};
static_assert(sizeof(MemoryV2) == 40 && offsetof(MemoryV2, total) == 8);

/// sizeof | version << 24. nvml.h's comment "must be 2" is wrong: a plain 2 makes a driver
/// answer FUNCTION_NOT_FOUND from inside an existing function (nvidia-settings#78).
inline constexpr std::uint32_t kMemoryV2Tag = 0x02000028;

/// nvmlPciInfo_t. busId is not read: it moved, while the numbers lie at these offsets in every
/// version.
struct PciInfo {
  char bus_id_legacy[16];
  std::uint32_t domain;
  std::uint32_t bus;
  std::uint32_t device;
  std::uint32_t pci_device_id;
  std::uint32_t pci_subsystem_id;
  char bus_id[32];
};
static_assert(sizeof(PciInfo) == 68 && offsetof(PciInfo, domain) == 16);

// A process record is 16 bytes (plain functions), 24 (_v2, and _v3 but for R535's first
// releases) or 32 (those): the size is found out by reading, see process_list.hpp. Common
// offsets:
inline constexpr std::size_t kRecordPidOffset = 0;           // u32
inline constexpr std::size_t kRecordUsedOffset = 8;          // u64
inline constexpr std::size_t kRecordGpuInstanceOffset = 16;  // u32, from 24 bytes on
inline constexpr std::size_t kRecordComputeInstanceOffset = 20;
inline constexpr std::size_t kLargestRecordBytes = 32;

}  // namespace memacct::nvml
