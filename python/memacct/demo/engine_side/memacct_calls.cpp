// Preloaded into a program on the simulated GPU: the program stands still before chosen calls
// of the CUDA runtime, the driver or NVML, and tells its starter, who lets it go on.
//
// Every simulated function first asks memacct::sim::fault_in_call, which this library stands
// in front of: one place sees all calls of all three libraries, in their order.
#include <dlfcn.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <optional>
#include <vector>

namespace {

// What a call is counted as. The numbers are those of memacct_warm.KINDS.
enum Kind { kReading, kMemory, kLaunch, kGraph, kNvml, kKinds };

struct Prefix {
  char const* text;
  Kind kind;
};

constexpr Prefix kPrefixes[] = {
    {"cudaMemGetInfo", kReading},      {"cuMemGetInfo", kReading}, {"cudaMalloc", kMemory},
    {"cudaFree", kMemory},             {"cuMemAlloc", kMemory},    {"cuMemFree", kMemory},
    {"cuMemCreate", kMemory},          {"cuMemRelease", kMemory},  {"cudaLaunch", kLaunch},
    {"cuLaunch", kLaunch},             {"cudaGraph", kGraph},      {"cuGraph", kGraph},
    {"cudaStreamBeginCapture", kGraph}, {"cudaStreamEndCapture", kGraph}, {"nvmlDevice", kNvml},
};

struct Pause {
  uint32_t kind;
  uint32_t call;  // before this call of its kind, counted from 0 since `memacct_calls_watch`
};

std::atomic<bool> g_watching{false};
std::atomic<uint64_t> g_counts[kKinds];
std::vector<Pause>& g_pauses = *new std::vector<Pause>;
int g_socket = -1;

std::optional<Kind> kind_of(char const* function) {
  for (auto const& [text, kind] : kPrefixes)
    if (std::strncmp(function, text, std::strlen(text)) == 0) return kind;
  return std::nullopt;
}

void stand_still(size_t number) {
  // Threads take turns: an answer belongs to the pause that was told last.
  static std::mutex& turn = *new std::mutex;
  std::lock_guard const lock{turn};
  char text[32];
  int const size = std::snprintf(text, sizeof text, "pause %zu", number);
  if (::send(g_socket, text, static_cast<size_t>(size), MSG_NOSIGNAL) < 0) return;
  while (::recv(g_socket, text, sizeof text, 0) < 0 && errno == EINTR) {
  }
}

void note(char const* function) {
  auto const kind = kind_of(function);
  if (!kind) return;
  uint64_t const call = g_counts[*kind].fetch_add(1);
  for (size_t i = 0; i < g_pauses.size(); ++i)
    if (g_pauses[i].kind == *kind && g_pauses[i].call == call) stand_still(i);
}

}  // namespace

namespace memacct::sim {

__attribute__((visibility("default"))) std::optional<int> fault_in_call(char const* function) {
  using Function = std::optional<int> (*)(char const*);
  static auto const next =
      reinterpret_cast<Function>(::dlsym(RTLD_NEXT, "_ZN7memacct3sim13fault_in_callEPKc"));
  if (g_watching.load(std::memory_order_relaxed)) note(function);
  return next == nullptr ? std::nullopt : next(function);
}

}  // namespace memacct::sim

extern "C" {

// To be called once, by the process that is watched, before it uses the GPU.
__attribute__((visibility("default"))) void memacct_calls_watch(int socket, Pause const* pauses,
                                                               size_t count) {
  g_socket = socket;
  g_pauses.assign(pauses, pauses + count);
  g_watching = true;
}

__attribute__((visibility("default"))) void memacct_calls_counts(uint64_t* out) {
  for (int kind = 0; kind < kKinds; ++kind) out[kind] = g_counts[kind];
}
}
