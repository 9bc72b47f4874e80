#include "memacct/smaps_text.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "memacct/mapping_kind.hpp"
#include "memacct/text.hpp"
#include "memacct/units.hpp"

namespace memacct {
namespace {

// A size's line as the kernel writes it: "Rss:                 123 kB\n". The key and its colon
// are padded to 16 characters and the number to 8, right-aligned (seq_put_decimal_ull_width).
constexpr std::size_t kHeadBytes = 16;
constexpr std::size_t kLineBytes = 28;
constexpr std::size_t kLargestChunkBytes = 16 * kMiB;

std::uint64_t load(char const* at) noexcept {
  std::uint64_t word = 0;
  std::memcpy(&word, at, sizeof word);
  return word;
}

// "       0": the lowest byte is the first character.
constexpr std::uint64_t kZero = 0x3020202020202020U;

constexpr std::uint64_t repeated(std::uint64_t byte) noexcept { return byte * 0x0101010101010101U; }

/// The number in eight characters, right-aligned behind spaces, all at once; nullopt if they are
/// anything else. Little-endian: the first character is the lowest byte.
std::optional<std::uint64_t> parse_eight(std::uint64_t text) noexcept {
  // A space (0x20) differs from '0' (0x30) in one bit, which every digit has.
  auto const spaces = ~text & repeated(0x10);
  auto const digits = text | repeated(0x10);
  auto const no_digits = ((digits & repeated(0xF0)) ^ repeated(0x30)) |
                         (((digits + repeated(0x06)) & repeated(0xF0)) ^ repeated(0x30));
  // Spaces only in front of the number, and not all of it: a run of ones from the bottom.
  auto const run = (spaces >> 4U) * 0xFFU;
  auto const no_spaces = (text ^ repeated(0x20)) & run;
  if ((no_digits | no_spaces | (run & (run + 1)) | (run >> 63U)) != 0) return std::nullopt;
  // Pairs, then fours, then all eight: each step multiplies the upper part into place.
  auto value = digits & repeated(0x0F);
  value = (value * 10 + (value >> 8U)) & 0x00FF00FF00FF00FFU;
  value = (value * 100 + (value >> 16U)) & 0x0000FFFF0000FFFFU;
  return (value * 10000 + (value >> 32U)) & 0xFFFFFFFFU;
}

constexpr std::uint8_t kNoDigit = 0xFF;

/// By character: its value as a lower-case hexadecimal digit. Half of a header is such digits.
constexpr std::array<std::uint8_t, 256> kHexDigits = [] {
  std::array<std::uint8_t, 256> digits{};
  digits.fill(kNoDigit);
  for (std::uint8_t i = 0; i < 10; ++i) digits[std::size_t{'0'} + i] = i;
  for (std::uint8_t i = 0; i < 6; ++i)
    digits[std::size_t{'a'} + i] = static_cast<std::uint8_t>(10 + i);
  return digits;
}();

/// kNoDigit if it is none.
std::uint8_t hex_digit(char character) noexcept {
  return kHexDigits[static_cast<unsigned char>(character)];
}

/// Takes a hexadecimal number that ends in `separator` off `text`.
std::optional<std::uint64_t> take_hex(std::string_view& text, char separator) noexcept {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == separator && i > 0) {
      text.remove_prefix(i + 1);
      return value;
    }
    auto const digit = hex_digit(text[i]);
    if (digit == kNoDigit || i == 16) return std::nullopt;
    value = value << 4U | digit;
  }
  return std::nullopt;
}

/// "rwxp " off `text`.
std::optional<std::uint8_t> take_perms(std::string_view& text) noexcept {
  constexpr std::array<std::pair<char, std::uint8_t>, 3> kBits{
      {{'r', kRead}, {'w', kWrite}, {'x', kExecute}}};
  if (text.size() < 5 || text[4] != ' ') return std::nullopt;
  std::uint8_t perms = 0;
  for (std::size_t i = 0; i < kBits.size(); ++i) {
    if (text[i] == kBits[i].first) {
      perms |= kBits[i].second;
    } else if (text[i] != '-') {
      return std::nullopt;
    }
  }
  // Old kernels write 's' and 'p'; since VM_MAYSHARE all do.
  if (text[3] == 's') {
    perms |= kShared;
  } else if (text[3] != 'p') {
    return std::nullopt;
  }
  text.remove_prefix(5);
  return perms;
}

