// The part of the CUDA driver's binary interface that the simulation carries out, declared
// here because neither a toolkit nor an NVIDIA header is needed to build it.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../core/context.hpp"
#include "../core/faults.hpp"

#define MEMACCT_SIM_EXPORT extern "C" __attribute__((visibility("default")))

namespace memacct::sim {

using Result = int;  // CUresult
constexpr Result kCudaSuccess = 0;
constexpr Result kCudaInvalidValue = 1;
constexpr Result kCudaOutOfMemory = 2;
constexpr Result kCudaNotInitialized = 3;
constexpr Result kCudaNoDevice = 100;
constexpr Result kCudaInvalidDevice = 101;
constexpr Result kCudaInvalidContext = 201;
constexpr Result kCudaNotFound = 500;
constexpr Result kCudaContextDestroyed = 709;
constexpr Result kCudaNotSupported = 801;
constexpr Result kCudaCaptureUnsupported = 900;
constexpr Result kCudaCaptureInvalidated = 901;

using DevicePointer = unsigned long long;  // CUdeviceptr
using StreamHandle = void*;
using EventHandle = void*;

struct MemoryLocation {  // CUmemLocation
  int type;              // 1: a device
  int id;
};
struct AllocationProperties {  // CUmemAllocationProp
  int type;
  int handle_types;
  MemoryLocation location;
  void* win32_meta;
  unsigned char flags[8];
};
struct LaunchConfig {  // CUlaunchConfig
  unsigned grid[3], block[3], shared_bytes;
  StreamHandle stream;
  void* attributes;
  unsigned attribute_count;
};
static_assert(sizeof(AllocationProperties) == 32);
static_assert(offsetof(LaunchConfig, stream) == 32);

enum PointerAttribute {  // CUpointer_attribute
  kPointerContext = 1,
  kPointerMemoryType = 2,
  kPointerDeviceAddress = 3,
  kPointerHostAddress = 4,
  kPointerBufferId = 7,
  kPointerIsManaged = 8,
  kPointerDeviceOrdinal = 9,
  kPointerRangeStart = 11,
  kPointerRangeSize = 12,
  kPointerMapped = 13,
};

enum FunctionAttribute {  // CUfunction_attribute
  kFunctionMaxThreads = 0,
  kFunctionRegisters = 4,
  kFunctionPtxVersion = 5,
  kFunctionBinaryVersion = 6,
  kFunctionMaxDynamicShared = 8,
};

[[nodiscard]] constexpr Result to_result(Status status) {
  switch (status) {
    case Status::Ok:
      return kCudaSuccess;
    case Status::OutOfMemory:
      return kCudaOutOfMemory;
    case Status::InvalidDevice:
      return kCudaInvalidDevice;
    case Status::InvalidContext:
      return kCudaInvalidContext;
    case Status::ContextDestroyed:
      return kCudaContextDestroyed;
    case Status::NotInitialized:
      return kCudaNotInitialized;
    case Status::NoDevice:
      return kCudaNoDevice;
    case Status::InvalidValue:
      break;
  }
  return kCudaInvalidValue;
}

[[nodiscard]] inline void* as_address(DevicePointer p) { return reinterpret_cast<void*>(p); }

// What begins a function of the driver: faults first, then what each checks by itself.
#define DRIVER_ENTRY_UNINITIALIZED()                                               \
  if (auto const fault_code = ::memacct::sim::fault_in_call(__func__); fault_code) \
  return *fault_code
#define DRIVER_ENTRY()          \
  DRIVER_ENTRY_UNINITIALIZED(); \
  if (!::memacct::sim::driver_initialized()) return ::memacct::sim::kCudaNotInitialized
// Also needs a current context, which it names `context`.
#define DRIVER_ENTRY_CONTEXT()                                              \
  DRIVER_ENTRY_UNINITIALIZED();                                             \
  ::memacct::sim::Context* context = nullptr;                               \
  if (auto const context_status = ::memacct::sim::usable_context(&context); \
      context_status != ::memacct::sim::Status::Ok)                         \
  return ::memacct::sim::to_result(context_status)

}  // namespace memacct::sim
