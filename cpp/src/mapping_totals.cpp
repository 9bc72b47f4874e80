#include "memacct/mapping_totals.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>
#include <utility>

namespace memacct {
namespace {

constexpr std::array<char const*, kMappingKindCount> kKindNames{
    {"heap", "stack", "anon", "named_anon", "file", "library", "shmem", "dev_shm", "hugetlb",
     "device", "special"}};

void add(MappingTotals& totals, MappingTable const& table, Mapping const& row) {
  ++totals.mappings_count;
  for (std::size_t i = 0; i < kSizeCount; ++i) {
    if (!table.has(static_cast<Size>(i))) continue;
    totals.sizes[i] = totals.sizes[i].value_or(0) + row.sizes[i];
  }
}

std::vector<MappingTotals> sorted(std::vector<MappingTotals> totals) {
  auto const order = [](MappingTotals const& totals) {
    auto const rss = totals.sizes[static_cast<std::size_t>(Size::kRss)].value_or(0);
    auto const vms = totals.sizes[static_cast<std::size_t>(Size::kVms)].value_or(0);
    return std::tuple(rss, vms);
  };
  std::stable_sort(totals.begin(), totals.end(),
                   [&](auto const& a, auto const& b) { return order(a) > order(b); });
  return totals;
}

/// Names in brackets are the kernel's or the program's for memory without a file.
bool is_file(MappingTable const& table, Mapping const& row) noexcept {
  return row.path_index >= 0 &&
         !table.paths[static_cast<std::size_t>(row.path_index)].starts_with('[');
}

}  // namespace

char const* kind_name(MappingKind kind) noexcept {
  return kKindNames[static_cast<std::size_t>(kind)];
}

std::optional<MappingKind> kind_of(std::string_view name) noexcept {
  for (std::size_t i = 0; i < kKindNames.size(); ++i) {
    if (name == kKindNames[i]) return static_cast<MappingKind>(i);
  }
  return std::nullopt;
}

std::vector<MappingTotals> total_by_kind(MappingTable const& table) {
  std::array<MappingTotals, kMappingKindCount> kinds;
  for (auto const& row : table.rows) add(kinds[static_cast<std::size_t>(row.kind)], table, row);
  std::vector<MappingTotals> totals;
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    if (kinds[i].mappings_count == 0) continue;
    kinds[i].name = kKindNames[i];
    totals.push_back(std::move(kinds[i]));
  }
  return sorted(std::move(totals));
}

std::vector<MappingTotals> total_by_file(MappingTable const& table) {
  std::map<std::pair<std::int32_t, bool>, std::size_t> places;
  std::vector<MappingTotals> totals;
  for (auto const& row : table.rows) {
    if (!is_file(table, row)) continue;
    auto const deleted = row.deleted != 0;
    auto const [place, added] = places.try_emplace({row.path_index, deleted}, totals.size());
    if (added) {
      totals.push_back({.name = table.paths[static_cast<std::size_t>(row.path_index)] +
                                (deleted ? " (deleted)" : "")});
    }
    add(totals[place->second], table, row);
  }
  return sorted(std::move(totals));
}

std::vector<std::size_t> top_rows(MappingTable const& table, Size size, std::size_t n) {
  std::vector<std::size_t> indices(table.rows.size());
  std::iota(indices.begin(), indices.end(), std::size_t{0});
  auto const count = std::min(n, indices.size());
  auto const larger = [&](std::size_t a, std::size_t b) {
    auto const left = table.rows[a][size];
    auto const right = table.rows[b][size];
    return left != right ? left > right : a < b;
  };
  std::partial_sort(indices.begin(), indices.begin() + static_cast<std::ptrdiff_t>(count),
                    indices.end(), larger);
  indices.resize(count);
  return indices;
}

}  // namespace memacct
