//! The names of the C side: handles, status codes, flags, kinds of nodes and events, and the three public structs.
//!
//! Guarantees: everything here is spelled as in C, so that a search finds both sides; numbers and layout are checked
//! against the rooms that own them when the library is compiled. Leaves to others: what a handle is inside (`handle`).

#![allow(non_camel_case_types)]

use std::ffi::c_char;

use crate::error::{Status, flags};
use crate::queue::kind;
use crate::resp;

/// Settings as keys and values: CONFIGURATION.md lists the keys.
///
/// Threads: [X] to change, [C] where a function takes it as const. Plain memory: works in a forked child.
pub struct vigie_config {
    _opaque: (),
}

/// The Sentinels of a deployment and what they said: clients are made from it.
///
/// Threads: [T]. After a fork the child gets VIGIE_ERR_FORKED; with the option fork = reopen it works there.
pub struct vigie_sentinel {
    _opaque: (),
}

/// Runs commands: one service, and its primary, its replicas or both; or a session, pinned to one connection.
///
/// Threads: [T]. After a fork the child gets VIGIE_ERR_FORKED; with the option fork = reopen it works there, unless it is a session.
pub struct vigie_client {
    _opaque: (),
}

/// A client over several shards, which C knows as a vigie_client.
pub struct Sharded {
    _opaque: (),
}

/// A queue of events that the application takes when it likes, with a descriptor that an event loop can poll.
///
/// Threads: [T]. After a fork the child gets VIGIE_ERR_FORKED.
pub struct vigie_queue {
    _opaque: (),
}

/// A call that can be cancelled from another thread, and whose wait a signal can interrupt; one call after another.
///
/// Threads: [X], but for vigie_call_cancel(). After a fork the child gets VIGIE_ERR_FORKED.
pub struct vigie_call {
    _opaque: (),
}

/// A scan from its beginning to its end, page by page, on one node.
///
/// Threads: [X]. After a fork the child gets VIGIE_ERR_FORKED.
pub struct vigie_scan {
    _opaque: (),
}

/// A subscription: messages of channels, patterns and shard channels, on a queue.
///
/// Threads: [T]. After a fork the child gets VIGIE_ERR_FORKED.
pub struct vigie_sub {
    _opaque: (),
}

/// A worker of a list of jobs, each of which is done at least once.
///
/// Threads: [T]. After a fork the child gets VIGIE_ERR_FORKED.
pub struct vigie_jobs {
    _opaque: (),
}

/// A list of encoded commands that is being built, for vigie_cmds_exec().
///
/// Threads: [X]. Plain memory: works in a forked child.
pub struct vigie_batch {
    _opaque: (),
}

/// A reply: a tree of nodes, numbered from the root VIGIE_ROOT. It never changes.
///
/// Threads: [C]. Plain memory: works in a forked child.
pub struct vigie_reply {
    _opaque: (),
}

/// An error: a status, a sentence, and what a program may want to look at. It never changes.
///
/// Threads: [C]. Plain memory: works in a forked child.
pub struct vigie_error {
    _opaque: (),
}

/// 0 (VIGIE_OK) on success, a negative number of vigie_status_code otherwise.
pub type vigie_status = i32;

