/*
 * vigie.h: Redis and Valkey under Sentinel, for every language that can call C.
 *
 * Made from the sources by `make header`: change src/ffi or cbindgen.toml, not this file.
 *
 * Conventions, valid for every function unless its own comment says otherwise:
 *
 *  - A handle is an opaque pointer. `_new` (cannot fail), `_create` and `_for` make one, `_free` gives it back;
 *    `_free(NULL)` is a no-op, and `_free` never blocks and may run on any thread. Handles are reference counted
 *    inside: children keep parents alive, so free them in any order. What is not safe: to use a handle while
 *    another thread frees it, or after it was freed.
 *  - `vigie_status` is 0 on success, negative on failure. `*out` and `*err` are set to NULL on entry, so that
 *    `_free` on them is always safe. `err` may be NULL. `out` of a reply may be NULL: the reply is discarded; `out`
 *    of a new handle must not be NULL.
 *  - Order of arguments: handle, inputs, flags, timeout, outputs, err.
 *  - timeout_ms is the whole budget of a call in milliseconds, retries and waiting included. VIGIE_TIMEOUT_DEFAULT:
 *    the option timeout.call; but vigie_sentinel_create() does not wait with it, and vigie_queue_drain(),
 *    vigie_queue_drain_packed() and vigie_threads_join() wait without a limit. VIGIE_TIMEOUT_NONE: no limit. Any other
 *    value <= 0: do not wait (a command is not sent: VIGIE_ERR_TIMEOUT).
 *  - Texts are NUL-terminated UTF-8 unless a length goes with them. Lengths are in bytes; (NULL, 0) is empty.
 *    Inputs are not kept. A length or a sum of lengths above 4 GiB gives VIGIE_ERR_INVALID_ARG.
 *  - No function calls back into the application, but for the hash of vigie_shards_for_hash(); none installs a signal
 *    handler, prints, or raises SIGPIPE.
 *  - Stack: a call takes less than 12 KB of the caller's; one that opens a connection with TLS less than 48 KB.
 *  - Without memory for a copy of its arguments, for a list, a reply or JSON a call fails with VIGIE_ERR_LIMIT. Without
 *    memory for its own small objects (some hundred bytes each) the process is aborted, with a line on stderr.
 *  - Thread safety: [T] any thread, concurrently. [C] immutable: concurrent readers. [X] one thread at a time (a
 *    breach gives VIGIE_ERR_INVALID_STATE, not undefined behaviour; for what vigie_batch_data() gave see there).
 *  - Unknown flags give VIGIE_ERR_INVALID_ARG. Unknown map keys, status codes, event kinds and node types must be
 *    ignored: more will come.
 *  - fork: config, batch, reply and error are plain memory and work in the child. Sentinels and clients answer
 *    VIGIE_ERR_FORKED there, or with the option fork = reopen they are made anew at their first use in the child, with
 *    threads and connections of its own. Sessions, queues, subscriptions, calls, scans and jobs always answer
 *    VIGIE_ERR_FORKED. `_free` on all of them is safe in the child, and leaves what is the parent's alone; the child's
 *    copies of the parent's sockets are closed at the fork. A child of a fork() inside a call of the library (in a signal
 *    handler, in the hash of vigie_shards_for_hash()) may only execute another program or _exit(). See docs/fork.md.
 *  - VIGIE_ERR_INTERNAL is a bug in the library that was caught, and its message says where: the process goes on, the
 *    handles of that call answer nothing else.
 */


#ifndef VIGIE_H
#define VIGIE_H

#include <stddef.h>
#include <stdint.h>

#define VIGIE_VERSION_MAJOR 0
#define VIGIE_VERSION_MINOR 1
#define VIGIE_VERSION_PATCH 0
#define VIGIE_VERSION_NUMBER ((VIGIE_VERSION_MAJOR << 16) | (VIGIE_VERSION_MINOR << 8) | VIGIE_VERSION_PATCH)

#define VIGIE_TIMEOUT_DEFAULT ((int64_t)-2147483647 - 1)
#define VIGIE_TIMEOUT_NONE ((int64_t)2147483647)

/* Nodes of a reply: the first one, and none. */
#define VIGIE_ROOT ((uint32_t)0)
#define VIGIE_NONE ((uint32_t)0xFFFFFFFFu)

/* A call flag: done only when n replicas have the write, n from 1 to 255 (VIGIE_ERR_REPLICAS); 0: as configured. With any other n
 * the call gives VIGIE_ERR_INVALID_ARG. n is evaluated twice. */
#define VIGIE_CALL_REPLICAS(n) ((uint64_t)(n) <= 255u ? (uint32_t)(n) << 24 : (uint32_t)1 << 23)

/* What vigie_sentinel_watch() tells of a deployment; connections are asked for apart (VIGIE_EVENT_CONNECTION). */
#define VIGIE_EVENT_ALL ((uint32_t)(VIGIE_EVENT_TOPOLOGY | VIGIE_EVENT_NOTICE | VIGIE_EVENT_FENCE | VIGIE_EVENT_DEGRADED | VIGIE_EVENT_REPLICA | VIGIE_EVENT_SENTINEL))

#if defined(__GNUC__) || defined(__clang__)
#define VIGIE_MUST_USE __attribute__((warn_unused_result))
#else
#define VIGIE_MUST_USE
#endif

/* vigie_cmd_exec(client, VIGIE_CMD("SET", "k", "v"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &err): texts only; for bytes use argvlen. From C99
 * and from C++11 on. */
#if defined(__cplusplus) && __cplusplus >= 201103L
extern "C++" {
#include <initializer_list>
template <typename... Texts> char (&vigie_count_of(const Texts &...))[sizeof...(Texts)];
}
#define VIGIE_CMD(...) sizeof(vigie_count_of(__VA_ARGS__)), std::initializer_list<const char *>{__VA_ARGS__}.begin(), NULL
#elif !defined(__cplusplus) && defined(__STDC_VERSION__) && __STDC_VERSION__ >= 199901L
#define VIGIE_CMD(...) (sizeof((const char *[]){__VA_ARGS__}) / sizeof(const char *)), (const char *[]){__VA_ARGS__}, NULL
#endif

/** The values of vigie_status. Numbers are never reused, and more may come. ERRORS.md has causes and remedies. */
typedef enum {
  /** Success. */
  VIGIE_OK = 0,
  /** The caller: an argument is NULL, out of range, or carries an unknown flag. */
  VIGIE_ERR_INVALID_ARG = -1,
  /**
   * The caller: not allowed in the present state of the handle, or an [X] handle used by two threads at the same
   * time.
   */
  VIGIE_ERR_INVALID_STATE = -2,
  /** The caller: an option is unknown, has a bad value, or contradicts another one. */
  VIGIE_ERR_CONFIG = -3,
  /** The caller: not in this build, not on this server, or refused by design. */
  VIGIE_ERR_UNSUPPORTED = -4,
  /** The caller: the handle, or the one that it was made from, was closed. */
  VIGIE_ERR_CLOSED = -5,
  /** The caller: the handle belongs to the parent process. */
  VIGIE_ERR_FORKED = -6,
  /** The caller: the call was cancelled. */
  VIGIE_ERR_CANCELLED = -7,
  /** A bug in the library: a panic was caught, and the handles of that call answer nothing else from then on. */
  VIGIE_ERR_INTERNAL = -8,
  /** The caller: the next event does not fit into the buffer; it stays in the queue. */
  VIGIE_ERR_BUFFER_TOO_SMALL = -9,
  /** The caller: a signal, or vigie_call_interrupt_every(), interrupted the wait; the call is still under way, and vigie_call_wait() goes on with it. */
  VIGIE_ERR_INTERRUPTED = -10,
  /** The wire: a host name could not be resolved in time. */
  VIGIE_ERR_RESOLVE = -100,
  /** The wire: no connection could be made. */
  VIGIE_ERR_CONNECT = -101,
  /** The wire: the connection broke, or the peer closed it. */
  VIGIE_ERR_IO = -102,
  /** The wire: the deadline passed. */
  VIGIE_ERR_TIMEOUT = -103,
  /** The wire: TLS failed. */
  VIGIE_ERR_TLS = -104,
  /** The wire: the server refused the credentials, or asks for some. */
  VIGIE_ERR_AUTH = -105,
  /** The wire: what the peer sent is not RESP, or not an answer to what was asked. */
  VIGIE_ERR_PROTOCOL = -106,
  /** The wire: a reply is larger, deeper or longer than the configured limits. */
  VIGIE_ERR_LIMIT = -107,
  /** Availability: no Sentinel answered. */
  VIGIE_ERR_NO_SENTINEL = -200,
  /** Availability: Sentinels answer, and none of them knows the service. */
  VIGIE_ERR_UNKNOWN_SERVICE = -201,
  /** Availability: the service has no usable primary. */
  VIGIE_ERR_NO_PRIMARY = -202,
  /** Availability: the service has no fit replica, and no fallback is configured. */
  VIGIE_ERR_NO_REPLICA = -203,
  /** Availability: the server reached does not have the role that was asked for. */
  VIGIE_ERR_ROLE = -204,
  /** Availability: writes are held back during a failover or without a majority of Sentinels. */
  VIGIE_ERR_FENCED = -205,
  /** Availability: a command that writes, on a client for replicas. */
  VIGIE_ERR_READ_ONLY = -206,
  /** Availability: the Sentinels name different primaries; the message lists them. */
  VIGIE_ERR_SPLIT_VIEW = -207,
  /** Flow: no dedicated connection came free in time. */
  VIGIE_ERR_POOL_TIMEOUT = -300,
  /** Flow: the queue is full. */
  VIGIE_ERR_QUEUE_FULL = -301,
  /** Flow: no dedicated connection is free, and the call does not wait. */
  VIGIE_ERR_POOL_BUSY = -302,
  /** The server answered with an error: see vigie_error_server_code(). */
  VIGIE_ERR_SERVER = -400,
  /** The server: EXEC answered null, or the connection that held the WATCH is gone. */
  VIGIE_ERR_TXN_ABORTED = -401,
  /** The server: the command needs keys of more than one shard together. */
  VIGIE_ERR_CROSS_SHARD = -402,
  /** The server: executed, but fewer replicas have it than asked: see vigie_error_count(). */
  VIGIE_ERR_REPLICAS = -403,
  /** The server: the cursor belongs to a node that is no longer read from here. */
  VIGIE_ERR_SCAN_INTERRUPTED = -404
} vigie_status_code;

/** Bits of vigie_error_flags(). More may come. */
typedef enum {
  /** The same call may succeed if it is tried again. */
  VIGIE_EF_RETRYABLE = (1 << 0),
  /** Bytes were sent and no answer came: it may have run. */
  VIGIE_EF_MAYBE_EXECUTED = (1 << 1),
  /** It happened while the topology was changing. */
  VIGIE_EF_FAILOVER = (1 << 2)
} vigie_error_flag;

/**
 * Bits of the flags of vigie_cmd_exec(), vigie_cmds_exec(), vigie_cmds_submit() and vigie_sentinel_exec(). An unknown bit gives VIGIE_ERR_INVALID_ARG. The highest
 * eight bits are a number: VIGIE_CALL_REPLICAS(n) makes them, to be combined with these.
 */
typedef enum {
  /** Lists: all commands run as one transaction (MULTI, EXEC), or none of them does. vigie_cmds_exec() says more. */
  VIGIE_CALL_ATOMIC = (1 << 0),
  /** Safe to send again after an unknown outcome: the library may do so within the timeout. */
  VIGIE_CALL_IDEMPOTENT = (1 << 1),
  /** Send once at most: any failure is reported. Waiting for a primary is not a retry. */
  VIGIE_CALL_NO_RETRY = (1 << 2),
  /** vigie_sentinel_exec(): to every Sentinel that is known; the reply is a MAP from addresses to replies. Not for clients. */
  VIGIE_CALL_ALL = (1 << 3),
  /** On a client of vigie_split_for(): this read goes to the primary. On one of vigie_replica_for(): VIGIE_ERR_INVALID_ARG. */
  VIGIE_CALL_ON_PRIMARY = (1 << 4),
  /**
   * Submit: each command of the list is a call of its own, and completes with token + its place, with its bare reply and its own
   * error. Exec: the list holds exactly one command, and its reply and error have the same form.
   */
  VIGIE_CALL_EACH = (1 << 5),
  /**
   * Expected to take long: not on a connection that other calls share. Submits keep their order, and so their connection; only
   * the time that a read has on one replica is then the whole of it.
   */
  VIGIE_CALL_SLOW = (1 << 6),
  /**
   * The reply has its meaning in its types (numbers as INT, flags as SET, pairs as MAP): vigie_sentinel_exec() says which replies
   * have such a form; of the commands to data nodes ROLE and INFO have one, by vigie_cmd_exec().
   */
  VIGIE_CALL_TYPED = (1 << 7)
} vigie_call_flag;

/** Bits of the flags of vigie_sentinel_services(). An unknown bit gives VIGIE_ERR_INVALID_ARG. */
typedef enum {
  /** Discover each service, verify its primary, and follow it from now on, as vigie_sentinel_refresh() does. */
  VIGIE_SERVICES_FOLLOW = (1 << 0)
} vigie_services_flag;

/** Bits of the flags of vigie_sentinel_metrics(). An unknown bit gives VIGIE_ERR_INVALID_ARG. */
typedef enum {
  /** OpenMetrics 1.0 in place of Prometheus 0.0.4. */
  VIGIE_METRICS_OPENMETRICS = (1 << 0)
} vigie_metrics_flag;

/** Values of vigie_reply_type() and of the field type of vigie_node. More may come. */
typedef enum {
  /** No such node. */
  VIGIE_TYPE_NONE = 0,
  /** Null. */
  VIGIE_TYPE_NULL = 1,
  /** A bulk string: any bytes. */
  VIGIE_TYPE_STRING = 2,
  /** A simple string, such as OK. */
  VIGIE_TYPE_STATUS = 3,
  /** An error inside a reply: its text is the server's line. */
  VIGIE_TYPE_ERROR = 4,
  /** An integer. */
  VIGIE_TYPE_INT = 5,
  /** A floating-point number. */
  VIGIE_TYPE_DOUBLE = 6,
  /** A boolean. */
  VIGIE_TYPE_BOOL = 7,
  /** A number beyond 64 bits, as text. */
  VIGIE_TYPE_BIGNUM = 8,
  /** Text for people, without its format mark. */
  VIGIE_TYPE_VERBATIM = 9,
  /** A list of nodes. */
  VIGIE_TYPE_ARRAY = 10,
  /** Pairs: the children alternate key, value; the count is that of the children. */
  VIGIE_TYPE_MAP = 11,
  /** A set of nodes. */
  VIGIE_TYPE_SET = 12,
  /** An out-of-band message. */
  VIGIE_TYPE_PUSH = 13
} vigie_type;

