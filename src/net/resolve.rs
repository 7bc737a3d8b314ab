//! Resolves host names, without letting a caller hang in the system's resolver.
//!
//! Guarantees: getaddrinfo runs on at most two threads of the process, which end when there is nothing to resolve; a name that is
//! being resolved is not asked for twice; a caller waits no longer than its deadline; while the resolver hangs or fails the last
//! good addresses are used. Names are resolved again at every connect (one answer serves for at most [`SHARED`]), so that a name
//! that moves is followed. Leaves to others: the choice among addresses.

use crate::error::{Error, Result, Status, flags};
use crate::sort::SortedMap;
use crate::sys::fork::PerProcess;
use crate::sys::rank::{Rank, may_wait};
use crate::sys::sync::{Condvar, Lock, Locked};
use crate::sys::waker::Waker;
use crate::sys::{thread, unforked};
use crate::time::Deadline;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most resolver threads of the process: one that hangs must not delay all names.
const THREADS: usize = 2;
/// How long one answer serves other callers that ask for the same name.
const SHARED: Duration = Duration::from_secs(1);
/// How long a known name may take before its last good addresses are used.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many names are remembered.
const NAMES: usize = 256;

/// The system's answer: addresses with port 0, or its error text.
type Found = std::result::Result<Vec<SocketAddr>, String>;
type Ask = fn(&str) -> Found;

static RESOLVER: PerProcess<Resolver> = PerProcess::new();

/// The addresses of a host, within the deadline. A literal address never waits.
pub fn resolve(host: &str, port: u16, deadline: Deadline) -> Result<Vec<SocketAddr>> {
    begin(host, port, None).wait(deadline)
}

/// Begins to resolve a host; `waker` is woken when the answer is there.
pub fn begin(host: &str, port: u16, waker: Option<&Arc<Waker>>) -> Lookup {
    RESOLVER.get_or_make(|| Resolver::new(ask_system)).begin(host, port, waker)
}

fn ask_system(host: &str) -> Found {
    may_wait("the system's resolver");
    match unforked::apart_from_forks(|| (host, 0).to_socket_addrs()) {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => Err(error.to_string()),
    }
}

/// One question, perhaps shared with others.
pub struct Lookup {
    resolver: &'static Resolver,
    resolution: Arc<Resolution>,
    host: String,
    port: u16,
    since: Instant,
}

impl Lookup {
    /// The answer, if it is there. After `patience` the last good addresses count as one.
    pub fn poll(&self, patience: Duration) -> Option<Result<Vec<SocketAddr>>> {
        let found = self.resolution.progress.lock().found.clone();
        match found {
            Some(Ok(addresses)) => Some(Ok(self.with_port(addresses))),
            Some(Err(why)) => Some(self.last_good().ok_or_else(|| self.error(&why))),
            None if self.since.elapsed() >= patience => self.last_good().map(Ok),
            None => None,
        }
    }

    /// Waits for the answer.
    pub fn wait(&self, deadline: Deadline) -> Result<Vec<SocketAddr>> {
        let patience = deadline.left().map_or(PATIENCE, |left| PATIENCE.min(left / 2));
        loop {
            if let Some(outcome) = self.poll(patience) {
                return outcome;
            }
            if deadline.is_over() {
                return Err(self.error("no answer from the system's resolver"));
            }
            let progress = self.resolution.progress.lock();
            if progress.found.is_none() {
                let patience_left = patience.saturating_sub(self.since.elapsed());
                let step =
                    if patience_left.is_zero() { deadline.left() } else { Some(deadline.left_or(patience_left)) };
                self.resolution.sleep(progress, step);
            }
        }
    }

    /// The error when the deadline comes first.
    pub fn timed_out(&self) -> Error {
        self.error("no answer from the system's resolver")
    }

    fn last_good(&self) -> Option<Vec<SocketAddr>> {
        let state = self.resolver.state.lock();
        let good = state.names.get(&self.host).map(|name| name.good.clone())?;
        drop(state);
        if good.is_empty() { None } else { Some(self.with_port(good)) }
    }

    fn with_port(&self, mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        addresses.iter_mut().for_each(|address| address.set_port(self.port));
        addresses
    }

    fn error(&self, why: &str) -> Error {
        let text = format!("cannot resolve '{}': {why} (after {} ms)", self.host, self.since.elapsed().as_millis());
        Error::new(Status::Resolve, text)
            .with_endpoint(format_args!("{}:{}", self.host, self.port))
            .with_flags(flags::RETRYABLE)
    }
}

