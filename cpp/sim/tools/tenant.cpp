// A tenant: a process that holds device memory and changes it on command or on a condition.
#include "tenant.hpp"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <string>
#include <vector>

#include "../core/context.hpp"
#include "../core/device.hpp"

namespace memacct::sim {
namespace {

// A condition is looked at this often; what it waits for lasts much longer.
constexpr int kPollMilliseconds = 1;
constexpr uint64_t kAll = ~uint64_t{0};  // of what is held

constexpr char const* kCounterNames[kCounters] = {
    "launches",       "cuda_memory_queries", "nvml_memory_queries", "nvml_process_queries",
    "graph_captures", "graph_instantiations"};

struct Condition {
  long id = 0;
  int pid = 0;
  uint64_t bytes = 0;
  uint64_t counts[kCounters] = {};
  bool about_process = false;
  std::string file;
  std::string action;
  uint64_t amount = kAll;
};

std::vector<std::string> split(std::string const& line) {
  std::vector<std::string> fields;
  for (size_t at = 0; at <= line.size();) {
    size_t const tab = std::min(line.find('\t', at), line.size());
    fields.push_back(line.substr(at, tab - at));
    at = tab + 1;
  }
  return fields;
}

uint64_t to_number(std::string const& text) { return std::strtoull(text.c_str(), nullptr, 10); }

class Tenant {
 public:
  explicit Tenant(int device) : device_{device} {}

  int run();

 private:
  void command(std::vector<std::string> const& fields);
  void read_commands();
  void add_condition(std::vector<std::string> const& fields);
  [[nodiscard]] bool holds(Condition const& condition) const;
  void act_on_conditions();
  void act(std::string const& who, std::string const& action, uint64_t amount);
  void answer(std::string const& who, std::string const& action, Status status, uint64_t bytes);

  int device_;
  Context* context_ = nullptr;
  uint64_t held_bytes_ = 0;
  std::list<Condition> conditions_;
  std::string input_;
  bool done_ = false;
};

void Tenant::answer(std::string const& who, std::string const& action, Status status,
                    uint64_t bytes) {
  uint64_t const at_ns = monotonic_ns();
  DeviceUsage const usage = device_usage(physical_index(device_));
  char const* const error = status == Status::Ok            ? ""
                            : status == Status::OutOfMemory ? "out of memory"
                                                            : "not possible";
  std::printf(
      "{\"%s\": %s, \"action\": \"%s\", \"error\": \"%s\", \"at_ns\": %llu, \"bytes\": %llu, "
      "\"held_bytes\": %llu, \"device_free_bytes\": %llu, \"pid\": %d}\n",
      who.empty() ? "reply" : "event", who.empty() ? "0" : who.c_str(), action.c_str(), error,
      static_cast<unsigned long long>(at_ns), static_cast<unsigned long long>(bytes),
      static_cast<unsigned long long>(held_bytes_),
      static_cast<unsigned long long>(usage.free_bytes), ::getpid());
  std::fflush(stdout);
}

void Tenant::act(std::string const& who, std::string const& action, uint64_t amount) {
  uint64_t const wanted = amount == kAll ? held_bytes_ : amount;
  uint64_t const bytes = (wanted + kPageBytes - 1) / kPageBytes * kPageBytes;
  if (action == "allocate") {
    Status const status = charge_extra(context_, bytes, "tenant-allocate");
    if (status == Status::Ok) held_bytes_ += bytes;
    return answer(who, action, status, bytes);
  }
  if (action != "free" || bytes > held_bytes_)
    return answer(who, action, Status::InvalidValue, bytes);
  uncharge_extra(context_, bytes, "tenant-free");
  held_bytes_ -= bytes;
  answer(who, action, Status::Ok, bytes);
}

void Tenant::add_condition(std::vector<std::string> const& fields) {
  Condition condition;
  condition.id = std::strtol(fields[1].c_str(), nullptr, 10);
  for (size_t i = 2; i < fields.size(); ++i) {
    size_t const equals = fields[i].find('=');
    std::string const key = fields[i].substr(0, equals);
    std::string const value = fields[i].substr(equals + 1);
    if (key == "file") condition.file = value;
    if (key == "then") condition.action = value;
    if (key == "amount") condition.amount = to_number(value);
    if (key == "pid") condition.pid = static_cast<int>(to_number(value));
    if (key == "bytes") condition.bytes = to_number(value);
    for (int c = 0; c < kCounters; ++c)
      if (key == kCounterNames[c]) condition.counts[c] = to_number(value);
    condition.about_process |= key != "file" && key != "then" && key != "amount";
  }
  conditions_.push_back(condition);
  answer("", "when", Status::Ok, 0);
}

bool Tenant::holds(Condition const& condition) const {
  if (!condition.file.empty() && ::access(condition.file.c_str(), F_OK) != 0) return false;
  if (!condition.about_process) return true;
  // Everyone, since one who has only asked NVML holds no bytes here.
  std::vector<ProcessUsage> const holders = processes(physical_index(device_));
  for (ProcessUsage process : processes(-1)) {
    if (process.self || (condition.pid != 0 && process.pid != condition.pid)) continue;
    for (ProcessUsage const& holder : holders)
      if (holder.host_pid == process.host_pid) process.bytes = holder.bytes;
    bool enough = process.bytes >= condition.bytes;
    for (int c = 0; c < kCounters; ++c) enough &= process.counts[c] >= condition.counts[c];
    if (enough) return true;
  }
  return false;
}

void Tenant::act_on_conditions() {
  for (auto it = conditions_.begin(); it != conditions_.end();) {
    if (!holds(*it)) {
      ++it;
      continue;
    }
    Condition const due = *it;
    it = conditions_.erase(it);
    act(std::to_string(due.id), due.action, due.amount);
  }
}

void Tenant::command(std::vector<std::string> const& fields) {
  if (fields[0] == "quit") {
    done_ = true;
  } else if (fields[0] == "when" && fields.size() > 2) {
    add_condition(fields);
  } else if (fields.size() == 2) {
    act("", fields[0], fields[1] == "all" ? kAll : to_number(fields[1]));
  } else {
    answer("", fields[0], Status::InvalidValue, 0);
  }
}

void Tenant::read_commands() {
  char buffer[4096];
  ssize_t const n = ::read(STDIN_FILENO, buffer, sizeof buffer);
  if (n <= 0) {
    done_ = true;  // whoever commands is gone
    return;
  }
  input_.append(buffer, static_cast<size_t>(n));
  for (size_t end = 0; (end = input_.find('\n')) != std::string::npos;) {
    std::string const line = input_.substr(0, end);
    input_.erase(0, end + 1);
    command(split(line));
  }
}

int Tenant::run() {
  Status status = driver_init();
  if (status == Status::Ok) status = primary_retain(device_, &context_);
  if (status != Status::Ok) {
    std::printf("{\"reply\": 0, \"action\": \"start\", \"error\": \"%s\", \"pid\": %d}\n",
                status == Status::OutOfMemory ? "out of memory" : "no such device", ::getpid());
    return 1;
  }
  answer("", "start", Status::Ok, 0);
  while (!done_) {
    pollfd input{STDIN_FILENO, POLLIN, 0};
    int const ready = ::poll(&input, 1, conditions_.empty() ? -1 : kPollMilliseconds);
    if (ready > 0) read_commands();
    act_on_conditions();
  }
  return 0;
}

}  // namespace

int run_tenant(int device) { return Tenant{device}.run(); }

}  // namespace memacct::sim
