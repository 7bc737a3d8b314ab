//! Replies of Sentinels, and to ROLE and INFO, with their meaning in their types: numbers as INT, flags as SET, pairs as MAP.
//!
//! Guarantees: no I/O; nothing that the server said is lost: a field that is not known stays as the text that it was, and a reply of
//! another form than expected stays as it came; the result is the same for RESP2 and RESP3. Leaves to others: asking (topology,
//! client).

use super::build::ReplyBuilder;
use super::node::Kind;
use super::reply::{Body, Reply};
use crate::error::Result;

/// The fields of a primary, a replica or a Sentinel that are whole numbers.
const NUMBERS: &[&str] = &[
    "port",
    "link-pending-commands",
    "link-refcount",
    "last-ping-sent",
    "last-ok-ping-reply",
    "last-ping-reply",
    "s-down-time",
    "o-down-time",
    "down-after-milliseconds",
    "info-refresh",
    "role-reported-time",
    "config-epoch",
    "num-slaves",
    "num-replicas",
    "num-other-sentinels",
    "quorum",
    "failover-timeout",
    "parallel-syncs",
    "master-link-down-time",
    "primary-link-down-time",
    "master-port",
    "primary-port",
    "slave-priority",
    "replica-priority",
    "slave-repl-offset",
    "replica-repl-offset",
    "replica-announced",
    "last-hello-message",
    "voted-leader-epoch",
    // PENDING-SCRIPTS
    "pid",
    "run-time",
    "run-delay",
    "retry-num",
    // CONFIG GET
    "announce-port",
];

/// How a reply is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// One instance: MAP.
    Entry,
    /// Several: ARRAY of MAP.
    Entries,
    /// Host and port: ARRAY of STRING and INT, or NULL.
    Address,
    /// CKQUORUM: MAP.
    Quorum,
    /// INFO-CACHE: MAP from services to ARRAY of MAP.
    Cache,
    /// ROLE: MAP.
    Role,
    /// INFO: MAP.
    Info,
    /// IS-MASTER-DOWN-BY-ADDR: MAP.
    Down,
}

/// The commands whose replies have a typed form.
const FORMS: &[(&[&str], Form)] = &[
    (&["MASTERS"], Form::Entries),
    (&["PRIMARIES"], Form::Entries),
    (&["REPLICAS"], Form::Entries),
    (&["SLAVES"], Form::Entries),
    (&["SENTINELS"], Form::Entries),
    (&["PENDING-SCRIPTS"], Form::Entries),
    (&["MASTER"], Form::Entry),
    (&["PRIMARY"], Form::Entry),
    (&["CONFIG", "GET"], Form::Entry),
    (&["GET-MASTER-ADDR-BY-NAME"], Form::Address),
    (&["GET-PRIMARY-ADDR-BY-NAME"], Form::Address),
    (&["CKQUORUM"], Form::Quorum),
    (&["INFO-CACHE"], Form::Cache),
    (&["ROLE"], Form::Role),
    (&["INFO"], Form::Info),
    (&["IS-MASTER-DOWN-BY-ADDR"], Form::Down),
    (&["IS-PRIMARY-DOWN-BY-ADDR"], Form::Down),
];

fn form_of(command: &[&[u8]]) -> Option<Form> {
    let matches = |words: &[&str]| {
        words.len() <= command.len()
            && words.iter().zip(command).all(|(word, arg)| arg.eq_ignore_ascii_case(word.as_bytes()))
    };
    FORMS.iter().find(|(words, _)| matches(words)).map(|(_, form)| *form)
}

/// The reply to a command, typed. The command is given without the word SENTINEL.
pub fn typed(command: &[&[u8]], reply: Reply) -> Result<Reply> {
    let Some(form) = form_of(command) else { return Ok(reply) };
    let mut out = ReplyBuilder::new();
    match write(form, &reply, &mut out) {
        Some(()) => out.try_finish(),
        None => Ok(reply),
    }
}

/// `None`: the reply is not of this form.
fn write(form: Form, reply: &Body, out: &mut ReplyBuilder) -> Option<()> {
    match form {
        Form::Entry => entry(reply, 0, out),
        Form::Entries => {
            let entries = list(reply, 0)?;
            out.array();
            entries.into_iter().try_for_each(|id| entry(reply, id, out))?;
            out.end();
            Some(())
        }
        Form::Address => address(reply, out),
        Form::Quorum => quorum(reply, out),
        Form::Cache => cache(reply, out),
        Form::Role => role(reply, out),
        Form::Info => info(reply, 0, out),
        Form::Down => {
            let [down, leader, epoch] = list(reply, 0)?[..] else { return None };
            out.map().text("down").bool(reply.int(down)? != 0);
            out.text("leader").part(reply, leader).text("leader-epoch").part(reply, epoch).end();
            Some(())
        }
    }
}

/// The children of an ARRAY or a SET.
fn list(reply: &Body, id: u32) -> Option<Vec<u32>> {
    matches!(reply.kind(id), Kind::Array | Kind::Set).then(|| reply.children(id).collect())
}

