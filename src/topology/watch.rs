//! What a program that watches is told: changes of the topology, as events on its queue.
//!
//! Guarantees: no callbacks; an event is built once for all watchers; a full queue counts what it loses. EVENTS.md is
//! written from the tables; keys may be added, never changed.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::cause::{Cause, CauseInfo, Why};
use super::connections::{self, ConnectionChange};
use super::events;
use crate::config::Endpoint;
use crate::log::{Head, lines};
use crate::queue::{Event, Queue, kind};
use crate::resp::fields::{
    self, Field, MapInfo,
    Value::{Bool, BoolOrNull, Int, IntOrNull, Text, TextOrNull},
    field,
};
use crate::resp::{Reply, ReplyBuilder};
use crate::sys::rank::Rank;
use crate::sys::sync::Lock;

/// An event that a program can watch.
#[derive(Debug, Clone)]
pub(super) enum TopologyEvent {
    /// The primary of a service changed.
    Topology(Switch),
    /// Something was said about a service that keeps its primary.
    Notice(Notice),
    /// Writes are held back, or pass again.
    Fence(FenceChange),
    /// All Sentinels are gone, or one is back.
    Degraded(Degraded),
    /// A replica became fit or unfit, or was mentioned.
    Replica(ReplicaChange),
    /// A Sentinel is up or down, or was mentioned; or some Sentinels name another primary than the others.
    Sentinel(SentinelChange),
    /// A connection was opened or closed.
    Connection(ConnectionChange),
}

#[derive(Debug, Clone)]
pub(super) struct Switch {
    pub(super) service: String,
    pub(super) from: Option<Endpoint>,
    pub(super) to: Option<Endpoint>,
    pub(super) why: Why,
    pub(super) epoch: u64,
    /// For how long nothing served before it, if anything showed that.
    pub(super) gap: Option<Duration>,
}

#[derive(Debug, Clone)]
pub(super) struct Notice {
    pub(super) service: String,
    pub(super) primary: Option<Endpoint>,
    pub(super) why: Why,
    pub(super) epoch: u64,
}

#[derive(Debug, Clone)]
pub(super) struct FenceChange {
    pub(super) service: String,
    pub(super) on: bool,
    pub(super) why: Why,
    /// For how long writes were held back, if they are no longer.
    pub(super) held: Option<Duration>,
}

#[derive(Debug, Clone)]
pub(super) struct Degraded {
    pub(super) on: bool,
    pub(super) why: Why,
}

#[derive(Debug, Clone)]
pub(super) struct ReplicaChange {
    pub(super) service: String,
    pub(super) replica: String,
    pub(super) fit: Option<bool>,
    pub(super) why: Why,
}

#[derive(Debug, Clone)]
pub(super) struct SentinelChange {
    pub(super) sentinel: String,
    pub(super) up: Option<bool>,
    pub(super) why: Why,
    pub(super) service: Option<String>,
    pub(super) text: Option<String>,
}

impl SentinelChange {
    /// A change of one Sentinel that concerns no particular service.
    pub(super) fn of(sentinel: String, up: Option<bool>, why: Why) -> Self {
        Self { sentinel, up, why, service: None, text: None }
    }
}

const REASON: &str = "Why, for people and logs: a sentence, or the word of `cause` if there is no more to say.";
const CAUSE: &str = "Why, as a word that programs can act on: one of those below.";

const TOPOLOGY: &[Field<Switch>] = &[
    field("service", Text(|of| (&*of.service).into()), "", "The service."),
    field("from", TextOrNull(|of| address(of.from.as_ref())), "", "The primary before."),
    field("to", TextOrNull(|of| address(of.to.as_ref())), "", "The primary now."),
    field("reason", Text(|of| of.why.text().into()), "", REASON),
    field("epoch", Int(|of| number(of.epoch)), "", "The configuration epoch under which it was named."),
    field("cause", Text(|of| of.why.cause().into()), "", CAUSE),
    field(
        "gap_ms",
        IntOrNull(|of| of.gap.map(millis)),
        "ms",
        "For how long the service was not served in full: since the first call that the former primary did not answer any more, the first \
         connection to it that failed, or the first word that raises the fence. NULL: there was no such sign.",
    ),
];

const NOTICE: &[Field<Notice>] = &[
    field("service", Text(|of| (&*of.service).into()), "", "The service."),
    field("primary", TextOrNull(|of| address(of.primary.as_ref())), "", "Its primary, which does not change."),
    field("reason", Text(|of| of.why.cause().into()), "", "The word of `cause`; the sentence is in `text`."),
    field("text", Text(|of| of.why.text().into()), "", "Which Sentinel said it about which primary, or a sentence."),
    field("epoch", Int(|of| number(of.epoch)), "", "The configuration epoch under which the primary was named."),
    field("cause", Text(|of| of.why.cause().into()), "", CAUSE),
];

