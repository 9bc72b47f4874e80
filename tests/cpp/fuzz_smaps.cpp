// Fuzzing the parser of smaps and what follows it: kinds, and what is held.
//
// The first byte of an input chooses the size of the pieces, the rest is the text. Checked of
// every text: only SourceFormatError escapes; pieces of any size give the table that the whole
// gives; the table says what a second, plain parser reads; its laws hold. `make fuzz` makes up
// texts, test_fuzz_corpus.py replays those that were kept.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fuzz_check.hpp"
#include "memacct/error.hpp"
#include "memacct/mapping_kind.hpp"
#include "memacct/smaps_text.hpp"

namespace {

using memacct::Mapping;
using memacct::MappingKind;
using memacct::MappingTable;
using memacct::Size;

/// The table, or the error's three parts.
struct Outcome {
  std::optional<MappingTable> table;
  std::array<std::string, 3> error;
  bool operator==(Outcome const&) const = default;
};

Outcome parse(std::string_view text, std::size_t chunk_bytes) {
  auto const read = [&text](char* buffer, std::size_t size) {
    auto const count = std::min(size, text.size());
    std::memcpy(buffer, text.data(), count);
    text.remove_prefix(count);
    return count;
  };
  try {
    return {.table = memacct::parse_smaps(read, memacct::SmapsParser("smaps"), chunk_bytes),
            .error = {}};
  } catch (memacct::SourceFormatError const& error) {
    return {.table = std::nullopt, .error = {error.source(), error.reason(), error.line()}};
  }
}

/// One mapping as the plain parser reads it: its addresses and its sizes.
struct PlainMapping {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  memacct::Columns has = 0;
  std::array<std::uint64_t, memacct::kSizeCount> bytes{};
};

/// The number at the front of `text`, which is taken off; anything else is no digit.
std::uint64_t plain_number(std::string_view& text, unsigned base) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::uint64_t value = 0;
  while (!text.empty() && kDigits.substr(0, base).find(text[0]) != std::string_view::npos) {
    value = value * base + kDigits.find(text[0]);
    text.remove_prefix(1);
  }
  return value;
}

void plain_field(std::string_view line, PlainMapping& mapping) {
  auto const key = line.substr(0, line.find(':'));
  for (std::size_t i = 0; i < memacct::kSizeCount; ++i) {
    if (memacct::kSizes[i].key.empty() || memacct::kSizes[i].key != key) continue;
    auto const bit = memacct::column(static_cast<Size>(i));
    CHECK((mapping.has & bit) == 0);
    mapping.has |= bit;
    line.remove_prefix(line.find_first_of("0123456789", key.size()));
    mapping.bytes[i] = plain_number(line, 10) * 1024;
    auto const unit = line.find_first_not_of(" \t");
    CHECK(unit != 0 && unit != std::string_view::npos && line.substr(unit).starts_with("kB"));
  }
}

/// Reads text that the parser has accepted, line by line and without any short cut.
std::vector<PlainMapping> plain_parse(std::string_view text) {
  std::vector<PlainMapping> mappings;
  while (!text.empty()) {
    auto const newline = text.find('\n');
    CHECK(newline != std::string_view::npos);
    auto line = text.substr(0, newline);
    text.remove_prefix(newline + 1);
    if (line.find_first_of("0123456789abcdef") == 0) {
      auto& mapping = mappings.emplace_back();
      mapping.start = plain_number(line, 16);
      CHECK(line.starts_with("-"));
      line.remove_prefix(1);
      mapping.end = plain_number(line, 16);
    } else {
      CHECK(!mappings.empty());
      plain_field(line, mappings.back());
    }
  }
  return mappings;
}

