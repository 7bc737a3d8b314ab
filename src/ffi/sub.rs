//! Subscriptions as C sees them.

use std::ffi::c_char;
use std::sync::Arc;

use super::args::{self, Argv};
use super::config::with_overrides;
use super::handle::{self, Either, Noun};
use super::shards;
use super::types::{vigie_client, vigie_config, vigie_error, vigie_queue, vigie_status, vigie_sub};
use super::{dispose, guard};
use crate::client::{Subscription, Timeout};
use crate::shard::ShardedSubscription;

impl Noun for vigie_sub {
    type Value = Owned;
    const MAGIC: u64 = u64::from_be_bytes(*b"vgi.subs");
    const PLAIN: bool = false;
}

/// The application's handle of a subscription. Jobs may keep the subscription for a moment longer, and find it ended.
pub(super) enum Owned {
    One(Arc<Subscription>),
    Shards(Box<ShardedSubscription>),
}

impl Drop for Owned {
    fn drop(&mut self) {
        match self {
            Self::One(sub) => sub.free(),
            Self::Shards(sub) => sub.free(),
        }
    }
}

/// A subscription: messages of channels, patterns and shard channels, as VIGIE_EVENT_MESSAGE on a queue, with this token.
/// What it listens to is given with vigie_sub_exec(). On a client of vigie_primary_for() or vigie_split_for() it listens
/// to the primary, on one of vigie_replica_for() to a replica (or to the primary, as replica.fallback says). It has a
/// connection of its own, which takes no place of pool.max, and no thread. Lazy: it connects with its first channel.
///
/// It lives through failovers: at a switch, and when its connection is lost, it is made anew at once, with everything
/// that it listened to. Messages that were published meanwhile are missing, because the server keeps none. The event
/// VIGIE_EVENT_SUB_GAP tells for how long, as soon as everything is confirmed and before the messages behind the gap: what
/// is read from the database from then on is not older than the gap.
///
/// The messages wait in a buffer of their own until they are drained, as much as the options sub.max_messages and
/// sub.max_bytes say: they take nothing of the capacity of the queue. sub.overflow says what happens when it is full; a
/// VIGIE_EVENT_DROPPED with this token has the number of lost messages.
///
/// Ownership: *out is the caller's, for vigie_sub_free(). overrides (NULL: none) is copied; it holds only options that
/// CONFIGURATION.md marks for overrides. Client and queue are kept alive.
/// Blocks: no.
/// Threads: [T]; overrides is [C] meanwhile.
/// Errors: VIGIE_ERR_CONFIG: overrides; VIGIE_ERR_INVALID_ARG: client, queue or out is NULL; VIGIE_ERR_INVALID_STATE:
/// client is a session, or another thread changes overrides; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_sub_for(
    client: *mut vigie_client,
    queue: *mut vigie_queue,
    token: u64,
    overrides: *const vigie_config,
    out: *mut *mut vigie_sub,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_sub_for", err, || {
            args::wanted(out)?;
            let client = shards::any(client)?;
            let queue = handle::borrow(queue, "queue")?;
            let made = with_overrides(overrides, |config| match &client {
                Either::One(client) => client.subscription(&queue.0, token, config).map(Owned::One),
                Either::Other(shards) => {
                    shards.subscription(&queue.0, token, config).map(|sub| Owned::Shards(Box::new(sub)))
                }
            })?;
            args::put(out, made);
            Ok(())
        })
    }
}

/// Changes what a subscription listens to: SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE with names; UNSUBSCRIBE, PUNSUBSCRIBE,
/// SUNSUBSCRIBE with names, or without any for all; PING, with a text or without. It can be used at any time, also while
/// there is no connection: it is kept, and asked for with every connection, until it is taken back.
///
/// The server's answers come as VIGIE_EVENT_MESSAGE, one for each name, in their place among the messages; what is
/// subscribed to again on a new connection is not answered again. A name that the server refuses (NOPERM, or SSUBSCRIBE
/// before Redis 7) is such an event with an error, and is asked for again with the next connection. With a timeout the
/// function waits until all names are answered, and fails if one of them is refused. It does not drain: the answers are
/// in the queue when it returns. To end what no server has confirmed takes no answer, and gives none. The thread that drains
/// the queue gives no timeout: with sub.overflow=disconnect a full buffer has no connection until it is drained, so that no
/// answer comes meanwhile.
///
/// Lengths: argc, argv and argvlen as for vigie_cmd_exec(); VIGIE_CMD() makes them. timeout_ms is in milliseconds.
/// VIGIE_TIMEOUT_DEFAULT: the option timeout.call. VIGIE_TIMEOUT_NONE: no limit. Any other value <= 0: the command is
/// noted, and the function returns.
/// Ownership: arguments are copied; nothing to free.
/// Blocks: up to timeout_ms.
/// Threads: [T].
/// Errors: VIGIE_ERR_UNSUPPORTED: another command; VIGIE_ERR_SERVER: a name was refused; VIGIE_ERR_TIMEOUT: not answered in
/// time, and asked for further on; VIGIE_ERR_CLOSED: the client was closed, or the queue freed; VIGIE_ERR_INVALID_ARG: sub is NULL, a bad
/// argc, argv or argvlen, or no name; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_sub_exec(
    sub: *mut vigie_sub,
    argc: usize,
    argv: *const *const c_char,
    argvlen: *const usize,
    timeout_ms: i64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_sub_exec", err, || {
            let sub = handle::borrow(sub, "sub")?;
            let timeout = Timeout::from_ms(timeout_ms);
            Argv { argc, argv, argvlen }.with(|args| match &*sub {
                Owned::One(sub) => sub.exec(args, timeout),
                Owned::Shards(sub) => sub.exec(args, timeout),
            })
        })
    }
}

/// Ends a subscription and frees it. Its events that were not drained are gone, and none comes after this function has
/// returned, except those that a drain on another thread has taken already.
///
/// Ownership: the handle is gone and its connection closed; NULL is a no-op. Freeing twice is not safe. In a forked child
/// the memory is left alone.
/// Blocks: no.
/// Threads: any thread, when no other uses this handle.
/// Errors: none.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_sub_free(sub: *mut vigie_sub) {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe { dispose(sub) };
}
