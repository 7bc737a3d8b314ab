//! One service: its snapshot, and the one discovery that runs for all callers.
//!
//! Guarantees: readers never wait; at most one discovery at a time, with a pause between two, however many threads ask;
//! a caller's deadline ends its own wait and nothing else; a caller that waited for a discovery that failed gets its
//! error. Leaves to others: when to ask (call, route), what a failover changes (transition), what a discovery changes
//! (finish), and the threads that run discoveries (the [`Driver`]).

use super::announced::Announced;
use super::cause::{Cause, Why};
use super::connections::ConnectionChange;
use super::deployment::Membership;
use super::discovery::Views;
use super::failover::Failover;
use super::follow::{Following, Line, Weighed};
use super::identity::Speaker;
use super::judge::{Known, Proposal};
use super::pauses::Pauses;
use super::shared::{Shared, closed};
use super::snapshot::Snapshot;
use super::source::Source;
use super::toll::{ServiceFigures, Toll};
use super::watch::{Notice, ReplicaChange, TopologyEvent};
use crate::config::{AddressMap, Endpoint};
use crate::error::{Error, Result, Status, flags, quoted};
use crate::log::{Head, lines};
use crate::meter::{End, Tells};
use crate::net::{Pause, Replication};
use crate::sys::random;
use crate::sys::rank::Rank;
use crate::sys::seam::{self, Seam};
use crate::sys::sync::{Condvar, Lock, Locked};
use crate::time::{Deadline, WriteLease};
use crate::worker::{self, Host};
use arc_swap::{ArcSwap, Guard};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The pause between two discoveries of a service, and the longest random addition.
const PAUSE: Duration = Duration::from_millis(50);
const JITTER_MS: u64 = 25;
/// While a replica is unfit, a snapshot of this age may be refreshed.
const STALE: Duration = Duration::from_secs(1);
/// Sentinels that disagree for this long are reported: after a failover they agree within a second or two.
const SPLIT: Duration = Duration::from_secs(3);

/// A primary that calls wait for and that answers nothing for this long is told to the log.
const HANG: Duration = Duration::from_millis(500);

/// How soon a discovery is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// A running discovery is enough.
    Lazy,
    /// Something may have changed: another one after the running one, with the usual pause.
    Soon,
    /// Something has happened: another one without a pause.
    Now,
}

/// Sentinels that disagree with the others.
#[derive(Default)]
pub(super) struct Dissent {
    /// Since when they disagree, and what they say.
    heard: Option<(Instant, String)>,
    told: bool,
}

impl Dissent {
    /// Notes what they say now; true once, when the disagreement has lasted longer than a failover explains.
    pub(super) fn note(&mut self, views: Option<&Views>) -> bool {
        let Some(views) = views else {
            *self = Self::default();
            return false;
        };
        let since = self.heard.take().map_or_else(Instant::now, |(since, _)| since);
        self.heard = Some((since, views.text.clone()));
        since.elapsed() >= SPLIT && !std::mem::replace(&mut self.told, true)
    }

    fn views(&self) -> Option<String> {
        self.heard.as_ref().map(|(_, views)| views.clone())
    }
}

/// A discovery that is requested.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) service: Weak<Service>,
    pub(super) number: u64,
    /// It does not start before this.
    pub(super) at: Instant,
    pub(super) urgency: Urgency,
}

/// Runs the discoveries of the services of a handle. The handle implements it: the driver stands above the services,
/// and they know only this trait.
pub(super) trait Driver: Send + Sync {
    /// Has the monitor watch the Sentinels of the handle from now on.
    fn watch(self: Arc<Self>);

    /// Runs a discovery on the thread of the monitor, or on a worker if there is none.
    fn run(self: Arc<Self>, wanted: Wanted) -> Result<()>;

    /// The discovery of this number has become more urgent: those that have not begun, or have not asked, make way.
    fn hurry(&self, wanted: Wanted);

    /// Runs a discovery on this thread.
    fn run_here(&self, service: &Arc<Service>, number: u64, until: Deadline);

    /// Has the monitor check all services.
    fn recheck(&self);
}

