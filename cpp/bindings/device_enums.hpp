// The device readings' enums as Python sees them: one of a few strings.
#pragma once
#include <array>
#include <utility>

#include "memacct/device.hpp"
#include "structs.hpp"

namespace memacct::bindings {

template <>
struct EnumNames<AttributionSource> {
  static constexpr std::array<std::pair<AttributionSource, char const*>, 6> value{
      {{AttributionSource::kPid, "pid"},
       {AttributionSource::kNspid, "nspid"},
       {AttributionSource::kFingerprint, "fingerprint"},
       {AttributionSource::kBroker, "broker"},
       {AttributionSource::kAllocatorBound, "allocator_bound"},
       {AttributionSource::kNone, "none"}}};
};

template <>
struct EnumNames<Owner> {
  static constexpr std::array<std::pair<Owner, char const*>, 4> value{
      {{Owner::kOwn, "own"},
       {Owner::kTree, "tree"},
       {Owner::kForeign, "foreign"},
       {Owner::kUnknown, "unknown"}}};
};

template <>
struct EnumNames<MemorySource> {
  static constexpr std::array<std::pair<MemorySource, char const*>, 3> value{
      {{MemorySource::kNvmlV2, "nvml_v2"},
       {MemorySource::kNvmlV1, "nvml_v1"},
       {MemorySource::kCuda, "cuda"}}};
};

template <>
struct EnumNames<DeviceSet> {
  static constexpr std::array<std::pair<DeviceSet, char const*>, 2> value{
      {{DeviceSet::kAuto, "auto"}, {DeviceSet::kAll, "all"}}};
};

template <>
struct EnumNames<DriverPresence> {
  static constexpr std::array<std::pair<DriverPresence, char const*>, 3> value{
      {{DriverPresence::kAbsent, "absent"},
       {DriverPresence::kUninitialised, "uninitialised"},
       {DriverPresence::kInitialised, "initialised"}}};
};

}  // namespace memacct::bindings

namespace pybind11::detail {

template <>
struct type_caster<memacct::AttributionSource>
    : memacct::bindings::EnumCaster<memacct::AttributionSource> {};
template <>
struct type_caster<memacct::Owner> : memacct::bindings::EnumCaster<memacct::Owner> {};
template <>
struct type_caster<memacct::MemorySource> : memacct::bindings::EnumCaster<memacct::MemorySource> {};
template <>
struct type_caster<memacct::DeviceSet> : memacct::bindings::EnumCaster<memacct::DeviceSet> {};
template <>
struct type_caster<memacct::DriverPresence>
    : memacct::bindings::EnumCaster<memacct::DriverPresence> {};

}  // namespace pybind11::detail
