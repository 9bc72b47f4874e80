// Which card a device is: what follows from its compute capability, and what is told of it.
#pragma once
#include <cstdint>

#include "config.hpp"

namespace memacct::sim {

/// What all cards of a compute capability have in common.
///
/// Source: CUDA Programming Guide, "Compute Capabilities", tables of features and technical
/// specifications (https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/
/// compute-capabilities.html); 7.0 from its edition for CUDA 12, the last one that has it.
struct Capability {
  int major, minor;
  int architecture;  // nvmlDeviceArchitecture_t
  int threads_per_sm;
  int blocks_per_sm;
  int shared_bytes_per_sm;
  int shared_bytes_per_block;           // that a kernel can opt in to
  int reserved_shared_bytes_per_block;  // for the system, of each block's
  [[nodiscard]] constexpr bool at_least(int wanted) const { return major >= wanted; }
  [[nodiscard]] constexpr int number() const { return 10 * major + minor; }  // 90 for 9.0
};

/// Of a device or an instance. MEMACCT_SIM_CAPABILITY, _SM_COUNT and _L2_BYTES have one value for
/// all devices, or one each; unset they are an H100 SXM's.
struct Identity {
  Capability capability;
  int sm_count;
  uint64_t l2_bytes;
};
[[nodiscard]] MEMACCT_SIM_API Identity const& device_identity(int physical);

/// How the devices of the machine reach each other's memory: MEMACCT_SIM_PEERS.
enum class Peers { NvLink, Pcie, None };
[[nodiscard]] MEMACCT_SIM_API Peers device_peers();

}  // namespace memacct::sim
