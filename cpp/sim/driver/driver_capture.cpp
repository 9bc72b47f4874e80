// Driver API: stream captures, as strict as CUDA's: a call that could harm a capture fails and
// ends it, unless the calling thread has put itself into relaxed mode.
#include "driver_capture.hpp"

#include <map>
#include <mutex>
#include <thread>

#include "../core/objects.hpp"

using namespace memacct::sim;

namespace {

enum Mode : int { kGlobal = 0, kThreadLocal = 1, kRelaxed = 2 };

struct Capture {
  int mode;
  std::thread::id thread;
  bool harmed = false;
};

std::mutex g_mutex;
std::map<StreamHandle, Capture>& captures() {
  static auto* const all = new std::map<StreamHandle, Capture>;
  return *all;
}
thread_local int g_mode = kGlobal;

bool concerns_this_thread(Capture const& capture) {
  if (g_mode == kRelaxed || capture.mode == kRelaxed) return false;
  if (capture.thread == std::this_thread::get_id()) return true;
  return capture.mode == kGlobal && g_mode == kGlobal;
}

}  // namespace

namespace memacct::sim {

bool harms_capture() {
  std::lock_guard const guard{g_mutex};
  bool harmed = false;
  for (auto& [stream, capture] : captures())
    if (concerns_this_thread(capture)) harmed = capture.harmed = true;
  return harmed;
}

}  // namespace memacct::sim

MEMACCT_SIM_EXPORT Result cuStreamBeginCapture_v2(StreamHandle stream, int mode) {
  DRIVER_ENTRY_CONTEXT();
  if (!begin_capture(stream)) return kCudaInvalidValue;
  std::lock_guard const guard{g_mutex};
  captures()[stream] = {mode, std::this_thread::get_id()};
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuStreamEndCapture(StreamHandle stream, void** graph) {
  DRIVER_ENTRY_CONTEXT();
  Graph* const made = end_capture(stream);
  std::lock_guard const guard{g_mutex};
  auto const it = captures().find(stream);
  bool const harmed = it != captures().end() && it->second.harmed;
  if (it != captures().end()) captures().erase(it);
  if (made == nullptr) return kCudaInvalidValue;
  *graph = harmed ? nullptr : made;
  return harmed ? kCudaCaptureInvalidated : kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuThreadExchangeStreamCaptureMode(int* mode) {
  DRIVER_ENTRY();
  std::swap(*mode, g_mode);
  return kCudaSuccess;
}
