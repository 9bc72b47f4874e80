// Binding of the recorder's reader, and of a recorder to write with.
#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "bindings.hpp"
#include "memacct/host_record.hpp"
#include "memacct/recorder.hpp"
#include "memacct/recording.hpp"
#include "memacct/recording_file.hpp"
#include "memacct/trace_rows.hpp"
#include "trace_arrays.hpp"

namespace memacct::bindings {
namespace {

using namespace py::literals;  // NOLINT(google-build-using-namespace): the _a of dict()

// The boundary is a bytes object and plain data: files come from anywhere, and are read rarely.

py::object text(std::string const& value) {
  auto* const decoded = PyUnicode_DecodeUTF8(value.data(), static_cast<py::ssize_t>(value.size()),
                                             "backslashreplace");
  if (decoded == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(decoded);
}

py::dict ring_counts(RecordedRing const& ring) {
  auto const last = ring.records.empty() ? 0 : ring.records.back().number;
  return py::dict("capacity"_a = ring.capacity, "records_count"_a = ring.records.size(),
                  "last_number"_a = last, "overwritten_count"_a = ring.overwritten_count,
                  "missing_count"_a = ring.missing_count, "torn_count"_a = ring.torn_count,
                  "damaged_count"_a = ring.damaged_count);
}

struct AddRow {
  TraceRows& rows;
  void operator()(HostRecord const& record) const { rows.host.push_back(row_of(record)); }
  void operator()(DeviceRecord const& record) const { rows.devices.push_back(row_of(record)); }
  void operator()(ProcessRecord const& record) const { rows.processes.push_back(row_of(record)); }
  void operator()(NoteRecord const& record) const { rows.notes.push_back(record); }
};

/// The tables of all rings; kept notes come first.
TraceRows rows_of(Recording const& recording) {
  TraceRows rows;
  for (auto const& ring : recording.rings) {
    rows.overwritten_count += ring.overwritten_count;
    rows.damaged_count += ring.damaged_count;
    for (auto const& slot : ring.records) {
      if (auto const record = unpack(slot.payload)) {
        std::visit(AddRow{rows}, *record);
      } else {
        ++rows.unknown_count;
      }
    }
  }
  // A machine that was lost may have left processes without the reading that they belong to.
  drop_headless(rows);
  return rows;
}

py::dict parse(py::bytes const& bytes, std::string const& source) {
  auto const view = static_cast<std::string_view>(bytes);
  Recording recording;
  TraceRows rows;
  {
    py::gil_scoped_release const release;
    recording = parse_recording(std::as_bytes(std::span(view)), source);
    rows = rows_of(recording);
  }
  auto const unknown_count = rows.unknown_count;
  py::list rings;
  for (auto const& ring : recording.rings) rings.append(ring_counts(ring));
  return py::dict(
      "pid"_a = recording.pid, "start_ticks"_a = recording.start_ticks,
      "pid_namespace"_a = recording.pid_namespace, "boot_id"_a = text(recording.boot_id),
      "host"_a = text(recording.host), "memacct_version"_a = text(recording.memacct_version),
      "command_line"_a = text(recording.command_line), "started_ns"_a = recording.started_ns,
      "started_wall_ns"_a = recording.started_wall_ns, "ended_ns"_a = recording.ended_ns,
      "ended_wall_ns"_a = recording.ended_wall_ns, "cut_off"_a = recording.cut_off,
      "unknown_count"_a = unknown_count, "rings"_a = rings, "rows"_a = trace_dict(std::move(rows)));
}

/// A recorder that Python writes to, record by record: for tests and for small programs. A
/// sampler's threads write to the rings themselves.
class WritingRecorder {
 public:
  WritingRecorder(std::string path, std::size_t host_capacity, std::size_t device_capacity,
                  std::uint64_t sync_period_ns)
      : recorder_(Recorder::create(std::move(path), {.host_capacity = host_capacity,
                                                     .device_capacity = device_capacity,
                                                     .sync_period_ns = sync_period_ns,
                                                     .memacct_version = MEMACCT_VERSION})),
        host_(recorder_->ring(RecordingRing::kHost), recorder_->salt()),
        devices_(recorder_->ring(RecordingRing::kDevices), recorder_->salt()) {}

  /// @returns its number; 0 in a forked child.
  std::uint64_t write_host(HostMemory const& host, std::uint64_t taken_ns) {
    return write(host_, pack(host_record(host, taken_ns, 0)));
  }
  std::uint64_t write_note(std::uint64_t taken_ns, int kind, std::uint16_t number,
                           std::uint64_t value, std::string const& text) {
    return write(devices_, pack(note(taken_ns, kind, number, value, text)));
  }
  bool keep_note(std::uint64_t taken_ns, int kind, std::uint16_t number, std::uint64_t value,
                 std::string const& text) {
    return recorder_->keep(note(taken_ns, kind, number, value, text));
  }
  int sync() { return recorder_->sync(); }
  void finish() { recorder_->finish(); }
  [[nodiscard]] std::string const& path() const { return recorder_->path(); }

 private:
  static NoteRecord note(std::uint64_t taken_ns, int kind, std::uint16_t number,
                         std::uint64_t value, std::string const& text) {
    if (kind < 0 || kind > static_cast<int>(NoteKind::kGap)) throw py::value_error("no such kind");
    return {.taken_ns = taken_ns,
            .kind = static_cast<NoteKind>(kind),
            .number = number,
            .value = value,
            .text = std::string_view(text)};
  }
  std::uint64_t write(RingWriter& writer, RingPayload const& payload) {
    std::lock_guard const guard(mutex_);  // held for no Python call: without the GIL, or briefly
    return recorder_->ours() ? writer.write(payload) : 0;
  }

  std::shared_ptr<Recorder> recorder_;
  RingWriter host_;
  RingWriter devices_;
  std::mutex mutex_;
};

}  // namespace

void bind_recording(py::module_& m) {
  m.def("parse_recording", &parse, py::arg("data"), py::arg("source"));
  m.def("is_being_recorded", &is_being_recorded, py::arg("path"),
        py::call_guard<py::gil_scoped_release>());
  py::class_<WritingRecorder>(m, "NativeRecorder", py::is_final())
      .def(py::init<std::string, std::size_t, std::size_t, std::uint64_t>(), py::arg("path"),
           py::arg("host_capacity"), py::arg("device_capacity"), py::arg("sync_period_ns") = 0)
      .def("write_host", &WritingRecorder::write_host, py::arg("host"), py::arg("taken_ns"))
      .def("write_note", &WritingRecorder::write_note, py::arg("taken_ns"), py::arg("kind"),
           py::arg("number"), py::arg("value"), py::arg("text"))
      .def("keep_note", &WritingRecorder::keep_note, py::arg("taken_ns"), py::arg("kind"),
           py::arg("number"), py::arg("value"), py::arg("text"))
      .def("sync", &WritingRecorder::sync, py::call_guard<py::gil_scoped_release>())
      .def("finish", &WritingRecorder::finish, py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("path", &WritingRecorder::path)
      .attr("_fields") = py::tuple();
}

}  // namespace memacct::bindings
