// A reading of this process's host memory as a ring's record.
#pragma once
#include <cstdint>

#include "memacct/host.hpp"
#include "memacct/sample_record.hpp"

namespace memacct {

[[nodiscard]] inline HostRecord host_record(HostMemory const& host, std::uint64_t taken_ns,
                                            std::uint64_t span_ns) noexcept {
  return {.taken_ns = taken_ns,
          .span_ns = span_ns,
          .pid = static_cast<std::uint32_t>(host.pid),
          .vms_bytes = host.vms_bytes,
          .rss_bytes = host.rss_bytes,
          .shared_bytes = host.shared_bytes,
          .rss_anon_bytes = host.rss_anon_bytes,
          .rss_file_bytes = host.rss_file_bytes,
          .rss_shmem_bytes = host.rss_shmem_bytes,
          .swap_bytes = host.swap_bytes,
          .hugetlb_bytes = host.hugetlb_bytes,
          .locked_bytes = host.locked_bytes,
          .pinned_bytes = host.pinned_bytes,
          .peak_rss_bytes = host.peak_rss_bytes};
}

}  // namespace memacct
