/// @file
/// A bridge from the library's log to the program's own logger.
///
/// Guarantees: lines arrive in order, on one thread; the bridge is off until it is made. Leaves to others: which lines there are (log.level).
#ifndef VIGIE_LOG_HPP
#define VIGIE_LOG_HPP

#include "sentinel.hpp"

#include <atomic>
#include <thread>

namespace vigie {
VIGIE_HPP_BEGIN

/// One line of the log: docs/logs.md. Its texts point into the event that it was made from.
struct log_line {
  /// RFC 3339, UTC.
  std::string_view time;
  /// "error", "warning", "info" or "debug".
  std::string_view level;
  /// What it is about: "topology", "fence", "replica", ...
  std::string_view target;
  /// The sentence.
  std::string_view message;
  /// All keys, those above included: a map.
  value fields;
  /// Reads a line from an event of the kind event_kind::log. Ownership: points into the event. Blocks: no. Throws: nothing.
  static log_line of(const event &from) noexcept {
    const reply &map = from.reply();
    auto text = [&](std::string_view key) { return map[key].text(); };
    return {text("time"), text("level"), text("target"), text("message"), map.root()};
  }
};

#if VIGIE_HPP_EXCEPTIONS
/// Gives each line of a handle's log to a function, on a thread of its own, until it is gone. log.level says which lines there are.
class log_bridge {
public:
  /// `write(const log_line &)` must not throw: an exception ends the program. Ownership: keeps `write`; the handle may go before the bridge. Blocks:
  /// no. Throws the errors of queue and sentinel::watch(), std::system_error.
  template <class Write> log_bridge(const sentinel &of, Write write, std::size_t capacity = 4096) : queue_(capacity) {
    of.watch(queue_, 0, VIGIE_EVENT_LOG);
    thread_ = std::thread([this, write = std::move(write)]() mutable { run(write); });
  }
  log_bridge(const log_bridge &) = delete;
  log_bridge &operator=(const log_bridge &) = delete;
  /// Writes what has arrived, and ends the thread. Blocks: until `write` has returned. Throws: nothing.
  ~log_bridge() {
    is_over_.store(true);
    queue_.wakeup();
    thread_.join();
  }

private:
  template <class Write> void run(Write &write) noexcept {
    for (;;) {
      bool was_over = is_over_.load();
      std::size_t count = queue_.drain(was_over ? budget(std::chrono::milliseconds(0)) : no_limit, [&](event &one) {
        if (one.kind() == event_kind::log) write(log_line::of(one));
      });
      if (was_over && count == 0) return;
    }
  }
  queue queue_;
  std::atomic<bool> is_over_{false};
  std::thread thread_;
};
#endif

VIGIE_HPP_END
} // namespace vigie

#endif
