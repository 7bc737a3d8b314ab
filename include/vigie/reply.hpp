/// @file
/// Replies: a tree of values, read in place, and turned into types of C++ by as<T>().
///
/// Guarantees: a value is a view that copies nothing; as<T>() never gives a wrong number silently: what does not fit is an error; a view into a
/// reply that is about to be destroyed does not compile. Leaves to others: the conversions themselves (convert.hpp).
#ifndef VIGIE_REPLY_HPP
#define VIGIE_REPLY_HPP

#include "argument.hpp"

#include <iterator>

namespace vigie {
VIGIE_HPP_BEGIN

/// What a value is: the numbers of vigie_type. More may come.
enum class type : std::uint8_t {
  none = VIGIE_TYPE_NONE,
  null = VIGIE_TYPE_NULL,
  string = VIGIE_TYPE_STRING,
  status = VIGIE_TYPE_STATUS,
  error = VIGIE_TYPE_ERROR,
  integer = VIGIE_TYPE_INT,
  real = VIGIE_TYPE_DOUBLE,
  boolean = VIGIE_TYPE_BOOL,
  bignum = VIGIE_TYPE_BIGNUM,
  verbatim = VIGIE_TYPE_VERBATIM,
  array = VIGIE_TYPE_ARRAY,
  map = VIGIE_TYPE_MAP,
  set = VIGIE_TYPE_SET,
  push = VIGIE_TYPE_PUSH
};

/// The name of a type, such as "ARRAY". Ownership: static. Blocks: no. Throws: nothing.
inline const char *name_of(type which) noexcept {
  static constexpr const char *names[] = {"NONE", "NULL",   "STRING",   "STATUS", "ERROR", "INT", "DOUBLE",
                                          "BOOL", "BIGNUM", "VERBATIM", "ARRAY",  "MAP",   "SET", "PUSH"};
  auto number = static_cast<std::size_t>(which);
  return number < sizeof names / sizeof *names ? names[number] : "UNKNOWN";
}

template <class T, class> struct convert;
class reply;

/// One node of a reply: a view, valid as long as the reply that it belongs to. Any thread may read it. Its functions do not block, and
/// what one returns points into the reply.
class value {
public:
  /// Nothing: type::none. Throws: nothing.
  value() noexcept = default;
  /// A node of a reply of the C interface. Ownership: the reply stays the caller's. Blocks: no. Throws: nothing.
  explicit value(const vigie_reply *of, std::uint32_t node = VIGIE_ROOT) noexcept : reply_(of), id_(node) {
    std::size_t count = 0;
    nodes_ = vigie_reply_nodes(of, &count, &data_, nullptr);
    if (nodes_ == nullptr || node >= count) *this = value();
  }

  /// What it is. Throws: nothing.
  vigie::type type() const noexcept { return nodes_ == nullptr ? type::none : static_cast<vigie::type>(node().type); }
  /// Whether it is there at all. Throws: nothing.
  explicit operator bool() const noexcept { return nodes_ != nullptr; }
  /// Whether it is NULL. Throws: nothing.
  bool is_null() const noexcept { return type() == type::null; }
  /// Whether it is an error inside the reply. Throws: nothing.
  bool is_error() const noexcept { return type() == type::error; }
  /// Whether it has children. Throws: nothing.
  bool is_aggregate() const noexcept { return type() >= type::array && type() <= type::push; }
  /// Whether text() has its bytes. Throws: nothing.
  bool is_text() const noexcept {
    auto which = type();
    return (which >= type::string && which <= type::error) || which == type::bignum || which == type::verbatim;
  }

  /// The bytes of a text, of an error or of a big number; empty for everything else. A NUL follows them. Ownership: the reply's.
  std::string_view text() const noexcept {
    return is_text() ? std::string_view(data_ + node().value, static_cast<std::size_t>(node().len)) : std::string_view();
  }
  /// The error inside the reply, if it is one. Ownership: a copy. Throws: std::bad_alloc.
  std::optional<vigie::error> error() const {
    if (!is_error()) return std::nullopt;
    std::string line(text());
    std::string code = line.substr(0, line.find(' '));
    return vigie::error(VIGIE_ERR_SERVER, std::move(line), std::move(code));
  }

