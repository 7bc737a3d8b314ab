//! Measures how slow the machine is during a test, so that bounds on time can be relative to that.
//!
//! On a loaded machine a thread that is ready to run waits for its turn. How long is measured during the test: a thread sleeps for
//! a moment, sends a byte to another one, and measures the time until the byte is back. A bound is what the library may take on a
//! quiet machine, plus the allowance that these round trips give.

use std::fmt;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::proc;

/// The pause between two round trips, so that measuring takes little of the machine.
const REST: Duration = Duration::from_millis(2);
/// A few round trips say nothing: after a shorter test it goes on measuring for a little.
const LEAST: usize = 20;
/// How many threads and processes wake each other in turn during one call: the caller, a worker, a Sentinel, the node, with their
/// answers.
const IN_TURN: u32 = 10;

/// Measures until it is stopped, or dropped by a failing test.
pub struct Pacing {
    over: Arc<AtomicBool>,
    trips: Option<JoinHandle<Vec<Duration>>>,
}

pub struct Pace {
    /// The times of the round trips, sorted.
    trips: Vec<Duration>,
    /// Of a single call: how long the caller was ready to run, and waited for a processor.
    queued: Duration,
}

impl Pacing {
    pub fn start() -> Pacing {
        let (near, far) = UnixStream::pair().expect("a pair of sockets");
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        proc::thread("kit-pace-echo", move || echo(far));
        let (sender, receiver) = std::sync::mpsc::channel();
        let trips = std::thread::Builder::new().name("kit-pace".into());
        let trips = trips.spawn(move || {
            // The first trip wakes a thread that has just begun.
            trip(&near);
            let _ = sender.send(());
            measure(&near, &seen)
        });
        receiver.recv().expect("the first round trip");
        Pacing { over, trips: Some(trips.expect("a thread starts")) }
    }

    pub fn stop(mut self) -> Pace {
        self.over.store(true, Ordering::Release);
        let trips = self.trips.take().map(|trips| trips.join().expect("it only measures"));
        let mut trips = trips.unwrap_or_default();
        trips.sort_unstable();
        Pace { trips, queued: Duration::ZERO }
    }
}

impl Drop for Pacing {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

/// How long this thread has waited for a processor while it was ready to run, as the kernel counts it.
fn queued() -> Duration {
    let counts = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(counts.split(' ').nth(1).and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

fn echo(mut far: UnixStream) {
    let mut byte = [0];
    while far.read_exact(&mut byte).is_ok() && far.write_all(&byte).is_ok() {}
}

/// The sleep counts as far as it was too long.
fn trip(mut near: &UnixStream) -> Duration {
    let began = Instant::now();
    std::thread::sleep(REST);
    near.write_all(&[1]).and_then(|()| near.read_exact(&mut [0])).expect("the other side echoes");
    began.elapsed() - REST
}

fn measure(near: &UnixStream, over: &AtomicBool) -> Vec<Duration> {
    let mut trips = Vec::new();
    while trips.len() < LEAST || !over.load(Ordering::Acquire) {
        trips.push(trip(near));
    }
    trips
}

impl Pace {
    /// A percentile of the round trips.
    pub fn percentile(&self, percent: usize) -> Duration {
        self.trips[(self.trips.len() * percent / 100).min(self.trips.len() - 1)]
    }

    /// What the machine may have added to one call: it is slow in general, or it was very slow once, or it let the caller itself
    /// wait, and then those whom the call woke, too.
    pub fn allowance(&self) -> Duration {
        (self.percentile(90) * IN_TURN).max(self.percentile(100) * 2).max(self.queued * IN_TURN)
    }

    /// Asserts that this time is at most `limit` plus the allowance.
    #[track_caller]
    pub fn judge(&self, what: &str, took: Duration, limit: Duration) {
        let most = limit + self.allowance();
        assert!(took <= most, "{what} took {took:?}; at most {limit:?}, and here {most:?}, were expected: {self:?}");
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half, most, all] = [50, 90, 100].map(|percent| self.percentile(percent));
        let (count, queued) = (self.trips.len(), self.queued);
        write!(f, "{count} round trips of two threads took {half:?} (50 %), {most:?} (90 %), {all:?} (100 %)")?;
        write!(f, ", and the caller waited {queued:?} for a processor")
    }
}

/// Runs a single call, and measures its time and the machine. Longer runs use [`Pacing`]: what their thread waited in all says
/// nothing about one call of many.
pub fn paced<T>(run: impl FnOnce() -> T) -> (T, Duration, Pace) {
    let pacing = Pacing::start();
    let (began, before) = (Instant::now(), queued());
    let outcome = run();
    let (took, queued) = (began.elapsed(), queued().saturating_sub(before));
    (outcome, took, Pace { queued, ..pacing.stop() })
}

/// Runs one call of many. Returns its time less what the caller's own waits for a processor explain; the [`Pacing`] beside all of them
/// gives the rest.
pub fn unhindered<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let (began, before) = (Instant::now(), queued());
    let outcome = run();
    (outcome, began.elapsed().saturating_sub(queued().saturating_sub(before) * IN_TURN))
}

/// Runs it. Asserts that it took at most `limit`, plus what the machine added.
#[track_caller]
pub fn takes_at_most<T>(what: &str, limit: Duration, run: impl FnOnce() -> T) -> T {
    let (outcome, took, pace) = paced(run);
    pace.judge(what, took, limit);
    outcome
}

/// Runs it up to three times, until it took the configured time, and at most a tenth more, plus what the machine added.
#[track_caller]
pub fn about<T>(ms: u64, run: impl FnMut() -> T) -> T {
    let limit = Duration::from_millis(ms);
    until_fits(limit.mul_f64(0.8), limit.mul_f64(1.1), run)
}

/// Runs it up to three times, until it took at most this long, plus what the machine added.
#[track_caller]
pub fn at_most<T>(ms: u64, run: impl FnMut() -> T) -> T {
    until_fits(Duration::ZERO, Duration::from_millis(ms), run)
}

#[track_caller]
fn until_fits<T>(least: Duration, most: Duration, mut run: impl FnMut() -> T) -> T {
    let mut times = Vec::new();
    while times.len() < 3 {
        let (outcome, took, pace) = paced(&mut run);
        if (least..=most + pace.allowance()).contains(&took) {
            return outcome;
        }
        times.push((took, pace));
    }
    panic!("took {times:?}, expected are {least:?} to {most:?}");
}
