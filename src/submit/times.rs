//! Where the time of a call went, for who asks: a call with a call handle.
//!
//! Guarantees: the parts add up to the whole. Other calls have none of it, and no clock is read for them. Leaves to others: when a call
//! is held back, starts and is answered (call, pending, client/line), and who asks (client/call_handle).

use std::time::Duration;

use crate::sys::rank::Rank;
use crate::sys::sync::Lock;
use crate::time::Instant;

/// Where the time of one call goes.
pub(crate) struct Times(Lock<Spent>);

/// Where it went until now.
#[derive(Debug, Clone)]
pub(crate) struct Spent {
    begun: Instant,
    /// Since when it has been where it is: waiting, or on the wire.
    since: Instant,
    /// Since when it has been held back.
    held_since: Option<Instant>,
    on_wire: bool,
    over: bool,
    /// Since the last outcome: waiting for the next attempt, if there is one.
    behind: Duration,
    /// Waiting for its turn, the primary or a connection.
    pub(crate) queue: Duration,
    /// Held back at the gate.
    pub(crate) fence: Duration,
    /// From the start of an attempt to its outcome; behind the last one, until the program has it.
    pub(crate) wire: Duration,
    /// Between two attempts.
    pub(crate) retry: Duration,
    /// How often it was started.
    pub(crate) attempts: u32,
    /// The node of the last attempt.
    pub(crate) endpoint: Option<String>,
}

impl Times {
    /// For a call that begins now.
    pub(crate) fn new() -> Self {
        Self(Lock::new(Rank::CallTimes, Spent::at(Instant::now())))
    }

    /// The call is held back at the gate.
    pub(crate) fn held_back(&self) {
        self.0.lock().held_since.get_or_insert_with(Instant::now);
    }

    /// An attempt starts.
    pub(crate) fn started(&self, endpoint: &str) {
        let mut spent = self.0.lock();
        spent.close(Instant::now());
        spent.retry_behind();
        spent.on_wire = true;
        spent.attempts += 1;
        spent.endpoint = Some(endpoint.to_owned());
    }

    /// The attempt has an outcome.
    pub(crate) fn ended(&self) {
        let mut spent = self.0.lock();
        spent.close(Instant::now());
        spent.on_wire = false;
    }

    /// The attempt was not started after all: nothing was sent.
    pub(crate) fn not_started(&self) {
        let mut spent = self.0.lock();
        spent.on_wire = false;
        spent.attempts -= 1;
        if spent.attempts == 0 {
            spent.endpoint = None;
        }
        spent.close(Instant::now());
    }

    /// The call is over.
    pub(crate) fn over(&self) {
        let mut spent = self.0.lock();
        spent.close(Instant::now());
        spent.end();
    }

    /// Where the time went until now.
    pub(crate) fn spent(&self) -> Spent {
        let mut spent = self.0.lock().clone();
        spent.close(Instant::now());
        spent.retry_behind();
        spent
    }
}

impl Spent {
    fn at(now: Instant) -> Self {
        Self {
            begun: now,
            since: now,
            held_since: None,
            on_wire: false,
            over: false,
            behind: Duration::ZERO,
            queue: Duration::ZERO,
            fence: Duration::ZERO,
            wire: Duration::ZERO,
            retry: Duration::ZERO,
            attempts: 0,
            endpoint: None,
        }
    }

    /// Adds the time since the last change to what it was spent on.
    fn close(&mut self, now: Instant) {
        if self.over {
            return;
        }
        let mut time = now.saturating_duration_since(self.since);
        self.since = now;
        if self.on_wire {
            self.wire += time;
            return;
        }
        if let Some(held) = self.held_since.take() {
            let held = now.saturating_duration_since(held).min(time);
            self.fence += held;
            time -= held;
        }
        if self.attempts == 0 { self.queue += time } else { self.behind += time }
    }

    /// Another attempt follows: what came behind the last one was spent on that.
    fn retry_behind(&mut self) {
        self.retry += std::mem::take(&mut self.behind);
    }

    /// The call is over: no attempt follows, so what came behind the last one is no retry.
    fn end(&mut self) {
        self.over = true;
        self.wire += std::mem::take(&mut self.behind);
    }

    /// All of it.
    pub(crate) fn total(&self) -> Duration {
        self.since.saturating_duration_since(self.begun)
    }

    /// The whole, and its parts in microseconds: queue, fence, wire, retry. The parts add up to the whole:
    /// each is what the sum up to it has more than the sum before it, so that no fraction is lost.
    pub(crate) fn micros(&self) -> [u64; 5] {
        let mut sum = Duration::ZERO;
        let mut before = 0;
        let parts = [self.queue, self.fence, self.wire, self.retry].map(|part| {
            sum += part;
            let until = sum.as_micros() as u64;
            until - std::mem::replace(&mut before, until)
        });
        [self.total().as_micros() as u64, parts[0], parts[1], parts[2], parts[3]]
    }

    /// Whether the call is over.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_told_apart_and_they_add_up() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut spent = Spent::at(start);
        spent.held_since = Some(at(10));
        spent.close(at(30));
        (spent.on_wire, spent.attempts) = (true, 1);
        spent.close(at(70));
        spent.on_wire = false;
        spent.close(at(75));
        spent.retry_behind();
        spent.on_wire = true;
        spent.close(at(76));
        spent.on_wire = false;
        spent.close(at(80));
        spent.end();
        spent.close(at(500));
        let ms = [spent.queue, spent.fence, spent.wire, spent.retry, spent.total()].map(|part| part.as_millis());
        assert_eq!(ms, [10, 20, 45, 5, 80]);
    }

    #[test]
    fn fractions_of_a_microsecond_are_not_lost() {
        let mut spent = Spent::at(Instant::now());
        let parts = [1_999, 2_700, 3_600, 900].map(Duration::from_nanos);
        [spent.queue, spent.fence, spent.wire, spent.retry] = parts;
        spent.since = spent.begun + parts.iter().sum::<Duration>();
        let [total, parts @ ..] = spent.micros();
        assert_eq!((total, parts), (9, [1, 3, 4, 1]));
        // A part of nothing stays nothing.
        (spent.fence, spent.retry) = (Duration::ZERO, Duration::ZERO);
        spent.since = spent.begun + spent.queue + spent.wire;
        assert_eq!(spent.micros(), [5, 1, 0, 4, 0]);
    }

    #[test]
    fn one_attempt_has_no_retry_and_what_was_not_started_is_no_attempt() {
        let times = Times::new();
        times.started("one:1");
        times.not_started();
        let spent = times.spent();
        assert_eq!(
            (spent.attempts, spent.endpoint, spent.wire, spent.retry),
            (0, None, Duration::ZERO, Duration::ZERO)
        );
        times.started("two:2");
        times.ended();
        while times.spent().retry.is_zero() {
            std::thread::yield_now();
        }
        times.over();
        let spent = times.spent();
        assert_eq!((spent.attempts, spent.endpoint.as_deref(), spent.retry), (1, Some("two:2"), Duration::ZERO));
        assert_eq!(spent.queue + spent.fence + spent.wire, spent.total());
    }
}
