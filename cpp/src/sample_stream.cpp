#include "memacct/sample_stream.hpp"

#include <exception>

namespace memacct {

void SampleErrors::count(SampleErrorKind kind, char const* text) noexcept {
  counts_[static_cast<std::size_t>(kind)].fetch_add(1, std::memory_order_relaxed);
  try {
    std::lock_guard const lock(mutex_);
    last_text_ = text;
  } catch (std::exception const&) {
    // No memory for the text: the count stands.
  }
}

std::string SampleErrors::count_current() noexcept {
  using enum SampleErrorKind;
  auto const counted = [this](SampleErrorKind kind, char const* text) -> std::string {
    count(kind, text);
    return text;
  };
  try {
    try {
      throw;
    } catch (SourceUnavailableError const& error) {
      return counted(kUnavailable, error.what());
    } catch (SourceReadError const& error) {
      return counted(kReading, error.what());
    } catch (SourceFormatError const& error) {
      return counted(kFormat, error.what());
    } catch (DriverError const& error) {
      return counted(kDriver, error.what());
    } catch (std::exception const& error) {
      return counted(kOther, error.what());
    } catch (...) {
      return counted(kOther, "not an exception of the standard library");
    }
  } catch (...) {
    return {};  // no memory for its text
  }
}

SamplerErrors SampleErrors::get(bool wait) const {
  SamplerErrors errors;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    errors.counts[i] = counts_[i].load(std::memory_order_relaxed);
  }
  std::unique_lock lock(mutex_, std::defer_lock);
  if (wait) {
    lock.lock();
  } else if (!lock.try_lock()) {
    return errors;
  }
  errors.last_text = last_text_;
  return errors;
}

std::optional<std::uint16_t> DeviceNames::number_of(DeviceMemory const& device) {
  auto const known = size_.load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < known; ++i) {
    if (entries_[i]->uuid == device.uuid) return static_cast<std::uint16_t>(i);
  }
  if (known == kMost) return std::nullopt;
  entries_[known] = std::make_unique<SampledDevice const>(
      SampledDevice{.uuid = device.uuid, .name = device.name, .index = device.index});
  size_.store(known + 1, std::memory_order_release);
  return static_cast<std::uint16_t>(known);
}

}  // namespace memacct
