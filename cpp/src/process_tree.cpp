#include "memacct/process_tree.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <memory>
#include <span>
#include <stdexcept>
#include <utility>

namespace memacct {
namespace {

// What a process that uses a GPU has open or mapped: the driver's device nodes, WSL's, and
// the simulated GPU's shared memory.
constexpr std::array<std::string_view, 3> kDeviceMarkers{"/dev/nvidia", "/dev/dxg",
                                                         "/dev/shm/memacct_sim."};
constexpr int kLongestChain = 1024;  // a chain of parents that is longer has a loop in it

template <typename T>
std::optional<T> to_number(std::string_view text) {
  T value{};
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// The beginning of a file, in `buffer`; nullopt, with errno, if it cannot be read.
std::optional<std::string_view> read_into(char const* path, std::span<char> buffer) {
  int const fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  auto const got = ::read(fd, buffer.data(), buffer.size());
  int const reading_errno = errno;
  ::close(fd);
  errno = reading_errno;
  if (got < 0) return std::nullopt;
  return std::string_view(buffer.data(), static_cast<std::size_t>(got));
}

/// Nullopt, with errno, if it cannot be read.
std::optional<std::string> read_text(std::string const& path) {
  int const fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  std::string text;
  std::array<char, 4096> chunk;
  ssize_t got = 0;
  while ((got = ::read(fd, chunk.data(), chunk.size())) > 0) {
    text.append(chunk.data(), static_cast<std::size_t>(got));
  }
  int const reading_errno = errno;
  ::close(fd);
  errno = reading_errno;
  if (got < 0) return std::nullopt;
  return text;
}

std::optional<std::string> read_link(std::string const& path) {
  std::array<char, 4096> target;
  auto const length = ::readlink(path.c_str(), target.data(), target.size());
  if (length < 0) return std::nullopt;
  return std::string(target.data(), static_cast<std::size_t>(length));
}

/// The pid that was given out last in our pid namespace: the last field of /proc/loadavg. It is
/// nobody's number where a kernel does not count them (gVisor writes 0): nullopt.
std::optional<std::uint32_t> read_newest_pid() {
  std::array<char, 128> buffer;
  auto const text = read_into("/proc/loadavg", buffer);
  if (!text) return std::nullopt;
  auto const line = text->substr(0, text->find('\n'));
  auto const pid = to_number<std::uint32_t>(line.substr(line.rfind(' ') + 1));
  return pid == 0U ? std::nullopt : pid;
}

bool names_a_device(std::string_view text) {
  return std::any_of(kDeviceMarkers.begin(), kDeviceMarkers.end(), [&](std::string_view marker) {
    return text.find(marker) != std::string_view::npos;
  });
}

/// Whether the process has a GPU open; nullopt if we may not look.
std::optional<bool> has_device_open(std::uint32_t pid) {
  auto const root = "/proc/" + std::to_string(pid);
  auto const descriptors = numbers_in(root + "/fd");
  auto const maps = read_text(root + "/maps");
  if (!descriptors || !maps) return std::nullopt;
  if (names_a_device(*maps)) return true;
  return std::any_of(descriptors->begin(), descriptors->end(), [&](std::uint32_t fd) {
    auto const target = read_link(root + "/fd/" + std::to_string(fd));
    return target && names_a_device(*target);
  });
}

std::vector<std::uint32_t> outer_pids_of(std::string_view status, std::uint32_t own) {
  std::vector<std::uint32_t> pids;
  constexpr std::string_view kKey = "\nNSpid:";
  auto const at = status.find(kKey);
  if (at == std::string_view::npos) return pids;
  auto line = status.substr(at + kKey.size());
  line = line.substr(0, line.find('\n'));
  while (true) {
    auto const start = line.find_first_not_of(" \t");
    if (start == std::string_view::npos) return pids;
    line.remove_prefix(start);
    auto const token = line.substr(0, line.find_first_of(" \t"));
    line.remove_prefix(token.size());
    if (auto const pid = to_number<std::uint32_t>(token); pid && *pid != own) pids.push_back(*pid);
  }
}

}  // namespace

std::optional<std::vector<std::uint32_t>> numbers_in(std::string const& path) {
  std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), &::closedir);
  if (!directory) return std::nullopt;
  std::vector<std::uint32_t> numbers;
  while (true) {
    errno = 0;  // readdir() says the same of the end and of an error
    auto const* const entry = ::readdir(directory.get());
    if (entry == nullptr) break;
    if (auto const number = to_number<std::uint32_t>(entry->d_name)) numbers.push_back(*number);
  }
  if (int const reading_errno = errno; reading_errno != 0) {
    directory.reset();
    errno = reading_errno;
    return std::nullopt;
  }
  return numbers;
}

