// The steps that every parser of kernel text is made of.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

namespace memacct {

/// @throws SourceFormatError always; an endless `line` is cut.
[[noreturn]] void throw_format(std::string_view source, char const* reason, std::string_view line);

/// The number that `digits` is; nullopt if it is anything else (a sign, a space, nothing) or
/// does not fit.
[[nodiscard]] std::optional<std::uint64_t> parse_number(std::string_view digits) noexcept;

/// `value * unit`; nullopt if there is no value or the product does not fit.
[[nodiscard]] std::optional<std::uint64_t> scaled(std::optional<std::uint64_t> value,
                                                  std::uint64_t unit) noexcept;

/// Takes the next line, without its newline, off `text`.
/// @throws SourceFormatError if the last line was cut off.
[[nodiscard]] std::string_view take_line(std::string_view& text, std::string_view source);

}  // namespace memacct
