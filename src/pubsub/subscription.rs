//! A subscription: it keeps a connection for what the program wishes to hear, makes it anew when it is lost or its node is not used any
//! more, and puts what comes into its inbox.
//!
//! Guarantees: a wish lasts over any number of connections; the first attempt to make the connection anew follows at once, the next
//! ones with growing pauses, and at once again when the topology has changed; a gap is told from the last sign of life to the last
//! confirmation; an end takes effect at once. Nothing here waits but [`Subscription::exec`]. Leaves to others: answers (wishes), reading
//! (feed, poller), connecting (opening, pool).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::feed::{Feed, Hears};
use super::gap::{Cause, Gap};
use super::link::{Link, Word};
use super::opening::{self, Opens};
use super::poller;
use super::wishes::{Heard, Request, Wishes};
use crate::config::{ClientSettings, Credentials, Endpoint, Overflow};
use crate::error::{Error, Result, Status, flags};
use crate::meter::{Deed, End, SubscriptionRow};
use crate::net::{Conn, Role};
use crate::queue::{Bounds, Counted, Event, Inlet, Letter, Put, Queue, Source, kind};
use crate::resp::Reply;
use crate::route::{Route, Router};
use crate::sys::random;
use crate::sys::rank::Rank;
use crate::sys::sync::{Condvar, Lock, Locked};
use crate::time::{Deadline, Timeout};
use crate::topology::{Child, Urgency};
use crate::worker;

/// How often a subscription whose buffer was full looks whether it has been drained.
const ROOM_LOOK: Duration = Duration::from_millis(20);
/// A connection that ends before it has lasted this long counts as a failed attempt.
const STEADY: Duration = Duration::from_secs(1);
/// How many letters are held back for the end of a gap.
const MOST_HELD: usize = 4096;
/// The pause grows for so many failures in a row.
const MOST_DOUBLED: u32 = 16;

/// What a subscription is made from.
pub(crate) struct SubscriptionSpec<'a> {
    pub(crate) router: &'a Arc<Router>,
    /// The client, which lives as long as its subscriptions.
    pub(crate) client: Arc<dyn Child>,
    pub(crate) from_replicas: bool,
    pub(crate) settings: ClientSettings,
    pub(crate) queue: &'a Arc<Queue>,
    pub(crate) token: u64,
    /// How many live of those that the program has as one.
    pub(crate) together: Option<Arc<AtomicUsize>>,
}

/// A subscription.
pub struct Subscription {
    router: Arc<Router>,
    _client: Arc<dyn Child>,
    from_replicas: bool,
    settings: ClientSettings,
    token: u64,
    together: Option<Arc<AtomicUsize>>,
    state: Lock<State>,
    /// Callers of `exec` wait for an outcome.
    changed: Condvar,
    me: Weak<Self>,
}

struct State {
    wishes: Wishes,
    stage: Stage,
    /// `None` once the program has freed the subscription.
    inlet: Option<Inlet>,
    /// Counts attempts and pauses, so that those that are outdated are recognised.
    number: u64,
    /// When the connection was opened.
    connected: Instant,
    /// The last sign that messages arrive.
    alive: Instant,
    /// Since when an answer is due.
    asked: Option<Instant>,
    gap: Option<Gap>,
    /// How many were told.
    gaps: u64,
    /// What has come from the new connection before the end of the gap, which is told first.
    held: Vec<Letter>,
    /// Of the replica at the other end, if it can be asked.
    link: Option<Link>,
    failures: Failures,
    /// What the connection was authenticated with, and whether it takes AUTH beside subscriptions.
    auth: Credentials,
    takes_auth: bool,
    /// The buffer was full: the connection is not made anew before half of it is drained.
    overflowed: bool,
}

/// What is known of the service when something comes.
struct Around {
    now: Instant,
    in_grace: bool,
    /// A failover is under way.
    fenced: bool,
    primary: Option<Endpoint>,
}

impl Around {
    /// Only what a subscription on a replica asks for.
    fn of(one: &Subscription, now: Instant) -> Self {
        let service = &one.router.context.service;
        match one.from_replicas {
            true => {
                let primary = service.load().primary_announced.clone();
                Self { now, in_grace: service.in_grace(), fenced: service.is_fenced(), primary }
            }
            false => Self { now, in_grace: false, fenced: false, primary: None },
        }
    }
}

