// The file of a recording: a header, and rings of records. What is written where.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "memacct/ring.hpp"

namespace memacct {

// A file's places, in bytes:
//   0      RecordingHeader, written before the file has its name, and never again
//   2048   RecordingEnd, written when the recording ends; zeros until then
//   4096   the rings, each from the start of a page: a page with its RingHead at the end of it,
//          then its slots. So no slot lies in two pages.
// All numbers are those of the machine that wrote it, whose byte order the header tells.

inline constexpr std::array<char, 8> kRecordingMagic{'\x89', 'M', 'A', 'B', 'O', 'X', '\r', '\n'};
inline constexpr std::uint32_t kRecordingByteOrder = 0x01020304;
inline constexpr std::uint32_t kRecordingVersion = 1;
inline constexpr std::size_t kRecordingPageBytes = 4096;  // of the format, not of the machine
inline constexpr std::size_t kRecordingEndOffset = 2048;

/// The rings of a recording, by their place in the header.
enum class RecordingRing : std::uint8_t {
  kKept = 0,     // notes that are worth keeping: which device is which. Few: never overwritten
  kHost = 1,     // of this process
  kDevices = 2,  // of the devices and who uses them
};
inline constexpr std::size_t kRecordingRings = 3;

struct RingPlace {
  std::uint64_t offset;  // of the RingHead
  std::uint64_t capacity;
};

struct RecordingHeader {
  std::array<char, 8> magic;
  std::uint32_t byte_order;
  std::uint32_t version;
  std::uint64_t file_bytes;
  std::uint64_t salt;             // of all rings' checksums
  std::uint64_t started_ns;       // CLOCK_MONOTONIC, and at the same time
  std::uint64_t started_wall_ns;  // CLOCK_REALTIME
  std::uint64_t start_ticks;      // of the process, since boot; 0: unknown
  std::uint64_t pid_namespace;    // the inode of /proc/self/ns/pid; 0: unknown
  std::uint32_t pid;              // in that namespace
  std::uint32_t command_bytes;
  std::array<RingPlace, kRecordingRings> rings;
  std::array<char, 40> boot_id;  // texts end at their first zero
  std::array<char, 64> host;
  std::array<char, 24> memacct;         // its version
  std::array<char, 1024> command_line;  // as in /proc/self/cmdline: zeros between the arguments
  std::array<char, 768> reserved;
  std::uint64_t checksum;  // of all before it
};
static_assert(sizeof(RecordingHeader) == kRecordingEndOffset);
static_assert(std::is_trivially_copyable_v<RecordingHeader>);
static_assert(std::has_unique_object_representations_v<RecordingHeader>);

struct RecordingEnd {
  std::uint64_t ended_ns;       // CLOCK_MONOTONIC
  std::uint64_t ended_wall_ns;  // CLOCK_REALTIME
  std::uint64_t checksum;
};

/// The checksum of a struct whose last word is its place.
template <typename Struct>
[[nodiscard]] std::uint64_t struct_checksum(Struct const& value, std::uint64_t salt) noexcept {
  constexpr auto kWords = sizeof(Struct) / 8;
  std::array<std::uint64_t, kWords> words;
  std::memcpy(words.data(), &value, sizeof value);
  auto sum = ring_detail::mixed(salt, kWords);
  for (auto const word : std::span(words).first(kWords - 1)) sum = ring_detail::mixed(sum, word);
  return sum;
}

[[nodiscard]] constexpr std::uint64_t in_whole_pages(std::uint64_t bytes) noexcept {
  return (bytes + kRecordingPageBytes - 1) / kRecordingPageBytes * kRecordingPageBytes;
}

/// Where rings of these capacities lie. @returns the size of the file.
[[nodiscard]] constexpr std::uint64_t place_rings(
    std::array<std::uint64_t, kRecordingRings> const& capacities,
    std::array<RingPlace, kRecordingRings>& places) noexcept {
  std::uint64_t next = kRecordingPageBytes;
  for (std::size_t i = 0; i < kRecordingRings; ++i) {
    places[i] = {next + kRecordingPageBytes - sizeof(RingHead), capacities[i]};
    next += kRecordingPageBytes + in_whole_pages(capacities[i] * sizeof(RingSlot));
  }
  return next;
}

}  // namespace memacct
