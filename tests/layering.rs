//! The rules of the house, held by reading the sources: which room may use which, where `unsafe`, threads, locks and writes to
//! sockets may be, what no file may hold. ARCHITECTURE.md says why.

#[path = "layering/circles.rs"]
mod circles;
#[path = "layering/locks.rs"]
mod locks;

use std::fs;
use std::path::{Path, PathBuf};

use circles::Crate;

/// Who may use whom, from the top of the house to its ground. What is not listed is forbidden.
const ROOMS: &[(&str, &[&str])] = &[
    ("ffi", &["jobs", "shard", "client", "topology", "worker", "queue", "resp", "config", "error", "time", "sys"]),
    ("jobs", &["client", "queue", "resp", "meter", "error", "time", "sys"]),
    ("shard", &["client", "topology", "plan", "queue", "resp", "config", "error", "time", "sys"]),
    (
        "client",
        &[
            "submit", "pubsub", "call", "route", "plan", "topology", "pool", "lane", "worker", "script", "net",
            "queue", "resp", "config", "meter", "error", "time", "sys",
        ],
    ),
    (
        "submit",
        &[
            "call", "route", "plan", "topology", "pool", "lane", "worker", "queue", "resp", "config", "error", "time",
            "sys",
        ],
    ),
    (
        "pubsub",
        &[
            "route", "plan", "topology", "pool", "worker", "net", "queue", "resp", "config", "meter", "sort", "error",
            "time", "sys",
        ],
    ),
    ("call", &["route", "plan", "topology", "pool", "lane", "resp", "config", "meter", "error", "time", "sys"]),
    (
        "route",
        &[
            "plan", "topology", "pool", "lane", "log", "worker", "script", "net", "resp", "config", "meter", "error",
            "time", "sys",
        ],
    ),
    ("plan", &["lane", "script", "resp", "config", "error", "time"]),
    (
        "topology",
        &["log", "worker", "script", "net", "queue", "resp", "config", "meter", "sort", "error", "time", "sys"],
    ),
    ("pool", &["lane", "worker", "net", "resp", "config", "meter", "sort", "error", "time", "sys"]),
    ("lane", &["net", "resp", "config", "meter", "error", "time", "sys"]),
    ("log", &["worker", "queue", "resp", "config", "sys"]),
    ("worker", &["sort", "error", "time", "sys"]),
    ("script", &["sys"]),
    ("queue", &["resp", "sort", "error", "time", "sys"]),
    ("net", &["resp", "config", "meter", "sort", "error", "time", "sys"]),
    ("config", &["resp", "sort", "error", "time"]),
    ("resp", &["error", "time"]),
    ("meter", &["error", "time", "sys"]),
    ("sys", &["time"]),
    ("time", &["error"]),
    ("error", &[]),
    ("sort", &[]),
];

const UNSAFE_ROOMS: &[&str] = &["ffi", "sys"];
const SOCKET_WRITER: &str = "net/socket.rs";
const THREAD_STARTER: &str = "sys/thread.rs";
const MAX_BYTES: usize = 40 * 1024;

/// Ways to write to a socket; each of them can raise SIGPIPE unless it is done right, which one file does.
const SOCKET_WRITES: &[&str] = &[
    "libc::send",
    "libc::sendto",
    "libc::sendmsg",
    "libc::writev",
    "send_with_flags",
    "send_to_with_flags",
    "send_vectored",
    "send_vectored_with_flags",
    "write_vectored",
    "TcpStream",
    "UnixStream",
    "socket2",
];
/// What moves bytes over a socket stands behind the wire, where TLS will be; other rooms cannot call it, the other files of its room must not.
const SOCKET_USERS: &[&str] = &["net/socket.rs", "net/scripted.rs", "net/wire.rs"];
const SOCKET_MOVES: &[&str] = &["send_parts", "recv_into", "recv_append", "peek_byte"];
const THREAD_STARTS: &[&str] = &["spawn", "Builder", "scope"];
const RANDOM: &str = "sys/random.rs";
/// What a first use waits for: in a child that was forked amid the first use, for ever. sys/fork.rs has what serves instead.
const WAITED_FOR: &[&str] = &["Once", "OnceLock", "LazyLock"];
const MACROS: &[&str] = &["println", "eprintln", "print", "eprint", "dbg", "todo", "unimplemented"];

