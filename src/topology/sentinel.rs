//! The sentinel handle: the settings, the Sentinels, the services asked for.
//!
//! Guarantees: one [`Service`] per name; settings are replaced as a whole, and their version grows with each change. Leaves
//! to others: everything about one service (service), and the handle's counting and fork check (ffi).

use super::cause::Why;
use super::command::{Ask, CommandLinks, Ticket};
use super::monitor;
use super::peers::SentinelList;
use super::report;
use super::round::Asked;
use super::running::Wanted;
use super::service::Service;
use super::table::{self, ServiceRow};
use super::watch::{Degraded, TopologyEvent, WATCHABLE, Watchers};
use crate::config::{Endpoint, Settings};
use crate::error::{Error, Result, Status};
use crate::net::{Conn, ConnectOptions, LinkOptions};
use crate::queue::Queue;
use crate::resp::{Reply, ReplyBuilder, encode};
use crate::sys::poll::Found;
use crate::sys::seam::{self, Seam};
use crate::sys::waker::Waker;
use crate::time::Deadline;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Pauses between attempts to reach any Sentinel at the start: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));
/// What the last pause leaves of the time for the attempt behind it.
const LAST_ATTEMPT: Duration = Duration::from_millis(20);

/// Names that are kept though nobody uses them: of more, the one that was asked for longest ago goes.
const FORGOTTEN: usize = 1000;

/// What a sentinel handle and its services share.
pub(super) struct Shared {
    settings: ArcSwap<Settings>,
    list: SentinelList,
    closed: AtomicBool,
    config_version: AtomicU64,
    watchers: Watchers,
    /// No Sentinel is heard.
    degraded: AtomicBool,
    /// Sentinels whose events the user may not hear, and why.
    deaf: Mutex<BTreeMap<String, String>>,
    children: Mutex<Vec<Weak<dyn Child>>>,
    handle: OnceLock<Weak<Sentinel>>,
}

impl Shared {
    /// In a frame of its own, which is gone when the Sentinels are asked: settings are large, and stacks may be small.
    #[inline(never)]
    fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            list: SentinelList::new(&settings.sentinel.addrs),
            settings: ArcSwap::from_pointee(settings),
            closed: AtomicBool::new(false),
            config_version: AtomicU64::new(1),
            watchers: Watchers::default(),
            degraded: AtomicBool::new(false),
            deaf: Mutex::default(),
            children: Mutex::default(),
            handle: OnceLock::new(),
        })
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    pub(super) fn list(&self) -> &SentinelList {
        &self.list
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether somebody may still want to know: not when the handle was closed, or is gone with all that was made from it.
    pub(super) fn is_in_use(&self) -> bool {
        !self.is_closed() && self.handle.get().is_none_or(|handle| handle.strong_count() > 0)
    }

    fn children(&self) -> Vec<Arc<dyn Child>> {
        lock(&self.children).iter().filter_map(Weak::upgrade).collect()
    }

    /// The monitor watches the handle from its first use on; making one opens nothing.
    pub(super) fn ensure_monitored(&self) {
        if let Some(sentinel) = self.handle.get().and_then(Weak::upgrade) {
            monitor::register(&sentinel);
        }
    }

    /// Has the thread that watches the Sentinels discover; false where there is none.
    pub(super) fn discover(&self, wanted: Wanted) -> bool {
        self.handle.get().and_then(Weak::upgrade).is_some_and(|sentinel| monitor::discover(&sentinel, wanted))
    }

    /// Has the thread that watches the Sentinels look at all services.
    pub(super) fn recheck(&self) {
        monitor::recheck();
    }

    /// A discovery has ended, a switch was taken, or the fence has come down: connections to nodes that left the service end now, not at
    /// the next call, and calls that wait for it without a thread go on.
    pub(super) fn changed(&self, service: &str) {
        seam::pass(Seam::ChangeTold, self);
        self.children().iter().for_each(|child| child.changed(service));
    }

    /// Gives a connection to the first who has a use for it; else it is closed.
    pub(super) fn offer(&self, service: &str, conn: Conn, options: &ConnectOptions) {
        self.children().iter().try_fold(conn, |conn, child| child.offer(service, conn, options));
    }

    pub(super) fn tell(&self, event: TopologyEvent) {
        self.watchers.tell(&event);
    }

    /// Whether somebody watches: then all services are in use.
    pub(super) fn is_watched(&self) -> bool {
        self.watchers.is_any()
    }

    /// Notes what is not heard of a Sentinel, if anything.
    pub(super) fn note_deaf(&self, sentinel: &Endpoint, why: Option<&str>) {
        let mut deaf = lock(&self.deaf);
        match why {
            Some(why) => drop(deaf.insert(sentinel.to_string(), why.to_owned())),
            None => drop(deaf.remove(&sentinel.to_string())),
        }
    }

    /// What is not heard, by Sentinel.
    pub(super) fn deaf(&self) -> BTreeMap<String, String> {
        lock(&self.deaf).clone()
    }

    /// All Sentinels are gone, or one is back.
    pub(super) fn set_degraded(&self, on: bool, why: &Why) {
        if self.degraded.swap(on, Ordering::AcqRel) != on {
            self.tell(TopologyEvent::Degraded(Degraded { on, why: why.clone() }));
        }
    }
}

