// Contexts of this process (rules: the CUDA driver API's reference, "Primary Context
// Management" and "Context Management").
#include "context.hpp"

#include <pthread.h>

#include <algorithm>
#include <mutex>
#include <new>
#include <set>
#include <utility>
#include <vector>

#include "device.hpp"
#include "memory.hpp"

namespace memacct::sim {
namespace {

struct Process {
  std::mutex mutex;
  bool initialized = false;
  bool forked = false;  // a parent had initialised the driver: nothing works any more
  Context primary[kMaxDevices];
  bool runtime_holds[kMaxDevices] = {};
  std::vector<Context*> created;
  std::set<std::pair<Context const*, void const*>> loaded;  // kernels, where they cost anything

  Process() {
    for (int i = 0; i < kMaxDevices; ++i) primary[i] = {.device = i, .primary = true};
    ::pthread_atfork(nullptr, nullptr, [] { get().after_fork(); });
  }

  static Process& get() {
    static auto* const instance = new Process;
    return *instance;
  }

  void after_fork() {
    new (&mutex) std::mutex;  // another thread of the parent may have held it
    if (!initialized) return;
    initialized = false;
    forked = true;
    for (auto& context : primary) context = {.device = context.device, .primary = true};
    for (auto* const context : created) context->active = false;
    std::fill(std::begin(runtime_holds), std::end(runtime_holds), false);
    loaded.clear();
    forget_allocations();
  }
};

thread_local std::vector<Context*> t_stack;
thread_local int t_runtime_device = 0;

Status check_device(Process const& process, int device) {
  if (!process.initialized) return Status::NotInitialized;
  return physical_index(device) < 0 ? Status::InvalidDevice : Status::Ok;
}

// The mutex must be held.
Status activate(Context& context) {
  static uint64_t const overhead = option_bytes("MEMACCT_SIM_CONTEXT_BYTES", 400 * kMiB);
  Status const status = charge(physical_index(context.device), overhead, "context");
  if (status != Status::Ok) return status;
  context.overhead_bytes = overhead;
  context.active = true;
  return Status::Ok;
}

// Gives back all that the context holds. The mutex must be held.
void deactivate(Context& context) {
  if (!context.active) return;
  release_allocations_of(&context);
  uncharge(physical_index(context.device), context.overhead_bytes + context.extra_bytes,
           "context-end");
  context.overhead_bytes = context.extra_bytes = context.kernels_bytes = 0;
  context.references = 0;
  context.active = false;
  std::erase_if(Process::get().loaded, [&](auto const& each) { return each.first == &context; });
}

}  // namespace

Status driver_init() {
  auto& process = Process::get();
  std::lock_guard const guard{process.mutex};
  if (process.forked) return Status::NotInitialized;
  if (device_count() == 0) return Status::NoDevice;
  process.initialized = true;
  return Status::Ok;
}

bool driver_initialized() { return Process::get().initialized; }

Status primary_retain(int device, Context** out) {
  auto& process = Process::get();
  std::lock_guard const guard{process.mutex};
  if (Status const status = check_device(process, device); status != Status::Ok) return status;
  auto& context = process.primary[device];
  if (!context.active)
    if (Status const status = activate(context); status != Status::Ok) return status;
  ++context.references;
  *out = &context;
  return Status::Ok;
}

Status primary_release(int device) {
  auto& process = Process::get();
  std::lock_guard const guard{process.mutex};
  if (Status const status = check_device(process, device); status != Status::Ok) return status;
  auto& context = process.primary[device];
  if (!context.active) return Status::InvalidContext;
  if (--context.references > 0) return Status::Ok;
  process.runtime_holds[device] = false;
  deactivate(context);
  return Status::Ok;
}

Status primary_reset(int device) {
  auto& process = Process::get();
  std::lock_guard const guard{process.mutex};
  if (Status const status = check_device(process, device); status != Status::Ok) return status;
  process.runtime_holds[device] = false;
  deactivate(process.primary[device]);
  return Status::Ok;
}

Context* primary_context(int device) {
  return physical_index(device) < 0 ? nullptr : &Process::get().primary[device];
}

Status create_context(int device, unsigned flags, Context** out) {
  auto& process = Process::get();
  std::lock_guard const guard{process.mutex};
  if (Status const status = check_device(process, device); status != Status::Ok) return status;
  auto* const context = new Context{.device = device, .flags = flags};
  if (Status const status = activate(*context); status != Status::Ok) {
    delete context;
    return status;
  }
  process.created.push_back(context);
  t_stack.push_back(context);
  *out = context;
  return Status::Ok;
}

Status destroy_context(Context* context) {
  auto& process = Process::get();
  std::lock_guard const guard{process.mutex};
  if (!process.initialized) return Status::NotInitialized;
  if (std::find(process.created.begin(), process.created.end(), context) == process.created.end())
    return Status::InvalidContext;
  if (!context->active) return Status::ContextDestroyed;
  deactivate(*context);
  if (!t_stack.empty() && t_stack.back() == context) t_stack.pop_back();
  return Status::Ok;
}

bool is_context(Context const* context) {
  auto& process = Process::get();
  std::lock_guard const guard{process.mutex};
  if (context >= process.primary && context < process.primary + kMaxDevices) return true;
  return std::find(process.created.begin(), process.created.end(), context) !=
         process.created.end();
}

Context* current_context() {
  return driver_initialized() && !t_stack.empty() ? t_stack.back() : nullptr;
}

void set_current_context(Context* context) {
  if (!t_stack.empty()) t_stack.pop_back();
  if (context != nullptr) t_stack.push_back(context);
}

void push_context(Context* context) { t_stack.push_back(context); }

Context* pop_context() {
  if (t_stack.empty()) return nullptr;
  Context* const top = t_stack.back();
  t_stack.pop_back();
  return top;
}

Status usable_context(Context** out) {
  if (!driver_initialized()) return Status::NotInitialized;
  *out = current_context();
  if (*out == nullptr) return Status::InvalidContext;
  return (*out)->active ? Status::Ok : Status::ContextDestroyed;
}

Status charge_extra(Context* context, uint64_t bytes, char const* what) {
  if (bytes == 0) return Status::Ok;
  Status const status = charge(physical_index(context->device), bytes, what);
  if (status != Status::Ok) return status;
  std::lock_guard const guard{Process::get().mutex};
  context->extra_bytes += bytes;
  return Status::Ok;
}

void uncharge_extra(Context* context, uint64_t bytes, char const* what) {
  std::lock_guard const guard{Process::get().mutex};
  // What a destroyed context held has been given back already.
  uint64_t const left = std::min(bytes, context->extra_bytes);
  context->extra_bytes -= left;
  uncharge(physical_index(context->device), left, what);
}

Status kernel_needed(Context* context, void const* kernel) {
  static uint64_t const each = option_bytes("MEMACCT_SIM_KERNEL_BYTES", 0);
  static uint64_t const limit = option_bytes("MEMACCT_SIM_KERNELS_LIMIT_BYTES", UINT64_MAX);
  if (each == 0) return Status::Ok;
  auto& process = Process::get();
  std::lock_guard const guard{process.mutex};
  uint64_t const bytes = std::min(each, limit - std::min(limit, context->kernels_bytes));
  if (bytes == 0) return Status::Ok;
  auto const [place, is_new] = process.loaded.emplace(context, kernel);
  if (!is_new) return Status::Ok;
  Status const status = charge(physical_index(context->device), bytes, "kernel");
  if (status != Status::Ok) {
    process.loaded.erase(place);
    return status;
  }
  context->kernels_bytes += bytes;
  context->extra_bytes += bytes;
  return Status::Ok;
}

int runtime_device() {
  Context const* const context = current_context();
  return context != nullptr ? context->device : t_runtime_device;
}

Status runtime_context(Context** out) {
  *out = current_context();
  if (*out != nullptr && (*out)->active) return Status::Ok;
  if (Status const status = driver_init(); status != Status::Ok) return status;
  auto& process = Process::get();
  int const device = runtime_device();
  std::lock_guard const guard{process.mutex};
  if (Status const status = check_device(process, device); status != Status::Ok) return status;
  auto& context = process.primary[device];
  if (!process.runtime_holds[device]) {
    if (!context.active)
      if (Status const status = activate(context); status != Status::Ok) return status;
    ++context.references;
    process.runtime_holds[device] = true;
  }
  set_current_context(&context);
  *out = &context;
  return Status::Ok;
}

Status runtime_set_device(int device) {
  if (Status const status = driver_init(); status != Status::Ok) return status;
  if (physical_index(device) < 0) return Status::InvalidDevice;
  t_runtime_device = device;
  set_current_context(nullptr);
  Context* context = nullptr;
  return runtime_context(&context);  // made at once, as CUDA 12 and later do
}

}  // namespace memacct::sim
