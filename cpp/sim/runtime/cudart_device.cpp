// CUDA runtime: errors, versions and devices.
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdio>
#include <cstring>

#include "cudart_common.hpp"

using namespace memacct::sim;

namespace {

thread_local cudaError_t t_last_error = cudaSuccess;

struct ErrorText {
  cudaError_t code;
  char const* name;
  char const* text;
};
constexpr ErrorText kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorDeviceUninitialized, "cudaErrorDeviceUninitialized", "invalid device context"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorSymbolNotFound, "cudaErrorSymbolNotFound", "named symbol not found"},
};

}  // namespace

namespace memacct::sim {

cudaError_t set_error(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) t_last_error = error;
  return error;
}

cudaError_t to_error(Status status) {
  switch (status) {
    case Status::Ok:
      return cudaSuccess;
    case Status::OutOfMemory:
      return set_error(cudaErrorMemoryAllocation);
    case Status::NoDevice:
      return set_error(cudaErrorNoDevice);
    case Status::InvalidDevice:
      return set_error(cudaErrorInvalidDevice);
    case Status::NotInitialized:
      return set_error(cudaErrorInitializationError);
    case Status::InvalidContext:
    case Status::ContextDestroyed:
      return set_error(cudaErrorDeviceUninitialized);
    case Status::InvalidValue:
      break;
  }
  return set_error(cudaErrorInvalidValue);
}

}  // namespace memacct::sim

// ---- errors, versions

MEMACCT_SIM_EXPORT cudaError_t cudaGetLastError() {
  cudaError_t e = t_last_error;
  t_last_error = cudaSuccess;
  return e;
}
MEMACCT_SIM_EXPORT cudaError_t cudaPeekAtLastError() { return t_last_error; }

MEMACCT_SIM_EXPORT const char* cudaGetErrorName(cudaError_t code) {
  for (auto const& error : kErrors)
    if (error.code == code) return error.name;
  return "cudaErrorUnknown";
}

MEMACCT_SIM_EXPORT const char* cudaGetErrorString(cudaError_t code) {
  for (auto const& error : kErrors)
    if (error.code == code) return error.text;
  return "unknown error";
}

