//! What is known of a call before a byte is sent (rule 19): its commands, what they allow, and the caller's flags.
//!
//! Guarantees: every list is parsed and every command is looked up here; a malformed call gets no further. Leaves to others: where
//! a call goes (route), and what its outcome means (call).

mod options;
mod refuse;
mod script;

use std::borrow::Cow;
use std::cell::Cell;
use std::time::Duration;

pub(crate) use options::NO_TIME;
pub use options::{CallFlags, Target};
pub(crate) use script::{Keep, reshaped, spelled_out};

use crate::error::{Error, Result, Status};
use crate::lane::{Bytes, Failure, Unit, transaction};
use crate::resp::list::{self, Command, CommandList};
use crate::resp::table::{self, Blocks, Class, Flags};
use crate::resp::{Kind, Reply, encode};
use crate::time::{Deadline, Instant, Timeout};

/// Larger units do not use a lane that other calls share (rule 20).
const LARGE_BYTES: usize = 64 * 1024;
const LARGE_COMMANDS: usize = 128;

/// The marks of commands of which more than their class matters.
const LOOKED_AT: Flags = Flags::SCAN.and(Flags::SLOW).and(Flags::STATE).and(Flags::SUBSCRIBE).and(Flags::TXN);

/// A call, looked up.
pub(crate) struct Plan<'a> {
    what: What<'a>,
    /// All commands only read.
    pub(crate) reads: bool,
    /// All commands may be sent again, whatever the outcome of the first attempt.
    pub(crate) repeatable: bool,
    /// Whether a command of the SCAN family is among them, and whether its cursor begins a scan.
    pub(crate) scan: Option<Scan>,
    pub(crate) slow: bool,
    pub(crate) blocks: Option<Blocks>,
    /// It gets a connection of its own: it blocks, or it is not known not to.
    pub(crate) apart: bool,
    /// A command of a module among them blocks, as its server has said.
    pub(crate) waits: bool,
    /// What any of the commands is.
    any: Flags,
    /// WAIT or WAITAOF is among them: they ask about the writes of their own connection.
    pub(crate) awaits: bool,
    /// The first command that needs a session.
    state: Option<String>,
    /// The first command that would break the pairing of commands and replies.
    unpaired: Option<String>,
    /// The other form of the script that ends it.
    other: Option<Box<script::OtherForm>>,
}

/// What of a plan an attempt sends: the commands from one on, the last of which may have two forms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) from: usize,
    /// The server does not know the hash of the script: its body is sent.
    pub(crate) by_body: bool,
}

/// Where a scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scan {
    Begins,
    GoesOn,
}

enum What<'a> {
    Args(&'a [&'a [u8]]),
    /// A list of one command, whose reply is its own.
    One(CommandList<'a>),
    List(CommandList<'a>),
    /// A list that runs as one transaction, and the same between MULTI and EXEC.
    Atomic(CommandList<'a>, Cow<'a, [u8]>),
}

/// What the reply to a plan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// That of one command.
    One,
    /// An ARRAY with one node for each command.
    List,
    /// An ARRAY with those of a transaction: MULTI, its commands, EXEC.
    Atomic,
}

