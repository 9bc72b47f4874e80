// Streams, events and captured graphs. All work that is put on a stream has finished by the
// time that the call returns, so they hold little.
#pragma once
#include <cstddef>
#include <cstdint>

#include "context.hpp"

namespace memacct::sim {

struct Graph {
  unsigned long long id = 0;
  size_t nodes = 0;
};

struct GraphExec {
  Context* context = nullptr;
  uint64_t charged_bytes = 0;
};

struct Stream {
  uint32_t magic = 0;
  int device = 0;
  int priority = 0;
  unsigned flags = 0;
  Graph* capture = nullptr;  // null when not capturing
  bool origin = false;       // the capture began on this stream
};

struct Event {
  uint32_t magic = 0;
  unsigned flags = 0;
  uint64_t at_ns = 0;
  Graph* capture = nullptr;
};

// Handles are opaque to callers; null, 1 and 2 name the default streams.
[[nodiscard]] MEMACCT_SIM_API Stream* new_stream(unsigned flags, int priority);
MEMACCT_SIM_API void delete_stream(void* handle);
[[nodiscard]] MEMACCT_SIM_API Stream* stream_of(void* handle);  // null for a default stream

[[nodiscard]] MEMACCT_SIM_API Event* new_event(unsigned flags);
MEMACCT_SIM_API void delete_event(void* handle);
MEMACCT_SIM_API void record_event(void* event, void* stream);
[[nodiscard]] MEMACCT_SIM_API float elapsed_ms(void* from, void* to);

[[nodiscard]] MEMACCT_SIM_API bool begin_capture(void* stream);
[[nodiscard]] MEMACCT_SIM_API Graph* end_capture(void* stream);
[[nodiscard]] MEMACCT_SIM_API Graph* capturing(void* stream);
MEMACCT_SIM_API void join_capture(void* stream, void* event);
MEMACCT_SIM_API void note_captured(void* stream);
[[nodiscard]] MEMACCT_SIM_API Graph* new_graph();
[[nodiscard]] MEMACCT_SIM_API Status instantiate(Graph const* graph, Context* context,
                                                 GraphExec** out);
MEMACCT_SIM_API void delete_exec(GraphExec* exec);

}  // namespace memacct::sim