/// A mapping's first line, "start-end perms offset major:minor inode  name", into `row`; what is
/// left is its name.
std::optional<std::string_view> parse_header(std::string_view line, Mapping& row) noexcept {
  auto const start = take_hex(line, '-');
  auto const end = start ? take_hex(line, ' ') : std::nullopt;
  auto const perms = end ? take_perms(line) : std::nullopt;
  auto const offset = perms ? take_hex(line, ' ') : std::nullopt;
  auto const major = offset ? take_hex(line, ':') : std::nullopt;
  auto const minor = major ? take_hex(line, ' ') : std::nullopt;
  if (!minor || *major > UINT32_MAX || *minor > UINT32_MAX || *end < *start) return std::nullopt;
  auto const digits = line.substr(0, line.find(' '));
  auto const inode = parse_number(digits);
  if (!inode) return std::nullopt;
  row.start = *start;
  row.end = *end;
  row.perms = *perms;
  row.offset = *offset;
  row.dev_major = static_cast<std::uint32_t>(*major);
  row.dev_minor = static_cast<std::uint32_t>(*minor);
  row.inode = *inode;
  line.remove_prefix(digits.size());
  auto const name = line.find_first_not_of(' ');
  return name == std::string_view::npos ? std::string_view{} : line.substr(name);
}

/// Those that have a line; the derived ones are never set here.
constexpr Columns kReadSizes = column(Size::kHeld) - 1;
static_assert(static_cast<std::size_t>(Size::kHeld) + 2 == kSizeCount, "the derived are last");

std::optional<Size> size_of_key(std::string_view key) noexcept {
  for (std::size_t i = 0; i < kSizeCount; ++i) {
    if (!kSizes[i].key.empty() && kSizes[i].key == key) return static_cast<Size>(i);
  }
  return std::nullopt;
}

constexpr std::size_t kLetters = 26;

/// The bit of each pair of letters.
constexpr auto kFlagBits = [] {
  std::array<std::uint8_t, kLetters * kLetters> bits{};
  bits.fill(kOtherVmFlagBit);
  std::uint8_t bit = 0;
  for (auto const code : kVmFlagCodes) {
    bits[static_cast<std::size_t>(code[0] - 'a') * kLetters +
         static_cast<std::size_t>(code[1] - 'a')] = bit++;
  }
  return bits;
}();

unsigned flag_bit(char first, char second) noexcept {
  auto const high = static_cast<std::size_t>(static_cast<unsigned char>(first - 'a'));
  auto const low = static_cast<std::size_t>(static_cast<unsigned char>(second - 'a'));
  return high < kLetters && low < kLetters ? kFlagBits[high * kLetters + low] : kOtherVmFlagBit;
}

/// Without the blanks at both ends. By hand: find_first_not_of calls memchr for each character.
std::string_view trimmed(std::string_view text) noexcept {
  auto const is_blank = [](char character) { return character == ' ' || character == '\t'; };
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

}  // namespace

void SmapsParser::reserve(std::size_t rows) {
  constexpr std::size_t kSmallestPageBytes = 4096;
  table_.rows.reserve(rows);
  auto volatile* const bytes = reinterpret_cast<char volatile*>(table_.rows.data());
  for (std::size_t i = 0; i < rows * sizeof(Mapping); i += kSmallestPageBytes) bytes[i] = 0;
}

std::size_t SmapsParser::feed(std::string_view text) {
  auto const* at = text.data();
  auto const* const end = at + text.size();
  while (at != end) {
    at = feed_sizes(at, end);
    auto const* const newline =
        static_cast<char const*>(std::memchr(at, '\n', static_cast<std::size_t>(end - at)));
    if (newline == nullptr) break;
    feed_line({at, static_cast<std::size_t>(newline - at)});
    at = newline + 1;
  }
  return static_cast<std::size_t>(at - text.data());
}

