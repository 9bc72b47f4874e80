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

std::optional<bool> is_divided(Api const& api, Device gpu) {
  unsigned current = 0;
  unsigned pending = 0;
  if (api.mig_mode == nullptr) return std::nullopt;
  int const code = api.mig_mode(gpu, &current, &pending);
  if (code == kSuccess) return current != 0;
  return means_absent(code) ? std::optional(false) : std::nullopt;
}

std::string name_of(InstanceFacts const& instance, std::string const& gpu) {
  return old_instance_name(gpu, instance.gpu_instance_id.value_or(0),
                           instance.compute_instance_id.value_or(0));
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
  quota_hook_ = quota_hook_in_process();
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
  ++changes_count_;
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
  auto const instance = device.lost ? std::nullopt : instance_facts(api_, handle);
  if (!device.index && !instance && ask("device_index", api_.device_index, &number)) {
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
    device.pci_model = {pci.pci_device_id, pci.pci_subsystem_id};
  }
  if (ask("device_uuid", api_.device_uuid, text, static_cast<unsigned>(sizeof text))) {
    device.uuid = text;
  } else {
    device.uuid = device.pci_bus_id ? "PCI-" + *device.pci_bus_id
                                    : "INDEX-" + std::to_string(device.index.value_or(-1));
    // An instance's address is its GPU's, so the ids tell it from the others.
    if (instance) device.uuid = name_of(*instance, device.uuid);
  }
  if (auto const known = lost_.find(device.uuid); known != lost_.end()) device.lost = known->second;
  if (instance) {
    describe_instance(device, *instance);
  } else if (!device.lost) {
    device.mig_enabled = is_divided(api_, handle);
  }
  describe_memory(device);
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

void Session::describe_instance(SessionDevice& device, InstanceFacts const& facts) {
  device.gpu_instance_id = facts.gpu_instance_id;
  device.compute_instance_id = facts.compute_instance_id;
  if (facts.whole == nullptr) return;
  auto const* const whole = add(facts.whole, std::nullopt);
  device.parent_uuid = whole->uuid;
  if (!device.pci_bus_id) device.pci_bus_id = whole->pci_bus_id;
}

// GPUs, then the instances of those that are divided.
void Session::list_all() {
  unsigned count = 0;
  if (all_listed_ || !available() || api_.device_count == nullptr ||
      api_.handle_by_index == nullptr || !worked("device_count", api_.device_count(&count))) {
    return;
  }
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
  for (auto* const gpu : gpus_known()) {
    if (gpu->mig_enabled != true || gpu->lost) continue;
    std::string problem;
    for (auto* const handle : instances_of(api_, gpu->handle, problem)) (void)add(handle, {});
    if (!problem.empty()) note(gpu->uuid + ": " + problem);
  }
  all_listed_ = all_given;
}

std::vector<SessionDevice*> Session::gpus_known() const {
  std::vector<SessionDevice*> found;
  for (auto const& device : devices_) {
    if (!device->is_instance()) found.push_back(device.get());
  }
  std::sort(found.begin(), found.end(),
            [](SessionDevice const* a, SessionDevice const* b) { return a->index < b->index; });
  return found;
}

std::vector<SessionDevice*> Session::gpus() {
  list_all();
  return gpus_known();
}

std::vector<SessionDevice*> Session::instances() {
  list_all();
  std::vector<SessionDevice*> found;
  for (auto const* const gpu : gpus_known()) {
    for (auto const& device : devices_) {
      if (device->is_instance() && device->parent_uuid == gpu->uuid) found.push_back(device.get());
    }
  }
  for (auto const& device : devices_) {
    if (device->is_instance() && !device->parent_uuid) found.push_back(device.get());
  }
  return found;
}

SessionDevice* Session::known(std::string const& uuid) const {
  for (auto const& device : devices_) {
    if (device->uuid == uuid) return device.get();
  }
  return nullptr;
}

SessionDevice* Session::by_uuid(std::string const& uuid) {
  if (!available()) return nullptr;
  if (auto* const device = known(uuid)) return device;
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
  list_all();
  return known(uuid);
}

SessionDevice* Session::by_pci(std::string const& bus_id) {
  if (!available()) return nullptr;
  auto const address = parse_pci(bus_id);
  auto const same = [&](SessionDevice const& device) {
    return address && device.pci_bus_id && parse_pci(*device.pci_bus_id) == address;
  };
  for (auto* const device : gpus_known()) {  // an instance has its GPU's address
    if (same(*device)) return device;
  }
  Device handle = nullptr;
  if (api_.handle_by_pci != nullptr &&
      worked("handle_by_pci", api_.handle_by_pci(bus_id.c_str(), &handle))) {
    return add(handle, std::nullopt);
  }
  for (auto* const device : gpus()) {
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
  if (reading && quota_hook_ == nullptr) device.total_bytes = reading->total_bytes;
  if (!reading && failure.reason.empty()) failure.reason = "this driver has no function for it";
  return reading;
}

ProcessList Session::read_processes(SessionDevice const& device) {
  ProcessList list;
  read_processes(device, list);
  return list;
}

void Session::read_processes(SessionDevice const& device, ProcessList& list) {
  auto const divided = device.is_instance() ? std::optional(true) : device.mig_enabled;
  lists_.read(api_, device.handle, {.total_bytes = device.total_bytes, .mig_enabled = divided},
              list);
  if (!list.complete && device.mig_enabled == true) {
    list.reason += "; the GPU is divided into MIG instances, whose own lists are open";
  }
}

}  // namespace memacct::nvml
