#include "memacct/mappings.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <string>
#include <system_error>

#include "memacct/error.hpp"
#include "memacct/mapping_kind.hpp"
#include "memacct/proc_file.hpp"
#include "memacct/process.hpp"
#include "memacct/smaps_text.hpp"

namespace memacct {
namespace {

// The kernel gives about a page of text at a time, whatever is asked for. Several of them are
// collected before they are parsed, so that the two do not drive each other's code out of the
// processor's caches five mappings at a time; few enough to stay in the cache themselves.
constexpr std::size_t kChunkBytes = 64 * 1024;
constexpr std::size_t kSpareRows = 64;

// How many mappings this process had when it was last read, to make room before reading.
std::atomic<std::size_t> last_row_count{512};

/// An fd for the length of a reading. Not kept: opening costs a thousandth of the walk.
class OpenFile {
 public:
  explicit OpenFile(std::string path) : path_(std::move(path)) {
    do {
      fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    } while (fd_ < 0 && errno == EINTR);
    if (fd_ < 0) fail(errno);
  }
  ~OpenFile() { ::close(fd_); }
  OpenFile(OpenFile const&) = delete;
  OpenFile& operator=(OpenFile const&) = delete;

  /// Fills the buffer, or less at the end of the file.
  std::size_t read(char* buffer, std::size_t size) {
    std::size_t filled = 0;
    while (!at_end_ && filled < size) {
      auto const count = ::read(fd_, buffer + filled, size - filled);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail(errno);
      at_end_ = count == 0;
      filled += static_cast<std::size_t>(count);
    }
    return filled;
  }

  /// Whether the address space is still there: its first mapping can be read again. The kernel
  /// ends the text early, without an error, when the process ends or makes itself a new one.
  [[nodiscard]] bool still_has_text() {
    char first = 0;
    ssize_t count = -1;
    do {
      count = ::pread(fd_, &first, 1, 0);
    } while (count < 0 && errno == EINTR);
    return count == 1;
  }

 private:
  [[noreturn]] void fail(int error_number) const {
    auto reason = std::generic_category().message(error_number);
    // ESRCH: it ended while it was read.
    if (error_number == ENOENT || error_number == ESRCH || error_number == EACCES ||
        error_number == EPERM) {
      throw SourceUnavailableError(path_, std::move(reason));
    }
    throw SourceReadError(path_, std::move(reason), error_number);
  }

  std::string path_;
  int fd_ = -1;
  bool at_end_ = false;
};

std::string directory_of(std::int32_t pid) {
  return pid == 0 ? "/proc/self" : "/proc/" + std::to_string(pid);
}

}  // namespace

void name_kinds(MappingTable& table, std::int32_t pid) {
  MountedTypes mounted;
  if (needs_mounted_types(table)) {
    // Without it (the process has just ended) a tmpfs file passes for one on a disk. That is no
    // reason to lose the mappings.
    try {
      auto const mountinfo = read_file(directory_of(pid) + "/mountinfo");
      if (mountinfo) mounted = parse_mounted_types(*mountinfo);
    } catch (SourceUnavailableError const&) {
    } catch (SourceReadError const&) {
    }
  }
  classify(table, mounted);
}

MappingTable read_mappings(std::int32_t pid) {
  auto const path = directory_of(pid) + "/smaps";
  SmapsParser parser(path);
  if (pid == 0) parser.reserve(last_row_count.load(std::memory_order_relaxed) + kSpareRows);
  auto const own_pid = current_pid();
  OpenFile file(path);
  auto table =
      parse_smaps([&file](char* buffer, std::size_t size) { return file.read(buffer, size); },
                  std::move(parser), kChunkBytes);
  if (table.rows.empty()) {
    throw SourceUnavailableError(path, "no memory of its own: a kernel thread, or it has ended");
  }
  if (pid != 0 && !file.still_has_text()) {
    throw SourceUnavailableError(path, "the process ended, or ran another program, meanwhile");
  }
  if (pid == 0) last_row_count.store(table.rows.size(), std::memory_order_relaxed);
  table.pid = pid == 0 ? own_pid : pid;
  name_kinds(table, pid);
  split_held(table);
  return table;
}

}  // namespace memacct