/// Takes the lines that are what the first mapping's lines at this place were; most of a file.
/// Stops at any that differs, for feed_line to judge.
char const* SmapsParser::feed_sizes(char const* at, char const* end) {
  if (!open_) return at;
  // In locals: a store through a member could change any other, as the compiler sees it.
  auto seen = seen_;
  auto const* next = expected_.data() + next_;
  auto const* const last = expected_.data() + expected_.size();
  for (; next != last && end - at >= static_cast<std::ptrdiff_t>(kLineBytes);
       ++next, at += kLineBytes) {
    auto const head_differs = (load(at) ^ next->head[0]) | (load(at + 8) ^ next->head[1]);
    auto const digits = load(at + kHeadBytes);
    auto const bit = column(next->size);
    if (head_differs != 0 || (seen & bit) != 0) break;
    if (std::memcmp(at + kHeadBytes + 8, " kB\n", 4) != 0) break;
    // Most numbers are 0.
    auto const kib = digits == kZero ? std::optional<std::uint64_t>(0) : parse_eight(digits);
    if (!kib) break;
    seen |= bit;
    row_[next->size] = *kib * kKiB;
  }
  seen_ = seen;
  next_ = static_cast<std::size_t>(next - expected_.data());
  return at;
}

void SmapsParser::feed_line(std::string_view line) {
  if (line.empty()) throw_format(source_, "an empty line", line);
  // Fields begin with a capital letter, addresses with a digit or a small one.
  if (hex_digit(line.front()) != kNoDigit) {
    begin_mapping(line);
  } else {
    feed_field(line);
  }
}

void SmapsParser::begin_mapping(std::string_view line) {
  end_mapping();
  // Its sizes stay those of the last mapping until they are read, or forgotten in the end.
  row_.vm_flags = 0;
  row_.thp_eligible = 0;
  row_.protection_key = 0;
  auto const name = parse_header(line, row_);
  if (!name) throw_format(source_, "not a mapping's first line", line);
  bool deleted = false;
  row_.path_index = intern(*name, deleted);
  row_.deleted = deleted ? 1 : 0;
  seen_ = 0;
  next_ = 0;
  open_ = true;
}

void SmapsParser::end_mapping() {
  if (!open_) return;
  open_ = false;
  learning_ = false;
  if ((seen_ & column(Size::kRss)) == 0) throw_format(source_, "a mapping without Rss", last_name_);
  table_.columns &= seen_;
  for (auto missing = ~seen_ & kReadSizes; missing != 0; missing &= missing - 1) {
    row_.sizes[static_cast<std::size_t>(std::countr_zero(missing))] = 0;
  }
  add_row(row_);
}

void SmapsParser::add_row(Mapping const& row) {
  // Between two reads a mapping may have moved or been split: the later reading stands.
  while (!table_.rows.empty() && table_.rows.back().end > row.start) table_.rows.pop_back();
  table_.rows.push_back(row);
}

void SmapsParser::feed_field(std::string_view line) {
  auto const colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0) {
    throw_format(source_, "neither a mapping nor a field", line);
  }
  if (!open_) throw_format(source_, "a field before the first mapping", line);
  auto const key = line.substr(0, colon);
  auto const value = trimmed(line.substr(colon + 1));
  if (key == "VmFlags") {
    feed_vm_flags(value, line);
  } else if (key == "THPeligible") {
    row_.thp_eligible = small_number(value, line);
    seen_ |= kThpEligibleColumn;
  } else if (key == "ProtectionKey") {
    row_.protection_key = small_number(value, line);
    seen_ |= kProtectionKeyColumn;
  } else if (auto const size = size_of_key(key)) {
    feed_size(*size, value, line);
  } else {
    unknown_field(key);
  }
}

