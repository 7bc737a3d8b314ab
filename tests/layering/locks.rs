//! Locks: one wrapper, each with a place in the table of ranks, and nothing that can wait under one of them.
//!
//! Guarantees: a lock that is not the wrapper's, a rank that no lock has or that two have, a row that names no lock, and a wait that does
//! not announce itself are found in the sources. That the order is kept and nobody waits under a lock is asserted by debug builds.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use vigie::sys::rank::Rank;

use super::{paths_behind, words_after};

/// The wrapper; and the socket of the lane's model, whose locks are the model's own.
const WRAPPERS: &[&str] = &["sys/sync.rs", "net/scripted.rs"];
const OTHER_LOCKS: &[&str] = &["Mutex", "MutexGuard", "RwLock", "RwLockReadGuard", "RwLockWriteGuard", "parking_lot"];
const OF_STD: &[&str] = &["Condvar", "Barrier", "mpsc"];

/// What can wait. A function with one of these begins with `may_wait`, which panics under a lock in debug builds.
const WAITS: &[&str] = &[
    "std::thread::sleep",
    "thread::park",
    "libc::poll",
    "libc::ppoll",
    "libc::select",
    "libc::epoll_wait",
    "libc::recv",
    "libc::read",
    "libc::accept",
    "libc::connect",
    "libc::nanosleep",
    "libc::waitpid",
    "FUTEX_WAIT_BITSET",
    "to_socket_addrs",
    "getaddrinfo",
    "recv_deadline",
    "recv_timeout",
];
/// The same, as calls without arguments.
const WAITING_CALLS: &[&str] = &[".recv()", ".join()"];
/// It reads from a pipe that does not wait.
const READS_A_PIPE: &str = "sys/waker.rs";

/// Breaches of these rules in the code of one file.
pub fn judge(name: &str, code: &str, found: &mut Vec<String>) {
    if !WRAPPERS.contains(&name) {
        for (line, used) in paths_behind(code, "std::sync::") {
            if OF_STD.contains(&used.as_str()) {
                found.push(format!("line {line}: std::sync::{used}: a lock that has no rank"));
            }
        }
    }
    for (number, line) in code.lines().enumerate() {
        let mut breach = |what: String| found.push(format!("line {}: {what}", number + 1));
        for word in OTHER_LOCKS {
            if !WRAPPERS.contains(&name) && !words_after(line, word).is_empty() {
                breach(format!("{word}: a lock that has no rank"));
            }
        }
        let words = WAITS.iter().filter(|word| !words_after(line, word).is_empty());
        let calls = WAITING_CALLS.iter().filter(|call| line.contains(**call));
        for word in words.chain(calls) {
            if name != READS_A_PIPE && !is_announced(code, number) {
                breach(format!("{word}: waits without may_wait() in front"));
            }
        }
    }
}

/// Whether the function in which this line stands calls `may_wait` before it.
fn is_announced(code: &str, number: usize) -> bool {
    let lines: Vec<&str> = code.lines().take(number + 1).collect();
    let begin = lines.iter().rposition(|line| !words_after(line, "fn").is_empty()).unwrap_or(0);
    lines[begin..].iter().any(|line| line.contains("may_wait("))
}

/// Breaches over all files: each rank has one lock, made in one place, and the table says where its field is.
pub fn judge_ranks(sources: &[(String, String)]) -> Vec<String> {
    let mut found = Vec::new();
    let joined: Vec<String> = sources.iter().map(|(_, code)| code.split_whitespace().collect()).collect();
    for row in Rank::TABLE {
        let begin = format!("Lock::new(Rank::{},", row.name);
        let made: usize = joined.iter().map(|code| code.matches(&begin).count()).sum();
        if made != 1 {
            found.push(format!("{} is the rank of {made} locks", row.name));
        }
        if !is_there(row.lock, sources) {
            found.push(format!("{}: there is no lock {}", row.name, row.lock));
        }
    }
    found
}

/// `Type.field (file)`, or `Type (file)` of a type that is a lock, or of a static.
fn is_there(lock: &str, sources: &[(String, String)]) -> bool {
    let Some((path, file)) = lock.strip_suffix(')').and_then(|lock| lock.split_once(" (")) else { return false };
    let is_file = |name: &str| name == format!("{file}.rs") || name == format!("{file}/mod.rs");
    let Some((_, code)) = sources.iter().find(|(name, _)| is_file(name)) else { return false };
    match path.split_once('.') {
        Some((of, field)) => code.contains(&format!("struct {of} ")) && code.contains(&format!("{field}: Lock<")),
        None => code.contains(&format!("{path}(Lock<")) || code.contains(&format!("{path}: PerProcess<Lock<")),
    }
}

const BEGIN: &str = "<!-- Written from src/sys/rank.rs by `UPDATE_DOCS=1 cargo test --test layering`. -->\n";
const END: &str = "<!-- The end of the table. -->\n";

/// The order of the locks as ARCHITECTURE.md shows it.
fn shown() -> String {
    let mut out = String::from("| rank | lock | guards |\n|---|---|---|\n");
    for row in Rank::TABLE {
        let (lock, file) = row.lock.split_once(" (").expect("a lock and its file");
        let role = if row.is_role { " (a role)" } else { "" };
        let _ = writeln!(out, "| {} | `{lock}` in {}{role} | {} |", row.name, file.trim_end_matches(')'), row.guards);
    }
    out
}

/// With UPDATE_DOCS the page gets the table; otherwise it must have it.
pub fn assert_shown() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let page = fs::read_to_string(&path).expect("ARCHITECTURE.md");
    let (before, rest) = page.split_once(BEGIN).expect("the place of the table in ARCHITECTURE.md");
    let (present, after) = rest.split_once(END).expect("the end of the table in ARCHITECTURE.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return fs::write(&path, [before, BEGIN, "\n", &shown(), "\n", END, after].concat()).expect("written");
    }
    assert!(present.trim() == shown().trim(), "ARCHITECTURE.md differs: run UPDATE_DOCS=1 cargo test --test layering");
}
