// What a timeline does at every entry: a reading as JSON, and a line to a file.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "memacct/host.hpp"

namespace memacct {

/// The known terms of a reading as the inside of a JSON object: "vms_bytes":1,"rss_bytes":2.
/// Without the tier and the pid, which do not change, and without what no difference is taken of
/// (peak_vms_bytes) or others tell (shared_bytes = file + shmem).
[[nodiscard]] std::string host_terms_json(HostMemory const& host);

/// Appends `line` to the file that `fd` was opened for, with one write.
///
/// @param device, inode: that file's. A program that has closed all its descriptors may have
///   given the number to another file, which must not get our lines.
/// @returns the bytes written, or -errno; -EBADF also if the number is another file's now.
/// Cost: two system calls.
[[nodiscard]] std::int64_t append_line(int fd, std::uint64_t device, std::uint64_t inode,
                                       std::string_view line) noexcept;

}  // namespace memacct
