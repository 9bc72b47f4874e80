// CUDA_VISIBLE_DEVICES: which devices a process would see, before its driver says so.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace memacct {

/// Indices into `uuids` (the machine's devices in NVML's order), in the order of ordinals.
///
/// The rules, as torch follows them: the first token decides whether all are numbers or
/// UUIDs ("GPU-", "MIG-"); numbers are read like strtoul ("1gpu2" is 1); the first wrong
/// token ends the list; a device named twice empties it; a UUID may be any unambiguous
/// beginning. Pure. Note: CUDA numbers devices fastest first unless CUDA_DEVICE_ORDER is
/// PCI_BUS_ID, so with unlike devices a number is a guess until the driver is initialised.
[[nodiscard]] std::vector<std::size_t> visible_devices(std::string_view value,
                                                       std::vector<std::string_view> const& uuids);

/// The name of the MIG instance at `ordinal`, if that is what `value` has there. NVML enumerates
/// no instances, so they are not among visible_devices()'s. Pure.
[[nodiscard]] std::optional<std::string> mig_name(std::string_view value, std::int64_t ordinal);

}  // namespace memacct
