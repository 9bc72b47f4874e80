// Binding of the limits: this process's control groups, its machine, and which of them binds.
#include "bindings.hpp"
#include "enums.hpp"
#include "memacct/cgroup.hpp"
#include "memacct/cgroup_text.hpp"
#include "memacct/limits.hpp"
#include "memacct/system.hpp"
#include "structs.hpp"

namespace memacct::bindings {
namespace {

void bind_cgroup(py::module_& m) {
  bind_struct(m, "CgroupEvents", Field{"low_count", &CgroupEvents::low_count},
              Field{"high_count", &CgroupEvents::high_count},
              Field{"max_count", &CgroupEvents::max_count},
              Field{"oom_count", &CgroupEvents::oom_count},
              Field{"oom_kill_count", &CgroupEvents::oom_kill_count},
              Field{"oom_group_kill_count", &CgroupEvents::oom_group_kill_count});
  bind_struct(m, "CgroupLevel", Field{"path", &CgroupLevel::path},
              Field{"limit_bytes", &CgroupLevel::limit_bytes},
              Field{"high_bytes", &CgroupLevel::high_bytes},
              Field{"usage_bytes", &CgroupLevel::usage_bytes},
              Field{"inactive_file_bytes", &CgroupLevel::inactive_file_bytes},
              Field{"active_file_bytes", &CgroupLevel::active_file_bytes},
              Field{"working_set_bytes", &CgroupLevel::working_set_bytes},
              Field{"uncached_usage_bytes", &CgroupLevel::uncached_usage_bytes},
              Field{"swap_usage_bytes", &CgroupLevel::swap_usage_bytes},
              Field{"swap_limit_bytes", &CgroupLevel::swap_limit_bytes},
              Field{"memsw_limit_bytes", &CgroupLevel::memsw_limit_bytes},
              Field{"memsw_usage_bytes", &CgroupLevel::memsw_usage_bytes},
              Field{"room_bytes", &CgroupLevel::room_bytes});
  bind_struct(m, "CgroupMemory", Field{"version", &CgroupMemory::version},
              Field{"path", &CgroupMemory::path}, Field{"limit_path", &CgroupMemory::limit_path},
              Field{"limit_bytes", &CgroupMemory::limit_bytes},
              Field{"high_bytes", &CgroupMemory::high_bytes},
              Field{"usage_bytes", &CgroupMemory::usage_bytes},
              Field{"inactive_file_bytes", &CgroupMemory::inactive_file_bytes},
              Field{"active_file_bytes", &CgroupMemory::active_file_bytes},
              Field{"working_set_bytes", &CgroupMemory::working_set_bytes},
              Field{"uncached_usage_bytes", &CgroupMemory::uncached_usage_bytes},
              Field{"swap_usage_bytes", &CgroupMemory::swap_usage_bytes},
              Field{"hidden_limit_bytes", &CgroupMemory::hidden_limit_bytes},
              Field{"levels", &CgroupMemory::levels}, Field{"pressure", &CgroupMemory::pressure},
              Field{"events", &CgroupMemory::events});
}

void bind_system(py::module_& m) {
  bind_struct(m, "Pressure", Field{"some_avg10_ratio", &Pressure::some_avg10_ratio},
              Field{"some_avg60_ratio", &Pressure::some_avg60_ratio},
              Field{"some_avg300_ratio", &Pressure::some_avg300_ratio},
              Field{"some_stalled_ns", &Pressure::some_stalled_ns},
              Field{"full_avg10_ratio", &Pressure::full_avg10_ratio},
              Field{"full_avg60_ratio", &Pressure::full_avg60_ratio},
              Field{"full_avg300_ratio", &Pressure::full_avg300_ratio},
              Field{"full_stalled_ns", &Pressure::full_stalled_ns});
  bind_struct(
      m, "NumaNode", Field{"node", &NumaNode::node}, Field{"total_bytes", &NumaNode::total_bytes},
      Field{"free_bytes", &NumaNode::free_bytes},
      Field{"inactive_file_bytes", &NumaNode::inactive_file_bytes},
      Field{"active_file_bytes", &NumaNode::active_file_bytes},
      Field{"anon_bytes", &NumaNode::anon_bytes}, Field{"shmem_bytes", &NumaNode::shmem_bytes});
  bind_struct(m, "HugetlbPool", Field{"page_bytes", &HugetlbPool::page_bytes},
              Field{"total_count", &HugetlbPool::total_count},
              Field{"free_count", &HugetlbPool::free_count},
              Field{"reserved_count", &HugetlbPool::reserved_count},
              Field{"surplus_count", &HugetlbPool::surplus_count});
  bind_struct(m, "SystemMemory", Field{"total_bytes", &SystemMemory::total_bytes},
              Field{"free_bytes", &SystemMemory::free_bytes},
              Field{"available_bytes", &SystemMemory::available_bytes},
              Field{"cached_bytes", &SystemMemory::cached_bytes},
              Field{"shmem_bytes", &SystemMemory::shmem_bytes},
              Field{"dirty_bytes", &SystemMemory::dirty_bytes},
              Field{"swap_total_bytes", &SystemMemory::swap_total_bytes},
              Field{"swap_free_bytes", &SystemMemory::swap_free_bytes},
              Field{"hugetlb_bytes", &SystemMemory::hugetlb_bytes},
              Field{"pressure", &SystemMemory::pressure}, Field{"nodes", &SystemMemory::nodes},
              Field{"hugetlb_pools", &SystemMemory::hugetlb_pools});
}

void bind_texts(py::module_& m) {
  m.def("parse_meminfo", &parsed<parse_meminfo>, py::arg("text"));
  m.def("parse_node_meminfo", &parsed<parse_node_meminfo, std::uint32_t, std::string>,
        py::arg("text"), py::arg("node"), py::arg("source"));
  m.def("parse_number_list", &parsed<parse_number_list, std::string>, py::arg("text"),
        py::arg("source"));
  m.def("parse_pressure", &parsed<parse_pressure, std::string>, py::arg("text"), py::arg("source"));
  m.def("parse_hugepages_name", &parsed<parse_hugepages_name, std::string>, py::arg("name"),
        py::arg("source"));
  m.def("parse_cgroup_number", &parsed<parse_cgroup_number, std::string>, py::arg("text"),
        py::arg("source"));
  m.def("parse_cgroup_events", &parsed<parse_cgroup_events, std::string>, py::arg("text"),
        py::arg("source"));
}

}  // namespace

void bind_limits(py::module_& m) {
  bind_system(m);
  bind_cgroup(m);
  bind_struct(m, "MemoryLimits",
              Field{"effective_limit_bytes", &MemoryLimits::effective_limit_bytes},
              Field{"effective_limit_source", &MemoryLimits::effective_limit_source},
              Field{"effective_limit_path", &MemoryLimits::effective_limit_path},
              Field{"headroom_bytes", &MemoryLimits::headroom_bytes},
              Field{"headroom_source", &MemoryLimits::headroom_source},
              Field{"headroom_path", &MemoryLimits::headroom_path},
              Field{"headroom_known", &MemoryLimits::headroom_known});
  bind_texts(m);
  using Release = py::call_guard<py::gil_scoped_release>;
  m.def("read_cgroup", &read_cgroup, py::arg("root") = "", py::arg("pid") = 0, Release());
  m.def("read_system", &read_system, py::arg("root") = "", Release());
  m.def("find_limits", &find_limits, py::arg("cgroup"), py::arg("system"));
}

}  // namespace memacct::bindings
