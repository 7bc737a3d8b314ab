/// @file
/// Publish and subscribe: subscriptions whose messages arrive on a queue, and a subscriber that has a queue of its own.
///
/// Guarantees: a subscription lives through failovers, and says where messages may be missing. Leaves to others: buffering, in the library.
#ifndef VIGIE_PUBSUB_HPP
#define VIGIE_PUBSUB_HPP

#include "sentinel.hpp"

#include <algorithm>

namespace vigie {
VIGIE_HPP_BEGIN

/// A subscription: its messages are events of the kind `message` on a queue. Any thread may use it.
class subscription {
public:
  /// A subscription without a channel. Ownership: keeps client and queue alive inside. Blocks: no. Errors: vigie_sub_for().
  static result<subscription> try_open(const client &of, queue &to, std::uint64_t token, const config *overrides = nullptr) {
    return detail::made<subscription, vigie_sub>([&](vigie_sub **out, vigie_error **err) {
      return vigie_sub_for(of.get(), to.get(), token, detail::raw(overrides), out, err);
    });
  }
  /// Takes over a subscription of the C interface. Ownership: frees it. Blocks: no. Throws: nothing.
  explicit subscription(vigie_sub *taken) noexcept : owned_(taken) {}
  /// SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE, their opposites, or PING. With a `time` of 0 it is noted and returns; else it waits until every name is
  /// answered. The thread that drains the queue gives 0. Ownership: copies. Blocks: up to `time`. Errors: vigie_sub_exec().
  template <class... Args> result<void> try_exec(budget time, const Args &...args) {
    return detail::with_arguments(
        [&](std::size_t argc, const char *const *argv, const std::size_t *lengths) {
          return detail::done([&](vigie_error **err) { return vigie_sub_exec(get(), argc, argv, lengths, time.ms(), err); });
        },
        args...);
  }
#if VIGIE_HPP_EXCEPTIONS
  /// As try_open(); throws its errors.
  subscription(const client &of, queue &to, std::uint64_t token = 0, const config *overrides = nullptr)
      : subscription(unwrap(try_open(of, to, token, overrides))) {}
  /// As try_exec(); throws its errors.
  template <class... Args> void exec(budget time, const Args &...args) { unwrap(try_exec(time, args...)); }
#endif
  /// For vigie.h. Ownership: stays here. Blocks: no. Throws: nothing.
  vigie_sub *get() const noexcept { return owned_.get(); }

private:
  detail::owned<vigie_sub, vigie_sub_free> owned_;
};

/// What a subscriber hears. It owns the event that its texts point into.
class message {
public:
  /// Takes the event. Blocks: no. Throws: nothing.
  explicit message(vigie::event &&from) noexcept : event_(std::move(from)) {}
  /// Whether it is a published message; everything else is an answer, a gap or a loss. Blocks: no. Throws: nothing.
  bool is_message() const noexcept { return event_.kind() == event_kind::message && event_.ok() && kind().find("message") != std::string_view::npos; }
  /// Whether the subscription was made anew: messages may be missing before it. Blocks: no. Throws: nothing.
  bool is_gap() const noexcept { return event_.kind() == event_kind::gap; }
  /// How many messages were lost here, because they were not read in time; 0 for everything else. Blocks: no. Throws: nothing.
  std::int64_t dropped() const noexcept {
    return event_.kind() == event_kind::dropped ? event_.reply().template try_as<std::int64_t>().value_or(0) : 0;
  }
  /// "message", "pmessage", "smessage", "subscribe", ...; "" for what is no answer of a server. Ownership: the message's. Blocks: no.
  std::string_view kind() const noexcept { return event_.kind() == event_kind::message ? event_.reply()[0].text() : std::string_view(); }
  /// The pattern that matched, of a "pmessage". Ownership: the message's. Blocks: no. Throws: nothing.
  std::string_view pattern() const noexcept { return is_pattern() ? event_.reply()[1].text() : std::string_view(); }
  /// The channel. Ownership: the message's. Blocks: no. Throws: nothing.
  std::string_view channel() const noexcept { return event_.reply()[is_pattern() ? 2 : 1].text(); }
  /// What was published. Ownership: the message's. Blocks: no. Throws: nothing.
  std::string_view payload() const noexcept { return event_.reply()[is_pattern() ? 3 : 2].text(); }
  /// A refused channel, for example; VIGIE_OK without an error. Ownership: the message's. Blocks: no. Throws: nothing.
  const vigie::error &error() const noexcept { return event_.error(); }
  /// The event itself. Ownership: the message's. Blocks: no. Throws: nothing.
  const vigie::event &event() const noexcept { return event_; }

private:
  bool is_pattern() const noexcept { return kind() == "pmessage"; }
  vigie::event event_;
};

#if VIGIE_HPP_EXCEPTIONS
/// A subscription with a queue of its own, for a thread that reads messages. One thread at a time; wakeup() is for any thread.
class subscriber {
public:
  /// A subscriber without a channel. Ownership: the client may go. Blocks: no. Throws the errors of queue and subscription.
  explicit subscriber(const client &of, const config *overrides = nullptr) : queue_(16), sub_(of, queue_, 0, overrides) {}
  /// SUBSCRIBE; waits until the server has confirmed all channels. Blocks: up to timeout.call. Throws the errors of subscription::try_exec().
  template <class... Names> void subscribe(const Names &...names) { sub_.exec(default_time, "SUBSCRIBE", names...); }
  /// PSUBSCRIBE. Blocks, throws: as subscribe().
  template <class... Names> void psubscribe(const Names &...names) { sub_.exec(default_time, "PSUBSCRIBE", names...); }
  /// SSUBSCRIBE. Blocks, throws: as subscribe().
  template <class... Names> void ssubscribe(const Names &...names) { sub_.exec(default_time, "SSUBSCRIBE", names...); }
  /// UNSUBSCRIBE: these, or all. Blocks, throws: as subscribe().
  template <class... Names> void unsubscribe(const Names &...names) { sub_.exec(default_time, "UNSUBSCRIBE", names...); }
  /// PUNSUBSCRIBE: these, or all. Blocks, throws: as subscribe().
  template <class... Names> void punsubscribe(const Names &...names) { sub_.exec(default_time, "PUNSUBSCRIBE", names...); }
  /// The next message, gap or loss; answers to subscribe() and its kin are left out. nullopt when the time is over, or after wakeup().
  ///
  /// Ownership: the caller's. Blocks: up to `time`. Throws: forked_error.
  std::optional<message> next(budget time = no_limit) {
    auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(time.ms());
    bool is_limited = time.ms() != no_limit.ms() && time.ms() != default_time.ms();
    for (;;) {
      std::optional<event> one = queue_.next(time);
      if (!one) return std::nullopt;
      message heard(std::move(*one));
      if (heard.is_message() || heard.kind().empty()) return heard;
      if (is_limited) time = std::max(end - std::chrono::steady_clock::now(), std::chrono::steady_clock::duration::zero());
    }
  }
  /// Makes one next() return, now or the next time. Blocks: no. Throws: nothing.
  void wakeup() noexcept { queue_.wakeup(); }
  /// To poll: readable while there is something to read. Ownership: stays here. Blocks: no. Throws: nothing.
  int fd() const noexcept { return queue_.fd(); }

private:
  queue queue_;
  subscription sub_;
};
#endif

VIGIE_HPP_END
} // namespace vigie

#endif
