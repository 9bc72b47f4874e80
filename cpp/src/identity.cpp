#include "memacct/identity.hpp"

#include <algorithm>

namespace memacct {
namespace {

using nvml::ProcessList;
using nvml::ProcessRecord;

bool measured(ProcessRecord const* record) {
  return record != nullptr && record->process_used_bytes.value_or(0) > 0;
}

char const* role_of(Owner owner) {
  return owner == Owner::kTree ? "a child" : owner == Owner::kForeign ? "a neighbour" : "a process";
}

std::string what_is_wrong(ProcessRecord const& record, char const* who = "this process") {
  return "the driver lists " + std::string(who) + " (pid " + std::to_string(record.pid) +
         (record.process_used_bytes ? ") with 0 bytes, which says nothing"
                                    : ") but does not tell its bytes");
}

std::string nobody(ProcessList const& list, SelfNames const& names) {
  if (!list.complete) return list.reason;
  if (list.records.empty()) return "the driver lists no process on this device";
  return "none of the " + std::to_string(list.records.size()) +
         " listed processes has this process's number (pid " + std::to_string(names.pid) + ")";
}

bool has_outer_number(SelfNames const& names, std::uint32_t pid) {
  return names.procfs_pid == pid ||
         std::find(names.outer_pids.begin(), names.outer_pids.end(), pid) != names.outer_pids.end();
}

OwnRecord by_memory(ProcessList const& list, SelfFacts const& facts) {
  auto const pid = *facts.remembered_pid;
  OwnRecord own{.source = AttributionSource::kFingerprint,
                .pid = pid,
                .own_bytes = {},
                .located = true,
                .reason = {}};
  if (pid == facts.names.pid) {
    own.source = AttributionSource::kPid;
  } else if (has_outer_number(facts.names, pid)) {
    own.source = AttributionSource::kNspid;
  }
  auto const* const record = list.find(pid);
  if (measured(record)) {
    own.own_bytes = record->process_used_bytes;
  } else if (record != nullptr) {
    own.reason = what_is_wrong(*record);
  } else {
    own.reason = "the record found by an allocation (pid " + std::to_string(pid) +
                 ") is not listed now" + (list.complete ? "" : ": " + list.reason);
  }
  return own;
}

// Records that carry one of our numbers in an outer pid namespace.
std::vector<ProcessRecord const*> outer_matches(ProcessList const& list, SelfNames const& names) {
  std::vector<ProcessRecord const*> found;
  for (auto const& record : list.records) {
    if (record.pid != names.pid && measured(&record) && has_outer_number(names, record.pid)) {
      found.push_back(&record);
    }
  }
  return found;
}

// Why `record` cannot be ours although its number is; empty if it can.
std::string contradiction(ProcessRecord const& record, SelfFacts const& facts) {
  auto const& reserved = facts.allocator_reserved_bytes;
  if (facts.names.initial_namespace == true || !reserved) return {};
  if (record.process_used_bytes.value_or(0) >= *reserved) return {};
  return "pid " + std::to_string(record.pid) +
         " is listed with less than our allocator holds: another process's number";
}

OwnRecord by_number(ProcessList const& list, SelfFacts const& facts) {
  OwnRecord none;
  auto const accept = [](ProcessRecord const& record, AttributionSource source,
                         std::string reason) {
    return OwnRecord{.source = source,
                     .pid = record.pid,
                     .own_bytes = record.process_used_bytes,
                     .located = true,
                     .reason = std::move(reason)};
  };
  auto const& names = facts.names;
  auto const outer = outer_matches(list, names);
  if (auto const* const record = list.find(names.pid)) {
    if (!measured(record)) {
      none.pid = names.pid;
      none.located = true;
      none.reason = what_is_wrong(*record);
      return none;
    }
    none.reason = contradiction(*record, facts);
    if (none.reason.empty()) {
      if (names.initial_namespace == true || outer.empty()) {
        return accept(*record, AttributionSource::kPid, "");
      }
      none.reason = "pid " + std::to_string(record->pid) + " and pid " +
                    std::to_string(outer.front()->pid) +
                    " could both be this process; identify() can tell";
      return none;
    }
  } else {
    none.reason = nobody(list, names);
    // Expected of a process without a context; with one, the list hides us, and then it may
    // show us under another number, or hide our children.
    none.located = names.initial_namespace == true && facts.context_live == false;
    // On the bare machine a whole list without us and a driver without a context agree. Not if
    // it is empty (some drivers list nobody), nor where a MIG instance may be what we use.
    bool const lists_others = list.complete && !list.records.empty();
    if (none.located && lists_others && facts.mig_enabled == false) none.own_bytes = 0;
  }
  if (outer.size() == 1 && contradiction(*outer.front(), facts).empty()) {
    return accept(*outer.front(), AttributionSource::kNspid, none.reason);
  }
  return none;
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

void forget_unlisted(ProcessTree& tree, ProcessList const& list) {
  std::vector<std::uint32_t> listed;
  for (auto const& record : list.records) listed.push_back(record.pid);
  tree.retain(listed);
}

Owner owner_of(std::uint32_t pid, std::uint32_t self, ProcessTree& tree) {
  auto const member = tree.contains(pid, self);
  return !member ? Owner::kUnknown : *member ? Owner::kTree : Owner::kForeign;
}

bool all_known(std::vector<Owner> const& owners) {
  return std::find(owners.begin(), owners.end(), Owner::kUnknown) == owners.end();
}

// Whether the driver's numbers are those of our procfs.
bool numbers_are_procfs(ProcessList const& list, OwnRecord const& own, SelfNames const& names) {
  if (!names.procfs_pid) return false;
  if (own.pid) return own.pid == names.procfs_pid;
  // Not listed ourselves. On the bare machine there is one numbering, unless the list shows
  // a process that does not exist: then it is not the bare machine.
  return names.initial_namespace == true && names.procfs_is_ours() &&
         std::all_of(list.records.begin(), list.records.end(), [](ProcessRecord const& record) {
           return look_at(record.pid).stat.has_value();
         });
}

}  // namespace

OwnRecord find_own(ProcessList const& list, SelfFacts const& facts) {
  if (facts.remembered_pid) return by_memory(list, facts);
  // In the machine's own namespace a record with our pid is ours, and better evidence than
  // a driver that says it is not initialised.
  bool const listed = facts.names.initial_namespace == true && measured(list.find(facts.names.pid));
  if (facts.driver_unused && !listed) {
    return {.source = AttributionSource::kNone,
            .pid = {},
            .own_bytes = 0,
            .located = true,
            .reason = "this process has not initialised the CUDA driver, so it holds nothing"};
  }
  return by_number(list, facts);
}

Attribution attribute(OwnRecord const& own, SelfFacts const& facts,
                      std::optional<std::uint64_t> high_bytes) {
  Attribution result{
      .source = own.source, .own_pid = own.pid, .own_bounds_bytes = {}, .reason = own.reason};
  if (own.own_bytes) {
    result.own_bounds_bytes = {own.own_bytes, own.own_bytes};
    return result;
  }
  auto const& reserved = facts.allocator_reserved_bytes;
  result.own_bounds_bytes = {std::nullopt, high_bytes};
  result.source = AttributionSource::kNone;
  if (reserved && (!high_bytes || *reserved <= *high_bytes)) {
    result.source = AttributionSource::kAllocatorBound;
    result.own_bounds_bytes.first = reserved;
  } else if (reserved) {
    result.reason += "; our allocator holds more than the device has in use";
  }
  return result;
}

Shares divide(ProcessList const& list, OwnRecord const& own, SelfNames const& names,
              ProcessTree& tree) {
  auto const self = names.procfs_pid.value_or(names.pid);
  bool const same_numbers = own.located && numbers_are_procfs(list, own, names);
  forget_unlisted(tree, list);
  Shares shares;
  for (auto const& record : list.records) {
    bool const ours = own.pid == record.pid;
    shares.owners.push_back(ours            ? Owner::kOwn
                            : !same_numbers ? Owner::kUnknown
                                            : owner_of(record.pid, self, tree));
  }
  // A walk through all of /proc: only where the list cannot answer.
  bool const list_answers = list.complete && own.located && all_known(shares.owners);
  bool const nobody_below = !list_answers && tree.holds_nothing(self) == true;
  if (own.located && nobody_below) {
    std::replace(shares.owners.begin(), shares.owners.end(), Owner::kUnknown, Owner::kForeign);
  }
  bool const told_apart = all_known(shares.owners);
  if (nobody_below) {
    shares.tree_bytes = 0;
  } else if (list_answers) {
    shares.tree_bytes = sum_of(list, shares.owners, Owner::kTree, shares.reason);
  }
  if (list.complete && told_apart && own.located) {
    shares.foreign_bytes = sum_of(list, shares.owners, Owner::kForeign, shares.reason);
  }
  if (!told_apart) {
    shares.reason += shares.reason.empty() ? "" : "; ";
    shares.reason += !own.located   ? "who the listed processes are is unknown"
                     : same_numbers ? "not all listed processes can be looked up in /proc, so "
                                      "children cannot be told from neighbours"
                                    : "the driver's process numbers are not those of our /proc, so "
                                      "children cannot be told from neighbours";
  }
  return shares;
}

}  // namespace memacct
