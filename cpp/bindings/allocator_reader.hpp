// Who is asked for the accounts of the host program's caching allocators.
#pragma once
#include <optional>
#include <vector>

#include "memacct/allocator.hpp"

namespace memacct::bindings {

/// What the reader that was set says, or else what memacct._allocators finds. Needs the GIL.
/// @throws py::error_already_set with the set reader's own error.
[[nodiscard]] std::optional<std::vector<AllocatorMemory>> read_allocators();

}  // namespace memacct::bindings
