// Driver API: memory information, allocation, copies and fills.
#include <algorithm>

#include "../core/device.hpp"
#include "../core/memory.hpp"
#include "../core/objects.hpp"
#include "cuda_abi.hpp"
#include "driver_capture.hpp"

using namespace memacct::sim;

namespace {

Result allocate(Context* context, DevicePointer* address, size_t size, Kind kind) {
  void* p = nullptr;
  Status const status = device_alloc(context, size, kind, &p);
  *address = reinterpret_cast<DevicePointer>(p);
  return to_result(status);
}

// Work that is being captured into a graph is not carried out.
Result copy_on(StreamHandle stream, void* target, void const* source, size_t size) {
  if (capturing(stream) != nullptr)
    note_captured(stream);
  else
    copy(target, source, size);
  return kCudaSuccess;
}

template <class T>
Result fill_on(StreamHandle stream, DevicePointer target, T value, size_t count) {
  if (capturing(stream) != nullptr)
    note_captured(stream);
  else if (value == 0)
    fill(as_address(target), 0, count * sizeof(T));
  else
    std::fill_n(static_cast<T*>(as_address(target)), count, value);
  return kCudaSuccess;
}

}  // namespace

MEMACCT_SIM_EXPORT Result cuMemGetInfo_v2(size_t* free_bytes, size_t* total_bytes) {
  DRIVER_ENTRY_CONTEXT();
  add_count(Counter::CudaMemoryQueries);
  int const physical = physical_index(context->device);
  DeviceUsage const usage = device_usage(physical);
  *total_bytes = unit_config(physical).cuda_total_bytes;
  *free_bytes = std::min<size_t>(usage.free_bytes, *total_bytes);
  return kCudaSuccess;
}

// The form of 32 bits, from before CUDA 3.2.
MEMACCT_SIM_EXPORT Result cuMemGetInfo(unsigned*, unsigned*) {
  DRIVER_ENTRY_CONTEXT();
  return kCudaNotSupported;
}

MEMACCT_SIM_EXPORT Result cuMemAlloc_v2(DevicePointer* p, size_t size) {
  DRIVER_ENTRY_CONTEXT();
  if (harms_capture()) return kCudaCaptureUnsupported;
  return allocate(context, p, size, Kind::Device);
}

MEMACCT_SIM_EXPORT Result cuMemAllocAsync(DevicePointer* p, size_t size, StreamHandle) {
  DRIVER_ENTRY_CONTEXT();
  return allocate(context, p, size, Kind::Device);
}

MEMACCT_SIM_EXPORT Result cuMemAllocFromPoolAsync(DevicePointer* p, size_t size, void*,
                                                  StreamHandle) {
  DRIVER_ENTRY_CONTEXT();
  return allocate(context, p, size, Kind::Device);
}

MEMACCT_SIM_EXPORT Result cuMemAllocManaged(DevicePointer* p, size_t size, unsigned) {
  DRIVER_ENTRY_CONTEXT();
  return allocate(context, p, size, Kind::Managed);
}

MEMACCT_SIM_EXPORT Result cuMemFree_v2(DevicePointer p) {
  DRIVER_ENTRY_CONTEXT();
  if (harms_capture()) return kCudaCaptureUnsupported;
  return to_result(release(as_address(p)));
}

MEMACCT_SIM_EXPORT Result cuMemFreeAsync(DevicePointer p, StreamHandle) {
  DRIVER_ENTRY_CONTEXT();
  return to_result(release(as_address(p)));
}

MEMACCT_SIM_EXPORT Result cuMemHostAlloc(void** p, size_t size, unsigned) {
  DRIVER_ENTRY_CONTEXT();
  return to_result(host_alloc(size, p));
}

MEMACCT_SIM_EXPORT Result cuMemAllocHost_v2(void** p, size_t size) {
  DRIVER_ENTRY_CONTEXT();
  return to_result(host_alloc(size, p));
}

MEMACCT_SIM_EXPORT Result cuMemFreeHost(void* p) {
  DRIVER_ENTRY_CONTEXT();
  return to_result(release(p));
}

MEMACCT_SIM_EXPORT Result cuMemHostRegister_v2(void* p, size_t size, unsigned) {
  DRIVER_ENTRY_CONTEXT();
  return to_result(host_register(p, size));
}

MEMACCT_SIM_EXPORT Result cuMemHostUnregister(void* p) {
  DRIVER_ENTRY_CONTEXT();
  return to_result(release(p));
}

