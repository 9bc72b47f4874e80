#include "memacct/process.hpp"

#include <pthread.h>
#include <unistd.h>

#include <atomic>

namespace memacct {
namespace {

std::atomic<std::uint32_t> forks{0};
std::atomic<std::int32_t> pid{0};
std::atomic<bool> registered{false};

// Runs in the child between fork() and its return, where only async-signal-safe calls are
// allowed: no allocation, no lock.
void on_fork_in_child() {
  forks.fetch_add(1, std::memory_order_relaxed);
  pid.store(static_cast<std::int32_t>(::getpid()), std::memory_order_relaxed);
}

/// True once the fork handler stands. Without it (no memory at the first call) nothing may
/// be kept, and each question is a system call.
///
/// No function-local static: a fork beside its initialisation would leave the child waiting for
/// a thread that it does not have. Threads that come here at once may each register, and then
/// one fork counts twice: only whether the number changed has a meaning.
bool handler_registered() noexcept {
  if (registered.load(std::memory_order_acquire)) return true;
  pid.store(static_cast<std::int32_t>(::getpid()), std::memory_order_relaxed);
  if (::pthread_atfork(nullptr, nullptr, &on_fork_in_child) != 0) return false;
  registered.store(true, std::memory_order_release);
  return true;
}

}  // namespace

std::int32_t current_pid() noexcept {
  return handler_registered() ? pid.load(std::memory_order_relaxed)
                              : static_cast<std::int32_t>(::getpid());
}

std::uint32_t fork_generation() noexcept {
  return handler_registered() ? forks.load(std::memory_order_relaxed)
                              : static_cast<std::uint32_t>(::getpid());
}

}  // namespace memacct
