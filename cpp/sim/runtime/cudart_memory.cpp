// CUDA runtime: memory.
#include <cuda_runtime_api.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "cudart_common.hpp"

using namespace memacct::sim;

MEMACCT_SIM_EXPORT cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
  NEED_CONTEXT();
  add_count(Counter::CudaMemoryQueries);
  int const physical = physical_index(context->device);
  DeviceUsage const usage = device_usage(physical);
  *total = unit_config(physical).cuda_total_bytes;
  *free_bytes = std::min<size_t>(usage.free_bytes, *total);
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaMalloc(void** p, size_t n) {
  NEED_CONTEXT();
  *p = nullptr;
  if (n == 0) return cudaSuccess;
  return to_error(device_alloc(context, n, Kind::Device, p));
}

MEMACCT_SIM_EXPORT cudaError_t cudaMallocManaged(void** p, size_t n, unsigned) {
  NEED_CONTEXT();
  return to_error(device_alloc(context, n, Kind::Managed, p));
}

MEMACCT_SIM_EXPORT cudaError_t cudaMallocPitch(void** p, size_t* pitch, size_t width,
                                               size_t height) {
  *pitch = (width + 511) / 512 * 512;
  return cudaMalloc(p, *pitch * height);
}

MEMACCT_SIM_EXPORT cudaError_t cudaFree(void* p) {
  NEED_CONTEXT();
  return to_error(release(p));
}

MEMACCT_SIM_EXPORT cudaError_t cudaHostAlloc(void** p, size_t n, unsigned) {
  NEED_CONTEXT();
  return to_error(host_alloc(n, p));
}
MEMACCT_SIM_EXPORT cudaError_t cudaMallocHost(void** p, size_t n) { return cudaHostAlloc(p, n, 0); }
MEMACCT_SIM_EXPORT cudaError_t cudaFreeHost(void* p) { return to_error(release(p)); }
MEMACCT_SIM_EXPORT cudaError_t cudaHostRegister(void* p, size_t n, unsigned) {
  NEED_CONTEXT();
  return to_error(host_register(p, n));
}
MEMACCT_SIM_EXPORT cudaError_t cudaHostUnregister(void* p) { return to_error(release(p)); }
MEMACCT_SIM_EXPORT cudaError_t cudaHostGetDevicePointer(void** out, void* p, unsigned) {
  *out = p;
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaHostGetFlags(unsigned* flags, void*) {
  *flags = 0;
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  memset(a, 0, sizeof *a);
  Allocation found;
  a->device = -1;
  a->type = cudaMemoryTypeUnregistered;
  a->hostPointer = const_cast<void*>(p);
  if (!lookup(p, &found)) return cudaSuccess;
  a->device = found.device;
  a->devicePointer = const_cast<void*>(p);
  switch (found.kind) {
    case Kind::Device:
    case Kind::Reserved:
      a->type = cudaMemoryTypeDevice;
      a->hostPointer = nullptr;
      break;
    case Kind::Managed:
      a->type = cudaMemoryTypeManaged;
      break;
    default:
      a->type = cudaMemoryTypeHost;
  }
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaMemcpy(void* dst, const void* src, size_t n, cudaMemcpyKind) {
  NEED_CONTEXT();
  copy(dst, src, n);
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaMemcpyAsync(void* dst, const void* src, size_t n, cudaMemcpyKind,
                                               cudaStream_t stream) {
  NEED_CONTEXT();
  if (capturing(stream) != nullptr) {
    note_captured(stream);
    return cudaSuccess;
  }
  copy(dst, src, n);
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaMemcpyPeerAsync(void* dst, int, const void* src, int, size_t n,
                                                   cudaStream_t) {
  NEED_CONTEXT();
  copy(dst, src, n);
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaMemcpyPeer(void* dst, int, const void* src, int, size_t n) {
  NEED_CONTEXT();
  copy(dst, src, n);
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaMemcpy2D(void* dst, size_t dpitch, const void* src,
                                            size_t spitch, size_t width, size_t height,
                                            cudaMemcpyKind) {
  NEED_CONTEXT();
  for (size_t y = 0; y < height; ++y)
    copy(static_cast<char*>(dst) + y * dpitch, static_cast<const char*>(src) + y * spitch, width);
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaMemcpy2DAsync(void* dst, size_t dpitch, const void* src,
                                                 size_t spitch, size_t width, size_t height,
                                                 cudaMemcpyKind kind, cudaStream_t) {
  return cudaMemcpy2D(dst, dpitch, src, spitch, width, height, kind);
}
#if CUDART_VERSION >= 12080
MEMACCT_SIM_EXPORT cudaError_t cudaMemcpyBatchAsync(
#if CUDART_VERSION >= 13000
    void* const* dsts, const void* const* srcs, const size_t* sizes, size_t count,
    cudaMemcpyAttributes*, size_t*, size_t, cudaStream_t) {
#else
    void** dsts, void** srcs, size_t* sizes, size_t count, cudaMemcpyAttributes*, size_t*, size_t,
    size_t*, cudaStream_t) {
#endif
  NEED_CONTEXT();
  for (size_t i = 0; i < count; ++i) copy(dsts[i], srcs[i], sizes[i]);
  return cudaSuccess;
}
#endif
MEMACCT_SIM_EXPORT cudaError_t cudaMemset(void* p, int v, size_t n) {
  NEED_CONTEXT();
  fill(p, v, n);
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaMemsetAsync(void* p, int v, size_t n, cudaStream_t stream) {
  NEED_CONTEXT();
  if (capturing(stream) != nullptr) {
    note_captured(stream);
    return cudaSuccess;
  }
  fill(p, v, n);
  return cudaSuccess;
}

// ---- memory shared between processes: held by its owner alone, its contents are not shared ----

namespace {

struct SharedMemory {
  char magic[8];
  uint64_t size;
  uint64_t base;  // in its owner, so that no two handles are alike
  int device;
  int owner;
};
static_assert(sizeof(SharedMemory) <= sizeof(cudaIpcMemHandle_t));
constexpr char kMagic[8] = "memacct";

}  // namespace

MEMACCT_SIM_EXPORT cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* out, void* p) {
  NEED_CONTEXT();
  Allocation found;
  if (!lookup(p, &found) || found.kind != Kind::Device) return set_error(cudaErrorInvalidValue);
  SharedMemory shared{{}, found.size, found.base, found.device, ::getpid()};
  memcpy(shared.magic, kMagic, sizeof kMagic);
  memset(out, 0, sizeof *out);
  memcpy(out, &shared, sizeof shared);
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaIpcOpenMemHandle(void** p, cudaIpcMemHandle_t handle, unsigned) {
  NEED_CONTEXT();
  SharedMemory shared{};
  memcpy(&shared, &handle, sizeof shared);
  // A process cannot open what is its own.
  if (memcmp(shared.magic, kMagic, sizeof kMagic) != 0 || shared.owner == ::getpid())
    return set_error(cudaErrorInvalidValue);
  size_t const size = (shared.size + kPageBytes - 1) / kPageBytes * kPageBytes;
  Status const status = reserve_range(size, kPageBytes, p);
  return to_error(status == Status::Ok ? map_range(*p, size, shared.device) : status);
}

MEMACCT_SIM_EXPORT cudaError_t cudaIpcCloseMemHandle(void* p) {
  NEED_CONTEXT();
  return to_error(release(p));
}
