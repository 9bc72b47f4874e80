// The kernels that a cubin (an ELF file of NVIDIA's) or a text of PTX defines, by name.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace memacct::sim {

/// In the order of the image; empty if it is of another kind.
///
/// `size` is that of a file that was read; of an image in memory the driver is not told one, and
/// its own headers must be believed.
[[nodiscard]] std::vector<std::string> kernel_names(char const* image, size_t size);

}  // namespace memacct::sim
