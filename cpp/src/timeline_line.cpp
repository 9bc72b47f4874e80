#include "memacct/timeline_line.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <optional>
#include <utility>

namespace memacct {
namespace {

using Known = std::pair<char const*, std::uint64_t HostMemory::*>;
using Optional = std::pair<char const*, std::optional<std::uint64_t> HostMemory::*>;

constexpr std::array kKnown{
    Known{"vms_bytes", &HostMemory::vms_bytes},
    Known{"rss_bytes", &HostMemory::rss_bytes},
};
constexpr std::array kOptional{
    Optional{"rss_error_bound_bytes", &HostMemory::rss_error_bound_bytes},
    Optional{"rss_anon_bytes", &HostMemory::rss_anon_bytes},
    Optional{"rss_file_bytes", &HostMemory::rss_file_bytes},
    Optional{"rss_shmem_bytes", &HostMemory::rss_shmem_bytes},
    Optional{"swap_bytes", &HostMemory::swap_bytes},
    Optional{"hugetlb_bytes", &HostMemory::hugetlb_bytes},
    Optional{"locked_bytes", &HostMemory::locked_bytes},
    Optional{"pinned_bytes", &HostMemory::pinned_bytes},
    Optional{"peak_rss_bytes", &HostMemory::peak_rss_bytes},
    Optional{"page_tables_bytes", &HostMemory::page_tables_bytes},
    Optional{"held_bytes", &HostMemory::held_bytes},
    Optional{"reclaimable_bytes", &HostMemory::reclaimable_bytes},
    Optional{"rss_exact_bytes", &HostMemory::rss_exact_bytes},
    Optional{"pss_bytes", &HostMemory::pss_bytes},
    Optional{"pss_anon_bytes", &HostMemory::pss_anon_bytes},
    Optional{"pss_file_bytes", &HostMemory::pss_file_bytes},
    Optional{"pss_shmem_bytes", &HostMemory::pss_shmem_bytes},
    Optional{"uss_bytes", &HostMemory::uss_bytes},
    Optional{"shared_clean_bytes", &HostMemory::shared_clean_bytes},
    Optional{"shared_dirty_bytes", &HostMemory::shared_dirty_bytes},
    Optional{"private_clean_bytes", &HostMemory::private_clean_bytes},
    Optional{"private_dirty_bytes", &HostMemory::private_dirty_bytes},
    Optional{"anonymous_bytes", &HostMemory::anonymous_bytes},
    Optional{"swap_pss_bytes", &HostMemory::swap_pss_bytes},
};

void add_term(std::string& text, char const* name, std::uint64_t value) {
  std::array<char, 20> digits;  // of 2^64
  auto const end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  text += text.empty() ? "\"" : ",\"";
  text += name;
  text += "\":";
  text.append(digits.data(), end);
}

}  // namespace

std::string host_terms_json(HostMemory const& host) {
  std::string text;
  text.reserve(1024);
  for (auto const& [name, member] : kKnown) add_term(text, name, host.*member);
  for (auto const& [name, member] : kOptional) {
    if (auto const& value = host.*member) add_term(text, name, *value);
  }
  return text;
}

std::int64_t append_line(int fd, std::uint64_t device, std::uint64_t inode,
                         std::string_view line) noexcept {
  struct stat found{};
  if (::fstat(fd, &found) != 0) return -errno;
  if (found.st_dev != device || found.st_ino != inode) return -EBADF;
  // A signal does not interrupt a write to a disk halfway; one that came before is gone.
  ssize_t written = -1;
  do {
    written = ::write(fd, line.data(), line.size());
  } while (written < 0 && errno == EINTR);
  return written < 0 ? -errno : written;
}

}  // namespace memacct
