/* An audit library (rtld-audit(7)): when the dynamic linker looks for a library whose file
 * name is also in one of the directories of MEMACCT_SIM_PATH, by whatever path, it gets that
 * one. LD_PRELOAD alone does not do it: PyTorch opens NVIDIA's libraries by absolute path,
 * and wheels bundle copies of them under names of their own. */
#define _GNU_SOURCE
#include <limits.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

unsigned la_version(unsigned version) { return version; }

char* la_objsearch(const char* name, uintptr_t* cookie, unsigned flag) {
  static __thread char path[PATH_MAX];
  (void)cookie;
  (void)flag;
  const char* const slash = strrchr(name, '/');
  const char* const base = slash != NULL ? slash + 1 : name;
  const char* directory = getenv("MEMACCT_SIM_PATH");
  if (directory == NULL || strncmp(base, "lib", 3) != 0) return (char*)name;
  while (*directory != '\0') {
    size_t const length = strcspn(directory, ":");
    int const n = snprintf(path, sizeof path, "%.*s/%s", (int)length, directory, base);
    if (length > 0 && n < (int)sizeof path && access(path, R_OK) == 0) return path;
    directory += length;
    if (*directory == ':') ++directory;
  }
  return (char*)name;
}
