#include "memacct/device_turns.hpp"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <mutex>
#include <utility>

#include "memacct/clock.hpp"
#include "memacct/device_session.hpp"
#include "memacct/dylib.hpp"

namespace memacct {
namespace {

constexpr std::uint64_t kPatienceNs = 5'000'000;  // others may never stop reading
constexpr timespec kPause{.tv_sec = 0, .tv_nsec = 20'000};

// The loader's lock is held for a moment when we ask it for the driver. glibc does not renew that
// lock in a fork's child, where the first dlopen() would then wait for ever. So fork() waits for
// it.
constinit std::timed_mutex asking_loader;
thread_local bool held_for_fork = false;

void before_fork() noexcept {
  held_for_fork = asking_loader.try_lock_for(std::chrono::milliseconds(250));
}

void after_fork() noexcept {
  if (std::exchange(held_for_fork, false)) asking_loader.unlock();
}

bool driver_loaded() {
  static constinit std::atomic<bool> fork_handled{false};
  if (!fork_handled.exchange(true)) ::pthread_atfork(&before_fork, &after_fork, &after_fork);
  std::lock_guard const lock(asking_loader);
  return driver_loaded_in_process();
}

}  // namespace

std::vector<DeviceKey> keys_of(DeviceSelection const& which) {
  if (auto const* const keys = std::get_if<std::vector<DeviceKey>>(&which)) return *keys;
  auto const set = std::get<DeviceSet>(which);
  if (set == DeviceSet::kAuto && !driver_loaded()) return {};
  auto& session = DeviceSession::current();
  SessionLock const lock(session);
  return session.run([&] {
    std::vector<DeviceKey> keys;
    for (auto const& target : session.resolve(set)) keys.emplace_back(target.uuid);
    return keys;
  });
}

void let_others_read_first() noexcept {
  auto const& session = DeviceSession::current();
  if (session.waiting_count() == 0) return;
  auto const end_ns = monotonic_ns() + kPatienceNs;
  while (session.waiting_count() != 0 && monotonic_ns() < end_ns) ::nanosleep(&kPause, nullptr);
}

}  // namespace memacct
