// The machine's memory, read: what all processes and control groups share.
#pragma once
#include <string>

#include "memacct/system_text.hpp"

namespace memacct {

/// `root` is prepended to every path, for tests on captured trees.
///
/// What is not there or not permitted of pressure, nodes and pools is left out; MemTotal and
/// MemFree must be there.
/// @throws SourceUnavailableError without /proc/meminfo, SourceReadError, SourceFormatError.
/// Cost: one pread of a kept fd, and opens: pressure, the list of nodes, a file each node, a
///   folder, and if there are hugetlb pages up to four files of each size; allocates.
/// Source: /proc/meminfo, /proc/pressure/memory (Linux >= 4.20),
///   /sys/devices/system/node/{online,node*/meminfo}, /sys/kernel/mm/hugepages/*.
[[nodiscard]] SystemMemory read_system(std::string const& root = "");

}  // namespace memacct
