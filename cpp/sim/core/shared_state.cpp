// The shared memory itself (see Note [Who is alive] in the header).
#include "shared_state.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <sstream>

namespace memacct::sim {
namespace {

constexpr uint32_t kMagic = 0x4d53494d;
constexpr uint32_t kLayout = 23;
// Locked bytes lie beyond the state: a record lock need not cover data.
constexpr off_t kInitLock = 1 << 24;
constexpr off_t kFirstSlotLock = kInitLock + 1;
constexpr int kLowestFd = 512;

struct flock record(short type, off_t at) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = at;
  lock.l_len = 1;
  return lock;
}

int open_shared_memory() {
  std::string const name = "/memacct_sim." + option_text("MEMACCT_SIM_MACHINE", "default");
  int const fd = ::shm_open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) fail("cannot open the shared memory %s: %s", name.c_str(), std::strerror(errno));
  // Moved out of the way of programs that close or reuse low descriptors: to close any
  // descriptor of the file would drop this process's lock on its place.
  int const high = ::fcntl(fd, F_DUPFD_CLOEXEC, kLowestFd);
  if (high < 0) return fd;
  ::close(fd);
  return high;
}

int first_nspid() {
  FILE* const file = std::fopen("/proc/self/status", "re");
  if (file == nullptr) return ::getpid();
  char line[256];
  int pid = ::getpid();
  while (std::fgets(line, sizeof line, file) != nullptr)
    if (std::sscanf(line, "NSpid: %d", &pid) == 1) break;
  std::fclose(file);
  return pid;
}

// A procfs of the namespace above, mounted where this process sees it, has a "self" of its own.
int machine_pid() {
  std::string const procfs = option_text("MEMACCT_SIM_HOST_PROC", "");
  char target[32] = "";
  if (procfs.empty() || ::readlink((procfs + "/self").c_str(), target, sizeof target - 1) < 0)
    return first_nspid();
  return std::atoi(target);
}

uint32_t own_lists() {
  uint32_t lists = 0;
  std::istringstream names{option_text("MEMACCT_SIM_LISTS", "compute")};
  for (std::string name; std::getline(names, name, ',');) {
    if (name == "compute")
      lists |= kComputeList;
    else if (name == "graphics")
      lists |= kGraphicsList;
    else if (name == "mps")
      lists |= kMpsList;
    else
      fail("MEMACCT_SIM_LISTS: \"%s\" is not compute, graphics or mps", name.c_str());
  }
  return lists;
}

uint64_t own_pid_namespace() {
  struct stat info{};
  return ::stat("/proc/self/ns/pid", &info) == 0 ? info.st_ino : 0;
}

}  // namespace

SharedAccount& SharedAccount::get() {
  static auto* const instance = new SharedAccount;  // never destroyed: used until the end
  return *instance;
}

