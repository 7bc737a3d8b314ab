//! Clients and sessions as C sees them: how they are made, and how they run commands.

use std::ffi::{c_char, c_int, c_void};

use super::args::{self, Argv};
use super::handle::{self, Either, Noun};
use super::inherited::Open;
use super::shards;
use super::types::{
    Sharded, vigie_client, vigie_config, vigie_error, vigie_queue, vigie_reply, vigie_sentinel, vigie_status,
};
use super::{batch, config, dispose, guard, reply, total};
use crate::client::{CallFlags, Client, Target, Timeout};
use crate::config::Config;
use crate::error::Result;
use crate::shard::Shards;

impl Noun for vigie_client {
    type Value = Open<Client>;
    const MAGIC: u64 = u64::from_be_bytes(*b"vgi.clie");
    const PLAIN: bool = false;
    const INHERITED: bool = true;

    fn reopen(value: &Open<Client>, name: &str) -> Result<()> {
        value.reopen(name)
    }
}

/// The same of either kind of client.
macro_rules! either {
    ($client:expr, $($call:tt)*) => {
        match $client {
            Either::One(client) => client.$($call)*,
            Either::Other(shards) => shards.$($call)*,
        }
    };
}

/// The three constructors differ in the target only.
///
/// # Safety
/// As for the functions that call it.
unsafe fn open(
    sentinel: *mut vigie_sentinel,
    service: *const c_char,
    target: Target,
    overrides: *const vigie_config,
    out: *mut *mut vigie_client,
) -> Result<()> {
    // SAFETY: as for this function.
    unsafe {
        args::wanted(out)?;
        let sentinel = handle::borrow(sentinel, "sentinel")?;
        let service = args::optional(service, "service", "the configured one")?;
        let open = |config: Option<&Config>| Client::open(&sentinel, service, target, config);
        args::put(out, Open::new(config::with_overrides(overrides, open)?, Some(&sentinel)));
        Ok(())
    }
}

/// A client that runs every command on the primary of a service, and follows it over failovers. Lazy: nothing is
/// connected before the first command, unless the option pool.eager says so.
///
/// Ownership: *out is the caller's, for vigie_client_free(). service (NULL: the option service) and overrides are
/// copied. overrides may be NULL; it holds only options that CONFIGURATION.md marks for overrides (pool, lane, retry,
/// replica, timeouts, db).
/// Blocks: no; with the option pool.eager up to its timeout.call, because it runs a PING.
/// Threads: [T]; overrides is [C] meanwhile.
/// Errors: VIGIE_ERR_CONFIG: overrides; or no service is named anywhere; VIGIE_ERR_INVALID_ARG: sentinel or out is
/// NULL, or service is empty; VIGIE_ERR_INVALID_STATE: another thread changes overrides; VIGIE_ERR_CLOSED;
/// VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. With pool.eager also those of vigie_cmd_exec().
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_primary_for(
    sentinel: *mut vigie_sentinel,
    service: *const c_char,
    overrides: *const vigie_config,
    out: *mut *mut vigie_client,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_primary_for", err, || open(sentinel, service, Target::Primary, overrides, out))
    }
}

/// A client that reads from the fit replicas of a service; the option replica.fallback (primary or error) says what
/// happens when there is none. A command that writes is refused, even then. A scan (SCAN and its kin) stays on the
/// node on which it began, because this handle remembers which node gave each of its last 4096 cursors. One whose node
/// is not read from any more, or was restarted, gives VIGIE_ERR_SCAN_INTERRUPTED. Use a cursor only with the handle that
/// returned it: one that the handle does not know (another handle's, or one that it has forgotten) goes to the node on
/// which its last scan began, which takes it for its own, so that keys are missed without an error. It gives
/// VIGIE_ERR_SCAN_INTERRUPTED only if the handle has begun no scan, or that node is gone. On clients of vigie_primary_for()
/// and vigie_split_for() unknown cursors go to the primary. Lazy as vigie_primary_for().
///
/// Ownership: *out is the caller's, for vigie_client_free(). service (NULL: the option service) and overrides (may be
/// NULL) are copied.
/// Blocks: no; with the option pool.eager up to its timeout.call, because it runs a PING.
/// Threads: [T]; overrides is [C] meanwhile.
/// Errors: as vigie_primary_for().
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_replica_for(
    sentinel: *mut vigie_sentinel,
    service: *const c_char,
    overrides: *const vigie_config,
    out: *mut *mut vigie_client,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_replica_for", err, || open(sentinel, service, Target::Replica, overrides, out))
    }
}

