// What a line of /proc/<pid>/stat says of a process. Pure: text in.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

namespace memacct {

struct ProcessStat {
  char state = '?';
  std::uint32_t parent_pid = 0;
  std::uint64_t start_ticks = 0;  // since boot: with the pid, it names a process for ever
  bool kernel_thread = false;
  bool executed = false;  // it has called exec: since then it shares no memory with its parent
  /// Where its stack began at the last exec: a place chosen at random, which fork() hands down. 0
  /// if it has no memory; nullopt if we may not know, or its main thread has ended.
  std::optional<std::uint64_t> stack_start;
};
/// Nullopt if it is no such line.
[[nodiscard]] std::optional<ProcessStat> parse_stat(std::string_view text);

}  // namespace memacct
