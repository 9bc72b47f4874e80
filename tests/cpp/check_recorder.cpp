// What is left of a recording: of killed writers, of a running one, of files that were changed.
//   check_recorder known FOLDER         making files, locks, forks, ends
//   check_recorder damage FOLDER        every byte of the header and of some slots, every length
//   check_recorder kill FOLDER RUNS     SIGKILL at any moment loses at most the last record
//   check_recorder live FOLDER RECORDS  no torn record is read beside a writer at full speed
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "fuzz_check.hpp"
#include "memacct/error.hpp"
#include "memacct/recorder.hpp"
#include "memacct/recording.hpp"
#include "memacct/recording_file.hpp"

namespace {

using namespace memacct;

using Bytes = std::vector<std::byte>;

RingPayload numbered(std::uint64_t number) {
  RingPayload payload;
  for (std::size_t i = 0; i < payload.size(); ++i) payload[i] = number * 31 + i;
  return payload;
}

Bytes read_all(std::string const& path) {
  std::ifstream file(path, std::ios::binary);
  CHECK(file);
  Bytes bytes(std::filesystem::file_size(path));
  file.read(reinterpret_cast<char*>(bytes.data()), std::ssize(bytes));
  CHECK(file);
  return bytes;
}

RecorderOptions small(std::size_t capacity = 8) {
  return {.host_capacity = capacity, .device_capacity = capacity, .memacct_version = "1.2.3"};
}

bool throws_invalid(std::function<void()> const& call) {
  try {
    call();
  } catch (std::invalid_argument const&) {
    return true;
  }
  return false;
}

/// The errno of the SourceReadError that `call` throws; 0 if it throws none.
int read_error(std::function<void()> const& call) {
  try {
    call();
  } catch (SourceReadError const& error) {
    return error.error_number();
  }
  return 0;
}

/// Runs `body` in a forked child. @returns its exit status, or minus the signal that ended it.
int in_child(std::function<int()> const& body) {
  auto const pid = ::fork();
  CHECK(pid >= 0);
  if (pid == 0) ::_exit(body());
  int status = 0;
  CHECK(::waitpid(pid, &status, 0) == pid);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

// ---- known answers

void tells_what_was_written(std::string const& path) {
  auto const recorder = Recorder::create(path, small());
  RingWriter host(recorder->ring(RecordingRing::kHost), recorder->salt());
  for (std::uint64_t n = 1; n <= 11; ++n) host.write(numbered(n));
  CHECK(recorder->keep({.taken_ns = 5, .kind = NoteKind::kDevice, .number = 3, .text = "GPU-1"}));
  CHECK(is_being_recorded(path));
  auto found = parse_recording(read_all(path), path);
  CHECK(found.pid == static_cast<std::uint32_t>(::getpid()) && !found.ended_ns && !found.cut_off);
  CHECK(found.start_ticks && found.pid_namespace && found.boot_id.size() == 36);
  CHECK(found.memacct_version == "1.2.3" && !found.host.empty());
  CHECK(found.command_line.find("known") != std::string::npos);
  auto const& ring = found.ring(RecordingRing::kHost);
  CHECK(ring.records.size() == 8 && ring.records.front().number == 4);
  CHECK(ring.records.back().payload == numbered(11) && ring.overwritten_count == 3);
  auto const& kept = found.ring(RecordingRing::kKept);
  CHECK(kept.records.size() == 1);
  CHECK(std::get<NoteRecord>(*unpack(kept.records[0].payload)).text.view() == "GPU-1");
  struct stat made{};
  CHECK(::stat(path.c_str(), &made) == 0 && (made.st_mode & 0777) == 0600);
  CHECK(made.st_blocks * 512 >= made.st_size);  // no holes
  recorder->finish();
  recorder->finish();
  found = parse_recording(read_all(path), path);
  CHECK(found.ended_ns >= found.started_ns && found.ended_wall_ns);
}

void keeps_no_more_than_there_is_room_for(std::string const& path) {
  auto const recorder = Recorder::create(path, small());
  for (int i = 0; i < 128; ++i) CHECK(recorder->keep({.value = 7}));
  CHECK(!recorder->keep({.value = 8}));
  auto const found = parse_recording(read_all(path), path);
  CHECK(found.ring(RecordingRing::kKept).records.size() == 128);
}

void one_writer(std::string const& path) {
  auto recorder = Recorder::create(path, small());
  auto const salt = recorder->salt();
  // From this process or another: it is in use.
  CHECK(read_error([&] { (void)Recorder::create(path, small()); }) == EBUSY);
  CHECK(in_child([&] {
          return read_error([&] { (void)Recorder::create(path, small()); }) == EBUSY ? 0 : 1;
        }) == 0);
  CHECK(parse_recording(read_all(path), path).ring(RecordingRing::kHost).records.empty());
  // Ended, though its memory is still there: the next one may begin, and the old one is kept.
  recorder->finish();
  auto const second = Recorder::create(path, small());
  CHECK(second->salt() != salt && ::access((path + ".1").c_str(), F_OK) == 0);
  CHECK(parse_recording(read_all(path + ".1"), path).ended_ns);
  CHECK(!parse_recording(read_all(path), path).ended_ns);
}

void leaves_others_alone(std::string const& folder) {
  auto const path = folder + "/mine.txt";
  std::ofstream(path) << "a letter";
  CHECK(throws_invalid([&] { (void)Recorder::create(path, small()); }));
  CHECK(read_all(path).size() == 8);
  auto const pipe = folder + "/pipe";
  CHECK(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(throws_invalid([&] { (void)Recorder::create(pipe, small()); }));
  auto const link = folder + "/link";
  CHECK(::symlink(path.c_str(), link.c_str()) == 0);
  CHECK(throws_invalid([&] { (void)Recorder::create(link, small()); }));
  auto const empty = folder + "/empty";
  std::ofstream(empty).close();
  (void)Recorder::create(empty, small());
  CHECK(throws_invalid([&] { (void)Recorder::create(folder + "/x", small(12)); }));
  CHECK(read_error([&] { (void)Recorder::create(folder + "/none/x", small()); }) == ENOENT);
  auto const unnamed = Recorder::create(folder, small());
  CHECK(unnamed->path().starts_with(folder + "/memacct-") && unnamed->path().ends_with(".box"));
}

void too_large_is_an_error_not_a_signal(std::string const& path) {
  auto const status = in_child([&] {
    ::signal(SIGXFSZ, SIG_DFL);
    rlimit const limit{10'000, 10'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    return read_error([&] { (void)Recorder::create(path, small()); }) == EFBIG ? 0 : 1;
  });
  CHECK(status == 0 && ::access(path.c_str(), F_OK) != 0);
}

/// On a small disk of our own, where mounting is allowed.
void full_disk_is_an_error_at_the_start(std::string const& folder) {
  constexpr int kNotAllowed = 77;
  auto const status = in_child([&] {
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("memacct", folder.c_str(), "tmpfs", 0, "size=64k") != 0) {
      return kNotAllowed;
    }
    auto const path = folder + "/recording";
    auto const code = read_error([&] { (void)Recorder::create(path, small(1024)); });
    // Nothing is left, also not under the temporary name.
    return code == ENOSPC && std::filesystem::is_empty(folder) ? 0 : 1;
  });
  if (status == kNotAllowed) std::printf("a full disk was not tested: no right to mount one\n");
  CHECK(status == 0 || status == kNotAllowed);
}

void a_child_does_not_write(std::string const& path) {
  auto const recorder = Recorder::create(path, {.sync_period_ns = 1'000'000});
  RingWriter host(recorder->ring(RecordingRing::kHost), recorder->salt());
  host.write(numbered(1));
  auto* const child_recorder = new std::shared_ptr<Recorder>(recorder);
  CHECK(in_child([&] {
          if (recorder->ours() || recorder->keep({.value = 1})) return 1;
          recorder->finish();
          (void)recorder->sync();
          child_recorder->reset();
          try {
            (void)recorder->ring(RecordingRing::kHost);
          } catch (std::logic_error const&) {
            return 0;
          }
          return 2;
        }) == 0);
  delete child_recorder;
  CHECK(recorder->ours() && recorder->sync() == 0);
  auto const found = parse_recording(read_all(path), path);
  CHECK(!found.ended_ns && found.ring(RecordingRing::kKept).records.empty());
  CHECK(found.ring(RecordingRing::kHost).records.size() == 1);
  // The memory itself is not there: a stray write ends the child, not the recording.
  CHECK(in_child([&] {
          ::signal(SIGSEGV, SIG_DFL);
          host.write(numbered(2));
          return 0;
        }) != 0);
  CHECK(parse_recording(read_all(path), path).ring(RecordingRing::kHost).records.size() == 1);
}

/// The writer's children neither keep its lock nor look like it.
void a_child_that_stays_does_not_look_like_the_writer(std::string const& path) {
  int ends[2];
  CHECK(::pipe(ends) == 0);
  CHECK(in_child([&] {
          auto const recorder = Recorder::create(path, small());
          if (::fork() == 0) {
            char byte = 0;
            ::close(ends[1]);
            (void)!::read(ends[0], &byte, 1);
            ::_exit(0);
          }
          // Programs that turn into daemons close all their descriptors.
          for (int fd = 3; fd < 64; ++fd) ::close(fd);
          return is_being_recorded(path) ? 0 : 1;
        }) == 0);
  CHECK(!is_being_recorded(path));
  ::close(ends[0]);
  ::close(ends[1]);
}

void known(std::string const& folder) {
  tells_what_was_written(folder + "/first");
  keeps_no_more_than_there_is_room_for(folder + "/notes");
  one_writer(folder + "/one");
  leaves_others_alone(folder);
  too_large_is_an_error_not_a_signal(folder + "/large");
  full_disk_is_an_error_at_the_start(folder);
  a_child_does_not_write(folder + "/forked");
  a_child_that_stays_does_not_look_like_the_writer(folder + "/parent");
}

// ---- damage

/// Every record of `found` is as it was written.
void check_records(Recording const& found) {
  for (auto const which : {RecordingRing::kHost, RecordingRing::kDevices}) {
    std::uint64_t last = 0;
    for (auto const& [number, payload] : found.ring(which).records) {
      CHECK(number > last && payload == numbered(number));
      last = number;
    }
  }
}

std::optional<Recording> parsed(Bytes const& bytes) {
  try {
    auto const found = parse_recording(bytes, "bytes");
    check_records(found);
    return found;
  } catch (SourceFormatError const& error) {
    CHECK(error.source() == "bytes" && !error.reason().empty());
    return std::nullopt;
  }
}

void damage(std::string const& folder) {
  auto const path = folder + "/whole";
  {
    auto const recorder = Recorder::create(path, small());
    RingWriter host(recorder->ring(RecordingRing::kHost), recorder->salt());
    for (std::uint64_t n = 1; n <= 12; ++n) host.write(numbered(n));
    recorder->finish();
  }
  auto const whole = read_all(path);
  CHECK(parsed(whole)->ring(RecordingRing::kHost).records.size() == 8);
  auto bytes = whole;
  for (std::size_t at = 0; at < kRecordingPageBytes; ++at) {
    bytes[at] ^= std::byte{0x10};
    auto const found = parsed(bytes);
    CHECK(found.has_value() == (at >= kRecordingEndOffset));
    auto const in_end = at >= kRecordingEndOffset && at < kRecordingEndOffset + 24;
    if (found) CHECK(found->ended_ns.has_value() == !in_end);
    bytes[at] = whole[at];
  }
  RecordingHeader header;
  std::memcpy(&header, whole.data(), sizeof header);
  auto const slots = header.rings[1].offset + sizeof(RingHead);
  for (std::size_t at = slots; at < slots + 3 * sizeof(RingSlot); ++at) {
    for (auto const flip : {0x01, 0x80}) {
      bytes[at] ^= static_cast<std::byte>(flip);
      auto const found = parsed(bytes);
      auto const& ring = found->ring(RecordingRing::kHost);
      CHECK(ring.records.size() == 7 && ring.damaged_count + ring.torn_count == 1);
      bytes[at] = whole[at];
    }
  }
  // Cut off anywhere: byte by byte in the header and in some slots, and at every page.
  for (std::size_t size = 0; size < whole.size(); ++size) {
    if (size > kRecordingPageBytes && (size < slots || size > slots + 512) && size % 512 != 0) {
      continue;
    }
    auto const found = parsed({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)});
    CHECK(found.has_value() == (size >= kRecordingPageBytes));
    if (!found) continue;
    auto const there = size < slots ? 0 : std::min<std::size_t>(8, (size - slots) / 128);
    CHECK(found->cut_off && found->ring(RecordingRing::kHost).records.size() == there);
  }
}

/// A machine that is lost leaves a mixture of pages: new ones, old ones, zeros.
void lost_machine(std::string const& folder) {
  auto const path = folder + "/lost";
  auto const recorder = Recorder::create(path, small(256));
  RingWriter host(recorder->ring(RecordingRing::kHost), recorder->salt());
  std::vector<Bytes> versions;
  for (std::uint64_t n = 1; n <= 900; ++n) {
    host.write(numbered(n));
    if (n % 150 == 0) versions.push_back(read_all(path));
  }
  RecordingHeader header;
  std::memcpy(&header, versions[0].data(), sizeof header);
  auto const slots = header.rings[1].offset + sizeof(RingHead);
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    auto mixed = versions.back();
    std::uint64_t zero_sectors = 0;
    for (auto at = slots; at < slots + 256 * sizeof(RingSlot); at += 512) {
      auto const choice = random() % (versions.size() + 1);
      if (choice == versions.size()) {
        std::fill_n(mixed.begin() + static_cast<std::ptrdiff_t>(at), 512, std::byte{0});
        ++zero_sectors;
      } else {
        std::copy_n(versions[choice].begin() + static_cast<std::ptrdiff_t>(at), 512,
                    mixed.begin() + static_cast<std::ptrdiff_t>(at));
      }
    }
    auto const found = parsed(mixed);
    auto const& ring = found->ring(RecordingRing::kHost);
    CHECK(ring.damaged_count == 0 && ring.torn_count == 0);
    CHECK(ring.records.size() <= 256 - 4 * zero_sectors);
    auto const first = ring.records.front().number;
    auto const last = ring.records.back().number;
    CHECK(ring.missing_count == last - first + 1 - ring.records.size());
    // A disk that tears inside a sector: one slot is half an older record.
    std::uint64_t stamp = 0;
    std::memcpy(&stamp, mixed.data() + slots, sizeof stamp);
    if (stamp == 0) continue;
    for (std::size_t at = 0; at < 64; ++at) mixed[slots + 64 + at] ^= std::byte{1};
    CHECK(parsed(mixed)->ring(RecordingRing::kHost).damaged_count == 1);
  }
}

// ---- writers that are killed, or run

struct Shared {
  std::atomic<std::uint64_t> told{0};
};

Shared& shared_memory() {
  auto* const memory =
      ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED);
  return *new (memory) Shared;
}

