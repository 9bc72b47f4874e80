// The extension module memacct._core: one registration function per bind_*.cpp.
#include <pybind11/pybind11.h>

#include "memacct/clock.hpp"

namespace py = pybind11;

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "memacct's native core: readings of the kernel's and the driver's memory accounts.";
  m.def("monotonic_ns", &memacct::monotonic_ns);
}