void SmapsParser::feed_size(Size size, std::string_view value, std::string_view line) {
  constexpr std::string_view kUnit = " kB";
  auto const bytes =
      value.ends_with(kUnit)
          ? scaled(parse_number(trimmed(value.substr(0, value.size() - kUnit.size()))), kKiB)
          : std::nullopt;
  if (!bytes) throw_format(source_, "not a size in kB", line);
  if ((seen_ & column(size)) != 0) throw_format(source_, "a second line of this name", line);
  row_[size] = *bytes;
  seen_ |= column(size);
  // The first mapping shows which lines to expect.
  if (learning_ && line.size() + 1 >= kLineBytes) {
    expected_.push_back({.head = {load(line.data()), load(line.data() + 8)}, .size = size});
    next_ = expected_.size();
  } else {
    auto const is_it = [size](Expected const& expected) { return expected.size == size; };
    auto const found = std::find_if(expected_.begin(), expected_.end(), is_it);
    if (found != expected_.end()) next_ = static_cast<std::size_t>(found - expected_.begin()) + 1;
  }
}

void SmapsParser::feed_vm_flags(std::string_view value, std::string_view line) {
  seen_ |= kVmFlagsColumn;
  if (value == last_flags_) {
    row_.vm_flags = last_flag_bits_;
    return;
  }
  std::uint64_t bits = 0;
  for (auto rest = value; !rest.empty();) {
    auto const code = rest.substr(0, rest.find(' '));
    if (code.size() != 2) throw_format(source_, "not codes of two letters", line);
    bits |= std::uint64_t{1} << flag_bit(code[0], code[1]);
    rest.remove_prefix(std::min(rest.size(), code.size() + 1));
  }
  last_flags_ = value;
  last_flag_bits_ = bits;
  row_.vm_flags = bits;
}

std::uint8_t SmapsParser::small_number(std::string_view value, std::string_view line) const {
  auto const number = parse_number(value);
  if (!number || *number > UINT8_MAX) throw_format(source_, "not a small number", line);
  return static_cast<std::uint8_t>(*number);
}

std::int32_t SmapsParser::intern(std::string_view name, bool& deleted) {
  if (name.empty()) return -1;
  if (name == last_name_) {
    deleted = last_deleted_;
    return last_path_index_;
  }
  auto known = names_.find(name);
  if (known == names_.end()) {
    auto parsed = parse_mapping_name(name);
    auto const next = static_cast<std::int32_t>(table_.paths.size());
    // A deleted file and a new one of the same name share the path.
    auto const [path, added] = path_indices_.try_emplace(parsed.path, next);
    if (added) table_.paths.push_back(std::move(parsed.path));
    known = names_.emplace(name, Known{.index = path->second, .deleted = parsed.deleted}).first;
  }
  last_name_ = name;
  last_path_index_ = known->second.index;
  last_deleted_ = known->second.deleted;
  deleted = last_deleted_;
  return last_path_index_;
}

void SmapsParser::unknown_field(std::string_view key) {
  auto& fields = table_.unread_fields;
  if (std::find(fields.begin(), fields.end(), key) == fields.end()) fields.emplace_back(key);
}

MappingTable SmapsParser::finish(std::string_view rest) {
  if (!rest.empty()) throw_format(source_, "the last line is cut off", rest);
  end_mapping();
  if (table_.rows.empty()) table_.columns = 0;
  return std::move(table_);
}

MappingTable parse_smaps(ReadSome const& read, SmapsParser parser, std::size_t chunk_bytes) {
  chunk_bytes = std::clamp<std::size_t>(chunk_bytes, 1, kLargestChunkBytes);
  std::string buffer(2 * chunk_bytes, '\0');
  std::size_t filled = 0;
  while (true) {
    if (buffer.size() - filled < chunk_bytes) buffer.resize(2 * buffer.size());
    auto const got = read(buffer.data() + filled, chunk_bytes);
    if (got == 0) break;
    filled += got;
    auto const taken = parser.feed({buffer.data(), filled});
    filled -= taken;
    std::memmove(buffer.data(), buffer.data() + taken, filled);
  }
  return parser.finish({buffer.data(), filled});
}

}  // namespace memacct
