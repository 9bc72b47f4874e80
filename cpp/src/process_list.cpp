#include "memacct/process_list.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <tuple>

namespace memacct::nvml {
namespace {

constexpr std::size_t kFirstCapacity = 64;
constexpr std::size_t kLargestCapacity = 1 << 16;  // the kernel module lists 950 at most
constexpr int kGrowthAttempts = 6;
// How far behind the records it is looked whether more was written. A driver that clears what it
// was given does so here, too; a buffer that once held a thousand records is not searched to its
// end.
constexpr std::size_t kSearchedBytes = 2048;
constexpr std::uint32_t kLargestPid = 4194304;     // PID_MAX_LIMIT
constexpr std::uint32_t kLargestInstanceId = 255;  // today's largest is 14
constexpr std::array<std::size_t, 3> kStrides{24, 16, 32};

template <typename T>
T load(std::span<std::byte const> buffer, std::size_t offset) {
  T value;
  std::memcpy(&value, buffer.data() + offset, sizeof value);
  return value;
}

bool pids_plausible(std::span<std::byte const> buffer, std::size_t count, std::size_t stride) {
  if (count * stride > buffer.size()) return false;
  for (std::size_t i = 0; i < count; ++i) {
    auto const pid = load<std::uint32_t>(buffer, i * stride + kRecordPidOffset);
    if (pid == 0 || pid > kLargestPid) return false;
  }
  return true;
}

bool all_plausible(std::span<std::byte const> buffer, std::size_t count, std::size_t stride,
                   RecordLimits const& limits) {
  if (!pids_plausible(buffer, count, stride)) return false;
  for (std::size_t i = 0; i < count; ++i) {
    auto const record = buffer.subspan(i * stride, stride);
    auto const bytes = load<std::uint64_t>(record, kRecordUsedOffset);
    if (bytes != kNotAvailable && limits.total_bytes && bytes > *limits.total_bytes) return false;
    if (stride < 24 || !limits.mig_enabled) continue;
    for (auto const offset : {kRecordGpuInstanceOffset, kRecordComputeInstanceOffset}) {
      auto const id = load<std::uint32_t>(record, offset);
      if (id != kNotAvailable32 && !(*limits.mig_enabled && id <= kLargestInstanceId)) return false;
    }
  }
  return true;
}

std::size_t written_bytes(std::span<std::byte const> buffer) {
  auto const last =
      std::find_if(buffer.rbegin(), buffer.rend(), [](std::byte b) { return b != kUnwritten; });
  return static_cast<std::size_t>(buffer.rend() - last);
}

void add_reason(ProcessList& list, std::string const& reason) {
  list.complete = false;
  list.reason += (list.reason.empty() ? "" : "; ") + reason;
}

// Of the first instance: it may be told by a record without ids too. Of a further one: the sum, if
// both numbers are known.
void join(ProcessRecord& one, ProcessRecord const& other, std::size_t instances_count) {
  auto const& a = one.process_used_bytes;
  auto const& b = other.process_used_bytes;
  bool const first = instances_count == 0;
  one.process_used_bytes = first ? std::max(a, b) : a && b ? std::optional(*a + *b) : std::nullopt;
  one.gpu_instance_id = first ? other.gpu_instance_id : std::nullopt;
  one.compute_instance_id = first ? other.compute_instance_id : std::nullopt;
  one.kinds |= other.kinds;
}

// One record for each pid, of records that are sorted by pid and instance, each instance once.
void join_instances(std::vector<ProcessRecord>& records) {
  std::size_t kept = 0;
  std::size_t instances_count = 0;
  for (std::size_t i = 0; i < records.size(); ++i) {
    if (kept == 0 || records[kept - 1].pid != records[i].pid) {
      records[kept++] = records[i];
      instances_count = records[i].gpu_instance_id ? 1 : 0;
    } else {
      join(records[kept - 1], records[i], instances_count++);
    }
  }
  records.resize(kept);
}

// All ones, and all ids of a record that is too short to have them: no instance.
std::optional<std::uint32_t> instance_id(std::span<std::byte const> record, std::size_t offset) {
  if (offset + sizeof(std::uint32_t) > record.size()) return std::nullopt;
  auto const id = load<std::uint32_t>(record, offset);
  return id == kNotAvailable32 ? std::nullopt : std::optional(id);
}

}  // namespace

// One comparison of the buffer with itself, shifted by a byte: memcmp runs at the memory's speed.
bool unwritten_from(std::span<std::byte const> buffer, std::size_t begin) {
  if (begin >= buffer.size()) return true;
  auto const* const first = buffer.data() + begin;
  return *first == kUnwritten && std::memcmp(first, first + 1, buffer.size() - begin - 1) == 0;
}

void merge_by_pid(std::vector<ProcessRecord>& records) {
  // The usual list: each process once, in order.
  auto const not_before = [](ProcessRecord const& a, ProcessRecord const& b) {
    return a.pid >= b.pid;
  };
  if (std::adjacent_find(records.begin(), records.end(), not_before) == records.end()) return;
  auto const key = [](ProcessRecord const& record) {
    return std::tie(record.pid, record.gpu_instance_id, record.compute_instance_id);
  };
  auto const before = [&](ProcessRecord const& a, ProcessRecord const& b) {
    return key(a) < key(b);
  };
  if (!std::is_sorted(records.begin(), records.end(), before)) {
    std::sort(records.begin(), records.end(), before);
  }
  std::size_t kept = 0;
  for (auto const& record : records) {  // told twice
    if (kept == 0 || key(records[kept - 1]) != key(record)) {
      records[kept++] = record;
      continue;
    }
    auto& one = records[kept - 1];
    one.process_used_bytes = std::max(one.process_used_bytes, record.process_used_bytes);
    one.kinds |= record.kinds;
  }
  records.resize(kept);
  join_instances(records);
}

ProcessRecord const* ProcessList::find(std::uint32_t pid) const noexcept {
  auto const at = std::lower_bound(
      records.begin(), records.end(), pid,
      [](ProcessRecord const& record, std::uint32_t wanted) { return record.pid < wanted; });
  return at != records.end() && at->pid == pid ? &*at : nullptr;
}

std::optional<std::size_t> probe_stride(std::span<std::byte const> buffer, std::size_t count,
                                        RecordLimits const& limits) {
  if (count == 0) return std::nullopt;
  auto const written = written_bytes(buffer);
  for (auto const stride : kStrides) {
    auto const end = stride * count;
    if (written <= end && written + 8 > end && pids_plausible(buffer, count, stride)) {
      return stride;
    }
  }
  std::optional<std::size_t> only;
  for (auto const stride : kStrides) {
    if (!all_plausible(buffer, count, stride, limits)) continue;
    if (count == 1) return stride;  // pid and bytes lie at one place in all three
    if (only) return std::nullopt;
    only = stride;
  }
  return only;
}

ProcessListReader::ProcessListReader()
    : buffer_(kFirstCapacity * kLargestRecordBytes + 64, kUnwritten) {}

// The driver is told room for as many of the largest records as the buffer holds, so it
// stays within it whatever size it writes.
ProcessListReader::Answer ProcessListReader::call(Device device, Function* function) {
  Answer answer;
  for (int attempt = 0; attempt < kGrowthAttempts; ++attempt) {
    std::fill_n(buffer_.begin(), std::min(dirty_bytes_, buffer_.size()), kUnwritten);
    dirty_bytes_ = buffer_.size();  // until the answer has been looked at
    auto const capacity = buffer_.size() / kLargestRecordBytes - 2;
    auto count = static_cast<unsigned>(capacity);
    answer.code = function(device, &count, buffer_.data());
    bool const too_many = answer.code == kSuccess && count > capacity;
    if (answer.code != kInsufficientSize && !too_many) {
      answer.count = count;
      return answer;
    }
    // Twice what it asked for: the list may grow again before the next call.
    auto const wanted = std::max<std::size_t>(std::size_t{count} * 2 + 5, capacity * 2);
    if (wanted > kLargestCapacity) break;
    buffer_.resize((wanted + 2) * kLargestRecordBytes);
    dirty_bytes_ = buffer_.size();
  }
  answer.code = kInsufficientSize;
  return answer;
}

void ProcessListReader::append(std::size_t count, std::size_t stride, ListKind kind,
                               ProcessList& list) const {
  std::span<std::byte const> const buffer = buffer_;
  for (std::size_t i = 0; i < count; ++i) {
    auto const record = buffer.subspan(i * stride, stride);
    auto const bytes = load<std::uint64_t>(record, kRecordUsedOffset);
    list.records.push_back(
        {.pid = load<std::uint32_t>(record, kRecordPidOffset),
         .process_used_bytes = bytes == kNotAvailable ? std::nullopt : std::optional(bytes),
         .kinds = kind,
         .gpu_instance_id = instance_id(record, kRecordGpuInstanceOffset),
         .compute_instance_id = instance_id(record, kRecordComputeInstanceOffset)});
  }
}

void ProcessListReader::read_kind(Api const& api, Device device, char const* name,
                                  Function* function, ListKind kind, RecordLimits const& limits,
                                  ProcessList& list) {
  if (function == nullptr) {
    // Old drivers have no MPS list, and their list of compute processes holds everybody.
    if (kind == kCompute) add_reason(list, "this driver lists no compute processes");
    return;
  }
  auto const answer = call(device, function);
  if (answer.code != kSuccess) {
    auto const severity = severity_of(answer.code);
    if (severity != Severity::kNoData && severity != Severity::kFailed) {
      throw CallError{name, answer.code};
    }
    if (kind != kCompute && means_absent(answer.code)) return;  // no such processes here
    add_reason(list, api.describe(name, answer.code));
    return;
  }
  if (answer.count == 0) {  // says nothing about the record's size
    if (unwritten_from(std::span(buffer_).first(std::min(buffer_.size(), kSearchedBytes)), 0)) {
      dirty_bytes_ = 0;
    }
    return;
  }
  auto const stride = stride_of(answer.count, kind, limits);
  if (stride == 0) {
    add_reason(list, api.symbol_of(name) + " wrote " + std::to_string(answer.count) +
                         " records of a size that is not understood");
    return;
  }
  append(answer.count, stride, kind, list);
}

// The size found last is tried alone first: whether the driver wrote as far as that and no
// further is told without looking for where it ended.
std::size_t ProcessListReader::stride_of(std::size_t count, ListKind kind,
                                         RecordLimits const& limits) {
  auto& known = strides_[static_cast<std::size_t>(std::countr_zero(unsigned{kind}))];
  auto const searched = count * kLargestRecordBytes + kSearchedBytes;
  auto const buffer = std::span<std::byte const>(buffer_).first(std::min(buffer_.size(), searched));
  auto const end = known * count;
  bool const as_before = known != 0 && end <= buffer.size() && unwritten_from(buffer, end) &&
                         !unwritten_from(buffer.first(end), end - 8) &&
                         pids_plausible(buffer, count, known);
  if (as_before) {
    dirty_bytes_ = end;
    return known;
  }
  auto const found = probe_stride(buffer_, count, limits);
  if (!found) return 0;
  known = *found;
  if (unwritten_from(buffer, known * count)) dirty_bytes_ = known * count;
  return known;
}

std::map<std::string, std::size_t> ProcessListReader::strides(Api const& api) const {
  constexpr std::array<char const*, 3> kNames{"compute_processes", "graphics_processes",
                                              "mps_processes"};
  std::map<std::string, std::size_t> found;
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (strides_[i] != 0) found.emplace(api.symbol_of(kNames[i]), strides_[i]);
  }
  return found;
}

void ProcessListReader::read(Api const& api, Device device, RecordLimits const& limits,
                             ProcessList& list) {
  list.records.clear();
  list.reason.clear();
  list.complete = true;
  read_kind(api, device, "compute_processes", api.compute_processes, kCompute, limits, list);
  read_kind(api, device, "graphics_processes", api.graphics_processes, kGraphics, limits, list);
  read_kind(api, device, "mps_processes", api.mps_processes, kMps, limits, list);
  merge_by_pid(list.records);
}

}  // namespace memacct::nvml
