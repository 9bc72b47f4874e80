// A quota hook, to be preloaded: libvgpu.so by the name that HAMi's has, and as that one puts the
// container's quota (CUDA_DEVICE_MEMORY_LIMIT, or _LIMIT_<n> of one device, such as "8g") in the
// place of a device's memory, and what the container holds in the place of what is in use.
// It looks into every dlsym, as the real one does; allocations are left alone.
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "../core/account.hpp"
#include "../core/device.hpp"

using namespace memacct::sim;

namespace {

using Lookup = void*(void*, char const*);
using NvmlDevice = void*;  // 1 + the physical index

struct NvmlMemory {
  unsigned long long total, free, used;
};
struct NvmlMemoryV2 {
  unsigned version;
  unsigned long long total, reserved, free, used;
};

Lookup* real_dlsym() {
  static Lookup* const found = [] {
    void* address = nullptr;
    for (char const* version : {"GLIBC_2.34", "GLIBC_2.17", "GLIBC_2.2.5"})
      if (address == nullptr) address = ::dlvsym(RTLD_NEXT, "dlsym", version);
    return reinterpret_cast<Lookup*>(address);
  }();
  return found;
}

/// "8g", "3000m"; 0: no quota.
uint64_t quota(int physical) {
  std::string const name = "CUDA_DEVICE_MEMORY_LIMIT";
  std::string const text = option_text((name + "_" + std::to_string(physical)).c_str(),
                                       option_text(name.c_str(), "").c_str());
  char* unit = nullptr;
  uint64_t const number = std::strtoull(text.c_str(), &unit, 10);
  switch (*unit | 0x20) {
    case 'g':
      return number * kGiB;
    case 'm':
      return number * kMiB;
    case 'k':
      return number * 1024;
    default:
      return number;
  }
}

uint64_t held_by_container(int physical) {
  uint64_t sum = 0;
  for (ProcessUsage const& usage : processes(physical))
    if (usage.same_container) sum += usage.bytes;
  return sum;
}

struct Share {
  uint64_t total = 0;
  uint64_t used = 0;
  [[nodiscard]] uint64_t free() const { return total > used ? total - used : 0; }
};

Share share_of(int physical) { return {quota(physical), held_by_container(physical)}; }

int (*real_cuda_info)(size_t*, size_t*);
int (*real_context_device)(int*);
int (*real_memory)(NvmlDevice, NvmlMemory*);
int (*real_memory_v2)(NvmlDevice, NvmlMemoryV2*);

int cuda_info(size_t* free_bytes, size_t* total_bytes) {
  int const code = real_cuda_info(free_bytes, total_bytes);
  int device = 0;
  if (code != 0 || real_context_device == nullptr || real_context_device(&device) != 0) return code;
  Share const share = share_of(physical_index(device));
  if (share.total != 0) {
    *total_bytes = share.total;
    *free_bytes = share.free();
  }
  return code;
}

int physical_of(NvmlDevice device) {
  return static_cast<int>(reinterpret_cast<intptr_t>(device)) - 1;
}

int memory(NvmlDevice device, NvmlMemory* out) {
  int const code = real_memory(device, out);
  if (code != 0) return code;
  Share const share = share_of(physical_of(device));
  if (share.total != 0) *out = {share.total, share.free(), share.used};
  return code;
}

// The driver's reserve stays as it was told: the sum does not come out, as with the real one.
int memory_v2(NvmlDevice device, NvmlMemoryV2* out) {
  int const code = real_memory_v2(device, out);
  if (code != 0) return code;
  Share const share = share_of(physical_of(device));
  if (share.total != 0) *out = {out->version, share.total, out->reserved, share.free(), share.used};
  return code;
}

template <class Function>
void* replaced(void* address, Function*& real, Function* ours) {
  real = reinterpret_cast<Function*>(address);
  return reinterpret_cast<void*>(ours);
}

}  // namespace

// A tail call: what RTLD_NEXT means depends on who called.
extern "C" __attribute__((visibility("default"))) void* dlsym(void* handle, char const* name) {
  bool const concerns = std::strncmp(name, "cuMemGetInfo_v2", 16) == 0 ||
                        std::strncmp(name, "nvmlDeviceGetMemoryInfo", 23) == 0;
  if (!concerns) return real_dlsym()(handle, name);
  void* const address = real_dlsym()(handle, name);
  if (address == nullptr) return nullptr;
  if (std::strcmp(name, "nvmlDeviceGetMemoryInfo") == 0)
    return replaced(address, real_memory, &memory);
  if (std::strcmp(name, "nvmlDeviceGetMemoryInfo_v2") == 0)
    return replaced(address, real_memory_v2, &memory_v2);
  if (std::strcmp(name, "cuMemGetInfo_v2") != 0) return address;
  real_context_device = reinterpret_cast<int (*)(int*)>(real_dlsym()(handle, "cuCtxGetDevice"));
  return replaced(address, real_cuda_info, &cuda_info);
}
