//! The log of a handle: what happens to it, line by line, as events and on a descriptor of the program.
//!
//! Guarantees: off by default, and then one load where something happens; nothing on the way of a call. Nobody waits for a reader: lines
//! wait in a bounded ring, a job writes as many as there is room for, and what does not fit is counted and told in its place. The
//! descriptor stays the program's; after [`Log::close`] nothing is written to it. A descriptor that is no use any more is given up, and
//! told once. Leaves to others: what is said (each place that knows), and what a line contains (none has been given a secret).

mod format;
pub mod lines;
mod ring;

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::config::{LogFormat, LogLevel, LogSettings};
use crate::queue::kind;
use crate::resp::fields::{self, Field, MapInfo, Value::Text, field};
use crate::resp::{Reply, ReplyBuilder};
use crate::sys::descriptor::{self, AT_ONCE, Wrote};
use crate::sys::rank::Rank;
use crate::sys::sync::{Lock, Locked};
use crate::worker::{self, Host};

pub use lines::Head;
use ring::Ring;

/// Adds the keys of what happened to a line.
pub type Rest<'a> = &'a dyn Fn(&mut ReplyBuilder);

/// How long a full descriptor is left alone, first and at most.
const PAUSE: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];
/// How long a close lets the last lines go out.
const LAST_LINES: Duration = Duration::from_millis(50);

const LINE: &[Field<(Head, String)>] = &[
    field(
        "time",
        Text(|of| (&*of.1).into()),
        "",
        "When, by the clock of the system: RFC 3339 in UTC, with microseconds.",
    ),
    field("level", Text(|of| word(of.0.level).into()), "", "`error`, `warning`, `info` or `debug`."),
    field("target", Text(|of| of.0.target.into()), "", "What it is about, as a word that programs can choose by."),
    field("message", Text(|of| of.0.message.into()), "", "What happened, for people."),
];

/// The map of a line, for EVENTS.md.
pub fn line_map() -> (u32, MapInfo) {
    (kind::LOG, fields::describe("LOG", LINE))
}

/// The word of a level.
pub fn word(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Off => "off",
        LogLevel::Error => "error",
        LogLevel::Warning => "warning",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    }
}

/// The log of a handle.
pub struct Log {
    level: AtomicU8,
    /// Gives a line to the queues that watch the log. Must not wait.
    tell: Box<dyn Fn(Reply) + Send + Sync>,
    state: Lock<State>,
    me: Weak<Self>,
}

struct State {
    fd: Option<RawFd>,
    format: LogFormat,
    ring: Ring,
    writer: Writer,
    pause: Duration,
    /// The writer is at the descriptor.
    at_work: bool,
}

/// The job that writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    None,
    Due,
    /// It comes back when the descriptor may have room again.
    Paused,
}

impl Log {
    /// A log with these settings.
    pub fn new(settings: &LogSettings, tell: impl Fn(Reply) + Send + Sync + 'static) -> Arc<Self> {
        let LogSettings { level, fd, format } = *settings;
        let (ring, writer, pause) = (Ring::default(), Writer::None, PAUSE[0]);
        let state = Lock::new(Rank::Log, State { fd, format, ring, writer, pause, at_work: false });
        let level = AtomicU8::new(level as u8);
        Arc::new_cyclic(|me| Self { level, tell: Box::new(tell), state, me: Weak::clone(me) })
    }

    /// Whether lines of this level are written.
    #[inline]
    pub fn admits(&self, level: LogLevel) -> bool {
        level as u8 <= self.level.load(Ordering::Relaxed)
    }

    /// Writes a line. Must not be called with a lock held that stands below those of the watches.
    pub fn write(&self, head: Head, rest: Rest<'_>) {
        if self.admits(head.level) {
            let line = line(head, rest);
            self.keep(&line);
            (self.tell)(line);
        }
    }

    /// Uses these settings from now on. What was written before goes to the descriptor of before, as far as it takes it at once.
    pub fn configure(&self, settings: &LogSettings) {
        if self.lock().fd != settings.fd {
            self.close();
        }
        let mut state = self.lock();
        (state.fd, state.format) = (settings.fd, settings.format);
        drop(state);
        self.level.store(settings.level as u8, Ordering::Relaxed);
    }

