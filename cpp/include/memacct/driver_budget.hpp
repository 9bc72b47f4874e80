// How much of the wall time driver calls may take, and when the next may be made. Pure.
#pragma once
#include <algorithm>
#include <cstdint>

namespace memacct {

/// An account in nanoseconds of driver time: it earns `ratio` of the wall time, each reading is
/// paid for when its cost is known, and while it is in debt there is no reading. So over any time
/// the readings cost at most ratio * time, plus what was saved (kSavedNs at most), plus one
/// reading. That one call is slow (a reset, a lock that a neighbour holds) is then paid back by a
/// longer pause; that all are slow makes the rate lower, to ratio / cost.
class DriverBudget {
 public:
  /// Enough that a few calls of some milliseconds leave the rate as it is.
  static constexpr double kSavedNs = 20e6;

  /// @param ratio: in (0, 1]; 1 does not limit.
  DriverBudget(double ratio, std::uint64_t now_ns) noexcept : ratio_(ratio), last_ns_(now_ns) {}

  /// Pays for a reading that ended at `now_ns` and took `cost_ns`.
  /// @returns the time before which there is to be no other; `now_ns` at the least.
  std::uint64_t spend(std::uint64_t now_ns, std::uint64_t cost_ns) noexcept {
    saved_ns_ = std::min(kSavedNs, saved_ns_ + ratio_ * static_cast<double>(now_ns - last_ns_));
    last_ns_ = now_ns;
    saved_ns_ -= static_cast<double>(cost_ns);
    if (ratio_ >= 1.0 || saved_ns_ >= 0) return now_ns;
    return now_ns + static_cast<std::uint64_t>(-saved_ns_ / ratio_);
  }

 private:
  double ratio_;
  double saved_ns_ = 0;
  std::uint64_t last_ns_;
};

}  // namespace memacct
