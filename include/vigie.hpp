/// @file
/// vigie.hpp: Redis and Valkey under Sentinel, for C++17 and later. Header only, on top of vigie.h.
///
/// - A handle is moved, not copied, and frees itself. Handles may go in any order.
/// - A function throws vigie::error or a class below it. Its twin `try_...` gives a vigie::result<T> instead, and is all that there is with
///   -fno-exceptions. Both may throw std::bad_alloc where they say so.
/// - Every error of a command that was sent and not answered can be caught as vigie::maybe_executed, whatever its class.
/// - Where a comment names a function of vigie.h, the errors and the limits are those that are written there.
/// - Nothing prints, and nothing is allocated on the way of a call beyond what the C interface does.
///
/// packages/cpp/README.md begins with a program.
#ifndef VIGIE_HPP
#define VIGIE_HPP

#include "vigie/error.hpp"
#include "vigie/result.hpp"
#include "vigie/argument.hpp"
#include "vigie/reply.hpp"
#include "vigie/queue.hpp"
#include "vigie/calls.hpp"
#include "vigie/sentinel.hpp"
#include "vigie/scan.hpp"
#include "vigie/pubsub.hpp"
#include "vigie/jobs.hpp"
#include "vigie/reactor.hpp"
#include "vigie/log.hpp"

#endif