impl<'a> Plan<'a> {
    /// The plan for one command.
    #[inline(always)]
    pub(crate) fn command(args: &'a [&'a [u8]]) -> Result<Self> {
        if args.first().is_none_or(|name| name.is_empty()) {
            return Err(Error::new(Status::InvalidArg, "a command needs a name"));
        }
        let mut plan = Self::new(What::Args(args));
        plan.add(|| args.iter().copied());
        plan.slow |= args.iter().map(|arg| arg.len()).sum::<usize>() > LARGE_BYTES;
        Ok(plan)
    }

    /// The plan for one RESP-encoded command, whose reply is its own.
    pub(crate) fn one(bytes: &'a [u8]) -> Result<Self> {
        let list = list::parse(bytes)?;
        if list.len() != 1 {
            let text = format!("commands: {} of them, and VIGIE_CALL_EACH runs exactly one at a time here", list.len());
            return Err(Error::new(Status::InvalidArg, text));
        }
        Self::of(list, What::One(list))
    }

    /// The plan for a list of RESP-encoded commands.
    pub(crate) fn list(bytes: &'a [u8]) -> Result<Self> {
        let list = list::parse(bytes)?;
        Self::of(list, What::List(list))
    }

    /// The plan for a list of RESP-encoded commands that runs as one transaction.
    pub(crate) fn atomic(bytes: &'a [u8]) -> Result<Self> {
        Self::of_atomic(bytes, || transaction::wrap(bytes).map(Cow::Owned))
    }

    /// As [`Plan::atomic`], for a list that is between MULTI and EXEC already.
    pub(crate) fn wrapped(whole: &'a [u8]) -> Result<Self> {
        Self::of_atomic(transaction::inner(whole), || Ok(Cow::Borrowed(whole)))
    }

    fn of_atomic(bytes: &'a [u8], whole: impl FnOnce() -> Result<Cow<'a, [u8]>>) -> Result<Self> {
        let list = list::parse(bytes)?;
        let mut plan = Self::looked_up(list, What::Atomic(list, Cow::Borrowed(&[])))?;
        plan.check_atomic()?;
        // Inside a transaction nothing blocks; and nothing of it is sent again once EXEC was.
        (plan.blocks, plan.apart, plan.awaits, plan.repeatable) = (None, false, false, false);
        plan.what = What::Atomic(list, whole()?);
        Ok(plan)
    }

    /// Refuses what cannot be part of a transaction.
    fn check_atomic(&self) -> Result<()> {
        let barred = Flags::STATE.and(Flags::SUBSCRIBE).and(Flags::TXN).and(Flags::SCAN);
        let flags_of = |args: &[&[u8]]| table::classify(&mut args.iter().copied()).flags;
        let Some((at, args)) = self.first(|args| flags_of(args).has_any(barred)) else { return Ok(()) };
        let sub = if args[0].eq_ignore_ascii_case(b"CLIENT") { args.get(1).map(|sub| short(sub)) } else { None };
        let name = sub.map_or_else(|| short(args[0]), |sub| format!("{} {sub}", short(args[0])));
        Err(Error::new(Status::InvalidArg, refuse::of_atomic(&name, &self.place(at), flags_of(&args))))
    }

    /// The plan for one command of a list that was parsed.
    #[inline]
    pub(crate) fn single(command: &Command<'a>) -> Self {
        let mut plan = Self::new(What::One(command.alone()));
        plan.add(|| command.args());
        plan.slow |= command.range().len() > LARGE_BYTES;
        plan
    }

    fn of(list: CommandList<'a>, what: What<'a>) -> Result<Self> {
        let plan = Self::looked_up(list, what)?;
        match list.len() > 1 && plan.blocks.is_some() {
            true => Err(plan.blocks_in_list()),
            false => Ok(plan),
        }
    }

    fn looked_up(list: CommandList<'a>, what: What<'a>) -> Result<Self> {
        let bytes = list.bytes();
        let (commands, large) = (list.len(), bytes.len() > LARGE_BYTES);
        if commands == 0 {
            return Err(Error::new(Status::InvalidArg, "commands: the list is empty"));
        }
        let (mut plan, mut nameless) = (Self::new(what), false);
        for command in list.commands() {
            nameless |= command.args().next().is_none_or(<[u8]>::is_empty);
            plan.add(|| command.args());
        }
        if nameless {
            return Err(Error::new(Status::InvalidArg, "commands: a command needs a name"));
        }
        plan.slow |= large || commands > LARGE_COMMANDS;
        Ok(plan)
    }

    fn new(what: What<'a>) -> Self {
        Self {
            what,
            reads: true,
            repeatable: true,
            scan: None,
            slow: false,
            blocks: None,
            apart: false,
            waits: false,
            any: Flags::NONE,
            awaits: false,
            state: None,
            unpaired: None,
            other: None,
        }
    }

    #[inline(always)]
    fn add<I: Iterator<Item = &'a [u8]>>(&mut self, args: impl Fn() -> I) {
        let class: Class = table::classify(&mut args());
        self.reads &= class.flags.has(Flags::READ);
        self.repeatable &= class.is_repeatable();
        self.any = self.any.and(class.flags);
        if class.blocks.is_some() || class.flags.has_any(LOOKED_AT) {
            self.look_at(class, &mut args());
        }
    }

    /// Notes what few commands have. All of their marks are in [`LOOKED_AT`], or they block.
    #[cold]
    fn look_at(&mut self, class: Class, args: &mut dyn Iterator<Item = &'a [u8]>) {
        let flags = class.flags;
        let front: [&[u8]; 3] = std::array::from_fn(|_| args.next().unwrap_or_default());
        self.slow |= flags.has(Flags::SLOW);
        self.blocks = self.blocks.or(class.blocks);
        self.apart |= class.blocks.is_some();
        if flags.has(Flags::SCAN) {
            let without_key = ["SCAN", "CLUSTERSCAN"].iter().any(|name| front[0].eq_ignore_ascii_case(name.as_bytes()));
            let cursor = if without_key { front[1] } else { front[2] };
            let scan = if cursor == b"0" { Scan::Begins } else { Scan::GoesOn };
            self.scan = self.scan.filter(|scan| *scan == Scan::GoesOn).or(Some(scan));
        }
        let name = || short(front[0]);
        if flags.has_any(Flags::STATE.and(Flags::SUBSCRIBE).and(Flags::TXN)) {
            let of_client = front[0].eq_ignore_ascii_case(b"CLIENT");
            let with_subcommand = || format!("{} {}", name(), short(front[1]));
            self.state.get_or_insert_with(|| if of_client { with_subcommand() } else { name() });
        }
        let is = |at: usize, word: &[u8]| front[at].eq_ignore_ascii_case(word);
        self.awaits |= class.blocks.is_some() && (is(0, b"WAIT") || is(0, b"WAITAOF"));
        let silences = is(0, b"CLIENT") && is(1, b"REPLY");
        if flags.has(Flags::SUBSCRIBE) || is(0, b"MONITOR") || is(0, b"SYNC") || is(0, b"PSYNC") || silences {
            self.unpaired.get_or_insert_with(|| if silences { "CLIENT REPLY".into() } else { name() });
        }
    }

    /// Whether a script is among the commands, which may have written before it was refused.
    pub(crate) fn runs_scripts(&self) -> bool {
        self.any.has(Flags::SCRIPT)
    }

    /// Whether a script is among the commands, or is loaded by them.
    #[inline]
    pub(crate) fn has_scripts(&self) -> bool {
        self.any.has_any(Flags::SCRIPT.and(Flags::LOADS))
    }

    /// Whether it has commands that few calls have: scripts, and what the table does not know.
    #[inline]
    pub(crate) fn wants_care(&self) -> bool {
        self.any.has_any(Flags::SCRIPT.and(Flags::LOADS).and(Flags::UNKNOWN))
    }

    /// Whether the table knows all of its commands. Inside a transaction nothing blocks, so it does not matter there.
    pub(crate) fn is_known(&self) -> bool {
        self.is_atomic() || !self.any.has(Flags::UNKNOWN)
    }

    /// Visits the names of the commands that the table does not have.
    pub(crate) fn each_unknown(&self, mut look: impl FnMut(&[u8])) {
        self.each_name(|name| {
            if table::lookup(name).is_none() {
                look(name);
            }
        });
    }

    /// Gives it a connection of its own. `waits`: one of its commands blocks.
    pub(crate) fn set_apart(&mut self, waits: bool) {
        (self.apart, self.waits) = (true, waits);
    }

    /// Whether it reads data that each node keeps for itself, and means the primary's.
    pub(crate) fn is_local(&self) -> bool {
        self.any.has(Flags::LOCAL)
    }

    /// Refuses what changes the state of the connection, which other calls share.
    #[inline(always)]
    pub(crate) fn check_shared(&self) -> Result<()> {
        self.check_paired()?;
        match &self.state {
            Some(name) => Err(Error::new(Status::Unsupported, refuse::of_state(name, &self.place_of(name)))),
            None => Ok(()),
        }
    }

    /// Refuses commands that get more or fewer replies than one.
    #[inline]
    pub(crate) fn check_paired(&self) -> Result<()> {
        match &self.unpaired {
            Some(name) => Err(Error::new(Status::Unsupported, refuse::of_unpaired(name, &self.place_of(name)))),
            None => Ok(()),
        }
    }

    /// The error for a call that does not only read, where it should. `place`: what this is; `instead`: who takes it.
    #[cold]
    pub(crate) fn read_only(&self, place: &str, instead: &str) -> Error {
        let writer = self.first(|args| !table::classify(&mut args.iter().copied()).flags.has(Flags::READ));
        let (name, at) =
            writer.map_or_else(|| (self.name(), String::new()), |(at, args)| (short(args[0]), self.place(at)));
        let form = refuse::reading_form(&name).map(|form| format!("send {form}, or ")).unwrap_or_default();
        let text = format!("{name}{at} writes, or is not known to only read: {place}; {form}use {instead}");
        Error::new(Status::ReadOnly, text)
    }

    #[cold]
    fn blocks_in_list(&self) -> Error {
        let blocking = self.first(|args| table::classify(&mut args.iter().copied()).blocks.is_some());
        let (name, at) = blocking.map_or_else(Default::default, |(at, args)| (short(args[0]), self.place(at)));
        let remedy = match self.awaits && name.starts_with("WAIT") {
            true => "wait for the replicas of a write with VIGIE_CALL_REPLICAS(n), or in a session",
            false => "run it by itself",
        };
        Error::new(Status::Unsupported, format!("{name}{at} blocks, and cannot be part of a list: {remedy}"))
    }

    /// The first command of which this is true: its position and its arguments.
    fn first(&self, is_it: impl Fn(&[&'a [u8]]) -> bool) -> Option<(usize, Vec<&'a [u8]>)> {
        match &self.what {
            What::Args(args) => Some((0, args.to_vec())).filter(|(_, args)| is_it(args)),
            What::One(list) | What::List(list) | What::Atomic(list, _) => list
                .commands()
                .map(|command| command.args().collect())
                .enumerate()
                .find(|(_, args): &(_, Vec<_>)| is_it(args)),
        }
    }

    /// Where the command of this name is in a list, for a message.
    fn place_of(&self, name: &str) -> String {
        let is_it = |args: &[&[u8]]| {
            let sub = || args.get(1).map(|sub| format!("{} {}", short(args[0]), short(sub)));
            short(args[0]) == name || sub().is_some_and(|both| both == name)
        };
        self.first(is_it).map(|(at, _)| self.place(at)).unwrap_or_default()
    }

    /// A position in a list, for a message; empty for what is no list.
    fn place(&self, at: usize) -> String {
        match &self.what {
            What::List(list) | What::Atomic(list, _) if list.len() > 1 => {
                format!(" (command {} of {})", at + 1, list.len())
            }
            _ => String::new(),
        }
    }

    /// The unit to send, beginning with the command at `from`.
    #[inline(always)]
    pub(crate) fn unit(&self, from: usize) -> Unit<'_> {
        let at_most_once = !self.repeatable;
        match &self.what {
            What::Args(args) => Unit { bytes: Bytes::Args(args), list: None, at_most_once, lease: None, atomic: false },
            What::One(list) => {
                Unit { bytes: Bytes::Raw(list.bytes()), list: None, at_most_once, lease: None, atomic: false }
            }
            What::List(list) => {
                let start = list.commands().nth(from).map_or(0, |command| command.range().start);
                Unit {
                    bytes: Bytes::Raw(&list.bytes()[start..]),
                    list: Some((list.len() - from) as u32),
                    at_most_once,
                    lease: None,
                    atomic: false,
                }
            }
            What::Atomic(list, whole) => Unit {
                bytes: Bytes::Raw(whole),
                list: Some(list.len() as u32 + transaction::ADDED),
                at_most_once,
                lease: None,
                atomic: true,
            },
        }
    }

    /// The length of the command at `from`: if fewer bytes were sent nothing was executed.
    pub(crate) fn first_len(&self, from: usize) -> usize {
        match &self.what {
            What::Args(args) => Bytes::Args(args).len(),
            What::One(list) => list.bytes().len(),
            What::List(list) => list.commands().nth(from).map_or(0, |command| command.range().len()),
            // Nothing runs before the last byte of EXEC has arrived.
            What::Atomic(_, whole) => whole.len(),
        }
    }

    /// Visits the commands of the SCAN family from the command at `from` on: each with its position, its arguments, and the
    /// position of the cursor among them.
    pub(crate) fn each_scan(&self, from: usize, mut look: impl FnMut(usize, &[&[u8]], usize)) {
        let mut look = |index: usize, args: &[&[u8]]| {
            let is_scan = table::lookup(args[0]).is_some_and(|spec| spec.flags.has(Flags::SCAN));
            let at = if args[0].eq_ignore_ascii_case(b"SCAN") { 1 } else { 2 };
            if is_scan && args.len() > at {
                look(index, args, at);
            }
        };
        match &self.what {
            What::Args(args) => look(0, args),
            What::One(list) | What::List(list) | What::Atomic(list, _) => {
                for (index, command) in list.commands().enumerate().skip(from) {
                    look(index, &command.args().collect::<Vec<_>>());
                }
            }
        }
    }

    /// How many commands there are.
    pub(crate) fn count(&self) -> u32 {
        match &self.what {
            What::Args(_) => 1,
            What::One(list) | What::List(list) | What::Atomic(list, _) => list.len() as u32,
        }
    }

    /// What its reply is.
    #[inline]
    pub(crate) fn shape(&self) -> Shape {
        match self.what {
            What::Args(_) | What::One(_) => Shape::One,
            What::List(_) => Shape::List,
            What::Atomic(..) => Shape::Atomic,
        }
    }

    /// The commands as they were given, encoded.
    pub(crate) fn commands(&self) -> Result<Cow<'_, [u8]>> {
        match &self.what {
            What::Args(args) => {
                let mut bytes = Vec::new();
                encode::try_command(&mut bytes, args)?;
                Ok(Cow::Owned(bytes))
            }
            What::One(list) | What::List(list) | What::Atomic(list, _) => Ok(Cow::Borrowed(list.bytes())),
        }
    }

    /// Whether the reply is an ARRAY with one node for each command.
    pub(crate) fn is_list(&self) -> bool {
        matches!(self.what, What::List(_))
    }

    /// Whether it is a transaction, between MULTI and EXEC.
    pub(crate) fn is_atomic(&self) -> bool {
        matches!(self.what, What::Atomic(..))
    }

    /// The command at this place, for a message: its name, and where it is.
    pub(crate) fn command_at(&self, at: usize) -> String {
        let index = Cell::new(0);
        let found = self.first(|_| index.replace(index.get() + 1) == at);
        found.map_or_else(String::new, |(at, args)| format!("{}{}", short(args[0]), self.place(at)))
    }

    /// Whether EXEC is among the commands.
    pub(crate) fn is_exec(&self) -> bool {
        match &self.what {
            What::Args(args) => matches!(args, [name] if is_exec(name)),
            What::One(list) | What::List(list) => list.commands().any(|command| is_exec(command.name())),
            What::Atomic(..) => true,
        }
    }

    /// Whether it only prepares or gives up a transaction: it changes no data, and what it changes of its connection is lost with that.
    pub(crate) fn only_watches(&self) -> bool {
        let watches = |name: &[u8]| {
            [b"WATCH".as_slice(), b"UNWATCH", b"MULTI", b"DISCARD"].iter().any(|known| name.eq_ignore_ascii_case(known))
        };
        match &self.what {
            What::Args(args) => args.first().is_some_and(|name| watches(name)),
            What::One(list) | What::List(list) => list.commands().all(|command| watches(command.name())),
            What::Atomic(..) => false,
        }
    }

    /// Whether it scans and writes nothing. Then it may be run again with the same cursor, whatever the outcome.
    pub(crate) fn only_scans(&self) -> bool {
        self.scan.is_some() && self.reads
    }

    /// Whether the caller's deadline came before the timeout of a blocking command. Then a missing answer says nothing about the
    /// server.
    pub(crate) fn is_ended_by_caller(&self, failure: &Failure, deadline: Deadline, now: Instant) -> bool {
        let waits_longer = match (self.blocks, deadline.budget()) {
            (Some(Blocks::Forever), Some(_)) => true,
            (Some(Blocks::For(own)), Some(budget)) => budget <= own,
            _ => false,
        };
        waits_longer
            && failure.error.status() == Status::Timeout
            && failure.sent > 0
            && deadline.end().is_some_and(|end| now >= end)
    }

    /// The error of such a call.
    pub(crate) fn waited(&self, error: Error) -> Error {
        let text = format!(
            "{} had nothing to answer yet when the time of the call was over: a blocking command waits best with its own timeout",
            error.endpoint()
        );
        Error::new(Status::Timeout, text).with_endpoint(error.endpoint()).with_flags(error.flags())
    }

    /// Whether an EXEC among the commands was answered with null.
    #[inline(always)]
    pub(crate) fn was_aborted(&self, reply: &Reply) -> bool {
        // EXEC needs a session, so most calls need no further look.
        self.state.is_some() && self.has_null_exec(reply)
    }

    fn has_null_exec(&self, reply: &Reply) -> bool {
        let is_null = |node: u32| reply.kind(node) == Kind::Null;
        match &self.what {
            What::List(list) => {
                list.commands().zip(reply.children(0)).any(|(command, node)| is_null(node) && is_exec(command.name()))
            }
            _ => is_null(0) && self.is_exec(),
        }
    }

    /// Whether it waits for data and for nothing else. Then a null means that it took nothing.
    pub(crate) fn pops(&self) -> bool {
        self.blocks.is_some() && !self.awaits
    }

    /// Visits the names of the commands, for a session that tracks the state of its connection.
    pub(crate) fn each_name(&self, mut look: impl FnMut(&[u8])) {
        match &self.what {
            What::Args(args) => look(args[0]),
            What::One(list) | What::List(list) => list.commands().for_each(|command| look(command.name())),
            What::Atomic(list, _) => {
                list.commands().for_each(|command| look(command.name()));
                look(b"EXEC");
            }
        }
    }

    /// Visits its commands: their names, and what they are. The commands of a transaction in one call come without MULTI and EXEC.
    pub(crate) fn each_class(&self, mut look: impl FnMut(&[u8], Class)) {
        match &self.what {
            What::Args(args) => look(args[0], table::classify(&mut args.iter().copied())),
            What::One(list) | What::List(list) | What::Atomic(list, _) => {
                list.commands().for_each(|command| look(command.name(), table::classify(&mut command.args())));
            }
        }
    }

    /// Its name in a message. Arguments are left out, because they may be secret.
    pub(crate) fn name(&self) -> String {
        match &self.what {
            What::Args(args) => short(args[0]),
            What::One(list) => list.commands().next().map(|command| short(command.name())).unwrap_or_default(),
            What::List(list) => {
                let first = list.commands().next().map(|command| short(command.name())).unwrap_or_default();
                format!("a list of {} ({first}, ...)", list.len())
            }
            What::Atomic(list, _) => {
                let first = list.commands().next().map(|command| short(command.name())).unwrap_or_default();
                format!("a transaction of {} ({first}, ...)", list.len())
            }
        }
    }

    /// The deadline of the call. The default of a blocking command is its own timeout plus the configured one.
    #[inline(always)]
    pub(crate) fn deadline(&self, timeout: Timeout, configured: Duration) -> Deadline {
        match (timeout, self.blocks) {
            (Timeout::Default, Some(Blocks::Forever)) => Deadline::never(),
            (Timeout::Default, Some(Blocks::For(own))) => Deadline::after(own.saturating_add(configured)),
            _ => timeout.deadline(configured),
        }
    }
}

