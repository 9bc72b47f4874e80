// Who this process is in the eyes of others (its numbers in the pid namespaces) and which
// processes belong to it, both from procfs.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "memacct/process_stat.hpp"

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

  /// Whether `pid` belongs to the family. A process that has gone keeps the answer it had
  /// while it could be looked at: its memory may still be listed for a moment. Nullopt if
  /// procfs does not tell.
  [[nodiscard]] std::optional<bool> contains(std::uint32_t pid, std::uint32_t self_pid);
  /// Forgets what was remembered of processes that are no longer listed.
  void retain(std::vector<std::uint32_t> const& listed_pids);

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
  [[nodiscard]] std::optional<bool> is_root(std::uint32_t pid) const;
  [[nodiscard]] bool walk_is_current(std::uint32_t self_pid,
                                     std::optional<std::uint32_t> newest_pid) const;
  [[nodiscard]] std::optional<std::vector<std::uint32_t>> walk(std::uint32_t self_pid) const;

  std::vector<Root> roots_;
  std::optional<Walk> last_walk_;
  std::map<std::uint32_t, bool> remembered_;
};

}  // namespace memacct