[[noreturn]] void write_for_ever(std::string const& path, std::size_t capacity, Shared& shared) {
  auto const recorder = Recorder::create(path, small(capacity));
  RingWriter host(recorder->ring(RecordingRing::kHost), recorder->salt());
  while (true) shared.told.store(host.write(numbered(host.written_count() + 1)));
}

pid_t start_writer(std::string const& path, std::size_t capacity, Shared& shared) {
  shared.told = 0;
  auto const pid = ::fork();
  CHECK(pid >= 0);
  if (pid == 0) write_for_ever(path, capacity, shared);
  while (shared.told == 0) {
    CHECK(::waitpid(pid, nullptr, WNOHANG) == 0);
    ::usleep(100);
  }
  return pid;
}

void kill_writers(std::string const& folder, std::uint64_t runs) {
  auto& shared = shared_memory();
  std::mt19937 random(1);
  std::uint64_t torn_count = 0;
  std::uint64_t written_count = 0;
  auto const path = folder + "/killed";
  for (std::uint64_t run = 0; run < runs; ++run) {
    std::size_t const capacity = std::size_t{1} << (4 + random() % 10);
    auto const pid = start_writer(path, capacity, shared);
    CHECK(run % 8 != 0 || is_being_recorded(path));
    ::usleep(random() % 3000);  // the moment is random: nothing is waited for
    CHECK(::kill(pid, SIGKILL) == 0 && ::waitpid(pid, nullptr, 0) == pid);
    auto const told = shared.told.load();
    auto const found = parse_recording(read_all(path), path);
    check_records(found);
    auto const& ring = found.ring(RecordingRing::kHost);
    auto const last = ring.records.back().number;
    // All that it had told, and at most one that it had no more time to tell of.
    CHECK(last == told || last == told + 1);
    CHECK(ring.missing_count == 0 && ring.damaged_count == 0 && ring.torn_count <= 1);
    CHECK(ring.torn_count == 0 || last == told);
    // The one that it was writing has the place of the oldest.
    auto const lost = last >= capacity ? ring.torn_count : 0;
    CHECK(ring.records.size() == std::min<std::uint64_t>(last, capacity) - lost);
    CHECK(!found.ended_ns && !is_being_recorded(path));
    torn_count += ring.torn_count;
    written_count += last;
  }
  std::printf("%llu writers killed after %llu records, %llu within one\n",
              static_cast<unsigned long long>(runs), static_cast<unsigned long long>(written_count),
              static_cast<unsigned long long>(torn_count));
}

