/// @file
/// Queues of events: completions of submitted calls, messages, changes of the topology, lines of the log. For poll, asio and threads.
///
/// Guarantees: every event frees what it holds. Leaves to others: callbacks and coroutines (reactor.hpp).
#ifndef VIGIE_QUEUE_HPP
#define VIGIE_QUEUE_HPP

#include "reply.hpp"

namespace vigie {
VIGIE_HPP_BEGIN

/// What an event is: the bits of vigie_event_kind. More may come: ignore those that you do not know.
enum class event_kind : std::uint32_t {
  completion = VIGIE_EVENT_COMPLETION,
  message = VIGIE_EVENT_MESSAGE,
  gap = VIGIE_EVENT_SUB_GAP,
  topology = VIGIE_EVENT_TOPOLOGY,
  log = VIGIE_EVENT_LOG,
  dropped = VIGIE_EVENT_DROPPED,
  fence = VIGIE_EVENT_FENCE,
  degraded = VIGIE_EVENT_DEGRADED,
  replica = VIGIE_EVENT_REPLICA,
  sentinel = VIGIE_EVENT_SENTINEL,
  notice = VIGIE_EVENT_NOTICE,
  connection = VIGIE_EVENT_CONNECTION
};

/// One event. It is moved, not copied, and owns its reply and its error.
class event {
public:
  /// No event. Blocks: no. Throws: nothing.
  event() noexcept = default;
  /// Takes over what an event of the C interface holds. Ownership: `taken` is left empty. Blocks: no.
  explicit event(vigie_event &taken) : reply_(taken.reply), token_(taken.token), kind_(taken.kind) {
    // The error is owned by a pointer until the shared one exists, which may need memory.
    if (taken.error != nullptr) error_ = vigie::error(std::exchange(taken.error, nullptr));
    taken.reply = nullptr;
  }
  /// What it is. Blocks: no. Throws: nothing.
  event_kind kind() const noexcept { return static_cast<event_kind>(kind_); }
  /// The number that was given with the call, the watch or the subscription. Blocks: no. Throws: nothing.
  std::uint64_t token() const noexcept { return token_; }
  /// VIGIE_OK, or the status of the error. Blocks: no. Throws: nothing.
  vigie_status status() const noexcept { return error_.status(); }
  /// Whether there is no error. Blocks: no. Throws: nothing.
  bool ok() const noexcept { return status() == VIGIE_OK; }
  /// What it carries; type::none without a reply. Ownership: belongs to the event. Blocks: no. Throws: nothing.
  const vigie::reply &reply() const noexcept { return reply_; }
  /// Its error; VIGIE_OK without one. Ownership: belongs to the event. Blocks: no. Throws: nothing.
  const vigie::error &error() const noexcept { return error_; }
  /// The outcome of a completion. Ownership: moves the reply out of the event. Blocks: no. Throws: nothing.
  result<vigie::reply> take() {
    if (!ok()) return failure(error_);
    return std::move(reply_);
  }

private:
  vigie::reply reply_;
  vigie::error error_;
  std::uint64_t token_ = 0;
  std::uint32_t kind_ = 0;
};

/// A queue of events. Any thread may use it.
class queue {
public:
  /// As vigie_queue_create(). Ownership: the queue's descriptors close with it. Blocks: no. Errors: VIGIE_ERR_INVALID_ARG, VIGIE_ERR_IO.
  static result<queue> try_create(std::size_t capacity = 65536) {
    return detail::made<queue, vigie_queue>([&](vigie_queue **out, vigie_error **err) { return vigie_queue_create(capacity, out, err); });
  }
#if VIGIE_HPP_EXCEPTIONS
  /// As try_create(); throws its errors.
  explicit queue(std::size_t capacity = 65536) : queue(unwrap(try_create(capacity))) {}
#endif
  /// Takes over a queue of the C interface. Ownership: frees it. Blocks: no. Throws: nothing.
  explicit queue(vigie_queue *taken) noexcept : owned_(taken) {}

  /// The descriptor to poll for reading; drain when it is readable. Ownership: the queue's: do not close it. Blocks: no. Throws: nothing.
  int fd() const noexcept { return vigie_queue_fd(get()); }

  /// Takes events, oldest first, and gives each to `use(event &)`; waits for the first one. Returns how many there were: 0 when the time is
  /// over, or after wakeup(). What `use` throws ends the drain, and the events that it was not given are freed.
  ///
  /// Ownership: the events live during the call of `use`, which may move them out. Blocks: up to `time`; default_time: no limit. Errors:
  /// VIGIE_ERR_FORKED.
  template <class Use> result<std::size_t> try_drain(budget time, Use &&use) {
    batch_of_events taken;
    std::int32_t count = vigie_queue_drain(get(), time.ms(), taken.events, batch_of_events::room);
    if (count < 0) return failure(error(count, "the queue cannot be drained"));
    taken.count = static_cast<std::size_t>(count);
    for (std::size_t at = 0; at < taken.count; at++) {
      event one(taken.events[at]);
      use(one);
    }
    return taken.count;
  }
#if VIGIE_HPP_EXCEPTIONS
  /// As try_drain(); throws its errors.
  template <class Use> std::size_t drain(budget time, Use &&use) { return unwrap(try_drain(time, std::forward<Use>(use))); }
#endif
  /// The next event, or nullopt when the time is over, or after wakeup(). Ownership: the caller's. Blocks: up to `time`; default_time: no
  /// limit. Errors: VIGIE_ERR_FORKED.
  result<std::optional<event>> try_next(budget time) {
    vigie_event one{};
    std::int32_t count = vigie_queue_drain(get(), time.ms(), &one, 1);
    if (count < 0) return failure(error(count, "the queue cannot be drained"));
    if (count == 0) return std::optional<event>();
    return std::optional<event>(event(one));
  }
#if VIGIE_HPP_EXCEPTIONS
  /// As try_next(); throws its errors.
  std::optional<event> next(budget time = no_limit) { return unwrap(try_next(time)); }
#endif
  /// Ends the calls with this token; their completions still arrive. Returns how many there were. Blocks: no. Throws: nothing.
  std::size_t cancel(std::uint64_t token) noexcept { return vigie_queue_cancel(get(), token); }
  /// Makes one drain return. Blocks: no. Throws: nothing.
  void wakeup() noexcept { vigie_queue_wakeup(get()); }
  /// For vigie.h. Ownership: stays here. Blocks: no. Throws: nothing.
  vigie_queue *get() const noexcept { return owned_.get(); }

private:
  // Frees what was not handed out, also when a user's function throws.
  struct batch_of_events {
    static constexpr std::uint32_t room = 64;
    batch_of_events() noexcept = default;
    batch_of_events(const batch_of_events &) = delete;
    batch_of_events &operator=(const batch_of_events &) = delete;
    ~batch_of_events() { vigie_events_clear(events, count); }
    vigie_event events[room];
    std::size_t count = 0;
  };
  detail::owned<vigie_queue, vigie_queue_free> owned_;
};

VIGIE_HPP_END
} // namespace vigie

#endif