/** The field kind of vigie_event: one bit each, so that they serve as a mask. More may come. */
typedef enum {
  /** A call of vigie_cmds_submit() is over. status and error are those that vigie_cmds_exec() would have given. */
  VIGIE_EVENT_COMPLETION = (1 << 0),
  /**
   * What a subscription has received, or an answer to vigie_sub_exec(): the reply is the server's, as a PUSH. With an error: a
   * channel was refused, or the subscription cannot be made, see EVENTS.md.
   */
  VIGIE_EVENT_MESSAGE = (1 << 1),
  /** A subscription was made anew, and is confirmed: messages may be missing before it. The reply is a MAP: EVENTS.md has the keys. */
  VIGIE_EVENT_SUB_GAP = (1 << 2),
  /**
   * A service has another primary. Sent for nothing else. The reply is a MAP, as for all kinds that are watched:
   * EVENTS.md has the keys.
   */
  VIGIE_EVENT_TOPOLOGY = (1 << 3),
  /** A line of the log, if log.level admits it: time, level, target, message, and the keys of what happened. Not in VIGIE_EVENT_ALL. */
  VIGIE_EVENT_LOG = (1 << 4),
  /**
   * Events were lost here, because the queue was full; with the token of a subscription, messages of it, because its own buffer was
   * full. The reply is an INT: how many.
   */
  VIGIE_EVENT_DROPPED = (1 << 5),
  /** Writes are held back, or no longer. */
  VIGIE_EVENT_FENCE = (1 << 6),
  /**
   * All Sentinels are gone, or refuse (cause says which), or one is back. Meanwhile the known primary is used, a
   * failover is noticed late, and nothing holds writes back before it: writes that the old primary acknowledges
   * then may be lost.
   */
  VIGIE_EVENT_DEGRADED = (1 << 7),
  /** A replica is used for reads from now on, or no longer, or was mentioned. */
  VIGIE_EVENT_REPLICA = (1 << 8),
  /**
   * A Sentinel is connected from now on, or no longer, or was mentioned; or some Sentinels name another primary
   * than the others.
   */
  VIGIE_EVENT_SENTINEL = (1 << 9),
  /**
   * A service was mentioned that keeps its primary. cause is a Sentinel's event (+sdown, +odown, +reboot, ...) or
   * the library's own: role_unknown, epoch_reset, fixed.
   */
  VIGIE_EVENT_NOTICE = (1 << 10),
  /**
   * A connection to a node was opened, or closed for a reason: service, node, role, open, age_ms, cause. Not in
   * VIGIE_EVENT_ALL, because there may be many.
   */
  VIGIE_EVENT_CONNECTION = (1 << 11)
} vigie_event_kind;

/**
 * A list of encoded commands that is being built, for vigie_cmds_exec().
 *
 * Threads: [X]. Plain memory: works in a forked child.
 */
typedef struct vigie_batch vigie_batch;

/**
 * A call that can be cancelled from another thread, and whose wait a signal can interrupt; one call after another.
 *
 * Threads: [X], but for vigie_call_cancel(). After a fork the child gets VIGIE_ERR_FORKED.
 */
typedef struct vigie_call vigie_call;

/**
 * Runs commands: one service, and its primary, its replicas or both; or a session, pinned to one connection.
 *
 * Threads: [T]. After a fork the child gets VIGIE_ERR_FORKED; with the option fork = reopen it works there, unless it is a session.
 */
typedef struct vigie_client vigie_client;

/**
 * Settings as keys and values: CONFIGURATION.md lists the keys.
 *
 * Threads: [X] to change, [C] where a function takes it as const. Plain memory: works in a forked child.
 */
typedef struct vigie_config vigie_config;

/**
 * An error: a status, a sentence, and what a program may want to look at. It never changes.
 *
 * Threads: [C]. Plain memory: works in a forked child.
 */
typedef struct vigie_error vigie_error;

/**
 * A worker of a list of jobs, each of which is done at least once.
 *
 * Threads: [T]. After a fork the child gets VIGIE_ERR_FORKED.
 */
typedef struct vigie_jobs vigie_jobs;

/**
 * A queue of events that the application takes when it likes, with a descriptor that an event loop can poll.
 *
 * Threads: [T]. After a fork the child gets VIGIE_ERR_FORKED.
 */
typedef struct vigie_queue vigie_queue;

/**
 * A reply: a tree of nodes, numbered from the root VIGIE_ROOT. It never changes.
 *
 * Threads: [C]. Plain memory: works in a forked child.
 */
typedef struct vigie_reply vigie_reply;

/**
 * A scan from its beginning to its end, page by page, on one node.
 *
 * Threads: [X]. After a fork the child gets VIGIE_ERR_FORKED.
 */
typedef struct vigie_scan vigie_scan;

/**
 * The Sentinels of a deployment and what they said: clients are made from it.
 *
 * Threads: [T]. After a fork the child gets VIGIE_ERR_FORKED; with the option fork = reopen it works there.
 */
typedef struct vigie_sentinel vigie_sentinel;

/**
 * A subscription: messages of channels, patterns and shard channels, on a queue.
 *
 * Threads: [T]. After a fork the child gets VIGIE_ERR_FORKED.
 */
typedef struct vigie_sub vigie_sub;

/** 0 (VIGIE_OK) on success, a negative number of vigie_status_code otherwise. */
typedef int32_t vigie_status;

/**
 * Says which of shard_count shards a key is on: its index, from 0. part are the part_len bytes of the key that count (what stands in
 * the braces of a tag, or all of it), or the name of a channel; user is that of vigie_shards_for_hash().
 */
typedef size_t (*vigie_shard_hash)(void *user, const void *part, size_t part_len, size_t shard_count);

/** One node of a reply, for decoding in bulk from other languages. Frozen: 24 bytes, these fields, native byte order. */
typedef struct {
  /** One of vigie_type. */
  uint8_t type;
  /** 0. */
  uint8_t flags;
  /** 0. */
  uint16_t reserved;
  /** Children of an aggregate, else 0. */
  uint32_t count;
  /** INT, BOOL: the value. DOUBLE: its bits. Text: its offset in data. Aggregate: the id of its first child. */
  uint64_t value;
  /** Bytes of a text without its closing NUL, else 0. */
  uint64_t len;
} vigie_node;

/**
 * One event, as vigie_queue_drain() writes it. Frozen: 64 bytes on 64-bit systems. What it owns is freed by
 * vigie_events_clear(), or by vigie_reply_free() and vigie_error_free().
 */
typedef struct {
  /** One of vigie_event_kind. */
  uint32_t kind;
  /** VIGIE_OK, or the status of error. */
  vigie_status status;
  /** The number that was given with the call, the watch or the subscription; 0 for DROPPED of the queue itself. */
  uint64_t token;
  /** Owned by the receiver; may be NULL. */
  vigie_reply *reply;
  /** Owned by the receiver; may be NULL. */
  vigie_error *error;
  /** As vigie_reply_nodes() gives them, to save that call; NULL without a reply. */
  const vigie_node *nodes;
  /** The data that goes with them; NULL without a reply. */
  const char *data;
  /** How many nodes; 0 without a reply. */
  uint64_t node_count;
  /** Bytes of data; 0 without a reply. */
  uint64_t data_len;
} vigie_event;

/**
 * One event as vigie_queue_drain_packed() writes it: this struct, the nodes behind the root, the data, and zeros up
 * to a multiple of 8. Frozen: 64 bytes on every system, native byte order, and no pointers: it may be copied.
 */
typedef struct {
  /** Bytes of the whole record, a multiple of 8: the next record begins this far behind the beginning of this one. */
  uint64_t size;
  /** The number that was given with the call, the watch or the subscription; 0 for DROPPED of the queue itself. */
  uint64_t token;
  /** One of vigie_event_kind. */
  uint32_t kind;
  /**
   * VIGIE_OK, or the status of an error. The nodes are then a MAP with what the functions vigie_error_*() return:
   * message, server_code, endpoint, count, errno, and reply if there is one.
   */
  vigie_status status;
  /** The VIGIE_EF_* bits, as vigie_error_flags() gives them; 0 with VIGIE_OK. */
  uint32_t error_flags;
  /** How many nodes, the root included: at least 1. */
  uint32_t node_count;
  /** Bytes of data. It begins behind the last node: at (const char *)(&root + node_count). */
  uint64_t data_len;
  /** The first node, whose type is VIGIE_TYPE_NONE if the event carries nothing. The others follow it. */
  vigie_node root;
} vigie_packed_event;

