//! The lane of calls that nobody waits for, and who looks after it: a drain that waits, or one worker for the whole process.
//!
//! Guarantees: while such a call is under way somebody looks when its socket is ready and when its deadline comes; a thread that submits
//! and drains in turn is left alone by the worker; the worker goes home when there was nothing to do for a while. Blocking callers
//! never share the lane, unless the pool has no place for another connection. Leaves to others: what a completion means (client).

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::{Inner, Pool};
use crate::config::LaneSettings;
use crate::error::{Error, Result};
use crate::lane::{Completion, Lane, Tended, Unit};
use crate::net::Waker;
use crate::sys::fork::PerProcess;
use crate::sys::poll::{self, PollFd};
use crate::time::{Deadline, Instant};
use crate::worker;

/// A drain that has just left will probably be back: until then the worker leaves its lanes alone.
const GRACE: Duration = Duration::from_millis(5);
/// How often the worker looks whether a drain is still there.
const GLANCE: Duration = Duration::from_millis(10);
/// A caller leads the lane: it reads for all.
const LED: Duration = Duration::from_millis(1);
/// While the server is at one batch the next one is on its way: who submits and who serves work at the same time.
const BATCHES: usize = 2;
/// A lane without work for so long is not looked after any more; upkeep does.
const REST: Duration = Duration::from_secs(2);

/// What a lane of calls that nobody waits for is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Ordinary calls, in the order of their start.
    Plain,
    /// Writes with their WAIT, which holds up whatever comes after it (rule 17).
    Durable,
    /// One call that blocks its connection.
    Apart,
}

/// A lane for calls that nobody waits for.
pub struct Post {
    lane: Arc<Lane>,
    /// The connection is for these calls alone.
    pub(super) own: bool,
    /// Of those for one call at a time: it is in use.
    claimed: AtomicBool,
    born: Instant,
    drains: AtomicUsize,
    /// Until when the worker leaves it alone, in microseconds since `born`.
    left_until: AtomicU64,
    /// The worker knows of it.
    attended: AtomicBool,
    /// When the worker looks at the latest, likewise.
    next_look: AtomicU64,
}

impl Post {
    fn new(lane: Arc<Lane>, own: bool) -> Arc<Self> {
        Arc::new(Self {
            lane,
            own,
            claimed: AtomicBool::new(false),
            born: Instant::now(),
            drains: AtomicUsize::new(0),
            left_until: AtomicU64::new(0),
            attended: AtomicBool::new(false),
            next_look: AtomicU64::new(0),
        })
    }

    /// Begins a call, as [`Lane::start`], and sees to it that somebody looks after it.
    pub fn start(
        self: &Arc<Self>,
        unit: Unit<'_>,
        deadline: Deadline,
        call: Arc<dyn Completion>,
        of_list: Option<Instant>,
    ) -> Result<()> {
        let due = self.lane.start(unit, deadline, call, of_list)?;
        self.attend(due);
        Ok(())
    }

    /// Sends what the calls of a list have left in the lane.
    pub fn send(self: &Arc<Self>) {
        if let Some(due) = self.lane.send_now() {
            self.attend(Some(due));
        }
    }

    /// The lane.
    pub fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    /// The one call that it was for is over. With `spoiled` nobody knows what is still to come from there: it is closed.
    pub fn release(&self, spoiled: Option<Error>) {
        if let Some(cause) = spoiled {
            self.lane.shut(cause);
        }
        self.claimed.store(false, Ordering::Release);
    }

    fn claim(&self) -> bool {
        !self.lane.is_dead() && self.lane.in_flight() == 0 && !self.claimed.swap(true, Ordering::AcqRel)
    }

    /// The socket, for poll.
    pub fn fd(&self) -> RawFd {
        self.lane.fd()
    }

    /// A drain looks after it from now on.
    pub fn enter(&self) {
        self.drains.fetch_add(1, Ordering::AcqRel);
    }

    /// The drain is over.
    pub fn leave(&self) {
        self.leave_alone(GRACE);
        self.drains.fetch_sub(1, Ordering::AcqRel);
    }

    fn leave_alone(&self, time: Duration) {
        self.left_until.store(self.micros(Instant::now() + time), Ordering::Release);
    }

    fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.born).as_micros() as u64
    }

    /// Makes the worker know of it, and look soon enough.
    fn attend(self: &Arc<Self>, due: Option<Instant>) {
        if !self.attended.swap(true, Ordering::AcqRel) {
            attendant().add(self);
        } else if due.is_some_and(|due| self.micros(due) < self.next_look.load(Ordering::Acquire)) {
            attendant().nudge();
        }
    }

    /// When the worker may look after it: now, or not before this.
    fn free_at(&self, now: Instant) -> Option<Instant> {
        if self.drains.load(Ordering::Acquire) > 0 {
            return Some(now + GLANCE);
        }
        let until = self.born + Duration::from_micros(self.left_until.load(Ordering::Acquire));
        (until > now).then_some(until)
    }
}

