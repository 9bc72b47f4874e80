// Which process this is: a fork makes everything kept about "self" stale.
#pragma once
#include <cstdint>

namespace memacct {

/// This process's id, kept so that asking costs no system call.
[[nodiscard]] std::int32_t current_pid() noexcept;

/// Counts the forks between the first process that asked and this one. What was kept under
/// another number describes another process: an fd of /proc/self/* still shows the parent.
/// Counted by pthread_atfork, so a child made by a raw clone() system call is not seen.
[[nodiscard]] std::uint32_t fork_generation() noexcept;

}  // namespace memacct
