//! What a program's command to a Sentinel does, and so to whom it may go, and whether it may be sent again.
//!
//! Guarantees: no I/O. A command that is not known counts as one that acts, and is sent once. Leaves to others: sending it (exec).

use crate::error::{Error, Result, Status, quoted};
use crate::resp::encode;

/// To whom a command goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To<'a> {
    /// The first Sentinel that answers.
    First,
    /// The Sentinel at this address.
    At(&'a str),
    /// Every Sentinel that is known.
    All,
}

/// What a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It reads: it may be asked again, of another Sentinel too.
    Reads,
    /// It acts for the whole deployment, through one Sentinel.
    Acts,
    /// It changes what one Sentinel knows or does, and only that one.
    Changes,
    /// It is of no use on a connection of the library's own; where to turn instead.
    Refused(&'static str),
}

/// Commands that Sentinels know beside SENTINEL, with what they do.
const PLAIN: &[(&str, Effect)] = &[
    ("PING", Effect::Reads),
    ("ROLE", Effect::Reads),
    ("INFO", Effect::Reads),
    ("COMMAND", Effect::Reads),
    ("ACL", Effect::Changes),
    ("CLIENT", Effect::Changes),
    ("SHUTDOWN", Effect::Changes),
    ("PUBLISH", Effect::Acts),
    ("AUTH", Effect::Refused("the options sentinel.username and sentinel.password log in")),
    ("HELLO", Effect::Refused("the library greets the Sentinels by itself")),
    ("QUIT", Effect::Refused("the library closes its connections by itself")),
    ("SUBSCRIBE", Effect::Refused(WATCH)),
    ("PSUBSCRIBE", Effect::Refused(WATCH)),
    ("UNSUBSCRIBE", Effect::Refused(WATCH)),
    ("PUNSUBSCRIBE", Effect::Refused(WATCH)),
];
const WATCH: &str = "vigie_sentinel_watch() gives the events of all Sentinels on a queue";

/// Sub-commands of SENTINEL, and those of other commands that only read.
const KNOWN: &[(&[&str], Effect)] = &[
    (&["MASTERS"], Effect::Reads),
    (&["PRIMARIES"], Effect::Reads),
    (&["MASTER"], Effect::Reads),
    (&["PRIMARY"], Effect::Reads),
    (&["REPLICAS"], Effect::Reads),
    (&["SLAVES"], Effect::Reads),
    (&["SENTINELS"], Effect::Reads),
    (&["GET-MASTER-ADDR-BY-NAME"], Effect::Reads),
    (&["GET-PRIMARY-ADDR-BY-NAME"], Effect::Reads),
    (&["CKQUORUM"], Effect::Reads),
    (&["INFO-CACHE"], Effect::Reads),
    (&["MYID"], Effect::Reads),
    (&["PENDING-SCRIPTS"], Effect::Reads),
    (&["HELP"], Effect::Reads),
    (&["CONFIG", "GET"], Effect::Reads),
    (&["CLIENT", "LIST"], Effect::Reads),
    (&["CLIENT", "INFO"], Effect::Reads),
    (&["CLIENT", "ID"], Effect::Reads),
    (&["ACL", "LIST"], Effect::Reads),
    (&["ACL", "USERS"], Effect::Reads),
    (&["ACL", "GETUSER"], Effect::Reads),
    (&["ACL", "WHOAMI"], Effect::Reads),
    (&["ACL", "CAT"], Effect::Reads),
    (&["MONITOR"], Effect::Changes),
    (&["REMOVE"], Effect::Changes),
    (&["SET"], Effect::Changes),
    (&["RESET"], Effect::Changes),
    (&["CONFIG"], Effect::Changes),
    (&["FLUSHCONFIG"], Effect::Changes),
    (&["DEBUG"], Effect::Changes),
    (&["SIMULATE-FAILURE"], Effect::Changes),
];

/// A command, looked up.
#[derive(Debug)]
pub(super) struct AdminCommand<'a> {
    args: &'a [&'a [u8]],
    is_plain: bool,
    pub(super) effect: Effect,
}

