// CUDA_VISIBLE_DEVICES: which devices a process would see, before its driver says so. Pure.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace memacct {

enum class VisibleKind { kNumbers, kGpus, kInstances };

/// What the variable names, before it is looked up.
struct VisibleTokens {
  VisibleKind kind = VisibleKind::kNumbers;
  std::vector<std::string> tokens;  // numbers as plain digits
};

/// The rules, as torch follows them: the first token decides the kind ("GPU-", "MIG-", else
/// numbers); numbers are read like strtoul ("1gpu2" is 1); the first token that is none of its kind
/// (negative, empty, another kind) ends the list; one that is there twice empties it.
[[nodiscard]] VisibleTokens parse_visible(std::string_view value);

/// The devices that are named, as indices into `uuids`: a number is a place in CUDA's order, a
/// UUID any beginning that only one has. The first token that names no device ends the list; a
/// device that is named twice empties it.
[[nodiscard]] std::vector<std::size_t> match_visible(VisibleTokens const& visible,
                                                     std::vector<std::string_view> const& uuids);

}  // namespace memacct
