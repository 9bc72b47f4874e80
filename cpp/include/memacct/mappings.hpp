// Every mapping of a process, read from smaps.
#pragma once
#include <cstdint>

#include "memacct/mapping_table.hpp"

namespace memacct {

/// Reads /proc/<pid>/smaps; pid 0: this process.
///
/// Each piece of the file (about a page of text, five mappings) is of one instant; the whole is
/// not. A mapping that others change meanwhile is in the table as it was when its piece was
/// read; one that moved or was split over two pieces replaces the rows that it overlaps, so that
/// no page counts twice. One that stands still is in it exactly once (the kernel's guarantee).
/// @throws SourceUnavailableError if there is no such process, it may not be read or has no
///   memory of its own left; SourceReadError; SourceFormatError.
/// Cost: that of the kernel's page walk (10 ms per GiB of 4 KiB pages) and formatting (1-2 us a
///   mapping); ours is a tenth of it. Allocates 256 bytes a mapping, twice that
///   while it grows.
/// Source: /proc/<pid>/smaps, and /proc/<pid>/mountinfo where a file's device has no disk.
[[nodiscard]] MappingTable read_mappings(std::int32_t pid = 0);

/// Sets `kind` of every row of a table of that process, with what its mounts tell.
void name_kinds(MappingTable& table, std::int32_t pid);

}  // namespace memacct
