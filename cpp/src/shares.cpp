// The list divided among this process, its tree and others.
#include <algorithm>

#include "memacct/identity.hpp"
#include "memacct/told_bytes.hpp"

namespace memacct {
namespace {

using nvml::ProcessList;
using nvml::ProcessRecord;

char const* role_of(Owner owner) {
  return owner == Owner::kTree ? "a child" : owner == Owner::kForeign ? "a neighbour" : "a process";
}

// Of what the driver says nothing of, there is no sum; `reason` then tells whose bytes they are.
std::optional<std::uint64_t> sum_of(ProcessList const& list, std::vector<Owner> const& owners,
                                    Owner wanted, std::string& reason) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < owners.size(); ++i) {
    if (owners[i] != wanted) continue;
    if (!measured(&list.records[i])) {
      reason += (reason.empty() ? "" : "; ") + what_is_wrong(list.records[i], role_of(wanted));
      return std::nullopt;
    }
    sum += *list.records[i].process_used_bytes;
  }
  return sum;
}

Owner owner_of(std::uint32_t pid, std::uint32_t self, std::uint64_t list_bit, ProcessTree& tree) {
  auto const member = tree.contains(pid, self, list_bit);
  return !member ? Owner::kUnknown : *member ? Owner::kTree : Owner::kForeign;
}

bool all_known(std::vector<Owner> const& owners) {
  return std::find(owners.begin(), owners.end(), Owner::kUnknown) == owners.end();
}

// Whether the driver's numbers are those of our procfs.
bool numbers_are_procfs(ProcessList const& list, OwnRecord const& own, SelfNames const& names,
                        ProcessTree const& tree) {
  if (!names.procfs_pid) return false;
  if (own.pid) return own.pid == names.procfs_pid;
  if (own.numbers_ours) return names.procfs_is_ours();
  // Not listed ourselves. On the bare machine there is one numbering, unless the list shows
  // a process that does not exist: then it is not the bare machine.
  return names.initial_namespace == true && names.procfs_is_ours() &&
         std::all_of(list.records.begin(), list.records.end(),
                     [&](ProcessRecord const& record) { return tree.exists(record.pid); });
}

}  // namespace

void divide(ProcessList const& list, std::uint64_t list_bit, OwnRecord const& own,
            SelfNames const& names, ProcessTree& tree, Shares& shares) {
  auto const self = names.procfs_pid.value_or(names.pid);
  bool const same_numbers = own.located && numbers_are_procfs(list, own, names, tree);
  shares.tree_bytes.reset();
  shares.foreign_bytes.reset();
  shares.owners.clear();
  shares.reason.clear();
  for (auto const& record : list.records) {
    bool const ours = own.pid == record.pid;
    shares.owners.push_back(ours            ? Owner::kOwn
                            : !same_numbers ? Owner::kUnknown
                                            : owner_of(record.pid, self, list_bit, tree));
  }
  tree.retain([&](std::uint32_t pid) { return list.find(pid) != nullptr; }, list_bit);
  // A walk through all of /proc: only where the list cannot answer.
  bool const list_answers = list.complete && own.located && all_known(shares.owners);
  bool const nobody_below = !list_answers && tree.holds_nothing(self) == true;
  if (own.located && nobody_below) {
    std::replace(shares.owners.begin(), shares.owners.end(), Owner::kUnknown, Owner::kForeign);
  }
  bool const told_apart = all_known(shares.owners);
  if (!list.complete && own.reason.find(list.reason) == std::string::npos) {
    shares.reason = list.reason;
  }
  if (nobody_below) {
    shares.tree_bytes = 0;
  } else if (list_answers) {
    shares.tree_bytes = sum_of(list, shares.owners, Owner::kTree, shares.reason);
  }
  if (list.complete && told_apart && own.located) {
    shares.foreign_bytes = sum_of(list, shares.owners, Owner::kForeign, shares.reason);
  }
  if (own.numbers_ours && names.initial_namespace != true && told_apart) {
    shares.reason += shares.reason.empty() ? "" : "; ";
    shares.reason +=
        "only processes of this pid namespace are listed: what others hold is in unattributed";
  }
  if (!told_apart) {
    shares.reason += shares.reason.empty() ? "" : "; ";
    shares.reason += !own.located   ? "who the listed processes are is unknown"
                     : same_numbers ? "not all listed processes can be looked up in /proc, so "
                                      "children cannot be told from neighbours"
                                    : "the driver's process numbers are not those of our /proc, so "
                                      "children cannot be told from neighbours";
  }
  shares.settled =
      list_answers &&
      std::all_of(list.records.begin(), list.records.end(), [&](ProcessRecord const& record) {
        return own.pid == record.pid || tree.watched(record.pid);
      });
}

}  // namespace memacct
