//! What a handle and all its services share: the settings, the known Sentinels, the watchers, and the clients of the
//! handle.
//!
//! Guarantees: settings are replaced as a whole, and their version grows with each change; clients are told of changes
//! without any lock held. Leaves to others: the services (service, sentinel), and the thread that watches the Sentinels
//! (monitor).

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;

use super::admin_call::AdminCalls;
use super::cause::{Cause, Why};
use super::connections::ConnectionChange;
use super::peers::SentinelList;
use super::source::Source;
use super::watch::{Degraded, TopologyEvent, Watchers};
use crate::config::{Endpoint, LogLevel, Settings};
use crate::error::{Error, Result, Status};
use crate::log::Log;
use crate::meter::{ClientFigures, add_client};
use crate::net::{Conn, ConnectOptions, Connector};
use crate::queue::{Queue, kind};
use crate::sort::SortedMap;
use crate::sys::descriptor::Kept;
use crate::sys::rank::Rank;
use crate::sys::seam::{self, Seam};
use crate::sys::sync::Lock;
use crate::time::Deadline;
use crate::worker;

/// What a sentinel handle and its services share.
pub(super) struct Shared {
    settings: ArcSwap<Settings>,
    source: Source,
    list: Arc<SentinelList>,
    closed: AtomicBool,
    config_version: AtomicU64,
    watchers: Arc<Watchers>,
    log: Arc<Log>,
    /// No Sentinel is heard.
    degraded: AtomicBool,
    /// How many are heard.
    listening: AtomicU64,
    /// The TLS of the nodes and of the Sentinels, each with how many changes of its files that were no use have been reported.
    connectors: [(Option<Arc<Connector>>, AtomicU64); 2],
    /// Whether it was reported that the Sentinels refuse the credentials.
    told_refused: AtomicBool,
    /// Sentinels whose events the user may not hear, and why.
    deaf: Lock<SortedMap<String, String>>,
    /// By the name of their service.
    children: Lock<HashMap<String, Vec<Weak<dyn Child>>>>,
    /// What clients had counted that are gone: one row for each service and target.
    buried: Lock<Vec<ClientFigures>>,
    /// Connections that are still to be told of.
    news: Lock<News>,
    admin_calls: Arc<AdminCalls>,
}

#[derive(Default)]
struct News {
    waiting: VecDeque<ConnectionChange>,
    /// A worker tells of them.
    runs: bool,
}

/// So many connections wait to be told of at most; the oldest are forgotten then.
const MOST_NEWS: usize = 10_000;

impl Shared {
    /// Not inlined, because settings are large and stacks may be small: this frame is gone when the Sentinels are
    /// asked.
    #[inline(never)]
    pub(super) fn new(settings: Settings, log: Option<Kept>) -> Arc<Self> {
        let of = |tls| (Connector::of(tls), AtomicU64::new(0));
        let connectors = [of(&settings.client.tls), of(&settings.sentinel.tls)];
        let watchers = Arc::new(Watchers::new());
        let told = Arc::clone(&watchers);
        Arc::new(Self {
            log: Log::new(&settings.log, log, move |line| told.tell_line(line)),
            list: Arc::new(SentinelList::new(&settings.sentinel.addrs)),
            source: Source::of(&settings),
            settings: ArcSwap::from_pointee(settings),
            closed: AtomicBool::new(false),
            config_version: AtomicU64::new(1),
            watchers,
            degraded: AtomicBool::new(false),
            listening: AtomicU64::new(0),
            connectors,
            told_refused: AtomicBool::new(false),
            deaf: Lock::new(Rank::Deaf, SortedMap::new()),
            children: Lock::new(Rank::Children, HashMap::new()),
            buried: Lock::new(Rank::Buried, Vec::new()),
            news: Lock::new(Rank::News, News::default()),
            admin_calls: AdminCalls::new(),
        })
    }

