#include "memacct/text.hpp"

#include <charconv>
#include <limits>
#include <string>
#include <system_error>

#include "memacct/error.hpp"

namespace memacct {

void throw_format(std::string_view source, char const* reason, std::string_view line) {
  throw SourceFormatError(std::string(source), reason, std::string(line.substr(0, 256)));
}

std::optional<std::uint64_t> parse_number(std::string_view digits) noexcept {
  std::uint64_t value = 0;
  auto const* const end = digits.data() + digits.size();
  auto const [rest, error] = std::from_chars(digits.data(), end, value);
  if (error != std::errc{} || rest != end) return std::nullopt;
  return value;
}

std::optional<std::uint64_t> scaled(std::optional<std::uint64_t> value,
                                    std::uint64_t unit) noexcept {
  if (!value) return std::nullopt;
  if (unit != 0 && *value > std::numeric_limits<std::uint64_t>::max() / unit) return std::nullopt;
  return *value * unit;
}

std::string_view take_line(std::string_view& text, std::string_view source) {
  auto const end = text.find('\n');
  if (end == std::string_view::npos) throw_format(source, "the last line is cut off", text);
  auto const line = text.substr(0, end);
  text.remove_prefix(end + 1);
  return line;
}

}  // namespace memacct
