// Binding of the cheap reading of mappings, and of its parts for tests.
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "memacct/page_regions.hpp"
#include "memacct/residency.hpp"
#include "structs.hpp"

namespace memacct::bindings {
namespace {

using Range = std::pair<std::uint64_t, std::uint64_t>;

std::optional<MappingTable> read_from(std::int32_t pid, int maps_fd, int pagemap_fd) {
  return read_residency(pid, ProcessFile(maps_fd, "maps"), ProcessFile(pagemap_fd, "pagemap"));
}

/// The rss of each mapping; the regions come in several lists, as a scan gives them.
std::vector<std::uint64_t> join_regions(std::vector<Range> const& mappings,
                                        std::vector<std::vector<Range>> const& scans) {
  std::vector<Mapping> rows;
  for (auto const& [start, end] : mappings) rows.push_back({.start = start, .end = end});
  std::size_t first = 0;
  for (auto const& scan : scans) {
    std::vector<PageRegion> regions;
    for (auto const& [start, end] : scan) regions.push_back({start, end, 0});
    first = add_resident(rows, first, regions);
  }
  std::vector<std::uint64_t> rss_bytes;
  for (auto const& row : rows) rss_bytes.push_back(row[Size::kRss]);
  return rss_bytes;
}

}  // namespace

void bind_residency(py::module_& m) {
  using Release = py::call_guard<py::gil_scoped_release>;
  m.def("read_residency", py::overload_cast<std::int32_t>(&read_residency), py::arg("pid") = 0,
        Release());
  m.def("read_residency_from", &read_from, py::arg("pid"), py::arg("maps_fd"),
        py::arg("pagemap_fd"), Release());
  m.def("join_regions", &join_regions, py::arg("mappings"), py::arg("scans"));
}

}  // namespace memacct::bindings