/// A client that sends commands that only read to the replicas of a service, and everything else to the primary.
/// VIGIE_CALL_ON_PRIMARY sends one read to the primary too. To the primary go also EVALSHA_RO, because a script that was
/// loaded there is not replicated (a function is: FCALL_RO goes to the replicas, as EVAL_RO does), and SCAN and its kin,
/// whose cursors belong to one node. Lazy as vigie_primary_for().
///
/// Ownership: *out is the caller's, for vigie_client_free(). service (NULL: the option service) and overrides (may be
/// NULL) are copied.
/// Blocks: no; with the option pool.eager up to its timeout.call, because it runs a PING.
/// Threads: [T]; overrides is [C] meanwhile.
/// Errors: as vigie_primary_for().
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_split_for(
    sentinel: *mut vigie_sentinel,
    service: *const c_char,
    overrides: *const vigie_config,
    out: *mut *mut vigie_client,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_split_for", err, || open(sentinel, service, Target::Split, overrides, out))
    }
}

/// A session: a client pinned to one connection of its own, taken at the first command; commands run in call order. For WATCH,
/// SELECT, CLIENT, MULTI by hand. On a client of vigie_primary_for() or vigie_split_for() it is on the primary, on one of
/// vigie_replica_for() on a replica, where a write gives VIGIE_ERR_READ_ONLY. It never moves to another node: once its connection
/// is lost, EXEC, alone or in a list, gives VIGIE_ERR_TXN_ABORTED and any other command VIGIE_ERR_IO, each without
/// VIGIE_EF_RETRYABLE, because nothing can succeed on it any more: make a new session, and begin the transaction again.
/// VIGIE_ERR_TXN_ABORTED with VIGIE_EF_RETRYABLE means that a watched key was changed: begin the transaction again on this
/// session. Its writes wait for replicas and disks as those of its client do (write.replicas, write.aof), a transaction behind EXEC;
/// VIGIE_ERR_REPLICAS leaves the session as it is. vigie_client_free() returns the connection to the pool, or closes it if its state was changed (MULTI, WATCH, another
/// db, an error).
///
/// Lengths: key_len is the bytes of key. On a client of vigie_shards_for() the session is on the shard of this key, and
/// takes commands for that shard; with one service it is only checked, and may be NULL.
/// Ownership: *out is the caller's, for vigie_client_free(). key and overrides (may be NULL) are copied.
/// Blocks: no.
/// Threads: [T]; overrides is [C] meanwhile.
/// Errors: as vigie_primary_for(); VIGIE_ERR_INVALID_STATE: client is a session itself; VIGIE_ERR_INVALID_ARG: client or
/// out is NULL, or key is NULL with a length. Of a call in a session of vigie_shards_for() also VIGIE_ERR_CROSS_SHARD: a key or a
/// channel is on another shard; nothing was sent. Its tags are stripped as elsewhere; a command that this version does not know,
/// and one without keys, goes to the session's shard as it is.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_session_for(
    client: *mut vigie_client,
    key: *const c_void,
    key_len: usize,
    overrides: *const vigie_config,
    out: *mut *mut vigie_client,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_session_for", err, || {
            args::wanted(out)?;
            let client = shards::any(client)?;
            let bytes = args::bytes(key.cast(), key_len, "key")?;
            let key = if key.is_null() { None } else { Some(bytes) };
            let made = config::with_overrides(overrides, |config| match &client {
                Either::One(client) => client.session(config),
                Either::Other(shards) => shards.session(key, config),
            })?;
            // Without a handle to be made anew from: a session is a conversation of this process.
            args::put(out, Open::new(made, None));
            Ok(())
        })
    }
}

