// A caching allocator's own account of a device, as the host program reports it.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace memacct {

/// A part of an allocator's account: a size class ("small", "large") or a private pool (its id).
/// A private pool's bytes are in those of the size classes, too.
struct AllocatorPool {
  std::string name;
  std::uint64_t reserved_bytes{};
  std::optional<std::uint64_t> allocated_bytes;
  std::optional<std::uint64_t> active_bytes;
  std::optional<std::uint64_t> requested_bytes;
  std::optional<std::uint64_t> inactive_split_bytes;
  bool operator==(AllocatorPool const&) const = default;
};

/// requested <= allocated <= active <= reserved = active + cached.
struct AllocatorMemory {
  std::string uuid;
  std::uint64_t reserved_bytes{};   // claimed to be held from the driver
  std::uint64_t allocated_bytes{};  // of it, in blocks that the program holds
  std::optional<std::uint64_t> peak_reserved_bytes;
  std::optional<std::uint64_t> peak_allocated_bytes;
  std::optional<int> cuda_ordinal;
  std::optional<std::string> backend;            // "native", "cudaMallocAsync", "pluggable"
  std::optional<std::uint64_t> active_bytes;     // allocated, and freed but in use by a stream
  std::optional<std::uint64_t> requested_bytes;  // of allocated, before it was rounded up
  std::optional<std::uint64_t> cached_bytes;     // reserved and in no live block
  /// Of cached, the rest of segments that live blocks are in: not to be given back. Expandable
  /// segments are not in it.
  std::optional<std::uint64_t> inactive_split_bytes;
  std::optional<double> fragmentation_ratio;  // inactive_split / cached; nullopt: nothing cached
  /// Of reserved, what is known to have no memory behind it (an engine's sleeping pools).
  std::optional<std::uint64_t> unmapped_bytes;
  /// Of reserved, what certainly is device memory of this process: without what pools with
  /// allocators of their own claim. nullopt: all of it.
  std::optional<std::uint64_t> backed_bytes;
  std::optional<std::uint64_t> segments_count;      // pieces held from the driver
  std::optional<std::uint64_t> retries_count;       // times that the cache was flushed to go on
  std::optional<std::uint64_t> ooms_count;          // out-of-memory errors thrown
  std::optional<std::vector<AllocatorPool>> pools;  // nullopt: not told
  std::optional<std::vector<AllocatorPool>> private_pools;
  bool operator==(AllocatorMemory const&) const = default;
};

}  // namespace memacct
