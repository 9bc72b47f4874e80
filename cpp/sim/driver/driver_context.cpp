// Driver API: devices and contexts.
#include <cstdio>

#include "../core/device.hpp"
#include "../core/identity.hpp"
#include "cuda_abi.hpp"

using namespace memacct::sim;

// ---- devices

MEMACCT_SIM_EXPORT Result cuDeviceGetCount(int* count) {
  DRIVER_ENTRY();
  if (count == nullptr) return kCudaInvalidValue;
  *count = device_count();
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuDeviceGet(int* device, int ordinal) {
  DRIVER_ENTRY();
  if (physical_index(ordinal) < 0) return kCudaInvalidDevice;
  *device = ordinal;
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuDeviceGetName(char* name, int size, int device) {
  DRIVER_ENTRY();
  if (physical_index(device) < 0) return kCudaInvalidDevice;
  std::snprintf(name, static_cast<size_t>(size), "%s", device_name(physical_index(device)).c_str());
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuDeviceGetUuid_v2(uint8_t* uuid, int device) {
  DRIVER_ENTRY();
  if (physical_index(device) < 0) return kCudaInvalidDevice;
  device_uuid(physical_index(device), uuid);
  return kCudaSuccess;
}

// From before MIG: of an instance the device's.
MEMACCT_SIM_EXPORT Result cuDeviceGetUuid(uint8_t* uuid, int device) {
  DRIVER_ENTRY();
  if (physical_index(device) < 0) return kCudaInvalidDevice;
  device_uuid(whole_device(physical_index(device)), uuid);
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuDeviceGetPCIBusId(char* id, int size, int device) {
  DRIVER_ENTRY();
  if (physical_index(device) < 0) return kCudaInvalidDevice;
  std::snprintf(id, static_cast<size_t>(size), "0000:%02X:00.0",
                static_cast<unsigned>(device_pci_bus(physical_index(device))));
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuDeviceTotalMem_v2(size_t* bytes, int device) {
  DRIVER_ENTRY();
  if (physical_index(device) < 0) return kCudaInvalidDevice;
  *bytes = unit_config(physical_index(device)).cuda_total_bytes;
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuDeviceGetAttribute(int* value, int attribute, int device) {
  DRIVER_ENTRY();
  if (value == nullptr) return kCudaInvalidValue;
  if (physical_index(device) < 0) return kCudaInvalidDevice;
  *value = device_attribute(attribute, physical_index(device));
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuDeviceCanAccessPeer(int* can, int device, int peer) {
  DRIVER_ENTRY();
  if (can == nullptr) return kCudaInvalidValue;
  if (physical_index(device) < 0 || physical_index(peer) < 0) return kCudaInvalidDevice;
  *can = device != peer && device_peers() != Peers::None ? 1 : 0;
  return kCudaSuccess;
}

// ---- primary contexts

MEMACCT_SIM_EXPORT Result cuDevicePrimaryCtxGetState(int device, unsigned* flags, int* active) {
  DRIVER_ENTRY();
  Context const* const primary = primary_context(device);
  if (primary == nullptr) return kCudaInvalidDevice;
  if (flags != nullptr) *flags = primary->flags;
  if (active != nullptr) *active = primary->active ? 1 : 0;
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuDevicePrimaryCtxRetain(Context** context, int device) {
  DRIVER_ENTRY();
  if (context == nullptr) return kCudaInvalidValue;
  return to_result(primary_retain(device, context));
}

MEMACCT_SIM_EXPORT Result cuDevicePrimaryCtxRelease_v2(int device) {
  DRIVER_ENTRY();
  return to_result(primary_release(device));
}

MEMACCT_SIM_EXPORT Result cuDevicePrimaryCtxRelease(int device) {
  DRIVER_ENTRY();
  return to_result(primary_release(device));
}

MEMACCT_SIM_EXPORT Result cuDevicePrimaryCtxReset_v2(int device) {
  DRIVER_ENTRY();
  return to_result(primary_reset(device));
}

// ---- contexts of the program's own

MEMACCT_SIM_EXPORT Result cuCtxCreate_v2(Context** context, unsigned flags, int device) {
  DRIVER_ENTRY();
  return to_result(create_context(device, flags, context));
}

MEMACCT_SIM_EXPORT Result cuCtxCreate_v3(Context** context, void*, int, unsigned flags,
                                         int device) {
  DRIVER_ENTRY();
  return to_result(create_context(device, flags, context));
}

MEMACCT_SIM_EXPORT Result cuCtxCreate_v4(Context** context, void*, unsigned flags, int device) {
  DRIVER_ENTRY();
  return to_result(create_context(device, flags, context));
}

MEMACCT_SIM_EXPORT Result cuCtxDestroy_v2(Context* context) {
  DRIVER_ENTRY();
  return to_result(destroy_context(context));
}

// ---- the calling thread's current context

MEMACCT_SIM_EXPORT Result cuCtxGetCurrent(Context** context) {
  DRIVER_ENTRY();
  if (context == nullptr) return kCudaInvalidValue;
  *context = current_context();
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuCtxSetCurrent(Context* context) {
  DRIVER_ENTRY();
  if (context != nullptr && !is_context(context)) return kCudaInvalidContext;
  set_current_context(context);
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuCtxPushCurrent_v2(Context* context) {
  DRIVER_ENTRY();
  if (!is_context(context)) return kCudaInvalidContext;
  push_context(context);
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuCtxPopCurrent_v2(Context** context) {
  DRIVER_ENTRY();
  Context* const popped = pop_context();
  if (popped == nullptr) return kCudaInvalidContext;
  if (context != nullptr) *context = popped;
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuCtxGetDevice(int* device) {
  DRIVER_ENTRY_CONTEXT();
  *device = context->device;
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuCtxGetDevice_v2(int* device, Context* of) {
  DRIVER_ENTRY();
  Context const* const wanted = of != nullptr ? of : current_context();
  if (wanted == nullptr || !is_context(wanted)) return kCudaInvalidContext;
  *device = wanted->device;
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuCtxSynchronize() {
  DRIVER_ENTRY_CONTEXT();
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuCtxGetLimit(size_t* value, int limit) {
  DRIVER_ENTRY_CONTEXT();
  constexpr int kStackSize = 0;
  *value = limit == kStackSize ? 1024 : 8 * kMiB;
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  DRIVER_ENTRY_CONTEXT();
  if (least != nullptr) *least = 0;
  if (greatest != nullptr) *greatest = -5;
  return kCudaSuccess;
}
