// Driver API: modules, kernels, streams and events. Kernels do nothing.
#include <algorithm>
#include <string>

#include "../core/device.hpp"
#include "../core/identity.hpp"
#include "../core/objects.hpp"
#include "cuda_abi.hpp"

using namespace memacct::sim;

namespace {

struct Module {
  uint64_t charged_bytes;
  Context* context;
};

Result load_module(Context* context, Module** out) {
  static uint64_t const bytes = option_bytes("MEMACCT_SIM_MODULE_BYTES", 0);
  Status const status = charge_extra(context, bytes, "module");
  if (status == Status::Ok) *out = new Module{bytes, context};
  return to_result(status);
}

Result launch(Context* context, void const* kernel, StreamHandle stream) {
  if (Status const status = kernel_needed(context, kernel); status != Status::Ok)
    return to_result(status);
  add_count(Counter::Launches);
  note_captured(stream);
  return kCudaSuccess;
}

// Of the current context, else the first: functions are the same to all that are alike.
int current_physical() {
  Context const* const context = current_context();
  return physical_index(context != nullptr ? context->device : 0);
}

}  // namespace

// ---- modules

MEMACCT_SIM_EXPORT Result cuModuleLoadData(Module** module, void const*) {
  DRIVER_ENTRY_CONTEXT();
  return load_module(context, module);
}
MEMACCT_SIM_EXPORT Result cuModuleLoadDataEx(Module** module, void const*, unsigned, int*, void**) {
  DRIVER_ENTRY_CONTEXT();
  return load_module(context, module);
}
MEMACCT_SIM_EXPORT Result cuModuleLoad(Module** module, char const*) {
  DRIVER_ENTRY_CONTEXT();
  return load_module(context, module);
}
MEMACCT_SIM_EXPORT Result cuModuleUnload(Module* module) {
  DRIVER_ENTRY();
  if (module == nullptr) return kCudaInvalidValue;
  uncharge_extra(module->context, module->charged_bytes, "module-end");
  delete module;
  return kCudaSuccess;
}
MEMACCT_SIM_EXPORT Result cuModuleGetFunction(void** function, Module*, char const* name) {
  DRIVER_ENTRY_CONTEXT();
  *function = new std::string(name);
  return kCudaSuccess;
}

// ---- kernels

MEMACCT_SIM_EXPORT Result cuFuncGetAttribute(int* value, int attribute, void*) {
  DRIVER_ENTRY();
  Capability const& capability = device_identity(current_physical()).capability;
  switch (attribute) {
    case kFunctionMaxThreads:
      *value = 1024;
      break;
    case kFunctionRegisters:
      *value = 32;
      break;
    case kFunctionPtxVersion:
    case kFunctionBinaryVersion:
      *value = capability.number();
      break;
    case kFunctionMaxDynamicShared:
      *value = capability.shared_bytes_per_block;
      break;
    default:
      *value = 0;
  }
  return kCudaSuccess;
}
MEMACCT_SIM_EXPORT Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int block,
                                                                      size_t) {
  DRIVER_ENTRY();
  Capability const& capability = device_identity(current_physical()).capability;
  *blocks = std::clamp(capability.threads_per_sm / std::max(1, block), 1, capability.blocks_per_sm);
  return kCudaSuccess;
}
MEMACCT_SIM_EXPORT Result cuOccupancyMaxActiveClusters(int* clusters, void*, LaunchConfig const*) {
  DRIVER_ENTRY();
  *clusters = 16;
  return kCudaSuccess;
}
MEMACCT_SIM_EXPORT Result cuLaunchKernel(void* kernel, unsigned, unsigned, unsigned, unsigned,
                                         unsigned, unsigned, unsigned, StreamHandle stream, void**,
                                         void**) {
  DRIVER_ENTRY_CONTEXT();
  return launch(context, kernel, stream);
}
MEMACCT_SIM_EXPORT Result cuLaunchKernelEx(LaunchConfig const* config, void* kernel, void**,
                                           void**) {
  DRIVER_ENTRY_CONTEXT();
  return launch(context, kernel, config != nullptr ? config->stream : nullptr);
}
MEMACCT_SIM_EXPORT Result cuLaunchCooperativeKernel(void* kernel, unsigned, unsigned, unsigned,
                                                    unsigned, unsigned, unsigned, unsigned,
                                                    StreamHandle stream, void**) {
  DRIVER_ENTRY_CONTEXT();
  return launch(context, kernel, stream);
}

// ---- streams and events

MEMACCT_SIM_EXPORT Result cuStreamCreateWithPriority(StreamHandle* stream, unsigned flags,
                                                     int priority) {
  DRIVER_ENTRY_CONTEXT();
  *stream = new_stream(flags, priority);
  return kCudaSuccess;
}
MEMACCT_SIM_EXPORT Result cuStreamCreate(StreamHandle* stream, unsigned flags) {
  DRIVER_ENTRY_CONTEXT();
  *stream = new_stream(flags, 0);
  return kCudaSuccess;
}
MEMACCT_SIM_EXPORT Result cuStreamDestroy_v2(StreamHandle stream) {
  DRIVER_ENTRY();
  delete_stream(stream);
  return kCudaSuccess;
}
MEMACCT_SIM_EXPORT Result cuStreamIsCapturing(StreamHandle stream, int* status) {
  DRIVER_ENTRY();
  *status = capturing(stream) != nullptr ? 1 : 0;
  return kCudaSuccess;
}
MEMACCT_SIM_EXPORT Result cuStreamGetCtx(StreamHandle stream, Context** context) {
  DRIVER_ENTRY();
  Stream const* const known = stream_of(stream);
  *context = known != nullptr ? primary_context(known->device) : current_context();
  return kCudaSuccess;
}
MEMACCT_SIM_EXPORT Result cuEventCreate(EventHandle* event, unsigned flags) {
  DRIVER_ENTRY_CONTEXT();
  *event = new_event(flags);
  return kCudaSuccess;
}
MEMACCT_SIM_EXPORT Result cuEventDestroy_v2(EventHandle event) {
  DRIVER_ENTRY();
  delete_event(event);
  return kCudaSuccess;
}
MEMACCT_SIM_EXPORT Result cuEventRecord(EventHandle event, StreamHandle stream) {
  DRIVER_ENTRY();
  record_event(event, stream);
  return kCudaSuccess;
}
MEMACCT_SIM_EXPORT Result cuEventElapsedTime(float* milliseconds, EventHandle a, EventHandle b) {
  DRIVER_ENTRY();
  *milliseconds = elapsed_ms(a, b);
  return kCudaSuccess;
}
MEMACCT_SIM_EXPORT Result cuEventElapsedTime_v2(float* milliseconds, EventHandle a, EventHandle b) {
  DRIVER_ENTRY();
  *milliseconds = elapsed_ms(a, b);
  return kCudaSuccess;
}