/// Runs one command and waits for its reply. An error reply of the server is VIGIE_ERR_SERVER. A blocking command
/// (BLPOP and the like) is recognised and gets a connection of its own; VIGIE_TIMEOUT_DEFAULT is then its own timeout
/// and the option timeout.call (5 s) as a grace, and no limit if its own timeout is 0. A failover ends it: one that
/// may take something (BLPOP) gives VIGIE_ERR_IO with VIGIE_EF_MAYBE_EXECUTED, because the element may have been taken
/// and the reply lost; one that only reads (XREAD BLOCK), or one with VIGIE_CALL_IDEMPOTENT, is sent again to the new
/// primary unchanged, so its own timeout starts again, and an XREAD from $ does not see entries that were added in
/// between. A command of a module blocks if the server's own list (COMMAND) says so, and has a connection of its own until
/// the server has said that it does not. EXEC answered null is VIGIE_ERR_TXN_ABORTED. While there is no primary, or no Sentinel tells of one, the
/// call waits for the next one, within its timeout; so does a write while the Sentinels prepare another primary. A
/// write that the old primary answers after the new one has taken over gives VIGIE_ERR_IO, and may have run; its
/// answer is in vigie_error_reply().
///
/// Lengths: argc counts argv, the command's name included; argvlen has the bytes of each argument, or is NULL when
/// each ends with a NUL. An argument that is NULL with length 0 is empty. VIGIE_CMD() makes the three from texts.
/// timeout_ms is in milliseconds, and the whole budget, waiting and retries included. VIGIE_TIMEOUT_DEFAULT: the
/// option timeout.call. VIGIE_TIMEOUT_NONE: no limit. Any other value <= 0: VIGIE_ERR_TIMEOUT, and nothing is sent.
/// flags: VIGIE_CALL_* bits, or 0. VIGIE_CALL_REPLICAS(n) among them: a write is done when n replicas have it (in
/// place of the option write.replicas), n from 0 to 255; n counts for calls that write and do not block; in a
/// transaction that a session has begun by hand it belongs to EXEC, and gives VIGIE_ERR_INVALID_ARG with a write before it. A WAIT or
/// WAITAOF asks about the writes of its own connection: outside a session it is answered on another one than the write, and says
/// nothing about it. Use VIGIE_CALL_REPLICAS(n), or a session for both.
/// Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL: the reply is discarded. Arguments are
/// only read.
/// Blocks: up to timeout_ms.
/// Threads: [T]. A thread must not be left by longjmp during the call; pthread cancellation waits for its end.
/// Errors: VIGIE_ERR_SERVER, VIGIE_ERR_TIMEOUT, VIGIE_ERR_IO, VIGIE_ERR_CONNECT, VIGIE_ERR_RESOLVE, VIGIE_ERR_AUTH,
/// VIGIE_ERR_PROTOCOL, VIGIE_ERR_LIMIT, VIGIE_ERR_NO_SENTINEL, VIGIE_ERR_UNKNOWN_SERVICE, VIGIE_ERR_NO_PRIMARY,
/// VIGIE_ERR_NO_REPLICA, VIGIE_ERR_ROLE, VIGIE_ERR_SPLIT_VIEW; VIGIE_ERR_READ_ONLY: a write on a client for replicas;
/// VIGIE_ERR_UNSUPPORTED: a command that changes the connection's state, outside a session; VIGIE_ERR_FENCED: a write
/// that was held back until the end of its time, and not sent; VIGIE_ERR_REPLICAS: executed, but fewer replicas have
/// it than asked (vigie_error_count()); VIGIE_ERR_CONFIG: VIGIE_CALL_REPLICAS(n) below all replicas without
/// failover.fence and monitor on; VIGIE_ERR_POOL_TIMEOUT, VIGIE_ERR_POOL_BUSY; VIGIE_ERR_TXN_ABORTED; VIGIE_ERR_INVALID_ARG;
/// VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. vigie_error_flags() says whether it may have run.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_cmd_exec(
    client: *mut vigie_client,
    argc: usize,
    argv: *const *const c_char,
    argvlen: *const usize,
    flags: u32,
    timeout_ms: i64,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_cmd_exec", err, || {
            let client = match shards::any(client)? {
                Either::One(client) => client,
                Either::Other(shards) => {
                    return exec_sharded(&shards, Argv { argc, argv, argvlen }, flags, timeout_ms, out);
                }
            };
            let flags = CallFlags::from_bits(flags)?;
            let reply = Argv { argc, argv, argvlen }.with(|args| {
                panic_on_request(args);
                client.cmd_exec(args, flags, Timeout::from_ms(timeout_ms))
            })?;
            reply::put(out, reply);
            Ok(())
        })
    }
}

