// What the generated stubs of the runtime's libraries call.
#include "config.hpp"

extern "C" MEMACCT_SIM_API void memacct_sim_stub_called(char const* name, int* seen) {
  if (*seen != 0) return;
  *seen = 1;
  memacct::sim::log("stub %s", name);
}
