#include "memacct/recording_file.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "memacct/clock.hpp"
#include "memacct/error.hpp"
#include "memacct/recording.hpp"

namespace memacct {
namespace {

[[noreturn]] void fail(std::string const& path, std::string const& what, int error_number) {
  throw SourceReadError(path, what + ": " + std::generic_category().message(error_number),
                        error_number);
}

struct OpenFile {
  int fd;
  ~OpenFile() {
    if (fd >= 0) ::close(fd);
  }
};

struct flock whole_file(short type) noexcept {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}

/// A lock of the open file, not of the process: it lives as long as a descriptor or a mapping of
/// it, so it stays when a program closes all its descriptors, and a child of fork(), which
/// inherits neither, does not keep it. @returns false if somebody else has it.
bool lock(int fd) noexcept {
  auto wanted = whole_file(F_WRLCK);
  if (::fcntl(fd, F_OFD_SETLK, &wanted) == 0) return true;
  // A file system without locks is no reason not to record.
  return errno != EAGAIN && errno != EACCES;
}

bool is_locked(int fd) noexcept {
  auto wanted = whole_file(F_RDLCK);
  return ::fcntl(fd, F_OFD_GETLK, &wanted) == 0 && wanted.l_type != F_UNLCK;
}

/// What the first page says; nullopt if it is no page of a whole recording.
std::optional<Recording> first_page(int fd, std::string const& path, bool& looks_right) {
  std::array<std::byte, kRecordingPageBytes> page;
  auto const count = ::pread(fd, page.data(), page.size(), 0);
  auto const bytes = std::span(page).first(count > 0 ? static_cast<std::size_t>(count) : 0);
  looks_right = looks_like_recording(bytes);
  try {
    return parse_recording(bytes, path);
  } catch (SourceFormatError const&) {
    return std::nullopt;
  }
}

int rename_to_new(char const* from, char const* to) noexcept {
  if (::renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  // NFS has no such rename, but hard links.
  if (::link(from, to) != 0) return errno;
  ::unlink(from);
  return 0;
}

}  // namespace

RecordingFile::RecordingFile(std::string path, std::uint64_t bytes)
    : path_(std::move(path)),
      temporary_(path_ + "." + std::to_string(::getpid()) + "-" + std::to_string(monotonic_ns()) +
                 ".tmp") {
  fd_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd_ < 0) fail(path_, "no recording can be made", errno);
  try {
    // Against a umask that takes rights from the owner.
    if (::fchmod(fd_, 0600) != 0) fail(path_, "its rights cannot be set", errno);
    allocate(bytes);
    (void)lock(fd_);  // nobody else knows the file
  } catch (...) {
    ::unlink(temporary_.c_str());
    ::close(fd_);
    throw;
  }
}

RecordingFile::~RecordingFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  ::close(fd_);
}

void RecordingFile::allocate(std::uint64_t bytes) {
  // Beyond the limit the kernel sends SIGXFSZ, which ends the process by default.
  struct rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
      bytes > limit.rlim_cur) {
    fail(path_, "no room for " + std::to_string(bytes) + " bytes (RLIMIT_FSIZE)", EFBIG);
  }
  // Not ftruncate: a hole gets its place when it is written to, and then a full disk is SIGBUS.
  int error = 0;
  do {
    error = ::posix_fallocate(fd_, 0, static_cast<off_t>(bytes));
  } while (error == EINTR);
  if (error != 0) fail(path_, "no room for " + std::to_string(bytes) + " bytes", error);
}

void RecordingFile::publish() {
  constexpr int kAttempts = 8;  // others may come and go under the same name
  for (int i = 0; i < kAttempts; ++i) {
    auto const error = rename_to_new(temporary_.c_str(), path_.c_str());
    if (error == 0) {
      temporary_.clear();
      return;
    }
    if (error != EEXIST) fail(path_, "no recording can be made", error);
    if (!set_aside()) continue;
  }
  fail(path_, "others go on making files of this name", EBUSY);
}

/// @returns false if the file that was there has become another one meanwhile.
bool RecordingFile::set_aside() const {
  // Without O_NONBLOCK a pipe of that name would be waited for.
  OpenFile const old{::open(path_.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)};
  if (old.fd < 0 && errno == ENOENT) return false;
  struct stat found{};
  struct stat named{};
  if (old.fd < 0 || ::fstat(old.fd, &found) != 0 || !S_ISREG(found.st_mode)) {
    throw std::invalid_argument(path_ + " is there and is no recording: it is left alone");
  }
  bool looks_right = false;
  auto const recording = first_page(old.fd, path_, looks_right);
  if (!looks_right && found.st_size != 0) {
    throw std::invalid_argument(path_ + " is there and is no recording: it is left alone");
  }
  // Of a recording that has ended, the mapping may still be there.
  if (!lock(old.fd) && !(recording && recording->ended_ns)) {
    auto const who = recording ? " (pid " + std::to_string(recording->pid) + ")" : "";
    throw SourceReadError(path_, "another recorder is writing to it" + who, EBUSY);
  }
  if (::stat(path_.c_str(), &named) != 0 || named.st_ino != found.st_ino ||
      named.st_dev != found.st_dev) {
    return false;
  }
  auto const gone = found.st_size == 0 ? ::unlink(path_.c_str())
                                       : ::rename(path_.c_str(), (path_ + ".1").c_str());
  if (gone != 0 && errno != ENOENT) fail(path_, "the recording before cannot be kept", errno);
  return true;
}

bool is_being_recorded(std::string const& path) {
  OpenFile const file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) {
    throw SourceUnavailableError(path, std::generic_category().message(errno));
  }
  return is_locked(file.fd);
}

}  // namespace memacct