/// The values of vigie_status. Numbers are never reused, and more may come. ERRORS.md has causes and remedies.
#[repr(C)]
pub enum vigie_status_code {
    /// Success.
    VIGIE_OK = 0,
    /// The caller: an argument is NULL, out of range, or carries an unknown flag.
    VIGIE_ERR_INVALID_ARG = -1,
    /// The caller: not allowed in the present state of the handle, or an [X] handle used by two threads at the same
    /// time.
    VIGIE_ERR_INVALID_STATE = -2,
    /// The caller: an option is unknown, has a bad value, or contradicts another one.
    VIGIE_ERR_CONFIG = -3,
    /// The caller: not in this build, not on this server, or refused by design.
    VIGIE_ERR_UNSUPPORTED = -4,
    /// The caller: the handle, or the one that it was made from, was closed.
    VIGIE_ERR_CLOSED = -5,
    /// The caller: the handle belongs to the parent process.
    VIGIE_ERR_FORKED = -6,
    /// The caller: the call was cancelled.
    VIGIE_ERR_CANCELLED = -7,
    /// A bug in the library: a panic was caught, and the handles of that call answer nothing else from then on.
    VIGIE_ERR_INTERNAL = -8,
    /// The caller: the next event does not fit into the buffer; it stays in the queue.
    VIGIE_ERR_BUFFER_TOO_SMALL = -9,
    /// The caller: a signal, or vigie_call_interrupt_every(), interrupted the wait; the call is still under way, and vigie_call_wait() goes on with it.
    VIGIE_ERR_INTERRUPTED = -10,
    /// The wire: a host name could not be resolved in time.
    VIGIE_ERR_RESOLVE = -100,
    /// The wire: no connection could be made.
    VIGIE_ERR_CONNECT = -101,
    /// The wire: the connection broke, or the peer closed it.
    VIGIE_ERR_IO = -102,
    /// The wire: the deadline passed.
    VIGIE_ERR_TIMEOUT = -103,
    /// The wire: TLS failed.
    VIGIE_ERR_TLS = -104,
    /// The wire: the server refused the credentials, or asks for some.
    VIGIE_ERR_AUTH = -105,
    /// The wire: what the peer sent is not RESP, or not an answer to what was asked.
    VIGIE_ERR_PROTOCOL = -106,
    /// The wire: a reply is larger, deeper or longer than the configured limits.
    VIGIE_ERR_LIMIT = -107,
    /// Availability: no Sentinel answered.
    VIGIE_ERR_NO_SENTINEL = -200,
    /// Availability: Sentinels answer, and none of them knows the service.
    VIGIE_ERR_UNKNOWN_SERVICE = -201,
    /// Availability: the service has no usable primary.
    VIGIE_ERR_NO_PRIMARY = -202,
    /// Availability: the service has no fit replica, and no fallback is configured.
    VIGIE_ERR_NO_REPLICA = -203,
    /// Availability: the server reached does not have the role that was asked for.
    VIGIE_ERR_ROLE = -204,
    /// Availability: writes are held back during a failover or without a majority of Sentinels.
    VIGIE_ERR_FENCED = -205,
    /// Availability: a command that writes, on a client for replicas.
    VIGIE_ERR_READ_ONLY = -206,
    /// Availability: the Sentinels name different primaries; the message lists them.
    VIGIE_ERR_SPLIT_VIEW = -207,
    /// Flow: no dedicated connection came free in time.
    VIGIE_ERR_POOL_TIMEOUT = -300,
    /// Flow: the queue is full.
    VIGIE_ERR_QUEUE_FULL = -301,
    /// Flow: no dedicated connection is free, and the call does not wait.
    VIGIE_ERR_POOL_BUSY = -302,
    /// The server answered with an error: see vigie_error_server_code().
    VIGIE_ERR_SERVER = -400,
    /// The server: EXEC answered null, or the connection that held the WATCH is gone.
    VIGIE_ERR_TXN_ABORTED = -401,
    /// The server: the command needs keys of more than one shard together.
    VIGIE_ERR_CROSS_SHARD = -402,
    /// The server: executed, but fewer replicas have it than asked: see vigie_error_count().
    VIGIE_ERR_REPLICAS = -403,
    /// The server: the cursor belongs to a node that is no longer read from here.
    VIGIE_ERR_SCAN_INTERRUPTED = -404,
}

/// Bits of vigie_error_flags(). More may come.
#[repr(C)]
pub enum vigie_error_flag {
    /// The same call may succeed if it is tried again.
    VIGIE_EF_RETRYABLE = 1 << 0,
    /// Bytes were sent and no answer came: it may have run.
    VIGIE_EF_MAYBE_EXECUTED = 1 << 1,
    /// It happened while the topology was changing.
    VIGIE_EF_FAILOVER = 1 << 2,
}

/// Bits of the flags of vigie_cmd_exec(), vigie_cmds_exec(), vigie_cmds_submit() and vigie_sentinel_exec(). An unknown bit gives VIGIE_ERR_INVALID_ARG. The highest
/// eight bits are a number: VIGIE_CALL_REPLICAS(n) makes them, to be combined with these.
#[repr(C)]
pub enum vigie_call_flag {
    /// Lists: all commands run as one transaction (MULTI, EXEC), or none of them does. vigie_cmds_exec() says more.
    VIGIE_CALL_ATOMIC = 1 << 0,
    /// Safe to send again after an unknown outcome: the library may do so within the timeout.
    VIGIE_CALL_IDEMPOTENT = 1 << 1,
    /// Send once at most: any failure is reported. Waiting for a primary is not a retry.
    VIGIE_CALL_NO_RETRY = 1 << 2,
    /// vigie_sentinel_exec(): to every Sentinel that is known; the reply is a MAP from addresses to replies. Not for clients.
    VIGIE_CALL_ALL = 1 << 3,
    /// On a client of vigie_split_for(): this read goes to the primary. On one of vigie_replica_for(): VIGIE_ERR_INVALID_ARG.
    VIGIE_CALL_ON_PRIMARY = 1 << 4,
    /// Submit: each command of the list is a call of its own, and completes with token + its place, with its bare reply and its own
    /// error. Exec: the list holds exactly one command, and its reply and error have the same form.
    VIGIE_CALL_EACH = 1 << 5,
    /// Expected to take long: not on a connection that other calls share. Submits keep their order, and so their connection; only
    /// the time that a read has on one replica is then the whole of it.
    VIGIE_CALL_SLOW = 1 << 6,
    /// The reply has its meaning in its types (numbers as INT, flags as SET, pairs as MAP): vigie_sentinel_exec() says which replies
    /// have such a form; of the commands to data nodes ROLE and INFO have one, by vigie_cmd_exec().
    VIGIE_CALL_TYPED = 1 << 7,
}

