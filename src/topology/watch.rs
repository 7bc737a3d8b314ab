//! What a program that watches is told: changes of the topology as events on its queue.
//!
//! Guarantees: nothing is called back; an event is built once for all who watch; a queue that is full counts what it loses. Keys of the
//! maps may be added, never changed.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::config::Endpoint;
use crate::queue::{Event, Queue, kind};
use crate::resp::{Reply, ReplyBuilder};

/// Something that a program may want to know.
#[derive(Debug, Clone)]
pub enum Happening {
    /// The primary of a service changed.
    Topology {
        /// The service.
        service: String,
        /// The primary before.
        from: Option<Endpoint>,
        /// The primary now.
        to: Option<Endpoint>,
        /// Why.
        reason: String,
        /// The configuration epoch.
        epoch: u64,
    },
    /// Something was said of a service that keeps its primary.
    Notice {
        /// The service.
        service: String,
        /// Its primary.
        primary: Option<Endpoint>,
        /// One word: a Sentinel's, or the library's own.
        reason: String,
        /// Who said it, or what there is to know.
        text: String,
        /// The configuration epoch.
        epoch: u64,
    },
    /// Writes are held back, or not any more.
    Fence {
        /// The service.
        service: String,
        /// Whether they are.
        on: bool,
        /// Whose word it was.
        reason: String,
    },
    /// All Sentinels are gone, or back.
    Degraded {
        /// Whether they are gone.
        on: bool,
        /// What was said last.
        reason: String,
    },
    /// A replica came in, went out, or was spoken of.
    Replica {
        /// The service.
        service: String,
        /// The replica, where the service has many.
        replica: String,
        /// Whether it is read from; `None`: it was only spoken of.
        fit: Option<bool>,
        /// Why.
        reason: String,
    },
    /// Sentinels have named another primary than the others for seconds.
    Disagree {
        /// The service.
        service: String,
        /// They.
        sentinels: Vec<Endpoint>,
        /// One word.
        reason: String,
        /// What is named.
        text: String,
    },
    /// A Sentinel is up, down, or was spoken of.
    Sentinel {
        /// The Sentinel.
        sentinel: String,
        /// Whether it is heard; `None`: it was only spoken of.
        up: Option<bool>,
        /// Why.
        reason: String,
    },
}

impl Happening {
    fn kind(&self) -> u32 {
        match self {
            Self::Topology { .. } => kind::TOPOLOGY,
            Self::Notice { .. } => kind::NOTICE,
            Self::Fence { .. } => kind::FENCE,
            Self::Degraded { .. } => kind::DEGRADED,
            Self::Replica { .. } => kind::REPLICA,
            Self::Sentinel { .. } | Self::Disagree { .. } => kind::SENTINEL,
        }
    }

    fn reply(&self) -> Reply {
        let mut map = ReplyBuilder::new();
        map.map();
        match self {
            Self::Topology { service, from, to, reason, epoch } => {
                map.text("service").text(service);
                address(map.text("from"), from.as_ref());
                address(map.text("to"), to.as_ref());
                map.text("reason").text(reason).text("epoch").int(i64::try_from(*epoch).unwrap_or(i64::MAX));
            }
            Self::Notice { service, primary, reason, text, epoch } => {
                map.text("service").text(service);
                address(map.text("primary"), primary.as_ref());
                map.text("reason").text(reason).text("text").text(text);
                map.text("epoch").int(i64::try_from(*epoch).unwrap_or(i64::MAX));
            }
            Self::Fence { service, on, reason } => {
                map.text("service").text(service).text("on").bool(*on).text("reason").text(reason);
            }
            Self::Degraded { on, reason } => {
                map.text("on").bool(*on).text("reason").text(reason);
            }
            Self::Replica { service, replica, fit, reason } => {
                map.text("service").text(service).text("replica").text(replica);
                either(map.text("fit"), *fit).text("reason").text(reason);
            }
            Self::Disagree { service, sentinels, reason, text } => {
                let sentinels: Vec<_> = sentinels.iter().map(ToString::to_string).collect();
                map.text("sentinel").text(&sentinels.join(","));
                either(map.text("up"), None).text("reason").text(reason);
                map.text("service").text(service).text("text").text(text);
            }
            Self::Sentinel { sentinel, up, reason } => {
                map.text("sentinel").text(sentinel);
                either(map.text("up"), *up).text("reason").text(reason);
            }
        }
        map.end().finish()
    }
}

fn address(map: &mut ReplyBuilder, endpoint: Option<&Endpoint>) {
    match endpoint {
        Some(endpoint) => map.text(&endpoint.to_string()),
        None => map.null(),
    };
}

fn either(map: &mut ReplyBuilder, value: Option<bool>) -> &mut ReplyBuilder {
    match value {
        Some(value) => map.bool(value),
        None => map.null(),
    }
}

/// The kinds that can be watched.
pub const WATCHABLE: u32 =
    kind::TOPOLOGY | kind::NOTICE | kind::FENCE | kind::DEGRADED | kind::REPLICA | kind::SENTINEL;

/// Those who watch.
#[derive(Default)]
pub(super) struct Watchers(Mutex<Vec<Watcher>>);

struct Watcher {
    queue: Weak<Queue>,
    mask: u32,
    token: u64,
}

impl Watchers {
    /// One watch per queue: a new one takes the place of the old; without kinds it ends.
    pub(super) fn set(&self, queue: &Arc<Queue>, mask: u32, token: u64) {
        let mut watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| {
            watcher.queue.strong_count() > 0 && !std::ptr::eq(watcher.queue.as_ptr(), Arc::as_ptr(queue))
        });
        if mask != 0 {
            watchers.push(Watcher { queue: Arc::downgrade(queue), mask, token });
        }
    }

    /// Tells all who want to know.
    pub(super) fn tell(&self, happening: &Happening) {
        let kind = happening.kind();
        let watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reply = None;
        for watcher in watchers.iter().filter(|watcher| watcher.mask & kind != 0) {
            let Some(queue) = watcher.queue.upgrade() else { continue };
            let reply = reply.get_or_insert_with(|| happening.reply()).subtree(0);
            queue.push(Event { kind, token: watcher.token, outcome: Ok(Some(reply)) });
        }
    }
}
