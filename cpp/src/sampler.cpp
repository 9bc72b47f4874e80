#include "memacct/sampler.hpp"

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "memacct/clock.hpp"
#include "memacct/device_sampling.hpp"
#include "memacct/host_record.hpp"
#include "memacct/process.hpp"
#include "memacct/sample_record.hpp"
#include "memacct/sample_stream.hpp"

namespace memacct {
namespace {

constexpr std::chrono::seconds kStopPatience{10};  // a driver that resets a GPU takes seconds

}  // namespace

SamplerRings make_rings(std::size_t host_capacity, std::size_t device_capacity) {
  auto const host_bytes = ring_bytes(host_capacity);
  auto const bytes = host_bytes + ring_bytes(device_capacity);
  auto* const start = static_cast<std::byte*>(std::aligned_alloc(64, bytes));
  if (start == nullptr) throw std::bad_alloc();
  std::shared_ptr<void> memory(start, &std::free);
  // Not calloc: its pages would only come as samples are taken, and be seen by them.
  std::memset(start, 0, bytes);
  return {.host = ring_over({start, host_bytes}, host_capacity),
          .devices = ring_over({start + host_bytes, bytes - host_bytes}, device_capacity),
          .memory = std::move(memory)};
}

Sampler::Sampler(SamplerOptions options, SamplerRings rings)
    : options_(std::move(options)),
      rings_(std::move(rings)),
      core_(std::make_shared<Core>(options_, rings_)),
      generation_(fork_generation()) {}

Sampler::~Sampler() {
  stop();
  // In a fork's child the mutexes in it may be held by threads that are not here.
  if (forked()) new std::shared_ptr<Core>(std::move(core_));
}

bool Sampler::forked() const noexcept { return generation_ != fork_generation(); }

SamplerState Sampler::state() const noexcept {
  auto const state = state_.load(std::memory_order_acquire);
  return state == SamplerState::kRunning && forked() ? SamplerState::kForked : state;
}

void Sampler::start() {
  if (forked()) throw SamplerError("this sampler is the parent process's: make another one");
  std::lock_guard const lock(control_);
  if (state_.load() != SamplerState::kNew) {
    throw SamplerError("this sampler was started before: make another one");
  }
  started_ns_ = monotonic_ns();
  if (options_.host_period_ns != 0) {
    auto const sample_host = [core = core_](Tick const& tick) -> std::uint64_t {
      core->host.ticked(tick);
      try {
        auto const host = read_host(core->options.host);
        auto const span_ns = monotonic_ns() - tick.now_ns;
        core->host_ring.write(pack(host_record(host, tick.now_ns, span_ns)));
        core->host.took(span_ns);
      } catch (...) {
        core->host.failed();
        (void)core->errors.count_current();
      }
      return 0;
    };
    host_thread_.start("memacct-host", options_.host_period_ns, sample_host);
  }
  if (options_.device_period_ns != 0) {
    try {
      auto const sampling = std::make_shared<DeviceSampling>(core_, started_ns_);
      device_thread_.start("memacct-device", options_.device_period_ns,
                           [sampling](Tick const& tick) { return sampling->tick(tick); });
    } catch (...) {
      host_thread_.stop(kStopPatience);
      throw;
    }
  }
  state_.store(SamplerState::kRunning, std::memory_order_release);
}

void Sampler::stop() noexcept {
  if (forked()) return;
  std::lock_guard const lock(control_);
  if (state_.load() != SamplerState::kRunning) return;
  host_thread_.stop(kStopPatience);
  device_thread_.stop(kStopPatience);
  if (rings_.finish) rings_.finish();
  state_.store(SamplerState::kStopped, std::memory_order_release);
}

StreamCounts Sampler::host_counts() const {
  auto counts = core_->host.counts();
  counts.period_ns = options_.host_period_ns;
  counts.cpu_ns = cpu_ns(host_thread_);
  return counts;
}

StreamCounts Sampler::device_counts() const {
  auto counts = core_->device.counts();
  counts.period_ns = options_.device_period_ns;
  counts.cpu_ns = cpu_ns(device_thread_);
  return counts;
}

std::uint64_t Sampler::cpu_ns(PeriodicThread const& thread) const {
  if (forked()) return 0;
  std::lock_guard const lock(control_);
  return thread.cpu_ns();
}

SamplerErrors Sampler::errors() const { return core_->errors.get(!forked()); }

std::vector<SampledDevice> Sampler::devices() const {
  std::vector<SampledDevice> devices;
  for (std::size_t i = 0; i < core_->devices.size(); ++i) devices.push_back(core_->devices.at(i));
  return devices;
}

TraceRows Sampler::rows() const {
  TraceRows rows;
  if (forked() && !rings_.in_child) return rows;
  RingReader const host(rings_.host);
  append_rows(host, host.written_count(), rows);
  append_rows(RingReader(rings_.devices), core_->device_complete.load(std::memory_order_acquire),
              rows);
  drop_headless(rows);
  return rows;
}

}  // namespace memacct