  /// The children of an aggregate; keys and values of a map are counted apart. Throws: nothing.
  std::size_t size() const noexcept { return is_aggregate() ? node().count : 0; }
  /// Whether it has no children. Throws: nothing.
  bool empty() const noexcept { return size() == 0; }
  /// A child by its place, from 0; type::none where there is none. Throws: nothing.
  template <class Index, std::enable_if_t<std::is_integral_v<Index>, int> = 0> value operator[](Index place) const noexcept {
    auto index = static_cast<std::size_t>(place);
    return index < size() ? value(*this, static_cast<std::uint32_t>(node().value + index)) : value();
  }
  /// The value of a key in a map, or in an array whose keys and values alternate; type::none without such a key. Throws: nothing.
  value operator[](std::string_view key) const noexcept {
    std::uint32_t found = vigie_reply_find(reply_, id_, key.data(), key.size());
    return found == VIGIE_NONE ? value() : value(*this, found);
  }

  class iterator;
  class entries_view;
  /// The first child. Throws: nothing.
  iterator begin() const noexcept;
  /// Behind the last child. Throws: nothing.
  iterator end() const noexcept;
  /// The pairs of a map, in order, or of an array whose keys and values alternate. Throws: nothing.
  entries_view entries() const noexcept;

  /// The value as a T. Ownership: a copy, but for a std::string_view, which points into the reply.
  ///
  /// T is bool, an integer, a float, std::string, std::string_view, std::optional<T> (NULL is nullopt), std::pair, std::tuple, std::array, a
  /// container or a map of these, vigie::value, or what vigie::convert is specialized for. Numbers are read from texts too, because RESP2
  /// and GET give them so. Errors: conversion_error: it is no T, or does not fit; server_error: it is an error inside the reply.
#if VIGIE_HPP_EXCEPTIONS
  template <class T> T as() const { return unwrap(try_as<T>()); }
#endif
  /// As as<T>(), with the error in the result.
  template <class T> result<T> try_as() const;

  /// As JSON: vigie_reply_json(). Ownership: a reply with one text. Errors: without memory VIGIE_ERR_LIMIT.
  result<reply> try_json() const;
  /// The reply and the number of the node, for functions of vigie.h. Ownership: the reply's. Throws: nothing.
  const vigie_reply *raw() const noexcept { return reply_; }
  /// The number of the node. Throws: nothing.
  std::uint32_t id() const noexcept { return id_; }
  /// The node as vigie.h has it. Throws: nothing; not for type::none.
  const vigie_node &node() const noexcept { return nodes_[id_]; }

private:
  value(const value &of, std::uint32_t node) noexcept : reply_(of.reply_), nodes_(of.nodes_), data_(of.data_), id_(node) {}
  friend class iterator;
  const vigie_reply *reply_ = nullptr;
  const vigie_node *nodes_ = nullptr;
  const char *data_ = nullptr;
  std::uint32_t id_ = VIGIE_ROOT;
};

/// Goes through the children of a value.
class value::iterator {
public:
  using iterator_category = std::input_iterator_tag;
  using value_type = vigie::value;
  using difference_type = std::ptrdiff_t;
  using pointer = const vigie::value *;
  using reference = vigie::value;
  iterator() noexcept = default;
  vigie::value operator*() const noexcept { return at_; }
  const vigie::value *operator->() const noexcept { return &at_; }
  iterator &operator++() noexcept { return at_.id_++, *this; }
  iterator operator++(int) noexcept {
    iterator old = *this;
    return ++*this, old;
  }
  friend bool operator==(const iterator &a, const iterator &b) noexcept { return a.at_.id() == b.at_.id(); }
  friend bool operator!=(const iterator &a, const iterator &b) noexcept { return !(a == b); }

private:
  friend class value;
  friend class value::entries_view;
  explicit iterator(vigie::value at) noexcept : at_(at) {}
  vigie::value at_;
};

inline value::iterator value::begin() const noexcept {
  return iterator(empty() ? value() : value(*this, static_cast<std::uint32_t>(node().value)));
}
inline value::iterator value::end() const noexcept {
  return iterator(empty() ? value() : value(*this, static_cast<std::uint32_t>(node().value + node().count)));
}

/// The pairs of a map.
class value::entries_view {
public:
  class iterator {
  public:
    using iterator_category = std::input_iterator_tag;
    using value_type = std::pair<vigie::value, vigie::value>;
    using difference_type = std::ptrdiff_t;
    using pointer = const value_type *;
    using reference = value_type;
    iterator() noexcept = default;
    explicit iterator(value::iterator key) noexcept : key_(key) {}
    value_type operator*() const noexcept {
      value::iterator second = key_;
      return {*key_, *++second};
    }
    iterator &operator++() noexcept { return ++ ++key_, *this; }
    iterator operator++(int) noexcept {
      iterator old = *this;
      return ++*this, old;
    }
    friend bool operator==(const iterator &a, const iterator &b) noexcept { return a.key_ == b.key_; }
    friend bool operator!=(const iterator &a, const iterator &b) noexcept { return !(a == b); }

