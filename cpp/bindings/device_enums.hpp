// The device readings' enums as Python sees them: one of a few strings.
#pragma once
#include <array>
#include <string>
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

/// The names of a set of lists, in the order of their bits.
inline constexpr std::array<std::pair<nvml::ListKind, char const*>, 3> kListKindNames{
    {{nvml::kCompute, "compute"}, {nvml::kGraphics, "graphics"}, {nvml::kMps, "mps"}}};

template <>
struct EnumNames<MemorySource> {
  static constexpr std::array<std::pair<MemorySource, char const*>, 4> value{
      {{MemorySource::kNvmlV2, "nvml_v2"},
       {MemorySource::kNvmlV1, "nvml_v1"},
       {MemorySource::kCuda, "cuda"},
       {MemorySource::kUnified, "unified"}}};
};

template <>
struct EnumNames<UnifiedKind> {
  static constexpr std::array<std::pair<UnifiedKind, char const*>, 2> value{
      {{UnifiedKind::kIntegrated, "integrated"}, {UnifiedKind::kCoherent, "coherent"}}};
};

template <>
struct EnumNames<FreeSource> {
  static constexpr std::array<std::pair<FreeSource, char const*>, 3> value{
      {{FreeSource::kCuda, "cuda"},
       {FreeSource::kHostAvailable, "host_available"},
       {FreeSource::kHostFree, "host_free"}}};
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
/// A tuple of names.
template <>
struct type_caster<memacct::ListKinds> {
  PYBIND11_TYPE_CASTER(memacct::ListKinds, const_name("tuple[str, ...]"));

  bool load(handle source, bool /*convert*/) {
    if (!isinstance<sequence>(source) || isinstance<str>(source)) return false;
    for (auto const item : reinterpret_borrow<sequence>(source)) {
      if (!isinstance<str>(item)) return false;
      auto const wanted = item.cast<std::string>();
      unsigned bit = 0;
      for (auto const& [kind, name] : memacct::bindings::kListKindNames) {
        if (wanted == name) bit = kind;
      }
      if (bit == 0) return false;
      value.bits |= bit;
    }
    return true;
  }

  static handle cast(memacct::ListKinds source, return_value_policy /*policy*/, handle /*parent*/) {
    list names;
    for (auto const& [kind, name] : memacct::bindings::kListKindNames) {
      if ((source.bits & kind) != 0) names.append(name);
    }
    return tuple(names).release();
  }
};
template <>
struct type_caster<memacct::MemorySource> : memacct::bindings::EnumCaster<memacct::MemorySource> {};
template <>
struct type_caster<memacct::UnifiedKind> : memacct::bindings::EnumCaster<memacct::UnifiedKind> {};
template <>
struct type_caster<memacct::FreeSource> : memacct::bindings::EnumCaster<memacct::FreeSource> {};
template <>
struct type_caster<memacct::DeviceSet> : memacct::bindings::EnumCaster<memacct::DeviceSet> {};
template <>
struct type_caster<memacct::DriverPresence>
    : memacct::bindings::EnumCaster<memacct::DriverPresence> {};

}  // namespace pybind11::detail