/// Attempts since the last connection that has lasted.
#[derive(Default)]
struct Failures {
    count: u32,
    /// The replicas that failed.
    tried: Vec<String>,
    /// The last discovery and the version of the topology whose primary failed.
    stale: u64,
    version: u64,
    /// The version of the topology at the last failure.
    seen: u64,
    /// How often the pauses of the service had been ended when the last attempt began: that also ends the pause of this one.
    ended: u64,
    last: Option<Error>,
    since: Option<Instant>,
    /// The program was told of these: what lasts, and each refusal, once.
    told: Vec<Told>,
}

/// What the program was told of since the last connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// There has been no connection for some time.
    Lasts,
    Refused(Status),
}

enum Stage {
    /// There is nothing to hear.
    Rest,
    /// An attempt follows after a pause.
    Waits,
    /// A connection is being opened.
    Opens,
    Live(Arc<Feed>),
    Over(Error),
}

impl Subscription {
    pub(crate) fn open(spec: SubscriptionSpec<'_>) -> Arc<Self> {
        let sub = spec.settings.sub;
        let bounds = Bounds {
            messages: sub.max_messages,
            bytes: sub.max_bytes,
            drops_oldest: sub.overflow == Overflow::DropOldest,
        };
        let state = State {
            wishes: Wishes::default(),
            stage: Stage::Rest,
            inlet: Some(spec.queue.open_inbox(spec.token, bounds)),
            number: 0,
            connected: Instant::now(),
            alive: Instant::now(),
            asked: None,
            gap: None,
            gaps: 0,
            held: Vec::new(),
            link: None,
            failures: Failures::default(),
            auth: Credentials::default(),
            takes_auth: false,
            overflowed: false,
        };
        spec.together.iter().for_each(|together| _ = together.fetch_add(1, Ordering::AcqRel));
        Arc::new_cyclic(|me| Self {
            router: Arc::clone(spec.router),
            together: spec.together,
            _client: spec.client,
            from_replicas: spec.from_replicas,
            settings: spec.settings,
            token: spec.token,
            state: Lock::new(Rank::Subscription, state),
            changed: Condvar::new(),
            me: Weak::clone(me),
        })
    }

