// The driver calls of one reading, made bare: per device the three lists, the memory, the three
// lists again. Nothing is looked at, nothing is kept.
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

typedef int ListFunction(void*, unsigned*, void*);

enum { kMostDevices = 16, kRecords = 4096 };

static void* g_devices[kMostDevices];
static unsigned g_count;
static ListFunction* g_lists[3];
static int (*g_memory)(void*, void*);
static uint64_t g_records[kRecords * 4];

// Loads `library` and finds its devices; returns their number, or -1.
int bare_open(char const* library) {
  void* const handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (handle == NULL) return -1;
  int (*init)(void) = (int (*)(void))dlsym(handle, "nvmlInit_v2");
  int (*count)(unsigned*) = (int (*)(unsigned*))dlsym(handle, "nvmlDeviceGetCount_v2");
  int (*by_index)(unsigned, void**) =
      (int (*)(unsigned, void**))dlsym(handle, "nvmlDeviceGetHandleByIndex_v2");
  g_lists[0] = (ListFunction*)dlsym(handle, "nvmlDeviceGetComputeRunningProcesses_v2");
  g_lists[1] = (ListFunction*)dlsym(handle, "nvmlDeviceGetGraphicsRunningProcesses_v2");
  g_lists[2] = (ListFunction*)dlsym(handle, "nvmlDeviceGetMPSComputeRunningProcesses_v2");
  g_memory = (int (*)(void*, void*))dlsym(handle, "nvmlDeviceGetMemoryInfo_v2");
  if (!init || !count || !by_index || !g_lists[0] || !g_lists[1] || !g_lists[2] || !g_memory)
    return -1;
  if (init() != 0 || count(&g_count) != 0 || g_count > kMostDevices) return -1;
  for (unsigned i = 0; i < g_count; ++i)
    if (by_index(i, &g_devices[i]) != 0) return -1;
  return (int)g_count;
}

static int read_lists(void* device) {
  int failed = 0;
  for (int kind = 0; kind < 3; ++kind) {
    unsigned count = kRecords;
    failed |= g_lists[kind](device, &count, g_records);
  }
  return failed;
}

// Reads all devices `rounds` times; 0 if no call failed.
int bare_read(unsigned rounds) {
  int failed = 0;
  for (unsigned round = 0; round < rounds; ++round) {
    for (unsigned i = 0; i < g_count; ++i) {
      uint64_t memory[5] = {0x02000028};
      failed |= read_lists(g_devices[i]);
      failed |= g_memory(g_devices[i], memory);
      failed |= read_lists(g_devices[i]);
    }
  }
  return failed;
}
