// The CUDA driver as it is in this process: which devices, which contexts, cuMemGetInfo.
// cuInit is not in the list below, on purpose: it would poison a later fork. Nothing here
// brings the driver in, initialises it or makes a context.
#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "memacct/dylib.hpp"

namespace memacct::cuda {

using Context = void*;  // CUcontext
using Uuid = std::array<unsigned char, 16>;

/// CUresult, as far as memacct tells codes apart.
enum Code : int { kSuccess = 0, kNotInitialized = 3 };

inline constexpr int kAttributeIntegrated = 18;  // CU_DEVICE_ATTRIBUTE_INTEGRATED

// Our name, C signature, symbols tried in this order. The _v2 names are the 64-bit ABI.
#define MEMACCT_CUDA_FUNCTIONS(X)                                                           \
  X(device_count, int(int*), "cuDeviceGetCount")                                            \
  X(device_get, int(int*, int), "cuDeviceGet")                                              \
  X(device_uuid, int(unsigned char*, int), "cuDeviceGetUuid_v2", "cuDeviceGetUuid")         \
  X(device_pci, int(char*, int, int), "cuDeviceGetPCIBusId")                                \
  X(device_attribute, int(int*, int, int), "cuDeviceGetAttribute")                          \
  X(device_name, int(char*, int, int), "cuDeviceGetName")                                   \
  X(current_context, int(Context*), "cuCtxGetCurrent")                                      \
  X(current_device, int(int*), "cuCtxGetDevice")                                            \
  X(push_context, int(Context), "cuCtxPushCurrent_v2")                                      \
  X(pop_context, int(Context*), "cuCtxPopCurrent_v2")                                       \
  X(primary_state, int(int, unsigned*, int*), "cuDevicePrimaryCtxGetState")                 \
  X(primary_retain, int(Context*, int), "cuDevicePrimaryCtxRetain")                         \
  X(primary_release, int(int), "cuDevicePrimaryCtxRelease_v2", "cuDevicePrimaryCtxRelease") \
  X(memory_info, int(std::size_t*, std::size_t*), "cuMemGetInfo_v2")                        \
  X(allocate, int(std::uint64_t*, std::size_t), "cuMemAlloc_v2")                            \
  X(release, int(std::uint64_t), "cuMemFree_v2")                                            \
  X(exchange_capture_mode, int(int*), "cuThreadExchangeStreamCaptureMode")                  \
  X(error_name, int(int, char const**), "cuGetErrorName")

struct Api {
#define MEMACCT_DECLARE(name, signature, ...) std::add_pointer_t<signature> name = nullptr;
  MEMACCT_CUDA_FUNCTIONS(MEMACCT_DECLARE)
#undef MEMACCT_DECLARE

  std::map<std::string, std::string> symbols;  // as in nvml::Api

  [[nodiscard]] static Api load(Library const& library);
  [[nodiscard]] std::string describe(char const* name, int code) const;
};

enum class DriverState { kAbsent, kUninitialised, kInitialised };

/// One device as this process's driver numbers it.
struct Device {
  int ordinal = 0;
  int handle = 0;  // CUdevice
  std::optional<Uuid> uuid;
  std::optional<std::string> pci_bus_id;
  std::optional<bool> integrated;  // shares the host's memory: NVML's totals mean nothing
  std::string name;
};

/// "GPU-01234567-89ab-cdef-0123-456789abcdef" with the given prefix ("GPU-", "MIG-").
[[nodiscard]] std::string format_uuid(Uuid const& uuid, char const* prefix);

struct MemoryInfo {
  std::uint64_t free_bytes = 0;
  std::uint64_t total_bytes = 0;
};

/// A live context made current on the calling thread for the lifetime of this object. It
/// never makes a context: either the thread's current one is the device's, or the primary
/// context is active and is retained once more.
class ContextGuard {
 public:
  ContextGuard() = default;
  ContextGuard(ContextGuard&& other) noexcept { *this = std::move(other); }
  ContextGuard& operator=(ContextGuard&& other) noexcept {
    std::swap(api_, other.api_);
    std::swap(device_, other.device_);
    std::swap(current_, other.current_);
    std::swap(retained_, other.retained_);
    return *this;
  }
  ~ContextGuard();

  /// Empty, with the reason in `reason`, if the device has no live context.
  [[nodiscard]] static ContextGuard enter(Api const& api, Device const& device,
                                          std::string& reason);
  [[nodiscard]] explicit operator bool() const noexcept { return current_; }

 private:
  Api const* api_ = nullptr;
  int device_ = 0;
  bool current_ = false;   // a context of the device is current
  bool retained_ = false;  // and it is we who pushed it
};

/// The driver of this process. Looks for it anew while it is absent.
class Driver {
 public:
  /// A fork's child inherits the library but no usable driver: with
  /// `initialised_in_ancestor` it counts as uninitialised whatever it answers.
  explicit Driver(bool initialised_in_ancestor) noexcept
      : inherited_(initialised_in_ancestor), seen_(initialised_in_ancestor) {}

  [[nodiscard]] DriverState state();
  /// Whether the driver ever answered as one that is initialised. A fork's child asks its parent's,
  /// without a lock.
  [[nodiscard]] bool seen_initialised() const noexcept { return seen_.load(); }
  /// The devices; empty unless initialised. A property that could not be read is unknown.
  [[nodiscard]] std::vector<Device> const& devices();
  /// devices() says the same until state() changes.
  [[nodiscard]] bool settled() const noexcept { return complete_ || devices_.empty(); }
  /// True if this process has a context there as far as can be seen: an active primary
  /// context, or the calling thread's current one. Unknown if the driver does not say.
  [[nodiscard]] std::optional<bool> context_live(Device const& device);
  /// The same of a driver that is known to be initialised.
  [[nodiscard]] std::optional<bool> has_context(Device const& device) const;
  /// cuMemGetInfo of a device with a live context; nullopt, with the reason, if it has none.
  [[nodiscard]] std::optional<MemoryInfo> memory_info(Device const& device, std::string& reason);

  [[nodiscard]] Api const& api() const noexcept { return api_; }
  [[nodiscard]] Library const& library() const noexcept { return library_; }

 private:
  [[nodiscard]] bool find_library();
  [[nodiscard]] bool answers_uninitialised();

  bool inherited_;
  std::atomic<bool> seen_;
  Library library_;
  Api api_;
  std::vector<Device> devices_;
  bool complete_ = false;  // every property of every device was read: it is not done again
};

}  // namespace memacct::cuda
