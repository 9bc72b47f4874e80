// The sampler in Python, and the tables of a trace as numpy structured arrays that own their rows.
#pragma once
#include <vector>

#include "bindings.hpp"
#include "memacct/trace_rows.hpp"

namespace memacct::bindings {

void bind_recording(py::module_& m);
void bind_sampler(py::module_& m);

[[nodiscard]] py::object rows_array(std::vector<HostRow> rows);
[[nodiscard]] py::object rows_array(std::vector<DeviceRow> rows);
[[nodiscard]] py::object rows_array(std::vector<ProcessRow> rows);

/// "host", "devices", "processes", each an array, and "notes", a list of tuples (taken_ns, kind,
/// number, value, text), "overwritten_count", "damaged_count".
[[nodiscard]] py::dict trace_dict(TraceRows rows);

}  // namespace memacct::bindings
