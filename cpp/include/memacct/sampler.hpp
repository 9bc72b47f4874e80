// Sampling in the background: threads of our own write what they read into rings, without Python
// and without holding up the program.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "memacct/device.hpp"
#include "memacct/host.hpp"
#include "memacct/periodic_thread.hpp"
#include "memacct/ring.hpp"
#include "memacct/sample_record.hpp"
#include "memacct/sampler_error.hpp"
#include "memacct/trace_rows.hpp"

namespace memacct {

/// Two rings, since each has one writer, and since many host samples must not push the few of
/// the devices out.
struct SamplerRings {
  RingView host;
  RingView devices;
  std::uint64_t salt = 0;
  std::shared_ptr<void> memory;  // what they lie in; held as long as somebody reads or writes
  bool in_child = true;          // the memory is there in a fork's child, too
  /// Takes notes that must outlast the rings' records; empty: they are repeated in the ring.
  std::function<bool(NoteRecord const&)> keep;
  std::function<void()> finish;  // called when sampling has stopped; may be empty
};
/// Of their own, from the heap, zeroed and touched: sampling is not to show as growth.
/// @throws std::invalid_argument if a capacity is no power of two.
[[nodiscard]] SamplerRings make_rings(std::size_t host_capacity, std::size_t device_capacity);

struct SamplerOptions {
  std::uint64_t host_period_ns = 10'000'000;     // 0: no host samples
  HostTier host = HostTier::kCounters;           // or kBreakdown
  std::uint64_t device_period_ns = 100'000'000;  // 0: no device samples
  DeviceSelection devices = DeviceSet::kAuto;
  double driver_budget_ratio = 0.02;  // of the wall time, at most, in driver calls
};

enum class SamplerState : std::uint8_t { kNew, kRunning, kStopped, kForked };

/// What happened in one of the threads so far.
struct StreamCounts {
  std::uint64_t taken_count = 0;          // ticks at which it was read
  std::uint64_t missed_count = 0;         // deadlines that passed unserved
  std::uint64_t skipped_count = 0;        // deadlines left out to keep to the budget
  std::uint64_t error_count = 0;          // readings that failed
  std::uint64_t read_ns = 0;              // wall time in readings
  std::uint64_t cpu_ns = 0;               // CPU time of the thread
  std::uint64_t late_max_ns = 0;          // the latest that it was woken
  std::uint64_t period_ns = 0;            // as asked for
  std::uint64_t period_in_effect_ns = 0;  // between the last tick and the next
  bool operator==(StreamCounts const&) const = default;
};

enum class SampleErrorKind : std::uint8_t { kUnavailable, kReading, kFormat, kDriver, kOther };
inline constexpr std::size_t kSampleErrorKinds = 5;

struct SamplerErrors {
  std::array<std::uint64_t, kSampleErrorKinds> counts{};
  std::string last_text;  // "" if there was none
};

/// A device of the recording; its number is its place.
struct SampledDevice {
  std::string uuid;
  std::string name;
  std::optional<int> index;
};

/// Samples this process and its devices from start() to stop(). Safe from several threads and
/// across fork(): in the child it is stopped, and what it had taken can be read.
class Sampler {
 public:
  /// Touches nothing but what it is given.
  Sampler(SamplerOptions options, SamplerRings rings);
  Sampler(Sampler const&) = delete;
  Sampler& operator=(Sampler const&) = delete;
  ~Sampler();

  /// @throws SamplerError if it was started before; std::system_error if there are no threads.
  void start();
  /// Idempotent. Waits for a reading in progress, some seconds at most.
  void stop() noexcept;

  [[nodiscard]] SamplerState state() const noexcept;
  [[nodiscard]] SamplerOptions const& options() const noexcept { return options_; }
  [[nodiscard]] SamplerRings const& rings() const noexcept { return rings_; }
  [[nodiscard]] StreamCounts host_counts() const;
  [[nodiscard]] StreamCounts device_counts() const;
  [[nodiscard]] SamplerErrors errors() const;
  [[nodiscard]] std::vector<SampledDevice> devices() const;
  /// What was taken so far, as far as the rings still hold it. Allocates; never holds the threads
  /// up.
  [[nodiscard]] TraceRows rows() const;
  [[nodiscard]] std::uint64_t started_ns() const noexcept { return started_ns_; }

  struct Core;  // sample_stream.hpp

 private:
  [[nodiscard]] bool forked() const noexcept;
  [[nodiscard]] std::uint64_t cpu_ns(PeriodicThread const& thread) const;

  SamplerOptions options_;
  SamplerRings rings_;
  std::shared_ptr<Core> core_;  // shared with the threads, one of which may outlive us
  mutable std::mutex control_;  // never taken in a fork's child
  std::atomic<SamplerState> state_{SamplerState::kNew};
  std::uint32_t generation_;
  std::uint64_t started_ns_ = 0;
  PeriodicThread host_thread_;
  PeriodicThread device_thread_;
};

}  // namespace memacct
