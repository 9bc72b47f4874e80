// NVML's lists of the processes on a device: compute, graphics and MPS, as one.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "memacct/nvml_api.hpp"

namespace memacct::nvml {

/// The lists in which a process stands, as a set of bits.
enum ListKind : unsigned { kCompute = 1, kGraphics = 2, kMps = 4 };

struct ProcessRecord {
  std::uint32_t pid = 0;  // as the driver numbers it
  /// Unknown where the driver says "not available". A 0 stays a 0 here: what it means is
  /// for the attribution to judge.
  std::optional<std::uint64_t> process_used_bytes;
  unsigned kinds = 0;
  /// The MIG instance where it runs; unknown where there is none.
  std::optional<std::uint32_t> gpu_instance_id;
  std::optional<std::uint32_t> compute_instance_id;
  bool operator==(ProcessRecord const&) const = default;
};

struct ProcessList {
  std::vector<ProcessRecord> records;  // by pid, each pid once
  /// Every list that this device has was read: nobody who should be listed is missing.
  bool complete = false;
  std::string reason;  // why it is not complete

  [[nodiscard]] ProcessRecord const* find(std::uint32_t pid) const noexcept;
  /// The same processes with the same bytes; the wording of a reason does not matter.
  [[nodiscard]] bool agrees_with(ProcessList const& other) const noexcept {
    return complete == other.complete && records == other.records;
  }
};

/// Whether `buffer` is as it was before the call from `begin` on. Pure.
[[nodiscard]] bool unwritten_from(std::span<std::byte const> buffer, std::size_t begin);

/// Sorts by pid and leaves one record for each, with the largest of its numbers: a process in
/// two lists holds the same memory, told twice. On two MIG instances it holds both: the sum,
/// and no instance. Pure.
void merge_by_pid(std::vector<ProcessRecord>& records);

/// What a record must satisfy, as far as it is known.
struct RecordLimits {
  std::optional<std::uint64_t> total_bytes;
  std::optional<bool> mig_enabled;  // off: the instance ids are all ones; on: they are small
};

/// The byte that the buffer holds before a call: bytes that differ afterwards were written.
inline constexpr std::byte kUnwritten{0xAA};

/// The size of the records that the driver wrote: 16, 24 or 32. The symbol's name does not
/// tell it (see process_list.hpp's functions in nvml_api.hpp), so it is derived from how far
/// the driver wrote: `count` records of s bytes end in (s * count - 8, s * count]. Those
/// ranges are disjoint for the three sizes. Where the extent fits none (a driver that clears
/// or skips bytes), a size is taken if it alone makes every record plausible; of one record,
/// whose numbers lie at the same place in all sizes, any that does. Pure.
/// @returns nullopt if no size, or more than one, explains what was written.
[[nodiscard]] std::optional<std::size_t> probe_stride(std::span<std::byte const> buffer,
                                                      std::size_t count,
                                                      RecordLimits const& limits);

/// A call that makes all others pointless for now: NVML or the device is gone.
struct CallError {
  char const* name;  // our name of the function
  int code;
};

/// Reads the lists by way of a buffer that is kept, and filled with kUnwritten but for what the
/// last call wrote. Not safe from several threads.
class ProcessListReader {
 public:
  ProcessListReader();

  /// @throws CallError for codes that concern more than this call (see Severity).
  /// The same into `list`, whose room is kept: a usual read allocates nothing.
  void read(Api const& api, Device device, RecordLimits const& limits, ProcessList& list);

  /// Symbol -> the record size found in its last non-empty answer.
  [[nodiscard]] std::map<std::string, std::size_t> strides(Api const& api) const;

 private:
  using Function = int(Device, unsigned*, void*);
  struct Answer {
    int code = 0;
    std::size_t count = 0;
    bool understood = true;
  };
  void read_kind(Api const& api, Device device, char const* name, Function* function, ListKind kind,
                 RecordLimits const& limits, ProcessList& list);
  [[nodiscard]] Answer call(Device device, Function* function);
  [[nodiscard]] std::size_t stride_of(std::size_t count, ListKind kind, RecordLimits const& limits);
  void append(std::size_t count, std::size_t stride, ListKind kind, ProcessList& list) const;

  std::vector<std::byte> buffer_;
  std::size_t dirty_bytes_ = 0;           // all that may not be kUnwritten is before it
  std::array<std::size_t, 3> strides_{};  // of the compute, graphics and MPS list; 0: not found yet
};

}  // namespace memacct::nvml
