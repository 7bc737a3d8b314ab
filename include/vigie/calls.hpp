/// @file
/// How commands are called: one at a time, as lists, as transactions, as scripts, and without waiting. Base of client, session and caller.
///
/// Guarantees: nothing is allocated on the way of a call beyond what the C interface does; every call has a form that throws and one that does
/// not. Leaves to others: handles (client.hpp), events (queue.hpp).
#ifndef VIGIE_CALLS_HPP
#define VIGIE_CALLS_HPP

#include "queue.hpp"

#include <functional>
#include <initializer_list>

namespace vigie {
VIGIE_HPP_BEGIN

/// Flags of calls: the VIGIE_CALL_* bits. Combine them with |.
enum class flags : std::uint32_t {
  none = 0,
  idempotent = VIGIE_CALL_IDEMPOTENT,
  no_retry = VIGIE_CALL_NO_RETRY,
  on_primary = VIGIE_CALL_ON_PRIMARY,
  slow = VIGIE_CALL_SLOW,
  typed = VIGIE_CALL_TYPED
};
/// Both. Blocks: no. Throws: nothing.
constexpr flags operator|(flags a, flags b) noexcept {
  return static_cast<flags>(static_cast<std::uint32_t>(a) | static_cast<std::uint32_t>(b));
}
/// A write is done when so many replicas have it, 0 to 255. Blocks: no. Throws: nothing.
constexpr flags replicas(unsigned count) noexcept { return static_cast<flags>(VIGIE_CALL_REPLICAS(count)); }

/// What a tracing hook is told when a call or a list is over. It has no arguments of commands, because these may be secrets.
struct call_info {
  /// The name of the command; of a list that of the first one is not known: "PIPELINE" or "MULTI".
  std::string_view command;
  /// How many commands there were.
  std::size_t commands;
  /// How long the caller waited.
  std::chrono::nanoseconds duration;
  /// VIGIE_OK, or the status of the error.
  vigie_status status;
  /// The server, where an error names it; else "".
  std::string_view endpoint;
  /// The error, valid during the hook; NULL without one.
  const vigie_error *error;
};
/// A tracing hook. It runs on the thread of the call, on several at a time, and must not throw: an exception ends the program.
using trace_hook = std::function<void(const call_info &)>;

/// A call that another thread can cancel, for one call after another: client.with(handle).call(...).
///
/// One thread at a time calls with it; cancel() and is_cancelled() are for any thread. Its first call takes five descriptors until it is gone.
class call_handle {
public:
  /// A new one. Ownership: frees itself; a call under way is cancelled then. Blocks: no. Throws: nothing.
  call_handle() noexcept : owned_(vigie_call_new()) {}
  /// Ends the call that runs, or the next one: it gives VIGIE_ERR_CANCELLED in its own thread. Blocks: no. Errors: VIGIE_ERR_FORKED.
  result<void> try_cancel() {
    return detail::done([&](vigie_error **err) { return vigie_call_cancel(get(), err); });
  }
  /// Whether it was cancelled. Blocks: no. Throws: nothing.
  bool is_cancelled() const noexcept { return vigie_call_is_cancelled(get()) != 0; }
  /// Interrupts each wait after this time at the latest, as a signal would; zero: only signals do. For runtimes whose signal handlers only
  /// set a flag. Blocks: no. Errors: VIGIE_ERR_INVALID_ARG: above an hour.
  result<void> try_interrupt_every(std::chrono::milliseconds slice) {
    return detail::done([&](vigie_error **err) { return vigie_call_interrupt_every(get(), slice.count(), err); });
  }
  /// Goes on with a call that VIGIE_ERR_INTERRUPTED left under way. Ownership: the reply is the caller's. Blocks: up to the budget of the call.
  /// Errors: those of the call; VIGIE_ERR_INTERRUPTED; VIGIE_ERR_INVALID_STATE: no call is under way.
  result<reply> try_wait() {
    return detail::made<reply, vigie_reply>([&](vigie_reply **out, vigie_error **err) { return vigie_call_wait(get(), out, err); });
  }
  /// Where the time of the call went: STATISTICS.md ("times"). Ownership: the caller's. Blocks: no. Errors: VIGIE_ERR_INVALID_STATE: no call yet.
  result<reply> try_times() const {
    return detail::made<reply, vigie_reply>([&](vigie_reply **out, vigie_error **err) { return vigie_call_times(get(), out, err); });
  }
#if VIGIE_HPP_EXCEPTIONS
  /// As try_cancel(); throws its errors.
  void cancel() { unwrap(try_cancel()); }
  /// As try_interrupt_every(); throws its errors.
  void interrupt_every(std::chrono::milliseconds slice) { unwrap(try_interrupt_every(slice)); }
  /// As try_wait(); throws its errors.
  reply wait() { return unwrap(try_wait()); }
  /// As try_times(); throws its errors.
  reply times() const { return unwrap(try_times()); }
#endif
  /// For vigie.h. Ownership: stays here. Blocks: no. Throws: nothing.
  vigie_call *get() const noexcept { return owned_.get(); }

private:
  detail::owned<vigie_call, vigie_call_free> owned_;
};

/// A list of commands that is being built. One thread at a time.
class batch {
public:
  /// An empty list. Ownership: frees itself. Blocks: no. Throws: nothing.
  batch() noexcept : owned_(vigie_batch_new()) {}
  /// Adds a command. Ownership: copies the arguments. Blocks: no. Errors: a wrong argument is reported by the call that runs the list.
  template <class... Args> batch &add(const Args &...args) & {
    detail::with_arguments([&](std::size_t argc, const char *const *argv, const std::size_t *lengths) { put(argc, argv, lengths); }, args...);
    return *this;
  }
  /// Adds a command whose arguments were counted at run time. Ownership: copies them. Blocks: no. Throws: std::bad_alloc.
  batch &add(const command &one) & {
    one.with([&](std::size_t argc, const char *const *argv, const std::size_t *lengths) { put(argc, argv, lengths); });
    return *this;
  }
  /// How many commands there are. Blocks: no. Throws: nothing.
  std::size_t size() const noexcept { return count_; }
  /// Empties the list, and clears its mistake. Blocks: no. Throws: nothing.
  void clear() noexcept {
    vigie_batch_clear(get());
    count_ = 0;
  }
  /// The list as RESP. Ownership: valid until the list changes. Blocks: no. Throws: nothing.
  std::string_view data() const noexcept {
    std::size_t len = 0;
    const void *bytes = vigie_batch_data(get(), &len);
    return {static_cast<const char *>(bytes), len};
  }
  /// For vigie.h. Ownership: stays here. Blocks: no. Throws: nothing.
  vigie_batch *get() const noexcept { return owned_.get(); }

private:
  void put(std::size_t argc, const char *const *argv, const std::size_t *lengths) noexcept {
    vigie_batch_add(get(), argc, argv, lengths);
    count_++;
  }
  detail::owned<vigie_batch, vigie_batch_free> owned_;
  std::size_t count_ = 0;
};

namespace detail {

/// Where a call goes, and how.
struct target {
  vigie_client *client = nullptr;
  const trace_hook *hook = nullptr;
  vigie_call *handle = nullptr;
  std::uint32_t flags = 0;
  std::int64_t time = VIGIE_TIMEOUT_DEFAULT;
};

/// Runs a call and tells the hook of it.
template <class Call> vigie_status traced(const target &at, std::string_view name, std::size_t commands, vigie_error **err, Call call) noexcept {
  auto begun = std::chrono::steady_clock::now();
  vigie_status status = call();
  auto duration = std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - begun);
  (*at.hook)(call_info{name, commands, duration, status, vigie_error_endpoint(*err), *err});
  return status;
}

inline vigie_status plain_call(const target &at, std::size_t argc, const char *const *argv, const std::size_t *lengths, vigie_reply **out,
                               vigie_error **err) noexcept {
  if (at.handle != nullptr) return vigie_call_cmd_exec(at.handle, at.client, argc, argv, lengths, at.flags, at.time, out, err);
  return vigie_cmd_exec(at.client, argc, argv, lengths, at.flags, at.time, out, err);
}
inline vigie_status run_call(const target &at, std::size_t argc, const char *const *argv, const std::size_t *lengths, vigie_reply **out,
                             vigie_error **err) noexcept {
  if (at.hook == nullptr) return plain_call(at, argc, argv, lengths, out, err);
  // A command without a name is refused by the library; until then it has none.
  const bool is_named = argc > 0 && argv[0] != nullptr;
  return traced(at, is_named ? std::string_view(argv[0], lengths[0]) : std::string_view(), 1, err, [&] { return plain_call(at, argc, argv, lengths, out, err); });
}

inline vigie_status plain_list(const target &at, const batch &list, std::uint32_t more, vigie_reply **out, vigie_error **err) noexcept {
  if (at.handle == nullptr) return vigie_batch_exec(at.client, list.get(), at.flags | more, at.time, out, err);
  std::string_view data = list.data();
  return vigie_call_cmds_exec(at.handle, at.client, data.data(), data.size(), at.flags | more, at.time, out, err);
}
inline vigie_status run_list(const target &at, const batch &list, std::uint32_t more, vigie_reply **out, vigie_error **err) noexcept {
  if (at.hook == nullptr) return plain_list(at, list, more, out, err);
  const char *name = (more & VIGIE_CALL_ATOMIC) != 0 ? "MULTI" : "PIPELINE";
  return traced(at, name, list.size(), err, [&] { return plain_list(at, list, more, out, err); });
}

} // namespace detail

