// The active rung: our record is the one that moves when we allocate.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "memacct/cuda_api.hpp"
#include "memacct/process_list.hpp"
#include "memacct/units.hpp"

namespace memacct {

// Note [Fingerprint]
// The process already has a context. It allocates a random odd multiple of 2 MiB, reads the
// list, frees it and reads the list again: a record matches the round if it rose and fell by
// exactly that. Other processes may move meanwhile: a record of theirs that moves is not a
// match, and ours still is. Rounds in which another thread of this process moves memory
// match nobody and are repeated. A neighbour would have to hit the amount, one of 15, both
// up and down, in one round by chance at most once in 225; three rounds of lead leave about
// 1e-7. At most one allocation of 62 MiB is held at a time, and only while 256 MiB are free.

inline constexpr std::uint64_t kFingerprintUnitBytes = 2 * kMiB;
inline constexpr std::uint64_t kFingerprintAmpleBytes = 256 * kMiB;
inline constexpr int kFingerprintLead = 3;
inline constexpr int kFingerprintRounds = 12;

/// Counts, for each listed process, the rounds in which it moved as we did. Pure.
class FingerprintVote {
 public:
  void add_round(nvml::ProcessList const& before, nvml::ProcessList const& holding,
                 nvml::ProcessList const& after, std::uint64_t bytes);
  /// The process that leads all others by kFingerprintLead rounds.
  [[nodiscard]] std::optional<std::uint32_t> winner() const;
  /// True if no record of the last round had a number of bytes at all.
  [[nodiscard]] bool blind() const noexcept { return blind_; }

 private:
  std::map<std::uint32_t, int> matches_;
  bool blind_ = false;
};

struct FingerprintResult {
  std::optional<std::uint32_t> pid;
  std::string reason;  // why there is no pid
};

/// Runs rounds until one process is found or kFingerprintRounds have passed. Every
/// allocation is freed, also if `read_list` throws.
/// Cost: 2 driver allocations' worth of calls and 2 list readings a round; cuMemFree
/// synchronises the device.
[[nodiscard]] FingerprintResult run_fingerprint(
    cuda::Driver& driver, cuda::Device const& device,
    std::function<nvml::ProcessList()> const& read_list);

}  // namespace memacct
