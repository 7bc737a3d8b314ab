//! How long a node is left alone after it could not be connected to, or was not what it was taken for.
//!
//! Guarantees: all who share a pause dial a node that fails one after the other, and not before the pause is over, however many they are;
//! it grows with each failure, with jitter, and ends with the first success. A node that can be connected to and refuses what it is asked
//! to do has a pause of its own, which no connection ends. Leaves to others: which node and generation it belongs to, and when
//! something has happened that ends it (topology).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Status, flags};
use crate::sys::random;

/// The first pause and the longest.
const BOUNDS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// A node that has not refused anything for so long begins with the first pause again.
const FORGOTTEN: Duration = Duration::from_secs(2);
/// How often a caller that waits for another's attempt looks again.
const LOOK: Duration = Duration::from_millis(20);

/// The pause of one node.
pub struct Pause {
    first: Duration,
    longest: Duration,
    state: Mutex<PauseState>,
}

#[derive(Default)]
struct PauseState {
    /// Failures in a row.
    failures: u32,
    until: Option<Instant>,
    /// When the last of them was noted: what had begun before says the same.
    noted: Option<Instant>,
    error: Option<Error>,
    /// The last of them was that of a connection which was to serve calls: one that only asks for the role says nothing about it.
    of_service: bool,
    /// One tries whether it is over.
    tried: bool,
    refusal: Option<Refusal>,
    generation: u64,
}

/// What a node refused that had been connected to.
struct Refusal {
    /// How often in a row.
    times: u32,
    begun: Instant,
    until: Instant,
    error: Error,
    /// It has been asked for its role since then, and has it.
    has_role: bool,
}

impl PauseState {
    /// Why it is left alone at this moment, because it failed.
    fn failure(&self, now: Instant) -> Option<&Error> {
        self.error.as_ref().filter(|_| self.tried || self.until.is_some_and(|until| now < until))
    }

    /// The same, or because it refused what it was asked to do.
    fn reason(&self, now: Instant) -> Option<&Error> {
        let refusal = self.refusal.as_ref().filter(|refusal| now < refusal.until);
        self.failure(now).or_else(|| refusal.map(|refusal| &refusal.error))
    }
}

/// The right to dial. Whoever has it tells how it went; without a word nothing is concluded.
pub struct DialAttempt {
    pause: Arc<Pause>,
    begun: Instant,
    generation: u64,
    tries: bool,
    of_service: bool,
}

impl Default for Pause {
    fn default() -> Self {
        Self::new(BOUNDS.0, BOUNDS.1)
    }
}

