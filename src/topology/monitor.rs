//! The lookout: one thread for the process that listens to all Sentinels of all handles at the same time.
//!
//! Guarantees: never waits for a Sentinel; every Sentinel is subscribed to, because the leader of a failover announces the switch
//! last, and it alone announces the steps before; polling is the net under the events; jitter everywhere. A panic while one handle
//! is attended to costs that handle a second. Ends when the last handle is closed. Leaves to others: what follows for a service
//! (failover), asking and judging (service, discovery).

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::cause::{Cause, Why};
use super::ear::{Change, Ear};
use super::identity::Speaker;
use super::inquiry::{Inquiry, Subject};
use super::news::{News, What};
use super::overhear::{self, Crowd, Overhear};
use super::probe::Probe;
use super::sentinel::Sentinel;
use super::service::{Haste, Service};
use super::watch::{Happening, ReplicaChange, SentinelChange};
use crate::config::{Endpoint, Monitor as Mode};
use crate::error::Status;
use crate::net::LinkOptions;
use crate::sys::fork::PerProcess;
use crate::sys::poll::{self, PollFd};
use crate::sys::random;
use crate::sys::thread;
use crate::sys::waker::Waker;

/// The longest sleep: members of the list of Sentinels come and go without waking anybody.
const NAP: Duration = Duration::from_millis(500);
/// Between polls while a failover is under way or the old primary is expected back.
const RESTLESS: Duration = Duration::from_secs(1);
/// The same event of several Sentinels within this time is one.
const SAME: Duration = Duration::from_secs(3);

static LOOKOUT: PerProcess<Lookout> = PerProcess::new();

/// Attends to a handle from now on, unless that is so already or its `monitor` is off.
pub(super) fn attend(sentinel: &Arc<Sentinel>) {
    if sentinel.settings().sentinel.monitor.mode == Mode::Off || sentinel.is_closed() {
        return;
    }
    let lookout = LOOKOUT.get_or_make(Lookout::default);
    let mut state = lookout.state();
    let known = state.handles.iter().any(|handle| std::ptr::eq(handle.as_ptr(), Arc::as_ptr(sentinel)));
    if !known {
        state.handles.push(Arc::downgrade(sentinel));
    }
    if state.waker.is_none() {
        // Without a descriptor or a thread there are no events: calls ask the Sentinels when something fails, and the next
        // service tries again.
        let Ok(waker) = Waker::new().map(Arc::new) else { return };
        let own = Arc::clone(&waker);
        if thread::spawn("vigie-lookout", move || lookout.run(own)).is_ok() {
            state.waker = Some(waker);
        }
    } else {
        state.wake();
    }
}

/// Makes the lookout look again: a handle was closed.
pub(super) fn nudge() {
    LOOKOUT.get_or_make(Lookout::default).state().wake();
}

#[derive(Default)]
struct Lookout(Mutex<State>);

#[derive(Default)]
struct State {
    handles: Vec<Weak<Sentinel>>,
    /// The running thread's.
    waker: Option<Arc<Waker>>,
}

impl State {
    fn wake(&self) {
        self.waker.iter().for_each(|waker| waker.wake());
    }
}

