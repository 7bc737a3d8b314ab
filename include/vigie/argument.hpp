/// @file
/// Arguments of commands, and budgets of time.
///
/// Guarantees: an argument is a text, bytes, an integer or a float, and anything else does not compile; numbers are written without an
/// allocation, floats as the shortest text that gives the same value. Leaves to others: sending them.
#ifndef VIGIE_ARGUMENT_HPP
#define VIGIE_ARGUMENT_HPP

#include "result.hpp"

#include <charconv>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace vigie {
VIGIE_HPP_BEGIN

/// The whole budget of a call, retries and waiting included: a duration of std::chrono, rounded up to milliseconds, or default_time, or
/// no_limit. A budget of 0 or less does not wait: a command is not sent then (VIGIE_ERR_TIMEOUT).
class budget {
public:
  /// The option timeout.call; where vigie.h says so (drain, create) another default. Blocks: no. Throws: nothing.
  constexpr budget() noexcept = default;
  /// A duration. Blocks: no. Throws: nothing.
  template <class Rep, class Period>
  constexpr budget(std::chrono::duration<Rep, Period> time) noexcept : ms_(rounded_up(time)) {}
  /// For vigie.h: a number of milliseconds, or one of its constants. Blocks: no. Throws: nothing.
  static constexpr budget raw(std::int64_t ms) noexcept { return budget(ms, 0); }
  /// As vigie.h takes it. Blocks: no. Throws: nothing.
  constexpr std::int64_t ms() const noexcept { return ms_; }

private:
  constexpr budget(std::int64_t ms, int) noexcept : ms_(ms) {}
  template <class Duration> static constexpr std::int64_t rounded_up(Duration time) noexcept {
    using std::chrono::milliseconds;
    // What is longer than 24 days is no limit, as in vigie.h; a longer one may not be representable in milliseconds.
    if (time >= std::chrono::duration<double>(2147483.0)) return VIGIE_TIMEOUT_NONE;
    if (time <= Duration::zero()) return 0;
    milliseconds ms = std::chrono::duration_cast<milliseconds>(time);
    return ms.count() + (ms < time ? 1 : 0);
  }
  std::int64_t ms_ = VIGIE_TIMEOUT_DEFAULT;
};
/// The option timeout.call.
inline constexpr budget default_time{};
/// No limit.
inline constexpr budget no_limit = budget::raw(VIGIE_TIMEOUT_NONE);

namespace detail {

template <class T> inline constexpr bool is_character =
    std::is_same_v<T, char> || std::is_same_v<T, wchar_t> || std::is_same_v<T, char16_t> || std::is_same_v<T, char32_t>
#ifdef __cpp_char8_t
    || std::is_same_v<T, char8_t>
#endif
    ;
template <class T> inline constexpr bool is_text = std::is_convertible_v<const T &, std::string_view> && !std::is_same_v<T, std::nullptr_t>;
template <class T> inline constexpr bool is_integer = std::is_integral_v<T> && !std::is_same_v<T, bool> && !is_character<T>;

template <class T, class = void> inline constexpr bool is_bytes = false;
template <class T>
inline constexpr bool is_bytes<T, std::void_t<decltype(std::declval<const T &>().data()), decltype(std::declval<const T &>().size())>> =
    sizeof(*std::declval<const T &>().data()) == 1 && std::is_trivially_copyable_v<std::decay_t<decltype(*std::declval<const T &>().data())>> &&
    !std::is_same_v<std::decay_t<decltype(*std::declval<const T &>().data())>, bool>;

/// The shortest text that gives the same value.
template <class Float> std::size_t write_float(char *to, std::size_t room, Float value) noexcept {
  if (std::isinf(value)) return static_cast<std::size_t>(std::snprintf(to, room, value < 0 ? "-inf" : "inf"));
#if defined(__cpp_lib_to_chars) && !defined(VIGIE_HPP_NO_TO_CHARS)
  return static_cast<std::size_t>(std::to_chars(to, to + room, value).ptr - to);
#else
  // Without floating std::to_chars: the fewest digits that read back; the decimal point of another locale is put right.
  int len = 0;
  for (int digits = 6; digits <= 17; digits++) {
    len = std::snprintf(to, room, "%.*g", digits, static_cast<double>(value));
    if (static_cast<Float>(std::strtod(to, nullptr)) == value) break;
  }
  for (char *at = to; *at != '\0'; at++) {
    if (*at == ',') *at = '.';
  }
  return static_cast<std::size_t>(len);
#endif
}

/// One argument of a command: a view, or a number and its text.
class argument {
public:
  template <class T> explicit argument(const T &from) noexcept {
    using Plain = std::remove_cv_t<T>;
    if constexpr (is_text<Plain>) {
      std::string_view text = from;
      data_ = text.data();
      size_ = text.size();
    } else if constexpr (is_integer<Plain>) {
      data_ = number_;
      size_ = static_cast<std::size_t>(std::to_chars(number_, number_ + sizeof number_, from).ptr - number_);
    } else if constexpr (std::is_floating_point_v<Plain>) {
      data_ = number_;
      // What is no number is refused by the library, as an argument that is NULL and has a length.
      if (std::isnan(from)) {
        data_ = nullptr;
        size_ = 1;
      } else {
        size_ = write_float(number_, sizeof number_, from);
      }
    } else if constexpr (is_bytes<Plain>) {
      data_ = reinterpret_cast<const char *>(from.data());
      size_ = from.size();
    } else {
      static_assert(is_text<Plain>, "an argument of a command is a text, bytes, an integer or a float; convert anything else");
    }
  }
  argument(const argument &) = delete;
  argument &operator=(const argument &) = delete;
  const char *data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }

private:
  const char *data_;
  std::size_t size_;
  char number_[48];
};

