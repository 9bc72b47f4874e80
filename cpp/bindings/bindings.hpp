// What the files of the binding layer offer each other: one registration function per
// bind_*.cpp, in the order in which module.cpp calls them.
#pragma once
#include <pybind11/pybind11.h>

#include <string_view>

#include "memacct/device.hpp"

namespace memacct::bindings {

namespace py = pybind11;

void bind_errors(py::module_& m);
void bind_host(py::module_& m);
void bind_limits(py::module_& m);
void bind_mappings(py::module_& m);
void bind_residency(py::module_& m);
void bind_device(py::module_& m);
void bind_device_rules(py::module_& m);
void bind_allocator(py::module_& m);
void bind_snapshot(py::module_& m);
void bind_timeline(py::module_& m);
void bind_tree(py::module_& m);

/// 'auto', 'all' or a sequence of devices, as Python names them.
/// @throws py::type_error or py::value_error that says what is allowed.
DeviceSelection parse_selection(py::handle which);

/// Only Python bytes: a str would have to be encoded, and the texts are bytes.
template <auto Parse, typename... Args>
auto parsed(py::bytes const& text, Args const&... args) {
  return Parse(static_cast<std::string_view>(text), args...);
}

/// Sets the Python error for the C++ exception being handled, as pybind11 would. For
/// functions that it does not wrap. Only inside a catch block, with the GIL held.
void set_python_error() noexcept;

}  // namespace memacct::bindings