SelfNames read_self_names() {
  SelfNames names;
  names.pid = static_cast<std::uint32_t>(::getpid());
  if (auto const target = read_link("/proc/self")) {
    names.procfs_pid = to_number<std::uint32_t>(*target);
  }
  if (auto const status = read_text("/proc/self/status")) {
    names.outer_pids = outer_pids_of(*status, names.pid);
  }
  // PROC_PID_INIT_INO, include/linux/proc_ns.h: fixed, and no other namespace has it.
  if (auto const target = read_link("/proc/self/ns/pid")) {
    names.initial_namespace = *target == "pid:[4026531836]";
  }
  return names;
}

ProcessLook look_at(std::uint32_t pid) {
  std::array<char, 32> path;
  std::snprintf(path.data(), path.size(), "/proc/%u/stat", pid);
  std::array<char, 2048> buffer;  // 52 numbers and a name: the kernel writes it at once
  auto const text = read_into(path.data(), buffer);
  if (text) return {.stat = parse_stat(*text), .gone = false, .error_number = 0};
  int const error_number = errno;
  return {.stat = std::nullopt,
          .gone = error_number == ENOENT || error_number == ESRCH,
          .error_number = error_number};
}

std::optional<bool> all_have_devices_open(std::vector<std::uint32_t> const& pids) {
  // Those that are not there first: that costs one look each.
  bool all_there = true;
  for (auto const pid : pids) {
    auto const look = look_at(pid);
    if (look.gone) return false;
    all_there = all_there && look.stat.has_value();
  }
  for (auto const pid : pids) {
    auto const open = has_device_open(pid);
    if (open == false) return false;
    all_there = all_there && open.has_value();
  }
  return all_there ? std::optional(true) : std::nullopt;
}

void ProcessTree::add_root(std::uint32_t pid) {
  auto const stat = look_at(pid).stat;
  if (!stat) throw std::invalid_argument("no process " + std::to_string(pid) + " to add as a root");
  roots_.push_back({.pid = pid, .start_ticks = stat->start_ticks});
  last_walk_.reset();
}

// The start time tells a root from a later process with its number.
std::optional<bool> ProcessTree::is_root(std::uint32_t pid) const {
  for (auto const& root : roots_) {
    if (root.pid != pid) continue;
    auto const look = look_at(pid);
    if (!look.stat && !look.gone) return std::nullopt;
    if (look.stat && look.stat->start_ticks == root.start_ticks) return true;
  }
  return false;
}

std::optional<bool> ProcessTree::follow(std::uint32_t pid, ProcessLook look,
                                        std::uint32_t self_pid) const {
  auto member = is_root(pid);
  for (int depth = 0; look.stat && member == false && depth < kLongestChain; ++depth) {
    auto const parent = look.stat->parent_pid;
    if (parent == 0) break;
    member = parent == self_pid ? true : is_root(parent);
    if (member == false) look = look_at(parent);
  }
  // A chain that could not be followed to its end, unlike one whose end has gone.
  if (member != true && !look.stat && !look.gone) return std::nullopt;
  return member;
}

void ProcessTree::unwatch(Known& known) noexcept {
  if (known.slot) watch_.remove(*known.slot);
  known.slot.reset();
}