/// The arguments of one call, as vigie.h takes them.
template <std::size_t Count> struct arguments {
  explicit arguments(const argument (&list)[Count]) noexcept {
    for (std::size_t at = 0; at < Count; at++) {
      argv[at] = list[at].data();
      lengths[at] = list[at].size();
    }
  }
  const char *argv[Count];
  std::size_t lengths[Count];
};

/// Calls `use(argc, argv, lengths)` with the arguments; nothing is allocated.
template <class Use, class... Args> decltype(auto) with_arguments(Use use, const Args &...args) {
  static_assert(sizeof...(Args) > 0, "a command has a name");
  const argument list[] = {argument(args)...};
  const arguments<sizeof...(Args)> all(list);
  return use(sizeof...(Args), all.argv, all.lengths);
}

} // namespace detail

/// A command whose arguments are counted at run time: it copies them. One thread at a time.
class command {
public:
  /// A command with these first arguments. Ownership: copies them. Blocks: no. Throws: std::bad_alloc.
  template <class... Args> explicit command(const Args &...args) { add(args...); }
  /// Adds arguments. Ownership: copies them. Blocks: no. Throws: std::bad_alloc.
  template <class... Args> command &add(const Args &...args) {
    (append(detail::argument(args)), ...);
    return *this;
  }
  /// Adds each element of a range as an argument. Ownership: copies them. Blocks: no. Throws: std::bad_alloc.
  template <class Range> command &add_all(const Range &range) {
    for (const auto &one : range) add(one);
    return *this;
  }
  /// How many arguments there are. Blocks: no. Throws: nothing.
  std::size_t size() const noexcept { return ends_.size(); }

  /// Calls `use(argc, argv, lengths)`. Ownership: the arrays are valid during the call. Blocks: as `use`. Throws: std::bad_alloc.
  template <class Use> decltype(auto) with(Use use) const {
    std::vector<const char *> argv;
    std::vector<std::size_t> lengths;
    argv.reserve(ends_.size());
    lengths.reserve(ends_.size());
    std::size_t begin = 0;
    for (std::size_t end : ends_) {
      bool is_none = end == broken;
      argv.push_back(is_none ? nullptr : bytes_.data() + begin);
      lengths.push_back(is_none ? 1 : end - begin);
      if (!is_none) begin = end;
    }
    return use(argv.size(), argv.data(), lengths.data());
  }

private:
  static constexpr std::size_t broken = static_cast<std::size_t>(-1);
  void append(const detail::argument &one) {
    if (one.data() != nullptr) bytes_.append(one.data(), one.size());
    ends_.push_back(one.data() == nullptr && one.size() > 0 ? broken : bytes_.size());
  }
  std::string bytes_;
  std::vector<std::size_t> ends_;
};

VIGIE_HPP_END
} // namespace vigie

#endif
