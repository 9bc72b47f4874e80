// Whether a record of the driver's list tells a process's bytes, and what to say where not.
#pragma once
#include <string>

#include "memacct/process_list.hpp"

namespace memacct {

/// A number above 0: 0 and "not available" are no measurements.
[[nodiscard]] inline bool measured(nvml::ProcessRecord const* record) {
  return record != nullptr && record->process_used_bytes.value_or(0) > 0;
}

/// Why a record, that of `who`, is no measurement.
[[nodiscard]] inline std::string what_is_wrong(nvml::ProcessRecord const& record,
                                               char const* who = "this process") {
  return "the driver lists " + std::string(who) + " (pid " + std::to_string(record.pid) +
         (record.process_used_bytes ? ") with 0 bytes, which says nothing"
                                    : ") but does not tell its bytes");
}

}  // namespace memacct
