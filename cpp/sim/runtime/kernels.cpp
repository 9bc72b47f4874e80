// The few kernels that are carried out on the host. They are known by their mangled names
// and argument layouts in PyTorch 2.8 to 2.14.
#include "kernels.hpp"

#include <cstdint>
#include <cstring>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

#include "../core/memory.hpp"

namespace memacct::sim {
namespace {

std::shared_mutex g_mutex;

// The kernels that are carried out. Fills have the form kernel(int count, FillFunctor<T>
// value, std::array<char*, 1> data, ...), and the size of T is kept. Made on first use and never
// destroyed: kernels are registered while libraries load.
struct Known {
  enum { Fill, Cast, ArgMax } what;
  size_t size;  // of a fill's element
};
std::unordered_map<const void*, Known>& known() {
  static auto* map = new std::unordered_map<const void*, Known>;
  return *map;
}

// kernel(int count, functor, std::array<char*, 2> {to, from}, calculator, calculator,
// LoadWithCast, StoreWithCast), each of the last two with a c10::ScalarType and a size.
// Only integers are cast: sizes and token numbers, which the host goes on to read.
void cast_integers(void** args) {
  constexpr int kLimit = 1 << 16;
  int count = *static_cast<int*>(args[0]);
  auto* data = static_cast<char**>(args[2]);
  auto type = [&](int arg) { return *static_cast<int8_t*>(args[arg]); };
  auto size = [](int8_t t) -> size_t {  // uint8, int8, int16, int32, int64
    return t < 0 || t > 4 ? 0 : t < 2 ? 1 : size_t{1} << (t - 1);
  };
  size_t from = size(type(5)), to = size(type(6));
  if (!from || !to || count > kLimit) return;
  for (int i = 0; i < count; ++i) {
    const char* source = data[1] + static_cast<size_t>(i) * from;
    int64_t v = 0;
    memcpy(&v, source, from);
    int shift = static_cast<int>(64 - 8 * from);
    if (type(5) != 0) v = static_cast<int64_t>(static_cast<uint64_t>(v) << shift) >> shift;
    memcpy(data[0] + static_cast<size_t>(i) * to, &v, to);
  }
}

bool on_device(const void* p, size_t bytes) {
  Allocation a;
  return lookup(p, &a) && (a.kind == Kind::Device || a.kind == Kind::Reserved) &&
         reinterpret_cast<uintptr_t>(p) + bytes <= a.base + a.size;
}

// reduce_kernel(ReduceOp<float, ArgMaxOps<float>, unsigned, long>): every result is 0. The
// structure holds ReduceConfig (element size 16, inputs, outputs) at byte 24, then two
// calculators of offsets, whose arrays are mostly not written and hold whatever the stack held
// (addresses of tensors, too), then the source and the destination.
void argmax_of_nothing(void** args) {
  constexpr size_t kConfig = 24, kSource = 1000;
  auto* op = static_cast<const char*>(args[0]);
  int config[3];
  memcpy(config, op + kConfig, sizeof config);
  if (config[0] != 16 || config[2] <= 0 || config[2] > (1 << 16)) return;
  void* data[2];
  memcpy(data, op + kSource, sizeof data);
  size_t bytes = static_cast<size_t>(config[2]) * 8;
  if (on_device(data[0], 1) && on_device(data[1], bytes)) memset(data[1], 0, bytes);
}

// The size of the type that a mangled name starts with; 0 if it is not one we know.
size_t size_of_mangled(const char* t) {
  if (strncmp(t, "N3c104HalfE", 11) == 0 || strncmp(t, "N3c108BFloat16E", 15) == 0) return 2;
  if (t[0] == '\0' || t[1] != 'E') return 0;
  switch (t[0]) {
    case 'b':
    case 'a':
    case 'h':
      return 1;
    case 's':
    case 't':
      return 2;
    case 'i':
    case 'j':
    case 'f':
      return 4;
    case 'l':
    case 'm':
    case 'd':
      return 8;
    default:
      return 0;
  }
}

void fill_elements(char* dst, const char* value, size_t size, size_t count) {
  bool zero = true;
  for (size_t i = 0; i < size; ++i) zero = zero && value[i] == 0;
  if (zero || size == 1) {
    fill(dst, value[0], size * count);
    return;
  }
  static const uint64_t limit = option_bytes("MEMACCT_SIM_FILL_LIMIT_BYTES", 256 * kMiB);
  if (size * count > limit) {
    log("fill of %zu bytes left out", size * count);
    return;
  }
  for (size_t i = 0; i < count; ++i) memcpy(dst + i * size, value, size);
}

}  // namespace

static void remember(const void* func, Known k) {
  std::unique_lock<std::shared_mutex> g(g_mutex);
  known()[func] = k;
}

void kernel_registered(const void* func, const char* name) {
  if (strstr(name, "unrolled_elementwise_kernel") && strstr(name, "direct_copy_kernel_cuda") &&
      strstr(name, "LoadWithCastILi1E"))
    return remember(func, {Known::Cast, 0});
  if (strstr(name, "reduce_kernel") && strstr(name, "ReduceOpIfNS0_9ArgMaxOpsIfEEjl"))
    return remember(func, {Known::ArgMax, 0});
  if (!strstr(name, "vectorized_elementwise_kernel") &&
      !strstr(name, "unrolled_elementwise_kernel"))
    return;
  const char* functor = strstr(name, "11FillFunctorI");
  if (!functor) return;
  size_t size = size_of_mangled(functor + strlen("11FillFunctorI"));
  if (size) remember(func, {Known::Fill, size});
}

void kernel_launched(const void* func, void** args) {
  Known k;
  {
    std::shared_lock<std::shared_mutex> g(g_mutex);
    auto it = known().find(func);
    if (it == known().end()) return;
    k = it->second;
  }
  if (k.what == Known::Cast) return cast_integers(args);
  if (k.what == Known::ArgMax) return argmax_of_nothing(args);
  int count = *static_cast<int*>(args[0]);
  char* data = *static_cast<char**>(args[2]);
  if (count > 0)
    fill_elements(data, static_cast<const char*>(args[1]), k.size, static_cast<size_t>(count));
}

}  // namespace memacct::sim
