//! Connecting to a node as the library does, what it means if that fails, and asking it.
//!
//! Guarantees: a node that cannot be used is told once, with the cause; what a user may not ask is told. Leaves to others: what a node says
//! (primary, replicas).

use std::io::{self, ErrorKind, IoSlice};

use vigie::config::{DATA_PORT, Endpoint, Settings};
use vigie::error::{Error, Result, Status};
use vigie::net::{Conn, ConnectOptions, Expect};
use vigie::resp::{Reply, Want, encode, typed};

use super::Wanted;
use super::certificates;
use super::finding::{Report, Severity, cut, said_line};
use super::nodes::{Node, shown};
use Severity::{Fault, Note, Warning};

/// So many characters of a message of the library are shown: it may hold what a server said.
const MESSAGE: usize = 600;

/// Why a node cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindrance {
    /// It accepts connections, and does not answer in time.
    Silence,
    /// It accepts connections, and what follows is no answer.
    Noise,
    /// It refuses the credentials, or the user may not do what a handshake needs.
    Refusal,
    /// It says why it cannot be used now.
    Excuse,
    /// TLS failed.
    Tls,
    /// It accepts no connection.
    Absence,
}

impl Hindrance {
    pub fn of(error: &Error) -> Self {
        // The library puts this before what follows a connection.
        let is_connected = error.message().contains("handshake with ");
        let timed_out = io::Error::from_raw_os_error(error.errno()).kind() == ErrorKind::TimedOut;
        match error.status() {
            Status::Auth => Self::Refusal,
            Status::Tls => Self::Tls,
            _ if !error.server_code().is_empty() => Self::Excuse,
            Status::Timeout if is_connected => Self::Silence,
            _ if is_connected && timed_out => Self::Silence,
            _ if is_connected => Self::Noise,
            _ => Self::Absence,
        }
    }
}

/// What to do about a node that is silent.
pub const WAKE: &str = "Look at it there: a process or a virtual machine that is stopped (`kill -CONT`), a command or a script that runs for long, \
     swapping, or a proxy in front of it that reaches nobody.";

/// Connects.
pub fn open(settings: &Settings, addr: &str, wanted: &Wanted) -> Result<Conn> {
    let endpoint = Endpoint::parse(addr, DATA_PORT)?;
    Conn::open(&endpoint, &ConnectOptions::of_node(&settings.client, Expect::Any), wanted.deadline())
}

/// The message of an error as it is shown.
pub fn message(error: &Error) -> String {
    cut(error.message(), MESSAGE)
}

/// Connects, and tells what came of it.
pub fn reach(settings: &Settings, node: &Node, wanted: &Wanted, report: &mut Report) -> Option<Conn> {
    let opened = open(settings, &node.addr, wanted);
    opened.map_err(|error| hindered(settings, node, &error, report)).map(|conn| told(conn, node, report)).ok()
}

/// Tells that a node answers.
pub fn told(conn: Conn, node: &Node, report: &mut Report) -> Conn {
    report.ok("node_reached", format!("the {} {} answers", node.role, node.addr));
    certificates::of_server(&conn, &format!("the {} {}", node.role, node.addr), report);
    conn
}

/// How bad it is that a node cannot be used.
fn severity(node: &Node) -> Severity {
    if node.role == "primary" { Fault } else { Warning }
}

