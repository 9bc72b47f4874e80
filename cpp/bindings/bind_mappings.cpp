// Binding of the mappings: the table as one numpy structured array, its rows and its sums.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>

#include <algorithm>

#include "bindings.hpp"
#include "mapping_rows.hpp"
#include "memacct/mapping_kind.hpp"
#include "memacct/mapping_totals.hpp"
#include "memacct/mappings.hpp"
#include "memacct/smaps_text.hpp"
#include "structs.hpp"

namespace memacct::bindings {
namespace {

constexpr std::array<char const*, 2> kSourceNames{{"smaps", "pagemap"}};

/// Paths are bytes: Python's own decoding of file names keeps those that are no UTF-8.
py::object path_to_python(std::string const& path) {
  auto* const text =
      PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<py::ssize_t>(path.size()));
  if (text == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(text);
}

std::string path_from_python(py::handle path) {
  auto const bytes = py::reinterpret_steal<py::bytes>(PyUnicode_EncodeFSDefault(path.ptr()));
  if (!bytes) throw py::error_already_set();
  return bytes;
}

py::tuple paths_to_python(std::vector<std::string> const& paths) {
  py::tuple result(paths.size());
  for (std::size_t i = 0; i < paths.size(); ++i) result[i] = path_to_python(paths[i]);
  return result;
}

py::object optional_size(std::optional<std::uint64_t> const& size) {
  return size ? py::cast(*size) : py::none();
}

// ------------------------------------------------------------ one mapping

/// A row with what it needs of its table; the table's Python object owns it.
struct MappingView {
  MappingTable const* table;
  std::size_t index;
  [[nodiscard]] Mapping const& row() const { return table->rows[index]; }
};

py::object path_of(MappingView const& view) {
  auto const index = view.row().path_index;
  return index < 0 ? py::none()
                   : path_to_python(view.table->paths[static_cast<std::size_t>(index)]);
}

py::object vm_flags_of(MappingView const& view) {
  if ((view.table->columns & kVmFlagsColumn) == 0) return py::none();
  py::list codes;
  for (std::size_t bit = 0; bit < kVmFlagCodes.size(); ++bit) {
    if ((view.row().vm_flags >> bit & 1U) != 0)
      codes.append(py::str(std::string(kVmFlagCodes[bit])));
  }
  if ((view.row().vm_flags >> kOtherVmFlagBit) != 0) codes.append(py::str("??"));
  return py::tuple(codes);
}

std::string perms_of(MappingView const& view) {
  auto const perms = view.row().perms;
  std::string text = "---p";
  if ((perms & kRead) != 0) text[0] = 'r';
  if ((perms & kWrite) != 0) text[1] = 'w';
  if ((perms & kExecute) != 0) text[2] = 'x';
  if ((perms & kShared) != 0) text[3] = 's';
  return text;
}

void bind_mapping(py::module_& m) {
  py::class_<MappingView> type(m, "Mapping", py::is_final());
  type.def_property_readonly("start", [](MappingView const& v) { return v.row().start; })
      .def_property_readonly("end", [](MappingView const& v) { return v.row().end; })
      .def_property_readonly("offset", [](MappingView const& v) { return v.row().offset; })
      .def_property_readonly("inode", [](MappingView const& v) { return v.row().inode; })
      .def_property_readonly("dev_major", [](MappingView const& v) { return v.row().dev_major; })
      .def_property_readonly("dev_minor", [](MappingView const& v) { return v.row().dev_minor; })
      .def_property_readonly("perms", &perms_of)
      .def_property_readonly("kind", [](MappingView const& v) { return kind_name(v.row().kind); })
      .def_property_readonly("path", &path_of)
      .def_property_readonly("deleted", [](MappingView const& v) { return v.row().deleted != 0; })
      .def_property_readonly("vm_flags", &vm_flags_of);
  py::list names;
  for (auto const* const name : {"start", "end", "offset", "inode", "dev_major", "dev_minor",
                                 "perms", "kind", "path", "deleted", "vm_flags"}) {
    names.append(name);
  }
  for (std::size_t i = 0; i < kSizeCount; ++i) {
    auto const get = [i](MappingView const& view) {
      auto const size = static_cast<Size>(i);
      return view.table->has(size) ? py::cast(view.row()[size]) : py::object(py::none());
    };
    type.def_property_readonly(kSizes[i].name, get);
    names.append(kSizes[i].name);
  }
  type.attr("_fields") = py::tuple(names);
  type.def("__repr__", [](py::handle self) { return repr_struct(self); });
  type.def("to_dict", [](py::handle self) {
    return py::module_::import("memacct._convert").attr("to_dict")(self);
  });
}

// ------------------------------------------------------------ sums

std::optional<std::uint64_t> dirty_of(MappingTotals const& totals) {
  auto const shared = totals.sizes[static_cast<std::size_t>(Size::kSharedDirty)];
  auto const own = totals.sizes[static_cast<std::size_t>(Size::kPrivateDirty)];
  return shared && own ? std::optional(*shared + *own) : std::nullopt;
}

void bind_totals(py::module_& m) {
  py::class_<MappingTotals> type(m, "MappingTotals", py::is_final());
  type.def_property_readonly("name", [](MappingTotals const& t) { return path_to_python(t.name); });
  type.def_readonly("mappings_count", &MappingTotals::mappings_count);
  py::list names;
  names.append("name");
  names.append("mappings_count");
  for (std::size_t i = 0; i < kSizeCount; ++i) {
    auto const size = static_cast<Size>(i);
    if (size == Size::kKernelPage || size == Size::kMmuPage) continue;  // have no sum
    type.def_property_readonly(kSizes[i].name,
                               [i](MappingTotals const& t) { return optional_size(t.sizes[i]); });
    names.append(kSizes[i].name);
  }
  type.def_property_readonly("dirty_bytes",
                             [](MappingTotals const& t) { return optional_size(dirty_of(t)); });
  names.append("dirty_bytes");
  type.attr("_fields") = py::tuple(names);
  type.def(py::self == py::self);
  type.def("__repr__", [](py::handle self) { return repr_struct(self); });
  type.def("to_dict", [](py::handle self) {
    return py::module_::import("memacct._convert").attr("to_dict")(self);
  });
}

py::dict by_name(std::vector<MappingTotals> totals) {
  py::dict result;
  for (auto& entry : totals) {
    auto name = path_to_python(entry.name);
    result[name] = py::cast(std::move(entry));
  }
  return result;
}

// ------------------------------------------------------------ the table

py::tuple top(py::object const& self, std::int64_t n, std::string const& by) {
  auto const& table = py::cast<MappingTable const&>(self);
  if (n < 0) throw py::value_error("n must not be negative, not " + std::to_string(n));
  for (std::size_t i = 0; i < kSizeCount; ++i) {
    if (by != kSizes[i].name || !table.has(static_cast<Size>(i))) continue;
    auto const indices = top_rows(table, static_cast<Size>(i), static_cast<std::size_t>(n));
    py::tuple result(indices.size());
    for (std::size_t place = 0; place < indices.size(); ++place) {
      result[place] = py::cast(MappingView{&table, indices[place]});
      py::detail::keep_alive_impl(result[place], self);
    }
    return result;
  }
  throw py::value_error("by must be a known size of these mappings, such as 'rss_bytes', not '" +
                        by + "'");
}

py::object item(py::object const& self, py::ssize_t index) {
  auto const& table = py::cast<MappingTable const&>(self);
  auto const count = static_cast<py::ssize_t>(table.rows.size());
  if (index < 0) index += count;
  if (index < 0 || index >= count) throw py::index_error("no such mapping");
  auto result = py::cast(MappingView{&table, static_cast<std::size_t>(index)});
  py::detail::keep_alive_impl(result, self);
  return result;
}

py::dict columns_to_python(MappingTable const& table) {
  py::dict columns;
  for (auto const& field : row_fields(table.columns)) {
    py::list values(table.rows.size());
    for (std::size_t i = 0; i < table.rows.size(); ++i) values[i] = field.get(table.rows[i]);
    columns[field.name] = values;
  }
  return columns;
}

MappingTable make_mappings(py::sequence const& values) {
  if (values.size() != 5) throw py::value_error("one value per field is needed");
  MappingTable table;
  auto const source = py::cast<std::string>(values[0]);
  auto const found = std::find(kSourceNames.begin(), kSourceNames.end(), source);
  if (found == kSourceNames.end()) throw py::value_error("source: no such source: " + source);
  table.source = static_cast<MappingSource>(found - kSourceNames.begin());
  table.pid = py::cast<std::int32_t>(values[1]);
  for (auto const path : py::cast<py::sequence>(values[2])) {
    table.paths.push_back(path_from_python(path));
  }
  table.unread_fields = py::cast<std::vector<std::string>>(values[3]);
  auto const columns = py::cast<py::dict>(values[4]);
  table.columns = columns_of_names(columns);
  table.rows.resize(py::len(columns["start"]));
  for (auto const& field : row_fields(table.columns)) {
    auto const column = py::cast<py::sequence>(columns[field.name]);
    if (column.size() != table.rows.size()) {
      throw py::value_error(std::string(field.name) + ": columns differ in length");
    }
    for (std::size_t i = 0; i < table.rows.size(); ++i) field.set(table.rows[i], column[i]);
  }
  for (auto const& row : table.rows) {
    if (row.path_index >= static_cast<std::int64_t>(table.paths.size())) {
      throw py::value_error("path_index: no such path");
    }
  }
  return table;
}

MappingTable parse_chunked(py::bytes const& text, std::size_t chunk_bytes,
                           std::optional<py::bytes> const& mountinfo) {
  auto rest = static_cast<std::string_view>(text);
  auto const read = [&rest](char* buffer, std::size_t size) {
    auto const count = rest.copy(buffer, size);
    rest.remove_prefix(count);
    return count;
  };
  auto table = parse_smaps(read, SmapsParser("smaps"), chunk_bytes);
  if (mountinfo) {
    classify(table, parse_mounted_types(static_cast<std::string_view>(*mountinfo)));
    split_held(table);
  }
  return table;
}

/// Calls a function of memacct._mappings, where what needs Python's libraries is.
template <typename... Args>
py::object in_python(char const* function, Args const&... args) {
  return py::module_::import("memacct._mappings").attr(function)(args...);
}

void bind_table(py::module_& m) {
  py::class_<MappingTable> type(m, "Mappings", py::is_final());
  type.def_property_readonly("source",
                             [](MappingTable const& table) {
                               return kSourceNames[static_cast<std::size_t>(table.source)];
                             })
      .def_readonly("pid", &MappingTable::pid)
      .def_property_readonly("paths",
                             [](MappingTable const& table) { return paths_to_python(table.paths); })
      .def_property_readonly(
          "unread_fields",
          [](MappingTable const& table) { return py::tuple(py::cast(table.unread_fields)); })
      .def_property_readonly("columns", &columns_to_python)
      .def_property_readonly("rows",
                             [](py::object const& self) {
                               return rows_to_numpy(self, py::cast<MappingTable const&>(self));
                             })
      .def("by_kind", [](MappingTable const& table) { return by_name(total_by_kind(table)); })
      .def("by_file", [](MappingTable const& table) { return by_name(total_by_file(table)); })
      .def("top", &top, py::arg("n") = 10, py::arg("by") = "rss_bytes")
      .def("to_pandas", [](py::object const& self) { return in_python("to_pandas", self); })
      .def("__len__", [](MappingTable const& table) { return table.rows.size(); })
      .def("__getitem__", &item)
      .def("__sub__", [](py::handle after,
                         py::handle before) { return in_python("difference", after, before); })
      .def("__str__", [](py::handle self) { return in_python("render", self); })
      .def("__repr__",
           [](MappingTable const& table) {
             return "Mappings(pid=" + std::to_string(table.pid) + ", source='" +
                    kSourceNames[static_cast<std::size_t>(table.source)] + "', " +
                    std::to_string(table.rows.size()) + " mappings)";
           })
      .def(py::self == py::self)
      .def("to_dict",
           [](py::handle self) {
             return py::module_::import("memacct._convert").attr("to_dict")(self);
           })
      .def("__reduce__", [](py::handle self) {
        return py::module_::import("memacct._convert").attr("reduce")(self);
      });
  type.attr("_fields") = py::make_tuple("source", "pid", "paths", "unread_fields", "columns");
  type.def_static("_make", &make_mappings);
}

}  // namespace

void bind_mappings(py::module_& m) {
  bind_mapping(m);
  bind_totals(m);
  bind_table(m);
  py::list kinds;
  for (std::size_t i = 0; i < kMappingKindCount; ++i) {
    kinds.append(kind_name(static_cast<MappingKind>(i)));
  }
  m.attr("MAPPING_KINDS") = py::tuple(kinds);
  py::dict flags;
  for (std::size_t bit = 0; bit < kVmFlagCodes.size(); ++bit) {
    flags[py::str(std::string(kVmFlagCodes[bit]))] = py::int_(std::uint64_t{1} << bit);
  }
  m.attr("VM_FLAGS") = flags;
  m.def("read_mappings", &read_mappings, py::arg("pid") = 0,
        py::call_guard<py::gil_scoped_release>());
  m.def("parse_smaps", &parse_chunked, py::arg("text"), py::arg("chunk_bytes") = 32768,
        py::arg("mountinfo") = py::none());
}

}  // namespace memacct::bindings