    /// Lets the last lines go out, without waiting for a reader, and leaves the descriptor to the program.
    pub fn close(&self) {
        let begun = Instant::now();
        loop {
            let mut state = self.lock();
            let goes_on = state.writer == Writer::Due && begun.elapsed() < LAST_LINES;
            if state.fd.is_none() || !(state.at_work || goes_on) {
                state.fd = None;
                state.ring = Ring::default();
                return;
            }
            drop(state);
            // A handle may be dropped under a lock, where nobody sleeps; the writer waits for nobody.
            std::thread::yield_now();
        }
    }

    fn lock(&self) -> Locked<'_, State> {
        self.state.lock()
    }

    /// Puts a line into the ring, if there is a descriptor.
    fn keep(&self, line: &Reply) {
        let (wanted, format) = {
            let state = self.lock();
            (state.fd.is_some(), state.format)
        };
        if !wanted {
            return;
        }
        let text = format::line(line, format);
        let mut state = self.lock();
        if state.fd.is_none() {
            return;
        }
        state.ring.push(text, &|count| dropped(count, format));
        let starts = state.writer == Writer::None;
        if starts {
            state.writer = Writer::Due;
        }
        drop(state);
        if starts {
            self.start();
        }
    }

    /// Among the jobs that may wait, because not every system can promise that a write does not.
    fn start(&self) {
        let Some(me) = self.me.upgrade() else { return };
        if worker::dial(Host::of("the log"), false, move || me.drain()).is_err() {
            // Without a thread the lines stay until the next one comes.
            self.lock().writer = Writer::None;
        }
    }

    /// Writes what there is room for.
    fn drain(&self) {
        loop {
            let mut state = self.lock();
            let format = state.format;
            let (fd, bytes) = (state.fd, state.ring.next(AT_ONCE, &|count| dropped(count, format)));
            let Some(fd) = fd.filter(|_| !bytes.is_empty()) else {
                state.writer = Writer::None;
                return;
            };
            state.at_work = true;
            drop(state);
            let wrote = descriptor::write_now(fd, &bytes);
            if !self.note(wrote, fd) {
                return;
            }
        }
    }

    /// Whether the writer goes on.
    fn note(&self, wrote: Wrote, fd: RawFd) -> bool {
        let mut state = self.lock();
        state.at_work = false;
        match wrote {
            Wrote::Bytes(bytes) => {
                state.ring.wrote(bytes);
                state.pause = PAUSE[0];
                true
            }
            Wrote::Full => {
                let pause = state.pause;
                (state.writer, state.pause) = (Writer::Paused, (pause * 2).min(PAUSE[1]));
                drop(state);
                self.pause(pause);
                false
            }
            Wrote::Over(error) => {
                (state.fd, state.ring, state.writer) = (None, Ring::default(), Writer::None);
                drop(state);
                (self.tell)(line(lines::FD_OVER, &|out| {
                    out.text("fd").int(fd.into()).text("reason").text(&error.to_string());
                }));
                false
            }
        }
    }

    fn pause(&self, pause: Duration) {
        let me = self.me.clone();
        let again = move || {
            let Some(log) = me.upgrade() else { return };
            let mut state = log.lock();
            if state.writer == Writer::Paused {
                state.writer = Writer::Due;
                drop(state);
                log.start();
            }
        };
        if worker::after(pause, self.me.clone(), again).is_err() {
            self.lock().writer = Writer::None;
        }
    }
}

fn line(head: Head, rest: Rest<'_>) -> Reply {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut out = ReplyBuilder::new();
    out.map();
    fields::append(&mut out, LINE, &(head, format::stamp(since)));
    rest(&mut out);
    out.end().finish()
}

fn dropped(count: u64, format: LogFormat) -> Vec<u8> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let line = line(lines::DROPPED, &|out| {
        out.text("count").int(count);
    });
    format::line(&line, format)
}
