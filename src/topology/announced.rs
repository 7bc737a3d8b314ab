//! What the servers of a service say of their commands (COMMAND): those that the table does not have, and whether they block.
//!
//! Guarantees: one answer for each version of a server, and each is asked for once; the answers are bounded. Leaves to others: who
//! asks, and what follows for a call (route).

use crate::resp::{Reply, table};
use crate::sys::rank::Rank;
use crate::sys::sync::Lock;

/// How many versions are kept.
const VERSIONS: usize = 16;
/// How many commands of one version are kept.
const MOST: usize = 4096;

/// The answers of the servers of a service.
pub(crate) struct Announced {
    answers: Lock<Vec<Answer>>,
}

/// The commands of one version that the table does not have; none until it has answered.
struct Answer {
    version: u32,
    commands: Vec<(Box<[u8]>, bool)>,
}

impl Default for Announced {
    fn default() -> Self {
        Self { answers: Lock::new(Rank::Announced, Vec::new()) }
    }
}

impl Announced {
    /// Whether a command may block on a server of this version; `None`: it has not said so.
    pub(crate) fn blocks(&self, version: u32, name: &[u8]) -> Option<bool> {
        let answers = self.answers.lock();
        let answer = answers.iter().find(|answer| answer.version == version)?;
        answer.commands.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, blocks)| *blocks)
    }

    /// Whether a server of this version is to be asked: true once.
    pub(crate) fn claim(&self, version: u32) -> bool {
        let mut answers = self.answers.lock();
        let is_new = !answers.iter().any(|answer| answer.version == version);
        if is_new {
            if answers.len() >= VERSIONS {
                answers.remove(0);
            }
            answers.push(Answer { version, commands: Vec::new() });
        }
        is_new
    }

    /// Takes the answer of a server, a refusal included; `None`: there was none, and it is to be asked again.
    pub(crate) fn tell(&self, version: u32, reply: Option<&Reply>) {
        let commands = reply.map(unlisted);
        let mut answers = self.answers.lock();
        match (commands, answers.iter_mut().find(|answer| answer.version == version)) {
            (Some(commands), Some(answer)) => answer.commands = commands,
            _ => answers.retain(|answer| answer.version != version),
        }
    }
}

/// The commands in an answer to COMMAND that the table does not have, each with whether it has the flag `blocking`.
fn unlisted(reply: &Reply) -> Vec<(Box<[u8]>, bool)> {
    let is_blocking = |id: u32| {
        let flags = reply.child(id, 2);
        flags.is_some_and(|flags| reply.children(flags).any(|flag| reply.bytes(flag) == Some(b"blocking")))
    };
    let named = reply.children(0).filter_map(|id| Some((reply.bytes(reply.child(id, 0)?)?, id)));
    let unlisted = named.filter(|(name, _)| table::lookup(name).is_none());
    unlisted.map(|(name, id)| (Box::from(name), is_blocking(id))).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{Kind, ReplyBuilder};

    fn answer(commands: &[(&str, &str)]) -> Reply {
        let mut reply = ReplyBuilder::new();
        reply.array();
        for (name, flags) in commands {
            // RESP3 gives the flags as a set.
            reply.array().text(name).int(-2).set();
            flags.split(' ').for_each(|flag| _ = reply.text_of(Kind::Status, flag.as_bytes()));
            reply.end().int(1).end();
        }
        reply.end().finish()
    }

    #[test]
    fn what_a_version_has_said_counts_for_it_alone_and_it_is_asked_once() {
        let announced = Announced::default();
        assert_eq!((announced.blocks(7, b"mod.pop"), announced.claim(7), announced.claim(7)), (None, true, false));
        assert_eq!(announced.blocks(7, b"mod.pop"), None, "it has not answered yet");
        announced.tell(7, Some(&answer(&[("mod.pop", "write blocking"), ("mod.set", "write"), ("get", "blocking")])));
        let said = |name: &str| announced.blocks(7, name.as_bytes());
        assert_eq!(["MOD.POP", "mod.set", "mod.new", "GET"].map(said), [Some(true), Some(false), None, None]);
        assert_eq!((announced.claim(7), announced.claim(8), announced.blocks(8, b"mod.pop")), (false, true, None));
        // No answer: the next one asks again. A refusal is an answer.
        announced.tell(8, None);
        assert!(announced.claim(8));
        announced.tell(8, Some(&ReplyBuilder::new().error("NOPERM no").finish()));
        assert_eq!((announced.claim(8), announced.blocks(8, b"mod.pop")), (false, None));
    }

    #[test]
    fn the_versions_and_their_commands_are_bounded() {
        let announced = Announced::default();
        (0..=VERSIONS as u32).for_each(|version| assert!(announced.claim(version)));
        assert!(announced.claim(0), "the first one had to go");
        let names: Vec<String> = (0..=MOST).map(|n| format!("mod.{n}")).collect();
        announced.tell(5, Some(&answer(&names.iter().map(|name| (name.as_str(), "write")).collect::<Vec<_>>())));
        assert_eq!(announced.blocks(5, format!("mod.{}", MOST - 1).as_bytes()), Some(false));
        assert_eq!(announced.blocks(5, format!("mod.{MOST}").as_bytes()), None);
    }
}
