//! What the monitor does for one handle: it listens to each Sentinel, acts on their events, polls the services, and
//! runs the inquiries about a fence.
//!
//! Guarantees: never waits for a Sentinel; listens to every Sentinel, because the leader of a failover announces the
//! switch last, and only the leader announces the steps before; polls in case an event is missed; applies jitter
//! everywhere. Leaves to others: the thread (monitor), what follows for a service (transition), asking and judging
//! (running, discovery).

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::cause::{Cause, Why};
use super::command::LinkKey;
use super::events::{EventKind, SentinelEvent, advice};
use super::identity::Speaker;
use super::inquiry::{Inquiry, Subject};
use super::listener::Listener;
use super::overhear::{self, Crowd, Overhear};
use super::probe::Probe;
use super::recent::RecentEvents;
use super::sentinel::Sentinel;
use super::service::{PollFacts, Service, Urgency};
use super::subscription::Change;
use super::subscriptions::Subscriptions;
use super::transition::about_candidate;
use super::watch::{ReplicaChange, SentinelChange, TopologyEvent};
use crate::config::{Endpoint, LogLevel, MonitorMode, Settings};
use crate::error::Status;
use crate::log::lines;
use crate::net::LinkOptions;
use crate::sys::poll::PollFd;
use crate::sys::random;
use crate::sys::waker::Waker;

/// The longest sleep: nothing wakes the thread when the list of Sentinels changes.
pub(super) const NAP: Duration = Duration::from_millis(500);
/// The interval of polls during a failover, and while the old primary is expected to come back.
const FAST_POLL: Duration = Duration::from_secs(1);
/// How long a service is polled after its last use; also the longest pause between questions for a service that no
/// Sentinel knows.
const KEPT: Duration = Duration::from_secs(60);
/// The shortest and the longest interval between two checks of all services; it is the share [`SPREAD`] of the interval of
/// polls.
const ROUND: (Duration, Duration) = (Duration::from_millis(5), NAP);
/// The longest one while a service is polled fast.
const FAST_ROUND: Duration = Duration::from_millis(100);
/// A poll may come before its time by this share of its interval, because polls that begin together cost less.
const SPREAD: u32 = 20;
/// With fewer services than this, their first polls are spread over only a part of the interval.
const FEW: f64 = 50.0;

/// The state of one handle.
pub(super) struct HandleState {
    pub(super) sentinel: Weak<Sentinel>,
    configured: u64,
    options: Option<Arc<LinkOptions>>,
    listeners: Vec<Listener>,
    /// The list of Sentinels, by the number of its changes, that the listeners were placed for.
    placed: Option<u64>,
    services: HashMap<String, ServiceState>,
    /// Connections to Sentinels that are asked because the user may not hear their events.
    overhear: HashMap<Endpoint, Overhear>,
    recent: RecentEvents,
    /// After a panic: nothing is done before this.
    rests_until: Option<Instant>,
    /// When all services are checked next; until then only the busy ones are.
    round_at: Instant,
    /// The number of such checks.
    rounds: u64,
    /// When it was last looked whether primaries are silent.
    looked_at: Instant,
    /// Services with something to do: each of those with a probe or an inquiry is among them.
    busy: Vec<String>,
}

/// The state of one service.
struct ServiceState {
    next_poll: Instant,
    /// The last check of all services in which it was there.
    seen_in: u64,
    /// Since when it has had no user.
    unused: Option<Instant>,
    /// For a service that no Sentinel knows: the pause until the next question, and the number of discoveries at that
    /// time.
    unknown: Option<(Duration, u64)>,
    probe: Option<Box<Probe>>,
    inquiry: Option<Box<Inquiry>>,
}

/// What a look at one service has shown.
struct PollTurn {
    /// When its next poll is due.
    next: Instant,
    /// A probe or an inquiry is under way.
    works: bool,
    /// It is polled no faster than all are.
    is_calm: bool,
}

impl ServiceState {
    /// Whether it is polled: while a client, a call or a watch uses it, and for some time after that.
    fn is_in_use(&mut self, service: &Arc<Service>, seen: &PollFacts, is_watched: bool, now: Instant) -> bool {
        // These references are not users: that of the list of services, that of the caller, and that of a discovery under
        // way, which a poll may have begun.
        let idle = 2 + usize::from(seen.running);
        if Arc::strong_count(service) > idle || is_watched || seen.polls_fast {
            let was_forgotten = self.unused.take().is_some() && service.is_forgotten();
            self.next_poll = if was_forgotten { now } else { self.next_poll };
            return true;
        }
        let since = *self.unused.get_or_insert(now);
        let is_over = now.saturating_duration_since(since) >= KEPT && !seen.running;
        if is_over && !service.is_forgotten() {
            service.forget();
        }
        !is_over
    }

