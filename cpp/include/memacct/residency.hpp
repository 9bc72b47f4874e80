// What of each mapping is resident, without the kernel's walk through every page's account.
#pragma once
#include <cstdint>
#include <optional>

#include "memacct/mapping_table.hpp"

namespace memacct {

/// Reads the mappings of a process (pid 0: this one) by PROCMAP_QUERY (Linux 6.11) and what is
/// present of them by PAGEMAP_SCAN (Linux 6.7). Columns: vms, kernel_page and rss.
/// On a quiescent process rss is that of smaps, to the page.
/// @returns nullopt where the kernel does not offer both: detected by asking it.
/// @throws as read_mappings.
[[nodiscard]] std::optional<MappingTable> read_residency(std::int32_t pid = 0);

}  // namespace memacct
