// CUDA runtime: stream-ordered memory. A pool keeps what is freed up to its release threshold, in
// pieces of whole pages that are neither split nor joined.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <iterator>
#include <list>
#include <map>
#include <mutex>

#include "cudart_common.hpp"

using namespace memacct::sim;

namespace {

constexpr size_t kPage = size_t{2} << 20;

struct Piece {
  size_t piece_bytes = 0;  // what the device lent
  size_t used_bytes = 0;   // what of it was asked for
};

struct Counter64 {
  uint64_t current = 0;
  uint64_t high = 0;
  void add(uint64_t bytes) { high = std::max(high, current += bytes); }
};

struct Pool {
  uint64_t threshold_bytes = 0;
  Counter64 reserved, used;
  std::map<void*, Piece> live;
  std::multimap<size_t, void*> cached;  // by size
};

std::mutex mutex;
std::map<int, Pool> default_pools;  // by device; an address stays
std::list<Pool> made_pools;

Pool* pool_of(cudaMemPool_t handle) { return reinterpret_cast<Pool*>(handle); }
cudaMemPool_t handle_of(Pool* pool) { return reinterpret_cast<cudaMemPool_t>(pool); }

void trim(Pool& pool, uint64_t keep_bytes) {
  while (pool.reserved.current > keep_bytes && !pool.cached.empty()) {
    auto const largest = std::prev(pool.cached.end());
    if (release(largest->second) != Status::Ok) return;
    pool.reserved.current -= largest->first;
    pool.cached.erase(largest);
  }
}

Status take(Pool& pool, Context* context, size_t bytes, void** out) {
  auto const wanted = (bytes + kPage - 1) / kPage * kPage;
  auto const found = pool.cached.lower_bound(wanted);
  Piece piece{.piece_bytes = wanted, .used_bytes = bytes};
  if (found != pool.cached.end()) {
    piece.piece_bytes = found->first;
    *out = found->second;
    pool.cached.erase(found);
  } else {
    if (auto const status = device_alloc(context, wanted, Kind::Device, out);
        status != Status::Ok) {
      return status;
    }
    pool.reserved.add(wanted);
  }
  pool.used.add(bytes);
  pool.live[*out] = piece;
  return Status::Ok;
}

bool give_back(Pool& pool, void* address) {
  auto const found = pool.live.find(address);
  if (found == pool.live.end()) return false;
  pool.used.current -= found->second.used_bytes;
  pool.cached.emplace(found->second.piece_bytes, address);
  pool.live.erase(found);
  trim(pool, pool.threshold_bytes);
  return true;
}

}  // namespace

MEMACCT_SIM_EXPORT cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  NEED_DRIVER();
  if (primary_context(device) == nullptr) return set_error(cudaErrorInvalidDevice);
  std::lock_guard const lock(mutex);
  *pool = handle_of(&default_pools[device]);
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* pool, int device) {
  return cudaDeviceGetDefaultMemPool(pool, device);
}
MEMACCT_SIM_EXPORT cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) {
  std::lock_guard const lock(mutex);
  *pool = handle_of(&made_pools.emplace_back());
  return cudaSuccess;
}

MEMACCT_SIM_EXPORT cudaError_t cudaMallocFromPoolAsync(void** p, size_t n, cudaMemPool_t pool,
                                                       cudaStream_t) {
  NEED_CONTEXT();
  std::lock_guard const lock(mutex);
  return to_error(take(*pool_of(pool), context, n, p));
}
MEMACCT_SIM_EXPORT cudaError_t cudaMallocAsync(void** p, size_t n, cudaStream_t) {
  NEED_CONTEXT();
  std::lock_guard const lock(mutex);
  return to_error(take(default_pools[context->device], context, n, p));
}
MEMACCT_SIM_EXPORT cudaError_t cudaFreeAsync(void* p, cudaStream_t) {
  NEED_CONTEXT();
  {
    std::lock_guard const lock(mutex);
    for (auto& [device, pool] : default_pools) {
      if (give_back(pool, p)) return cudaSuccess;
    }
    for (auto& pool : made_pools) {
      if (give_back(pool, p)) return cudaSuccess;
    }
  }
  return to_error(release(p));
}

MEMACCT_SIM_EXPORT cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t keep_bytes) {
  std::lock_guard const lock(mutex);
  trim(*pool_of(pool), keep_bytes);
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t handle, cudaMemPoolAttr which,
                                                       void* value) {
  std::lock_guard const lock(mutex);
  auto const& pool = *pool_of(handle);
  auto& out = *static_cast<uint64_t*>(value);
  switch (which) {
    case cudaMemPoolAttrReleaseThreshold:
      out = pool.threshold_bytes;
      break;
    case cudaMemPoolAttrReservedMemCurrent:
      out = pool.reserved.current;
      break;
    case cudaMemPoolAttrReservedMemHigh:
      out = pool.reserved.high;
      break;
    case cudaMemPoolAttrUsedMemCurrent:
      out = pool.used.current;
      break;
    case cudaMemPoolAttrUsedMemHigh:
      out = pool.used.high;
      break;
    default:
      *static_cast<int*>(value) = 1;  // the reuse policies, all on
  }
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t handle, cudaMemPoolAttr which,
                                                       void* value) {
  std::lock_guard const lock(mutex);
  auto& pool = *pool_of(handle);
  switch (which) {
    case cudaMemPoolAttrReleaseThreshold:
      pool.threshold_bytes = *static_cast<uint64_t*>(value);
      break;
    case cudaMemPoolAttrReservedMemHigh:
      pool.reserved.high = pool.reserved.current;
      break;
    case cudaMemPoolAttrUsedMemHigh:
      pool.used.high = pool.used.current;
      break;
    default:
      break;
  }
  return cudaSuccess;
}
