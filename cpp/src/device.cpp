#include "memacct/device.hpp"

#include <exception>

#include "memacct/device_reader.hpp"
#include "memacct/device_session.hpp"
#include "memacct/dylib.hpp"
#include "memacct/fingerprint.hpp"

namespace memacct {
namespace {

DriverPresence presence(cuda::DriverState state) {
  switch (state) {
    case cuda::DriverState::kAbsent:
      return DriverPresence::kAbsent;
    case cuda::DriverState::kUninitialised:
      return DriverPresence::kUninitialised;
    case cuda::DriverState::kInitialised:
      break;
  }
  return DriverPresence::kInitialised;
}

DriverError lost(DeviceSession const& session, nvml::CallError const& error) {
  auto const& api = session.nvml.api();
  return {api.symbol_of(error.name), error.code, api.text_of(error.code)};
}

// A device that is lost stays lost: asking it again can hang.
void read_one(DeviceSession& session, DeviceTarget const& target, ReadRequest const& request,
              DeviceMemory& device) {
  if (target.nvml != nullptr && target.nvml->lost) throw lost(session, *target.nvml->lost);
  try {
    read_target(session, target, request, device);
  } catch (nvml::CallError const& error) {
    if (nvml::severity_of(error.code) != nvml::Severity::kDeviceLost) throw;
    target.nvml->lost = error;
    throw lost(session, error);
  }
}

ReadRequest request_for(DeviceTarget const& target, DeviceOptions const& options) {
  ReadRequest request{.allocator = {}, .with_cuda = options.with_cuda};
  auto const found = options.allocators.find(target.uuid);
  if (found != options.allocators.end()) {
    request.allocator = found->second;
  } else if (target.cuda) {
    auto const numbered = options.allocators_by_ordinal.find(target.cuda->ordinal);
    if (numbered != options.allocators_by_ordinal.end()) request.allocator = numbered->second;
  }
  return request;
}

/// The reading after the first `count`, which are there already.
DeviceMemory& room_for(std::size_t count, std::vector<DeviceMemory>& readings) {
  if (readings.size() <= count) readings.resize(count + 1);
  return readings[count];
}

// A set is read as far as it can be: one dead device must not hide seven.
void read_set(DeviceSession& session, DeviceSet set, DeviceOptions const& options,
              std::vector<DeviceMemory>& readings) {
  std::size_t count = 0;
  std::exception_ptr first_error;
  for (auto const* const target : session.targets(set)) {
    try {
      read_one(session, *target, request_for(*target, options), room_for(count, readings));
      ++count;
    } catch (Error const& error) {
      session.nvml.note("device " + target->uuid + " was left out: " + error.what());
      if (!first_error) first_error = std::current_exception();
    }
  }
  if (count == 0 && first_error) std::rethrow_exception(first_error);
  readings.resize(count);
}

void read_keys(DeviceSession& session, std::vector<DeviceKey> const& keys,
               DeviceOptions const& options, std::vector<DeviceMemory>& readings) {
  readings.resize(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    auto const& target = session.target(keys[i]);
    read_one(session, target, request_for(target, options), readings[i]);
  }
}

DeviceMemory read_one(DeviceSession& session, DeviceTarget const& target,
                      ReadRequest const& request) {
  DeviceMemory device;
  read_one(session, target, request, device);
  return device;
}

/// Nothing that an allocation could add: our own number where numbers have one meaning, with
/// its bytes or without; or the machine's number, told by a broker there.
bool certain(Attribution const& attribution, SelfNames const& names) {
  if (attribution.source == AttributionSource::kBroker) return true;
  return names.initial_namespace == true && attribution.own_pid == names.pid;
}

// Empty if the record was found.
std::string run_active_rung(DeviceSession& session, DeviceTarget const& target) {
  if (target.nvml == nullptr) return "NVML does not know this device";
  if (!target.cuda) return "this process has no CUDA context on the device";
  auto const found = run_fingerprint(session.driver, *target.cuda,
                                     [&] { return session.nvml.read_processes(*target.nvml); });
  if (found.pid || found.refuted) session.identified_pid = found.pid;
  return found.reason;
}

DeviceInfo info_of(nvml::SessionDevice const& device) {
  return {.uuid = device.uuid,
          .index = device.index,
          .name = device.name.empty() ? "unknown" : device.name,
          .pci_bus_id = device.pci_bus_id,
          .parent_uuid = device.parent_uuid,
          .gpu_instance_id = device.gpu_instance_id,
          .compute_instance_id = device.compute_instance_id};
}

}  // namespace

std::vector<DeviceInfo> list_devices() {
  auto& session = DeviceSession::current();
  SessionLock const lock(session);
  return session.run([&] {
    if (!session.nvml.available()) {
      throw SourceUnavailableError(session.nvml.library().path(), session.nvml.reason());
    }
    std::vector<DeviceInfo> infos;
    for (auto const* const device : session.nvml.gpus()) infos.push_back(info_of(*device));
    for (auto const* const device : session.nvml.instances()) infos.push_back(info_of(*device));
    return infos;
  });
}

std::vector<DeviceMemory> read_devices(DeviceSelection const& which, DeviceOptions const& options) {
  std::vector<DeviceMemory> readings;
  read_devices_into(which, options, readings);
  return readings;
}

void read_devices_into(DeviceSelection const& which, DeviceOptions const& options,
                       std::vector<DeviceMemory>& readings) {
  auto const* const set = std::get_if<DeviceSet>(&which);
  if (set != nullptr && *set == DeviceSet::kAuto && !driver_loaded_in_process()) {
    readings.clear();
    return;
  }
  auto& session = DeviceSession::current();
  SessionLock const lock(session);
  session.run([&] {
    if (set != nullptr) {
      read_set(session, *set, options, readings);
    } else {
      read_keys(session, std::get<std::vector<DeviceKey>>(which), options, readings);
    }
  });
}

DeviceMemory read_device(DeviceKey const& key, std::optional<AllocatorClaim> allocator,
                         bool with_cuda) {
  auto& session = DeviceSession::current();
  SessionLock const lock(session);
  return session.run([&] {
    return read_one(session, session.target(key), {.allocator = allocator, .with_cuda = with_cuda});
  });
}

Attribution identify(DeviceKey const& key) {
  auto& session = DeviceSession::current();
  SessionLock const lock(session);
  return session.run([&] {
    auto const target = session.resolve(key);
    session.broker.reset();  // it may have been started since
    auto passive = read_one(session, target, {}).attribution;
    if (certain(passive, session.names)) return passive;
    auto const reason = run_active_rung(session, target);
    if (!reason.empty()) {
      passive.reason += (passive.reason.empty() ? "" : "; ") + reason;
      return passive;
    }
    return read_one(session, target, {}).attribution;
  });
}

void forget_identity() {
  auto& session = DeviceSession::current();
  SessionLock const lock(session);
  session.identified_pid.reset();
}

void add_tree_root(std::uint32_t pid) {
  auto& session = DeviceSession::current();
  SessionLock const lock(session);
  session.tree.add_root(pid);
}

DriverPresence driver_state() {
  if (!driver_loaded_in_process()) return DriverPresence::kAbsent;
  auto& session = DeviceSession::current();
  SessionLock const lock(session);
  return presence(session.driver.state());
}

DriverDiagnosis driver_diagnosis() {
  auto& session = DeviceSession::current();
  SessionLock const lock(session);
  DriverDiagnosis diagnosis;
  diagnosis.nvml_available = session.nvml.available();
  diagnosis.nvml_library = session.nvml.library().path();
  diagnosis.nvml_reason = session.nvml.reason();
  diagnosis.nvml_init_code = session.nvml.init_code();
  auto const& api = session.nvml.api();
  char version[96] = "";
  if (diagnosis.nvml_available && api.driver_version != nullptr &&
      api.driver_version(version, sizeof version) == nvml::kSuccess) {
    diagnosis.nvml_driver_version = version;
  }
  diagnosis.nvml_symbols = api.symbols;
  diagnosis.record_bytes = session.nvml.lists().strides(api);
  diagnosis.cuda_state = presence(session.driver.state());
  diagnosis.cuda_library = session.driver.library().path();
  diagnosis.cuda_symbols = session.driver.api().symbols;
  diagnosis.names = session.names;
  diagnosis.identified_pid = session.identified_pid;
  diagnosis.notes = session.nvml.notes();
  return diagnosis;
}

void close_devices() {
  auto& session = DeviceSession::current();
  SessionLock const lock(session);
  session.nvml.close();
}

}  // namespace memacct
