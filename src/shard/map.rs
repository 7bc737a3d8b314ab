//! The map: from a key, several keys or a whole command to shards, and to the names under which keys are stored there.
//!
//! Guarantees: a key of a command is found by the command table or not at all; a command is passed on as it was given, but for the tags
//! that are stripped; a lookup of one key allocates nothing. Leaves to others: what is done with keys on several shards, and with
//! commands that have none.

use std::sync::Arc;

use super::hash::{Hash, OwnHash, Placement};
use super::tags::Tags;
use crate::error::{Error, Result, Status, quoted};
use crate::resp::table::{self, Named, Places};

/// The shards of a handle, and how keys are spread over them.
#[derive(Clone)]
pub struct Map {
    names: Vec<String>,
    placement: Placement,
    tags: Tags,
}

/// Where a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located<'a> {
    /// The index of its shard.
    pub shard: usize,
    /// The name under which it is stored there.
    pub stored: &'a [u8],
}

/// Keys of one shard, in the order in which they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group<'a> {
    /// The index of the shard.
    pub shard: usize,
    /// The index of each of its keys among those given.
    pub at: Vec<usize>,
    /// The name under which each of them is stored.
    pub stored: Vec<&'a [u8]>,
}

/// A key or a channel of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its index among the arguments, the command's name being 0.
    pub at: usize,
    /// The index of its shard.
    pub shard: usize,
    /// Whether the command may write it.
    pub is_written: bool,
}

/// Where a whole command belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// All of its keys are on this shard.
    One(usize),
    /// Its keys are on several shards: each of them, in the order of the server's COMMAND GETKEYS.
    Many(Vec<Placed>),
    /// All of its channels belong to this shard.
    Channel(usize),
    /// Its channels belong to several shards.
    Channels(Vec<Placed>),
    /// It has neither keys nor channels.
    Keyless,
    /// The table does not have it, so that nobody knows whether it has keys.
    Unknown,
}

/// A whole command, and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route<'a> {
    /// Where it belongs.
    pub to: Where,
    /// Its arguments with the keys as they are stored; `None`: as they were given.
    pub stripped: Option<Vec<&'a [u8]>>,
}

impl<'a> Route<'a> {
    /// The arguments to send, for the command that was given as these.
    pub fn args<'s>(&'s self, given: &'s [&'a [u8]]) -> &'s [&'a [u8]] {
        self.stripped.as_deref().unwrap_or(given)
    }
}

impl Map {
    /// For shards of these names, in the order of their numbers. There has to be one.
    pub fn new(names: Vec<String>, hash: Hash, tags: Tags) -> Self {
        Self { placement: Placement::new(hash, &names), names, tags }
    }

    /// With a hash function of the program.
    pub fn by(mut self, own: Option<Arc<dyn OwnHash>>) -> Self {
        self.placement = self.placement.by(own);
        self
    }

    /// The names of the shards.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The name of a shard; "" if there is none of this index.
    pub fn name(&self, shard: usize) -> &str {
        self.names.get(shard).map_or("", String::as_str)
    }

    /// How many shards there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// How keys are spread.
    pub fn hash(&self) -> Hash {
        self.placement.hash()
    }

    /// How tags are read.
    pub fn tags(&self) -> Tags {
        self.tags
    }

