#include "trace_arrays.hpp"

#include <pybind11/numpy.h>

#include <array>
#include <cstddef>
#include <memory>

namespace memacct::bindings {
namespace {

struct Column {
  char const* name;
  char const* format;
  std::size_t offset;
};

#define MEMACCT_COLUMN(row, column, format) \
  Column { #column, format, offsetof(row, column) }

constexpr std::array kHost{
    MEMACCT_COLUMN(HostRow, taken_ns, "<u8"),       MEMACCT_COLUMN(HostRow, span_ns, "<u8"),
    MEMACCT_COLUMN(HostRow, vms_bytes, "<u8"),      MEMACCT_COLUMN(HostRow, rss_bytes, "<u8"),
    MEMACCT_COLUMN(HostRow, shared_bytes, "<u8"),   MEMACCT_COLUMN(HostRow, rss_anon_bytes, "<u8"),
    MEMACCT_COLUMN(HostRow, rss_file_bytes, "<u8"), MEMACCT_COLUMN(HostRow, rss_shmem_bytes, "<u8"),
    MEMACCT_COLUMN(HostRow, swap_bytes, "<u8"),     MEMACCT_COLUMN(HostRow, hugetlb_bytes, "<u8"),
    MEMACCT_COLUMN(HostRow, locked_bytes, "<u8"),   MEMACCT_COLUMN(HostRow, pinned_bytes, "<u8"),
    MEMACCT_COLUMN(HostRow, peak_rss_bytes, "<u8"), MEMACCT_COLUMN(HostRow, pid, "<u4"),
    MEMACCT_COLUMN(HostRow, known, "<u4")};

constexpr std::array kDevices{MEMACCT_COLUMN(DeviceRow, taken_ns, "<u8"),
                              MEMACCT_COLUMN(DeviceRow, span_ns, "<u8"),
                              MEMACCT_COLUMN(DeviceRow, total_bytes, "<u8"),
                              MEMACCT_COLUMN(DeviceRow, free_bytes, "<u8"),
                              MEMACCT_COLUMN(DeviceRow, device_used_bytes, "<u8"),
                              MEMACCT_COLUMN(DeviceRow, reserved_bytes, "<u8"),
                              MEMACCT_COLUMN(DeviceRow, own_bytes, "<u8"),
                              MEMACCT_COLUMN(DeviceRow, tree_bytes, "<u8"),
                              MEMACCT_COLUMN(DeviceRow, foreign_bytes, "<u8"),
                              MEMACCT_COLUMN(DeviceRow, unattributed_bytes, "<i8"),
                              MEMACCT_COLUMN(DeviceRow, own_low_bytes, "<u8"),
                              MEMACCT_COLUMN(DeviceRow, own_high_bytes, "<u8"),
                              MEMACCT_COLUMN(DeviceRow, known, "<u4"),
                              MEMACCT_COLUMN(DeviceRow, device, "<u2"),
                              MEMACCT_COLUMN(DeviceRow, attempts_count, "|u1"),
                              MEMACCT_COLUMN(DeviceRow, attribution, "|u1"),
                              MEMACCT_COLUMN(DeviceRow, consistent, "|b1")};

constexpr std::array kProcesses{MEMACCT_COLUMN(ProcessRow, taken_ns, "<u8"),
                                MEMACCT_COLUMN(ProcessRow, process_used_bytes, "<u8"),
                                MEMACCT_COLUMN(ProcessRow, start_ticks, "<u8"),
                                MEMACCT_COLUMN(ProcessRow, pid, "<u4"),
                                MEMACCT_COLUMN(ProcessRow, known, "<u4"),
                                MEMACCT_COLUMN(ProcessRow, device, "<u2"),
                                MEMACCT_COLUMN(ProcessRow, owner, "|u1"),
                                MEMACCT_COLUMN(ProcessRow, name, "|S15")};

#undef MEMACCT_COLUMN

template <typename Row, std::size_t Count>
py::object array_of(std::vector<Row> rows, std::array<Column, Count> const& columns) {
  py::list names;
  py::list formats;
  py::list offsets;
  for (auto const& column : columns) {
    names.append(column.name);
    formats.append(column.format);
    offsets.append(column.offset);
  }
  py::dtype const type(names, formats, offsets, static_cast<py::ssize_t>(sizeof(Row)));
  auto kept = std::make_unique<std::vector<Row>>(std::move(rows));
  auto const* const data = kept->data();
  auto const size = kept->size();
  py::capsule const owner(kept.release(),
                          [](void* all) { delete static_cast<std::vector<Row>*>(all); });
  py::array array(type, {size}, {sizeof(Row)}, data, owner);
  array.attr("flags").attr("writeable") = false;
  return std::move(array);
}

}  // namespace

py::object rows_array(std::vector<HostRow> rows) { return array_of(std::move(rows), kHost); }
py::object rows_array(std::vector<DeviceRow> rows) { return array_of(std::move(rows), kDevices); }
py::object rows_array(std::vector<ProcessRow> rows) {
  return array_of(std::move(rows), kProcesses);
}

py::dict trace_dict(TraceRows rows) {
  using namespace py::literals;  // NOLINT(google-build-using-namespace): the _a of dict()
  py::list notes;
  for (auto const& note : rows.notes) {
    auto const text = note.text.view();
    auto* const decoded = PyUnicode_DecodeUTF8(text.data(), static_cast<py::ssize_t>(text.size()),
                                               "backslashreplace");
    if (decoded == nullptr) throw py::error_already_set();
    notes.append(py::make_tuple(note.taken_ns, static_cast<int>(note.kind), note.number, note.value,
                                py::reinterpret_steal<py::object>(decoded)));
  }
  return py::dict("host"_a = rows_array(std::move(rows.host)),
                  "devices"_a = rows_array(std::move(rows.devices)),
                  "processes"_a = rows_array(std::move(rows.processes)), "notes"_a = notes,
                  "overwritten_count"_a = rows.overwritten_count,
                  "damaged_count"_a = rows.damaged_count);
}

}  // namespace memacct::bindings