#[test]
fn the_sources_keep_the_rules_of_the_house() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut breaches = Vec::new();
    let files = rust_files(&src);
    assert!(files.len() > 10, "the sources were not found in {src:?}");
    for file in files {
        let text = fs::read_to_string(&file).expect("sources can be read");
        let name = file.strip_prefix(&src).expect("below src").to_string_lossy().replace('\\', "/");
        breaches.extend(judge(&name, &text));
    }
    assert!(breaches.is_empty(), "{} breaches:\n{}", breaches.len(), breaches.join("\n"));
}

/// Rooms stand in the table from the top down, so that no circle over rooms is possible.
#[test]
fn the_table_of_rooms_has_no_circle() {
    for (place, (room, allowed)) in ROOMS.iter().enumerate() {
        for below in *allowed {
            let at = ROOMS.iter().position(|(known, _)| known == below);
            assert!(at.is_some_and(|at| at > place), "{room} may use {below}, which does not stand below it");
        }
    }
}

/// What a thread waits for while it holds a lock keeps all who want the lock waiting, too.
#[test]
fn each_lock_has_its_rank_and_the_page_shows_their_order() {
    let sources = sources();
    let found = locks::judge_ranks(&sources);
    assert!(found.is_empty(), "{found:#?}");
    let without = |name: &str| {
        let rest: Vec<_> = sources.iter().filter(|(file, _)| file != name).cloned().collect();
        locks::judge_ranks(&rest).join("\n")
    };
    let missed = without("pool/census.rs");
    assert!(missed.contains("Census is the rank of 0 locks") && missed.contains("there is no lock Census"), "{missed}");
    let twice: Vec<_> = [&sources[..], &[("a.rs".to_owned(), "Lock::new(Rank::Census, 1)".to_owned())]].concat();
    assert_eq!(locks::judge_ranks(&twice), ["Census is the rank of 2 locks"]);
    locks::assert_shown();
}

/// More than two files that use each other cannot be read one after the other.
#[test]
fn no_more_than_two_files_use_each_other() {
    let (mut found, mut over_rooms) = (Vec::new(), Vec::new());
    for circle in Crate::new(sources()).components() {
        if circle.iter().any(|file| room_of(file) != room_of(&circle[0])) {
            over_rooms.push(circle);
        } else if circle.len() > 2 {
            found.push(circle);
        }
    }
    assert!(over_rooms.is_empty(), "circles over rooms: {over_rooms:#?}");
    assert!(found.is_empty(), "circles of more than two files: {found:#?}");
}