    fn lock(&self) -> Locked<'_, State> {
        self.state.lock()
    }

    /// Takes a command, and waits until the server has answered it, or until the timeout. Without time it only takes the command.
    pub fn exec(&self, args: &[&[u8]], timeout: Timeout) -> Result<()> {
        let request = Request::read(args)?;
        let deadline = timeout.deadline(self.settings.timeout_call);
        let mut state = self.lock();
        match &state.stage {
            Stage::Over(cause) => return Err(cause.clone()),
            Stage::Live(feed) => {
                let (feed, mut out) = (Arc::clone(feed), Vec::new());
                state.wishes.take(&request, Some(&mut out));
                self.send(&mut state, &feed, &out);
            }
            Stage::Rest | Stage::Waits | Stage::Opens => state.wishes.take(&request, None),
        }
        if matches!(state.stage, Stage::Rest) && state.wishes.is_any() {
            self.begin(state);
            state = self.lock();
        }
        if timeout == Timeout::DontWait { Ok(()) } else { self.await_outcome(state, &request, args, deadline) }
    }

    fn await_outcome(
        &self,
        mut state: Locked<'_, State>,
        request: &Request,
        args: &[&[u8]],
        deadline: Deadline,
    ) -> Result<()> {
        loop {
            if let Stage::Over(cause) = &state.stage {
                return Err(cause.clone());
            }
            if let Some(outcome) = state.wishes.outcome(request) {
                return outcome;
            }
            if deadline.is_over() {
                let command = String::from_utf8_lossy(args.first().copied().unwrap_or_default()).to_ascii_uppercase();
                let why = match &state.failures.last {
                    // With a connection it is the reason of an earlier loss.
                    Some(last) if !matches!(state.stage, Stage::Live(_)) => {
                        format!("no connection: {}", last.message())
                    }
                    _ => "no answer from the server".to_owned(),
                };
                let text = format!("{why}; the subscription goes on trying");
                let error = Error::new(Status::Timeout, text).in_service(command, self.router.context.service.name());
                return Err(error.with_time(deadline.elapsed().as_millis(), "").with_flags(flags::RETRYABLE));
            }
            state = match deadline.left() {
                Some(left) => self.changed.wait_timeout(state, left),
                None => self.changed.wait(state),
            };
        }
    }

    fn send(&self, state: &mut State, feed: &Feed, bytes: &[u8]) {
        if !bytes.is_empty() && state.asked.is_none() {
            state.asked = Some(Instant::now());
        }
        feed.send(bytes);
    }

    /// What it has heard; `None` once the program has freed it.
    pub(super) fn figures(&self) -> Option<SubscriptionRow> {
        let state = self.lock();
        let (counted, buffered, buffered_bytes) = state.inlet.as_ref()?.figures();
        let endpoint = match &state.stage {
            Stage::Live(feed) => feed.pool().name().to_owned(),
            _ => String::new(),
        };
        Some(SubscriptionRow {
            token: self.token,
            endpoint,
            messages: counted.messages,
            bytes: counted.bytes,
            dropped: counted.dropped,
            gaps: state.gaps,
            buffered: buffered as u64,
            buffered_bytes: buffered_bytes as u64,
        })
    }

    /// Counts in the client what has come, so that it stays when the subscription is freed.
    fn count(&self, counted: Counted, gaps: u64) {
        let context = &self.router.context;
        context.count(Deed::Message, counted.messages);
        context.count(Deed::MessageByte, counted.bytes);
        context.count(Deed::MessageDropped, counted.dropped);
        context.count(Deed::Gap, gaps);
    }

    /// Whether it has no connection and waits for its next attempt, or has one that ended unseen.
    pub(super) fn is_waiting(&self) -> bool {
        match &self.lock().stage {
            Stage::Waits => true,
            Stage::Live(feed) => feed.is_over(),
            Stage::Rest | Stage::Opens | Stage::Over(_) => false,
        }
    }

    /// Whether the user or the password of its connection was changed.
    pub(super) fn is_outdated(&self) -> bool {
        let auth = &self.router.context.settings().auth;
        let state = self.lock();
        matches!(state.stage, Stage::Live(_)) && state.auth != *auth
    }

    /// Authenticates anew where the connection takes that beside its subscriptions; else it is given up.
    fn authenticate(&self, state: &mut State) {
        let auth = self.router.context.settings().auth.clone();
        let feed = match &state.stage {
            Stage::Live(feed) if state.auth != auth => Arc::clone(feed),
            _ => return,
        };
        match auth.command().filter(|_| state.takes_auth) {
            Some(command) => {
                let mut out = Vec::new();
                state.wishes.authenticate(&command, &mut out);
                self.send(state, &feed, &out);
            }
            None => {
                let error = Error::new(Status::Auth, "user or password were changed");
                state.lose(&feed, Cause::Credentials, &error);
            }
        }
        state.auth = auth;
    }

    /// Makes the next attempt now, because something has changed: the topology or the options that the last one has failed with, or the
    /// connection has ended.
    pub(super) fn try_now(&self) {
        let version = self.router.context.service.version();
        let mut state = self.lock();
        self.authenticate(&mut state);
        if let Stage::Live(feed) = &state.stage {
            if feed.is_over() {
                let feed = Arc::clone(feed);
                let error = Error::new(Status::Internal, "the connection was given up after a failure of the library");
                state.lose(&feed, Cause::Lost, &error);
            }
        }
        // Its own attempts cause discoveries, each of which is a change: they alone must not shorten its pauses.
        let failures = &state.failures;
        let is_news = failures.count == 0
            || failures.seen != version
            || failures.ended != self.router.context.service.pauses_ended();
        if matches!(state.stage, Stage::Waits) && is_news {
            state.failures.count = state.failures.count.min(1);
            self.begin(state);
        }
    }

    /// Ends it: no message comes any more. Without a cause the program has freed it, and what it has not drained is gone.
    pub(crate) fn end(&self, cause: Option<Error>) {
        let mut state = self.lock();
        let is_new = !matches!(state.stage, Stage::Over(_));
        let over = cause.clone().unwrap_or_else(|| Error::new(Status::Closed, "the subscription was freed"));
        let before = std::mem::replace(&mut state.stage, Stage::Over(over));
        if let Stage::Live(feed) = &before {
            feed.end();
        }
        let others = match &self.together {
            Some(together) if is_new => together.fetch_sub(1, Ordering::AcqRel) - 1,
            _ => 0,
        };
        if let (true, 0, Some(cause), Some(inlet)) = (is_new, others, &cause, &state.inlet) {
            inlet.put([Letter::Told(failed(cause.clone()))]);
        }
        let inlet = if cause.is_none() { state.inlet.take() } else { None };
        drop(state);
        self.changed.notify_all();
        if matches!(before, Stage::Live(_)) {
            poller::wake();
        }
        drop((before, inlet));
    }

    /// Ends it because the program has freed it.
    pub fn free(&self) {
        self.end(None);
    }

    // ---- making the connection anew ----------------------------------------------------------

    /// Begins an attempt: chooses a node, and has a connection opened.
    fn begin(&self, mut state: Locked<'_, State>) {
        if !state.wishes.is_any() {
            state.stage = Stage::Rest;
            return;
        }
        if state.overflowed && !state.inlet.as_ref().is_none_or(Inlet::has_room) {
            return self.pause(state, ROOM_LOOK);
        }
        state.overflowed = false;
        state.stage = Stage::Opens;
        state.number += 1;
        let (number, stale, version) = (state.number, state.failures.stale, state.failures.version);
        let tried = state.failures.tried.clone();
        // Before the route: a change in between is found, and at worst told to the server twice.
        state.auth = self.router.context.settings().auth.clone();
        state.failures.ended = self.router.context.service.pauses_ended();
        // The router's locks come before this one.
        drop(state);
        if let Err(closed) = self.router.context.check_open() {
            return self.end(Some(closed));
        }
        match self.router.route_apart(self.from_replicas, stale, version, &tried) {
            Ok(route) => {
                let me: Weak<dyn Opens> = Weak::clone(&self.me) as Weak<dyn Opens>;
                opening::open(me, number, route, self.settings.timeout_connect);
            }
            Err(error) => self.not_opened(number, None, error),
        }
    }

    /// An attempt has failed: notes what that means for the next one, and when it follows.
    fn not_opened(&self, number: u64, route: Option<&Route>, error: Error) {
        let service = &self.router.context.service;
        let (discovered, version) = (service.discovered(), service.version());
        let mut state = self.lock();
        if state.number != number || !matches!(state.stage, Stage::Opens) {
            return;
        }
        let failures = &mut state.failures;
        failures.seen = version;
        match route {
            Some(route) if route.replica.is_some() => failures.tried.push(route.pool.name().to_owned()),
            _ => {
                (failures.stale, failures.version) = (discovered, version);
                failures.tried.clear();
            }
        }
        let tells = failures.note(&error, self.settings.timeout_call);
        let is_outdated = failures.ended != service.pauses_ended();
        let pause = if is_outdated { Duration::ZERO } else { failures.pause(&self.settings) };
        let told = failures.last.clone().unwrap_or_else(|| error.clone());
        if let (true, Some(inlet)) = (tells, &state.inlet) {
            inlet.put([Letter::Told(failed(told))]);
        }
        self.pause(state, pause);
        if let Some(route) = route {
            self.report(route, &error);
        }
    }

    /// Reports what an attempt has shown about a node.
    fn report(&self, route: &Route, error: &Error) {
        let service = &self.router.context.service;
        match &route.replica {
            Some(replica) => replica.cool_down(error),
            None if error.status() == Status::Server => return self.router.doubt(&route.pool, error),
            None => {}
        }
        service.suspect(route.pool.endpoint(), error.message());
        service.request_discovery(Urgency::Lazy);
    }

    /// Has the next attempt made after a pause.
    fn pause(&self, mut state: Locked<'_, State>, pause: Duration) {
        state.stage = Stage::Waits;
        state.number += 1;
        let number = state.number;
        drop(state);
        let me = Weak::clone(&self.me);
        let ring = move || {
            let Some(me) = me.upgrade() else { return };
            let state = me.lock();
            if state.number == number && matches!(state.stage, Stage::Waits) {
                me.begin(state);
            }
        };
        // Without a thread the next change of the topology has it tried again.
        let _ = worker::after(pause, Weak::clone(&self.me), ring);
    }

    fn connected(&self, mut state: Locked<'_, State>, route: &Route, conn: Conn) {
        let me: Weak<dyn Hears> = Weak::clone(&self.me) as Weak<dyn Hears>;
        let now = Instant::now();
        // In RESP2 a connection with subscriptions takes no ROLE: there the word of the Sentinels about the link counts.
        state.link = (route.replica.is_some() && conn.info().protocol >= 3).then(|| Link::new(now));
        state.takes_auth = conn.info().protocol >= 3;
        let feed = Feed::new(conn, Arc::clone(&route.pool), me);
        state.failures.route_anew();
        state.stage = Stage::Live(Arc::clone(&feed));
        (state.connected, state.alive, state.asked) = (now, now, None);
        feed.set_due(now + self.settings.sub.ping);
        let mut out = Vec::new();
        state.wishes.connected(&mut out);
        if state.link.is_some() {
            state.wishes.ask_for_role(&mut out);
        }
        self.send(&mut state, &feed, &out);
        let queue = state.inlet.as_ref().map(|inlet| Arc::clone(inlet.queue()));
        drop(state);
        let source: Arc<dyn Source> = Arc::clone(&feed) as Arc<dyn Source>;
        queue.iter().for_each(|queue| queue.attach(&source));
        poller::add(&feed);
    }

    // ---- what comes ----------------------------------------------------------------------------

    /// What the answers and messages mean, for the inbox. The error ends the connection.
    fn letters(
        &self,
        state: &mut State,
        feed: &Feed,
        came: Vec<Reply>,
        around: &Around,
    ) -> (Vec<Letter>, Option<(Cause, Error)>) {
        let (mut letters, server) = (Vec::with_capacity(came.len()), feed.pool().name());
        for reply in came {
            match state.wishes.hear(reply, server) {
                Ok(Heard::Message(reply)) => letters.push(Letter::Message(reply)),
                Ok(Heard::Answer(reply)) => letters.push(Letter::Told(answer(reply))),
                Ok(Heard::Refused(error)) => letters.push(Letter::Told(failed(error))),
                Ok(Heard::Role(role)) => match self.hear_link(state, feed, &role, around) {
                    Ok(told) => letters.extend(told.map(Letter::Told)),
                    // Rule 32: during a failover the links of all replicas are broken, and none is better.
                    Err(_) if around.in_grace => {}
                    Err(error) => return (letters, Some((Cause::Link, error))),
                },
                Ok(Heard::Nothing) => {}
                Err(error) => {
                    let is_logged_out = error.server_code() == "NOAUTH";
                    let cause = if is_logged_out { Cause::Credentials } else { Cause::Lost };
                    return (letters, Some((cause, error)));
                }
            }
        }
        (letters, None)
    }

    /// What the word of a replica about its link means; an error if another node is better.
    fn hear_link(&self, state: &mut State, feed: &Feed, role: &Role, around: &Around) -> Result<Option<Event>> {
        let now = around.now;
        let primary = around.primary.as_ref();
        let word = state.link.as_mut().map_or(Word::Nothing, |link| link.hear(role, primary, now));
        let name = feed.pool().name();
        match word {
            Word::Nothing | Word::Down { again: false } => Ok(None),
            Word::Down { again: true } => {
                let text = format!("the link of {name} to its primary is down, and its messages do not arrive there");
                Err(Error::new(Status::Role, text).with_endpoint(name))
            }
            // The next primary may be at work already, and the replica does not follow it yet.
            Word::Up if around.fenced => Ok(None),
            Word::Up => {
                state.alive = now;
                Ok(None)
            }
            Word::Again(reason) => {
                let since = std::mem::replace(&mut state.alive, now);
                state.gaps += 1;
                let gap = Gap { since, from: name.to_owned(), cause: Cause::Link, reason };
                Ok(Some(gap.told(self.router.context.service.name(), name, now)))
            }
        }
    }

    /// Asks for a sign of life when it is time; an error when there was none.
    fn stay_alive(&self, state: &mut State, feed: &Feed, now: Instant) -> Option<Error> {
        let limit = self.settings.sub.ping;
        let since = state.asked.or(state.link.as_ref().map(|link| link.asked)).unwrap_or(state.alive);
        if now.saturating_duration_since(since) < limit {
            feed.set_due(since + limit);
            return None;
        }
        if state.asked.is_some() {
            let text = format!("{} has not answered a subscription for {} ms", feed.pool().name(), limit.as_millis());
            return Some(Error::new(Status::Timeout, text).with_endpoint(feed.pool().name()));
        }
        let mut out = Vec::new();
        match &mut state.link {
            Some(link) => {
                link.asked = now;
                state.wishes.ask_for_role(&mut out);
            }
            None => state.wishes.ask_for_life(&mut out),
        }
        state.asked = Some(now);
        feed.set_due(now + limit);
        feed.send(&out);
        None
    }
}

