// The memory account of the simulated machine (see Note [Who is alive] below).
#include "account.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "shared_state.hpp"

namespace memacct::sim {
namespace {

// Adds what `of` says of a unit and, if that is a divided device, of its instances.
template <class Of>
uint64_t with_instances(SharedState const& state, int physical, Of const& of) {
  uint64_t sum = of(physical);
  for (int unit = state.config.devices; unit < state.config.units_count; ++unit)
    if (state.config.units[unit].parent == physical) sum += of(unit);
  return sum;
}

uint64_t held_by_processes(SharedState const& state, int physical) {
  return with_instances(state, physical, [&](int unit) {
    uint64_t sum = 0;
    for (auto const& slot : state.used_slots())
      if (slot.pid != 0) sum += slot.bytes[unit];
    return sum;
  });
}

uint64_t unattributed(SharedState const& state, int physical) {
  return with_instances(state, physical, [&](int unit) {
    uint64_t sum = state.unattributed_bytes[unit];
    for (auto const& slot : state.used_slots())
      if (slot.pid != 0) sum += slot.unlisted_bytes[unit];
    return sum;
  });
}

uint64_t reserved(SharedState const& state, int physical) {
  return with_instances(state, physical,
                        [&](int unit) { return state.config.units[unit].reserved_bytes; });
}

uint64_t device_used(SharedState const& state, int physical) {
  return reserved(state, physical) + unattributed(state, physical) +
         held_by_processes(state, physical);
}

uint64_t total(SharedState const& state, int physical) {
  return state.config.units[physical].total_bytes;
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

UnitConfig const& unit_config(int physical) { return machine_config().units[physical]; }

Status charge(int physical, uint64_t bytes, char const* what, Listing listing) {
  auto& shared = SharedAccount::get();
  auto& state = shared.state();
  uint64_t used = 0;
  {
    SharedAccount::Lock const lock{state};
    ProcessSlot& mine = shared.own_slot();
    auto const fits = [&] {
      used = device_used(state, physical);
      return used + bytes <= total(state, physical);
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
  for (auto& slot : state.used_slots()) {
    if (slot.pid == 0 || slot.pid == ::getpid() || slot.bytes[physical] == 0) continue;
    if (pid != 0 && slot.pid != pid) continue;
    if (target == nullptr || slot.bytes[physical] > target->bytes[physical]) target = &slot;
  }
  uint64_t& held = target ? target->bytes[physical] : state.unattributed_bytes[physical];
  if (delta_bytes > 0) {
    uint64_t const used = device_used(state, physical);
    uint64_t const all = total(state, physical);
    uint64_t const free = all > used ? all - used : 0;
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
    usage.total_bytes = total(state, physical);
    usage.reserved_bytes = reserved(state, physical);
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
  auto const add = [&](ProcessSlot const& slot, int unit) {
    ProcessUsage usage;
    usage.self = shared.is_own(slot);
    usage.pid = shared.visible_pid(slot);
    usage.host_pid = slot.host_pid;
    usage.lists = slot.lists;
    usage.bytes = unit >= 0 ? slot.bytes[unit] : 0;
    usage.unit = unit;
    usage.same_container = usage.self || (!container.empty() && container == slot.container);
    std::copy(std::begin(slot.counts), std::end(slot.counts), std::begin(usage.counts));
    found.push_back(usage);
  };
  for (auto const& slot : state.used_slots()) {
    if (slot.pid == 0) continue;
    if (physical < 0) add(slot, -1);
    for (int unit = 0; physical >= 0 && unit < state.config.units_count; ++unit)
      if ((unit == physical || state.config.units[unit].parent == physical) &&
          slot.bytes[unit] != 0)
        add(slot, unit);
  }
  return found;
}

void add_count(Counter counter) {
  // A relaxed add without the lock: launches are counted on an engine's hot path.
  ProcessSlot& mine = SharedAccount::get().own_slot_unlocked();
  __atomic_fetch_add(&mine.counts[static_cast<int>(counter)], 1, __ATOMIC_RELAXED);
}

}  // namespace memacct::sim
