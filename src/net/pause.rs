//! How long a node is not dialled after it could not be connected to, or did not have the expected role.
//!
//! Guarantees: those who share a pause dial a failing node one at a time, and not before the pause is over, however many they are;
//! the pause grows with each failure, with jitter, and ends with the first success. A node that accepts connections and refuses
//! what it is asked has a second pause, which a connection does not end. Leaves to others: which node and generation a pause
//! belongs to, and which events end it (topology).

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Status, flags};
use crate::sys::random;
use crate::sys::rank::Rank;
use crate::sys::sync::{Lock, Locked};

/// The first pause and the longest.
const BOUNDS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// After this time without a refusal the first pause is used again.
const FORGOTTEN: Duration = Duration::from_secs(2);
/// How often a caller that waits for another's attempt looks again.
const LOOK: Duration = Duration::from_millis(20);

/// The pause of one node.
pub struct Pause {
    first: Duration,
    longest: Duration,
    /// Which failures begin it.
    counts: fn(&Error) -> bool,
    state: Lock<PauseState>,
}

#[derive(Default)]
struct PauseState {
    /// Failures in a row.
    failures: u32,
    until: Option<Instant>,
    /// When the last failure was noted: attempts that had begun before it say the same.
    noted: Option<Instant>,
    error: Option<Error>,
    /// The last failure was that of a connection for calls: an attempt that only asks for the role says nothing about it.
    of_service: bool,
    /// An attempt is being made to see whether it is over.
    tried: bool,
    refusal: Option<NodeRefusal>,
    generation: u64,
}

/// The refusal of a node that accepts connections.
struct NodeRefusal {
    /// How often in a row.
    times: u32,
    begun: Instant,
    until: Instant,
    error: Error,
    /// It has been asked for its role since then, and has the expected one.
    has_role: bool,
}

impl PauseState {
    /// Why the node is not dialled at this moment, after a failure.
    fn failure(&self, now: Instant) -> Option<&Error> {
        self.error.as_ref().filter(|_| self.tried || self.until.is_some_and(|until| now < until))
    }

    /// Why the node is not dialled at this moment, after a failure or a refusal.
    fn reason(&self, now: Instant) -> Option<&Error> {
        let refusal = self.refusal.as_ref().filter(|refusal| now < refusal.until);
        self.failure(now).or_else(|| refusal.map(|refusal| &refusal.error))
    }
}

/// The permission to dial. Its holder reports the outcome; without a report nothing changes.
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
    /// The pause of a node that has not failed.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, counts: says_something, state: Lock::new(Rank::Pause, PauseState::default()) }
    }

    /// A pause of the same length for what waiting cannot mend: credentials, or a database that there is not. It belongs to those who
    /// connect in the same way, because another user may be welcome.
    pub fn like_it_for_refusals(&self) -> Self {
        Self { counts: is_refusal, ..Self::new(self.first, self.longest) }
    }

    /// Asks to dial for calls. An error while the node is not to be dialled.
    pub fn attempt(self: &Arc<Self>) -> Result<DialAttempt, Error> {
        self.begin(true)
    }

    /// Asks to dial only for the node's role: a refusal is a reason to ask for it.
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

    /// How long the node is still not to be dialled; `None`: it may be dialled.
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

    /// Notes that the node refused what a node in its role does, on an open connection. Returns whether a pause begins now; during
    /// a pause further refusals change nothing.
    pub fn refuse(&self, error: &Error) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        if state.reason(now).is_some() {
            return false;
        }
        let before = state.refusal.as_ref().filter(|refusal| now.saturating_duration_since(refusal.until) < FORGOTTEN);
        let times = before.map_or(0, |refusal| refusal.times);
        let until = now + self.pause_after(times);
        state.refusal = Some(NodeRefusal {
            times: times.saturating_add(1),
            begun: now,
            until,
            error: error.clone(),
            has_role: false,
        });
        true
    }

    /// How long the pause after a refusal still lasts.
    pub fn refused(&self) -> Option<Duration> {
        let left = self.lock().refusal.as_ref()?.until.saturating_duration_since(Instant::now());
        Some(left).filter(|left| !left.is_zero())
    }

    /// Whether it has refused lately, so that more than one connection would be wasted.
    pub fn has_refused(&self) -> bool {
        let now = Instant::now();
        self.lock().refusal.as_ref().is_some_and(|refusal| now.saturating_duration_since(refusal.until) < FORGOTTEN)
    }

    /// Whether it has given its role since its refusal: asking again would bring nothing new.
    pub fn has_told_role(&self) -> bool {
        let now = Instant::now();
        self.lock().refusal.as_ref().is_some_and(|refusal| refusal.has_role && now < refusal.until)
    }

    /// The last failure, unless a connection has served since then.
    pub fn reason(&self) -> Option<Error> {
        self.lock().error.clone()
    }

    /// Ends the pause, because something has happened since the failure.
    pub fn clear(&self) {
        let mut state = self.lock();
        *state = PauseState { generation: state.generation + 1, ..PauseState::default() };
    }

    fn lock(&self) -> Locked<'_, PauseState> {
        self.state.lock()
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
    /// Reports the outcome. It counts only if it says something about the node: not the end of a caller's deadline, nor an error
    /// that waiting cannot mend. An attempt for the role does not end the pause of connections for calls.
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
            Err(error) if (self.pause.counts)(error) && state.noted.is_none_or(|noted| noted < self.begun) => {
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

fn is_refusal(error: &Error) -> bool {
    let of_options = matches!(
        error.status(),
        Status::Auth | Status::Connect | Status::Server | Status::Config | Status::Unsupported
    );
    of_options && !error.has(flags::RETRYABLE) && !error.server_code().is_empty()
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
    fn what_waiting_cannot_mend_is_a_pause_of_those_who_connect_in_the_same_way() {
        let refused = |code| Err::<(), _>(Error::new(Status::Auth, "no").with_server_code(code));
        let refusals = Arc::new(Pause::new(HOUR, HOUR).like_it_for_refusals());
        refusals.attempt().unwrap().told(&failed(Status::Connect));
        refusals.attempt().unwrap().told(&refused(""));
        assert!(refusals.left().is_none(), "no word of the server about credentials");
        refusals.attempt().unwrap().told(&refused("WRONGPASS"));
        assert_eq!(refusals.attempt().err().map(|error| error.status()), Some(Status::Auth));
        let node = patient();
        node.attempt().unwrap().told(&refused("WRONGPASS"));
        assert!(node.left().is_none(), "another user may be welcome");
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
        // An attempt that is given up leaves the next one to another; a success ends the pause.
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
