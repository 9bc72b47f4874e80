// The handwritten part of the simulated libcublas: what must hand something back, and the products
// that PyTorch asks for, which compute nothing but are kernels: they are loaded, and captured.
// All other computing entry points are generated stubs that return CUBLAS_STATUS_SUCCESS.
#include <cublas_v2.h>

#include <cstdlib>
#include <cstring>

#include "cudart_common.hpp"

using namespace memacct::sim;

struct cublasContext {
  cudaStream_t stream;
  cublasPointerMode_t pointer_mode;
  cublasMath_t math_mode;
  int sm_count;
  Context* context;
  uint64_t charged_bytes;
};

namespace {

/// A kernel of that name was put on the handle's stream.
cublasStatus_t computed(cublasHandle_t handle, char const* kernel) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (kernel_needed(handle->context, kernel) != Status::Ok) return CUBLAS_STATUS_ALLOC_FAILED;
  note_captured(handle->stream);
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

MEMACCT_SIM_EXPORT cublasStatus_t cublasGemmEx(cublasHandle_t h, cublasOperation_t,
                                               cublasOperation_t, int, int, int, void const*,
                                               void const*, cudaDataType, int, void const*,
                                               cudaDataType, int, void const*, void*, cudaDataType,
                                               int, cublasComputeType_t, cublasGemmAlgo_t) {
  return computed(h, "gemm");
}
MEMACCT_SIM_EXPORT cublasStatus_t cublasSgemm_v2(cublasHandle_t h, cublasOperation_t,
                                                 cublasOperation_t, int, int, int, float const*,
                                                 float const*, int, float const*, int, float const*,
                                                 float*, int) {
  return computed(h, "sgemm");
}
MEMACCT_SIM_EXPORT cublasStatus_t cublasGemmStridedBatchedEx(
    cublasHandle_t h, cublasOperation_t, cublasOperation_t, int, int, int, void const*, void const*,
    cudaDataType, int, long long, void const*, cudaDataType, int, long long, void const*, void*,
    cudaDataType, int, long long, int, cublasComputeType_t, cublasGemmAlgo_t) {
  return computed(h, "gemm batched");
}

MEMACCT_SIM_EXPORT cublasStatus_t cublasCreate_v2(cublasHandle_t* h) {
  static uint64_t const bytes = option_bytes("MEMACCT_SIM_CUBLAS_BYTES", 0);
  Context* context = nullptr;
  if (runtime_context(&context) != Status::Ok) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (charge_extra(context, bytes, "cublas") != Status::Ok) return CUBLAS_STATUS_ALLOC_FAILED;
  *h = new cublasContext{};
  (*h)->context = context;
  (*h)->charged_bytes = bytes;
  return CUBLAS_STATUS_SUCCESS;
}
MEMACCT_SIM_EXPORT cublasStatus_t cublasDestroy_v2(cublasHandle_t h) {
  if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
  uncharge_extra(h->context, h->charged_bytes, "cublas-end");
  delete h;
  return CUBLAS_STATUS_SUCCESS;
}
MEMACCT_SIM_EXPORT cublasStatus_t cublasGetVersion_v2(cublasHandle_t, int* v) {
  *v = CUBLAS_VERSION;
  return CUBLAS_STATUS_SUCCESS;
}
MEMACCT_SIM_EXPORT cublasStatus_t cublasSetStream_v2(cublasHandle_t h, cudaStream_t s) {
  h->stream = s;
  return CUBLAS_STATUS_SUCCESS;
}
MEMACCT_SIM_EXPORT cublasStatus_t cublasGetStream_v2(cublasHandle_t h, cudaStream_t* s) {
  *s = h->stream;
  return CUBLAS_STATUS_SUCCESS;
}
MEMACCT_SIM_EXPORT cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t h, cublasPointerMode_t m) {
  h->pointer_mode = m;
  return CUBLAS_STATUS_SUCCESS;
}
MEMACCT_SIM_EXPORT cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t h,
                                                          cublasPointerMode_t* m) {
  *m = h->pointer_mode;
  return CUBLAS_STATUS_SUCCESS;
}
MEMACCT_SIM_EXPORT cublasStatus_t cublasSetMathMode(cublasHandle_t h, cublasMath_t m) {
  h->math_mode = m;
  return CUBLAS_STATUS_SUCCESS;
}
MEMACCT_SIM_EXPORT cublasStatus_t cublasGetMathMode(cublasHandle_t h, cublasMath_t* m) {
  *m = h->math_mode;
  return CUBLAS_STATUS_SUCCESS;
}
MEMACCT_SIM_EXPORT cublasStatus_t cublasSetSmCountTarget(cublasHandle_t h, int n) {
  h->sm_count = n;
  return CUBLAS_STATUS_SUCCESS;
}
MEMACCT_SIM_EXPORT cublasStatus_t cublasGetSmCountTarget(cublasHandle_t h, int* n) {
  *n = h->sm_count;
  return CUBLAS_STATUS_SUCCESS;
}
MEMACCT_SIM_EXPORT const char* cublasGetStatusString(cublasStatus_t) {
  return "cublas status (simulated)";
}
MEMACCT_SIM_EXPORT const char* cublasGetStatusName(cublasStatus_t) {
  return "CUBLAS_STATUS (simulated)";
}
