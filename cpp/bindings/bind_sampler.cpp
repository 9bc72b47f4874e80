// Binding of the sampler. Starting, stopping and copying are done without the GIL; its threads
// know nothing of Python.
#include <pybind11/stl.h>

#include "bindings.hpp"
#include "enums.hpp"
#include "memacct/recorded_rings.hpp"
#include "memacct/sampler.hpp"
#include "structs.hpp"
#include "trace_arrays.hpp"

namespace memacct::bindings {
namespace {

constexpr std::array<char const*, 4> kStateNames{{"new", "running", "stopped", "forked"}};
constexpr std::array<char const*, kSampleErrorKinds> kErrorKinds{
    {"unavailable", "read", "format", "driver", "other"}};

/// Its end waits for its threads, so it comes without the GIL.
struct DeleteWithoutGil {
  void operator()(Sampler* sampler) const {
    py::gil_scoped_release const release;
    delete sampler;
  }
};
using Holder = std::unique_ptr<Sampler, DeleteWithoutGil>;

SamplerRings record_into(std::string const& path, std::size_t host_capacity,
                         std::size_t device_capacity, std::uint64_t sync_period_ns) {
  return recorded_rings(Recorder::create(path, {.host_capacity = host_capacity,
                                                .device_capacity = device_capacity,
                                                .sync_period_ns = sync_period_ns,
                                                .memacct_version = MEMACCT_VERSION}));
}

Holder make_sampler(std::uint64_t host_period_ns, HostTier host, std::size_t host_capacity,
                    std::uint64_t device_period_ns, py::handle devices, std::size_t device_capacity,
                    double driver_budget_ratio, std::optional<std::string> const& record,
                    std::uint64_t sync_period_ns) {
  auto selection = parse_selection(devices);
  return Holder(
      new Sampler({.host_period_ns = host_period_ns,
                   .host = host,
                   .device_period_ns = device_period_ns,
                   .devices = std::move(selection),
                   .driver_budget_ratio = driver_budget_ratio},
                  record ? record_into(*record, host_capacity, device_capacity, sync_period_ns)
                         : make_rings(host_capacity, device_capacity)));
}

template <typename Read>
auto without_gil(Read const& read) {
  py::gil_scoped_release const release;
  return read();
}

py::dict errors_of(Sampler const& sampler) {
  auto const errors = without_gil([&] { return sampler.errors(); });
  py::dict counts;
  for (std::size_t i = 0; i < errors.counts.size(); ++i) {
    if (errors.counts[i] != 0) counts[kErrorKinds[i]] = errors.counts[i];
  }
  auto* const text =
      PyUnicode_DecodeUTF8(errors.last_text.data(),
                           static_cast<py::ssize_t>(errors.last_text.size()), "backslashreplace");
  if (text == nullptr) throw py::error_already_set();
  counts["last"] = py::reinterpret_steal<py::object>(text);
  return counts;
}

py::list devices_of(Sampler const& sampler) {
  py::list result;
  for (auto const& device : sampler.devices()) {
    result.append(py::make_tuple(device.uuid, device.name, device.index));
  }
  return result;
}

py::dict rows_of(Sampler const& sampler) {
  return trace_dict(without_gil([&] { return sampler.rows(); }));
}

}  // namespace

void bind_sampler(py::module_& m) {
  bind_struct(m, "StreamCounts", Field{"taken_count", &StreamCounts::taken_count},
              Field{"missed_count", &StreamCounts::missed_count},
              Field{"skipped_count", &StreamCounts::skipped_count},
              Field{"error_count", &StreamCounts::error_count},
              Field{"read_ns", &StreamCounts::read_ns}, Field{"cpu_ns", &StreamCounts::cpu_ns},
              Field{"late_max_ns", &StreamCounts::late_max_ns},
              Field{"period_ns", &StreamCounts::period_ns},
              Field{"period_in_effect_ns", &StreamCounts::period_in_effect_ns});
  py::class_<Sampler, Holder> type(m, "NativeSampler", py::is_final());
  using Release = py::call_guard<py::gil_scoped_release>;
  type.def(py::init(&make_sampler), py::arg("host_period_ns"), py::arg("host"),
           py::arg("host_capacity"), py::arg("device_period_ns"), py::arg("devices"),
           py::arg("device_capacity"), py::arg("driver_budget_ratio"),
           py::arg("record") = py::none(), py::arg("sync_period_ns") = 0)
      .def("start", &Sampler::start, Release())
      .def("stop", &Sampler::stop, Release())
      .def("state",
           [](Sampler const& self) { return kStateNames[static_cast<std::size_t>(self.state())]; })
      .def("started_ns", &Sampler::started_ns)
      .def("host_counts", &Sampler::host_counts, Release())
      .def("device_counts", &Sampler::device_counts, Release())
      .def("errors", &errors_of)
      .def("devices", &devices_of)
      .def("rows", &rows_of);
  type.attr("_fields") = py::tuple();
}

}  // namespace memacct::bindings
