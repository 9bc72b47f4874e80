#include "memacct/collector.hpp"

#include <algorithm>

namespace memacct {
namespace {

bool is_integrated(DeviceTarget const& target) {
  if (target.cuda && target.cuda->integrated) return *target.cuda->integrated;
  return target.nvml != nullptr && target.nvml->integrated == true;
}

// What the device has in use beyond its records; nullopt where that means nothing.
std::optional<std::int64_t> unlisted_bytes(Collect const& collect, bool of_quota) {
  auto const source = collect.memory.source;
  bool const of_nvml = source == MemorySource::kNvmlV2 || source == MemorySource::kNvmlV1;
  // A quota's numbers, like the host's, move with what no list of this device could show.
  if (!of_nvml || !collect.memory.memory.device_used_bytes || of_quota) return std::nullopt;
  std::uint64_t listed = 0;
  for (auto const& record : collect.look->list.records) {
    listed += record.process_used_bytes.value_or(0);
  }
  // Records without bytes: none that could disagree with the memory's.
  if (listed == 0 && !collect.look->list.records.empty()) return std::nullopt;
  return static_cast<std::int64_t>(*collect.memory.memory.device_used_bytes - listed);
}

}  // namespace

void self_facts(DeviceSession& session, DeviceTarget const& target,
                std::optional<AllocatorClaim> const& allocator, SelfFacts& facts) {
  facts.names = session.names;
  facts.remembered_pid = session.identified_pid;
  facts.numbers_ours = session.numbers_ours ? std::optional(true) : std::nullopt;
  facts.broker_pid = session.broker ? session.broker->pid : std::nullopt;
  facts.driver_unused = session.driver.state() != cuda::DriverState::kInitialised;
  facts.context_live.reset();
  if (target.cuda) {
    facts.context_live = facts.driver_unused ? false : session.driver.has_context(*target.cuda);
  } else if (facts.driver_unused || session.hidden_from_driver(target)) {
    facts.context_live = false;
  }
  facts.mig_enabled.reset();
  if (target.nvml != nullptr) {
    // An instance is not divided further: its list is the one in which we would stand.
    facts.mig_enabled =
        target.nvml->is_instance() ? std::optional(false) : target.nvml->mig_enabled;
  }
  facts.allocator_reserved_bytes.reset();
  if (allocator) facts.allocator_reserved_bytes = allocator->backed_bytes;
}

Collector::Collector(DeviceSession& session, DeviceTarget const& target, ReadRequest const& request,
                     DeviceMemo& memo)
    : session_(session),
      target_(target),
      request_(request),
      integrated_(is_integrated(target)),
      memo_(memo),
      room_(session.room) {
  self_facts(session, target, request.allocator, room_.facts);
  room_.asked = room_.facts;
}

void Collector::read_list(nvml::ProcessList& list) {
  if (target_.nvml != nullptr) return session_.nvml.read_processes(*target_.nvml, list);
  list.records.clear();
  list.complete = false;
  list.reason = session_.nvml.available() ? "NVML does not know this device"
                                          : "no NVML: " + session_.nvml.reason();
}

bool Collector::remembers(nvml::ProcessList const& list) const {
  return memo_.valid && list.complete && memo_.look.list.agrees_with(list) &&
         memo_.asked == room_.asked;
}

void Collector::find(Look& look) {
  if (remembers(look.list)) {
    look.own = memo_.look.own;
    room_.facts = memo_.facts;
    return;
  }
  look.own = find_afresh(look.list);
}

// A list that says the same as the one before is not searched again.
void Collector::look_again(Look const& before, Look& now) {
  read_list(now.list);
  if (now.list.complete && before.list.agrees_with(now.list)) {
    now.own = before.own;
  } else {
    find(now);
  }
}

void Collector::check_numbers(nvml::ProcessList const& list) {
  bool const asked = list.find(room_.facts.names.pid) != nullptr || room_.facts.broker_pid;
  if (!asked || room_.facts.names.initial_namespace == true || session_.numbers_ours) return;
  room_.facts.numbers_ours = numbers_are_ours(list, room_.facts);
  session_.numbers_ours = room_.facts.numbers_ours == true;
}

// What a list says, with what has to be looked up or asked for where it alone is not enough.
OwnRecord Collector::find_afresh(nvml::ProcessList const& list) {
  if (refutes_memory(list, room_.facts) && session_.driver.context_live(*target_.cuda) == true) {
    session_.identified_pid.reset();
    room_.facts.remembered_pid.reset();
  }
  if (!room_.facts.remembered_pid) check_numbers(list);
  auto own = find_own(list, room_.facts);
  bool const broker_may_help = !own.located && room_.facts.context_live != false &&
                               room_.facts.names.initial_namespace != true && !list.records.empty();
  if (!broker_may_help || room_.facts.broker_pid) return own;
  if (!session_.broker) session_.broker = ask_broker();
  if (session_.broker->pid) {
    room_.facts.broker_pid = session_.broker->pid;
    check_numbers(list);
    own = find_own(list, room_.facts);
  } else if (!session_.broker->reason.empty()) {
    own.reason += "; " + session_.broker->reason;
  }
  return own;
}

std::optional<nvml::MemoryReading> Collector::read_nvml(nvml::Failure& failure) {
  if (target_.nvml == nullptr) {
    failure.reason = "NVML does not know this device";
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

Collect Collector::collect_once(Look const& before, Look& now) {
  Collect result{.look = &now, .memory = read_memory(), .own_bounds_bytes = {}};
  look_again(before, now);
  result.consistent = result.memory.joined && before.list.agrees_with(now.list);
  auto const first = before.own.own_bytes;
  auto const second = now.own.own_bytes;
  if (first && second) result.own_bounds_bytes = std::minmax(*first, *second);
  return result;
}

// See "What one snapshot guarantees" in DESIGN.md: a neighbour that was there for the memory only.
bool Collector::settled(Collect const& now, bool repeated) const {
  auto const unlisted = unlisted_bytes(now, session_.nvml.quota_hook() != nullptr);
  if (!unlisted || target_.nvml == nullptr) return true;
  bool const known = target_.nvml->unlisted_bytes == unlisted;
  if (known || repeated) target_.nvml->unlisted_bytes = unlisted;
  return known || repeated;
}

// The list that ends one attempt begins the next.
Collect Collector::collect() {
  if (target_.nvml != nullptr && !target_.nvml->total_bytes) {
    nvml::Failure ignored;
    (void)read_nvml(ignored);  // the lists are checked against the total
  }
  auto* before = &room_.looks[0];
  read_list(before->list);
  find(*before);
  Collect best;
  std::optional<nvml::MemoryReading> agreed;  // of the collects in a row that said the same
  int agreed_count = 0;
  while (true) {
    auto* const now =
        std::find_if(room_.looks.data(), room_.looks.data() + room_.looks.size(),
                     [&](Look& look) { return &look != before && &look != best.look; });
    auto one = collect_once(*before, *now);
    before = now;
    agreed_count = !one.consistent ? 0 : agreed == one.memory.memory ? agreed_count + 1 : 1;
    agreed = one.consistent ? std::optional(one.memory.memory) : std::nullopt;
    if (agreed_count <= 1) ++attempts_count_;
    bool const pending = one.consistent && !settled(one, agreed_count >= kAgreeingCollects);
    bool const done = one.consistent && !pending;
    one.consistent = done;
    // Of torn attempts, the last in which at least our own number stood still.
    if (done || one.own_held() || best.look == nullptr || !best.own_held()) best = std::move(one);
    bool const last = attempts_count_ >= kCollectAttempts && !pending;
    if (done || last || attempts_count_ > kCollectAttempts) break;
  }
  attempts_count_ = std::min(attempts_count_, kCollectAttempts);
  return best;
}

}  // namespace memacct
