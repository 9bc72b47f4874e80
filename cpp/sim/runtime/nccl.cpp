// The handwritten part of the simulated libnccl.so.2: communicators that know their rank
// and size. Collectives move nothing; a communicator's first one connects it, as in NCCL from 2.22.
#include <nccl.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <ctime>
#include <mutex>

#include "cudart_common.hpp"

using namespace memacct::sim;

struct ncclComm {
  int rank, size;
  Context* context;
  uint64_t charged_bytes;
  bool connected = false;
};

namespace {

std::mutex g_connect_mutex;

/// A collective or a message: it moves nothing, but the first one needs buffers.
ncclResult_t work_on(ncclComm_t comm) {
  static uint64_t const bytes = option_bytes("MEMACCT_SIM_NCCL_FIRST_BYTES", 0);
  if (comm == nullptr) return ncclInvalidArgument;
  std::lock_guard const guard{g_connect_mutex};
  if (comm->connected) return ncclSuccess;
  if (charge_extra(comm->context, bytes, "nccl-first") != Status::Ok) return ncclUnhandledCudaError;
  comm->charged_bytes += bytes;
  comm->connected = true;
  return ncclSuccess;
}

}  // namespace

MEMACCT_SIM_EXPORT ncclResult_t ncclGetVersion(int* v) {
  *v = NCCL_VERSION_CODE;
  return ncclSuccess;
}
MEMACCT_SIM_EXPORT ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static std::atomic<int> next{1};
  memset(id, 0, sizeof *id);
  int parts[3] = {getpid(), next++, static_cast<int>(time(nullptr))};
  memcpy(id->internal, parts, sizeof parts);
  return ncclSuccess;
}
MEMACCT_SIM_EXPORT ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId,
                                                 int rank) {
  static uint64_t const bytes = option_bytes("MEMACCT_SIM_NCCL_BYTES", 0);
  Context* context = nullptr;
  if (runtime_context(&context) != Status::Ok || charge_extra(context, bytes, "nccl") != Status::Ok)
    return ncclUnhandledCudaError;
  *comm = new ncclComm{rank, size, context, bytes};
  return ncclSuccess;
}
MEMACCT_SIM_EXPORT ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id,
                                                       int rank, ncclConfig_t*) {
  return ncclCommInitRank(comm, size, id, rank);
}
// ---- collectives and messages

MEMACCT_SIM_EXPORT ncclResult_t ncclAllReduce(void const*, void*, size_t, ncclDataType_t,
                                              ncclRedOp_t, ncclComm_t comm, cudaStream_t) {
  return work_on(comm);
}
MEMACCT_SIM_EXPORT ncclResult_t ncclReduce(void const*, void*, size_t, ncclDataType_t, ncclRedOp_t,
                                           int, ncclComm_t comm, cudaStream_t) {
  return work_on(comm);
}
MEMACCT_SIM_EXPORT ncclResult_t ncclReduceScatter(void const*, void*, size_t, ncclDataType_t,
                                                  ncclRedOp_t, ncclComm_t comm, cudaStream_t) {
  return work_on(comm);
}
MEMACCT_SIM_EXPORT ncclResult_t ncclAllGather(void const*, void*, size_t, ncclDataType_t,
                                              ncclComm_t comm, cudaStream_t) {
  return work_on(comm);
}
MEMACCT_SIM_EXPORT ncclResult_t ncclBroadcast(void const*, void*, size_t, ncclDataType_t, int,
                                              ncclComm_t comm, cudaStream_t) {
  return work_on(comm);
}
MEMACCT_SIM_EXPORT ncclResult_t ncclBcast(void*, size_t, ncclDataType_t, int, ncclComm_t comm,
                                          cudaStream_t) {
  return work_on(comm);
}
MEMACCT_SIM_EXPORT ncclResult_t ncclSend(void const*, size_t, ncclDataType_t, int, ncclComm_t comm,
                                         cudaStream_t) {
  return work_on(comm);
}
MEMACCT_SIM_EXPORT ncclResult_t ncclRecv(void*, size_t, ncclDataType_t, int, ncclComm_t comm,
                                         cudaStream_t) {
  return work_on(comm);
}

// ---- the end of a communicator, and what it tells

MEMACCT_SIM_EXPORT ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  if (!comm) return ncclInvalidArgument;
  uncharge_extra(comm->context, comm->charged_bytes, "nccl-end");
  delete comm;
  return ncclSuccess;
}
MEMACCT_SIM_EXPORT ncclResult_t ncclCommAbort(ncclComm_t comm) { return ncclCommDestroy(comm); }
MEMACCT_SIM_EXPORT ncclResult_t ncclCommCount(const ncclComm_t comm, int* n) {
  *n = comm->size;
  return ncclSuccess;
}
MEMACCT_SIM_EXPORT ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  *rank = comm->rank;
  return ncclSuccess;
}
MEMACCT_SIM_EXPORT ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int* device) {
  *device = comm->context->device;
  return ncclSuccess;
}
MEMACCT_SIM_EXPORT ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* e) {
  *e = ncclSuccess;
  return ncclSuccess;
}
MEMACCT_SIM_EXPORT const char* ncclGetErrorString(ncclResult_t) {
  return "nccl result (simulated)";
}
MEMACCT_SIM_EXPORT const char* ncclGetLastError(ncclComm_t) { return ""; }
MEMACCT_SIM_EXPORT ncclResult_t ncclMemAlloc(void** p, size_t n) {
  Context* context = nullptr;
  if (runtime_context(&context) != Status::Ok) return ncclUnhandledCudaError;
  return device_alloc(context, n, Kind::Device, p) == Status::Ok ? ncclSuccess
                                                                 : ncclUnhandledCudaError;
}
MEMACCT_SIM_EXPORT ncclResult_t ncclMemFree(void* p) {
  return release(p) == Status::Ok ? ncclSuccess : ncclInvalidArgument;
}
