//! A subscription over several shards.
//!
//! Guarantees: a channel is listened to on the shard where PUBLISH of its name goes, a pattern on every server, because a message that fits
//! may be published on any of them, as are keyspace events. All messages arrive on one queue with one token; those of one shard keep
//! their order. Leaves to others: the subscription to one shard (pubsub). A change of the shards ends it, with one event for all of them.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::map::Map;
use super::nodes::{self, State};
use crate::client::{Client, Subscription, Timeout};
use crate::config::Config;
use crate::error::{Error, Result, Status, quoted};
use crate::queue::Queue;
use crate::sys::rank::Rank;
use crate::sys::sync::Lock;

/// One subscription, with a connection to each shard that it needs.
pub struct ShardedSubscription {
    /// Not the state: its end is what a change of the shards waits for.
    map: Map,
    clients: Vec<Arc<Client>>,
    servers: Vec<usize>,
    queue: Arc<Queue>,
    token: u64,
    overrides: Option<Config>,
    /// How many of them live: the last one tells of their end.
    living: Arc<AtomicUsize>,
    /// By shard.
    subs: Lock<Vec<Option<Arc<Subscription>>>>,
}

/// Which shards a command to a subscription is for.
enum Scope {
    /// Those of the names.
    Names,
    /// All servers.
    Servers,
    /// Those that were listened to before.
    Known,
}

impl ShardedSubscription {
    pub(super) fn new(state: &State, queue: &Arc<Queue>, token: u64, overrides: Option<&Config>) -> Self {
        let (map, servers) = (state.map.clone(), state.servers().to_vec());
        let clients: Vec<Arc<Client>> = (0..state.len()).map(|shard| Arc::clone(state.client(shard))).collect();
        let subs = clients.iter().map(|_| None).collect();
        let (queue, overrides) = (Arc::clone(queue), overrides.cloned());
        let living = Arc::default();
        Self { map, clients, servers, queue, token, overrides, living, subs: Lock::new(Rank::ShardedSub, subs) }
    }

    /// Changes what it listens to, as [`Subscription::exec`].
    pub fn exec(&self, args: &[&[u8]], timeout: Timeout) -> Result<()> {
        let deadline = self.clients[0].deadline(timeout);
        let rest = |waits: Timeout| if waits == Timeout::DontWait { waits } else { super::task::time(deadline) };
        match scope(args)? {
            Scope::Names => {
                let mut by_shard: Vec<(usize, Vec<&[u8]>)> = Vec::new();
                for name in &args[1..] {
                    let shard = self.map.shard_of_channel(name)?;
                    match by_shard.iter_mut().find(|(at, _)| *at == shard) {
                        Some((_, names)) => names.push(name),
                        None => by_shard.push((shard, vec![args[0], name])),
                    }
                }
                by_shard.into_iter().try_for_each(|(shard, args)| self.run(shard, &args, rest(timeout)))
            }
            Scope::Servers => self.servers.iter().try_for_each(|shard| self.run(*shard, args, rest(timeout))),
            Scope::Known => {
                let known: Vec<usize> = {
                    let subs = self.subs.lock();
                    (0..subs.len()).filter(|shard| subs[*shard].is_some()).collect()
                };
                known.into_iter().try_for_each(|shard| self.run(shard, args, rest(timeout)))
            }
        }
    }

    fn run(&self, shard: usize, args: &[&[u8]], timeout: Timeout) -> Result<()> {
        let known = self.subs.lock()[shard].clone();
        let sub = match known {
            Some(sub) => sub,
            None => {
                let made = self.clients[shard].subscription_of(
                    &self.queue,
                    self.token,
                    self.overrides.as_ref(),
                    Some(&self.living),
                )?;
                let mut subs = self.subs.lock();
                match &subs[shard] {
                    // Another thread was quicker.
                    Some(other) => {
                        let other = Arc::clone(other);
                        drop(subs);
                        made.free();
                        other
                    }
                    None => {
                        subs[shard] = Some(Arc::clone(&made));
                        made
                    }
                }
            }
        };
        sub.exec(args, timeout).map_err(|error| nodes::named(&self.map, shard, error))
    }

    /// Ends it on all shards.
    pub fn free(&self) {
        let subs = std::mem::take(&mut *self.subs.lock());
        subs.into_iter().flatten().for_each(|sub| sub.free());
    }
}

fn scope(args: &[&[u8]]) -> Result<Scope> {
    let name = args.first().copied().unwrap_or_default().to_ascii_uppercase();
    Ok(match (&name[..], args.len()) {
        (b"SUBSCRIBE" | b"SSUBSCRIBE" | b"UNSUBSCRIBE" | b"SUNSUBSCRIBE", 2..) => Scope::Names,
        (b"PSUBSCRIBE" | b"PUNSUBSCRIBE", 2..) => Scope::Servers,
        (b"UNSUBSCRIBE" | b"SUNSUBSCRIBE" | b"PUNSUBSCRIBE" | b"PING", _) => Scope::Known,
        (b"SUBSCRIBE" | b"SSUBSCRIBE" | b"PSUBSCRIBE", _) => {
            let text = format!("{} without a name; nothing was sent", String::from_utf8_lossy(&name));
            return Err(Error::new(Status::InvalidArg, text));
        }
        _ => {
            let text = format!(
                "{} is no command of a subscription: SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE, their opposites, and PING are",
                quoted(&String::from_utf8_lossy(&name))
            );
            return Err(Error::new(Status::Unsupported, text));
        }
    })
}
