// Which devices this process sees, by the driver's rules: CUDA_DEVICE_ORDER, CUDA_VISIBLE_DEVICES,
// and that a process gets a single MIG instance.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "account.hpp"
#include "device.hpp"

namespace memacct::sim {
namespace {

using Units = std::vector<int>;

std::string uuid_of(int physical) {
  char text[48];
  device_uuid_text(physical, text, sizeof text);
  return text;
}

// As drivers before R470 named instances.
std::string old_name_of(int instance) {
  UnitConfig const& unit = unit_config(instance);
  return "MIG-" + uuid_of(unit.parent) + "/" + std::to_string(unit.gpu_instance) + "/" +
         std::to_string(unit.compute_instance);
}

Units range(int first, int end) {
  Units units(static_cast<size_t>(end - first));
  std::iota(units.begin(), units.end(), first);
  return units;
}

Units devices_in_order() {
  Units devices = range(0, physical_count());
  if (option_text("CUDA_DEVICE_ORDER", "FASTEST_FIRST") != "PCI_BUS_ID")
    std::stable_sort(devices.begin(), devices.end(), [](int one, int other) {
      return unit_config(one).speed > unit_config(other).speed;
    });
  return devices;
}

// The items up to the first that is of another kind; none if one of them is there twice.
template <class Item, class Parse>
std::vector<Item> items(std::string const& list, Parse const& parse) {
  std::vector<Item> found;
  std::set<Item> seen;
  std::istringstream texts{list};
  for (std::string text; std::getline(texts, text, ',');) {
    Item item{};
    if (!parse(text, item)) break;
    if (!seen.insert(item).second) return {};
    found.push_back(item);
  }
  return found;
}

// The one unit whose name begins like this; -1 if there is none, or more than one.
int named(std::string const& beginning, Units const& among) {
  int found = -1;
  for (int const unit : among) {
    if (is_instance(unit) && old_name_of(unit) == beginning) return unit;
    if (uuid_of(unit).rfind(beginning, 0) != 0) continue;
    if (found >= 0) return -1;
    found = unit;
  }
  return found;
}

Units by_name(std::string const& list, char const* prefix, Units const& among) {
  auto const names = items<std::string>(list, [&](std::string const& text, std::string& name) {
    name = text;
    return text.rfind(prefix, 0) == 0;
  });
  Units found;
  for (std::string const& name : names) {
    int const unit = named(name, among);
    if (unit < 0) break;
    if (std::count(found.begin(), found.end(), unit) != 0) return {};
    found.push_back(unit);
  }
  return found;
}

Units by_number(std::string const& list) {
  Units const devices = devices_in_order();
  auto const numbers = items<long long>(list, [](std::string const& text, long long& number) {
    char* rest = nullptr;
    number = std::strtoll(text.c_str(), &rest, 10);
    return rest != text.c_str() && number >= 0;
  });
  Units found;
  for (long long const number : numbers) {
    if (number >= static_cast<long long>(devices.size())) break;
    found.push_back(devices[static_cast<size_t>(number)]);
  }
  return found;
}

Units asked_for(char const* list) {
  if (list == nullptr) return devices_in_order();
  if (std::strncmp(list, "GPU-", 4) == 0) return by_name(list, "GPU-", range(0, physical_count()));
  if (std::strncmp(list, "MIG-", 4) == 0)
    return by_name(list, "MIG-", range(physical_count(), unit_count()));
  return by_number(list);
}

// Beside an instance nothing else is seen. Of a divided device it is the first one.
Units one_instance(Units const& asked) {
  Units undivided;
  for (int const unit : asked) {
    if (is_instance(unit)) return {unit};
    if (!unit_config(unit).divided) undivided.push_back(unit);
    for (int instance = physical_count(); instance < unit_count(); ++instance)
      if (unit_config(instance).parent == unit) return {instance};
  }
  return undivided;
}

Units const& visible() {
  // Read once, as the driver does.
  static auto const* const list =
      new Units(one_instance(asked_for(std::getenv("CUDA_VISIBLE_DEVICES"))));
  return *list;
}

}  // namespace

int device_count() { return static_cast<int>(visible().size()); }

int physical_index(int device) {
  return device >= 0 && device < device_count() ? visible()[static_cast<size_t>(device)] : -1;
}

}  // namespace memacct::sim
