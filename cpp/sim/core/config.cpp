// The simulated GPU's settings, read from the environment, and its two log files.
#include "config.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace memacct::sim {
namespace {

// Opened for each line: the file may be shared with other processes and survive a fork.
void append(char const* path, char const* line, size_t size) {
  int const fd = std::strcmp(path, "stderr") == 0
                     ? ::dup(STDERR_FILENO)
                     : ::open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) return;
  [[maybe_unused]] ssize_t const written = ::write(fd, line, size);
  ::close(fd);
}

}  // namespace

std::optional<uint64_t> parse_bytes(std::string_view text) {
  std::string const copy{text};
  char* rest = nullptr;
  double const number = std::strtod(copy.c_str(), &rest);
  if (rest == copy.c_str() || number < 0 || copy[0] == '-') return std::nullopt;
  std::string_view const unit{rest};
  double scale = 0;
  if (unit.empty() || unit == "B") scale = 1;
  if (unit == "KiB") scale = 1024;
  if (unit == "MiB") scale = static_cast<double>(kMiB);
  if (unit == "GiB") scale = static_cast<double>(kGiB);
  if (scale == 0) return std::nullopt;
  // Whole numbers of bytes stay exact: a double would round those above 2^53.
  if (scale == 1) return std::strtoull(copy.c_str(), nullptr, 10);
  return static_cast<uint64_t>(number * scale);
}

uint64_t option_bytes(char const* name, uint64_t fallback) {
  char const* const text = std::getenv(name);
  if (text == nullptr || *text == '\0') return fallback;
  auto const bytes = parse_bytes(text);
  if (!bytes) fail("%s=\"%s\" is not a size such as 4096, 400MiB or 1.5GiB", name, text);
  return *bytes;
}

std::string option_text(char const* name, char const* fallback) {
  char const* const text = std::getenv(name);
  return text != nullptr && *text != '\0' ? text : fallback;
}

void fail(char const* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  std::fprintf(stderr, "memacct simulated GPU: %s\n", text);
  ::_exit(70);
}

void log(char const* format, ...) {
  static char const* const path = std::getenv("MEMACCT_SIM_LOG");
  if (path == nullptr || *path == '\0') return;
  char line[512];
  int size = std::snprintf(line, sizeof line, "[sim %d] ", ::getpid());
  va_list arguments;
  va_start(arguments, format);
  size +=
      std::vsnprintf(line + size, sizeof line - static_cast<size_t>(size) - 1, format, arguments);
  va_end(arguments);
  if (size > static_cast<int>(sizeof line) - 2) size = sizeof line - 2;
  line[size++] = '\n';
  append(path, line, static_cast<size_t>(size));
}

void trace(char const* what, int physical, uint64_t bytes, uint64_t device_used_bytes) {
  static char const* const path = std::getenv("MEMACCT_SIM_TRACE");
  if (path == nullptr || *path == '\0') return;
  char line[200];
  int const size = std::snprintf(
      line, sizeof line, "%llu pid=%d device=%d %s bytes=%llu used=%llu\n",
      static_cast<unsigned long long>(monotonic_ns()), ::getpid(), physical, what,
      static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(device_used_bytes));
  append(path, line, static_cast<size_t>(size));
}

uint64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000U + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace memacct::sim
