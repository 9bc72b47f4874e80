// memacct_simctl: makes a simulated machine, tells its state, takes part in its use.
//   memacct_simctl create                       from the settings in the environment
//   memacct_simctl status                       one JSON object
//   memacct_simctl unattributed DEVICE [-]BYTES changes what nobody holds
//   memacct_simctl tenant DEVICE                see tenant.hpp
//   memacct_simctl crowd N BYTES                N small processes that each hold BYTES of every
//                                               device until standard input ends; says "ready"
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../core/account.hpp"
#include "../core/device.hpp"
#include "tenant.hpp"

using namespace memacct::sim;

namespace {

using Printed = unsigned long long;

int create() {
  constexpr int kInUse = 3;
  return make_machine(machine_config_from_environment()) ? 0 : kInUse;
}

void print_processes(int physical) {
  char const* separator = "";
  for (ProcessUsage const& process : processes(physical)) {
    std::printf(
        "%s{\"pid\": %d, \"host_pid\": %d, \"process_used_bytes\": %llu, "
        "\"launches_count\": %llu}",
        separator, process.pid, process.host_pid, static_cast<Printed>(process.bytes),
        static_cast<Printed>(process.counts[static_cast<int>(Counter::Launches)]));
    separator = ", ";
  }
}

void print_units(char const* title, int first, int end) {
  std::printf("\"%s\": [", title);
  for (int i = first; i < end; ++i) {
    UnitConfig const& unit = unit_config(i);
    DeviceUsage const usage = device_usage(i);
    char uuid[48];
    device_uuid_text(i, uuid, sizeof uuid);
    std::printf(
        "%s{\"index\": %d, \"uuid\": \"%s\", \"total_bytes\": %llu, "
        "\"cuda_total_bytes\": %llu, \"reserved_bytes\": %llu, "
        "\"unattributed_bytes\": %llu, \"free_bytes\": %llu, \"parent_index\": %d, "
        "\"gpu_instance_id\": %d, \"compute_instance_id\": %d, \"processes\": [",
        i == first ? "" : ", ", i, uuid, static_cast<Printed>(usage.total_bytes),
        static_cast<Printed>(unit.cuda_total_bytes), static_cast<Printed>(usage.reserved_bytes),
        static_cast<Printed>(usage.unattributed_bytes), static_cast<Printed>(usage.free_bytes),
        unit.parent, unit.gpu_instance, unit.compute_instance);
    print_processes(i);
    std::printf("]}");
  }
  std::printf("]");
}

int status() {
  std::printf("{");
  print_units("devices", 0, physical_count());
  std::printf(", ");
  print_units("instances", physical_count(), unit_count());
  std::printf("}\n");
  return 0;
}

// One of a crowd. It ends when the one that made it does.
[[noreturn]] void stand(uint64_t bytes, int ready) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (int i = 0; i < physical_count(); ++i)
    if (charge(i, bytes, "crowd") != Status::Ok) ::_exit(1);
  if (::write(ready, "", 1) != 1) ::_exit(1);
  while (true) ::pause();
}

int stand_together(int count, uint64_t bytes) {
  int ready[2];
  if (::pipe(ready) != 0) return 1;
  for (int i = 0; i < count; ++i) {
    pid_t const child = ::fork();
    if (child < 0) fail("cannot make process %d of %d", i + 1, count);
    if (child == 0) stand(bytes, ready[1]);
  }
  ::close(ready[1]);
  char byte = 0;
  for (int i = 0; i < count; ++i)
    if (::read(ready[0], &byte, 1) != 1) fail("only %d of %d processes could hold that", i, count);
  std::printf("ready\n");
  std::fflush(stdout);
  while (::read(0, &byte, 1) > 0) {
  }
  return 0;
}

int device_argument(char const* text) {
  int const device = std::atoi(text);
  if (device < 0 || device >= unit_count())
    fail("device %s is not within 0 to %d", text, unit_count() - 1);
  return device;
}

}  // namespace

int main(int argc, char** argv) {
  char const* const command = argc > 1 ? argv[1] : "";
  if (std::strcmp(command, "create") == 0) return create();
  if (std::strcmp(command, "status") == 0) return status();
  if (std::strcmp(command, "tenant") == 0 && argc == 3) return run_tenant(std::atoi(argv[2]));
  if (std::strcmp(command, "crowd") == 0 && argc == 4)
    return stand_together(std::atoi(argv[2]), std::strtoull(argv[3], nullptr, 10));
  if (std::strcmp(command, "unattributed") == 0 && argc == 4) {
    change_unattributed(device_argument(argv[2]), std::strtoll(argv[3], nullptr, 10));
    return 0;
  }
  std::fprintf(stderr,
               "usage: memacct_simctl create | status | unattributed DEVICE BYTES | tenant DEVICE |"
               " crowd N BYTES\n");
  return 2;
}