/// As vigie_cmd_exec(), over several shards. Not on the way of a call to one service.
///
/// # Safety
/// As for vigie_cmd_exec().
#[inline(never)]
unsafe fn exec_sharded(
    shards: &Shards,
    command: Argv,
    flags: u32,
    timeout_ms: i64,
    out: *mut *mut vigie_reply,
) -> Result<()> {
    let flags = CallFlags::from_bits(flags)?;
    // SAFETY: as for this function.
    unsafe {
        reply::put(out, command.with(|args| shards.cmd_exec(args, flags, Timeout::from_ms(timeout_ms)))?);
    }
    Ok(())
}

/// Runs a list of commands (a pipeline) and waits for all replies. The reply is an ARRAY with one node for each
/// command, in order; the error reply of a command is a node of type VIGIE_TYPE_ERROR, and the others run all the
/// same. All commands go to one node, but for a client over shards, which deals them out. A blocking command, WAIT among them, cannot be part of a list
/// (VIGIE_ERR_UNSUPPORTED): it runs by itself. An EXEC among them (in a session) that is answered null is
/// VIGIE_ERR_TXN_ABORTED for the whole list, and vigie_error_reply() has the replies.
///
/// With VIGIE_CALL_ATOMIC the list is one transaction: the library puts MULTI and EXEC around it and sends it in one piece, on a
/// connection that other calls share; the reply is the ARRAY of EXEC. A command that fails while it runs is a node of type
/// VIGIE_TYPE_ERROR, and the others have run. A command that the server does not take in (unknown, wrong arguments) discards the
/// transaction: VIGIE_ERR_SERVER with the code EXECABORT; the message names the command, and vigie_error_reply() has what was
/// answered to each. Once EXEC was sent the list is not sent again, whatever it holds: a lost answer is VIGIE_ERR_IO with
/// VIGIE_EF_MAYBE_EXECUTED. It is sent again as a whole if EXEC was not sent, or if the server has discarded it for a reason that
/// passes (READONLY, LOADING, ...). BLPOP and its kin do not block in it. It cannot hold what changes the connection's state, WATCH
/// and UNWATCH, MULTI, EXEC and DISCARD, or a scan. In a session it comes after the session's WATCH: if a watched key was changed, or
/// a failover was in between, it gives VIGIE_ERR_TXN_ABORTED, and nothing has run. Each connection is asked once, with MULTI and
/// DISCARD, whether the server lets this user do so: if not the list gives VIGIE_ERR_UNSUPPORTED, and nothing has run. If that
/// permission is taken away later, the same error carries VIGIE_EF_MAYBE_EXECUTED and the replies, because the commands have run one by one.
///
/// Lengths: commands_len is the bytes of commands, RESP arrays of bulk strings one after the other: vigie_batch_data() gives
/// them; vigie_batch_exec() takes a vigie_batch as it is. timeout_ms and flags are those of vigie_cmd_exec(), for the list as a
/// whole: VIGIE_CALL_REPLICAS(n) waits once, behind the last command, or behind EXEC. VIGIE_CALL_EACH: the list holds one
/// command, and reply and error are as those of vigie_cmd_exec().
/// Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL: the replies are discarded. commands is
/// only read.
/// Blocks: up to timeout_ms.
/// Threads: [T].
/// Errors: as vigie_cmd_exec(), VIGIE_ERR_FENCED and VIGIE_ERR_REPLICAS too; VIGIE_ERR_SERVER only with
/// VIGIE_CALL_EACH or VIGIE_CALL_ATOMIC, or if the connection could not be set up; VIGIE_ERR_INVALID_STATE: VIGIE_CALL_ATOMIC in a
/// session that is in a MULTI by hand; VIGIE_ERR_INVALID_ARG: also VIGIE_CALL_ATOMIC with what a transaction cannot hold, with
/// VIGIE_CALL_EACH or with VIGIE_CALL_IDEMPOTENT; a list that is empty, is not RESP (the message has the byte offset), or comes from a
/// vigie_batch that was misused. Nothing was sent then.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_cmds_exec(
    client: *mut vigie_client,
    commands: *const c_void,
    commands_len: usize,
    flags: u32,
    timeout_ms: i64,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_cmds_exec", err, || {
            let commands = args::bytes(commands.cast(), commands_len, "commands")?;
            batch::refuse_misused(commands)?;
            exec_list(client, commands, flags, timeout_ms, out)
        })
    }
}

