/// @file
/// Callbacks and coroutines for an event loop: calls that complete when the loop runs.
///
/// Guarantees: every callback that was accepted runs once, on the thread that runs the reactor; a coroutine that is destroyed while it waits is
/// forgotten, and its call is cancelled. Leaves to others: the loop itself (poll, epoll, asio), which waits for fd().
#ifndef VIGIE_REACTOR_HPP
#define VIGIE_REACTOR_HPP

#include "sentinel.hpp"

#include <exception>

#if defined(__cpp_impl_coroutine) && defined(__has_include)
#if __has_include(<coroutine>)
#include <coroutine>
#endif
#endif
#if defined(__cpp_lib_coroutine)
/// 1 where the compiler has coroutines: reactor::call() and reactor::exec() can be awaited then.
#define VIGIE_HPP_COROUTINES 1
#else
#define VIGIE_HPP_COROUTINES 0
#endif

namespace vigie {
VIGIE_HPP_BEGIN

/// Runs the completions of the calls that were made through it. One thread at a time; it is not moved while calls are under way.
///
/// Other events of its queue (messages of a subscription, events of a watch) go to the function given to on_event(). Nothing else may submit
/// calls to its queue, because the tokens of completions are the reactor's.
class reactor {
public:
  /// Runs when a call is over.
  using callback = std::function<void(result<reply>)>;

  /// A reactor. Ownership: its queue closes with it; callbacks that did not run are dropped. Blocks: no. Errors: as queue::try_create().
  static result<reactor> try_create(std::size_t capacity = 65536) {
    auto made = vigie::queue::try_create(capacity);
    if (!made) return failure(made.error());
    return reactor(*std::move(made));
  }
#if VIGIE_HPP_EXCEPTIONS
  /// As try_create(); throws its errors.
  explicit reactor(std::size_t capacity = 65536) : queue_(capacity) {}
#endif
  /// Takes a queue. Ownership: keeps it. Blocks: no. Throws: nothing.
  explicit reactor(vigie::queue &&with) noexcept : queue_(std::move(with)) {}
  reactor(reactor &&) = default;
  reactor &operator=(reactor &&) = default;

  /// The descriptor to wait for; call poll() when it is readable. Ownership: stays here. Blocks: no. Throws: nothing.
  int fd() const noexcept { return queue_.fd(); }
  /// The queue, for subscriptions and watches. Ownership: stays here. Blocks: no. Throws: nothing.
  vigie::queue &queue() noexcept { return queue_; }
  /// What events other than completions go to. Ownership: keeps the function. Blocks: no. Throws: std::bad_alloc.
  void on_event(std::function<void(event &)> use) { other_ = std::move(use); }
  /// How many calls are under way. Blocks: no. Throws: nothing.
  std::size_t in_flight() const noexcept { return in_flight_; }

  /// Waits for events up to `time`, and runs what they complete; returns how many there were. Blocks: up to `time`. Errors: VIGIE_ERR_FORKED; what
  /// a callback throws passes through when the others of the batch have run (of several the first).
  result<std::size_t> try_run(budget time = no_limit) {
#if VIGIE_HPP_EXCEPTIONS
    std::exception_ptr thrown;
    auto count = queue_.try_drain(time, [&](event &one) {
      try {
        dispatch(one);
      } catch (...) {
        // The others of this batch have their turn first.
        if (!thrown) thrown = std::current_exception();
      }
    });
    if (thrown) std::rethrow_exception(thrown);
    return count;
#else
    return queue_.try_drain(time, [&](event &one) { dispatch(one); });
#endif
  }
  /// Runs what is there, without waiting, until nothing is left. Blocks: no. Errors: as try_run().
  result<std::size_t> try_poll() {
    std::size_t all = 0;
    for (;;) {
      auto count = try_run(std::chrono::milliseconds(0));
      if (!count) return count;
      all += *count;
      if (*count == 0) return all;
    }
  }
#if VIGIE_HPP_EXCEPTIONS
  /// As try_run(); throws its errors.
  std::size_t run(budget time = no_limit) { return unwrap(try_run(time)); }
  /// As try_poll(); throws its errors.
  std::size_t poll() { return unwrap(try_poll()); }
#endif

