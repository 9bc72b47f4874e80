#include "memacct/recording.hpp"

#include <algorithm>
#include <bit>

#include "memacct/error.hpp"

namespace memacct {
namespace {

[[noreturn]] void refuse(std::string_view source, char const* reason) {
  throw SourceFormatError(std::string(source), reason, "");
}

template <typename T>
T load(std::span<std::byte const> bytes, std::uint64_t offset) noexcept {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

template <std::size_t Bytes>
std::string text_of(std::array<char, Bytes> const& text) {
  return {text.begin(), std::find(text.begin(), text.end(), '\0')};
}

RecordingHeader checked_header(std::span<std::byte const> bytes, std::string_view source) {
  if (!looks_like_recording(bytes)) refuse(source, "not a recording of memacct");
  if (bytes.size() < kRecordingPageBytes) refuse(source, "the header is cut off");
  auto const header = load<RecordingHeader>(bytes, 0);
  if (header.byte_order != kRecordingByteOrder) {
    refuse(source, "recorded on a machine of the other byte order, or damaged");
  }
  if (header.checksum != struct_checksum(header, 0)) {
    refuse(source, header.version > kRecordingVersion ? "recorded by a later memacct, or damaged"
                                                      : "the header is damaged");
  }
  if (header.version != kRecordingVersion) refuse(source, "recorded by a later memacct");
  if (header.command_bytes > header.command_line.size()) refuse(source, "a wrong command line");
  return header;
}

bool is_zero(RingSlot const& slot) noexcept {
  return slot.stamp == 0 && slot.checksum == 0 &&
         std::all_of(slot.payload.begin(), slot.payload.end(), [](auto word) { return word == 0; });
}

void take_slot(RingSlot const& slot, std::uint64_t index, std::uint64_t salt, RecordedRing& ring) {
  if (is_zero(slot)) return;
  auto const number = slot.stamp / 2 + slot.stamp % 2;
  // Overflows for a stamp of all ones: such a number is 0 or does not belong here.
  bool const placed = number != 0 && ((number - 1) & (ring.capacity - 1)) == index;
  if (placed && slot.stamp % 2 == 1) {
    ++ring.torn_count;
  } else if (placed && slot.checksum == ring_checksum(salt, number, slot.payload)) {
    ring.records.push_back({number, slot.payload});
  } else {
    ++ring.damaged_count;
  }
}

RecordedRing read_ring(std::span<std::byte const> bytes, RingPlace place, std::uint64_t salt,
                       std::string_view source) {
  // The checksum says that the writer has put these numbers there: others are a writer's fault.
  if (!std::has_single_bit(place.capacity) || place.offset % alignof(RingSlot) != 0) {
    refuse(source, "a ring of a wrong size or place");
  }
  RecordedRing ring{.capacity = place.capacity};
  auto const slots_offset = place.offset + sizeof(RingHead);
  if (slots_offset < place.offset || slots_offset > bytes.size()) return ring;
  auto const slots_count =
      std::min<std::uint64_t>(place.capacity, (bytes.size() - slots_offset) / sizeof(RingSlot));
  for (std::uint64_t i = 0; i < slots_count; ++i) {
    take_slot(load<RingSlot>(bytes, slots_offset + i * sizeof(RingSlot)), i, salt, ring);
  }
  std::ranges::sort(ring.records, {}, &RecordedSlot::number);
  if (!ring.records.empty()) {
    auto const first = ring.records.front().number;
    ring.overwritten_count = first - 1;
    ring.missing_count = ring.records.back().number - first + 1 - ring.records.size();
  }
  return ring;
}

}  // namespace

bool looks_like_recording(std::span<std::byte const> bytes) noexcept {
  return bytes.size() >= kRecordingMagic.size() &&
         std::memcmp(bytes.data(), kRecordingMagic.data(), kRecordingMagic.size()) == 0;
}

Recording parse_recording(std::span<std::byte const> bytes, std::string_view source) {
  auto const header = checked_header(bytes, source);
  Recording recording;
  recording.pid = header.pid;
  if (header.start_ticks != 0) recording.start_ticks = header.start_ticks;
  if (header.pid_namespace != 0) recording.pid_namespace = header.pid_namespace;
  recording.boot_id = text_of(header.boot_id);
  recording.host = text_of(header.host);
  recording.memacct_version = text_of(header.memacct);
  recording.command_line.assign(header.command_line.data(), header.command_bytes);
  recording.started_ns = header.started_ns;
  recording.started_wall_ns = header.started_wall_ns;
  recording.cut_off = bytes.size() < header.file_bytes;
  auto const end = load<RecordingEnd>(bytes, kRecordingEndOffset);
  if (end.checksum == struct_checksum(end, header.salt)) {
    recording.ended_ns = end.ended_ns;
    recording.ended_wall_ns = end.ended_wall_ns;
  }
  for (std::size_t i = 0; i < kRecordingRings; ++i) {
    recording.rings[i] = read_ring(bytes, header.rings[i], header.salt, source);
  }
  return recording;
}

}  // namespace memacct
