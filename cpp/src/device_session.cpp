#include "memacct/device_session.hpp"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "memacct/ordinals.hpp"
#include "memacct/process.hpp"

namespace memacct {
namespace {

// No function-local static and no lock: a fork's child must get here whatever the parent's
// other threads were doing.
constinit std::atomic<DeviceSession*> current_session{nullptr};
constinit std::atomic<bool> fork_handled{false};

thread_local bool in_session = false;                 // this thread holds the lock
thread_local DeviceSession* held_for_fork = nullptr;  // locked by before_fork()

std::string lowered(std::string text) {
  // The prefix stays as it is written: "GPU-", "MIG-".
  std::transform(text.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(4, text.size())),
                 text.end(),
                 text.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(4, text.size())),
                 [](unsigned char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  return text;
}

std::string what_exists(std::vector<DeviceTarget> const& targets) {
  std::string text;
  for (auto const& target : targets) text += (text.empty() ? "" : ", ") + target.uuid;
  return text.empty() ? "there is none" : "there are " + text;
}

}  // namespace

bool is_device(cuda::Device const& device, nvml::SessionDevice const& other) {
  bool const instance = other.uuid.starts_with("MIG-");
  // CUDA never has the divided GPU itself, though its address and old drivers' UUIDs say so.
  if (other.mig_enabled == true && !instance) return false;
  if (device.uuid && (cuda::format_uuid(*device.uuid, "GPU-") == other.uuid ||
                      cuda::format_uuid(*device.uuid, "MIG-") == other.uuid)) {
    return true;
  }
  if (instance || !device.pci_bus_id || !other.pci_bus_id) return false;
  // By address only where the UUIDs do not already say that these are two devices.
  bool const both_named = device.uuid && other.uuid.starts_with("GPU-");
  return !both_named && nvml::parse_pci(*device.pci_bus_id) == nvml::parse_pci(*other.pci_bus_id);
}

DeviceSession::DeviceSession(std::int32_t pid, std::uint32_t generation,
                             bool initialised_in_ancestor)
    : driver(initialised_in_ancestor),
      names(read_self_names()),
      pid_(pid),
      generation_(generation) {}

SessionLock::SessionLock(DeviceSession& session) : session_(session) {
  if (!session_.mutex_.try_lock()) {
    session_.waiting_count_.fetch_add(1, std::memory_order_relaxed);
    session_.mutex_.lock();
    session_.waiting_count_.fetch_sub(1, std::memory_order_relaxed);
  }
  in_session = true;
}

SessionLock::~SessionLock() {
  in_session = false;
  session_.mutex_.unlock();
}

void SessionLock::before_fork() noexcept {
  auto* const session = current_session.load(std::memory_order_acquire);
  if (in_session || session == nullptr || !session->is_of(::getpid(), fork_generation())) return;
  session->waiting_count_.fetch_add(1, std::memory_order_relaxed);
  if (session->mutex_.try_lock_for(kForkPatience)) held_for_fork = session;
  session->waiting_count_.fetch_sub(1, std::memory_order_relaxed);
}

void SessionLock::after_fork_in_parent() noexcept {
  if (held_for_fork == nullptr) return;
  held_for_fork->mutex_.unlock();
  held_for_fork = nullptr;
}

DeviceSession& DeviceSession::current() {
  // Asked before there is a session to tell from others: from now on forks are counted.
  auto const generation = fork_generation();
  if (!fork_handled.exchange(true)) {
    // The child keeps nothing of it: its session is a new one.
    ::pthread_atfork(&SessionLock::before_fork, &SessionLock::after_fork_in_parent, [] {
      auto* const parents = current_session.load(std::memory_order_acquire);
      if (parents != nullptr) parents->tree.close_in_child();
      held_for_fork = nullptr;
      in_session = false;
    });
  }
  auto const pid = static_cast<std::int32_t>(::getpid());
  auto* session = current_session.load(std::memory_order_acquire);
  while (session == nullptr || !session->is_of(pid, generation)) {
    // Whether the parent's driver was initialised is the one thing its child must know of
    // it. Read without the parent's lock: it only ever goes from false to true.
    bool const inherited = session != nullptr && session->driver.seen_initialised();
    auto* const fresh = new DeviceSession(pid, generation, inherited);
    if (current_session.compare_exchange_strong(session, fresh, std::memory_order_acq_rel)) {
      return *fresh;
    }
    delete fresh;
  }
  return *session;
}

void DeviceSession::recover(nvml::CallError const& error, int attempt) {
  auto const severity = nvml::severity_of(error.code);
  if (severity == nvml::Severity::kDeviceLost || attempt > 2) {
    throw DriverError(nvml.api().symbol_of(error.name), error.code, nvml.api().text_of(error.code));
  }
  auto const text = nvml.api().describe(error.name, error.code);
  nvml.note(text);
  if (severity == nvml::Severity::kUninitialized && attempt == 0) {
    nvml.reinitialise();
  } else {
    nvml.disable(text);
  }
}

DeviceTarget DeviceSession::from_cuda(cuda::Device const& device) {
  DeviceTarget target{.uuid = {}, .nvml = nullptr, .cuda = device};
  if (device.uuid) {
    target.uuid = cuda::format_uuid(*device.uuid, "GPU-");
    auto const instance = cuda::format_uuid(*device.uuid, "MIG-");
    // What is known first: NVML would be asked for the other at each reading.
    target.nvml = nvml.known(target.uuid);
    if (target.nvml == nullptr) target.nvml = nvml.known(instance);
    if (target.nvml == nullptr) target.nvml = nvml.by_uuid(target.uuid);
    if (target.nvml == nullptr) target.nvml = nvml.by_uuid(instance);
  }
  if (target.nvml == nullptr && device.pci_bus_id) target.nvml = nvml.by_pci(*device.pci_bus_id);
  if (target.nvml != nullptr && !is_device(device, *target.nvml)) {
    // Of an instance some drivers tell the GPU's UUID: that is no name for it.
    if (target.nvml->uuid == target.uuid) target.uuid.clear();
    target.nvml = nullptr;
  }
  if (target.nvml != nullptr) target.uuid = target.nvml->uuid;
  if (target.uuid.empty()) target.uuid = "CUDA-" + std::to_string(device.ordinal);
  return target;
}

DeviceTarget DeviceSession::from_nvml(nvml::SessionDevice& device) {
  DeviceTarget target{.uuid = device.uuid, .nvml = &device, .cuda = std::nullopt};
  for (auto const& candidate : driver.devices()) {
    if (is_device(candidate, device)) target.cuda = candidate;
  }
  return target;
}

bool DeviceSession::hidden_from_driver(DeviceTarget const& target) {
  auto const& devices = driver.devices();
  // Drivers before MIG tell of an instance its GPU's UUID: then it could be any of them.
  auto const told = [&](cuda::Device const& device) {
    return device.uuid && (target.nvml == nullptr || !target.nvml->is_instance() ||
                           cuda::format_uuid(*device.uuid, "GPU-") != target.nvml->parent_uuid);
  };
  return !target.cuda && !devices.empty() && std::all_of(devices.begin(), devices.end(), told);
}

void DeviceSession::require_some_source() {
  if (!nvml.available() && driver.devices().empty()) {
    throw SourceUnavailableError(
        nvml.library().path().empty() ? "libnvidia-ml.so.1" : nvml.library().path(), nvml.reason());
  }
}

std::vector<DeviceTarget> DeviceSession::everything() {
  std::vector<DeviceTarget> targets;
  for (auto* const device : nvml.gpus()) targets.push_back(from_nvml(*device));
  for (auto* const device : nvml.instances()) targets.push_back(from_nvml(*device));
  for (auto const& device : driver.devices()) {
    auto const known = std::any_of(targets.begin(), targets.end(), [&](DeviceTarget const& target) {
      return target.cuda && target.cuda->ordinal == device.ordinal;
    });
    if (!known) targets.push_back(from_cuda(device));
  }
  return targets;
}

DeviceTarget DeviceSession::by_ordinal(std::int64_t ordinal) {
  auto const devices = driver.devices();
  // Once it is initialised the environment says nothing: it may have been changed since.
  if (devices.empty() && driver.state() != cuda::DriverState::kInitialised) {
    return from_nvml(device_of_ordinal(nvml, ordinal));
  }
  if (devices.empty()) {
    throw SourceUnavailableError(driver.library().path(),
                                 "the CUDA driver is initialised and does not list its devices");
  }
  if (ordinal >= 0 && static_cast<std::size_t>(ordinal) < devices.size()) {
    return from_cuda(devices[static_cast<std::size_t>(ordinal)]);
  }
  throw std::invalid_argument("device " + std::to_string(ordinal) +
                              ": this process's CUDA driver has " + std::to_string(devices.size()) +
                              (devices.size() == 1 ? " device" : " devices") + " (0 to " +
                              std::to_string(devices.size() - 1) + ")");
}

DeviceTarget DeviceSession::by_uuid(std::string const& beginning) {
  auto const all = everything();
  // A key cannot be called wrong where no device could be looked up.
  if (all.empty()) no_device_listed(nvml);
  auto const wanted = lowered(beginning);
  std::vector<DeviceTarget> found;
  for (auto const& target : all) {
    // As given first: our own names of devices without a UUID ("INDEX-0") are in capitals.
    if (target.uuid == beginning || target.uuid == wanted) return target;
    if (wanted.size() > 4 && target.uuid.starts_with(wanted)) found.push_back(target);
  }
  if (found.size() == 1) return found.front();
  // One that was made later than the others were listed, or that is named as in the past.
  if (found.empty()) {
    if (auto* const instance = instance_by_name(nvml, beginning)) return from_nvml(*instance);
  }
  throw std::invalid_argument(
      "device '" + beginning + "': " +
      (found.empty() ? "no such device; " + what_exists(all) : "ambiguous; " + what_exists(found)));
}

DeviceTarget DeviceSession::resolve(DeviceKey const& key) {
  require_some_source();
  return std::holds_alternative<std::int64_t>(key) ? by_ordinal(std::get<std::int64_t>(key))
                                                   : by_uuid(std::get<std::string>(key));
}

std::vector<DeviceTarget> DeviceSession::resolve(DeviceSet set) {
  if (set == DeviceSet::kAll) {
    require_some_source();
    return everything();
  }
  std::vector<DeviceTarget> targets;
  for (auto const& device : driver.devices()) {
    // Unknown counts as held: reading a device that we do not use does no harm.
    if (driver.context_live(device) != false) targets.push_back(from_cuda(device));
  }
  return targets;
}

}  // namespace memacct
