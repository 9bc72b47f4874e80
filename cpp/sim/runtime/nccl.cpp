// The handwritten part of the simulated libnccl.so.2: communicators that know their rank
// and size. Collectives move nothing: they are generated stubs that return ncclSuccess.
#include <nccl.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <ctime>

#include "cudart_common.hpp"

using namespace memacct::sim;

struct ncclComm {
  int rank, size;
  Context* context;
  uint64_t charged_bytes;
};

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