/// # Safety
/// As for vigie_cmds_exec().
pub(super) unsafe fn exec_list(
    client: *mut vigie_client,
    commands: &[u8],
    flags: u32,
    timeout_ms: i64,
    out: *mut *mut vigie_reply,
) -> Result<()> {
    // SAFETY: as for this function.
    unsafe {
        let client = shards::any(client)?;
        let (flags, timeout) = (CallFlags::from_bits(flags)?, Timeout::from_ms(timeout_ms));
        let reply = match client {
            Either::One(client) => client.cmds_exec(commands, flags, timeout),
            Either::Other(shards) => shards.cmds_exec(commands, flags, timeout),
        };
        reply::put(out, reply?);
    }
    Ok(())
}

/// Runs a list of commands without waiting: as vigie_cmds_exec(), and its outcome arrives on a queue, as one
/// VIGIE_EVENT_COMPLETION with this token for each call that returned VIGIE_OK. With VIGIE_CALL_EACH every command of the
/// list is a call of its own: command i completes with token + i, its bare reply and its own error, as vigie_cmd_exec()
/// would give them. Calls of one client to one node start in the order of their submission, and what has to be tried again
/// keeps it; they travel on a connection of their own, which blocking calls do not share. Writes that replicas must
/// have (VIGIE_CALL_REPLICAS(n)) and blocking commands have others beside it. On a client of vigie_shards_for() this is so for each shard;
/// a command with keys on several shards does not wait for the submits before it, nor those behind it for its end: where their order
/// counts put them in one list without VIGIE_CALL_EACH, or wait for its completion. The rules of retry and failover are those
/// of vigie_cmds_exec(). Replies are read by a vigie_queue_drain() that waits, or else by a thread of the library.
///
/// On a session calls start in call order on its connection, so that WATCH and VIGIE_CALL_ATOMIC need no thread that waits; calls of
/// vigie_cmd_exec() on it keep that order too. They wait for a primary and behind the fence within their timeouts. A call that ends
/// without an answer, because the connection was lost, or because the call was late or cancelled, ends the session: what was
/// submitted behind it does not run, and gives VIGIE_ERR_IO, or VIGIE_ERR_TXN_ABORTED for EXEC and VIGIE_CALL_ATOMIC. After the first submit
/// the connection of a session is not returned to the pool any more, but closed in the end.
///
/// Lengths: commands_len is the bytes of commands. timeout_ms and flags are those of vigie_cmds_exec(), for each call.
/// Ownership: commands is copied. The queue may be freed while calls are running: they go on, and their completions
/// are dropped.
/// Blocks: no. It does not resolve, connect or wait; at most it hands bytes to the system.
/// Threads: [T].
/// Errors: VIGIE_ERR_QUEUE_FULL: the queue has no room for so many completions, or holds as many bytes as the option
/// submit.max_bytes allows: drain it, then submit again (nothing of the list was taken; a list of more calls than the
/// queue's capacity never fits); VIGIE_ERR_TIMEOUT: timeout_ms <= 0, and neither VIGIE_TIMEOUT_DEFAULT nor
/// VIGIE_TIMEOUT_NONE; VIGIE_ERR_UNSUPPORTED; VIGIE_ERR_READ_ONLY; VIGIE_ERR_INVALID_ARG: client or
/// queue is NULL, or as vigie_cmds_exec(); VIGIE_ERR_CONFIG; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. A
/// list that is refused here has no completion.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_cmds_submit(
    client: *mut vigie_client,
    commands: *const c_void,
    commands_len: usize,
    flags: u32,
    timeout_ms: i64,
    queue: *mut vigie_queue,
    token: u64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_cmds_submit", err, || {
            let commands = args::bytes(commands.cast(), commands_len, "commands")?;
            batch::refuse_misused(commands)?;
            submit_list(client, commands, flags, timeout_ms, queue, token)
        })
    }
}

