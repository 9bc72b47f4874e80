// Mappings summed up by what they are, and by the file that they map. Pure.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "memacct/mapping_table.hpp"

namespace memacct {

/// The name of a kind, as Python and JSON see it.
[[nodiscard]] char const* kind_name(MappingKind kind) noexcept;
/// nullopt if there is no such kind.
[[nodiscard]] std::optional<MappingKind> kind_of(std::string_view name) noexcept;

struct MappingTotals {
  std::string name;  // a kind's, or a file's path, with " (deleted)" where that holds
  std::uint64_t mappings_count{};
  std::array<std::optional<std::uint64_t>, kSizeCount> sizes{};  // nullopt: unknown column
  bool operator==(MappingTotals const&) const = default;
};

/// One entry for each kind that there is, by rss, largest first. They sum up to the whole.
[[nodiscard]] std::vector<MappingTotals> total_by_kind(MappingTable const& table);

/// One entry for each file (also of shared memory and devices: whatever has a path), by rss,
/// largest first. A deleted file and another one under its name are two.
[[nodiscard]] std::vector<MappingTotals> total_by_file(MappingTable const& table);

/// The `n` rows with the most of `size`, as indices, largest first; the lower address first of
/// equals.
[[nodiscard]] std::vector<std::size_t> top_rows(MappingTable const& table, Size size,
                                                std::size_t n);

}  // namespace memacct
