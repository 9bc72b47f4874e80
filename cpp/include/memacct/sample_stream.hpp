// What a sampler's threads write and what others may see of them meanwhile: counters, errors,
// names.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "memacct/sampler.hpp"

namespace memacct {

/// The counters of one thread; each written by it alone.
class StreamCounters {
 public:
  void ticked(Tick const& tick) noexcept {
    add(taken_, 1);
    add(missed_, tick.missed_count);
    add(skipped_, tick.skipped_count);
    if (tick.late_ns > late_max_.load(kRelaxed)) late_max_.store(tick.late_ns, kRelaxed);
  }
  void took(std::uint64_t read_ns) noexcept { add(read_, read_ns); }
  void failed() noexcept { add(errors_, 1); }
  void in_effect(std::uint64_t period_ns) noexcept { in_effect_.store(period_ns, kRelaxed); }
  [[nodiscard]] StreamCounts counts() const noexcept {
    return {.taken_count = taken_.load(kRelaxed),
            .missed_count = missed_.load(kRelaxed),
            .skipped_count = skipped_.load(kRelaxed),
            .error_count = errors_.load(kRelaxed),
            .read_ns = read_.load(kRelaxed),
            .late_max_ns = late_max_.load(kRelaxed),
            .period_in_effect_ns = in_effect_.load(kRelaxed)};
  }

 private:
  static constexpr auto kRelaxed = std::memory_order_relaxed;
  using Counter = std::atomic<std::uint64_t>;
  // One writer: no locked instruction is needed.
  static void add(Counter& counter, std::uint64_t value) noexcept {
    counter.store(counter.load(kRelaxed) + value, kRelaxed);
  }
  Counter taken_{0}, missed_{0}, skipped_{0}, errors_{0}, read_{0}, late_max_{0}, in_effect_{0};
};

/// Errors by kind, with the last one's text.
class SampleErrors {
 public:
  /// Counts the exception being handled. @returns its text, for a note.
  std::string count_current() noexcept;
  /// @param wait: false in a fork's child, where whoever held the lock is not: then the text may
  ///   be missing.
  [[nodiscard]] SamplerErrors get(bool wait) const;

 private:
  void count(SampleErrorKind kind, char const* text) noexcept;
  std::array<std::atomic<std::uint64_t>, kSampleErrorKinds> counts_{};
  mutable std::mutex mutex_;
  std::string last_text_;
};

/// The devices that were seen, in the order of their numbers. One writer; an entry never changes.
class DeviceNames {
 public:
  static constexpr std::size_t kMost = 256;  // 16 GPUs of 7 MIG instances, and room
  /// Its number, the next one if it is new; nullopt if there is no room.
  std::optional<std::uint16_t> number_of(DeviceMemory const& device);
  [[nodiscard]] std::size_t size() const noexcept { return size_.load(std::memory_order_acquire); }
  [[nodiscard]] SampledDevice const& at(std::size_t number) const { return *entries_[number]; }

 private:
  std::array<std::unique_ptr<SampledDevice const>, kMost> entries_;
  std::atomic<std::size_t> size_{0};
};

/// All of a sampler that its threads use.
struct Sampler::Core {
  explicit Core(SamplerOptions const& given, SamplerRings const& memory)
      : options(given),
        rings(memory),
        host_ring(memory.host, memory.salt),
        device_ring(memory.devices, memory.salt) {}
  SamplerOptions options;
  SamplerRings rings;
  RingWriter host_ring;
  RingWriter device_ring;
  StreamCounters host;
  StreamCounters device;
  SampleErrors errors;
  DeviceNames devices;
  /// The last record of the last device reading that is in the ring with all its processes.
  std::atomic<std::uint64_t> device_complete{0};
};

}  // namespace memacct
