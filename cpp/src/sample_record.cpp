#include "memacct/sample_record.hpp"

#include <cstring>
#include <type_traits>

namespace memacct {
namespace {

// Word 0 is the kind (8 bits), two bytes and 16 bits of the record's own, and 24 bits that are
// the flags; word 1 is taken_ns. The rest are the record's quantities, in order.
constexpr unsigned kFirstShift = 8;
constexpr unsigned kSecondShift = 16;
constexpr unsigned kNumberShift = 24;
constexpr unsigned kFlagsShift = 40;
constexpr std::size_t kTaken = 1;
constexpr std::size_t kFirstWord = 2;

class Packer {
 public:
  Packer(RecordKind kind, std::uint64_t taken_ns) noexcept {
    words_[0] = static_cast<std::uint8_t>(kind);
    words_[kTaken] = taken_ns;
  }
  Packer& first(std::uint8_t value) noexcept { return head(value, kFirstShift); }
  Packer& second(std::uint8_t value) noexcept { return head(value, kSecondShift); }
  Packer& number(std::uint16_t value) noexcept { return head(value, kNumberShift); }
  Packer& flag(bool value) noexcept { return head(value ? 1 : 0, kFlagsShift + flags_++); }
  Packer& word(std::uint64_t value) noexcept {
    words_[next_++] = value;
    return *this;
  }
  template <typename T>
  Packer& maybe(std::optional<T> const& value) noexcept {
    return flag(value.has_value()).word(static_cast<std::uint64_t>(value.value_or(0)));
  }
  /// The size stands in `second`.
  template <std::size_t Bytes>
  Packer& text(RecordText<Bytes> const& value) noexcept {
    constexpr auto kWords = (Bytes + 7) / 8;
    static_assert(kFirstWord + kWords <= kRingPayloadWords);
    auto const view = value.view();
    if (!view.empty()) std::memcpy(&words_[next_], view.data(), view.size());
    next_ += kWords;
    return second(static_cast<std::uint8_t>(view.size()));
  }
  [[nodiscard]] RingPayload const& words() const noexcept { return words_; }

 private:
  Packer& head(std::uint64_t value, unsigned shift) noexcept {
    words_[0] |= value << shift;
    return *this;
  }

  RingPayload words_{};
  std::size_t next_ = kFirstWord;
  unsigned flags_ = 0;
};

/// Takes off what a Packer has put in, in the same order.
class Unpacker {
 public:
  explicit Unpacker(RingPayload const& words) noexcept : words_(words) {}
  [[nodiscard]] std::uint64_t taken_ns() const noexcept { return words_[kTaken]; }
  [[nodiscard]] std::uint8_t first() const noexcept {
    return static_cast<std::uint8_t>(words_[0] >> kFirstShift);
  }
  [[nodiscard]] std::uint8_t second() const noexcept {
    return static_cast<std::uint8_t>(words_[0] >> kSecondShift);
  }
  [[nodiscard]] std::uint16_t number() const noexcept {
    return static_cast<std::uint16_t>(words_[0] >> kNumberShift);
  }
  [[nodiscard]] bool flag() noexcept { return (words_[0] >> (kFlagsShift + flags_++) & 1U) != 0; }
  [[nodiscard]] std::uint64_t word() noexcept { return words_[next_++]; }
  template <typename T>
  void maybe(std::optional<T>& value) noexcept {
    auto const known = flag();
    auto const number = static_cast<T>(word());
    value = known ? std::optional(number) : std::nullopt;
  }
  template <std::size_t Bytes>
  [[nodiscard]] RecordText<Bytes> text() noexcept {
    std::array<char, Bytes> bytes;
    std::memcpy(bytes.data(), &words_[next_], Bytes);
    next_ += (Bytes + 7) / 8;
    return std::string_view(bytes.data(), std::min<std::size_t>(second(), Bytes));
  }