void check_against_plain(MappingTable const& table, std::string_view text) {
  auto const all = plain_parse(text);
  auto columns = all.empty() ? 0 : ~memacct::Columns{};
  std::vector<PlainMapping> kept;
  for (auto const& mapping : all) {
    columns &= mapping.has;
    // A later one replaces those that it overlaps.
    while (!kept.empty() && kept.back().end > mapping.start) kept.pop_back();
    kept.push_back(mapping);
  }
  constexpr auto kOthers =
      memacct::kVmFlagsColumn | memacct::kThpEligibleColumn | memacct::kProtectionKeyColumn;
  CHECK((table.columns & ~kOthers) == columns);
  CHECK(table.rows.size() == kept.size());
  for (std::size_t row = 0; row < kept.size(); ++row) {
    CHECK(table.rows[row].start == kept[row].start && table.rows[row].end == kept[row].end);
    for (std::size_t i = 0; i < memacct::kSizeCount; ++i) {
      if ((columns >> i & 1U) != 0) CHECK(table.rows[row].sizes[i] == kept[row].bytes[i]);
    }
  }
}

/// What holds of a table whatever the text was.
void check_laws(MappingTable const& table) {
  std::vector<char> named(table.paths.size(), 0);
  std::uint64_t last_end = 0;
  for (auto const& row : table.rows) {
    CHECK(row.start <= row.end && row.start >= last_end);
    last_end = row.end;
    CHECK(row.path_index >= -1 && row.path_index < static_cast<std::int64_t>(table.paths.size()));
    CHECK(static_cast<std::size_t>(row.kind) < memacct::kMappingKindCount);
    CHECK(row.perms < 16 && row.deleted <= 1);
    if (row.path_index >= 0) named[static_cast<std::size_t>(row.path_index)] = 1;
  }
  auto paths = table.paths;
  std::sort(paths.begin(), paths.end());
  CHECK(std::adjacent_find(paths.begin(), paths.end()) == paths.end());
  auto fields = table.unread_fields;
  std::sort(fields.begin(), fields.end());
  CHECK(std::adjacent_find(fields.begin(), fields.end()) == fields.end());
}

void check_held(MappingTable const& table) {
  auto const needed = table.has(Size::kRss) && table.has(Size::kSharedDirty) &&
                      table.has(Size::kPrivateDirty) && table.has(Size::kAnonymous);
  CHECK(table.has(Size::kHeld) == needed && table.has(Size::kReclaimable) == needed);
  if (!needed) return;
  for (auto const& row : table.rows) {
    std::uint64_t hugetlb = 0;
    for (auto const size : {Size::kSharedHugetlb, Size::kPrivateHugetlb}) {
      if (table.has(size)) hugetlb += row[size];
    }
    CHECK(row[Size::kRss] == row[Size::kHeld] - hugetlb + row[Size::kReclaimable]);
    CHECK(row[Size::kReclaimable] <= row[Size::kRss]);
  }
}

/// A device of the table's own, so that classify() finds what it looks up.
memacct::MountedTypes some_mounts(MappingTable const& table, unsigned char choice) {
  constexpr std::array<char const*, 4> kTypes{"tmpfs", "hugetlbfs", "ext4", "overlay"};
  memacct::MountedTypes mounted;
  if (!memacct::needs_mounted_types(table)) return mounted;
  for (auto const& row : table.rows) {
    mounted.emplace(std::pair(row.dev_major, row.dev_minor), kTypes[choice % kTypes.size()]);
  }
  return mounted;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size == 0) return 0;
  auto const choice = data[0];
  std::string_view const text(reinterpret_cast<char const*>(data) + 1, size - 1);
  auto whole = parse(text, size);
  CHECK(whole == parse(text, std::size_t{choice} + 1));
  if (!whole.table) {
    CHECK(whole.error[0] == "smaps" && !whole.error[1].empty());
    return 0;
  }
  auto& table = *whole.table;
  check_against_plain(table, text);
  memacct::classify(table, some_mounts(table, choice));
  memacct::split_held(table);
  check_laws(table);
  check_held(table);
  return 0;
}