/// A service of the deployment.
pub struct Service {
    pub(super) name: String,
    pub(super) shared: Arc<Shared>,
    driver: Weak<dyn Driver>,
    snapshot: ArcSwap<Snapshot>,
    version: AtomicU64,
    /// The state of the fence, readable without a lock.
    pub(super) write_lease: Arc<WriteLease>,
    pub(super) failover_seq: AtomicU64,
    /// Which node's refusal of the credentials was told last, and under which settings.
    refusal_told: AtomicU64,
    state: Lock<DiscoveryState>,
    pub(super) waiters: Condvar,
    pub(super) following: Following,
    pub(super) pauses: Pauses,
    announced: Announced,
}

/// What the lock of a service protects: the course of its discoveries, and the failover.
#[derive(Default)]
pub(super) struct DiscoveryState {
    /// A discovery is running, or about to start.
    pub(super) running: bool,
    /// How urgent the running discovery is.
    urgency: Option<Urgency>,
    /// Another discovery is needed after the running one.
    pub(super) again: Option<Urgency>,
    /// The number of the last discovery that ended, with or without success.
    pub(super) finished: u64,
    /// When it ended, and its error.
    pub(super) last: Option<(Instant, Option<Error>)>,
    /// Discoveries up to this number began before something broke, and do not count.
    pub(super) outdated: u64,
    /// Discoveries after this number ask the primary for its role even if it is known, until one has done so.
    pub(super) unverified: Option<u64>,
    /// What broke; until a discovery has ended that began after that.
    pub(super) suspicion: Option<String>,
    /// The proposal that the polls agree on, and since when (rule 3).
    pub(super) proposed: Option<(Proposal, Instant)>,
    /// The deployment that was joined.
    pub(super) membership: Membership,
    pub(super) dissent: Dissent,
    /// Sentinels of another deployment.
    pub(super) strangers: Dissent,
    /// When a majority of all Sentinels last named the primary.
    pub(super) confirmed: Option<Instant>,
    pub(super) failover: Failover,
    pub(super) toll: Toll,
    /// Since when writes are held back, as it was told.
    pub(super) shut: Option<Instant>,
}

impl DiscoveryState {
    /// Whether the last discovery failed although Sentinels answered, or the Sentinels disagree: the next one may
    /// succeed soon.
    fn is_unsettled(&self) -> bool {
        let failed = self.last.as_ref().and_then(|(_, error)| error.as_ref());
        // Whether the disagreement lasts is known within seconds.
        let disagree = [&self.dissent, &self.strangers].iter().any(|noted| noted.heard.is_some() && !noted.told);
        disagree || failed.is_some_and(|error| error.status() != Status::NoSentinel)
    }
}

/// What determines the next poll of a service.
pub(super) struct PollFacts {
    /// The number of the last discovery that ended, with or without success.
    pub(super) discovered: u64,
    /// A discovery is running.
    pub(super) running: bool,
    /// A failover is under way, or was recently.
    pub(super) polls_fast: bool,
    /// The last discovery failed although Sentinels answered, or the Sentinels disagree.
    pub(super) unsettled: bool,
    /// Set if no Sentinel that answered knows the service: whether it was known before.
    pub(super) unknown: Option<bool>,
}