/// Bits of the flags of vigie_sentinel_services(). An unknown bit gives VIGIE_ERR_INVALID_ARG.
#[repr(C)]
pub enum vigie_services_flag {
    /// Discover each service, verify its primary, and follow it from now on, as vigie_sentinel_refresh() does.
    VIGIE_SERVICES_FOLLOW = 1 << 0,
}

/// Bits of the flags of vigie_sentinel_metrics(). An unknown bit gives VIGIE_ERR_INVALID_ARG.
#[repr(C)]
pub enum vigie_metrics_flag {
    /// OpenMetrics 1.0 in place of Prometheus 0.0.4.
    VIGIE_METRICS_OPENMETRICS = 1 << 0,
}

/// The field kind of vigie_event: one bit each, so that they serve as a mask. More may come.
#[repr(C)]
pub enum vigie_event_kind {
    /// A call of vigie_cmds_submit() is over. status and error are those that vigie_cmds_exec() would have given.
    VIGIE_EVENT_COMPLETION = 1 << 0,
    /// What a subscription has received, or an answer to vigie_sub_exec(): the reply is the server's, as a PUSH. With an error: a
    /// channel was refused, or the subscription cannot be made, see EVENTS.md.
    VIGIE_EVENT_MESSAGE = 1 << 1,
    /// A subscription was made anew, and is confirmed: messages may be missing before it. The reply is a MAP: EVENTS.md has the keys.
    VIGIE_EVENT_SUB_GAP = 1 << 2,
    /// A service has another primary. Sent for nothing else. The reply is a MAP, as for all kinds that are watched:
    /// EVENTS.md has the keys.
    VIGIE_EVENT_TOPOLOGY = 1 << 3,
    /// A line of the log, if log.level admits it: time, level, target, message, and the keys of what happened. Not in VIGIE_EVENT_ALL.
    VIGIE_EVENT_LOG = 1 << 4,
    /// Events were lost here, because the queue was full; with the token of a subscription, messages of it, because its own buffer was
    /// full. The reply is an INT: how many.
    VIGIE_EVENT_DROPPED = 1 << 5,
    /// Writes are held back, or no longer.
    VIGIE_EVENT_FENCE = 1 << 6,
    /// All Sentinels are gone, or refuse (cause says which), or one is back. Meanwhile the known primary is used, a
    /// failover is noticed late, and nothing holds writes back before it: writes that the old primary acknowledges
    /// then may be lost.
    VIGIE_EVENT_DEGRADED = 1 << 7,
    /// A replica is used for reads from now on, or no longer, or was mentioned.
    VIGIE_EVENT_REPLICA = 1 << 8,
    /// A Sentinel is connected from now on, or no longer, or was mentioned; or some Sentinels name another primary
    /// than the others.
    VIGIE_EVENT_SENTINEL = 1 << 9,
    /// A service was mentioned that keeps its primary. cause is a Sentinel's event (+sdown, +odown, +reboot, ...) or
    /// the library's own: role_unknown, epoch_reset, fixed.
    VIGIE_EVENT_NOTICE = 1 << 10,
    /// A connection to a node was opened, or closed for a reason: service, node, role, open, age_ms, cause. Not in
    /// VIGIE_EVENT_ALL, because there may be many.
    VIGIE_EVENT_CONNECTION = 1 << 11,
}