 private:
  RingPayload const& words_;
  std::size_t next_ = kFirstWord;
  unsigned flags_ = 0;
};

template <typename Enum>
Enum known_or(std::uint8_t value, Enum last, Enum otherwise) noexcept {
  return value <= static_cast<std::uint8_t>(last) ? static_cast<Enum>(value) : otherwise;
}

HostRecord unpack_host(Unpacker words) noexcept {
  HostRecord record;
  record.taken_ns = words.taken_ns();
  auto const pid_and_span = words.word();
  record.pid = static_cast<std::uint32_t>(pid_and_span);
  record.span_ns = pid_and_span >> 32U;
  record.vms_bytes = words.word();
  record.rss_bytes = words.word();
  words.maybe(record.shared_bytes);
  words.maybe(record.rss_anon_bytes);
  words.maybe(record.rss_file_bytes);
  words.maybe(record.rss_shmem_bytes);
  words.maybe(record.swap_bytes);
  words.maybe(record.hugetlb_bytes);
  words.maybe(record.locked_bytes);
  words.maybe(record.pinned_bytes);
  words.maybe(record.peak_rss_bytes);
  return record;
}

DeviceRecord unpack_device(Unpacker words) noexcept {
  DeviceRecord record;
  record.taken_ns = words.taken_ns();
  record.attempts_count = words.first();
  record.attribution = words.second();
  record.device = words.number();
  record.consistent = words.flag();
  record.span_ns = words.word();
  record.total_bytes = words.word();
  record.free_bytes = words.word();
  words.maybe(record.device_used_bytes);
  words.maybe(record.reserved_bytes);
  words.maybe(record.own_bytes);
  words.maybe(record.tree_bytes);
  words.maybe(record.foreign_bytes);
  words.maybe(record.unattributed_bytes);
  words.maybe(record.own_low_bytes);
  words.maybe(record.own_high_bytes);
  return record;
}

ProcessRecord unpack_process(Unpacker words) noexcept {
  ProcessRecord record;
  record.taken_ns = words.taken_ns();
  record.owner = known_or(words.first(), RecordOwner::kUnknown, RecordOwner::kUnknown);
  record.device = words.number();
  record.pid = static_cast<std::uint32_t>(words.word());
  words.maybe(record.process_used_bytes);
  words.maybe(record.start_ticks);
  record.name = words.text<15>();
  return record;
}

NoteRecord unpack_note(Unpacker words) noexcept {
  NoteRecord record;
  record.taken_ns = words.taken_ns();
  record.kind = known_or(words.first(), NoteKind::kGap, NoteKind::kText);
  record.number = words.number();
  record.value = words.word();
  record.text = words.text<88>();
  return record;
}

}  // namespace

RingPayload pack(HostRecord const& record) noexcept {
  // Half a word for the span: 4 seconds and more count as 4.29.
  auto const span = std::min<std::uint64_t>(record.span_ns, ~std::uint32_t{0});
  return Packer(RecordKind::kHost, record.taken_ns)
      .word(record.pid | span << 32U)
      .word(record.vms_bytes)
      .word(record.rss_bytes)
      .maybe(record.shared_bytes)
      .maybe(record.rss_anon_bytes)
      .maybe(record.rss_file_bytes)
      .maybe(record.rss_shmem_bytes)
      .maybe(record.swap_bytes)
      .maybe(record.hugetlb_bytes)
      .maybe(record.locked_bytes)
      .maybe(record.pinned_bytes)
      .maybe(record.peak_rss_bytes)
      .words();
}

RingPayload pack(DeviceRecord const& record) noexcept {
  return Packer(RecordKind::kDevice, record.taken_ns)
      .first(record.attempts_count)
      .second(record.attribution)
      .number(record.device)
      .flag(record.consistent)
      .word(record.span_ns)
      .word(record.total_bytes)
      .word(record.free_bytes)
      .maybe(record.device_used_bytes)
      .maybe(record.reserved_bytes)
      .maybe(record.own_bytes)
      .maybe(record.tree_bytes)
      .maybe(record.foreign_bytes)
      .maybe(record.unattributed_bytes)
      .maybe(record.own_low_bytes)
      .maybe(record.own_high_bytes)
      .words();
}

RingPayload pack(ProcessRecord const& record) noexcept {
  return Packer(RecordKind::kProcess, record.taken_ns)
      .first(static_cast<std::uint8_t>(record.owner))
      .number(record.device)
      .word(record.pid)
      .maybe(record.process_used_bytes)
      .maybe(record.start_ticks)
      .text(record.name)
      .words();
}

RingPayload pack(NoteRecord const& record) noexcept {
  return Packer(RecordKind::kNote, record.taken_ns)
      .first(static_cast<std::uint8_t>(record.kind))
      .number(record.number)
      .word(record.value)
      .text(record.text)
      .words();
}

std::optional<SampleRecord> unpack(RingPayload const& payload) noexcept {
  switch (static_cast<RecordKind>(payload[0] & 0xFFU)) {
    case RecordKind::kHost:
      return unpack_host(Unpacker(payload));
    case RecordKind::kDevice:
      return unpack_device(Unpacker(payload));
    case RecordKind::kProcess:
      return unpack_process(Unpacker(payload));
    case RecordKind::kNote:
      return unpack_note(Unpacker(payload));
  }
  return std::nullopt;
}

std::uint64_t taken_ns(RingPayload const& payload) noexcept { return payload[kTaken]; }

}  // namespace memacct
