// Binding of what a timeline does at every entry.
#include "bindings.hpp"
#include "memacct/snapshot.hpp"
#include "memacct/timeline_line.hpp"

namespace memacct::bindings {
namespace {

std::string host_terms(Snapshot const& reading) { return host_terms_json(reading.host); }

std::int64_t append(int fd, std::uint64_t device, std::uint64_t inode, py::bytes const& line) {
  auto const text = static_cast<std::string_view>(line);  // Python's bytes stay where they are
  py::gil_scoped_release const release;                   // a disk may be slow
  return append_line(fd, device, inode, text);
}

}  // namespace

void bind_timeline(py::module_& m) {
  m.def("host_terms_json", &host_terms, py::arg("reading"));
  m.def("append_line", &append, py::arg("fd"), py::arg("device"), py::arg("inode"),
        py::arg("line"));
}

}  // namespace memacct::bindings