impl Lookout {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, waker: Arc<Waker>) {
        let mut posts: Vec<Post> = Vec::new();
        loop {
            waker.clear();
            if !self.take_in(&mut posts) {
                return;
            }
            let now = Instant::now();
            let mut wake = now + NAP;
            let mut crowd = Crowd::new();
            posts.iter().for_each(|post| post.count_deaf(&mut crowd));
            for post in &mut posts {
                wake = wake.min(
                    catch_unwind(AssertUnwindSafe(|| post.attend(&waker, &crowd)))
                        .unwrap_or_else(|_| post.begin_anew()),
                );
            }
            let mut fds: Vec<PollFd> = posts.iter().flat_map(Post::poll_fds).collect();
            fds.push(PollFd::new(waker.fd(), true, false));
            let timeout = wake.saturating_duration_since(Instant::now());
            // After a failure of poll all are attended to, as after a nap.
            let _ = poll::wait(&mut fds, Some(timeout));
        }
    }

    /// Takes new handles in and lets closed ones go; false when there is none left, and the thread ends.
    fn take_in(&self, posts: &mut Vec<Post>) -> bool {
        let mut state = self.state();
        // Kept beyond the lock: whoever drops the last of one nudges the lookout, which takes the lock.
        let alive: Vec<_> = state.handles.iter().filter_map(Weak::upgrade).collect();
        let is_open = |handle: &Weak<Sentinel>| {
            alive.iter().any(|sentinel| std::ptr::eq(Arc::as_ptr(sentinel), handle.as_ptr()) && !sentinel.is_closed())
        };
        state.handles.retain(is_open);
        posts.retain(|post| state.handles.iter().any(|handle| handle.ptr_eq(&post.handle)));
        for handle in &state.handles {
            if !posts.iter().any(|post| post.handle.ptr_eq(handle)) {
                posts.push(Post::new(handle.clone()));
            }
        }
        if posts.is_empty() {
            state.waker = None;
        }
        drop(state);
        !posts.is_empty()
    }
}

/// What is kept for one handle.
struct Post {
    handle: Weak<Sentinel>,
    configured: u64,
    options: Option<Arc<LinkOptions>>,
    ears: Vec<Ear>,
    services: HashMap<String, Charge>,
    /// Sentinels whose events may not be heard.
    overhear: HashMap<Endpoint, Overhear>,
    /// Events heard lately: the same from another Sentinel is not told again.
    heard: Vec<Heard>,
    /// Nothing is done before; after a panic.
    rests_until: Option<Instant>,
}

/// An event, since when, and who has announced it.
struct Heard {
    key: String,
    since: Instant,
    by: Vec<Endpoint>,
}

/// What is kept for one service.
struct Charge {
    next_poll: Instant,
    probe: Option<Probe>,
    inquiry: Option<Inquiry>,
}

impl Post {
    fn new(handle: Weak<Sentinel>) -> Self {
        let (ears, services, overhear, heard) = (Vec::new(), HashMap::new(), HashMap::new(), Vec::new());
        Self { handle, configured: 0, options: None, ears, services, overhear, heard, rests_until: None }
    }

    fn begin_anew(&mut self) -> Instant {
        let until = Instant::now() + Duration::from_secs(1);
        *self = Self { rests_until: Some(until), ..Self::new(self.handle.clone()) };
        until
    }

    fn poll_fds(&self) -> impl Iterator<Item = PollFd> {
        let probes = self.services.values().filter_map(|charge| charge.probe.as_ref()).flat_map(Probe::poll_fds);
        let inquiries = self.services.values().filter_map(|charge| charge.inquiry.as_ref());
        let overhear = self.overhear.values().flat_map(Overhear::poll_fds);
        let ears = self.ears.iter().flat_map(Ear::poll_fds).chain(overhear);
        ears.chain(probes).chain(inquiries.flat_map(Inquiry::poll_fds))
    }

    /// Does all that can be done now; when to come again though nothing happens.
    fn attend(&mut self, waker: &Arc<Waker>, crowd: &Crowd) -> Instant {
        let far = Instant::now() + NAP;
        let Some(sentinel) = self.handle.upgrade() else { return far };
        if let Some(until) = self.rests_until.filter(|until| Instant::now() < *until) {
            return until;
        }
        let settings = sentinel.settings();
        if self.configured != sentinel.config_version() || self.options.is_none() {
            self.configured = sentinel.config_version();
            self.options = Some(Arc::new(LinkOptions::of_sentinel(&settings.sentinel)));
            self.ears.clear();
            self.overhear.clear();
            self.services.values_mut().for_each(|charge| charge.inquiry = None);
        }
        if settings.sentinel.monitor.mode == Mode::On {
            self.place_ears(&sentinel);
            self.listen(&sentinel, waker);
            self.overhear(&sentinel, waker, crowd);
        }
        let mut wake = self.tend(&sentinel, waker).min(far);
        for at in self.ears.iter().map(Ear::wakes_at).chain(self.overhear.values().map(Overhear::wakes_at)) {
            wake = at.map_or(wake, |at| wake.min(at));
        }
        wake
    }