impl Opens for Subscription {
    fn opened(&self, number: u64, route: Route, outcome: Result<Conn>) {
        match outcome {
            Ok(conn) => {
                let state = self.lock();
                if state.number == number && matches!(state.stage, Stage::Opens) {
                    self.connected(state, &route, conn);
                }
            }
            Err(error) => self.not_opened(number, Some(&route), error),
        }
    }
}

impl Hears for Subscription {
    fn hear(&self, feed: &Feed, came: Vec<Reply>, lives: bool, end: Option<Error>, now: Instant) {
        // The locks of the pool and of the service come before this one.
        let around = Around::of(self, now);
        let ended_as = end.as_ref().map(|_| if feed.pool().is_retired() { Cause::Switched } else { Cause::Lost });
        let mut state = self.lock();
        if !matches!(&state.stage, Stage::Live(live) if std::ptr::eq(&**live, feed)) {
            return;
        }
        let (answers, gaps) = (state.wishes.awaits(), state.gaps);
        let (mut letters, odd) = self.letters(&mut state, feed, came, &around);
        if lives {
            // A replica without its link is alive, too.
            if state.link.is_none() {
                state.alive = now;
            }
            state.asked = state.wishes.awaits().then_some(now);
        }
        let (service, to) = (self.router.context.service.name(), feed.pool().name());
        letters = state.behind_gap(letters, |gap| Letter::Told(gap.told(service, to, now)));
        let (put, counted) = state.inlet.as_ref().map_or((Put::Closed, Counted::default()), |inlet| inlet.put(letters));
        self.count(counted, state.gaps - gaps);
        let end = end.map(|error| (ended_as.unwrap_or(Cause::Lost), error));
        let lost = match (odd.or(end), put) {
            (_, Put::Closed) => {
                drop(state);
                return self.end(Some(Error::new(Status::Closed, "the queue of the subscription was freed")));
            }
            (_, Put::Full) => {
                state.overflowed = true;
                let text = "its buffer was full (sub.max_messages, sub.max_bytes), and sub.overflow is disconnect";
                Some((Cause::Overflow, Error::new(Status::QueueFull, text)))
            }
            (Some(lost), Put::Taken) => Some(lost),
            (None, Put::Taken) => self.stay_alive(&mut state, feed, now).map(|error| (Cause::Silent, error)),
        };
        if let Some((cause, error)) = lost {
            state.lose(feed, cause, &error);
            if error.server_code() == "NOAUTH" {
                let (router, pool) = (Arc::clone(&self.router), Arc::clone(feed.pool()));
                let tell = move || router.context.service.tell_refusal(pool.endpoint(), error.message().to_owned());
                let _ = worker::run(tell);
            }
            match state.failures.count {
                0 => {
                    drop(state);
                    let me = Weak::clone(&self.me);
                    // Without a thread the next change of the topology has it tried.
                    let _ = worker::run(move || me.upgrade().iter().for_each(|me| me.try_now()));
                }
                _ => {
                    state.failures.seen = self.router.context.service.version();
                    let pause = state.failures.pause(&self.settings);
                    self.pause(state, pause);
                }
            }
        } else {
            drop(state);
        }
        if answers {
            self.changed.notify_all();
        }
    }
}

