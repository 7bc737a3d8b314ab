//! Worker threads, in two classes: one for jobs that never wait for the network, one for jobs that do.
//!
//! Guarantees: a job that dials never delays one that does not, nor a timer; threads start on demand and retire when idle, and
//! there are at most [`MOST`] and [`MOST_DIALS`] in the whole process; a timer whose owner is gone keeps no thread; a panic ends
//! only its own job; a forked child has its own threads. Idle threads sleep in the kernel, and one of them keeps the clock. Leaves
//! to others: which dials go first (dials), limiting the time of a dial.

mod dials;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Weak;
use std::time::{Duration, Instant};

use dials::Dials;

pub use dials::Host;

use crate::sys::fork::PerProcess;
use crate::sys::rank::Rank;
use crate::sys::sync::{Condvar, Lock, Locked};
use crate::sys::{panic, thread};

/// The most threads for jobs that never wait for the network, and for timers.
pub const MOST: usize = 4;
/// The most threads for jobs that wait for the network. There are that many only while as many hosts hang.
pub const MOST_DIALS: usize = 40;
/// How long a thread without work stays.
const LINGER: Duration = Duration::from_secs(2);
/// How long it stays while another thread is idle, too.
const SPARE: Duration = Duration::from_millis(300);
/// A timer that is due this soon must not wait for a job to end. The pauses between discoveries are shorter, the ticks of pools are
/// longer.
const CLOSE: Duration = Duration::from_millis(100);

/// How often an idle thread checks, during a dismissal, whether timers still need it.
const GLANCE: Duration = Duration::from_millis(5);

type Job = Box<dyn FnOnce() + Send>;

static WORKERS: PerProcess<Workers> = PerProcess::new();

/// Runs a job that never waits for the network. An error means that it will not run: there is no thread, and none could be started.
pub fn run(job: impl FnOnce() + Send + 'static) -> io::Result<()> {
    workers().push(Box::new(job))
}

/// Runs a job that talks to this host and may wait for it. An urgent job goes before others. Errors as for [`run`].
pub fn dial(host: Host, urgent: bool, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
    workers().push_dial(host, urgent, Box::new(job))
}

/// Runs a job that never waits for the network when `delay` has passed, unless its owner is gone by then.
pub fn after<T: Send + Sync + 'static>(
    delay: Duration,
    owner: Weak<T>,
    job: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    workers().schedule(Instant::now() + delay, owner, Box::new(job))
}

/// While it exists threads without work end at once.
pub struct Dismissal(&'static Workers);

/// Begins a dismissal.
pub fn dismiss() -> Dismissal {
    let workers = workers();
    let mut state = workers.state();
    state.dismissals += 1;
    workers.wake_all();
    Dismissal(workers)
}

impl Drop for Dismissal {
    fn drop(&mut self) {
        self.0.state().dismissals -= 1;
    }
}

/// For a long job, which has to call it again at the returned time. If a timer is due while every thread is busy, another thread is
/// started. Otherwise timers would wait until the job ends.
pub fn keep_the_clock() -> Option<Instant> {
    workers().keep_the_clock()
}

fn workers() -> &'static Workers {
    WORKERS.get_or_make(Workers::new)
}

struct Workers {
    state: Lock<WorkerState>,
    /// Wakes the idle thread that keeps the clock.
    clock: Condvar,
    /// Wakes another idle thread.
    ready: Condvar,
    /// Wakes an idle thread that dials.
    dial_ready: Condvar,
}

#[derive(Default)]
struct WorkerState {
    crew: Crew,
    jobs: VecDeque<Job>,
    /// An idle thread sleeps until the next timer.
    clock_kept: bool,
    timers: BinaryHeap<Reverse<Timer>>,
    next_timer: u64,
    dialers: Crew,
    dials: Dials<Job>,
    dismissals: usize,
}

/// The threads of one class.
#[derive(Default)]
struct Crew {
    threads: usize,
    /// How many of them sleep.
    idle: usize,
    /// How many of them have been started and have not looked for a job yet.
    starting: usize,
}

struct Timer {
    due: Instant,
    number: u64,
    owner: Weak<dyn Send + Sync>,
    job: Job,
}

impl Workers {
    fn new() -> Self {
        let state = Lock::new(Rank::Workers, WorkerState::default());
        Self { state, clock: Condvar::new(), ready: Condvar::new(), dial_ready: Condvar::new() }
    }

