// Which record of the driver's list is this process, and who the others are.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "memacct/process_list.hpp"
#include "memacct/process_tree.hpp"

namespace memacct {

enum class AttributionSource { kPid, kNspid, kFingerprint, kBroker, kAllocatorBound, kNone };
enum class Owner { kOwn, kTree, kForeign, kUnknown };

/// (low, high), both inclusive; an open end is unknown.
using ByteBounds = std::pair<std::optional<std::uint64_t>, std::optional<std::uint64_t>>;

/// How this process's record was found, and how sure its number is.
struct Attribution {
  AttributionSource source = AttributionSource::kNone;
  std::optional<std::uint32_t> own_pid;  // the driver's number for this process, once known
  ByteBounds own_bounds_bytes;
  std::string reason;  // why no better rung applied; "" when the first did
  bool operator==(Attribution const&) const = default;
};

/// What is known about this process apart from the list.
struct SelfFacts {
  SelfNames names;
  /// Whether the driver's numbers are those of our own pid namespace, as far as procfs shows it
  /// (see numbers_are_ours()). Of no matter in the machine's own namespace.
  std::optional<bool> numbers_ours;
  /// Our number in the machine's own namespace, as a broker there told it.
  std::optional<std::uint32_t> broker_pid;
  /// Found by an allocation of ours (fingerprint): sure whatever the numbers mean.
  std::optional<std::uint32_t> remembered_pid;
  /// The CUDA driver is not in this process, or not initialised: it holds no CUDA memory.
  bool driver_unused = false;
  /// Whether this process has a context on the device, as far as the driver tells.
  std::optional<bool> context_live;
  /// The device is divided into MIG instances: what is ours may stand with one of them.
  std::optional<bool> mig_enabled;
  std::optional<std::uint64_t> allocator_reserved_bytes;
  bool operator==(SelfFacts const&) const = default;
};

/// The answer of the passive rungs for one list.
struct OwnRecord {
  AttributionSource source = AttributionSource::kNone;
  std::optional<std::uint32_t> pid;
  std::optional<std::uint64_t> own_bytes;
  /// It is known which record is ours, or that none of the listed is.
  bool located = false;
  bool numbers_ours = false;  // the list's numbers are known to be our namespace's
  std::string reason;
};

// Note [Whose number it is]
// Outside the machine's own pid namespace a listed getpid() is a stranger's if the driver lists
// the machine's numbers (those up to 530 do). What tells: we hold a context, so every driver
// lists us under one of our numbers. If the list's numbers are the machine's, ours is one that
// our procfs does not show, or shows as another process by chance. So the numbers count as ours
// only if each listed process is there in our procfs with a GPU open. They are the driver's
// for good then: it is asked once. It is wrong only if, in a list of the machine's numbers, one
// is our getpid() and *each* other one, ours among them, is that of a GPU process in our container.
// A number of an outer namespace, from NSpid or a broker, is taken only where the list's numbers
// are not known to be our own namespace's.

/// The ladder: remembered fingerprint, pid, nspid, broker. Pure.
///
/// Absent, 0 bytes and "not available" are three kinds of unknown: only a number above 0 is
/// a measurement. A process that has not initialised the driver holds 0, and so does one without a
/// context that a list of others, of an undivided device whose numbers mean one thing, does not
/// name. Outside the machine's own pid namespace a record that is smaller than what our
/// allocator holds is rejected, and see Note [Whose number it is].
[[nodiscard]] OwnRecord find_own(nvml::ProcessList const& list, SelfFacts const& facts);

/// Whether the list refutes what identify() found once: a whole list of others without that
/// record, though we hold a context. (A process that was restored from a checkpoint elsewhere has
/// another number there.) Pure.
[[nodiscard]] bool refutes_memory(nvml::ProcessList const& list, SelfFacts const& facts);

/// See Note [Whose number it is]. Looks at each listed process in procfs, which takes some
/// milliseconds for large ones; nullopt if it does not tell.
[[nodiscard]] std::optional<bool> numbers_are_ours(nvml::ProcessList const& list,
                                                   SelfFacts const& facts);

/// Fills source and bounds for a record whose bytes are known (bounds: that number) or not
/// (allocator_bound: at least the allocator's reserve, at most `high_bytes`).
void attribute(OwnRecord const& own, SelfFacts const& facts,
               std::optional<std::uint64_t> high_bytes, Attribution& result);

struct Shares {
  std::optional<std::uint64_t> tree_bytes;
  std::optional<std::uint64_t> foreign_bytes;
  std::vector<Owner> owners;  // one for each record of the list
  std::string reason;         // why a sum is unknown
  /// They follow from the list, its numbers, and who the listed processes are; nothing else
  /// had to be looked at.
  bool settled = false;
};

/// Divides the list among own, tree and foreign. Descendants are looked up in procfs, which
/// has a meaning only where the driver's numbers are procfs's. Elsewhere the tree is 0 if
/// no descendant can hold device memory, and unknown, as is foreign, if one can.
/// @param list_bit  the list's, for ProcessTree::contains().
void divide(nvml::ProcessList const& list, std::uint64_t list_bit, OwnRecord const& own,
            SelfNames const& names, ProcessTree& tree, Shares& shares);

}  // namespace memacct
