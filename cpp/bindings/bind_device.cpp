// Binding of the device readings.
#include "bindings.hpp"
#include "device_enums.hpp"
#include "memacct/device.hpp"
#include "structs.hpp"

namespace memacct::bindings {
namespace {

using Release = py::call_guard<py::gil_scoped_release>;

void bind_unified(py::module_& m) {
  bind_struct(m, "UnifiedMemory", Field{"kind", &UnifiedMemory::kind},
              Field{"numa_node", &UnifiedMemory::numa_node},
              Field{"host_total_bytes", &UnifiedMemory::host_total_bytes},
              Field{"host_free_bytes", &UnifiedMemory::host_free_bytes},
              Field{"host_available_bytes", &UnifiedMemory::host_available_bytes},
              Field{"cuda_free_bytes", &UnifiedMemory::cuda_free_bytes},
              Field{"cuda_total_bytes", &UnifiedMemory::cuda_total_bytes},
              Field{"free_source", &UnifiedMemory::free_source},
              Field{"withheld_bytes", &UnifiedMemory::withheld_bytes},
              Field{"page_cache_bytes", &UnifiedMemory::page_cache_bytes},
              Field{"host_processes_bytes", &UnifiedMemory::host_processes_bytes});
}

void bind_structs(py::module_& m) {
  bind_unified(m);
  bind_struct(m, "ProcessUsage", Field{"pid", &ProcessUsage::pid},
              Field{"process_used_bytes", &ProcessUsage::process_used_bytes},
              Field{"owner", &ProcessUsage::owner}, Field{"kinds", &ProcessUsage::kinds},
              Field{"gpu_instance_id", &ProcessUsage::gpu_instance_id},
              Field{"compute_instance_id", &ProcessUsage::compute_instance_id});
  bind_struct(m, "Attribution", Field{"source", &Attribution::source},
              Field{"own_pid", &Attribution::own_pid},
              Field{"own_bounds_bytes", &Attribution::own_bounds_bytes},
              Field{"reason", &Attribution::reason});
  bind_struct(
      m, "DeviceMemory", Field{"uuid", &DeviceMemory::uuid}, Field{"index", &DeviceMemory::index},
      Field{"cuda_ordinal", &DeviceMemory::cuda_ordinal}, Field{"name", &DeviceMemory::name},
      Field{"source", &DeviceMemory::source}, Field{"taken_ns", &DeviceMemory::taken_ns},
      Field{"span_ns", &DeviceMemory::span_ns}, Field{"total_bytes", &DeviceMemory::total_bytes},
      Field{"free_bytes", &DeviceMemory::free_bytes},
      Field{"device_used_bytes", &DeviceMemory::device_used_bytes},
      Field{"reserved_bytes", &DeviceMemory::reserved_bytes},
      Field{"own_bytes", &DeviceMemory::own_bytes}, Field{"tree_bytes", &DeviceMemory::tree_bytes},
      Field{"foreign_bytes", &DeviceMemory::foreign_bytes},
      Field{"unattributed_bytes", &DeviceMemory::unattributed_bytes},
      Field{"cuda_free_bytes", &DeviceMemory::cuda_free_bytes},
      Field{"cuda_total_bytes", &DeviceMemory::cuda_total_bytes},
      Field{"processes", &DeviceMemory::processes},
      Field{"attribution", &DeviceMemory::attribution},
      Field{"consistent", &DeviceMemory::consistent},
      Field{"attempts_count", &DeviceMemory::attempts_count},
      Field{"own_read_bounds_bytes", &DeviceMemory::own_read_bounds_bytes},
      Field{"unified", &DeviceMemory::unified}, Field{"virtualized", &DeviceMemory::virtualized},
      Field{"foreign_read_bounds_bytes", &DeviceMemory::foreign_read_bounds_bytes},
      Field{"parent_uuid", &DeviceMemory::parent_uuid},
      Field{"allocator_reserved_bytes", &DeviceMemory::allocator_reserved_bytes},
      Field{"non_torch_bytes", &DeviceMemory::non_torch_bytes},
      Field{"allocator_inconsistent", &DeviceMemory::allocator_inconsistent});
  bind_struct(m, "DeviceInfo", Field{"uuid", &DeviceInfo::uuid}, Field{"index", &DeviceInfo::index},
              Field{"name", &DeviceInfo::name}, Field{"pci_bus_id", &DeviceInfo::pci_bus_id},
              Field{"parent_uuid", &DeviceInfo::parent_uuid},
              Field{"gpu_instance_id", &DeviceInfo::gpu_instance_id},
              Field{"compute_instance_id", &DeviceInfo::compute_instance_id});
}

/// A key from Python; a bool is an int there, but no device.
DeviceKey parse_key(py::handle key) {
  if (py::isinstance<py::str>(key)) return py::cast<std::string>(key);
  if (PyIndex_Check(key.ptr()) != 0 && !py::isinstance<py::bool_>(key)) {
    auto const number = py::reinterpret_steal<py::object>(PyNumber_Index(key.ptr()));
    if (!number) throw py::error_already_set();
    return py::cast<std::int64_t>(number);
  }
  throw py::type_error("a device is a CUDA ordinal or a UUID, not " +
                       py::cast<std::string>(py::repr(key)));
}

/// Runs `read` without the GIL, which is not to be held while the session's lock is waited
/// for or a driver works.
template <typename Read>
auto without_gil(Read const& read) {
  py::gil_scoped_release const release;
  return read();
}

py::tuple read_devices_tuple(py::handle which,
                             std::optional<std::map<std::string, std::uint64_t>> reserved,
                             bool with_cuda) {
  auto const selection = parse_selection(which);
  DeviceOptions options{.allocators = {}, .with_cuda = with_cuda};
  for (auto const& [uuid, bytes] : reserved.value_or(std::map<std::string, std::uint64_t>{})) {
    options.allocators[uuid] = {.reserved_bytes = bytes, .backed_bytes = bytes};
  }
  return py::tuple(py::cast(without_gil([&] { return read_devices(selection, options); })));
}

DeviceMemory read_device_by_key(py::handle key, std::optional<std::uint64_t> reserved,
                                bool with_cuda) {
  auto const parsed = parse_key(key);
  std::optional<AllocatorClaim> claim;
  if (reserved) claim = {.reserved_bytes = *reserved, .backed_bytes = *reserved};
  return without_gil([&] { return read_device(parsed, claim, with_cuda); });
}

Attribution identify_by_key(py::handle key) {
  auto const parsed = parse_key(key);
  return without_gil([&] { return identify(parsed); });
}

// Symbols that were not found read as None.
py::dict symbols_of(std::map<std::string, std::string> const& symbols) {
  py::dict result;
  for (auto const& [name, symbol] : symbols) {
    result[py::str(name)] = symbol.empty() ? py::object(py::none()) : py::str(symbol);
  }
  return result;
}

py::dict diagnosis_dict() {
  using namespace py::literals;  // NOLINT(google-build-using-namespace): the _a of dict()
  auto const found = without_gil([] { return driver_diagnosis(); });
  return py::dict(
      "nvml"_a = py::dict("library"_a = found.nvml_library, "available"_a = found.nvml_available,
                          "reason"_a = found.nvml_reason, "init_code"_a = found.nvml_init_code,
                          "driver_version"_a = found.nvml_driver_version,
                          "symbols"_a = symbols_of(found.nvml_symbols),
                          "record_bytes"_a = found.record_bytes),
      "cuda"_a = py::dict("library"_a = found.cuda_library, "state"_a = found.cuda_state,
                          "symbols"_a = symbols_of(found.cuda_symbols)),
      "process"_a = py::dict("pid"_a = found.names.pid, "procfs_pid"_a = found.names.procfs_pid,
                             "outer_pids"_a = py::tuple(py::cast(found.names.outer_pids)),
                             "initial_pid_namespace"_a = found.names.initial_namespace,
                             "identified_pid"_a = found.identified_pid),
      "notes"_a = py::tuple(py::cast(found.notes)));
}

}  // namespace

DeviceSelection parse_selection(py::handle which) {
  if (py::isinstance<py::str>(which)) {
    auto const text = py::cast<std::string>(which);
    if (auto const set = enum_from_name<DeviceSet>(text)) return *set;
    throw py::value_error("devices must be 'auto', 'all' or a sequence of devices, not '" + text +
                          "'");
  }
  if (!py::isinstance<py::sequence>(which)) {
    throw py::type_error("devices must be 'auto', 'all' or a sequence of devices, not " +
                         py::cast<std::string>(py::repr(which)));
  }
  std::vector<DeviceKey> keys;
  for (auto const key : which) keys.push_back(parse_key(key));
  return keys;
}

void bind_device(py::module_& m) {
  bind_structs(m);
  m.def("list_devices",
        [] { return py::tuple(py::cast(without_gil([] { return list_devices(); }))); });
  m.def("read_devices", &read_devices_tuple, py::arg("which") = "auto", py::kw_only(),
        py::arg("allocator_reserved") = py::none(), py::arg("with_cuda") = false);
  m.def("read_device", &read_device_by_key, py::arg("device"), py::kw_only(),
        py::arg("allocator_reserved_bytes") = py::none(), py::arg("with_cuda") = false);
  m.def("identify", &identify_by_key, py::arg("device"));
  m.def("forget_identity", &forget_identity, Release());
  m.def("add_tree_root", &add_tree_root, py::arg("pid"), Release());
  m.def("driver_state", &driver_state, Release());
  m.def("driver_diagnosis", &diagnosis_dict);
  m.def("close_devices", &close_devices, Release());
}

}  // namespace memacct::bindings