fn hindered(settings: &Settings, node: &Node, error: &Error, report: &mut Report) {
    let severity = severity(node);
    let what = |how: &str| format!("the {} {} {how}: {}", node.role, shown(node), message(error));
    let unusable = what("cannot be used from here");
    match Hindrance::of(error) {
        Hindrance::Silence => report.add(
            severity,
            "node_silent",
            what("accepts connections and gives no answer"),
            "Its address is right, and what listens there does not work: each call to it waits until its time is over.",
            WAKE,
        ),
        Hindrance::Refusal => report.add(
            severity,
            "node_refuses",
            unusable,
            "It refuses the credentials, or the user may not run a command of the handshake.",
            "Correct `auth.username` and `auth.password`, and give the user what docs/permissions.md lists.",
        ),
        Hindrance::Excuse => report.add(
            severity,
            "node_refuses",
            unusable,
            "It runs, and says itself why it cannot be used now.",
            "As it says: raise `maxclients`, end a script (`SCRIPT KILL`), let it finish loading, or set what it asks for.",
        ),
        Hindrance::Tls => report.add(
            severity,
            "node_tls",
            unusable,
            "The connection cannot be encrypted as the options want it.",
            "The message says what to change; docs/tls.md explains it. A certificate that is over has to be renewed at the node.",
        ),
        Hindrance::Noise => report.add(
            severity,
            "node_unreachable",
            unusable,
            "Something accepts connections at this address, and does not answer as a server of Redis or Valkey does.",
            "See what listens there: another program, a server that wants TLS (`tls`), or a proxy in front of it that reaches nobody.",
        ),
        Hindrance::Absence if settings.sentinel.addrs.is_empty() => report.add(
            severity,
            "node_unreachable",
            unusable,
            "Nothing listens at this address, or no way leads there from here.",
            "Start the node, correct its address in the URI or in `replica.addrs`, or open the way to it.",
        ),
        Hindrance::Absence => report.add(
            severity,
            "node_unreachable",
            unusable,
            "The Sentinels announce this address, and it leads nowhere from here: behind NAT or in another network of containers they \
             announce what only they can reach.",
            "Start the node; or announce an address that clients reach (`replica-announce-ip`, `sentinel announce-ip`), or map it with \
             `address.map`.",
        ),
    }
}

/// A command, and its reply with types; an error reply is an error. After a question that was not answered no other one is asked: its answer
/// would be taken for that of the next one.
pub fn ask(conn: &mut Conn, words: &[&str], wanted: &Wanted) -> std::result::Result<Reply, String> {
    if conn.is_broken() {
        return Err(String::new());
    }
    let args: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    let mut bytes = Vec::new();
    encode::command(&mut bytes, &args);
    let reply = conn
        .exchange(&mut [IoSlice::new(&bytes)], Want::One, None, wanted.deadline())
        .map_err(|failed| message(&failed.error))?;
    match reply.error_line(0) {
        Some(line) => Err(said_line(line)),
        None => typed::typed(&args, reply).map_err(|error| message(&error)),
    }
}

/// The same, and tells of a question that was not answered.
pub fn ask_or_tell(
    conn: &mut Conn,
    node: &Node,
    words: &[&str],
    wanted: &Wanted,
    report: &mut Report,
) -> Option<Reply> {
    ask(conn, words, wanted).map_err(|line| unanswered(conn, node, words, &line, report)).ok()
}

/// Tells of a question that was not answered.
pub fn unanswered(conn: &Conn, node: &Node, words: &[&str], line: &str, report: &mut Report) {
    let words = words.join(" ");
    if line.is_empty() {
        // It was told that the question before it ended the connection.
        return;
    }
    if conn.is_broken() {
        return report.add(
            severity(node),
            "node_silent",
            format!("the {} {} has answered, and gives no answer to {words}: {line}", node.role, node.addr),
            "It stopped or hangs since, or its host is overloaded.",
            WAKE,
        );
    }
    if line.starts_with("NOPERM") {
        return report.add(
            Note,
            "node_permissions",
            format!("the user may not run {words} at the {} {}: {line}", node.role, node.addr),
            "What it would have told is not checked; without ROLE and INFO the library has to believe what others say of it.",
            "Give the user what docs/permissions.md lists under \"The user of vigie-doctor\".",
        );
    }
    // A service that has renamed or hidden a command, or another server than those that were meant.
    report.add(
        Note,
        "not_asked",
        format!("what {words} tells is not known at the {} {}: {line}", node.role, node.addr),
        "What it would have told is not checked.",
        "See it at the node itself.",
    );
}
