#include "memacct/cuda_api.hpp"

#include <algorithm>

namespace memacct::cuda {
namespace {

Device read_device(Api const& api, int ordinal) {
  Device device{.ordinal = ordinal,
                .handle = ordinal,
                .uuid = {},
                .pci_bus_id = {},
                .integrated = {},
                .name = {}};
  int handle = 0;
  if (api.device_get != nullptr && api.device_get(&handle, ordinal) == kSuccess) {
    device.handle = handle;
  }
  Uuid uuid{};
  if (api.device_uuid != nullptr && api.device_uuid(uuid.data(), device.handle) == kSuccess) {
    device.uuid = uuid;
  }
  char text[256] = "";
  if (api.device_pci != nullptr &&
      api.device_pci(text, static_cast<int>(sizeof text), device.handle) == kSuccess) {
    device.pci_bus_id = text;
  }
  int integrated = 0;
  if (api.device_attribute != nullptr &&
      api.device_attribute(&integrated, kAttributeIntegrated, device.handle) == kSuccess) {
    device.integrated = integrated != 0;
  }
  if (api.device_name != nullptr &&
      api.device_name(text, static_cast<int>(sizeof text), device.handle) == kSuccess) {
    device.name = text;
  }
  return device;
}

bool fully_known(Device const& device) {
  return device.uuid && device.pci_bus_id && device.integrated && !device.name.empty();
}

// The calling thread's current context belongs to `device`.
std::optional<bool> current_here(Api const& api, Device const& device) {
  if (api.current_context == nullptr || api.current_device == nullptr) return std::nullopt;
  Context context = nullptr;
  if (api.current_context(&context) != kSuccess) return std::nullopt;
  if (context == nullptr) return false;
  int handle = -1;
  if (api.current_device(&handle) != kSuccess) return std::nullopt;
  return handle == device.handle;
}

std::optional<bool> primary_active(Api const& api, Device const& device) {
  if (api.primary_state == nullptr) return std::nullopt;
  unsigned flags = 0;
  int active = 0;
  if (api.primary_state(device.handle, &flags, &active) != kSuccess) return std::nullopt;
  return active != 0;
}

}  // namespace

Api Api::load(Library const& library) {
  Api api;
  auto const keep = [&](char const* name, char const* symbol) {
    api.symbols.emplace(name, symbol != nullptr ? symbol : "");
  };
#define MEMACCT_RESOLVE(name, signature, ...) keep(#name, resolve(library, api.name, __VA_ARGS__));
  MEMACCT_CUDA_FUNCTIONS(MEMACCT_RESOLVE)
#undef MEMACCT_RESOLVE
  return api;
}

std::string Api::describe(char const* name, int code) const {
  auto const found = symbols.find(name);
  auto text = (found != symbols.end() && !found->second.empty() ? found->second : name) +
              " returned " + std::to_string(code);
  char const* code_name = nullptr;
  if (error_name != nullptr && error_name(code, &code_name) == kSuccess && code_name != nullptr) {
    text += std::string(" (") + code_name + ")";
  }
  return text;
}

std::string format_uuid(Uuid const& uuid, char const* prefix) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text = prefix;
  for (std::size_t i = 0; i < uuid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += kHex[uuid[i] >> 4];
    text += kHex[uuid[i] & 15];
  }
  return text;
}

ContextGuard ContextGuard::enter(Api const& api, Device const& device, std::string& reason) {
  ContextGuard guard;
  guard.api_ = &api;
  guard.device_ = device.handle;
  if (current_here(api, device) == true) {
    guard.current_ = true;
    return guard;
  }
  auto const fail = [&](std::string why) {
    reason = std::move(why);
    return std::move(guard);
  };
  if (api.primary_retain == nullptr || api.primary_release == nullptr ||
      api.push_context == nullptr || api.pop_context == nullptr) {
    return fail("the CUDA driver lacks a function needed to use a live context");
  }
  auto const active = primary_active(api, device);
  if (!active) return fail("the CUDA driver does not say whether a context is live");
  if (!*active) return fail("this process has no live primary context on the device");
  Context context = nullptr;
  if (int const code = api.primary_retain(&context, device.handle); code != kSuccess) {
    return fail(api.describe("primary_retain", code));
  }
  if (int const code = api.push_context(context); code != kSuccess) {
    api.primary_release(device.handle);
    return fail(api.describe("push_context", code));
  }
  guard.current_ = guard.retained_ = true;
  return guard;
}

