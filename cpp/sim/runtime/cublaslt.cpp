// The handwritten part of the simulated libcublasLt: opaque descriptors, a heuristic that always
// finds one algorithm, and the product, which computes nothing but is a kernel.
#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "cudart_common.hpp"

using namespace memacct::sim;

namespace {
template <class T>
cublasStatus_t make(T** out) {
  *out = static_cast<T*>(calloc(1, 4096));
  return *out ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_ALLOC_FAILED;
}
cublasStatus_t drop(void* p) {
  free(p);
  return CUBLAS_STATUS_SUCCESS;
}
}  // namespace

MEMACCT_SIM_EXPORT cublasStatus_t cublasLtCreate(cublasLtHandle_t* h) {
  *h = static_cast<cublasLtHandle_t>(calloc(1, 64));
  return CUBLAS_STATUS_SUCCESS;
}
MEMACCT_SIM_EXPORT cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) { return drop(h); }
MEMACCT_SIM_EXPORT size_t cublasLtGetVersion() { return CUBLAS_VERSION; }
MEMACCT_SIM_EXPORT size_t cublasLtGetCudartVersion() { return CUDART_VERSION; }

MEMACCT_SIM_EXPORT cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* d,
                                                           cublasComputeType_t, cudaDataType_t) {
  return make(d);
}
MEMACCT_SIM_EXPORT cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
  return drop(d);
}
MEMACCT_SIM_EXPORT cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* d,
                                                             cudaDataType, uint64_t, uint64_t,
                                                             int64_t) {
  return make(d);
}
MEMACCT_SIM_EXPORT cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t d) {
  return drop(d);
}
MEMACCT_SIM_EXPORT cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* d) {
  return make(d);
}
MEMACCT_SIM_EXPORT cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t d) {
  return drop(d);
}
MEMACCT_SIM_EXPORT cublasStatus_t
cublasLtMatrixTransformDescCreate(cublasLtMatrixTransformDesc_t* d, cudaDataType) {
  return make(d);
}
MEMACCT_SIM_EXPORT cublasStatus_t
cublasLtMatrixTransformDescDestroy(cublasLtMatrixTransformDesc_t d) {
  return drop(d);
}

MEMACCT_SIM_EXPORT cublasStatus_t cublasLtMatmul(
    cublasLtHandle_t, cublasLtMatmulDesc_t, void const*, void const*, cublasLtMatrixLayout_t,
    void const*, cublasLtMatrixLayout_t, void const*, void const*, cublasLtMatrixLayout_t, void*,
    cublasLtMatrixLayout_t, cublasLtMatmulAlgo_t const*, void*, size_t, cudaStream_t stream) {
  Context* context = nullptr;
  if (runtime_context(&context) != Status::Ok) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (kernel_needed(context, "lt matmul") != Status::Ok) return CUBLAS_STATUS_ALLOC_FAILED;
  note_captured(stream);
  return CUBLAS_STATUS_SUCCESS;
}

MEMACCT_SIM_EXPORT cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
    cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatmulPreference_t, int wanted,
    cublasLtMatmulHeuristicResult_t results[], int* returned) {
  *returned = wanted > 0 ? 1 : 0;
  if (wanted > 0) {
    memset(&results[0], 0, sizeof results[0]);
    results[0].state = CUBLAS_STATUS_SUCCESS;
    results[0].wavesCount = 1.0f;
  }
  return CUBLAS_STATUS_SUCCESS;
}
