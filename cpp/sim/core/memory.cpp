// This process's allocations, and what each adds to the device's use.
#include "memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <vector>

#include "device.hpp"

namespace memacct::sim {
namespace {

// Requests of half a page and more count in whole pages; smaller ones share pages.
constexpr size_t kSmallBytes = kPageBytes / 2;
constexpr size_t kSmallUnit = 512;
constexpr size_t kHostPage = 4096;

struct Allocations {
  std::mutex mutex;
  std::map<uintptr_t, Allocation> by_base;

  static Allocations& get() {
    static auto* const instance = new Allocations;
    return *instance;
  }

  Allocation* find(void const* address) {
    auto const at = reinterpret_cast<uintptr_t>(address);
    auto it = by_base.upper_bound(at);
    if (it == by_base.begin()) return nullptr;
    Allocation& candidate = (--it)->second;
    return at < candidate.base + std::max<size_t>(candidate.size, 1) ? &candidate : nullptr;
  }

  void add(void* address, size_t size, Kind kind, int device, Context* context) {
    auto const base = reinterpret_cast<uintptr_t>(address);
    by_base[base] = {base, size, kind, device, context};
  }
};

uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

size_t host_size(size_t bytes) { return round_up(bytes ? bytes : 1, kHostPage); }

void* map_pages(size_t bytes, int protection) {
  void* const p =
      ::mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? nullptr : p;
}

void* map_aligned(size_t bytes, size_t alignment, int protection) {
  auto* const p = static_cast<char*>(map_pages(bytes + alignment, protection));
  if (p == nullptr) return nullptr;
  auto const start = round_up(reinterpret_cast<uintptr_t>(p), alignment);
  size_t const head = start - reinterpret_cast<uintptr_t>(p);
  if (head != 0) ::munmap(p, head);
  ::munmap(reinterpret_cast<char*>(start) + bytes, alignment - head);
  return reinterpret_cast<void*>(start);
}

// The change of a device's use when `context` holds `after` small bytes instead of `before`.
uint64_t pages_between(uint64_t before, uint64_t after) {
  return round_up(after, kPageBytes) - round_up(before, kPageBytes);
}

Listing listing_of(Kind kind) {
  return kind == Kind::Managed ? Listing::Unlisted : Listing::Listed;
}

// The mutex of the allocations must be held.
void give_back(Allocation const& a) {
  if (a.kind == Kind::HostRegistered) return;
  ::munmap(reinterpret_cast<void*>(a.base), host_size(a.size));
  if (a.context == nullptr) return;
  uint64_t cost = round_up(a.size, kPageBytes);
  if (a.size < kSmallBytes && a.kind == Kind::Device) {
    uint64_t const before = a.context->small_bytes;
    a.context->small_bytes -= round_up(a.size, kSmallUnit);
    cost = pages_between(a.context->small_bytes, before);
  }
  uncharge(physical_index(a.device), cost, "free", listing_of(a.kind));
}

bool of_device(Allocation const& a) { return a.kind == Kind::Device || a.kind == Kind::Reserved; }

bool touching(void const* one, void const* other, size_t size) {
  auto const a = reinterpret_cast<uintptr_t>(one);
  auto const b = reinterpret_cast<uintptr_t>(other);
  return a < b + size && b < a + size;
}

// Which of this process's anonymous pages there are, by /proc/self/pagemap (proc(5)).
class PageMap {
 public:
  PageMap() : file_{::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)} {}
  ~PageMap() {
    if (file_ >= 0) ::close(file_);
  }
  PageMap(PageMap const&) = delete;
  PageMap& operator=(PageMap const&) = delete;

  // False if that cannot be told.
  [[nodiscard]] bool never_written(void const* begin, size_t size) const {
    constexpr uint64_t kThere = uint64_t{3} << 62;  // in memory, or swapped out
    constexpr size_t kEntries = kPageBytes / kHostPage;
    std::array<uint64_t, kEntries> entries;
    auto const at = reinterpret_cast<uintptr_t>(begin);
    size_t const first = at / kHostPage;
    size_t const count = (at + size - 1) / kHostPage - first + 1;
    size_t const bytes = count * sizeof(uint64_t);
    if (count > kEntries) return false;
    auto const offset = static_cast<off_t>(first * sizeof(uint64_t));
    if (::pread(file_, entries.data(), bytes, offset) != static_cast<ssize_t>(bytes)) return false;
    return std::none_of(entries.begin(), entries.begin() + static_cast<ptrdiff_t>(count),
                        [](uint64_t entry) { return (entry & kThere) != 0; });
  }

 private:
  int file_;
};

}  // namespace

Status device_alloc(Context* context, size_t bytes, Kind kind, void** out) {
  *out = nullptr;
  if (bytes == 0) return Status::InvalidValue;
  auto& allocations = Allocations::get();
  std::lock_guard const guard{allocations.mutex};
  bool const small = bytes < kSmallBytes && kind == Kind::Device;
  uint64_t const small_after = context->small_bytes + round_up(bytes, kSmallUnit);
  uint64_t const cost =
      small ? pages_between(context->small_bytes, small_after) : round_up(bytes, kPageBytes);
  int const physical = physical_index(context->device);
  if (Status const status = charge(physical, cost, "malloc", listing_of(kind));
      status != Status::Ok)
    return status;
  void* const p = small ? map_pages(host_size(bytes), PROT_READ | PROT_WRITE)
                        : map_aligned(host_size(bytes), kPageBytes, PROT_READ | PROT_WRITE);
  if (p == nullptr) {
    uncharge(physical, cost, "unmalloc", listing_of(kind));
    return Status::OutOfMemory;
  }
  if (small) context->small_bytes = small_after;
  allocations.add(p, bytes, kind, context->device, context);
  *out = p;
  return Status::Ok;
}

