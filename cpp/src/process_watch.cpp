#include "memacct/process_watch.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace memacct {
namespace {

constexpr long kPidfdOpen = 434;  // of every architecture since Linux 5.3

std::size_t descriptor_limit() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  return static_cast<std::size_t>(std::min<rlim_t>(limit.rlim_cur, 1U << 20));
}

// To the upper half of the numbers; where it is if there is no room.
int moved_up(int fd) noexcept {
  int const high = ::fcntl(fd, F_DUPFD_CLOEXEC, static_cast<int>(descriptor_limit() / 2));
  if (high < 0) return fd;
  ::close(fd);
  return high;
}

}  // namespace

ProcessWatch::ProcessWatch() noexcept {
  for (auto& fd : fds_) fd.store(kFree);
}

ProcessWatch::~ProcessWatch() { close_in_child(); }

void ProcessWatch::close_in_child() noexcept {
  for (auto& fd : fds_) {
    if (int const open = fd.exchange(kFree); open >= 0) ::close(open);
  }
  if (int const open = epoll_fd_.exchange(kFree); open >= 0) ::close(open);
}

bool ProcessWatch::open_epoll() noexcept {
  if (epoll_fd_.load() >= 0) return true;
  int const fd = ::epoll_create1(EPOLL_CLOEXEC);
  if (fd < 0) return false;
  epoll_fd_.store(moved_up(fd));
  return true;
}

std::optional<ProcessWatch::Slot> ProcessWatch::add(std::uint32_t pid) noexcept {
  if (refused_ || size_ >= std::min(kMost, descriptor_limit() / 4) || !open_epoll()) return {};
  int fd = static_cast<int>(::syscall(kPidfdOpen, static_cast<pid_t>(pid), 0U));
  if (fd < 0) {
    // Not there (old kernels, gVisor), or forbidden (seccomp): so it stays.
    refused_ = errno == ENOSYS || errno == EPERM || errno == EACCES;
    return {};
  }
  fd = moved_up(fd);
  auto const free = std::find_if(fds_.begin(), fds_.end(),
                                 [](std::atomic<int> const& at) { return at.load() == kFree; });
  auto const slot = static_cast<Slot>(free - fds_.begin());
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = slot;
  if (::epoll_ctl(epoll_fd_.load(), EPOLL_CTL_ADD, fd, &event) != 0) {
    ::close(fd);
    return {};
  }
  free->store(fd);
  ++size_;
  ++alive_;
  return slot;
}

void ProcessWatch::close_fd(Slot slot) noexcept {
  int const fd = fds_[slot].exchange(kEnded);
  if (fd < 0) return;
  // Before the close: a child that kept a copy would keep it registered.
  ::epoll_ctl(epoll_fd_.load(), EPOLL_CTL_DEL, fd, nullptr);
  ::close(fd);
  --alive_;
}

void ProcessWatch::remove(Slot slot) noexcept {
  close_fd(slot);
  fds_[slot].store(kFree);
  --size_;
}

// Somebody closed descriptors that are not theirs, so ours may be theirs by now: not closed.
void ProcessWatch::lose_all() noexcept {
  epoll_fd_.store(kFree);
  for (auto& fd : fds_) {
    if (fd.load() >= 0) fd.store(kLost);
  }
  alive_ = 0;
  ++changes_count_;
}

void ProcessWatch::refresh() noexcept {
  std::array<epoll_event, 64> events;
  while (alive_ > 0) {
    int const count =
        ::epoll_wait(epoll_fd_.load(), events.data(), static_cast<int>(events.size()), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return lose_all();
    for (int i = 0; i < count; ++i) {
      close_fd(static_cast<Slot>(events[static_cast<std::size_t>(i)].data.u64));
      ++changes_count_;
    }
    if (static_cast<std::size_t>(count) < events.size()) return;
  }
}

}  // namespace memacct
