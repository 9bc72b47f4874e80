// An optional value that lies on the heap: where there is none, it takes a pointer's room.
#pragma once
#include <memory>
#include <optional>
#include <utility>

namespace memacct {

/// As std::optional, for large parts that most objects do not have. An object that fits into a
/// small allocation is made several times faster than a large one with room for all its parts.
template <typename T>
class Boxed {
 public:
  using value_type = T;

  Boxed() = default;
  // Implicit, as optional's: what is read is put where it belongs.
  Boxed(T value) : value_(std::make_unique<T>(std::move(value))) {}
  Boxed(std::optional<T> value)
      : value_(value ? std::make_unique<T>(*std::move(value)) : nullptr) {}
  Boxed(Boxed const& other) : value_(other ? std::make_unique<T>(*other) : nullptr) {}
  Boxed(Boxed&&) noexcept = default;
  Boxed& operator=(Boxed other) noexcept {
    value_ = std::move(other.value_);
    return *this;
  }
  ~Boxed() = default;

  [[nodiscard]] explicit operator bool() const noexcept { return value_ != nullptr; }
  [[nodiscard]] T& operator*() noexcept { return *value_; }
  [[nodiscard]] T const& operator*() const noexcept { return *value_; }
  template <typename... Args>
  T& emplace(Args&&... args) {
    value_ = std::make_unique<T>(std::forward<Args>(args)...);
    return *value_;
  }
  void reset() noexcept { value_.reset(); }

  /// By value; two without one are equal.
  friend bool operator==(Boxed const& a, Boxed const& b) {
    return a && b ? *a == *b : static_cast<bool>(a) == static_cast<bool>(b);
  }

 private:
  std::unique_ptr<T> value_;
};

}  // namespace memacct