    /// The interval until the next poll.
    fn pace(&mut self, seen: &PollFacts, interval: Duration) -> Duration {
        let Some(was_known) = seen.unknown else {
            self.unknown = None;
            return if seen.polls_fast || seen.unsettled { interval.min(FAST_POLL) } else { interval };
        };
        let (pause, before) = self.unknown.unwrap_or((FAST_POLL, seen.discovered));
        let pause = match seen.discovered - before {
            _ if was_known => FAST_POLL,
            0 => pause,
            1 => (pause * 2).min(KEPT),
            // A call or an event has caused a discovery meanwhile.
            _ => FAST_POLL,
        };
        self.unknown = Some((pause, seen.discovered));
        pause
    }
}

impl HandleState {
    pub(super) fn new(sentinel: Weak<Sentinel>) -> Self {
        let (listeners, services, overhear, recent) =
            (Vec::new(), HashMap::new(), HashMap::new(), RecentEvents::default());
        let (round_at, rounds, busy) = (Instant::now(), 0, Vec::new());
        let looked_at = round_at;
        let (rests_until, options, placed) = (None, None, None);
        Self {
            sentinel,
            configured: 0,
            options,
            listeners,
            placed,
            services,
            overhear,
            recent,
            rests_until,
            round_at,
            rounds,
            looked_at,
            busy,
        }
    }

    pub(super) fn restart(&mut self) -> Instant {
        let until = Instant::now() + Duration::from_secs(1);
        *self = Self { rests_until: Some(until), ..Self::new(self.sentinel.clone()) };
        until
    }

    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd> {
        // Not all services: there may be hundreds, and this is done for each message of a Sentinel.
        let busy = || self.busy.iter().filter_map(|name| self.services.get(name));
        let probes = busy().filter_map(|service_state| service_state.probe.as_deref()).flat_map(Probe::poll_fds);
        let inquiries = busy().filter_map(|service_state| service_state.inquiry.as_deref());
        let overhear = self.overhear.values().flat_map(Overhear::poll_fds);
        overhear.chain(probes).chain(inquiries.flat_map(Inquiry::poll_fds))
    }

    fn rests(&self) -> Option<Instant> {
        self.rests_until.filter(|until| Instant::now() < *until)
    }

    /// Takes changed settings, and says which subscriptions it uses.
    pub(super) fn subscribe(&mut self, all: &mut Subscriptions) {
        let Some(sentinel) = self.sentinel.upgrade().filter(|_| self.rests().is_none()) else { return };
        // The version first: a change in between is found the next time.
        let version = sentinel.config_version();
        let settings = sentinel.settings();
        if self.configured != version || self.options.is_none() {
            self.configured = version;
            self.options = Some(Arc::new(LinkOptions::of_sentinel(&settings.sentinel)));
            self.overhear.clear();
            self.placed = None;
            self.services.values_mut().for_each(|service_state| service_state.inquiry = None);
        }
        match settings.sentinel.monitor.mode {
            MonitorMode::On => self.place_listeners(&sentinel, all),
            MonitorMode::Disconnect | MonitorMode::Off => {
                self.listeners.clear();
                self.placed = None;
            }
        }
    }

    /// Does what can be done without waiting; when to come back even if nothing happens.
    pub(super) fn drive(&mut self, waker: &Arc<Waker>, crowd: &Crowd, recheck: bool) -> Instant {
        let far = Instant::now() + NAP;
        let Some(sentinel) = self.sentinel.upgrade() else { return far };
        if let Some(until) = self.rests() {
            return until;
        }
        self.listen(&sentinel);
        self.overhear(&sentinel, waker, crowd);
        if recheck {
            self.round_at = Instant::now();
        }
        let wake = self.drive_services(&sentinel, waker).min(far);
        self.overhear.values().filter_map(Overhear::wakes_at).fold(wake, Instant::min)
    }

