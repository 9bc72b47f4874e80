// Samplers started, stopped, read and forked by several threads while others take snapshots, for
// ThreadSanitizer. Run it on a machine with a simulated GPU: `memacct sim run -- tsan_sampler`;
// without one the devices' part is errors, which are as good a test of their paths.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#include "fuzz_check.hpp"
#include "memacct/clock.hpp"
#include "memacct/sampler.hpp"
#include "memacct/snapshot.hpp"

/// fork() waits for locks by pthread_mutex_clocklock(), which older runtimes of TSan do not know:
/// the unlock that follows seems to be one too many.
extern "C" char const* __tsan_default_suppressions() {
  return "mutex:memacct::SessionLock::after_fork_in_parent\nmutex:after_fork\n";
}

namespace {

using memacct::DeviceSet;
using memacct::Sampler;
using memacct::SamplerOptions;
using memacct::SamplerState;

SamplerOptions fast() {
  return {.host_period_ns = 20'000,
          .device_period_ns = 200'000,
          .devices = DeviceSet::kAll,
          .driver_budget_ratio = 1.0};
}

/// Rows are whole, in order, and of this process.
void check_rows(Sampler const& sampler) {
  auto const rows = sampler.rows();
  CHECK(rows.damaged_count == 0 && rows.unknown_count == 0);
  std::uint64_t last = 0;
  for (auto const& row : rows.host) {
    CHECK(row.taken_ns > last && row.rss_bytes > 0 && row.rss_bytes <= row.vms_bytes);
    last = row.taken_ns;
  }
  for (auto const& row : rows.devices) {
    CHECK(row.total_bytes > 0 && row.free_bytes <= row.total_bytes);
    CHECK(row.device < sampler.devices().size());
  }
  (void)sampler.errors();
  (void)sampler.host_counts();
  (void)sampler.device_counts();
}

void come_and_go(std::atomic<bool> const& done) {
  while (!done) {
    Sampler sampler(fast(), memacct::make_rings(64, 64));
    sampler.start();
    check_rows(sampler);
    std::thread other([&] { sampler.stop(); });
    sampler.stop();
    other.join();
    CHECK(sampler.state() == SamplerState::kStopped);
    check_rows(sampler);
  }
}

void take_snapshots(std::atomic<bool> const& done) {
  while (!done) {
    try {
      auto const snapshot =
          memacct::take_snapshot({.host = memacct::HostTier::kCounters, .devices = DeviceSet::kAll},
                                 true, memacct::monotonic_ns(), std::nullopt);
      CHECK(snapshot.host.rss_bytes > 0);
    } catch (memacct::Error const&) {
      // No driver here.
    }
  }
}

void fork_and_look(Sampler& sampler, std::atomic<bool> const& done) {
  while (!done) {
    auto const pid = ::fork();
    if (pid == 0) {
      ::alarm(60);
      CHECK(sampler.state() == SamplerState::kForked);
      sampler.stop();
      // No rows(): it allocates, which TSan's runtime cannot always do in such a child.
      ::_exit(0);
    }
    CHECK(pid > 0);
    int status = 0;
    CHECK(::waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(sampler.state() == SamplerState::kRunning);
  }
}

}  // namespace

int main(int argc, char** argv) {
  auto const seconds = argc > 1 ? std::atoi(argv[1]) : 5;
  std::atomic<bool> done{false};
  Sampler shared(fast(), memacct::make_rings(256, 1024));
  shared.start();
  std::vector<std::thread> threads;
  threads.emplace_back([&] { come_and_go(done); });
  threads.emplace_back([&] { come_and_go(done); });
  threads.emplace_back([&] { take_snapshots(done); });
  threads.emplace_back([&] {
    while (!done) check_rows(shared);
  });
  threads.emplace_back([&] { fork_and_look(shared, done); });
  std::this_thread::sleep_for(std::chrono::seconds(seconds));
  done = true;
  for (auto& thread : threads) thread.join();
  shared.stop();
  check_rows(shared);
  auto const host = shared.host_counts();
  auto const device = shared.device_counts();
  CHECK(host.taken_count > 0 && host.error_count == 0);
  std::printf("%llu host samples, %llu of devices (%llu failed)\n",
              static_cast<unsigned long long>(host.taken_count),
              static_cast<unsigned long long>(device.taken_count),
              static_cast<unsigned long long>(device.error_count));
}
