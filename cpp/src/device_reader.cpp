#include "memacct/device_reader.hpp"

#include <algorithm>

#include "memacct/clock.hpp"

namespace memacct {
namespace {

/// The device's memory as one source, or two joined ones, tell it.
struct MemoryView {
  MemorySource source = MemorySource::kNvmlV2;
  nvml::MemoryReading memory;
  std::optional<cuda::MemoryInfo> cuda;
  std::optional<UnifiedMemory> unified;
  bool joined = true;  // both sources hold at one instant
};

struct Collect {
  nvml::ProcessList list;
  MemoryView memory;
  OwnRecord own;
  std::optional<std::pair<std::uint64_t, std::uint64_t>> own_bounds_bytes;  // of both lists
  bool consistent = false;
  int attempts_count = 0;
};

bool is_integrated(DeviceTarget const& target) {
  if (target.cuda && target.cuda->integrated) return *target.cuda->integrated;
  return target.nvml != nullptr && target.nvml->integrated == true;
}

/// Reads for one target; holds what does not change between the attempts.
class Collector {
 public:
  Collector(DeviceSession& session, DeviceTarget const& target, ReadRequest const& request)
      : session_(session),
        target_(target),
        request_(request),
        integrated_(is_integrated(target)),
        facts_(self_facts(session, target, request.allocator)) {}

  [[nodiscard]] Collect collect();
  [[nodiscard]] SelfFacts const& facts() const noexcept { return facts_; }

 private:
  [[nodiscard]] nvml::ProcessList read_list();
  [[nodiscard]] OwnRecord find(nvml::ProcessList const& list);
  void check_numbers(nvml::ProcessList const& list);
  [[nodiscard]] MemoryView read_memory();
  [[nodiscard]] MemoryView read_unified();
  [[nodiscard]] std::optional<nvml::MemoryReading> read_nvml(nvml::Failure& failure);
  [[nodiscard]] std::optional<cuda::MemoryInfo> read_cuda(std::string& reason);
  [[noreturn]] void fail(nvml::Failure const& failure, std::string const& cuda_reason) const;

