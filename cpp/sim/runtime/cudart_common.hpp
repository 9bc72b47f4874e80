// What the parts of the simulated CUDA runtime share.
#pragma once
#include <cuda_runtime_api.h>

#include "../core/context.hpp"
#include "../core/device.hpp"
#include "../core/faults.hpp"
#include "../core/memory.hpp"
#include "../core/objects.hpp"

#define MEMACCT_SIM_EXPORT extern "C" __attribute__((visibility("default")))

namespace memacct::sim {

/// Remembers an error for cudaGetLastError, and returns it.
cudaError_t set_error(cudaError_t error);
cudaError_t to_error(Status status);

// What begins a function of the runtime that needs a context, which it makes if there is
// none: unlike the driver API, the runtime does so by itself. Faults first.
#define NEED_CONTEXT()                                                             \
  if (auto const fault_code = ::memacct::sim::fault_in_call(__func__); fault_code) \
    return set_error(static_cast<cudaError_t>(*fault_code));                       \
  [[maybe_unused]] ::memacct::sim::Context* context = nullptr;                     \
  if (auto const context_status = ::memacct::sim::runtime_context(&context);       \
      context_status != ::memacct::sim::Status::Ok)                                \
  return to_error(context_status)

// For those that need only an initialised driver.
#define NEED_DRIVER()                                                              \
  if (auto const fault_code = ::memacct::sim::fault_in_call(__func__); fault_code) \
    return set_error(static_cast<cudaError_t>(*fault_code));                       \
  if (auto const driver_status = ::memacct::sim::driver_init();                    \
      driver_status != ::memacct::sim::Status::Ok)                                 \
  return to_error(driver_status)

}  // namespace memacct::sim
