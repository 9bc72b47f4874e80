// What NVML's answers mean: a device's memory and its address. Pure.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

#include "memacct/nvml_types.hpp"

namespace memacct::nvml {

/// One reading of a device's memory. `device_used_bytes` never includes the reserve.
struct MemoryReading {
  bool has_reserved = false;  // v2
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;
  std::optional<std::uint64_t> device_used_bytes;
  std::optional<std::uint64_t> reserved_bytes;
  bool operator==(MemoryReading const&) const = default;
};

/// Whether a GPU of that compute capability is part of a chip that shares its host's memory:
/// the SoCs' capabilities are no discrete card's. Pure. For processes without the CUDA driver,
/// which tells it (attribute 18).
[[nodiscard]] bool is_integrated_capability(int major, int minor) noexcept;

/// v2's fields by what they add up to. nvml.h (API 13) says total = reserved + used + free;
/// older documentation says that used includes the reserve, so the sum decides. If neither
/// holds, what is in use is unknown. Pure. @returns nullopt if there is no total in it.
[[nodiscard]] std::optional<MemoryReading> interpret(MemoryV2 const& memory);
[[nodiscard]] std::optional<MemoryReading> interpret(MemoryV1 const& memory);

/// "0000:0A:00.0" and "00000000:0a:00.0" are one device. Nullopt if it is no such address.
struct PciAddress {
  unsigned domain = 0, bus = 0, device = 0, function = 0;
  bool operator==(PciAddress const&) const = default;
};
[[nodiscard]] std::optional<PciAddress> parse_pci(std::string_view text);

}  // namespace memacct::nvml
