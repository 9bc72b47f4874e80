// Consistent readings of the devices: what all hold, what this process holds, who the others
// are. Safe from several threads and across fork(). No call makes a context, initialises the
// CUDA driver or, but for identify(), allocates device memory.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "memacct/boxed.hpp"
#include "memacct/identity.hpp"
#include "memacct/unified.hpp"

namespace memacct {

enum class MemorySource {
  kNvmlV2,
  kNvmlV1,
  kCuda,
  kUnified,  // the host's kernel, and CUDA where a context is live; see UnifiedMemory
};

/// The lists in which a process stands: bits of nvml::ListKind.
struct ListKinds {
  unsigned bits = 0;
  bool operator==(ListKinds const&) const = default;
};

/// One process in the driver's list of a device.
struct ProcessUsage {
  std::uint32_t pid = 0;  // as the driver numbers it
  std::optional<std::uint64_t> process_used_bytes;
  Owner owner = Owner::kUnknown;
  ListKinds kinds;
  std::optional<std::uint32_t> gpu_instance_id;  // of MIG: where it runs
  std::optional<std::uint32_t> compute_instance_id;
  bool operator==(ProcessUsage const&) const = default;
};

/// One reading. Where every term is known, to the byte:
///   total = free + reserved + own + tree + foreign + unattributed
/// On an integrated GPU there is no reserve, and the terms of `unified` are added.
/// When `consistent`, all values held at one instant: see "What one snapshot guarantees" in
/// DESIGN.md.
struct DeviceMemory {
  std::string uuid;
  std::optional<int> index;         // NVML's; a MIG instance has none
  std::optional<int> cuda_ordinal;  // this process's, when its driver is initialised
  std::string name;
  MemorySource source = MemorySource::kNvmlV2;
  std::uint64_t taken_ns = 0;  // CLOCK_MONOTONIC at the first reading
  std::uint64_t span_ns = 0;
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;
  std::optional<std::uint64_t> device_used_bytes;  // without the driver's reserve
  std::optional<std::uint64_t> reserved_bytes;
  std::optional<std::uint64_t> own_bytes;
  std::optional<std::uint64_t> tree_bytes;
  std::optional<std::uint64_t> foreign_bytes;
  std::optional<std::int64_t> unattributed_bytes;
  std::optional<std::uint64_t> cuda_free_bytes;
  std::optional<std::uint64_t> cuda_total_bytes;
  std::vector<ProcessUsage> processes;
  Attribution attribution;
  bool consistent = false;
  int attempts_count = 0;
  std::optional<std::pair<std::uint64_t, std::uint64_t>> own_read_bounds_bytes;
  Boxed<UnifiedMemory> unified;            // nullopt: the device's memory is its own
  std::optional<std::string> virtualized;  // a quota hook: total, free and CUDA's are its numbers
  /// Of an inconsistent reading: what listed others held when the memory was read.
  std::optional<std::pair<std::uint64_t, std::uint64_t>> foreign_read_bounds_bytes;
  std::optional<std::string> parent_uuid;  // of a MIG instance: its GPU, whose bytes include these
  // Of the caching allocator that was joined; nullopt: there was none.
  std::optional<std::uint64_t> allocator_reserved_bytes;  // as it claims
  std::optional<std::int64_t> non_torch_bytes;            // own - that; signed
  std::optional<bool> allocator_inconsistent;  // it claims more than the driver says is held
  bool operator==(DeviceMemory const&) const = default;
};

struct DeviceInfo {
  std::string uuid;
  std::optional<int> index;
  std::string name;
  std::optional<std::string> pci_bus_id;
  std::optional<std::string> parent_uuid;  // of a MIG instance: its GPU
  std::optional<std::uint32_t> gpu_instance_id;
  std::optional<std::uint32_t> compute_instance_id;
  bool operator==(DeviceInfo const&) const = default;
};

/// A CUDA ordinal, or a UUID or an unambiguous beginning of one. Before this process has
/// initialised its driver an ordinal means what the environment makes it, and is refused where it
/// could mean several: Note [Never a guess] in ordinals.hpp.
using DeviceKey = std::variant<std::int64_t, std::string>;
enum class DeviceSet {
  kAuto,  // the devices on which this process holds a context
  kAll,   // all that NVML lists, and then the MIG instances of those that are divided
};
using DeviceSelection = std::variant<DeviceSet, std::vector<DeviceKey>>;

/// What a caching allocator says that it holds of a device.
struct AllocatorClaim {
  std::uint64_t reserved_bytes = 0;
  std::uint64_t backed_bytes = 0;  // of it, what bounds this process's part from below
};

struct DeviceOptions {
  std::map<std::string, AllocatorClaim> allocators;       // by UUID
  std::map<int, AllocatorClaim> allocators_by_ordinal{};  // CUDA's; where no UUID matches
  bool with_cuda = false;  // cuMemGetInfo beside NVML, where a context is live
};

/// GPUs, then their MIG instances.
/// @throws SourceUnavailableError if there is no NVML here.
[[nodiscard]] std::vector<DeviceInfo> list_devices();

/// With kAuto, a process without the CUDA driver gets an empty list at the cost of
/// driver_loaded_in_process(). A device of a set that cannot be read is left out, with its
/// reason in driver_diagnosis(), unless none can be: then its error is thrown.
/// @throws std::invalid_argument for a key that names no device; SourceUnavailableError if
///   there is no NVML, or no memory information; DriverError if a call failed.
[[nodiscard]] std::vector<DeviceMemory> read_devices(DeviceSelection const& which,
                                                     DeviceOptions const& options = {});
/// The same into `readings`, whose elements are written over: their strings and vectors keep
/// their room, so that reading the same devices again and again allocates nothing. After an
/// error their content is unspecified.
void read_devices_into(DeviceSelection const& which, DeviceOptions const& options,
                       std::vector<DeviceMemory>& readings);
[[nodiscard]] DeviceMemory read_device(DeviceKey const& key,
                                       std::optional<AllocatorClaim> allocator = {},
                                       bool with_cuda = false);

/// The ladder with its active rung: see Note [Fingerprint]. What it finds is remembered for
/// this process and serves all devices, until a list refutes it. It allocates nothing where the
/// passive rungs are certain (our pid in the machine's own pid namespace, a broker's answer),
/// without a live context, where no process's bytes are told, or with less than 256 MiB free.
/// Another call does it all again, the broker included.
[[nodiscard]] Attribution identify(DeviceKey const& key);
void forget_identity();

/// Counts process `pid` (procfs's number) and its descendants as this process's tree.
/// @throws std::invalid_argument if there is no such process.
void add_tree_root(std::uint32_t pid);

enum class DriverPresence { kAbsent, kUninitialised, kInitialised };
[[nodiscard]] DriverPresence driver_state();

/// What was found on this machine, for people.
struct DriverDiagnosis {
  std::string nvml_library;
  bool nvml_available = false;
  std::string nvml_reason;
  std::optional<int> nvml_init_code;
  std::optional<std::string> nvml_driver_version;
  std::map<std::string, std::string> nvml_symbols;  // our name -> symbol; "" if absent
  std::map<std::string, std::size_t> record_bytes;  // list symbol -> record size found
  std::string cuda_library;
  DriverPresence cuda_state = DriverPresence::kAbsent;
  std::map<std::string, std::string> cuda_symbols;
  SelfNames names;
  std::optional<std::uint32_t> identified_pid;
  std::vector<std::string> notes;  // what was left out or failed, and why
};
[[nodiscard]] DriverDiagnosis driver_diagnosis();

/// Shuts NVML down and closes its device files (they block unbinding the driver). The next
/// reading opens them again. What identify() found is kept.
void close_devices();

}  // namespace memacct