/// # Safety
/// As for vigie_cmds_submit().
pub(super) unsafe fn submit_list(
    client: *mut vigie_client,
    commands: &[u8],
    flags: u32,
    timeout_ms: i64,
    queue: *mut vigie_queue,
    token: u64,
) -> Result<()> {
    // SAFETY: as for this function.
    let (client, queue) = unsafe { (shards::any(client)?, handle::borrow(queue, "queue")?) };
    let (flags, timeout) = (CallFlags::from_bits(flags)?, Timeout::from_ms(timeout_ms));
    match client {
        Either::One(client) => client.cmds_submit(commands, flags, timeout, &queue.0, token),
        Either::Other(shards) => shards.cmds_submit(commands, flags, timeout, &queue.0, token),
    }
}

/// What this client knows now, without asking anybody: a MAP with the service, its primary and its replicas. TOPOLOGY.md
/// lists the keys. Of a client of vigie_shards_for(): a MAP whose key shards has such a MAP for the name of each shard.
///
/// Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
/// Blocks: no.
/// Threads: [T].
/// Errors: VIGIE_ERR_INVALID_ARG: client is NULL; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_client_topology(
    client: *mut vigie_client,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_client_topology", err, || {
            reply::put(out, either!(shards::any(client)?, topology())?);
            Ok(())
        })
    }
}

/// What this client has done: a MAP of counters, whose keys STATISTICS.md lists. Unknown keys must be ignored: more will come. Of a
/// client of vigie_shards_for(): a MAP whose key shards has such a MAP for the name of each shard.
///
/// Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
/// Blocks: no.
/// Threads: [T].
/// Errors: VIGIE_ERR_INVALID_ARG: client is NULL; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_client_stats(
    client: *mut vigie_client,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_client_stats", err, || {
            reply::put(out, either!(shards::any(client)?, stats())?);
            Ok(())
        })
    }
}

