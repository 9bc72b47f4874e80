// The broker: a helper in the machine's own pid namespace that tells a process its number there.
#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace memacct {

// Note [Broker]
// The kernel attaches the connecting process's credentials to a UNIX socket and shows its pid to
// the other end in that one's namespace (SO_PEERCRED). The broker says that number, and the
// inode of its own pid namespace, and closes: one message, nothing is asked. A number counts only
// from a broker in the machine's own namespace, whose inode is fixed: any other one's number would
// be one more that could be a stranger's. Even then the list decides: see
// Note [Whose number it is].

/// Inode of the machine's own pid namespace: PROC_PID_INIT_INO, include/linux/proc_ns.h.
inline constexpr std::uint64_t kInitialPidNamespace = 4026531836;
inline constexpr std::chrono::milliseconds kBrokerPatience{200};

struct BrokerAnswer {
  std::optional<std::uint32_t> pid;  // ours in the machine's own pid namespace
  std::string reason;                // why it is not known; "" also where there is no broker
};

/// Understands "memacct-broker 1 pid <n> pidns <inode>\n", whole or not at all. Pure.
[[nodiscard]] BrokerAnswer parse_broker_answer(std::string_view message);

/// Asks the broker at MEMACCT_BROKER, or at its usual place. Never throws; takes kBrokerPatience
/// at the most, and one failed connect() where there is no broker.
[[nodiscard]] BrokerAnswer ask_broker() noexcept;

}  // namespace memacct