/// A list of commands for one client: client.pipeline() and client.multi() make it. One thread at a time; the client must outlive it.
class pipeline {
public:
  /// For client.pipeline() and client.multi(). Blocks: no. Throws: nothing.
  pipeline(const detail::target &at, bool is_atomic) noexcept : at_(at), more_(is_atomic ? std::uint32_t{VIGIE_CALL_ATOMIC} : 0u) {}
  /// Adds a command. Ownership: copies the arguments. Blocks: no. Errors: a wrong argument is reported by exec().
  template <class... Args> pipeline &add(const Args &...args) {
    list_.add(args...);
    return *this;
  }
  /// How many commands there are. Blocks: no. Throws: nothing.
  std::size_t size() const noexcept { return list_.size(); }
  /// Runs the list and empties it. The reply has one value for each command, in order; the error of one command is such a value
  /// (value::is_error()), and the others have run all the same. As a transaction all run, or none: txn_aborted_error if a watched key was changed.
  ///
  /// Ownership: the reply is the caller's. Blocks: up to the budget. Errors: vigie_cmds_exec().
  result<reply> try_exec() {
    if (list_.size() == 0) return reply();
    auto outcome = detail::made<reply, vigie_reply>([&](vigie_reply **out, vigie_error **err) { return detail::run_list(at_, list_, more_, out, err); });
    list_.clear();
    return outcome;
  }
#if VIGIE_HPP_EXCEPTIONS
  /// As try_exec(); throws its errors.
  reply exec() { return unwrap(try_exec()); }
#endif
  /// Runs the list without waiting, and empties it: one completion with this token. Ownership: the list is copied. Blocks: no. Errors:
  /// vigie_batch_submit(); then there is no completion, and the list stays as it is.
  result<void> try_submit(queue &to, std::uint64_t token) {
    auto outcome = detail::done([&](vigie_error **err) {
      return vigie_batch_submit(at_.client, list_.get(), at_.flags | more_, at_.time, to.get(), token, err);
    });
    if (outcome) list_.clear();
    return outcome;
  }
#if VIGIE_HPP_EXCEPTIONS
  /// As try_submit(); throws its errors.
  void submit(queue &to, std::uint64_t token) { unwrap(try_submit(to, token)); }
#endif

private:
  detail::target at_;
  std::uint32_t more_;
  batch list_;
};

