#include "memacct/fingerprint.hpp"

#include <sys/random.h>

#include <algorithm>
#include <utility>

namespace memacct {
namespace {

constexpr int kCaptureModeRelaxed = 2;  // CU_STREAM_CAPTURE_MODE_RELAXED

/// One of `count`, each as likely; nullopt if the kernel gives no random numbers. No generator
/// with a seed: two processes that start alike must not draw alike.
std::optional<unsigned> draw(unsigned count) {
  std::uint64_t value = 0;
  if (::getrandom(&value, sizeof value, GRND_NONBLOCK) != sizeof value) return std::nullopt;
  return static_cast<unsigned>(value % count);
}

/// While a stream of this thread is being captured, cuMemAlloc would spoil the capture.
class RelaxedCapture {
 public:
  explicit RelaxedCapture(cuda::Api const& api) : api_(api) { exchange(); }
  ~RelaxedCapture() { exchange(); }
  RelaxedCapture(RelaxedCapture const&) = delete;
  RelaxedCapture& operator=(RelaxedCapture const&) = delete;

 private:
  void exchange() { api_.exchange_capture_mode(&mode_); }
  cuda::Api const& api_;
  int mode_ = kCaptureModeRelaxed;
};

/// The one allocation that is held, if any.
class Held {
 public:
  explicit Held(cuda::Api const& api) : api_(api) {}
  ~Held() { (void)free(); }
  Held(Held const&) = delete;
  Held& operator=(Held const&) = delete;

  /// The driver's code. A block that could not be freed is not tried again.
  [[nodiscard]] int free() {
    if (address_ == 0) return cuda::kSuccess;
    return api_.release(std::exchange(address_, 0));
  }
  [[nodiscard]] int allocate(std::uint64_t bytes) { return api_.allocate(&address_, bytes); }

 private:
  cuda::Api const& api_;
  std::uint64_t address_ = 0;
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

bool tells_bytes(nvml::ProcessList const& list) {
  return std::any_of(list.records.begin(), list.records.end(),
                     [](auto const& record) { return record.process_used_bytes.value_or(0) > 0; });
}

// Goes over to holding `bytes`; the reason why it could not, or "".
std::string hold(cuda::Api const& api, Held& held, std::uint64_t bytes) {
  if (int const code = held.free(); code != cuda::kSuccess) return api.describe("release", code);
  std::string reason;
  if (bytes == 0 || !ample(api, reason)) return reason;
  int const code = held.allocate(bytes);
  return code == cuda::kSuccess ? "" : api.describe("allocate", code);
}

constexpr char const* kBlind = "the driver tells no process's bytes on this device";

FingerprintResult run_steps(cuda::Api const& api,
                            std::function<nvml::ProcessList()> const& read_list) {
  FingerprintVote vote;
  Held held(api);
  unsigned units = 0;
  auto before = read_list();
  for (int step = 1; step <= kFingerprintSteps; ++step) {
    if (!tells_bytes(before)) return {.pid = {}, .reason = kBlind};
    auto const skipped = draw(kFingerprintAmounts - 1);
    if (!skipped) return {.pid = {}, .reason = "the kernel gives no random numbers"};
    auto const next = *skipped < units ? *skipped : *skipped + 1;  // any but the present
    auto reason = hold(api, held, next * kFingerprintUnitBytes);
    if (!reason.empty()) return {.pid = {}, .reason = std::move(reason)};
    auto after = read_list();
    auto const change = static_cast<std::int64_t>(next) - static_cast<std::int64_t>(units);
    vote.add_step(before, after, change * static_cast<std::int64_t>(kFingerprintUnitBytes));
    if (auto const pid = vote.winner()) return {.pid = pid, .reason = ""};
    if (!vote.open(kFingerprintSteps - step)) break;
    units = next;
    before = std::move(after);
  }
  return {.pid = {},
          .reason = "no listed process moved with this process's allocations",
          .refuted = true};
}

}  // namespace

void FingerprintVote::add_step(nvml::ProcessList const& before, nvml::ProcessList const& after,
                               std::int64_t change_bytes) {
  for (auto const& record : after.records) {
    auto const* const first = before.find(record.pid);
    if (first == nullptr) continue;
    auto const was = first->process_used_bytes.value_or(0);
    auto const is = record.process_used_bytes.value_or(0);
    // 0 is no number of bytes, here as everywhere: nobody with a context holds 0.
    if (was == 0 || is == 0) continue;
    if (is - was == static_cast<std::uint64_t>(change_bytes)) ++matches_[record.pid];
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
  bool const enough = most >= kFingerprintMatches && most - second >= kFingerprintLead;
  return enough ? best : std::nullopt;
}

bool FingerprintVote::open(int steps_left) const {
  auto const most =
      std::max_element(matches_.begin(), matches_.end(),
                       [](auto const& a, auto const& b) { return a.second < b.second; });
  return (most == matches_.end() ? 0 : most->second) + steps_left >= kFingerprintMatches;
}

FingerprintResult run_fingerprint(cuda::Driver& driver, cuda::Device const& device,
                                  std::function<nvml::ProcessList()> const& read_list) {
  FingerprintResult result;
  auto const& api = driver.api();
  if (api.allocate == nullptr || api.release == nullptr || api.memory_info == nullptr) {
    result.reason = "the CUDA driver lacks a function needed to allocate";
    return result;
  }
  if (api.exchange_capture_mode == nullptr) {
    result.reason = "the CUDA driver lacks the function that keeps a stream capture unharmed";
    return result;
  }
  auto const context = cuda::ContextGuard::enter(api, device, result.reason);
  if (!context) return result;
  RelaxedCapture const relaxed(api);
  return run_steps(api, read_list);
}

}  // namespace memacct
