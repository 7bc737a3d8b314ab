//! The monitor: one thread for the process. It listens to all Sentinels of all handles, and drives all discoveries.
//!
//! Guarantees: never waits for a Sentinel; a panic while one handle is driven pauses that handle for a second; the
//! thread starts with the first use of a handle, and ends when the last handle is closed. Leaves to others: what is
//! done for a handle (handle_state) and for a discovery (running).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::handle_state::{HandleState, NAP, kept};
use super::overhear::Crowd;
use super::running::{self, Discoveries};
use super::sentinel::Sentinel;
use super::service::Wanted;
use super::subscriptions::Subscriptions;
use crate::config::MonitorMode;
use crate::sys::fork::PerProcess;
use crate::sys::poll::{self, Found, PollFd};
use crate::sys::rank::Rank;
use crate::sys::sync::{Lock, Locked};
use crate::sys::thread;
use crate::sys::waker::Waker;

static MONITOR: PerProcess<Monitor> = PerProcess::new();

/// Watches the Sentinels of a handle from now on, unless its `monitor` is off.
pub(super) fn register(sentinel: &Arc<Sentinel>) {
    if sentinel.settings().sentinel.monitor.mode == MonitorMode::Off || sentinel.is_closed() {
        return;
    }
    let monitor = MONITOR.get_or_make(Monitor::new);
    let mut state = monitor.state();
    if monitor.adopt(&mut state, sentinel) {
        state.recheck = true;
        state.wake();
    }
}

/// Starts a discovery; gives it back if no thread watches the Sentinels of its handle.
pub(super) fn discover(sentinel: &Arc<Sentinel>, wanted: Wanted) -> Option<Wanted> {
    if sentinel.settings().sentinel.monitor.mode == MonitorMode::Off || sentinel.is_closed() {
        return Some(wanted);
    }
    let monitor = MONITOR.get_or_make(Monitor::new);
    let mut state = monitor.state();
    monitor.adopt(&mut state, sentinel);
    if state.waker.is_none() {
        return Some(wanted);
    }
    state.wanted.push(wanted);
    if state.thread != Some(thread::id()) {
        state.wake();
    }
    None
}

/// Tells the monitor that a requested discovery has become more urgent.
pub(super) fn hurry(wanted: Wanted) {
    let mut state = MONITOR.get_or_make(Monitor::new).state();
    state.hurried.push(wanted);
    if state.thread != Some(thread::id()) {
        state.wake();
    }
}

/// Has the monitor check all handles and services: a handle was closed, or a discovery ended on another thread.
pub(super) fn recheck() {
    let mut state = MONITOR.get_or_make(Monitor::new).state();
    state.recheck = true;
    state.wake();
}

struct Monitor(Lock<MonitorState>);

#[derive(Default)]
struct MonitorState {
    handles: Vec<Weak<Sentinel>>,
    /// Wakes the running thread; `None`: there is none.
    waker: Option<Arc<Waker>>,
    /// The running thread.
    thread: Option<libc::pthread_t>,
    /// Discoveries to start.
    wanted: Vec<Wanted>,
    /// Requested discoveries that have become more urgent.
    hurried: Vec<Wanted>,
    /// Something changed without an event: all services are checked.
    recheck: bool,
}

impl MonitorState {
    fn has_wanted(&self) -> bool {
        !self.wanted.is_empty() || !self.hurried.is_empty()
    }

    fn wake(&self) {
        self.waker.iter().for_each(|waker| waker.wake());
    }
}

impl Monitor {
    fn new() -> Self {
        Self(Lock::new(Rank::Monitor, MonitorState::default()))
    }

