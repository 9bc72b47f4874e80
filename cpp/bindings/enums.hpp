// The core's enums as Python sees them: one of a few strings.
#pragma once
#include <array>
#include <utility>

#include "memacct/host.hpp"
#include "structs.hpp"

namespace memacct::bindings {

template <>
struct EnumNames<HostTier> {
  static constexpr std::array<std::pair<HostTier, char const*>, 5> value{
      {{HostTier::kCounters, "counters"},
       {HostTier::kBreakdown, "breakdown"},
       {HostTier::kRollup, "rollup"},
       {HostTier::kResidency, "residency"},
       {HostTier::kMappings, "mappings"}}};
};

}  // namespace memacct::bindings

template <>
struct pybind11::detail::type_caster<memacct::HostTier>
    : memacct::bindings::EnumCaster<memacct::HostTier> {};
