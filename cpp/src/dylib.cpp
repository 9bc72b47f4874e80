#include "memacct/dylib.hpp"

#include <dlfcn.h>
#include <link.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <string_view>

namespace memacct {
namespace {

std::string file_of(void* handle, std::string const& fallback) {
  struct link_map* map = nullptr;
  if (::dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0 || map == nullptr) return fallback;
  return map->l_name != nullptr && *map->l_name != '\0' ? map->l_name : fallback;
}

// Libraries loaded so far, by the loader's own count; it only ever grows.
unsigned long long loads_count() noexcept {
  unsigned long long count = 0;
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* out) {
        *static_cast<unsigned long long*>(out) = info->dlpi_adds;
        return 1;  // every entry carries the same count: the first is enough
      },
      &count);
  return count;
}

std::atomic<bool> driver_seen{false};
// What hooks that give out quotas are called: HAMi-core, vcuda-controller (GaiaGPU), Gemini
// (KubeShare).
constexpr std::array<std::string_view, 3> kQuotaHooks{"libvgpu.so", "libcuda-control.so",
                                                      "libgemhook.so"};

char const* hook_name(std::string_view path) {
  auto const slash = path.rfind('/');
  auto const name = slash == std::string_view::npos ? path : path.substr(slash + 1);
  for (auto const hook : kQuotaHooks) {
    if (name == hook || (name.starts_with(hook) && name[hook.size()] == '.')) return hook.data();
  }
  return nullptr;
}

char const* find_quota_hook() noexcept {
  char const* found = nullptr;
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* out) {
        auto const* const name = info->dlpi_name != nullptr ? hook_name(info->dlpi_name) : nullptr;
        if (name != nullptr) *static_cast<char const**>(out) = name;
        return name != nullptr ? 1 : 0;
      },
      &found);
  return found;
}

std::atomic<char const*> hook_seen{nullptr};
std::atomic<unsigned long long> loads_without_hook{0};
std::atomic<unsigned long long> loads_without_driver{0};

}  // namespace

Library Library::open(char const* soname, char const* override_variable, Mode mode) {
  Library result;
  auto const* const chosen = std::getenv(override_variable);
  result.path_ = chosen != nullptr && *chosen != '\0' ? chosen : soname;
  int const flags = RTLD_LAZY | RTLD_LOCAL | (mode == Mode::kOnlyIfLoaded ? RTLD_NOLOAD : 0);
  result.handle_ = ::dlopen(result.path_.c_str(), flags);
  if (result.handle_ == nullptr) {
    auto const* const error = ::dlerror();  // null for RTLD_NOLOAD of a library that is not loaded
    result.reason_ = error != nullptr ? error : "not loaded in this process";
    return result;
  }
  result.path_ = file_of(result.handle_, result.path_);
  result.reason_.clear();
  return result;
}

void* Library::symbol(char const* name) const noexcept {
  return handle_ != nullptr ? ::dlsym(handle_, name) : nullptr;
}

bool driver_loaded_in_process() noexcept {
  if (driver_seen.load(std::memory_order_relaxed)) return true;
  // Counted before looking: a load in between makes the next call look again.
  auto const loads = loads_count();
  if (loads == loads_without_driver.load(std::memory_order_relaxed)) return false;
  try {
    if (Library::open("libcuda.so.1", "MEMACCT_CUDA_LIBRARY", Library::Mode::kOnlyIfLoaded)
            .loaded()) {
      driver_seen.store(true, std::memory_order_relaxed);  // our handle keeps it loaded
      return true;
    }
  } catch (std::exception const&) {  // no memory for the path: ask again next time
    return false;
  }
  loads_without_driver.store(loads, std::memory_order_relaxed);
  return false;
}

char const* quota_hook_in_process() noexcept {
  if (auto const* const seen = hook_seen.load(std::memory_order_relaxed)) return seen;
  auto const loads = loads_count();
  if (loads == loads_without_hook.load(std::memory_order_relaxed)) return nullptr;
  auto const* const found = find_quota_hook();
  if (found != nullptr) {
    hook_seen.store(found, std::memory_order_relaxed);
  } else {
    loads_without_hook.store(loads, std::memory_order_relaxed);
  }
  return found;
}

}  // namespace memacct
