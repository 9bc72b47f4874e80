#include "memacct/nvml_session.hpp"

#include <algorithm>
#include <cstdio>

#include "memacct/clock.hpp"

namespace memacct::nvml {
namespace {

constexpr unsigned kLargestNumaNode = 65535;  // kernels are built for 1024 at most

// "it failed for this call only" -> false; anything wider is thrown.
void throw_if_wide(char const* name, int code) {
  switch (severity_of(code)) {
    case Severity::kNoData:
    case Severity::kFailed:
      return;
    case Severity::kDeviceLost:
    case Severity::kUninitialized:
    case Severity::kDisabled:
      throw CallError{name, code};
  }
}

}  // namespace

void Session::note(std::string text) {
  if (std::find(notes_.begin(), notes_.end(), text) == notes_.end()) {
    notes_.push_back(std::move(text));
  }
}

bool Session::worked(char const* name, int code) {
  if (code == kSuccess) return true;
  throw_if_wide(name, code);
  note(api_.describe(name, code));
  return false;
}

void Session::disable(std::string reason) {
  ++changes_count_;
  phase_ = Phase::kDisabled;
  reason_ = std::move(reason);
}

bool Session::available() {
  if (phase_ == Phase::kUnused) initialise();
  return phase_ == Phase::kReady;
}

void Session::initialise() {
  if (!library_.loaded()) {
    library_ = Library::open("libnvidia-ml.so.1", "MEMACCT_NVML_LIBRARY", Library::Mode::kLoad);
    if (!library_.loaded()) return disable(library_.reason());
    api_ = Api::load(library_);
  }
  init_code_.reset();
  char const* tried = "init";
  if (api_.init_with_flags != nullptr) {
    tried = "init_with_flags";
    init_code_ = api_.init_with_flags(0);
  }
  if (init_code_ != kSuccess && api_.init != nullptr) {
    tried = "init";
    init_code_ = api_.init();
  }
  if (!init_code_) return disable("the library has no nvmlInit function");
  note_loss_of_access(*init_code_);
  if (*init_code_ != kSuccess) return disable(api_.describe(tried, *init_code_));
  phase_ = Phase::kReady;
  ++changes_count_;
  reason_.clear();
}

// "Unknown Error" and "blocked by the operating system" are what a closed device file becomes.
void Session::note_loss_of_access(int code) noexcept {
  if (code == kUnknownError || code == kOperatingSystem) taken_away_ = true;
}

void Session::refresh() {
  if (!taken_away_) return;
  auto const now_ns = monotonic_ns();
  if (now_ns < next_retry_ns_) return;
  next_retry_ns_ = now_ns + pause_ns_;
  pause_ns_ = std::min(2 * pause_ns_, kLongestPauseNs);
  taken_away_ = false;
  // It is counted: without our shutdown, another initialisation opens no file.
  if (phase_ == Phase::kReady && api_.shutdown != nullptr) api_.shutdown();
  reinitialise();
}

void Session::reinitialise() {
  for (auto const& device : devices_) {
    if (device->lost) lost_.insert_or_assign(device->uuid, *device->lost);
  }
  devices_.clear();
  all_listed_ = false;
  ++changes_count_;
  phase_ = Phase::kUnused;
  (void)available();
}

void Session::close() {
  if (phase_ == Phase::kReady && api_.shutdown != nullptr) api_.shutdown();
  devices_.clear();
  all_listed_ = false;
  memory_v2_absent_ = false;
  lost_.clear();
  taken_away_ = false;
  ++changes_count_;
  library_ = Library{};
  phase_ = Phase::kUnused;
  reason_.clear();
}

SessionDevice* Session::add(Device handle, std::optional<int> index) {
  for (auto const& known : devices_) {
    if (known->handle == handle) return known.get();
  }
  auto device = std::make_unique<SessionDevice>();
  device->handle = handle;
  device->index = index;
  describe(*device);
  devices_.push_back(std::move(device));
  return devices_.back().get();
}

// A lost device is kept, under what is known of it: thrown, it would hide all devices after it.
void Session::describe(SessionDevice& device) {
  auto const handle = device.handle;
  auto const ask = [&](char const* name, auto* function, auto... arguments) {
    if (function == nullptr || device.lost) return false;
    int const code = function(handle, arguments...);
    if (severity_of(code) != Severity::kDeviceLost) return worked(name, code);
    device.lost = CallError{name, code};
    note(api_.describe(name, code));
    return false;
  };
  unsigned number = 0;
  if (!device.index && ask("device_index", api_.device_index, &number)) {
    device.index = static_cast<int>(number);
  }
  char text[96] = "";
  if (ask("device_name", api_.device_name, text, static_cast<unsigned>(sizeof text))) {
    device.name = text;
  }
  PciInfo pci{};
  if (ask("device_pci", api_.device_pci, &pci)) {
    std::snprintf(text, sizeof text, "%08x:%02x:%02x.0", pci.domain, pci.bus, pci.device);
    device.pci_bus_id = text;
  }
  if (ask("device_uuid", api_.device_uuid, text, static_cast<unsigned>(sizeof text))) {
    device.uuid = text;
  } else {
    device.uuid = device.pci_bus_id ? "PCI-" + *device.pci_bus_id
                                    : "INDEX-" + std::to_string(device.index.value_or(-1));
  }
  if (auto const known = lost_.find(device.uuid); known != lost_.end()) device.lost = known->second;
  describe_memory(device);
  if (api_.mig_mode == nullptr || device.lost) return;
  unsigned mig = 0;
  unsigned pending = 0;
  int const code = api_.mig_mode(handle, &mig, &pending);
  if (code == kSuccess) device.mig_enabled = mig != 0;
  if (means_absent(code)) device.mig_enabled = false;
}

// Whose memory it is. A refusal is the usual answer of a card whose memory is its own.
void Session::describe_memory(SessionDevice& device) const {
  if (device.lost) return;
  int major = 0;
  int minor = 0;
  if (api_.compute_capability != nullptr &&
      api_.compute_capability(device.handle, &major, &minor) == kSuccess) {
    device.integrated = is_integrated_capability(major, minor);
  }
  unsigned node = 0;
  if (api_.numa_node != nullptr && api_.numa_node(device.handle, &node) == kSuccess &&
      node <= kLargestNumaNode) {
    device.numa_node = static_cast<int>(node);
  }
}

std::vector<SessionDevice*> Session::devices() {
  if (!available()) return {};
  unsigned count = 0;
  if (!all_listed_ && api_.device_count != nullptr && api_.handle_by_index != nullptr &&
      worked("device_count", api_.device_count(&count))) {
    bool all_given = true;
    for (unsigned i = 0; i < count; ++i) {
      Device handle = nullptr;
      int const code = api_.handle_by_index(i, &handle);
      if (severity_of(code) == Severity::kDeviceLost) {
        note("device " + std::to_string(i) + ": " + api_.describe("handle_by_index", code));
      } else if (worked("handle_by_index", code)) {
        add(handle, static_cast<int>(i))->index = static_cast<int>(i);
        continue;
      }
      all_given = false;
    }
    all_listed_ = all_given;
  }
  std::vector<SessionDevice*> all;
  for (auto const& device : devices_) all.push_back(device.get());
  std::sort(all.begin(), all.end(),
            [](SessionDevice const* a, SessionDevice const* b) { return a->index < b->index; });
  return all;
}

SessionDevice* Session::by_uuid(std::string const& uuid) {
  if (!available()) return nullptr;
  for (auto const& device : devices_) {
    if (device->uuid == uuid) return device.get();
  }
  Device handle = nullptr;
  if (api_.handle_by_uuid != nullptr) {
    int const code = api_.handle_by_uuid(uuid.c_str(), &handle);
    if (code == kSuccess) {
      auto* const device = add(handle, std::nullopt);
      device->uuid = uuid;
      return device;
    }
    throw_if_wide("handle_by_uuid", code);
  }
  for (auto* const device : devices()) {
    if (device->uuid == uuid) return device;
  }
  return nullptr;
}

SessionDevice* Session::by_pci(std::string const& bus_id) {
  if (!available()) return nullptr;
  auto const address = parse_pci(bus_id);
  auto const same = [&](SessionDevice const& device) {
    return address && device.pci_bus_id && parse_pci(*device.pci_bus_id) == address;
  };
  for (auto const& device : devices_) {
    if (same(*device)) return device.get();
  }
  Device handle = nullptr;
  if (api_.handle_by_pci != nullptr &&
      worked("handle_by_pci", api_.handle_by_pci(bus_id.c_str(), &handle))) {
    return add(handle, std::nullopt);
  }
  for (auto* const device : devices()) {
    if (same(*device)) return device;
  }
  return nullptr;
}

std::optional<MemoryReading> Session::read_memory(SessionDevice& device, Failure& failure) {
  failure.reason.clear();
  failure.error.reset();
  std::optional<MemoryReading> reading;
  auto const judge = [&](char const* name, int code, auto const& memory) {
    if (code == kSuccess) {
      reading = interpret(memory);
      if (!reading) failure = {api_.symbol_of(name) + " gave no sensible total", std::nullopt};
      return;
    }
    throw_if_wide(name, code);
    note_loss_of_access(code);
    failure.reason = api_.describe(name, code);
    failure.error.reset();
    if (severity_of(code) == Severity::kFailed) failure.error = CallError{name, code};
  };
  if (api_.memory_v2 != nullptr && !memory_v2_absent_) {
    MemoryV2 memory{.version = kMemoryV2Tag, .total = 0, .reserved = 0, .free = 0, .used = 0};
    int const code = api_.memory_v2(device.handle, &memory);
    // Two ways to say that this driver does not know this version of the structure.
    memory_v2_absent_ = code == kFunctionNotFound || code == kArgumentVersionMismatch;
    judge("memory_v2", code, memory);
  }
  if (!reading && api_.memory_v1 != nullptr) {
    MemoryV1 memory{};
    judge("memory_v1", api_.memory_v1(device.handle, &memory), memory);
  }
  // A quota is no limit of what the lists may say.
  if (reading) pause_ns_ = kFirstPauseNs;
  if (reading && quota_hook_in_process() == nullptr) device.total_bytes = reading->total_bytes;
  if (!reading && failure.reason.empty()) failure.reason = "this driver has no function for it";
  return reading;
}

ProcessList Session::read_processes(SessionDevice const& device) {
  ProcessList list;
  read_processes(device, list);
  return list;
}

void Session::read_processes(SessionDevice const& device, ProcessList& list) {
  lists_.read(api_, device.handle,
              {.total_bytes = device.total_bytes, .mig_enabled = device.mig_enabled}, list);
}

}  // namespace memacct::nvml
