// What this process keeps between device readings, and what a device key means to it.
#pragma once
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "memacct/broker_client.hpp"
#include "memacct/cuda_api.hpp"
#include "memacct/device.hpp"
#include "memacct/error.hpp"
#include "memacct/nvml_session.hpp"
#include "memacct/process_tree.hpp"
#include "memacct/reading_room.hpp"

namespace memacct {

/// One device as the two libraries know it. Either may be missing, not both.
struct DeviceTarget {
  std::string uuid;
  nvml::SessionDevice* nvml = nullptr;
  std::optional<cuda::Device> cuda;
};

/// Targets that were looked up, and what that depended on. They don't move while they are there.
struct TargetCache {
  std::uint64_t nvml_changes_count = 0;
  std::optional<cuda::DriverState> state;  // nullopt: nothing here may be used again
  std::array<std::optional<std::string>, 2> variables;
  std::deque<std::pair<DeviceKey, DeviceTarget>> keyed;
  std::vector<DeviceTarget> all;
  std::deque<DeviceTarget> of_driver;
  DeviceTarget passing;  // one that may be another the next time
  std::vector<DeviceTarget const*> chosen;
  void clear();
};

/// Whether a device of the driver and one of NVML are the same: by UUID, and by PCI address only
/// where not both have one. A MIG instance has its GPU's address and is not that GPU. Pure.
[[nodiscard]] bool is_device(cuda::Device const& device, nvml::SessionDevice const& other);

// Note [Fork beside a reading]
// A fork's child gets a fresh session, told by the fork generation and not by the pid alone: a
// child in a new pid namespace can have its parent's. The parent's is left as it is: a thread
// may have held its mutex, and neither NVML nor the driver survives a fork. What the child
// cannot have afresh are the libraries' own locks. So fork() waits, for kForkPatience at the
// most, until no thread is in one of our calls to them. Not for the forking thread itself:
// the libraries fork within a call, to run nvidia-modprobe.

/// One per process. Everything in it is used under a SessionLock, which no thread waits for
/// with the GIL held.
class DeviceSession {
 public:
  /// Of this process.
  [[nodiscard]] static DeviceSession& current();

  nvml::Session nvml;
  cuda::Driver driver;
  ProcessTree tree;
  SelfNames names;
  std::optional<std::uint32_t> identified_pid;
  bool numbers_ours = false;           // found once: Note [Whose number it is]
  std::optional<BrokerAnswer> broker;  // asked once, where nothing else is sure
  ReadingRoom room;

  /// @throws std::invalid_argument if `key` names no device, SourceUnavailableError if there
  ///   is neither NVML nor an initialised driver to look it up.
  [[nodiscard]] DeviceTarget resolve(DeviceKey const& key);
  [[nodiscard]] std::vector<DeviceTarget> resolve(DeviceSet set);
  /// The same, remembered while nothing changes that it depends on: neither allocates nor asks
  /// NVML then. Good until the next call of either.
  [[nodiscard]] DeviceTarget const& target(DeviceKey const& key);
  [[nodiscard]] std::vector<DeviceTarget const*> const& targets(DeviceSet set);
  /// True if this process's driver knows all its devices and this is none of them.
  [[nodiscard]] bool hidden_from_driver(DeviceTarget const& target);
  /// Threads that wait for the lock, which needs not be held for this question.
  [[nodiscard]] int waiting_count() const noexcept {
    return waiting_count_.load(std::memory_order_relaxed);
  }

  /// Runs `operation`, which must resolve its devices itself: again after NVML was
  /// initialised anew (once) or was found to be of no use.
  template <typename Operation>
  auto run(Operation const& operation) {
    nvml.refresh();
    for (int attempt = 0;; ++attempt) {
      try {
        return operation();
      } catch (nvml::CallError const& error) {
        recover(error, attempt);
      }
    }
  }

 private:
  friend class SessionLock;
  DeviceSession(std::int32_t pid, std::uint32_t generation, bool initialised_in_ancestor);
  void check_cache();
  [[nodiscard]] bool stays(DeviceTarget const& target) const;
  void recover(nvml::CallError const& error, int attempt);
  [[nodiscard]] DeviceTarget from_cuda(cuda::Device const& device);
  [[nodiscard]] DeviceTarget from_nvml(nvml::SessionDevice& device);
  [[nodiscard]] DeviceTarget by_ordinal(std::int64_t ordinal);
  [[nodiscard]] DeviceTarget by_uuid(std::string const& beginning);
  [[nodiscard]] std::vector<DeviceTarget> everything();
  [[nodiscard]] bool is_of(std::int32_t pid, std::uint32_t generation) const noexcept {
    return pid_ == pid && generation_ == generation;
  }
  void require_some_source();

  std::int32_t pid_;  // beside the generation: a raw clone() is not counted there
  std::uint32_t generation_;
  TargetCache cache_;
  std::timed_mutex mutex_;
  std::atomic<int> waiting_count_{0};
};

class SessionLock {
 public:
  explicit SessionLock(DeviceSession& session);
  ~SessionLock();
  SessionLock(SessionLock const&) = delete;
  SessionLock& operator=(SessionLock const&) = delete;

  static constexpr std::chrono::milliseconds kForkPatience{250};
  /// What a fork does, in the forking thread, for pthread_atfork.
  static void before_fork() noexcept;
  static void after_fork_in_parent() noexcept;

 private:
  DeviceSession& session_;
};

}  // namespace memacct
