// A recorder as a sampler uses it, for ThreadSanitizer: two writers, notes from several threads,
// flushes, readers of its memory, and its end, all at once.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "fuzz_check.hpp"
#include "memacct/recorder.hpp"

namespace {

using namespace memacct;

RingPayload numbered(std::uint64_t number) {
  RingPayload payload;
  for (std::size_t i = 0; i < payload.size(); ++i) payload[i] = number * 31 + i;
  return payload;
}

void write(Recorder const& recorder, RecordingRing which, std::uint64_t total) {
  RingWriter writer(recorder.ring(which), recorder.salt());
  for (std::uint64_t n = 1; n <= total; ++n) {
    writer.write(numbered(n));
    if (n % 256 == 0) std::this_thread::yield();
  }
}

std::uint64_t follow(Recorder const& recorder, RecordingRing which, std::uint64_t total) {
  RingCursor cursor{RingReader(recorder.ring(which))};
  std::uint64_t count = 0;
  while (cursor.next_number() <= total) {
    auto const payload = cursor.next();
    if (!payload) {
      std::this_thread::yield();
      continue;
    }
    CHECK(*payload == numbered(cursor.next_number() - 1));
    ++count;
  }
  return count;
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc > 1);
  std::uint64_t const total = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 300'000;
  auto const recorder = Recorder::create(
      argv[1], {.host_capacity = 64, .device_capacity = 64, .sync_period_ns = 1'000'000});
  // The writers make the rings: readers come later.
  for (auto const which : {RecordingRing::kHost, RecordingRing::kDevices}) {
    RingWriter(recorder->ring(which), recorder->salt());
  }
  std::atomic<std::uint64_t> read_count{0};
  std::atomic<int> kept_count{0};
  std::vector<std::thread> threads;
  for (auto const which : {RecordingRing::kHost, RecordingRing::kDevices}) {
    threads.emplace_back([&, which] { write(*recorder, which, total); });
    threads.emplace_back([&, which] { read_count += follow(*recorder, which, total); });
    threads.emplace_back([&] {
      for (std::uint16_t i = 0; i < 100; ++i) kept_count += recorder->keep({.number = i}) ? 1 : 0;
      recorder->finish();
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(read_count > 0 && kept_count == 128);
  std::printf("2 x %llu written, %llu read\n", static_cast<unsigned long long>(total),
              static_cast<unsigned long long>(read_count.load()));
}
