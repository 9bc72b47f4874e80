// What of each mapping is resident, without the kernel's walk through every page's account.
#pragma once
#include <cstdint>
#include <optional>

#include "memacct/mapping_table.hpp"
#include "memacct/procmap_query.hpp"

namespace memacct {

/// Reads the mappings of a process (pid 0: this one) by PROCMAP_QUERY (Linux 6.11) and what is
/// present of them by PAGEMAP_SCAN (Linux 6.7). Columns: vms, kernel_page and rss.
/// On a quiescent process rows and rss are those of smaps, to the page. Known exceptions: a
/// private mapping of physical memory (/dev/mem) that was written to, pages that a GPU's driver
/// has moved into the GPU's own memory (HMM), and files on memory that is a disk (DAX) before
/// Linux 6.15: smaps counts the first two and not the third, the scan the other way round.
/// On kernels without the fix of June 2025 to PAGE_IS_PFNZERO, memory under huge pages that was
/// only read (the huge zero page) counts here and not in smaps.
/// @returns nullopt where the kernel does not offer both, or cannot tell a mapping's name
///   (longer than PATH_MAX): detected by asking it.
/// @throws as read_mappings.
/// Cost: 5 ms per GiB of 4 KiB pages and 1 us a mapping; about a quarter of read_mappings.
[[nodiscard]] std::optional<MappingTable> read_residency(std::int32_t pid = 0);

/// The same of files that are open, for tests. @throws as above.
[[nodiscard]] std::optional<MappingTable> read_residency(std::int32_t pid, ProcessFile const& maps,
                                                         ProcessFile const& pagemap);

}  // namespace memacct
