//! What can go wrong: the status codes, their meaning, and the error that carries one.
//!
//! Guarantees: one table holds every code with its cause and remedy (ERRORS.md is generated from it); an error is immutable,
//! and says what was tried, where, what happened and after how long. Leaves to others: which code fits (each room knows).

mod secrets;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

pub use secrets::{SecretText, clean, clean_bytes, clean_line, hold, keep};

/// `Result` with the library's error.
pub type Result<T> = std::result::Result<T, Error>;

/// What a caller may do about an error: bits of `vigie_error_flags()`.
pub mod flags {
    /// The same call may succeed if it is tried again.
    pub const RETRYABLE: u32 = 1 << 0;
    /// Bytes were sent and no answer came: it may have run.
    pub const MAYBE_EXECUTED: u32 = 1 << 1;
    /// It happened while the topology was changing.
    pub const FAILOVER: u32 = 1 << 2;
}

macro_rules! statuses {
    ($($(#[doc = $group:literal])* $variant:ident = $code:literal, $name:literal, $cause:literal, $remedy:literal;)*) => {
        /// A status code of the C interface. Numbers are never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i32)]
        #[non_exhaustive]
        pub enum Status { $(#[doc = $cause] $variant = $code,)* }

        impl Status {
            /// Every code, with what ERRORS.md says of it.
            pub const ALL: &'static [StatusInfo] = &[$(
                StatusInfo { status: Status::$variant, name: $name, name_nul: concat!($name, "\0"), cause: $cause, remedy: $remedy },
            )*];
        }
    };
}

/// One row of ERRORS.md.
#[derive(Debug, Clone, Copy)]
pub struct StatusInfo {
    /// The code.
    pub status: Status,
    /// Its name in the header.
    pub name: &'static str,
    /// The name with a NUL behind it, for C.
    pub name_nul: &'static str,
    /// What it means.
    pub cause: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

statuses! {
    InvalidArg = -1, "VIGIE_ERR_INVALID_ARG", "An argument is NULL, out of range, or carries an unknown flag.",
        "Correct the call; the message names the argument.";
    InvalidState = -2, "VIGIE_ERR_INVALID_STATE", "The handle's present state does not allow the call, or a one-thread handle is used by two threads.",
        "Correct the order of calls; give each thread a session or a config of its own.";
    Config = -3, "VIGIE_ERR_CONFIG", "An option is unknown, has a bad value, or contradicts another one.",
        "Correct the option named in the message; CONFIGURATION.md lists them all.";
    Unsupported = -4, "VIGIE_ERR_UNSUPPORTED", "Not in this build, not on this server, or refused by design (the message says which way is open).",
        "Use the way that the message names: a session for what changes a connection's state.";
    Closed = -5, "VIGIE_ERR_CLOSED", "The handle, or the one it was made from, was closed.",
        "Make a new handle.";
    Forked = -6, "VIGIE_ERR_FORKED", "The handle belongs to the parent process.",
        "Make a new handle in the child.";
    Cancelled = -7, "VIGIE_ERR_CANCELLED", "The caller cancelled the call.",
        "None needed; MAYBE_EXECUTED says whether bytes had been sent.";
    Internal = -8, "VIGIE_ERR_INTERNAL", "A bug in the library: a panic was caught at the border.",
        "Report it with the message; free the handle, which answers nothing else from now on.";
    BufferTooSmall = -9, "VIGIE_ERR_BUFFER_TOO_SMALL", "The next event does not fit into the buffer; it stays in the queue.",
        "Drain again with a buffer of the reported size, or take it with vigie_queue_drain().";
    Interrupted = -10, "VIGIE_ERR_INTERRUPTED", "A signal, or vigie_call_interrupt_every(), interrupted the wait for a call with a call handle; the call is still under way.",
        "Go on with vigie_call_wait(), or end it with vigie_call_cancel() and then vigie_call_wait().";

    Resolve = -100, "VIGIE_ERR_RESOLVE", "A host name could not be resolved in time.",
        "Check the name and the resolver; the message names both.";
    Connect = -101, "VIGIE_ERR_CONNECT", "No connection could be made to the address in the message.",
        "Check that the server runs and is reachable; the library goes on trying within the deadline.";
    Io = -102, "VIGIE_ERR_IO", "The connection broke, or the peer closed it.",
        "Without MAYBE_EXECUTED the command was certainly not executed: try it again if it is RETRYABLE; a session that lost its connection is not, so make a new one. MAYBE_EXECUTED: look before you send it again; an answer that came while another primary was taking over is at vigie_error_reply().";
    Timeout = -103, "VIGIE_ERR_TIMEOUT", "The deadline passed.",
        "With MAYBE_EXECUTED the command was sent and its answer did not come in time; without it, it certainly did not run.";
    Tls = -104, "VIGIE_ERR_TLS", "The TLS handshake or a record failed.",
        "Check certificates and names; the message has the reason.";
    Auth = -105, "VIGIE_ERR_AUTH", "The server refused the credentials, asks for some, or the user lacks a permission needed to connect.",
        "Check auth.username and auth.password (data nodes) or sentinel.username and sentinel.password (Sentinels).";
    Protocol = -106, "VIGIE_ERR_PROTOCOL", "What the peer sent is not RESP, or not an answer to what was asked.",
        "Check that the address is a Redis or Valkey server; the connection was closed.";
    Limit = -107, "VIGIE_ERR_LIMIT", "A reply is larger, deeper or longer than the configured limits; or there is no memory for what a call needs.",
        "Ask for less at a time, or raise reply.max_bytes, reply.max_depth or reply.max_nodes; the message has the sizes. The connection is closed: other calls that shared it end as with a lost connection (VIGIE_ERR_IO; reads are sent again).";

    NoSentinel = -200, "VIGIE_ERR_NO_SENTINEL", "No Sentinel answered; the message says what happened with each.",
        "Check sentinel.addrs and that a Sentinel runs.";
    UnknownService = -201, "VIGIE_ERR_UNKNOWN_SERVICE", "Sentinels answer, and none of them knows the service.",
        "Check the service name; SENTINEL MASTERS lists those that exist.";
    NoPrimary = -202, "VIGIE_ERR_NO_PRIMARY", "The Sentinels know the service but no usable primary of it.",
        "Wait for the failover to end (RETRYABLE), or see in the message why each Sentinel's answer was not used.";
    NoReplica = -203, "VIGIE_ERR_NO_REPLICA", "No fit replica, and replica.fallback is error.",
        "Set replica.fallback to primary, or see in the message why each replica is unfit.";
    Role = -204, "VIGIE_ERR_ROLE", "The server reached does not have the role that was asked for: a stale address.",
        "Usually passes by itself (RETRYABLE); if not, the Sentinels disagree with the servers.";
    Fenced = -205, "VIGIE_ERR_FENCED", "Writes are held back: a failover is under way, or no majority of Sentinels confirms the primary.",
        "Try again (RETRYABLE); nothing was sent.";
    ReadOnly = -206, "VIGIE_ERR_READ_ONLY", "A command that writes, on a client for replicas.",
        "Use a client of vigie_primary_for or vigie_split_for; nothing was sent.";
    SplitView = -207, "VIGIE_ERR_SPLIT_VIEW", "The Sentinels name different primaries and no majority agrees, or they are of different deployments.",
        "Repair the Sentinels, or name those of one deployment in sentinel.addrs: the message lists what each one says.";

    PoolTimeout = -300, "VIGIE_ERR_POOL_TIMEOUT", "No dedicated connection came free in time.",
        "Raise pool.max, or hold sessions and blocking commands for a shorter time.";
    QueueFull = -301, "VIGIE_ERR_QUEUE_FULL", "The queue holds as many outstanding calls and events as it may.",
        "Drain it, then submit again (RETRYABLE); nothing was taken. Without that flag the list never fits: the message says so.";
    PoolBusy = -302, "VIGIE_ERR_POOL_BUSY", "No dedicated connection is free, and pool.wait is 0.",
        "Raise pool.max or pool.wait; the message has the numbers.";

    Server = -400, "VIGIE_ERR_SERVER", "The server answered with an error; vigie_error_server_code() has its first word.",
        "As the server's text says.";
    TxnAborted = -401, "VIGIE_ERR_TXN_ABORTED", "EXEC answered null because a watched key changed, or the connection that held the WATCH is gone.",
        "Read again and repeat the transaction, in a new session if the connection is gone (the message says so). Of a list, vigie_error_reply() has the replies.";
    CrossShard = -402, "VIGIE_ERR_CROSS_SHARD", "The command needs keys of more than one shard together.",
        "Give the keys a common tag.";
    Replicas = -403, "VIGIE_ERR_REPLICAS", "Executed, but fewer replicas have it than asked; vigie_error_count() says how many.",
        "The write may be lost in a failover: repeat it only if it is idempotent. What it answered is at vigie_error_reply().";
    ScanInterrupted = -404, "VIGIE_ERR_SCAN_INTERRUPTED", "The cursor belongs to another node than the one that is scanned now, or to this node before it was restarted or changed its role, or it is unknown to a client for replicas that has begun no scan.",
        "Begin the scan again with cursor 0.";
}

impl Status {
    /// The number in the C interface.
    pub fn code(self) -> i32 {
        self as i32
    }

    /// The row of the table.
    pub fn info(self) -> &'static StatusInfo {
        Self::ALL.iter().find(|info| info.status == self).unwrap_or(&Self::ALL[7])
    }

    /// The status with this number, if there is one.
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.iter().map(|info| info.status).find(|status| status.code() == code)
    }
}

/// An error: a status, a sentence, and what a program may want to look at.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    status: Status,
    message: String,
    server_code: String,
    endpoint: String,
    flags: u32,
    count: i64,
    errno: i32,
    /// The library closed an idle connection; this says nothing about the node.
    unused: bool,
    enclosed: Option<Arc<dyn Any + Send + Sync>>,
}

