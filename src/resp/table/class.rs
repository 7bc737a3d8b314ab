//! Classifies a whole command, including its arguments.
//!
//! Guarantees: no allocation; for most commands only the name is looked at. Leaves to others: what follows from the class.

use std::time::Duration;

use super::spec::{Flags, Spec};
use super::{lookup, lookup2};

/// How long a command may keep its connection waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocks {
    /// At most this long.
    For(Duration),
    /// Until something happens.
    Forever,
}

/// A command with its arguments.
#[derive(Debug, Clone, Copy)]
pub struct Class {
    /// Its row; `None` when it is not known, which counts as a write.
    pub spec: Option<&'static Spec>,
    /// Its properties, those that depend on arguments included.
    pub flags: Flags,
    /// How long it may block; `None` when it does not.
    pub blocks: Option<Blocks>,
}

impl Class {
    /// Whether sending it twice does no harm: it only reads, and is not bound to a cursor.
    pub fn is_repeatable(&self) -> bool {
        self.flags.has_any(Flags::READ.and(Flags::REPEAT)) && !self.flags.has(Flags::SCAN)
    }
}

/// Looks a command up, its name first among `args`.
#[inline(always)]
pub fn classify(args: &mut dyn Iterator<Item = &[u8]>) -> Class {
    let Some(name) = args.next() else { return Class { spec: None, flags: Flags::NONE, blocks: None } };
    let mut spec = lookup(name);
    if spec.is_some_and(|spec| spec.flags.has(Flags::CONTAINER)) {
        match args.next().map(|sub| lookup2(name, sub)) {
            Some(Some(sub)) => spec = Some(sub),
            // An unknown sub-command may do anything, whatever the other sub-commands do.
            Some(None) => {
                let flags = spec.map_or(Flags::NONE, |spec| spec.flags.without(Flags::READ));
                return Class { spec, flags, blocks: None };
            }
            None => {}
        }
    }
    let flags = spec.map_or(Flags::UNKNOWN, |spec| spec.flags);
    let mut class = Class { spec, flags: flags.without(Flags::ARGS), blocks: None };
    if let (true, Some(spec)) = (flags.has(Flags::ARGS), spec) {
        by_arguments(spec.name, args, &mut class);
    }
    class
}

fn by_arguments(name: &str, args: &mut dyn Iterator<Item = &[u8]>, class: &mut Class) {
    match name {
        "BITFIELD" if only_gets(args) => class.flags = class.flags.and(Flags::REPEAT),
        "SORT" | "GEORADIUS" | "GEORADIUSBYMEMBER" if !any(args, &["STORE", "STOREDIST"]) => {
            class.flags = class.flags.and(Flags::REPEAT);
        }
        "FT.AGGREGATE" | "FT.HYBRID" | "FT.PROFILE" if any(args, &["WITHCURSOR"]) => {
            class.flags = class.flags.without(Flags::READ);
        }
        "XREAD" | "XREADGROUP" => {
            class.blocks = stream_block(args);
            if class.blocks.is_some() {
                class.flags = class.flags.and(Flags::BLOCK);
            }
        }
        "WAIT" => class.blocks = Some(blocks(args.nth(1), 1000.0)),
        "WAITAOF" => class.blocks = Some(blocks(args.nth(2), 1000.0)),
        "BLMPOP" | "BZMPOP" => class.blocks = Some(blocks(args.next(), 1.0)),
        _ if class.flags.has(Flags::BLOCK) => class.blocks = Some(blocks(args.last(), 1.0)),
        _ => {}
    }
}

fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

fn any(mut args: &mut dyn Iterator<Item = &[u8]>, words: &[&str]) -> bool {
    Iterator::any(&mut args, |arg| words.iter().any(|word| is(arg, word)))
}

/// BITFIELD key [GET type offset ...]: nothing but GETs.
fn only_gets(args: &mut dyn Iterator<Item = &[u8]>) -> bool {
    args.next();
    while let Some(operation) = args.next() {
        if !is(operation, "GET") {
            return false;
        }
        args.nth(1);
    }
    true
}

/// The BLOCK option before STREAMS.
fn stream_block(args: &mut dyn Iterator<Item = &[u8]>) -> Option<Blocks> {
    while let Some(arg) = args.next() {
        if is(arg, "STREAMS") {
            return None;
        }
        if is(arg, "BLOCK") {
            return Some(blocks(args.next(), 1000.0));
        }
        if is(arg, "GROUP") {
            args.nth(1);
        } else if is(arg, "COUNT") {
            args.next();
        }
    }
    None
}