    /// Adds the services of this handle to the count at each Sentinel that is asked because its events may not be
    /// heard.
    pub(super) fn count_deaf(&self, crowd: &mut Crowd) {
        let services = u32::try_from(self.services.len()).unwrap_or(u32::MAX);
        for listener in self.listeners.iter().filter(|one| one.deaf().is_some()) {
            let count = crowd.entry(listener.endpoint().clone()).or_default();
            *count = count.saturating_add(services);
        }
    }

    /// Asks the Sentinels whose events may not be heard.
    fn overhear(&mut self, sentinel: &Sentinel, waker: &Arc<Waker>, crowd: &Crowd) {
        let Some(options) = &self.options else { return };
        let deaf: Vec<(&Listener, String)> = self.listeners.iter().filter_map(|one| Some((one, one.deaf()?))).collect();
        self.overhear.retain(|announced, _| deaf.iter().any(|(listener, _)| listener.announced == *announced));
        if deaf.is_empty() {
            return;
        }
        // Including services that were not found yet: nothing wakes this thread when they are.
        let services: Vec<String> = sentinel.all().iter().map(|one| one.name().to_owned()).collect();
        for (listener, why) in deaf.into_iter().filter(|_| !services.is_empty()) {
            let new = || Overhear::new(listener.endpoint().clone(), Arc::clone(options));
            let overhear = self.overhear.entry(listener.announced.clone()).or_insert_with(new);
            let crowd = crowd.get(listener.endpoint()).copied().unwrap_or_default();
            let every = overhear::pace(crowd);
            if overhear.told.replace(every) != Some(every) {
                let text = format!("{why}; it is asked every {} ms instead", every.as_millis());
                sentinel.shared().note_deaf(listener.endpoint(), Some(&text));
            }
            for overheard in overhear.drive(&services, crowd, waker) {
                if let Some(service) = sentinel.known_service(&overheard.service) {
                    service.overhear(&listener.speaker(), overheard.named.as_ref(), overheard.shown.as_ref());
                }
            }
        }
    }

    /// Keeps one listener for each known Sentinel.
    fn place_listeners(&mut self, sentinel: &Sentinel, all: &mut Subscriptions) {
        let list = sentinel.shared().list();
        // The number first: a change in between is found the next time.
        let changes = list.changes();
        let Some(options) = self.options.as_ref().filter(|_| self.placed != Some(changes)) else { return };
        self.placed = Some(changes);
        let (settings, members) = (sentinel.settings(), list.members());
        let timeout = settings.sentinel.timeout;
        self.listeners.retain(|one| {
            let leads = |endpoint| settings.sentinel.address_map.apply(endpoint) == *one.endpoint();
            let stays = members.iter().any(|member| member.endpoint == one.announced && leads(&member.endpoint));
            if !stays {
                sentinel.shared().note_deaf(one.endpoint(), None);
            }
            stays
        });
        for member in members {
            let endpoint = settings.sentinel.address_map.apply(&member.endpoint);
            let is_same = |one: &&mut Listener| one.announced == member.endpoint || *one.endpoint() == endpoint;
            if let Some(listener) = self.listeners.iter_mut().find(is_same) {
                listener.use_options(all, options, timeout);
                continue;
            }
            let subscription = all.get(&endpoint, options, timeout);
            self.listeners.push(Listener::new(member.endpoint, endpoint, subscription));
        }
    }

    fn listen(&mut self, sentinel: &Sentinel) {
        let mut heard = Vec::new();
        let mut last_words = None;
        let mut came_up = false;
        for listener in &mut self.listeners {
            let change = listener.hear(&mut heard);
            let Some(change) = change else { continue };
            let is_moved = matches!(change, Change::Moved);
            let (up, why) = match change {
                Change::Up | Change::Moved => {
                    let deaf = listener.deaf();
                    sentinel.shared().note_deaf(listener.endpoint(), deaf.as_deref());
                    if let Some(overhear) = self.overhear.get_mut(&listener.announced) {
                        overhear.told = None;
                    }
                    let refused = |why| Why::own(Cause::EventsRefused, format!("events: {why}"));
                    (true, deaf.map_or_else(|| Why::word(Cause::Listening), refused))
                }
                Change::Down(error) => {
                    let cause = if error.status() == Status::Auth { Cause::Refused } else { Cause::Lost };
                    (false, Why::own(cause, error.message()))
                }
            };
            came_up |= up;
            if is_moved {
                continue;
            }
            let name = listener.endpoint().to_string();
            sentinel.shared().tell(TopologyEvent::Sentinel(SentinelChange::of(name, Some(up), why.clone())));
            last_words = Some(why);
        }
        sentinel.shared().note_listening(self.listeners.iter().filter(|one| one.is_listening()).count());
        if let Some(why) = last_words {
            sentinel.shared().set_degraded(self.listeners.iter().all(Listener::is_lost), &why);
        }
        for (from, event) in heard {
            self.act(sentinel, &from, &event);
        }
        if came_up {
            // Events may have been missed before; the flags show what happened (rule 5).
            sentinel.all().iter().for_each(|service| service.request_discovery(Urgency::Soon));
        }
    }