/// Values of vigie_reply_type() and of the field type of vigie_node. More may come.
#[repr(C)]
pub enum vigie_type {
    /// No such node.
    VIGIE_TYPE_NONE = 0,
    /// Null.
    VIGIE_TYPE_NULL = 1,
    /// A bulk string: any bytes.
    VIGIE_TYPE_STRING = 2,
    /// A simple string, such as OK.
    VIGIE_TYPE_STATUS = 3,
    /// An error inside a reply: its text is the server's line.
    VIGIE_TYPE_ERROR = 4,
    /// An integer.
    VIGIE_TYPE_INT = 5,
    /// A floating-point number.
    VIGIE_TYPE_DOUBLE = 6,
    /// A boolean.
    VIGIE_TYPE_BOOL = 7,
    /// A number beyond 64 bits, as text.
    VIGIE_TYPE_BIGNUM = 8,
    /// Text for people, without its format mark.
    VIGIE_TYPE_VERBATIM = 9,
    /// A list of nodes.
    VIGIE_TYPE_ARRAY = 10,
    /// Pairs: the children alternate key, value; the count is that of the children.
    VIGIE_TYPE_MAP = 11,
    /// A set of nodes.
    VIGIE_TYPE_SET = 12,
    /// An out-of-band message.
    VIGIE_TYPE_PUSH = 13,
}

/// One node of a reply, for decoding in bulk from other languages. Frozen: 24 bytes, these fields, native byte order.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vigie_node {
    /// One of vigie_type.
    pub r#type: u8,
    /// 0.
    pub flags: u8,
    /// 0.
    pub reserved: u16,
    /// Children of an aggregate, else 0.
    pub count: u32,
    /// INT, BOOL: the value. DOUBLE: its bits. Text: its offset in data. Aggregate: the id of its first child.
    pub value: u64,
    /// Bytes of a text without its closing NUL, else 0.
    pub len: u64,
}

/// One event, as vigie_queue_drain() writes it. Frozen: 64 bytes on 64-bit systems. What it owns is freed by
/// vigie_events_clear(), or by vigie_reply_free() and vigie_error_free().
#[repr(C)]
pub struct vigie_event {
    /// One of vigie_event_kind.
    pub kind: u32,
    /// VIGIE_OK, or the status of error.
    pub status: vigie_status,
    /// The number that was given with the call, the watch or the subscription; 0 for DROPPED of the queue itself.
    pub token: u64,
    /// Owned by the receiver; may be NULL.
    pub reply: *mut vigie_reply,
    /// Owned by the receiver; may be NULL.
    pub error: *mut vigie_error,
    /// As vigie_reply_nodes() gives them, to save that call; NULL without a reply.
    pub nodes: *const vigie_node,
    /// The data that goes with them; NULL without a reply.
    pub data: *const c_char,
    /// How many nodes; 0 without a reply.
    pub node_count: u64,
    /// Bytes of data; 0 without a reply.
    pub data_len: u64,
}

/// One event as vigie_queue_drain_packed() writes it: this struct, the nodes behind the root, the data, and zeros up
/// to a multiple of 8. Frozen: 64 bytes on every system, native byte order, and no pointers: it may be copied.
#[repr(C)]
pub struct vigie_packed_event {
    /// Bytes of the whole record, a multiple of 8: the next record begins this far behind the beginning of this one.
    pub size: u64,
    /// The number that was given with the call, the watch or the subscription; 0 for DROPPED of the queue itself.
    pub token: u64,
    /// One of vigie_event_kind.
    pub kind: u32,
    /// VIGIE_OK, or the status of an error. The nodes are then a MAP with what the functions vigie_error_*() return:
    /// message, server_code, endpoint, count, errno, and reply if there is one.
    pub status: vigie_status,
    /// The VIGIE_EF_* bits, as vigie_error_flags() gives them; 0 with VIGIE_OK.
    pub error_flags: u32,
    /// How many nodes, the root included: at least 1.
    pub node_count: u32,
    /// Bytes of data. It begins behind the last node: at (const char *)(&root + node_count).
    pub data_len: u64,
    /// The first node, whose type is VIGIE_TYPE_NONE if the event carries nothing. The others follow it.
    pub root: vigie_node,
}

const _: () = {
    use std::mem::{align_of, offset_of, size_of};
    assert!(size_of::<vigie_packed_event>() == 64 && align_of::<vigie_packed_event>() == align_of::<u64>());
    assert!(offset_of!(vigie_packed_event, size) == 0 && offset_of!(vigie_packed_event, token) == 8);
    assert!(offset_of!(vigie_packed_event, kind) == 16 && offset_of!(vigie_packed_event, status) == 20);
    assert!(offset_of!(vigie_packed_event, error_flags) == 24 && offset_of!(vigie_packed_event, node_count) == 28);
    assert!(offset_of!(vigie_packed_event, data_len) == 32 && offset_of!(vigie_packed_event, root) == 40);
};

