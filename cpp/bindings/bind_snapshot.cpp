// Binding of the snapshot: the one function on the measured path, so its arguments are taken
// apart by hand.
#include <algorithm>
#include <utility>

#include "allocator_reader.hpp"
#include "bindings.hpp"
#include "enums.hpp"
#include "memacct/clock.hpp"
#include "memacct/snapshot.hpp"
#include "structs.hpp"

namespace memacct::bindings {
namespace {

// ------------------------------------------------------------ arguments of snapshot()

enum Parameter : std::size_t { kHost, kDevices, kLimits, kParameterCount };
constexpr std::size_t kPositionalCount = 2;
constexpr std::array<char const*, kParameterCount> kNames{"host", "devices", "limits"};

/// Strings that calls are compared with, interned as the compiler interns those in the
/// caller's source: nearly every comparison is one of pointers.
struct Interned {
  std::array<PyObject*, kParameterCount> names{};
  std::array<std::pair<PyObject*, HostTier>, EnumNames<HostTier>::value.size()> tiers{};
  PyObject* auto_{};
};
Interned interned;  // set once, by bind_snapshot; the references are never given back

bool same(PyObject* a, PyObject* b) {
  return a == b || (PyUnicode_Check(a) != 0 && PyUnicode_Compare(a, b) == 0);
}

using Arguments = std::array<PyObject*, kParameterCount>;  // nullptr: not given

/// @throws py::type_error as a Python function with this signature would.
Arguments bind_arguments(PyObject* const* args, py::ssize_t positional_count, PyObject* names) {
  Arguments result{};
  auto const positional = static_cast<std::size_t>(positional_count);
  if (positional > kPositionalCount) {
    throw py::type_error("snapshot() takes at most 2 positional arguments (" +
                         std::to_string(positional) + " given)");
  }
  std::copy_n(args, positional, result.begin());
  auto const keyword_count =
      names == nullptr ? 0 : static_cast<std::size_t>(PyTuple_GET_SIZE(names));
  for (std::size_t i = 0; i < keyword_count; ++i) {
    auto* const name = PyTuple_GET_ITEM(names, static_cast<py::ssize_t>(i));
    std::size_t index = 0;
    while (index < kParameterCount && !same(name, interned.names[index])) ++index;
    if (index == kParameterCount) {
      throw py::type_error("snapshot() got an unexpected keyword argument " +
                           py::cast<std::string>(py::repr(name)));
    }
    if (result[index] != nullptr) {
      throw py::type_error(std::string("snapshot() got multiple values for argument '") +
                           kNames[index] + "'");
    }
    result[index] = args[positional + i];
  }
  return result;
}

HostTier parse_tier(PyObject* value) {
  if (value == nullptr) return HostTier::kBreakdown;
  for (auto const& [name, tier] : interned.tiers) {
    if (value == name) return tier;
  }
  for (auto const& [name, tier] : interned.tiers) {
    if (same(value, name)) return tier;
  }
  throw py::value_error(
      "host must be one of 'counters', 'breakdown', 'rollup', 'residency', "
      "'mappings', not " +
      py::cast<std::string>(py::repr(value)));
}

// ------------------------------------------------------------ snapshot()

bool is_cheap(HostTier tier) { return tier == HostTier::kCounters || tier == HostTier::kBreakdown; }

bool parse_limits(PyObject* value, HostTier tier) {
  if (value == nullptr || value == Py_None) return tier == HostTier::kRollup;
  auto const truth = PyObject_IsTrue(value);
  if (truth < 0) throw py::error_already_set();
  return truth == 1;
}

std::optional<DeviceSelection> parse_devices(PyObject* value) {
  if (value == nullptr || value == interned.auto_) return DeviceSet::kAuto;
  if (value == Py_None) return std::nullopt;
  return parse_selection(value);
}

/// A thread that empties the cache between the two readings makes an allocator's claim look
/// false. If its account has not changed since, it is; else both are read again.
constexpr int kClaimReadings = 2;

bool claims_too_much(Snapshot const& snapshot) {
  if (!snapshot.devices) return false;
  return std::any_of(snapshot.devices->begin(), snapshot.devices->end(),
                     [](auto const& device) { return device.allocator_inconsistent == true; });
}

using Allocators = std::optional<std::vector<AllocatorMemory>>;
bool same_claims(Allocators const& one, Allocators const& other) {
  return one && other &&
         std::equal(one->begin(), one->end(), other->begin(), other->end(),
                    [](auto const& a, auto const& b) {
                      return a.reserved_bytes == b.reserved_bytes &&
                             a.unmapped_bytes == b.unmapped_bytes;
                    });
}

template <typename Read>
auto without_gil(Read const& read) {
  py::gil_scoped_release const release;
  return read();
}

/// Reads with the GIL or without it. statm and status cost a few microseconds: less than to
/// take the GIL back from a thread that got it meanwhile (up to 5 ms), which would be in
/// span_ns besides. The page walk of the other tiers, the dozen files of the limits and the
/// driver take longer, and other threads must run.
std::unique_ptr<Snapshot> take(SnapshotRequest const& request) {
  auto const with_devices = reads_devices(request);
  auto const taken_ns = monotonic_ns();
  auto allocators = with_devices ? read_allocators() : std::nullopt;
  auto const read = [&] {
    // Not make_unique: this way the snapshot is built where it stays.
    return std::unique_ptr<Snapshot>(
        new Snapshot(take_snapshot(request, with_devices, taken_ns, std::move(allocators))));
  };
  if (!with_devices && !request.limits && is_cheap(request.host)) return read();
  auto result = without_gil(read);
  for (int i = 0; i < kClaimReadings && claims_too_much(*result); ++i) {
    allocators = read_allocators();
    if (same_claims(allocators, result->torch)) break;
    result = without_gil(read);
  }
  return result;
}

PyObject* snapshot(PyObject* /*module*/, PyObject* const* args, py::ssize_t positional_count,
                   PyObject* names) {
  try {
    auto const arguments = bind_arguments(args, positional_count, names);
    auto const tier = parse_tier(arguments[kHost]);
    auto result = take({.host = tier,
                        .limits = parse_limits(arguments[kLimits], tier),
                        .devices = parse_devices(arguments[kDevices])});
    return py::cast(std::move(result)).release().ptr();
  } catch (...) {
    set_python_error();
    return nullptr;
  }
}

constexpr char const* kSnapshotDoc =
    "snapshot($module, /, host='breakdown', devices='auto', *, limits=None)\n--\n\n"
    "Reads this process's memory, and that of its devices, at one barrier.\n\n"
    "Args:\n"
    "    host: 'counters' (statm: vms, rss, shared), 'breakdown' (status: anonymous, file,\n"
    "        shmem, swap, hugetlb, locked, pinned, peaks), 'rollup' (also smaps_rollup: pss,\n"
    "        uss, exact rss), 'residency' (also what of each mapping is resident, from the page\n"
    "        tables alone; Linux 6.11) or 'mappings' (also the whole of smaps: every size of\n"
    "        every mapping, and their exact sums).\n"
    "    devices: 'auto' (those on which this process holds a CUDA context), 'all' that NVML\n"
    "        lists, CUDA ordinals and UUIDs, or None.\n"
    "    limits: whether to read the control group and the machine too; default: with 'rollup'.\n\n"
    "Returns:\n"
    "    A Snapshot. Read in this order: clock, allocators (if devices are read: PyTorch's, where\n"
    "    it uses CUDA already), host, limits, devices, clock. What is not on this machine is None. "
    "host.tier says\n"
    "    what was read: 'mappings' where the kernel does not offer the residency, 'breakdown'\n"
    "    without smaps or smaps_rollup.\n\n"
    "Raises:\n"
    "    SourceReadError, SourceFormatError: a file is there, but was not read or understood.\n"
    "    DriverError: a driver call failed.\n"
    "    ValueError: no such tier or device.\n\n"
    "Cost:\n"
    "    'counters' and 'breakdown': one system call with the GIL held, about 1.5 and 10 us.\n"
    "    'rollup': the page tables are walked, about 10 ms per GiB of 4 KiB pages. 'residency': a\n"
    "    third of that. 'mappings': that, and 2 us a mapping. All three, limits and devices are\n"
    "    read without the GIL.";

PyMethodDef snapshot_method{"snapshot",
                            reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&snapshot)),
                            METH_FASTCALL | METH_KEYWORDS, kSnapshotDoc};

