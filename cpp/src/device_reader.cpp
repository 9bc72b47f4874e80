#include "memacct/device_reader.hpp"

#include <algorithm>

#include "memacct/clock.hpp"

namespace memacct {
namespace {

void fill_memory(DeviceMemory& device, MemoryView const& view, char const* quota_hook) {
  device.source = view.source;
  device.total_bytes = view.memory.total_bytes;
  device.free_bytes = view.memory.free_bytes;
  device.device_used_bytes = view.memory.device_used_bytes;
  device.reserved_bytes = view.memory.reserved_bytes;
  if (view.cuda) {
    device.cuda_free_bytes = view.cuda->free_bytes;
    device.cuda_total_bytes = view.cuda->total_bytes;
  }
  if (view.unified) {
    device.unified = *view.unified;
    (*device.unified).cuda_free_bytes = device.cuda_free_bytes;
    (*device.unified).cuda_total_bytes = device.cuda_total_bytes;
  }
  if (quota_hook != nullptr) {
    // A quota and what counts against it: neither is made of physical terms.
    device.virtualized = quota_hook;
    device.device_used_bytes.reset();
    device.reserved_bytes.reset();
  }
}

void fill_processes(DeviceMemory& device, nvml::ProcessList const& list, Shares const& shares) {
  device.processes.resize(list.records.size());
  for (std::size_t i = 0; i < list.records.size(); ++i) {
    auto const& record = list.records[i];
    device.processes[i] = {.pid = record.pid,
                           .process_used_bytes = record.process_used_bytes,
                           .owner = shares.owners[i],
                           .kinds = {record.kinds},
                           .gpu_instance_id = record.gpu_instance_id,
                           .compute_instance_id = record.compute_instance_id};
  }
}

void fill_shares(DeviceMemory& device, Shares const& shares) {
  device.tree_bytes = shares.tree_bytes;
  device.foreign_bytes = shares.foreign_bytes;
  // Of a torn reading the rest is no number that ever was.
  if (device.consistent && device.device_used_bytes && device.own_bytes && device.tree_bytes &&
      device.foreign_bytes) {
    // Signed: memory that two processes share is in both numbers and on the device once.
    device.unattributed_bytes = static_cast<std::int64_t>(
        *device.device_used_bytes - *device.own_bytes - *device.tree_bytes - *device.foreign_bytes);
  }
  auto& reason = device.attribution.reason;
  if (!shares.reason.empty()) (reason += reason.empty() ? "" : "; ") += shares.reason;
}

/// The allocator's claim beside what the driver says; the driver's numbers stay as they are.
void join_allocator(DeviceMemory& device, std::optional<AllocatorClaim> const& claim) {
  device.allocator_reserved_bytes.reset();
  device.non_torch_bytes.reset();
  device.allocator_inconsistent.reset();
  if (!claim) return;
  device.allocator_reserved_bytes = claim->reserved_bytes;
  auto most = device.total_bytes;
  if (device.device_used_bytes) most = std::min(most, *device.device_used_bytes);
  if (device.own_bytes) {
    auto const most_held = device.own_read_bounds_bytes
                               ? std::max(*device.own_bytes, device.own_read_bounds_bytes->second)
                               : *device.own_bytes;
    device.non_torch_bytes = static_cast<std::int64_t>(*device.own_bytes - claim->reserved_bytes);
    most = std::min(most, most_held);
  }
  device.allocator_inconsistent = claim->reserved_bytes > most;
}

/// What is known of a reading whose values did not hold at once.
void fill_bounds(DeviceMemory& device, Collect const& collect,
                 std::optional<std::uint64_t> high_bytes) {
  if (collect.own_bounds_bytes) {
    device.own_read_bounds_bytes = collect.own_bounds_bytes;
    device.attribution.own_bounds_bytes = *collect.own_bounds_bytes;
  } else if (device.own_bytes) {
    // Known after the memory was read and not before: no bound of what it was then.
    device.attribution.own_bounds_bytes = {std::nullopt, high_bytes};
  }
  // Neighbours may have left and come back meanwhile, so no list bounds what they held.
  auto const ours = collect.own_held() ? collect.own_bounds_bytes->first : 0;
  if (high_bytes) {
    device.foreign_read_bounds_bytes = {0, *high_bytes - std::min(ours, *high_bytes)};
  }
}

/// The shares of a list, from the last reading where that said the same and nobody in it ended.
void divide_again(DeviceSession& session, DeviceMemo& memo, Look& look) {
  session.tree.refresh();
  auto& room = session.room;
  bool const same = memo.valid && memo.shares.settled && memo.asked == room.asked &&
                    memo.look.list.agrees_with(look.list) &&
                    memo.tree_changes_count == session.tree.changes_count();
  if (same) return;
  divide(look.list, memo.list_bit, look.own, session.names, session.tree, memo.shares);
  memo.valid = look.list.complete;
  memo.asked = room.asked;
  memo.facts = room.facts;
  memo.tree_changes_count = session.tree.changes_count();
  std::swap(memo.look, look);
}

void fill_names(DeviceMemory& device, DeviceTarget const& target) {
  device.uuid = target.uuid;
  device.name = "unknown";
  if (target.cuda) {
    device.cuda_ordinal = target.cuda->ordinal;
    if (!target.cuda->name.empty()) device.name = target.cuda->name;
  }
  if (target.nvml != nullptr) {
    device.index = target.nvml->index;
    device.parent_uuid = target.nvml->parent_uuid;
    if (!target.nvml->name.empty()) device.name = target.nvml->name;
  }
}

// Everything at its default, but for the room of its strings and vectors.
void reset(DeviceMemory& device) {
  DeviceMemory fresh;
  fresh.uuid = std::move(device.uuid);
  fresh.name = std::move(device.name);
  fresh.processes = std::move(device.processes);
  fresh.attribution.reason = std::move(device.attribution.reason);
  device = std::move(fresh);
}

}  // namespace

void read_target(DeviceSession& session, DeviceTarget const& target, ReadRequest const& request,
                 DeviceMemory& device) {
  reset(device);
  device.taken_ns = monotonic_ns();
  auto& memo = session.room.memo_of(target.uuid);
  Collector collector(session, target, request, memo);
  auto const collect = collector.collect();
  device.span_ns = monotonic_ns() - device.taken_ns;
  fill_names(device, target);
  fill_memory(device, collect.memory, session.nvml.quota_hook());
  device.consistent = collect.consistent;
  device.attempts_count = collector.attempts_count();
  divide_again(session, memo, *collect.look);
  auto const& own = memo.look.own;
  device.own_bytes = own.own_bytes;
  std::optional<std::uint64_t> high = device.total_bytes - device.free_bytes;
  if (device.device_used_bytes) high = device.device_used_bytes;
  if (device.virtualized) high.reset();
  attribute(own, session.room.facts, high, device.attribution);
  if (!collect.consistent) fill_bounds(device, collect, high);
  join_allocator(device, request.allocator);
  fill_processes(device, memo.look.list, memo.shares);
  fill_shares(device, memo.shares);
}

}  // namespace memacct