std::optional<bool> ProcessTree::contains(std::uint32_t pid, std::uint32_t self_pid,
                                          std::uint64_t list) {
  auto const found = known_.find(pid);
  if (found == known_.end()) return find_out(pid, self_pid, list);
  auto& known = found->second;
  known.lists |= list;
  if (!is_alive(known) || known.roots_count != roots_.size()) return find_out(pid, self_pid, list);
  return known.member;
}

std::optional<bool> ProcessTree::find_out(std::uint32_t pid, std::uint32_t self_pid,
                                          std::uint64_t list) {
  auto const before = known_.find(pid);
  bool const was_known = before != known_.end();
  if (was_known) {
    auto& known = before->second;
    known.ended = known.ended || (known.slot && watch_.told_to_have_ended(*known.slot));
    unwatch(known);
  }
  // Watched before it is looked at: if it is alive afterwards, it is whom we looked at.
  auto slot = watch_.add(pid);
  auto const drop_slot = [&] {
    if (slot) watch_.remove(*slot);
    slot.reset();
  };
  auto const look = look_at(pid);
  if (!look.stat) drop_slot();
  if (look.gone) {
    if (was_known) before->second.ended = true;
    return was_known && before->second.member;
  }
  bool const zombie = look.stat && (look.stat->state == 'Z' || look.stat->state == 'X');
  bool const same = was_known && look.stat && (zombie || !before->second.ended) &&
                    before->second.start_ticks == look.stat->start_ticks;
  std::optional<bool> member;
  if (same && (before->second.member || before->second.roots_count == roots_.size())) {
    member = before->second.member;
  } else {
    member = follow(pid, look, self_pid);
  }
  if (slot) watch_.refresh();
  if (slot && (watch_.ended(*slot) || !member)) drop_slot();
  if (!member) return std::nullopt;
  auto& known = known_[pid];
  known = {.member = *member,
           .start_ticks = look.stat ? look.stat->start_ticks : 0,
           .ended = same && before->second.ended,
           .slot = slot,
           .lists = known.lists | list,
           .roots_count = roots_.size()};
  return member;
}

bool ProcessTree::watched(std::uint32_t pid) const {
  auto const found = known_.find(pid);
  return found != known_.end() && is_alive(found->second);
}

bool ProcessTree::exists(std::uint32_t pid) const {
  return watched(pid) || look_at(pid).stat.has_value();
}

// Members come only by being made, and everyone who is made gets the next pid: while the
// newest pid is the same, the members of the last walk are all there can be.
bool ProcessTree::walk_is_current(std::uint32_t self_pid,
                                  std::optional<std::uint32_t> newest_pid) const {
  return last_walk_ && newest_pid && last_walk_->self_pid == self_pid &&
         last_walk_->newest_pid == *newest_pid;
}

std::optional<std::vector<std::uint32_t>> ProcessTree::walk(std::uint32_t self_pid) const {
  auto const pids = numbers_in("/proc");
  if (!pids) return std::nullopt;
  std::vector<std::uint32_t> members;
  for (auto const pid : *pids) {
    if (pid == self_pid) continue;
    auto const look = look_at(pid);
    if (look.gone) continue;
    auto const member = follow(pid, look, self_pid);
    if (!member) return std::nullopt;
    if (*member) members.push_back(pid);
  }
  return members;
}

std::optional<bool> ProcessTree::holds_nothing(std::uint32_t self_pid) {
  auto const newest_pid = read_newest_pid();
  if (!walk_is_current(self_pid, newest_pid)) {
    auto members = walk(self_pid);
    if (!members) return std::nullopt;
    last_walk_ = {.self_pid = self_pid,
                  .newest_pid = newest_pid.value_or(0),  // 0 is never read: never current
                  .members = *std::move(members)};
  }
  for (auto const pid : last_walk_->members) {
    auto const look = look_at(pid);
    // A zombie has given its memory back; so has a process that has gone meanwhile.
    if (look.gone || (look.stat && (look.stat->state == 'Z' || look.stat->state == 'X'))) continue;
    auto const open = has_device_open(pid);
    if (open != false) return open ? std::optional(false) : std::nullopt;
  }
  return true;
}

}  // namespace memacct
