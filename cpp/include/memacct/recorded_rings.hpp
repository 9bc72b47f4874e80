// A sampler's rings in a flight recorder's file.
#pragma once
#include <memory>

#include "memacct/recorder.hpp"
#include "memacct/sampler.hpp"

namespace memacct {

/// The rings of `recorder`, which they keep alive. In a child of fork() they are not there. When
/// the sampler stops, the recording is marked as ended on purpose.
/// @throws std::logic_error in a child of fork().
[[nodiscard]] SamplerRings recorded_rings(std::shared_ptr<Recorder> const& recorder);

}  // namespace memacct
