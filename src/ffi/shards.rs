//! Clients over several shards as C sees them: how they are made and changed. C calls them vigie_client, as any other.

use std::ffi::{c_char, c_void};
use std::ops::Deref;
use std::slice;
use std::sync::Arc;

use super::args;
use super::config::with_overrides;
use super::handle::{self, Either, Noun};
use super::inherited::Open;
use super::types::{Sharded, vigie_client, vigie_config, vigie_error, vigie_sentinel, vigie_status};
use super::{guard, total};
use crate::client::Client;
use crate::config::Config;
use crate::error::{Error, Result, Status};
use crate::shard::{MOST_SHARDS, OwnHash, Shards};

impl Noun for Sharded {
    type Value = Open<Shards>;
    const MAGIC: u64 = u64::from_be_bytes(*b"vgi.shrd");
    const PLAIN: bool = false;
    const INHERITED: bool = true;

    fn reopen(value: &Open<Shards>, name: &str) -> Result<()> {
        value.reopen(name)
    }
}

/// A client of either kind.
pub(super) type Any<'a> = Either<'a, vigie_client, Sharded>;

/// The client, of whichever kind it is.
///
/// # Safety
/// As for [`handle::borrow`].
#[inline]
pub(super) unsafe fn any<'a>(client: *const vigie_client) -> Result<Any<'a>> {
    // SAFETY: as for this function.
    unsafe { handle::borrow_either(client, "client") }
}

/// The client that serves a key, and the key's name there: of a client over several shards, that of the key's shard.
///
/// # Safety
/// As for [`handle::borrow`].
pub(super) unsafe fn home_of(client: *const vigie_client, key: &str) -> Result<(Arc<Client>, String)> {
    // SAFETY: as for this function.
    match unsafe { any(client)? } {
        Either::One(client) => Ok((Arc::clone(&client), key.to_owned())),
        Either::Other(shards) => shards.home_of(key),
    }
}

/// The texts of an array.
///
/// # Safety
/// `texts` is NULL or holds `count` pointers to texts that end with a NUL.
unsafe fn texts<'a>(texts: *const *const c_char, count: usize) -> Result<Vec<&'a str>> {
    if count == 0 || count > MOST_SHARDS {
        let text = format!("shard_count is {count}, not 1 to {MOST_SHARDS}");
        return Err(Error::new(Status::InvalidArg, text));
    }
    if texts.is_null() {
        return Err(Error::new(Status::InvalidArg, "shards is NULL"));
    }
    // SAFETY: as for this function; not NULL, and the count is small.
    let pointers = unsafe { slice::from_raw_parts(texts, count) };
    // SAFETY: as for this function.
    pointers.iter().map(|text| unsafe { args::text(*text, "one of shards") }).collect()
}

/// A client over several primaries, each with its replicas. It is used as any other client: a command goes to the shard of its
/// key, a list is dealt out to the shards, all of them at the same time, and is answered in its order. Commands with keys on
/// several shards run where that can be done right (MGET, MSET, DEL, SUNION, RENAME and others), and are refused with
/// VIGIE_ERR_CROSS_SHARD before anything is sent where it cannot: docs/sharding.md says which of them are atomic. Reads go to
/// replicas that are fit, as with vigie_split_for(); VIGIE_CALL_ON_PRIMARY and the option shard.primaries_only send them to the
/// primaries. Commands for all nodes (KEYS, SCAN, DBSIZE, INFO, FLUSHALL) run on every primary; the reply of most is a MAP from the
/// name of each shard to its answer, with an error for a shard that has failed; if all have failed the call fails, with the error of the
/// first of them. A failover or an outage of one shard touches only its keys; an error names the shard.
///
/// Each text is one shard: "node_1=sentinel:SERVICE" (a service of the Sentinels), "node_1=redis://user:password@host:port/db" (a
/// primary that is given; its replicas are those that it names; rediss:// with TLS), or that with its replica,
/// "node_1=redis://host:port|redis://host2:port". Shards are named node_1 to node_N in any order. The options shard.hash and
/// shard.tags say which shard a key is on, and have to be the same in all programs that use the data.
///
/// Lengths: shard_count is the number of texts in shards, 1 to 1024.
/// Ownership: *out is the caller's, for vigie_client_free(). shards and overrides (may be NULL) are copied. sentinel may be NULL if no
/// shard is a service; the shards that are not take its options (credentials, TLS, timeouts), but for its Sentinels.
/// Blocks: up to timeout.call: each primary is asked with a PING, all at the same time; no with the option shard.degraded.
/// Threads: [T]; overrides is [C] meanwhile.
/// Errors: VIGIE_ERR_CONFIG: a bad name, a gap among them, one URI with a bad part, overrides; VIGIE_ERR_INVALID_ARG: shards or out is NULL,
/// shard_count is out of range, or sentinel is NULL and a shard is a service; VIGIE_ERR_INVALID_STATE: another thread changes
/// overrides; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. Without shard.degraded also those of vigie_cmd_exec(), for a shard
/// that cannot be used.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_shards_for(
    sentinel: *mut vigie_sentinel,
    shards: *const *const c_char,
    shard_count: usize,
    overrides: *const vigie_config,
    out: *mut *mut vigie_client,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_shards_for", err, || open(sentinel, (shards, shard_count), overrides, None, out))
    }
}

/// Says which of shard_count shards a key is on: its index, from 0. part are the part_len bytes of the key that count (what stands in
/// the braces of a tag, or all of it), or the name of a channel; user is that of vigie_shards_for_hash().
#[allow(non_camel_case_types)]
pub type vigie_shard_hash =
    Option<unsafe extern "C" fn(user: *mut c_void, part: *const c_void, part_len: usize, shard_count: usize) -> usize>;

