// This process's side of the driver: whether it is initialised, its contexts, and each
// thread's stack of current contexts. The driver API makes no context by itself; only
// retaining a primary one, cuCtxCreate and the runtime do.
#pragma once
#include <cstdint>

#include "account.hpp"

namespace memacct::sim {

/// Its address is the CUcontext handle. Never freed, so that a stale handle can be told.
struct Context {
  int device = 0;
  bool primary = false;
  bool active = false;
  int references = 0;  // of a primary context
  unsigned flags = 0;
  uint64_t overhead_bytes = 0;  // what the context itself takes
  uint64_t extra_bytes = 0;     // modules, graphs, library handles
  uint64_t small_bytes = 0;     // requests below half a page, which share pages
  uint64_t kernels_bytes = 0;   // of extra_bytes: kernels that were loaded at their first launch
};

[[nodiscard]] MEMACCT_SIM_API Status driver_init();  // cuInit
[[nodiscard]] MEMACCT_SIM_API bool driver_initialized();

[[nodiscard]] MEMACCT_SIM_API Status primary_retain(int device, Context** out);
[[nodiscard]] MEMACCT_SIM_API Status primary_release(int device);
[[nodiscard]] MEMACCT_SIM_API Status primary_reset(int device);
[[nodiscard]] MEMACCT_SIM_API Context* primary_context(int device);  // active or not
[[nodiscard]] MEMACCT_SIM_API Status create_context(int device, unsigned flags, Context** out);
[[nodiscard]] MEMACCT_SIM_API Status destroy_context(Context* context);
[[nodiscard]] MEMACCT_SIM_API bool is_context(Context const* context);

[[nodiscard]] MEMACCT_SIM_API Context* current_context();
MEMACCT_SIM_API void set_current_context(Context* context);  // replaces the top
MEMACCT_SIM_API void push_context(Context* context);
[[nodiscard]] MEMACCT_SIM_API Context* pop_context();  // null if there was none
/// Ok and the current context, or what a driver call without a usable one returns.
[[nodiscard]] MEMACCT_SIM_API Status usable_context(Context** out);

/// Device memory that belongs to a context but is no allocation of the caller's.
[[nodiscard]] MEMACCT_SIM_API Status charge_extra(Context* context, uint64_t bytes,
                                                  char const* what);
MEMACCT_SIM_API void uncharge_extra(Context* context, uint64_t bytes, char const* what);

/// A kernel is about to be launched in the context, which grows by it the first time, as CUDA does
/// since it loads kernels lazily. OutOfMemory if there is no room for it.
[[nodiscard]] MEMACCT_SIM_API Status kernel_needed(Context* context, void const* kernel);

// The runtime's view: a device per thread, whose primary context it retains on first need.
[[nodiscard]] MEMACCT_SIM_API int runtime_device();
[[nodiscard]] MEMACCT_SIM_API Status runtime_set_device(int device);
[[nodiscard]] MEMACCT_SIM_API Status runtime_context(Context** out);

}  // namespace memacct::sim