void intern_strings() {
  for (std::size_t i = 0; i < kParameterCount; ++i) {
    interned.names[i] = PyUnicode_InternFromString(kNames[i]);
  }
  for (std::size_t i = 0; i < interned.tiers.size(); ++i) {
    auto const& [tier, name] = EnumNames<HostTier>::value[i];
    interned.tiers[i] = {PyUnicode_InternFromString(name), tier};
  }
  interned.auto_ = PyUnicode_InternFromString("auto");
}

}  // namespace

void bind_snapshot(py::module_& m) {
  intern_strings();
  bind_struct(m, "Snapshot", Field{"taken_ns", &Snapshot::taken_ns},
              Field{"span_ns", &Snapshot::span_ns}, Field{"pid", &Snapshot::pid},
              Field{"host", &Snapshot::host}, Field{"mappings", &Snapshot::mappings},
              Field{"cgroup", &Snapshot::cgroup}, Field{"system", &Snapshot::system},
              Field{"limits", &Snapshot::limits}, Field{"devices", &Snapshot::devices},
              Field{"torch", &Snapshot::torch})
      .def("__sub__", [](py::handle after, py::handle before) {
        return py::module_::import("memacct._snapshot").attr("difference")(after, before);
      });
  auto const function = py::reinterpret_steal<py::object>(
      PyCFunction_NewEx(&snapshot_method, m.ptr(), m.attr("__name__").ptr()));
  if (!function) throw py::error_already_set();
  m.attr("snapshot") = function;
}

}  // namespace memacct::bindings
