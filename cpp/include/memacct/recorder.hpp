// A flight recorder: rings in a mapped file, which outlive the process that writes them.
#pragma once
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>

#include "memacct/recording_format.hpp"
#include "memacct/ring.hpp"
#include "memacct/sample_record.hpp"

namespace memacct {

struct RecorderOptions {
  std::size_t host_capacity = std::size_t{1} << 15U;  // records; powers of two
  std::size_t device_capacity = std::size_t{1} << 15U;
  /// How often a thread of ours makes the disk have everything; 0: never. For a machine that may
  /// be lost: the file of a process that is killed needs nothing.
  std::uint64_t sync_period_ns = 0;
  std::string memacct_version;
};

/// What is written to its rings is in the file from that moment on, whatever becomes of the
/// process: they are pages of the kernel's. See docs/blackbox.md.
///
/// The rings are memory for one RingWriter each (with salt()), made by whoever samples. In a
/// child of fork() that memory is not there (MADV_DONTFORK): ours() tells, and all other calls do
/// nothing. A child made by a raw clone() system call is not seen: it must not use the recorder.
class Recorder {
 public:
  /// Makes the file, reserves its room and gives it its name.
  /// @param path: the file, or a folder, in which it is memacct-<pid>-<second>.box.
  /// @throws std::invalid_argument for a capacity that is no power of two; what RecordingFile
  ///   throws; SourceReadError if it cannot be mapped.
  /// Cost: milliseconds, and one flush of a few pages.
  [[nodiscard]] static std::shared_ptr<Recorder> create(std::string path,
                                                        RecorderOptions const& options);
  Recorder(Recorder const&) = delete;
  Recorder& operator=(Recorder const&) = delete;
  ~Recorder();  // finishes it

  /// False in a child of fork(): the rings must not be touched there.
  [[nodiscard]] bool ours() const noexcept;
  /// @throws std::logic_error where it is not ours. The memory lives as long as the recorder.
  [[nodiscard]] RingView ring(RecordingRing which) const;
  [[nodiscard]] std::uint64_t salt() const noexcept { return salt_; }
  [[nodiscard]] std::string const& path() const noexcept { return path_; }

  /// Writes a note to the ring of those that are never overwritten, from any thread.
  /// @returns false where it is full (128), or not ours.
  bool keep(NoteRecord const& note) noexcept;

  /// Waits until the disk has everything. @returns 0, or the errno of msync.
  int sync() noexcept;

  /// Marks the recording as ended on purpose. Idempotent; the rings stay readable.
  void finish() noexcept;

 private:
  Recorder(std::string path, RecorderOptions const& options);
  void map(int fd);
  void write_header(RecorderOptions const& options);
  void start_syncing(std::uint64_t period_ns);
  void stop_syncing() noexcept;
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {memory_, bytes_count_}; }

  std::string path_;
  std::uint32_t generation_;  // of forks
  std::uint64_t salt_ = 0;
  std::array<RingPlace, kRecordingRings> places_{};
  std::byte* memory_ = nullptr;
  std::size_t bytes_count_ = 0;
  std::mutex mutex_;  // of the kept ring, and of finish()
  bool finished_ = false;
  std::unique_ptr<RingWriter> kept_;
  std::mutex sync_mutex_;
  std::condition_variable sync_wakeup_;
  bool sync_stop_ = false;
  std::thread sync_thread_;
};

}  // namespace memacct
