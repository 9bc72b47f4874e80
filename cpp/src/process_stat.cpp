#include "memacct/process_stat.hpp"

#include <algorithm>
#include <limits>

#include "memacct/text.hpp"

namespace memacct {
namespace {

// Flags of include/linux/sched.h: PF_FORKNOEXEC, PF_KTHREAD.
constexpr std::uint64_t kForkedOnly = 0x00000040;
constexpr std::uint64_t kKernelThread = 0x00200000;

/// The numbers of a stat line that are read, by their place in it (proc_pid_stat(5)).
struct StatNumbers {
  std::optional<std::uint64_t> flags;        // 9
  std::optional<std::uint64_t> threads;      // 20
  std::optional<std::uint64_t> start_code;   // 26: 1 if we may not know, 0 without memory
  std::optional<std::uint64_t> stack_start;  // 28: 0 in both cases
};

void interpret(StatNumbers const& numbers, ProcessStat& stat) {
  stat.kernel_thread = (numbers.flags.value_or(0) & kKernelThread) != 0;
  stat.executed = (numbers.flags.value_or(kForkedOnly) & kForkedOnly) == 0;
  bool const leaderless = numbers.start_code == 0U && numbers.threads.value_or(0) > 1;
  bool const hidden = numbers.start_code == 1U || !numbers.start_code;
  if (!hidden && !leaderless) stat.stack_start = numbers.stack_start;
}

}  // namespace

std::optional<ProcessStat> parse_stat(std::string_view text) {
  // The command, in parentheses, may itself hold spaces and parentheses.
  auto const close = text.rfind(')');
  if (close == std::string_view::npos) return std::nullopt;
  text.remove_prefix(close + 1);
  ProcessStat stat;
  StatNumbers numbers;
  for (int field = 3; field <= 28; ++field) {
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    auto const token = text.substr(0, text.find_first_of(" \n"));
    if (token.empty() && field > 22) break;  // all that must be there was
    if (token.empty()) return std::nullopt;
    text.remove_prefix(token.size());
    if (field == 3) stat.state = token.front();
    if (field == 4) {
      auto const parent = parse_number(token);
      if (!parent || *parent > std::numeric_limits<std::uint32_t>::max()) return std::nullopt;
      stat.parent_pid = static_cast<std::uint32_t>(*parent);
    }
    if (field == 9) numbers.flags = parse_number(token);
    if (field == 20) numbers.threads = parse_number(token);
    if (field == 22) {
      auto const ticks = parse_number(token);
      if (!ticks) return std::nullopt;
      stat.start_ticks = *ticks;
    }
    if (field == 26) numbers.start_code = parse_number(token);
    if (field == 28) numbers.stack_start = parse_number(token);
  }
  interpret(numbers, stat);
  return stat;
}

}  // namespace memacct