  /// Calls a command, and `done(result<reply>)` when it is over. `of` is a client, a session, or what with() gave. Returns the number for cancel().
  ///
  /// Ownership: arguments are copied, `done` is kept. Blocks: no. Errors: vigie_cmds_submit(); then `done` does not run.
  template <class Calls, class... Args> result<std::uint64_t> try_call_then(const Calls &of, callback done, const Args &...args) {
    std::uint64_t token = keep(std::move(done));
    if (auto sent = of.try_submit(queue_, token, args...); !sent) return forget(token), failure(sent.error());
    return token;
  }
  /// Runs a list, and `done` when it is over. Ownership, blocks, errors: as try_call_then().
  result<std::uint64_t> try_exec_then(pipeline &list, callback done) {
    std::uint64_t token = keep(std::move(done));
    if (auto sent = list.try_submit(queue_, token); !sent) return forget(token), failure(sent.error());
    return token;
  }
#if VIGIE_HPP_EXCEPTIONS
  /// As try_call_then(); throws its errors.
  template <class Calls, class... Args> std::uint64_t call_then(const Calls &of, callback done, const Args &...args) {
    return unwrap(try_call_then(of, std::move(done), args...));
  }
#endif
  /// Ends a call; its callback still runs, with VIGIE_ERR_CANCELLED or with the outcome that came first. Blocks: no. Throws: nothing.
  void cancel(std::uint64_t token) noexcept { queue_.cancel(token); }

#if VIGIE_HPP_COROUTINES
  /// What is awaited. It stays where it was made; the reactor must outlive it.
  class operation {
  public:
    operation(const operation &) = delete;
    operation &operator=(const operation &) = delete;
    ~operation() {
      if (token_ != 0) of_.abandon(token_);
    }
    bool await_ready() const noexcept { return outcome_.has_value(); }
    void await_suspend(std::coroutine_handle<> waiting) noexcept { waiting_ = waiting; }
    /// The outcome. Ownership: the caller's. Blocks: no. Throws: nothing.
    result<reply> await_resume() { return *std::move(outcome_); }
    /// Ends the call; what awaits it goes on with VIGIE_ERR_CANCELLED. Blocks: no. Throws: nothing.
    void cancel() noexcept {
      if (token_ != 0) of_.cancel(token_);
    }

  private:
    friend class reactor;
    template <class Submit> operation(reactor &of, Submit submit) : of_(of) {
      token_ = of.keep([this](result<reply> outcome) {
        token_ = 0;
        outcome_.emplace(std::move(outcome));
        if (waiting_) std::exchange(waiting_, nullptr).resume();
      });
      if (result<void> sent = submit(of.queue_, token_); !sent) {
        of.forget(std::exchange(token_, 0));
        outcome_.emplace(failure(sent.error()));
      }
    }
    reactor &of_;
    std::uint64_t token_ = 0;
    std::coroutine_handle<> waiting_;
    std::optional<result<reply>> outcome_;
  };
  /// Calls a command at once: `result<reply> r = co_await loop.call(client, "GET", key)`. Ownership: arguments are copied. Blocks: no. Errors: in
  /// the result; vigie::unwrap() throws them.
  template <class Calls, class... Args> operation call(const Calls &of, const Args &...args) {
    return operation(*this, [&](vigie::queue &to, std::uint64_t token) { return of.try_submit(to, token, args...); });
  }
  /// Runs a list at once: `co_await loop.exec(list)`. Ownership, blocks, errors: as call().
  operation exec(pipeline &list) {
    return operation(*this, [&](vigie::queue &to, std::uint64_t token) { return list.try_submit(to, token); });
  }
#endif

private:
  struct slot {
    callback done;
    std::uint32_t generation = 1;
  };
  // A token is the place of a callback and how often that place was used, so that a late completion finds nobody.
  std::uint64_t keep(callback done) {
    if (free_.empty()) {
      free_.reserve(slots_.size() + 1);
      slots_.emplace_back();
      free_.push_back(static_cast<std::uint32_t>(slots_.size() - 1));
    }
    std::uint32_t place = free_.back();
    slots_[place].done = std::move(done);
    free_.pop_back();
    in_flight_++;
    return (static_cast<std::uint64_t>(slots_[place].generation) << 32) | place;
  }
  callback forget(std::uint64_t token) noexcept {
    auto place = static_cast<std::uint32_t>(token);
    if (place >= slots_.size() || slots_[place].generation != token >> 32) return nullptr;
    slots_[place].generation++;
    // keep() has reserved the room.
    free_.push_back(place);
    in_flight_--;
    return std::exchange(slots_[place].done, nullptr);
  }
  void abandon(std::uint64_t token) noexcept {
    if (forget(token)) cancel(token);
  }
  void dispatch(event &one) {
    if (one.kind() != event_kind::completion) {
      if (other_) other_(one);
      return;
    }
    if (callback done = forget(one.token())) done(one.take());
  }

  vigie::queue queue_;
  std::vector<slot> slots_;
  std::vector<std::uint32_t> free_;
  std::function<void(event &)> other_;
  std::size_t in_flight_ = 0;
};

#if VIGIE_HPP_COROUTINES
/// The type of a coroutine that runs by itself: it starts at once, and nobody waits for its end. What it throws ends the program.
struct detached {
  struct promise_type {
    detached get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { std::terminate(); }
  };
};
#endif

VIGIE_HPP_END
} // namespace vigie

#endif
