/// @file
/// What as<T>() does for each T: vigie::convert<T>. A program specializes it for types of its own.
///
/// Guarantees: no conversion throws but for std::bad_alloc; one that fails says where and what was wanted. Leaves to others: the tree of
/// values (reply.hpp).
#ifndef VIGIE_CONVERT_HPP
#define VIGIE_CONVERT_HPP

#include "reply.hpp"

#include <array>
#include <limits>
#include <tuple>

namespace vigie {
VIGIE_HPP_BEGIN

/// Why a conversion failed: at which value, and what it should have been.
struct mismatch {
  value at;
  const char *wanted = "";
};

/// How a value becomes a T. Specialize it with `static std::optional<T> from(const value &, mismatch &)`: nullopt, and the mismatch set, if it
/// is no T. Ownership: as the T says. Blocks: no.
template <class T, class = void> struct convert {
  static_assert(!std::is_same_v<T, T>, "there is no vigie::convert for this type: see value::as()");
};

namespace detail {

/// What nullopt says of itself.
inline std::nullopt_t no(mismatch &why, const value &at, const char *wanted) noexcept {
  // The innermost mismatch counts.
  if (!why.at) why = {at, wanted};
  return std::nullopt;
}

inline error conversion_failed(const mismatch &why) {
  if (std::optional<error> inside = why.at.error()) return *std::move(inside);
  return error(VIGIE_ERR_INVALID_ARG, std::string("a reply of the type ") + name_of(why.at.type()) + " cannot be read as " + why.wanted);
}

template <class T, class = void> struct is_container : std::false_type {};
template <class T>
struct is_container<T, std::void_t<typename T::value_type, decltype(std::declval<T &>().insert(std::declval<T &>().end(), std::declval<typename T::value_type>()))>>
    : std::bool_constant<!std::is_convertible_v<T, std::string_view>> {};
template <class T, class = void> struct is_map : std::false_type {};
template <class T> struct is_map<T, std::void_t<typename T::mapped_type, typename T::key_type>> : is_container<T> {};
template <class T> struct is_pair : std::false_type {};
template <class A, class B> struct is_pair<std::pair<A, B>> : std::true_type {};

/// Whether a T may point into the reply.
template <class T> struct borrows_inside : std::false_type {};
template <class T> struct borrows_inside<std::optional<T>> : borrows<T> {};
template <class... T> struct borrows_inside<std::tuple<T...>> : std::disjunction<borrows<T>...> {};
template <class A, class B> struct borrows_inside<std::pair<A, B>> : std::disjunction<borrows<A>, borrows<B>> {};
template <class T, std::size_t N> struct borrows_inside<std::array<T, N>> : borrows<T> {};
template <class T, class = void> struct borrows_elements : borrows_inside<T> {};
template <class T> struct borrows_elements<T, std::enable_if_t<is_container<T>::value>> : borrows<typename T::value_type> {};
template <class T> struct borrows : std::disjunction<std::is_same<T, std::string_view>, std::is_base_of<value, T>, borrows_elements<std::remove_const_t<T>>> {};

/// The children one after the other, each as the type that stands at its place.
template <class Tuple, std::size_t... Index>
std::optional<Tuple> tuple_from(const value &from, mismatch &why, std::index_sequence<Index...>) {
  if (!from.is_aggregate() || from.size() != sizeof...(Index)) return no(why, from, "a tuple of another size");
  auto parts = std::make_tuple(convert<std::tuple_element_t<Index, Tuple>>::from(from[Index], why)...);
  if (!(std::get<Index>(parts).has_value() && ...)) return std::nullopt;
  return Tuple(*std::move(std::get<Index>(parts))...);
}

/// Whether an array holds pairs as arrays of two: ZRANGE with scores in RESP3.
inline bool has_pairs(const value &from) noexcept {
  if (from.type() == type::map) return false;
  for (value child : from) {
    if (!child.is_aggregate() || child.size() != 2) return false;
  }
  return !from.empty();
}

template <class Container> std::optional<Container> pairs_from(const value &from, mismatch &why) {
  using Pair = typename Container::value_type;
  using Key = std::remove_const_t<typename Pair::first_type>;
  Container made;
  auto put = [&](const value &key, const value &mapped) {
    auto first = convert<Key>::from(key, why);
    auto second = convert<typename Pair::second_type>::from(mapped, why);
    if (!first || !second) return false;
    made.insert(made.end(), Pair(*std::move(first), *std::move(second)));
    return true;
  };
  if (has_pairs(from)) {
    for (value pair : from) {
      if (!put(pair[0], pair[1])) return std::nullopt;
    }
    return made;
  }
  if (!from.is_aggregate() || from.size() % 2 != 0) return no(why, from, "a map");
  for (auto [key, mapped] : from.entries()) {
    if (!put(key, mapped)) return std::nullopt;
  }
  return made;
}

template <class Container> std::optional<Container> list_from(const value &from, mismatch &why) {
  if (!from.is_aggregate()) return no(why, from, "a list");
  Container made;
  for (value child : from) {
    auto one = convert<typename Container::value_type>::from(child, why);
    if (!one) return std::nullopt;
    made.insert(made.end(), *std::move(one));
  }
  return made;
}

} // namespace detail

/// The value itself.
template <> struct convert<value> {
  static std::optional<value> from(const value &from, mismatch &) noexcept { return from; }
};

/// true and false, and the integers 1 and 0.
template <> struct convert<bool> {
  static std::optional<bool> from(const value &from, mismatch &why) noexcept {
    bool is_number = from.type() == type::integer && from.node().value <= 1;
    if (from.type() != type::boolean && !is_number) return detail::no(why, from, "a bool");
    return from.node().value != 0;
  }
};

/// An integer, true or false as 1 and 0, or a text that is a whole number, if it fits.
template <class T> struct convert<T, std::enable_if_t<detail::is_integer<T>>> {
  static std::optional<T> from(const value &from, mismatch &why) noexcept {
    // A text beyond the range of int64_t is a big number, and read from its digits.
    if (from.is_text() && !from.is_error()) {
      T number{};
      std::string_view text = from.text();
      auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), number);
      if (fault == std::errc() && end == text.data() + text.size() && !text.empty()) return number;
      return detail::no(why, from, fault == std::errc::result_out_of_range ? "an integer of this size" : "an integer");
    }
    if (from.type() != type::integer && from.type() != type::boolean) return detail::no(why, from, "an integer");
    auto number = static_cast<std::int64_t>(from.node().value);
    bool fits = false;
    if constexpr (std::is_signed_v<T>) {
      fits = number >= std::numeric_limits<T>::min() && number <= std::numeric_limits<T>::max();
    } else {
      fits = number >= 0 && static_cast<std::uint64_t>(number) <= std::numeric_limits<T>::max();
    }
    if (!fits) return detail::no(why, from, "an integer of this size");
    return static_cast<T>(number);
  }
};

