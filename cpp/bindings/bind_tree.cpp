// Binding of the process tree: any process's memory, and that of its descendants.
#include <limits>

#include "bindings.hpp"
#include "enums.hpp"
#include "memacct/process_title.hpp"
#include "memacct/tree_snapshot.hpp"
#include "structs.hpp"

namespace memacct::bindings {

template <>
struct EnumNames<ProcessState> {
  static constexpr std::array<std::pair<ProcessState, char const*>, 7> value{
      {{ProcessState::kWhole, "read"},
       {ProcessState::kPartial, "partial"},
       {ProcessState::kDenied, "denied"},
       {ProcessState::kGone, "gone"},
       {ProcessState::kZombie, "zombie"},
       {ProcessState::kKernel, "kernel"},
       {ProcessState::kTwin, "shared"}}};
};

}  // namespace memacct::bindings

template <>
struct pybind11::detail::type_caster<memacct::ProcessState>
    : memacct::bindings::EnumCaster<memacct::ProcessState> {};

namespace memacct::bindings {
namespace {

std::uint32_t parse_pid(py::handle value) {
  if (!py::isinstance<py::int_>(value) || py::isinstance<py::bool_>(value)) {
    throw py::type_error("pid must be an int, a sequence of ints or None, not " +
                         py::cast<std::string>(py::repr(value)));
  }
  int overflow = 0;
  auto const number = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
  if (overflow != 0 || number < 1 || number > std::numeric_limits<std::int32_t>::max()) {
    throw py::value_error("no process has the number " + py::cast<std::string>(py::str(value)));
  }
  return static_cast<std::uint32_t>(number);
}

/// The roots that `pid` names; none: this process.
std::vector<std::uint32_t> parse_roots(py::handle pid) {
  if (pid.is_none()) return {};
  if (!py::isinstance<py::sequence>(pid) || py::isinstance<py::str>(pid)) return {parse_pid(pid)};
  std::vector<std::uint32_t> roots;
  for (auto const each : pid) roots.push_back(parse_pid(each));
  if (roots.empty()) throw py::value_error("pid is an empty sequence");
  return roots;
}

HostTier parse_tree_tier(std::string const& name) {
  auto const tier = enum_from_name<HostTier>(name);
  if (tier == HostTier::kCounters || tier == HostTier::kBreakdown || tier == HostTier::kRollup) {
    return *tier;
  }
  throw py::value_error("host must be one of 'counters', 'breakdown', 'rollup', not '" + name +
                        "'");
}

TreeSnapshot read_tree(py::handle pid, std::string const& host) {
  auto roots = parse_roots(pid);
  auto const tier = parse_tree_tier(host);
  py::gil_scoped_release const release;
  return snapshot_tree(std::move(roots), tier);
}

constexpr char const* kSnapshotTreeDoc =
    "Reads the memory of processes and of all their descendants; shared pages count once.\n\n"
    "Args:\n"
    "    pid: the root: an int, or several in a sequence; None: this process. Any process that\n"
    "        may be read, by its number in this process's /proc.\n"
    "    host: how each process is read: 'counters' (statm), 'breakdown' (status) or 'rollup'\n"
    "        (also smaps_rollup). Only 'rollup' tells pss and uss; the sums of the other two\n"
    "        count a page as often as it is mapped.\n\n"
    "Returns:\n"
    "    A TreeSnapshot; str() of it is a table. Processes that ended or denied access while\n"
    "    they were read are in it with a state that says so; complete is then False, and the\n"
    "    sums are lower bounds. complete is False, too, where /proc lists a process that may not\n"
    "    be looked at (hidepid=1): it may be one of the tree or not. The processes are read one\n"
    "    after the other, over span_ns.\n\n"
    "Raises:\n"
    "    ValueError: there is no such process, it is a thread, or no such tier.\n"
    "    TypeError: pid is not a number.\n"
    "    SourceUnavailableError: a root may not be looked at (hidepid), or there is no /proc.\n"
    "    SourceReadError, SourceFormatError: a file is there, but was not read (out of file\n"
    "        descriptors) or understood.\n\n"
    "Cost:\n"
    "    ~10 us for each process of the machine and ~40 us for each of the tree; 'rollup' also\n"
    "    walks their page tables, ~10 ms per GiB of 4 KiB pages. All without the GIL.\n\n"
    "Source:\n"
    "    /proc/<pid>/{stat,cmdline,statm,status,smaps_rollup}; kcmp(2).\n\n"
    "Note:\n"
    "    A process whose parent has ended belongs to init or to a subreaper, and to the tree no\n"
    "    longer.";

void bind_process(py::module_& m) {
  bind_struct(m, "TreeMember", Field{"pid", &TreeMember::pid},
              Field{"parent_pid", &TreeMember::parent_pid},
              Field{"start_ticks", &TreeMember::start_ticks}, Field{"depth", &TreeMember::depth});
  bind_struct(m, "ProcessMemory", Field{"pid", &ProcessMemory::pid},
              Field{"parent_pid", &ProcessMemory::parent_pid},
              Field{"start_ticks", &ProcessMemory::start_ticks},
              Field{"depth", &ProcessMemory::depth}, Field{"state", &ProcessMemory::state},
              Field{"reason", &ProcessMemory::reason}, Field{"name", &ProcessMemory::name},
              Field{"title", &ProcessMemory::title}, Field{"role", &ProcessMemory::role},
              Field{"rank", &ProcessMemory::rank}, Field{"host", &ProcessMemory::host},
              Field{"private_hugetlb_bytes", &ProcessMemory::private_hugetlb_bytes},
              Field{"freed_bounds_bytes", &ProcessMemory::freed_bounds_bytes});
}

void bind_sums(py::module_& m) {
  bind_struct(
      m, "TreeSnapshot", Field{"taken_ns", &TreeSnapshot::taken_ns},
      Field{"span_ns", &TreeSnapshot::span_ns}, Field{"tier", &TreeSnapshot::tier},
      Field{"root_pids", &TreeSnapshot::root_pids}, Field{"processes", &TreeSnapshot::processes},
      Field{"processes_count", &TreeSnapshot::processes_count},
      Field{"unread_count", &TreeSnapshot::unread_count},
      Field{"complete", &TreeSnapshot::complete}, Field{"rss_bytes", &TreeSnapshot::rss_bytes},
      Field{"pss_bytes", &TreeSnapshot::pss_bytes},
      Field{"pss_anon_bytes", &TreeSnapshot::pss_anon_bytes},
      Field{"pss_file_bytes", &TreeSnapshot::pss_file_bytes},
      Field{"pss_shmem_bytes", &TreeSnapshot::pss_shmem_bytes},
      Field{"uss_bytes", &TreeSnapshot::uss_bytes}, Field{"swap_bytes", &TreeSnapshot::swap_bytes},
      Field{"swap_pss_bytes", &TreeSnapshot::swap_pss_bytes},
      Field{"private_hugetlb_bytes", &TreeSnapshot::private_hugetlb_bytes},
      Field{"freed_bounds_bytes", &TreeSnapshot::freed_bounds_bytes})
      .def("__str__",
           [](py::handle self) { return py::module_::import("memacct._tree").attr("table")(self); })
      .def("__sub__", [](py::handle after, py::handle before) {
        return py::module_::import("memacct._tree").attr("difference")(after, before);
      });
}

/// The two steps of snapshot_tree(), and its pure rules, for tests.
void bind_steps(py::module_& m) {
  using Release = py::call_guard<py::gil_scoped_release>;
  m.def(
      "_find_members",
      [](std::vector<std::uint32_t> const& roots) { return find_members(roots).members; },
      py::arg("roots"), Release());
  m.def(
      "_read_members",
      [](std::vector<TreeMember> members, HostTier tier) {
        return read_members(
            {.members = std::move(members), .settled = true, .anonymous_pages_own = false}, tier);
      },
      py::arg("members"), py::arg("tier"), Release());
  m.def("_freed_bounds", &freed_bounds, py::arg("host"));
  m.def(
      "_title_from_cmdline",
      [](py::bytes const& text) { return title_from_cmdline(static_cast<std::string>(text)); },
      py::arg("text"));
  m.def(
      "_role_of",
      [](std::string const& title, std::string const& name) {
        auto const found = role_of(title, name);
        return std::make_pair(found.role, found.rank);
      },
      py::arg("title"), py::arg("name") = "");
}

}  // namespace

void bind_tree(py::module_& m) {
  bind_process(m);
  bind_sums(m);
  bind_steps(m);
  m.def("snapshot_tree", &read_tree, py::arg("pid") = py::none(), py::kw_only(),
        py::arg("host") = "rollup", kSnapshotTreeDoc);
}

}  // namespace memacct::bindings
