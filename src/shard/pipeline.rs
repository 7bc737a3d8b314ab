//! A list of commands, dealt out to the shards: which of them go to which shard together, with their tags stripped.
//!
//! Guarantees: nothing is dealt out of a list that has a malformed command or a bad tag; the commands of one shard keep their order, and
//! none passes a command that belongs to no single shard. Leaves to others: such commands, and to put the replies in order again (each
//! part says which commands it has).

use super::map::{Map, Route, Where};
use crate::error::{Error, Result};
use crate::resp::encode;
use crate::resp::list::{Command, CommandList};

/// What is done with a part of a list; one step after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'a> {
    /// To several shards at the same time: a part for each of them that has any, in the order of their first commands.
    Together(Vec<Part>),
    /// One command that belongs to no single shard.
    Apart(Apart<'a>),
}

/// Commands for one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The index of the shard.
    pub shard: usize,
    /// Which commands of the list these are.
    pub at: Vec<usize>,
    /// The commands as they are sent.
    pub bytes: Vec<u8>,
}

/// A command that belongs to no single shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apart<'a> {
    /// Which command of the list it is.
    pub at: usize,
    /// Its arguments as they were given.
    pub args: Vec<&'a [u8]>,
    /// Where it belongs.
    pub route: Route<'a>,
}

/// Deals a list out.
pub fn deal<'a>(map: &Map, list: CommandList<'a>) -> Result<Vec<Step<'a>>> {
    let (mut steps, mut open) = (Vec::new(), Open::new(map.len()));
    for (at, command) in list.commands().enumerate() {
        let args: Vec<&[u8]> = command.args().collect();
        let route = map.route(&args).map_err(|error| with_place(error, at, list.len()))?;
        if let Where::One(shard) | Where::Channel(shard) = route.to {
            open.add(shard, at, &command, route.stripped.as_deref())?;
            continue;
        }
        steps.extend(open.close());
        steps.push(Step::Apart(Apart { at, args, route }));
    }
    steps.extend(open.close());
    Ok(steps)
}

/// The parts that the next command may still join.
struct Open {
    parts: Vec<Part>,
    /// Where the part of each shard is.
    place: Vec<usize>,
}

const NOWHERE: usize = usize::MAX;

impl Open {
    fn new(shards: usize) -> Self {
        Self { parts: Vec::new(), place: vec![NOWHERE; shards.max(1)] }
    }

    fn add(&mut self, shard: usize, at: usize, command: &Command<'_>, stripped: Option<&[&[u8]]>) -> Result<()> {
        if self.place[shard] == NOWHERE {
            self.place[shard] = self.parts.len();
            self.parts.push(Part { shard, at: Vec::new(), bytes: Vec::new() });
        }
        let part = &mut self.parts[self.place[shard]];
        part.at.push(at);
        match stripped {
            Some(args) => encode::try_command(&mut part.bytes, args),
            None => encode::try_encoded(&mut part.bytes, command.bytes()),
        }
    }

    fn close<'a>(&mut self) -> Option<Step<'a>> {
        self.place.fill(NOWHERE);
        let parts = std::mem::take(&mut self.parts);
        if parts.is_empty() { None } else { Some(Step::Together(parts)) }
    }
}

#[cold]
fn with_place(error: Error, at: usize, count: usize) -> Error {
    match count {
        1 => error,
        _ => error.in_context(format_args!("command {} of {count}", at + 1)),
    }
}