/// A test that cannot fail is worth nothing: each rule is shown a breach.
#[test]
fn each_rule_sees_its_breach() {
    let cases: &[(&str, &str, &str)] = &[
        ("net/a.rs", "use crate::client::Client;", "may not use client"),
        ("net/a.rs", "use crate::{error::Error, pool};", "may not use pool"),
        ("net/a.rs", "use crate::{resp::{Kind, Node}, topology::{self}};", "may not use topology"),
        ("net/mod.rs", "use super::lane::Lane;", "may not use lane"),
        ("net/a.rs", "use super::super::lane::Lane;", "may not use lane"),
        ("net/a.rs", "fn f() { crate::worker::run(|| ()) }", "may not use worker"),
        ("net/a.rs", "use crate::cellar::Wine;", "may not use cellar"),
        ("cellar.rs", "", "no room of this name"),
        ("net/a.rs", "fn f() { unsafe { g() } }", "unsafe outside"),
        ("sys/a.rs", "fn f() {\n\n\n\n\nunsafe { g() } }", "without a SAFETY"),
        ("ffi/a.rs", "unsafe impl Send for X {}", "without a SAFETY"),
        ("net/a.rs", "fn f() { let _ = libc::send(1); }", "writes to a socket"),
        ("lane/a.rs", "use std::net::TcpStream;", "writes to a socket"),
        ("net/conn.rs", "fn f() { self.socket.send_parts(parts); }", "beside the wire"),
        ("net/link.rs", "fn f() { self.wire.socket().recv_into(&mut buffer, None); }", "beside the wire"),
        ("worker.rs", "use std::thread;\nfn f() { thread::spawn(g); }", "starts a thread"),
        ("worker.rs", "use std::{io, thread};\nfn f() { thread::scope(g); }", "starts a thread"),
        ("worker.rs", "use std::thread::{Builder, ThreadId};", "starts a thread"),
        ("worker.rs", "fn f() { std::thread::Builder::new(); }", "starts a thread"),
        ("worker.rs", "fn f() { println!(\"x\"); }", "println!"),
        ("topology/a.rs", "fn f() { fastrand::f64(); }", "random numbers"),
        ("sys/a.rs", "static X: OnceLock<u8> = OnceLock::new();", "a forked child"),
        ("sys/a.rs", "static X: std::sync::Once = Once::new();", "a forked child"),
        ("pool/a.rs", "use std::sync::{Arc, Mutex};", "a lock that has no rank"),
        ("pool/a.rs", "use std::sync::{\n    Arc,\n    Condvar,\n};", "a lock that has no rank"),
        ("sys/a.rs", "struct A(std::sync::RwLock<u8>);", "a lock that has no rank"),
        ("sys/a.rs", "#[cfg(test)]\nmod tests;\nstruct A(std::sync::RwLock<u8>);", "a lock that has no rank"),
        ("net/a.rs", "fn f() { std::thread::sleep(time); }", "waits without may_wait()"),
        (
            "net/a.rs",
            "fn f() {\n    may_wait(x);\n}\nfn g() {\n    receiver.recv().ok();\n}",
            "waits without may_wait()",
        ),
        (
            "sys/a.rs",
            "fn f() {\n    // SAFETY: none.\n    unsafe { libc::poll(a, b, c) };\n    may_wait(x);\n}",
            "waits without may_wait()",
        ),
    ];
    for (name, code, wanted) in cases {
        let breaches = judge(name, &format!("//! A room.\n{code}\n"));
        assert!(breaches.iter().any(|b| b.contains(wanted)), "{name}: {code:?} gave {breaches:?}, not {wanted:?}");
    }
    assert!(judge("time.rs", "fn f() {}").iter().any(|b| b.contains("begin with //!")));
    assert!(judge("time.rs", &format!("//! A room.\n{}", " ".repeat(MAX_BYTES))).iter().any(|b| b.contains("bytes")));
}

#[test]
fn what_is_allowed_is_let_through() {
    let cases: &[(&str, &str)] = &[
        ("net/a.rs", "use crate::error::{Error, Result};\nuse super::socket::Socket;\nuse crate::net::Conn;"),
        ("net/a.rs", "// unsafe println! crate::client\n/* /* std::thread::spawn */ unsafe */ fn f() {}"),
        (
            "net/a.rs",
            "const T: &str = \"unsafe crate::pool \\\" println!\"; const R: &str = r#\"unsafe \"#; const C: char = '\"';",
        ),
        ("net/socket.rs", "fn f<'a>(x: &'a u8) { let _ = libc::send(1); }"),
        ("sys/thread.rs", "fn f() { std::thread::Builder::new(); }"),
        ("worker.rs", "fn f() { crate::sys::thread::spawn(\"w\", || ()); std::thread::yield_now(); }"),
        ("worker.rs", "use crate::sys::thread;\nfn f() { thread::spawn(\"w\", || ()); }"),
        ("worker.rs", "use std::thread;\nfn f() -> bool { thread::panicking() }"),
        (
            "sys/a.rs",
            "// SAFETY: the pointer comes from a Box, and two lines\n// may say so.\nfn f() { unsafe { g() } }",
        ),
        ("pool/a.rs", "use crate::sys::sync::{Condvar, Lock};\nuse std::sync::{Arc, Weak, atomic::AtomicU8};"),
        ("net/a.rs", "fn f() {\n    may_wait(x);\n    receiver.recv().ok();\n}"),
        ("ffi/a.rs", "#[unsafe(no_mangle)]\npub unsafe extern \"C\" fn vigie_x() {}"),
        ("time.rs", "#[cfg(test)]\nmod tests {\nfn f() { println!(\"x\"); std::thread::spawn(|| ()); } }"),
    ];
    for (name, code) in cases {
        let breaches = judge(name, &format!("//! A room.\n{code}\n"));
        assert!(breaches.is_empty(), "{name}: {code:?} gave {breaches:?}");
    }
}

