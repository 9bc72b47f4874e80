// Neighbours that move inside this process's own NVML calls.
#include "moves.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "shared_state.hpp"

namespace memacct::sim {
namespace {

struct Plan {
  std::vector<Move> moves;
  size_t next = 0;
  uint32_t calls = 0;
  std::vector<Instant> log;
};

std::atomic<bool> g_planned{false};

Plan& plan() {
  static Plan& instance = *new Plan;  // of one thread: see the header
  return instance;
}

// The slots are read as they stand: nobody ends while a plan runs, so nobody is looked for.
void note_instant() {
  auto& state = SharedAccount::get().state();
  SharedAccount::Lock const lock{state};
  Instant now;
  now.call = plan().calls;
  now.unattributed_bytes = state.unattributed_bytes[0];
  uint64_t used = state.config.units[0].reserved_bytes + now.unattributed_bytes;
  for (auto const& slot : state.used_slots()) {
    if (slot.pid == 0 || slot.bytes[0] == 0) continue;
    used += slot.bytes[0];
    if (now.processes_count == kLoggedProcesses)
      fail("a plan's log holds %zu processes", kLoggedProcesses);
    auto& entry = now.processes[now.processes_count++];
    entry.pid = slot.pid;
    entry.bytes = slot.bytes[0];
  }
  now.free_bytes = state.config.units[0].total_bytes - used;
  plan().log.push_back(now);
}

void carry_out(Move const& move) {
  auto& state = SharedAccount::get().state();
  SharedAccount::Lock const lock{state};
  uint64_t* held = move.pid == 0 ? &state.unattributed_bytes[0] : nullptr;
  for (auto& slot : state.used_slots())
    if (move.pid != 0 && slot.pid == move.pid) held = &slot.bytes[0];
  if (held == nullptr) fail("a plan moves process %d, which has no place here", move.pid);
  *held += static_cast<uint64_t>(move.delta_bytes);
}

}  // namespace

void carry_out_moves(char const* function) {
  if (!g_planned.load(std::memory_order_relaxed) || std::strncmp(function, "nvml", 4) != 0) return;
  auto& all = plan();
  for (; all.next < all.moves.size() && all.moves[all.next].call <= all.calls; ++all.next) {
    carry_out(all.moves[all.next]);
    note_instant();
  }
  ++all.calls;
}

}  // namespace memacct::sim

using namespace memacct::sim;

void memacct_sim_plan(Move const* moves, size_t count) {
  auto& all = plan();
  all.moves.assign(moves, moves + count);
  all.next = 0;
  all.calls = 0;
  all.log.clear();
  note_instant();
  g_planned = true;
}

size_t memacct_sim_log(Instant* out, size_t count) {
  auto const& log = plan().log;
  std::copy_n(log.begin(), std::min(count, log.size()), out);
  if (count == 0) g_planned = false;
  return log.size();
}
