// Driver API: libraries (context-independent modules) and their kernels, which have the names
// that their images tell and do nothing.
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cubin.hpp"
#include "cuda_abi.hpp"

using namespace memacct::sim;

namespace {

struct Library;

/// A CUkernel, and the CUfunction of it.
struct Kernel {
  std::string name;
  Library* library;
};

struct Library {
  std::mutex mutex;
  std::deque<Kernel> kernels;  // which stay where they are as more are asked for
  size_t enumerable = 0;       // those that the image tells
};

Library* make_library(char const* image, size_t size) {
  auto* const library = new Library;
  for (std::string& name : kernel_names(image, size))
    library->kernels.push_back({std::move(name), library});
  library->enumerable = library->kernels.size();
  return library;
}

// An image may be of a kind that is not read (a compressed fat binary): a kernel that is asked
// for by name is then believed to be there.
Kernel* kernel_of(Library& library, std::string const& name) {
  std::lock_guard const guard{library.mutex};
  for (Kernel& kernel : library.kernels)
    if (kernel.name == name) return &kernel;
  if (library.enumerable != 0) return nullptr;
  library.kernels.push_back({name, &library});
  return &library.kernels.back();
}

constexpr Result kCudaFileNotFound = 301;

}  // namespace

MEMACCT_SIM_EXPORT Result cuLibraryLoadData(Library** library, void const* image, int*, void**,
                                            unsigned, int*, void**, unsigned) {
  DRIVER_ENTRY();
  if (library == nullptr || image == nullptr) return kCudaInvalidValue;
  *library = make_library(static_cast<char const*>(image), SIZE_MAX / 2);
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuLibraryLoadFromFile(Library** library, char const* path, int*, void**,
                                                unsigned, int*, void**, unsigned) {
  DRIVER_ENTRY();
  if (library == nullptr || path == nullptr) return kCudaInvalidValue;
  std::unique_ptr<FILE, int (*)(FILE*)> const file{std::fopen(path, "rbe"), std::fclose};
  if (file == nullptr) return kCudaFileNotFound;
  std::string image;
  char part[65536];
  for (size_t count = 0; (count = std::fread(part, 1, sizeof part, file.get())) > 0;)
    image.append(part, count);
  *library = make_library(image.data(), image.size());
  return kCudaSuccess;
}

// Handles of its kernels may still be held: it is left.
MEMACCT_SIM_EXPORT Result cuLibraryUnload(Library* library) {
  DRIVER_ENTRY();
  return library != nullptr ? kCudaSuccess : kCudaInvalidValue;
}

MEMACCT_SIM_EXPORT Result cuLibraryGetKernelCount(unsigned* count, Library* library) {
  DRIVER_ENTRY();
  if (count == nullptr || library == nullptr) return kCudaInvalidValue;
  *count = static_cast<unsigned>(library->enumerable);
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuLibraryEnumerateKernels(Kernel** kernels, unsigned count,
                                                    Library* library) {
  DRIVER_ENTRY();
  if (kernels == nullptr || library == nullptr) return kCudaInvalidValue;
  for (size_t i = 0; i < count && i < library->enumerable; ++i) kernels[i] = &library->kernels[i];
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuLibraryGetKernel(Kernel** kernel, Library* library, char const* name) {
  DRIVER_ENTRY();
  if (kernel == nullptr || library == nullptr || name == nullptr) return kCudaInvalidValue;
  *kernel = kernel_of(*library, name);
  return *kernel != nullptr ? kCudaSuccess : kCudaNotFound;
}

MEMACCT_SIM_EXPORT Result cuKernelGetFunction(Kernel** function, Kernel* kernel) {
  DRIVER_ENTRY();
  *function = kernel;
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuKernelGetLibrary(Library** library, Kernel* kernel) {
  DRIVER_ENTRY();
  if (library == nullptr || kernel == nullptr) return kCudaInvalidValue;
  *library = kernel->library;
  return kCudaSuccess;
}

MEMACCT_SIM_EXPORT Result cuKernelGetName(char const** name, Kernel* kernel) {
  DRIVER_ENTRY();
  if (name == nullptr || kernel == nullptr) return kCudaInvalidValue;
  *name = kernel->name.c_str();
  return kCudaSuccess;
}
