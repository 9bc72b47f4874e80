// Binding of the pure parts of the device readings, for their tests: rules that a machine at
// hand, or the simulated one, cannot be made to show.
#include <algorithm>
#include <tuple>

#include "bindings.hpp"
#include "device_enums.hpp"
#include "memacct/broker_client.hpp"
#include "memacct/device_session.hpp"
#include "memacct/fingerprint.hpp"
#include "memacct/identity.hpp"
#include "memacct/nvml_session.hpp"
#include "memacct/process_list.hpp"
#include "memacct/process_tree.hpp"
#include "memacct/visible_devices.hpp"

namespace memacct::bindings {
namespace {

// (pid, bytes or None) of each process of a complete compute list.
using Rows = std::vector<std::pair<std::uint32_t, std::optional<std::uint64_t>>>;

nvml::ProcessList list_of(Rows const& rows) {
  nvml::ProcessList list;
  list.complete = true;
  for (auto const& [pid, bytes] : rows) {
    list.records.push_back({.pid = pid, .process_used_bytes = bytes, .kinds = nvml::kCompute});
  }
  return list;
}

std::optional<std::size_t> probe(py::bytes const& written, std::size_t capacity_bytes,
                                 std::size_t count, std::optional<std::uint64_t> total_bytes,
                                 std::optional<bool> mig_enabled) {
  auto const text = static_cast<std::string_view>(written);
  std::vector<std::byte> buffer(std::max(capacity_bytes, text.size()), nvml::kUnwritten);
  std::transform(text.begin(), text.end(), buffer.begin(),
                 [](char c) { return static_cast<std::byte>(c); });
  return nvml::probe_stride(buffer, count,
                            {.total_bytes = total_bytes, .mig_enabled = mig_enabled});
}

Rows merged(Rows const& rows) {
  auto records = list_of(rows).records;
  nvml::merge_by_pid(records);
  Rows result;
  for (auto const& record : records) result.emplace_back(record.pid, record.process_used_bytes);
  return result;
}

// (pid, bytes or None, instance or None), of records of one list or of several.
using InstanceRows = std::vector<
    std::tuple<std::uint32_t, std::optional<std::uint64_t>, std::optional<std::uint32_t>>>;

InstanceRows merged_instances(InstanceRows const& rows) {
  std::vector<nvml::ProcessRecord> records;
  for (auto const& [pid, bytes, instance] : rows) {
    records.push_back({.pid = pid,
                       .process_used_bytes = bytes,
                       .kinds = nvml::kCompute,
                       .gpu_instance_id = instance,
                       .compute_instance_id = instance});
  }
  nvml::merge_by_pid(records);
  InstanceRows result;
  for (auto const& record : records) {
    result.emplace_back(record.pid, record.process_used_bytes, record.gpu_instance_id);
  }
  return result;
}

py::tuple own_record(Rows const& rows, std::uint32_t pid, std::vector<std::uint32_t> outer_pids,
                     bool initial_namespace, std::optional<std::uint32_t> remembered_pid,
                     bool driver_unused, std::optional<bool> context_live,
                     std::optional<std::uint64_t> reserved_bytes, std::optional<bool> mig_enabled,
                     std::optional<bool> numbers_ours, std::optional<std::uint32_t> broker_pid) {
  SelfFacts facts;
  facts.names = {.pid = pid,
                 .procfs_pid = pid,
                 .outer_pids = std::move(outer_pids),
                 .initial_namespace = initial_namespace};
  facts.remembered_pid = remembered_pid;
  facts.driver_unused = driver_unused;
  facts.context_live = context_live;
  facts.mig_enabled = mig_enabled;
  facts.numbers_ours = numbers_ours;
  facts.broker_pid = broker_pid;
  facts.allocator_reserved_bytes = reserved_bytes;
  auto const own = find_own(list_of(rows), facts);
  return py::make_tuple(own.source, own.pid, own.own_bytes, own.reason);
}

bool refuted(Rows const& rows, std::uint32_t remembered_pid, std::optional<bool> context_live) {
  SelfFacts facts;
  facts.remembered_pid = remembered_pid;
  facts.context_live = context_live;
  return refutes_memory(list_of(rows), facts);
}

std::pair<std::optional<std::uint32_t>, std::string> broker_answer(py::bytes const& message) {
  auto answer = parse_broker_answer(static_cast<std::string_view>(message));
  return {answer.pid, std::move(answer.reason)};
}

py::tuple memory_v2(std::uint64_t total, std::uint64_t reserved, std::uint64_t free,
                    std::uint64_t used) {
  auto const reading = nvml::interpret(nvml::MemoryV2{.version = nvml::kMemoryV2Tag,
                                                      .total = total,
                                                      .reserved = reserved,
                                                      .free = free,
                                                      .used = used});
  if (!reading) return py::make_tuple(py::none(), py::none());
  return py::make_tuple(reading->device_used_bytes, reading->reserved_bytes);
}

/// Each step: the lists before and after, and by how much this process changed between them.
std::pair<std::optional<std::uint32_t>, bool> vote(
    std::vector<std::tuple<Rows, Rows, std::int64_t>> const& steps, int steps_left) {
  FingerprintVote votes;
  for (auto const& [before, after, change_bytes] : steps) {
    votes.add_step(list_of(before), list_of(after), change_bytes);
  }
  return {votes.winner(), votes.open(steps_left)};
}

std::vector<std::size_t> visible(std::string const& value, std::vector<std::string> const& uuids) {
  return match_visible(parse_visible(value), {uuids.begin(), uuids.end()});
}

bool same_device(py::bytes const& cuda_uuid, std::optional<std::string> cuda_pci,
                 std::string nvml_uuid, std::optional<std::string> nvml_pci,
                 std::optional<bool> mig_enabled) {
  cuda::Device device;
  device.pci_bus_id = std::move(cuda_pci);
  auto const text = static_cast<std::string_view>(cuda_uuid);
  if (!text.empty()) std::copy_n(text.begin(), 16, device.uuid.emplace().begin());
  nvml::SessionDevice other;
  other.uuid = std::move(nvml_uuid);
  other.pci_bus_id = std::move(nvml_pci);
  other.mig_enabled = mig_enabled;
  return is_device(device, other);
}

/// As a native caller reads them, into the same room each time; returns how many there are.
std::size_t read_repeatedly(py::handle which, unsigned rounds) {
  auto const selection = parse_selection(which);
  py::gil_scoped_release const release;
  std::vector<DeviceMemory> readings;
  for (unsigned round = 0; round < rounds; ++round) read_devices_into(selection, {}, readings);
  return readings.size();
}

std::optional<std::tuple<std::string, std::uint32_t, std::uint64_t>> stat_of(
    std::string const& text) {
  auto const stat = parse_stat(text);
  if (!stat) return std::nullopt;
  return std::tuple(std::string(1, stat->state), stat->parent_pid, stat->start_ticks);
}

/// The reading, and what is made of it: free_bytes, device_used_bytes.
py::tuple integrated_of(std::string const& meminfo, std::optional<std::uint64_t> cuda_free_bytes,
                        std::optional<std::uint64_t> cuda_total_bytes) {
  auto const memory = parse_integrated(meminfo, cuda_free_bytes, cuda_total_bytes);
  return py::make_tuple(memory, memory.free_bytes(), memory.device_used_bytes());
}

}  // namespace

void bind_device_rules(py::module_& m) {
  m.def("_probe_stride", &probe, py::arg("written"), py::kw_only(), py::arg("capacity_bytes"),
        py::arg("count"), py::arg("total_bytes") = py::none(), py::arg("mig_enabled") = py::none());
  m.def("_merge_by_pid", &merged, py::arg("rows"));
  m.def("_find_own", &own_record, py::arg("rows"), py::kw_only(), py::arg("pid"),
        py::arg("outer_pids") = std::vector<std::uint32_t>{}, py::arg("initial_namespace") = false,
        py::arg("remembered_pid") = py::none(), py::arg("driver_unused") = false,
        py::arg("context_live") = py::none(), py::arg("reserved_bytes") = py::none(),
        py::arg("mig_enabled") = false, py::arg("numbers_ours") = py::none(),
        py::arg("broker_pid") = py::none());
  m.def("_refutes_memory", &refuted, py::arg("rows"), py::kw_only(), py::arg("remembered_pid"),
        py::arg("context_live"));
  m.def("_parse_broker_answer", &broker_answer, py::arg("message"));
  m.def("_interpret_memory", &memory_v2, py::kw_only(), py::arg("total"), py::arg("reserved"),
        py::arg("free"), py::arg("used"));
  m.def("_fingerprint_vote", &vote, py::arg("steps"), py::arg("steps_left") = 0);
  m.def("_visible_devices", &visible, py::arg("value"), py::arg("uuids"));
  m.def("_merge_instances", &merged_instances, py::arg("rows"));
  m.def("_same_device", &same_device, py::kw_only(), py::arg("cuda_uuid"), py::arg("cuda_pci"),
        py::arg("nvml_uuid"), py::arg("nvml_pci"), py::arg("mig_enabled") = py::none());
  m.def("_read_repeatedly", &read_repeatedly, py::arg("which"), py::arg("rounds"));
  m.def("_parse_stat", &stat_of, py::arg("text"));
  m.def("_parse_integrated", &integrated_of, py::arg("meminfo"), py::kw_only(),
        py::arg("cuda_free_bytes") = py::none(), py::arg("cuda_total_bytes") = py::none());
  m.def("_read_coherent", &read_coherent, py::arg("numa_node"), py::arg("root") = "");
  m.def("_is_integrated_capability", &nvml::is_integrated_capability, py::arg("major"),
        py::arg("minor"));
}

}  // namespace memacct::bindings