const FENCE: &[Field<FenceChange>] = &[
    field("service", Text(|of| (&*of.service).into()), "", "The service."),
    field("on", Bool(|of| of.on), "", "Whether writes are held back from now on."),
    field("reason", Text(|of| of.why.text().into()), "", REASON),
    field("cause", Text(|of| of.why.cause().into()), "", CAUSE),
    field(
        "held_ms",
        IntOrNull(|of| of.held.map(millis)),
        "ms",
        "For how long writes were held back. NULL: they are from now on.",
    ),
];

const DEGRADED: &[Field<Degraded>] = &[
    field("on", Bool(|of| of.on), "", "Whether all Sentinels are gone."),
    field("reason", Text(|of| of.why.text().into()), "", "What the last Sentinel said, or why it is gone."),
    field("cause", Text(|of| of.why.cause().into()), "", CAUSE),
];

const REPLICA: &[Field<ReplicaChange>] = &[
    field("service", Text(|of| (&*of.service).into()), "", "The service."),
    field("replica", Text(|of| (&*of.replica).into()), "", "The replica: `host:port`."),
    field("fit", BoolOrNull(|of| of.fit), "", "Whether it is used for reads from now on. NULL: it was only mentioned."),
    field("reason", Text(|of| of.why.text().into()), "", REASON),
    field("cause", Text(|of| of.why.cause().into()), "", CAUSE),
];

const SENTINEL: &[Field<SentinelChange>] = &[
    field(
        "sentinel",
        Text(|of| (&*of.sentinel).into()),
        "",
        "The Sentinel: `host:port`. With `split_view` and `strangers`: all that are concerned, separated by commas.",
    ),
    field(
        "up",
        BoolOrNull(|of| of.up),
        "",
        "Whether its events are received from now on. NULL: it was only mentioned.",
    ),
    field("reason", Text(|of| of.why.text().into()), "", REASON),
    field(
        "service",
        TextOrNull(|of| of.service.as_deref().map(Into::into)),
        "",
        "The service, with `split_view` and `strangers`. NULL: no single service is concerned.",
    ),
    field(
        "text",
        TextOrNull(|of| of.text.as_deref().map(Into::into)),
        "",
        "What each of them names, with `split_view` and `strangers`.",
    ),
    field("cause", Text(|of| of.why.cause().into()), "", CAUSE),
];

/// The maps of the events that can be watched, with their kinds, for EVENTS.md.
pub fn event_maps() -> Vec<(u32, MapInfo)> {
    vec![
        (kind::TOPOLOGY, fields::describe("TOPOLOGY", TOPOLOGY)),
        (kind::NOTICE, fields::describe("NOTICE", NOTICE)),
        (kind::FENCE, fields::describe("FENCE", FENCE)),
        (kind::DEGRADED, fields::describe("DEGRADED", DEGRADED)),
        (kind::REPLICA, fields::describe("REPLICA", REPLICA)),
        (kind::SENTINEL, fields::describe("SENTINEL", SENTINEL)),
    ]
}

/// The causes of the library itself; all others are channels of Sentinels, and begin with `+` or `-`.
pub fn event_causes() -> &'static [CauseInfo] {
    Cause::TABLE
}

impl TopologyEvent {
    fn kind(&self) -> u32 {
        match self {
            Self::Topology(_) => kind::TOPOLOGY,
            Self::Notice(_) => kind::NOTICE,
            Self::Fence(_) => kind::FENCE,
            Self::Degraded(_) => kind::DEGRADED,
            Self::Replica(_) => kind::REPLICA,
            Self::Sentinel(_) => kind::SENTINEL,
            Self::Connection(_) => kind::CONNECTION,
        }
    }

    fn reply(&self) -> Reply {
        let mut out = ReplyBuilder::new();
        out.map();
        self.append(&mut out);
        out.end().finish()
    }

    /// Writes its keys and values into a map.
    pub(super) fn append(&self, out: &mut ReplyBuilder) {
        match self {
            Self::Topology(of) => fields::append(out, TOPOLOGY, of),
            Self::Notice(of) => fields::append(out, NOTICE, of),
            Self::Fence(of) => fields::append(out, FENCE, of),
            Self::Degraded(of) => fields::append(out, DEGRADED, of),
            Self::Replica(of) => fields::append(out, REPLICA, of),
            Self::Sentinel(of) => fields::append(out, SENTINEL, of),
            Self::Connection(of) => connections::append(out, of),
        }
    }

