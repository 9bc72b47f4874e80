#include "memacct/periodic_thread.hpp"

#include <linux/futex.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <csignal>
#include <cstring>
#include <ctime>
#include <system_error>
#include <utility>

#include "memacct/clock.hpp"
#include "memacct/process.hpp"

namespace memacct {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000U;
// Its own memory should not be what it measures. Drivers' libraries need more than a few pages.
constexpr std::size_t kStackBytes = 512 * 1024;

timespec as_timespec(std::uint64_t time_ns) noexcept {
  return {.tv_sec = static_cast<time_t>(time_ns / kSecond),
          .tv_nsec = static_cast<long>(time_ns % kSecond)};
}

std::uint64_t read_clock(clockid_t clock) noexcept {
  timespec time{};
  if (::clock_gettime(clock, &time) != 0) return 0;
  return static_cast<std::uint64_t>(time.tv_sec) * kSecond +
         static_cast<std::uint64_t>(time.tv_nsec);
}

// A futex rather than clock_nanosleep: the same timer and cost, and stop() ends it without a
// signal. FUTEX_WAIT_BITSET's time is absolute, of CLOCK_MONOTONIC.
void sleep_until(std::atomic<std::uint32_t>& stop, std::uint64_t deadline_ns) noexcept {
  auto const time = as_timespec(deadline_ns);
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&stop),
            FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 0, &time, nullptr, FUTEX_BITSET_MATCH_ANY);
}

void wake(std::atomic<std::uint32_t>& stop) noexcept {
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&stop), FUTEX_WAKE | FUTEX_PRIVATE_FLAG,
            INT_MAX, nullptr, nullptr, 0);
}

/// pthread_create of a thread with all signals blocked from its first instruction.
int create_thread(pthread_t* thread, std::size_t stack_bytes, void* (*run)(void*), void* argument) {
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  if (stack_bytes != 0) ::pthread_attr_setstacksize(&attributes, stack_bytes);
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  auto const error = ::pthread_create(thread, &attributes, run, argument);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::pthread_attr_destroy(&attributes);
  return error;
}

}  // namespace

Tick DeadlineGrid::serve(std::uint64_t now_ns) noexcept {
  Tick tick{.now_ns = now_ns, .skipped_count = std::exchange(skipped_count_, 0)};
  if (now_ns > deadline_ns_) tick.late_ns = now_ns - deadline_ns_;
  tick.missed_count = tick.late_ns / period_ns_;
  deadline_ns_ += (tick.missed_count + 1) * period_ns_;
  return tick;
}

void DeadlineGrid::skip_to(std::uint64_t time_ns) noexcept {
  if (time_ns <= deadline_ns_) return;
  skipped_count_ = (time_ns - deadline_ns_ + period_ns_ - 1) / period_ns_;
  deadline_ns_ += skipped_count_ * period_ns_;
}

void PeriodicThread::start(char const* name, std::uint64_t period_ns, Work work) {
  auto shared = std::make_shared<Shared>();
  shared->work = std::move(work);
  shared->period_ns = period_ns;
  std::strncpy(shared->name, name, sizeof shared->name - 1);
  generation_ = fork_generation();
  // The thread's own hold on what it uses, given to it as a pointer.
  auto* const held = new std::shared_ptr<Shared>(shared);
  auto error = create_thread(&thread_, kStackBytes, &PeriodicThread::run, held);
  // Programs with much thread-local data need larger stacks than that.
  if (error == EINVAL) error = create_thread(&thread_, 0, &PeriodicThread::run, held);
  if (error != 0) {
    delete held;
    throw std::system_error(error, std::generic_category(), "cannot start a thread");
  }
  shared_ = std::move(shared);
  running_ = true;
}

bool PeriodicThread::stop(std::chrono::milliseconds patience) noexcept {
  if (!std::exchange(running_, false)) return true;
  if (generation_ != fork_generation()) {
    // The parent's thread: it is not here, and what it used may be in any state.
    (void)new std::shared_ptr<Shared>(std::move(shared_));
    return true;
  }
  shared_->stop.store(1, std::memory_order_release);
  wake(shared_->stop);
  timespec limit{};
  ::clock_gettime(CLOCK_REALTIME, &limit);
  auto const end_ns = static_cast<std::uint64_t>(limit.tv_nsec) +
                      static_cast<std::uint64_t>(patience.count()) * 1'000'000U;
  limit.tv_sec += static_cast<time_t>(end_ns / kSecond);
  limit.tv_nsec = static_cast<long>(end_ns % kSecond);
  if (::pthread_timedjoin_np(thread_, nullptr, &limit) == 0) return true;
  ::pthread_detach(thread_);
  return false;
}

std::uint64_t PeriodicThread::cpu_ns() const noexcept {
  if (!shared_) return 0;
  if (!running_ || generation_ != fork_generation()) return shared_->cpu_ns.load();
  clockid_t clock{};
  return ::pthread_getcpuclockid(thread_, &clock) == 0 ? read_clock(clock) : 0;
}

void* PeriodicThread::run(void* argument) {
  auto* const held = static_cast<std::shared_ptr<Shared>*>(argument);
  auto const shared = std::move(*held);
  delete held;
  ::pthread_setname_np(::pthread_self(), shared->name);
  // The default of 50 us is half a period at 10 kHz. Of this thread alone.
  ::prctl(PR_SET_TIMERSLACK, 1UL);
  loop(*shared);
  shared->cpu_ns.store(read_clock(CLOCK_THREAD_CPUTIME_ID));
  return nullptr;
}

void PeriodicThread::loop(Shared& shared) {
  DeadlineGrid grid(monotonic_ns(), shared.period_ns);
  while (shared.stop.load(std::memory_order_acquire) == 0) {
    // One look at the clock a tick: a deadline that has passed is not slept for, and is counted
    // as late when it is served.
    auto const tick = grid.serve(monotonic_ns());
    grid.skip_to(shared.work(tick));
    sleep_until(shared.stop, grid.deadline_ns());
  }
}

}  // namespace memacct
