//! A transaction as the bytes and replies of one unit: `MULTI`, its commands, `EXEC`; and the question whether a connection carries
//! one. No I/O.
//!
//! Where a user may not send MULTI, or where it was renamed, the commands behind it would run one by one and unprotected. So a
//! connection is asked with MULTI and DISCARD before its first transaction.
//!
//! Guarantees: whether a transaction is open after a unit is read from its replies, whatever follows EXEC in the unit. Leaves to
//! others: when the question is asked (pool, submit, call), and what the replies mean for the call (call).

use super::unit::{Bytes, Unit};
use crate::error::{Error, Result, Status, flags};
use crate::resp::{Kind, Reply};

/// MULTI, encoded.
const BEGIN: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
/// EXEC, encoded.
const END: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";
/// The question.
const QUESTION: &[u8] = b"*1\r\n$5\r\nMULTI\r\n*1\r\n$7\r\nDISCARD\r\n";
/// How many replies a transaction has besides those of its commands.
pub const ADDED: u32 = 2;

/// Puts commands between MULTI and EXEC.
pub fn wrap(commands: &[u8]) -> Result<Vec<u8>> {
    let room = BEGIN.len() + commands.len() + END.len();
    let mut whole = Vec::new();
    whole.try_reserve_exact(room).map_err(|_| Error::no_memory(room, "a transaction"))?;
    [BEGIN, commands, END].iter().for_each(|part| whole.extend_from_slice(part));
    Ok(whole)
}

/// The commands between MULTI and EXEC, of what [`wrap`] has made.
pub fn inner(whole: &[u8]) -> &[u8] {
    whole.get(BEGIN.len()..whole.len().saturating_sub(END.len())).unwrap_or_default()
}

/// The unit that asks a connection whether it carries transactions. It changes nothing, except that keys are no longer watched.
pub fn question() -> Unit<'static> {
    Unit { bytes: Bytes::Raw(QUESTION), list: Some(2), at_most_once: false, lease: None, atomic: true }
}

/// What the replies to the question say. `Err`: the connection carries no transactions.
pub fn carries(replies: &Reply, endpoint: &str) -> Result<()> {
    let Some((name, line)) = [("MULTI", 0), ("DISCARD", 1)].into_iter().find_map(|(name, index)| {
        let line = replies.child(0, index).and_then(|node| replies.error_line(node))?;
        Some((name, line))
    }) else {
        return Ok(());
    };
    let told = Error::from_server(line, endpoint);
    if matches!(told.server_code(), "LOADING" | "BUSY" | "MASTERDOWN" | "READONLY") {
        return Err(told.with_flags(flags::RETRYABLE));
    }
    let so = "nothing was sent, because the commands would run without the protection of a transaction";
    Err(refused(name, line, so).with_endpoint(endpoint))
}

/// The error for a server that refuses transactions. `so`: what follows from that for the caller.
pub fn refused(name: &str, line: &[u8], so: &str) -> Error {
    let told = Error::from_server(line, "");
    let remedy = "allow MULTI, EXEC and DISCARD to the user of auth.username, and do not rename them on the server";
    let text = format!("the server refuses {name}: {}; {so}; {remedy}", told.message());
    Error::new(Status::Unsupported, text).with_server_code(told.server_code())
}

/// Whether these replies of a unit that began with MULTI leave its transaction open: MULTI was accepted, and nothing has ended it.
/// Then whatever is sent next on this connection is queued, and does not run.
pub fn is_left_open(replies: &Reply) -> bool {
    let mut children = replies.children(0);
    let is_begun = children.next().is_some_and(|multi| replies.kind(multi) != Kind::Error);
    is_begun && !children.any(|node| ends(replies, node))
}

/// Whether a reply is one to EXEC or DISCARD that ends a transaction. The others are `QUEUED` or an error.
fn ends(replies: &Reply, node: u32) -> bool {
    match replies.kind(node) {
        Kind::Error => replies.error_line(node).is_some_and(|line| line.starts_with(b"EXECABORT")),
        Kind::Status => replies.bytes(node) == Some(b"OK"),
        _ => true,
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::ReplyBuilder;

    fn replies(words: &str) -> Reply {
        let mut reply = ReplyBuilder::new();
        reply.array();
        words.split('|').for_each(|word| {
            _ = match word {
                "ok" => reply.text_of(Kind::Status, b"OK"),
                "queued" => reply.text_of(Kind::Status, b"QUEUED"),
                "null" => reply.null(),
                "array" => reply.array().text_of(Kind::Status, b"OK").end(),
                "3" => reply.int(3),
                line => reply.error(line),
            }
        });
        reply.end().finish()
    }

    #[test]
    fn what_is_wrapped_is_found_again() {
        let ping = b"*1\r\n$4\r\nPING\r\n";
        let whole = wrap(ping).unwrap();
        assert_eq!(whole, b"*1\r\n$5\r\nMULTI\r\n*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nEXEC\r\n");
        assert_eq!((inner(&whole), inner(b"short")), (&ping[..], &b""[..]));
    }

    #[test]
    fn a_transaction_is_open_until_exec_or_discard_is_answered() {
        for (words, open) in [
            ("ok|ok", false),
            ("ok|queued|array", false),
            ("ok|queued|null", false),
            ("ok|ERR unknown command|EXECABORT Transaction discarded because of previous errors.", false),
            ("ok|queued|NOPERM this user has no permissions to run the 'exec' command", true),
            ("ok|ERR unknown command 'DISCARD'", true),
            ("NOPERM this user has no permissions to run the 'multi' command|ok|ERR EXEC without MULTI", false),
            // With WAIT behind EXEC.
            ("ok|queued|array|3", false),
            ("ok|queued|array|UNBLOCKED force unblock", false),
            ("ok|queued|EXECABORT Transaction discarded because of: READONLY|3", false),
            ("ok|queued|NOPERM no|queued", true),
        ] {
            assert_eq!(is_left_open(&replies(words)), open, "{words}");
        }
    }

    #[test]
    fn a_refusal_names_the_command_and_what_helps() {
        assert!(carries(&replies("ok|ok"), "n:1").is_ok());
        for (words, name) in
            [("NOPERM no multi|ERR DISCARD without MULTI", "MULTI"), ("ok|ERR unknown command 'DISCARD'", "DISCARD")]
        {
            let error = carries(&replies(words), "n:1").unwrap_err();
            assert_eq!((error.status(), error.endpoint()), (Status::Unsupported, "n:1"));
            assert!(error.message().contains(&format!("refuses {name}")), "{error}");
            assert!(error.message().contains("auth.username") && !error.has(flags::RETRYABLE), "{error}");
        }
        let later = carries(&replies("LOADING Redis is loading|ERR DISCARD without MULTI"), "n:1").unwrap_err();
        assert!(later.status() == Status::Server && later.has(flags::RETRYABLE), "{later}");
    }
}
