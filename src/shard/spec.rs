//! What shards there are, read from one text for each: `node_1=sentinel:SERVICE`, `node_1=redis://user:password@host:6379/db` (rediss
//! with TLS), or a primary with its replica, `node_1=redis://host:6379|redis://host2:6379`.
//!
//! Guarantees: shards are named `node_1` to `node_N` without gaps, in any order; no message shows anything of a URI that may be a
//! secret. Leaves to others: reading a URI (config), and whether the servers are what the texts say.

use crate::config::{Config, Credentials, Endpoint, Settings};
use crate::error::{Error, Result, Status, quoted};

/// More shards than this are refused: each of them has connections of its own.
pub const MOST_SHARDS: usize = 1024;
const PREFIX: &str = "node_";
const SENTINEL: &str = "sentinel:";

/// All shards of a handle, in the order of their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The shard of index i is `node_{i + 1}`.
    pub shards: Vec<Shard>,
    /// The database that the URIs name; `None`: they name none.
    pub db: Option<u32>,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// `node_1`, `node_2`, ...
    pub name: String,
    /// Where its servers are found.
    pub target: Target,
}

/// Where the servers of a shard are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A service of the Sentinels.
    Service(String),
    /// At a given address.
    Fixed(Box<Fixed>),
}

/// A primary that is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// Its address.
    pub primary: Endpoint,
    /// Its replicas, if they are given as well: without the primary, each once.
    pub replicas: Vec<Endpoint>,
    /// The credentials in its URI; `None`: those of the handle.
    pub auth: Option<Credentials>,
    /// Whether its URI asks for TLS; if not, the handle's options count.
    pub tls: bool,
}

impl Spec {
    /// Reads the texts of all shards.
    pub fn parse(texts: &[&str]) -> Result<Self> {
        if texts.is_empty() || texts.len() > MOST_SHARDS {
            return refuse(format_args!("shards: {} are given; 1 to {MOST_SHARDS} are possible", texts.len()));
        }
        let mut places: Vec<Option<Shard>> = vec![None; texts.len()];
        let mut database = Database::default();
        for (text, at) in texts.iter().zip(1..) {
            let (number, target) = split_name(text, at, texts.len())?;
            let name = format!("{PREFIX}{number}");
            let target = read_target(target, &name, &mut database)?;
            let Some(place) = places.get_mut(number - 1) else { return Err(gap(number, texts.len())) };
            if place.is_some() {
                return refuse(format_args!("shards: {name} is given twice"));
            }
            *place = Some(Shard { name, target });
        }
        // As many texts as places, none of them beyond and none twice: every place is taken.
        let shards = places.into_iter().flatten().collect();
        Ok(Self { shards, db: database.said })
    }

    /// Their names, in order.
    pub fn names(&self) -> Vec<String> {
        self.shards.iter().map(|shard| shard.name.clone()).collect()
    }

    /// Whether any of them is a service, which Sentinels have to name.
    pub fn needs_sentinels(&self) -> bool {
        self.shards.iter().any(|shard| matches!(shard.target, Target::Service(_)))
    }

    /// For each shard the index of the first one with the same service or the same primary: its own, unless a server has two names.
    pub fn aliases(&self) -> Vec<usize> {
        let is_same = |left: &Target, right: &Target| match (left, right) {
            (Target::Service(left), Target::Service(right)) => left == right,
            (Target::Fixed(left), Target::Fixed(right)) => left.primary == right.primary,
            _ => false,
        };
        let first = |shard: &Shard| self.shards.iter().position(|other| is_same(&other.target, &shard.target));
        self.shards.iter().map(|shard| first(shard).unwrap_or_default()).collect()
    }
}

/// The number in the name of a shard, and the text behind it. `at`: which of the `count` texts it is.
fn split_name(text: &str, at: usize, count: usize) -> Result<(usize, &str)> {
    let Some((name, target)) = text.split_once('=') else {
        return refuse(format_args!(
            "shards: text {at} of {count} has no name: node_1=sentinel:SERVICE or node_1=redis://host:6379"
        ));
    };
    let digits = name.strip_prefix(PREFIX).filter(|digits| !digits.starts_with('0') && digits.len() <= 9);
    let is_number = |digits: &&str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.filter(is_number).and_then(|digits| digits.parse().ok()) {
        Some(number) => Ok((number, target)),
        None => {
            // Anything else in front of a '=' may be a piece of a URI, and so of a password.
            let is_plain =
                name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
            let shown = if is_plain { format!("{} ", quoted(name)) } else { String::new() };
            refuse(format_args!("shards: the name {shown}in text {at} of {count} is not one of node_1 to node_{count}"))
        }
    }
}

