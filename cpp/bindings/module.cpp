// The extension module memacct._core: one registration function per bind_*.cpp.
#include "bindings.hpp"
#include "memacct/clock.hpp"
#include "trace_arrays.hpp"

namespace bindings = memacct::bindings;

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  m.doc() = "memacct's native core: readings of the kernel's and the driver's memory accounts.";
  m.attr("__version__") = MEMACCT_VERSION;
  m.def("monotonic_ns", &memacct::monotonic_ns);
  bindings::bind_errors(m);
  bindings::bind_host(m);
  bindings::bind_limits(m);
  bindings::bind_mappings(m);
  bindings::bind_recording(m);
  bindings::bind_residency(m);
  bindings::bind_device(m);
  bindings::bind_device_rules(m);
  bindings::bind_allocator(m);
  bindings::bind_snapshot(m);
  bindings::bind_sampler(m);
  bindings::bind_timeline(m);
  bindings::bind_tree(m);
}
