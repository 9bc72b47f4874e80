// The simulated GPU's settings, read from the environment, and its two log files.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#define MEMACCT_SIM_API __attribute__((visibility("default")))

namespace memacct::sim {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

/// "4096", "400MiB", "1.5GiB" in bytes; nullopt if `text` is no such size.
[[nodiscard]] MEMACCT_SIM_API std::optional<uint64_t> parse_bytes(std::string_view text);

/// The environment variable `name` as a size in bytes; `fallback` if it is unset or empty.
/// A value that cannot be read ends the process: a simulation with other settings than the
/// ones that were asked for would show something that nobody asked.
[[nodiscard]] MEMACCT_SIM_API uint64_t option_bytes(char const* name, uint64_t fallback);
[[nodiscard]] MEMACCT_SIM_API std::string option_text(char const* name, char const* fallback);

/// Ends the process with one sentence on stderr.
[[noreturn]] MEMACCT_SIM_API void fail(char const* format, ...)
    __attribute__((format(printf, 1, 2)));

/// A line for the file that MEMACCT_SIM_LOG names (or "stderr"); nothing if it is unset.
MEMACCT_SIM_API void log(char const* format, ...) __attribute__((format(printf, 1, 2)));

/// A line for MEMACCT_SIM_TRACE: each change of the account, and each reading of it.
void trace(char const* what, int physical, uint64_t bytes, uint64_t device_used_bytes);

[[nodiscard]] MEMACCT_SIM_API uint64_t monotonic_ns();

}  // namespace memacct::sim