#[cfg(target_pointer_width = "64")]
const _: () = {
    use std::mem::{align_of, offset_of, size_of};
    assert!(size_of::<vigie_event>() == 64 && align_of::<vigie_event>() == 8);
    assert!(offset_of!(vigie_event, kind) == 0 && offset_of!(vigie_event, status) == 4);
    assert!(offset_of!(vigie_event, token) == 8);
    assert!(offset_of!(vigie_event, reply) == 16 && offset_of!(vigie_event, error) == 24);
    assert!(offset_of!(vigie_event, nodes) == 32 && offset_of!(vigie_event, data) == 40);
    assert!(offset_of!(vigie_event, node_count) == 48 && offset_of!(vigie_event, data_len) == 56);
};

const _: () = {
    use std::mem::{align_of, offset_of, size_of};
    assert!(size_of::<vigie_node>() == 24 && size_of::<resp::Node>() == 24);
    assert!(align_of::<vigie_node>() == align_of::<resp::Node>());
    assert!(offset_of!(vigie_node, r#type) == offset_of!(resp::Node, kind));
    assert!(offset_of!(vigie_node, flags) == offset_of!(resp::Node, flags));
    assert!(offset_of!(vigie_node, reserved) == offset_of!(resp::Node, reserved));
    assert!(offset_of!(vigie_node, count) == offset_of!(resp::Node, count));
    assert!(offset_of!(vigie_node, value) == offset_of!(resp::Node, value));
    assert!(offset_of!(vigie_node, len) == offset_of!(resp::Node, len));
    assert!(vigie_type::VIGIE_TYPE_NONE as u8 == resp::Kind::None as u8);
    assert!(vigie_type::VIGIE_TYPE_STRING as u8 == resp::Kind::String as u8);
    assert!(vigie_type::VIGIE_TYPE_ARRAY as u8 == resp::Kind::Array as u8);
    assert!(vigie_type::VIGIE_TYPE_PUSH as u8 == resp::Kind::Push as u8);
    assert!(vigie_error_flag::VIGIE_EF_RETRYABLE as u32 == flags::RETRYABLE);
    assert!(vigie_error_flag::VIGIE_EF_MAYBE_EXECUTED as u32 == flags::MAYBE_EXECUTED);
    assert!(vigie_error_flag::VIGIE_EF_FAILOVER as u32 == flags::FAILOVER);
    assert!(vigie_event_kind::VIGIE_EVENT_MESSAGE as u32 == kind::MESSAGE);
    assert!(vigie_event_kind::VIGIE_EVENT_SUB_GAP as u32 == kind::SUB_GAP);
    assert!(vigie_event_kind::VIGIE_EVENT_TOPOLOGY as u32 == kind::TOPOLOGY);
    assert!(vigie_event_kind::VIGIE_EVENT_NOTICE as u32 == kind::NOTICE);
    assert!(vigie_event_kind::VIGIE_EVENT_LOG as u32 == kind::LOG);
    assert!(vigie_event_kind::VIGIE_EVENT_DROPPED as u32 == kind::DROPPED);
    assert!(vigie_event_kind::VIGIE_EVENT_FENCE as u32 == kind::FENCE);
    assert!(vigie_event_kind::VIGIE_EVENT_DEGRADED as u32 == kind::DEGRADED);
    assert!(vigie_event_kind::VIGIE_EVENT_REPLICA as u32 == kind::REPLICA);
    assert!(vigie_event_kind::VIGIE_EVENT_SENTINEL as u32 == kind::SENTINEL);
    assert!(vigie_event_kind::VIGIE_EVENT_CONNECTION as u32 == kind::CONNECTION);
    assert!(vigie_status_code::VIGIE_ERR_INTERNAL as i32 == Status::Internal as i32);
    assert!(vigie_status_code::VIGIE_ERR_BUFFER_TOO_SMALL as i32 == Status::BufferTooSmall as i32);
    assert!(vigie_status_code::VIGIE_ERR_SCAN_INTERRUPTED as i32 == Status::ScanInterrupted as i32);
};

/// `VIGIE_OK` in the type that functions return.
pub(super) const OK: vigie_status = vigie_status_code::VIGIE_OK as vigie_status;
/// `VIGIE_NONE` of the header: no such node.
pub const NO_NODE: u32 = u32::MAX;
