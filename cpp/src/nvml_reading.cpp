#include "memacct/nvml_reading.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <utility>

namespace memacct::nvml {

bool is_integrated_capability(int major, int minor) noexcept {
  // Tegra K1, X1, X2, Xavier, Orin, Thor (10.1 until CUDA 13, then 11.0), and GB10.
  constexpr std::array<std::pair<int, int>, 8> kChips{
      {{3, 2}, {5, 3}, {6, 2}, {7, 2}, {8, 7}, {10, 1}, {11, 0}, {12, 1}}};
  return std::find(kChips.begin(), kChips.end(), std::pair(major, minor)) != kChips.end();
}

std::optional<MemoryReading> interpret(MemoryV2 const& memory) {
  if (memory.total == 0 || memory.free > memory.total || memory.reserved > memory.total) {
    return std::nullopt;
  }
  MemoryReading reading{.has_reserved = true,
                        .total_bytes = memory.total,
                        .free_bytes = memory.free,
                        .device_used_bytes = std::nullopt,
                        .reserved_bytes = memory.reserved};
  auto const taken = memory.total - memory.free;
  if (memory.used <= taken && taken - memory.used == memory.reserved) {
    reading.device_used_bytes = memory.used;
  } else if (memory.used == taken && memory.used >= memory.reserved) {
    reading.device_used_bytes = memory.used - memory.reserved;
  }
  return reading;
}

std::optional<MemoryReading> interpret(MemoryV1 const& memory) {
  if (memory.total == 0 || memory.free > memory.total) return std::nullopt;
  // Its `used` includes a reserve of unknown size, so what processes use is unknown.
  return MemoryReading{.has_reserved = false,
                       .total_bytes = memory.total,
                       .free_bytes = memory.free,
                       .device_used_bytes = std::nullopt,
                       .reserved_bytes = std::nullopt};
}

std::optional<PciAddress> parse_pci(std::string_view text) {
  PciAddress address;
  std::string const copy(text);
  if (std::sscanf(copy.c_str(), "%x:%x:%x.%x", &address.domain, &address.bus, &address.device,
                  &address.function) < 3) {
    return std::nullopt;
  }
  return address;
}

}  // namespace memacct::nvml