    /// Acts on an event about one of the services, unless the Sentinel is of another deployment.
    fn act(&mut self, sentinel: &Sentinel, from: &Speaker, event: &SentinelEvent) {
        let Some(service) = sentinel.known_service(&event.service).filter(|service| !service.is_stranger(from)) else {
            return;
        };
        self.make_busy(&event.service);
        if event.is_change_of_nodes() {
            service.end_pauses();
            sentinel.shared().changed(service.name());
        }
        match &event.kind {
            EventKind::FailoverBegins => service.raise_fence(from, event.primary.as_ref(), &event.channel, true),
            EventKind::FailoverGoesOn => service.raise_fence(from, event.primary.as_ref(), &event.channel, false),
            EventKind::Selected(candidate) => {
                service.raise_fence(from, event.primary.as_ref(), &event.channel, false);
                self.question(sentinel, &service, candidate);
            }
            EventKind::Promoted(candidate) => {
                service.raise_fence(from, event.primary.as_ref(), &event.channel, false);
                self.question(sentinel, &service, candidate);
                service.candidate_is_promoted(event.primary.as_ref(), candidate, &event.channel);
                service.request_discovery(Urgency::Now);
            }
            EventKind::Aborted => {
                service.release_fence(from, &event.channel);
                let interval = sentinel.settings().sentinel.monitor.interval;
                self.service_state(&event.service, interval).probe = None;
                service.request_discovery(Urgency::Now);
            }
            EventKind::Switched(..) => service.request_discovery(Urgency::Now),
            EventKind::PrimaryDown(down) => {
                match event.channel.ends_with("odown") {
                    true => service.note_down(from, event.primary.as_ref(), *down),
                    false => service.note_missed(from, event.primary.as_ref(), *down),
                }
                service.request_discovery(if *down { Urgency::Now } else { Urgency::Soon });
            }
            EventKind::Replica | EventKind::Peers | EventKind::Other => service.request_discovery(Urgency::Soon),
        }
        self.tell(sentinel, &service, &from.announced, event);
    }

    /// Starts to probe a candidate, unless it is being probed.
    fn question(&mut self, sentinel: &Sentinel, service: &Service, candidate: &Endpoint) {
        if service.load().primary_announced.as_ref() == Some(candidate) {
            return;
        }
        let settings = sentinel.settings();
        let service_state = self.service_state(service.name(), settings.sentinel.monitor.interval);
        if service_state.probe.as_ref().is_none_or(|probe| probe.announced != *candidate) {
            service_state.probe = Some(Box::new(Probe::candidate(candidate.clone(), &settings.client)));
            sentinel.shared().log().write(lines::PROBE, &|out| about_candidate(out, service, candidate));
        }
    }

    /// The first poll of a service comes at once; the more services there are, the further their first polls are spread
    /// over the interval.
    fn service_state(&mut self, service: &str, interval: Duration) -> &mut ServiceState {
        let spread = u32::try_from(self.services.len()).map_or(1.0, |others| (f64::from(others) / FEW).min(1.0));
        let next_poll = || Instant::now() + interval.mul_f64(random::rng().f64() * spread);
        let seen_in = self.rounds;
        let new = || ServiceState {
            next_poll: next_poll(),
            seen_in,
            unused: None,
            unknown: None,
            probe: None,
            inquiry: None,
        };
        self.services.entry(service.to_owned()).or_insert_with(new)
    }

