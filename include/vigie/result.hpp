/// @file
/// vigie::result<T>: a value or an error, for code that does not throw. It is std::expected<T, vigie::error> where there is one.
///
/// Guarantees: no allocation of its own. Leaves to others: what the errors mean (error.hpp).
#ifndef VIGIE_RESULT_HPP
#define VIGIE_RESULT_HPP

#include "error.hpp"

#include <cstdlib>
#include <optional>
#include <utility>
#if __cplusplus >= 202302L || (defined(__cplusplus) && __cplusplus > 202002L)
#if defined(__has_include)
#if __has_include(<expected>)
#include <expected>
#endif
#endif
#endif

#if defined(__cpp_lib_expected) && __cpp_lib_expected >= 202202L
#define VIGIE_HPP_STD_EXPECTED 1
// Functions that return a result differ from those of a translation unit with an older standard, so they get another name.
#define VIGIE_HPP_BEGIN inline namespace with_expected {
#else
#define VIGIE_HPP_STD_EXPECTED 0
#define VIGIE_HPP_BEGIN inline namespace without_expected {
#endif
#define VIGIE_HPP_END }

namespace vigie {
VIGIE_HPP_BEGIN

#if VIGIE_HPP_STD_EXPECTED
template <class T> using result = std::expected<T, error>;
using failure = std::unexpected<error>;
#else

/// An error on its way into a result. Ownership: holds the error. Blocks: no.
class failure {
public:
  explicit failure(vigie::error what) noexcept : error_(std::move(what)) {}
  const vigie::error &error() const noexcept { return error_; }

private:
  vigie::error error_;
};

/// A value or an error, with the part of std::expected that programs use. Ownership: holds either. Blocks: no.
///
/// value() of a result without one throws the error as the class that fits; without exceptions it ends the program.
template <class T> class result {
public:
  using value_type = T;
  using error_type = vigie::error;
  result(T value) : value_(std::move(value)) {}
  result(const failure &what) : error_(what.error()) {}
  bool has_value() const noexcept { return value_.has_value(); }
  explicit operator bool() const noexcept { return has_value(); }
  T &operator*() & noexcept { return *value_; }
  const T &operator*() const & noexcept { return *value_; }
  T &&operator*() && noexcept { return std::move(*value_); }
  T *operator->() noexcept { return &*value_; }
  const T *operator->() const noexcept { return &*value_; }
  const vigie::error &error() const noexcept { return error_; }
  T &value() & { return check(), *value_; }
  const T &value() const & { return check(), *value_; }
  T &&value() && { return check(), std::move(*value_); }
  template <class U> T value_or(U &&other) && { return value_ ? std::move(*value_) : T(std::forward<U>(other)); }
  template <class U> T value_or(U &&other) const & { return value_ ? *value_ : T(std::forward<U>(other)); }

private:
  void check() const {
    if (value_) return;
#if VIGIE_HPP_EXCEPTIONS
    error_.raise();
#else
    std::abort();
#endif
  }
  std::optional<T> value_;
  vigie::error error_;
};

/// Nothing, or an error.
template <> class result<void> {
public:
  using value_type = void;
  using error_type = vigie::error;
  result() noexcept = default;
  result(const failure &what) noexcept : error_(what.error()) {}
  bool has_value() const noexcept { return error_.status() == VIGIE_OK; }
  explicit operator bool() const noexcept { return has_value(); }
  const vigie::error &error() const noexcept { return error_; }
  void value() const {
    if (has_value()) return;
#if VIGIE_HPP_EXCEPTIONS
    error_.raise();
#else
    std::abort();
#endif
  }

private:
  vigie::error error_;
};
#endif

#if VIGIE_HPP_EXCEPTIONS
/// The value of a result, or its error as the exception that fits, with std::expected too. Ownership: moves the value. Blocks: no.
template <class T> T unwrap(result<T> &&from) {
  if (!from.has_value()) from.error().raise();
  if constexpr (!std::is_void_v<T>) return *std::move(from);
}
#endif

namespace detail {

template <class T, void (*Free)(T *)> struct freer {
  void operator()(T *handle) const noexcept { Free(handle); }
};
/// A handle of the C interface that frees itself.
template <class T, void (*Free)(T *)> using owned = std::unique_ptr<T, freer<T, Free>>;

/// Nothing, or the error that a function of the C interface has set.
inline result<void> outcome(vigie_status status, vigie_error *taken) {
  if (status == VIGIE_OK) return {};
  return failure(error(taken));
}
/// A function that gives a handle or a reply: `call(&raw, &err)`.
template <class Made, class Raw, class Call> result<Made> made(Call call) {
  Raw *raw = nullptr;
  vigie_error *err = nullptr;
  if (call(&raw, &err) != VIGIE_OK) return failure(error(err));
  return Made(raw);
}
/// A function that gives nothing: `call(&err)`.
template <class Call> result<void> done(Call call) {
  vigie_error *err = nullptr;
  vigie_status status = call(&err);
  return outcome(status, err);
}

} // namespace detail
VIGIE_HPP_END
} // namespace vigie

#endif
