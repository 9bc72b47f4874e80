// Binding of the allocators' accounts.
#include <mutex>
#include <utility>

#include "allocator_reader.hpp"
#include "bindings.hpp"
#include "memacct/allocator.hpp"
#include "structs.hpp"

namespace memacct::bindings {
namespace {

PyObject* torch_name = nullptr;  // "torch"; set once, and never given back

/// The function that reports the host program's caching allocators, if one was set.
class AllocatorReader {
 public:
  void set(py::object reader) {
    if (!reader.is_none() && PyCallable_Check(reader.ptr()) == 0) {
      throw py::type_error("the allocator reader must be callable or None");
    }
    auto* const added = reader.is_none() ? nullptr : reader.release().ptr();
    PyObject* removed = nullptr;
    {
      std::lock_guard const lock(mutex_);
      removed = std::exchange(reader_, added);
    }
    Py_XDECREF(removed);  // may run any code, so not under the lock
  }

  /// What the reader that was set says, or else what memacct._allocators finds.
  /// @throws py::error_already_set with the set reader's own error.
  std::optional<std::vector<AllocatorMemory>> call() {
    auto reader = get();
    if (!reader) reader = found_reader();
    if (!reader) return std::nullopt;
    auto const reported = reader();
    if (reported.is_none()) return std::nullopt;
    try {
      return py::cast<std::vector<AllocatorMemory>>(reported);
    } catch (py::cast_error const&) {
      throw py::type_error(
          "the allocator reader must return AllocatorMemory objects or None, not " +
          py::cast<std::string>(py::repr(reported)));
    }
  }

 private:
  // Nothing is imported on behalf of a process that has not imported PyTorch itself.
  static py::object found_reader() {
    auto const modules = py::reinterpret_borrow<py::dict>(PyImport_GetModuleDict());
    if (!modules.contains(torch_name)) return {};
    return py::module_::import("memacct._allocators").attr("read_allocators");
  }

  // The mutex is held for a reference count only, and matters where there is no GIL.
  py::object get() {
    std::lock_guard const lock(mutex_);
    return py::reinterpret_borrow<py::object>(reader_);
  }

  std::mutex mutex_;
  PyObject* reader_ = nullptr;
};
AllocatorReader allocator_reader;

}  // namespace

std::optional<std::vector<AllocatorMemory>> read_allocators() { return allocator_reader.call(); }

void bind_allocator(py::module_& m) {
  using Pool = AllocatorPool;
  using Memory = AllocatorMemory;
  bind_struct(m, "AllocatorPool", Field{"name", &Pool::name},
              Field{"reserved_bytes", &Pool::reserved_bytes},
              Field{"allocated_bytes", &Pool::allocated_bytes},
              Field{"active_bytes", &Pool::active_bytes},
              Field{"requested_bytes", &Pool::requested_bytes},
              Field{"inactive_split_bytes", &Pool::inactive_split_bytes});
  bind_struct(m, "AllocatorMemory", Field{"uuid", &Memory::uuid},
              Field{"reserved_bytes", &Memory::reserved_bytes},
              Field{"allocated_bytes", &Memory::allocated_bytes},
              Field{"peak_reserved_bytes", &Memory::peak_reserved_bytes},
              Field{"peak_allocated_bytes", &Memory::peak_allocated_bytes},
              Field{"cuda_ordinal", &Memory::cuda_ordinal}, Field{"backend", &Memory::backend},
              Field{"active_bytes", &Memory::active_bytes},
              Field{"requested_bytes", &Memory::requested_bytes},
              Field{"cached_bytes", &Memory::cached_bytes},
              Field{"inactive_split_bytes", &Memory::inactive_split_bytes},
              Field{"fragmentation_ratio", &Memory::fragmentation_ratio},
              Field{"unmapped_bytes", &Memory::unmapped_bytes},
              Field{"backed_bytes", &Memory::backed_bytes},
              Field{"segments_count", &Memory::segments_count},
              Field{"retries_count", &Memory::retries_count},
              Field{"ooms_count", &Memory::ooms_count}, Field{"pools", &Memory::pools},
              Field{"private_pools", &Memory::private_pools})
      .def(py::init([](std::string uuid, std::uint64_t reserved, std::uint64_t allocated,
                       std::optional<std::uint64_t> peak_reserved,
                       std::optional<std::uint64_t> peak_allocated) {
             return Memory{.uuid = std::move(uuid),
                           .reserved_bytes = reserved,
                           .allocated_bytes = allocated,
                           .peak_reserved_bytes = peak_reserved,
                           .peak_allocated_bytes = peak_allocated};
           }),
           py::arg("uuid"), py::arg("reserved_bytes"), py::arg("allocated_bytes"),
           py::arg("peak_reserved_bytes") = py::none(),
           py::arg("peak_allocated_bytes") = py::none());
  torch_name = PyUnicode_InternFromString("torch");
  m.def(
      "set_allocator_reader", [](py::object reader) { allocator_reader.set(std::move(reader)); },
      py::arg("reader"));
}

}  // namespace memacct::bindings
