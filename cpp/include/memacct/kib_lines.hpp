// Lines of the form "Key:   123 kB", of which several of the kernel's files are made. Inline,
// since a snapshot reads a hundred of them.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "memacct/text.hpp"
#include "memacct/units.hpp"

namespace memacct {

/// "  123 kB", as it stands after a key and its colon, in bytes.
inline std::uint64_t parse_kib(std::string_view value, std::string_view source,
                               std::string_view line) {
  constexpr std::string_view kUnit = " kB";
  auto const start = value.find_first_not_of(" \t");
  if (start == std::string_view::npos || !value.ends_with(kUnit)) {
    throw_format(source, "not a size in kB", line);
  }
  value = value.substr(start, value.size() - start - kUnit.size());
  auto const bytes = scaled(parse_number(value), kKiB);
  if (!bytes) throw_format(source, "not a size in kB", line);
  return *bytes;
}

/// One line that we read: its key, and whether a text without it is not this file.
struct KibLine {
  std::string_view key;
  bool required = false;
};

/// A bit per letter. Most lines of a file are told from ours by their first one.
inline std::uint64_t letter_bit(char letter) {
  return std::uint64_t{1} << (static_cast<unsigned>(letter) & 63U);
}

inline bool has_key(std::string_view line, std::string_view key) {
  return line.size() > key.size() && line[key.size()] == ':' && line.starts_with(key);
}

/// The values of `lines` in `text`, in their order; lines with other keys are passed over.
/// Each line of `text` starts with `prefix`, which stands before the key. Looks no further
/// once it has them all, and leaves what follows in `text`. Fast if `lines` are in the kernel's
/// order: each line is first compared with the one after the last that was found.
template <std::size_t N>
std::array<std::optional<std::uint64_t>, N> read_kib_lines(std::string_view& text,
                                                           std::string_view source,
                                                           std::array<KibLine, N> const& lines,
                                                           std::string_view prefix = "") {
  std::array<std::optional<std::uint64_t>, N> values;
  std::uint64_t first_letters = 0;
  for (auto const& line : lines) first_letters |= letter_bit(line.key.front());
  std::size_t next = 0;
  for (std::size_t found = 0; found < N && !text.empty();) {
    auto line = take_line(text, source);
    if (!line.starts_with(prefix)) throw_format(source, "another prefix", line);
    line.remove_prefix(prefix.size());
    if (line.empty() || (letter_bit(line.front()) & first_letters) == 0) continue;
    for (std::size_t tried = 0; tried < N; ++tried) {
      auto const i = next + tried < N ? next + tried : next + tried - N;
      if (!has_key(line, lines[i].key)) continue;
      if (values[i]) throw_format(source, "a second line of this name", line);
      values[i] = parse_kib(line.substr(lines[i].key.size() + 1), source, line);
      next = i + 1 < N ? i + 1 : 0;
      ++found;
      break;
    }
  }
  for (std::size_t i = 0; i < N; ++i) {
    if (lines[i].required && !values[i]) throw_format(source, "a line is missing", lines[i].key);
  }
  return values;
}

}  // namespace memacct