class caller;

/// What client, session and caller have in common: the calls. Any thread may call, also several at a time.
template <class Self> class calls {
public:
  /// The same client with other flags, another budget, a call handle: `client.with(250ms).call(...)`, `client.with(flags::idempotent)`,
  /// `client.with(handle)`; more than one in any order. Ownership: the client and the handle must outlive what is returned. Blocks: no.
  template <class... Options> caller with(Options &&...options) const noexcept;

#if VIGIE_HPP_EXCEPTIONS
  /// Runs one command and waits for its reply: `client.call("SET", key, value)`. An argument is a text, bytes, an integer or a float.
  ///
  /// Ownership: arguments are only read; the reply is the caller's. Blocks: up to the budget, failovers included. Errors: vigie_cmd_exec();
  /// server_error: the server answered with an error; maybe_executed: it was sent and not answered.
  template <class... Args> reply call(const Args &...args) const {
    return detail::with_arguments([&](std::size_t argc, const char *const *argv, const std::size_t *lengths) { return raised(argc, argv, lengths); }, args...);
  }
  /// The same with arguments that were counted at run time. Throws also std::bad_alloc.
  reply call(const command &one) const {
    return one.with([&](std::size_t argc, const char *const *argv, const std::size_t *lengths) { return raised(argc, argv, lengths); });
  }
#endif
  /// As call(), with the error in the result.
  template <class... Args> result<reply> try_call(const Args &...args) const {
    return detail::with_arguments([&](std::size_t argc, const char *const *argv, const std::size_t *lengths) { return called(argc, argv, lengths); }, args...);
  }
  /// The same with arguments that were counted at run time. Throws std::bad_alloc.
  result<reply> try_call(const command &one) const {
    return one.with([&](std::size_t argc, const char *const *argv, const std::size_t *lengths) { return called(argc, argv, lengths); });
  }

  /// A list of commands that travel together. Ownership: the client must outlive it. Blocks: no.
  vigie::pipeline pipeline() const noexcept { return vigie::pipeline(at(), false); }
  /// A list that runs as one transaction (MULTI, EXEC), or not at all. Ownership: the client must outlive it. Blocks: no.
  vigie::pipeline multi() const noexcept { return vigie::pipeline(at(), true); }
  /// Runs a batch, which stays as it is. Ownership: the reply is the caller's. Blocks: up to the budget. Errors: vigie_batch_exec().
  result<reply> try_exec(const batch &list) const {
    return detail::made<reply, vigie_reply>([&](vigie_reply **out, vigie_error **err) { return detail::run_list(at(), list, 0, out, err); });
  }
#if VIGIE_HPP_EXCEPTIONS
  /// As try_exec(); throws its errors.
  reply exec(const batch &list) const { return unwrap(try_exec(list)); }
#endif

  /// Runs a script: EVAL, which the library sends by its hash where it can. Ownership: arguments are only read. Blocks: up to the budget. Errors:
  /// as call(); std::bad_alloc.
  template <class... Args> result<reply> try_eval(std::string_view script, std::initializer_list<std::string_view> keys, const Args &...args) const {
    command one("EVAL", script, keys.size());
    one.add_all(keys).add(args...);
    return try_call(one);
  }
#if VIGIE_HPP_EXCEPTIONS
  /// As try_eval(); throws its errors.
  template <class... Args> reply eval(std::string_view script, std::initializer_list<std::string_view> keys, const Args &...args) const {
    return unwrap(try_eval(script, keys, args...));
  }
#endif

  /// Sends a command without waiting: one completion on the queue, with this token. Ownership: arguments are copied. Blocks: no. Errors:
  /// vigie_cmds_submit(); then there is no completion.
  template <class... Args> result<void> try_submit(queue &to, std::uint64_t token, const Args &...args) const {
    batch one;
    one.add(args...);
    return try_submit_each(to, token, one);
  }
  /// Sends the commands of a batch as calls of their own: command i completes with token + i. Ownership: copied. Blocks: no. Errors: as try_submit().
  result<void> try_submit_each(queue &to, std::uint64_t token, const batch &list) const {
    return detail::done([&](vigie_error **err) {
      return vigie_batch_submit(at().client, list.get(), at().flags | VIGIE_CALL_EACH, at().time, to.get(), token, err);
    });
  }
#if VIGIE_HPP_EXCEPTIONS
  /// As try_submit(); throws its errors.
  template <class... Args> void submit(queue &to, std::uint64_t token, const Args &...args) const { unwrap(try_submit(to, token, args...)); }
  /// As try_submit_each(); throws its errors.
  void submit_each(queue &to, std::uint64_t token, const batch &list) const { unwrap(try_submit_each(to, token, list)); }
#endif

private:
  detail::target at() const noexcept { return static_cast<const Self &>(*this).target(); }
  result<reply> called(std::size_t argc, const char *const *argv, const std::size_t *lengths) const {
    return detail::made<reply, vigie_reply>([&](vigie_reply **out, vigie_error **err) { return detail::run_call(at(), argc, argv, lengths, out, err); });
  }
#if VIGIE_HPP_EXCEPTIONS
  reply raised(std::size_t argc, const char *const *argv, const std::size_t *lengths) const {
    vigie_reply *out = nullptr;
    vigie_error *err = nullptr;
    if (detail::run_call(at(), argc, argv, lengths, &out, &err) != VIGIE_OK) errors::raise(err);
    return reply(out);
  }
#endif
};

