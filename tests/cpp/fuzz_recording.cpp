// Fuzzing the reader of recordings: any file gives records or a SourceFormatError.
//
// An input is a patch: its first byte says what is mended, so that the parser's inside is reached
// (bit 0: the magic, 1: the header's checksum, 2: the slots' checksums), the rest is the file.
// Checked: only SourceFormatError escapes; records are in order and pass their checksum; the counts
// add up; every record can be unpacked or is of no known kind.
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "fuzz_check.hpp"
#include "memacct/error.hpp"
#include "memacct/recording.hpp"
#include "memacct/sample_record.hpp"

namespace {

using namespace memacct;

/// The input, with zeros up to the end of the first page and a few slots behind it.
std::vector<std::byte> file_of(std::uint8_t const* data, std::size_t size, bool whole) {
  auto const given = std::as_bytes(std::span(data, size));
  std::vector<std::byte> bytes(given.begin(), given.end());
  if (whole && size < 2 * kRecordingPageBytes) bytes.resize(2 * kRecordingPageBytes);
  return bytes;
}

void mend_header(std::vector<std::byte>& bytes) {
  RecordingHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  header.magic = kRecordingMagic;
  header.byte_order = kRecordingByteOrder;
  header.version = kRecordingVersion;
  // Places near the input's own bytes, so that their slots are among them.
  for (auto& ring : header.rings) {
    ring.offset = ring.offset % (2 * kRecordingPageBytes) / 64 * 64;
    ring.capacity = std::uint64_t{1} << (ring.capacity % 6);
  }
  header.checksum = struct_checksum(header, 0);
  std::memcpy(bytes.data(), &header, sizeof header);
}

void mend_slots(std::vector<std::byte>& bytes) {
  RecordingHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  for (std::size_t at = kRecordingPageBytes; at + sizeof(RingSlot) <= bytes.size();
       at += sizeof(RingSlot)) {
    RingSlot slot;
    std::memcpy(&slot, bytes.data() + at, sizeof slot);
    slot.checksum = ring_checksum(header.salt, slot.stamp / 2, slot.payload);
    std::memcpy(bytes.data() + at, &slot, sizeof slot);
  }
}

void check_ring(RecordedRing const& ring) {
  std::uint64_t last = 0;
  for (auto const& [number, payload] : ring.records) {
    CHECK(number > last);
    last = number;
    auto const record = unpack(payload);
    auto const kind = payload[0] & 0xFF;
    CHECK(record.has_value() == (kind >= 1 && kind <= 4));
  }
  CHECK(ring.records.size() + ring.torn_count + ring.damaged_count <= ring.capacity);
  if (ring.records.empty()) return;
  CHECK(ring.overwritten_count + ring.missing_count + ring.records.size() == last);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size == 0) return 0;
  auto const choice = data[0];
  auto bytes = file_of(data + 1, size - 1, (choice & 1U) != 0);
  if ((choice & 1U) != 0) std::memcpy(bytes.data(), kRecordingMagic.data(), 8);
  if ((choice & 2U) != 0 && bytes.size() >= kRecordingPageBytes) mend_header(bytes);
  if ((choice & 4U) != 0 && bytes.size() >= kRecordingPageBytes) mend_slots(bytes);
  try {
    auto const found = parse_recording(bytes, "recording");
    CHECK(looks_like_recording(bytes));
    for (auto const& ring : found.rings) check_ring(ring);
  } catch (SourceFormatError const& error) {
    CHECK(error.source() == "recording" && !error.reason().empty());
  }
  return 0;
}