/// The pairs of a MAP, or of a list of keys and values.
fn pairs(reply: &Body, id: u32) -> Option<Vec<(u32, u32)>> {
    let all: Vec<u32> = reply.children(id).collect();
    let fits = matches!(reply.kind(id), Kind::Array | Kind::Map) && all.len() % 2 == 0;
    fits.then(|| all.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

fn entry(reply: &Body, id: u32, out: &mut ReplyBuilder) -> Option<()> {
    let pairs = pairs(reply, id)?;
    out.map();
    for (key, value) in pairs {
        let name = reply.bytes(key)?;
        out.bytes(name);
        match name {
            b"flags" => flags(reply.bytes(value)?, out),
            name if NUMBERS.iter().any(|known| known.as_bytes() == name) => number(reply, value, out),
            _ => _ = out.part(reply, value),
        }
    }
    out.end();
    Some(())
}

/// Words with commas between, as a SET.
fn flags(text: &[u8], out: &mut ReplyBuilder) {
    out.set();
    for flag in text.split(|byte| *byte == b',').filter(|flag| !flag.is_empty()) {
        out.bytes(flag);
    }
    out.end();
}

/// An INT, if the text is one.
fn number(reply: &Body, id: u32, out: &mut ReplyBuilder) {
    match whole(reply, id) {
        Some(value) => out.int(value),
        None => out.part(reply, id),
    };
}

fn whole(reply: &Body, id: u32) -> Option<i64> {
    if reply.kind(id) == Kind::Int { reply.int(id) } else { parse(reply.bytes(id)?) }
}

/// A number in the one form in which servers write it: what is written otherwise (`007`, `+1`) is a text.
fn parse(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse::<i64>().ok().filter(|value| value.to_string() == text)
}

fn address(reply: &Body, out: &mut ReplyBuilder) -> Option<()> {
    if reply.kind(0) == Kind::Null {
        out.null();
        return Some(());
    }
    let [host, port] = list(reply, 0)?[..] else { return None };
    out.array().bytes(reply.bytes(host)?).int(whole(reply, port)?).end();
    Some(())
}

/// `OK 3 usable Sentinels. Quorum and failover authorization can be reached`. Without a quorum the reply is an error.
fn quorum(reply: &Body, out: &mut ReplyBuilder) -> Option<()> {
    let text = reply.bytes(0).filter(|_| reply.kind(0) != Kind::Error)?;
    let mut words = std::str::from_utf8(text).ok()?.split(' ');
    let (word, usable) = (words.next()?, words.next()?.parse::<i64>().ok()?);
    (word == "OK").then(|| _ = out.map().text("usable").int(usable).text("text").bytes(text).end())
}

/// Services, each with a list of the age of an INFO in milliseconds, and the INFO or null: first the primary's, then the replicas'.
fn cache(reply: &Body, out: &mut ReplyBuilder) -> Option<()> {
    let services = pairs(reply, 0)?;
    out.map();
    for (name, nodes) in services {
        out.bytes(reply.bytes(name)?).array();
        for node in list(reply, nodes)? {
            let [age, said] = list(reply, node)?[..] else { return None };
            out.map().text("age_ms");
            number(reply, age, out);
            out.text("info");
            match reply.kind(said) {
                Kind::Null => _ = out.null(),
                _ => info(reply, said, out)?,
            }
            out.end();
        }
        out.end();
    }
    out.end();
    Some(())
}

fn role(reply: &Body, out: &mut ReplyBuilder) -> Option<()> {
    let parts = list(reply, 0)?;
    let word = reply.bytes(*parts.first()?)?;
    match (word, &parts[1..]) {
        (b"sentinel", [services]) => {
            let services = list(reply, *services)?;
            out.map().text("role").bytes(word).text("services").array();
            for service in services {
                out.bytes(reply.bytes(service)?);
            }
            out.end().end();
        }
        (b"master" | b"primary", [offset, replicas]) => {
            let replicas = list(reply, *replicas)?;
            out.map().text("role").bytes(word).text("offset").int(whole(reply, *offset)?).text("replicas").array();
            for replica in replicas {
                let [host, port, offset] = list(reply, replica)?[..] else { return None };
                out.map().text("host").bytes(reply.bytes(host)?).text("port").int(whole(reply, port)?).text("offset");
                number(reply, offset, out);
                out.end();
            }
            out.end().end();
        }
        (b"slave" | b"replica", [host, port, state, offset]) => {
            out.map().text("role").bytes(word).text("host").bytes(reply.bytes(*host)?);
            out.text("port").int(whole(reply, *port)?).text("state").bytes(reply.bytes(*state)?).text("offset");
            number(reply, *offset, out);
            out.end();
        }
        _ => return None,
    }
    Some(())
}

/// Lines `field:value`; those that begin with `#` are headings.
fn info(reply: &Body, id: u32, out: &mut ReplyBuilder) -> Option<()> {
    let text = reply.bytes(id).filter(|_| reply.kind(id) != Kind::Error)?;
    out.map();
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = line.iter().position(|byte| *byte == b':').filter(|_| line[0] != b'#') else { continue };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        out.bytes(name);
        match parse(value) {
            Some(value) => out.int(value),
            None => out.bytes(value),
        };
    }
    out.end();
    Some(())
}

#[cfg(test)]
#[path = "typed_tests.rs"]
mod tests;
