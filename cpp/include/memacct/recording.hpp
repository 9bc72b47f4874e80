// What a recording's file says, whatever has become of its process or its machine. Pure.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "memacct/recording_format.hpp"

namespace memacct {

struct RecordedSlot {
  std::uint64_t number = 0;  // from 1, in the order in which they were written
  RingPayload payload{};
};

/// A ring's records that are whole. Those that are not are counted and left out.
struct RecordedRing {
  std::uint64_t capacity = 0;
  std::vector<RecordedSlot> records;    // by their numbers
  std::uint64_t overwritten_count = 0;  // written before the first of `records`
  std::uint64_t missing_count = 0;      // between the first and the last
  std::uint64_t torn_count = 0;         // begun, and not ended: of a killed writer at most the last
  /// As no writer leaves them: the machine was lost while they went to the disk, or the file was
  /// changed. In a file that is being written also those that were written while it was read.
  std::uint64_t damaged_count = 0;
};

struct Recording {
  std::uint32_t pid = 0;
  std::optional<std::uint64_t> start_ticks;    // with pid and boot_id, names the process for ever
  std::optional<std::uint64_t> pid_namespace;  // in which its pid is that
  std::string boot_id;                         // "" if unknown, as the texts below
  std::string host;
  std::string memacct_version;
  std::string command_line;  // zeros between the arguments; cut after 1024 bytes
  std::uint64_t started_ns = 0;
  std::uint64_t started_wall_ns = 0;
  std::optional<std::uint64_t> ended_ns;  // nullopt: it was not closed
  std::optional<std::uint64_t> ended_wall_ns;
  bool cut_off = false;  // the file is shorter than it was made
  std::array<RecordedRing, kRecordingRings> rings;
  [[nodiscard]] RecordedRing const& ring(RecordingRing which) const noexcept {
    return rings[static_cast<std::size_t>(which)];
  }
};

/// @param source: what errors name.
/// @throws SourceFormatError if the header is not whole, or not one of a recording that this
///   memacct can read. What is wrong behind it is no error: it is counted.
[[nodiscard]] Recording parse_recording(std::span<std::byte const> bytes, std::string_view source);

/// True if `bytes` begin as a recording does, whole or not, of whatever version.
[[nodiscard]] bool looks_like_recording(std::span<std::byte const> bytes) noexcept;

}  // namespace memacct
