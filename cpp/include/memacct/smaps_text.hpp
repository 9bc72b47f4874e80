// The parser of /proc/<pid>/smaps. Pure: it is handed text, in pieces of any size.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "memacct/mapping_table.hpp"

namespace memacct {

/// Builds a table from smaps' lines. Rows are complete but for `kind`, held and reclaimable.
///
/// Strict: what is neither a mapping's first line nor "Key: value" is an error with that line; a
/// known key whose value is not understood too. A key that is not known is listed in
/// `unread_fields`. A column that any mapping lacks is unknown for all.
class SmapsParser {
 public:
  /// `source` names the file in errors.
  explicit SmapsParser(std::string source) : source_(std::move(source)) {
    table_.columns = ~Columns{0};  // until a mapping lacks one
  }

  /// Makes room for so many rows, and touches it: what is read next includes it already.
  void reserve(std::size_t rows);

  /// Takes the whole lines off the front of `text`.
  /// @returns how many bytes it took; the rest, a part of a line, is to be fed again with what
  ///   follows it.
  /// @throws SourceFormatError.
  [[nodiscard]] std::size_t feed(std::string_view text);

  /// The table, once all is fed. @throws SourceFormatError if the last mapping was cut short.
  [[nodiscard]] MappingTable finish(std::string_view rest);

 private:
  /// A line that is expected to come next: its first 16 bytes (key, colon, spaces), as two words.
  struct Expected {
    std::array<std::uint64_t, 2> head;
    Size size;
  };
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };

  char const* feed_sizes(char const* at, char const* end);
  void feed_line(std::string_view line);
  void begin_mapping(std::string_view line);
  void end_mapping();
  void add_row(Mapping const& row);
  void feed_field(std::string_view line);
  void feed_size(Size size, std::string_view value, std::string_view line);
  void feed_vm_flags(std::string_view value, std::string_view line);
  std::uint8_t small_number(std::string_view value, std::string_view line) const;
  std::int32_t intern(std::string_view name, bool& deleted);
  void unknown_field(std::string_view key);

  std::string source_;
  MappingTable table_;
  Mapping row_;  // the one whose lines are being fed
  Columns seen_ = 0;
  bool open_ = false;
  bool learning_ = true;            // until the first mapping ends
  std::vector<Expected> expected_;  // learned from the first mapping's lines
  std::size_t next_ = 0;            // in expected_
  // The last name and the last flags, as text: neighbours often share them.
  std::string last_name_;
  std::int32_t last_path_index_ = -1;
  bool last_deleted_ = false;
  std::string last_flags_;
  std::uint64_t last_flag_bits_ = 0;
  struct Known {
    std::int32_t index;
    bool deleted;
  };
  std::unordered_map<std::string, Known, Hash, std::equal_to<>> names_;  // by text
  std::unordered_map<std::string, std::int32_t> path_indices_;
};

/// Reads up to so many bytes into a buffer; 0 at the end of the file. Throws what it likes.
using ReadSome = std::function<std::size_t(char*, std::size_t)>;

/// Feeds all that `read` gives, in pieces of at most `chunk_bytes` (1 to 16 MiB). The buffer grows
/// only for a line that is longer.
/// @throws SourceFormatError, and what `read` throws.
[[nodiscard]] MappingTable parse_smaps(ReadSome const& read, SmapsParser parser,
                                       std::size_t chunk_bytes);

}  // namespace memacct
