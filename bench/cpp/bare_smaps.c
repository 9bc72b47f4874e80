// The floor of reading a process's mappings: open, read to the end into one buffer, close.
// And mappings and memory to read: bench_mappings.py compiles it and calls it through ctypes.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

// The thread's own time: what a reading costs, whatever else the machine does meanwhile.
static long long now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (long long)now.tv_sec * 1000000000LL + now.tv_nsec;
}

/// Nanoseconds that reading `path` whole takes; the length of its text in `*text_bytes`. -1 if it
/// fails or does not fit. The kernel gives about a page of smaps at a time, however large the
/// buffer is: any reader has to loop.
long long bare_read_ns(char const* path, char* buffer, long long size, long long* text_bytes) {
  long long const start = now_ns();
  int const fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  long long filled = 0;
  ssize_t got = 0;
  while (filled < size && (got = read(fd, buffer + filled, (size_t)(size - filled))) > 0) {
    filled += got;
  }
  close(fd);
  *text_bytes = filled;
  return got == 0 && filled < size ? now_ns() - start : -1;
}

/// Anonymous memory of so many pages, every second one made read-only: as many mappings. The
/// first page of each is touched. NULL if it fails.
void* make_mappings(long long count) {
  long long const page = sysconf(_SC_PAGESIZE);
  size_t const size = (size_t)(count * page);
  char* block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (block == MAP_FAILED) return NULL;
  for (long long i = 0; i < count; ++i) {
    block[i * page] = 1;
    if (i % 2 == 1 && mprotect(block + i * page, (size_t)page, PROT_READ) != 0) return NULL;
  }
  return block;
}

/// Anonymous memory in one mapping, every page of it touched, in pages of the smallest size.
void* make_resident(long long bytes) {
  char* block =
      mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (block == MAP_FAILED) return NULL;
  madvise(block, (size_t)bytes, MADV_NOHUGEPAGE);
  for (long long at = 0; at < bytes; at += sysconf(_SC_PAGESIZE)) block[at] = 1;
  return block;
}

int give_back(void* block, long long bytes) { return munmap(block, (size_t)bytes); }
