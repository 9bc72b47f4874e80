// A tenant: a process that holds device memory and changes it on command or on a condition.
#pragma once

namespace memacct::sim {

/// Reads commands from standard input until its end, and answers each on standard output
/// with one line of JSON, after the account has changed. Fields are separated by tabs:
///   allocate BYTES          free BYTES | free all          quit
///   when ID KEY=VALUE ...   acts once all conditions hold, and reports {"event": ID, ...}
///     conditions: pid=P (else any other process) bytes=N launches=N cuda_memory_queries=N
///                 nvml_memory_queries=N nvml_process_queries=N graph_captures=N
///                 graph_instantiations=N file=PATH      (at least N, by one process)
///     action:     then=allocate amount=BYTES | then=free amount=BYTES | then=free
int run_tenant(int device);

}  // namespace memacct::sim