    /// What is wrong with files of TLS that have changed since the last question.
    pub(super) fn useless_certificates(&self) -> impl Iterator<Item = String> {
        self.connectors.iter().filter_map(|(connector, told)| {
            let (times, text) = connector.as_ref()?.kept()?;
            (told.fetch_max(times, Ordering::Relaxed) < times).then_some(text)
        })
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Grows with each change of the settings.
    pub(super) fn config_version(&self) -> u64 {
        self.config_version.load(Ordering::Acquire)
    }

    /// Replaces the settings.
    pub(super) fn set_settings(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
        self.config_version.fetch_add(1, Ordering::AcqRel);
    }

    /// Where the nodes of the services are learned from.
    pub(super) fn source(&self) -> Source {
        self.source
    }

    pub(super) fn list(&self) -> &Arc<SentinelList> {
        &self.list
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The commands that were submitted and are under way.
    pub(super) fn admin_calls(&self) -> &Arc<AdminCalls> {
        &self.admin_calls
    }

    /// Marks the handle as closed.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Adds a client of the handle, which uses this service.
    pub(super) fn adopt(&self, service: &str, child: Weak<dyn Child>) {
        let mut children = self.children.lock();
        children.retain(|_, of_service| {
            of_service.retain(|child| child.strong_count() > 0);
            !of_service.is_empty()
        });
        children.entry(service.to_owned()).or_default().push(child);
    }

    /// All clients.
    pub(super) fn children(&self) -> Vec<Arc<dyn Child>> {
        self.children.lock().values().flatten().filter_map(Weak::upgrade).collect()
    }

    /// Keeps what a client has counted, because it is gone.
    pub(super) fn bury(&self, figures: ClientFigures) {
        add_client(&mut self.buried.lock(), figures.gone());
    }

    /// What the clients have counted, those that are gone included: one row for each service and target.
    pub(super) fn client_figures(&self) -> Vec<ClientFigures> {
        // Held until the end, so that none of them goes in between.
        let children = self.children();
        let mut rows = self.buried.lock().clone();
        children.iter().for_each(|child| add_client(&mut rows, child.figures()));
        rows
    }

    /// The clients of one service: a handle may have hundreds of others.
    fn children_of(&self, service: &str) -> Vec<Arc<dyn Child>> {
        self.children.lock().get(service).into_iter().flatten().filter_map(Weak::upgrade).collect()
    }

    /// Tells the clients that a discovery ended, the primary changed, or the fence came down: they close connections to
    /// former nodes now, not at the next call, and continue submitted calls that wait.
    pub(super) fn changed(&self, service: &str) {
        seam::pass(Seam::ChangeTold, self);
        self.children_of(service).iter().for_each(|child| child.changed());
    }

    /// Offers a connection to the clients, until one has a use for it; otherwise it is closed.
    pub(super) fn offer(&self, service: &str, conn: Conn, options: &ConnectOptions) {
        self.children_of(service).iter().try_fold(conn, |conn, child| child.offer(conn, options));
    }

    /// Since when the primary of a service has answered none of its clients, as far as calls wait for it. With no lock held.
    pub(super) fn silent_since(&self, service: &str) -> Option<Instant> {
        self.children_of(service).iter().filter_map(|child| child.silent_since()).min()
    }

    /// When the primary of a service last sent anything on a connection that ordinary calls of its clients share. With no lock held.
    pub(super) fn heard_at(&self, service: &str) -> Option<Instant> {
        self.children_of(service).iter().filter_map(|child| child.heard_at()).max()
    }

    /// Tells the watches, and the log.
    pub(super) fn tell(&self, event: TopologyEvent) {
        self.log.write(event.head(), &|out| event.append(out));
        self.watchers.tell(&event);
    }

    /// Tells of a connection, if that is watched: on a worker, because it may have ended under any lock, and in order.
    pub(super) fn post(self: &Arc<Self>, change: impl FnOnce() -> ConnectionChange) {
        if !self.watchers.want(kind::CONNECTION) && !self.log.admits(LogLevel::Debug) {
            return;
        }
        let mut news = self.news.lock();
        if news.waiting.len() == MOST_NEWS {
            news.waiting.pop_front();
        }
        news.waiting.push_back(change());
        if std::mem::replace(&mut news.runs, true) {
            return;
        }
        drop(news);
        let shared = Arc::clone(self);
        if worker::run(move || shared.tell_news()).is_err() {
            // Without a thread the next one tries again.
            self.news.lock().runs = false;
        }
    }

    fn tell_news(&self) {
        loop {
            let mut news = self.news.lock();
            let Some(change) = news.waiting.pop_front() else {
                news.runs = false;
                return;
            };
            drop(news);
            self.tell(TopologyEvent::Connection(change));
        }
    }

    pub(super) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Whether what Sentinels mention at this level is wanted by anybody.
    pub(super) fn tells_mentions(&self, level: LogLevel) -> bool {
        self.is_watched() || self.log.admits(level)
    }

    /// A queue has one watch: a new one replaces it, and without kinds it ends.
    pub(super) fn watch(&self, queue: &Arc<Queue>, kinds: u32, token: u64) {
        self.watchers.set(queue, kinds, token);
    }

    /// Whether there is a watch: then all services are in use.
    pub(super) fn is_watched(&self) -> bool {
        self.watchers.is_any()
    }

    /// Notes which events of a Sentinel are not heard, if any.
    pub(super) fn note_deaf(&self, sentinel: &Endpoint, why: Option<&str>) {
        let mut deaf = self.deaf.lock();
        match why {
            Some(why) => deaf.insert(sentinel.to_string(), why.to_owned()),
            None => drop(deaf.remove(&sentinel.to_string())),
        }
    }

    /// Which events are not heard, by Sentinel.
    pub(super) fn deaf(&self) -> SortedMap<String, String> {
        self.deaf.lock().clone()
    }

    pub(super) fn is_degraded(&self) -> bool {
        self.degraded.load(Ordering::Relaxed)
    }

    /// How many Sentinels are heard.
    pub(super) fn listening(&self) -> u64 {
        self.listening.load(Ordering::Relaxed)
    }

    /// Notes how many Sentinels are heard.
    pub(super) fn note_listening(&self, count: usize) {
        self.listening.store(count as u64, Ordering::Relaxed);
    }

    /// Notes whether all Sentinels are gone, and reports a change.
    pub(super) fn set_degraded(&self, on: bool, why: &Why) {
        // The connections end first, and the next ones are refused: that is another cause.
        let refused = on && why.is(Cause::Refused);
        let is_new = refused && !self.told_refused.swap(true, Ordering::AcqRel);
        if !on {
            self.told_refused.store(false, Ordering::Release);
        }
        if self.degraded.swap(on, Ordering::AcqRel) != on || is_new {
            self.tell(TopologyEvent::Degraded(Degraded { on, why: why.clone() }));
        }
    }
}

/// A client of a handle, which ends with it.
pub trait Child: Send + Sync {
    /// Refuses new calls, lets calls in flight finish until the deadline, then ends them: TIMEOUT if there were any.
    fn close(&self, deadline: Deadline) -> Result<()>;

    /// The topology of its service may have changed. Must not wait.
    fn changed(&self);

    /// What it has counted.
    fn figures(&self) -> ClientFigures;

    /// Since when the primary has answered nothing, as far as calls wait for it. Must not wait.
    fn silent_since(&self) -> Option<Instant>;

    /// When the primary last sent anything on the connections that are open. Must not wait.
    fn heard_at(&self) -> Option<Instant>;

    /// Offers an unused connection to the primary of its service; returns it if it is of no use. Must not wait.
    fn offer(&self, conn: Conn, options: &ConnectOptions) -> Option<Conn>;
}

/// The error of an operation on a closed handle.
pub(crate) fn closed() -> Error {
    Error::new(Status::Closed, "the sentinel handle is closed")
}
