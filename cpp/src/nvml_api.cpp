#include "memacct/nvml_api.hpp"

namespace memacct::nvml {

Api Api::load(Library const& library) {
  Api api;
  auto const keep = [&](char const* name, char const* symbol) {
    api.symbols.emplace(name, symbol != nullptr ? symbol : "");
  };
#define MEMACCT_RESOLVE(name, signature, ...) keep(#name, resolve(library, api.name, __VA_ARGS__));
  MEMACCT_NVML_FUNCTIONS(MEMACCT_RESOLVE)
#undef MEMACCT_RESOLVE
  return api;
}

std::string Api::symbol_of(char const* name) const {
  auto const found = symbols.find(name);
  return found != symbols.end() && !found->second.empty() ? found->second : name;
}

std::string Api::text_of(int code) const {
  auto const* const text = error_string != nullptr ? error_string(code) : nullptr;
  return text != nullptr ? text : "";
}

std::string Api::describe(char const* name, int code) const {
  auto const text = text_of(code);
  return symbol_of(name) + " returned " + std::to_string(code) +
         (text.empty() ? "" : " (" + text + ")");
}

Severity severity_of(int code) noexcept {
  switch (code) {
    case kInvalidArgument:
    case kNotSupported:
    case kNoPermission:
    case kNotFound:
    case kFunctionNotFound:
    case kOperatingSystem:
    case kMemory:
    case kNoData:
    case kArgumentVersionMismatch:
    case kDeprecated:
    case kNotReady:
    case kResetTypeNotSupported:
      return Severity::kNoData;
    case kGpuIsLost:
    case kResetRequired:
      return Severity::kDeviceLost;
    case kUninitialized:
      return Severity::kUninitialized;
    case kDriverNotLoaded:
    case kLibraryNotFound:
    case kLibraryVersionMismatch:
      return Severity::kDisabled;
    default:
      return Severity::kFailed;
  }
}

bool means_absent(int code) noexcept {
  return code == kNotSupported || code == kFunctionNotFound || code == kArgumentVersionMismatch ||
         code == kDeprecated;
}

}  // namespace memacct::nvml