    fn state(&self) -> Locked<'_, MonitorState> {
        self.0.lock()
    }

    /// Adds a handle, and starts the thread if it is not running; whether the handle is new.
    fn adopt(&'static self, state: &mut MonitorState, sentinel: &Arc<Sentinel>) -> bool {
        let is_new = !state.handles.iter().any(|handle| std::ptr::eq(handle.as_ptr(), Arc::as_ptr(sentinel)));
        if is_new {
            state.handles.push(Arc::downgrade(sentinel));
        }
        if state.waker.is_some() {
            return is_new;
        }
        // Without a descriptor or a thread there are no events: calls ask the Sentinels when something fails, and the
        // next use tries again.
        let Ok(waker) = Waker::new().map(Arc::new) else { return is_new };
        let own = Arc::clone(&waker);
        if thread::spawn("vigie-monitor", move || self.run(own)).is_ok() {
            state.waker = Some(waker);
        }
        is_new
    }

    fn run(&self, waker: Arc<Waker>) {
        self.state().thread = Some(thread::id());
        let (mut handles, mut discoveries) = (Vec::<HandleState>::new(), Discoveries::default());
        let mut subscriptions = Subscriptions::default();
        let (mut tidied, mut found) = (Instant::now(), Found::all());
        loop {
            waker.clear();
            let Some(recheck) = self.take_in(&mut handles) else {
                return discoveries.abandon();
            };
            let now = Instant::now();
            let due = subscribe(&mut subscriptions, &mut handles, &found, &waker);
            let mut wake = due.map_or(now + NAP, |at| at.min(now + NAP));
            let mut crowd = Crowd::new();
            handles.iter().for_each(|handle| handle.count_deaf(&mut crowd));
            for handle in &mut handles {
                let driven = catch_unwind(AssertUnwindSafe(|| handle.drive(&waker, &crowd, recheck)));
                wake = wake.min(driven.unwrap_or_else(|_| handle.restart()));
            }
            let (wanted, hurried) = self.take_wanted();
            discoveries.take_on(wanted, &hurried);
            let driven = catch_unwind(AssertUnwindSafe(|| discoveries.drive(&found, &waker)));
            let finished = driven.unwrap_or_else(|_| {
                discoveries.restart();
                Vec::new()
            });
            if !finished.is_empty() {
                handles.iter_mut().for_each(|handle| handle.note_finished(&finished));
            }
            // Handles what follows from it before waiting again.
            let goes_on = !finished.is_empty() || self.state().has_wanted();
            let wake = if goes_on { now } else { wake };
            if !finished.is_empty() || now.saturating_duration_since(tidied) >= NAP {
                tidied = now;
                discoveries.tidy(&kept(&handles));
            }
            let wake = discoveries.wakes_at().map_or(wake, |at| at.min(wake));
            let mut fds: Vec<PollFd> =
                handles.iter().flat_map(HandleState::poll_fds).chain(discoveries.poll_fds()).collect();
            fds.extend(subscriptions.poll_fds());
            fds.push(PollFd::new(waker.fd(), true, false));
            let timeout = wake.saturating_duration_since(Instant::now());
            // If poll fails, everything is driven, as after the longest sleep.
            let waited = poll::wait(&mut fds, Some(timeout));
            found = if waited.is_ok() { Found::of(&fds) } else { Found::all() };
        }
    }

    /// The discoveries to start, and those that have become more urgent.
    fn take_wanted(&self) -> (Vec<Wanted>, Vec<Wanted>) {
        let mut state = self.state();
        (std::mem::take(&mut state.wanted), std::mem::take(&mut state.hurried))
    }

    /// Adds new handles and drops closed ones; whether all services are to be checked. `None` if there is no handle
    /// left, and the thread ends.
    fn take_in(&self, handles: &mut Vec<HandleState>) -> Option<bool> {
        let mut state = self.state();
        // A handle that was added changes the count, and a closed one sets `recheck`.
        if !state.recheck && !handles.is_empty() && state.handles.len() == handles.len() {
            return Some(false);
        }
        // Kept longer than the lock: dropping the last reference to a handle calls `recheck`, which takes the lock.
        let alive: Vec<_> = state.handles.iter().filter_map(Weak::upgrade).collect();
        let is_open = |handle: &Weak<Sentinel>| {
            alive.iter().any(|sentinel| std::ptr::eq(Arc::as_ptr(sentinel), handle.as_ptr()) && !sentinel.is_closed())
        };
        state.handles.retain(is_open);
        handles.retain(|one| state.handles.iter().any(|handle| handle.ptr_eq(&one.sentinel)));
        for handle in &state.handles {
            if !handles.iter().any(|one| one.sentinel.ptr_eq(handle)) {
                handles.push(HandleState::new(handle.clone()));
            }
        }
        let recheck = std::mem::take(&mut state.recheck);
        let mut unwanted = Vec::new();
        if handles.is_empty() {
            (state.waker, state.thread) = (None, None);
            unwanted = std::mem::take(&mut state.wanted);
        }
        drop(state);
        unwanted.iter().for_each(running::abandon);
        (!handles.is_empty()).then_some(recheck)
    }
}

/// Keeps the subscriptions that the handles use, and drives them; when to come back even if nothing happens.
fn subscribe(
    subscriptions: &mut Subscriptions,
    handles: &mut [HandleState],
    found: &Found,
    waker: &Arc<Waker>,
) -> Option<Instant> {
    let mut wake = None;
    for handle in handles {
        if catch_unwind(AssertUnwindSafe(|| handle.subscribe(subscriptions))).is_err() {
            wake = Some(handle.restart()).into_iter().chain(wake).min();
        }
    }
    subscriptions.drive(found, waker);
    subscriptions.wakes_at().into_iter().chain(wake).min()
}