ContextGuard::~ContextGuard() {
  if (!retained_) return;
  // Nothing can be done about an error here, and both must be tried.
  Context popped = nullptr;
  api_->pop_context(&popped);
  api_->primary_release(device_);
}

bool Driver::find_library() {
  if (library_.loaded()) return true;
  if (!driver_loaded_in_process()) return false;
  library_ = Library::open("libcuda.so.1", "MEMACCT_CUDA_LIBRARY", Library::Mode::kOnlyIfLoaded);
  if (library_.loaded()) api_ = Api::load(library_);
  return library_.loaded();
}

DriverState Driver::state() {
  if (!find_library()) return DriverState::kAbsent;
  if (inherited_ || answers_uninitialised()) return DriverState::kUninitialised;
  return DriverState::kInitialised;
}

// "Uninitialised" is the ground for saying that this process holds nothing, so one function's
// word is not enough for it. An odd code is no such word, but no proof of the contrary either,
// which is the ground for telling a fork's child that it cannot hold anything.
bool Driver::answers_uninitialised() {
  auto const told = [&](int code) {
    if (code == kSuccess) seen_.store(true);
    return code == kNotInitialized;
  };
  int count = 0;
  bool const by_count = api_.device_count == nullptr || told(api_.device_count(&count));
  if (!by_count && seen_.load()) return false;
  Context context = nullptr;
  bool const by_context = api_.current_context == nullptr || told(api_.current_context(&context));
  return by_count && by_context;
}

std::vector<Device> const& Driver::devices() {
  static std::vector<Device> const none;
  if (state() != DriverState::kInitialised) return none;
  if (complete_) return devices_;
  devices_.clear();
  int count = 0;
  if (api_.device_count == nullptr || api_.device_count(&count) != kSuccess) return none;
  for (int ordinal = 0; ordinal < count; ++ordinal) devices_.push_back(read_device(api_, ordinal));
  complete_ = !devices_.empty() && std::all_of(devices_.begin(), devices_.end(), fully_known);
  return devices_;
}

std::optional<bool> Driver::context_live(Device const& device) {
  if (state() != DriverState::kInitialised) return false;
  return has_context(device);
}

std::optional<bool> Driver::has_context(Device const& device) const {
  auto const primary = primary_active(api_, device);
  if (primary == true) return true;
  auto const current = current_here(api_, device);
  if (current == true) return true;
  // "No" only if both said so. A context of cuCtxCreate on another thread is seen by neither.
  return primary && current ? std::optional(false) : std::nullopt;
}

std::optional<MemoryInfo> Driver::memory_info(Device const& device, std::string& reason) {
  if (state() != DriverState::kInitialised) {
    reason = "the CUDA driver is not initialised in this process";
    return std::nullopt;
  }
  if (api_.memory_info == nullptr) {
    reason = "the CUDA driver has no cuMemGetInfo_v2";
    return std::nullopt;
  }
  auto const guard = ContextGuard::enter(api_, device, reason);
  if (!guard) return std::nullopt;
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  if (int const code = api_.memory_info(&free_bytes, &total_bytes); code != kSuccess) {
    reason = api_.describe("memory_info", code);
    return std::nullopt;
  }
  if (total_bytes == 0 || free_bytes > total_bytes) {
    reason = "cuMemGetInfo gave a total of " + std::to_string(total_bytes) + " bytes and " +
             std::to_string(free_bytes) + " free";
    return std::nullopt;
  }
  return MemoryInfo{.free_bytes = free_bytes, .total_bytes = total_bytes};
}

}  // namespace memacct::cuda
