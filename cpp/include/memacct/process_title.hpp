// What a process is called, and what that tells of its part in an engine. Pure: text in.
#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace memacct {

/// A title longer than this is cut.
inline constexpr std::size_t kTitleBytes = 4096;

/// `bytes` as text: control characters are spaces, and what is not UTF-8 is U+FFFD.
[[nodiscard]] std::string printable(std::string_view bytes);

/// The title that /proc/<pid>/cmdline holds: its arguments, or what setproctitle(3) wrote over
/// them. One line; without the padding at its end.
[[nodiscard]] std::string title_from_cmdline(std::string_view cmdline);

/// The command in parentheses of /proc/<pid>/stat, at most 15 bytes of it (TASK_COMM_LEN).
[[nodiscard]] std::string name_from_stat(std::string_view stat);

/// A process's part, and which of several equal ones it is.
struct ProcessRole {
  std::optional<std::string> role;
  std::optional<std::string> rank;
  bool operator==(ProcessRole const&) const = default;
};

/// Recognises, by their titles (vLLM 0.11 to 0.33, any VLLM_PROCESS_NAME_PREFIX):
///   engine_core, worker, api_server, dp_coordinator, with the rank that follows the name
///   ("DP0", "PP1_TP0", "0"); api_server also by its command (`vllm serve`, the module
///   vllm.entrypoints.openai.api_server);
/// and of any program: resource_tracker and fork_server (multiprocessing's), python, shell.
/// `name` serves where there is no title: a zombie has none. It may be cut.
/// A forked child that sets no title of its own bears its parent's, and so its role.
[[nodiscard]] ProcessRole role_of(std::string_view title, std::string_view name);

}  // namespace memacct
