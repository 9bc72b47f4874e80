// The floor of reading this process's memory: one pread of a kept fd, and nothing else.
// bench_snapshot.py compiles it and calls it through ctypes.
#define _GNU_SOURCE
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

static long long now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (long long)now.tv_sec * 1000000000LL + now.tv_nsec;
}

int bare_open(char const* path) { return open(path, O_RDONLY | O_CLOEXEC); }

/// Nanoseconds that `count` reads of the whole file take together; -1 if one fails.
long long bare_pread_batch_ns(int fd, int count) {
  char buffer[8192];
  long long const start = now_ns();
  for (int i = 0; i < count; ++i) {
    if (pread(fd, buffer, sizeof buffer, 0) <= 0) return -1;
  }
  return now_ns() - start;
}
