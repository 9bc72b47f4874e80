// The steps that every parser of kernel text is made of. Inline: a snapshot takes a hundred.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "memacct/error.hpp"

namespace memacct {

/// @throws SourceFormatError always; an endless `line` is cut.
[[noreturn]] inline void throw_format(std::string_view source, char const* reason,
                                      std::string_view line) {
  throw SourceFormatError(std::string(source), reason, std::string(line.substr(0, 256)));
}

/// The number that `digits` is; nullopt if it is anything else (a sign, a space, nothing) or
/// does not fit.
[[nodiscard]] inline std::optional<std::uint64_t> parse_number(std::string_view digits) noexcept {
  // By hand, since std::from_chars stops without an error at what is no digit.
  if (digits.empty()) return std::nullopt;
  std::uint64_t value = 0;
  for (auto const character : digits) {
    auto const digit = static_cast<unsigned char>(character - '0');
    if (digit > 9 || __builtin_mul_overflow(value, std::uint64_t{10}, &value) ||
        __builtin_add_overflow(value, std::uint64_t{digit}, &value)) {
      return std::nullopt;
    }
  }
  return value;
}

/// `value * unit`; nullopt if there is no value or the product does not fit.
[[nodiscard]] inline std::optional<std::uint64_t> scaled(std::optional<std::uint64_t> value,
                                                         std::uint64_t unit) noexcept {
  std::uint64_t product = 0;
  if (!value || __builtin_mul_overflow(*value, unit, &product)) return std::nullopt;
  return product;
}

/// Takes the next line, without its newline, off `text`.
/// @throws SourceFormatError if the last line was cut off.
[[nodiscard]] inline std::string_view take_line(std::string_view& text, std::string_view source) {
  auto const end = text.find('\n');
  if (end == std::string_view::npos) throw_format(source, "the last line is cut off", text);
  auto const line = text.substr(0, end);
  text.remove_prefix(end + 1);
  return line;
}

}  // namespace memacct