impl Pause {
    /// For a node that has not failed.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, state: Mutex::default() }
    }

    /// Asks to dial for calls; while the node is left alone, why it is.
    pub fn attempt(self: &Arc<Self>) -> Result<DialAttempt, Error> {
        self.begin(true)
    }

    /// Asks to dial for its role alone: that a node refuses what it is asked to do is a reason to ask.
    pub fn attempt_to_ask(self: &Arc<Self>) -> Result<DialAttempt, Error> {
        self.begin(false)
    }

    fn begin(self: &Arc<Self>, of_service: bool) -> Result<DialAttempt, Error> {
        let now = Instant::now();
        let mut state = self.lock();
        if let Some(error) = if of_service { state.reason(now) } else { state.failure(now) } {
            return Err(error.clone());
        }
        state.tried = state.error.is_some();
        let (pause, generation, tries) = (Arc::clone(self), state.generation, state.tried);
        Ok(DialAttempt { pause, begun: now, generation, tries, of_service })
    }

    /// How long it is still left alone; `None`: it may be dialled.
    pub fn left(&self) -> Option<Duration> {
        let (state, now) = (self.lock(), Instant::now());
        let ends = [state.until, state.refusal.as_ref().map(|refusal| refusal.until)];
        let left = ends.into_iter().flatten().map(|until| until.saturating_duration_since(now)).max()?;
        match (left.is_zero(), state.tried) {
            (false, _) => Some(left),
            (true, true) => Some(LOOK),
            (true, false) => None,
        }
    }

    /// The node refused what only a node in its role does, on a connection that it had accepted: it is left alone for a while. Whether that
    /// begins now; while it is left alone, what it has refused before says nothing more.
    pub fn refuse(&self, error: &Error) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        if state.reason(now).is_some() {
            return false;
        }
        let before = state.refusal.as_ref().filter(|refusal| now.saturating_duration_since(refusal.until) < FORGOTTEN);
        let times = before.map_or(0, |refusal| refusal.times);
        let until = now + self.pause_after(times);
        state.refusal =
            Some(Refusal { times: times.saturating_add(1), begun: now, until, error: error.clone(), has_role: false });
        true
    }

    /// How long it is still left alone because it refused what it was asked to do.
    pub fn refused(&self) -> Option<Duration> {
        let left = self.lock().refusal.as_ref()?.until.saturating_duration_since(Instant::now());
        Some(left).filter(|left| !left.is_zero())
    }

    /// Whether it has refused lately what it was asked to do, so that more connections than one would be wasted.
    pub fn has_refused(&self) -> bool {
        let now = Instant::now();
        self.lock().refusal.as_ref().is_some_and(|refusal| now.saturating_duration_since(refusal.until) < FORGOTTEN)
    }

    /// Whether it has told its role since it refused what it was asked to do: to ask again would tell nothing.
    pub fn has_told_role(&self) -> bool {
        let now = Instant::now();
        self.lock().refusal.as_ref().is_some_and(|refusal| refusal.has_role && now < refusal.until)
    }

    /// Why it failed the last time, unless it has served since then.
    pub fn reason(&self) -> Option<Error> {
        self.lock().error.clone()
    }

    /// Something has happened since it failed: it may be dialled at once.
    pub fn clear(&self) {
        let mut state = self.lock();
        *state = PauseState { generation: state.generation + 1, ..PauseState::default() };
    }

    fn lock(&self) -> MutexGuard<'_, PauseState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause_after(&self, failures: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.min(16));
        doubled.min(self.longest).mul_f64(0.75 + random::rng().f64() / 4.0)
    }

    fn note(&self, state: &mut PauseState, error: &Error) {
        let pause = self.pause_after(state.failures);
        let now = Instant::now();
        state.failures = state.failures.saturating_add(1);
        (state.until, state.noted, state.error) = (Some(now + pause), Some(now), Some(error.clone()));
    }
}

impl DialAttempt {
    /// How it went. Only what says something about the node counts: not a caller's deadline, and not what no waiting mends. That the role
    /// was told does not end the pause of connections that are to serve calls.
    pub fn told<T>(self, outcome: &Result<T, Error>) {
        let mut state = self.pause.lock();
        if state.generation != self.generation {
            return;
        }
        if let (Ok(_), false, Some(refusal)) = (outcome, self.of_service, &mut state.refusal) {
            refusal.has_role |= self.begun > refusal.begun;
        }
        match outcome {
            Ok(_) if self.of_service || !state.of_service => {
                let refusal = state.refusal.take();
                *state = PauseState { generation: state.generation, refusal, ..PauseState::default() };
            }
            Err(error) if says_something(error) && state.noted.is_none_or(|noted| noted < self.begun) => {
                self.pause.note(&mut state, error);
                state.of_service = self.of_service;
            }
            _ => {}
        }
    }
}

impl Drop for DialAttempt {
    fn drop(&mut self) {
        let mut state = self.pause.lock();
        if self.tries && state.generation == self.generation {
            state.tried = false;
        }
    }
}