impl Pool {
    /// The lane of calls that nobody waits for, if it is open. Those for one call at a time have to be claimed.
    pub fn post(&self, traffic: Traffic) -> Option<Arc<Post>> {
        self.slot(traffic)?.load_full().filter(|post| !post.lane.is_dead())
    }

    fn slot(&self, traffic: Traffic) -> Option<&ArcSwapOption<Post>> {
        match traffic {
            Traffic::Plain => Some(&self.posts[0]),
            Traffic::Durable => Some(&self.posts[1]),
            Traffic::Apart => None,
        }
    }

    /// The same, opened if need be: on a connection of its own, or, for ordinary calls with no place for one, on the first lane of
    /// all. `None`: there is no place at the moment.
    pub fn open_post(self: &Arc<Self>, traffic: Traffic, deadline: Deadline) -> Result<Option<Arc<Post>>> {
        if let Some(post) = self.post(traffic).or_else(|| self.claim_apart(traffic)) {
            return Ok(Some(post));
        }
        // The place of one that has ended is free.
        self.drop_dead_lanes();
        if self.reserve() {
            return self.open_own(traffic, deadline).map(Some);
        }
        self.lock().check()?;
        if traffic != Traffic::Plain {
            return Ok(None);
        }
        let post = Post::new(self.first_lane(deadline)?, false);
        let mut inner = self.lock();
        inner.check()?;
        replace(&mut inner, &self.posts[0], &post);
        Ok(Some(post))
    }

    /// Opens one on a connection of its own, in a place that is counted already.
    fn open_own(self: &Arc<Self>, traffic: Traffic, deadline: Deadline) -> Result<Arc<Post>> {
        let (conn, round) = self.open(deadline).inspect_err(|_| self.free_place(&mut self.lock()))?;
        self.start_upkeep();
        let settings = LaneSettings { hold_batches: BATCHES, ..self.lane_settings };
        let lane = Arc::new(Lane::new(conn, self.name.clone(), settings));
        self.place(Post::new(lane, true), traffic, round)
    }

    /// Opens successors of those that are to be replaced although they are in use.
    pub(super) fn replace_old_posts(self: &Arc<Self>, is_old: impl Fn(&Lane) -> bool) {
        for traffic in [Traffic::Plain, Traffic::Durable] {
            let old = self.post(traffic).filter(|post| post.own && is_old(&post.lane));
            let limit = Deadline::after(self.connect.load().timeout_connect);
            if old.is_some() && (!self.reserve() || self.open_own(traffic, limit).is_err()) {
                return;
            }
        }
    }

    fn claim_apart(&self, traffic: Traffic) -> Option<Arc<Post>> {
        let inner = self.lock();
        let mut posts = inner.apart.iter().filter(|_| traffic == Traffic::Apart);
        posts.find(|post| post.claim()).cloned()
    }

    fn place(&self, post: Arc<Post>, traffic: Traffic, round: u64) -> Result<Arc<Post>> {
        let mut inner = self.lock();
        if let Err(cause) = inner.check() {
            self.free_place(&mut inner);
            return Err(cause);
        }
        if round != inner.loans.round() {
            // Opened under options that have changed since: it serves this once.
            inner.draining.push(Arc::clone(&post.lane));
            return Ok(post);
        }
        match self.slot(traffic) {
            Some(slot) => replace(&mut inner, slot, &post),
            None => {
                post.claim();
                inner.apart.push(Arc::clone(&post));
            }
        }
        Ok(post)
    }

    /// All lanes that are used for such calls alone.
    pub(super) fn own_posts(&self) -> Vec<Arc<Lane>> {
        let apart = self.lock().apart.clone();
        let posts = self.posts.iter().filter_map(|slot| slot.load_full());
        posts.chain(apart).filter(|post| post.own).map(|post| Arc::clone(&post.lane)).collect()
    }

    /// Takes lanes out of use that are not to be kept; what is under way on them goes on.
    pub(super) fn drain_posts(&self, inner: &mut Inner, keep: impl Fn(&Lane) -> bool) {
        for slot in &self.posts {
            let Some(post) = slot.load_full() else { continue };
            let is_shared = || self.lanes.load().iter().any(|lane| Arc::ptr_eq(lane, &post.lane));
            if if post.own { !keep(&post.lane) } else { !is_shared() } {
                slot.store(None);
                inner.draining.extend(Some(&post.lane).filter(|_| post.own).cloned());
            }
        }
        let (kept, gone): (Vec<_>, Vec<_>) = inner.apart.drain(..).partition(|post| keep(&post.lane));
        inner.apart = kept;
        inner.draining.extend(gone.iter().map(|post| Arc::clone(&post.lane)));
    }
}

