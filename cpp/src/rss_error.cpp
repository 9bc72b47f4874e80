#include "memacct/rss_error.hpp"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <compare>

#include "memacct/text.hpp"

namespace memacct {
namespace {

constexpr std::uint64_t kCounterCount = 3;
constexpr std::uint64_t kSmallestBatch = 32;
constexpr std::uint64_t kFaultCount = 66;                   // TASK_RSS_EVENTS_THRESH, 64, and two
constexpr std::uint64_t kAroundFaultBytes = 64ULL * 1024U;  // fault_around_bytes

struct Version {
  std::uint64_t major;
  std::uint64_t minor;
  std::uint64_t patch;
  auto operator<=>(Version const&) const = default;
};

/// Takes the digits off the front.
std::optional<std::uint64_t> take_number(std::string_view& text) noexcept {
  auto const end = std::min(text.find_first_not_of("0123456789"), text.size());
  auto const number = parse_number(text.substr(0, end));
  text.remove_prefix(end);
  return number;
}

/// "6.8.0-45-generic", "6.16.0-rc3", "5.15": what stands behind the numbers is left in `release`.
std::optional<Version> take_version(std::string_view& release) noexcept {
  std::array<std::uint64_t, 3> numbers{};
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    if (i > 0) {
      if (!release.starts_with('.')) {
        if (i < 2) return std::nullopt;
        break;
      }
      release.remove_prefix(1);
    }
    auto const number = take_number(release);
    if (!number) return std::nullopt;
    numbers[i] = *number;
  }
  return Version{.major = numbers[0], .minor = numbers[1], .patch = numbers[2]};
}

bool sums_when_read(Version const& version, bool is_candidate) noexcept {
  // Where the change came: with 6.16, and in the stable series of its time.
  constexpr std::array<Version, 3> kSince{{{6, 12, 39}, {6, 15, 7}, {6, 16, 0}}};
  if (version > kSince.back()) return true;
  return std::any_of(kSince.begin(), kSince.end(), [&](Version const& since) {
    // A release candidate may be older than the change.
    return version.major == since.major && version.minor == since.minor &&
           (is_candidate ? version > since : version >= since);
  });
}

}  // namespace

RssCounting rss_counting(std::string_view kernel_release) noexcept {
  auto rest = kernel_release;
  auto const version = take_version(rest);
  if (!version) return RssCounting::kUnknown;
  if (sums_when_read(*version, rest.starts_with("-rc"))) return RssCounting::kSummed;
  return *version >= Version{6, 2, 0} ? RssCounting::kPerCpu : RssCounting::kPerThread;
}

std::optional<std::uint64_t> rss_error_bound(RssCounting counting, std::uint64_t cpu_count,
                                             std::uint64_t page_bytes,
                                             std::optional<std::uint64_t> thread_count) noexcept {
  auto const batch = std::max(kSmallestBatch, 2 * cpu_count);
  auto const per_cpu = kCounterCount * cpu_count * (batch - 1) * page_bytes;
  switch (counting) {
    case RssCounting::kSummed:
      return 0;
    case RssCounting::kPerCpu:
      return per_cpu;
    case RssCounting::kPerThread:
      if (!thread_count) return std::nullopt;
      return std::max(per_cpu,
                      *thread_count * kFaultCount * std::max(kAroundFaultBytes, page_bytes));
    case RssCounting::kUnknown:
      break;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> rss_error_bound(std::optional<std::uint64_t> thread_count) noexcept {
  // Constants of the machine, kept without a lock: threads that ask at once find the same.
  static constinit std::atomic<std::uint64_t> cpu_count{0};
  static constinit std::atomic<RssCounting> counting{RssCounting::kUnknown};
  if (cpu_count.load(std::memory_order_acquire) == 0) {
    struct utsname names{};
    if (::uname(&names) == 0) counting.store(rss_counting(names.release));
    // Those that could be switched on count: the batch may have been larger once.
    cpu_count.store(static_cast<std::uint64_t>(std::max(1L, ::sysconf(_SC_NPROCESSORS_CONF))),
                    std::memory_order_release);
  }
  auto const known = counting.load(std::memory_order_relaxed);
  if (known == RssCounting::kSummed) return 0;
  static auto const page_bytes = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return rss_error_bound(known, cpu_count.load(std::memory_order_relaxed), page_bytes,
                         thread_count);
}

}  // namespace memacct