    /// Adds what has to be asked because it may not be heard.
    fn count_deaf(&self, crowd: &mut Crowd) {
        let services = u32::try_from(self.services.len()).unwrap_or(u32::MAX);
        for ear in self.ears.iter().filter(|ear| ear.deaf().is_some()) {
            let count = crowd.entry(ear.endpoint().clone()).or_default();
            *count = count.saturating_add(services);
        }
    }

    /// Asks the Sentinels whose events may not be heard.
    fn overhear(&mut self, sentinel: &Sentinel, waker: &Arc<Waker>, crowd: &Crowd) {
        let Some(options) = &self.options else { return };
        let deaf: Vec<&Ear> = self.ears.iter().filter(|ear| ear.deaf().is_some()).collect();
        self.overhear.retain(|announced, _| deaf.iter().any(|ear| ear.announced == *announced));
        // Those not found yet too: nobody wakes this thread when they are.
        let services: Vec<String> = sentinel.all().iter().map(|one| one.name().to_owned()).collect();
        for ear in deaf.into_iter().filter(|_| !services.is_empty()) {
            let new = || Overhear::new(ear.endpoint().clone(), Arc::clone(options));
            let overhear = self.overhear.entry(ear.announced.clone()).or_insert_with(new);
            let crowd = crowd.get(ear.endpoint()).copied().unwrap_or_default();
            let every = overhear::pace(crowd);
            if let Some(why) = ear.deaf().filter(|_| overhear.told.replace(every) != Some(every)) {
                let text = format!("{why}; it is asked every {} ms instead", every.as_millis());
                sentinel.shared().note_deaf(ear.endpoint(), Some(&text));
            }
            for overheard in overhear.drive(&services, crowd, waker) {
                if let Some(service) = sentinel.known_service(&overheard.service) {
                    service.overhear(&ear.speaker(), overheard.named.as_ref(), overheard.shown.as_ref());
                }
            }
        }
    }

    /// One ear at each Sentinel that is known.
    fn place_ears(&mut self, sentinel: &Sentinel) {
        let settings = sentinel.settings();
        let members = sentinel.shared().list().members();
        self.ears.retain(|ear| members.iter().any(|member| member.endpoint == ear.announced));
        for member in members {
            let endpoint = settings.sentinel.address_map.apply(&member.endpoint);
            if !self.ears.iter().any(|ear| ear.announced == member.endpoint || *ear.endpoint() == endpoint) {
                self.ears.push(Ear::new(member.endpoint, endpoint));
            }
        }
    }

    fn listen(&mut self, sentinel: &Sentinel, waker: &Arc<Waker>) {
        let Some(options) = self.options.clone() else { return };
        let timeout = sentinel.settings().sentinel.timeout;
        let mut heard = Vec::new();
        let mut last_words = None;
        let mut came_up = false;
        for ear in &mut self.ears {
            let mut news = Vec::new();
            let change = ear.drive(&options, timeout, waker, &mut news);
            heard.extend(news.into_iter().map(|news| (ear.speaker(), news)));
            let Some(change) = change else { continue };
            let (up, why) = match change {
                Change::Up => {
                    let deaf = ear.deaf();
                    sentinel.shared().note_deaf(ear.endpoint(), deaf.as_deref());
                    self.overhear.get_mut(&ear.announced).into_iter().for_each(|overhear| overhear.told = None);
                    let refused = |why| Why::own(Cause::EventsRefused, format!("events: {why}"));
                    (true, deaf.map_or_else(|| Why::word(Cause::Listening), refused))
                }
                Change::Down(error) => {
                    let cause = if error.status() == Status::Auth { Cause::Refused } else { Cause::Lost };
                    (false, Why::own(cause, error.message()))
                }
            };
            came_up |= up;
            let name = ear.endpoint().to_string();
            sentinel.shared().tell(Happening::Sentinel(SentinelChange::of(name, Some(up), why.clone())));
            last_words = Some(why);
        }
        if let Some(why) = last_words {
            sentinel.shared().set_degraded(self.ears.iter().all(Ear::is_lost), &why);
        }
        for (from, news) in heard {
            self.act(sentinel, &from, &news);
        }
        if came_up {
            // Events may have been missed before: the flags tell (rule 5).
            sentinel.all().iter().for_each(|service| service.poke(Haste::Soon));
        }
    }