impl Error {
    /// An error with this status and sentence.
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            status,
            message: message.into(),
            server_code: String::new(),
            endpoint: String::new(),
            flags: 0,
            count: -1,
            errno: 0,
            unused: false,
            enclosed: None,
        }))
    }

    /// An error reply of a server: the message is the server's line, in which only secrets are replaced; its first word is the code.
    pub fn from_server(line: &[u8], endpoint: impl fmt::Display) -> Self {
        let line = clean_line(line);
        let code = line.split(' ').next().unwrap_or_default().to_owned();
        let mut error = Self::new(Status::Server, line).with_endpoint(endpoint);
        error.0.server_code = code;
        error
    }

    /// The error for a lack of memory for this many bytes.
    #[cold]
    pub fn no_memory(bytes: usize, what: &str) -> Self {
        Self::new(Status::Limit, format!("no memory for {bytes} bytes of {what}")).for_want_of_memory()
    }

    /// The same with the errno of a lack of memory, which tells it from a limit that was set.
    #[cold]
    pub fn for_want_of_memory(mut self) -> Self {
        self.0.errno = libc::ENOMEM;
        self
    }

    /// An error of the system, with its errno and text behind the sentence; a fault of TLS has its own status.
    pub fn from_io(status: Status, what: impl fmt::Display, cause: &std::io::Error) -> Self {
        let is_tls = cause.get_ref().is_some_and(|inner| inner.is::<TlsFault>());
        let status = if is_tls { Status::Tls } else { status };
        let mut error = Self::new(status, format!("{what}: {}", system_text(cause)));
        error.0.errno = cause.raw_os_error().unwrap_or(0);
        error
    }

    /// The same with the server that it happened with, as `host:port`.
    pub fn with_endpoint(mut self, endpoint: impl fmt::Display) -> Self {
        self.0.endpoint = endpoint.to_string();
        self
    }

    /// The same with these flags added.
    pub fn with_flags(mut self, flags: u32) -> Self {
        self.0.flags |= flags;
        self
    }

    /// The same without these flags.
    pub fn without_flags(mut self, flags: u32) -> Self {
        self.0.flags &= !flags;
        self
    }

    /// The same with another status: when a server's error has a meaning of its own.
    pub fn with_status(mut self, status: Status) -> Self {
        self.0.status = status;
        self
    }

    /// The same with the server's first word.
    pub fn with_server_code(mut self, code: &str) -> Self {
        self.0.server_code = code.to_owned();
        self
    }

    /// The same with a count (how many replicas have a write).
    pub fn with_count(mut self, count: i64) -> Self {
        self.0.count = count;
        self
    }

    /// The same with what was received despite the error. A room above knows its type (see [`Error::with_reply`]).
    pub fn with_enclosed(mut self, enclosed: impl Any + Send + Sync) -> Self {
        self.0.enclosed = Some(Arc::new(enclosed));
        self
    }

    /// The same with another cause in place of what was seen of it. Where it happened stays, and what is known of the call.
    pub fn caused_by(mut self, status: Status, message: impl Into<String>) -> Self {
        (self.0.status, self.0.message, self.0.errno) = (status, message.into(), 0);
        self
    }

    /// The same with more to say in front: `context: message`.
    pub fn in_context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// The same with more to say behind.
    pub fn with_note(mut self, note: impl fmt::Display) -> Self {
        self.0.message = format!("{}{note}", self.0.message);
        self
    }

    /// The same with the total time behind. The times of its parts are removed, so that one time is reported.
    pub fn with_time(mut self, ms: u128, more: impl fmt::Display) -> Self {
        self.0.message = format!("{} (after {ms} ms{more})", without_times(&self.0.message));
        self
    }

    /// The same with what was tried for a service in front, which is named once.
    pub fn in_service(self, tried: impl fmt::Display, service: &str) -> Self {
        let service = format!("service {}", quoted(service));
        if self.message().contains(&service) {
            return self.in_context(tried);
        }
        self.in_context(format_args!("{tried} for {service}"))
    }

    /// The error of a call on a connection that the library closed because it was no longer used.
    pub fn unused(name: &str) -> Self {
        let mut error = Self::new(Status::Io, format!("a connection to {name} that was not used any more was closed"));
        error.0.unused = true;
        error
    }

    /// Whether it is of [`Error::unused`]: it says less than any other.
    pub fn is_unused(&self) -> bool {
        self.0.unused
    }

    /// The status.
    pub fn status(&self) -> Status {
        self.0.status
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The first word of the server's error, or "".
    pub fn server_code(&self) -> &str {
        &self.0.server_code
    }

    /// Whether the sentence is the server's line and nothing else.
    pub fn is_server_line(&self) -> bool {
        self.status() == Status::Server && self.message().starts_with(self.server_code())
    }

    /// The server that it happened with, or "".
    pub fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    /// The bits of [`flags`].
    pub fn flags(&self) -> u32 {
        self.0.flags
    }

    /// Whether all of these bits are set.
    pub fn has(&self, flags: u32) -> bool {
        self.0.flags & flags == flags
    }

    /// How many replicas have the write; -1 when the error is not about that.
    pub fn count(&self) -> i64 {
        self.0.count
    }

    /// The system's error number; 0 when it is not from the system.
    pub fn errno(&self) -> i32 {
        self.0.errno
    }

    /// What was received despite the error, if it is of this type.
    pub fn enclosed<T: Any>(&self) -> Option<&T> {
        self.0.enclosed.as_deref().and_then(|enclosed| enclosed.downcast_ref())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status().info().name, self.message())?;
        if !self.endpoint().is_empty() {
            write!(f, " [{}]", self.endpoint())?;
        }
        if self.flags() != 0 {
            write!(f, " flags={:#x}", self.flags())?;
        }
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Error {}

/// What went wrong with TLS on a connection, inside an error of its I/O.
#[derive(Debug, Clone)]
pub struct TlsFault(String);

impl TlsFault {
    /// With this sentence.
    pub fn new(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsFault {}

/// The system's text for an error, without the number that std puts behind it: that is [`Error::errno`].
pub fn system_text(cause: &std::io::Error) -> String {
    let text = cause.to_string();
    match text.rsplit_once(" (os error ") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

/// A name as a message shows it: in quotes, escaped, and cut.
pub fn quoted(name: &str) -> String {
    const MOST: usize = 64;
    let cut: String = name.chars().take(MOST).collect();
    let dots = if cut.len() < name.len() { "..." } else { "" };
    format!("'{}{dots}'", cut.escape_debug())
}

/// Without each ` (after 5 ms)`.
fn without_times(message: &str) -> String {
    const BEGIN: &str = " (after ";
    let (mut out, mut rest) = (String::new(), message);
    while let Some(at) = rest.find(BEGIN) {
        let behind = &rest[at + BEGIN.len()..];
        let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
        let end = if digits > 0 { behind[digits..].strip_prefix(" ms)") } else { None };
        let kept = if end.is_some() { at } else { at + BEGIN.len() };
        out.push_str(&rest[..kept]);
        rest = end.unwrap_or(behind);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_time_and_one_service_are_told() {
        let error = || Error::new(Status::NoPrimary, "service 'm': a (after 0 ms): b (after noon) (after 12 ms)");
        assert_eq!(
            error().in_service("GET", "m").with_time(13, ", 2 attempts").message(),
            "GET: service 'm': a: b (after noon) (after 13 ms, 2 attempts)"
        );
        let other = Error::new(Status::Io, "closed").in_service("GET", "m");
        assert_eq!(other.message(), "GET for service 'm': closed");
    }

    #[test]
    fn names_are_escaped_and_cut() {
        assert_eq!(quoted("mymaster"), "'mymaster'");
        assert_eq!(quoted("a\n\u{1b}[31m'"), "'a\\n\\u{1b}[31m\\''");
        assert_eq!(quoted(&"x".repeat(1000)).len(), 64 + 5);
    }

    #[test]
    fn every_code_is_negative_unique_and_found_again() {
        for info in Status::ALL {
            assert!(info.status.code() < 0);
            assert_eq!(Status::from_code(info.status.code()), Some(info.status));
            assert_eq!(info.status.info().name, info.name);
            assert_eq!(info.name_nul.trim_end_matches('\0'), info.name);
        }
        assert_eq!(Status::from_code(0), None);
    }

    #[test]
    fn a_server_error_keeps_its_line_and_its_code() {
        let error = Error::from_server(b"WRONGTYPE Operation against a key", "127.0.0.1:1");
        assert_eq!(error.server_code(), "WRONGTYPE");
        assert_eq!(error.message(), "WRONGTYPE Operation against a key");
        assert_eq!(error.endpoint(), "127.0.0.1:1");
    }
}
