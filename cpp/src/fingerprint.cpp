#include "memacct/fingerprint.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <random>

#include "memacct/clock.hpp"

namespace memacct {
namespace {

constexpr int kCaptureModeRelaxed = 2;  // CU_STREAM_CAPTURE_MODE_RELAXED

// Odd, so that neither a power of two nor two equal blocks of a neighbour match.
std::array<std::uint64_t, 15> shuffled_sizes() {
  std::array<std::uint64_t, 15> sizes{};
  for (std::size_t i = 0; i < sizes.size(); ++i) sizes[i] = (2 * i + 3) * kFingerprintUnitBytes;
  std::seed_seq seed{static_cast<std::uint64_t>(monotonic_ns()),
                     static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(&sizes))};
  std::mt19937 generator(seed);
  std::shuffle(sizes.begin(), sizes.end(), generator);
  return sizes;
}

/// While a stream of this thread is being captured, cuMemAlloc would spoil the capture.
class RelaxedCapture {
 public:
  explicit RelaxedCapture(cuda::Api const& api) : api_(api) { exchange(); }
  ~RelaxedCapture() { exchange(); }
  RelaxedCapture(RelaxedCapture const&) = delete;
  RelaxedCapture& operator=(RelaxedCapture const&) = delete;

 private:
  void exchange() {
    if (api_.exchange_capture_mode != nullptr) api_.exchange_capture_mode(&mode_);
  }
  cuda::Api const& api_;
  int mode_ = kCaptureModeRelaxed;
};

class Allocation {
 public:
  Allocation(cuda::Api const& api, std::uint64_t bytes) : api_(api) {
    code_ = api_.allocate(&address_, bytes);
  }
  ~Allocation() { free(); }
  Allocation(Allocation const&) = delete;
  Allocation& operator=(Allocation const&) = delete;
  [[nodiscard]] int code() const noexcept { return code_; }
  int free() {
    int code = cuda::kSuccess;
    if (code_ == cuda::kSuccess && address_ != 0) code = api_.release(address_);
    address_ = 0;
    return code;
  }

 private:
  cuda::Api const& api_;
  std::uint64_t address_ = 0;
  int code_ = 0;
};

// Whether free memory is ample; the reason if it is not, or not known.
bool ample(cuda::Api const& api, std::string& reason) {
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  if (int const code = api.memory_info(&free_bytes, &total_bytes); code != cuda::kSuccess) {
    reason = api.describe("memory_info", code);
    return false;
  }
  if (free_bytes >= kFingerprintAmpleBytes) return true;
  reason = "only " + std::to_string(free_bytes / kMiB) +
           " MiB are free; an allocation to find "
           "this process's record needs " +
           std::to_string(kFingerprintAmpleBytes / kMiB) + " MiB";
  return false;
}

}  // namespace

void FingerprintVote::add_round(nvml::ProcessList const& before, nvml::ProcessList const& holding,
                                nvml::ProcessList const& after, std::uint64_t bytes) {
  blind_ = true;
  for (auto const& record : holding.records) {
    if (!record.process_used_bytes) continue;
    blind_ = false;
    auto const held = *record.process_used_bytes;
    auto const* const first = before.find(record.pid);
    auto const* const last = after.find(record.pid);
    if (first == nullptr || last == nullptr || held < bytes) continue;
    if (first->process_used_bytes == held - bytes && last->process_used_bytes == held - bytes) {
      ++matches_[record.pid];
    }
  }
}

std::optional<std::uint32_t> FingerprintVote::winner() const {
  std::optional<std::uint32_t> best;
  int most = 0;
  int second = 0;
  for (auto const& [pid, count] : matches_) {
    if (count > most) {
      second = most;
      most = count;
      best = pid;
    } else {
      second = std::max(second, count);
    }
  }
  return most - second >= kFingerprintLead ? best : std::nullopt;
}

FingerprintResult run_fingerprint(cuda::Driver& driver, cuda::Device const& device,
                                  std::function<nvml::ProcessList()> const& read_list) {
  FingerprintResult result;
  auto const& api = driver.api();
  if (api.allocate == nullptr || api.release == nullptr || api.memory_info == nullptr) {
    result.reason = "the CUDA driver lacks a function needed to allocate";
    return result;
  }
  auto const context = cuda::ContextGuard::enter(api, device, result.reason);
  if (!context) return result;
  RelaxedCapture const relaxed(api);
  FingerprintVote vote;
  auto const sizes = shuffled_sizes();
  auto before = read_list();
  for (int round = 0; round < kFingerprintRounds; ++round) {
    if (!ample(api, result.reason)) return result;
    auto const bytes = sizes[static_cast<std::size_t>(round) % sizes.size()];
    Allocation allocation(api, bytes);
    if (allocation.code() != cuda::kSuccess) {
      result.reason = api.describe("allocate", allocation.code());
      return result;
    }
    auto const holding = read_list();
    if (int const code = allocation.free(); code != cuda::kSuccess) {
      result.reason = api.describe("release", code);
      return result;  // at most this one allocation is left behind
    }
    auto after = read_list();
    vote.add_round(before, holding, after, bytes);
    if (auto const pid = vote.winner()) return {.pid = pid, .reason = ""};
    if (vote.blind() && round + 1 >= kFingerprintLead) {
      result.reason = "the driver tells no process's bytes on this device";
      return result;
    }
    before = std::move(after);
  }
  result.reason = "no listed process moved with this process's allocations";
  return result;
}

}  // namespace memacct
