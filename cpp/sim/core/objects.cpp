// Streams, events and captured graphs: just the state that callers look at.
#include "objects.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <vector>

namespace memacct::sim {
namespace {

constexpr uint32_t kStreamMagic = 0x53545245;
constexpr uint32_t kEventMagic = 0x45564e54;
constexpr uintptr_t kLastDefaultStream = 2;

std::mutex g_mutex;               // guards captures
std::vector<Stream*>& joined() {  // streams brought into a capture by an event
  static auto* const list = new std::vector<Stream*>;
  return *list;
}

Event* event_of(void* handle) {
  auto* const event = static_cast<Event*>(handle);
  return event != nullptr && event->magic == kEventMagic ? event : nullptr;
}

}  // namespace

Stream* new_stream(unsigned flags, int priority) {
  return new Stream{
      .magic = kStreamMagic, .device = runtime_device(), .priority = priority, .flags = flags};
}

Stream* stream_of(void* handle) {
  if (reinterpret_cast<uintptr_t>(handle) <= kLastDefaultStream) return nullptr;
  auto* const stream = static_cast<Stream*>(handle);
  return stream->magic == kStreamMagic ? stream : nullptr;
}

void delete_stream(void* handle) {
  Stream* const stream = stream_of(handle);
  if (stream == nullptr) return;
  stream->magic = 0;
  delete stream;
}

Event* new_event(unsigned flags) { return new Event{.magic = kEventMagic, .flags = flags}; }

void delete_event(void* handle) {
  Event* const event = event_of(handle);
  if (event == nullptr) return;
  event->magic = 0;
  delete event;
}

void record_event(void* handle, void* stream) {
  Event* const event = event_of(handle);
  if (event == nullptr) return;
  event->at_ns = monotonic_ns();
  event->capture = capturing(stream);
}

float elapsed_ms(void* from, void* to) {
  constexpr float kLeast = 0.001F;
  Event const* const a = event_of(from);
  Event const* const b = event_of(to);
  if (a == nullptr || b == nullptr || b->at_ns <= a->at_ns) return kLeast;
  return static_cast<float>(b->at_ns - a->at_ns) / 1e6F;
}

Graph* new_graph() {
  static std::atomic<unsigned long long> next{1};
  return new Graph{.id = next++};
}

bool begin_capture(void* handle) {
  Stream* const stream = stream_of(handle);
  if (stream == nullptr || stream->capture != nullptr) return false;
  add_count(Counter::GraphCaptures);
  std::lock_guard const guard{g_mutex};
  stream->capture = new_graph();
  stream->origin = true;
  return true;
}

Graph* end_capture(void* handle) {
  Stream* const stream = stream_of(handle);
  if (stream == nullptr || stream->capture == nullptr || !stream->origin) return nullptr;
  std::lock_guard const guard{g_mutex};
  Graph* const graph = stream->capture;
  stream->capture = nullptr;
  stream->origin = false;
  std::erase_if(joined(), [graph](Stream* other) {
    if (other->capture != graph) return false;
    other->capture = nullptr;
    return true;
  });
  return graph;
}

Graph* capturing(void* handle) {
  Stream const* const stream = stream_of(handle);
  return stream != nullptr ? stream->capture : nullptr;
}

// A wait on an event that was recorded in a capture brings the waiting stream into it.
void join_capture(void* handle, void* event_handle) {
  Stream* const stream = stream_of(handle);
  Event const* const event = event_of(event_handle);
  if (stream == nullptr || event == nullptr || !event->capture || stream->capture) return;
  std::lock_guard const guard{g_mutex};
  stream->capture = event->capture;
  joined().push_back(stream);
}

void note_captured(void* stream) {
  if (Graph* const graph = capturing(stream)) ++graph->nodes;
}

Status instantiate(Graph const* graph, Context* context, GraphExec** out) {
  static uint64_t const fixed = option_bytes("MEMACCT_SIM_GRAPH_BYTES", 0);
  static uint64_t const per_node = option_bytes("MEMACCT_SIM_GRAPH_NODE_BYTES", 0);
  uint64_t const bytes = fixed + per_node * (graph != nullptr ? graph->nodes : 0);
  add_count(Counter::GraphInstantiations);
  Status const status = charge_extra(context, bytes, "graph");
  if (status == Status::Ok) *out = new GraphExec{context, bytes};
  return status;
}

void delete_exec(GraphExec* exec) {
  if (exec == nullptr) return;
  uncharge_extra(exec->context, exec->charged_bytes, "graph-end");
  delete exec;
}

}  // namespace memacct::sim
