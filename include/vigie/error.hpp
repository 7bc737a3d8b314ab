/// @file
/// Errors: what a call says when it fails, as a value and as an exception.
///
/// Guarantees: every error of a command that was sent and not answered can be caught as vigie::maybe_executed, whatever its class;
/// copying an error does not throw. Leaves to others: results (result.hpp), and which call gives which error (vigie.h, ERRORS.md).
#ifndef VIGIE_ERROR_HPP
#define VIGIE_ERROR_HPP

#include "../vigie.h"

#include <exception>
#include <memory>
#include <string>
#include <string_view>

#if defined(__cpp_exceptions) || defined(__EXCEPTIONS) || defined(_CPPUNWIND)
/// 1 where the program is compiled with exceptions; without them the functions `try_...` are there, and nothing throws.
#define VIGIE_HPP_EXCEPTIONS 1
#else
#define VIGIE_HPP_EXCEPTIONS 0
#endif

#define VIGIE_HPP_VERSION_MAJOR 0
#define VIGIE_HPP_VERSION_MINOR 1
#if VIGIE_VERSION_MAJOR != VIGIE_HPP_VERSION_MAJOR || VIGIE_VERSION_MINOR != VIGIE_HPP_VERSION_MINOR
#error "vigie.hpp and vigie.h are of different versions"
#endif

namespace vigie {

/// The base of all errors, and the error of a vigie::result. It shares what it holds with its copies; any thread may read it.
///
/// Catch a class below it, or maybe_executed, or this one and look at status().
class error : public std::exception {
public:
  /// No error: status() is VIGIE_OK. Blocks: no. Throws: nothing.
  error() noexcept = default;
  /// Takes over an error of the C interface (NULL: no error). Ownership: `taken` is freed with the last copy. Blocks: no.
  explicit error(vigie_error *taken) : of_library_(taken, vigie_error_free), status_(vigie_error_status(taken)) {}
  /// An error that is not the library's own: its status, its sentence, and the first word of a server's line. Blocks: no.
  error(vigie_status status, std::string message, std::string code = {})
      : of_package_(std::make_shared<const texts>(texts{std::move(message), std::move(code)})), status_(status) {}

