// NVML: initialisation, which is counted and does not survive a fork, and the system.
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>

#include "../core/device.hpp"
#include "nvml_abi.hpp"

using namespace memacct::sim;
using namespace memacct::sim::nvml;

namespace {

std::atomic<int> g_count{0};
std::atomic<int> g_owner{0};  // the process that the count belongs to

Result add_reference() {
  int const pid = ::getpid();
  if (g_owner.exchange(pid) != pid) g_count = 0;
  ++g_count;
  return kSuccess;
}

struct ErrorText {
  Result code;
  char const* text;
};
constexpr ErrorText kErrors[] = {
    {0, "Success"},
    {1, "Uninitialized"},
    {2, "Invalid Argument"},
    {3, "Not Supported"},
    {4, "Insufficient Permissions"},
    {6, "Not Found"},
    {7, "Insufficient Size"},
    {9, "Driver Not Loaded"},
    {10, "Timeout"},
    {12, "Shared Library Not Found"},
    {13, "Function Not Found"},
    {15, "GPU is lost"},
    {16, "GPU requires reset"},
    {17, "The operating system has blocked the request"},
    {18, "Driver/library version mismatch"},
    {20, "Insufficient Memory"},
    {21, "No data"},
    {25, "The provided version is invalid/unsupported"},
};

}  // namespace

namespace memacct::sim::nvml {

bool initialized() { return g_owner == ::getpid() && g_count > 0; }

int index_of(Device device) {
  auto const index = reinterpret_cast<intptr_t>(device) - 1;
  return index >= 0 && index < unit_count() ? static_cast<int>(index) : -1;
}

Device handle_of(int index) { return reinterpret_cast<Device>(static_cast<intptr_t>(index) + 1); }

Result put_text(char* out, unsigned size, char const* text) {
  if (out == nullptr) return kInvalidArgument;
  if (std::strlen(text) + 1 > size) return kInsufficientSize;
  std::strcpy(out, text);
  return kSuccess;
}

}  // namespace memacct::sim::nvml

MEMACCT_SIM_EXPORT Result nvmlInit() {
  NVML_ENTRY_UNINITIALIZED();
  return add_reference();
}
MEMACCT_SIM_EXPORT Result nvmlInit_v2() {
  NVML_ENTRY_UNINITIALIZED();
  return add_reference();
}
MEMACCT_SIM_EXPORT Result nvmlInitWithFlags(unsigned) {
  NVML_ENTRY_UNINITIALIZED();
  return add_reference();
}
MEMACCT_SIM_EXPORT Result nvmlShutdown() {
  NVML_ENTRY();
  --g_count;
  return kSuccess;
}

MEMACCT_SIM_EXPORT char const* nvmlErrorString(Result code) {
  for (auto const& error : kErrors)
    if (error.code == code) return error.text;
  return "Unknown Error";
}

MEMACCT_SIM_EXPORT Result nvmlSystemGetDriverVersion(char* out, unsigned size) {
  NVML_ENTRY();
  return put_text(out, size, "580.65.06");
}
MEMACCT_SIM_EXPORT Result nvmlSystemGetNVMLVersion(char* out, unsigned size) {
  NVML_ENTRY();
  return put_text(out, size, "13.580.65.06");
}
MEMACCT_SIM_EXPORT Result nvmlSystemGetCudaDriverVersion(int* version) {
  NVML_ENTRY();
  *version = driver_version();
  return kSuccess;
}
MEMACCT_SIM_EXPORT Result nvmlSystemGetCudaDriverVersion_v2(int* version) {
  NVML_ENTRY();
  *version = driver_version();
  return kSuccess;
}

// Looks the pid up in /proc, as the real one does: a host's pid is not found there.
MEMACCT_SIM_EXPORT Result nvmlSystemGetProcessName(unsigned pid, char* out, unsigned size) {
  NVML_ENTRY();
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%u/comm", pid);
  FILE* const file = std::fopen(path, "re");
  if (file == nullptr) return kNotFound;
  char line[256] = "";
  bool const read = std::fgets(line, sizeof line, file) != nullptr;
  std::fclose(file);
  if (!read) return kNotFound;
  line[std::strcspn(line, "\n")] = '\0';
  return put_text(out, size, line);
}

// What a generated stub returns.
MEMACCT_SIM_EXPORT Result memacct_sim_nvml_stub(char const* name, int* seen) {
  if (*seen == 0) log("stub %s", name);
  *seen = 1;
  if (auto const code = fault_in_call(name)) return *code;
  return initialized() ? kNotSupported : kUninitialized;
}