    /// Where a key is. An error: it has a bad tag.
    #[inline(always)]
    pub fn locate<'a>(&self, key: &'a [u8]) -> Result<Located<'a>> {
        let tagged = self.tags.of(key)?;
        Ok(Located { shard: self.placement.place(tagged.part)?, stored: tagged.stored })
    }

    /// The shard where those meet who publish to a channel and who subscribe to it. A tag in its name counts as in a key, but the name is
    /// sent as it is.
    pub fn shard_of_channel(&self, name: &[u8]) -> Result<usize> {
        self.placement.place(self.tags.of_channel(name))
    }

    /// Keys by shard: one group for each shard that has any, in the order of their first keys.
    pub fn split<'a>(&self, keys: &[&'a [u8]]) -> Result<Vec<Group<'a>>> {
        let mut groups: Vec<Group<'a>> = Vec::new();
        let mut group_of = vec![usize::MAX; self.len().max(1)];
        for (at, key) in keys.iter().enumerate() {
            let Located { shard, stored } = self.locate(key)?;
            if group_of[shard] == usize::MAX {
                group_of[shard] = groups.len();
                groups.push(Group { shard, at: Vec::new(), stored: Vec::new() });
            }
            let group = &mut groups[group_of[shard]];
            group.at.push(at);
            group.stored.push(stored);
        }
        Ok(groups)
    }

    /// Where a whole command belongs, and what is sent there. An error: it is malformed, or one of its keys has a bad tag.
    #[inline]
    pub fn route<'a>(&self, args: &[&'a [u8]]) -> Result<Route<'a>> {
        let to = match table::named(args)? {
            Named::Keys(places) => return self.route_keys(args, places),
            Named::Channels(places) => self.route_channels(args, places)?,
            Named::Nothing => Where::Keyless,
            Named::Unknown => Where::Unknown,
        };
        Ok(Route { to, stripped: None })
    }

    fn route_keys<'a>(&self, args: &[&'a [u8]], places: Places) -> Result<Route<'a>> {
        let (mut each, mut stripped, count) = (Vec::new(), None, places.len());
        // One key is looked up without an allocation.
        each.reserve_exact(if count > 1 { count } else { 0 });
        let (mut first, mut is_one) = (None, true);
        for at in places.iter() {
            let arg = args[at];
            let Located { shard, stored } = self.locate(arg)?;
            is_one &= *first.get_or_insert(shard) == shard;
            if count > 1 {
                each.push(Placed { at, shard, is_written: places.is_written(at) });
            }
            if stored.len() != arg.len() {
                stripped.get_or_insert_with(|| args.to_vec())[at] = stored;
            }
        }
        let to = match first {
            None => Where::Keyless,
            Some(shard) if is_one => Where::One(shard),
            Some(_) => Where::Many(each),
        };
        Ok(Route { to, stripped })
    }

    fn route_channels(&self, args: &[&[u8]], places: Places) -> Result<Where> {
        let placed = |at| Ok(Placed { at, shard: self.shard_of_channel(args[at])?, is_written: places.is_written(at) });
        let each = places.iter().map(placed).collect::<Result<Vec<_>>>()?;
        Ok(match each.split_first() {
            Some((first, rest)) if rest.iter().all(|other| other.shard == first.shard) => Where::Channel(first.shard),
            Some(_) => Where::Channels(each),
            None => Where::Keyless,
        })
    }

    /// The error for a command whose keys would have to be on one shard, with the shard of each key.
    #[cold]
    pub fn cross_shard(&self, args: &[&[u8]], keys: &[Placed]) -> Error {
        const MOST: usize = 8;
        let name = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        let command = args.first().map(|text| name(text).to_ascii_uppercase()).unwrap_or_default();
        let shown = keys.iter().take(MOST).map(|key| {
            let text = args.get(key.at).map(|text| name(text)).unwrap_or_default();
            format!("{} on {}", quoted(&text), self.name(key.shard))
        });
        let mut list = shown.collect::<Vec<_>>().join(", ");
        if keys.len() > MOST {
            list += &format!(" and {} more", keys.len() - MOST);
        }
        let remedy = match self.tags {
            Tags::Rediscluster => "give its keys one tag, as in key{tag}",
            Tags::Cluster => "give its keys one tag, as in {tag}key",
            Tags::None => "keys that are used together need \"shard.tags\" rediscluster or cluster, and one tag",
        };
        let text = format!("{command} needs all of its keys on one shard: {list}; {remedy}; nothing was sent");
        Error::new(Status::CrossShard, text)
    }
}
