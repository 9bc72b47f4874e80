// The files that /proc has of one process.
#pragma once
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>

namespace memacct {

/// What a file held, or the error number of the step that failed.
struct FileText {
  std::string text;
  int error_number = 0;

  [[nodiscard]] bool ok() const noexcept { return error_number == 0; }
  /// A process that ends loses its files (ENOENT) or has nothing left to show in them (ESRCH).
  [[nodiscard]] bool gone() const noexcept {
    return error_number == ENOENT || error_number == ESRCH;
  }
  [[nodiscard]] bool denied() const noexcept {
    return error_number == EACCES || error_number == EPERM;
  }
};

/// The folder of one process, held open: it stays that process's when its number is given to
/// another.
class ProcessFolder {
 public:
  /// Throws nothing: where the folder cannot be opened, every read() tells why.
  explicit ProcessFolder(std::uint32_t pid);
  ProcessFolder(ProcessFolder const&) = delete;
  ProcessFolder& operator=(ProcessFolder const&) = delete;
  ~ProcessFolder();

  [[nodiscard]] std::string path_of(std::string const& name) const { return path_ + "/" + name; }

  /// The text of the file `name` in the folder, or as much of it as `limit` allows.
  [[nodiscard]] FileText read(std::string const& name,
                              std::size_t limit = std::size_t{1} << 20U) const;

 private:
  std::string path_;
  int fd_;
  int error_number_;
};

}  // namespace memacct
