// Whether processes are still the ones they were: one system call for all of them.
#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace memacct {

// Note [Watched processes]
// A pidfd (Linux 5.3) is a process, not a number: it becomes readable when that process ends,
// and no later process of that number makes it so again. So while nothing is readable, all the
// numbers still mean whom they meant, without a look into procfs for each. They are bounded: a
// quarter of the descriptors that this process may have, kMost at the most, and numbered from the
// upper half, out of the way of select(). exec closes them, and so does a fork's child. Who has
// none of them is recognised by its start time instead, at a look each.

/// Not safe from several threads, but for close_in_child().
class ProcessWatch {
 public:
  static constexpr std::size_t kMost = 1024;
  using Slot = std::size_t;

  ProcessWatch() noexcept;
  ~ProcessWatch();
  ProcessWatch(ProcessWatch const&) = delete;
  ProcessWatch& operator=(ProcessWatch const&) = delete;

  /// Nullopt if there is no such process, or it cannot be watched.
  [[nodiscard]] std::optional<Slot> add(std::uint32_t pid) noexcept;
  void remove(Slot slot) noexcept;
  /// As of the last refresh().
  [[nodiscard]] bool ended(Slot slot) const noexcept { return fds_[slot].load() < 0; }
  /// Not merely out of sight.
  [[nodiscard]] bool told_to_have_ended(Slot slot) const noexcept {
    return fds_[slot].load() == kEnded;
  }
  /// Takes in who has ended since. Cost: one system call; none while nobody is watched.
  void refresh() noexcept;
  /// Grows with each end, and when all who were watched have to be looked at again.
  [[nodiscard]] std::uint64_t changes_count() const noexcept { return changes_count_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  /// In a fork's child, which inherited the parent's descriptors. Async-signal-safe.
  void close_in_child() noexcept;

 private:
  [[nodiscard]] bool open_epoll() noexcept;
  void lose_all() noexcept;
  void close_fd(Slot slot) noexcept;

  static constexpr int kFree = -1;
  static constexpr int kEnded = -2;  // the slot is taken until remove()
  static constexpr int kLost = -3;   // and so is this one
  std::atomic<int> epoll_fd_{kFree};
  std::array<std::atomic<int>, kMost> fds_;
  std::size_t size_ = 0;   // slots taken
  std::size_t alive_ = 0;  // of these, with a descriptor
  bool refused_ = false;   // no pidfds here
  std::uint64_t changes_count_ = 0;
};

}  // namespace memacct