/// The code of all files, without comments, strings and unit tests, by their paths below src.
fn sources() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let name = |file: &Path| file.strip_prefix(&src).expect("below src").to_string_lossy().replace('\\', "/");
    let files = rust_files(&src).into_iter().map(|file| (name(&file), fs::read_to_string(&file).expect("readable")));
    files.filter(|(name, _)| !is_test(name)).map(|(name, text)| (name, without_tests(&code_only(&text)))).collect()
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("src can be listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Every breach of a rule in one file; `name` is its path below src.
fn judge(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !text.starts_with("//!") {
        found.push("does not begin with //!".to_owned());
    }
    if text.len() > MAX_BYTES {
        found.push(format!("has {} bytes, more than {MAX_BYTES}", text.len()));
    }
    // Unit tests may do what they like; they stand in a file of their own or at the end of one.
    if name != "lib.rs" && !is_test(name) {
        let code = without_tests(&code_only(text));
        judge_rooms(name, &code, &mut found);
        judge_unsafe(name, text, &code, &mut found);
        judge_words(name, &code, &mut found);
        locks::judge(name, &code, &mut found);
    }
    found.into_iter().map(|breach| format!("src/{name}: {breach}")).collect()
}

fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs") || name.contains("/tests/")
}

fn room_of(name: &str) -> &str {
    name.split('/').next().unwrap_or(name).trim_end_matches(".rs")
}

fn judge_rooms(name: &str, code: &str, found: &mut Vec<String>) {
    let room = room_of(name);
    let Some((_, allowed)) = ROOMS.iter().find(|(known, _)| *known == room) else {
        found.push(format!("no room of this name in tests/layering.rs: {room}"));
        return;
    };
    // `super` of a room's first file is the crate, like `super::super` of the files in it.
    let is_first = !name.contains('/') || name.ends_with("/mod.rs");
    let root = if is_first { "super::" } else { "super::super::" };
    for prefix in ["crate::", root] {
        for (line, used) in paths_behind(code, prefix) {
            if used != room && !allowed.contains(&used.as_str()) {
                found.push(format!("line {line}: {room} may not use {used}"));
            }
        }
    }
}

/// The first names behind each occurrence of a path prefix, those of a `{group}` included, with their lines.
fn paths_behind(code: &str, prefix: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|c: char| is_word(c) || c == ':') {
            continue; // the end of a longer path
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + prefix.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            names.extend(first_names(group).into_iter().map(|n| (line, n)));
        } else if !rest.starts_with("super") {
            names.push((line, rest.chars().take_while(|c| is_word(*c)).collect()));
        }
    }
    names
}

