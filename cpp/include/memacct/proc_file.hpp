// Files of the kernel: opened once and read often (ProcFile), or read once (read_file).
#pragma once
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "memacct/error.hpp"

namespace memacct {

/// A file under /proc/self that holds one record, read by a single pread of a kept fd.
///
/// Safe from several threads at once, without a lock. After fork() the child opens its own:
/// the inherited fd would go on showing the parent. If the fd was closed behind our back
/// (daemons close them all), the next read opens the file again; if its number was then
/// given to another file, an error or a text that does not parse leads to the same, and the
/// stranger's fd is left alone. Not detected: a stranger that parses (another process's
/// statm under the reused number).
class ProcFile {
 public:
  /// Opens nothing yet. `path` must outlive the object.
  explicit constexpr ProcFile(char const* path) noexcept : path_(path) {}
  ProcFile(ProcFile const&) = delete;
  ProcFile& operator=(ProcFile const&) = delete;
  // No destructor: these are globals, and threads may read while the process exits.

  /// What `parse` makes of the text of the whole file, which lies in `buffer` (larger files
  /// are read into allocated memory). Reads anew, once, if the text was not this file's.
  /// @throws SourceUnavailableError if it is not there or not permitted, SourceReadError if
  ///   reading fails, and what `parse` throws.
  template <typename Parse>
  [[nodiscard]] auto read(std::span<char> buffer, Parse const& parse) {
    std::string spill;
    auto reading = read_text(buffer, spill);
    try {
      return parse(reading.text);
    } catch (SourceFormatError const&) {
      if (!outdated(reading.state)) throw;
    }
    reading = read_text(buffer, spill);
    return parse(reading.text);
  }

 private:
  // All that must change together when the file is reopened is small enough to be swapped
  // in one atomic step: fd + 1 in the low half, the fork generation in the high half.
  using State = std::uint64_t;
  static constexpr State kClosed = 0;

  struct Reading {
    std::string_view text;
    State state;  // of the fd that it came from
  };

  Reading read_text(std::span<char> buffer, std::string& spill);
  State current_state();
  /// Opens the file anew unless another thread has already replaced `seen`.
  State reopen(State seen);
  /// True if what was read under `state` may have been another file's text.
  bool outdated(State state) noexcept;
  [[nodiscard]] bool is_ours(int fd) const noexcept;

  char const* path_;
  std::atomic<State> state_{kClosed};
  // Device and inode of our file, mixed: tells it from another file that was later given the
  // same fd number. Written before the state that it belongs to.
  std::atomic<std::uint64_t> identity_{0};
};

/// The whole text of a file of any size; nullopt if there is no such file.
/// @throws SourceUnavailableError if it is not permitted, SourceReadError if reading fails.
/// Cost: open, read, close; allocates.
[[nodiscard]] std::optional<std::string> read_file(std::string const& path);

/// As read_file, of what a reading can do without: nullopt also if it is not permitted, or if
/// the kernel has it turned off (EOPNOTSUPP: pressure). @throws SourceReadError otherwise.
[[nodiscard]] std::optional<std::string> read_optional_file(std::string const& path);

}  // namespace memacct
