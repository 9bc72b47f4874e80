// The part of a sampler that reads devices and writes what it read as records.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "memacct/driver_budget.hpp"
#include "memacct/process_tree.hpp"
#include "memacct/sample_record.hpp"
#include "memacct/sample_stream.hpp"

namespace memacct {

[[nodiscard]] DeviceRecord device_record(DeviceMemory const& device, std::uint16_t number) noexcept;

/// Used by the device thread alone.
class DeviceSampling {
 public:
  DeviceSampling(std::shared_ptr<Sampler::Core> core, std::uint64_t now_ns);

  /// Reads and writes once. @returns the time before which the budget allows no other reading.
  std::uint64_t tick(Tick const& tick) noexcept;

 private:
  /// What procfs says of a process; looked up when it appears in a list.
  struct Known {
    std::string name;
    std::optional<std::uint64_t> start_ticks;
    std::uint64_t listed_at = 0;  // the last tick that it was listed at
  };
  /// Wall time that the readings took.
  [[nodiscard]] std::uint64_t read_all() noexcept;
  template <typename Read>
  [[nodiscard]] std::uint64_t timed(Read const& read) noexcept;
  void write(DeviceMemory const& device);
  void write_names(std::uint16_t number);
  void write_note(NoteRecord const& note) noexcept;
  void note_error(std::string text, std::uint64_t now_ns) noexcept;
  [[nodiscard]] Known const& look_up(std::uint32_t pid, bool numbers_are_procfs);
  void forget_unlisted();

  std::shared_ptr<Sampler::Core> core_;
  DriverBudget budget_;
  SelfNames names_;
  std::unordered_map<std::uint32_t, Known> processes_;
  std::vector<DeviceKey> keys_;
  DeviceSelection one_ =
      std::vector<DeviceKey>{};         // of them: kept, so that naming it allocates nothing
  std::vector<DeviceMemory> readings_;  // kept for its room
  std::vector<std::optional<std::uint64_t>> named_at_;  // of each device: the record after its name
  std::string noted_error_;
  std::uint64_t noted_ns_ = 0;
  std::uint64_t tick_count_ = 0;
};

}  // namespace memacct