/// A timeout in fractions of a second; 0 is forever. The server refuses one that is not a number at once.
fn blocks(timeout: Option<&[u8]>, parts: f64) -> Blocks {
    let number = timeout.and_then(|text| std::str::from_utf8(text).ok()).and_then(|text| text.parse::<f64>().ok());
    match number {
        Some(0.0) => Blocks::Forever,
        Some(number) => match Duration::try_from_secs_f64(number / parts) {
            Ok(duration) => Blocks::For(duration),
            Err(_) => Blocks::For(Duration::ZERO),
        },
        None => Blocks::For(Duration::ZERO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: &str) -> Class {
        classify(&mut command.split(' ').map(str::as_bytes))
    }

    #[test]
    fn blocking_is_read_from_the_arguments() {
        let millis = |ms| Some(Blocks::For(Duration::from_millis(ms)));
        for (command, expected) in [
            ("BLPOP a b 1.5", millis(1500)),
            ("brpop a 0", Some(Blocks::Forever)),
            ("BLMOVE a b LEFT LEFT 2", millis(2000)),
            ("BLMPOP 3 1 a LEFT", millis(3000)),
            ("BZMPOP 0 1 a MIN", Some(Blocks::Forever)),
            ("BZPOPMIN a 0.25", millis(250)),
            ("BRPOPLPUSH a b x", millis(0)),
            ("WAIT 1 100", millis(100)),
            ("WAITAOF 1 0 50", millis(50)),
            ("XREAD COUNT 1 BLOCK 500 STREAMS s $", millis(500)),
            ("XREAD BLOCK 0 STREAMS s $", Some(Blocks::Forever)),
            ("XREADGROUP GROUP BLOCK c BLOCK 5 STREAMS s >", millis(5)),
        ] {
            let class = of(command);
            assert_eq!(class.blocks, expected, "{command}");
            assert!(class.flags.has(Flags::BLOCK), "{command}");
        }
        for command in
            ["XREAD STREAMS BLOCK 5", "XREADGROUP GROUP BLOCK 5 STREAMS s >", "CLIENT PAUSE 100", "LPOP a", "BLOCK"]
        {
            assert!(of(command).blocks.is_none() && !of(command).flags.has(Flags::BLOCK), "{command}");
        }
    }

    #[test]
    fn what_only_reads_may_be_repeated() {
        for command in [
            "get a",
            "BITFIELD a GET u8 0 GET u8 8",
            "BITFIELD a",
            "SORT a BY nosort",
            "GEORADIUS a 1 1 1 m",
            "EVAL_RO x 0",
            "XREAD BLOCK 0 STREAMS s $",
            "CLIENT LIST",
            "FT.AGGREGATE i *",
            "PING",
            "COMMAND",
            "OBJECT ENCODING a",
            "SCRIPT EXISTS x",
            "PUBSUB NUMSUB a",
        ] {
            assert!(of(command).is_repeatable(), "{command}");
        }
        for command in [
            "SET a b",
            "NOSUCH",
            "",
            "BITFIELD a GET u8 0 SET u8 0 1",
            "SORT a STORE b",
            "GEORADIUS a 1 1 1 m STOREDIST b",
            "SCAN 0",
            "HSCAN a 0",
            "EVAL x 0",
            "PUBLISH a b",
            "FT.AGGREGATE i * WITHCURSOR",
            "CLIENT NOSUCH",
            "COMMAND NOSUCH",
            "XREADGROUP GROUP g c STREAMS s >",
            "GETEX a",
            "CONFIG SET a b",
        ] {
            assert!(!of(command).is_repeatable(), "{command}");
        }
        for command in ["BITFIELD a GET u8 0", "SORT a", "GEORADIUS a 1 1 1 m", "SCRIPT EXISTS x", "PUBSUB NUMSUB a"] {
            assert!(!of(command).flags.has(Flags::READ), "{command}: replicas refuse it, or know something else");
        }
    }

    #[test]
    fn what_changes_the_connection_is_for_sessions() {
        for command in [
            "SELECT 1",
            "auth x",
            "HELLO 3",
            "RESET",
            "QUIT",
            "MULTI",
            "EXEC",
            "DISCARD",
            "WATCH a",
            "UNWATCH",
            "SUBSCRIBE a",
            "SUNSUBSCRIBE",
            "MONITOR",
            "PSYNC ? -1",
            "SYNC",
            "REPLCONF ACK 1",
            "ASKING",
            "READONLY",
            "READWRITE",
            "CLIENT REPLY OFF",
            "client no-evict on",
            "CLIENT NOSUCH",
            "CLIENT SETINFO LIB-NAME x",
            "SCRIPT DEBUG YES",
        ] {
            assert!(of(command).flags.has(Flags::STATE), "{command}");
        }
        for command in [
            "CLIENT LIST",
            "CLIENT ID",
            "CLIENT KILL ID 1",
            "CLIENT PAUSE 1",
            "SCRIPT LOAD x",
            "PING",
            "WAIT 0 1",
            "NOSUCH",
        ] {
            assert!(!of(command).flags.has(Flags::STATE), "{command}");
        }
    }
}
