// NVML in this process: initialised once, its devices, their memory.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "memacct/dylib.hpp"
#include "memacct/nvml_api.hpp"
#include "memacct/nvml_instances.hpp"
#include "memacct/nvml_reading.hpp"
#include "memacct/process_list.hpp"

namespace memacct::nvml {

/// A GPU, or a MIG instance of one, that NVML has given a handle for. What it did not tell is
/// unknown, except for `uuid`, the key of everything else: where NVML has none it is "PCI-<bus
/// id>", or "INDEX-<n>" without that.
struct SessionDevice {
  Device handle = nullptr;
  std::string uuid;
  std::optional<int> index;  // of a GPU
  std::string name;
  std::optional<std::string> pci_bus_id;              // of an instance: its GPU's
  std::pair<std::uint32_t, std::uint32_t> pci_model;  // device and subsystem id; 0: unknown
  std::optional<bool> mig_enabled;                    // of a GPU: it is divided into instances
  std::optional<std::string> parent_uuid;             // of an instance: its GPU
  std::optional<std::uint32_t> gpu_instance_id;
  std::optional<std::uint32_t> compute_instance_id;
  std::optional<bool> integrated;  // by its compute capability; the CUDA driver knows better
  std::optional<int> numa_node;    // its memory is the kernel's, as that node
  std::optional<std::uint64_t> total_bytes;  // of the last reading
  std::optional<CallError> lost;             // the call that ended its use
  /// In use and in no record, when collects last agreed; see DESIGN.md.
  std::optional<std::int64_t> unlisted_bytes;

  [[nodiscard]] bool is_instance() const noexcept { return uuid.starts_with("MIG-"); }
};

/// Why there is no value.
struct Failure {
  std::string reason;
  std::optional<CallError> error;  // set if a call failed that may work the next time
};

/// Not safe from several threads: its owner holds a lock.
class Session {
 public:
  /// Loads and initialises NVML at the first call; whether it is of use to this process.
  /// A failure stays until close().
  [[nodiscard]] bool available();
  /// Why it is not available.
  [[nodiscard]] std::string const& reason() const noexcept { return reason_; }

  /// All GPUs, in NVML's order. One that NVML lists and does not give (blocked by a
  /// control group, lost) is left out, with a note.
  /// @throws CallError, here and below, for codes that concern more than the one call.
  [[nodiscard]] std::vector<SessionDevice*> gpus();
  /// The MIG instances of all GPUs, in their order. Those that were made after the GPUs were
  /// listed are found by their UUID alone.
  [[nodiscard]] std::vector<SessionDevice*> instances();
  /// By the whole UUID; null if it is not of the devices that have been looked up so far.
  [[nodiscard]] SessionDevice* known(std::string const& uuid) const;
  /// By the whole UUID; null if NVML does not know it.
  [[nodiscard]] SessionDevice* by_uuid(std::string const& uuid);
  [[nodiscard]] SessionDevice* by_pci(std::string const& bus_id);

  /// Nullopt, with what went wrong, if NVML has no memory information for the device.
  [[nodiscard]] std::optional<MemoryReading> read_memory(SessionDevice& device, Failure& failure);
  [[nodiscard]] ProcessList read_processes(SessionDevice const& device);
  void read_processes(SessionDevice const& device, ProcessList& list);

  /// Grows when what devices() and the look-ups may say changes.
  [[nodiscard]] std::uint64_t changes_count() const noexcept { return changes_count_; }
  /// NVML has given every device that it lists, or there is no NVML: no look-up finds more later.
  [[nodiscard]] bool settled() const noexcept {
    return phase_ == Phase::kDisabled || (phase_ == Phase::kReady && all_listed_);
  }

  /// Initialises again after somebody's shutdown. Handles are looked up anew; a lost device
  /// stays lost.
  void reinitialise();
  /// To be called before each use. Where the devices were taken from this process (a container's
  /// control group, after a reload of systemd) and may be back: shuts down and initialises again,
  /// at once and then after pauses that grow from the first of these to the second. Handles that
  /// were given out end.
  void refresh();
  /// The quota hook in this process as of refresh(); null: none.
  [[nodiscard]] char const* quota_hook() const noexcept { return quota_hook_; }
  static constexpr std::uint64_t kFirstPauseNs = 1'000'000'000;
  static constexpr std::uint64_t kLongestPauseNs = 64'000'000'000;
  void disable(std::string reason);
  /// Shuts NVML down if it was initialised here; the next use starts afresh.
  void close();

  [[nodiscard]] Api const& api() const noexcept { return api_; }
  [[nodiscard]] Library const& library() const noexcept { return library_; }
  [[nodiscard]] ProcessListReader const& lists() const noexcept { return lists_; }
  [[nodiscard]] std::optional<int> init_code() const noexcept { return init_code_; }
  /// What was left out or could not be read, and why; each once.
  [[nodiscard]] std::vector<std::string> const& notes() const noexcept { return notes_; }
  void note(std::string text);

 private:
  enum class Phase { kUnused, kReady, kDisabled };
  void initialise();
  [[nodiscard]] SessionDevice* add(Device handle, std::optional<int> index);
  void describe(SessionDevice& device);
  void describe_instance(SessionDevice& device, InstanceFacts const& facts);
  [[nodiscard]] std::vector<SessionDevice*> gpus_known() const;
  void list_all();
  void note_loss_of_access(int code) noexcept;
  void describe_memory(SessionDevice& device) const;
  [[nodiscard]] bool worked(char const* name, int code);

  Phase phase_ = Phase::kUnused;
  Library library_;
  Api api_;
  std::optional<int> init_code_;
  std::string reason_;
  ProcessListReader lists_;
  std::vector<std::unique_ptr<SessionDevice>> devices_;
  bool all_listed_ = false;
  std::uint64_t changes_count_ = 0;
  bool memory_v2_absent_ = false;
  std::map<std::string, CallError> lost_;  // by UUID, over initialisations
  bool taken_away_ = false;
  char const* quota_hook_ = nullptr;
  std::uint64_t next_retry_ns_ = 0;
  std::uint64_t pause_ns_ = kFirstPauseNs;
  std::vector<std::string> notes_;
};

}  // namespace memacct::nvml