    fn state(&self) -> Locked<'_, WorkerState> {
        self.state.lock()
    }

    fn push(&'static self, job: Job) -> io::Result<()> {
        let mut state = self.state();
        state.jobs.push_back(job);
        let staffed = self.staff(&mut state);
        // A job that was refused must not run later. It is dropped outside the lock, as what it owns may take others.
        let refused = if staffed.is_err() { state.jobs.pop_back() } else { None };
        drop(state);
        drop(refused);
        staffed
    }

    fn push_dial(&'static self, host: Host, urgent: bool, job: Job) -> io::Result<()> {
        let mut state = self.state();
        state.dials.push(host, urgent, job);
        let staffed = self.staff_dials(&mut state);
        let refused = if staffed.is_err() { state.dials.take_back() } else { None };
        drop(state);
        drop(refused);
        staffed
    }

    fn schedule(&'static self, due: Instant, owner: Weak<dyn Send + Sync>, job: Job) -> io::Result<()> {
        let mut state = self.state();
        let number = state.next_timer;
        state.next_timer += 1;
        state.timers.push(Reverse(Timer { due, number, owner, job }));
        let is_next = state.timers.peek().is_some_and(|Reverse(timer)| timer.number == number);
        if !is_next {
            return Ok(());
        }
        if state.clock_kept {
            // It sleeps until the timer that was next before.
            self.clock.notify_one();
            return Ok(());
        }
        if state.crew.idle > 0 {
            self.ready.notify_one();
            return Ok(());
        }
        let close = due.saturating_duration_since(Instant::now()) < CLOSE;
        if !close && state.crew.threads > 0 {
            return Ok(());
        }
        let hired = self.hire(&mut state);
        let refused = if hired.is_err() { state.take_timers(|timer| timer.number == number) } else { Vec::new() };
        drop(state);
        drop(refused);
        hired
    }

    /// Called before a thread runs a job: another thread has to keep the clock if the next timer is close. A timer further away may
    /// be late by the length of a job; a thread that only waits for it would be one too many.
    fn stand_in(&'static self, state: &mut WorkerState) {
        let close = |timer: &Timer| timer.due.saturating_duration_since(Instant::now()) < CLOSE;
        if state.clock_kept || !state.timers.peek().is_some_and(|Reverse(timer)| close(timer)) {
            return;
        }
        if state.crew.idle > 0 {
            self.ready.notify_one();
        } else {
            let _ = self.hire(state);
        }
    }

    fn keep_the_clock(&'static self) -> Option<Instant> {
        let mut state = self.state();
        let due = state.timers.peek().map(|Reverse(timer)| timer.due)?;
        if state.crew.idle > 0 {
            return None;
        }
        if due > Instant::now() {
            return Some(due);
        }
        // One that is starting is enough.
        if state.crew.starting == 0 {
            let _ = self.hire(&mut state);
        }
        None
    }

    /// Wakes an idle thread, or starts one, for a job that was pushed. An error means that there is no thread at all.
    fn staff(&'static self, state: &mut WorkerState) -> io::Result<()> {
        // Preferably one that does not keep the clock.
        match state.crew.idle > usize::from(state.clock_kept) {
            true => self.ready.notify_one(),
            false => self.clock.notify_one(),
        }
        if state.crew.idle + state.crew.starting >= state.jobs.len() {
            return Ok(());
        }
        self.hire(state)
    }

    fn wake_all(&self) {
        self.clock.notify_all();
        self.ready.notify_all();
        self.dial_ready.notify_all();
    }

    /// Starts a thread, if there may be one more. An error means that there is no thread at all.
    fn hire(&'static self, state: &mut WorkerState) -> io::Result<()> {
        if state.crew.threads >= MOST {
            return Ok(());
        }
        match thread::spawn("vigie-worker", || self.work()) {
            Ok(_) => {
                state.crew.threads += 1;
                state.crew.starting += 1;
                Ok(())
            }
            Err(error) if state.crew.threads == 0 => Err(error),
            Err(_) => Ok(()),
        }
    }

    fn staff_dials(&'static self, state: &mut WorkerState) -> io::Result<()> {
        self.dial_ready.notify_one();
        let called = state.dialers.idle + state.dialers.starting;
        if !state.dials.has_ready(called) || state.dialers.threads >= MOST_DIALS {
            return Ok(());
        }
        match thread::spawn("vigie-dialer", || self.work_on_dials()) {
            Ok(_) => {
                state.dialers.threads += 1;
                state.dialers.starting += 1;
                Ok(())
            }
            Err(error) if state.dialers.threads == 0 => Err(error),
            Err(_) => Ok(()),
        }
    }

    fn work(&'static self) {
        let mut state = self.state();
        state.crew.starting -= 1;
        let mut asleep_since = Instant::now();
        loop {
            let now = Instant::now();
            let unwanted = state.take_unwanted(now);
            if !unwanted.is_empty() {
                // Outside the lock, as what a job owns may take others.
                drop(state);
                drop(unwanted);
                state = self.state();
                continue;
            }
            if let Some(job) = state.next_job(now) {
                self.stand_in(&mut state);
                drop(state);
                guarded(job);
                state = self.state();
                asleep_since = Instant::now();
                continue;
            }
            if state.is_dispensable() && (state.dismissals > 0 || now - asleep_since >= state.patience()) {
                state.crew.threads -= 1;
                return;
            }
            state = self.sleep(state, now);
        }
    }

    /// Sleeps until a job comes, a timer is due, or the thread has been idle for long.
    fn sleep<'a>(&'a self, mut state: Locked<'a, WorkerState>, now: Instant) -> Locked<'a, WorkerState> {
        let keeps = !std::mem::replace(&mut state.clock_kept, true);
        let most = if state.dismissals > 0 { GLANCE } else { state.patience() };
        let next = state.timers.peek().filter(|_| keeps).map(|Reverse(timer)| timer.due.saturating_duration_since(now));
        let time = next.map_or(most, |next| next.min(most));
        let condvar = if keeps { &self.clock } else { &self.ready };
        state.crew.idle += 1;
        state = condvar.wait_timeout(state, time);
        state.crew.idle -= 1;
        if keeps {
            state.clock_kept = false;
        }
        state
    }

    fn work_on_dials(&'static self) {
        let mut state = self.state();
        state.dialers.starting -= 1;
        let mut asleep_since = Instant::now();
        loop {
            if let Some((running, job)) = state.dials.take() {
                // Jobs that came at the same time get other threads.
                if state.dials.has_ready(0) {
                    let _ = self.staff_dials(&mut state);
                }
                drop(state);
                let began = Instant::now();
                guarded(job);
                asleep_since = Instant::now();
                state = self.state();
                state.dials.end(running, asleep_since - began);
                continue;
            }
            let most = if state.dialers.idle > 0 { SPARE } else { LINGER };
            let over = asleep_since.elapsed() >= most || state.dismissals > 0;
            if over && (state.dials.is_empty() || state.dialers.threads > 1) {
                state.dialers.threads -= 1;
                return;
            }
            state.dialers.idle += 1;
            state = self.dial_ready.wait_timeout(state, most);
            state.dialers.idle -= 1;
        }
    }
}