impl State {
    /// What is told now of these letters: the gap comes before all that has come since, and ends when everything is heard again. If there
    /// is too much to hold back, the gap is told twice, until now and to its end.
    fn behind_gap(&mut self, letters: Vec<Letter>, told: impl FnOnce(Gap) -> Letter) -> Vec<Letter> {
        let Some(gap) = self.gap.take() else { return letters };
        let is_over = self.wishes.is_renewed();
        if !is_over {
            self.gap = Some(gap.clone());
            if self.held.len() + letters.len() <= MOST_HELD {
                self.held.extend(letters);
                return Vec::new();
            }
        }
        self.gaps += 1;
        let mut all = vec![told(gap)];
        all.append(&mut self.held);
        all.extend(letters);
        all
    }

    /// The connection is gone, and an attempt follows.
    fn lose(&mut self, feed: &Feed, cause: Cause, error: &Error) {
        if self.gap.is_none() && self.wishes.hears_any() {
            let from = feed.pool().name().to_owned();
            let reason = match cause {
                Cause::Switched => format!("{from} is not used any more ({})", error.message()),
                _ => error.message().to_owned(),
            };
            self.gap = Some(Gap { since: self.alive, from, cause, reason });
        }
        feed.note_end(match cause {
            Cause::Lost => End::of(error).unwrap_or(End::Lost),
            Cause::Silent => End::Silent,
            Cause::Switched | Cause::Link => End::Role,
            Cause::Overflow | Cause::Credentials => End::GivenUp,
        });
        self.wishes.lost();
        self.asked = None;
        self.stage = Stage::Waits;
        self.number += 1;
        match self.connected.elapsed() >= STEADY {
            true => self.failures = Failures::default(),
            false => {
                self.failures.count += 1;
                self.failures.last = Some(error.clone());
            }
        }
        feed.end();
    }
}

