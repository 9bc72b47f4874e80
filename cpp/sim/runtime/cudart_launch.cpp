// CUDA runtime: what nvcc's host code registers, and kernel launches, which do nothing
// except for the few kernels of kernels.hpp.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "cudart_common.hpp"
#include "fatbin.hpp"
#include "kernels.hpp"

using namespace memacct::sim;

namespace {

// Symbols that nvcc's host code registers. Never destroyed: libraries come and go.
struct Registry {
  std::mutex mutex;
  std::unordered_map<void const*, std::pair<size_t, void*>> variables;  // size, shadow copy
  std::unordered_map<void const*, char const*> kernels;
  static Registry& get() {
    static auto* const registry = new Registry;
    return *registry;
  }
};

bool want_kernel_names() {
  static bool const want = std::getenv("MEMACCT_SIM_KERNELS") != nullptr;
  return want;
}

void* variable_address(void const* symbol, size_t* size) {
  auto& registry = Registry::get();
  std::lock_guard const guard{registry.mutex};
  auto const it = registry.variables.find(symbol);
  if (it == registry.variables.end()) return nullptr;
  auto& [bytes, copy] = it->second;
  if (copy == nullptr) copy = std::calloc(1, std::max<size_t>(bytes, 1));
  if (size != nullptr) *size = bytes;
  return copy;
}

struct LaunchConfig {
  dim3 grid, block;
  size_t shared;
  void* stream;
};
thread_local std::vector<LaunchConfig> t_configs;

int current_attribute(cudaDeviceAttr attribute) {
  return device_attribute(attribute, physical_index(runtime_device()));
}

std::optional<Code> current_code(void const* function) {
  return code_for(function, 10 * current_attribute(cudaDevAttrComputeCapabilityMajor) +
                                current_attribute(cudaDevAttrComputeCapabilityMinor));
}

void log_launch(void const* function) {
  auto& registry = Registry::get();
  std::lock_guard const guard{registry.mutex};
  auto const it = registry.kernels.find(function);
  log("launch %s", it == registry.kernels.end() ? "?" : it->second);
}

cudaError_t launched(void const* function, void** args, cudaStream_t stream) {
  NEED_CONTEXT();
  if (!current_code(function)) return set_error(cudaErrorNoKernelImageForDevice);
  if (Status const status = kernel_needed(context, function); status != Status::Ok)
    return to_error(status);
  add_count(Counter::Launches);
  if (capturing(stream) != nullptr)
    note_captured(stream);
  else if (args != nullptr)
    kernel_launched(function, args);
  if (want_kernel_names()) log_launch(function);
  return cudaSuccess;
}

}  // namespace

// ---- registration

MEMACCT_SIM_EXPORT void** __cudaRegisterFatBinary(void* wrapper) {
  return reinterpret_cast<void**>(fat_binary(wrapper));
}
MEMACCT_SIM_EXPORT void __cudaRegisterFatBinaryEnd(void**) {}
MEMACCT_SIM_EXPORT void __cudaUnregisterFatBinary(void**) {}
MEMACCT_SIM_EXPORT char __cudaInitModule(void**) { return 0; }

MEMACCT_SIM_EXPORT void __cudaRegisterFunction(void** binary, const char* host, char*,
                                               const char* name, int, void*, void*, void*, void*,
                                               int*) {
  function_of(reinterpret_cast<FatBinary*>(binary), host);
  kernel_registered(host, name);
  if (!want_kernel_names()) return;
  Registry& r = Registry::get();
  std::lock_guard<std::mutex> g(r.mutex);
  r.kernels[host] = name;
}

MEMACCT_SIM_EXPORT void __cudaRegisterVar(void**, char* host, char*, const char*, int, size_t size,
                                          int, int) {
  Registry& r = Registry::get();
  std::lock_guard<std::mutex> g(r.mutex);
  r.variables[host] = {size, nullptr};
}

MEMACCT_SIM_EXPORT unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared,
                                                        void* stream) {
  t_configs.push_back({grid, block, shared, stream});
  return 0;
}

MEMACCT_SIM_EXPORT cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared,
                                                          void* stream) {
  if (t_configs.empty()) return cudaErrorUnknown;
  LaunchConfig c = t_configs.back();
  t_configs.pop_back();
  *grid = c.grid;
  *block = c.block;
  *shared = c.shared;
  *static_cast<void**>(stream) = c.stream;
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* func) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(func));
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3, dim3, void** args,
                                                  size_t, cudaStream_t stream) {
  return launched(kernel, args, stream);
}

