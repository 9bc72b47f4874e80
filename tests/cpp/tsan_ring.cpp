// One writer and several readers of a ring at full speed, for ThreadSanitizer: no race is reported,
// no reader gets a torn record, and what is read or skipped adds up to what was written.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "fuzz_check.hpp"
#include "memacct/ring.hpp"
#include "memacct/sample_record.hpp"

namespace {

using memacct::RingPayload;

// Small: a reader is often at the slot that is being written.
constexpr std::size_t kCapacity = 4;

/// Every word follows from the number, so a mixture of two records shows.
RingPayload numbered(std::uint64_t number) {
  RingPayload payload;
  for (std::size_t i = 0; i < payload.size(); ++i) payload[i] = number * 31 + i;
  return payload;
}

void follow(memacct::RingView ring, std::uint64_t total, std::atomic<std::uint64_t>& read_count) {
  memacct::RingCursor cursor{memacct::RingReader(ring)};
  std::uint64_t last = 0;
  std::uint64_t count = 0;
  while (cursor.next_number() <= total) {
    auto const payload = cursor.next();
    if (!payload) {
      std::this_thread::yield();
      continue;
    }
    auto const number = cursor.next_number() - 1;
    CHECK(number > last && *payload == numbered(number));
    last = number;
    ++count;
  }
  CHECK(cursor.damaged_count() == 0);
  // Of what was skipped last, a part may lie beyond the end.
  CHECK(count + cursor.skipped_count() == cursor.next_number() - 1);
  read_count += count;
}

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t const total = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1'000'000;
  std::vector<memacct::RingSlot> memory(kCapacity + 1);
  auto const ring = memacct::ring_over(std::as_writable_bytes(std::span(memory)), kCapacity);
  memacct::RingWriter writer(ring, 42);
  std::atomic<std::uint64_t> read_count{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] { follow(ring, total, read_count); });
  }
  for (std::uint64_t number = 1; number <= total; ++number) {
    CHECK(writer.write(numbered(number)) == number);
    // On a machine with few processors the readers get turns.
    if (number % 512 == 0) std::this_thread::yield();
  }
  for (auto& reader : readers) reader.join();
  CHECK(read_count > 0);
  std::printf("%llu written, %llu read by 3 readers\n", static_cast<unsigned long long>(total),
              static_cast<unsigned long long>(read_count.load()));
}