/// A client with options: what with() returns. A view: the client and the call handle must outlive it.
class caller : public calls<caller> {
public:
  /// For with(). Blocks: no. Throws: nothing.
  explicit caller(const detail::target &at) noexcept : at_(at) {}
  /// For the calls. Blocks: no. Throws: nothing.
  const detail::target &target() const noexcept { return at_; }
  /// Sets the budget. Blocks: no. Throws: nothing.
  void set(budget time) noexcept { at_.time = time.ms(); }
  /// Sets a budget from a duration. Blocks: no. Throws: nothing.
  template <class Rep, class Period> void set(std::chrono::duration<Rep, Period> time) noexcept { set(budget(time)); }
  /// Adds flags. Blocks: no. Throws: nothing.
  void set(flags more) noexcept { at_.flags |= static_cast<std::uint32_t>(more); }
  /// Sets the call handle. Ownership: it must outlive this. Blocks: no. Throws: nothing.
  void set(call_handle &handle) noexcept { at_.handle = handle.get(); }

private:
  detail::target at_;
};

template <class Self> template <class... Options> caller calls<Self>::with(Options &&...options) const noexcept {
  caller made(at());
  (made.set(std::forward<Options>(options)), ...);
  return made;
}

VIGIE_HPP_END
} // namespace vigie

#endif
