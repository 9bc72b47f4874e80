// Which machine code of a kernel a device takes: nvcc puts several into a program, each for its
// own compute capability.
#pragma once
#include <optional>

namespace memacct::sim {

struct FatBinary;

/// Capabilities as 90 for 9.0.
struct Code {
  int binary;  // that the machine code is for
  int ptx;     // that it was compiled from
};

/// What __cudaRegisterFatBinary is given; nothing of it is read before one of its kernels is used.
[[nodiscard]] FatBinary* fat_binary(void const* wrapper);
void function_of(FatBinary* binary, void const* function);

/// The best code that a program has of the function for a device; nullopt if none will do, and the
/// device's own for a function that is not known.
[[nodiscard]] std::optional<Code> code_for(void const* function, int capability);

}  // namespace memacct::sim
