// A ring of fixed slots over memory that the caller gives: one writer, any number of readers, in
// this process or in others that map the same file. No lock, no allocation, no system call.
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>

namespace memacct {

/// What a slot holds for its user; what the words mean is theirs (sample_record.hpp).
inline constexpr std::size_t kRingPayloadWords = 14;
using RingPayload = std::array<std::uint64_t, kRingPayloadWords>;

/// One slot: its stamp, the payload, a checksum. 128 bytes, so that none lies in two pages, nor in
/// two sectors of a disk: a machine that is lost leaves a slot as it was at some time.
///
/// Record n (from 1) lies in slot (n - 1) mod capacity. The stamp is 2n - 1 while record n is being
/// written and 2n from then on; 0: never written. It only grows.
struct alignas(64) RingSlot {
  std::uint64_t stamp;
  RingPayload payload;
  std::uint64_t checksum;
};
static_assert(sizeof(RingSlot) == 128);

/// What stands before the slots.
struct alignas(64) RingHead {
  std::uint64_t written_count;  // records whose writing has ended
  std::uint64_t capacity;       // slots; a power of two
  std::uint64_t salt;           // goes into every checksum: slots of another ring do not pass
  std::uint64_t reserved[13];
};
static_assert(sizeof(RingHead) == sizeof(RingSlot));

namespace ring_detail {

// Every word that both sides touch is read and written as an atomic, so no reader ever races, and
// each word's store releases and each load acquires: whoever sees a word of record m sees that
// the slot's stamp has reached 2m - 1. That is what fences would do, which ThreadSanitizer does
// not model. On x86 it costs nothing.
using Word = std::atomic_ref<std::uint64_t>;
static_assert(Word::is_always_lock_free);  // it works between processes

[[nodiscard]] inline std::uint64_t load(std::uint64_t const& word) noexcept {
  // atomic_ref of const is C++26's; a load of a lock-free word writes nothing (the reader's
  // mapping may be read-only).
  return Word(const_cast<std::uint64_t&>(word)).load(std::memory_order_acquire);
}

inline void store(std::uint64_t& word, std::uint64_t value) noexcept {
  Word(word).store(value, std::memory_order_release);
}

/// One step of a checksum: for each `word` a one-to-one map of `state`, and the reverse.
[[nodiscard]] inline std::uint64_t mixed(std::uint64_t state, std::uint64_t word) noexcept {
  state = (state ^ word) * 0x9E3779B97F4A7C15U;  // odd: multiplication loses nothing
  return state ^ (state >> 29);
}

}  // namespace ring_detail

/// Tells a record as it was written from anything else. Two words that differ in one place only
/// never have the same one; beyond that, chance is 2^-64.
[[nodiscard]] inline std::uint64_t ring_checksum(std::uint64_t salt, std::uint64_t number,
                                                 RingPayload const& payload) noexcept {
  // Two lanes, since each step waits for the one before it.
  auto even = ring_detail::mixed(salt, number);
  auto odd = ring_detail::mixed(~salt, number);
  for (std::size_t i = 0; i < kRingPayloadWords; i += 2) {
    even = ring_detail::mixed(even, payload[i]);
    odd = ring_detail::mixed(odd, payload[i + 1]);
  }
  return ring_detail::mixed(even, std::rotl(odd, 32));
}

/// Where a ring lies. Its memory outlives it.
struct RingView {
  RingHead* head = nullptr;
  std::span<RingSlot> slots;
};

[[nodiscard]] constexpr std::size_t ring_bytes(std::size_t capacity) noexcept {
  return sizeof(RingHead) + capacity * sizeof(RingSlot);
}

/// The ring of `capacity` slots over `memory`, which is aligned to 64 bytes. Touches nothing.
/// @throws std::invalid_argument if the capacity is no power of two or the memory is too small.
[[nodiscard]] inline RingView ring_over(std::span<std::byte> memory, std::size_t capacity) {
  if (!std::has_single_bit(capacity)) {
    throw std::invalid_argument("a ring's capacity is a power of two");
  }
  if (memory.size() < sizeof(RingHead) ||
      (memory.size() - sizeof(RingHead)) / sizeof(RingSlot) < capacity) {
    throw std::invalid_argument("the memory is too small for a ring of that capacity");
  }
  if (std::bit_cast<std::uintptr_t>(memory.data()) % alignof(RingSlot) != 0) {
    throw std::invalid_argument("a ring's memory is aligned to 64 bytes");
  }
  auto* const head = reinterpret_cast<RingHead*>(memory.data());
  return {head, {reinterpret_cast<RingSlot*>(memory.data() + sizeof(RingHead)), capacity}};
}

/// The one writer. Threads that share it need a lock of their own.
class RingWriter {
 public:
  /// Starts an empty ring.
  /// @param ring: its memory is zero: fresh from the heap (calloc), or of a new file.
  explicit RingWriter(RingView ring, std::uint64_t salt = 0) noexcept : ring_(ring), salt_(salt) {
    ring_detail::store(ring_.head->capacity, ring_.slots.size());
    ring_detail::store(ring_.head->salt, salt);
  }

