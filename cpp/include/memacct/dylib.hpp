// Shared libraries found at run time: a machine without a driver is a normal machine.
#pragma once
#include <string>
#include <utility>

namespace memacct {

/// A library opened by name. A failure is a value with its reason: the caller decides what
/// it means. Never closed: the driver's libraries keep threads and handlers of their own,
/// and unloading them under a process has no safe moment.
class Library {
 public:
  enum class Mode {
    kLoad,          // bring it into the process if it is not there
    kOnlyIfLoaded,  // RTLD_NOLOAD: find it only if somebody else has brought it
  };

  Library() = default;
  /// Opens `soname`, or the file that the environment variable `override_variable` names.
  [[nodiscard]] static Library open(char const* soname, char const* override_variable, Mode mode);

  [[nodiscard]] bool loaded() const noexcept { return handle_ != nullptr; }
  /// The address of a symbol; null if the library lacks it, which is normal for old drivers.
  [[nodiscard]] void* symbol(char const* name) const noexcept;
  /// What was asked for until it is found, then the file that was found.
  [[nodiscard]] std::string const& path() const noexcept { return path_; }
  /// Why it is not loaded; empty if it is.
  [[nodiscard]] std::string const& reason() const noexcept { return reason_; }

 private:
  void* handle_ = nullptr;
  std::string path_;
  std::string reason_ = "not looked for yet";
};

/// Fills the function pointer `function` with the first of `names` that `library` has, and
/// returns that name; null if it has none.
template <typename Function, typename... Names>
char const* resolve(Library const& library, Function*& function, Names... names) {
  char const* chosen = nullptr;
  auto const consider = [&](char const* name) {
    if (function != nullptr) return;
    // POSIX guarantees what C++ leaves open: a symbol's address converts to its function.
    function = reinterpret_cast<Function*>(library.symbol(name));
    if (function != nullptr) chosen = name;
  };
  (consider(names), ...);
  return chosen;
}

/// Whether the CUDA driver's library is in this process. Where it is not, the process holds
/// no CUDA context, and there is nothing to ask.
/// Cost: a relaxed load once it is; before, one dl_iterate_phdr that stops at its first
/// entry unless a library was loaded since the last call. Takes no lock of ours.
[[nodiscard]] bool driver_loaded_in_process() noexcept;

/// The file name of a library in this process that puts a quota in the place of a device's
/// memory, for cuMemGetInfo as for NVML (HAMi's libvgpu.so and others of its kind).
/// Cost: as driver_loaded_in_process(); a walk over the loaded libraries when one was added.
/// Safe from several threads; the result is never freed.
[[nodiscard]] char const* quota_hook_in_process() noexcept;

}  // namespace memacct