#ifdef __cplusplus
extern "C" {
#endif /* __cplusplus */

/* ---- the library ------------------------------------------------------------------------------------------------- */

/**
 * The version of the library that runs, such as "0.1.0"; the header's is in VIGIE_VERSION_MAJOR and the like.
 *
 * Ownership: a static text, never NULL, not to be freed.
 * Blocks: no.
 * Threads: [T].
 * Errors: none.
 * Since: 0.1.0.
 */
const char *vigie_version(void);

/**
 * The version of the library that runs as a number, to compare with VIGIE_VERSION_NUMBER of the header.
 *
 * Ownership: nothing to free.
 * Blocks: no.
 * Threads: [T].
 * Errors: none.
 * Since: 0.1.0.
 */
uint32_t vigie_version_number(void);

/**
 * Whether this build of the library has a feature: 1 or 0. This version knows "resp3", "unix" (Unix sockets
 * for data nodes) and "tls" (not in a build with TLS=0).
 *
 * Ownership: the name is only read; nothing to free.
 * Blocks: no.
 * Threads: [T].
 * Errors: none; NULL and unknown names give 0.
 * Since: 0.1.0.
 */
int vigie_has_feature(const char *name);

/**
 * The name of a status code as in this header, such as "VIGIE_ERR_TIMEOUT"; "VIGIE_OK" for 0.
 *
 * Ownership: a static text, never NULL, not to be freed.
 * Blocks: no.
 * Threads: [T].
 * Errors: none; a number that is not a code gives "unknown status code".
 * Since: 0.1.0.
 */
const char *vigie_status_name(vigie_status code);

/**
 * Every status code of the library, VIGIE_OK first: for bindings that make their error classes from it.
 *
 * Lengths: returns how many there are; *codes points to the first one. codes may be NULL.
 * Ownership: *codes is a static array, not to be freed.
 * Blocks: no.
 * Threads: [T].
 * Errors: none.
 * Since: 0.1.0.
 */
size_t vigie_status_list(const vigie_status **codes);

/**
 * Waits until no thread of the library is left. Idle threads end at once meanwhile, so that it returns within moments
 * once the last handle is freed; a host name that the system's resolver does not answer can keep one of them longer, and
 * so can a file that log.fd stood for and that hangs.
 * For a clean end under a leak checker, and before a plugin's host unloads it.
 *
 * Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT and VIGIE_TIMEOUT_NONE: no limit. Any other value <=
 * 0: only looks.
 * Ownership: nothing to free.
 * Blocks: up to timeout_ms.
 * Threads: [T].
 * Errors: VIGIE_ERR_TIMEOUT: threads are left; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
vigie_status vigie_threads_join(int64_t timeout_ms);

/* ---- errors ------------------------------------------------------------------------------------------------------ */

/**
 * The status of an error; VIGIE_OK for NULL.
 *
 * Ownership: nothing to free.
 * Blocks: no.
 * Threads: [C].
 * Errors: none; anything that is not an error gives VIGIE_OK.
 * Since: 0.1.0.
 */
vigie_status vigie_error_status(const vigie_error *error);

/**
 * The message: what was tried, where, what happened and after how long. For VIGIE_ERR_SERVER it is the server's line,
 * unaltered; where a server refuses a new connection its line follows what was tried. On a client of vigie_shards_for() the name of
 * the shard stands behind the line, as in " (node_2)", and behind that what became of the others. Never NULL.
 *
 * Ownership: belongs to the error, valid until vigie_error_free(); "" (static) for NULL.
 * Blocks: no.
 * Threads: [C].
 * Errors: none.
 * Since: 0.1.0.
 */
const char *vigie_error_message(const vigie_error *error);

/**
 * The first word of the server's error, such as "WRONGTYPE"; "" when the error is not a server's. Never NULL.
 *
 * Ownership: belongs to the error, valid until vigie_error_free(); "" (static) for NULL.
 * Blocks: no.
 * Threads: [C].
 * Errors: none.
 * Since: 0.1.0.
 */
const char *vigie_error_server_code(const vigie_error *error);

/**
 * The server that it happened with, such as "10.0.0.3:6379"; "" when there is none. Never NULL.
 *
 * Ownership: belongs to the error, valid until vigie_error_free(); "" (static) for NULL.
 * Blocks: no.
 * Threads: [C].
 * Errors: none.
 * Since: 0.1.0.
 */
const char *vigie_error_endpoint(const vigie_error *error);

/**
 * The VIGIE_EF_* bits of the error: whether to try again, and whether it may have run. Unknown bits must be ignored.
 *
 * Ownership: nothing to free.
 * Blocks: no.
 * Threads: [C].
 * Errors: none; 0 for NULL.
 * Since: 0.1.0.
 */
uint32_t vigie_error_flags(const vigie_error *error);

/**
 * For VIGIE_ERR_REPLICAS how many replicas have the write; -1 for every other error.
 *
 * Ownership: nothing to free.
 * Blocks: no.
 * Threads: [C].
 * Errors: none; -1 for NULL.
 * Since: 0.1.0.
 */
int64_t vigie_error_count(const vigie_error *error);

/**
 * The system's error number (errno), such as ECONNREFUSED; 0 when the error is not from the system.
 *
 * Ownership: nothing to free.
 * Blocks: no.
 * Threads: [C].
 * Errors: none; 0 for NULL.
 * Since: 0.1.0.
 */
int vigie_error_errno(const vigie_error *error);

/**
 * The server's answer to a call that failed despite it: for VIGIE_ERR_IO the answer that came while another primary
 * was taking over, for VIGIE_ERR_REPLICAS that of the write, for VIGIE_ERR_TXN_ABORTED the replies to the list with
 * the EXEC; for a list whose end failed, the known replies, from the first command on. So what an LPOP has taken, for
 * example, is not lost with the error. NULL if there is no such answer, as with most errors.
 *
 * Ownership: belongs to the error, valid until vigie_error_free(); not for vigie_reply_free().
 * Blocks: no.
 * Threads: [C].
 * Errors: none; NULL for NULL.
 * Since: 0.1.0.
 */
const vigie_reply *vigie_error_reply(const vigie_error *error);

/**
 * Frees an error.
 *
 * Ownership: the error, its texts and its reply are gone; NULL is a no-op. Freeing twice is not safe.
 * Blocks: no.
 * Threads: any thread, when no other uses the error.
 * Errors: none.
 * Since: 0.1.0.
 */
void vigie_error_free(vigie_error *error);

/* ---- configuration: the keys are in CONFIGURATION.md, and "uri" is one of them ----------------------------------- */

/**
 * An empty set of settings. Nothing is read from the environment or from files.
 *
 * Ownership: the caller's, for vigie_config_free().
 * Blocks: no.
 * Threads: [T].
 * Errors: none: it cannot fail.
 * Since: 0.1.0.
 */
vigie_config *vigie_config_new(void);

/**
 * Sets one option. Keys and values are texts, as in CONFIGURATION.md; the key "uri" takes
 * redis-sentinel://user:password@host:port,host:port/service?key=value. A key that was set before is replaced.
 *
 * Ownership: key and value are copied; passwords are wiped when the config is freed.
 * Blocks: no.
 * Threads: [X].
 * Errors: VIGIE_ERR_CONFIG: unknown key (with the nearest known one) or bad value; VIGIE_ERR_INVALID_ARG: NULL, or
 * not UTF-8; VIGIE_ERR_INVALID_STATE: another thread uses the config; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_config_set(vigie_config *config,
                              const char *key,
                              const char *value,
                              vigie_error **err);

/**
 * Every option, for tools and for bindings that check their own documentation: an ARRAY with one MAP for each option,
 * with the texts key, value (as set here; a secret is "***"), default, type, range, text and since, and the booleans
 * dynamic (vigie_sentinel_configure() can change it) and override (a client may have its own).
 *
 * Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
 * Blocks: no.
 * Threads: [C].
 * Errors: VIGIE_ERR_INVALID_ARG: config is NULL; VIGIE_ERR_INVALID_STATE: another thread changes it;
 * VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE vigie_status vigie_config_describe(const vigie_config *config, vigie_reply **out, vigie_error **err);

/**
 * Frees a config. Handles that were made from it are not affected.
 *
 * Ownership: the config is gone, its passwords wiped; NULL is a no-op. Freeing twice is not safe.
 * Blocks: no.
 * Threads: any thread, when no other uses the config.
 * Errors: none.
 * Since: 0.1.0.
 */
void vigie_config_free(vigie_config *config);

/* ---- sentinels --------------------------------------------------------------------------------------------------- */

/**
 * Checks the settings as a whole and starts with them. Clients are made from the handle: vigie_primary_for() and the
 * like. With a primary in place of Sentinels (the option primary.addr, or a URI redis://host:port/db) it is the same handle:
 * every service name leads to that primary, and nobody else is asked. What is said of Sentinels below holds for the primary then:
 * it must be there, and have confirmed its role.
 *
 * Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT, and any value <= 0: do not wait; the first command
 * asks the Sentinels. Above 0, and VIGIE_TIMEOUT_NONE: a Sentinel must answer in that time. One that refuses the
 * connection, or that is no Sentinel, is tried again until the time is over, because it may be starting; with
 * VIGIE_TIMEOUT_NONE there is no limit. The function returns at once if all Sentinels that can be reached refuse the
 * credentials, or if there is no TLS with any of them. A signal does not end the wait.
 * Ownership: *out is the caller's, for vigie_sentinel_free(). The config is copied, and may be changed or freed
 * afterwards.
 * Blocks: up to timeout_ms.
 * Threads: [T]; the config is [C] meanwhile.
 * Errors: VIGIE_ERR_CONFIG: settings that are missing or contradict each other; VIGIE_ERR_NO_SENTINEL: none answered
 * in time; VIGIE_ERR_NO_PRIMARY, VIGIE_ERR_ROLE: the given primary did not, or is none; VIGIE_ERR_TLS: no TLS with any,
 * for example because a certificate is refused; VIGIE_ERR_AUTH: they refuse the credentials (a command that the user may not run is
 * reported by the first call that needs it); VIGIE_ERR_INVALID_ARG: config or out is NULL; VIGIE_ERR_INVALID_STATE: another thread changes
 * the config; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_sentinel_create(const vigie_config *config,
                                   int64_t timeout_ms,
                                   vigie_sentinel **out,
                                   vigie_error **err);

/**
 * What is known now, without asking the Sentinels: a MAP for the service with its primary, replicas, Sentinels and
 * epoch. service NULL: all services that were asked for. TOPOLOGY.md lists the keys. A service that was never asked
 * for gives VIGIE_OK and a map without a primary; vigie_sentinel_refresh() asks the Sentinels whether it exists. The
 * library asks about a name that no Sentinel knows after growing pauses, and forgets it 60 s after its last use. A watch
 * of the handle (vigie_sentinel_watch()) holds all services that were asked for.
 *
 * Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL. service is copied.
 * Blocks: no.
 * Threads: [T].
 * Errors: VIGIE_ERR_INVALID_ARG: sentinel is NULL, or service is empty; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED;
 * VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_sentinel_topology(vigie_sentinel *sentinel,
                                     const char *service,
                                     vigie_reply **out,
                                     vigie_error **err);

/**
 * Asks the Sentinels now, verifies what they say, and answers as vigie_sentinel_topology(). service NULL: all services that
 * were asked for, and the one of the configuration; it fails only if none of them was found, and the key error of each
 * service says what is wrong with that one. From then on the service is followed.
 *
 * Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT: the option timeout.call. VIGIE_TIMEOUT_NONE: no
 * limit. Any other value <= 0: VIGIE_ERR_TIMEOUT at once.
 * Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL. service is copied.
 * Blocks: up to timeout_ms.
 * Threads: [T].
 * Errors: VIGIE_ERR_NO_SENTINEL, VIGIE_ERR_UNKNOWN_SERVICE, VIGIE_ERR_NO_PRIMARY, VIGIE_ERR_SPLIT_VIEW: the message
 * has the answer of each Sentinel; VIGIE_ERR_AUTH; VIGIE_ERR_TIMEOUT; VIGIE_ERR_INVALID_ARG; VIGIE_ERR_CLOSED;
 * VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_sentinel_refresh(vigie_sentinel *sentinel,
                                    const char *service,
                                    int64_t timeout_ms,
                                    vigie_reply **out,
                                    vigie_error **err);

/**
 * Runs a command at a Sentinel: any sub-command of SENTINEL, given without that word ("MASTERS", "FAILOVER", ...), or PING,
 * ROLE, INFO, ACL, CLIENT, COMMAND, PUBLISH or SHUTDOWN. It goes to the first Sentinel that answers; with VIGIE_CALL_ALL to
 * every one that is known, one after the other. It goes to the next one only if it just reads, or if it was not sent completely:
 * a FAILOVER whose reply was lost is VIGIE_ERR_IO with VIGIE_EF_MAYBE_EXECUTED. What acts goes to the Sentinels in the same
 * order each time, so that a second FAILOVER meets the first one (-INPROG) instead of a Sentinel that promotes another replica.
 * What changes one Sentinel and not the deployment (MONITOR, REMOVE, SET, RESET, CONFIG SET, FLUSHCONFIG, DEBUG,
 * SIMULATE-FAILURE, SHUTDOWN, ACL SETUSER and the like) wants VIGIE_CALL_ALL, or an address by vigie_sentinel_exec_at(). Changed
 * settings of a service do not count for the clients of this handle before they ask the Sentinels the next time.
 *
 * With VIGIE_CALL_ALL the reply is a MAP with one entry for each Sentinel: from its address to its reply, or to an ERROR node, whose
 * text is the server's line, or VIGIE_ERR_... and a sentence if it gave none. If none of them accepts the command, that is an error, and
 * vigie_error_reply() has the MAP. One that is known by two names gets the command
 * once. Known are those that are given, and those that were learned from them; if nothing was discovered yet, one is asked for the others first.
 * RESET waits at each Sentinel until that one lists its usable replicas again, because without them it could not fail over; the
 * others are not reset if that takes longer than timeout_ms. Sentinels ask their primaries every 10 s: give it that long for each.
 *
 * With VIGIE_CALL_TYPED numbers are INT, flags a SET of words, and pairs a MAP; fields that the library does not know stay texts, and
 * a reply of another form than expected stays as it came. MASTERS, REPLICAS (SLAVES), SENTINELS, PENDING-SCRIPTS: ARRAY of MAP.
 * MASTER, CONFIG GET, INFO: MAP. GET-MASTER-ADDR-BY-NAME: ARRAY of host and port (INT), or NULL for an unknown name. CKQUORUM: MAP of
 * usable and text. INFO-CACHE: MAP from services to ARRAY of MAP of age_ms and info (MAP or NULL). IS-MASTER-DOWN-BY-ADDR: MAP of
 * down, leader and leader-epoch. ROLE: MAP of role and services; at data nodes (vigie_cmd_exec()) of role, offset and replicas
 * (ARRAY of MAP of host, port, offset), or of role, host, port, state and offset.
 *
 * Lengths: argc counts argv; argvlen has the bytes of each argument, or is NULL when each ends with a NUL. flags:
 * VIGIE_CALL_ALL, VIGIE_CALL_TYPED, or 0. timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT: the option timeout.call.
 * VIGIE_TIMEOUT_NONE: no limit. Any other value <= 0: VIGIE_ERR_TIMEOUT at once. A Sentinel that hangs is left after the option
 * timeout.sentinel if there is another one.
 * Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL. Arguments are only read.
 * Blocks: up to timeout_ms.
 * Threads: [T].
 * Errors: VIGIE_ERR_SERVER: an error reply; VIGIE_ERR_NO_SENTINEL: none answered, and the message has what happened at each;
 * VIGIE_ERR_AUTH: they refuse the credentials; VIGIE_ERR_IO, VIGIE_ERR_TIMEOUT; VIGIE_ERR_INVALID_ARG: NULL, other flags, SENTINEL
 * as the first argument, a command that wants an address or VIGIE_CALL_ALL, or FAILOVER with VIGIE_CALL_ALL;
 * VIGIE_ERR_UNSUPPORTED: a subscription, AUTH, HELLO, QUIT; or a primary without Sentinels (primary.addr); VIGIE_ERR_LIMIT;
 * VIGIE_ERR_PROTOCOL; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_sentinel_exec(vigie_sentinel *sentinel,
                                 size_t argc,
                                 const char *const *argv,
                                 const size_t *argvlen,
                                 uint32_t flags,
                                 int64_t timeout_ms,
                                 vigie_reply **out,
                                 vigie_error **err);

/**
 * As vigie_sentinel_exec(), at one Sentinel: the one at this address, known or not. No other one is asked.
 *
 * Lengths: address is host, host:port or [ipv6]:port (26379 if there is none), as the Sentinels are announced: the option
 * address.map counts. argc, argv, argvlen and timeout_ms are as for vigie_sentinel_exec(); flags: VIGIE_CALL_TYPED, or 0.
 * Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL. address and arguments are only read.
 * Blocks: up to timeout_ms.
 * Threads: [T].
 * Errors: as vigie_sentinel_exec(), with VIGIE_ERR_CONNECT and VIGIE_ERR_RESOLVE in place of VIGIE_ERR_NO_SENTINEL;
 * VIGIE_ERR_INVALID_ARG: address is NULL or no address, or flags has VIGIE_CALL_ALL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_sentinel_exec_at(vigie_sentinel *sentinel,
                                    const char *address,
                                    size_t argc,
                                    const char *const *argv,
                                    const size_t *argvlen,
                                    uint32_t flags,
                                    int64_t timeout_ms,
                                    vigie_reply **out,
                                    vigie_error **err);

/**
 * As vigie_sentinel_exec(), without waiting: the outcome arrives on a queue, as one VIGIE_EVENT_COMPLETION with this token. A thread of the
 * library carries the command. For one handle two are under way at a time, and for each address of vigie_sentinel_submit_at() two more; the
 * others wait for them, within their timeouts. They do not keep the order of their submission: submit what relies on another one when
 * that one has completed. vigie_queue_cancel() ends it at once, and vigie_sentinel_close() when its time is over; what may have run then
 * has VIGIE_EF_MAYBE_EXECUTED. vigie_sentinel_free() does not end it.
 *
 * Lengths: argc, argv, argvlen, flags and timeout_ms are those of vigie_sentinel_exec().
 * Ownership: the arguments are copied. The queue may be freed while the command is under way: it goes on, and its completion is dropped.
 * Blocks: no.
 * Threads: [T].
 * Errors: VIGIE_ERR_QUEUE_FULL: the queue has no room for the completion, or holds as many bytes as the option submit.max_bytes allows:
 * drain it, then submit again; VIGIE_ERR_TIMEOUT: timeout_ms <= 0, and neither VIGIE_TIMEOUT_DEFAULT nor VIGIE_TIMEOUT_NONE;
 * VIGIE_ERR_INVALID_ARG: sentinel or queue is NULL, or as vigie_sentinel_exec(); VIGIE_ERR_UNSUPPORTED; VIGIE_ERR_CLOSED;
 * VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. What is refused here has no completion; what the Sentinels say is in the completion.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_sentinel_submit(vigie_sentinel *sentinel,
                                   size_t argc,
                                   const char *const *argv,
                                   const size_t *argvlen,
                                   uint32_t flags,
                                   int64_t timeout_ms,
                                   vigie_queue *queue,
                                   uint64_t token,
                                   vigie_error **err);

/**
 * As vigie_sentinel_submit(), at one Sentinel: the one at this address, as for vigie_sentinel_exec_at().
 *
 * Lengths: address is that of vigie_sentinel_exec_at(), and so are flags and the others.
 * Ownership: address and arguments are copied.
 * Blocks: no.
 * Threads: [T].
 * Errors: as vigie_sentinel_submit(); VIGIE_ERR_INVALID_ARG: address is NULL or no address, or flags has VIGIE_CALL_ALL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_sentinel_submit_at(vigie_sentinel *sentinel,
                                      const char *address,
                                      size_t argc,
                                      const char *const *argv,
                                      const size_t *argvlen,
                                      uint32_t flags,
                                      int64_t timeout_ms,
                                      vigie_queue *queue,
                                      uint64_t token,
                                      vigie_error **err);

/**
 * All services that the Sentinels of the deployment watch: a MAP from the name of each to a MAP with its primary; TOPOLOGY.md
 * lists the keys ("deployment"). All Sentinels that are known are asked, because one may not have heard of a service yet. Without
 * flags the addresses are what the Sentinels say, and nothing is verified or followed.
 *
 * Lengths: flags: VIGIE_SERVICES_FOLLOW, or 0. With it all services are discovered at the same time: the key verified says whether
 * the primary has confirmed its role, and error why a service could not be discovered. timeout_ms is as for
 * vigie_sentinel_refresh().
 * Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
 * Blocks: up to timeout_ms.
 * Threads: [T].
 * Errors: VIGIE_ERR_NO_SENTINEL: none answered; VIGIE_ERR_AUTH; VIGIE_ERR_UNSUPPORTED: a primary without Sentinels (primary.addr);
 * VIGIE_ERR_INVALID_ARG: NULL, or other flags; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. A service that could not be
 * discovered is no error of the call.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_sentinel_services(vigie_sentinel *sentinel,
                                     uint32_t flags,
                                     int64_t timeout_ms,
                                     vigie_reply **out,
                                     vigie_error **err);

/**
 * As vigie_sentinel_services(), without waiting: the outcome arrives on a queue, as for vigie_sentinel_submit().
 *
 * Lengths: flags and timeout_ms are those of vigie_sentinel_services().
 * Ownership: nothing changes hands. The queue may be freed meanwhile: the completion is dropped.
 * Blocks: no.
 * Threads: [T].
 * Errors: VIGIE_ERR_QUEUE_FULL, VIGIE_ERR_TIMEOUT: as vigie_sentinel_submit(); VIGIE_ERR_UNSUPPORTED: a primary without Sentinels
 * (primary.addr); VIGIE_ERR_INVALID_ARG: NULL, or other flags; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. What is refused
 * here has no completion.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_sentinel_services_submit(vigie_sentinel *sentinel,
                                            uint32_t flags,
                                            int64_t timeout_ms,
                                            vigie_queue *queue,
                                            uint64_t token,
                                            vigie_error **err);

/**
 * What the handle and its clients have done: a MAP with the Sentinels and the services, each with its failovers, how long they and the
 * fence lasted, and its clients, those that were freed included. STATISTICS.md lists the keys ("handle").
 *
 * Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
 * Blocks: no.
 * Threads: [T].
 * Errors: VIGIE_ERR_INVALID_ARG: sentinel is NULL; VIGIE_ERR_LIMIT: no memory for the reply; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED;
 * VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_sentinel_stats(vigie_sentinel *sentinel,
                                  vigie_reply **out,
                                  vigie_error **err);

/**
 * The same figures as text for Prometheus: a reply with one STRING, to be served as it is. Without flags it is the format 0.0.4
 * (Content-Type: text/plain; version=0.0.4); with VIGIE_METRICS_OPENMETRICS it is OpenMetrics, which ends with # EOF (Content-Type:
 * application/openmetrics-text; version=1.0.0; charset=utf-8). The names begin with vigie_; STATISTICS.md lists them. A program with
 * several handles gives one of them at an address, or adds a label of its own.
 *
 * Lengths: flags: VIGIE_METRICS_OPENMETRICS, or 0.
 * Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
 * Blocks: no.
 * Threads: [T].
 * Errors: VIGIE_ERR_INVALID_ARG: sentinel is NULL, or other flags; VIGIE_ERR_LIMIT: no memory for the text; VIGIE_ERR_CLOSED;
 * VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_sentinel_metrics(vigie_sentinel *sentinel,
                                    uint32_t flags,
                                    vigie_reply **out,
                                    vigie_error **err);

/**
 * Watches the services of this handle from now on: events arrive on the queue with this token. What holds already is not told:
 * vigie_sentinel_topology() has it. While the watch lasts, a service is followed as soon as a client is made for it or
 * vigie_sentinel_refresh() names it, without a call, and until the watch ends, even if nobody uses it any more. The first
 * primary of a service that was unknown is a NOTICE (+monitor), because nothing was switched. Every event's reply is a MAP.
 * EVENTS.md lists the kinds, the keys of their maps, and the values of the key cause, which gives the reason in a form that a
 * program can act on: VIGIE_EVENT_TOPOLOGY: service, from, to, gap_ms; VIGIE_EVENT_NOTICE: service, primary; VIGIE_EVENT_FENCE:
 * service, on, held_ms; VIGIE_EVENT_DEGRADED: on; VIGIE_EVENT_REPLICA: service, replica, fit (NULL: it was only mentioned);
 * VIGIE_EVENT_SENTINEL: sentinel, up (NULL: it was only mentioned); VIGIE_EVENT_CONNECTION: service, node, open.
 * VIGIE_EVENT_LOG, which VIGIE_EVENT_ALL does not contain, gives the lines that the option log.level admits.
 *
 * Lengths: event_kinds are VIGIE_EVENT_* bits, or VIGIE_EVENT_ALL (all of these but VIGIE_EVENT_CONNECTION); 0 ends the watch.
 * There is one watch per handle and queue: a new one replaces the one before.
 * Ownership: nothing changes hands; the watch ends when the queue is freed.
 * Blocks: no.
 * Threads: [T].
 * Errors: VIGIE_ERR_INVALID_ARG: NULL, or kinds that cannot be watched; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED;
 * VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_sentinel_watch(vigie_sentinel *sentinel,
                                  uint32_t event_kinds,
                                  vigie_queue *queue,
                                  uint64_t token,
                                  vigie_error **err);

/**
 * Changes an option that CONFIGURATION.md marks as dynamic: credentials, db, address map, for connections
 * made from now on; and the log, at once. Credentials that belong together, a user and its password, are changed by
 * vigie_sentinel_configure_all(), which says what becomes of open connections.
 *
 * Ownership: key and value are copied.
 * Blocks: no.
 * Threads: [T].
 * Errors: VIGIE_ERR_CONFIG: unknown or not dynamic, or a bad value; VIGIE_ERR_INVALID_ARG: NULL, or not UTF-8;
 * VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_sentinel_configure(vigie_sentinel *sentinel,
                                      const char *key,
                                      const char *value,
                                      vigie_error **err);

/**
 * Changes all options that are set in config at the same moment, as vigie_sentinel_configure() changes one: for a password that is renewed, or
 * another user. Options that cannot be changed may be set there if they are as they were, so that the config of
 * vigie_sentinel_create() can be used again. New connections use what is set from now on, to Sentinels and data nodes. Existing ones are
 * replaced, idle ones at once and busy ones when they are done, if the database or the credentials of the data nodes were changed; a session
 * authenticates anew before its next command, after a transaction that is under way, unless the program has authenticated it by itself;
 * a subscription authenticates anew at once, with RESP2 on a new connection (VIGIE_EVENT_SUB_GAP).
 *
 * Ownership: config is copied.
 * Blocks: no.
 * Threads: [T].
 * Errors: VIGIE_ERR_CONFIG: an option that is not dynamic differs, or the options do not fit together: then nothing is changed;
 * VIGIE_ERR_INVALID_ARG: NULL; VIGIE_ERR_INVALID_STATE: another thread is changing the config; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED;
 * VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_sentinel_configure_all(vigie_sentinel *sentinel,
                                          const vigie_config *config,
                                          vigie_error **err);

/**
 * Closes the Sentinels and every client made from the handle, as vigie_client_close() does; commands of vigie_sentinel_submit() end in
 * the same way. A second close is a no-op.
 *
 * Lengths: timeout_ms is in milliseconds, for the calls that are running, all clients together.
 * VIGIE_TIMEOUT_DEFAULT: the option timeout.call. VIGIE_TIMEOUT_NONE: no limit. Any other value <= 0: they end at
 * once.
 * Ownership: nothing is freed: handles are still to be freed, in any order.
 * Blocks: up to timeout_ms, and for each client up to 100 ms more until the blocking commands that it ended have returned.
 * Threads: [T].
 * Errors: VIGIE_ERR_TIMEOUT: other calls were running at the end and were ended (it is closed all the same);
 * VIGIE_ERR_INVALID_ARG: NULL; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
vigie_status vigie_sentinel_close(vigie_sentinel *sentinel,
                                  int64_t timeout_ms,
                                  vigie_error **err);

/**
 * Frees a sentinel. Clients made from it keep what they need and go on, and so do commands of vigie_sentinel_submit().
 *
 * Ownership: the handle is gone; NULL is a no-op. Freeing twice is not safe. In a forked child what is the parent's is left
 * alone.
 * Blocks: no.
 * Threads: any thread, when no other uses this handle.
 * Errors: none.
 * Since: 0.1.0.
 */
void vigie_sentinel_free(vigie_sentinel *sentinel);

/* ---- clients ----------------------------------------------------------------------------------------------------- */

/**
 * A client that runs every command on the primary of a service, and follows it over failovers. Lazy: nothing is
 * connected before the first command, unless the option pool.eager says so.
 *
 * Ownership: *out is the caller's, for vigie_client_free(). service (NULL: the option service) and overrides are
 * copied. overrides may be NULL; it holds only options that CONFIGURATION.md marks for overrides (pool, lane, retry,
 * replica, timeouts, db).
 * Blocks: no; with the option pool.eager up to its timeout.call, because it runs a PING.
 * Threads: [T]; overrides is [C] meanwhile.
 * Errors: VIGIE_ERR_CONFIG: overrides; or no service is named anywhere; VIGIE_ERR_INVALID_ARG: sentinel or out is
 * NULL, or service is empty; VIGIE_ERR_INVALID_STATE: another thread changes overrides; VIGIE_ERR_CLOSED;
 * VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. With pool.eager also those of vigie_cmd_exec().
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_primary_for(vigie_sentinel *sentinel,
                               const char *service,
                               const vigie_config *overrides,
                               vigie_client **out,
                               vigie_error **err);

/**
 * A client that reads from the fit replicas of a service; the option replica.fallback (primary or error) says what
 * happens when there is none. A command that writes is refused, even then. A scan (SCAN and its kin) stays on the
 * node on which it began, because this handle remembers which node gave each of its last 4096 cursors. One whose node
 * is not read from any more, or was restarted, gives VIGIE_ERR_SCAN_INTERRUPTED. Use a cursor only with the handle that
 * returned it: one that the handle does not know (another handle's, or one that it has forgotten) goes to the node on
 * which its last scan began, which takes it for its own, so that keys are missed without an error. It gives
 * VIGIE_ERR_SCAN_INTERRUPTED only if the handle has begun no scan, or that node is gone. On clients of vigie_primary_for()
 * and vigie_split_for() unknown cursors go to the primary. Lazy as vigie_primary_for().
 *
 * Ownership: *out is the caller's, for vigie_client_free(). service (NULL: the option service) and overrides (may be
 * NULL) are copied.
 * Blocks: no; with the option pool.eager up to its timeout.call, because it runs a PING.
 * Threads: [T]; overrides is [C] meanwhile.
 * Errors: as vigie_primary_for().
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_replica_for(vigie_sentinel *sentinel,
                               const char *service,
                               const vigie_config *overrides,
                               vigie_client **out,
                               vigie_error **err);

/**
 * A client that sends commands that only read to the replicas of a service, and everything else to the primary.
 * VIGIE_CALL_ON_PRIMARY sends one read to the primary too. To the primary go also EVALSHA_RO, because a script that was
 * loaded there is not replicated (a function is: FCALL_RO goes to the replicas, as EVAL_RO does), and SCAN and its kin,
 * whose cursors belong to one node. Lazy as vigie_primary_for().
 *
 * Ownership: *out is the caller's, for vigie_client_free(). service (NULL: the option service) and overrides (may be
 * NULL) are copied.
 * Blocks: no; with the option pool.eager up to its timeout.call, because it runs a PING.
 * Threads: [T]; overrides is [C] meanwhile.
 * Errors: as vigie_primary_for().
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_split_for(vigie_sentinel *sentinel,
                             const char *service,
                             const vigie_config *overrides,
                             vigie_client **out,
                             vigie_error **err);

/**
 * A session: a client pinned to one connection of its own, taken at the first command; commands run in call order. For WATCH,
 * SELECT, CLIENT, MULTI by hand. On a client of vigie_primary_for() or vigie_split_for() it is on the primary, on one of
 * vigie_replica_for() on a replica, where a write gives VIGIE_ERR_READ_ONLY. It never moves to another node: once its connection
 * is lost, EXEC, alone or in a list, gives VIGIE_ERR_TXN_ABORTED and any other command VIGIE_ERR_IO, each without
 * VIGIE_EF_RETRYABLE, because nothing can succeed on it any more: make a new session, and begin the transaction again.
 * VIGIE_ERR_TXN_ABORTED with VIGIE_EF_RETRYABLE means that a watched key was changed: begin the transaction again on this
 * session. Its writes wait for replicas and disks as those of its client do (write.replicas, write.aof), a transaction behind EXEC;
 * VIGIE_ERR_REPLICAS leaves the session as it is. vigie_client_free() returns the connection to the pool, or closes it if its state was changed (MULTI, WATCH, another
 * db, an error).
 *
 * Lengths: key_len is the bytes of key. On a client of vigie_shards_for() the session is on the shard of this key, and
 * takes commands for that shard; with one service it is only checked, and may be NULL.
 * Ownership: *out is the caller's, for vigie_client_free(). key and overrides (may be NULL) are copied.
 * Blocks: no.
 * Threads: [T]; overrides is [C] meanwhile.
 * Errors: as vigie_primary_for(); VIGIE_ERR_INVALID_STATE: client is a session itself; VIGIE_ERR_INVALID_ARG: client or
 * out is NULL, or key is NULL with a length. Of a call in a session of vigie_shards_for() also VIGIE_ERR_CROSS_SHARD: a key or a
 * channel is on another shard; nothing was sent. Its tags are stripped as elsewhere; a command that this version does not know,
 * and one without keys, goes to the session's shard as it is.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_session_for(vigie_client *client,
                               const void *key,
                               size_t key_len,
                               const vigie_config *overrides,
                               vigie_client **out,
                               vigie_error **err);

/**
 * Runs one command and waits for its reply. An error reply of the server is VIGIE_ERR_SERVER. A blocking command
 * (BLPOP and the like) is recognised and gets a connection of its own; VIGIE_TIMEOUT_DEFAULT is then its own timeout
 * and the option timeout.call (5 s) as a grace, and no limit if its own timeout is 0. A failover ends it: one that
 * may take something (BLPOP) gives VIGIE_ERR_IO with VIGIE_EF_MAYBE_EXECUTED, because the element may have been taken
 * and the reply lost; one that only reads (XREAD BLOCK), or one with VIGIE_CALL_IDEMPOTENT, is sent again to the new
 * primary unchanged, so its own timeout starts again, and an XREAD from $ does not see entries that were added in
 * between. A command of a module blocks if the server's own list (COMMAND) says so, and has a connection of its own until
 * the server has said that it does not. EXEC answered null is VIGIE_ERR_TXN_ABORTED. While there is no primary, or no Sentinel tells of one, the
 * call waits for the next one, within its timeout; so does a write while the Sentinels prepare another primary. A
 * write that the old primary answers after the new one has taken over gives VIGIE_ERR_IO, and may have run; its
 * answer is in vigie_error_reply().
 *
 * Lengths: argc counts argv, the command's name included; argvlen has the bytes of each argument, or is NULL when
 * each ends with a NUL. An argument that is NULL with length 0 is empty. VIGIE_CMD() makes the three from texts.
 * timeout_ms is in milliseconds, and the whole budget, waiting and retries included. VIGIE_TIMEOUT_DEFAULT: the
 * option timeout.call. VIGIE_TIMEOUT_NONE: no limit. Any other value <= 0: VIGIE_ERR_TIMEOUT, and nothing is sent.
 * flags: VIGIE_CALL_* bits, or 0. VIGIE_CALL_REPLICAS(n) among them: a write is done when n replicas have it (in
 * place of the option write.replicas), n from 0 to 255; n counts for calls that write and do not block; in a
 * transaction that a session has begun by hand it belongs to EXEC, and gives VIGIE_ERR_INVALID_ARG with a write before it. A WAIT or
 * WAITAOF asks about the writes of its own connection: outside a session it is answered on another one than the write, and says
 * nothing about it. Use VIGIE_CALL_REPLICAS(n), or a session for both.
 * Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL: the reply is discarded. Arguments are
 * only read.
 * Blocks: up to timeout_ms.
 * Threads: [T]. A thread must not be left by longjmp during the call; pthread cancellation waits for its end.
 * Errors: VIGIE_ERR_SERVER, VIGIE_ERR_TIMEOUT, VIGIE_ERR_IO, VIGIE_ERR_CONNECT, VIGIE_ERR_RESOLVE, VIGIE_ERR_AUTH,
 * VIGIE_ERR_PROTOCOL, VIGIE_ERR_LIMIT, VIGIE_ERR_NO_SENTINEL, VIGIE_ERR_UNKNOWN_SERVICE, VIGIE_ERR_NO_PRIMARY,
 * VIGIE_ERR_NO_REPLICA, VIGIE_ERR_ROLE, VIGIE_ERR_SPLIT_VIEW; VIGIE_ERR_READ_ONLY: a write on a client for replicas;
 * VIGIE_ERR_UNSUPPORTED: a command that changes the connection's state, outside a session; VIGIE_ERR_FENCED: a write
 * that was held back until the end of its time, and not sent; VIGIE_ERR_REPLICAS: executed, but fewer replicas have
 * it than asked (vigie_error_count()); VIGIE_ERR_CONFIG: VIGIE_CALL_REPLICAS(n) below all replicas without
 * failover.fence and monitor on; VIGIE_ERR_POOL_TIMEOUT, VIGIE_ERR_POOL_BUSY; VIGIE_ERR_TXN_ABORTED; VIGIE_ERR_INVALID_ARG;
 * VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. vigie_error_flags() says whether it may have run.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_cmd_exec(vigie_client *client,
                            size_t argc,
                            const char *const *argv,
                            const size_t *argvlen,
                            uint32_t flags,
                            int64_t timeout_ms,
                            vigie_reply **out,
                            vigie_error **err);

/**
 * Runs a list of commands (a pipeline) and waits for all replies. The reply is an ARRAY with one node for each
 * command, in order; the error reply of a command is a node of type VIGIE_TYPE_ERROR, and the others run all the
 * same. All commands go to one node, but for a client over shards, which deals them out. A blocking command, WAIT among them, cannot be part of a list
 * (VIGIE_ERR_UNSUPPORTED): it runs by itself. An EXEC among them (in a session) that is answered null is
 * VIGIE_ERR_TXN_ABORTED for the whole list, and vigie_error_reply() has the replies.
 *
 * With VIGIE_CALL_ATOMIC the list is one transaction: the library puts MULTI and EXEC around it and sends it in one piece, on a
 * connection that other calls share; the reply is the ARRAY of EXEC. A command that fails while it runs is a node of type
 * VIGIE_TYPE_ERROR, and the others have run. A command that the server does not take in (unknown, wrong arguments) discards the
 * transaction: VIGIE_ERR_SERVER with the code EXECABORT; the message names the command, and vigie_error_reply() has what was
 * answered to each. Once EXEC was sent the list is not sent again, whatever it holds: a lost answer is VIGIE_ERR_IO with
 * VIGIE_EF_MAYBE_EXECUTED. It is sent again as a whole if EXEC was not sent, or if the server has discarded it for a reason that
 * passes (READONLY, LOADING, ...). BLPOP and its kin do not block in it. It cannot hold what changes the connection's state, WATCH
 * and UNWATCH, MULTI, EXEC and DISCARD, or a scan. In a session it comes after the session's WATCH: if a watched key was changed, or
 * a failover was in between, it gives VIGIE_ERR_TXN_ABORTED, and nothing has run. Each connection is asked once, with MULTI and
 * DISCARD, whether the server lets this user do so: if not the list gives VIGIE_ERR_UNSUPPORTED, and nothing has run. If that
 * permission is taken away later, the same error carries VIGIE_EF_MAYBE_EXECUTED and the replies, because the commands have run one by one.
 *
 * Lengths: commands_len is the bytes of commands, RESP arrays of bulk strings one after the other: vigie_batch_data() gives
 * them; vigie_batch_exec() takes a vigie_batch as it is. timeout_ms and flags are those of vigie_cmd_exec(), for the list as a
 * whole: VIGIE_CALL_REPLICAS(n) waits once, behind the last command, or behind EXEC. VIGIE_CALL_EACH: the list holds one
 * command, and reply and error are as those of vigie_cmd_exec().
 * Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL: the replies are discarded. commands is
 * only read.
 * Blocks: up to timeout_ms.
 * Threads: [T].
 * Errors: as vigie_cmd_exec(), VIGIE_ERR_FENCED and VIGIE_ERR_REPLICAS too; VIGIE_ERR_SERVER only with
 * VIGIE_CALL_EACH or VIGIE_CALL_ATOMIC, or if the connection could not be set up; VIGIE_ERR_INVALID_STATE: VIGIE_CALL_ATOMIC in a
 * session that is in a MULTI by hand; VIGIE_ERR_INVALID_ARG: also VIGIE_CALL_ATOMIC with what a transaction cannot hold, with
 * VIGIE_CALL_EACH or with VIGIE_CALL_IDEMPOTENT; a list that is empty, is not RESP (the message has the byte offset), or comes from a
 * vigie_batch that was misused. Nothing was sent then.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_cmds_exec(vigie_client *client,
                             const void *commands,
                             size_t commands_len,
                             uint32_t flags,
                             int64_t timeout_ms,
                             vigie_reply **out,
                             vigie_error **err);

/**
 * Runs a list of commands without waiting: as vigie_cmds_exec(), and its outcome arrives on a queue, as one
 * VIGIE_EVENT_COMPLETION with this token for each call that returned VIGIE_OK. With VIGIE_CALL_EACH every command of the
 * list is a call of its own: command i completes with token + i, its bare reply and its own error, as vigie_cmd_exec()
 * would give them. Calls of one client to one node start in the order of their submission, and what has to be tried again
 * keeps it; they travel on a connection of their own, which blocking calls do not share. Writes that replicas must
 * have (VIGIE_CALL_REPLICAS(n)) and blocking commands have others beside it. On a client of vigie_shards_for() this is so for each shard;
 * a command with keys on several shards does not wait for the submits before it, nor those behind it for its end: where their order
 * counts put them in one list without VIGIE_CALL_EACH, or wait for its completion. The rules of retry and failover are those
 * of vigie_cmds_exec(). Replies are read by a vigie_queue_drain() that waits, or else by a thread of the library.
 *
 * On a session calls start in call order on its connection, so that WATCH and VIGIE_CALL_ATOMIC need no thread that waits; calls of
 * vigie_cmd_exec() on it keep that order too. They wait for a primary and behind the fence within their timeouts. A call that ends
 * without an answer, because the connection was lost, or because the call was late or cancelled, ends the session: what was
 * submitted behind it does not run, and gives VIGIE_ERR_IO, or VIGIE_ERR_TXN_ABORTED for EXEC and VIGIE_CALL_ATOMIC. After the first submit
 * the connection of a session is not returned to the pool any more, but closed in the end.
 *
 * Lengths: commands_len is the bytes of commands. timeout_ms and flags are those of vigie_cmds_exec(), for each call.
 * Ownership: commands is copied. The queue may be freed while calls are running: they go on, and their completions
 * are dropped.
 * Blocks: no. It does not resolve, connect or wait; at most it hands bytes to the system.
 * Threads: [T].
 * Errors: VIGIE_ERR_QUEUE_FULL: the queue has no room for so many completions, or holds as many bytes as the option
 * submit.max_bytes allows: drain it, then submit again (nothing of the list was taken; a list of more calls than the
 * queue's capacity never fits); VIGIE_ERR_TIMEOUT: timeout_ms <= 0, and neither VIGIE_TIMEOUT_DEFAULT nor
 * VIGIE_TIMEOUT_NONE; VIGIE_ERR_UNSUPPORTED; VIGIE_ERR_READ_ONLY; VIGIE_ERR_INVALID_ARG: client or
 * queue is NULL, or as vigie_cmds_exec(); VIGIE_ERR_CONFIG; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. A
 * list that is refused here has no completion.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_cmds_submit(vigie_client *client,
                               const void *commands,
                               size_t commands_len,
                               uint32_t flags,
                               int64_t timeout_ms,
                               vigie_queue *queue,
                               uint64_t token,
                               vigie_error **err);

/**
 * What this client knows now, without asking anybody: a MAP with the service, its primary and its replicas. TOPOLOGY.md
 * lists the keys. Of a client of vigie_shards_for(): a MAP whose key shards has such a MAP for the name of each shard.
 *
 * Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
 * Blocks: no.
 * Threads: [T].
 * Errors: VIGIE_ERR_INVALID_ARG: client is NULL; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE vigie_status vigie_client_topology(vigie_client *client, vigie_reply **out, vigie_error **err);

/**
 * What this client has done: a MAP of counters, whose keys STATISTICS.md lists. Unknown keys must be ignored: more will come. Of a
 * client of vigie_shards_for(): a MAP whose key shards has such a MAP for the name of each shard.
 *
 * Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
 * Blocks: no.
 * Threads: [T].
 * Errors: VIGIE_ERR_INVALID_ARG: client is NULL; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_client_stats(vigie_client *client,
                                vigie_reply **out,
                                vigie_error **err);

/**
 * The same figures as text for Prometheus, as vigie_sentinel_metrics() gives those of a handle: for this client and its service, and of a
 * client of vigie_shards_for() for all shards, each sample with a label shard (its name, such as node_2) in front of service. A shard
 * that is no service of the Sentinels is in no text of a vigie_sentinel, and its service is its name; endpoint has the address of each
 * node. The families of the handle itself are not there.
 *
 * Lengths: flags: VIGIE_METRICS_OPENMETRICS, or 0.
 * Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
 * Blocks: no.
 * Threads: [T].
 * Errors: VIGIE_ERR_INVALID_ARG: client is NULL, or other flags; VIGIE_ERR_LIMIT: no memory for the text; VIGIE_ERR_CLOSED;
 * VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_client_metrics(vigie_client *client,
                                  uint32_t flags,
                                  vigie_reply **out,
                                  vigie_error **err);

/**
 * Closes idle connections at once and busy ones when their calls end; the next call connects again, perhaps to
 * another replica.
 *
 * Ownership: nothing to free.
 * Blocks: no.
 * Threads: [T].
 * Errors: VIGIE_ERR_INVALID_ARG: client is NULL; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
vigie_status vigie_client_disconnect(vigie_client *client, vigie_error **err);

/**
 * Refuses new calls, ends idle blocking commands at once, lets other calls finish for timeout_ms, then ends them
 * with VIGIE_ERR_CLOSED. A second close is a no-op.
 *
 * Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT: the option timeout.call. VIGIE_TIMEOUT_NONE: no
 * limit. Any other value <= 0: calls end at once.
 * Ownership: nothing is freed: vigie_client_free() is still due.
 * Blocks: up to timeout_ms, and up to 100 ms more until the blocking commands that it ended have returned.
 * Threads: [T].
 * Errors: VIGIE_ERR_TIMEOUT: other calls were running at the end and were ended (it is closed all the same);
 * VIGIE_ERR_INVALID_ARG: client is NULL; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
vigie_status vigie_client_close(vigie_client *client, int64_t timeout_ms, vigie_error **err);

/**
 * Whether the client was closed: by vigie_client_close(), or with its sentinel. A session is closed also with the client that
 * it was made from. Calls on a closed client give VIGIE_ERR_CLOSED and open no connection.
 *
 * Ownership: nothing to free.
 * Blocks: no.
 * Threads: [T].
 * Errors: none: 1 if it was closed, 0 if not; also 1 for what serves no call: NULL, what is no client, and in a forked child
 * a client of the parent that is not made anew there.
 * Since: 0.1.0.
 */
int vigie_client_is_closed(const vigie_client *client);

/**
 * Frees a client or a session; its connections are closed or go back to the pool. Sessions made from a client go on,
 * and so do running calls of vigie_cmds_submit().
 *
 * Ownership: the handle is gone; NULL is a no-op. Freeing twice is not safe. In a forked child what is the parent's is left
 * alone.
 * Blocks: no.
 * Threads: any thread, when no other uses this handle.
 * Errors: none.
 * Since: 0.1.0.
 */
void vigie_client_free(vigie_client *client);

/* ---- shards: several primaries as one client --------------------------------------------------------------------- */

/**
 * A client over several primaries, each with its replicas. It is used as any other client: a command goes to the shard of its
 * key, a list is dealt out to the shards, all of them at the same time, and is answered in its order. Commands with keys on
 * several shards run where that can be done right (MGET, MSET, DEL, SUNION, RENAME and others), and are refused with
 * VIGIE_ERR_CROSS_SHARD before anything is sent where it cannot: docs/sharding.md says which of them are atomic. Reads go to
 * replicas that are fit, as with vigie_split_for(); VIGIE_CALL_ON_PRIMARY and the option shard.primaries_only send them to the
 * primaries. Commands for all nodes (KEYS, SCAN, DBSIZE, INFO, FLUSHALL) run on every primary; the reply of most is a MAP from the
 * name of each shard to its answer, with an error for a shard that has failed; if all have failed the call fails, with the error of the
 * first of them. A failover or an outage of one shard touches only its keys; an error names the shard.
 *
 * Each text is one shard: "node_1=sentinel:SERVICE" (a service of the Sentinels), "node_1=redis://user:password@host:port/db" (a
 * primary that is given; its replicas are those that it names; rediss:// with TLS), or that with its replica,
 * "node_1=redis://host:port|redis://host2:port". Shards are named node_1 to node_N in any order. The options shard.hash and
 * shard.tags say which shard a key is on, and have to be the same in all programs that use the data.
 *
 * Lengths: shard_count is the number of texts in shards, 1 to 1024.
 * Ownership: *out is the caller's, for vigie_client_free(). shards and overrides (may be NULL) are copied. sentinel may be NULL if no
 * shard is a service; the shards that are not take its options (credentials, TLS, timeouts), but for its Sentinels.
 * Blocks: up to timeout.call: each primary is asked with a PING, all at the same time; no with the option shard.degraded.
 * Threads: [T]; overrides is [C] meanwhile.
 * Errors: VIGIE_ERR_CONFIG: a bad name, a gap among them, one URI with a bad part, overrides; VIGIE_ERR_INVALID_ARG: shards or out is NULL,
 * shard_count is out of range, or sentinel is NULL and a shard is a service; VIGIE_ERR_INVALID_STATE: another thread changes
 * overrides; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. Without shard.degraded also those of vigie_cmd_exec(), for a shard
 * that cannot be used.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_shards_for(vigie_sentinel *sentinel,
                              const char *const *shards,
                              size_t shard_count,
                              const vigie_config *overrides,
                              vigie_client **out,
                              vigie_error **err);

/**
 * As vigie_shards_for(), with a hash function of the program in place of the option shard.hash (which then says no more than what the
 * default of shard.tags is). vigie_shards_set() keeps it. All programs that use the data need the same function.
 *
 * hash is called once for each key of a command and for each channel, by the thread that calls a function of this client, before
 * anything is sent: vigie_cmd_exec(), vigie_cmds_submit(), vigie_client_shard_of(), vigie_session_for(), vigie_sub_exec() and others;
 * several threads may call it at once. It gives the same index for the same bytes and the same number of shards, always, returns
 * soon, and uses no handle of this library. An index that is not below shard_count gives the call VIGIE_ERR_INVALID_ARG, and nothing of
 * it is sent. An exception or a longjmp() must not leave it: what happens then is undefined.
 *
 * Lengths: shard_count is the number of texts in shards, 1 to 1024.
 * Ownership: *out is the caller's, for vigie_client_free(). shards and overrides (may be NULL) are copied. hash and user are used until the
 * client, its sessions and its subscriptions are freed and no call of them is running.
 * Blocks: as vigie_shards_for().
 * Threads: [T]; overrides is [C] meanwhile.
 * Errors: as vigie_shards_for(); VIGIE_ERR_INVALID_ARG: also hash is NULL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_shards_for_hash(vigie_sentinel *sentinel,
                                   const char *const *shards,
                                   size_t shard_count,
                                   vigie_shard_hash hash,
                                   void *user,
                                   const vigie_config *overrides,
                                   vigie_client **out,
                                   vigie_error **err);

/**
 * Gives a client of vigie_shards_for() other shards: more of them, fewer, or the same names at other places. A call whose key is on
 * another server from then on waits, within its time, until all calls that began before are over, so that each key sees its calls
 * in order; the others go on. No data is moved: docs/sharding.md has the order of the steps. Other processes keep the shards that
 * they were given. The new shards are asked first, as by vigie_shards_for(). Sessions and subscriptions of the shards before
 * end with VIGIE_ERR_CLOSED when those calls are over, a subscription with one event for all of its shards: make them anew. The
 * statistics begin anew.
 *
 * Lengths: shard_count is the number of texts in shards, 1 to 1024.
 * Ownership: shards is copied.
 * Blocks: as vigie_shards_for().
 * Threads: [T].
 * Errors: as vigie_shards_for(): then the shards stay as they are; VIGIE_ERR_INVALID_STATE with VIGIE_EF_RETRYABLE: calls that began before
 * the last change are still running; VIGIE_ERR_INVALID_ARG: also a client that is not of vigie_shards_for().
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_shards_set(vigie_client *client,
                              const char *const *shards,
                              size_t shard_count,
                              vigie_error **err);

/**
 * The shard that a key is on: its index, which is the number in its name less one. A tag in the key counts as the option shard.tags says.
 *
 * Lengths: key_len is the bytes of key.
 * Ownership: nothing to free.
 * Blocks: no.
 * Threads: [T].
 * Errors: none: -1 for a client without shards, for what is no client, for a key whose tag is not well formed, and for one to which the
 * hash of vigie_shards_for_hash() gives no shard.
 * Since: 0.1.0.
 */
int32_t vigie_client_shard_of(const vigie_client *client,
                              const void *key,
                              size_t key_len);

/* ---- calls that can be cancelled and interrupted ----------------------------------------------------------------- */

/**
 * A call handle, for one call after another. It costs nothing else until its first call, which gives it five descriptors of
 * its own until vigie_call_free().
 *
 * Ownership: the handle is the caller's, for vigie_call_free().
 * Blocks: no.
 * Threads: any.
 * Errors: none; never NULL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_call *vigie_call_new(void);

/**
 * As vigie_cmd_exec(), with a call handle: vigie_call_cancel() ends it from any thread, and a signal whose handler returns
 * (SIGINT in Python and Ruby) ends the wait for it with VIGIE_ERR_INTERRUPTED while the call goes on;
 * vigie_call_wait() then waits again. A signal that comes while nothing waits in the kernel does not interrupt: where its
 * handler only notes that it came, vigie_call_interrupt_every() bounds how long that goes unseen.
 * The arguments are copied, and the call shares the connections of vigie_cmds_submit().
 *
 * Lengths: as vigie_cmd_exec(), and so are the flags.
 * Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
 * Blocks: up to timeout_ms.
 * Threads: [X]: one call at a time; vigie_call_cancel() and vigie_call_is_cancelled() from any thread.
 * Errors: as vigie_cmd_exec(), and those of vigie_cmds_submit(); VIGIE_ERR_INTERRUPTED: the call is still under way;
 * VIGIE_ERR_CANCELLED: vigie_error_flags() says whether it may have run, and a call that was cancelled before it began
 * was not sent; VIGIE_ERR_INVALID_STATE: another thread uses the call handle, or its call is still under way.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_call_cmd_exec(vigie_call *call,
                                 vigie_client *client,
                                 size_t argc,
                                 const char *const *argv,
                                 const size_t *argvlen,
                                 uint32_t flags,
                                 int64_t timeout_ms,
                                 vigie_reply **out,
                                 vigie_error **err);

/**
 * As vigie_cmds_exec(), with a call handle: see vigie_call_cmd_exec().
 *
 * Lengths: as vigie_cmds_exec(), and so are the flags.
 * Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL. commands is copied.
 * Blocks: up to timeout_ms.
 * Threads: [X], as vigie_call_cmd_exec().
 * Errors: as vigie_cmds_exec(), and those of vigie_call_cmd_exec().
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_call_cmds_exec(vigie_call *call,
                                  vigie_client *client,
                                  const void *commands,
                                  size_t commands_len,
                                  uint32_t flags,
                                  int64_t timeout_ms,
                                  vigie_reply **out,
                                  vigie_error **err);

/**
 * Goes on with the call that VIGIE_ERR_INTERRUPTED left under way. Its deadline is the one that it had.
 *
 * Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
 * Blocks: up to the timeout_ms that the call was given, counted from its beginning.
 * Threads: [X], as vigie_call_cmd_exec().
 * Errors: those of the call; VIGIE_ERR_INTERRUPTED: once more; VIGIE_ERR_INVALID_STATE: no call is under way, or another
 * thread uses the call handle; VIGIE_ERR_INVALID_ARG: call is NULL; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_call_wait(vigie_call *call,
                             vigie_reply **out,
                             vigie_error **err);

/**
 * Has each wait for a call of this handle end with VIGIE_ERR_INTERRUPTED after slice_ms at the latest, although no signal came;
 * vigie_call_wait() goes on. For runtimes whose signal handlers only set a flag that the waiting thread looks at: a signal that
 * comes just before the wait would go unseen until the next one.
 *
 * Lengths: slice_ms in milliseconds, 1 to 3600000; 0 takes it back.
 * Ownership: nothing changes hands.
 * Blocks: no.
 * Threads: any thread; a wait that has begun keeps the slice that it began with.
 * Errors: VIGIE_ERR_INVALID_ARG: call is NULL, or slice_ms is out of range; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_call_interrupt_every(vigie_call *call,
                                        int64_t slice_ms,
                                        vigie_error **err);

/**
 * Where the time of a call went: of the one that runs with this handle, or of the last one. A MAP with total_us, queue_us, fence_us,
 * wire_us, retry_us, attempts, endpoint and over; STATISTICS.md ("times") says what each is. Calls without a handle are not timed.
 * docs/tracing.md maps it to the names of OpenTelemetry.
 *
 * Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
 * Blocks: no.
 * Threads: any thread, also while another one runs or waits for the call.
 * Errors: VIGIE_ERR_INVALID_STATE: no call was made with it; VIGIE_ERR_INVALID_ARG: call is NULL; VIGIE_ERR_LIMIT: no memory for the
 * reply; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_call_times(const vigie_call *call,
                              vigie_reply **out,
                              vigie_error **err);

/**
 * Cancels the call that runs with this handle, or the next one if none does; the handle stays cancelled. The call ends with
 * VIGIE_ERR_CANCELLED in the thread that waits for it. A blocking command is ended by the server (CLIENT UNBLOCK) if that
 * takes no more than 50 ms and the server speaks RESP3 and lets the user do it: an element that it has taken all the
 * same is delivered as the reply. Otherwise, and for all other commands, the wait ends at once.
 *
 * Ownership: nothing changes hands.
 * Blocks: no.
 * Threads: any thread, also while another one runs or waits for the call; not from a signal handler.
 * Errors: VIGIE_ERR_INVALID_ARG: call is NULL; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
vigie_status vigie_call_cancel(vigie_call *call,
                               vigie_error **err);

/**
 * Whether vigie_call_cancel() was called.
 *
 * Ownership: nothing changes hands.
 * Blocks: no.
 * Threads: any.
 * Errors: none: 0 for NULL and for what is no call handle.
 * Since: 0.1.0.
 */
int vigie_call_is_cancelled(const vigie_call *call);

/**
 * Frees a call handle. A call that is still under way is cancelled, and its outcome is lost.
 *
 * Ownership: the handle is gone; NULL is a no-op. In a forked child the memory is left alone.
 * Blocks: no.
 * Threads: any thread, when no other uses this handle.
 * Errors: none.
 * Since: 0.1.0.
 */
void vigie_call_free(vigie_call *call);

/* ---- scans ------------------------------------------------------------------------------------------------------- */

/**
 * A scan from its beginning to its end: SCAN, HSCAN, SSCAN or ZSCAN with cursor 0 and any other arguments.
 * vigie_scan_next() gives its pages. All of them come from one server, in one role: a cursor means something only there.
 *
 * After a failover, a restart of the server, or when the replica that is scanned is no longer read from, nobody can say
 * which elements were given already. Then the scan ends with VIGIE_ERR_SCAN_INTERRUPTED, or begins anew on the present
 * node, at most max_restarts times, and gives elements a second time; vigie_scan_restarts() counts that.
 *
 * Lengths: argc, argv and argvlen as for vigie_cmd_exec(); VIGIE_CMD() makes them.
 * Ownership: *out is the caller's, for vigie_scan_free(). Arguments are copied; the client is kept alive.
 * Blocks: no: the first vigie_scan_next() sends the first command.
 * Threads: [T].
 * Errors: VIGIE_ERR_INVALID_ARG: client or out is NULL, another command, a cursor other than 0, a bad argc, argv or
 * argvlen; VIGIE_ERR_INVALID_STATE: client is a session; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_scan_for(vigie_client *client,
                            size_t argc,
                            const char *const *argv,
                            const size_t *argvlen,
                            uint32_t max_restarts,
                            vigie_scan **out,
                            vigie_error **err);

/**
 * The next page of a scan: an ARRAY with at least one element: names of SCAN and SSCAN, pairs of HSCAN and ZSCAN, as the
 * server gives them. VIGIE_OK without a reply: the scan is over, and every element that was there from the beginning to
 * the end of the last pass was given; one may come twice, as with every SCAN.
 *
 * A page that was lost with its connection is asked for again within the time. After any other error than
 * VIGIE_ERR_SCAN_INTERRUPTED the next call goes on where the scan was.
 *
 * Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT: the option timeout.call. VIGIE_TIMEOUT_NONE: no limit.
 * Any other value <= 0: VIGIE_ERR_TIMEOUT, and nothing is sent.
 * Ownership: *out is the caller's, for vigie_reply_free(); NULL at the end. out may be NULL: the page is discarded.
 * Blocks: up to timeout_ms.
 * Threads: [X].
 * Errors: VIGIE_ERR_SCAN_INTERRUPTED: see vigie_scan_for(), and every later call gives it again;
 * VIGIE_ERR_INVALID_STATE: another thread waits for a page, or a vigie_scan_submit() is under way; VIGIE_ERR_INVALID_ARG: scan is NULL; as vigie_cmd_exec().
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_scan_next(vigie_scan *scan,
                             int64_t timeout_ms,
                             vigie_reply **out,
                             vigie_error **err);

/**
 * Asks for the next page without waiting: as vigie_scan_next(), and the page arrives on the queue as the reply of one
 * VIGIE_EVENT_COMPLETION with this token. A completion with VIGIE_OK and no reply: the scan is over. One page at a time is under way.
 *
 * A page may take several commands, where the server gives no element, or where the scan begins anew; each of them goes to the
 * same node by the rules of vigie_scan_next(), and the room in the queue that is taken now is for the one completion.
 * vigie_queue_cancel() with the token ends the wait, and the next call goes on where the scan was.
 *
 * Lengths: timeout_ms as for vigie_scan_next().
 * Ownership: nothing changes hands. The scan may be freed before its completion arrives.
 * Blocks: no.
 * Threads: [X].
 * Errors: refused, and without a completion: VIGIE_ERR_INVALID_ARG: scan or queue is NULL; VIGIE_ERR_INVALID_STATE: another page is
 * under way; VIGIE_ERR_QUEUE_FULL; VIGIE_ERR_TIMEOUT: timeout_ms leaves no time; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Every other one of vigie_scan_next() arrives with the completion, and VIGIE_ERR_CANCELLED.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_scan_submit(vigie_scan *scan,
                               int64_t timeout_ms,
                               vigie_queue *queue,
                               uint64_t token,
                               vigie_error **err);

/**
 * How often a scan has begun anew. If the number has grown with a page, this page is the first one of another pass.
 *
 * Ownership: nothing changes hands.
 * Blocks: no.
 * Threads: [X].
 * Errors: none: 0 for NULL, for what is no scan, and while a page is being waited for.
 * Since: 0.1.0.
 */
uint32_t vigie_scan_restarts(const vigie_scan *scan);

/**
 * Frees a scan, at its end or before.
 *
 * Ownership: the handle is gone; NULL is a no-op. In a forked child the memory is left alone.
 * Blocks: no.
 * Threads: any thread, when no other uses this handle.
 * Errors: none.
 * Since: 0.1.0.
 */
void vigie_scan_free(vigie_scan *scan);

/* ---- command lists (for C and C++; other languages can encode RESP themselves) ----------------------------------- */

/**
 * An empty list.
 *
 * Ownership: the caller's, for vigie_batch_free().
 * Blocks: no.
 * Threads: [T].
 * Errors: none: it cannot fail.
 * Since: 0.1.0.
 */
vigie_batch *vigie_batch_new(void);

/**
 * Adds a command to a list.
 *
 * Lengths: argc, argv and argvlen are those of vigie_cmd_exec().
 * Ownership: the arguments are copied. What vigie_batch_data() gave before is no longer valid.
 * Blocks: no.
 * Threads: [X].
 * Errors: they stick: after a wrong argument (VIGIE_ERR_INVALID_ARG), without memory for the command (VIGIE_ERR_LIMIT), or
 * when two threads use the batch at the same time (VIGIE_ERR_INVALID_STATE) the list stays unusable until
 * vigie_batch_clear(): vigie_batch_exec() and vigie_batch_submit() refuse it with this status and the reason. A NULL batch
 * is a no-op.
 * Since: 0.1.0.
 */
void vigie_batch_add(vigie_batch *batch,
                     size_t argc,
                     const char *const *argv,
                     const size_t *argvlen);

/**
 * Runs the list and waits for all replies, as vigie_cmds_exec() does. The list stays as it is, for another time.
 *
 * Lengths: flags and timeout_ms are those of vigie_cmds_exec().
 * Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL: the replies are discarded.
 * Blocks: up to timeout_ms.
 * Threads: client is [T]; batch is [X] during the whole call. Another thread that uses it meanwhile is refused, and
 * makes the list unusable until vigie_batch_clear(); the call itself is not affected.
 * Errors: as vigie_cmds_exec(); VIGIE_ERR_INVALID_STATE: two threads use the batch, or used it before;
 * VIGIE_ERR_INVALID_ARG, VIGIE_ERR_LIMIT: also what vigie_batch_add() met. Nothing was sent then.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_batch_exec(vigie_client *client,
                              const vigie_batch *batch,
                              uint32_t flags,
                              int64_t timeout_ms,
                              vigie_reply **out,
                              vigie_error **err);

/**
 * Runs the list without waiting, as vigie_cmds_submit() does.
 *
 * Lengths: flags and timeout_ms are those of vigie_cmds_submit().
 * Ownership: the list is copied: the batch can be cleared and filled again at once. The queue may be freed while
 * calls are running: they go on, and their completions are dropped.
 * Blocks: no, as vigie_cmds_submit().
 * Threads: client and queue are [T]; batch is [X].
 * Errors: as vigie_cmds_submit(); VIGIE_ERR_INVALID_STATE: two threads use the batch, or used it before;
 * VIGIE_ERR_INVALID_ARG, VIGIE_ERR_LIMIT: also what vigie_batch_add() met. A list that is refused here has no completion.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_batch_submit(vigie_client *client,
                                const vigie_batch *batch,
                                uint32_t flags,
                                int64_t timeout_ms,
                                vigie_queue *queue,
                                uint64_t token,
                                vigie_error **err);

/**
 * The list as it is now: RESP, for vigie_cmds_exec(), vigie_cmds_submit(), or other uses. To run it,
 * vigie_batch_exec() and vigie_batch_submit() are shorter and safer.
 *
 * Lengths: *len gets the bytes; len may be NULL. An empty list has length 0.
 * Ownership: belongs to the batch, valid until the next vigie_batch_add(), vigie_batch_clear() or
 * vigie_batch_free().
 * Blocks: no.
 * Threads: [X], for as long as the bytes are read. While another thread is inside a function of the batch, or after
 * that has happened, this gives a line that is not RESP in place of the list. Bytes that were returned before are not
 * protected: a vigie_batch_add() of another thread frees them while they are read, which is undefined behaviour.
 * Errors: none; NULL and length 0 for a NULL batch. After a mistake in vigie_batch_add() the line describes it; the
 * functions that take a list refuse it with VIGIE_ERR_INVALID_ARG or VIGIE_ERR_INVALID_STATE.
 * Since: 0.1.0.
 */
const void *vigie_batch_data(const vigie_batch *batch, size_t *len);

/**
 * Empties a list and clears its mistake. The memory is kept for the next commands.
 *
 * Ownership: what vigie_batch_data() gave before is no longer valid.
 * Blocks: no.
 * Threads: [X].
 * Errors: none; a NULL batch is a no-op.
 * Since: 0.1.0.
 */
void vigie_batch_clear(vigie_batch *batch);

/**
 * Frees a list.
 *
 * Ownership: the list and its data are gone; NULL is a no-op. Freeing twice is not safe.
 * Blocks: no.
 * Threads: any thread, when no other uses the batch.
 * Errors: none.
 * Since: 0.1.0.
 */
void vigie_batch_free(vigie_batch *batch);

/* ---- replies ----------------------------------------------------------------------------------------------------- */

/**
 * The type of a node: one of vigie_type. VIGIE_ROOT is the first node of every reply.
 *
 * Ownership: nothing to free.
 * Blocks: no.
 * Threads: [C].
 * Errors: none; VIGIE_TYPE_NONE for NULL and for a node that is not there.
 * Since: 0.1.0.
 */
int32_t vigie_reply_type(const vigie_reply *reply, uint32_t node);

/**
 * How many children an ARRAY, MAP, SET or PUSH has; in a MAP keys and values are counted.
 *
 * Ownership: nothing to free.
 * Blocks: no.
 * Threads: [C].
 * Errors: none; 0 for every other node, for NULL and for a node that is not there.
 * Since: 0.1.0.
 */
uint32_t vigie_reply_count(const vigie_reply *reply, uint32_t node);

/**
 * The node of a child, by its index from 0; in a MAP keys have the even indexes, and each value follows its key.
 *
 * Ownership: nothing to free.
 * Blocks: no.
 * Threads: [C].
 * Errors: none; VIGIE_NONE where there is no such child.
 * Since: 0.1.0.
 */
uint32_t vigie_reply_child(const vigie_reply *reply, uint32_t node, uint32_t index);

/**
 * The node of the value that belongs to a key in a MAP, or in an ARRAY whose keys and values alternate. The first
 * one, if several keys are equal. The search goes through the keys in order.
 *
 * Lengths: key_len is the bytes of key; (NULL, 0) is an empty key.
 * Ownership: the key is only read; nothing to free.
 * Blocks: no.
 * Threads: [C].
 * Errors: none; VIGIE_NONE where there is no such key.
 * Since: 0.1.0.
 */
uint32_t vigie_reply_find(const vigie_reply *reply, uint32_t node, const void *key, size_t key_len);

/**
 * The bytes of a text: STRING, STATUS, ERROR, BIGNUM, VERBATIM. A NUL follows them, so that a text can be used as a
 * C string.
 *
 * Lengths: *len gets the bytes without that NUL; len may be NULL.
 * Ownership: belongs to the reply, valid until vigie_reply_free().
 * Blocks: no.
 * Threads: [C].
 * Errors: none; NULL and length 0 for every other node, for NULL and for a node that is not there.
 * Since: 0.1.0.
 */
const char *vigie_reply_bytes(const vigie_reply *reply, uint32_t node, size_t *len);

/**
 * The value of an INT, of a BOOL (1 or 0), or of a text that is a whole number in decimal.
 *
 * Ownership: nothing to free.
 * Blocks: no.
 * Threads: [C].
 * Errors: none; if_not for everything else.
 * Since: 0.1.0.
 */
int64_t vigie_reply_int(const vigie_reply *reply, uint32_t node, int64_t if_not);

/**
 * The value of a DOUBLE, of an INT, or of a text that is a number.
 *
 * Ownership: nothing to free.
 * Blocks: no.
 * Threads: [C].
 * Errors: none; if_not for everything else.
 * Since: 0.1.0.
 */
double vigie_reply_double(const vigie_reply *reply, uint32_t node, double if_not);

/**
 * The whole reply at once, for decoding in another language: an array of nodes whose ids are their indexes, and the
 * data that their texts point into.
 *
 * Lengths: *node_count gets the nodes, *data_len the bytes of data; each of the three outputs may be NULL.
 * Ownership: both arrays belong to the reply, valid until vigie_reply_free().
 * Blocks: no.
 * Threads: [C].
 * Errors: none; NULL and lengths 0 for NULL.
 * Since: 0.1.0.
 */
const vigie_node *vigie_reply_nodes(const vigie_reply *reply, size_t *node_count, const char **data, size_t *data_len);

/**
 * The reply as JSON: a reply with one STRING. A byte that is not UTF-8 becomes \u00XX with its value, as if the text were Latin-1: 0xFF
 * cannot be told from a letter then, and vigie_reply_bytes() has the bytes as they came. Keys of a MAP become texts.
 *
 * Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
 * Blocks: no.
 * Threads: [C].
 * Errors: VIGIE_ERR_INVALID_ARG: reply is NULL; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_reply_json(const vigie_reply *reply,
                              vigie_reply **out,
                              vigie_error **err);

/**
 * Frees a reply.
 *
 * Ownership: the reply and everything that points into it are gone; NULL is a no-op. Freeing twice is not safe.
 * Blocks: no.
 * Threads: any thread, when no other uses the reply.
 * Errors: none.
 * Since: 0.1.0.
 */
void vigie_reply_free(vigie_reply *reply);

/* ---- queues ------------------------------------------------------------------------------------------------------ */

/**
 * A queue for events: they wait here until the application takes them.
 *
 * Lengths: capacity is the most that the queue holds, from 1 to 1048576, running calls of vigie_cmds_submit()
 * included. An event that arrives while the queue is full is lost and counted: a VIGIE_EVENT_DROPPED in its place has
 * the number.
 * Ownership: *out is the caller's, for vigie_queue_free(). It has three descriptors of the process, and three more from
 * its first vigie_cmds_submit() on.
 * Blocks: no.
 * Threads: [T].
 * Errors: VIGIE_ERR_INVALID_ARG: capacity is out of range, or out is NULL; VIGIE_ERR_IO: no descriptor is left to the
 * process; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE vigie_status vigie_queue_create(size_t capacity, vigie_queue **out, vigie_error **err);

/**
 * The descriptor to poll for reading: readable while there are events, or a wake-up is due. When it is readable,
 * drain until the count is below the capacity given, or until vigie_queue_drain_packed() gives 0. It is always the
 * same one, and it does not matter whether the byte in it is read, as some event loops do.
 *
 * Ownership: belongs to the queue: do not close it or make it blocking. An event loop that closes what it polls gets
 * a copy from dup(). Take it out of the loop before vigie_queue_free(), which closes it.
 * Blocks: no.
 * Threads: [T].
 * Errors: none; -1 for NULL, for anything that is not a queue, and in a forked child.
 * Since: 0.1.0.
 */
int vigie_queue_fd(const vigie_queue *queue);

/**
 * Takes events, oldest first, and waits for the first one if there is none. It returns without events when the
 * timeout is over, and after vigie_queue_wakeup(). Several threads may drain a queue: each event goes to one of them.
 *
 * Lengths: events has room for capacity events; as many of them as the returned number are written, the others are
 * not touched. timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT and VIGIE_TIMEOUT_NONE: no limit. Any other value
 * <= 0 takes what is there, without waiting: -1 too, which means no limit to poll() and epoll_wait().
 * Ownership: what the events hold is the caller's, for vigie_events_clear(). What was in the array before is not freed.
 * Blocks: up to timeout_ms.
 * Threads: [T].
 * Errors: as a negative number. VIGIE_ERR_INVALID_ARG: queue or events is NULL, or capacity is 0; VIGIE_ERR_FORKED;
 * VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
int32_t vigie_queue_drain(vigie_queue *queue,
                          int64_t timeout_ms,
                          vigie_event *events,
                          uint32_t capacity);

/**
 * Takes events as vigie_queue_drain() does, and writes them into one buffer, one vigie_packed_event after the other,
 * with everything that they carry: nothing has to be read elsewhere, and nothing has to be freed. For languages in
 * which each read of foreign memory is expensive: one call for a whole batch. Each text is copied once for it;
 * vigie_queue_drain() copies none, and can be used on the same queue.
 *
 * Lengths: buf has room for buf_len bytes, 64 or more. Records begin at multiples of 8 from buf, whose own alignment
 * does not matter. An event that does not fit into the rest of buf stays in the queue and comes next. *used, which
 * may be NULL, is set to the bytes written; if even the first event does not fit, to the bytes that it needs;
 * otherwise to 0. timeout_ms as for vigie_queue_drain().
 * Ownership: nothing to free; buf is the caller's.
 * Blocks: up to timeout_ms.
 * Threads: [T].
 * Errors: the number of events, or a negative number. VIGIE_ERR_BUFFER_TOO_SMALL: the first event does not fit; nothing was
 * taken. Drain again with a buffer of *used bytes, or take it with vigie_queue_drain(). VIGIE_ERR_INVALID_ARG: queue or
 * buf is NULL, or buf_len is below 64 or above 4 GiB; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
int32_t vigie_queue_drain_packed(vigie_queue *queue,
                                 int64_t timeout_ms,
                                 void *buf,
                                 size_t buf_len,
                                 size_t *used);

/**
 * Ends the calls of vigie_cmds_submit() with this token, and of the other functions that submit. Their completions still arrive, with VIGIE_ERR_CANCELLED,
 * and with VIGIE_EF_MAYBE_EXECUTED if bytes had been sent; a call that ends at this moment may complete with its own
 * outcome. Returns how many calls were found.
 *
 * Lengths: the number returned counts calls: with VIGIE_CALL_EACH each command is one.
 * Ownership: nothing to free.
 * Blocks: no.
 * Threads: [T].
 * Errors: none; 0 for NULL, for anything that is not a queue, and in a forked child.
 * Since: 0.1.0.
 */
size_t vigie_queue_cancel(vigie_queue *queue,
                          uint64_t token);

/**
 * Makes one drain return: one that waits now, or the next one. The descriptor becomes readable. A drain that returns
 * as many events as it has room for, or leaves one that did not fit, leaves the wake-up to the next drain.
 *
 * Ownership: nothing to free.
 * Blocks: no.
 * Threads: [T].
 * Errors: none; nothing happens for NULL, for anything that is not a queue, and in a forked child.
 * Since: 0.1.0.
 */
void vigie_queue_wakeup(vigie_queue *queue);

/**
 * Frees the replies and errors of events, and zeroes the events. To keep a reply or an error, take it out before: set
 * the field to NULL.
 *
 * Lengths: count is the number of events; with NULL nothing happens, whatever the count.
 * Ownership: the replies and errors are gone; the array is the caller's. Clearing twice is safe.
 * Blocks: no.
 * Threads: any thread, when no other uses these events.
 * Errors: none.
 * Since: 0.1.0.
 */
void vigie_events_clear(vigie_event *events, size_t count);

/**
 * Frees a queue, and the events that were not drained. Senders go on, and their events are dropped.
 *
 * Ownership: the handle is gone and its descriptor closed; NULL is a no-op. Freeing twice is not safe. In a forked child
 * the memory is left alone.
 * Blocks: no.
 * Threads: any thread, when no other uses this handle.
 * Errors: none.
 * Since: 0.1.0.
 */
void vigie_queue_free(vigie_queue *queue);

/* ---- publish and subscribe --------------------------------------------------------------------------------------- */

/**
 * A subscription: messages of channels, patterns and shard channels, as VIGIE_EVENT_MESSAGE on a queue, with this token.
 * What it listens to is given with vigie_sub_exec(). On a client of vigie_primary_for() or vigie_split_for() it listens
 * to the primary, on one of vigie_replica_for() to a replica (or to the primary, as replica.fallback says). It has a
 * connection of its own, which takes no place of pool.max, and no thread. Lazy: it connects with its first channel.
 *
 * It lives through failovers: at a switch, and when its connection is lost, it is made anew at once, with everything
 * that it listened to. Messages that were published meanwhile are missing, because the server keeps none. The event
 * VIGIE_EVENT_SUB_GAP tells for how long, as soon as everything is confirmed and before the messages behind the gap: what
 * is read from the database from then on is not older than the gap.
 *
 * The messages wait in a buffer of their own until they are drained, as much as the options sub.max_messages and
 * sub.max_bytes say: they take nothing of the capacity of the queue. sub.overflow says what happens when it is full; a
 * VIGIE_EVENT_DROPPED with this token has the number of lost messages.
 *
 * Ownership: *out is the caller's, for vigie_sub_free(). overrides (NULL: none) is copied; it holds only options that
 * CONFIGURATION.md marks for overrides. Client and queue are kept alive.
 * Blocks: no.
 * Threads: [T]; overrides is [C] meanwhile.
 * Errors: VIGIE_ERR_CONFIG: overrides; VIGIE_ERR_INVALID_ARG: client, queue or out is NULL; VIGIE_ERR_INVALID_STATE:
 * client is a session, or another thread changes overrides; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_sub_for(vigie_client *client,
                           vigie_queue *queue,
                           uint64_t token,
                           const vigie_config *overrides,
                           vigie_sub **out,
                           vigie_error **err);

/**
 * Changes what a subscription listens to: SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE with names; UNSUBSCRIBE, PUNSUBSCRIBE,
 * SUNSUBSCRIBE with names, or without any for all; PING, with a text or without. It can be used at any time, also while
 * there is no connection: it is kept, and asked for with every connection, until it is taken back.
 *
 * The server's answers come as VIGIE_EVENT_MESSAGE, one for each name, in their place among the messages; what is
 * subscribed to again on a new connection is not answered again. A name that the server refuses (NOPERM, or SSUBSCRIBE
 * before Redis 7) is such an event with an error, and is asked for again with the next connection. With a timeout the
 * function waits until all names are answered, and fails if one of them is refused. It does not drain: the answers are
 * in the queue when it returns. To end what no server has confirmed takes no answer, and gives none. The thread that drains
 * the queue gives no timeout: with sub.overflow=disconnect a full buffer has no connection until it is drained, so that no
 * answer comes meanwhile.
 *
 * Lengths: argc, argv and argvlen as for vigie_cmd_exec(); VIGIE_CMD() makes them. timeout_ms is in milliseconds.
 * VIGIE_TIMEOUT_DEFAULT: the option timeout.call. VIGIE_TIMEOUT_NONE: no limit. Any other value <= 0: the command is
 * noted, and the function returns.
 * Ownership: arguments are copied; nothing to free.
 * Blocks: up to timeout_ms.
 * Threads: [T].
 * Errors: VIGIE_ERR_UNSUPPORTED: another command; VIGIE_ERR_SERVER: a name was refused; VIGIE_ERR_TIMEOUT: not answered in
 * time, and asked for further on; VIGIE_ERR_CLOSED: the client was closed, or the queue freed; VIGIE_ERR_INVALID_ARG: sub is NULL, a bad
 * argc, argv or argvlen, or no name; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_sub_exec(vigie_sub *sub,
                            size_t argc,
                            const char *const *argv,
                            const size_t *argvlen,
                            int64_t timeout_ms,
                            vigie_error **err);

/**
 * Ends a subscription and frees it. Its events that were not drained are gone, and none comes after this function has
 * returned, except those that a drain on another thread has taken already.
 *
 * Ownership: the handle is gone and its connection closed; NULL is a no-op. Freeing twice is not safe. In a forked child
 * the memory is left alone.
 * Blocks: no.
 * Threads: any thread, when no other uses this handle.
 * Errors: none.
 * Since: 0.1.0.
 */
void vigie_sub_free(vigie_sub *sub);

/* ---- jobs: lists of work that is done at least once -------------------------------------------------------------- */

/**
 * A worker of a list of jobs: it takes them one by one, and each of them is done at least once, whatever happens to workers and
 * primaries. A job that is taken stands in the worker's processing list until vigie_jobs_ack(). A worker that ends without that, or
 * hangs, has a lease that ends: others then hand its jobs back. What may have been handed out before is marked. docs/jobs.md has the
 * keys, the format, and what producers need. Nothing is sent before the first vigie_jobs_take().
 *
 * name is the key of the list. worker names this worker, and each handle needs another one: one that starts again under the
 * same name has at once what it had in hand. NULL: a random name; then the others hand that back when the lease is over.
 *
 * Lengths: lease_ms is in milliseconds, at least 100; VIGIE_TIMEOUT_DEFAULT: 30 s. Each function of the handle that asks the server
 * renews it, a vigie_jobs_take() that waits too: a job that takes longer needs vigie_jobs_renew().
 * Ownership: *out is the caller's, for vigie_jobs_free(). name and worker are copied. client is kept alive.
 * Blocks: no.
 * Threads: [T].
 * Errors: VIGIE_ERR_INVALID_ARG: client, name or out is NULL, name or worker is empty, name has braces without a hash tag, is nothing
 * but a hash tag, or looks like a key of another list, worker has more than 128 bytes, or lease_ms is too short;
 * VIGIE_ERR_INVALID_STATE: client is a session or for replicas; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED;
 * VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_jobs_for(vigie_client *client,
                            const char *name,
                            const char *worker,
                            int64_t lease_ms,
                            vigie_jobs **out,
                            vigie_error **err);

/**
 * Limits how often a job is handed out: a job whose redelivered is max_deliveries or more is not handed out by this worker any more. It goes
 * to the list {name}:failed, from which nobody takes, and the next job is looked for. So a job at which every worker dies stops nobody. 0,
 * as from the beginning: no limit. redelivered counts also what may not have been handed out, after lost answers and in failovers.
 *
 * Ownership: nothing changes hands.
 * Blocks: no.
 * Threads: [T]. A take under way may go by the limit before.
 * Errors: VIGIE_ERR_INVALID_ARG: jobs is NULL; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
vigie_status vigie_jobs_limit_deliveries(vigie_jobs *jobs,
                                         uint32_t max_deliveries,
                                         vigie_error **err);

/**
 * Pushes a job to the list with this key. To keep it through failovers the client needs the option write.replicas. It is never pushed
 * twice: after an error with VIGIE_EF_MAYBE_EXECUTED it may be there or not.
 *
 * Lengths: payload_len is the bytes of payload. id has 1 to 64 of A-Z a-z 0-9 . _ -; NULL: a random one. timeout_ms is in milliseconds.
 * Ownership: nothing changes hands; name, id and payload are only read.
 * Blocks: up to timeout_ms.
 * Threads: [T].
 * Errors: as vigie_cmd_exec(); VIGIE_ERR_INVALID_ARG: client or name is NULL, payload is NULL with a length, a bad name or id.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_jobs_push(vigie_client *client,
                             const char *name,
                             const char *id,
                             const void *payload,
                             size_t payload_len,
                             int64_t timeout_ms,
                             vigie_error **err);

/**
 * Pushes a job without waiting: as vigie_jobs_push(), and the length of the list is the reply of one VIGIE_EVENT_COMPLETION with this
 * token, an INT.
 *
 * Lengths: payload_len is the bytes of payload. id as for vigie_jobs_push(). timeout_ms is in milliseconds.
 * Ownership: nothing changes hands; name, id and payload are copied.
 * Blocks: no.
 * Threads: [T].
 * Errors: refused, and without a completion: as vigie_batch_submit(); VIGIE_ERR_INVALID_ARG: client, name or queue is NULL, payload is
 * NULL with a length, a bad name or id. The others of vigie_jobs_push() arrive with the completion.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_jobs_push_submit(vigie_client *client,
                                    const char *name,
                                    const char *id,
                                    const void *payload,
                                    size_t payload_len,
                                    int64_t timeout_ms,
                                    vigie_queue *queue,
                                    uint64_t token,
                                    vigie_error **err);

/**
 * Takes the next job: a MAP of id, payload and redelivered, an INT that is above 0 if the job may have been handed out before. *out is
 * NULL with VIGIE_OK if there was none in the time. The first take of a handle begins with what its worker's name had in hand;
 * takes look, twice in the length of a lease, for workers whose lease is over. While there is no primary it waits for the next one.
 * After a lost answer it compares the lists, and nothing is lost.
 *
 * Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT: the option timeout.call. VIGIE_TIMEOUT_NONE: no limit. Any other value
 * <= 0: what is there now, without waiting for more.
 * Ownership: *out is the caller's, for vigie_reply_free().
 * Blocks: up to timeout_ms, 0.25 s more where the server's last answer is late, and up to timeout.call more for a job that came
 * at the end, or to hand back what a dead worker has, for which it looks at its beginning. With timeout_ms <= 0 up to timeout.call for the
 * server's answers. vigie_jobs_stop() ends all of that.
 * Threads: [T], but one thread at a time takes.
 * Errors: as vigie_cmds_exec(), when the list was out of reach at the end of the time; VIGIE_ERR_CANCELLED: after vigie_jobs_stop();
 * VIGIE_ERR_INVALID_STATE: another thread takes with this handle, or another process has the same worker name; VIGIE_ERR_REPLICAS: fewer
 * replicas than write.replicas have it: it stays in the processing list, and is tried again by the next take; VIGIE_ERR_INVALID_ARG:
 * jobs or out is NULL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_jobs_take(vigie_jobs *jobs,
                             int64_t timeout_ms,
                             vigie_reply **out,
                             vigie_error **err);

/**
 * Takes the next job without waiting: as vigie_jobs_take(), and the job is the reply of one VIGIE_EVENT_COMPLETION with this token. A
 * completion with VIGIE_OK and no reply: there was none in the time. No thread waits meanwhile: neither for a job, nor for a primary.
 *
 * vigie_queue_cancel() with the token and vigie_jobs_stop() end it with VIGIE_ERR_CANCELLED, within about 50 ms where a server waits for
 * a job. What it had taken by then stays in the processing list: the next take hands it out, marked.
 *
 * Lengths: timeout_ms is in milliseconds, for the whole operation. VIGIE_TIMEOUT_DEFAULT: the option timeout.call.
 * Ownership: nothing changes hands. The handle may be freed before the completion arrives.
 * Blocks: no.
 * Threads: [T].
 * Errors: refused, and without a completion: VIGIE_ERR_INVALID_ARG: jobs or queue is NULL; VIGIE_ERR_INVALID_STATE: another take is
 * under way; VIGIE_ERR_QUEUE_FULL;
 * VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. The others of vigie_jobs_take() arrive with the completion.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_jobs_take_submit(vigie_jobs *jobs,
                                    int64_t timeout_ms,
                                    vigie_queue *queue,
                                    uint64_t token,
                                    vigie_error **err);

/**
 * Acknowledges a job: it is done, and is removed. If the answer is lost, the processing list is looked at before it is sent again.
 *
 * Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT: the option timeout.call.
 * Ownership: nothing changes hands; id is only read.
 * Blocks: up to timeout_ms.
 * Threads: [T].
 * Errors: as vigie_cmd_exec(): the job stays in the hand of this worker, whose takes do
 * not hand it out again: acknowledge it again with the same id; but for VIGIE_ERR_REPLICAS: removed, and fewer
 * replicas know of it; VIGIE_ERR_INVALID_STATE: it is not in hand, or not any more, because the lease was over: it is done again
 * elsewhere; VIGIE_ERR_INVALID_ARG: jobs or id is NULL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_jobs_ack(vigie_jobs *jobs,
                            const char *id,
                            int64_t timeout_ms,
                            vigie_error **err);

/**
 * Acknowledges a job without waiting: as vigie_jobs_ack(), and its outcome is one VIGIE_EVENT_COMPLETION with this token, without a reply.
 * A lost answer is looked up as there. After vigie_queue_cancel() the job is acknowledged or in hand: to acknowledge it again finds out.
 *
 * Lengths: timeout_ms is in milliseconds, for the whole operation. VIGIE_TIMEOUT_DEFAULT: the option timeout.call. Any other
 * value <= 0 is refused.
 * Ownership: nothing changes hands; id is only read. The handle may be freed before the completion arrives.
 * Blocks: no.
 * Threads: [T].
 * Errors: refused, and without a completion: VIGIE_ERR_TIMEOUT: timeout_ms leaves no time; VIGIE_ERR_INVALID_ARG: jobs, id or queue is NULL; VIGIE_ERR_INVALID_STATE:
 * the job is not in hand; VIGIE_ERR_QUEUE_FULL;
 * VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. The others of vigie_jobs_ack() arrive with the completion.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_jobs_ack_submit(vigie_jobs *jobs,
                                   const char *id,
                                   int64_t timeout_ms,
                                   vigie_queue *queue,
                                   uint64_t token,
                                   vigie_error **err);

/**
 * Hands a job back: it comes behind those that wait, and is taken again by any worker, marked.
 *
 * Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT: the option timeout.call.
 * Ownership: nothing changes hands; id is only read.
 * Blocks: up to timeout_ms.
 * Threads: [T].
 * Errors: as vigie_jobs_ack(); VIGIE_ERR_REPLICAS: handed back, and fewer replicas than write.replicas know so.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE vigie_status vigie_jobs_return(vigie_jobs *jobs, const char *id, int64_t timeout_ms, vigie_error **err);

/**
 * Hands a job back without waiting: as vigie_jobs_return(), and its outcome is one VIGIE_EVENT_COMPLETION with this token, without a reply.
 *
 * Lengths: timeout_ms is in milliseconds, for the whole operation. VIGIE_TIMEOUT_DEFAULT: the option timeout.call. Any other
 * value <= 0 is refused.
 * Ownership: nothing changes hands; id is only read. The handle may be freed before the completion arrives.
 * Blocks: no.
 * Threads: [T].
 * Errors: refused, and without a completion: VIGIE_ERR_TIMEOUT: timeout_ms leaves no time; VIGIE_ERR_INVALID_ARG: jobs, id or queue is NULL; VIGIE_ERR_INVALID_STATE:
 * the job is not in hand; VIGIE_ERR_QUEUE_FULL;
 * VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. The others of vigie_jobs_return() arrive with the completion.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_jobs_return_submit(vigie_jobs *jobs,
                                      const char *id,
                                      int64_t timeout_ms,
                                      vigie_queue *queue,
                                      uint64_t token,
                                      vigie_error **err);

/**
 * Renews the lease, for a job that takes longer than that.
 *
 * Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT: the option timeout.call.
 * Ownership: nothing changes hands.
 * Blocks: up to timeout_ms.
 * Threads: [T].
 * Errors: as vigie_cmds_exec(); VIGIE_ERR_INVALID_STATE: the lease was over, and other workers may have the jobs, or another process has
 * the same worker name; VIGIE_ERR_INVALID_ARG: jobs is NULL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_jobs_renew(vigie_jobs *jobs,
                              int64_t timeout_ms,
                              vigie_error **err);

/**
 * Renews the lease without waiting: as vigie_jobs_renew(), and its outcome is one VIGIE_EVENT_COMPLETION with this token, without a reply.
 *
 * Lengths: timeout_ms is in milliseconds, for the whole operation. VIGIE_TIMEOUT_DEFAULT: the option timeout.call. Any other
 * value <= 0 is refused.
 * Ownership: nothing changes hands. The handle may be freed before the completion arrives.
 * Blocks: no.
 * Threads: [T].
 * Errors: refused, and without a completion: VIGIE_ERR_TIMEOUT: timeout_ms leaves no time; VIGIE_ERR_INVALID_ARG: jobs or queue is NULL; VIGIE_ERR_QUEUE_FULL;
 * VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. The others of
 * vigie_jobs_renew() arrive with the completion.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_jobs_renew_submit(vigie_jobs *jobs,
                                     int64_t timeout_ms,
                                     vigie_queue *queue,
                                     uint64_t token,
                                     vigie_error **err);

/**
 * Ends the vigie_jobs_take() or vigie_jobs_take_submit() under way, and all later ones, with VIGIE_ERR_CANCELLED. A job that comes in that moment is handed out, or
 * stays in the list. What is in hand can be acknowledged.
 *
 * Ownership: nothing changes hands.
 * Blocks: no.
 * Threads: any thread, also while another one takes; not from a signal handler.
 * Errors: VIGIE_ERR_INVALID_ARG: jobs is NULL; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
 * Since: 0.1.0.
 */
vigie_status vigie_jobs_stop(vigie_jobs *jobs,
                             vigie_error **err);

/**
 * Stops the worker, hands back what it has in hand, and ends its lease, so that others need not wait for its end.
 *
 * Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT: the option timeout.call.
 * Ownership: nothing changes hands; the handle is still for vigie_jobs_free().
 * Blocks: up to timeout_ms.
 * Threads: [T].
 * Errors: as vigie_cmds_exec(): others hand the jobs back when the lease is over; VIGIE_ERR_REPLICAS: handed back and closed, and
 * fewer replicas than write.replicas know so; VIGIE_ERR_INVALID_ARG: jobs is NULL.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_jobs_close(vigie_jobs *jobs,
                              int64_t timeout_ms,
                              vigie_error **err);

/**
 * Stops the worker at once, and closes it without waiting: as vigie_jobs_close(), and its outcome is one VIGIE_EVENT_COMPLETION with this
 * token, without a reply. A vigie_jobs_take_submit() under way ends with VIGIE_ERR_CANCELLED before.
 *
 * Lengths: timeout_ms is in milliseconds, for the whole operation. VIGIE_TIMEOUT_DEFAULT: the option timeout.call. Any other
 * value <= 0 is refused.
 * Ownership: nothing changes hands. The handle may be freed before the completion arrives.
 * Blocks: no.
 * Threads: [T].
 * Errors: refused, and without a completion: VIGIE_ERR_TIMEOUT: timeout_ms leaves no time; VIGIE_ERR_INVALID_ARG: jobs or queue is NULL; VIGIE_ERR_QUEUE_FULL;
 * VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. The others of
 * vigie_jobs_close() arrive with the completion.
 * Since: 0.1.0.
 */
VIGIE_MUST_USE
vigie_status vigie_jobs_close_submit(vigie_jobs *jobs,
                                     int64_t timeout_ms,
                                     vigie_queue *queue,
                                     uint64_t token,
                                     vigie_error **err);

/**
 * Frees a worker. What it has in hand stays in its processing list: vigie_jobs_close() hands it back before.
 *
 * Ownership: the handle is gone; NULL is a no-op. In a forked child the memory is left alone.
 * Blocks: no.
 * Threads: any thread, when no other uses this handle.
 * Errors: none.
 * Since: 0.1.0.
 */
void vigie_jobs_free(vigie_jobs *jobs);

#ifdef __cplusplus
} /* extern "C" */
#endif /* __cplusplus */

#endif  /* VIGIE_H */
