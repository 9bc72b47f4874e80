// Counts the allocations of a process that it is preloaded into. C++'s operator new is malloc, too.
#include <stdatomic.h>
#include <stddef.h>

void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

static atomic_ulong g_count;

unsigned long allocations_count(void) { return atomic_load(&g_count); }

void* malloc(size_t size) {
  atomic_fetch_add(&g_count, 1);
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  atomic_fetch_add(&g_count, 1);
  return __libc_calloc(count, size);
}
void* realloc(void* old, size_t size) {
  atomic_fetch_add(&g_count, 1);
  return __libc_realloc(old, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  atomic_fetch_add(&g_count, 1);
  return __libc_memalign(alignment, size);
}