Status host_alloc(size_t bytes, void** out) {
  *out = map_pages(host_size(bytes), PROT_READ | PROT_WRITE);
  if (*out == nullptr) return Status::OutOfMemory;
  auto& allocations = Allocations::get();
  std::lock_guard const guard{allocations.mutex};
  allocations.add(*out, bytes, Kind::Host, runtime_device(), nullptr);
  return Status::Ok;
}

Status host_register(void* address, size_t bytes) {
  auto& allocations = Allocations::get();
  std::lock_guard const guard{allocations.mutex};
  allocations.add(address, bytes, Kind::HostRegistered, runtime_device(), nullptr);
  return Status::Ok;
}

Status release(void* address) {
  if (address == nullptr) return Status::Ok;
  auto& allocations = Allocations::get();
  std::lock_guard const guard{allocations.mutex};
  auto const it = allocations.by_base.find(reinterpret_cast<uintptr_t>(address));
  if (it == allocations.by_base.end()) return Status::InvalidValue;
  Allocation const gone = it->second;
  allocations.by_base.erase(it);
  give_back(gone);
  return Status::Ok;
}

bool lookup(void const* address, Allocation* out) {
  auto& allocations = Allocations::get();
  std::lock_guard const guard{allocations.mutex};
  Allocation const* const found = allocations.find(address);
  if (found != nullptr) *out = *found;
  return found != nullptr;
}

Status reserve_range(size_t bytes, size_t alignment, void** out) {
  *out = map_aligned(bytes, std::max<size_t>(alignment, kPageBytes), PROT_NONE);
  if (*out == nullptr) return Status::OutOfMemory;
  auto& allocations = Allocations::get();
  std::lock_guard const guard{allocations.mutex};
  allocations.add(*out, bytes, Kind::Reserved, runtime_device(), nullptr);
  return Status::Ok;
}

Status map_range(void* address, size_t bytes, int device) {
  auto& allocations = Allocations::get();
  std::lock_guard const guard{allocations.mutex};
  Allocation* const range = allocations.find(address);
  if (range == nullptr || range->kind != Kind::Reserved) return Status::InvalidValue;
  range->device = device;
  return ::mprotect(address, bytes, PROT_READ | PROT_WRITE) == 0 ? Status::Ok
                                                                 : Status::InvalidValue;
}

Status unmap_range(void* address, size_t bytes) {
  // A fresh inaccessible mapping drops the contents too.
  void* const p = ::mmap(address, bytes, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  return p == address ? Status::Ok : Status::InvalidValue;
}

void fill(void* target, int byte, size_t size) {
  static uint64_t const limit = option_bytes("MEMACCT_SIM_FILL_LIMIT_BYTES", 256 * kMiB);
  Allocation a;
  if (byte == 0 && size >= kMiB && lookup(target, &a) && a.kind != Kind::HostRegistered) {
    // Whole pages go back to the kernel and read as zero: to zero a KV cache of tens of GiB
    // costs no memory.
    auto* const start = static_cast<char*>(target);
    auto* const end = start + size;
    auto* const low =
        reinterpret_cast<char*>(round_up(reinterpret_cast<uintptr_t>(target), kHostPage));
    auto* const high =
        reinterpret_cast<char*>(reinterpret_cast<uintptr_t>(end) / kHostPage * kHostPage);
    if (low < high && ::madvise(low, static_cast<size_t>(high - low), MADV_DONTNEED) == 0) {
      std::memset(start, 0, static_cast<size_t>(low - start));
      std::memset(high, 0, static_cast<size_t>(end - high));
      return;
    }
  }
  std::memset(target, byte, std::min<size_t>(size, limit));
}

void copy(void* target, void const* source, size_t size) {
  Allocation from, to;
  bool const large = size >= kPageBytes && lookup(source, &from) && lookup(target, &to) &&
                     of_device(from) && of_device(to);
  if (!large) {
    if (size != 0) std::memmove(target, source, size);
    return;
  }
  // Weights that were made up have never been written, and engines lay them out anew: copied byte
  // for byte they would take as much of the host's memory as of the device's.
  if (touching(target, source, size)) {
    std::memmove(target, source, size);
    return;
  }
  PageMap const pages;
  // Parts that share no page of the source: to read one makes its pages look written.
  for (size_t done = 0, part = 0; done < size; done += part) {
    auto* const next = static_cast<char*>(target) + done;
    auto const* const before = static_cast<char const*>(source) + done;
    part = std::min(kPageBytes - reinterpret_cast<uintptr_t>(before) % kPageBytes, size - done);
    if (pages.never_written(before, part)) {
      fill(next, 0, part);
    } else {
      std::memmove(next, before, part);
    }
  }
}

void release_allocations_of(Context const* context) {
  auto& allocations = Allocations::get();
  std::lock_guard const guard{allocations.mutex};
  std::erase_if(allocations.by_base, [context](auto const& entry) {
    if (entry.second.context != context) return false;
    give_back(entry.second);
    return true;
  });
}

void forget_allocations() {
  auto& allocations = Allocations::get();
  new (&allocations.mutex) std::mutex;
  // The child's copies of the pages are left mapped: the parent's pointers stay readable.
  allocations.by_base.clear();
}

}  // namespace memacct::sim
