// Read-only Python classes over plain C++ structs: one list of fields gives the attributes,
// equality, repr, pickling and the way back from plain data.
#pragma once
#include <pybind11/operators.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "memacct/boxed.hpp"

template <typename T>
struct pybind11::detail::type_caster<memacct::Boxed<T>>
    : pybind11::detail::optional_caster<memacct::Boxed<T>> {};

namespace memacct::bindings {

namespace py = pybind11;

/// One attribute: its Python name and the member that holds it.
template <typename T, typename F>
struct Field {
  char const* name;
  F T::* member;
};
template <typename T, typename F>
Field(char const*, F T::*) -> Field<T, F>;

/// The attribute's value. Structs are referenced inside `owner`, which they keep alive; a
/// vector becomes a tuple, since what we return cannot change.
template <typename F>
py::object to_python(F const& value, py::handle owner) {
  return py::cast(value, py::return_value_policy::reference_internal, owner);
}
template <typename F>
py::object to_python(std::vector<F> const& values, py::handle owner) {
  py::tuple result(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) result[i] = to_python(values[i], owner);
  return std::move(result);
}
template <typename F>
py::object to_python(std::optional<F> const& value, py::handle owner) {
  return value ? to_python(*value, owner) : py::none();
}
template <typename F>
py::object to_python(Boxed<F> const& value, py::handle owner) {
  return value ? to_python(*value, owner) : py::none();
}

/// Builds a struct from the values of its fields, in their order.
template <typename T, typename Fields>
T make_struct(py::sequence const& values, Fields const& fields) {
  if (values.size() != std::tuple_size_v<Fields>) {
    throw py::value_error("one value per field is needed");
  }
  T result{};
  std::size_t index = 0;
  auto const set = [&]<typename F>(Field<T, F> const& field) {
    try {
      result.*field.member = py::cast<F>(values[index++]);
    } catch (py::cast_error const&) {
      throw py::type_error(std::string(field.name) + ": a value of the wrong type");
    }
  };
  std::apply([&](auto const&... field) { (set(field), ...); }, fields);
  return result;
}

/// "Name(field=value, ...)" of what is known: a None says nothing that its absence does not.
inline std::string repr_struct(py::handle self) {
  auto const type = py::type::of(self);
  auto result = py::cast<std::string>(type.attr("__name__")) + "(";
  auto const* separator = "";
  for (auto const name : type.attr("_fields")) {
    auto const value = py::getattr(self, name);
    if (value.is_none()) continue;
    result +=
        separator + py::cast<std::string>(name) + "=" + py::cast<std::string>(py::repr(value));
    separator = ", ";
  }
  return result + ")";
}

/// Registers `T` as the final, read-only class `name`. `_fields` and `_make` mean what they
/// mean for a namedtuple; memacct._convert builds dict, JSON and pickling on them.
template <typename T, typename... F>
py::class_<T> bind_struct(py::module_& m, char const* name, Field<T, F>... fields) {
  py::class_<T> type(m, name, py::is_final());
  (type.def_property_readonly(fields.name,
                              [member = fields.member](py::object const& self) {
                                return to_python(py::cast<T const&>(self).*member, self);
                              }),
   ...);
  type.attr("_fields") = py::make_tuple(fields.name...);
  type.def_static("_make", [all = std::make_tuple(fields...)](py::sequence const& values) {
    return make_struct<T>(values, all);
  });
  type.def(py::self == py::self);
  type.def("__repr__", [](py::handle self) { return repr_struct(self); });
  type.def("to_dict", [](py::handle self) {
    return py::module_::import("memacct._convert").attr("to_dict")(self);
  });
  type.def("__reduce__", [](py::handle self) {
    return py::module_::import("memacct._convert").attr("reduce")(self);
  });
  return type;
}

/// A C++ enum that Python sees as one of a few strings. Specialise with
/// `static constexpr std::array<std::pair<E, char const*>, N> value`.
template <typename E>
struct EnumNames;

template <typename E>
constexpr char const* enum_name(E value) {
  for (auto const& [candidate, name] : EnumNames<E>::value) {
    if (candidate == value) return name;
  }
  return "";
}

template <typename E>
std::optional<E> enum_from_name(std::string_view text) {
  for (auto const& [candidate, name] : EnumNames<E>::value) {
    if (text == name) return candidate;
  }
  return std::nullopt;
}

/// Base of the type casters of such enums: `struct type_caster<E> : EnumCaster<E> {}`.
template <typename E>
struct EnumCaster {
  PYBIND11_TYPE_CASTER(E, py::detail::const_name("str"));

  bool load(py::handle source, bool /*convert*/) {
    if (!py::isinstance<py::str>(source)) return false;
    auto const found = enum_from_name<E>(py::cast<std::string>(source));
    if (found) value = *found;
    return found.has_value();
  }

  static py::handle cast(E source, py::return_value_policy /*policy*/, py::handle /*parent*/) {
    return py::str(enum_name(source)).release();
  }
};

}  // namespace memacct::bindings
