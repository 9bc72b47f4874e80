// What this process keeps between device readings, and what a device key means to it.
#pragma once
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "memacct/cuda_api.hpp"
#include "memacct/device.hpp"
#include "memacct/error.hpp"
#include "memacct/nvml_session.hpp"
#include "memacct/process_tree.hpp"

namespace memacct {

/// One device as the two libraries know it. Either may be missing, not both.
struct DeviceTarget {
  std::string uuid;
  nvml::SessionDevice* nvml = nullptr;
  std::optional<cuda::Device> cuda;
};

/// One per process. Everything in it is used under `mutex`, which no thread waits for with
/// the GIL held.
class DeviceSession {
 public:
  /// Of this process. A fork's child gets a fresh one: the parent's is left as it is, since
  /// another thread may have held its mutex, and neither NVML nor the driver survives a fork.
  [[nodiscard]] static DeviceSession& current();

  std::mutex mutex;
  nvml::Session nvml;
  cuda::Driver driver;
  ProcessTree tree;
  SelfNames names;
  std::optional<std::uint32_t> identified_pid;

  /// @throws std::invalid_argument if `key` names no device, SourceUnavailableError if there
  ///   is neither NVML nor an initialised driver to look it up.
  [[nodiscard]] DeviceTarget resolve(DeviceKey const& key);
  [[nodiscard]] std::vector<DeviceTarget> resolve(DeviceSet set);
  /// True if this process's driver knows all its devices and this is none of them.
  [[nodiscard]] bool hidden_from_driver(DeviceTarget const& target);

  /// Runs `operation`, which must resolve its devices itself, again after NVML was
  /// initialised anew (once) or was found to be of no use.
  template <typename Operation>
  auto run(Operation const& operation) {
    for (int attempt = 0;; ++attempt) {
      try {
        return operation();
      } catch (nvml::CallError const& error) {
        recover(error, attempt);
      }
    }
  }

 private:
  DeviceSession(std::int32_t pid, bool initialised_in_ancestor);
  void recover(nvml::CallError const& error, int attempt);
  [[nodiscard]] DeviceTarget from_cuda(cuda::Device const& device);
  [[nodiscard]] DeviceTarget from_nvml(nvml::SessionDevice& device);
  [[nodiscard]] DeviceTarget by_ordinal(std::int64_t ordinal);
  [[nodiscard]] DeviceTarget by_uuid(std::string const& beginning);
  [[nodiscard]] std::vector<DeviceTarget> everything();
  void require_some_source();
  void require_any(bool none) const;

  std::int32_t pid_;
};

}  // namespace memacct
