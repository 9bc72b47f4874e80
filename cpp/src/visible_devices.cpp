#include "memacct/visible_devices.hpp"

#include <algorithm>
#include <optional>

namespace memacct {
namespace {

constexpr std::string_view kSpace = " \t\n\v\f\r";  // what strtoul passes over
constexpr std::string_view kDigits = "0123456789";

// Digits and not a value: two numbers that are too large for one are still told apart.
std::optional<std::string> parse_number(std::string_view token) {
  token.remove_prefix(std::min(token.find_first_not_of(kSpace), token.size()));
  bool const negative = token.starts_with('-');
  if (negative || token.starts_with('+')) token.remove_prefix(1);
  auto digits = token.substr(0, token.find_first_not_of(kDigits));
  if (digits.empty()) return std::nullopt;
  digits.remove_prefix(std::min(digits.find_first_not_of('0'), digits.size() - 1));
  if (negative && digits != "0") return std::nullopt;
  return std::string(digits);
}

std::optional<std::string> parse_token(std::string_view token, VisibleKind kind) {
  if (kind == VisibleKind::kNumbers) return parse_number(token);
  if (!token.starts_with(kind == VisibleKind::kGpus ? "GPU-" : "MIG-")) return std::nullopt;
  return std::string(token);
}

std::optional<std::size_t> by_number(std::string const& digits, std::size_t count) {
  constexpr std::size_t kMostDigits = 9;
  if (digits.size() > kMostDigits) return std::nullopt;
  std::size_t const number = std::stoul(digits);
  return number < count ? std::optional(number) : std::nullopt;
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

template <typename Item>
bool contains(std::vector<Item> const& items, Item const& item) {
  return std::find(items.begin(), items.end(), item) != items.end();
}

}  // namespace

VisibleTokens parse_visible(std::string_view value) {
  VisibleTokens visible;
  if (value.starts_with("GPU-")) visible.kind = VisibleKind::kGpus;
  if (value.starts_with("MIG-")) visible.kind = VisibleKind::kInstances;
  while (true) {
    auto const comma = value.find(',');
    auto token = parse_token(value.substr(0, comma), visible.kind);
    if (!token) return visible;
    if (contains(visible.tokens, *token)) return {.kind = visible.kind, .tokens = {}};
    visible.tokens.push_back(std::move(*token));
    if (comma == std::string_view::npos) return visible;
    value.remove_prefix(comma + 1);
  }
}

std::vector<std::size_t> match_visible(VisibleTokens const& visible,
                                       std::vector<std::string_view> const& uuids) {
  std::vector<std::size_t> found;
  for (auto const& token : visible.tokens) {
    auto const index = visible.kind == VisibleKind::kNumbers ? by_number(token, uuids.size())
                                                             : by_beginning(token, uuids);
    if (!index) break;
    if (contains(found, *index)) return {};
    found.push_back(*index);
  }
  return found;
}

}  // namespace memacct