impl WorkerState {
    /// A timer that is due, or the next job.
    fn next_job(&mut self, now: Instant) -> Option<Job> {
        match self.timers.peek().is_some_and(|Reverse(timer)| timer.due <= now) {
            true => self.timers.pop().map(|Reverse(timer)| timer.job),
            false => self.jobs.pop_front(),
        }
    }

    /// Takes out the timers whose owner is gone: those that are due, during a dismissal all.
    fn take_unwanted(&mut self, now: Instant) -> Vec<Reverse<Timer>> {
        if self.dismissals > 0 {
            return self.take_timers(|timer| !timer.is_wanted());
        }
        let mut unwanted = Vec::new();
        while self.timers.peek().is_some_and(|Reverse(timer)| timer.due <= now && !timer.is_wanted()) {
            unwanted.extend(self.timers.pop());
        }
        unwanted
    }

    /// Takes timers out. The caller drops them outside the lock.
    fn take_timers(&mut self, which: impl Fn(&Timer) -> bool) -> Vec<Reverse<Timer>> {
        if !self.timers.iter().any(|Reverse(timer)| which(timer)) {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.timers).into_iter();
        let (taken, kept) = all.partition::<Vec<_>, _>(|Reverse(timer)| which(timer));
        self.timers = kept.into();
        taken
    }

    /// How long an idle thread stays.
    fn patience(&self) -> Duration {
        if self.crew.idle > 0 { SPARE } else { LINGER }
    }

    /// Whether an idle thread may end. The last one stays as long as a timer needs it.
    fn is_dispensable(&self) -> bool {
        self.jobs.is_empty() && (self.crew.idle > 0 || self.timers.is_empty())
    }
}

impl Timer {
    fn is_wanted(&self) -> bool {
        self.owner.strong_count() > 0
    }
}

