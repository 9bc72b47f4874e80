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
// The process already has a context. In each step it goes over from the amount it holds for
// this purpose (none at first) to another of 0, 2, ... 62 MiB, and reads the list again. A
// record matches the step if it changed by exactly the difference. Ours does, unless another
// thread of this process moves memory meanwhile; such a step matches nobody.
//
// *Chance of a false match.* The new amount is drawn, by the kernel's random numbers, after the
// list before it was read, from the 31 that are not held. Whatever a neighbour does without
// knowing the draw, it changes by that difference with a chance of at most 1/31, in each step
// anew. The answer takes 10 matching steps of at most 20, and 5 more than anybody else has:
//     P <= C(20,10) / 31^10 = 2.3e-10 for each neighbour that moves in every step;
// one that stands still never matches. So for 64 neighbours that all move all the time and a
// list that hides our own record (or it would win): 1.4e-8. The bound holds for
//  - another run of this very procedure, in another container at the same moment: its draws
//    are its own. Fifty pairs at once go wrong with 2.3e-8 at most;
//  - one that copies our moves with a delay: it shows our last difference when the next one is
//    asked for, and is right where that is the same (1/31);
//  - any distribution of random multiples of 2 MiB, however often it changes.
// It does not hold for a copy of our moves that is complete before our own next call: such a
// record matches as ours does, so neither leads and nobody is named; it would be named if
// our own were hidden. Nobody can do that without watching this device for each call.
//
// *What it takes.* One allocation of at most 62 MiB at a time, and each only while 256 MiB are
// free; 10 steps where this process is quiet. None where no record has bytes (drivers 535.113 to
// 560 in a container, "not available" on WSL): that is seen in the first list.

inline constexpr std::uint64_t kFingerprintUnitBytes = 2 * kMiB;
inline constexpr unsigned kFingerprintAmounts = 32;  // 0 to 31 units
inline constexpr std::uint64_t kFingerprintAmpleBytes = 256 * kMiB;
inline constexpr int kFingerprintMatches = 10;
inline constexpr int kFingerprintLead = 5;
inline constexpr int kFingerprintSteps = 20;

/// Counts, for each listed process, the steps in which it changed as we did. Pure.
class FingerprintVote {
 public:
  /// `change_bytes`: by how much this process changed between the two lists.
  void add_step(nvml::ProcessList const& before, nvml::ProcessList const& after,
                std::int64_t change_bytes);
  /// The process with kFingerprintMatches, kFingerprintLead ahead of all others.
  [[nodiscard]] std::optional<std::uint32_t> winner() const;
  /// False if no process can win any more in `steps_left`.
  [[nodiscard]] bool open(int steps_left) const;

 private:
  std::map<std::uint32_t, int> matches_;
};

struct FingerprintResult {
  std::optional<std::uint32_t> pid;
  std::string reason;  // why there is no pid
  /// The steps were made and no record followed them: whatever was believed is refuted.
  bool refuted = false;
};

/// Goes through steps until one process is found or none can be. Nothing is held when it
/// returns, nor if `read_list` throws.
/// Cost: a cuMemAlloc, a cuMemFree (which synchronises the device), a cuMemGetInfo and a list
/// a step.
[[nodiscard]] FingerprintResult run_fingerprint(
    cuda::Driver& driver, cuda::Device const& device,
    std::function<nvml::ProcessList()> const& read_list);

}  // namespace memacct
