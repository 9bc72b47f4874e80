#include "memacct/page_regions.hpp"

#include <algorithm>

namespace memacct {

std::size_t add_resident(std::span<Mapping> rows, std::size_t first,
                         std::span<PageRegion const> regions) noexcept {
  for (auto const& region : regions) {
    while (first < rows.size() && rows[first].end <= region.start) ++first;
    for (auto i = first; i < rows.size() && rows[i].start < region.end; ++i) {
      rows[i][Size::kRss] +=
          std::min(region.end, rows[i].end) - std::max(region.start, rows[i].start);
    }
  }
  return first;
}

}  // namespace memacct
