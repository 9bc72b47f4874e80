#include "memacct/device_sampling.hpp"

#include <algorithm>

#include "memacct/clock.hpp"
#include "memacct/device_turns.hpp"
#include "memacct/process_folder.hpp"

namespace memacct {
namespace {

constexpr std::uint64_t kForEver = ~std::uint64_t{0};
constexpr std::uint64_t kErrorNotePauseNs = 10'000'000'000U;

RecordOwner owner_of(Owner owner) noexcept {
  switch (owner) {
    case Owner::kOwn:
      return RecordOwner::kOwn;
    case Owner::kTree:
      return RecordOwner::kTree;
    case Owner::kForeign:
      return RecordOwner::kForeign;
    case Owner::kUnknown:
      break;
  }
  return RecordOwner::kUnknown;
}

std::string comm_of(std::uint32_t pid) {
  auto text = ProcessFolder(pid).read("comm").text;
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace

DeviceRecord device_record(DeviceMemory const& device, std::uint16_t number) noexcept {
  auto const& bounds = device.attribution.own_bounds_bytes;
  return {.taken_ns = device.taken_ns,
          .span_ns = device.span_ns,
          .device = number,
          .attempts_count = static_cast<std::uint8_t>(std::clamp(device.attempts_count, 0, 255)),
          .attribution = static_cast<std::uint8_t>(device.attribution.source),
          .consistent = device.consistent,
          .total_bytes = device.total_bytes,
          .free_bytes = device.free_bytes,
          .device_used_bytes = device.device_used_bytes,
          .reserved_bytes = device.reserved_bytes,
          .own_bytes = device.own_bytes,
          .tree_bytes = device.tree_bytes,
          .foreign_bytes = device.foreign_bytes,
          .unattributed_bytes = device.unattributed_bytes,
          .own_low_bytes = bounds.first,
          .own_high_bytes = bounds.second};
}

DeviceSampling::DeviceSampling(std::shared_ptr<Sampler::Core> core, std::uint64_t now_ns)
    : core_(std::move(core)),
      budget_(core_->options.driver_budget_ratio, now_ns),
      names_(read_self_names()) {}

std::uint64_t DeviceSampling::tick(Tick const& tick) noexcept {
  ++tick_count_;
  core_->device.ticked(tick);
  if (tick.skipped_count != 0) {
    write_note({.taken_ns = tick.now_ns,
                .kind = NoteKind::kGap,
                .value = tick.skipped_count,
                .text = "to keep to the budget of driver time"});
  }
  auto const read_ns = read_all();
  auto const end_ns = monotonic_ns();
  core_->device.took(read_ns);
  auto const next_ns = budget_.spend(end_ns, read_ns);
  auto const period_ns = core_->options.device_period_ns;
  core_->device.in_effect(std::max<std::uint64_t>(
      period_ns, (next_ns - tick.now_ns + period_ns - 1) / period_ns * period_ns));
  forget_unlisted();
  core_->device_complete.store(core_->device_ring.written_count(), std::memory_order_release);
  return next_ns;
}

/// Runs `read` and counts what it throws. @returns the time that it took.
template <typename Read>
std::uint64_t DeviceSampling::timed(Read const& read) noexcept {
  auto const start_ns = monotonic_ns();
  try {
    read();
  } catch (...) {
    core_->device.failed();
    note_error(core_->errors.count_current(), start_ns);
    readings_.clear();
  }
  return monotonic_ns() - start_ns;
}

// Each device under a lock of its own, and the records of one are written before the next is read:
// a snapshot of the program waits for one device at the most.
std::uint64_t DeviceSampling::read_all() noexcept {
  keys_.clear();
  auto read_ns = timed([this] { keys_ = keys_of(core_->options.devices); });
  for (auto const& key : keys_) {
    let_others_read_first();
    read_ns += timed([&] {
      std::get<std::vector<DeviceKey>>(one_).assign(1, key);
      read_devices_into(one_, {}, readings_);
    });
    try {
      for (auto const& device : readings_) write(device);
    } catch (...) {
      (void)core_->errors.count_current();  // no memory
    }
  }
  return read_ns;
}

void DeviceSampling::write(DeviceMemory const& device) {
  auto const number = core_->devices.number_of(device);
  if (!number) return;
  write_names(*number);
  auto& ring = core_->device_ring;
  ring.write(pack(device_record(device, *number)));
  // Where our own number in the list is our pid, or all numbers are the machine's, procfs has them.
  bool const numbers_are_procfs =
      names_.procfs_is_ours() &&
      (names_.initial_namespace == true || device.attribution.source == AttributionSource::kPid);
  for (auto const& process : device.processes) {
    auto const& known = look_up(process.pid, numbers_are_procfs);
    ring.write(pack(ProcessRecord{.taken_ns = device.taken_ns,
                                  .device = *number,
                                  .pid = process.pid,
                                  .owner = owner_of(process.owner),
                                  .process_used_bytes = process.process_used_bytes,
                                  .start_ticks = known.start_ticks,
                                  .name = std::string_view(known.name)}));
  }
}

// Once in half a ring, so that whoever reads the ring alone knows each device that is in it; once
// and for all where notes are kept.
void DeviceSampling::write_names(std::uint16_t number) {
  if (named_at_.size() <= number) named_at_.resize(number + std::size_t{1});
  auto const written = core_->device_ring.written_count();
  auto& named_at = named_at_[number];
  if (named_at &&
      (*named_at == kForEver || written - *named_at < core_->rings.devices.slots.size() / 2)) {
    return;
  }
  auto const& device = core_->devices.at(number);
  NoteRecord const uuid{.taken_ns = monotonic_ns(),
                        .kind = NoteKind::kDevice,
                        .number = number,
                        .text = std::string_view(device.uuid)};
  NoteRecord const name{.taken_ns = uuid.taken_ns,
                        .kind = NoteKind::kDeviceName,
                        .number = number,
                        .text = std::string_view(device.name)};
  auto const& keep = core_->rings.keep;
  bool const kept = keep && keep(uuid) && keep(name);
  if (!kept) {
    write_note(uuid);
    write_note(name);
  }
  named_at = kept ? kForEver : core_->device_ring.written_count();
}

// What fails once fails at every tick, and its notes are not to push the readings out.
void DeviceSampling::note_error(std::string text, std::uint64_t now_ns) noexcept {
  if (text == noted_error_ && now_ns < noted_ns_ + kErrorNotePauseNs) return;
  write_note({.taken_ns = now_ns, .kind = NoteKind::kError, .text = std::string_view(text)});
  noted_error_ = std::move(text);
  noted_ns_ = now_ns;
}

void DeviceSampling::write_note(NoteRecord const& note) noexcept {
  core_->device_ring.write(pack(note));
}

DeviceSampling::Known const& DeviceSampling::look_up(std::uint32_t pid, bool numbers_are_procfs) {
  auto const [place, is_new] = processes_.try_emplace(pid);
  auto& known = place->second;
  known.listed_at = tick_count_;
  if (is_new && numbers_are_procfs) {
    auto const look = look_at(pid);
    if (look.stat) {
      known.start_ticks = look.stat->start_ticks;
      known.name = comm_of(pid);
    }
  }
  return known;
}

// A number that is listed again after a pause may be another process's.
void DeviceSampling::forget_unlisted() {
  std::erase_if(processes_,
                [this](auto const& entry) { return entry.second.listed_at != tick_count_; });
}

}  // namespace memacct