SharedAccount::SharedAccount() : fd_{open_shared_memory()}, pid_namespace_{own_pid_namespace()} {
  auto lock = record(F_WRLCK, kInitLock);
  while (::fcntl(fd_, F_SETLKW, &lock) < 0 && errno == EINTR) {
  }
  struct stat info{};
  if (::fstat(fd_, &info) != 0 || (info.st_size < static_cast<off_t>(sizeof(SharedState)) &&
                                   ::ftruncate(fd_, sizeof(SharedState)) != 0))
    fail("cannot size the shared memory: %s", std::strerror(errno));
  void* const memory =
      ::mmap(nullptr, sizeof(SharedState), PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (memory == MAP_FAILED) fail("cannot map the shared memory: %s", std::strerror(errno));
  state_ = static_cast<SharedState*>(memory);
  if (state_->magic != kMagic || state_->layout != kLayout)
    initialise(machine_config_from_environment());
  lock = record(F_UNLCK, kInitLock);
  ::fcntl(fd_, F_SETLK, &lock);
}

void SharedAccount::initialise(MachineConfig const& config) {
  new (state_) SharedState;
  pthread_mutexattr_t attributes;
  ::pthread_mutexattr_init(&attributes);
  ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  ::pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  ::pthread_mutex_init(&state_->mutex, &attributes);
  state_->config = config;
  std::fill_n(state_->unattributed_bytes, config.devices, config.unattributed_bytes);
  state_->layout = kLayout;
  state_->magic = kMagic;
}

SharedAccount::Lock::Lock(SharedState& state) : state_{state} {
  // Each change under the lock is one store, so a holder that died leaves nothing half done.
  if (::pthread_mutex_lock(&state_.mutex) == EOWNERDEAD) ::pthread_mutex_consistent(&state_.mutex);
}

SharedAccount::Lock::~Lock() { ::pthread_mutex_unlock(&state_.mutex); }

int SharedAccount::lock_holder(size_t index) const {
  auto lock = record(F_WRLCK, kFirstSlotLock + static_cast<off_t>(index));
  if (::fcntl(fd_, F_GETLK, &lock) != 0) return -1;
  if (lock.l_type == F_UNLCK) return 0;
  return lock.l_pid > 0 ? lock.l_pid : -1;  // held from a namespace that we do not see
}

bool SharedAccount::is_own(ProcessSlot const& slot) const {
  return &slot == slot_ && slot_owner_pid_ == ::getpid();
}

int SharedAccount::visible_pid(ProcessSlot const& slot) const {
  if (is_own(slot) || slot.pid_namespace == pid_namespace_) return slot.pid;
  int const holder = lock_holder(static_cast<size_t>(&slot - state_->slots));
  return holder > 0 ? holder : 0;
}

void SharedAccount::reap() {
  auto const slots = state_->used_slots();
  for (size_t i = 0; i < slots.size(); ++i) {
    ProcessSlot& slot = slots[i];
    if (slot.pid == 0 || is_own(slot) || lock_holder(i) != 0) continue;
    // What a host's kernel manages as a node stays taken after the process has ended.
    if (state_->config.first_numa_node >= 0)
      for (int unit = 0; unit < state_->config.units_count; ++unit)
        state_->unattributed_bytes[unit] += slot.bytes[unit] + slot.unlisted_bytes[unit];
    slot = ProcessSlot{};
  }
}

bool SharedAccount::others_alive() const {
  auto const slots = static_cast<SharedState const*>(state_)->used_slots();
  for (size_t i = 0; i < slots.size(); ++i) {
    ProcessSlot const& slot = slots[i];
    if (slot.pid != 0 && !is_own(slot) && lock_holder(i) != 0) return true;
  }
  return false;
}

bool SharedAccount::take_place(int pid) {
  for (size_t i = 0; i < kMaxProcesses; ++i) {
    ProcessSlot& slot = state_->slots[i];
    auto lock = record(F_WRLCK, kFirstSlotLock + static_cast<off_t>(i));
    if (slot.pid != 0 || ::fcntl(fd_, F_SETLK, &lock) != 0) continue;
    slot = ProcessSlot{};
    slot.host_pid = machine_pid();
    slot.lists = own_lists();
    slot.pid_namespace = pid_namespace_ = own_pid_namespace();
    std::snprintf(slot.container, sizeof slot.container, "%s",
                  option_text("MEMACCT_SIM_CONTAINER", "").c_str());
    state_->slots_end = std::max(state_->slots_end, static_cast<int32_t>(i) + 1);
    slot.pid = pid;
    slot_owner_pid_ = pid;
    slot_ = &slot;
    return true;
  }
  return false;
}

ProcessSlot& SharedAccount::own_slot() {
  int const pid = ::getpid();
  if (slot_ != nullptr && slot_owner_pid_ == pid) return *slot_;
  if (take_place(pid)) return *slot_;
  reap();
  if (take_place(pid)) return *slot_;
  fail("more than %d processes on one machine", kMaxProcesses);
}

ProcessSlot& SharedAccount::own_slot_unlocked() {
  if (slot_ != nullptr && slot_owner_pid_ == ::getpid()) return *slot_;
  Lock const lock{*state_};
  return own_slot();
}

bool make_machine(MachineConfig const& wanted) {
  auto& shared = SharedAccount::get();
  SharedAccount::Lock const lock{shared.state()};
  if (shared.others_alive()) return shared.state().config == wanted;
  auto& state = shared.state();
  state.config = wanted;
  std::fill(std::begin(state.unattributed_bytes), std::end(state.unattributed_bytes), 0);
  std::fill_n(state.unattributed_bytes, wanted.devices, wanted.unattributed_bytes);
  for (auto& slot : state.used_slots()) slot = ProcessSlot{};
  return true;
}

}  // namespace memacct::sim
