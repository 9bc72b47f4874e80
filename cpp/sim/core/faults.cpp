// Faults and worlds: parsing MEMACCT_SIM_FAULTS and applying its rules.
#include "faults.hpp"

#include <time.h>

#include <atomic>
#include <cstdlib>
#include <list>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "moves.hpp"

namespace memacct::sim {
namespace {

struct CallRule {
  std::string function;
  int error = 0;
  uint64_t after = 0;
  uint64_t times = ~uint64_t{0};
  long latency_us = 0;
  int64_t charge_bytes = 0;
  int charge_pid = 0;
  int device = 0;
  std::atomic<uint64_t> calls{0};

  [[nodiscard]] bool matches(std::string_view name) const {
    if (function.empty() || function.back() != '*') return name == function;
    return name.substr(0, function.size() - 1) == function.substr(0, function.size() - 1);
  }
};

struct Faults {
  std::list<CallRule> calls;  // a list: the counters must not move
  PidWorld pids = PidWorld::Own;
  std::map<int, uint64_t> bytes_of_pid;
  std::optional<uint64_t> bytes_of_self;
  std::optional<uint64_t> bytes_of_all;
  std::map<uint32_t, uint64_t> bytes_of_list;
  unsigned record_bytes[4] = {0, 16, 24, 24};
};

struct Option {
  std::string key;
  std::string value;
};

[[noreturn]] void bad(std::string const& rule, std::string const& part) {
  fail("MEMACCT_SIM_FAULTS: \"%s\" is not understood in the rule \"%s\"", part.c_str(),
       rule.c_str());
}

uint64_t number(std::string const& rule, std::string const& text) {
  char* rest = nullptr;
  uint64_t const value = std::strtoull(text.c_str(), &rest, 10);
  if (text.empty() || *rest != '\0') bad(rule, text);
  return value;
}

int64_t signed_bytes(std::string const& rule, std::string const& text) {
  bool const negative = !text.empty() && text[0] == '-';
  auto const bytes =
      parse_bytes(!text.empty() && (negative || text[0] == '+') ? text.substr(1) : text);
  if (!bytes) bad(rule, text);
  return negative ? -static_cast<int64_t>(*bytes) : static_cast<int64_t>(*bytes);
}

void add_call_rule(Faults& faults, std::string const& name, std::vector<Option> const& options) {
  auto& rule = faults.calls.emplace_back();
  rule.function = name;
  for (auto const& [key, value] : options) {
    if (key == "error")
      rule.error = static_cast<int>(number(name, value));
    else if (key == "after")
      rule.after = number(name, value);
    else if (key == "for")
      rule.times = number(name, value);
    else if (key == "latency_us")
      rule.latency_us = static_cast<long>(number(name, value));
    else if (key == "charge")
      rule.charge_bytes = signed_bytes(name, value);
    else if (key == "pid")
      rule.charge_pid = static_cast<int>(number(name, value));
    else if (key == "device")
      rule.device = static_cast<int>(number(name, value));
    else
      bad(name, key);
  }
}

void set_pids(Faults& faults, std::string const& name, std::vector<Option> const& options) {
  for (auto const& option : options) {
    if (option.key == "own")
      faults.pids = PidWorld::Own;
    else if (option.key == "host")
      faults.pids = PidWorld::Host;
    else if (option.key == "outer")
      faults.pids = PidWorld::Outer;
    else if (option.key == "hidden")
      faults.pids = PidWorld::Hidden;
    else
      bad(name, option.key);
  }
}

void set_bytes(Faults& faults, std::string const& name, std::vector<Option> const& options) {
  for (auto const& [key, value] : options) {
    uint64_t const bytes = value == "na" ? kNotAvailable : number(name, value);
    if (key == "self")
      faults.bytes_of_self = bytes;
    else if (key == "all")
      faults.bytes_of_all = bytes;
    else
      faults.bytes_of_pid[static_cast<int>(number(name, key))] = bytes;
  }
}

void set_lists(Faults& faults, std::string const& name, std::vector<Option> const& options) {
  static std::map<std::string, uint32_t> const kLists{
      {"compute", kComputeList}, {"graphics", kGraphicsList}, {"mps", kMpsList}};
  for (auto const& [key, value] : options) {
    auto const list = kLists.find(key);
    auto const bytes = value == "na" ? kNotAvailable : parse_bytes(value);
    if (list == kLists.end()) bad(name, key);
    if (!bytes) bad(name, value);
    faults.bytes_of_list[list->second] = *bytes;
  }
}

void set_records(Faults& faults, std::string const& name, std::vector<Option> const& options) {
  for (auto const& [key, value] : options) {
    uint64_t const bytes = number(name, value);
    if (bytes != 16 && bytes != 24 && bytes != 32) bad(name, value);
    if (key.size() != 2 || key[0] != 'v' || key[1] < '1' || key[1] > '3') bad(name, key);
    faults.record_bytes[key[1] - '0'] = static_cast<unsigned>(bytes);
  }
}

void add_rule(Faults& faults, std::string const& text) {
  size_t const colon = text.find(':');
  size_t const start = text.find_first_not_of(" \t\n");
  if (start == std::string::npos) return;
  if (colon == std::string::npos) bad(text, text);
  std::string const name = text.substr(start, colon - start);
  std::vector<Option> options;
  std::istringstream words{text.substr(colon + 1)};
  for (std::string word; words >> word;) {
    size_t const equals = word.find('=');
    options.push_back(equals == std::string::npos
                          ? Option{word, ""}
                          : Option{word.substr(0, equals), word.substr(equals + 1)});
  }
  if (name == "pids") return set_pids(faults, name, options);
  if (name == "bytes") return set_bytes(faults, name, options);
  if (name == "lists") return set_lists(faults, name, options);
  if (name == "records") return set_records(faults, name, options);
  if (name == "missing") return;
  add_call_rule(faults, name, options);
}

Faults& faults() {
  static Faults& instance = *[] {
    auto* const made = new Faults;  // never destroyed: calls come until the process ends
    std::istringstream rules{option_text("MEMACCT_SIM_FAULTS", "")};
    for (std::string rule; std::getline(rules, rule, ';');) add_rule(*made, rule);
    return made;
  }();
  return instance;
}

void wait_us(long microseconds) {
  timespec left{microseconds / 1'000'000, microseconds % 1'000'000 * 1000};
  while (::nanosleep(&left, &left) != 0) {
  }
}

}  // namespace

std::optional<int> fault_in_call(char const* function) {
  carry_out_moves(function);
  std::optional<int> error;
  for (auto& rule : faults().calls) {
    if (!rule.matches(function)) continue;
    uint64_t const call = rule.calls.fetch_add(1);
    if (call < rule.after || call - rule.after >= rule.times) continue;
    if (rule.latency_us != 0) wait_us(rule.latency_us);
    if (rule.charge_bytes != 0 && rule.device < machine_config().units_count)
      change_foreign(rule.device, rule.charge_bytes, rule.charge_pid);
    if (rule.error != 0 && !error) error = rule.error;
  }
  if (error) log("fault: %s returns %d", function, *error);
  return error;
}

PidWorld pid_world() { return faults().pids; }

uint64_t listed_bytes(ProcessUsage const& usage, List list) {
  auto const& all = faults();
  if (auto const it = all.bytes_of_list.find(list); it != all.bytes_of_list.end())
    return it->second;
  if (auto const it = all.bytes_of_pid.find(usage.pid); it != all.bytes_of_pid.end())
    return it->second;
  if (usage.self && all.bytes_of_self) return *all.bytes_of_self;
  return all.bytes_of_all.value_or(usage.bytes);
}

std::optional<unsigned> listed_pid(ProcessUsage const& usage) {
  switch (faults().pids) {
    case PidWorld::Host: {
      // A permutation of 1..4194304 (the kernel's PID_MAX_LIMIT) without a fixed point: the
      // same for every caller, and nobody's own number.
      constexpr unsigned kHalf = 1U << 21;
      return ((static_cast<unsigned>(usage.host_pid) - 1U) ^ kHalf) + 1U;
    }
    case PidWorld::Outer:
      return static_cast<unsigned>(usage.host_pid);
    case PidWorld::Hidden:
      if (!usage.same_container) return std::nullopt;
      [[fallthrough]];
    case PidWorld::Own:
      break;
  }
  if (usage.pid == 0) return std::nullopt;
  return static_cast<unsigned>(usage.pid);
}

unsigned record_bytes(int version) { return faults().record_bytes[version]; }

}  // namespace memacct::sim