    /// How its line in the log begins.
    pub(super) fn head(&self) -> Head {
        match self {
            Self::Topology(_) => lines::SWITCHED,
            Self::Notice(of) if of.why.is(Cause::CertificatesKept) || of.why.is(Cause::EpochReset) => lines::ATTENTION,
            Self::Notice(of) if of.why.is(Cause::CredentialsRefused) => lines::REFUSED,
            Self::Notice(of) if of.why.cause() == "+reboot" => lines::REBOOTED,
            Self::Notice(of) if events::advice(of.why.cause()).is_some() => lines::ABORTED,
            Self::Notice(_) => lines::SPOKEN_OF,
            Self::Fence(of) if of.on => lines::FENCE_UP,
            Self::Fence(_) => lines::FENCE_DOWN,
            Self::Degraded(of) if of.on => lines::ALL_GONE,
            Self::Degraded(_) => lines::ONE_BACK,
            Self::Replica(of) => match of.fit {
                Some(true) => lines::REPLICA_FIT,
                Some(false) => lines::REPLICA_UNFIT,
                None => lines::REPLICA_SPOKEN_OF,
            },
            Self::Sentinel(of) => match of.up {
                Some(true) => lines::SENTINEL_UP,
                Some(false) => lines::SENTINEL_DOWN,
                None if of.why.is_own() => lines::SENTINELS_DIFFER,
                None => lines::SENTINEL_SPOKEN_OF,
            },
            Self::Connection(of) if of.end.is_none() => lines::OPENED,
            Self::Connection(_) => lines::CLOSED,
        }
    }
}

fn address(endpoint: Option<&Endpoint>) -> Option<std::borrow::Cow<'_, str>> {
    endpoint.map(|endpoint| endpoint.to_string().into())
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The kinds about a deployment, all of which can be watched.
pub const WATCHABLE: u32 =
    kind::TOPOLOGY | kind::NOTICE | kind::FENCE | kind::DEGRADED | kind::REPLICA | kind::SENTINEL;

/// The watches of a handle.
pub(super) struct Watchers {
    list: Lock<Vec<Watcher>>,
    /// The kinds that any of them asks for, to look at without the lock.
    kinds: AtomicU32,
}

struct Watcher {
    queue: Weak<Queue>,
    mask: u32,
    token: u64,
}

impl Watchers {
    pub(super) fn new() -> Self {
        Self { list: Lock::new(Rank::Watchers, Vec::new()), kinds: AtomicU32::new(0) }
    }

    /// A queue has one watch: a new one replaces it, and without kinds it ends.
    pub(super) fn set(&self, queue: &Arc<Queue>, mask: u32, token: u64) {
        let mut watchers = self.list.lock();
        watchers.retain(|watcher| {
            watcher.queue.strong_count() > 0 && !std::ptr::eq(watcher.queue.as_ptr(), Arc::as_ptr(queue))
        });
        if mask != 0 {
            watchers.push(Watcher { queue: Arc::downgrade(queue), mask, token });
        }
        self.kinds.store(watchers.iter().fold(0, |all, watcher| all | watcher.mask), Ordering::Release);
    }

    /// Whether this kind is watched, or was until its queue went.
    pub(super) fn want(&self, kind: u32) -> bool {
        self.kinds.load(Ordering::Acquire) & kind != 0
    }

    /// Whether there is one.
    pub(super) fn is_any(&self) -> bool {
        let watchers = self.list.lock();
        watchers.iter().any(|watcher| watcher.queue.strong_count() > 0)
    }

    /// Sends an event to all queues that watch its kind.
    pub(super) fn tell(&self, event: &TopologyEvent) {
        self.push(event.kind(), &|| event.reply());
    }

    /// Sends a line of the log to all queues that watch it.
    pub(super) fn tell_line(&self, line: Reply) {
        let line = Cell::new(Some(line));
        self.push(kind::LOG, &|| line.take().unwrap_or_else(Reply::null));
    }

    /// The reply is made for the first queue that wants it.
    fn push(&self, kind: u32, make: &dyn Fn() -> Reply) {
        let watchers = self.list.lock();
        let mut reply = None;
        for watcher in watchers.iter().filter(|watcher| watcher.mask & kind != 0) {
            let Some(queue) = watcher.queue.upgrade() else { continue };
            let reply = reply.get_or_insert_with(make).subtree(0);
            queue.push(Event { kind, token: watcher.token, outcome: Ok(Some(reply)) });
        }
    }
}