/// What was made from a handle and ends with it.
pub trait Child: Send + Sync {
    /// Refuses new work, lets what is under way finish until the deadline, then ends it: TIMEOUT if there was anything to end.
    fn close(&self, deadline: Deadline) -> Result<()>;

    /// The topology of this service may have changed. Does not wait for anything.
    fn changed(&self, service: &str);

    /// A connection to the primary of this service is open, and nobody uses it; what is of no use comes back. Does not wait for anything.
    fn offer(&self, service: &str, conn: Conn, options: &ConnectOptions) -> Option<Conn>;
}

/// A deployment: its Sentinels and the services that they watch.
pub struct Sentinel {
    shared: Arc<Shared>,
    services: Mutex<BTreeMap<String, Arc<Service>>>,
    /// Changes of settings, one after the other.
    configuring: Mutex<()>,
}

impl Sentinel {
    /// A handle; with `wait`, one whose Sentinels have been reached: at least one has answered in time.
    pub fn create(settings: Settings, wait: Option<Deadline>) -> Result<Arc<Self>> {
        let shared = Shared::new(settings);
        if let Some(deadline) = wait {
            reach_any(&shared, deadline)?;
        }
        let (services, configuring) = (Mutex::default(), Mutex::new(()));
        let sentinel = Arc::new(Self { shared, services, configuring });
        // Nobody else has it yet, so it cannot be set.
        let _ = sentinel.shared.handle.set(Arc::downgrade(&sentinel));
        Ok(sentinel)
    }

    /// Watches for changes from now on: events of these kinds go to the queue, with this token. One watch per queue; a new one
    /// takes its place, and 0 ends it.
    pub fn watch(&self, kinds: u32, queue: &Arc<Queue>, token: u64) -> Result<()> {
        match kinds & !WATCHABLE {
            0 if self.is_closed() => Err(closed()),
            0 => {
                self.shared.watchers.set(queue, kinds, token);
                self.shared.ensure_monitored();
                Ok(())
            }
            unknown => Err(Error::new(
                Status::InvalidArg,
                format!(
                    "event_kinds: {unknown:#x} cannot be watched; VIGIE_EVENT_TOPOLOGY, VIGIE_EVENT_NOTICE, VIGIE_EVENT_FENCE, \
                 VIGIE_EVENT_DEGRADED, VIGIE_EVENT_REPLICA and VIGIE_EVENT_SENTINEL can (all: VIGIE_EVENT_ALL)"
                ),
            )),
        }
    }

