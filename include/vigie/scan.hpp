/// @file
/// Scans from their beginning to their end, as ranges: for (auto key : vigie::scan(client, "MATCH", "user:*")).
///
/// Guarantees: every element that was there all the time is given; one may come twice, as with every SCAN. Leaves to others: cursors, which the
/// library keeps.
#ifndef VIGIE_SCAN_HPP
#define VIGIE_SCAN_HPP

#include "sentinel.hpp"

namespace vigie {
VIGIE_HPP_BEGIN

/// A scan that is under way. One thread at a time.
class scan_handle {
public:
  /// A scan with the whole command, cursor 0 included: ("SCAN", "0", "MATCH", "x*"). Ownership: copies; the client is kept alive. Blocks: no.
  /// Errors: vigie_scan_for().
  template <class... Args> static result<scan_handle> try_open(const client &of, std::uint32_t max_restarts, const Args &...args) {
    return detail::with_arguments(
        [&](std::size_t argc, const char *const *argv, const std::size_t *lengths) {
          return detail::made<scan_handle, vigie_scan>([&](vigie_scan **out, vigie_error **err) {
            return vigie_scan_for(of.get(), argc, argv, lengths, max_restarts, out, err);
          });
        },
        args...);
  }
  /// Takes over a scan of the C interface. Ownership: frees it. Blocks: no. Throws: nothing.
  explicit scan_handle(vigie_scan *taken) noexcept : owned_(taken) {}
  /// The next page, with at least one element; type::none at the end. Ownership: the caller's. Blocks: up to `time`. Errors: vigie_scan_next().
  result<reply> try_next(budget time = {}) {
    return detail::made<reply, vigie_reply>([&](vigie_reply **out, vigie_error **err) { return vigie_scan_next(get(), time.ms(), out, err); });
  }
  /// The same without waiting: the page is the reply of one completion. Ownership: the queue's. Blocks: no. Errors: vigie_scan_submit().
  result<void> try_submit(queue &to, std::uint64_t token, budget time = {}) {
    return detail::done([&](vigie_error **err) { return vigie_scan_submit(get(), time.ms(), to.get(), token, err); });
  }
  /// How often it has begun anew. Blocks: no. Throws: nothing.
  std::uint32_t restarts() const noexcept { return vigie_scan_restarts(get()); }
  /// For vigie.h. Ownership: stays here. Blocks: no. Throws: nothing.
  vigie_scan *get() const noexcept { return owned_.get(); }

private:
  detail::owned<vigie_scan, vigie_scan_free> owned_;
};

#if VIGIE_HPP_EXCEPTIONS
/// The elements of a scan, one by one; `Element` is vigie::value, or a pair of them for fields and scores. It goes through once.
///
/// Ownership: an element is valid until the next one. Blocks: begin() and ++ do, up to timeout.call for a page. Errors: they throw those of
/// scan_handle::try_next().
template <class Element> class scan_range {
public:
  class iterator {
  public:
    using iterator_category = std::input_iterator_tag;
    using value_type = Element;
    using difference_type = std::ptrdiff_t;
    using pointer = const Element *;
    using reference = Element;
    iterator() noexcept = default;
    explicit iterator(scan_range *of) noexcept : of_(of) {}
    Element operator*() const noexcept {
      if constexpr (std::is_same_v<Element, value>) {
        return of_->page_[of_->at_];
      } else {
        return Element(of_->page_[of_->at_], of_->page_[of_->at_ + 1]);
      }
    }
    iterator &operator++() {
      if (!of_->step()) of_ = nullptr;
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const iterator &a, const iterator &b) noexcept { return a.of_ == b.of_; }
    friend bool operator!=(const iterator &a, const iterator &b) noexcept { return !(a == b); }

  private:
    scan_range *of_ = nullptr;
  };
  /// For scan() and its kin. Ownership: takes the scan. Blocks: no. Throws: nothing.
  explicit scan_range(scan_handle &&scan) noexcept : scan_(std::move(scan)) {}
  iterator begin() { return turn() ? iterator(this) : iterator(); }
  iterator end() noexcept { return {}; }
  /// How often it has begun anew; elements come a second time then. Blocks: no. Throws: nothing.
  std::uint32_t restarts() const noexcept { return scan_.restarts(); }

private:
  static constexpr std::size_t width = std::is_same_v<Element, value> ? 1 : 2;
  bool step() { return (at_ += width) < page_.size() || turn(); }
  bool turn() {
    page_ = unwrap(scan_.try_next());
    at_ = 0;
    return !page_.empty();
  }
  scan_handle scan_;
  reply page_;
  std::size_t at_ = 0;
};

/// The keys: SCAN with these further arguments ("MATCH", "user:*", "COUNT", 1000). Ownership: keeps the client's inner part. Blocks: no. Errors:
/// scan_handle::try_open(); the range throws scan_interrupted_error when nobody can say any more what was given.
template <class... Args> scan_range<value> scan(const client &of, const Args &...args) {
  return scan_range<value>(unwrap(scan_handle::try_open(of, 0, "SCAN", "0", args...)));
}
/// The members of a set: SSCAN. Ownership, blocks, errors: as scan().
template <class... Args> scan_range<value> sscan(const client &of, std::string_view key, const Args &...args) {
  return scan_range<value>(unwrap(scan_handle::try_open(of, 0, "SSCAN", key, "0", args...)));
}
/// The fields and values of a hash: HSCAN. Ownership, blocks, errors: as scan().
template <class... Args> scan_range<std::pair<value, value>> hscan(const client &of, std::string_view key, const Args &...args) {
  return scan_range<std::pair<value, value>>(unwrap(scan_handle::try_open(of, 0, "HSCAN", key, "0", args...)));
}
/// The members and scores of a sorted set: ZSCAN. Ownership, blocks, errors: as scan().
template <class... Args> scan_range<std::pair<value, value>> zscan(const client &of, std::string_view key, const Args &...args) {
  return scan_range<std::pair<value, value>>(unwrap(scan_handle::try_open(of, 0, "ZSCAN", key, "0", args...)));
}
#endif

VIGIE_HPP_END
} // namespace vigie

#endif
