// Reads the headers of fat binaries, which NVIDIA does not document: each image's kind and
// capability (checked against cuobjdump's listings of CUDA 12 and 13 libraries).
#include "fatbin.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

namespace memacct::sim {

struct FatBinary {
  void const* wrapper;
};

namespace {

constexpr uint32_t kWrapperMagic = 0x466243b1;
constexpr uint32_t kMagic = 0xba55ed50;
constexpr uint16_t kPtx = 1;
constexpr uint16_t kElf = 2;
constexpr uint64_t kForOneCapability = 0x100000;  // sm_90a

struct Wrapper {
  uint32_t magic, version;
  char const* data;
  void const* more;
};
struct Header {
  uint32_t magic;
  uint16_t version, header_bytes;
  uint64_t bytes;
};
struct Image {
  uint16_t kind, version;
  uint32_t header_bytes;
  uint64_t bytes;
  uint32_t compressed_bytes, options;
  uint16_t minor, major;
  uint32_t capability;
  uint32_t name_offset, name_bytes;
  uint64_t flags;
};
static_assert(sizeof(Image) == 48);

bool runs(Image const& image, int capability) {
  auto const made_for = static_cast<int>(image.capability);
  if ((image.flags & kForOneCapability) != 0) return made_for == capability;
  if (image.kind == kPtx) return made_for <= capability;
  return made_for / 10 == capability / 10 && made_for <= capability;
}

std::optional<Code> best_code(FatBinary const& binary, int capability) {
  constexpr Code kNone{0, 0};
  Code elf = kNone, ptx = kNone;
  auto const* const wrapper = static_cast<Wrapper const*>(binary.wrapper);
  if (wrapper == nullptr || wrapper->magic != kWrapperMagic) return Code{capability, capability};
  Header header;
  std::memcpy(&header, wrapper->data, sizeof header);
  if (header.magic != kMagic) return Code{capability, capability};
  char const* const end = wrapper->data + header.header_bytes + header.bytes;
  for (char const* at = wrapper->data + header.header_bytes; at + sizeof(Image) <= end;) {
    Image image;
    std::memcpy(&image, at, sizeof image);
    auto const made_for = static_cast<int>(image.capability);
    if (image.kind == kElf && runs(image, capability) && made_for > elf.binary)
      elf = {made_for, made_for};
    // The driver compiles it for the device.
    if (image.kind == kPtx && runs(image, capability) && made_for > ptx.ptx)
      ptx = {capability, made_for};
    at += image.header_bytes + image.bytes;
  }
  if (elf.binary != 0) return elf;
  if (ptx.binary != 0) return ptx;
  return std::nullopt;
}

// Never destroyed: libraries come and go.
struct Functions {
  std::mutex mutex;
  bool sorted = true;
  std::vector<std::pair<void const*, FatBinary*>> of;  // a hundred thousand: no map of nodes
  static Functions& get() {
    static auto* const functions = new Functions;
    return *functions;
  }
};

FatBinary* binary_of(void const* function) {
  Functions& functions = Functions::get();
  std::lock_guard const guard{functions.mutex};
  // Of two that were registered at one address the later one is there: the first was unloaded.
  if (!functions.sorted)
    std::stable_sort(functions.of.begin(), functions.of.end(),
                     [](auto const& one, auto const& other) { return one.first < other.first; });
  functions.sorted = true;
  auto const after =
      std::upper_bound(functions.of.begin(), functions.of.end(), function,
                       [](void const* wanted, auto const& known) { return wanted < known.first; });
  if (after == functions.of.begin() || std::prev(after)->first != function) return nullptr;
  return std::prev(after)->second;
}

}  // namespace

FatBinary* fat_binary(void const* wrapper) { return new FatBinary{wrapper}; }

void function_of(FatBinary* binary, void const* function) {
  Functions& functions = Functions::get();
  std::lock_guard const guard{functions.mutex};
  functions.of.emplace_back(function, binary);
  functions.sorted = false;
}

std::optional<Code> code_for(void const* function, int capability) {
  FatBinary const* const binary = binary_of(function);
  if (binary == nullptr) return Code{capability, capability};
  thread_local FatBinary const* last_binary = nullptr;
  thread_local int last_capability = 0;
  thread_local std::optional<Code> last_code;
  if (binary == last_binary && capability == last_capability) return last_code;
  last_binary = binary;
  last_capability = capability;
  last_code = best_code(*binary, capability);
  return last_code;
}

}  // namespace memacct::sim
