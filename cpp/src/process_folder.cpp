#include "memacct/process_folder.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

namespace memacct {
namespace {

constexpr std::size_t kChunk = 8192;  // more than any of these files usually holds

}  // namespace

ProcessFolder::ProcessFolder(std::uint32_t pid)
    : path_("/proc/" + std::to_string(pid)),
      fd_(::open(path_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)),
      error_number_(fd_ < 0 ? errno : 0) {}

ProcessFolder::~ProcessFolder() {
  if (fd_ >= 0) ::close(fd_);
}

FileText ProcessFolder::read(std::string const& name, std::size_t limit) const {
  if (fd_ < 0) return {.text = {}, .error_number = error_number_};
  int const fd = ::openat(fd_, name.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {.text = {}, .error_number = errno};
  FileText result;
  std::size_t filled = 0;
  while (filled < limit) {
    if (filled == result.text.size()) result.text.resize(std::min(limit, filled + kChunk));
    auto const count = ::read(fd, result.text.data() + filled, result.text.size() - filled);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) result.error_number = errno;
    if (count <= 0) break;
    filled += static_cast<std::size_t>(count);
  }
  ::close(fd);
  result.text.resize(filled);
  return result;
}

}  // namespace memacct
