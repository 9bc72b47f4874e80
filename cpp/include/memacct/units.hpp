// Units of every quantity in memacct: bytes and nanoseconds, as unsigned 64-bit integers.
#pragma once
#include <cstdint>

namespace memacct {

inline constexpr std::uint64_t kKiB = std::uint64_t{1} << 10;
inline constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
inline constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

}  // namespace memacct
