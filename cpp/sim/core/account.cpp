// The memory account of the simulated machine (see Note [Who is alive] below).
#include "account.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "shared_state.hpp"

namespace memacct::sim {
namespace {

uint64_t held_by_processes(SharedState const& state, int physical) {
  uint64_t sum = 0;
  for (auto const& slot : state.slots)
    if (slot.pid != 0) sum += slot.bytes[physical];
  return sum;
}

uint64_t unattributed(SharedState const& state, int physical) {
  uint64_t sum = state.unattributed_bytes[physical];
  for (auto const& slot : state.slots)
    if (slot.pid != 0) sum += slot.unlisted_bytes[physical];
  return sum;
}

uint64_t device_used(SharedState const& state, int physical) {
  return state.config.reserved_bytes + unattributed(state, physical) +
         held_by_processes(state, physical);
}

uint64_t& bytes_of(ProcessSlot& slot, int physical, Listing listing) {
  return listing == Listing::Listed ? slot.bytes[physical] : slot.unlisted_bytes[physical];
}

void add_signed(uint64_t& value, int64_t delta) {
  if (delta >= 0)
    value += static_cast<uint64_t>(delta);
  else
    value -= std::min(value, static_cast<uint64_t>(-delta));
}

}  // namespace

MachineConfig const& machine_config() { return SharedAccount::get().state().config; }

Status charge(int physical, uint64_t bytes, char const* what, Listing listing) {
  auto& shared = SharedAccount::get();
  auto& state = shared.state();
  uint64_t used = 0;
  {
    SharedAccount::Lock const lock{state};
    ProcessSlot& mine = shared.own_slot();
    auto const fits = [&] {
      used = device_used(state, physical);
      return used + bytes <= state.config.total_bytes;
    };
    if (!fits()) shared.reap();  // a process that has died may still hold bytes
    if (!fits()) {
      trace("refused", physical, bytes, used);
      return Status::OutOfMemory;
    }
    bytes_of(mine, physical, listing) += bytes;
    used += bytes;
  }
  if (bytes != 0) trace(what, physical, bytes, used);
  return Status::Ok;
}

void uncharge(int physical, uint64_t bytes, char const* what, Listing listing) {
  if (bytes == 0) return;
  auto& shared = SharedAccount::get();
  uint64_t used = 0;
  {
    SharedAccount::Lock const lock{shared.state()};
    uint64_t& mine = bytes_of(shared.own_slot(), physical, listing);
    mine -= std::min(mine, bytes);
    used = device_used(shared.state(), physical);
  }
  trace(what, physical, bytes, used);
}

void change_foreign(int physical, int64_t delta_bytes, int pid) {
  auto& shared = SharedAccount::get();
  auto& state = shared.state();
  SharedAccount::Lock const lock{state};
  shared.reap();
  ProcessSlot* target = nullptr;
  for (auto& slot : state.slots) {
    if (slot.pid == 0 || slot.pid == ::getpid() || slot.bytes[physical] == 0) continue;
    if (pid != 0 && slot.pid != pid) continue;
    if (target == nullptr || slot.bytes[physical] > target->bytes[physical]) target = &slot;
  }
  uint64_t& held = target ? target->bytes[physical] : state.unattributed_bytes[physical];
  if (delta_bytes > 0) {
    uint64_t const used = device_used(state, physical);
    uint64_t const free = state.config.total_bytes > used ? state.config.total_bytes - used : 0;
    delta_bytes = std::min(delta_bytes, static_cast<int64_t>(free));
  }
  add_signed(held, delta_bytes);
  trace("foreign", physical, static_cast<uint64_t>(std::abs(delta_bytes)),
        device_used(state, physical));
}

void change_unattributed(int physical, int64_t delta_bytes) {
  auto& state = SharedAccount::get().state();
  SharedAccount::Lock const lock{state};
  add_signed(state.unattributed_bytes[physical], delta_bytes);
}

DeviceUsage device_usage(int physical) {
  auto& shared = SharedAccount::get();
  auto& state = shared.state();
  DeviceUsage usage;
  {
    SharedAccount::Lock const lock{state};
    shared.reap();
    usage.total_bytes = state.config.total_bytes;
    usage.reserved_bytes = state.config.reserved_bytes;
    usage.unattributed_bytes = unattributed(state, physical);
    usage.processes_bytes = held_by_processes(state, physical);
    uint64_t const used = device_used(state, physical);
    usage.free_bytes = usage.total_bytes > used ? usage.total_bytes - used : 0;
  }
  trace("read", physical, 0, usage.total_bytes - usage.free_bytes);
  return usage;
}

std::vector<ProcessUsage> processes(int physical) {
  auto& shared = SharedAccount::get();
  auto& state = shared.state();
  std::vector<ProcessUsage> found;
  SharedAccount::Lock const lock{state};
  shared.reap();
  std::string const container = option_text("MEMACCT_SIM_CONTAINER", "");
  for (auto const& slot : state.slots) {
    if (slot.pid == 0 || (physical >= 0 && slot.bytes[physical] == 0)) continue;
    ProcessUsage usage;
    usage.self = shared.is_own(slot);
    usage.pid = shared.visible_pid(slot);
    usage.host_pid = slot.host_pid;
    usage.bytes = physical >= 0 ? slot.bytes[physical] : 0;
    usage.same_container = usage.self || (!container.empty() && container == slot.container);
    std::copy(std::begin(slot.counts), std::end(slot.counts), std::begin(usage.counts));
    found.push_back(usage);
  }
  return found;
}

void add_count(Counter counter) {
  // A relaxed add without the lock: launches are counted on an engine's hot path.
  ProcessSlot& mine = SharedAccount::get().own_slot_unlocked();
  __atomic_fetch_add(&mine.counts[static_cast<int>(counter)], 1, __ATOMIC_RELAXED);
}

}  // namespace memacct::sim