MEMACCT_SIM_EXPORT cudaError_t cudaDriverGetVersion(int* v) {
  *v = driver_version();
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaRuntimeGetVersion(int* v) {
  *v = CUDART_VERSION;
  return cudaSuccess;
}

// The driver's own lookup, in the simulated libcuda.
extern "C" int cuGetProcAddress_v2(const char*, void**, int, uint64_t, int*);

MEMACCT_SIM_EXPORT cudaError_t cudaGetDriverEntryPointByVersion(
    const char* symbol, void** fn, unsigned version, unsigned long long flags,
    cudaDriverEntryPointQueryResult* result) {
  int status = 0;
  int rc = cuGetProcAddress_v2(symbol, fn, static_cast<int>(version), flags, &status);
  if (result) *result = static_cast<cudaDriverEntryPointQueryResult>(status);
  if (rc == 0 || result) return cudaSuccess;
  return set_error(cudaErrorSymbolNotFound);
}

MEMACCT_SIM_EXPORT cudaError_t cudaGetDriverEntryPoint(const char* symbol, void** fn,
                                                       unsigned long long flags,
                                                       cudaDriverEntryPointQueryResult* result) {
  return cudaGetDriverEntryPointByVersion(symbol, fn, CUDART_VERSION, flags, result);
}

// ---- devices

MEMACCT_SIM_EXPORT cudaError_t cudaGetDeviceCount(int* n) {
  NEED_DRIVER();  // as the real one: after it a fork is too late
  *n = device_count();
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaGetDevice(int* d) {
  NEED_DRIVER();
  *d = runtime_device();
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaSetDevice(int d) {
  NEED_DRIVER();
  return to_error(runtime_set_device(d));
}

MEMACCT_SIM_EXPORT cudaError_t cudaInitDevice(int d, unsigned, unsigned) {
  return to_error(runtime_set_device(d));
}

MEMACCT_SIM_EXPORT cudaError_t cudaDeviceReset() {
  NEED_DRIVER();
  return to_error(primary_reset(runtime_device()));
}

MEMACCT_SIM_EXPORT cudaError_t cudaDeviceSynchronize() {
  NEED_CONTEXT();
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaDeviceGetAttribute(int* v, cudaDeviceAttr attr, int d) {
  if (physical_index(d) < 0) return set_error(cudaErrorInvalidDevice);
  *v = device_attribute(static_cast<int>(attr), physical_index(d));
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int d) {
  int physical = physical_index(d);
  if (physical < 0) return set_error(cudaErrorInvalidDevice);
  auto at = [physical](int a) { return device_attribute(a, physical); };
  memset(p, 0, sizeof *p);
  snprintf(p->name, sizeof p->name, "%s", device_name(physical).c_str());
  device_uuid(physical, reinterpret_cast<uint8_t*>(&p->uuid));
  p->totalGlobalMem = unit_config(physical).cuda_total_bytes;
  p->sharedMemPerBlock = static_cast<size_t>(at(8));
  p->regsPerBlock = at(12);
  p->warpSize = at(10);
  p->memPitch = static_cast<size_t>(at(11));
  p->maxThreadsPerBlock = at(1);
  for (int i = 0; i < 3; ++i) {
    p->maxThreadsDim[i] = at(2 + i);
    p->maxGridSize[i] = at(5 + i);
  }
  p->totalConstMem = static_cast<size_t>(at(9));
  p->major = at(75);
  p->minor = at(76);
  p->textureAlignment = static_cast<size_t>(at(14));
  p->multiProcessorCount = at(16);
  p->integrated = at(18);
  p->canMapHostMemory = at(19);
  p->concurrentKernels = at(31);
  p->ECCEnabled = at(32);
  p->pciBusID = device_pci_bus(physical);
  p->asyncEngineCount = at(40);
  p->unifiedAddressing = at(41);
  p->memoryBusWidth = at(37);
  p->l2CacheSize = at(38);
  p->persistingL2CacheMaxSize = at(108);
  p->maxThreadsPerMultiProcessor = at(39);
  p->streamPrioritiesSupported = at(78);
  p->globalL1CacheSupported = at(79);
  p->localL1CacheSupported = at(80);
  p->sharedMemPerMultiprocessor = static_cast<size_t>(at(81));
  p->regsPerMultiprocessor = at(82);
  p->managedMemory = at(83);
  p->concurrentManagedAccess = at(89);
  p->computePreemptionSupported = at(90);
  p->canUseHostPointerForRegisteredMem = at(91);
  p->cooperativeLaunch = at(95);
  p->sharedMemPerBlockOptin = static_cast<size_t>(at(97));
  p->maxBlocksPerMultiProcessor = at(106);
  p->accessPolicyMaxWindowSize = at(109);
  p->reservedSharedMemPerBlock = static_cast<size_t>(at(111));
  p->hostRegisterSupported = 1;
  p->memoryPoolsSupported = at(115);
  p->ipcEventSupported = at(125);
  p->clusterLaunch = at(120);
  p->unifiedFunctionPointers = 1;
#if CUDART_VERSION < 13000
  p->clockRate = at(13);
  p->memoryClockRate = at(36);
  p->deviceOverlap = at(15);
#endif
  return cudaSuccess;
}

#if CUDART_VERSION < 13000
// cuda_runtime_api.h renames the function above to cudaGetDeviceProperties_v2. The plain
// name is CUDA 11's, whose structure is the first part of this one.
MEMACCT_SIM_EXPORT cudaError_t properties_v1(void* p, int d) __asm__("cudaGetDeviceProperties");
cudaError_t properties_v1(void* p, int d) {
  cudaDeviceProp all;
  cudaError_t e = cudaGetDeviceProperties(&all, d);
  if (e == cudaSuccess) memcpy(p, &all, offsetof(cudaDeviceProp, hostRegisterSupported));
  return e;
}
#endif

MEMACCT_SIM_EXPORT cudaError_t cudaDeviceGetPCIBusId(char* out, int n, int d) {
  int physical = physical_index(d);
  if (physical < 0) return set_error(cudaErrorInvalidDevice);
  snprintf(out, static_cast<size_t>(n), "0000:%02X:00.0", device_pci_bus(physical));
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  NEED_CONTEXT();
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaDeviceCanAccessPeer(int* can, int a, int b) {
  *can = a != b && option_text("MEMACCT_SIM_PEERS", "nvlink") != "none";
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaDeviceGetLimit(size_t* v, cudaLimit limit) {
  *v = limit == cudaLimitStackSize ? 1024 : 8 << 20;
  NEED_CONTEXT();
  return cudaSuccess;
}