/// A float, an integer, or a text that is a number.
template <class T> struct convert<T, std::enable_if_t<std::is_floating_point_v<T>>> {
  static std::optional<T> from(const value &from, mismatch &why) noexcept {
    if (from.is_error()) return detail::no(why, from, "a float");
    // The library reads the number. Two different values for "none" tell a number that equals one of them.
    double number = vigie_reply_double(from.raw(), from.id(), 0.0);
    if (number == 0.0 && vigie_reply_double(from.raw(), from.id(), 1.0) == 1.0) return detail::no(why, from, "a float");
    return static_cast<T>(number);
  }
};

/// A view into the reply.
template <> struct convert<std::string_view> {
  static std::optional<std::string_view> from(const value &from, mismatch &why) noexcept {
    if (!from.is_text() || from.is_error()) return detail::no(why, from, "a text");
    return from.text();
  }
};

/// A copy of a text.
template <> struct convert<std::string> {
  static std::optional<std::string> from(const value &from, mismatch &why) {
    if (!from.is_text() || from.is_error()) return detail::no(why, from, "a text");
    return std::string(from.text());
  }
};

/// NULL is nullopt.
template <class T> struct convert<std::optional<T>> {
  static std::optional<std::optional<T>> from(const value &from, mismatch &why) {
    if (from.is_null()) return std::optional<std::optional<T>>(std::in_place, std::nullopt);
    auto made = convert<T>::from(from, why);
    if (!made) return std::nullopt;
    return std::optional<std::optional<T>>(std::in_place, *std::move(made));
  }
};

/// A list of exactly so many.
template <class... T> struct convert<std::tuple<T...>> {
  static std::optional<std::tuple<T...>> from(const value &from, mismatch &why) {
    return detail::tuple_from<std::tuple<T...>>(from, why, std::index_sequence_for<T...>());
  }
};

/// A list of exactly two.
template <class A, class B> struct convert<std::pair<A, B>> {
  static std::optional<std::pair<A, B>> from(const value &from, mismatch &why) {
    return detail::tuple_from<std::pair<A, B>>(from, why, std::index_sequence<0, 1>());
  }
};

/// A list of exactly N.
template <class T, std::size_t N> struct convert<std::array<T, N>> {
  static std::optional<std::array<T, N>> from(const value &from, mismatch &why) {
    if (!from.is_aggregate() || from.size() != N) return detail::no(why, from, "an array of another size");
    std::array<T, N> made{};
    for (std::size_t at = 0; at < N; at++) {
      auto one = convert<T>::from(from[at], why);
      if (!one) return std::nullopt;
      made[at] = *std::move(one);
    }
    return made;
  }
};

/// A list, a set, or a map: any container with insert(). Pairs are read from a map, from alternating keys and values, and from arrays of two.
template <class T> struct convert<T, std::enable_if_t<detail::is_container<T>::value>> {
  static std::optional<T> from(const value &from, mismatch &why) {
    if constexpr (detail::is_map<T>::value || detail::is_pair<typename T::value_type>::value) {
      return detail::pairs_from<T>(from, why);
    } else {
      return detail::list_from<T>(from, why);
    }
  }
};

template <class T> result<T> value::try_as() const {
  mismatch why;
  std::optional<T> made = convert<T>::from(*this, why);
  if (made) return *std::move(made);
  return failure(detail::conversion_failed(why));
}

VIGIE_HPP_END
} // namespace vigie

#endif