    /// Whether no Sentinel is heard.
    pub fn is_degraded(&self) -> bool {
        self.shared.degraded.load(Ordering::Relaxed)
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The settings as they are now.
    pub fn settings(&self) -> Arc<Settings> {
        self.shared.settings()
    }

    /// Grows with each change of the settings.
    pub fn config_version(&self) -> u64 {
        self.shared.config_version.load(Ordering::Acquire)
    }

    /// Changes an option that may be changed while the handle is open.
    pub fn configure(&self, key: &str, value: &str) -> Result<()> {
        if self.is_closed() {
            return Err(closed());
        }
        let _one_at_a_time = lock(&self.configuring);
        let before = self.settings();
        let settings = before.with(key, value)?;
        let remapped = settings.client.address_map != before.client.address_map;
        let map = settings.client.address_map.clone();
        self.shared.settings.store(Arc::new(settings));
        self.shared.config_version.fetch_add(1, Ordering::AcqRel);
        if remapped {
            self.all().iter().for_each(|service| service.remap(&map));
        }
        self.all().iter().for_each(|service| service.reconfigured());
        Ok(())
    }

    /// The service of this name. Those that are forgotten are kept up to a bound.
    pub fn service(self: &Arc<Self>, name: &str) -> Arc<Service> {
        let mut services = lock(&self.services);
        if let Some(service) = services.get(name) {
            return Arc::clone(service);
        }
        if services.len() >= FORGOTTEN {
            let gone = services.iter().filter(|(_, one)| Arc::strong_count(one) == 1 && one.is_forgotten());
            if let Some(oldest) = gone.min_by_key(|(_, one)| one.load().asked).map(|(name, _)| name.clone()) {
                services.remove(&oldest);
            }
        }
        let service = Service::new(name, Arc::clone(&self.shared));
        services.insert(name.to_owned(), Arc::clone(&service));
        service
    }

    /// A service that was asked for before.
    pub(super) fn known_service(&self, name: &str) -> Option<Arc<Service>> {
        lock(&self.services).get(name).cloned()
    }

    /// What is known, without asking anybody: a MAP for one service, a MAP of such MAPs for all that were asked for.
    pub fn topology(&self, service: Option<&str>) -> Result<Reply> {
        if self.shared.is_closed() {
            return Err(closed());
        }
        let mut out = ReplyBuilder::new();
        match service {
            Some(name) => {
                let known = lock(&self.services).get(name).cloned();
                let service = known.unwrap_or_else(|| Service::new(name, Arc::clone(&self.shared)));
                describe(&mut out, &service);
            }
            None => {
                out.map();
                for service in self.all() {
                    out.text(service.name());
                    describe(&mut out, &service);
                }
                out.end();
            }
        }
        out.try_finish()
    }

    /// Asks the Sentinels now, then answers as [`Sentinel::topology`]. For all services, that of the settings included: an error only
    /// when none could be found.
    pub fn refresh(self: &Arc<Self>, service: Option<&str>, deadline: Deadline) -> Result<Reply> {
        if let Some(name) = service {
            self.service(name).verify(deadline)?;
            return self.topology(Some(name));
        }
        if let Some(name) = &self.settings().service {
            self.service(name);
        }
        let outcomes: Vec<_> = self.all().iter().map(|service| service.verify(deadline)).collect();
        let found = outcomes.iter().any(Result::is_ok);
        match outcomes.into_iter().find_map(Result::err) {
            Some(error) if !found => Err(error),
            _ => self.topology(None),
        }
    }

    /// Notes what was made from this handle.
    pub fn adopt(&self, child: Weak<dyn Child>) {
        let mut children = lock(&self.shared.children);
        children.retain(|child| child.strong_count() > 0);
        children.push(child);
    }

    /// What was made from this handle and is still there.
    pub fn children(&self) -> Vec<Arc<dyn Child>> {
        self.shared.children()
    }

    /// Ends the handle: callers that wait for a discovery get CLOSED.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        monitor::recheck();
        self.all().iter().for_each(|service| service.wake());
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    pub(super) fn all(&self) -> Vec<Arc<Service>> {
        lock(&self.services).values().cloned().collect()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        monitor::recheck();
    }
}

impl fmt::Debug for Sentinel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}

/// The error of what is asked of a handle that was closed.
pub(crate) fn closed() -> Error {
    Error::new(Status::Closed, "the sentinel handle is closed")
}

