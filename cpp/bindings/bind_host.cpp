// Binding of the host sources: this process.
#include "bindings.hpp"
#include "enums.hpp"
#include "memacct/host.hpp"
#include "memacct/proc_text.hpp"
#include "memacct/rss_error.hpp"
#include "structs.hpp"

namespace memacct::bindings {
namespace {

void bind_host_memory(py::module_& m) {
  bind_struct(m, "HostMemory", Field{"tier", &HostMemory::tier}, Field{"pid", &HostMemory::pid},
              Field{"vms_bytes", &HostMemory::vms_bytes},
              Field{"rss_bytes", &HostMemory::rss_bytes},
              Field{"rss_error_bound_bytes", &HostMemory::rss_error_bound_bytes},
              Field{"shared_bytes", &HostMemory::shared_bytes},
              Field{"rss_anon_bytes", &HostMemory::rss_anon_bytes},
              Field{"rss_file_bytes", &HostMemory::rss_file_bytes},
              Field{"rss_shmem_bytes", &HostMemory::rss_shmem_bytes},
              Field{"swap_bytes", &HostMemory::swap_bytes},
              Field{"hugetlb_bytes", &HostMemory::hugetlb_bytes},
              Field{"locked_bytes", &HostMemory::locked_bytes},
              Field{"pinned_bytes", &HostMemory::pinned_bytes},
              Field{"peak_rss_bytes", &HostMemory::peak_rss_bytes},
              Field{"peak_vms_bytes", &HostMemory::peak_vms_bytes},
              Field{"page_tables_bytes", &HostMemory::page_tables_bytes},
              Field{"held_bytes", &HostMemory::held_bytes},
              Field{"reclaimable_bytes", &HostMemory::reclaimable_bytes},
              Field{"rss_exact_bytes", &HostMemory::rss_exact_bytes},
              Field{"pss_bytes", &HostMemory::pss_bytes},
              Field{"pss_anon_bytes", &HostMemory::pss_anon_bytes},
              Field{"pss_file_bytes", &HostMemory::pss_file_bytes},
              Field{"pss_shmem_bytes", &HostMemory::pss_shmem_bytes},
              Field{"uss_bytes", &HostMemory::uss_bytes},
              Field{"shared_clean_bytes", &HostMemory::shared_clean_bytes},
              Field{"shared_dirty_bytes", &HostMemory::shared_dirty_bytes},
              Field{"private_clean_bytes", &HostMemory::private_clean_bytes},
              Field{"private_dirty_bytes", &HostMemory::private_dirty_bytes},
              Field{"anonymous_bytes", &HostMemory::anonymous_bytes},
              Field{"swap_pss_bytes", &HostMemory::swap_pss_bytes});
}

void bind_texts(py::module_& m) {
  bind_struct(m, "Statm", Field{"vms_bytes", &Statm::vms_bytes},
              Field{"rss_bytes", &Statm::rss_bytes}, Field{"shared_bytes", &Statm::shared_bytes});
  bind_struct(
      m, "Status", Field{"vms_bytes", &Status::vms_bytes}, Field{"rss_bytes", &Status::rss_bytes},
      Field{"rss_anon_bytes", &Status::rss_anon_bytes},
      Field{"rss_file_bytes", &Status::rss_file_bytes},
      Field{"rss_shmem_bytes", &Status::rss_shmem_bytes}, Field{"swap_bytes", &Status::swap_bytes},
      Field{"hugetlb_bytes", &Status::hugetlb_bytes}, Field{"locked_bytes", &Status::locked_bytes},
      Field{"pinned_bytes", &Status::pinned_bytes},
      Field{"peak_rss_bytes", &Status::peak_rss_bytes},
      Field{"peak_vms_bytes", &Status::peak_vms_bytes},
      Field{"page_tables_bytes", &Status::page_tables_bytes},
      Field{"thread_count", &Status::thread_count});
  bind_struct(m, "SmapsRollup", Field{"rss_bytes", &SmapsRollup::rss_bytes},
              Field{"pss_bytes", &SmapsRollup::pss_bytes},
              Field{"shared_clean_bytes", &SmapsRollup::shared_clean_bytes},
              Field{"shared_dirty_bytes", &SmapsRollup::shared_dirty_bytes},
              Field{"private_clean_bytes", &SmapsRollup::private_clean_bytes},
              Field{"private_dirty_bytes", &SmapsRollup::private_dirty_bytes},
              Field{"pss_anon_bytes", &SmapsRollup::pss_anon_bytes},
              Field{"pss_file_bytes", &SmapsRollup::pss_file_bytes},
              Field{"pss_shmem_bytes", &SmapsRollup::pss_shmem_bytes},
              Field{"anonymous_bytes", &SmapsRollup::anonymous_bytes},
              Field{"swap_pss_bytes", &SmapsRollup::swap_pss_bytes},
              Field{"private_hugetlb_bytes", &SmapsRollup::private_hugetlb_bytes});
}

std::optional<std::uint64_t> bound_of(std::string const& kernel_release, std::uint64_t cpu_count,
                                      std::uint64_t page_bytes,
                                      std::optional<std::uint64_t> thread_count) {
  return rss_error_bound(rss_counting(kernel_release), cpu_count, page_bytes, thread_count);
}

void bind_parsers(py::module_& m) {
  m.def("rss_error_bound", &bound_of, py::arg("kernel_release"), py::arg("cpu_count"),
        py::arg("page_bytes"), py::arg("thread_count") = py::none());
  m.def("parse_statm", &parsed<parse_statm, std::uint64_t>, py::arg("text"), py::arg("page_bytes"));
  m.def("parse_status", &parsed<parse_status>, py::arg("text"));
  m.def("parse_smaps_rollup", &parsed<parse_smaps_rollup>, py::arg("text"));
  m.def("host_from_status", &host_from_status, py::arg("status"));
  m.def("host_from_rollup", &host_from_rollup, py::arg("status"), py::arg("rollup"));
  m.def("host_from_mappings", &host_from_mappings, py::arg("status"), py::arg("mappings"));
  m.def("read_status", &read_status);
}

}  // namespace

void bind_host(py::module_& m) {
  bind_texts(m);
  bind_host_memory(m);
  bind_parsers(m);
  using Release = py::call_guard<py::gil_scoped_release>;
  m.def("read_host", &read_host, py::arg("tier") = HostTier::kBreakdown, Release());
}

}  // namespace memacct::bindings
