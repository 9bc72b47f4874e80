// CUDA runtime: streams, events and graphs.
#include <cuda_runtime_api.h>

#include <utility>

#include "cudart_common.hpp"

using namespace memacct::sim;

// ---- streams

MEMACCT_SIM_EXPORT cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned flags,
                                                            int priority) {
  NEED_CONTEXT();
  *s = reinterpret_cast<cudaStream_t>(new_stream(flags, priority));
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned flags) {
  return cudaStreamCreateWithPriority(s, flags, 0);
}
MEMACCT_SIM_EXPORT cudaError_t cudaStreamCreate(cudaStream_t* s) {
  return cudaStreamCreateWithPriority(s, 0, 0);
}
MEMACCT_SIM_EXPORT cudaError_t cudaStreamDestroy(cudaStream_t s) {
  delete_stream(s);
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaStreamGetPriority(cudaStream_t s, int* priority) {
  Stream* st = stream_of(s);
  *priority = st ? st->priority : 0;
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaStreamGetFlags(cudaStream_t s, unsigned* flags) {
  Stream* st = stream_of(s);
  *flags = st ? st->flags : 0;
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaStreamGetDevice(cudaStream_t s, int* device) {
  Stream* st = stream_of(s);
  *device = st ? st->device : runtime_device();
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaStreamGetId(cudaStream_t s, unsigned long long* id) {
  *id = reinterpret_cast<unsigned long long>(s);
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaStreamQuery(cudaStream_t) {
  NEED_CONTEXT();
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaStreamSynchronize(cudaStream_t) {
  NEED_CONTEXT();
  return cudaSuccess;
}

// A wait on an event recorded in a capture brings the waiting stream into that capture.
MEMACCT_SIM_EXPORT cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  NEED_CONTEXT();
  join_capture(s, e);
  return cudaSuccess;
}

// ---- events

MEMACCT_SIM_EXPORT cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned flags) {
  NEED_CONTEXT();
  *e = reinterpret_cast<cudaEvent_t>(new_event(flags));
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaEventCreate(cudaEvent_t* e) {
  return cudaEventCreateWithFlags(e, 0);
}
MEMACCT_SIM_EXPORT cudaError_t cudaEventDestroy(cudaEvent_t e) {
  delete_event(e);
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned) {
  record_event(e, s);
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  return cudaEventRecordWithFlags(e, s, 0);
}
MEMACCT_SIM_EXPORT cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
MEMACCT_SIM_EXPORT cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
MEMACCT_SIM_EXPORT cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t a, cudaEvent_t b) {
  *ms = elapsed_ms(a, b);
  return cudaSuccess;
}
#if CUDART_VERSION >= 12080 && CUDART_VERSION < 13000
MEMACCT_SIM_EXPORT cudaError_t cudaEventElapsedTime_v2(float* ms, cudaEvent_t a, cudaEvent_t b) {
  return cudaEventElapsedTime(ms, a, b);
}
#endif

// ---- graphs

MEMACCT_SIM_EXPORT cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
  NEED_CONTEXT();
  return begin_capture(s) ? cudaSuccess : set_error(cudaErrorStreamCaptureUnsupported);
}
#if CUDART_VERSION >= 12030
MEMACCT_SIM_EXPORT cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t s, cudaGraph_t,
                                                             const cudaGraphNode_t*,
                                                             const cudaGraphEdgeData*, size_t,
                                                             cudaStreamCaptureMode mode) {
  return cudaStreamBeginCapture(s, mode);
}
#endif
MEMACCT_SIM_EXPORT cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* graph) {
  Graph* g = end_capture(s);
  if (!g) return set_error(cudaErrorIllegalState);
  if (graph) *graph = reinterpret_cast<cudaGraph_t>(g);
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaStreamIsCapturing(cudaStream_t s,
                                                     cudaStreamCaptureStatus* status) {
  *status = capturing(s) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

// What each version of cudaStreamGetCaptureInfo tells. CUDA 13 has one; in 12 its name is
// cudaStreamGetCaptureInfo_v3, and the header renames the plain one to _v2.
namespace {
cudaError_t capture_info(cudaStream_t s, cudaStreamCaptureStatus* status, unsigned long long* id,
                         cudaGraph_t* graph, const cudaGraphNode_t** nodes, size_t* count) {
  Graph* g = capturing(s);
  *status = g ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  if (id) *id = g ? g->id : 0;
  if (graph) *graph = reinterpret_cast<cudaGraph_t>(g);
  if (nodes) *nodes = nullptr;
  if (count) *count = 0;
  return cudaSuccess;
}
}  // namespace
#if CUDART_VERSION >= 13000
#define CAPTURE_INFO_WITH_EDGES cudaStreamGetCaptureInfo
#else
#define CAPTURE_INFO_WITH_EDGES cudaStreamGetCaptureInfo_v3
MEMACCT_SIM_EXPORT cudaError_t
capture_info_v1(cudaStream_t, cudaStreamCaptureStatus*,
                unsigned long long*) __asm__("cudaStreamGetCaptureInfo");
cudaError_t capture_info_v1(cudaStream_t s, cudaStreamCaptureStatus* status,
                            unsigned long long* id) {
  return capture_info(s, status, id, nullptr, nullptr, nullptr);
}
MEMACCT_SIM_EXPORT cudaError_t cudaStreamGetCaptureInfo(cudaStream_t s,
                                                        cudaStreamCaptureStatus* status,
                                                        unsigned long long* id, cudaGraph_t* graph,
                                                        const cudaGraphNode_t** nodes,
                                                        size_t* count) {
  return capture_info(s, status, id, graph, nodes, count);
}
#endif
#if CUDART_VERSION >= 12030
MEMACCT_SIM_EXPORT cudaError_t CAPTURE_INFO_WITH_EDGES(
    cudaStream_t s, cudaStreamCaptureStatus* status, unsigned long long* id, cudaGraph_t* graph,
    const cudaGraphNode_t** nodes, const cudaGraphEdgeData** edges, size_t* count) {
  if (edges) *edges = nullptr;
  return capture_info(s, status, id, graph, nodes, count);
}
#endif
MEMACCT_SIM_EXPORT cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  static thread_local cudaStreamCaptureMode current = cudaStreamCaptureModeGlobal;
  std::swap(*mode, current);
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaGraphCreate(cudaGraph_t* g, unsigned) {
  *g = reinterpret_cast<cudaGraph_t>(new_graph());
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaGraphDestroy(cudaGraph_t g) {
  delete reinterpret_cast<Graph*>(g);
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaGraphGetNodes(cudaGraph_t g, cudaGraphNode_t* nodes,
                                                 size_t* count) {
  size_t n = reinterpret_cast<Graph*>(g)->nodes;
  if (nodes)
    for (size_t i = 0; i < *count; ++i) nodes[i] = reinterpret_cast<cudaGraphNode_t>(g);
  *count = n;
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t g,
                                                             unsigned long long) {
  NEED_CONTEXT();
  GraphExec* e = nullptr;
  Status s = instantiate(reinterpret_cast<Graph*>(g), context, &e);
  *exec = reinterpret_cast<cudaGraphExec_t>(e);
  return to_error(s);
}
MEMACCT_SIM_EXPORT cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t g,
                                                    unsigned long long flags) {
  return cudaGraphInstantiateWithFlags(exec, g, flags);
}
MEMACCT_SIM_EXPORT cudaError_t cudaGraphInstantiateWithParams(cudaGraphExec_t* exec, cudaGraph_t g,
                                                              cudaGraphInstantiateParams* params) {
  params->result_out = cudaGraphInstantiateSuccess;
  return cudaGraphInstantiateWithFlags(exec, g, params->flags);
}
MEMACCT_SIM_EXPORT cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e) {
  delete_exec(reinterpret_cast<GraphExec*>(e));
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) {
  NEED_CONTEXT();
  add_count(Counter::Launches);
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaDeviceGetGraphMemAttribute(int, cudaGraphMemAttributeType,
                                                              void* v) {
  *static_cast<uint64_t*>(v) = 0;
  return cudaSuccess;
}
MEMACCT_SIM_EXPORT cudaError_t cudaUserObjectCreate(cudaUserObject_t* o, void*, cudaHostFn_t,
                                                    unsigned, unsigned) {
  *o = reinterpret_cast<cudaUserObject_t>(new char);
  return cudaSuccess;
}