/// The job's owner notices that its work was not done.
fn guarded(job: Job) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
        // Reported by what the panic dropped; forgotten before the next job.
        panic::describe(&*panic);
    }
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Condvar, Mutex, mpsc};

    /// The owner of timers that are wanted until the end.
    fn owner() -> Weak<()> {
        static OWNER: std::sync::LazyLock<Arc<()>> = std::sync::LazyLock::new(Arc::default);
        Arc::downgrade(&OWNER)
    }

    #[test]
    fn jobs_run_timers_keep_their_order_and_a_panic_harms_nobody() {
        let (sender, receiver) = mpsc::channel();
        for (delay, name) in [(900, "later"), (300, "sooner")] {
            let sender = sender.clone();
            after(Duration::from_millis(delay), owner(), move || sender.send(name).unwrap()).unwrap();
        }
        run(|| std::panic::resume_unwind(Box::new("on purpose"))).unwrap();
        run(move || sender.send("now").unwrap()).unwrap();
        let seen: Vec<_> = receiver.iter().collect();
        assert_eq!(seen, ["now", "sooner", "later"]);
    }

    #[test]
    fn a_blocked_timer_does_not_hold_up_the_next() {
        let (release, blocked) = mpsc::channel::<()>();
        let (sender, receiver) = mpsc::channel();
        after(Duration::from_millis(20), owner(), move || sender.send(()).unwrap()).unwrap();
        after(Duration::from_millis(5), owner(), move || blocked.recv().unwrap()).unwrap();
        receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        release.send(()).unwrap();
    }

    #[test]
    fn a_job_that_lasts_holds_up_no_timer() {
        // Workers of its own, of which no other test has idle ones.
        let workers: &'static Workers = Box::leak(Box::new(Workers::new()));
        let (sender, receiver) = mpsc::channel();
        let due = Instant::now() + 3 * CLOSE;
        let owner = Arc::new(());
        let weak = Arc::downgrade(&owner);
        workers.schedule(due, weak, Box::new(move || sender.send(()).unwrap())).unwrap();
        // The one thread sleeps until the timer.
        while workers.state().crew.idle == 0 {
            std::thread::yield_now();
        }
        let (tell, ended) = mpsc::channel();
        let lasts = move || {
            let end = due + Duration::from_secs(10);
            let mut next = None;
            while receiver.try_recv().is_err() && Instant::now() < end {
                next = next.max(workers.keep_the_clock());
                std::thread::sleep(Duration::from_millis(5));
            }
            tell.send((Instant::now() < end, next)).unwrap();
        };
        workers.push(Box::new(lasts)).unwrap();
        assert_eq!(ended.recv().unwrap(), (true, Some(due)));
    }

    #[test]
    fn a_blocked_job_does_not_hold_up_the_next() {
        let (release, blocked) = mpsc::channel::<()>();
        let (sender, receiver) = mpsc::channel();
        run(move || blocked.recv().unwrap()).unwrap();
        run(move || sender.send(()).unwrap()).unwrap();
        receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        release.send(()).unwrap();
    }

    #[test]
    fn jobs_that_dial_hold_up_neither_other_jobs_nor_timers_nor_other_hosts() {
        let workers: &'static Workers = Box::leak(Box::new(Workers::new()));
        let release = Arc::new((Mutex::new(false), Condvar::new()));
        let hangs = || {
            let release = Arc::clone(&release);
            Box::new(move || drop(release.1.wait_while(release.0.lock().unwrap(), |over| !*over).unwrap()))
        };
        // Eight services of one host that vanished, and more hosts than there are threads for slow ones.
        (0..8).for_each(|_| workers.push_dial(Host::of("gone"), true, hangs()).unwrap());
        (0..20).for_each(|number| workers.push_dial(Host::of(number), true, hangs()).unwrap());
        let (sender, receiver) = mpsc::channel();
        let tell = |name: &'static str| {
            let sender = sender.clone();
            Box::new(move || sender.send(name).unwrap())
        };
        workers.push_dial(Host::of("healthy"), false, tell("dial")).unwrap();
        workers.push(tell("job")).unwrap();
        let owner = Arc::new(());
        let weak = Arc::downgrade(&owner);
        workers.schedule(Instant::now() + Duration::from_millis(5), weak, tell("timer")).unwrap();
        let mut seen: Vec<_> = (0..3).map(|_| receiver.recv_timeout(Duration::from_secs(60)).unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, ["dial", "job", "timer"]);
        *release.0.lock().unwrap() = true;
        release.1.notify_all();
    }

    #[test]
    fn idle_threads_end_and_the_last_one_stays_for_a_timer() {
        let workers: &'static Workers = Box::leak(Box::new(Workers::new()));
        let owner = Arc::new(());
        let (sender, receiver) = mpsc::channel();
        let weak = Arc::downgrade(&owner);
        workers.schedule(Instant::now() + 3 * LINGER / 2, weak, Box::new(move || sender.send(()).unwrap())).unwrap();
        (0..3).for_each(|_| workers.push(Box::new(|| ())).unwrap());
        workers.push_dial(Host::of(0), false, Box::new(|| ())).unwrap();
        receiver.recv_timeout(Duration::from_secs(60)).unwrap();
        drop(owner);
        let deadline = Instant::now() + Duration::from_secs(60);
        let threads = || {
            let state = workers.state();
            (state.crew.threads, state.dialers.threads)
        };
        while Instant::now() < deadline && threads() != (0, 0) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(threads(), (0, 0));
    }
}