/// The same figures as text for Prometheus, as vigie_sentinel_metrics() gives those of a handle: for this client and its service, and of a
/// client of vigie_shards_for() for all shards, each sample with a label shard (its name, such as node_2) in front of service. A shard
/// that is no service of the Sentinels is in no text of a vigie_sentinel, and its service is its name; endpoint has the address of each
/// node. The families of the handle itself are not there.
///
/// Lengths: flags: VIGIE_METRICS_OPENMETRICS, or 0.
/// Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
/// Blocks: no.
/// Threads: [T].
/// Errors: VIGIE_ERR_INVALID_ARG: client is NULL, or other flags; VIGIE_ERR_LIMIT: no memory for the text; VIGIE_ERR_CLOSED;
/// VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_client_metrics(
    client: *mut vigie_client,
    flags: u32,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_client_metrics", err, || {
            let client = shards::any(client)?;
            let is_open = args::is_open_metrics(flags)?;
            reply::put(out, either!(client, metrics(is_open))?);
            Ok(())
        })
    }
}

/// Closes idle connections at once and busy ones when their calls end; the next call connects again, perhaps to
/// another replica.
///
/// Ownership: nothing to free.
/// Blocks: no.
/// Threads: [T].
/// Errors: VIGIE_ERR_INVALID_ARG: client is NULL; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_client_disconnect(
    client: *mut vigie_client,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe { guard("vigie_client_disconnect", err, || either!(shards::any(client)?, disconnect())) }
}

/// Refuses new calls, ends idle blocking commands at once, lets other calls finish for timeout_ms, then ends them
/// with VIGIE_ERR_CLOSED. A second close is a no-op.
///
/// Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT: the option timeout.call. VIGIE_TIMEOUT_NONE: no
/// limit. Any other value <= 0: calls end at once.
/// Ownership: nothing is freed: vigie_client_free() is still due.
/// Blocks: up to timeout_ms, and up to 100 ms more until the blocking commands that it ended have returned.
/// Threads: [T].
/// Errors: VIGIE_ERR_TIMEOUT: other calls were running at the end and were ended (it is closed all the same);
/// VIGIE_ERR_INVALID_ARG: client is NULL; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_client_close(
    client: *mut vigie_client,
    timeout_ms: i64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe { guard("vigie_client_close", err, || either!(shards::any(client)?, close(Timeout::from_ms(timeout_ms)))) }
}

/// Whether the client was closed: by vigie_client_close(), or with its sentinel. A session is closed also with the client that
/// it was made from. Calls on a closed client give VIGIE_ERR_CLOSED and open no connection.
///
/// Ownership: nothing to free.
/// Blocks: no.
/// Threads: [T].
/// Errors: none: 1 if it was closed, 0 if not; also 1 for what serves no call: NULL, what is no client, and in a forked child
/// a client of the parent that is not made anew there.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_client_is_closed(client: *const vigie_client) -> c_int {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total(1, || unsafe { shards::any(client).ok().map(|client| c_int::from(either!(client, is_closed()))) })
}

/// Frees a client or a session; its connections are closed or go back to the pool. Sessions made from a client go on,
/// and so do running calls of vigie_cmds_submit().
///
/// Ownership: the handle is gone; NULL is a no-op. Freeing twice is not safe. In a forked child what is the parent's is left
/// alone.
/// Blocks: no.
/// Threads: any thread, when no other uses this handle.
/// Errors: none.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_client_free(client: *mut vigie_client) {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        match handle::peek(client.cast_const().cast::<Sharded>()) {
            Some(_) => dispose(client.cast::<Sharded>()),
            None => dispose(client),
        }
    }
}

/// For tests: shows what a panic below the border does to the caller. It does nothing in an ordinary build.
#[inline]
fn panic_on_request(args: &[&[u8]]) {
    #[cfg(feature = "test-panic")]
    assert!(args.first() != Some(&b"VIGIE.PANIC".as_slice()), "VIGIE.PANIC was called");
    let _ = args;
}
