// ns per record: a bare memcpy into the slots, the ring on the heap, and the ring of a recording.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "memacct/clock.hpp"
#include "memacct/recorder.hpp"
#include "memacct/ring.hpp"

using namespace memacct;

namespace {

constexpr std::uint64_t kCapacity = 1 << 15;

double copy_ns(std::vector<RingSlot>& slots, std::uint64_t count) {
  RingSlot slot{};
  auto const start = monotonic_ns();
  for (std::uint64_t n = 0; n < count; ++n) {
    slot.stamp = n;
    std::memcpy(&slots[n % kCapacity], &slot, sizeof slot);
    asm volatile("" : : "r"(slots.data()) : "memory");  // the copy is made
  }
  return static_cast<double>(monotonic_ns() - start) / static_cast<double>(count);
}

double write_ns(RingWriter& writer, std::uint64_t count) {
  RingPayload payload{};
  auto const start = monotonic_ns();
  for (std::uint64_t n = 0; n < count; ++n) {
    payload[1] = n;
    writer.write(payload);
  }
  return static_cast<double>(monotonic_ns() - start) / static_cast<double>(count);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;  // FILE ROUNDS COUNT
  auto const rounds = std::atoi(argv[2]);
  auto const count = std::strtoull(argv[3], nullptr, 10);
  std::vector<RingSlot> bare(kCapacity);
  std::vector<RingSlot> heap(kCapacity + 1);
  RingWriter in_memory(ring_over(std::as_writable_bytes(std::span(heap)), kCapacity), 1);
  auto const recorder = Recorder::create(argv[1], {.host_capacity = kCapacity});
  RingWriter in_file(recorder->ring(RecordingRing::kHost), recorder->salt());
  // The first pass takes the page faults.
  (void)copy_ns(bare, kCapacity);
  (void)write_ns(in_memory, kCapacity);
  (void)write_ns(in_file, kCapacity);
  for (int round = 0; round < rounds; ++round) {
    auto const copied = copy_ns(bare, count);
    auto const memory = write_ns(in_memory, count);
    auto const file = write_ns(in_file, count);
    std::printf("%.2f %.2f %.2f\n", copied, memory, file);
  }
}
