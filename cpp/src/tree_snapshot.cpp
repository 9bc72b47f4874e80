#include "memacct/tree_snapshot.hpp"

#include <algorithm>
#include <cerrno>
#include <limits>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include "memacct/clock.hpp"
#include "memacct/error.hpp"
#include "memacct/proc_file.hpp"
#include "memacct/process_tree.hpp"

namespace memacct {
namespace {

constexpr int kMostLooks = 8;

std::string path_of(std::uint32_t pid, char const* name) {
  return "/proc/" + std::to_string(pid) + "/" + name;
}

/// The process that a thread belongs to; nullopt if the kernel does not tell.
std::optional<std::string> process_of_thread(std::uint32_t tid) {
  constexpr std::string_view kKey = "\nTgid:\t";
  auto const status = read_file(path_of(tid, "status")).value_or("");
  auto const at = status.find(kKey);
  if (at == std::string::npos) return std::nullopt;
  auto const start = at + kKey.size();
  return status.substr(start, status.find('\n', start) - start);
}

constexpr bool is_denied(int error_number) noexcept {
  return error_number == EACCES || error_number == EPERM;
}

/// Only what is not there or not permitted may count as unknown: a process that is left out
/// because we ran out of descriptors would make the sums wrong unnoticed.
[[noreturn]] void throw_read_error(std::string const& path, int error_number) {
  auto text = std::generic_category().message(error_number);
  if (is_denied(error_number) || error_number == ENOENT) {
    throw SourceUnavailableError(path, std::move(text));
  }
  throw SourceReadError(path, std::move(text), error_number);
}

[[noreturn]] void throw_look_error(std::uint32_t pid, ProcessLook const& look) {
  auto const path = path_of(pid, "stat");
  if (look.error_number == 0) throw SourceFormatError(path, "not a stat line", {});
  throw_read_error(path, look.error_number);
}

ProcessStat look_at_root(std::uint32_t pid) {
  auto const number = std::to_string(pid);
  auto const look = look_at(pid);
  if (look.gone) throw std::invalid_argument("there is no process " + number);
  if (!look.stat) throw_look_error(pid, look);
  // A thread has a folder in /proc too, which its listing does not show.
  auto const process = process_of_thread(pid);
  if (process && *process != number) {
    throw std::invalid_argument(number + " is a thread of process " + *process);
  }
  return *look.stat;
}

using Looks = std::map<std::uint32_t, ProcessStat>;

/// Looks at the processes that were not seen before. @returns whether there was one.
bool look_for_more(Looks& looks, bool& hides_some) {
  auto const pids = numbers_in("/proc");
  if (!pids) throw_read_error("/proc", errno);
  auto const before = looks.size();
  hides_some = false;
  for (auto const pid : *pids) {
    if (looks.contains(pid)) continue;
    auto const look = look_at(pid);
    if (look.stat) {
      looks.emplace(pid, *look.stat);
    } else if (is_denied(look.error_number)) {
      hides_some = true;
    } else if (!look.gone) {
      throw_look_error(pid, look);
    }
  }
  return looks.size() != before;
}

/// The roots and their descendants, depth first.
std::vector<TreeMember> members_among(Looks const& looks, std::vector<std::uint32_t> const& roots) {
  std::map<std::uint32_t, std::set<std::pair<std::uint64_t, std::uint32_t>>> children;
  for (auto const& [pid, stat] : looks) {
    children[stat.parent_pid].emplace(stat.start_ticks, pid);
  }
  std::vector<TreeMember> members;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> waiting;  // pid and depth; the last is next
  for (auto root = roots.rbegin(); root != roots.rend(); ++root) waiting.emplace_back(*root, 0U);
  std::set<std::uint32_t> taken;
  while (!waiting.empty()) {
    auto const [pid, depth] = waiting.back();
    waiting.pop_back();
    if (!taken.insert(pid).second) continue;  // a root that is another's descendant
    auto const& stat = looks.at(pid);
    members.push_back({.pid = pid,
                       .parent_pid = stat.parent_pid,
                       .start_ticks = stat.start_ticks,
                       .depth = depth});
    auto const& younger = children[pid];
    for (auto child = younger.rbegin(); child != younger.rend(); ++child) {
      waiting.emplace_back(child->second, depth + 1);
    }
  }
  return members;
}

/// Whether a process outside may have been forked from a member: it is younger than the oldest
/// of them, has not called exec, and its stack is where a member's is or cannot be told.
bool may_share(ProcessStat const& outsider, std::uint64_t oldest_ticks,
               std::set<std::optional<std::uint64_t>> const& stacks) {
  if (outsider.executed || outsider.kernel_thread || outsider.stack_start == 0U) return false;
  if (outsider.start_ticks < oldest_ticks) return false;
  auto const hidden = !outsider.stack_start || stacks.contains(std::nullopt);
  return hidden || stacks.contains(outsider.stack_start);
}

/// See TreeMembers::anonymous_pages_own. Wrong only about a process that had the place of its
/// stack rewritten (prctl(PR_SET_MM_START_STACK), as CRIU restores processes).
bool nobody_else_shares(Looks const& looks, std::vector<TreeMember> const& members) {
  std::set<std::uint32_t> inside;
  std::set<std::optional<std::uint64_t>> stacks;
  auto oldest_ticks = std::numeric_limits<std::uint64_t>::max();
  for (auto const& member : members) {
    auto const& stat = looks.at(member.pid);
    if (member.depth == 0 && !stat.executed) return false;
    inside.insert(member.pid);
    stacks.insert(stat.stack_start);
    oldest_ticks = std::min(oldest_ticks, stat.start_ticks);
  }
  if (read_file("/sys/kernel/mm/ksm/pages_shared").value_or("0\n") != "0\n") return false;
  return std::none_of(looks.begin(), looks.end(), [&](auto const& look) {
    return !inside.contains(look.first) && may_share(look.second, oldest_ticks, stacks);
  });
}

/// A sum in which one unknown makes the whole unknown.
struct Sum {
  std::uint64_t bytes = 0;
  std::uint64_t count = 0;
  bool known = true;