MEMACCT_SIM_EXPORT Result cuMemHostGetDevicePointer_v2(DevicePointer* device, void* p, unsigned) {
  DRIVER_ENTRY_CONTEXT();
  *device = reinterpret_cast<DevicePointer>(p);
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuMemGetAddressRange_v2(DevicePointer* base, size_t* size,
                                                  DevicePointer p) {
  DRIVER_ENTRY_CONTEXT();
  Allocation found;
  if (!lookup(as_address(p), &found)) return kCudaInvalidValue;
  if (base != nullptr) *base = found.base;
  if (size != nullptr) *size = found.size;
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuPointerGetAttribute(void* out, int attribute, DevicePointer p) {
  DRIVER_ENTRY();
  Allocation a;
  if (!lookup(as_address(p), &a)) return kCudaInvalidValue;
  bool const host = a.kind == Kind::Host || a.kind == Kind::HostRegistered;
  switch (attribute) {
    case kPointerContext:
      *static_cast<Context**>(out) = a.context ? a.context : primary_context(a.device);
      break;
    case kPointerMemoryType:
      *static_cast<unsigned*>(out) = host ? 1 : 2;
      break;
    case kPointerDeviceAddress:
    case kPointerHostAddress:
      *static_cast<DevicePointer*>(out) = p;
      break;
    case kPointerBufferId:
    case kPointerRangeStart:
      *static_cast<DevicePointer*>(out) = a.base;
      break;
    case kPointerIsManaged:
      *static_cast<unsigned*>(out) = a.kind == Kind::Managed;
      break;
    case kPointerDeviceOrdinal:
      *static_cast<int*>(out) = a.device;
      break;
    case kPointerRangeSize:
      *static_cast<size_t*>(out) = a.size;
      break;
    case kPointerMapped:
      *static_cast<unsigned*>(out) = 1;
      break;
    default:
      log("cuPointerGetAttribute: attribute %d", attribute);
      return kCudaInvalidValue;
  }
  return kCudaSuccess;
}

// ---- copies

MEMACCT_SIM_EXPORT Result cuMemcpy(DevicePointer to, DevicePointer from, size_t size) {
  DRIVER_ENTRY_CONTEXT();
  return copy_on(nullptr, as_address(to), as_address(from), size);
}
MEMACCT_SIM_EXPORT Result cuMemcpyAsync(DevicePointer to, DevicePointer from, size_t size,
                                        StreamHandle stream) {
  DRIVER_ENTRY_CONTEXT();
  return copy_on(stream, as_address(to), as_address(from), size);
}
MEMACCT_SIM_EXPORT Result cuMemcpyHtoD_v2(DevicePointer to, void const* from, size_t size) {
  DRIVER_ENTRY_CONTEXT();
  return copy_on(nullptr, as_address(to), from, size);
}
MEMACCT_SIM_EXPORT Result cuMemcpyHtoDAsync_v2(DevicePointer to, void const* from, size_t size,
                                               StreamHandle stream) {
  DRIVER_ENTRY_CONTEXT();
  return copy_on(stream, as_address(to), from, size);
}
MEMACCT_SIM_EXPORT Result cuMemcpyDtoH_v2(void* to, DevicePointer from, size_t size) {
  DRIVER_ENTRY_CONTEXT();
  return copy_on(nullptr, to, as_address(from), size);
}
MEMACCT_SIM_EXPORT Result cuMemcpyDtoHAsync_v2(void* to, DevicePointer from, size_t size,
                                               StreamHandle stream) {
  DRIVER_ENTRY_CONTEXT();
  return copy_on(stream, to, as_address(from), size);
}
MEMACCT_SIM_EXPORT Result cuMemcpyDtoD_v2(DevicePointer to, DevicePointer from, size_t size) {
  DRIVER_ENTRY_CONTEXT();
  return copy_on(nullptr, as_address(to), as_address(from), size);
}
MEMACCT_SIM_EXPORT Result cuMemcpyDtoDAsync_v2(DevicePointer to, DevicePointer from, size_t size,
                                               StreamHandle stream) {
  DRIVER_ENTRY_CONTEXT();
  return copy_on(stream, as_address(to), as_address(from), size);
}

// ---- fills

MEMACCT_SIM_EXPORT Result cuMemsetD8_v2(DevicePointer p, unsigned char value, size_t count) {
  DRIVER_ENTRY_CONTEXT();
  return fill_on(nullptr, p, value, count);
}
MEMACCT_SIM_EXPORT Result cuMemsetD8Async(DevicePointer p, unsigned char value, size_t count,
                                          StreamHandle stream) {
  DRIVER_ENTRY_CONTEXT();
  return fill_on(stream, p, value, count);
}
MEMACCT_SIM_EXPORT Result cuMemsetD32_v2(DevicePointer p, unsigned value, size_t count) {
  DRIVER_ENTRY_CONTEXT();
  return fill_on(nullptr, p, value, count);
}
MEMACCT_SIM_EXPORT Result cuMemsetD32Async(DevicePointer p, unsigned value, size_t count,
                                           StreamHandle stream) {
  DRIVER_ENTRY_CONTEXT();
  return fill_on(stream, p, value, count);
}
