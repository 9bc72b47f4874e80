// Which mapping a present page belongs to. Pure.
#pragma once
#include <cstddef>
#include <span>

#include "memacct/mapping_table.hpp"
#include "memacct/procmap_query.hpp"

namespace memacct {

/// Adds the bytes of each region to the rss of the rows that it lies in. A region may reach over
/// several rows; what lies in none is left out.
/// @param rows by address; no two overlap.
/// @param first no region begins below this row.
/// @param regions by address; no two overlap.
/// @returns `first` for regions that follow these: a list may be joined in pieces.
[[nodiscard]] std::size_t add_resident(std::span<Mapping> rows, std::size_t first,
                                       std::span<PageRegion const> regions) noexcept;

}  // namespace memacct
