// The columns of a table of mappings, as numpy and plain data see them.
#pragma once
#include <pybind11/pybind11.h>

#include <cstddef>
#include <string_view>
#include <vector>

#include "memacct/mapping_table.hpp"

namespace memacct::bindings {

namespace py = pybind11;

/// A column: its name, numpy's name of its type, and where it lies in a row.
struct RowField {
  char const* name;
  char const* format;
  std::size_t offset;

  [[nodiscard]] py::object get(Mapping const& row) const;
  /// @throws py::cast_error for what does not fit.
  void set(Mapping& row, py::handle value) const;
};

/// Those that are always there, and those of `columns`.
[[nodiscard]] std::vector<RowField> row_fields(Columns columns);

/// The columns that a dict's keys name.
/// @throws py::value_error for a key that is no column, or one that is missing.
[[nodiscard]] Columns columns_of_names(py::dict const& columns);

/// A read-only structured array over the rows of `mappings` (Python's object of `table`), which it
/// keeps alive. Columns that the source did not tell are not in its dtype.
[[nodiscard]] py::object rows_to_numpy(py::object const& mappings, MappingTable const& table);

}  // namespace memacct::bindings
