// The floor of sampling: a thread that sleeps to absolute deadlines and reads one file, and nothing
// else. bench_sampler.py compiles it and calls it through ctypes.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

struct bare_run {
  char const* path;  // "": nothing is read
  long long period_ns;
  long long count;
  long long* late_ns;  // of each tick
  long long cpu_ns;    // of the thread, from its first tick to its last
  int failed;
};

static long long read_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (long long)now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void* run(void* argument) {
  struct bare_run* const this = argument;
  char buffer[256];
  int const fd = *this->path ? open(this->path, O_RDONLY | O_CLOEXEC) : -1;
  prctl(PR_SET_TIMERSLACK, 1UL);
  long long deadline = read_ns(CLOCK_MONOTONIC);
  long long const cpu = read_ns(CLOCK_THREAD_CPUTIME_ID);
  for (long long i = 0; i < this->count; ++i) {
    struct timespec const time = {deadline / 1000000000LL, deadline % 1000000000LL};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, 0);
    this->late_ns[i] = read_ns(CLOCK_MONOTONIC) - deadline;
    if (fd >= 0 && pread(fd, buffer, sizeof buffer, 0) <= 0) this->failed = 1;
    deadline += this->period_ns;
    // Deadlines that have passed are left out, as a sampler does.
    long long const now = deadline + this->late_ns[i] - this->period_ns;
    while (deadline < now) deadline += this->period_ns;
  }
  this->cpu_ns = read_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
  if (fd >= 0) close(fd);
  return 0;
}

/// Runs it on a thread of its own to its end; 0 if all went well.
int bare_sampler(struct bare_run* given) {
  pthread_t thread;
  given->failed = 0;
  if (pthread_create(&thread, 0, run, given) != 0) return 1;
  pthread_join(thread, 0);
  return given->failed;
}