fn is_exec(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"EXEC")
}

fn short(name: &[u8]) -> String {
    name.iter().take(32).map(|byte| byte.to_ascii_uppercase().escape_ascii().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan<R>(args: &[&str], look: impl FnOnce(Plan<'_>) -> R) -> R {
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        look(Plan::command(&args).unwrap())
    }

    #[test]
    fn what_a_command_is_decides_where_it_may_go() {
        assert!(plan(&["GET", "k"], |plan| plan.reads && plan.repeatable));
        assert!(plan(&["INCR", "k"], |plan| !plan.reads && !plan.repeatable));
        assert!(plan(&["NEW.COMMAND", "k"], |plan| !plan.reads && !plan.repeatable));
        assert!(plan(&["SCAN", "0"], |plan| plan.reads && !plan.repeatable && plan.scan == Some(Scan::Begins)));
        assert!(plan(&["HSCAN", "h", "17"], |plan| plan.scan == Some(Scan::GoesOn)));
        assert!(plan(&["CLUSTERSCAN", "0"], |plan| plan.scan == Some(Scan::Begins)));
        assert!(plan(&["SELECT", "1"], |plan| plan.check_shared().is_err() && plan.check_paired().is_ok()));
        assert!(plan(&["SUBSCRIBE", "c"], |plan| plan.check_paired().is_err()));
        assert!(plan(&["CLIENT", "REPLY", "OFF"], |plan| plan.check_paired().is_err()));
    }

    #[test]
    fn rule_20_what_is_large_or_slow_keeps_off_the_shared_lane() {
        let pings = |n: usize| b"*1\r\n$4\r\nPING\r\n".repeat(n);
        for (commands, slow) in [(1, false), (LARGE_COMMANDS, false), (LARGE_COMMANDS + 1, true)] {
            assert_eq!(Plan::list(&pings(commands)).unwrap().slow, slow, "{commands} commands");
        }
        for (size, slow) in [(LARGE_BYTES - 100, false), (LARGE_BYTES + 1, true)] {
            let text = "x".repeat(size);
            assert!(plan(&["ECHO", &text], |plan| plan.slow == slow), "an argument of {size} bytes");
            let list = format!("*2\r\n$4\r\nECHO\r\n${size}\r\n{text}\r\n");
            assert_eq!(Plan::list(list.as_bytes()).unwrap().slow, slow, "a list with {size} bytes");
        }
        assert!(plan(&["KEYS", "*"], |plan| plan.slow) && plan(&["GET", "k"], |plan| !plan.slow));
    }

    #[test]
    fn a_list_only_reads_if_all_of_it_does() {
        let list = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n";
        let plan = Plan::list(list).unwrap();
        assert!(!plan.reads && !plan.repeatable);
        assert_eq!(plan.first_len(0), 20);
        assert_eq!(plan.unit(1).list, Some(1));
        assert!(plan.unit(0).at_most_once && !Plan::list(&list[..20]).unwrap().unit(0).at_most_once);
        assert_eq!(plan.unit(1).bytes.len(), list.len() - 20);
        assert!(Plan::list(b"").is_err());
    }

    #[test]
    fn what_is_refused_in_a_list_is_named_with_its_place() {
        let list = |commands: &[&[&[u8]]]| {
            let mut bytes = Vec::new();
            commands.iter().for_each(|args| crate::resp::encode::command(&mut bytes, args));
            bytes
        };
        let message = |error: Error| error.message().to_owned();
        let bytes = list(&[&[b"GET", b"a"], &[b"SORT", b"b", b"STORE", b"c"], &[b"SET", b"d", b"e"]]);
        let refused = message(Plan::list(&bytes).unwrap().read_only("this client reads", "another"));
        assert!(refused.starts_with("SORT (command 2 of 3) writes"), "{refused}");
        assert!(refused.ends_with("this client reads; send SORT_RO, or use another"), "{refused}");
        let bytes = list(&[&[b"CLIENT", b"ID"], &[b"CLIENT", b"SETNAME", b"x"]]);
        let refused = message(Plan::list(&bytes).unwrap().check_shared().unwrap_err());
        assert!(refused.starts_with("CLIENT SETNAME (command 2 of 2) changes the state"), "{refused}");
        let bytes = list(&[&[b"PING"], &[b"SUBSCRIBE", b"x"]]);
        let refused = message(Plan::list(&bytes).unwrap().check_shared().unwrap_err());
        assert!(refused.starts_with("SUBSCRIBE (command 2 of 2) is not answered"), "{refused}");
        for (command, remedy) in [(&[&b"BLPOP"[..], b"q", b"1"], "by itself"), (&[b"WAIT", b"1", b"0"], "REPLICAS(n)")]
        {
            let Err(refused) = Plan::list(&list(&[&[b"PING"], command])).map(drop).map_err(message) else { panic!() };
            assert!(refused.contains(" (command 2 of 2) blocks") && refused.contains(remedy), "{refused}");
        }
        let bytes = list(&[&[b"GET", b"a"], &[b"INCR", b"b"]]);
        let alone = Plan::single(&list::parse(&bytes).unwrap().commands().nth(1).unwrap());
        let refused = message(alone.read_only("this client reads", "another"));
        assert!(refused.starts_with("INCR writes") && refused.ends_with("reads; use another"), "{refused}");
    }

    #[test]
    fn a_blocking_command_brings_its_own_time() {
        let grace = Duration::from_secs(5);
        assert_eq!(plan(&["BLPOP", "k", "0"], |plan| plan.deadline(Timeout::Default, grace).budget()), None);
        let budget = plan(&["BLPOP", "k", "2"], |plan| plan.deadline(Timeout::Default, grace).budget());
        assert_eq!(budget, Some(Duration::from_secs(7)));
    }
}