impl<'a> AdminCommand<'a> {
    /// Looks a command up, which is given without the word SENTINEL, and refuses what has no place here.
    pub(super) fn new(args: &'a [&'a [u8]]) -> Result<Self> {
        let Some(first) = args.first() else { return refuse("argc is 0") };
        if is(first, "SENTINEL") {
            return refuse("argv[0] is SENTINEL: give the sub-command without that word, as in {\"MASTERS\"}");
        }
        let plain = PLAIN.iter().find(|(word, _)| is(first, word)).map(|(_, effect)| *effect);
        let starts =
            |words: &[&str]| words.len() <= args.len() && words.iter().zip(args).all(|(word, arg)| is(arg, word));
        let known = KNOWN.iter().find(|(words, _)| starts(words)).map(|(_, effect)| *effect);
        let effect = known.or(plain).unwrap_or(Effect::Acts);
        let command = Self { args, is_plain: plain.is_some(), effect };
        match effect {
            Effect::Refused(instead) => {
                let text = format!("{} is not sent to a Sentinel from here: {instead}", command.name());
                Err(Error::new(Status::Unsupported, text))
            }
            _ => Ok(command),
        }
    }

    /// Refuses a target that the command does not fit.
    pub(super) fn check(&self, to: To<'_>) -> Result<()> {
        let name = self.name();
        match (self.effect, to) {
            (Effect::Changes, To::First) => refuse(format!(
                "{name} changes one Sentinel, not the deployment: name its address (vigie_sentinel_exec_at()), or all of them \
                 (VIGIE_CALL_ALL)"
            )),
            (Effect::Acts, To::All) if self.is("FAILOVER") => refuse(format!(
                "{name} is begun by one Sentinel, and under VIGIE_CALL_ALL each would begin one: leave the flag out, or name an \
                 address (vigie_sentinel_exec_at())"
            )),
            _ => Ok(()),
        }
    }

    /// Whether it may be asked again, of another Sentinel too.
    pub(super) fn only_reads(&self) -> bool {
        self.effect == Effect::Reads
    }

    /// Whether it is this sub-command of SENTINEL.
    pub(super) fn is(&self, word: &str) -> bool {
        !self.is_plain && self.args.first().is_some_and(|first| is(first, word))
    }

    pub(super) fn args(&self) -> &'a [&'a [u8]] {
        self.args
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.is_plain {
            true => encode::command(&mut bytes, self.args),
            false => encode::command(&mut bytes, &[&[&b"SENTINEL"[..]], self.args].concat()),
        }
        bytes
    }

    /// Its name for messages: the arguments may hold a password (`SET name auth-pass ...`).
    pub(super) fn name(&self) -> String {
        let word = String::from_utf8_lossy(self.args.first().copied().unwrap_or_default()).to_uppercase();
        let word = quoted(&word).trim_matches('\'').to_owned();
        if self.is_plain { word } else { format!("SENTINEL {word}") }
    }
}

fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

fn refuse<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::new(Status::InvalidArg, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(line: &str) -> Effect {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        AdminCommand::new(&args).map_or(Effect::Refused("refused"), |command| command.effect)
    }

    fn checked(line: &str, to: To<'_>) -> Result<()> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        AdminCommand::new(&args)?.check(to)
    }

    #[test]
    fn what_is_not_known_acts_and_what_reads_is_listed() {
        for line in
            ["MASTERS", "master m", "Ping", "ROLE", "INFO sentinel", "CONFIG GET *", "config get a", "ACL WHOAMI"]
        {
            assert_eq!(effect(line), Effect::Reads, "{line}");
        }
        for line in ["FAILOVER m", "NEW-COMMAND m", "IS-MASTER-DOWN-BY-ADDR h 1 2 id", "PUBLISH c m"] {
            assert_eq!(effect(line), Effect::Acts, "{line}");
        }
        for line in [
            "MONITOR m h 1 2",
            "REMOVE m",
            "SET m quorum 2",
            "RESET *",
            "CONFIG SET a b",
            "CONFIG",
            "ACL SETUSER u",
            "CLIENT",
        ] {
            assert_eq!(effect(line), Effect::Changes, "{line}");
        }
    }

    #[test]
    fn row_91_what_changes_one_sentinel_wants_an_address_or_all() {
        for line in ["MONITOR m h 1 2", "remove m", "SET m quorum 2", "RESET *", "config set a b", "FLUSHCONFIG"] {
            let error = checked(line, To::First).unwrap_err();
            assert_eq!(error.status(), Status::InvalidArg, "{line}");
            for way in ["vigie_sentinel_exec_at()", "VIGIE_CALL_ALL"] {
                assert!(error.message().contains(way), "{error}");
            }
            assert!(checked(line, To::All).is_ok() && checked(line, To::At("h:1")).is_ok(), "{line}");
        }
        let error = checked("FAILOVER m", To::All).unwrap_err();
        assert!(error.message().contains("SENTINEL FAILOVER"), "{error}");
        assert!(checked("FAILOVER m", To::First).is_ok() && checked("MASTERS", To::All).is_ok());
    }

    #[test]
    fn what_has_no_place_here_says_where_to_turn() {
        let error = checked("SENTINEL MASTERS", To::First).unwrap_err();
        assert!(error.status() == Status::InvalidArg && error.message().contains("without that word"), "{error}");
        for (line, way) in [("subscribe +sdown", "vigie_sentinel_watch()"), ("AUTH secret", "sentinel.password")] {
            let error = checked(line, To::First).unwrap_err();
            assert_eq!(error.status(), Status::Unsupported);
            assert!(error.message().contains(way) && !error.message().contains("secret"), "{error}");
        }
    }

    #[test]
    fn row_89_the_word_sentinel_stands_in_front_and_arguments_are_any_bytes() {
        let bytes = |args: &[&[u8]]| AdminCommand::new(args).unwrap().bytes();
        assert_eq!(bytes(&[b"ping"]), b"*1\r\n$4\r\nping\r\n");
        let any = b"\0\r\n\xff";
        assert_eq!(bytes(&[b"MASTER", any]), b"*3\r\n$8\r\nSENTINEL\r\n$6\r\nMASTER\r\n$4\r\n\0\r\n\xff\r\n");
        let secret: &[&[u8]] = &[b"SET", b"m", b"auth-pass", b"secret"];
        assert_eq!(AdminCommand::new(secret).unwrap().name(), "SENTINEL SET");
    }
}
