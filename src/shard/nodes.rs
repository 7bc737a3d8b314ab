//! The shards of a handle at one moment: the map, and a client for each of them.
//!
//! Guarantees: it does not change; a server that has two names is one client, which is asked once where all shards are asked. An error of a
//! shard names it. Leaves to others: another map (mod), what is asked (commands).

use std::sync::Arc;

use super::hash::{Hash, OwnHash, crc16};
use super::map::Map;
use super::spec::{self, Spec};
use super::tags::Tags;
use crate::client::{Client, Target};
use crate::config::{ClientSettings, Config, Settings, ShardHash, ShardTags};
use crate::error::{Error, Result, Status, quoted};
use crate::topology::Sentinel;

/// What sessions and subscriptions are told whose shards are none any more.
const CHANGED: &str = "the shards of the client were changed (vigie_shards_set()), and this was made for those before: make it anew from the client";

/// The shards at one moment.
pub(super) struct State {
    pub(super) map: Map,
    spec: Spec,
    clients: Vec<Arc<Client>>,
    /// The handles of the shards that are not services.
    own: Vec<Option<Arc<Sentinel>>>,
    /// Each server once: its first shard.
    servers: Vec<usize>,
    default: Option<usize>,
    degraded: bool,
    /// Differs, but for chance, from that of other shards; never 0.
    mark: u16,
}

/// From what the shards are made.
pub(super) struct Source<'a> {
    pub(super) sentinel: Option<&'a Arc<Sentinel>>,
    pub(super) overrides: Option<&'a Config>,
    /// A hash function of the program.
    pub(super) own: Option<&'a Arc<dyn OwnHash>>,
}

impl Source<'_> {
    /// The settings of all shards.
    fn settings(&self) -> Result<(Settings, ClientSettings)> {
        let base = self.sentinel.map(|sentinel| Settings::clone(&sentinel.settings())).unwrap_or_default();
        let client = self.overrides.map_or_else(|| Ok(base.client.clone()), |config| config.overlay(&base.client))?;
        Ok((base, client))
    }
}

impl State {
    /// Makes the clients of shards.
    pub(super) fn new(source: &Source<'_>, texts: &[&str]) -> Result<Self> {
        let spec = Spec::parse(texts)?;
        let (base, settings) = source.settings()?;
        let map = map_of(&settings, &spec).by(source.own.cloned());
        let default = default_of(&settings, &map)?;
        let aliases = spec.aliases();
        let target = if settings.shard.primaries_only { Target::Primary } else { Target::Split };
        let (mut clients, mut own): (Vec<Arc<Client>>, Vec<Option<Arc<Sentinel>>>) = (Vec::new(), Vec::new());
        for (at, shard) in spec.shards.iter().enumerate() {
            let (client, sentinel) = match &shard.target {
                _ if aliases[at] < at => (Arc::clone(&clients[aliases[at]]), None),
                spec::Target::Service(service) => {
                    let sentinel = source.sentinel.ok_or_else(|| without_sentinel(&shard.name))?;
                    (Client::open(sentinel, Some(service), target, source.overrides)?, None)
                }
                spec::Target::Fixed(fixed) => {
                    let settings = fixed_settings(&base, fixed, spec.db);
                    let sentinel = Sentinel::create(settings, None)?;
                    (Client::open(&sentinel, Some(&shard.name), target, source.overrides)?, Some(sentinel))
                }
            };
            clients.push(client);
            own.push(sentinel);
        }
        let servers = (0..clients.len()).filter(|at| aliases[*at] == *at).collect();
        let degraded = settings.shard.degraded;
        Ok(Self { map, spec, clients, own, servers, default, degraded, mark: mark(texts) })
    }

    /// The same shards in a forked child, with clients of its own.
    pub(super) fn reopened(&self, sentinel: Option<&Arc<Sentinel>>) -> Result<Self> {
        let aliases = self.spec.aliases();
        let (mut clients, mut own): (Vec<Arc<Client>>, Vec<Option<Arc<Sentinel>>>) = (Vec::new(), Vec::new());
        for (at, parents) in self.clients.iter().enumerate() {
            let (client, sentinel) = match (&self.own[at], sentinel) {
                _ if aliases[at] < at => (Arc::clone(&clients[aliases[at]]), None),
                (Some(parents_own), _) => {
                    let own = parents_own.reopened()?;
                    (parents.reopened(&own)?, Some(own))
                }
                (None, Some(sentinel)) => (parents.reopened(sentinel)?, None),
                (None, None) => return Err(without_sentinel(self.name(at))),
            };
            clients.push(client);
            own.push(sentinel);
        }
        let (map, spec, servers) = (self.map.clone(), self.spec.clone(), self.servers.clone());
        Ok(Self { map, spec, clients, own, servers, default: self.default, degraded: self.degraded, mark: self.mark })
    }

    /// The handles of the shards that are not services are in use, in a forked child.
    pub(super) fn began(&self) {
        self.own.iter().flatten().for_each(|own| own.began());
    }