#[cold]
fn gap(number: usize, count: usize) -> Error {
    let text = format!(
        "shards: {PREFIX}{number} is given, but there are {count} shards: they are named node_1 to node_{count} without gaps, because \
         the numbers say where keys are"
    );
    Error::new(Status::Config, text)
}

/// The database that all URIs have to name alike.
#[derive(Default)]
struct Database {
    /// The shard that came first, and whether it named one.
    first: Option<String>,
    said: Option<u32>,
}

impl Database {
    fn add(&mut self, name: &str, db: Option<u32>) -> Result<()> {
        let Some(first) = &self.first else {
            (self.first, self.said) = (Some(name.to_owned()), db);
            return Ok(());
        };
        if self.said == db {
            return Ok(());
        }
        let shown = |db: Option<u32>| db.map_or("none".to_owned(), |db| db.to_string());
        refuse(format_args!(
            "shards: {first} names database {} and {name} names {}: it has to be the same at all of them",
            shown(self.said),
            shown(db)
        ))
    }
}

fn read_target(text: &str, name: &str, database: &mut Database) -> Result<Target> {
    if let Some(service) = text.strip_prefix(SENTINEL) {
        if service.is_empty() || service.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return refuse(format_args!(
                "shards: {name}: behind sentinel: stands the name of a service, without blanks"
            ));
        }
        return Ok(Target::Service(service.to_owned()));
    }
    let mut uris = split_uris(text).into_iter().map(|text| Uri::read(text, name));
    let Some(first) = uris.next().transpose()? else {
        return refuse(format_args!(
            "shards: {name}: neither sentinel:SERVICE nor redis://host:6379 stands behind the '='"
        ));
    };
    let (mut fixed, db) = (first.fixed, first.db);
    database.add(name, db)?;
    for replica in uris {
        let Uri { fixed: other, db: other_db } = replica?;
        let agrees = other.tls == fixed.tls && (other_db.is_none() || other_db == db);
        if !agrees || (other.auth.is_some() && other.auth != fixed.auth) {
            return refuse(format_args!(
                "shards: {name}: the replica behind '|' has the credentials, the database and the TLS of its primary: give the same, \
                 or none"
            ));
        }
        // A primary that is listed as its own replica has none.
        if other.primary != fixed.primary && !fixed.replicas.contains(&other.primary) {
            fixed.replicas.push(other.primary);
        }
    }
    Ok(Target::Fixed(Box::new(fixed)))
}

/// The URIs of a text: a `|` parts two of them only if a scheme follows, because a password may have one.
fn split_uris(text: &str) -> Vec<&str> {
    let mut uris = Vec::new();
    let mut from = 0;
    for (at, _) in text.match_indices('|') {
        if is_uri(&text[at + 1..]) {
            uris.push(&text[from..at]);
            from = at + 1;
        }
    }
    uris.push(&text[from..]);
    if is_uri(text) { uris } else { Vec::new() }
}

fn is_uri(text: &str) -> bool {
    let starts = |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    starts("redis://") || starts("rediss://")
}

/// One URI of a shard.
struct Uri {
    fixed: Fixed,
    db: Option<u32>,
}

impl Uri {
    fn read(text: &str, name: &str) -> Result<Self> {
        let in_shard = |error: Error| error.in_context(format_args!("shards: {name}"));
        let mut config = Config::new();
        config.set("uri", text).map_err(in_shard)?;
        // What is set is right. Whatever stands behind a '?' is an option for all shards.
        if text.contains('?') {
            return refuse(format_args!(
                "shards: {name}: options cannot stand in the URI of one shard: they are given for all shards"
            ));
        }
        let Settings { client, fixed, .. } = config.settings().map_err(in_shard)?;
        let Some(primary) = fixed.primary else {
            return refuse(format_args!("shards: {name}: its URI names no primary"));
        };
        let path = text.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(_, path)| path);
        let db = path.filter(|path| !path.is_empty()).map(|_| client.db);
        let auth = Some(client.auth).filter(|auth| !auth.is_empty());
        Ok(Self { fixed: Fixed { primary, replicas: Vec::new(), auth, tls: client.tls.on }, db })
    }
}

fn refuse<T>(what: std::fmt::Arguments<'_>) -> Result<T> {
    Err(Error::new(Status::Config, what.to_string()))
}
