// A native thread that does one thing at a fixed rate, on absolute deadlines.
#pragma once
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

namespace memacct {

/// One time that the work is done.
struct Tick {
  std::uint64_t now_ns = 0;         // CLOCK_MONOTONIC, just read
  std::uint64_t late_ns = 0;        // since the deadline that it was woken for
  std::uint64_t missed_count = 0;   // deadlines that passed since the last tick, unserved
  std::uint64_t skipped_count = 0;  // that the work asked to be left out
};

/// Where the grid of deadlines stands; what the thread does between two ticks. Pure.
///
/// Deadlines are start + k * period, whatever the work costs: a rate that depended on it would
/// depend on what is measured. One that has passed when it could be served is missed, not made up
/// for.
class DeadlineGrid {
 public:
  DeadlineGrid(std::uint64_t start_ns, std::uint64_t period_ns) noexcept
      : period_ns_(period_ns), deadline_ns_(start_ns) {}
  [[nodiscard]] std::uint64_t deadline_ns() const noexcept { return deadline_ns_; }
  /// The tick at `now_ns`, and the grid moved on to the first deadline after it.
  Tick serve(std::uint64_t now_ns) noexcept;
  /// Moves on to the first deadline at or after `time_ns`; the next tick tells how many it left
  /// out.
  void skip_to(std::uint64_t time_ns) noexcept;

 private:
  std::uint64_t period_ns_;
  std::uint64_t deadline_ns_;
  std::uint64_t skipped_count_ = 0;
};

/// Has all signals blocked, so that none is handled on it, and a name. Never takes a Python lock.
/// A fork's child does not have the thread: stop() and the destructor know.
class PeriodicThread {
 public:
  /// Done at each tick; returns the time before which the next tick is not to be (0: any).
  /// Must not throw.
  using Work = std::function<std::uint64_t(Tick const&)>;

  PeriodicThread() = default;
  PeriodicThread(PeriodicThread const&) = delete;
  PeriodicThread& operator=(PeriodicThread const&) = delete;
  ~PeriodicThread() { stop(std::chrono::seconds(1)); }

  /// The first tick is at once. `name` has at most 15 characters.
  /// @throws std::system_error if the system starts no more threads.
  void start(char const* name, std::uint64_t period_ns, Work work);

  /// Wakes it and waits until it has ended, `patience` at most: work that hangs in a driver
  /// is left to itself, with what it refers to (the Work object lives until it returns).
  /// @returns false then. Idempotent; not from two threads at once.
  bool stop(std::chrono::milliseconds patience) noexcept;

  /// CPU time that the thread has taken; 0 if it was never started, or hangs. Not beside stop().
  [[nodiscard]] std::uint64_t cpu_ns() const noexcept;

 private:
  struct Shared {
    Work work;
    std::uint64_t period_ns = 0;
    char name[16]{};
    std::atomic<std::uint32_t> stop{0};    // a futex
    std::atomic<std::uint64_t> cpu_ns{0};  // at its end
  };
  static void* run(void* shared);
  static void loop(Shared& shared);

  std::shared_ptr<Shared> shared_;  // kept when it has ended
  bool running_ = false;
  pthread_t thread_{};
  std::uint32_t generation_ = 0;
};

}  // namespace memacct