impl Service {
    pub(super) fn new(name: &str, shared: Arc<Shared>, driver: Weak<dyn Driver>) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            shared,
            driver,
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            version: AtomicU64::new(0),
            write_lease: Arc::default(),
            failover_seq: AtomicU64::new(0),
            refusal_told: AtomicU64::new(0),
            state: Lock::new(Rank::Discovery, DiscoveryState::default()),
            waiters: Condvar::new(),
            following: Following::new(),
            pauses: Pauses::default(),
            announced: Announced::default(),
        })
    }

    /// What its servers say of their commands.
    pub(crate) fn announced(&self) -> &Announced {
        &self.announced
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its nodes are learned from.
    pub fn source(&self) -> Source {
        self.shared.source()
    }

    /// The current snapshot, to keep.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The current snapshot, for a short look.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// The version of the snapshot: cheap to compare on every call. A caller that sees a new version also sees its
    /// snapshot.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The number of the last discovery that ended, with or without success.
    pub fn discovered(&self) -> u64 {
        self.state().finished
    }

    /// Whether this Sentinel was found to be of another deployment.
    pub(super) fn is_stranger(&self, who: &Speaker) -> bool {
        self.state().membership.is_stranger(who)
    }

    /// What determines the next poll.
    pub(super) fn poll_facts(&self, now: Instant) -> PollFacts {
        let state = self.state();
        let failed = state.last.as_ref().and_then(|(_, error)| error.as_ref());
        let is_unknown = failed.is_some_and(|error| error.status() == Status::UnknownService);
        PollFacts {
            discovered: state.finished,
            running: state.running,
            polls_fast: state.failover.polls_fast(now),
            unsettled: state.is_unsettled(),
            unknown: is_unknown.then(|| self.load().primary_announced.is_some()),
        }
    }

    /// Marks the service as unused: its next user waits for a new discovery.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        state.outdated = state.finished + u64::from(state.running);
        let before = self.snapshot();
        self.publish(Snapshot { version: before.version + 1, forgotten: true, ..(*before).clone() });
    }

    /// Whether it is marked as unused.
    pub(super) fn is_forgotten(&self) -> bool {
        self.load().forgotten
    }

    /// The last discovery's error, if it failed.
    pub fn last_error(&self) -> Option<Error> {
        self.state().last.as_ref().and_then(|(_, error)| error.clone())
    }

    /// What broke since the last discovery began, if anything did.
    pub fn suspicion(&self) -> Option<String> {
        self.state().suspicion.clone()
    }

    /// This node refuses the credentials. Told once for each node and version of the settings.
    pub fn tell_refusal(&self, endpoint: &Endpoint, text: String) {
        let mut hasher = DefaultHasher::new();
        (self.shared.config_version(), endpoint.to_string()).hash(&mut hasher);
        let told = hasher.finish();
        if self.refusal_told.swap(told, Ordering::Relaxed) != told {
            self.notice(Why::own(Cause::CredentialsRefused, text));
        }
    }

    /// A connection to this node failed or became READONLY: discoveries that began before now do not count.
    pub fn suspect(&self, endpoint: &Endpoint, why: &str) {
        let snapshot = self.load();
        let concerned = snapshot.primary.as_ref() == Some(endpoint)
            || snapshot.replicas.iter().any(|replica| replica.endpoint == *endpoint);
        if concerned {
            let mut state = self.state();
            state.outdated = state.finished + u64::from(state.running);
            state.suspicion = Some(format!("{endpoint}: {why}"));
            if snapshot.primary.as_ref() == Some(endpoint) {
                state.failover.unreachable = true;
                if state.toll.trouble(Instant::now()) {
                    // Once, until it serves again or another one does: not for each connection.
                    self.shared.log().write(lines::TROUBLE, &|out| {
                        out.text("service").text(&self.name).text("node").text(&endpoint.to_string());
                        out.text("reason").text(why);
                    });
                }
            }
        }
    }

    /// Looks whether calls wait for a primary that has answered nothing for [`HANG`], and tells the log once, and once when it is over.
    /// `late`: this process did not run either, and what it has not read yet may be answers.
    pub(super) fn look_at_silence(&self, now: Instant, late: bool) {
        let silent = self.shared.silent_since(&self.name);
        let long = silent.filter(|since| now.saturating_duration_since(*since) >= HANG);
        if long.is_none() && !self.state().toll.hangs() || late {
            return;
        }
        let heard = self.shared.heard_at(&self.name);
        let mut state = self.state();
        match long {
            None => self.tell_recovery(state.toll.answers(now, heard)),
            Some(since) if state.toll.silent(since) => self.tell_primary(lines::SILENT, "silent_ms", now - since),
            Some(_) => {}
        }
    }

    /// The primary serves again, after this time, if the log was told that it did not.
    pub(super) fn tell_recovery(&self, after: Option<Duration>) {
        after.into_iter().for_each(|after| self.tell_primary(lines::SERVES, "after_ms", after));
    }

    fn tell_primary(&self, head: Head, key: &str, time: Duration) {
        let node = self.load().primary.as_ref().map_or_else(String::new, Endpoint::to_string);
        self.shared.log().write(head, &|out| {
            out.text("service").text(&self.name).text("node").text(&node);
            out.text(key).int(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
        });
    }

    /// What failovers have cost it.
    pub(crate) fn figures(&self) -> ServiceFigures {
        self.state().toll.figures(&self.name, Instant::now())
    }

    /// Waits for a discovery with a number above `stale`, and starts it if necessary.
    pub fn discover(self: &Arc<Self>, stale: u64, deadline: Deadline) -> Result<Arc<Snapshot>> {
        self.discover_unless(stale, deadline, || false)
    }

    /// Waits for a discovery that starts now or later and asks the primary for its role.
    pub fn verify(self: &Arc<Self>, deadline: Deadline) -> Result<Arc<Snapshot>> {
        let mut state = self.state();
        let stale = state.finished + u64::from(state.running);
        state.unverified = Some(stale);
        drop(state);
        self.discover(stale, deadline)
    }

    /// Like [`Service::discover`], for a caller that may be closed meanwhile; it is woken by [`Service::wake`] then.
    pub fn discover_unless(
        self: &Arc<Self>,
        stale: u64,
        deadline: Deadline,
        is_closed: impl Fn() -> bool,
    ) -> Result<Arc<Snapshot>> {
        if let Some(driver) = self.driver.upgrade() {
            driver.watch();
        }
        let mut state = self.state();
        let mut stale = stale.max(state.outdated);
        let (version, mut has_waited) = (self.version(), false);
        loop {
            if self.shared.is_closed() {
                return Err(closed());
            }
            if self.version() != version {
                // The snapshot is newer than any running discovery: a candidate was taken at its word.
                return Ok(self.snapshot());
            }
            if has_waited && is_closed() {
                return Err(Error::new(Status::Closed, "closed while the primary was being looked for"));
            }
            if state.finished > stale {
                match &state.last {
                    Some((at, Some(error))) if has_waited || at.elapsed() < PAUSE => return Err(error.clone()),
                    // An old failure says nothing about now.
                    Some((_, Some(_))) => stale = state.finished,
                    _ => return Ok(self.snapshot()),
                }
            }
            if !state.running {
                if let Err(error) = self.start(&mut state, Urgency::Soon) {
                    state = self.discover_here(state, deadline, error)?;
                    has_waited = true;
                    continue;
                }
            } else {
                self.hurry(&mut state, Urgency::Soon);
            }
            if deadline.is_over() {
                return Err(self.timed_out(&state, deadline));
            }
            has_waited = true;
            state = match deadline.left() {
                Some(left) => self.waiters.wait_timeout(state, left),
                None => self.waiters.wait(state),
            };
        }
    }

    /// Runs a discovery on the caller's thread, because no other can be had.
    fn discover_here<'a>(
        self: &'a Arc<Self>,
        mut state: Locked<'a, DiscoveryState>,
        deadline: Deadline,
        error: Error,
    ) -> Result<Locked<'a, DiscoveryState>> {
        let Some(driver) = self.driver.upgrade().filter(|_| !deadline.is_over()) else { return Err(error) };
        (state.running, state.urgency) = (true, Some(Urgency::Now));
        let number = state.finished + 1;
        drop(state);
        driver.run_here(self, number, deadline);
        Ok(self.state())
    }

    /// Requests a discovery without waiting, if the last one is old: an unfit replica may be fit again, and nothing
    /// else would show it.
    pub fn freshen(self: &Arc<Self>) {
        if self.load().asked.is_some_and(|asked| asked.elapsed() < STALE) || self.shared.is_closed() {
            return;
        }
        let mut state = self.state();
        if !state.running && state.last.as_ref().is_none_or(|(at, _)| at.elapsed() >= STALE) {
            // Without a thread nothing changes, and the next read tries again.
            let _ = self.start(&mut state, Urgency::Lazy);
        }
    }

    /// An error of a discovery during the wait says more than a timeout; an older one says nothing about now.
    fn timed_out(&self, state: &DiscoveryState, deadline: Deadline) -> Error {
        let after = deadline.elapsed();
        let (name, ms) = (quoted(&self.name), after.as_millis());
        match &state.last {
            Some((at, Some(last))) if at.elapsed() <= after => {
                // It names the service, mostly.
                last.clone()
                    .in_service(format_args!("the primary is still being looked for (after {ms} ms)"), &self.name)
            }
            _ => {
                let snapshot = self.load();
                let text = match snapshot.primary.as_ref().filter(|_| state.suspicion.is_none()) {
                    Some(primary) if self.source() == Source::Fixed => format!(
                        "service {name}: the primary {primary} was still being asked for its role when the time was over (after {ms} ms)"
                    ),
                    Some(primary) => format!(
                        "service {name}: the Sentinels were still being asked when the time was over (after {ms} ms); the primary \
                         known before is {primary}"
                    ),
                    None => format!("the primary of service {name} is still being looked for (after {ms} ms)"),
                };
                Error::new(Status::Timeout, text).with_flags(flags::RETRYABLE)
            }
        }
    }

    /// The pause that all connections to a node in this role share.
    pub fn pause_of(&self, endpoint: &Endpoint, as_primary: bool) -> Arc<Pause> {
        self.pauses.of(endpoint, as_primary, &self.shared.settings().client.retry)
    }

    /// How long to wait before another attempt: the pause of the primary, or `own` if it has none.
    pub fn pause(&self, own: Duration) -> Duration {
        self.pauses.left().unwrap_or(own)
    }

    /// How many times all pauses were ended.
    pub fn pauses_ended(&self) -> u64 {
        self.pauses.ended()
    }

    /// Ends all pauses: callers that wait for another attempt make it now.
    pub(super) fn end_pauses(&self) {
        self.pauses.end();
        self.waiters.notify_all();
    }

    /// The options have changed: failures under the old ones do not count.
    pub(super) fn reconfigured(&self) {
        let mut state = self.state();
        state.outdated = state.finished + u64::from(state.running);
        drop(state);
        self.end_pauses();
    }

    /// Waits for `pause`, but only until the topology changes from this version, the pauses are ended, or `stop` is
    /// true after a wake-up.
    pub fn wait_for_change(&self, pause: Duration, version: u64, stop: impl Fn() -> bool) {
        let end = Instant::now() + pause;
        let mut state = self.state();
        let ended = self.pauses.ended();
        while self.version() == version && self.pauses.ended() == ended && !stop() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.waiters.wait_timeout(state, left);
        }
    }

    /// Whether a result is still of use: not if the handle was closed, or was dropped with all its clients.
    pub(super) fn is_wanted(&self) -> bool {
        !self.shared.is_closed() && self.driver.strong_count() > 0
    }

    /// Has the monitor check all services.
    pub(super) fn recheck(&self) {
        if let Some(driver) = self.driver.upgrade() {
            driver.recheck();
        }
    }

    /// Requests a discovery without waiting.
    pub(crate) fn request_discovery(self: &Arc<Self>, urgency: Urgency) {
        let mut state = self.state();
        if !state.running {
            // Without a thread this request is lost, and the next poll tries again.
            let _ = self.start(&mut state, urgency);
        } else if urgency > Urgency::Lazy {
            state.again = state.again.max(Some(urgency));
            self.hurry(&mut state, urgency);
        }
    }

    /// Has the discovery under way go before less urgent ones: with many services it may not even have begun.
    fn hurry(self: &Arc<Self>, state: &mut DiscoveryState, urgency: Urgency) {
        if state.urgency < Some(urgency) {
            state.urgency = Some(urgency);
            let (service, number) = (Arc::downgrade(self), state.finished + 1);
            let wanted = Wanted { service, number, at: Instant::now(), urgency };
            self.driver.upgrade().iter().for_each(|driver| driver.hurry(wanted.clone()));
        }
    }

    /// Starts a discovery, after the pause since the last one.
    pub(super) fn start(self: &Arc<Self>, state: &mut DiscoveryState, urgency: Urgency) -> Result<()> {
        let number = state.finished + 1;
        let pause = PAUSE + Duration::from_millis(random::rng().u64(0..=JITTER_MS));
        let delay = state.last.as_ref().map_or(Duration::ZERO, |(at, _)| pause.saturating_sub(at.elapsed()));
        let delay = if urgency == Urgency::Now { Duration::ZERO } else { delay };
        let wanted = Wanted { service: Arc::downgrade(self), number, at: Instant::now() + delay, urgency };
        self.driver.upgrade().ok_or_else(closed)?.run(wanted)?;
        (state.running, state.urgency) = (true, Some(urgency));
        Ok(())
    }

    /// The key by which dials of this service are kept apart from those of other services.
    pub(super) fn host(&self) -> Host {
        Host::of(std::ptr::from_ref(self).addr())
    }

    /// The error if no thread can be had for a discovery.
    pub(super) fn no_thread(&self) -> Error {
        let what = format!("no thread to look for the primary of service {}", quoted(&self.name));
        Error::new(Status::Io, what).with_flags(flags::RETRYABLE)
    }

    pub(super) fn known(&self) -> Known {
        let snapshot = self.load();
        let state = self.state();
        Known {
            primary: snapshot.primary_announced.clone(),
            epoch: snapshot.epoch,
            replicas: snapshot.replicas.iter().map(|replica| replica.announced.clone()).collect(),
            proposed: state.proposed.as_ref().map(|(proposal, since)| (proposal.clone(), since.elapsed())),
            provisional: state.failover.provisional.is_some(),
            trusted: state.suspicion.is_none() && state.unverified.is_none() && matches!(state.last, Some((_, None))),
            membership: state.membership.clone(),
        }
    }

    /// What the Sentinels name, while they disagree.
    pub fn split_view(&self) -> Option<String> {
        self.state().dissent.views()
    }

    /// Whether Sentinels of another deployment answer, which are not believed.
    pub fn hears_strangers(&self) -> bool {
        self.state().strangers.views().is_some()
    }

    /// Reports something that does not change the primary.
    pub(super) fn notice(&self, why: Why) {
        self.shared.tell(self.noticed(why));
    }

    fn noticed(&self, why: Why) -> TopologyEvent {
        let (service, snapshot) = (self.name.clone(), self.snapshot());
        let (primary, epoch) = (snapshot.primary.clone(), snapshot.epoch);
        TopologyEvent::Notice(Notice { service, primary, why, epoch })
    }

    /// What is to be told of files of TLS that have changed and are no use.
    pub(super) fn about_certificates(&self) -> Vec<TopologyEvent> {
        let kept = |text| Why::own(Cause::CertificatesKept, format!("what was read before stays in use: {text}"));
        self.shared.useless_certificates().map(|text| self.noticed(kept(text))).collect()
    }

    /// Whether this node was the primary before the last switch.
    pub(super) fn was_left(&self, primary: Option<&Endpoint>) -> bool {
        let is_current = self.load().primary_announced.as_ref() == primary;
        primary.is_some() && !is_current && self.state().failover.previous.as_ref() == primary
    }

    /// The version is stored last: a reader that sees it sees the snapshot.
    pub(super) fn publish(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        let snapshot = Arc::new(snapshot);
        self.snapshot.store(Arc::clone(&snapshot));
        seam::pass(Seam::SnapshotStored, self);
        self.version.store(snapshot.version, Ordering::Release);
        snapshot
    }

    /// Applies a changed address.map.
    pub(super) fn remap(&self, map: &AddressMap) {
        let _flight = self.state();
        let before = self.snapshot();
        let mut snapshot = before.mapped(map);
        snapshot.version = before.version + u64::from(snapshot.matters(&before));
        self.publish(snapshot);
    }

    /// What a replica, by the address where it is dialled, is weighed by. `is_last_resort`: the caller has no better
    /// replica.
    pub fn line_of(&self, replica: &Endpoint, is_last_resort: bool) -> Line {
        let snapshot = self.load();
        let listed = snapshot.replicas.iter().find(|view| view.endpoint == *replica);
        let state = self.state();
        let failover = &state.failover;
        let in_grace = failover.in_grace(Instant::now());
        let candidate = failover.says_primary.as_ref().map(|announced| (announced.clone(), self.dialled(announced)));
        let previous = failover.previous.as_ref().filter(|_| in_grace);
        let leaders = snapshot.primary_announced.iter().chain(&snapshot.primary).cloned();
        let leaders = leaders.chain(candidate.into_iter().flat_map(|(announced, dialled)| [announced, dialled]));
        let leaders = leaders.chain(previous.into_iter().flat_map(|old| [old.clone(), self.dialled(old)])).collect();
        let in_grace =
            is_last_resort || in_grace || failover.unreachable || listed.is_some_and(|view| view.unfit_by_link);
        drop(state);
        let (id, older) = self.following.ids(snapshot.primary_announced.as_ref());
        let listed = listed.map(|view| (view.follows.clone(), view.link_ok));
        Line { leaders, id, older, in_grace, listed, source: self.source() }
    }

    fn dialled(&self, announced: &Endpoint) -> Endpoint {
        self.shared.settings().client.address_map.apply(announced)
    }

    /// Notes the replication id of the primary.
    pub fn learn_lineage(&self, primary: &Endpoint, told: &Replication) {
        self.following.learn(primary, told);
    }

    /// Notes the result of weighing a replica, and reports what is new in it.
    pub fn note_weighed(&self, replica: &Endpoint, weighed: &Weighed) {
        let tell = |node: &Endpoint, fit, why| self.tell_replica(node, fit, why);
        self.following.note_weighed(replica, weighed, &self.snapshot, &tell);
    }

    pub(super) fn tell_replica(&self, replica: &Endpoint, fit: Option<bool>, why: Why) {
        let (service, replica) = (self.name.clone(), replica.to_string());
        self.shared.tell(TopologyEvent::Replica(ReplicaChange { service, replica, fit, why }));
    }

    /// The current snapshot for people, including why replicas are unfit by their own word.
    pub(super) fn shown(&self) -> Snapshot {
        let mut shown = (**self.load()).clone();
        for replica in shown.replicas.iter_mut().filter(|replica| replica.unfit.is_none()) {
            replica.unfit = self.objection_to(&replica.endpoint);
        }
        shown
    }

    /// Why a replica was unfit when it was last weighed.
    pub fn objection_to(&self, replica: &Endpoint) -> Option<Why> {
        self.following.objection_to(replica)
    }

    /// Whether links and lag count as they were before, because the primary is down, being replaced, or new (rule 32).
    pub fn in_grace(&self) -> bool {
        self.state().failover.in_grace(Instant::now())
    }

    /// Wakes all callers that wait, because a handle was closed: each checks whether it was its own.
    pub fn wake(&self) {
        drop(self.state());
        self.waiters.notify_all();
    }

    /// Whether the lock is held.
    #[cfg(test)]
    pub(super) fn is_locked(&self) -> bool {
        self.state.is_locked()
    }

    /// A panic under this lock leaves no inconsistent state.
    pub(super) fn state(&self) -> Locked<'_, DiscoveryState> {
        self.state.lock()
    }
}

impl Tells for Service {
    fn connection(&self, node: &str, role: &'static str, closed: Option<(End, Duration)>) {
        if closed.is_none() {
            // Opening it has shown whether files have changed.
            for notice in self.about_certificates() {
                let shared = Arc::clone(&self.shared);
                let _ = worker::run(move || shared.tell(notice));
            }
        }
        self.shared.post(|| ConnectionChange {
            service: self.name.clone(),
            node: node.to_owned(),
            role,
            end: closed.map(|(end, _)| end),
            age: closed.map_or(Duration::ZERO, |(_, age)| age),
        });
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service({}, {:?})", self.name, self.load().primary)
    }
}
