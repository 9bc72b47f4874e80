// Known answers of the ring and of the records' form.
#include <array>
#include <cstdint>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include "fuzz_check.hpp"
#include "memacct/ring.hpp"
#include "memacct/sample_record.hpp"

namespace {

using namespace memacct;

constexpr auto kMost = std::numeric_limits<std::uint64_t>::max();

struct HeapRing {
  explicit HeapRing(std::size_t capacity)
      : memory(capacity + 1),
        view(ring_over(std::as_writable_bytes(std::span(memory)), capacity)) {}
  std::vector<RingSlot> memory;
  RingView view;
};

RingPayload numbered(std::uint64_t number) {
  RingPayload payload;
  for (std::size_t i = 0; i < payload.size(); ++i) payload[i] = number * 31 + i;
  return payload;
}

void refused(std::size_t memory_bytes, std::size_t capacity, std::size_t offset = 0) {
  std::vector<RingSlot> memory(64);
  auto const bytes = std::as_writable_bytes(std::span(memory)).subspan(offset, memory_bytes);
  try {
    (void)ring_over(bytes, capacity);
  } catch (std::invalid_argument const&) {
    return;
  }
  CHECK(!"refused");
}

void views() {
  refused(4096, 0);
  refused(4096, 3);
  refused(ring_bytes(8) - 1, 8);
  refused(0, 1);
  refused(4096, kMost / 2 + 1);
  refused(ring_bytes(8), 8, 8);
  HeapRing ring(1);
  CHECK(ring.view.slots.size() == 1 && ring_bytes(1) == 256);
}

void wraps() {
  for (std::size_t const capacity : {1U, 2U, 8U}) {
    HeapRing ring(capacity);
    RingWriter writer(ring.view, 7);
    RingReader const reader(ring.view);
    RingPayload payload{};
    CHECK(reader.read(1, payload) == RingState::kPending && reader.written_count() == 0);
    for (std::uint64_t n = 1; n <= 5 * capacity; ++n) {
      CHECK(writer.write(numbered(n)) == n && reader.written_count() == n);
      for (std::uint64_t k = 1; k <= n + 1; ++k) {
        auto const state = reader.read(k, payload);
        auto const expected = k > n               ? RingState::kPending
                              : k + capacity <= n ? RingState::kOverwritten
                                                  : RingState::kWritten;
        CHECK(state == expected);
        if (state == RingState::kWritten) CHECK(payload == numbered(k));
      }
    }
    CHECK(reader.oldest() == 4 * capacity + 1);
  }
}

void cursors() {
  HeapRing ring(8);
  RingWriter writer(ring.view);
  RingCursor cursor{RingReader(ring.view)};
  CHECK(!cursor.next());
  for (std::uint64_t n = 1; n <= 8; ++n) writer.write(numbered(n));
  for (std::uint64_t n = 1; n <= 8; ++n) CHECK(cursor.next() == numbered(n));
  CHECK(!cursor.next() && cursor.skipped_count() == 0);
  for (std::uint64_t n = 9; n <= 40; ++n) writer.write(numbered(n));
  // 9 to 32 are gone, and one more is left out.
  CHECK(cursor.next() == numbered(34) && cursor.skipped_count() == 25);
  ring.view.slots[(35 - 1) % 8].payload[3] ^= 1;
  CHECK(cursor.next() == numbered(36) && cursor.damaged_count() == 1);
  while (cursor.next()) continue;
  CHECK(cursor.next_number() == 41);
}

/// Every bit of a slot counts: no record is told that was not written.
void damages() {
  HeapRing ring(4);
  RingWriter writer(ring.view, 99);
  for (std::uint64_t n = 1; n <= 6; ++n) writer.write(numbered(n));
  RingReader const reader(ring.view);
  RingPayload payload{};
  auto& slot = ring.view.slots[1];  // record 6
  auto const words = std::span(reinterpret_cast<std::uint64_t*>(&slot), 16);
  for (auto& word : words) {
    for (unsigned bit = 0; bit < 64; ++bit) {
      word ^= std::uint64_t{1} << bit;
      CHECK(reader.read(6, payload) != RingState::kWritten);
      CHECK(reader.read(2, payload) != RingState::kWritten);
      word ^= std::uint64_t{1} << bit;
    }
  }
  CHECK(reader.read(6, payload) == RingState::kWritten);
  // Two words that change places, or both their highest bits.
  std::swap(slot.payload[2], slot.payload[4]);
  CHECK(reader.read(6, payload) == RingState::kDamaged);
  std::swap(slot.payload[2], slot.payload[4]);
  slot.payload[0] ^= std::uint64_t{1} << 63;
  slot.payload[2] ^= std::uint64_t{1} << 63;
  CHECK(reader.read(6, payload) == RingState::kDamaged);
  // The same words under another number, and those of another ring.
  slot.payload = numbered(6);
  slot.stamp = 2 * 10;
  CHECK(reader.read(10, payload) == RingState::kDamaged);
  slot.stamp = 2 * 6;
  CHECK(reader.read(6, payload) == RingState::kWritten);
  ring.view.head->salt = 98;
  CHECK(RingReader(ring.view).read(6, payload) == RingState::kDamaged);
}

template <typename Record>
void same(Record const& record) {
  auto const back = unpack(pack(record));
  CHECK(back && std::get<Record>(*back) == record && taken_ns(pack(record)) == record.taken_ns);
}

void records() {
  HostRecord host{.taken_ns = 5, .span_ns = 1200, .pid = ~0U, .vms_bytes = kMost, .rss_bytes = 3};
  same(host);
  // Each term alone: unknown is not 0, and no term is another's.
  for (auto const term :
       {&HostRecord::shared_bytes, &HostRecord::rss_anon_bytes, &HostRecord::rss_file_bytes,
        &HostRecord::rss_shmem_bytes, &HostRecord::swap_bytes, &HostRecord::hugetlb_bytes,
        &HostRecord::locked_bytes, &HostRecord::pinned_bytes, &HostRecord::peak_rss_bytes}) {
    for (std::uint64_t const value : {std::uint64_t{0}, std::uint64_t{77}, kMost}) {
      auto one = host;
      one.*term = value;
      same(one);
    }
  }
  host.span_ns = kMost;
  CHECK(std::get<HostRecord>(*unpack(pack(host))).span_ns == 0xFFFFFFFFU);
  DeviceRecord device{.taken_ns = kMost,
                      .span_ns = 9,
                      .device = 65535,
                      .attempts_count = 255,
                      .attribution = 4,
                      .total_bytes = 80,
                      .free_bytes = kMost};
  same(device);
  device.consistent = true;
  device.unattributed_bytes = -4096;
  same(device);
  for (auto const term :
       {&DeviceRecord::device_used_bytes, &DeviceRecord::reserved_bytes, &DeviceRecord::own_bytes,
        &DeviceRecord::tree_bytes, &DeviceRecord::foreign_bytes, &DeviceRecord::own_low_bytes,
        &DeviceRecord::own_high_bytes}) {
    auto one = device;
    one.*term = 0;
    same(one);
  }
}

void texts() {
  ProcessRecord process{.taken_ns = 1, .device = 3, .pid = 4194304};
  same(process);
  process.owner = RecordOwner::kForeign;
  process.process_used_bytes = 0;
  process.start_ticks = kMost;
  process.name = "VLLM::EngineCore";
  CHECK(process.name.view() == "VLLM::EngineCor");
  same(process);
  NoteRecord note{.taken_ns = 1, .kind = NoteKind::kGap, .number = 65535, .value = kMost};
  same(note);
  note.text = std::string_view("GPU-8a1c6ea2-21ee-4a1c-b7a4-2fdc4b2f6c01");
  same(note);
  // Cut where a character ends: 87 bytes and two of the three bytes of a euro sign do not fit.
  note.text = std::string_view(std::string(86, 'x') + "\xE2\x82\xAC");
  CHECK(note.text.view() == std::string(86, 'x'));
  note.text = std::string_view(std::string(85, 'x') + "\xE2\x82\xAC" + "y");
  CHECK(note.text.view() == std::string(85, 'x') + "\xE2\x82\xAC");
  same(note);
}

/// Any words give a record or none.
void strange_words() {
  CHECK(!unpack(RingPayload{}));
  std::mt19937_64 random(1);
  for (int i = 0; i < 100'000; ++i) {
    RingPayload payload;
    for (auto& word : payload) word = random();
    payload[0] = (payload[0] & ~std::uint64_t{0xFF}) | random() % 8;
    auto const record = unpack(payload);
    auto const kind = payload[0] & 0xFF;
    CHECK(record.has_value() == (kind >= 1 && kind <= 4));
    if (!record) continue;
    CHECK(record->index() == kind - 1);
    // What was understood has one form only.
    auto const again = std::visit([](auto const& known) { return pack(known); }, *record);
    CHECK(unpack(again) == record);
  }
}

}  // namespace

int main() {
  views();
  wraps();
  cursors();
  damages();
  records();
  texts();
  strange_words();
}