/// One run of getaddrinfo, and its waiters.
struct Resolution {
    progress: Lock<Progress>,
    done: Condvar,
}

#[derive(Default)]
struct Progress {
    found: Option<Found>,
    wakers: Vec<Arc<Waker>>,
}

impl Resolution {
    fn new(found: Option<Found>) -> Arc<Self> {
        Arc::new(Self {
            progress: Lock::new(Rank::Resolution, Progress { found, wakers: Vec::new() }),
            done: Condvar::new(),
        })
    }

    fn sleep(&self, progress: Locked<'_, Progress>, time: Option<Duration>) {
        match time {
            Some(time) => drop(self.done.wait_timeout(progress, time)),
            None => drop(self.done.wait(progress)),
        }
    }

    fn finish(&self, found: Found) {
        let mut progress = self.progress.lock();
        progress.found = Some(found);
        let wakers = std::mem::take(&mut progress.wakers);
        drop(progress);
        self.done.notify_all();
        wakers.iter().for_each(|waker| waker.wake());
    }

    fn wake_when_done(&self, waker: &Arc<Waker>) {
        let mut progress = self.progress.lock();
        if progress.found.is_some() {
            waker.wake();
        } else {
            progress.wakers.push(Arc::clone(waker));
        }
    }
}

struct Resolver {
    ask: Ask,
    state: Lock<ResolverState>,
}

#[derive(Default)]
struct ResolverState {
    /// A tree, because it lies in a static: see the worker's `Dials`.
    names: SortedMap<String, Name>,
    queue: VecDeque<(String, Arc<Resolution>)>,
    threads: usize,
}

struct Name {
    /// The last run for this name, finished or not.
    resolution: Arc<Resolution>,
    answered: Option<Instant>,
    good: Vec<SocketAddr>,
}

impl Name {
    /// Whether one more caller may share the last run.
    fn may_share(&self) -> bool {
        let found = self.resolution.progress.lock();
        match &found.found {
            None => true,
            Some(found) => found.is_ok() && self.answered.is_some_and(|at| at.elapsed() < SHARED),
        }
    }
}

impl Resolver {
    fn new(ask: Ask) -> Self {
        Self { ask, state: Lock::new(Rank::Resolver, ResolverState::default()) }
    }

    fn begin(&'static self, host: &str, port: u16, waker: Option<&Arc<Waker>>) -> Lookup {
        let resolution = match host.parse::<IpAddr>() {
            Ok(ip) => Resolution::new(Some(Ok(vec![SocketAddr::new(ip, 0)]))),
            Err(_) => self.resolution(host),
        };
        if let Some(waker) = waker {
            resolution.wake_when_done(waker);
        }
        Lookup { resolver: self, resolution, host: host.to_owned(), port, since: Instant::now() }
    }

    /// The run that is in progress for this host, or a new one.
    fn resolution(&'static self, host: &str) -> Arc<Resolution> {
        let mut state = self.state.lock();
        if let Some(name) = state.names.get(host) {
            if name.may_share() {
                return Arc::clone(&name.resolution);
            }
        }
        let resolution = Resolution::new(None);
        state.remember(host, Arc::clone(&resolution));
        state.queue.push_back((host.to_owned(), Arc::clone(&resolution)));
        if state.threads < THREADS {
            self.start_thread(&mut state);
        }
        resolution
    }

    fn start_thread(&'static self, state: &mut ResolverState) {
        match thread::spawn("vigie-resolver", || self.work()) {
            Ok(()) => state.threads += 1,
            Err(error) if state.threads == 0 => {
                for (_, resolution) in state.queue.drain(..) {
                    resolution.finish(Err(format!("no thread to resolve it: {error}")));
                }
            }
            Err(_) => {}
        }
    }

    /// Resolves names until none is left.
    fn work(&self) {
        loop {
            let mut state = self.state.lock();
            let Some((host, resolution)) = state.queue.pop_front() else {
                state.threads -= 1;
                return;
            };
            drop(state);
            let found = match (self.ask)(&host) {
                Ok(addresses) if addresses.is_empty() => Err(String::from("it has no address")),
                other => other,
            };
            if let Some(name) = self.state.lock().names.get_mut(&host) {
                name.answered = Some(Instant::now());
                if let Ok(addresses) = &found {
                    name.good.clone_from(addresses);
                }
            }
            resolution.finish(found);
        }
    }
}

