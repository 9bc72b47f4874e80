// The double collect of one device: lists and memory that held at one instant.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "memacct/device_session.hpp"

namespace memacct {

struct ReadRequest {
  std::optional<AllocatorClaim> allocator;
  bool with_cuda = false;
};

/// How often the collects are repeated, without a pause, until one is consistent.
inline constexpr int kCollectAttempts = 8;
/// How many collects in a row must say the same where what nobody is listed with has changed.
inline constexpr int kAgreeingCollects = 3;

/// The device's memory as one source, or two joined ones, tell it.
struct MemoryView {
  MemorySource source = MemorySource::kNvmlV2;
  nvml::MemoryReading memory;
  std::optional<cuda::MemoryInfo> cuda;
  std::optional<UnifiedMemory> unified;
  bool joined = true;  // both sources hold at one instant
};

struct Collect {
  Look* look = nullptr;  // the list after the memory, and ours in it
  MemoryView memory;
  std::optional<std::pair<std::uint64_t, std::uint64_t>> own_bounds_bytes;  // of both lists
  bool consistent = false;

  [[nodiscard]] bool own_held() const noexcept {
    return own_bounds_bytes && own_bounds_bytes->first == own_bounds_bytes->second;
  }
};

/// Reads for one target; holds what does not change between the attempts.
class Collector {
 public:
  Collector(DeviceSession& session, DeviceTarget const& target, ReadRequest const& request,
            DeviceMemo& memo);

  [[nodiscard]] Collect collect();
  [[nodiscard]] int attempts_count() const noexcept { return attempts_count_; }

 private:
  void read_list(nvml::ProcessList& list);
  void look_again(Look const& before, Look& now);
  [[nodiscard]] bool remembers(nvml::ProcessList const& list) const;
  void find(Look& look);
  [[nodiscard]] Collect collect_once(Look const& before, Look& now);
  [[nodiscard]] bool settled(Collect const& now, bool repeated) const;
  void check_numbers(nvml::ProcessList const& list);
  [[nodiscard]] OwnRecord find_afresh(nvml::ProcessList const& list);
  [[nodiscard]] MemoryView read_memory();
  [[nodiscard]] MemoryView read_unified();
  [[nodiscard]] std::optional<nvml::MemoryReading> read_nvml(nvml::Failure& failure);
  [[nodiscard]] std::optional<cuda::MemoryInfo> read_cuda(std::string& reason);
  [[noreturn]] void fail(nvml::Failure const& failure, std::string const& cuda_reason) const;

  DeviceSession& session_;
  DeviceTarget const& target_;
  ReadRequest request_;
  bool integrated_;
  DeviceMemo& memo_;
  ReadingRoom& room_;
  int attempts_count_ = 0;
};

/// What is known of this process apart from the list, for find_own().
void self_facts(DeviceSession& session, DeviceTarget const& target,
                std::optional<AllocatorClaim> const& allocator, SelfFacts& facts);

}  // namespace memacct