// ---- launches

MEMACCT_SIM_EXPORT cudaError_t cudaLaunchKernel(const void* func, dim3, dim3, void** args, size_t,
                                                cudaStream_t stream) {
  return launched(func, args, stream);
}

MEMACCT_SIM_EXPORT cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config,
                                                   const void* func, void** args) {
  return launched(func, args, config ? config->stream : nullptr);
}

MEMACCT_SIM_EXPORT cudaError_t cudaLaunchCooperativeKernel(const void* func, dim3, dim3,
                                                           void** args, size_t,
                                                           cudaStream_t stream) {
  return launched(func, args, stream);
}

MEMACCT_SIM_EXPORT cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn,
                                                  void* data) {
  NEED_CONTEXT();
  if (capturing(stream) != nullptr) {
    note_captured(stream);
    return cudaSuccess;
  }
  fn(data);
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t fn,
                                                     void* data, unsigned) {
  fn(stream, cudaSuccess, data);
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void* func) {
  NEED_CONTEXT();
  auto const code = current_code(func);
  if (!code) return set_error(cudaErrorNoKernelImageForDevice);
  memset(a, 0, sizeof *a);
  a->maxThreadsPerBlock = 1024;
  a->numRegs = 32;
  a->ptxVersion = code->ptx;
  a->binaryVersion = code->binary;
  a->maxDynamicSharedSizeBytes = current_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int* blocks, const void*, int block_size, size_t, unsigned) {
  int const threads = current_attribute(cudaDevAttrMaxThreadsPerMultiProcessor);
  int const most = current_attribute(cudaDevAttrMaxBlocksPerMultiprocessor);
  *blocks = std::clamp(threads / std::max(1, block_size), 1, most);
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks,
                                                                             const void* func,
                                                                             int block_size,
                                                                             size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, func, block_size, shared,
                                                                0);
}

MEMACCT_SIM_EXPORT cudaError_t cudaOccupancyMaxActiveClusters(int* n, const void*,
                                                              const cudaLaunchConfig_t*) {
  *n = 16;
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaOccupancyMaxPotentialClusterSize(int* n, const void*,
                                                                    const cudaLaunchConfig_t*) {
  *n = 8;
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaOccupancyAvailableDynamicSMemPerBlock(size_t* n, const void*,
                                                                         int, int) {
  *n = 49152;
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaGetFuncBySymbol(cudaFunction_t* f, const void* symbol) {
  *f = reinterpret_cast<cudaFunction_t>(const_cast<void*>(symbol));
  return cudaSuccess;
}

#if CUDART_VERSION >= 12080
MEMACCT_SIM_EXPORT cudaError_t cudaLibraryLoadData(cudaLibrary_t* lib, const void*, cudaJitOption*,
                                                   void**, unsigned, cudaLibraryOption*, void**,
                                                   unsigned) {
  NEED_CONTEXT();
  *lib = reinterpret_cast<cudaLibrary_t>(new char);
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaLibraryGetKernel(cudaKernel_t* k, cudaLibrary_t, const char*) {
  *k = reinterpret_cast<cudaKernel_t>(new char);
  return cudaSuccess;
}
#endif

// ---- variables on the device

MEMACCT_SIM_EXPORT cudaError_t cudaGetSymbolAddress(void** p, const void* symbol) {
  NEED_CONTEXT();
  *p = variable_address(symbol, nullptr);
  return *p ? cudaSuccess : set_error(cudaErrorInvalidSymbol);
}
MEMACCT_SIM_EXPORT cudaError_t cudaGetSymbolSize(size_t* n, const void* symbol) {
  return variable_address(symbol, n) ? cudaSuccess : set_error(cudaErrorInvalidSymbol);
}
MEMACCT_SIM_EXPORT cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* src, size_t n,
                                                  size_t offset, cudaMemcpyKind) {
  NEED_CONTEXT();
  size_t size = 0;
  void* p = variable_address(symbol, &size);
  if (!p || offset + n > size) return set_error(cudaErrorInvalidSymbol);
  copy(static_cast<char*>(p) + offset, src, n);
  return cudaSuccess;
}