    /// By which a cursor tells that it was given by these shards.
    pub(super) fn mark(&self) -> u16 {
        self.mark
    }

    /// The client of a shard.
    #[inline]
    pub(super) fn client(&self, shard: usize) -> &Arc<Client> {
        &self.clients[shard]
    }

    /// The name of a shard.
    pub(super) fn name(&self, shard: usize) -> &str {
        self.map.name(shard)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Each server once: its first shard.
    pub(super) fn servers(&self) -> &[usize] {
        &self.servers
    }

    /// The shard of commands without a key.
    pub(super) fn default_shard(&self) -> Option<usize> {
        self.default
    }

    /// What serves a key, for a comparison of two maps. `None`: it has a bad tag.
    pub(super) fn target_of(&self, key: &[u8]) -> Option<&spec::Target> {
        let located = self.map.locate(key).ok()?;
        self.spec.shards.get(located.shard).map(|shard| &shard.target)
    }

    /// Whether no call is running on any of its clients.
    pub(super) fn is_idle(&self) -> bool {
        self.servers.iter().all(|shard| self.clients[*shard].is_idle())
    }

    /// Whether a shard may be down when the handle opens.
    pub(super) fn is_degraded(&self) -> bool {
        self.degraded
    }

    /// The handle of a shard that is not a service.
    pub(super) fn own(&self, shard: usize) -> Option<&Arc<Sentinel>> {
        self.own[shard].as_ref()
    }

    /// An error of this shard.
    pub(super) fn named(&self, shard: usize, error: Error) -> Error {
        let error = match error.status() == Status::Server && error.endpoint().is_empty() {
            true => error.with_endpoint(self.clients[shard].primary_name()),
            false => error,
        };
        named(&self.map, shard, error)
    }

    /// Ends its clients, and with them their sessions and subscriptions, because the handle has others.
    pub(super) fn end(&self) {
        for shard in &self.servers {
            self.clients[*shard].end(CHANGED);
        }
    }
}

/// An error of this shard. What a server says stays in front; what needs a session is refused without a shard.
#[cold]
pub(super) fn named(map: &Map, shard: usize, error: Error) -> Error {
    match error.is_server_line() {
        true => error.with_note(format_args!(" ({})", map.name(shard))),
        false if error.status() == Status::Unsupported && error.endpoint().is_empty() => error,
        false => error.in_context(map.name(shard)),
    }
}

/// From the shards as they were given, in any order.
fn mark(texts: &[&str]) -> u16 {
    texts.iter().fold(0u16, |sum, text| sum.wrapping_add(crc16(text.as_bytes()))) | 1
}

/// The map of these shards by the options.
pub fn map_of(settings: &ClientSettings, spec: &Spec) -> Map {
    Map::new(spec.names(), hash(settings), tags(settings))
}

fn hash(settings: &ClientSettings) -> Hash {
    match settings.shard.hash {
        ShardHash::Crc32 => Hash::Crc32,
        ShardHash::Crc16 => Hash::Crc16,
        ShardHash::Rendezvous => Hash::Rendezvous,
    }
}

fn tags(settings: &ClientSettings) -> Tags {
    match (settings.shard.tags, settings.shard.hash) {
        (Some(ShardTags::Rediscluster), _) | (None, ShardHash::Crc32) => Tags::Rediscluster,
        (Some(ShardTags::Cluster), _) | (None, _) => Tags::Cluster,
        (Some(ShardTags::None), _) => Tags::None,
    }
}

fn default_of(settings: &ClientSettings, map: &Map) -> Result<Option<usize>> {
    let wanted = settings.shard.default_node.as_str();
    if wanted.is_empty() {
        return Ok(None);
    }
    match map.names().iter().position(|name| name == wanted) {
        Some(at) => Ok(Some(at)),
        None => {
            let text = format!(
                "option \"shard.default_node\" is {}, and the shards are node_1 to node_{}",
                quoted(wanted),
                map.len()
            );
            Err(Error::new(Status::Config, text))
        }
    }
}

#[cold]
fn without_sentinel(name: &str) -> Error {
    let text = format!("shards: {name} is a service, and sentinel is NULL: nobody can say where its primary is");
    Error::new(Status::InvalidArg, text)
}

/// The settings of a shard with a given primary: those of the handle, without its Sentinels.
pub fn fixed_settings(base: &Settings, fixed: &spec::Fixed, db: Option<u32>) -> Settings {
    let mut settings = base.clone();
    settings.fixed.primary = Some(fixed.primary.clone());
    settings.fixed.replicas.clone_from(&fixed.replicas);
    settings.fixed.asks_for_replicas = fixed.replicas.is_empty();
    settings.client.tls.on |= fixed.tls;
    if let Some(auth) = &fixed.auth {
        settings.client.auth = auth.clone();
    }
    if let Some(db) = db {
        settings.client.db = db;
    }
    settings.without_sentinels()
}