/// Puts a lane where new calls find it; the one that was there counts until it has answered everything.
fn replace(inner: &mut Inner, slot: &ArcSwapOption<Post>, post: &Arc<Post>) {
    let other = slot.swap(Some(Arc::clone(post)));
    inner.draining.extend(other.filter(|other| other.own).map(|other| Arc::clone(&other.lane)));
}

/// Looks after all lanes of the process that have calls under way which no drain looks after.
#[derive(Default)]
struct Attendant {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    posts: Vec<Arc<Post>>,
    works: bool,
    /// While it works. Without one (no descriptor was left) it looks often instead of being woken.
    waker: Option<Arc<Waker>>,
}

static ATTENDANT: PerProcess<Attendant> = PerProcess::new();

fn attendant() -> &'static Attendant {
    ATTENDANT.get_or_make(Attendant::default)
}

impl Attendant {
    fn add(&'static self, post: &Arc<Post>) {
        let mut state = self.state();
        state.posts.push(Arc::clone(post));
        if state.works {
            drop(state);
            return self.nudge();
        }
        self.begin(&mut state);
    }

    fn begin(&'static self, state: &mut State) {
        state.works = worker::run(|| self.work()).is_ok();
        if state.works {
            state.waker = Waker::new().ok().map(Arc::new);
        } else {
            // No thread: drains read, and the next call tries again.
            state.posts.drain(..).for_each(|post| post.attended.store(false, Ordering::Release));
        }
    }

    fn nudge(&self) {
        let waker = self.state().waker.clone();
        waker.iter().for_each(|waker| waker.wake());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&'static self) {
        let shift = Shift(self);
        let mut posts = Vec::new();
        while let Some(waker) = self.gather(&mut posts) {
            look(&posts, waker.as_deref());
        }
        std::mem::forget(shift);
    }

    /// The posts that have to be looked after, and what wakes who does it; `None`: there are no posts.
    fn gather(&self, posts: &mut Vec<Arc<Post>>) -> Option<Option<Arc<Waker>>> {
        let mut state = self.state();
        state.posts.retain(|post| {
            let idle = post.lane.idle_for();
            let over = if post.lane.is_dead() { post.lane.in_flight() == 0 } else { idle > REST };
            if !over {
                return true;
            }
            post.attended.store(false, Ordering::SeqCst);
            // A call that began at this moment may have found it attended.
            post.lane.idle_for().is_zero() && !post.lane.is_dead() && !post.attended.swap(true, Ordering::SeqCst)
        });
        posts.clone_from(&state.posts);
        if posts.is_empty() {
            (state.works, state.waker) = (false, None);
            return None;
        }
        Some(state.waker.clone())
    }
}

/// Waits once, and looks after what is ready or due.
fn look(posts: &[Arc<Post>], waker: Option<&Waker>) {
    let now = Instant::now();
    let mut next = now + if waker.is_some() { REST } else { GLANCE };
    // The upkeep of pools is due while this job lasts, too.
    next = worker::keep_the_clock().map_or(next, |due| due.min(next));
    let mut fds = vec![PollFd::new(waker.map_or(-1, Waker::fd), true, false)];
    let mut full = Vec::with_capacity(posts.len());
    for post in posts {
        let free_at = post.free_at(now);
        let due = post.lane.next_due();
        next = [free_at, due].into_iter().flatten().fold(next, Instant::min);
        let fd = if free_at.is_some() { -1 } else { post.fd() };
        let wants_write = post.lane.wants_write();
        fds.push(PollFd::new(fd, true, wants_write));
        full.push(wants_write);
    }
    posts.iter().for_each(|post| post.next_look.store(post.micros(next), Ordering::Release));
    // A deadline that came between the look and the store is seen at once, and so is a socket that was filled there.
    let filled = posts.iter().zip(full).any(|(post, full)| !full && post.lane.wants_write());
    let due = if filled { Some(now) } else { posts.iter().filter_map(|post| post.lane.next_due()).min() };
    let early = due.map_or(next, |due| due.min(next));
    // After a failure of poll all are looked after: who tends a lane does not wait.
    let failed = poll::wait(&mut fds, Some(early.saturating_duration_since(Instant::now()))).is_err();
    if fds[0].readable() {
        waker.iter().for_each(|waker| waker.clear());
    }
    let now = Instant::now();
    for (post, fd) in posts.iter().zip(&fds[1..]) {
        let is_due = post.lane.next_due().is_some_and(|due| due <= now);
        if failed || fd.readable() || fd.writable() || is_due || post.lane.wants_write() {
            let Tended { led, .. } = post.lane.tend();
            if led {
                post.leave_alone(LED);
            }
        }
    }
}

/// If a completion panics the lane is ended by its own guard; the rest has to be looked after again.
struct Shift(&'static Attendant);

impl Drop for Shift {
    fn drop(&mut self) {
        let mut state = self.0.state();
        self.0.begin(&mut state);
    }
}
