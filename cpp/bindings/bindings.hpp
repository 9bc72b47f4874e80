// What the files of the binding layer offer each other: one registration function per
// bind_*.cpp, in the order in which module.cpp calls them.
#pragma once
#include <pybind11/pybind11.h>

namespace memacct::bindings {

namespace py = pybind11;

void bind_errors(py::module_& m);
void bind_host(py::module_& m);
void bind_device(py::module_& m);
void bind_snapshot(py::module_& m);

/// Sets the Python error for the C++ exception being handled and returns true; returns
/// false if it is none of ours. For functions that pybind11 does not wrap.
/// Call it only inside a catch block and with the GIL held.
bool set_python_error() noexcept;

}  // namespace memacct::bindings