  /// Appends a record; the oldest makes room for it.
  /// @returns its number, from 1.
  /// Cost: 17 stores and a checksum, tens of nanoseconds; never waits, never fails.
  std::uint64_t write(RingPayload const& payload) noexcept {
    auto const number = ++written_;
    auto& slot = ring_.slots[(number - 1) & (ring_.slots.size() - 1)];
    auto const checksum = ring_checksum(salt_, number, payload);
    ring_detail::store(slot.stamp, 2 * number - 1);
    for (std::size_t i = 0; i < kRingPayloadWords; ++i) {
      ring_detail::store(slot.payload[i], payload[i]);
    }
    ring_detail::store(slot.checksum, checksum);
    ring_detail::store(slot.stamp, 2 * number);
    ring_detail::store(ring_.head->written_count, number);
    return number;
  }

  [[nodiscard]] std::uint64_t written_count() const noexcept { return written_; }

 private:
  RingView ring_;
  std::uint64_t salt_;
  std::uint64_t written_ = 0;  // ours: what a stray pointer does to the head does not count
};

enum class RingState : std::uint8_t {
  kWritten,      // `payload` is the record
  kPending,      // not written yet, or just being written
  kOverwritten,  // by a later one, perhaps while it was read
  kDamaged,      // the checksum is another's: no writer of this ring has written that
};

/// A reader, of a ring that may be written meanwhile. Never waits and never tries twice: since
/// the stamp only grows, a record that changed while it was read is gone.
class RingReader {
 public:
  explicit RingReader(RingView ring) noexcept
      : ring_(ring), salt_(ring_detail::load(ring.head->salt)) {}

  /// Record `number` (from 1). `payload` is anything unless the answer is kWritten.
  [[nodiscard]] RingState read(std::uint64_t number, RingPayload& payload) const noexcept {
    auto const& slot = ring_.slots[(number - 1) & (ring_.slots.size() - 1)];
    auto const stamp = ring_detail::load(slot.stamp);
    if (stamp != 2 * number) {
      return stamp < 2 * number ? RingState::kPending : RingState::kOverwritten;
    }
    for (std::size_t i = 0; i < kRingPayloadWords; ++i) {
      payload[i] = ring_detail::load(slot.payload[i]);
    }
    auto const checksum = ring_detail::load(slot.checksum);
    if (ring_detail::load(slot.stamp) != stamp) return RingState::kOverwritten;
    return checksum == ring_checksum(salt_, number, payload) ? RingState::kWritten
                                                             : RingState::kDamaged;
  }

  /// The number of the last record whose writing has ended; 0 if there is none.
  [[nodiscard]] std::uint64_t written_count() const noexcept {
    return ring_detail::load(ring_.head->written_count);
  }

  [[nodiscard]] std::size_t capacity() const noexcept { return ring_.slots.size(); }

  /// The number of the oldest record that may still be there.
  [[nodiscard]] std::uint64_t oldest() const noexcept {
    auto const written = written_count();
    return written > ring_.slots.size() ? written - ring_.slots.size() + 1 : 1;
  }

 private:
  RingView ring_;
  std::uint64_t salt_;
};

/// Follows a ring: each record once and in order, as far as it is still there.
class RingCursor {
 public:
  /// @param next: the number of the first record to give.
  explicit RingCursor(RingReader reader, std::uint64_t next = 1) noexcept
      : reader_(reader), next_(next) {}

  /// The next record; nullopt if none is there yet. Where the writer was faster, what it has
  /// overwritten (and a little more) is skipped and counted, and so are damaged records.
  [[nodiscard]] std::optional<RingPayload> next() noexcept {
    RingPayload payload{};
    while (true) {
      switch (reader_.read(next_, payload)) {
        case RingState::kWritten:
          ++next_;
          return payload;
        case RingState::kPending:
          return std::nullopt;
        case RingState::kDamaged:
          ++damaged_count_;
          ++next_;
          break;
        case RingState::kOverwritten: {
          // At least this one is gone, also where the count lags behind the slots. The oldest
          // is what the writer takes next: an eighth of the ring is left out to get away from it.
          auto const next = std::max(reader_.oldest() + reader_.capacity() / 8, next_ + 1);
          skipped_count_ += next - next_;
          next_ = next;
          break;
        }
      }
    }
  }

  /// The number of the record that next() gives next.
  [[nodiscard]] std::uint64_t next_number() const noexcept { return next_; }
  [[nodiscard]] std::uint64_t skipped_count() const noexcept { return skipped_count_; }
  [[nodiscard]] std::uint64_t damaged_count() const noexcept { return damaged_count_; }

 private:
  RingReader reader_;
  std::uint64_t next_;
  std::uint64_t skipped_count_ = 0;
  std::uint64_t damaged_count_ = 0;
};

}  // namespace memacct
