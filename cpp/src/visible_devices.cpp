#include "memacct/visible_devices.hpp"

#include <algorithm>
#include <charconv>

namespace memacct {
namespace {

bool is_uuid(std::string_view token) {
  return token.starts_with("GPU-") || token.starts_with("MIG-");
}

std::optional<std::size_t> by_number(std::string_view token, std::size_t count) {
  if (token.starts_with('+')) token.remove_prefix(1);
  std::size_t number = 0;
  auto const [end, error] = std::from_chars(token.data(), token.data() + token.size(), number);
  if (error != std::errc{} || end == token.data() || number >= count) return std::nullopt;
  return number;
}

std::optional<std::size_t> by_beginning(std::string_view token,
                                        std::vector<std::string_view> const& uuids) {
  std::optional<std::size_t> only;
  for (std::size_t i = 0; i < uuids.size(); ++i) {
    if (!uuids[i].starts_with(token)) continue;
    if (only) return std::nullopt;
    only = i;
  }
  return only;
}

std::string_view trimmed(std::string_view text) {
  auto const start = text.find_first_not_of(" \t");
  if (start == std::string_view::npos) return {};
  return text.substr(start, text.find_last_not_of(" \t") - start + 1);
}

}  // namespace

std::vector<std::size_t> visible_devices(std::string_view value,
                                         std::vector<std::string_view> const& uuids) {
  std::vector<std::size_t> visible;
  bool const uuid_kind = is_uuid(trimmed(value));
  while (true) {
    auto const comma = value.find(',');
    auto const token = trimmed(value.substr(0, comma));
    std::optional<std::size_t> index;
    if (uuid_kind) {
      if (is_uuid(token)) index = by_beginning(token, uuids);
    } else {
      index = by_number(token, uuids.size());
    }
    if (!index) return visible;
    if (std::find(visible.begin(), visible.end(), *index) != visible.end()) return {};
    visible.push_back(*index);
    if (comma == std::string_view::npos) return visible;
    value.remove_prefix(comma + 1);
  }
}

std::optional<std::string> mig_name(std::string_view value, std::int64_t ordinal) {
  for (std::int64_t i = 0; ordinal >= 0; ++i) {
    auto const comma = value.find(',');
    auto const token = trimmed(value.substr(0, comma));
    if (!is_uuid(token)) return std::nullopt;  // the first wrong token ends the list
    if (i == ordinal) {
      return token.starts_with("MIG-") ? std::optional(std::string(token)) : std::nullopt;
    }
    if (comma == std::string_view::npos) return std::nullopt;
    value.remove_prefix(comma + 1);
  }
  return std::nullopt;
}

}  // namespace memacct
