//! Replies as C sees them. Total functions: a wrong node never leaves the reply.

use std::ffi::{c_char, c_void};
use std::ptr;

use super::handle::{self, Noun};
use super::types::{NO_NODE, vigie_error, vigie_node, vigie_reply, vigie_status};
use super::{args, dispose, guard, total};
use crate::resp::{Body, Reply};

impl Noun for vigie_reply {
    type Value = Body;
    const MAGIC: u64 = u64::from_be_bytes(*b"vgi.repl");
    const PLAIN: bool = true;
}

/// Puts a reply into an output. Without an output it is dropped.
///
/// # Safety
/// `out` is NULL or writable.
pub(super) unsafe fn put(out: *mut *mut vigie_reply, reply: Reply) {
    if !out.is_null() {
        // SAFETY: as for this function.
        unsafe { out.write_unaligned(handle::of_reply(reply)) };
    }
}

/// The type of a node: one of vigie_type. VIGIE_ROOT is the first node of every reply.
///
/// Ownership: nothing to free.
/// Blocks: no.
/// Threads: [C].
/// Errors: none; VIGIE_TYPE_NONE for NULL and for a node that is not there.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_reply_type(reply: *const vigie_reply, node: u32) -> i32 {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total(0, || unsafe { handle::peek(reply) }.map(|reply| reply.kind(node) as i32))
}

/// How many children an ARRAY, MAP, SET or PUSH has; in a MAP keys and values are counted.
///
/// Ownership: nothing to free.
/// Blocks: no.
/// Threads: [C].
/// Errors: none; 0 for every other node, for NULL and for a node that is not there.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_reply_count(reply: *const vigie_reply, node: u32) -> u32 {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total(0, || unsafe { handle::peek(reply) }.map(|reply| reply.count(node)))
}

/// The node of a child, by its index from 0; in a MAP keys have the even indexes, and each value follows its key.
///
/// Ownership: nothing to free.
/// Blocks: no.
/// Threads: [C].
/// Errors: none; VIGIE_NONE where there is no such child.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_reply_child(reply: *const vigie_reply, node: u32, index: u32) -> u32 {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total(NO_NODE, || unsafe { handle::peek(reply) }?.child(node, index))
}

/// The node of the value that belongs to a key in a MAP, or in an ARRAY whose keys and values alternate. The first
/// one, if several keys are equal. The search goes through the keys in order.
///
/// Lengths: key_len is the bytes of key; (NULL, 0) is an empty key.
/// Ownership: the key is only read; nothing to free.
/// Blocks: no.
/// Threads: [C].
/// Errors: none; VIGIE_NONE where there is no such key.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_reply_find(
    reply: *const vigie_reply,
    node: u32,
    key: *const c_void,
    key_len: usize,
) -> u32 {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total(NO_NODE, || unsafe {
        let key = args::bytes(key.cast(), key_len, "key").ok()?;
        handle::peek(reply)?.find(node, key)
    })
}

/// The bytes of a text: STRING, STATUS, ERROR, BIGNUM, VERBATIM. A NUL follows them, so that a text can be used as a
/// C string.
///
/// Lengths: *len gets the bytes without that NUL; len may be NULL.
/// Ownership: belongs to the reply, valid until vigie_reply_free().
/// Blocks: no.
/// Threads: [C].
/// Errors: none; NULL and length 0 for every other node, for NULL and for a node that is not there.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_reply_bytes(reply: *const vigie_reply, node: u32, len: *mut usize) -> *const c_char {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    let (data, bytes) = total((ptr::null(), 0), || {
        let text = unsafe { handle::peek(reply) }?.bytes_nul(node)?;
        Some((text.as_ptr(), text.len().saturating_sub(1)))
    });
    if !len.is_null() {
        // SAFETY: the caller keeps the contract of ffi/mod.rs.
        unsafe { len.write_unaligned(bytes) };
    }
    data.cast()
}

/// The value of an INT, of a BOOL (1 or 0), or of a text that is a whole number in decimal.
///
/// Ownership: nothing to free.
/// Blocks: no.
/// Threads: [C].
/// Errors: none; if_not for everything else.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_reply_int(reply: *const vigie_reply, node: u32, if_not: i64) -> i64 {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total(if_not, || unsafe { handle::peek(reply) }?.int(node))
}

/// The value of a DOUBLE, of an INT, or of a text that is a number.
///
/// Ownership: nothing to free.
/// Blocks: no.
/// Threads: [C].
/// Errors: none; if_not for everything else.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_reply_double(reply: *const vigie_reply, node: u32, if_not: f64) -> f64 {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total(if_not, || unsafe { handle::peek(reply) }?.double(node))
}

/// The whole reply at once, for decoding in another language: an array of nodes whose ids are their indexes, and the
/// data that their texts point into.
///
/// Lengths: *node_count gets the nodes, *data_len the bytes of data; each of the three outputs may be NULL.
/// Ownership: both arrays belong to the reply, valid until vigie_reply_free().
/// Blocks: no.
/// Threads: [C].
/// Errors: none; NULL and lengths 0 for NULL.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_reply_nodes(
    reply: *const vigie_reply,
    node_count: *mut usize,
    data: *mut *const c_char,
    data_len: *mut usize,
) -> *const vigie_node {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    let (nodes, count, text, bytes) = total((ptr::null(), 0, ptr::null(), 0), || {
        let reply = unsafe { handle::peek(reply) }?;
        let (nodes, data) = (reply.nodes(), reply.data());
        Some((nodes.as_ptr(), nodes.len(), data.as_ptr(), data.len()))
    });
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        if !node_count.is_null() {
            node_count.write_unaligned(count);
        }
        if !data.is_null() {
            data.write_unaligned(text.cast());
        }
        if !data_len.is_null() {
            data_len.write_unaligned(bytes);
        }
    }
    nodes.cast() // the layouts are compared in types.rs
}

/// The reply as JSON: a reply with one STRING. A byte that is not UTF-8 becomes \u00XX with its value, as if the text were Latin-1: 0xFF
/// cannot be told from a letter then, and vigie_reply_bytes() has the bytes as they came. Keys of a MAP become texts.
///
/// Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
/// Blocks: no.
/// Threads: [C].
/// Errors: VIGIE_ERR_INVALID_ARG: reply is NULL; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_reply_json(
    reply: *const vigie_reply,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_reply_json", err, || {
            put(out, handle::borrow(reply, "reply")?.to_json()?);
            Ok(())
        })
    }
}

/// Frees a reply.
///
/// Ownership: the reply and everything that points into it are gone; NULL is a no-op. Freeing twice is not safe.
/// Blocks: no.
/// Threads: any thread, when no other uses the reply.
/// Errors: none.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_reply_free(reply: *mut vigie_reply) {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe { dispose(reply) };
}
