#include "mapping_rows.hpp"

#include <pybind11/numpy.h>

#include <array>
#include <cstring>
#include <string>
#include <type_traits>

#include "memacct/mapping_totals.hpp"

namespace memacct::bindings {
namespace {

static_assert(std::is_standard_layout_v<Mapping>, "columns are found by their offset");

constexpr std::array<RowField, 10> kAlways{{{"start", "<u8", offsetof(Mapping, start)},
                                            {"end", "<u8", offsetof(Mapping, end)},
                                            {"offset", "<u8", offsetof(Mapping, offset)},
                                            {"inode", "<u8", offsetof(Mapping, inode)},
                                            {"dev_major", "<u4", offsetof(Mapping, dev_major)},
                                            {"dev_minor", "<u4", offsetof(Mapping, dev_minor)},
                                            {"path_index", "<i4", offsetof(Mapping, path_index)},
                                            {"kind", "|u1", offsetof(Mapping, kind)},
                                            {"perms", "|u1", offsetof(Mapping, perms)},
                                            {"deleted", "|b1", offsetof(Mapping, deleted)}}};

struct Optional {
  Columns column;
  RowField field;
};
constexpr std::array<Optional, 3> kOptional{
    {{kVmFlagsColumn, {"vm_flags", "<u8", offsetof(Mapping, vm_flags)}},
     {kThpEligibleColumn, {"thp_eligible", "|u1", offsetof(Mapping, thp_eligible)}},
     {kProtectionKeyColumn, {"protection_key", "|u1", offsetof(Mapping, protection_key)}}}};

RowField size_field(std::size_t index) noexcept {
  return {kSizes[index].name, "<u8", offsetof(Mapping, sizes) + index * sizeof(std::uint64_t)};
}

template <typename T>
T load(Mapping const& row, std::size_t offset) noexcept {
  T value;
  std::memcpy(&value, reinterpret_cast<char const*>(&row) + offset, sizeof value);
  return value;
}

template <typename T>
void store(Mapping& row, std::size_t offset, py::handle value) {
  auto const number = py::cast<T>(value);
  std::memcpy(reinterpret_cast<char*>(&row) + offset, &number, sizeof number);
}

MappingKind kind_from_python(py::handle value) {
  auto const kind = kind_of(py::cast<std::string>(value));
  if (!kind) throw py::value_error("kind: no such kind: " + py::cast<std::string>(py::repr(value)));
  return *kind;
}

}  // namespace

py::object RowField::get(Mapping const& row) const {
  if (offset == offsetof(Mapping, kind)) return py::str(kind_name(row.kind));
  switch (format[1]) {
    case 'i':
      return py::int_(load<std::int32_t>(row, offset));
    case 'b':
      return py::bool_(load<std::uint8_t>(row, offset) != 0);
    default:
      break;
  }
  switch (format[2]) {
    case '8':
      return py::int_(load<std::uint64_t>(row, offset));
    case '4':
      return py::int_(load<std::uint32_t>(row, offset));
    default:
      return py::int_(load<std::uint8_t>(row, offset));
  }
}

void RowField::set(Mapping& row, py::handle value) const {
  if (offset == offsetof(Mapping, kind)) {
    row.kind = kind_from_python(value);
    return;
  }
  switch (format[2]) {
    case '8':
      return store<std::uint64_t>(row, offset, value);
    case '4':
      return format[1] == 'i' ? store<std::int32_t>(row, offset, value)
                              : store<std::uint32_t>(row, offset, value);
    default:
      return store<std::uint8_t>(row, offset, value);
  }
}

std::vector<RowField> row_fields(Columns columns) {
  std::vector<RowField> fields(kAlways.begin(), kAlways.end());
  for (auto const& optional : kOptional) {
    if ((columns & optional.column) != 0) fields.push_back(optional.field);
  }
  for (std::size_t i = 0; i < kSizeCount; ++i) {
    if ((columns & column(static_cast<Size>(i))) != 0) fields.push_back(size_field(i));
  }
  return fields;
}

Columns columns_of_names(py::dict const& columns) {
  for (auto const& field : kAlways) {
    if (!columns.contains(field.name))
      throw py::value_error(std::string("no column ") + field.name);
  }
  Columns found = 0;
  auto known = kAlways.size();
  auto const look_for = [&](char const* name, Columns bit) {
    if (!columns.contains(name)) return;
    found |= bit;
    ++known;
  };
  for (auto const& optional : kOptional) look_for(optional.field.name, optional.column);
  for (std::size_t i = 0; i < kSizeCount; ++i) {
    look_for(kSizes[i].name, column(static_cast<Size>(i)));
  }
  if (known != columns.size()) throw py::value_error("a column that mappings do not have");
  return found;
}

py::object rows_to_numpy(py::object const& mappings, MappingTable const& table) {
  py::list names;
  py::list formats;
  py::list offsets;
  for (auto const& field : row_fields(table.columns)) {
    names.append(field.name);
    formats.append(field.format);
    offsets.append(field.offset);
  }
  py::dtype const type(names, formats, offsets, static_cast<py::ssize_t>(sizeof(Mapping)));
  py::array rows(type, {table.rows.size()}, {sizeof(Mapping)}, table.rows.data(), mappings);
  rows.attr("flags").attr("writeable") = false;
  return std::move(rows);
}

}  // namespace memacct::bindings