/// By reading the file, as a copy is made.
std::uint64_t read_beside(std::string const& path, std::uint64_t wanted) {
  std::uint64_t seen = 0;
  std::uint64_t damaged = 0;
  while (seen < wanted) {
    auto const found = parse_recording(read_all(path), path);
    check_records(found);
    seen += found.ring(RecordingRing::kHost).records.size();
    damaged += found.ring(RecordingRing::kHost).damaged_count;
  }
  return damaged;
}

/// By mapping it: the stamps tell what is being written, so nothing is ever damaged.
void follow_beside(std::string const& path, std::uint64_t wanted) {
  auto const fd = ::open(path.c_str(), O_RDONLY);
  struct stat made{};
  CHECK(fd >= 0 && ::fstat(fd, &made) == 0);
  auto const size = static_cast<std::size_t>(made.st_size);
  auto* const memory = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  CHECK(memory != MAP_FAILED);
  RecordingHeader header;
  std::memcpy(&header, memory, sizeof header);
  auto const bytes = std::span(static_cast<std::byte*>(memory), size);
  auto const place = header.rings[1];
  RingReader const reader(ring_over(bytes.subspan(place.offset), place.capacity));
  RingCursor cursor(reader, reader.oldest());
  for (std::uint64_t seen = 0; seen < wanted;) {
    auto const payload = cursor.next();
    if (!payload) continue;
    CHECK(*payload == numbered(cursor.next_number() - 1));
    ++seen;
  }
  CHECK(cursor.damaged_count() == 0);
}

void live(std::string const& folder, std::uint64_t wanted) {
  auto& shared = shared_memory();
  auto const path = folder + "/live";
  auto const pid = start_writer(path, 4096, shared);
  auto const damaged = read_beside(path, wanted);
  follow_beside(path, wanted);
  CHECK(is_being_recorded(path));
  CHECK(::kill(pid, SIGKILL) == 0 && ::waitpid(pid, nullptr, 0) == pid);
  std::printf("%llu records read beside %llu writes; %llu changed while the file was read\n",
              static_cast<unsigned long long>(2 * wanted),
              static_cast<unsigned long long>(shared.told.load()),
              static_cast<unsigned long long>(damaged));
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc >= 3);
  std::string const mode = argv[1];
  std::string const folder = argv[2];
  auto const count = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 0;
  if (mode == "known") known(folder);
  if (mode == "damage") {
    damage(folder);
    lost_machine(folder);
  }
  if (mode == "kill") kill_writers(folder, count);
  if (mode == "live") live(folder, count);
}