    /// Reports an event, once for all Sentinels that announce it.
    fn tell(&mut self, sentinel: &Sentinel, service: &Service, from: &Endpoint, event: &SentinelEvent) {
        let level = if advice(&event.channel).is_some() { LogLevel::Warning } else { LogLevel::Info };
        if !sentinel.shared().tells_mentions(level) || !self.recent.is_new(Instant::now(), from, event) {
            return;
        }
        let why = Why::said(&event.channel, &*event.channel);
        let event = match &event.kind {
            EventKind::Switched(..) => return,
            EventKind::Replica | EventKind::Selected(_) | EventKind::Promoted(_) => {
                let (service, replica) = (event.service.clone(), event.about.clone());
                TopologyEvent::Replica(ReplicaChange { service, replica, fit: None, why })
            }
            EventKind::Peers => TopologyEvent::Sentinel(SentinelChange::of(event.about.clone(), None, why)),
            // A late event about a former primary.
            _ if service.was_left(event.primary.as_ref()) => return,
            _ => {
                let of = event.primary.as_ref().map(|primary| format!(" of {primary}")).unwrap_or_default();
                let advice = advice(&event.channel).map(|advice| format!(": {advice}")).unwrap_or_default();
                return service.notice(Why::said(&event.channel, format!("said by {from}{of}{advice}")));
            }
        };
        sentinel.shared().tell(event);
    }

    /// Discoveries of these services have ended; some of them may be of this handle.
    pub(super) fn note_finished(&mut self, services: &[Arc<Service>]) {
        let Some(sentinel) = self.sentinel.upgrade() else { return };
        for service in services.iter().filter(|service| Arc::ptr_eq(sentinel.shared(), &service.shared)) {
            self.make_busy(service.name());
        }
    }

    /// Has a service checked each time, as long as there is something to do for it.
    fn make_busy(&mut self, service: &str) {
        if !self.busy.iter().any(|busy| busy == service) {
            self.busy.push(service.to_owned());
        }
    }

    /// Runs polls, probes and fences that are due: of all services from time to time, of the busy ones each time.
    fn drive_services(&mut self, sentinel: &Sentinel, waker: &Arc<Waker>) -> Instant {
        let now = Instant::now();
        let is_round = now >= self.round_at;
        let (settings, is_watched) = (sentinel.settings(), sentinel.shared().is_watched());
        let round = (settings.sentinel.monitor.interval / SPREAD).clamp(ROUND.0, ROUND.1);
        let ahead = if is_round { round } else { Duration::ZERO };
        let (mut next_round, mut wake) = if is_round { (now + NAP, now + NAP) } else { (self.round_at, self.round_at) };
        let services = match is_round {
            true => sentinel.all(),
            false => self.busy.iter().filter_map(|name| sentinel.known_service(name)).collect(),
        };
        self.rounds += u64::from(is_round);
        if now.saturating_duration_since(self.looked_at) >= NAP / 2 {
            let late = now.saturating_duration_since(self.looked_at) >= 2 * NAP;
            self.looked_at = now;
            sentinel.all().iter().for_each(|service| service.look_at_silence(now, late));
        }
        self.busy.clear();
        let mut is_calm = true;
        for service in &services {
            let seen = service.poll_facts(now);
            if let Some(service_state) = self.services.get_mut(service.name()) {
                service_state.seen_in = self.rounds;
            }
            // A service that was never used is not polled.
            if seen.discovered == 0 {
                continue;
            }
            let turn = self.poll(service, &seen, &settings, is_watched, now, ahead);
            next_round = next_round.min(turn.next);
            is_calm &= turn.is_calm;
            if service.is_forgotten() {
                sentinel.drop_unknown(service);
            }
            if turn.works || seen.polls_fast {
                let (then, is_busy) = self.drive_failover(sentinel, service, now, waker);
                wake = then.map_or(wake, |then| then.min(wake));
                if is_busy {
                    self.make_busy(service.name());
                }
            }
        }
        if is_round {
            self.services.retain(|_, service_state| service_state.seen_in == self.rounds);
        }
        let round = if is_calm { round } else { round.min(FAST_ROUND) };
        let next_round = next_round.max(now + round);
        if is_round {
            self.round_at = next_round;
        } else if !is_calm {
            self.round_at = self.round_at.min(next_round);
        }
        wake.min(self.round_at)
    }

