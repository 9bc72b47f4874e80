#include "memacct/identity.hpp"

#include <algorithm>

#include "memacct/told_bytes.hpp"

namespace memacct {
namespace {

using nvml::ProcessList;
using nvml::ProcessRecord;

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

// Nobody is hidden from such a list, so who is not in it holds nothing, if it has no context. Not
// an empty one (some drivers list nobody), nor where a MIG instance may be what we use.
bool absence_says_nothing_held(ProcessList const& list, SelfFacts const& facts) {
  return facts.context_live == false && list.complete && !list.records.empty() &&
         facts.mig_enabled == false;
}

OwnRecord by_memory(ProcessList const& list, SelfFacts const& facts) {
  auto const pid = *facts.remembered_pid;
  OwnRecord own{.source = AttributionSource::kFingerprint, .pid = pid, .located = true};
  own.numbers_ours = pid == facts.names.pid;
  if (own.numbers_ours) {
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
    if (absence_says_nothing_held(list, facts)) own.own_bytes = 0;
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

OwnRecord accepted(ProcessRecord const& record, AttributionSource source, std::string reason) {
  return {.source = source,
          .pid = record.pid,
          .own_bytes = record.process_used_bytes,
          .located = true,
          .reason = std::move(reason)};
}

// Our getpid() is listed. Nothing is located if the number cannot be told from a stranger's.
OwnRecord by_pid(ProcessRecord const& record, bool sure, std::string const& doubt,
                 SelfFacts const& facts) {
  OwnRecord own;
  if (!sure) {
    own.reason = doubt;
  } else if (!measured(&record)) {
    own = {.pid = record.pid, .located = true, .reason = what_is_wrong(record)};
  } else {
    own.reason = contradiction(record, facts);
    if (own.reason.empty()) own = accepted(record, AttributionSource::kPid, "");
  }
  own.numbers_ours = own.located;
  return own;
}

std::string doubt_about(ProcessRecord const& record, SelfFacts const& facts,
                        std::vector<ProcessRecord const*> const& outer) {
  auto const listed = "pid " + std::to_string(record.pid) + " is listed";
  if (facts.numbers_ours == false) {
    return listed +
           " beside processes that have no GPU open in our /proc: another pid "
           "namespace's numbers, and perhaps another process's; identify() can tell";
  }
  if (!outer.empty()) {
    return "pid " + std::to_string(record.pid) + " and pid " + std::to_string(outer.front()->pid) +
           " could both be this process; identify() can tell";
  }
  return listed +
         ", which may be another process's number in another pid namespace; identify() "
         "can tell";
}

// The broker's number, where nothing says that the list's numbers are our own namespace's.
ProcessRecord const* broker_match(ProcessList const& list, SelfFacts const& facts) {
  auto const* const record = facts.broker_pid ? list.find(*facts.broker_pid) : nullptr;
  bool const other_numbers = facts.numbers_ours == false || !facts.names.procfs_is_ours();
  return measured(record) && other_numbers ? record : nullptr;
}

OwnRecord by_number(ProcessList const& list, SelfFacts const& facts) {
  auto const& names = facts.names;
  bool const one_numbering = names.initial_namespace == true || facts.numbers_ours == true;
  auto const outer = outer_matches(list, names);
  OwnRecord own;
  if (auto const* const record = list.find(names.pid)) {
    own = by_pid(*record, one_numbering,
                 one_numbering ? std::string() : doubt_about(*record, facts, outer), facts);
    // Ours, or not ours where numbers mean one thing: no other number can be.
    if (own.located || (one_numbering && outer.empty())) return own;
  } else {
    own.reason = nobody(list, names);
    own.numbers_ours = facts.numbers_ours == true;
    // Expected of a process without a context; with one, the list hides us, and then it may
    // show us under another number, or hide our children.
    own.located = one_numbering && facts.context_live == false;
    if (own.located && absence_says_nothing_held(list, facts)) own.own_bytes = 0;
  }
  if (facts.numbers_ours == true || facts.context_live == false) return own;
  auto const* const record = list.find(names.pid);
  bool const pid_in_doubt =
      record != nullptr && facts.numbers_ours != false && contradiction(*record, facts).empty();
  if (outer.size() == 1 && !pid_in_doubt && contradiction(*outer.front(), facts).empty()) {
    return accepted(*outer.front(), AttributionSource::kNspid, own.reason);
  }
  auto const* const told = broker_match(list, facts);
  if (told != nullptr && contradiction(*told, facts).empty()) {
    return accepted(*told, AttributionSource::kBroker, own.reason);
  }
  return own;
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

bool refutes_memory(ProcessList const& list, SelfFacts const& facts) {
  return facts.remembered_pid && facts.context_live == true && list.complete &&
         !list.records.empty() && list.find(*facts.remembered_pid) == nullptr;
}

std::optional<bool> numbers_are_ours(ProcessList const& list, SelfFacts const& facts) {
  auto const& names = facts.names;
  if (facts.context_live != true) return std::nullopt;  // we need not be listed then
  std::vector<std::uint32_t> others;
  for (auto const& record : list.records) {
    if (record.pid != names.pid) others.push_back(record.pid);
  }
  bool const listed = others.size() < list.records.size();
  if (listed && others.empty()) return true;
  if (!names.procfs_is_ours()) return std::nullopt;
  auto const there = all_have_devices_open(others);
  if (there != true) return there;
  return listed ? std::optional(true) : std::nullopt;
}

void attribute(OwnRecord const& own, SelfFacts const& facts,
               std::optional<std::uint64_t> high_bytes, Attribution& result) {
  result.source = own.source;
  result.own_pid = own.pid;
  result.reason = own.reason;
  if (own.own_bytes) {
    result.own_bounds_bytes = {own.own_bytes, own.own_bytes};
    return;
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
}

}  // namespace memacct