  void add(std::optional<std::uint64_t> term) noexcept {
    known = known && term.has_value();
    bytes += term.value_or(0);
    ++count;
  }
  [[nodiscard]] std::optional<std::uint64_t> total() const noexcept {
    return known && count > 0 ? std::optional(bytes) : std::nullopt;
  }
};

/// A process that holds no memory, or whose memory is its parent's, adds nothing to any sum.
bool adds_nothing(ProcessState state) noexcept {
  return state == ProcessState::kZombie || state == ProcessState::kKernel ||
         state == ProcessState::kTwin;
}

/// The sum of one term: `term(process)` of those that were read in full, or also of the partial.
template <typename Term>
std::optional<std::uint64_t> sum_of(TreeSnapshot const& tree, bool with_partial, Term const& term) {
  Sum sum;
  for (auto const& process : tree.processes) {
    if (adds_nothing(process.state)) ++sum.count;
    if (process.state == ProcessState::kWhole ||
        (with_partial && process.state == ProcessState::kPartial)) {
      sum.add(term(process));
    }
  }
  return sum.total();
}

/// What every tier, or only the rollup, tells.
constexpr bool kAlsoPartial = true;
constexpr bool kOnlyRead = false;

void sum_up(TreeSnapshot& tree, bool anonymous_pages_own) {
  auto const host = [&](bool with_partial, auto HostMemory::* member) {
    return sum_of(tree, with_partial, [member](ProcessMemory const& process) {
      return std::optional<std::uint64_t>((*process.host).*member);
    });
  };
  tree.rss_bytes = host(kAlsoPartial, &HostMemory::rss_bytes);
  tree.swap_bytes = host(kAlsoPartial, &HostMemory::swap_bytes);
  if (tree.tier != HostTier::kRollup) {
    if (tree.tier == HostTier::kCounters) tree.swap_bytes.reset();
    return;
  }
  tree.pss_bytes = host(kOnlyRead, &HostMemory::pss_bytes);
  tree.pss_anon_bytes = host(kOnlyRead, &HostMemory::pss_anon_bytes);
  tree.pss_file_bytes = host(kOnlyRead, &HostMemory::pss_file_bytes);
  tree.pss_shmem_bytes = host(kOnlyRead, &HostMemory::pss_shmem_bytes);
  tree.uss_bytes = host(kOnlyRead, &HostMemory::uss_bytes);
  tree.swap_pss_bytes = host(kOnlyRead, &HostMemory::swap_pss_bytes);
  tree.private_hugetlb_bytes = sum_of(
      tree, kOnlyRead, [](ProcessMemory const& process) { return process.private_hugetlb_bytes; });
  auto low = sum_of(tree, kOnlyRead, [](ProcessMemory const& process) {
    return process.freed_bounds_bytes ? process.freed_bounds_bytes->first : std::nullopt;
  });
  if (anonymous_pages_own && tree.pss_anon_bytes) low = tree.pss_anon_bytes;
  auto const high = tree.complete ? tree.pss_bytes : std::nullopt;
  if (low || high) tree.freed_bounds_bytes = Bounds{low, high};
}

bool is_unread(ProcessMemory const& process) noexcept {
  return process.state == ProcessState::kGone || process.state == ProcessState::kDenied ||
         process.state == ProcessState::kPartial;
}

std::uint32_t own_number() {
  auto const names = read_self_names();
  if (!names.procfs_pid) throw SourceUnavailableError("/proc/self", "not there");
  return *names.procfs_pid;
}

}  // namespace

TreeMembers find_members(std::vector<std::uint32_t> const& roots) {
  Looks looks;
  for (auto const pid : roots) looks.emplace(pid, look_at_root(pid));
  TreeMembers found;
  for (int look = 0; look < kMostLooks && !found.settled; ++look) {
    auto const more = look_for_more(looks, found.hides_some);
    auto members = members_among(looks, roots);
    // The first look may have passed a process's place before the process was made.
    found.settled = look > 0 && (!more || members.size() == found.members.size());
    found.members = std::move(members);
  }
  found.anonymous_pages_own = !found.hides_some && nobody_else_shares(looks, found.members);
  return found;
}

TreeSnapshot read_members(TreeMembers const& found, HostTier tier) {
  TreeSnapshot tree{.taken_ns = monotonic_ns(), .tier = tier};
  tree.processes.reserve(found.members.size());
  for (auto const& member : found.members) {
    if (member.depth == 0) tree.root_pids.push_back(member.pid);
    tree.processes.push_back(read_process(member, tier));
  }
  tree.span_ns = monotonic_ns() - tree.taken_ns;
  tree.processes_count = tree.processes.size();
  tree.unread_count = static_cast<std::uint64_t>(
      std::count_if(tree.processes.begin(), tree.processes.end(), is_unread));
  tree.complete = found.settled && !found.hides_some && tree.unread_count == 0;
  sum_up(tree, found.anonymous_pages_own);
  return tree;
}

TreeSnapshot snapshot_tree(std::vector<std::uint32_t> roots, HostTier tier) {
  auto const taken_ns = monotonic_ns();
  if (roots.empty()) roots.push_back(own_number());
  auto tree = read_members(find_members(roots), tier);
  tree.span_ns += tree.taken_ns - taken_ns;
  tree.taken_ns = taken_ns;
  return tree;
}

}  // namespace memacct
