//! Decides which of the jobs that wait for the network runs next. Pure.
//!
//! Guarantees: the jobs of one host take at most two threads; hosts that were slow last time, and unknown hosts, leave threads for
//! the others; within these limits urgent jobs go first, then those of quick hosts, then the oldest. Leaves to others: threads
//! (worker).

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::sort::SortedMap;

/// How many jobs of one host may run at the same time.
const PER_HOST: u32 = 2;
/// How many threads slow hosts may take.
const SLOW_MOST: usize = 16;
/// How many threads slow and unknown hosts may take together.
const UNTRIED_MOST: usize = 32;
/// A host whose job takes longer than this is slow.
const SLOW: Duration = Duration::from_millis(100);
/// How many hosts are remembered.
const REMEMBERED: usize = 1024;

/// The host that a job talks to. The jobs of one host share a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host(u64);

impl Host {
    /// The host with this name, or with any other key that distinguishes hosts.
    pub fn of(name: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// Waiting jobs, and the hosts of running ones.
pub(super) struct Dials<J> {
    waiting: VecDeque<WaitingJob<J>>,
    /// A tree: a static hash table looks like a leak to leak checkers, because the pointer to it is one into its middle.
    hosts: SortedMap<Host, KnownHost>,
    /// How many jobs run, by what was known of their host.
    running: [usize; 3],
}

struct WaitingJob<J> {
    host: Host,
    urgent: bool,
    job: J,
}

#[derive(Default)]
struct KnownHost {
    running: u32,
    speed: Speed,
}

/// What is known of a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Speed {
    Quick,
    #[default]
    Untried,
    Slow,
}

/// A job that runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    host: Host,
    as_if: Speed,
}

impl<J> Default for Dials<J> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), hosts: SortedMap::new(), running: [0; 3] }
    }
}

impl<J> Dials<J> {
    pub(super) fn push(&mut self, host: Host, urgent: bool, job: J) {
        self.waiting.push_back(WaitingJob { host, urgent, job });
    }

    /// Takes back the job that was pushed last.
    pub(super) fn take_back(&mut self) -> Option<J> {
        self.waiting.pop_back().map(|waiting| waiting.job)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether more jobs than this could run now.
    pub(super) fn has_ready(&self, more_than: usize) -> bool {
        self.waiting.iter().filter(|waiting| self.may_run(waiting.host)).nth(more_than).is_some()
    }

    /// Takes the job that runs next. [`Dials::end`] follows.
    pub(super) fn take(&mut self) -> Option<(Running, J)> {
        let ready = self.waiting.iter().enumerate().filter(|(_, waiting)| self.may_run(waiting.host));
        let best = ready.min_by_key(|(place, waiting)| (!waiting.urgent, self.speed(waiting.host), *place))?.0;
        let WaitingJob { host, job, .. } = self.waiting.remove(best)?;
        let known = self.hosts.or_default(host);
        known.running += 1;
        let as_if = known.speed;
        self.running[as_if as usize] += 1;
        Some((Running { host, as_if }, job))
    }

    /// Notes that a job is over, and how long it took.
    pub(super) fn end(&mut self, job: Running, took: Duration) {
        self.running[job.as_if as usize] -= 1;
        if let Some(known) = self.hosts.get_mut(&job.host) {
            known.running -= 1;
            known.speed = if took > SLOW { Speed::Slow } else { Speed::Quick };
        }
        if self.hosts.len() > REMEMBERED {
            self.hosts.retain(|known| known.running > 0);
        }
    }

    fn speed(&self, host: Host) -> Speed {
        self.hosts.get(&host).map_or(Speed::Untried, |known| known.speed)
    }

    fn may_run(&self, host: Host) -> bool {
        let [_, untried, slow] = self.running;
        let room = match self.speed(host) {
            Speed::Quick => true,
            Speed::Untried => untried + slow < UNTRIED_MOST,
            Speed::Slow => slow < SLOW_MOST && untried + slow < UNTRIED_MOST,
        };
        room && self.hosts.get(&host).is_none_or(|known| known.running < PER_HOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(1);

    fn host(number: u32) -> Host {
        Host::of(number)
    }

    /// Runs a job of each of these hosts to its end.
    fn learn(dials: &mut Dials<u32>, hosts: std::ops::Range<u32>, took: Duration) {
        for number in hosts {
            dials.push(host(number), false, number);
            let (running, _) = dials.take().unwrap();
            dials.end(running, took);
        }
    }

    fn take_all(dials: &mut Dials<u32>) -> Vec<u32> {
        std::iter::from_fn(|| dials.take().map(|(_, job)| job)).collect()
    }

    #[test]
    fn one_host_takes_two_threads() {
        let mut dials = Dials::default();
        (0..5).for_each(|job| dials.push(host(1), true, job));
        dials.push(host(2), false, 9);
        assert_eq!(take_all(&mut dials), [0, 1, 9]);
        assert!(!dials.is_empty() && !dials.has_ready(0));
    }

    #[test]
    fn a_host_that_was_quick_never_waits_for_those_that_hang() {
        let mut dials = Dials::default();
        learn(&mut dials, 0..1, QUICK);
        learn(&mut dials, 100..200, LONG);
        (100..200).chain(300..400).for_each(|job| dials.push(host(job), true, job));
        let hanging = take_all(&mut dials);
        assert_eq!(hanging.len(), UNTRIED_MOST);
        assert!(!dials.has_ready(0));
        dials.push(host(0), false, 0);
        assert_eq!(take_all(&mut dials), [0]);
    }

    #[test]
    fn slow_hosts_leave_threads_for_those_that_were_never_tried() {
        let mut dials = Dials::default();
        learn(&mut dials, 100..200, LONG);
        (100..200).for_each(|job| dials.push(host(job), true, job));
        assert_eq!(take_all(&mut dials).len(), SLOW_MOST);
        (0..50).for_each(|job| dials.push(host(job), false, job));
        assert_eq!(take_all(&mut dials).len(), UNTRIED_MOST - SLOW_MOST);
    }

    #[test]
    fn urgent_jobs_go_first_then_quick_hosts_then_the_oldest() {
        let mut dials = Dials::default();
        learn(&mut dials, 1..2, QUICK);
        for (number, urgent) in [(3, false), (4, false), (1, false), (5, true)] {
            dials.push(host(number), urgent, number);
        }
        assert_eq!(take_all(&mut dials), [5, 1, 3, 4]);
    }

    #[test]
    fn a_host_that_recovers_counts_as_quick_again_and_not_all_are_remembered() {
        let mut dials = Dials::default();
        learn(&mut dials, 0..1, LONG);
        assert_eq!(dials.speed(host(0)), Speed::Slow);
        learn(&mut dials, 0..1, QUICK);
        assert_eq!(dials.speed(host(0)), Speed::Quick);
        learn(&mut dials, 0..5000, QUICK);
        assert!(dials.hosts.len() <= REMEMBERED);
    }
}
