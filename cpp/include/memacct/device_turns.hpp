// Device readings in the background: one device at a time, and whoever else wants to read goes
// first.
#pragma once
#include <vector>

#include "memacct/device.hpp"

namespace memacct {

/// The devices of a selection, each as a key of its own. Of "auto", those that hold a context of
/// ours now: none without the CUDA driver.
/// @throws as read_devices().
[[nodiscard]] std::vector<DeviceKey> keys_of(DeviceSelection const& which);

/// Waits while other threads wait for the session's lock, some milliseconds at most. The lock
/// itself is not fair: a thread that gives it back and asks again at once gets it before those
/// that have to be woken, so that a reader in the background would hold up all others for the
/// whole of its round.
void let_others_read_first() noexcept;

}  // namespace memacct