    /// Polls a service if that is due, or will be within `ahead`.
    fn poll(
        &mut self,
        service: &Arc<Service>,
        seen: &PollFacts,
        settings: &Settings,
        is_watched: bool,
        now: Instant,
        ahead: Duration,
    ) -> PollTurn {
        let interval = settings.sentinel.monitor.interval;
        let service_state = self.service_state(service.name(), interval);
        if !service_state.is_in_use(service, seen, is_watched, now) {
            return PollTurn { next: now + NAP, works: false, is_calm: true };
        }
        let pace = service_state.pace(seen, interval);
        if now + ahead.min(pace / SPREAD) >= service_state.next_poll {
            service.request_discovery(Urgency::Lazy);
            // Jitter only shortens the interval: users rely on it.
            service_state.next_poll = now + pace.mul_f64(0.9 + random::rng().f64() / 10.0);
        } else {
            service_state.next_poll = service_state.next_poll.min(now + pace);
        }
        PollTurn {
            next: service_state.next_poll,
            works: service_state.probe.is_some() || service_state.inquiry.is_some(),
            is_calm: pace >= interval,
        }
    }

    /// Drives the probe and the inquiry of a failover; when to come back, and whether the service stays busy.
    fn drive_failover(
        &mut self,
        sentinel: &Sentinel,
        service: &Arc<Service>,
        now: Instant,
        waker: &Arc<Waker>,
    ) -> (Option<Instant>, bool) {
        let settings = sentinel.settings();
        let (interval, fence_max) = (settings.sentinel.monitor.interval, settings.sentinel.failover.fence_max);
        let service_state = self.service_state(service.name(), interval);
        let mut probes = None;
        if let Some(probe) = &mut service_state.probe {
            match probe.drive(waker) {
                Some((_, true)) => service.candidate_is_primary(&probe.announced),
                Some((asked, false)) => service.candidate_is_replica(&probe.announced, asked),
                None => {}
            }
            probes = probe.wakes_at();
        }
        // The probe is no longer needed: the candidate is the primary, or did not become one in time.
        let primary = service.load().primary_announced.clone();
        service_state.probe.take_if(|probe| probe.age(now) > fence_max || primary.as_ref() == Some(&probe.announced));
        let inquiry = self.inquire(sentinel, service, waker);
        let fence = service.expire_fence(now);
        let is_busy =
            self.service_state(service.name(), interval).probe.is_some() || inquiry.is_some() || fence.is_some();
        ([probes, inquiry, fence].into_iter().flatten().min(), is_busy)
    }

    /// Drives the inquiry that may lower the fence on lease; when to come back.
    fn inquire(&mut self, sentinel: &Sentinel, service: &Arc<Service>, waker: &Arc<Waker>) -> Option<Instant> {
        let now = Instant::now();
        let hears = |leader: &Endpoint| self.listeners.iter().any(|one| one.announced == *leader && one.is_listening());
        let (agenda, begins) = service.agenda(&hears, now);
        let (Some(agenda), Some(options)) = (agenda, &self.options) else {
            if let Some(service_state) = self.services.get_mut(service.name()) {
                service_state.inquiry = None;
            }
            return [begins, service.weigh(Vec::new(), now)].into_iter().flatten().min();
        };
        let service_state = self.services.get_mut(service.name())?;
        let inquiry = service_state.inquiry.get_or_insert_with(|| Box::new(Inquiry::new(Arc::clone(options))));
        let (settings, snapshot) = (sentinel.settings(), service.load());
        let subject = Subject {
            service: service.name(),
            known: &sentinel.shared().list().speakers(),
            list: sentinel.shared().list(),
            primary: snapshot.primary_announced.as_ref(),
            settings: &settings.client,
        };
        let mut findings = Vec::new();
        inquiry.drive(&agenda, &subject, waker, &mut findings);
        let wake = inquiry.wakes_at();
        [begins, wake, service.weigh(findings, Instant::now())].into_iter().flatten().min()
    }
}

/// The command links that stay open between polls.
pub(super) fn kept(handles: &[HandleState]) -> Vec<LinkKey> {
    let mut kept: Vec<LinkKey> = Vec::new();
    for handle in handles {
        let (Some(sentinel), Some(options)) = (handle.sentinel.upgrade(), &handle.options) else { continue };
        let settings = sentinel.settings();
        if settings.sentinel.monitor.mode != MonitorMode::On {
            continue;
        }
        for member in sentinel.shared().list().members() {
            let endpoint = settings.sentinel.address_map.apply(&member.endpoint);
            let key = LinkKey { endpoint, options: Arc::clone(options), timeout: settings.sentinel.timeout };
            if !kept.contains(&key) {
                kept.push(key);
            }
        }
    }
    kept
}

#[cfg(test)]
#[path = "handle_state_tests.rs"]
mod tests;
