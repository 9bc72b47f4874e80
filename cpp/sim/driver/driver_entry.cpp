// Driver API: initialisation, versions, looking functions up, names of errors.
#include <dlfcn.h>

#include <cstring>

#include "../core/device.hpp"
#include "cuda_abi.hpp"

using namespace memacct::sim;

namespace {

struct DriverName {
  char const* name;  // as cuGetProcAddress knows it
  int since;         // CUDA version from which the name means this symbol
  char const* symbol;
};
constexpr DriverName kNames[] = {
#include "driver_names.inc"
};

struct ErrorText {
  Result code;
  char const* name;
  char const* text;
};
constexpr ErrorText kErrors[] = {
    {kCudaSuccess, "CUDA_SUCCESS", "no error"},
    {kCudaInvalidValue, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {kCudaOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {kCudaNotInitialized, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {kCudaNoDevice, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {kCudaInvalidDevice, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {kCudaInvalidContext, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {kCudaNotFound, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {kCudaContextDestroyed, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {kCudaNotSupported, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
};

ErrorText const* error_text(Result code) {
  for (auto const& error : kErrors)
    if (error.code == code) return &error;
  return nullptr;
}

// The form of `name` that a program built for CUDA `version` expects.
void* find_function(char const* name, int version) {
  Dl_info here{};
  if (::dladdr(reinterpret_cast<void const*>(&find_function), &here) == 0) return nullptr;
  static void* const self = ::dlopen(here.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  char const* symbol = name;
  int best = -1;
  for (auto const& known : kNames) {
    if (known.since > version || known.since <= best || std::strcmp(known.name, name) != 0)
      continue;
    best = known.since;
    symbol = known.symbol;
  }
  return self != nullptr ? ::dlsym(self, symbol) : nullptr;
}

}  // namespace

MEMACCT_SIM_EXPORT Result cuInit(unsigned flags) {
  DRIVER_ENTRY_UNINITIALIZED();
  if (flags != 0) return kCudaInvalidValue;
  return to_result(driver_init());
}

MEMACCT_SIM_EXPORT Result cuDriverGetVersion(int* version) {
  DRIVER_ENTRY_UNINITIALIZED();
  if (version == nullptr) return kCudaInvalidValue;
  *version = driver_version();
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuGetProcAddress_v2(char const* name, void** function, int version,
                                              uint64_t, int* query_result) {
  DRIVER_ENTRY_UNINITIALIZED();
  *function = find_function(name, version);
  if (*function == nullptr) log("cuGetProcAddress: no %s (version %d)", name, version);
  constexpr int kNoSuchSymbol = 1;
  if (query_result != nullptr) *query_result = *function != nullptr ? 0 : kNoSuchSymbol;
  return *function != nullptr ? kCudaSuccess : kCudaNotFound;
}

MEMACCT_SIM_EXPORT Result cuGetProcAddress(char const* name, void** function, int version,
                                           uint64_t) {
  DRIVER_ENTRY_UNINITIALIZED();
  *function = find_function(name, version);
  return *function != nullptr ? kCudaSuccess : kCudaNotFound;
}

// NVIDIA's own runtime, which some of its libraries carry inside, finds the driver's private
// functions here. Turned away, it reports an error instead of calling what is not there.
MEMACCT_SIM_EXPORT Result cuGetExportTable(void const** table, void const*) {
  DRIVER_ENTRY_UNINITIALIZED();
  *table = nullptr;
  log("cuGetExportTable: refused");
  return kCudaNotFound;
}

MEMACCT_SIM_EXPORT Result cuGetErrorString(Result code, char const** text) {
  ErrorText const* const error = error_text(code);
  *text = error != nullptr ? error->text : nullptr;
  return error != nullptr ? kCudaSuccess : kCudaInvalidValue;
}

MEMACCT_SIM_EXPORT Result cuGetErrorName(Result code, char const** name) {
  ErrorText const* const error = error_text(code);
  *name = error != nullptr ? error->name : nullptr;
  return error != nullptr ? kCudaSuccess : kCudaInvalidValue;
}

// What a generated stub returns: a function that takes part in no accounting succeeds.
MEMACCT_SIM_EXPORT Result memacct_sim_driver_stub(char const* name, int* seen) {
  if (*seen == 0) log("stub %s", name);
  *seen = 1;
  if (auto const code = fault_in_call(name)) return *code;
  return driver_initialized() ? kCudaSuccess : kCudaNotInitialized;
}
