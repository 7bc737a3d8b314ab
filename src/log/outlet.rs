//! The way of lines to a descriptor of the program: they wait in the ring until a job writes them.
//!
//! Guarantees: lines go to the file that the descriptor stood for when it was set, also if its number stands for another one since; one
//! job at a time writes, and it also closes what is kept of the descriptor, because both may hang; who ends an outlet waits at most
//! [`LAST_LINES`], asleep. Leaves to others: what a line says, and which outlet is in use (log).

use std::os::fd::RawFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::ring::Ring;
use super::{Log, dropped, format};
use crate::config::LogFormat;
use crate::resp::Reply;
use crate::sys::descriptor::{AT_ONCE, Kept, Place, Wrote};
use crate::sys::rank::Rank;
use crate::sys::sync::{Condvar, Lock, Locked};
use crate::worker::{self, Host};

/// How long a full descriptor is left alone, first and at most.
const PAUSE: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];
/// How long a close lets the last lines go out.
const LAST_LINES: Duration = Duration::from_millis(50);

/// Where the lines of a log go.
pub(super) struct Outlet {
    /// The program's number for the descriptor.
    number: RawFd,
    /// Where a forked child finds it.
    place: Place,
    log: Weak<Log>,
    state: Lock<State>,
    /// The writer has stopped.
    stopped: Condvar,
    me: Weak<Self>,
}

struct State {
    /// `None`: nothing can or should be written any more.
    fd: Option<Arc<Kept>>,
    format: LogFormat,
    ring: Ring,
    writer: Writer,
    pause: Duration,
    /// It takes no line any more.
    ended: bool,
}

/// The job that writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    None,
    Due,
    /// It comes back when the descriptor may have room again.
    Paused,
}

impl Outlet {
    pub(super) fn new(fd: Kept, format: LogFormat, log: Weak<Log>) -> Arc<Self> {
        let (number, place) = (fd.number(), fd.place());
        let (ring, writer, pause) = (Ring::default(), Writer::None, PAUSE[0]);
        let state = State { fd: Some(Arc::new(fd)), format, ring, writer, pause, ended: false };
        let state = Lock::new(Rank::Log, state);
        Arc::new_cyclic(|me| Self { number, place, log, state, stopped: Condvar::new(), me: Weak::clone(me) })
    }

    /// What it writes to, kept once more in a forked child.
    pub(super) fn inherited(&self) -> Option<Kept> {
        Kept::inherited(self.place)
    }

    pub(super) fn set_format(&self, format: LogFormat) {
        self.lock().format = format;
    }

    /// Takes a line.
    pub(super) fn push(&self, line: &Reply, at: Duration) {
        let format = self.lock().format;
        let text = format::line(line, format);
        let mut state = self.lock();
        if state.ended || state.fd.is_none() {
            return;
        }
        state.ring.push(text, at, &|lost| dropped(lost, format));
        if state.writer == Writer::None {
            self.start(state);
        }
    }

    /// Takes no more lines. A writer that is at work writes what there is room for, and closes what is kept.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.ended, true) || state.fd.is_none() || state.writer == Writer::Due {
            return;
        }
        // A pause means that there is no room, and nobody waits for a reader.
        state.ring = Ring::default();
        self.start(state);
    }

    /// After [`Outlet::end`]: waits until the last lines are written, but not for a file that hangs. The write that is under way then is
    /// the last one.
    pub(super) fn await_end(&self) {
        let begun = Instant::now();
        let mut state = self.lock();
        while state.writer == Writer::Due {
            let left = LAST_LINES.saturating_sub(begun.elapsed());
            if left.is_zero() {
                state.ring = Ring::default();
                return;
            }
            state = self.stopped.wait_timeout(state, left);
        }
    }

    fn lock(&self) -> Locked<'_, State> {
        self.state.lock()
    }

    /// Among the jobs that may wait, because not every system can promise that a write does not. A file that hangs takes no thread from
    /// other ones.
    fn start(&self, mut state: Locked<'_, State>) {
        let Some(me) = self.me.upgrade() else { return };
        state.writer = Writer::Due;
        drop(state);
        if worker::dial(Host::of(("the log", self.number)), false, move || me.drain()).is_err() {
            // Without a thread the lines stay until the next one comes.
            let mut state = self.lock();
            state.writer = Writer::None;
            let useless = if state.ended { state.fd.take() } else { None };
            drop(state);
            drop(useless);
        }
    }

    /// Writes what there is room for.
    fn drain(&self) {
        loop {
            let mut state = self.lock();
            let format = state.format;
            let bytes = state.ring.next(AT_ONCE, &|lost| dropped(lost, format));
            let Some(fd) = state.fd.clone().filter(|_| !bytes.is_empty()) else {
                return self.stop(state);
            };
            drop(state);
            let wrote = fd.write_now(&bytes);
            drop(fd);
            if !self.note(wrote) {
                return;
            }
        }
    }

    /// Whether the writer goes on.
    fn note(&self, wrote: Wrote) -> bool {
        let mut state = self.lock();
        match wrote {
            Wrote::Bytes(bytes) => {
                state.ring.wrote(bytes);
                state.pause = PAUSE[0];
                return true;
            }
            Wrote::Full if state.ended => {
                state.ring = Ring::default();
                self.stop(state);
            }
            Wrote::Full => {
                let pause = state.pause;
                (state.writer, state.pause) = (Writer::Paused, (pause * 2).min(PAUSE[1]));
                drop(state);
                self.pause(pause);
            }
            Wrote::Over(error) => {
                (state.ended, state.ring) = (true, Ring::default());
                self.stop(state);
                if let Some(log) = self.log.upgrade() {
                    log.tell_over(self.number, &error);
                }
            }
        }
        false
    }

    /// The writer stops. At the end it closes what is kept, outside the lock.
    fn stop(&self, mut state: Locked<'_, State>) {
        let useless = if state.ended { state.fd.take() } else { None };
        if useless.is_some() {
            drop(state);
            drop(useless);
            self.lock().writer = Writer::None;
        } else {
            state.writer = Writer::None;
            drop(state);
        }
        self.stopped.notify_all();
    }

    fn pause(&self, pause: Duration) {
        let me = self.me.clone();
        let again = move || {
            let Some(outlet) = me.upgrade() else { return };
            let state = outlet.lock();
            if state.writer == Writer::Paused {
                outlet.start(state);
            }
        };
        if worker::after(pause, self.me.clone(), again).is_err() {
            self.lock().writer = Writer::None;
        }
    }
}
