// Who this process is in the eyes of others (its numbers in the pid namespaces) and which
// processes belong to it, both from procfs.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "memacct/process_stat.hpp"
#include "memacct/process_watch.hpp"

namespace memacct {

/// The numbers by which this process may be listed. They don't change during its life.
struct SelfNames {
  std::uint32_t pid = 0;                    // getpid()
  std::optional<std::uint32_t> procfs_pid;  // readlink /proc/self: the number in our procfs
  std::vector<std::uint32_t> outer_pids;    // NSpid of /proc/self/status without `pid`,
                                            // outermost first (Linux 4.1)
  std::optional<bool> initial_namespace;    // /proc/self/ns/pid is the machine's own

  /// True if a list in our own pid namespace's numbers can be looked up in our procfs.
  [[nodiscard]] bool procfs_is_ours() const noexcept { return procfs_pid == pid; }
  bool operator==(SelfNames const&) const = default;
};
[[nodiscard]] SelfNames read_self_names();

/// The names in a directory that are numbers: the processes of /proc, the threads of
/// /proc/<pid>/task. Nullopt, with errno, if it cannot be read.
[[nodiscard]] std::optional<std::vector<std::uint32_t>> numbers_in(std::string const& path);

/// What procfs tells of a process. With neither a stat nor `gone` it could not be looked at (out
/// of file descriptors, not permitted), which says nothing about whether it is there.
struct ProcessLook {
  std::optional<ProcessStat> stat;
  bool gone = false;     // there is no such process
  int error_number = 0;  // why there is no stat; 0: it was read, but is not a stat line
};
[[nodiscard]] ProcessLook look_at(std::uint32_t pid);

/// Whether every one of `pids` is a process with a GPU open; false if one is not there or has
/// none open, nullopt if procfs does not tell.
[[nodiscard]] std::optional<bool> all_have_devices_open(std::vector<std::uint32_t> const& pids);

/// This process's family: its descendants, and those of registered roots with the roots
/// themselves. All pids are procfs's. Not safe from several threads.
class ProcessTree {
 public:
  /// @throws std::invalid_argument if there is no such process.
  void add_root(std::uint32_t pid);

  /// Whether `pid`, which the list `list` (one bit) names, belongs to the family. A process keeps
  /// the answer that it got first: a child whose parent has ended stays one, and so does one
  /// that has gone, whose memory may still be listed for a moment. Another process with that
  /// number is looked at anew; see Note [Watched processes]. Nullopt if procfs does not tell.
  [[nodiscard]] std::optional<bool> contains(std::uint32_t pid, std::uint32_t self_pid,
                                             std::uint64_t list);
  /// Whether there is such a process.
  [[nodiscard]] bool exists(std::uint32_t pid) const;
  /// Takes in who has ended. To be called after a list was read, before it is asked about.
  void refresh() noexcept { watch_.refresh(); }
  /// While this is the same after a refresh(), so is each answer about a process that is watched().
  [[nodiscard]] std::uint64_t changes_count() const noexcept {
    return watch_.changes_count() + roots_.size();
  }
  [[nodiscard]] bool watched(std::uint32_t pid) const;
  /// Forgets who was named by the list `list` (one bit) alone and, as `is_listed(pid)` has it, is
  /// not any more.
  template <typename IsListed>
  void retain(IsListed const& is_listed, std::uint64_t list) {
    for (auto at = known_.begin(); at != known_.end();) {
      auto& known = at->second;
      bool const dropped = (known.lists & list) != 0 && !is_listed(at->first);
      if (dropped) known.lists &= ~list;
      if (dropped && known.lists == 0) {
        unwatch(known);
        at = known_.erase(at);
      } else {
        ++at;
      }
    }
  }
  /// In a fork's child: see ProcessWatch.
  void close_in_child() noexcept { watch_.close_in_child(); }

  /// True only if no other member of the family can hold device memory: there is none
  /// alive, or none that has a device open. Nullopt if procfs does not tell. Walks through
  /// all of /proc (5 ms for 100 processes) only when a process was made since the last walk.
  [[nodiscard]] std::optional<bool> holds_nothing(std::uint32_t self_pid);

 private:
  struct Root {
    std::uint32_t pid;
    std::uint64_t start_ticks;
  };
  /// The family without `self_pid` as of one walk through /proc.
  struct Walk {
    std::uint32_t self_pid;
    std::uint32_t newest_pid;  // read before the walk: nobody made later was missed
    std::vector<std::uint32_t> members;
  };
  struct Known {
    bool member = false;
    std::uint64_t start_ticks = 0;
    bool ended = false;  // who runs under its number now is another, even if made in the same tick
    std::optional<ProcessWatch::Slot> slot;
    std::uint64_t lists = 0;      // the lists that name it, as bits
    std::size_t roots_count = 0;  // the roots that there were when it was looked at
  };
  [[nodiscard]] std::optional<bool> is_root(std::uint32_t pid) const;
  [[nodiscard]] std::optional<bool> follow(std::uint32_t pid, ProcessLook look,
                                           std::uint32_t self_pid) const;
  [[nodiscard]] std::optional<bool> find_out(std::uint32_t pid, std::uint32_t self_pid,
                                             std::uint64_t list);
  [[nodiscard]] bool is_alive(Known const& known) const noexcept {
    return known.slot && !watch_.ended(*known.slot);
  }
  void unwatch(Known& known) noexcept;
  [[nodiscard]] bool walk_is_current(std::uint32_t self_pid,
                                     std::optional<std::uint32_t> newest_pid) const;
  [[nodiscard]] std::optional<std::vector<std::uint32_t>> walk(std::uint32_t self_pid) const;

  std::vector<Root> roots_;
  std::optional<Walk> last_walk_;
  std::unordered_map<std::uint32_t, Known> known_;
  ProcessWatch watch_;
};

}  // namespace memacct