impl Failures {
    /// The next route need not avoid what has failed.
    fn route_anew(&mut self) {
        self.tried.clear();
        (self.stale, self.version) = (0, 0);
    }

    /// Notes a failure. True: the program is told of it, because it does not pass by itself, or has lasted.
    fn note(&mut self, error: &Error, lasts: Duration) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        let passes = error.has(flags::RETRYABLE)
            || matches!(
                error.status(),
                Status::Timeout
                    | Status::Io
                    | Status::Connect
                    | Status::Resolve
                    | Status::Role
                    | Status::NoSentinel
                    | Status::NoPrimary
                    | Status::NoReplica
                    | Status::SplitView
            );
        self.count += 1;
        // That the next primary is still looked for says less than why it is.
        let is_reason = error.status() != Status::Timeout;
        if is_reason || self.last.is_none() {
            self.last = Some(error.clone());
        }
        let what = if passes { Told::Lasts } else { Told::Refused(error.status()) };
        let is_due = !passes || since.elapsed() >= lasts;
        if !is_due || self.told.contains(&what) {
            return false;
        }
        self.told.push(what);
        true
    }

    /// How long to wait before the next attempt. Another replica is tried at once.
    fn pause(&self, settings: &ClientSettings) -> Duration {
        if !self.tried.is_empty() {
            return Duration::ZERO;
        }
        let retry = settings.retry;
        let doubled = retry.backoff_min.saturating_mul(1 << self.count.saturating_sub(1).min(MOST_DOUBLED));
        doubled.min(retry.backoff_max).mul_f64(0.5 + random::rng().f64() / 2.0)
    }
}

