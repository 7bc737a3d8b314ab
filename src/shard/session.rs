//! A session on one of several shards: which commands belong there, and how their keys are stored.
//!
//! Guarantees: a command with a key or a channel of another shard is refused before it is sent; a name that is not in the table passes as
//! it is, because a session is the place for it. Leaves to others: the session itself (client/session).

use std::sync::Arc;

use super::map::{Map, Route, Where};
use super::nodes::State;
use crate::client::Home;
use crate::error::{Error, Result, Status, quoted};
use crate::resp::table::{self, Flags, Named};

/// The shard of a session. It holds no state, whose end is what a change of the shards waits for.
pub(super) struct OnShard {
    map: Map,
    shard: usize,
    /// By shard: whether it is the same server.
    is_here: Vec<bool>,
}

impl OnShard {
    pub(super) fn new(state: &State, shard: usize) -> Self {
        let is_here = |other| Arc::ptr_eq(state.client(other), state.client(shard));
        Self { map: state.map.clone(), shard, is_here: (0..state.len()).map(is_here).collect() }
    }

    fn is_away(&self, shard: usize) -> bool {
        !self.is_here.get(shard).is_some_and(|is_here| *is_here)
    }

    #[cold]
    fn refuse(&self, args: &[&[u8]], at: usize, shard: usize) -> Error {
        let text = |at: usize| String::from_utf8_lossy(args.get(at).copied().unwrap_or_default()).into_owned();
        let (name, own) = (text(0).to_ascii_uppercase(), self.map.name(self.shard));
        let text = format!(
            "{name}: {} is on {}, and this session is on {own}: take a session for that key (vigie_session_for()), or run it on the \
             client; nothing was sent",
            quoted(&text(at)),
            self.map.name(shard)
        );
        Error::new(Status::CrossShard, text)
    }
}

impl Home for OnShard {
    fn stored<'a>(&self, args: &[&'a [u8]]) -> Result<Option<Vec<&'a [u8]>>> {
        let Route { to, stripped } = self.map.route(args)?;
        let away = match &to {
            Where::One(shard) | Where::Channel(shard) => Some((first(args), *shard)),
            Where::Many(placed) | Where::Channels(placed) => {
                placed.iter().find(|placed| self.is_away(placed.shard)).map(|placed| (placed.at, placed.shard))
            }
            Where::Keyless | Where::Unknown => None,
        };
        match away.filter(|(_, shard)| self.is_away(*shard)) {
            // The session says of a SUBSCRIBE that it has no place there at all.
            Some(_) if table::classify(&mut args.iter().copied()).flags.has(Flags::SUBSCRIBE) => Ok(None),
            Some((at, shard)) => Err(self.refuse(args, at, shard)),
            None => Ok(stripped),
        }
    }
}

/// Where the first key or channel of a command is that has one.
fn first(args: &[&[u8]]) -> usize {
    match table::named(args) {
        Ok(Named::Keys(places) | Named::Channels(places)) => places.iter().next().unwrap_or(1),
        _ => 1,
    }
}
