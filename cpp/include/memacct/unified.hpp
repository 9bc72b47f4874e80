// Memory that a GPU shares with its host's kernel: what is free of it, and who has the rest.
// See "Unified memory" in DESIGN.md.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace memacct {

enum class UnifiedKind {
  kIntegrated,  // one memory for both (GB10, Jetson): the device's is the machine's
  kCoherent,    // memory of its own, which the kernel manages as a NUMA node (GH200, GB200)
};

/// Which of the sources told least, and so what is free.
enum class FreeSource { kCuda, kHostAvailable, kHostFree };

/// What each source says, side by side; none is derived from another. The host's are of one
/// reading of one file, which is not of the instant at which the driver's numbers held.
///
/// kIntegrated, of the whole machine:
///   total = free + withheld + page cache + host processes + own + tree + foreign + unattributed
/// kCoherent, of the device's node: page cache and host processes are part of `unattributed`.
struct UnifiedMemory {
  UnifiedKind kind{};
  std::optional<int> numa_node;                       // kCoherent: the device's memory
  std::optional<std::uint64_t> host_total_bytes;      // MemTotal
  std::optional<std::uint64_t> host_free_bytes;       // MemFree: what is physically free
  std::optional<std::uint64_t> host_available_bytes;  // MemAvailable
  std::optional<std::uint64_t> cuda_free_bytes;       // cuMemGetInfo, with a live context
  std::optional<std::uint64_t> cuda_total_bytes;
  std::optional<FreeSource> free_source;              // kIntegrated
  std::optional<std::uint64_t> withheld_bytes;        // MemFree that is not free to a GPU
  std::optional<std::uint64_t> page_cache_bytes;      // files', without shared memory: nobody's
  std::optional<std::uint64_t> host_processes_bytes;  // anonymous and shared memory of all
  bool operator==(UnifiedMemory const&) const = default;

  /// The least that any source says. All of them promise too much at some time: MemAvailable
  /// counts on page cache that the driver cannot take, cuMemGetInfo knows no watermarks.
  [[nodiscard]] std::optional<std::uint64_t> free_bytes() const noexcept;
  /// kIntegrated: what of the machine is neither free, page cache, nor host processes': what
  /// devices and the kernel itself hold.
  [[nodiscard]] std::optional<std::uint64_t> device_used_bytes() const noexcept;
};

/// The device's memory as /proc/meminfo and cuMemGetInfo have it. Pure.
/// @throws SourceFormatError if the text is not understood.
[[nodiscard]] UnifiedMemory parse_integrated(std::string_view meminfo,
                                             std::optional<std::uint64_t> cuda_free_bytes,
                                             std::optional<std::uint64_t> cuda_total_bytes);
/// The same, read. Without /proc/meminfo the host's fields are unknown.
/// @throws SourceReadError, SourceFormatError. Cost: one pread of a kept fd.
[[nodiscard]] UnifiedMemory read_integrated(std::optional<std::uint64_t> cuda_free_bytes,
                                            std::optional<std::uint64_t> cuda_total_bytes);

/// The node's part; the host's fields are unknown where this kernel shows no such node.
/// @throws SourceReadError, SourceFormatError. Cost: open, read, close; allocates.
/// Source: /sys/devices/system/node/node<N>/meminfo.
[[nodiscard]] UnifiedMemory read_coherent(int numa_node, std::string const& root = "");

}  // namespace memacct
