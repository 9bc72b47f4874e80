// Making the file of a recording: whole before it has its name, its room reserved, one writer.
#pragma once
#include <cstdint>
#include <string>

namespace memacct {

/// A new file that gets its name when it is ready. Until then it bears a temporary one beside it.
class RecordingFile {
 public:
  /// Makes the file, of `bytes` zeros that have their place on the disk, readable and writable by
  /// its owner alone, and locks it.
  /// @throws SourceReadError with the errno: ENOSPC, EDQUOT (no room), EFBIG (RLIMIT_FSIZE or
  ///   the file system's limit; SIGXFSZ is not raised), EACCES, ENOENT, EROFS, ...
  RecordingFile(std::string path, std::uint64_t bytes);
  RecordingFile(RecordingFile const&) = delete;
  RecordingFile& operator=(RecordingFile const&) = delete;
  /// Closes it, and removes it if it has not got its name. A mapping of it keeps the lock.
  ~RecordingFile();

  [[nodiscard]] int fd() const noexcept { return fd_; }

  /// Gives it its name. An earlier recording of that name whose writer has ended is kept as
  /// `path`.1, replacing the one before; an empty file is replaced.
  /// @throws SourceReadError with EBUSY if another writer is at work there; std::invalid_argument
  ///   if there is a file that is no recording: it is left alone.
  void publish();

 private:
  void allocate(std::uint64_t bytes);
  bool set_aside() const;

  std::string path_;
  std::string temporary_;
  int fd_ = -1;
};

/// Whether somebody holds the lock of the recording at `path`: its writer lives, in whatever
/// namespace. False as well where the file system has no locks.
/// @throws SourceUnavailableError if it cannot be opened.
[[nodiscard]] bool is_being_recorded(std::string const& path);

}  // namespace memacct