fn describe(out: &mut ReplyBuilder, service: &Service) {
    let (error, suspicion, split_view) = (service.last_error(), service.suspicion(), service.split_view());
    let (name, snapshot, deaf) = (service.name().to_owned(), service.shown(), service.shared.deaf());
    table::service(out, &ServiceRow { name, snapshot, error, suspicion, split_view, deaf });
}

/// Tries until one Sentinel has answered a PING. Refused credentials will not get better by waiting.
fn reach_any(shared: &Shared, deadline: Deadline) -> Result<()> {
    let mut pause = PAUSES.0;
    let mut failures = BTreeMap::new();
    loop {
        let error = match reach_once(shared, &mut failures, deadline) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let left = deadline.left().map(|left| left.saturating_sub(LAST_ATTEMPT));
        if error.status() == Status::Auth || left.is_some_and(|left| left.is_zero()) {
            return Err(error);
        }
        std::thread::sleep(left.map_or(pause, |left| pause.min(left)));
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// `failures`: how the earlier attempts at each ended, for those whose answer this one does not wait for.
fn reach_once(shared: &Shared, failures: &mut BTreeMap<String, Error>, deadline: Deadline) -> Result<()> {
    let settings = shared.settings();
    let timeout = deadline.left_or(settings.sentinel.timeout);
    let options = Arc::new(LinkOptions::of_sentinel(&settings.sentinel));
    let (mut links, mut asked) = (CommandLinks::default(), Vec::new());
    for member in shared.list.members() {
        let endpoint: Endpoint = settings.sentinel.address_map.apply(&member.endpoint);
        let mut bytes = Vec::new();
        encode::command(&mut bytes, &[b"PING"]);
        let ticket = Ticket { asker: 0, index: asked.len() };
        links.ask(&endpoint, &options, Ask { ticket, bytes, replies: 1, timeout, urgent: true, info_since: None });
        let (given, known_id, place) = (member.given, member.id, usize::MAX);
        asked.push(Asked { announced: member.endpoint, endpoint, given, counts: true, known_id, place, end: None });
    }
    // Without a waker a name that is resolved is noticed at the next event or timeout.
    let waker = Waker::new().ok().map(Arc::new);
    // Accept, shake hands, answer: each of them may take timeout.sentinel.
    let limit = Instant::now() + deadline.left_or(timeout * 3);
    while asked.iter().any(|one| one.end.is_none()) && Instant::now() < limit {
        let ended = links.drive(&Found::all(), waker.as_ref());
        for (ticket, outcome) in ended {
            match outcome {
                Ok(_) => return Ok(()),
                Err(error) => {
                    let asked = &mut asked[ticket.index];
                    failures.insert(asked.endpoint.to_string(), error.clone());
                    asked.end = Some(Err(error));
                }
            }
        }
        links.wait(waker.as_ref(), limit);
    }
    for asked in asked.iter_mut().filter(|asked| asked.end.is_none()) {
        asked.end = failures.get(&asked.endpoint.to_string()).cloned().map(Err);
    }
    let what = format!("(after {} ms)", deadline.elapsed().as_millis());
    Err(report::nobody(&what, &asked, &report::said(&asked)))
}

/// A panic under one of these locks leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_an_earlier_attempt_has_shown_is_not_lost_with_the_last_one() {
        let mut config = Config::new();
        config.set("sentinel.addrs", "127.0.0.1:1,127.0.0.1:2").unwrap();
        let shared = Shared::new(config.settings().unwrap());
        let known = Error::new(Status::Connect, "cannot connect: Connection refused");
        let mut failures = BTreeMap::from([(String::from("127.0.0.1:1"), known)]);
        let error = reach_once(&shared, &mut failures, Deadline::after(Duration::ZERO)).unwrap_err();
        let parts = ["127.0.0.1:1: cannot connect: Connection refused", "127.0.0.1:2: not waited for"];
        assert!(parts.iter().all(|part| error.message().contains(part)), "{error:?}");
    }
}
