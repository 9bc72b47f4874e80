// The errors of the core. bind_errors.cpp translates each into the class of the same name
// in memacct/_errors.py.
#pragma once
#include <stdexcept>
#include <string>
#include <utility>

namespace memacct {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A file or a library did not give what was asked of it. `source` names it.
class SourceError : public Error {
 public:
  SourceError(std::string source, std::string reason)
      : Error(source + ": " + reason), source_(std::move(source)), reason_(std::move(reason)) {}
  [[nodiscard]] std::string const& source() const noexcept { return source_; }
  [[nodiscard]] std::string const& reason() const noexcept { return reason_; }

 private:
  std::string source_;
  std::string reason_;
};

/// Not on this machine: no driver, an old kernel, no permission. The only error that a
/// caller may turn into "unknown".
class SourceUnavailableError : public SourceError {
 public:
  using SourceError::SourceError;
};

/// It is there, but reading it failed.
class SourceReadError : public SourceError {
 public:
  SourceReadError(std::string source, std::string reason, int error_number)
      : SourceError(std::move(source), std::move(reason)), errno_(error_number) {}
  [[nodiscard]] int error_number() const noexcept { return errno_; }

 private:
  int errno_;
};

/// It was read, but not understood. `line` holds what was not.
class SourceFormatError : public SourceError {
 public:
  SourceFormatError(std::string source, std::string reason, std::string line)
      : SourceError(std::move(source), std::move(reason)), line_(std::move(line)) {}
  [[nodiscard]] std::string const& line() const noexcept { return line_; }

 private:
  std::string line_;
};

/// A CUDA or NVML function returned an error. `api` names the function.
class DriverError : public Error {
 public:
  DriverError(std::string api, int code, std::string text)
      : Error(api + " returned " + std::to_string(code) + (text.empty() ? "" : " (" + text + ")")),
        api_(std::move(api)),
        code_(code),
        text_(std::move(text)) {}
  [[nodiscard]] std::string const& api() const noexcept { return api_; }
  [[nodiscard]] int code() const noexcept { return code_; }
  /// The driver's own name of the code; may be empty.
  [[nodiscard]] std::string const& text() const noexcept { return text_; }

 private:
  std::string api_;
  int code_;
  std::string text_;
};

}  // namespace memacct