/// `error::Error, resp::{Kind, Node}, pool}...` gives error, resp, pool.
fn first_names(group: &str) -> Vec<String> {
    let (mut names, mut depth, mut at_start) = (Vec::new(), 1, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => at_start = true,
            c if at_start && depth == 1 && is_word(c) => {
                names.push(group[at..].chars().take_while(|c| is_word(*c)).collect());
                at_start = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn judge_unsafe(name: &str, text: &str, code: &str, found: &mut Vec<String>) {
    let lines: Vec<&str> = text.lines().collect();
    for (number, line) in code.lines().enumerate() {
        for after in words_after(line, "unsafe") {
            let what = after.trim_start();
            if !UNSAFE_ROOMS.contains(&room_of(name)) {
                found.push(format!("line {}: unsafe outside of {}", number + 1, UNSAFE_ROOMS.join(" and ")));
            } else if what.starts_with('{') || what.starts_with("impl") || what.is_empty() {
                let reason = lines[number.saturating_sub(3)..=number].iter().any(|l| l.contains("SAFETY:"));
                if !reason {
                    found.push(format!("line {}: unsafe without a SAFETY reason in the three lines above", number + 1));
                }
            }
        }
    }
}

fn judge_words(name: &str, code: &str, found: &mut Vec<String>) {
    let imported = code.lines().any(|line| line.contains("use std::") && !words_after(line, "thread").is_empty());
    for (number, line) in code.lines().enumerate() {
        let mut breach = |what: String| found.push(format!("line {}: {what}", number + 1));
        for word in SOCKET_WRITES {
            if name != SOCKET_WRITER && !words_after(line, word).is_empty() {
                breach(format!("{word}: writes to a socket outside of {SOCKET_WRITER}"));
            }
        }
        if room_of(name) == "net" && !SOCKET_USERS.contains(&name) {
            for word in SOCKET_MOVES.iter().filter(|word| !words_after(line, word).is_empty()) {
                breach(format!("{word}: moves bytes over a socket beside the wire"));
            }
        }
        if name != THREAD_STARTER && THREAD_STARTS.iter().any(|word| starts_thread(line, word, imported)) {
            breach(format!("std::thread: starts a thread outside of {THREAD_STARTER}"));
        }
        if name != THREAD_STARTER && line.contains("pthread_create") {
            breach(format!("pthread_create: starts a thread outside of {THREAD_STARTER}"));
        }
        if name != RANDOM && !words_after(line, "fastrand").is_empty() {
            breach(format!("fastrand: random numbers outside of {RANDOM}, which forked children do not share"));
        }
        let is_static = !words_after(line, "static").is_empty();
        if is_static && WAITED_FOR.iter().any(|word| !words_after(line, word).is_empty()) {
            breach("a static that a forked child may have to wait for: sys::fork::PerProcess does not wait".to_owned());
        }
        for word in MACROS {
            if words_after(line, word).iter().any(|after| after.starts_with('!')) {
                breach(format!("{word}! in the library"));
            }
        }
    }
}

/// `imported`: a bare `thread` is std's here, and not our own module of that name.
fn starts_thread(line: &str, word: &str, imported: bool) -> bool {
    if line.contains("use std::thread::") && !words_after(line, word).is_empty() {
        return true;
    }
    let path = format!("thread::{word}");
    line.match_indices(&path).any(|(at, _)| match line[..at].strip_suffix("::") {
        Some(parent) => parent.ends_with("std"),
        None => imported && !line[..at].ends_with(is_word),
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What follows each occurrence of a word that stands by itself.
fn words_after<'a>(line: &'a str, word: &str) -> Vec<&'a str> {
    let whole = |at: usize| !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word);
    line.match_indices(word).filter(|(at, _)| whole(*at)).map(|(at, _)| &line[at + word.len()..]).collect()
}

/// The text up to a module of unit tests.
fn without_tests(code: &str) -> String {
    let mut modules = code.match_indices("#[cfg(test)]\nmod ");
    // A module in a file of its own is only named here.
    let inline = modules.find(|(at, _)| code[*at..].lines().nth(1).is_some_and(|line| line.ends_with('{')));
    inline.map_or(code, |(at, _)| &code[..at]).to_owned()
}

/// The text with comments and the insides of strings and characters blanked; lines stay where they are.
fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => end_of_line(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => end_of_comment(&chars, at),
            '"' => end_of_string(&chars, at),
            'r' if !out.ends_with(is_word_not_b_or_c) => end_of_raw_string(&chars, at).unwrap_or(at),
            '\'' => end_of_char(&chars, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

fn is_word_not_b_or_c(c: char) -> bool {
    is_word(c) && c != 'b' && c != 'c'
}

fn end_of_line(chars: &[char], from: usize) -> usize {
    chars[from..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| from + n)
}

fn end_of_comment(chars: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(chars.len())
}

fn end_of_string(chars: &[char], from: usize) -> usize {
    let mut at = from + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn end_of_raw_string(chars: &[char], from: usize) -> Option<usize> {
    let hashes = chars[from + 1..].iter().take_while(|c| **c == '#').count();
    let open = from + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let closes =
        |at: &usize| chars[*at] == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    Some((open + 1..chars.len()).find(closes).map_or(chars.len(), |at| at + 1 + hashes))
}

/// A character, not a lifetime: `'x'` or `'\...'`.
fn end_of_char(chars: &[char], from: usize) -> Option<usize> {
    if chars.get(from + 1) == Some(&'\\') {
        let close = chars[from + 3..].iter().position(|c| *c == '\'')?;
        return Some(from + 3 + close + 1);
    }
    (chars.get(from + 2) == Some(&'\'')).then_some(from + 3)
}