impl ResolverState {
    fn remember(&mut self, host: &str, resolution: Arc<Resolution>) {
        if let Some(name) = self.names.get_mut(host) {
            name.resolution = resolution;
            return;
        }
        if self.names.len() >= NAMES {
            let oldest = self.names.iter().min_by_key(|(_, name)| name.answered).map(|(host, _)| host.clone());
            oldest.map(|host| self.names.remove(&host));
        }
        self.names.insert(host.to_owned(), Name { resolution, answered: None, good: Vec::new() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex};

    static ASKED: AtomicUsize = AtomicUsize::new(0);
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    static HANG: Mutex<bool> = Mutex::new(false);
    static UNHANG: Condvar = Condvar::new();

    fn leaked(ask: Ask) -> &'static Resolver {
        Box::leak(Box::new(Resolver::new(ask)))
    }

    /// The first two answer together; a third at the same time would be noticed.
    fn ask_together(host: &str) -> Found {
        let running = RUNNING.fetch_add(1, Ordering::SeqCst) + 1;
        MOST.fetch_max(running, Ordering::SeqCst);
        ASKED.fetch_add(1, Ordering::SeqCst);
        let until = Instant::now() + Duration::from_secs(60);
        while MOST.load(Ordering::SeqCst) < 2 && Instant::now() < until {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(20));
        RUNNING.fetch_sub(1, Ordering::SeqCst);
        if host == "bad" { Err("no such name".into()) } else { Ok(vec![([127, 0, 0, 1], 0).into()]) }
    }

    #[test]
    fn one_flight_per_name_and_two_threads_at_most() {
        let resolver = leaked(ask_together);
        std::thread::scope(|scope| {
            for i in 0..32 {
                scope.spawn(move || {
                    let host = ["a", "b", "c", "d"][i % 4];
                    let found = resolver.begin(host, 7, None).wait(Deadline::after(Duration::from_secs(120)));
                    assert_eq!(found.unwrap(), vec![([127, 0, 0, 1], 7).into()]);
                });
            }
        });
        assert_eq!(ASKED.load(Ordering::SeqCst), 4);
        assert_eq!(MOST.load(Ordering::SeqCst), 2);
        let error = resolver.begin("bad", 7, None).wait(Deadline::never()).unwrap_err();
        assert_eq!(error.status(), Status::Resolve);
        assert!(error.message().contains("'bad': no such name"), "{error}");
    }

    fn ask_hanging(_: &str) -> Found {
        let mut hang = HANG.lock().unwrap();
        while *hang {
            hang = UNHANG.wait(hang).unwrap();
        }
        Ok(vec![([127, 0, 0, 2], 0).into()])
    }

    #[test]
    fn a_hanging_resolver_costs_a_deadline_and_known_names_go_on() {
        let resolver = leaked(ask_hanging);
        let soon = || Deadline::after(Duration::from_millis(60));
        assert!(resolver.begin("known", 1, None).wait(Deadline::never()).is_ok());
        *HANG.lock().unwrap() = true;
        resolver.state.lock().names.get_mut("known").unwrap().answered = None;
        assert_eq!(resolver.begin("known", 2, None).wait(soon()).unwrap(), vec![([127, 0, 0, 2], 2).into()]);
        let error = resolver.begin("unknown", 1, None).wait(soon()).unwrap_err();
        assert!(error.has(flags::RETRYABLE) && error.message().contains("no answer"), "{error}");
        *HANG.lock().unwrap() = false;
        UNHANG.notify_all();
    }

    #[test]
    fn literals_need_no_thread_and_a_waker_is_woken() {
        let resolver = leaked(|_| Err("asked".into()));
        let waker = Arc::new(Waker::new().unwrap());
        let lookup = resolver.begin("::1", 6379, Some(&waker));
        assert_eq!(lookup.poll(PATIENCE).unwrap().unwrap(), vec!["[::1]:6379".parse().unwrap()]);
        assert_eq!(resolver.state.lock().threads, 0);
        let mut fds = [crate::sys::poll::PollFd::new(waker.fd(), true, false)];
        assert_eq!(crate::sys::poll::wait(&mut fds, None).unwrap(), 1);
    }

    #[test]
    fn the_system_knows_localhost() {
        let found = resolve("localhost", 5, Deadline::after(Duration::from_secs(20))).unwrap();
        assert!(found.iter().all(|address| address.port() == 5 && address.ip().is_loopback()));
    }
}