  private:
    value::iterator key_;
  };
  explicit entries_view(vigie::value of) noexcept : of_(of) {}
  iterator begin() const noexcept { return iterator(of_.begin()); }
  // The last of an odd number of children has no value, and is left out.
  iterator end() const noexcept {
    return iterator(of_.size() % 2 == 0 ? of_.end() : value::iterator(of_[of_.size() - 1]));
  }
  std::size_t size() const noexcept { return of_.size() / 2; }

private:
  vigie::value of_;
};

inline value::entries_view value::entries() const noexcept { return entries_view(*this); }

namespace detail {
template <class T> struct borrows;
}

/// A reply: the value that is its root, and what that points into. It is moved, not copied, and freed with its last owner.
class reply : public value {
public:
  /// No reply: type::none. Blocks: no. Throws: nothing.
  reply() noexcept = default;
  /// Takes over a reply of the C interface (NULL: none). Ownership: frees it. Blocks: no. Throws: nothing.
  explicit reply(vigie_reply *taken) noexcept : value(taken), owned_(taken) {}
  reply(reply &&from) noexcept : value(from), owned_(std::move(from.owned_)) { static_cast<value &>(from) = value(); }
  reply &operator=(reply &&from) noexcept {
    if (this != &from) {
      static_cast<value &>(*this) = from;
      owned_ = std::move(from.owned_);
      static_cast<value &>(from) = value();
    }
    return *this;
  }
  /// The root, as a view. Ownership: valid as long as this reply. Blocks: no. Throws: nothing.
  value root() const & noexcept { return *this; }
  value root() const && = delete;
  /// As value::entries(), of a reply that is kept: that of a call in the head of a loop would be gone in its body. Blocks: no. Throws: nothing.
  entries_view entries() const & noexcept { return value::entries(); }
  entries_view entries() const && = delete;
#if VIGIE_HPP_EXCEPTIONS
  template <class T> T as() const & { return value::as<T>(); }
  /// From a reply that ends with this expression a T must not point into it. Blocks: no. Errors: as value::as().
  template <class T> T as() const && {
    static_assert(!detail::borrows<T>::value, "this would point into a reply that is gone: keep the reply in a variable, or ask for std::string");
    return value::as<T>();
  }
#endif
  template <class T> result<T> try_as() const & { return value::try_as<T>(); }
  template <class T> result<T> try_as() const && {
    static_assert(!detail::borrows<T>::value, "this would point into a reply that is gone: keep the reply in a variable, or ask for std::string");
    return value::try_as<T>();
  }
  /// Gives the reply of the C interface away. Ownership: the caller's, for vigie_reply_free(). Blocks: no. Throws: nothing.
  vigie_reply *release() noexcept {
    static_cast<value &>(*this) = value();
    return owned_.release();
  }
  /// The reply of the C interface. Ownership: stays here. Blocks: no. Throws: nothing.
  vigie_reply *get() const noexcept { return owned_.get(); }

private:
  detail::owned<vigie_reply, vigie_reply_free> owned_;
};

inline result<reply> value::try_json() const {
  return detail::made<reply, vigie_reply>([&](vigie_reply **out, vigie_error **err) { return vigie_reply_json(reply_, out, err); });
}

/// The server's answer to a call that failed despite it: error::raw_reply() as a value. Ownership: belongs to the error. Blocks: no.
inline value value_of(const error &of) noexcept { return value(of.raw_reply()); }

VIGIE_HPP_END
} // namespace vigie

#include "convert.hpp"

#endif