/// A hash function of the program, with what it is called with.
struct CHash {
    function: unsafe extern "C" fn(*mut c_void, *const c_void, usize, usize) -> usize,
    user: *mut c_void,
}

// SAFETY: the contract of vigie_shards_for_hash(): the function may be called from any thread with this pointer.
unsafe impl Send for CHash {}
// SAFETY: as above; several threads may call it at once.
unsafe impl Sync for CHash {}

impl OwnHash for CHash {
    fn shard(&self, part: &[u8], count: usize) -> usize {
        // SAFETY: the contract of vigie_shards_for_hash(): it lives as long as the client; the part is there during the call.
        unsafe { (self.function)(self.user, part.as_ptr().cast(), part.len(), count) }
    }
}

/// As vigie_shards_for(), with a hash function of the program in place of the option shard.hash (which then says no more than what the
/// default of shard.tags is). vigie_shards_set() keeps it. All programs that use the data need the same function.
///
/// hash is called once for each key of a command and for each channel, by the thread that calls a function of this client, before
/// anything is sent: vigie_cmd_exec(), vigie_cmds_submit(), vigie_client_shard_of(), vigie_session_for(), vigie_sub_exec() and others;
/// several threads may call it at once. It gives the same index for the same bytes and the same number of shards, always, returns
/// soon, and uses no handle of this library. An index that is not below shard_count gives the call VIGIE_ERR_INVALID_ARG, and nothing of
/// it is sent. An exception or a longjmp() must not leave it: what happens then is undefined.
///
/// Lengths: shard_count is the number of texts in shards, 1 to 1024.
/// Ownership: *out is the caller's, for vigie_client_free(). shards and overrides (may be NULL) are copied. hash and user are used until the
/// client, its sessions and its subscriptions are freed and no call of them is running.
/// Blocks: as vigie_shards_for().
/// Threads: [T]; overrides is [C] meanwhile.
/// Errors: as vigie_shards_for(); VIGIE_ERR_INVALID_ARG: also hash is NULL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_shards_for_hash(
    sentinel: *mut vigie_sentinel,
    shards: *const *const c_char,
    shard_count: usize,
    hash: vigie_shard_hash,
    user: *mut c_void,
    overrides: *const vigie_config,
    out: *mut *mut vigie_client,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_shards_for_hash", err, || {
            let function = hash.ok_or_else(|| Error::new(Status::InvalidArg, "hash is NULL"))?;
            open(sentinel, (shards, shard_count), overrides, Some(Arc::new(CHash { function, user })), out)
        })
    }
}

/// Opens a client over these shards.
///
/// # Safety
/// The contract of ffi/mod.rs, for all of these.
unsafe fn open(
    sentinel: *mut vigie_sentinel,
    (shards, count): (*const *const c_char, usize),
    overrides: *const vigie_config,
    own: Option<Arc<dyn OwnHash>>,
    out: *mut *mut vigie_client,
) -> Result<()> {
    // SAFETY: as for this function.
    unsafe {
        args::wanted(out)?;
        let texts = texts(shards, count)?;
        let sentinel = if sentinel.is_null() { None } else { Some(handle::borrow(sentinel, "sentinel")?) };
        let sentinel = sentinel.as_deref();
        let open = |config: Option<&Config>| Shards::open_by(sentinel.map(Deref::deref), &texts, config, own);
        args::put(out.cast::<*mut Sharded>(), Open::new(with_overrides(overrides, open)?, sentinel));
    }
    Ok(())
}

/// Gives a client of vigie_shards_for() other shards: more of them, fewer, or the same names at other places. A call whose key is on
/// another server from then on waits, within its time, until all calls that began before are over, so that each key sees its calls
/// in order; the others go on. No data is moved: docs/sharding.md has the order of the steps. Other processes keep the shards that
/// they were given. The new shards are asked first, as by vigie_shards_for(). Sessions and subscriptions of the shards before
/// end with VIGIE_ERR_CLOSED when those calls are over, a subscription with one event for all of its shards: make them anew. The
/// statistics begin anew.
///
/// Lengths: shard_count is the number of texts in shards, 1 to 1024.
/// Ownership: shards is copied.
/// Blocks: as vigie_shards_for().
/// Threads: [T].
/// Errors: as vigie_shards_for(): then the shards stay as they are; VIGIE_ERR_INVALID_STATE with VIGIE_EF_RETRYABLE: calls that began before
/// the last change are still running; VIGIE_ERR_INVALID_ARG: also a client that is not of vigie_shards_for().
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_shards_set(
    client: *mut vigie_client,
    shards: *const *const c_char,
    shard_count: usize,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_shards_set", err, || match any(client)? {
            Either::Other(client) => client.set(&texts(shards, shard_count)?),
            Either::One(_) => {
                Err(Error::new(Status::InvalidArg, "client has no shards: vigie_shards_for() makes one that has"))
            }
        })
    }
}

/// The shard that a key is on: its index, which is the number in its name less one. A tag in the key counts as the option shard.tags says.
///
/// Lengths: key_len is the bytes of key.
/// Ownership: nothing to free.
/// Blocks: no.
/// Threads: [T].
/// Errors: none: -1 for a client without shards, for what is no client, for a key whose tag is not well formed, and for one to which the
/// hash of vigie_shards_for_hash() gives no shard.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_client_shard_of(client: *const vigie_client, key: *const c_void, key_len: usize) -> i32 {
    total(-1, || {
        // SAFETY: the caller keeps the contract of ffi/mod.rs.
        let (client, key) = unsafe { (any(client).ok()?, args::bytes(key.cast(), key_len, "key").ok()?) };
        match client {
            Either::One(_) => None,
            Either::Other(shards) => shards.shard_of(key).ok().and_then(|shard| i32::try_from(shard).ok()),
        }
    })
}
