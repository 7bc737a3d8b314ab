//! The log of a handle: what happens to it, line by line, as events and on a descriptor of the program.
//!
//! Guarantees: off by default, and then one load where something happens; nothing on the way of a call. Nobody waits for a reader: lines
//! wait in a bounded ring, a job writes as many as there is room for, and what does not fit is counted and told in its place. Lines go to
//! the file, pipe or socket that the descriptor was when it was set, and to nothing else; once an [`Ending`] was waited for, no write
//! begins. A descriptor that is no use any more is given up, and told once. Leaves to others: what is said (each place that knows), and
//! what a line contains (none has been given a secret).

mod format;
pub mod lines;
mod outlet;
mod ring;

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;

use crate::config::{LogFormat, LogLevel, LogSettings};
use crate::queue::kind;
use crate::resp::fields::{self, Field, MapInfo, Value::Text, field};
use crate::resp::{Reply, ReplyBuilder};
use crate::sys::descriptor::Kept;
use crate::sys::rank::Rank;
use crate::sys::sync::Lock;

pub use lines::Head;
use outlet::Outlet;

/// Adds the keys of what happened to a line.
pub type Rest<'a> = &'a dyn Fn(&mut ReplyBuilder);

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
    outlet: ArcSwapOption<Outlet>,
    /// Held from the time of a line until it has its place.
    order: Lock<()>,
    me: Weak<Self>,
}

/// What was written to before, and still has its last lines.
#[must_use = "the last lines take a moment"]
pub struct Ending(Option<Arc<Outlet>>);

impl Ending {
    /// Lets the last lines go out, without waiting for a reader, and for 50 ms at most.
    pub fn wait(self) {
        if let Some(outlet) = self.0 {
            outlet.await_end();
        }
    }
}

impl Log {
    /// A log with these settings. It writes to the descriptor that is kept.
    pub fn new(settings: &LogSettings, kept: Option<Kept>, tell: impl Fn(Reply) + Send + Sync + 'static) -> Arc<Self> {
        let level = AtomicU8::new(settings.level as u8);
        Arc::new_cyclic(|me: &Weak<Self>| {
            let outlet = kept.map(|kept| Outlet::new(kept, settings.format, Weak::clone(me)));
            Self {
                level,
                tell: Box::new(tell),
                outlet: ArcSwapOption::new(outlet),
                order: Lock::new(Rank::LogLines, ()),
                me: Weak::clone(me),
            }
        })
    }

    /// Whether lines of this level are written.
    #[inline]
    pub fn admits(&self, level: LogLevel) -> bool {
        level as u8 <= self.level.load(Ordering::Relaxed)
    }

    /// Writes a line: lines stand in the order of their times. Must not be called with a lock held that stands below this order.
    pub fn write(&self, head: Head, rest: Rest<'_>) {
        if self.admits(head.level) {
            let _order = self.order.lock();
            let at = now();
            let line = line(head, at, rest);
            if let Some(outlet) = &*self.outlet.load() {
                outlet.push(&line, at);
            }
            (self.tell)(line);
        }
    }

    /// Uses these settings from now on, and the descriptor that is kept; without one it stays with that of before, unless it is off now.
    pub fn configure(&self, settings: &LogSettings, kept: Option<Kept>) -> Ending {
        let replaces = kept.is_some() || settings.fd.is_none();
        let outlet = kept.map(|kept| Outlet::new(kept, settings.format, Weak::clone(&self.me)));
        let ending = if replaces { self.replace(outlet) } else { Ending(None) };
        if let Some(outlet) = &*self.outlet.load() {
            outlet.set_format(settings.format);
        }
        self.level.store(settings.level as u8, Ordering::Relaxed);
        ending
    }

    /// In a forked child: what the parent's log writes to, for a log of the child. No lock of the parent is touched.
    pub fn inherited(&self) -> Option<Kept> {
        self.outlet.load().as_ref().and_then(|outlet| outlet.inherited())
    }

    /// Writes to no descriptor any more.
    pub fn end(&self) -> Ending {
        self.replace(None)
    }

    fn replace(&self, outlet: Option<Arc<Outlet>>) -> Ending {
        let before = self.outlet.swap(outlet);
        before.iter().for_each(|before| before.end());
        Ending(before)
    }

    /// Nothing can be written to the descriptor any more. Only the queues can be told.
    fn tell_over(&self, number: RawFd, error: &io::Error) {
        let _order = self.order.lock();
        (self.tell)(line(lines::FD_OVER, now(), &|out| {
            out.text("fd").int(number.into()).text("reason").text(&error.to_string());
        }));
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // A handle may be dropped under a lock, where nobody sleeps.
        let _last_lines_go_out_alone = self.end();
    }
}

/// The time since 1970, by the clock of the system.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn line(head: Head, since: Duration, rest: Rest<'_>) -> Reply {
    let mut out = ReplyBuilder::new();
    out.map();
    fields::append(&mut out, LINE, &(head, format::stamp(since)));
    rest(&mut out);
    out.end().finish()
}

/// The line about so many that were dropped, the last of them at this time.
fn dropped((count, last): (u64, Duration), format: LogFormat) -> Vec<u8> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let line = line(lines::DROPPED, last, &|out| {
        out.text("count").int(count);
    });
    format::line(&line, format)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;
    use std::os::fd::AsRawFd;
    use std::sync::Mutex;

    const THREADS: usize = 8;
    const EACH: usize = 100;

    #[test]
    fn lines_of_many_threads_stand_in_the_order_of_their_times() {
        let path = std::env::temp_dir().join(format!("vigie-log-order-{}", std::process::id()));
        let file = std::fs::File::create(&path).unwrap();
        let settings = LogSettings { level: LogLevel::Info, format: LogFormat::Text, fd: Some(file.as_raw_fd()) };
        let told = Arc::new(Mutex::new(Vec::new()));
        let queue = Arc::clone(&told);
        let log = Log::new(&settings, Some(Kept::of(file.as_raw_fd()).unwrap()), move |line| {
            queue.lock().unwrap().push(line)
        });
        let writer = || {
            let log = Arc::clone(&log);
            move || (0..EACH).for_each(|_| log.write(lines::BEGUN, &|_| ()))
        };
        let threads: Vec<_> = (0..THREADS).map(|_| std::thread::spawn(writer())).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let mut written = String::new();
        while written.lines().count() < THREADS * EACH {
            written = std::fs::read_to_string(&path).unwrap();
        }
        let _ = std::fs::remove_file(&path);
        let times: Vec<_> = written.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert!(times.is_sorted(), "{times:#?}");
        let told = told.lock().unwrap();
        let times: Vec<_> = told.iter().map(|line| line.bytes(line.find(0, b"time").unwrap()).unwrap()).collect();
        assert!(times.is_sorted() && times.len() == THREADS * EACH);
    }
}
