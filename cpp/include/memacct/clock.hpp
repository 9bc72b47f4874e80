// The one clock that every reading is stamped with.
#pragma once
#include <cstdint>

namespace memacct {

/// Nanoseconds of CLOCK_MONOTONIC: comparable between the processes of one machine since
/// boot, and the clock of Python's time.monotonic_ns().
[[nodiscard]] std::uint64_t monotonic_ns() noexcept;

}  // namespace memacct
