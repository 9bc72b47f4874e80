#include "memacct/proc_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "memacct/process.hpp"

namespace memacct {
namespace {

constexpr std::size_t kFirstSpillBytes = 64 * 1024;
constexpr std::size_t kLargestFileBytes = 64 * 1024 * 1024;

std::string error_text(int error_number) { return std::generic_category().message(error_number); }

[[noreturn]] void throw_read_error(std::string path, int error_number) {
  throw SourceReadError(std::move(path), error_text(error_number), error_number);
}

[[noreturn]] void throw_open_error(std::string path, int error_number) {
  if (error_number == ENOENT || error_number == EACCES || error_number == EPERM) {
    throw SourceUnavailableError(std::move(path), error_text(error_number));
  }
  throw_read_error(std::move(path), error_number);
}

int open_read_only(char const* path) noexcept {
  int fd = -1;
  do {
    fd = ::open(path, O_RDONLY | O_CLOEXEC);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

ssize_t pread_once(int fd, std::span<char> buffer) noexcept {
  ssize_t count = -1;
  do {
    count = ::pread(fd, buffer.data(), buffer.size(), 0);
  } while (count < 0 && errno == EINTR);
  return count;
}

/// pread into `spill`, doubling it until the file fits with room to spare.
std::string_view pread_growing(int fd, std::string& spill, char const* path) {
  for (auto size = kFirstSpillBytes; size <= kLargestFileBytes; size *= 2) {
    spill.resize(size);
    auto const count = pread_once(fd, spill);
    if (count < 0) throw_read_error(path, errno);
    if (static_cast<std::size_t>(count) < size)
      return {spill.data(), static_cast<std::size_t>(count)};
  }
  throw_read_error(path, EFBIG);
}

/// 0 if there is no such fd.
std::uint64_t file_identity(int fd) noexcept {
  struct stat info{};
  if (::fstat(fd, &info) != 0) return 0;
  // Mixed by a large odd number, so that a small inode of one file system is not taken for
  // that of another.
  return (static_cast<std::uint64_t>(info.st_dev) * 0x9E3779B97F4A7C15U) ^ info.st_ino;
}

std::uint64_t pack(int fd, std::uint32_t generation) noexcept {
  return std::uint64_t{generation} << 32U | (static_cast<std::uint32_t>(fd) + 1U);
}

/// -1 if the state is "closed".
int fd_of(std::uint64_t state) noexcept {
  return static_cast<int>(static_cast<std::uint32_t>(state)) - 1;
}

std::uint32_t generation_of(std::uint64_t state) noexcept {
  return static_cast<std::uint32_t>(state >> 32U);
}

}  // namespace

ProcFile::Reading ProcFile::read_text(std::span<char> buffer, std::string& spill) {
  auto state = current_state();
  auto count = pread_once(fd_of(state), buffer);
  if (count < 0) {
    // EBADF: closed behind our back. ESPIPE, EISDIR, ...: the number now means another file.
    // ESRCH: it was opened by a process that has ended. A fresh open answers them all.
    state = reopen(state);
    count = pread_once(fd_of(state), buffer);
    if (count < 0) throw_read_error(path_, errno);
  }
  // One pread is enough: the kernel writes these files as one record (seq_file's
  // single_open) and gives all of it that fits. Asking again for the end of the file would
  // make the kernel build the record a second time.
  auto const length = static_cast<std::size_t>(count);
  if (length < buffer.size()) return {.text = {buffer.data(), length}, .state = state};
  return {.text = pread_growing(fd_of(state), spill, path_), .state = state};
}

ProcFile::State ProcFile::current_state() {
  auto const state = state_.load(std::memory_order_acquire);
  if (state != kClosed && generation_of(state) == fork_generation()) return state;
  return reopen(state);
}

ProcFile::State ProcFile::reopen(State seen) {
  // A stranger's fd stays open. Asked before the open, which may give the number anew.
  auto const replaced = fd_of(seen);
  auto const close_replaced = replaced >= 0 && is_ours(replaced);
  auto const fd = open_read_only(path_);
  if (fd < 0) throw_open_error(path_, errno);
  auto const fresh = pack(fd, fork_generation());
  identity_.store(file_identity(fd), std::memory_order_release);
  if (!state_.compare_exchange_strong(seen, fresh, std::memory_order_acq_rel)) {
    ::close(fd);  // another thread was faster; its fd serves both
    return seen;
  }
  if (close_replaced) ::close(replaced);
  return fresh;
}

bool ProcFile::outdated(State state) noexcept {
  if (state_.load(std::memory_order_acquire) != state) return true;
  if (is_ours(fd_of(state))) return false;
  state_.compare_exchange_strong(state, kClosed, std::memory_order_acq_rel);
  return true;
}

bool ProcFile::is_ours(int fd) const noexcept {
  auto const identity = file_identity(fd);
  return identity != 0 && identity == identity_.load(std::memory_order_acquire);
}

std::optional<std::string> read_file(std::string const& path) {
  auto const fd = open_read_only(path.c_str());
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ENODEV)) return std::nullopt;
  if (fd < 0) throw_open_error(path, errno);
  std::string text(4096, '\0');
  std::size_t filled = 0;
  int error_number = 0;
  // Until read() says 0: files of several records (mountinfo) come in pieces.
  while (true) {
    if (filled == text.size()) text.resize(2 * text.size());
    auto const count = ::read(fd, text.data() + filled, text.size() - filled);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) error_number = errno;
    if (count <= 0) break;
    filled += static_cast<std::size_t>(count);
  }
  ::close(fd);
  // A control group that was removed while we read it is no longer there.
  if (error_number == ENODEV) return std::nullopt;
  if (error_number != 0) throw_read_error(path, error_number);
  text.resize(filled);
  return text;
}

std::optional<std::string> read_optional_file(std::string const& path) {
  try {
    return read_file(path);
  } catch (SourceUnavailableError const&) {
    return std::nullopt;
  } catch (SourceReadError const& error) {
    if (error.error_number() == EOPNOTSUPP) return std::nullopt;
    throw;
  }
}

}  // namespace memacct
