#include "memacct/process_memory.hpp"

#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "memacct/error.hpp"
#include "memacct/proc_text.hpp"
#include "memacct/process_folder.hpp"
#include "memacct/process_title.hpp"
#include "memacct/process_tree.hpp"
#include "memacct/rss_error.hpp"

namespace memacct {
namespace {

/// A parser's error names our own file: it was written for that. This one is `path`.
template <typename Parse>
auto parsed(std::string const& path, std::string_view text, Parse const& parse) {
  try {
    return parse(text);
  } catch (SourceFormatError const& error) {
    throw SourceFormatError(path, error.reason(), error.line());
  }
}

/// Whether the process shares its parent's memory, or both have none. False if the kernel does
/// not tell.
bool shares_parents_memory(TreeMember const& member) {
  if (member.depth == 0) return false;
  // kcmp takes numbers of our namespace: it answers for others where /proc is another's.
  return ::syscall(SYS_kcmp, member.pid, member.parent_pid, KCMP_VM, 0UL, 0UL) == 0 &&
         read_self_names().procfs_is_ours();
}

/// One reading of one process, step by step; each step may end it.
class ProcessReading {
 public:
  ProcessReading(TreeMember const& member, HostTier tier)
      : member_(member), tier_(tier), folder_(member.pid) {
    row_.pid = member.pid;
    row_.parent_pid = member.parent_pid;
    row_.start_ticks = member.start_ticks;
    row_.depth = member.depth;
  }

  [[nodiscard]] ProcessMemory run() {
    if (read_identity()) read_memory();
    return std::move(row_);
  }

 private:
  bool end(ProcessState state, std::string reason = {}) {
    row_.state = state;
    row_.reason = std::move(reason);
    return false;
  }

  /// Ends the reading as the error tells. @throws SourceReadError for one of our own.
  bool end_by(FileText const& file, std::string const& name, ProcessState denied) {
    auto text = std::generic_category().message(file.error_number);
    if (file.gone()) return end(ProcessState::kGone);
    if (file.denied()) return end(denied, folder_.path_of(name) + ": " + text);
    throw SourceReadError(folder_.path_of(name), std::move(text), file.error_number);
  }

  bool read_identity() {
    auto const file = folder_.read("stat");
    if (!file.ok()) return end_by(file, "stat", ProcessState::kDenied);
    auto const stat = parse_stat(file.text);
    if (!stat) throw SourceFormatError(folder_.path_of("stat"), "not a stat line", file.text);
    if (stat->start_ticks != member_.start_ticks) return end(ProcessState::kGone);
    stat_ = *stat;
    row_.name = name_from_stat(file.text);
    // Without a title, the name serves: this is no reason to give up.
    row_.title = title_from_cmdline(folder_.read("cmdline", kTitleBytes).text);
    auto role = role_of(row_.title, row_.name);
    row_.role = std::move(role.role);
    row_.rank = std::move(role.rank);
    return true;
  }

  bool read_memory() {
    // Asked before it is read: one that has memory of its own never returns to another's.
    auto const shared = shares_parents_memory(member_);
    auto const* const name = tier_ == HostTier::kCounters ? "statm" : "status";
    auto file = folder_.read(name);
    if (file.ok() && !tells_memory(file.text) && !stat_.kernel_thread) {
      // The main thread has ended; others may run on, and show what this one no longer does.
      auto const threads = numbers_in(folder_.path_of("task"));
      if (!threads) {
        return end_by({.text = {}, .error_number = errno}, "task", ProcessState::kDenied);
      }
      if (auto const thread = other_thread(*threads)) {
        prefix_ = "task/" + std::to_string(*thread) + "/";
        file = folder_.read(prefix_ + name);
        if (file.gone()) return end(ProcessState::kZombie);
      }
    }
    if (!file.ok()) return end_by(file, prefix_ + name, ProcessState::kDenied);
    if (!tells_memory(file.text)) {
      return end(stat_.kernel_thread ? ProcessState::kKernel : ProcessState::kZombie);
    }
    if (shared) return end(ProcessState::kTwin);
    auto const path = folder_.path_of(prefix_ + name);
    if (tier_ == HostTier::kCounters) {
      static auto const page_bytes = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
      return keep(host_from_statm(parsed(
          path, file.text, [](std::string_view text) { return parse_statm(text, page_bytes); })));
    }
    auto const status = parsed(path, file.text, parse_status);
    if (tier_ == HostTier::kRollup) return read_rollup(status);
    return keep(host_from_status(status), status.thread_count);
  }