  /// The message: what was tried, where, what happened and after how long. Ownership: belongs to the error. Blocks: no.
  const char *what() const noexcept override {
    return of_package_ ? of_package_->message.c_str() : vigie_error_message(of_library_.get());
  }
  /// The same as a view. Ownership: belongs to the error. Blocks: no. Throws: nothing.
  std::string_view message() const noexcept { return what(); }
  /// One of vigie_status_code. Blocks: no. Throws: nothing.
  vigie_status status() const noexcept { return status_; }
  /// The name of the status, such as "VIGIE_ERR_TIMEOUT". Ownership: static. Blocks: no. Throws: nothing.
  const char *name() const noexcept { return vigie_status_name(status_); }
  /// The first word of the server's error, such as "WRONGTYPE"; "" when it is not a server's. Ownership: the error's. Blocks: no.
  std::string_view code() const noexcept {
    return of_package_ ? std::string_view(of_package_->code) : vigie_error_server_code(of_library_.get());
  }
  /// The server that it happened with, as host:port, or "". Ownership: belongs to the error. Blocks: no. Throws: nothing.
  std::string_view endpoint() const noexcept { return vigie_error_endpoint(of_library_.get()); }
  /// The VIGIE_EF_* bits. Blocks: no. Throws: nothing.
  std::uint32_t flags() const noexcept { return vigie_error_flags(of_library_.get()); }
  /// Whether the same call may succeed if it is tried again. Blocks: no. Throws: nothing.
  bool retryable() const noexcept { return (flags() & VIGIE_EF_RETRYABLE) != 0; }
  /// Whether it was sent and not answered: then it may have run. Blocks: no. Throws: nothing.
  bool is_maybe_executed() const noexcept { return (flags() & VIGIE_EF_MAYBE_EXECUTED) != 0; }
  /// Whether it happened while the topology was changing. Blocks: no. Throws: nothing.
  bool in_failover() const noexcept { return (flags() & VIGIE_EF_FAILOVER) != 0; }
  /// For VIGIE_ERR_REPLICAS how many replicas have the write, else -1. Blocks: no. Throws: nothing.
  std::int64_t count() const noexcept { return vigie_error_count(of_library_.get()); }
  /// The system's errno, or 0. Blocks: no. Throws: nothing.
  int system_errno() const noexcept { return vigie_error_errno(of_library_.get()); }
  /// The server's answer to a call that failed despite it, or NULL; vigie::value_of() reads it. Ownership: the error's. Blocks: no.
  const vigie_reply *raw_reply() const noexcept { return vigie_error_reply(of_library_.get()); }
  /// The error of the C interface, or NULL. Ownership: belongs to this error. Blocks: no. Throws: nothing.
  const vigie_error *get() const noexcept { return of_library_.get(); }
#if VIGIE_HPP_EXCEPTIONS
  /// Throws this error as the class that fits. Ownership: the exception shares what this error holds. Blocks: no.
  [[noreturn]] void raise() const;
#endif

private:
  struct texts {
    std::string message, code;
  };
  std::shared_ptr<const vigie_error> of_library_;
  std::shared_ptr<const texts> of_package_;
  vigie_status status_ = VIGIE_OK;
};

/// The command was sent and no answer came: it may have run. An exception is of this class and of the one of its status.
class maybe_executed : public virtual error {
public:
  /// The same error. Ownership: shared. Blocks: no. Throws: nothing.
  explicit maybe_executed(const error &from) noexcept : error(from) {}
};

namespace errors {
template <class Class> class both final : public Class, public maybe_executed {
public:
  explicit both(const error &from) noexcept : error(from), Class(from), maybe_executed(from) {}
};
} // namespace errors

// A class of errors and the class above it. Each has one constructor, from the same error; it shares what that holds and throws nothing.
#define VIGIE_HPP_CLASS(name, above)                                                              \
  class name : public above {                                                                     \
  public:                                                                                         \
    explicit name(const ::vigie::error &from) noexcept : ::vigie::error(from), above(from) {}     \
  };
#define VIGIE_HPP_TOP_CLASS(name)                                                                 \
  class name : public virtual error {                                                             \
  public:                                                                                         \
    explicit name(const ::vigie::error &from) noexcept : ::vigie::error(from) {}                  \
  };

/// The call is wrong, or the handle is: -1 to -99.
VIGIE_HPP_TOP_CLASS(usage_error)
/// The handle was closed.
VIGIE_HPP_CLASS(closed_error, usage_error)
/// The handle belongs to the parent process.
VIGIE_HPP_CLASS(forked_error, usage_error)
/// The call was cancelled.
VIGIE_HPP_CLASS(cancelled_error, usage_error)
/// A signal, or call_handle::interrupt_every(), interrupted the wait; call_handle::wait() goes on with the call.
VIGIE_HPP_CLASS(interrupted_error, usage_error)
/// A reply is not of the type that as<T>() was asked for.
VIGIE_HPP_CLASS(conversion_error, usage_error)
/// The wire: -100 to -199.
VIGIE_HPP_TOP_CLASS(connection_error)
/// The deadline passed.
VIGIE_HPP_CLASS(timeout_error, connection_error)
/// No primary, no replica, no Sentinel, or a fence: -200 to -299.
VIGIE_HPP_TOP_CLASS(unavailable_error)
/// The pool or the queue has no room: -300 to -399.
VIGIE_HPP_TOP_CLASS(pool_error)
/// The server answered with an error: -400. Known codes have classes of their own below it.
VIGIE_HPP_TOP_CLASS(server_error)
/// A watched key was changed, or the connection of the WATCH is gone.
VIGIE_HPP_TOP_CLASS(txn_aborted_error)
/// Keys of more than one shard together.
VIGIE_HPP_TOP_CLASS(cross_shard_error)
/// Executed, but fewer replicas have it than asked: error::count().
VIGIE_HPP_TOP_CLASS(replicas_error)
/// The cursor belongs to a node that is no longer read.
VIGIE_HPP_TOP_CLASS(scan_interrupted_error)

/// The known codes of servers, and the class of each: X("WRONGTYPE", wrong_type_error) and so on.
#define VIGIE_HPP_SERVER_CODES(X)          \
  X("WRONGTYPE", wrong_type_error)         \
  X("NOSCRIPT", no_script_error)           \
  X("NOPERM", no_permission_error)         \
  X("NOAUTH", no_auth_error)               \
  X("WRONGPASS", wrong_password_error)     \
  X("OOM", out_of_memory_error)            \
  X("READONLY", read_only_error)           \
  X("MISCONF", misconfigured_error)        \
  X("NOREPLICAS", no_replicas_error)       \
  X("LOADING", loading_error)              \
  X("MASTERDOWN", master_down_error)       \
  X("BUSY", busy_error)                    \
  X("BUSYGROUP", busy_group_error)         \
  X("NOGROUP", no_group_error)             \
  X("BUSYKEY", busy_key_error)             \
  X("EXECABORT", exec_abort_error)         \
  X("UNBLOCKED", unblocked_error)          \
  X("NOTBUSY", not_busy_error)             \
  X("UNKILLABLE", unkillable_error)        \
  X("INPROG", in_progress_error)           \
  X("NOGOODSLAVE", no_good_replica_error)  \
  X("CROSSSLOT", cross_slot_error)         \
  X("MOVED", moved_error)                  \
  X("ASK", ask_error)                      \
  X("TRYAGAIN", try_again_error)           \
  X("CLUSTERDOWN", cluster_down_error)     \
  X("IOERR", io_error)                     \
  X("NOPROTO", no_protocol_error)

#define VIGIE_HPP_CODE_CLASS(code, name) VIGIE_HPP_CLASS(name, server_error)
VIGIE_HPP_SERVER_CODES(VIGIE_HPP_CODE_CLASS)
#undef VIGIE_HPP_CODE_CLASS
#undef VIGIE_HPP_CLASS
#undef VIGIE_HPP_TOP_CLASS

#if VIGIE_HPP_EXCEPTIONS
namespace errors {

template <class Class> [[noreturn]] void raise_as(const error &what) {
  if (what.is_maybe_executed()) throw both<Class>(what);
  throw Class(what);
}

[[noreturn]] inline void raise_server(const error &what) {
#define VIGIE_HPP_RAISE(word, name) \
  if (what.code() == word) raise_as<name>(what);
  VIGIE_HPP_SERVER_CODES(VIGIE_HPP_RAISE)
#undef VIGIE_HPP_RAISE
  raise_as<server_error>(what);
}

/// Takes over an error of the C interface and throws it.
[[noreturn]] inline void raise(vigie_error *taken) { error(taken).raise(); }

} // namespace errors

inline void error::raise() const {
  switch (status_) {
  case VIGIE_ERR_CLOSED: errors::raise_as<closed_error>(*this);
  case VIGIE_ERR_FORKED: errors::raise_as<forked_error>(*this);
  case VIGIE_ERR_CANCELLED: errors::raise_as<cancelled_error>(*this);
  case VIGIE_ERR_INTERRUPTED: errors::raise_as<interrupted_error>(*this);
  case VIGIE_ERR_TIMEOUT: errors::raise_as<timeout_error>(*this);
  case VIGIE_ERR_TXN_ABORTED: errors::raise_as<txn_aborted_error>(*this);
  case VIGIE_ERR_CROSS_SHARD: errors::raise_as<cross_shard_error>(*this);
  case VIGIE_ERR_REPLICAS: errors::raise_as<replicas_error>(*this);
  case VIGIE_ERR_SCAN_INTERRUPTED: errors::raise_as<scan_interrupted_error>(*this);
  default: break;
  }
  // A newer library may have statuses that this header does not know.
  if (status_ > -100) {
    // Of INVALID_ARG only a conversion is not the library's own.
    if (of_package_ && status_ == VIGIE_ERR_INVALID_ARG) errors::raise_as<conversion_error>(*this);
    errors::raise_as<usage_error>(*this);
  }
  if (status_ > -200) errors::raise_as<connection_error>(*this);
  if (status_ > -300) errors::raise_as<unavailable_error>(*this);
  if (status_ > -400) errors::raise_as<pool_error>(*this);
  errors::raise_server(*this);
}
#endif

} // namespace vigie

#endif
