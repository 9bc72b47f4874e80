// The shared memory itself: its layout, its lock, the places of processes, who is alive.
//
// Note [Who is alive]
// Each process holds a POSIX record lock (fcntl F_SETLK) on the byte of the file that stands
// for its place. The kernel drops it when the process ends, however it ends, before its
// parent can see the exit and while it is a zombie; a fork does not inherit it; and a pid
// that is used again does not bring it back. F_GETLK also tells the holder's pid as seen from
// the asking process's PID namespace, which is what a driver lists.
#pragma once
#include <pthread.h>

#include <cstdint>
#include <span>
#include <string>

#include "account.hpp"

namespace memacct::sim {

struct ProcessSlot {
  int32_t pid = 0;  // in its own PID namespace; 0: the place is free
  int32_t host_pid = 0;
  uint32_t lists = kComputeList;
  uint64_t pid_namespace = 0;
  uint64_t bytes[kMaxUnits] = {};
  uint64_t unlisted_bytes[kMaxUnits] = {};  // managed memory
  uint64_t counts[kCounters] = {};
  char container[64] = {};
};

struct SharedState {
  uint32_t magic = 0;
  uint32_t layout = 0;
  pthread_mutex_t mutex = {};  // robust: a holder that dies leaves it recoverable
  MachineConfig config;
  uint64_t unattributed_bytes[kMaxUnits] = {};
  int32_t slots_end = 0;  // no place from here on was ever taken
  ProcessSlot slots[kMaxProcesses];

  [[nodiscard]] std::span<ProcessSlot> used_slots() {
    return {slots, static_cast<size_t>(slots_end)};
  }
  [[nodiscard]] std::span<ProcessSlot const> used_slots() const {
    return {slots, static_cast<size_t>(slots_end)};
  }
};

class SharedAccount {
 public:
  static SharedAccount& get();

  class Lock {
   public:
    explicit Lock(SharedState& state);
    ~Lock();
    Lock(Lock const&) = delete;
    Lock& operator=(Lock const&) = delete;

   private:
    SharedState& state_;
  };

  SharedState& state() { return *state_; }

  /// The place of this process, taken on first use. The lock must be held.
  ProcessSlot& own_slot();
  ProcessSlot& own_slot_unlocked();
  /// Frees the places of processes that have ended. The lock must be held.
  void reap();
  [[nodiscard]] bool is_own(ProcessSlot const& slot) const;
  /// The pid of a slot's process as the caller's PID namespace shows it; 0 if it does not.
  [[nodiscard]] int visible_pid(ProcessSlot const& slot) const;
  /// Whether anyone but this process has a place. The lock must be held.
  [[nodiscard]] bool others_alive() const;
  void initialise(MachineConfig const& config);

 private:
  SharedAccount();
  [[nodiscard]] int lock_holder(size_t index) const;
  [[nodiscard]] bool take_place(int pid);

  int fd_ = -1;
  SharedState* state_ = nullptr;
  ProcessSlot* slot_ = nullptr;
  int slot_owner_pid_ = 0;
  uint64_t pid_namespace_ = 0;
};

}  // namespace memacct::sim