  bool read_rollup(Status const& status) {
    auto const name = prefix_ + "smaps_rollup";
    auto const file = folder_.read(name);
    if (file.ok()) {
      auto const rollup = parsed(folder_.path_of(name), file.text, parse_smaps_rollup);
      keep(host_from_rollup(status, rollup), status.thread_count);
      row_.private_hugetlb_bytes = rollup.private_hugetlb_bytes;
      row_.freed_bounds_bytes = freed_bounds(*row_.host);
      return true;
    }
    if (file.gone() && has_ended()) return false;
    keep(host_from_status(status), status.thread_count);
    // It lives, so its kernel lacks the file.
    if (file.gone()) return end(ProcessState::kPartial, folder_.path_of(name) + ": not there");
    return end_by(file, name, ProcessState::kPartial);
  }

  bool keep(HostMemory const& host, std::optional<std::uint64_t> thread_count = std::nullopt) {
    row_.host = host;
    row_.host->pid = static_cast<std::int32_t>(member_.pid);
    row_.host->rss_error_bound_bytes = rss_error_bound(thread_count);
    return end(ProcessState::kWhole);
  }

  /// Tells a process that ended from a kernel without the file, and sets the state if it did.
  bool has_ended() {
    if (auto const stat = folder_.read("stat"); !stat.ok()) {
      end_by(stat, "stat", ProcessState::kDenied);
      return true;
    }
    auto const status = folder_.read(prefix_ + "status");
    if (status.ok() && tells_memory(status.text)) return false;
    if (status.ok() || status.gone()) {
      end(ProcessState::kZombie);
    } else {
      end_by(status, prefix_ + "status", ProcessState::kDenied);
    }
    return true;
  }

  /// Whether the text of statm or status is of a process with an address space.
  [[nodiscard]] bool tells_memory(std::string_view text) const {
    if (tier_ == HostTier::kCounters) return !text.starts_with("0 ");
    return text.find("\nVmSize:") != std::string_view::npos;
  }

  [[nodiscard]] std::optional<std::uint32_t> other_thread(
      std::vector<std::uint32_t> const& threads) const {
    auto const found = std::find_if(threads.begin(), threads.end(),
                                    [this](std::uint32_t tid) { return tid != member_.pid; });
    return found == threads.end() ? std::nullopt : std::optional(*found);
  }

  TreeMember const& member_;
  HostTier tier_;
  ProcessFolder folder_;
  ProcessStat stat_;
  std::string prefix_;  // "" or "task/<tid>/": whose files show the memory
  ProcessMemory row_;
};

std::uint64_t difference_or_zero(std::uint64_t a, std::uint64_t b) noexcept {
  return a > b ? a - b : 0;
}

}  // namespace

std::optional<Bounds> freed_bounds(HostMemory const& host) noexcept {
  if (!host.uss_bytes || !host.pss_bytes) return std::nullopt;
  Bounds bounds{std::nullopt, *host.pss_bytes};
  if (!host.anonymous_bytes || !host.rss_exact_bytes) return bounds;
  // If all that is not anonymous were private, so much of uss would be left for anonymous pages.
  auto const others = difference_or_zero(*host.rss_exact_bytes, *host.anonymous_bytes);
  auto low = difference_or_zero(*host.uss_bytes, others);
  if (host.pss_anon_bytes) {
    // An anonymous page that is shared counts at most half in pss:
    // pss_anon <= private + (anonymous - private) / 2.
    low = std::max(low, difference_or_zero(2 * *host.pss_anon_bytes, *host.anonymous_bytes));
  }
  bounds.first = std::min(low, *host.uss_bytes);
  return bounds;
}

ProcessMemory read_process(TreeMember const& member, HostTier tier) {
  return ProcessReading(member, tier).run();
}

}  // namespace memacct