  DeviceSession& session_;
  DeviceTarget const& target_;
  ReadRequest request_;
  bool integrated_;
  SelfFacts facts_;
};

nvml::ProcessList Collector::read_list() {
  if (target_.nvml != nullptr) return session_.nvml.read_processes(*target_.nvml);
  nvml::ProcessList list;
  list.reason = session_.nvml.available() ? "NVML does not know this device"
                                          : "no NVML: " + session_.nvml.reason();
  return list;
}

void Collector::check_numbers(nvml::ProcessList const& list) {
  bool const asked = list.find(facts_.names.pid) != nullptr || facts_.broker_pid;
  if (!asked || facts_.names.initial_namespace == true || session_.numbers_ours) return;
  facts_.numbers_ours = numbers_are_ours(list, facts_);
  session_.numbers_ours = facts_.numbers_ours == true;
}

// What a list says, with what has to be looked up or asked for where it alone is not enough.
OwnRecord Collector::find(nvml::ProcessList const& list) {
  if (refutes_memory(list, facts_) && session_.driver.context_live(*target_.cuda) == true) {
    session_.identified_pid.reset();
    facts_.remembered_pid.reset();
  }
  if (!facts_.remembered_pid) check_numbers(list);
  auto own = find_own(list, facts_);
  bool const broker_may_help = !own.located && facts_.context_live != false &&
                               facts_.names.initial_namespace != true && !list.records.empty();
  if (!broker_may_help || facts_.broker_pid) return own;
  if (!session_.broker) session_.broker = ask_broker();
  if (session_.broker->pid) {
    facts_.broker_pid = session_.broker->pid;
    check_numbers(list);
    own = find_own(list, facts_);
  } else if (!session_.broker->reason.empty()) {
    own.reason += "; " + session_.broker->reason;
  }
  return own;
}

std::optional<nvml::MemoryReading> Collector::read_nvml(nvml::Failure& failure) {
  if (target_.nvml == nullptr) {
    failure.reason = read_list().reason;
    return std::nullopt;
  }
  if (integrated_) {
    // Such drivers have answered NOT_SUPPORTED, and SUCCESS with wrong numbers (nvitop#208).
    failure.reason = "an integrated GPU shares the host's memory: NVML's totals mean nothing";
    return std::nullopt;
  }
  return session_.nvml.read_memory(*target_.nvml, failure);
}

std::optional<cuda::MemoryInfo> Collector::read_cuda(std::string& reason) {
  if (target_.cuda) return session_.driver.memory_info(*target_.cuda, reason);
  reason = "this process's CUDA driver does not have the device";
  return std::nullopt;
}

// Whatever NVML says of such a device's totals is not even asked for.
MemoryView Collector::read_unified() {
  std::string cuda_reason;
  auto const info = read_cuda(cuda_reason);
  auto const free = info ? std::optional(info->free_bytes) : std::nullopt;
  auto const total = info ? std::optional(info->total_bytes) : std::nullopt;
  auto unified = read_integrated(free, total);
  if (!unified.host_total_bytes && !info) {
    fail({.reason = "no /proc/meminfo", .error = std::nullopt}, cuda_reason);
  }
  // The host's total: its terms, and CUDA's share of it, are parts of that.
  return {.source = unified.host_total_bytes ? MemorySource::kUnified : MemorySource::kCuda,
          .memory = {.has_reserved = false,
                     .total_bytes = unified.host_total_bytes ? *unified.host_total_bytes : *total,
                     .free_bytes = unified.free_bytes().value_or(0),
                     .device_used_bytes = unified.device_used_bytes(),
                     .reserved_bytes = std::nullopt},
          .cuda = info,
          .unified = std::move(unified),
          .joined = true};
}

MemoryView Collector::read_memory() {
  if (integrated_) return read_unified();
  nvml::Failure failure;
  std::string cuda_reason;
  if (auto const first = read_nvml(failure)) {
    MemoryView view{.source = first->has_reserved ? MemorySource::kNvmlV2 : MemorySource::kNvmlV1,
                    .memory = *first,
                    .cuda = std::nullopt,
                    .unified = std::nullopt,
                    .joined = true};
    if (target_.nvml->numa_node) view.unified = read_coherent(*target_.nvml->numa_node);
    if (!request_.with_cuda) return view;
    view.cuda = read_cuda(cuda_reason);
    // NVML's numbers on both sides of CUDA's: equal, they held when CUDA's did.
    if (view.cuda) view.joined = read_nvml(failure) == first;
    return view;
  }
  auto const info = read_cuda(cuda_reason);
  if (!info) fail(failure, cuda_reason);
  return {.source = MemorySource::kCuda,
          .memory = {.has_reserved = false,
                     .total_bytes = info->total_bytes,
                     .free_bytes = info->free_bytes,
                     .device_used_bytes = std::nullopt,
                     .reserved_bytes = std::nullopt},
          .cuda = info,
          .unified = std::nullopt,
          .joined = true};
}

void Collector::fail(nvml::Failure const& failure, std::string const& cuda_reason) const {
  auto const& api = session_.nvml.api();
  if (failure.error) {
    throw DriverError(api.symbol_of(failure.error->name), failure.error->code,
                      api.text_of(failure.error->code));
  }
  throw SourceUnavailableError("memory of device " + target_.uuid,
                               failure.reason + "; " + cuda_reason);
}

// The list that ends one attempt begins the next.
Collect Collector::collect() {
  Collect best;
  if (target_.nvml != nullptr && !target_.nvml->total_bytes) {
    nvml::Failure ignored;
    (void)read_nvml(ignored);  // the lists are checked against the total
  }
  auto before = read_list();
  auto own_before = find(before);
  for (int attempt = 1; attempt <= kCollectAttempts; ++attempt) {
    Collect now;
    now.memory = read_memory();
    now.list = read_list();
    now.own = find(now.list);
    now.consistent = now.memory.joined && before.agrees_with(now.list);
    auto const first = own_before.own_bytes;
    auto const second = now.own.own_bytes;
    if (first && second) now.own_bounds_bytes = std::minmax(*first, *second);
    bool const own_held = first && first == second;
    before = now.list;
    own_before = now.own;
    bool const done = now.consistent;
    // Of torn attempts, the last in which at least our own number stood still.
    bool const best_held = best.attempts_count > 0 && best.own_bounds_bytes &&
                           best.own_bounds_bytes->first == best.own_bounds_bytes->second;
    if (done || own_held || !best_held) best = std::move(now);
    best.attempts_count = attempt;
    if (done) break;
  }
  return best;
}

void fill_memory(DeviceMemory& device, MemoryView const& view) {
  device.source = view.source;
  device.total_bytes = view.memory.total_bytes;
  device.free_bytes = view.memory.free_bytes;
  device.device_used_bytes = view.memory.device_used_bytes;
  device.reserved_bytes = view.memory.reserved_bytes;
  if (view.cuda) {
    device.cuda_free_bytes = view.cuda->free_bytes;
    device.cuda_total_bytes = view.cuda->total_bytes;
  }
  if (view.unified) {
    device.unified = *view.unified;
    (*device.unified).cuda_free_bytes = device.cuda_free_bytes;
    (*device.unified).cuda_total_bytes = device.cuda_total_bytes;
  }
  if (auto const* const hook = quota_hook_in_process()) {
    // A quota and what counts against it: neither is made of physical terms.
    device.virtualized = hook;
    device.device_used_bytes.reset();
    device.reserved_bytes.reset();
  }
}

void fill_shares(DeviceMemory& device, nvml::ProcessList const& list, Shares shares) {
  device.tree_bytes = shares.tree_bytes;
  device.foreign_bytes = shares.foreign_bytes;
  for (std::size_t i = 0; i < list.records.size(); ++i) {
    auto const& record = list.records[i];
    device.processes.push_back({.pid = record.pid,
                                .process_used_bytes = record.process_used_bytes,
                                .owner = shares.owners[i],
                                .kinds = {record.kinds}});
  }
  if (device.device_used_bytes && device.own_bytes && device.tree_bytes && device.foreign_bytes) {
    // Signed: memory that two processes share is in both numbers and on the device once.
    device.unattributed_bytes = static_cast<std::int64_t>(
        *device.device_used_bytes - *device.own_bytes - *device.tree_bytes - *device.foreign_bytes);
  }
  auto& reason = device.attribution.reason;
  if (!shares.reason.empty()) reason += (reason.empty() ? "" : "; ") + shares.reason;
}

/// The allocator's claim beside what the driver says; the driver's numbers stay as they are.
void join_allocator(DeviceMemory& device, std::optional<AllocatorClaim> const& claim) {
  device.allocator_reserved_bytes.reset();
  device.non_torch_bytes.reset();
  device.allocator_inconsistent.reset();
  if (!claim) return;
  device.allocator_reserved_bytes = claim->reserved_bytes;
  auto most = device.total_bytes;
  if (device.device_used_bytes) most = std::min(most, *device.device_used_bytes);
  if (device.own_bytes) {
    auto const most_held = device.own_read_bounds_bytes
                               ? std::max(*device.own_bytes, device.own_read_bounds_bytes->second)
                               : *device.own_bytes;
    device.non_torch_bytes = static_cast<std::int64_t>(*device.own_bytes - claim->reserved_bytes);
    most = std::min(most, most_held);
  }
  device.allocator_inconsistent = claim->reserved_bytes > most;
}

}  // namespace

SelfFacts self_facts(DeviceSession& session, DeviceTarget const& target,
                     std::optional<AllocatorClaim> const& allocator) {
  SelfFacts facts;
  facts.names = session.names;
  facts.remembered_pid = session.identified_pid;
  if (session.numbers_ours) facts.numbers_ours = true;
  if (session.broker) facts.broker_pid = session.broker->pid;
  facts.driver_unused = session.driver.state() != cuda::DriverState::kInitialised;
  if (target.cuda) {
    facts.context_live = session.driver.context_live(*target.cuda);
  } else if (facts.driver_unused || session.hidden_from_driver(target)) {
    facts.context_live = false;
  }
  if (target.nvml != nullptr) facts.mig_enabled = target.nvml->mig_enabled;
  if (allocator) facts.allocator_reserved_bytes = allocator->backed_bytes;
  return facts;
}

DeviceMemory read_target(DeviceSession& session, DeviceTarget const& target,
                         ReadRequest const& request) {
  DeviceMemory device;
  device.taken_ns = monotonic_ns();
  Collector collector(session, target, request);
  auto const collect = collector.collect();
  device.span_ns = monotonic_ns() - device.taken_ns;
  device.uuid = target.uuid;
  device.name = "unknown";
  if (target.cuda) {
    device.cuda_ordinal = target.cuda->ordinal;
    if (!target.cuda->name.empty()) device.name = target.cuda->name;
  }
  if (target.nvml != nullptr) {
    device.index = target.nvml->index;
    if (!target.nvml->name.empty()) device.name = target.nvml->name;
  }
  fill_memory(device, collect.memory);
  device.consistent = collect.consistent;
  device.attempts_count = collect.attempts_count;
  device.own_bytes = collect.own.own_bytes;
  std::optional<std::uint64_t> high = device.total_bytes - device.free_bytes;
  if (device.device_used_bytes) high = device.device_used_bytes;
  if (device.virtualized) high.reset();
  device.attribution = attribute(collect.own, collector.facts(), high);
  if (!collect.consistent && collect.own_bounds_bytes) {
    device.own_read_bounds_bytes = collect.own_bounds_bytes;
    device.attribution.own_bounds_bytes = *collect.own_bounds_bytes;
  } else if (!collect.consistent && device.own_bytes) {
    // Known after the memory was read and not before: no bound of what it was then.
    device.attribution.own_bounds_bytes = {std::nullopt, high};
  }
  join_allocator(device, request.allocator);
  fill_shares(device, collect.list, divide(collect.list, collect.own, session.names, session.tree));
  return device;
}

}  // namespace memacct
