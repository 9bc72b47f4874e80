// Translation of the core's errors into the classes of memacct._errors, in one place.
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "bindings.hpp"
#include "memacct/error.hpp"
#include "memacct/sampler_error.hpp"

namespace memacct::bindings {
namespace {

// A line that was not understood may hold any bytes; the error that reports it must not
// fail over them.
py::object text(std::string const& value) {
  auto* const decoded = PyUnicode_DecodeUTF8(value.data(), static_cast<py::ssize_t>(value.size()),
                                             "backslashreplace");
  if (decoded == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(decoded);
}

/// Raises `memacct._errors.<name>(*args)`. The class is looked up when it is needed: raising
/// is the slow path, and a class kept in a static would outlive the interpreter.
template <typename... Args>
void raise(char const* name, Args&&... args) {
  auto const type = py::module_::import("memacct._errors").attr(name);
  PyErr_SetObject(type.ptr(), py::make_tuple(std::forward<Args>(args)...).ptr());
}

/// The most derived class first: each catch also matches the classes below it.
void translate(std::exception_ptr const& error) {
  try {
    std::rethrow_exception(error);
  } catch (SourceUnavailableError const& e) {
    raise("SourceUnavailableError", text(e.source()), text(e.reason()));
  } catch (SourceReadError const& e) {
    raise("SourceReadError", text(e.source()), text(e.reason()), e.error_number());
  } catch (SourceFormatError const& e) {
    raise("SourceFormatError", text(e.source()), text(e.reason()), text(e.line()));
  } catch (SourceError const& e) {
    raise("SourceError", text(e.source()), text(e.reason()));
  } catch (DriverError const& e) {
    raise("DriverError", text(e.api()), e.code(), text(e.text()));
  } catch (SamplerError const& e) {
    raise("SamplerError", text(e.what()));
  } catch (Error const& e) {
    raise("MemacctError", text(e.what()));
  }
}

}  // namespace

void set_python_error() noexcept {
  try {
    translate(std::current_exception());
  } catch (py::error_already_set& e) {  // an allocator reader's own error, or a failed import
    e.restore();
  } catch (py::builtin_exception const& e) {  // a value_error or type_error of our own
    e.set_error();
  } catch (std::invalid_argument const& e) {
    PyErr_SetString(PyExc_ValueError, e.what());
  } catch (std::bad_alloc const&) {
    PyErr_NoMemory();
  } catch (std::exception const& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  }
}

void bind_errors(py::module_& /*m*/) {
  py::register_local_exception_translator([](std::exception_ptr error) {
    if (error) translate(error);
  });
}

}  // namespace memacct::bindings