    /// Acts on an event about one of our services; others' change nothing, and what Sentinels of another deployment say of theirs does not.
    fn act(&mut self, sentinel: &Sentinel, from: &Speaker, news: &News) {
        let Some(service) = sentinel.known_service(&news.service).filter(|service| !service.is_stranger(from)) else {
            return;
        };
        if news.is_change_of_nodes() {
            service.end_pauses();
            sentinel.shared().changed(service.name());
        }
        match &news.what {
            What::FailoverBegins => service.raise_fence(from, news.primary.as_ref(), &news.channel, true),
            What::FailoverGoesOn => service.raise_fence(from, news.primary.as_ref(), &news.channel, false),
            What::Selected(candidate) => {
                service.raise_fence(from, news.primary.as_ref(), &news.channel, false);
                self.question(sentinel, &service, candidate);
            }
            What::Promoted(candidate) => {
                service.raise_fence(from, news.primary.as_ref(), &news.channel, false);
                self.question(sentinel, &service, candidate);
                service.poke(Haste::Now);
            }
            What::Aborted => {
                service.release_fence(from, &news.channel);
                self.charge(&news.service).probe = None;
                service.poke(Haste::Now);
            }
            What::Switched(..) => service.poke(Haste::Now),
            What::PrimaryDown(down) => {
                match news.channel.ends_with("odown") {
                    true => service.note_down(from, news.primary.as_ref(), *down),
                    false => service.note_missed(from, news.primary.as_ref(), *down),
                }
                service.poke(if *down { Haste::Now } else { Haste::Soon });
            }
            What::Replica | What::Peers | What::Other => service.poke(Haste::Soon),
        }
        self.tell(sentinel, &service, &from.announced, news);
    }

    /// Begins to ask a candidate for its role, unless it is being asked.
    fn question(&mut self, sentinel: &Sentinel, service: &Service, candidate: &Endpoint) {
        if service.load().primary_announced.as_ref() == Some(candidate) {
            return;
        }
        let settings = sentinel.settings();
        let charge = self.charge(service.name());
        if charge.probe.as_ref().is_none_or(|probe| probe.announced != *candidate) {
            charge.probe = Some(Probe::candidate(candidate.clone(), &settings.client));
        }
    }

    fn charge(&mut self, service: &str) -> &mut Charge {
        let next_poll = Instant::now();
        self.services.entry(service.to_owned()).or_insert_with(|| Charge { next_poll, probe: None, inquiry: None })
    }

    /// Whether nobody has announced this before, or this Sentinel itself has: then it has happened again.
    fn is_new(&mut self, from: &Endpoint, news: &News) -> bool {
        let since = Instant::now();
        let key = format!("{} {:?}", news.channel, (&news.service, &news.about));
        self.heard.retain(|heard| since.saturating_duration_since(heard.since) < SAME);
        match self.heard.iter_mut().find(|heard| heard.key == key) {
            Some(heard) if !heard.by.contains(from) => {
                heard.by.push(from.clone());
                return false;
            }
            Some(heard) => (heard.since, heard.by) = (since, vec![from.clone()]),
            None => self.heard.push(Heard { key, since, by: vec![from.clone()] }),
        }
        true
    }

