// The core's enums as Python sees them: one of a few strings.
#pragma once
#include <array>
#include <utility>

#include "memacct/host.hpp"
#include "memacct/limits.hpp"
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

template <>
struct EnumNames<LimitSource> {
  static constexpr std::array<std::pair<LimitSource, char const*>, 4> value{
      {{LimitSource::kMachine, "machine"},
       {LimitSource::kCgroup, "cgroup"},
       {LimitSource::kCgroupHigh, "cgroup_high"},
       {LimitSource::kCgroupMemsw, "cgroup_memsw"}}};
};

}  // namespace memacct::bindings

template <>
struct pybind11::detail::type_caster<memacct::HostTier>
    : memacct::bindings::EnumCaster<memacct::HostTier> {};
template <>
struct pybind11::detail::type_caster<memacct::LimitSource>
    : memacct::bindings::EnumCaster<memacct::LimitSource> {};