fn says_something(error: &Error) -> bool {
    let of_node =
        matches!(error.status(), Status::Connect | Status::Resolve | Status::Io | Status::Role | Status::Server);
    of_node && error.has(flags::RETRYABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn failed(status: Status) -> Result<(), Error> {
        Err(Error::new(status, "no").with_flags(flags::RETRYABLE))
    }

    fn patient() -> Arc<Pause> {
        Arc::new(Pause::new(HOUR, HOUR))
    }

    #[test]
    fn what_a_node_refuses_is_a_pause_that_grows_and_that_no_connection_ends() {
        let pause = patient();
        let refused = Error::new(Status::Server, "READONLY").with_flags(flags::RETRYABLE);
        assert!(pause.refuse(&refused) && !pause.refuse(&refused), "the second says nothing more");
        assert_eq!(pause.attempt().err().map(|error| error.status()), Some(Status::Server));
        let short = Arc::new(Pause::new(Duration::from_millis(1), HOUR));
        for longest in [1, 2, 4] {
            assert!(short.refuse(&refused));
            let left = short.left().unwrap_or_default();
            assert!(left <= Duration::from_millis(longest), "{left:?}");
            while short.left().is_some() {
                std::thread::yield_now();
            }
            short.attempt().unwrap().told(&Ok::<(), Error>(()));
        }
        assert_eq!(short.lock().refusal.as_ref().map(|refusal| refusal.times), Some(3));
        assert!(pause.attempt_to_ask().is_ok(), "its role may be asked");
        pause.clear();
        assert!(pause.attempt().is_ok());
    }

    #[test]
    fn a_role_that_is_told_does_not_end_the_pause_of_those_that_serve() {
        let pause = Arc::new(Pause::new(Duration::from_nanos(1), Duration::from_nanos(1)));
        pause.attempt().unwrap().told(&failed(Status::Io));
        while pause.left().is_some() {
            std::thread::yield_now();
        }
        pause.attempt_to_ask().unwrap().told(&Ok::<(), Error>(()));
        assert_eq!(pause.reason().map(|error| error.status()), Some(Status::Io));
        pause.attempt().unwrap().told(&Ok::<(), Error>(()));
        assert!(pause.reason().is_none());
        pause.attempt_to_ask().unwrap().told(&failed(Status::Role));
        while pause.left().is_some() {
            std::thread::yield_now();
        }
        pause.attempt_to_ask().unwrap().told(&Ok::<(), Error>(()));
        assert!(pause.reason().is_none());
    }

    #[test]
    fn a_failure_is_a_pause_for_all_until_something_happens() {
        let pause = patient();
        pause.attempt().unwrap().told(&failed(Status::Role));
        let left = pause.left().unwrap();
        assert!(left > HOUR / 2 && left <= HOUR, "{left:?}");
        assert_eq!(pause.attempt().err().map(|error| error.status()), Some(Status::Role));
        assert_eq!(pause.reason().map(|error| error.status()), Some(Status::Role));
        pause.clear();
        assert!(pause.left().is_none() && pause.attempt().is_ok());
    }

    #[test]
    fn what_says_nothing_about_the_node_is_none() {
        for status in [Status::Timeout, Status::Auth, Status::Closed, Status::Config] {
            let pause = patient();
            pause.attempt().unwrap().told(&failed(status));
            assert!(pause.left().is_none(), "{status:?}");
        }
    }

    #[test]
    fn what_began_together_counts_once_and_what_was_cleared_not_at_all() {
        let pause = Arc::new(Pause::new(Duration::from_nanos(1), HOUR));
        let attempts: Vec<_> = (0..20).map(|_| pause.attempt().unwrap()).collect();
        attempts.into_iter().for_each(|attempt| attempt.told(&failed(Status::Connect)));
        assert_eq!(pause.lock().failures, 1);
        let pause = patient();
        let attempt = pause.attempt().unwrap();
        pause.clear();
        attempt.told(&failed(Status::Connect));
        assert!(pause.left().is_none());
    }

    #[test]
    fn after_the_pause_one_tries_for_all() {
        let pause = Arc::new(Pause::new(Duration::from_nanos(1), Duration::from_nanos(1)));
        pause.attempt().unwrap().told(&failed(Status::Connect));
        let trying = loop {
            // A nanosecond may not have passed yet.
            if let Ok(attempt) = pause.attempt() {
                break attempt;
            }
        };
        assert!(pause.attempt().is_err() && pause.left().is_some());
        // Who gives up leaves the trying to the next one; a success ends it all.
        drop(trying);
        let trying = pause.attempt().unwrap();
        trying.told(&Ok::<(), Error>(()));
        assert!(pause.left().is_none());
        let (one, other) = (pause.attempt().unwrap(), pause.attempt().unwrap());
        drop((one, other));
    }

    #[test]
    fn it_grows_up_to_its_bound() {
        let pause = Arc::new(Pause::new(HOUR, 4 * HOUR));
        for hours in [1, 2, 4, 4, 4] {
            pause.note(&mut pause.lock(), &Error::new(Status::Io, "no"));
            let left = pause.left().unwrap();
            assert!(left > hours * HOUR / 2 && left <= hours * HOUR, "{left:?} of {hours} h");
        }
    }
}