    /// Tells those who watch, once for all Sentinels that announce the same.
    fn tell(&mut self, sentinel: &Sentinel, service: &Service, from: &Endpoint, news: &News) {
        if !self.is_new(from, news) {
            return;
        }
        let why = Why::said(&news.channel, &*news.channel);
        let happening = match &news.what {
            What::Switched(..) => return,
            What::Replica | What::Selected(_) | What::Promoted(_) => {
                let (service, replica) = (news.service.clone(), news.about.clone());
                Happening::Replica(ReplicaChange { service, replica, fit: None, why })
            }
            What::Peers => Happening::Sentinel(SentinelChange::of(news.about.clone(), None, why)),
            // Late words about a node that the service has left.
            _ if service.was_left(news.primary.as_ref()) => return,
            _ => {
                let of = news.primary.as_ref().map(|primary| format!(" of {primary}")).unwrap_or_default();
                return service.notice(Why::said(&news.channel, format!("said by {from}{of}")));
            }
        };
        sentinel.shared().tell(happening);
    }

    /// Polls, probes and fences that are due.
    fn tend(&mut self, sentinel: &Sentinel, waker: &Arc<Waker>) -> Instant {
        let now = Instant::now();
        let settings = sentinel.settings();
        let (interval, fence_max) = (settings.sentinel.monitor.interval, settings.sentinel.failover.fence_max);
        let mut wake = now + NAP;
        let services = sentinel.all();
        self.services.retain(|name, _| services.iter().any(|service| service.name() == name));
        // A service that nobody has used yet is left alone.
        for service in services.into_iter().filter(|service| service.discovered() > 0) {
            let charge = self.charge(service.name());
            let is_restless = service.is_restless(now) || service.is_unsettled();
            if now >= charge.next_poll {
                service.poke(Haste::Lazy);
                let pace = if is_restless { interval.min(RESTLESS) } else { interval };
                // Jitter makes it shorter only: the interval is a promise.
                charge.next_poll = now + pace.mul_f64(0.8 + random::rng().f64() / 5.0);
            } else if is_restless {
                charge.next_poll = charge.next_poll.min(now + RESTLESS);
            }
            wake = wake.min(charge.next_poll);
            if let Some(probe) = &mut charge.probe {
                match probe.drive(waker) {
                    Some((_, true)) => service.candidate_speaks(&probe.announced),
                    Some((asked, false)) => service.candidate_denies(asked),
                    None => {}
                }
                wake = probe.wakes_at().map_or(wake, |at| wake.min(at));
            }
            // What it is asked for is decided, or will not be.
            let primary = service.load().primary_announced.clone();
            charge.probe.take_if(|probe| probe.age(now) > fence_max || primary.as_ref() == Some(&probe.announced));
            wake = self.inquire(sentinel, &service, waker).map_or(wake, |at| wake.min(at));
            wake = service.expire_fence(now).map_or(wake, |at| wake.min(at));
        }
        wake
    }

    /// Asks what may bring the fence of a service down on lease; when to come again.
    fn inquire(&mut self, sentinel: &Sentinel, service: &Arc<Service>, waker: &Arc<Waker>) -> Option<Instant> {
        let now = Instant::now();
        let hears = |leader: &Endpoint| self.ears.iter().any(|ear| ear.announced == *leader && ear.is_listening());
        let (agenda, begins) = service.agenda(&hears, now);
        let (Some(agenda), Some(options)) = (agenda, &self.options) else {
            if let Some(charge) = self.services.get_mut(service.name()) {
                charge.inquiry = None;
            }
            return [begins, service.weigh(Vec::new(), now)].into_iter().flatten().min();
        };
        let charge = self.services.get_mut(service.name())?;
        let inquiry = charge.inquiry.get_or_insert_with(|| Inquiry::new(Arc::clone(options)));
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
