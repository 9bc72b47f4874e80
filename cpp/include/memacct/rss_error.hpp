// How far the resident memory that statm and status tell may be from the truth.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

namespace memacct {

/// How a kernel keeps the three counters (anonymous, file, shmem) whose sum is rss. smaps and
/// smaps_rollup look at the pages themselves and are exact in each.
enum class RssCounting : std::uint8_t {
  kUnknown,
  kPerThread,  // before 6.2: each thread adds what it has counted after 66 page faults
  kPerCpu,     // since 6.2 (f1a7941243c1): each CPU adds its count when that reaches the batch
  kSummed,     // since 6.16, 6.15.7 and 6.12.39 (82241a83cd15): as before, but summed when read
};

/// Of the kernel whose `uname -r` this is. Distributions bring newer code to older numbers: what
/// is told is the way with the wider bound, never one that is too narrow.
[[nodiscard]] RssCounting rss_counting(std::string_view kernel_release) noexcept;

/// The most by which rss can be off while the process stands still.
///
/// Per CPU: each of the three counters may lack up to batch - 1 pages of each CPU, in either
/// direction; batch = max(32, 2 * CPUs) (lib/percpu_counter.c). Per thread: 66 faults, each of
/// which may map the 64 KiB around it (mm/memory.c: check_sync_rss_stat, do_fault_around); not
/// counting what a driver inserts outside of a fault. Since a distribution may have brought the
/// per-CPU counters to such a kernel, that bound holds for it too.
/// @returns nullopt if the kernel is unknown, or counts per thread and their number is unknown.
[[nodiscard]] std::optional<std::uint64_t> rss_error_bound(
    RssCounting counting, std::uint64_t cpu_count, std::uint64_t page_bytes,
    std::optional<std::uint64_t> thread_count) noexcept;

/// The same of this machine, which is asked once per process (uname, sysconf).
[[nodiscard]] std::optional<std::uint64_t> rss_error_bound(
    std::optional<std::uint64_t> thread_count) noexcept;

}  // namespace memacct
