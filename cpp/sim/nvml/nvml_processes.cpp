// NVML: the processes that hold memory of a device, in the lists that MEMACCT_SIM_LISTS puts
// them in.
#include <cstring>
#include <vector>

#include "../core/device.hpp"
#include "nvml_abi.hpp"

using namespace memacct::sim;
using namespace memacct::sim::nvml;

namespace {

enum Mode : unsigned { kCompute = 0, kGraphics = 1, kMps = 2, kAll = 3 };
constexpr unsigned kDetailRecordBytes = 32;

struct Record {  // the largest form; shorter ones are its beginning
  unsigned pid;
  unsigned padding;
  unsigned long long bytes;
  unsigned gpu_instance, compute_instance;
  unsigned long long protected_bytes;
};
static_assert(sizeof(Record) == 32);

std::vector<Record> records_of(int index, List list) {
  std::vector<Record> records;
  for (ProcessUsage const& usage : processes(index)) {
    if ((usage.lists & list) == 0) continue;
    auto const pid = listed_pid(usage);
    // -1, all ones: not divided.
    UnitConfig const& unit = unit_config(usage.unit);
    if (pid)
      records.push_back({*pid, 0, listed_bytes(usage, list),
                         static_cast<unsigned>(unit.gpu_instance),
                         static_cast<unsigned>(unit.compute_instance), 0});
  }
  return records;
}

std::vector<Record> records_of(int index, Mode mode) {
  if (mode == kCompute) return records_of(index, kComputeList);
  if (mode == kGraphics) return records_of(index, kGraphicsList);
  if (mode == kMps) return records_of(index, kMpsList);
  std::vector<Record> all;
  for (Mode const one : {kCompute, kGraphics, kMps})
    for (Record const& record : records_of(index, one)) all.push_back(record);
  return all;
}

// Who is on a divided device is told to those who may monitor it; an instance's list is open.
bool may_list(int index) {
  return !unit_config(index).divided || option_bytes("MEMACCT_SIM_MIG_MONITOR", 0) != 0;
}

// The growth protocol: too little room is told together with the number that is needed.
Result write_records(std::vector<Record> const& records, unsigned* count, void* out,
                     unsigned stride) {
  if (count == nullptr) return kInvalidArgument;
  unsigned const room = *count;
  *count = static_cast<unsigned>(records.size());
  if (records.empty()) return kSuccess;
  if (out == nullptr || records.size() > room) return kInsufficientSize;
  auto* at = static_cast<char*>(out);
  for (Record const& record : records) {
    std::memcpy(at, &record, stride);
    at += stride;
  }
  return kSuccess;
}

Result list(int index, Mode mode, int version, unsigned* count, void* out) {
  add_count(Counter::NvmlProcessQueries);
  if (!may_list(index)) return kNoPermission;
  return write_records(records_of(index, mode), count, out, record_bytes(version));
}

}  // namespace

MEMACCT_SIM_EXPORT Result nvmlDeviceGetComputeRunningProcesses(Device device, unsigned* count,
                                                               void* out) {
  NVML_ENTRY_DEVICE(device);
  return list(index, kCompute, 1, count, out);
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetComputeRunningProcesses_v2(Device device, unsigned* count,
                                                                  void* out) {
  NVML_ENTRY_DEVICE(device);
  return list(index, kCompute, 2, count, out);
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned* count,
                                                                  void* out) {
  NVML_ENTRY_DEVICE(device);
  return list(index, kCompute, 3, count, out);
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetGraphicsRunningProcesses(Device device, unsigned* count,
                                                                void* out) {
  NVML_ENTRY_DEVICE(device);
  return list(index, kGraphics, 1, count, out);
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetGraphicsRunningProcesses_v2(Device device, unsigned* count,
                                                                   void* out) {
  NVML_ENTRY_DEVICE(device);
  return list(index, kGraphics, 2, count, out);
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetGraphicsRunningProcesses_v3(Device device, unsigned* count,
                                                                   void* out) {
  NVML_ENTRY_DEVICE(device);
  return list(index, kGraphics, 3, count, out);
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetMPSComputeRunningProcesses(Device device, unsigned* count,
                                                                  void* out) {
  NVML_ENTRY_DEVICE(device);
  return list(index, kMps, 1, count, out);
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetMPSComputeRunningProcesses_v2(Device device, unsigned* count,
                                                                     void* out) {
  NVML_ENTRY_DEVICE(device);
  return list(index, kMps, 2, count, out);
}
MEMACCT_SIM_EXPORT Result nvmlDeviceGetMPSComputeRunningProcesses_v3(Device device, unsigned* count,
                                                                     void* out) {
  NVML_ENTRY_DEVICE(device);
  return list(index, kMps, 3, count, out);
}

MEMACCT_SIM_EXPORT Result nvmlDeviceGetRunningProcessDetailList(Device device,
                                                                ProcessDetailList* details) {
  NVML_ENTRY_DEVICE(device);
  if (details == nullptr || details->mode > kAll) return kInvalidArgument;
  if (details->version != kDetailListTag) return kArgumentVersionMismatch;
  add_count(Counter::NvmlProcessQueries);
  if (!may_list(index)) return kNoPermission;
  auto const records = records_of(index, static_cast<Mode>(details->mode));
  return write_records(records, &details->count, details->records, kDetailRecordBytes);
}
