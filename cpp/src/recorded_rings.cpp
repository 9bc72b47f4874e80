#include "memacct/recorded_rings.hpp"

namespace memacct {

SamplerRings recorded_rings(std::shared_ptr<Recorder> const& recorder) {
  return {.host = recorder->ring(RecordingRing::kHost),
          .devices = recorder->ring(RecordingRing::kDevices),
          .salt = recorder->salt(),
          .memory = recorder,
          .in_child = false,
          .keep = [recorder](NoteRecord const& note) { return recorder->keep(note); },
          .finish = [recorder] { recorder->finish(); }};
}

}  // namespace memacct
