//! Where the keys of a command are, and which of them it may write.
//!
//! Guarantees: no allocation and no panic, whatever the arguments are; a command that is too malformed to say where its keys are is an
//! error, never a guess. Leaves to others: which shard a key is on (shard), and what else is wrong with a command (the server).

use super::spec::{Flags, Keys, Spec, Writes};
use super::{lookup, lookup2};
use crate::error::{Error, Result, Status, quoted};

/// What a command names that says where it has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// Keys, at least one.
    Keys(Places),
    /// Channels, at least one: no keys, but subscriber and publisher have to meet on one node.
    Channels(Places),
    /// Neither.
    Nothing,
    /// The table does not have the command, or not this sub-command: it may have keys anywhere.
    Unknown,
}

/// The indexes of keys or channels among the arguments of a command, whose name is argument 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// One in front of the others; 0: none.
    front: usize,
    /// The others: from `first` to before `end`, every `step`-th.
    first: usize,
    end: usize,
    step: usize,
    /// One behind them; 0: none.
    behind: usize,
    written: Written,
}

/// Which of the keys may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    None,
    All,
    /// Only that at this index; 0: none.
    At(usize),
}

impl Places {
    fn range(first: usize, end: usize, step: usize) -> Self {
        Self { front: 0, first, end, step, behind: 0, written: Written::All }
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        let between = (self.end - self.first).div_ceil(self.step);
        between + usize::from(self.front > 0) + usize::from(self.behind > 0)
    }

    /// The indexes, in the order of the server's COMMAND GETKEYS.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = usize> + use<> {
        let (front, behind) = (Some(self.front).filter(|at| *at > 0), Some(self.behind).filter(|at| *at > 0));
        front.into_iter().chain((self.first..self.end).step_by(self.step)).chain(behind)
    }

    /// Whether the command may write the key at this index; if not, it only reads it.
    #[inline]
    pub fn is_written(&self, at: usize) -> bool {
        match self.written {
            Written::None => false,
            Written::All => true,
            Written::At(only) => at == only,
        }
    }
}

/// What a whole command names.
pub fn named(args: &[&[u8]]) -> Result<Named> {
    let Some(name) = args.first() else { return Err(Error::new(Status::InvalidArg, "a command needs a name")) };
    let Some(mut spec) = lookup(name) else { return Ok(Named::Unknown) };
    if spec.flags.has(Flags::CONTAINER) {
        let Some(sub) = args.get(1) else { return Ok(Named::Nothing) };
        match lookup2(name, sub) {
            Some(found) => spec = found,
            None => return Ok(Named::Unknown),
        }
    }
    let places = match spec.keys {
        Keys::None => return Ok(Named::Nothing),
        Keys::Channels { first, .. } if args.len() <= usize::from(first) => return Ok(Named::Nothing),
        Keys::Channels { first, last } => return range(spec, args, [first, 1], last, Writes::All).map(Named::Channels),
        Keys::Range { first, last, step, writes } => range(spec, args, [first, step], last, writes)?,
        Keys::Counted { front, at, step } => match counted(spec, args, [front, at, step].map(usize::from))? {
            Some(places) => places,
            None => return Ok(Named::Nothing),
        },
        Keys::Streams => streams(spec, args)?,
        Keys::Store => store(spec, args)?,
        Keys::Migrate => migrate(spec, args)?,
    };
    let written = if spec.flags.has(Flags::READ) { Written::None } else { places.written };
    Ok(Named::Keys(Places { written, ..places }))
}

fn range(spec: &Spec, args: &[&[u8]], [first, step]: [u8; 2], last: i8, writes: Writes) -> Result<Places> {
    let (first, step) = (usize::from(first), usize::from(step));
    let end = match usize::try_from(last) {
        Ok(last) => last + 1,
        Err(_) => (args.len() + 1).saturating_sub(usize::from(last.unsigned_abs())),
    };
    if end > args.len() || end <= first {
        let missing = if last > 0 { args.len() } else { first };
        return Err(fault(spec, format_args!("its key is missing (argument {missing})")));
    }
    if (end - first) % step != 0 && last < 0 {
        return Err(fault(
            spec,
            format_args!("a key and what belongs to it are {step} arguments, and some are missing"),
        ));
    }
    let written = match writes {
        Writes::All => Written::All,
        Writes::First => Written::At(first),
        Writes::Last => Written::At(end - 1),
    };
    Ok(Places { written, ..Places::range(first, end, step) })
}

