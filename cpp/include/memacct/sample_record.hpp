// What a sampler writes into a ring: four kinds of plain records, and their form as a slot's words.
// Pure. The form is that of files (recorder.hpp): numbers and places here do not change, a record
// that needs more gets a kind of its own.
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <variant>

#include "memacct/ring.hpp"

namespace memacct {

/// The first byte of every record. 0 is none: a slot of zeros is no record.
enum class RecordKind : std::uint8_t { kHost = 1, kDevice = 2, kProcess = 3, kNote = 4 };

/// This process's counters. Unknown is nullopt. Without breakdown the terms after shared are.
struct HostRecord {
  std::uint64_t taken_ns = 0;  // CLOCK_MONOTONIC
  std::uint64_t span_ns = 0;
  std::uint32_t pid = 0;
  std::uint64_t vms_bytes = 0;
  std::uint64_t rss_bytes = 0;
  std::optional<std::uint64_t> shared_bytes;
  std::optional<std::uint64_t> rss_anon_bytes;
  std::optional<std::uint64_t> rss_file_bytes;
  std::optional<std::uint64_t> rss_shmem_bytes;
  std::optional<std::uint64_t> swap_bytes;
  std::optional<std::uint64_t> hugetlb_bytes;
  std::optional<std::uint64_t> locked_bytes;
  std::optional<std::uint64_t> pinned_bytes;
  std::optional<std::uint64_t> peak_rss_bytes;
  bool operator==(HostRecord const&) const = default;
};

/// One reading of one device. `device` is its number in the recording, from 0: notes of the kind
/// kDevice tell whose it is.
struct DeviceRecord {
  std::uint64_t taken_ns = 0;
  std::uint64_t span_ns = 0;
  std::uint16_t device = 0;
  std::uint8_t attempts_count = 0;  // 255: that many or more
  std::uint8_t attribution = 0;     // AttributionSource's number, identity.hpp
  bool consistent = false;
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;
  std::optional<std::uint64_t> device_used_bytes;
  std::optional<std::uint64_t> reserved_bytes;
  std::optional<std::uint64_t> own_bytes;
  std::optional<std::uint64_t> tree_bytes;
  std::optional<std::uint64_t> foreign_bytes;
  std::optional<std::int64_t> unattributed_bytes;
  std::optional<std::uint64_t> own_low_bytes;
  std::optional<std::uint64_t> own_high_bytes;
  bool operator==(DeviceRecord const&) const = default;
};

/// identity.hpp's Owner, by the same numbers.
enum class RecordOwner : std::uint8_t { kOwn = 0, kTree = 1, kForeign = 2, kUnknown = 3 };

/// A short text inside a record: the bytes that fit, cut at the end of a UTF-8 character.
template <std::size_t Bytes>
class RecordText {
 public:
  RecordText() = default;
  // Implicit, as string's: a text is put where it belongs.
  RecordText(std::string_view text) noexcept {
    if (text.size() > Bytes) {
      auto end = Bytes;
      while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;
      text = text.substr(0, end);
    }
    std::copy(text.begin(), text.end(), bytes_.begin());
    size_ = static_cast<std::uint8_t>(text.size());
  }
  RecordText(char const* text) noexcept : RecordText(std::string_view(text)) {}
  [[nodiscard]] std::string_view view() const noexcept { return {bytes_.data(), size_}; }
  bool operator==(RecordText const& other) const noexcept { return view() == other.view(); }

 private:
  static_assert(Bytes < 256);
  std::array<char, Bytes> bytes_{};
  std::uint8_t size_ = 0;
};

/// One process in a device's list. Those of a reading have its taken_ns and follow it.
struct ProcessRecord {
  std::uint64_t taken_ns = 0;
  std::uint16_t device = 0;
  std::uint32_t pid = 0;  // as the driver numbers it
  RecordOwner owner = RecordOwner::kUnknown;
  std::optional<std::uint64_t> process_used_bytes;
  std::optional<std::uint64_t> start_ticks;  // with the pid, it names a process until a reboot
  RecordText<15> name;                       // as in /proc/<pid>/comm; empty if unknown
  bool operator==(ProcessRecord const&) const = default;
};

enum class NoteKind : std::uint8_t {
  kText = 0,
  kDevice = 1,      // `number` is the device whose uuid is `text`
  kDeviceName = 2,  // and whose name
  kError = 3,       // `text` says what could not be read; `value` its code
  kCheckpoint = 4,  // `text` is its name
  kGap = 5,         // `value` samples were not taken before this one
};

/// Something that is no sample.
struct NoteRecord {
  std::uint64_t taken_ns = 0;
  NoteKind kind = NoteKind::kText;
  std::uint16_t number = 0;
  std::uint64_t value = 0;
  RecordText<88> text;
  bool operator==(NoteRecord const&) const = default;
};

[[nodiscard]] RingPayload pack(HostRecord const& record) noexcept;
[[nodiscard]] RingPayload pack(DeviceRecord const& record) noexcept;
[[nodiscard]] RingPayload pack(ProcessRecord const& record) noexcept;
[[nodiscard]] RingPayload pack(NoteRecord const& record) noexcept;

using SampleRecord = std::variant<HostRecord, DeviceRecord, ProcessRecord, NoteRecord>;

/// The record in `payload`; nullopt if it is of a kind that this memacct does not know. Any words
/// give one or the other.
[[nodiscard]] std::optional<SampleRecord> unpack(RingPayload const& payload) noexcept;

/// When a record of any kind was taken.
[[nodiscard]] std::uint64_t taken_ns(RingPayload const& payload) noexcept;

}  // namespace memacct