fn answer(reply: Reply) -> Event {
    Event { kind: kind::MESSAGE, token: 0, outcome: Ok(Some(reply)) }
}

fn failed(error: Error) -> Event {
    Event { kind: kind::MESSAGE, token: 0, outcome: Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_once_when_it_lasts_and_each_refusal_once() {
        let long = Duration::from_secs(3600);
        let told = |failures: &mut Failures, error: Error, lasts| failures.note(&error, lasts);
        let switched = || Error::new(Status::Io, "not used any more").with_flags(flags::FAILOVER);
        let (looked_for, auth) =
            (|| Error::new(Status::Timeout, "still looked for"), || Error::new(Status::Auth, "no"));
        let mut failures = Failures::default();
        assert!(!told(&mut failures, switched(), long) && !told(&mut failures, looked_for(), long));
        assert_eq!(failures.last.as_ref().map(Error::status), Some(Status::Io), "that says more");
        assert!(told(&mut failures, looked_for(), Duration::ZERO), "it has lasted");
        assert!(![switched(), looked_for(), switched()].into_iter().any(|e| told(&mut failures, e, Duration::ZERO)));
        assert!(told(&mut failures, auth(), long) && !told(&mut failures, auth(), long));
        assert!(!told(&mut failures, switched(), Duration::ZERO) && !told(&mut failures, auth(), long));
    }
}
