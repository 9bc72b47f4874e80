// Whether a call may be made beside the stream captures that go on.
#pragma once
#include "cuda_abi.hpp"

namespace memacct::sim {

/// True, and the captures are spoilt, if this thread must not allocate or free now. To be asked
/// by what CUDA calls unsafe.
[[nodiscard]] bool harms_capture();

}  // namespace memacct::sim
