#include "memacct/recorder.hpp"

#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <ctime>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>

#include "memacct/clock.hpp"
#include "memacct/error.hpp"
#include "memacct/proc_file.hpp"
#include "memacct/process.hpp"
#include "memacct/process_stat.hpp"
#include "memacct/recording_file.hpp"

namespace memacct {
namespace {

constexpr std::size_t kKeptCapacity = 128;

std::uint64_t wall_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(now.tv_nsec);
}

/// A folder gets a file of its own for each recording.
std::string file_of(std::string path) {
  struct stat found{};
  if (::stat(path.c_str(), &found) != 0 || !S_ISDIR(found.st_mode)) return path;
  return std::move(path) + "/memacct-" + std::to_string(::getpid()) + "-" +
         std::to_string(wall_ns() / 1'000'000'000U) + ".box";
}

template <std::size_t Bytes>
std::size_t put(std::array<char, Bytes>& place, std::string_view text) noexcept {
  auto const size = std::min(text.size(), Bytes);
  std::copy_n(text.begin(), size, place.begin());
  return size;
}

/// What can be done without: empty if it is not there.
std::string text_of(char const* path) {
  try {
    return read_optional_file(path).value_or("");
  } catch (SourceError const&) {
    return "";
  }
}

std::string_view first_line(std::string_view text) noexcept {
  return text.substr(0, text.find('\n'));
}

std::uint64_t random_salt() noexcept {
  std::uint64_t salt = 0;
  // An old kernel without it, or one that has no randomness yet: the time is different enough.
  if (::getrandom(&salt, sizeof salt, GRND_NONBLOCK) != sizeof salt) {
    salt = monotonic_ns() ^ wall_ns() << 20U;
  }
  return salt;
}

void describe_process(RecordingHeader& header) {
  header.pid = static_cast<std::uint32_t>(::getpid());
  auto const stat = parse_stat(text_of("/proc/self/stat"));
  header.start_ticks = stat ? stat->start_ticks : 0;
  struct stat space{};
  if (::stat("/proc/self/ns/pid", &space) == 0) header.pid_namespace = space.st_ino;
  auto const boot_id = text_of("/proc/sys/kernel/random/boot_id");
  put(header.boot_id, first_line(boot_id));
  if (::gethostname(header.host.data(), header.host.size()) != 0) header.host.fill('\0');
  auto const command = text_of("/proc/self/cmdline");
  header.command_bytes = static_cast<std::uint32_t>(put(header.command_line, command));
}

}  // namespace

std::shared_ptr<Recorder> Recorder::create(std::string path, RecorderOptions const& options) {
  if (!std::has_single_bit(options.host_capacity) ||
      !std::has_single_bit(options.device_capacity)) {
    throw std::invalid_argument("a recording's capacities are powers of two");
  }
  // In a child of fork() it is left where it is: its thread is not there, but is waited for by the
  // destructor of what it waits on, and its addresses may be another mapping's by now.
  auto const destroy = [](Recorder* recorder) {
    if (recorder->ours()) delete recorder;
  };
  std::shared_ptr<Recorder> recorder(new Recorder(file_of(std::move(path)), options), destroy);
  if (options.sync_period_ns != 0) recorder->start_syncing(options.sync_period_ns);
  return recorder;
}

Recorder::Recorder(std::string path, RecorderOptions const& options)
    : path_(std::move(path)), generation_(fork_generation()), salt_(random_salt()) {
  bytes_count_ =
      place_rings({kKeptCapacity, options.host_capacity, options.device_capacity}, places_);
  RecordingFile file(path_, bytes_count_);
  map(file.fd());
  try {
    kept_ = std::make_unique<RingWriter>(ring(RecordingRing::kKept), salt_);
    write_header(options);
    // The name must not reach the disk before what it names.
    if (::fdatasync(file.fd()) != 0) throw SourceReadError(path_, "it cannot be flushed", errno);
    file.publish();
  } catch (...) {
    ::munmap(memory_, bytes_count_);
    throw;
  }
}

void Recorder::map(int fd) {
  // With its pages: recording is not to show as growth of what is recorded.
  auto* const memory =
      ::mmap(nullptr, bytes_count_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (memory == MAP_FAILED) {
    throw SourceReadError(path_, "it cannot be mapped: " + std::generic_category().message(errno),
                          errno);
  }
  // A child must not write into its parent's recording, nor keep its lock.
  if (::madvise(memory, bytes_count_, MADV_DONTFORK) != 0) {
    auto const error = errno;
    ::munmap(memory, bytes_count_);
    throw SourceReadError(path_, "it cannot be kept from children", error);
  }
  memory_ = static_cast<std::byte*>(memory);
}

void Recorder::write_header(RecorderOptions const& options) {
  RecordingHeader header{};
  header.magic = kRecordingMagic;
  header.byte_order = kRecordingByteOrder;
  header.version = kRecordingVersion;
  header.file_bytes = bytes_count_;
  header.salt = salt_;
  header.started_ns = monotonic_ns();
  header.started_wall_ns = wall_ns();
  header.rings = places_;
  describe_process(header);
  put(header.memacct, options.memacct_version);
  header.checksum = struct_checksum(header, 0);
  std::memcpy(memory_, &header, sizeof header);
}

Recorder::~Recorder() {
  finish();
  ::munmap(memory_, bytes_count_);
}

bool Recorder::ours() const noexcept { return fork_generation() == generation_; }

RingView Recorder::ring(RecordingRing which) const {
  if (!ours()) throw std::logic_error("a recording belongs to the process that began it");
  auto const& place = places_[static_cast<std::size_t>(which)];
  return ring_over(bytes().subspan(place.offset), place.capacity);
}

bool Recorder::keep(NoteRecord const& note) noexcept {
  if (!ours()) return false;
  std::lock_guard const guard(mutex_);
  if (kept_->written_count() >= kKeptCapacity) return false;
  kept_->write(pack(note));
  return true;
}

int Recorder::sync() noexcept {
  if (!ours()) return 0;
  return ::msync(memory_, bytes_count_, MS_SYNC) == 0 ? 0 : errno;
}

void Recorder::finish() noexcept {
  if (!ours()) return;
  std::lock_guard const guard(mutex_);
  if (finished_) return;
  auto const syncs = sync_thread_.joinable();
  stop_syncing();
  finished_ = true;
  RecordingEnd end{.ended_ns = monotonic_ns(), .ended_wall_ns = wall_ns(), .checksum = 0};
  end.checksum = struct_checksum(end, salt_);
  std::memcpy(memory_ + kRecordingEndOffset, &end, sizeof end);
  if (syncs) (void)sync();
}

void Recorder::start_syncing(std::uint64_t period_ns) {
  // The program's signals are for its own threads.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  sync_thread_ = std::thread([this, period_ns] {
    std::unique_lock lock(sync_mutex_);
    while (!sync_wakeup_.wait_for(lock, std::chrono::nanoseconds(period_ns),
                                  [this] { return sync_stop_; })) {
      (void)sync();
    }
  });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Recorder::stop_syncing() noexcept {
  if (!sync_thread_.joinable()) return;
  {
    std::lock_guard const guard(sync_mutex_);
    sync_stop_ = true;
  }
  sync_wakeup_.notify_all();
  sync_thread_.join();
}

}  // namespace memacct