/// `None`: there are none, which only a script may have.
fn counted(spec: &Spec, args: &[&[u8]], [front, at, step]: [usize; 3]) -> Result<Option<Places>> {
    let Some(text) = args.get(at) else {
        return Err(fault(spec, format_args!("the number of its keys is missing (argument {at})")));
    };
    let first = at + 1;
    let count = number(text).ok_or_else(|| {
        let text = quoted(&String::from_utf8_lossy(text));
        fault(spec, format_args!("argument {at} is the number of its keys, and is {text}"))
    })?;
    let there = (args.len() - first) / step;
    if count > there {
        return Err(fault(spec, format_args!("argument {at} says that it has {count} keys, and there are {there}")));
    }
    match count {
        0 if spec.flags.has(Flags::SCRIPT) => Ok(None),
        0 => Err(fault(spec, format_args!("argument {at} says that it has no keys, and it needs one"))),
        _ => {
            let written = if front > 0 { Written::At(front) } else { Written::All };
            Ok(Some(Places { front, written, ..Places::range(first, first + count * step, step) }))
        }
    }
}

/// STREAMS is followed by as many keys as ids. No argument before it can look like it, except the names after GROUP.
fn streams(spec: &Spec, args: &[&[u8]]) -> Result<Places> {
    let skipped = if args.get(1).is_some_and(|arg| arg.eq_ignore_ascii_case(b"GROUP")) { 4 } else { 1 };
    let place = args.iter().skip(skipped).position(|arg| arg.eq_ignore_ascii_case(b"STREAMS"));
    let Some(first) = place.map(|place| place + skipped + 1) else {
        return Err(fault(spec, format_args!("STREAMS is missing, behind which its keys are")));
    };
    let behind = args.len() - first;
    if behind == 0 || behind % 2 != 0 {
        return Err(fault(
            spec,
            format_args!("as many ids as keys stand behind STREAMS, and there are {behind} arguments"),
        ));
    }
    Ok(Places::range(first, first + behind / 2, 1))
}

fn store(spec: &Spec, args: &[&[u8]]) -> Result<Places> {
    if args.len() < 2 {
        return Err(fault(spec, format_args!("its key is missing (argument 1)")));
    }
    let behind = stored_at(spec.name, args).unwrap_or(0);
    Ok(Places { behind, written: Written::At(behind), ..Places::range(1, 2, 1) })
}

/// The last STORE or STOREDIST counts, as in the server; options that take values are stepped over as it does.
fn stored_at(name: &str, args: &[&[u8]]) -> Option<usize> {
    let is_sort = name == "SORT";
    let mut at = match name {
        "SORT" => 2,
        "GEORADIUS" => 6,
        _ => 5,
    };
    let mut stored = None;
    while let Some(arg) = args.get(at) {
        let is = |word: &str| arg.eq_ignore_ascii_case(word.as_bytes());
        if is("STORE") || (!is_sort && is("STOREDIST")) {
            at += 1;
            stored = (at < args.len()).then_some(at).or(stored);
        } else if is_sort && (is("BY") || is("GET") || is("LIMIT")) {
            at += 1 + usize::from(is("LIMIT"));
        }
        at += 1;
    }
    stored
}

fn migrate(spec: &Spec, args: &[&[u8]]) -> Result<Places> {
    if args.get(3).is_some_and(|key| !key.is_empty()) {
        return Ok(Places::range(3, 4, 1));
    }
    let mut at = 6;
    while let Some(arg) = args.get(at) {
        if arg.eq_ignore_ascii_case(b"KEYS") && at + 1 < args.len() {
            return Ok(Places::range(at + 1, args.len(), 1));
        }
        at += 1 + usize::from(arg.eq_ignore_ascii_case(b"AUTH")) + 2 * usize::from(arg.eq_ignore_ascii_case(b"AUTH2"));
    }
    Err(fault(spec, format_args!("its key is missing (argument 3, or all behind KEYS)")))
}

/// A number as a server reads it: digits, without a sign and without a zero in front.
fn number(text: &[u8]) -> Option<usize> {
    let is_plain = text.iter().all(u8::is_ascii_digit) && (text.len() == 1 || !text.starts_with(b"0"));
    if is_plain { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

#[cold]
fn fault(spec: &Spec, what: std::fmt::Arguments<'_>) -> Error {
    Error::new(Status::InvalidArg, format!("{}: {what}; nothing was sent", spec.name))
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod keys_tests;
