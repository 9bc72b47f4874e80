#include "memacct/procmap_query.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace memacct {
namespace {

// The kernel's ABI, by hand: the machine that builds may have older headers than the one that
// runs. Source: include/uapi/linux/fs.h, Linux 6.11 and 6.7.

struct ProcmapQuery {
  std::uint64_t size;
  std::uint64_t query_flags;
  std::uint64_t query_addr;
  std::uint64_t vma_start;
  std::uint64_t vma_end;
  std::uint64_t vma_flags;
  std::uint64_t vma_page_size;
  std::uint64_t vma_offset;
  std::uint64_t inode;
  std::uint32_t dev_major;
  std::uint32_t dev_minor;
  std::uint32_t vma_name_size;
  std::uint32_t build_id_size;
  std::uint64_t vma_name_addr;
  std::uint64_t build_id_addr;
};
static_assert(sizeof(ProcmapQuery) == 104);

struct PmScanArg {
  std::uint64_t size;
  std::uint64_t flags;
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t walk_end;
  std::uint64_t vec;
  std::uint64_t vec_len;
  std::uint64_t max_pages;
  std::uint64_t category_inverted;
  std::uint64_t category_mask;
  std::uint64_t category_anyof_mask;
  std::uint64_t return_mask;
};
static_assert(sizeof(PmScanArg) == 96);

constexpr unsigned long kProcmapQuery = _IOWR('f', 17, ProcmapQuery);
constexpr unsigned long kPagemapScan = _IOWR('f', 16, PmScanArg);

constexpr std::uint64_t kCoveringOrNext = 0x10;
constexpr std::uint64_t kPermissions = 0x0F;  // readable, writable, executable, shared
constexpr std::uint64_t kIsFile = 1U << 2U;
constexpr std::uint64_t kIsPresent = 1U << 3U;
constexpr std::uint64_t kIsZeroPage = 1U << 5U;

std::uint64_t address_of(void const* object) noexcept {
  return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(object));
}

/// 0, or an errno.
int ask(int fd, unsigned long request, void* argument, long& result) noexcept {
  do {
    result = ::ioctl(fd, request, argument);
  } while (result < 0 && errno == EINTR);
  return result < 0 ? errno : 0;
}

/// A file without the ioctl, a kernel or a sandbox that does not know it, or knows less of it.
bool says_unknown(int error_number) noexcept {
  return error_number == ENOTTY || error_number == EINVAL || error_number == ENOSYS ||
         error_number == EOPNOTSUPP;
}

}  // namespace

ProcessFile::ProcessFile(std::string path) : path_(std::move(path)) {
  do {
    fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  } while (fd_ < 0 && errno == EINTR);
  if (fd_ < 0) fail(errno);
}

ProcessFile::~ProcessFile() {
  if (owned_) ::close(fd_);
}

void ProcessFile::fail(int error_number) const {
  auto reason = std::generic_category().message(error_number);
  if (error_number == ESRCH) reason = "no memory of its own: a kernel thread, or it has ended";
  if (error_number == ENOENT || error_number == ESRCH || error_number == EACCES ||
      error_number == EPERM) {
    throw SourceUnavailableError(path_, std::move(reason));
  }
  throw SourceReadError(path_, std::move(reason), error_number);
}

Answer query_mapping(ProcessFile const& maps, std::uint64_t address, NameBuffer& buffer,
                     QueriedMapping& mapping) {
  ProcmapQuery query{};
  query.size = sizeof query;
  query.query_flags = kCoveringOrNext;
  query.query_addr = address;
  query.vma_name_addr = address_of(buffer.data());
  query.vma_name_size = static_cast<std::uint32_t>(buffer.size());
  long result = 0;
  auto const error_number = ask(maps.fd(), kProcmapQuery, &query, result);
  if (error_number == ENOENT) return Answer::kNoMapping;
  if (says_unknown(error_number) || error_number == ENAMETOOLONG) return Answer::kNotOffered;
  if (error_number != 0) maps.fail(error_number);
  // Counted with its final zero; 0: no name.
  auto const name_bytes = query.vma_name_size == 0 ? 0 : query.vma_name_size - 1;
  mapping = {.start = query.vma_start,
             .end = query.vma_end,
             .offset = query.vma_offset,
             .inode = query.inode,
             .page_bytes = query.vma_page_size,
             .dev_major = query.dev_major,
             .dev_minor = query.dev_minor,
             .perms = static_cast<std::uint8_t>(query.vma_flags & kPermissions),
             .name = {buffer.data(), name_bytes}};
  return Answer::kGiven;
}

std::optional<ScannedPages> scan_pages(ProcessFile const& pagemap, std::uint64_t start,
                                       std::uint64_t end, Pages which,
                                       std::span<PageRegion> regions) {
  PmScanArg scan{};
  scan.size = sizeof scan;
  scan.start = start;
  scan.end = end;
  scan.vec = address_of(regions.data());
  scan.vec_len = regions.size();
  scan.category_inverted = kIsZeroPage;  // to be there without it
  scan.category_mask = kIsPresent | kIsZeroPage;
  if (which == Pages::kPresentFile) scan.category_mask |= kIsFile;
  scan.return_mask = kIsPresent;
  long count = 0;
  auto const error_number = ask(pagemap.fd(), kPagemapScan, &scan, count);
  if (says_unknown(error_number)) return std::nullopt;
  if (error_number != 0) pagemap.fail(error_number);
  // Not scan.walk_end: where the kernel's own buffer (512 regions) was full once and the rest was
  // then walked to its end, it still says where the first was full (seen on Linux 6.18).
  auto const found = static_cast<std::size_t>(count);
  auto const is_full = found > 0 && found == regions.size();
  return ScannedPages{.region_count = found, .scanned_to = is_full ? regions[found - 1].end : end};
}

}  // namespace memacct
