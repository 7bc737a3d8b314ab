//! A small pool of threads for what no caller should wait for: asking Sentinels, opening and checking connections, timers.
//!
//! Guarantees: threads start on demand and retire when idle, at most [`MOST`] for the whole process; a timer whose owner is gone
//! keeps no thread; a job that panics ends alone; a forked child has a pool of its own. Leaves to others: bounding how long a job
//! takes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use crate::sys::fork::PerProcess;
use crate::sys::{panic, thread};

/// Threads at the most.
pub const MOST: usize = 4;
/// How long a thread without work stays.
const LINGER: Duration = Duration::from_secs(2);
/// How long one stays that stands by while another is idle too.
const SPARE: Duration = Duration::from_millis(300);
/// A timer this near must not wait for a job: the pauses between discoveries are shorter, the ticks of pools are longer.
const CLOSE: Duration = Duration::from_millis(100);

/// How often an idle thread looks, during a dismissal, whether timers still need it.
const GLANCE: Duration = Duration::from_millis(5);

type Job = Box<dyn FnOnce() + Send>;

static POOL: PerProcess<Pool> = PerProcess::new();

/// Runs a job on a worker. An error (no thread could be started, and none is there) means that it will not run.
pub fn run(job: impl FnOnce() + Send + 'static) -> io::Result<()> {
    pool().push(Box::new(job))
}

/// Runs a job on a worker, not before `delay` has passed, and not at all if its owner is gone by then.
pub fn after<T: Send + Sync + 'static>(
    delay: Duration,
    owner: Weak<T>,
    job: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    pool().schedule(Instant::now() + delay, owner, Box::new(job))
}

/// While it lives, threads without work end at once instead of lingering.
pub struct Dismissal(&'static Pool);

/// Begins a dismissal.
pub fn dismiss() -> Dismissal {
    let pool = pool();
    let mut state = pool.state();
    state.dismissals += 1;
    pool.wake_another(&state);
    Dismissal(pool)
}

impl Drop for Dismissal {
    fn drop(&mut self) {
        self.0.state().dismissals -= 1;
    }
}

/// For a job that lasts, which must ask again at the time that this gives: a timer that is due while every worker is busy gets one
/// more. Without it timers would wait for the end of the job.
pub fn keep_the_clock() -> Option<Instant> {
    pool().keep_the_clock()
}

fn pool() -> &'static Pool {
    POOL.get_or_make(Pool::new)
}

struct Pool {
    /// `None` makes an idle worker look at the timers again.
    sender: Sender<Option<Job>>,
    receiver: Receiver<Option<Job>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    threads: usize,
    idle: usize,
    timers: BinaryHeap<Reverse<Timer>>,
    next_timer: u64,
    dismissals: usize,
}

struct Timer {
    due: Instant,
    number: u64,
    owner: Weak<dyn Send + Sync>,
    job: Job,
}

impl Pool {
    fn new() -> Self {
        let (sender, receiver) = unbounded();
        Self { sender, receiver, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&'static self, job: Job) -> io::Result<()> {
        let mut state = self.state();
        // The channel never closes: the pool holds both ends.
        let _ = self.sender.send(Some(job));
        let staffed = self.staff(&mut state);
        if staffed.is_err() {
            // Without a single thread the job is the only one in the channel: what will not run now must not run later.
            let _ = self.receiver.try_recv();
        }
        staffed
    }

    fn schedule(&'static self, due: Instant, owner: Weak<dyn Send + Sync>, job: Job) -> io::Result<()> {
        let mut state = self.state();
        let number = state.next_timer;
        state.next_timer += 1;
        state.timers.push(Reverse(Timer { due, number, owner, job }));
        let is_next = state.timers.peek().is_some_and(|Reverse(timer)| timer.number == number);
        if is_next {
            // An idle worker sleeps until what was next before.
            let _ = self.sender.send(None);
            let staffed = self.staff(&mut state);
            if staffed.is_err() {
                let _ = self.receiver.try_recv();
                state.timers.retain(|Reverse(timer)| timer.number != number);
            }
            return staffed;
        }
        Ok(())
    }

    /// Before a worker is busy: somebody must watch the clock for the next timer, if it is close. One further away may come late by
    /// what a job may take at the most; a thread that only waits for it would be one too many.
    fn stand_in(&'static self, state: &mut State) {
        let close = |timer: &Timer| timer.due.saturating_duration_since(Instant::now()) < CLOSE;
        if !state.timers.peek().is_some_and(|Reverse(timer)| close(timer)) {
            return;
        }
        if state.idle > 0 {
            // An idle one may have gone to sleep before these timers were set.
            let _ = self.sender.send(None);
        } else if state.threads < MOST {
            let _ = self.hire(state);
        }
    }

    fn keep_the_clock(&'static self) -> Option<Instant> {
        let mut state = self.state();
        let due = state.timers.peek().map(|Reverse(timer)| timer.due)?;
        if state.idle > 0 {
            return None;
        }
        if due > Instant::now() {
            return Some(due);
        }
        // One that has been called and is not there yet is enough.
        if self.receiver.is_empty() {
            let _ = self.sender.send(None);
            let _ = self.staff(&mut state);
        }
        None
    }

    /// Starts a thread when more jobs wait than threads do.
    fn staff(&'static self, state: &mut State) -> io::Result<()> {
        if self.receiver.len() <= state.idle || state.threads >= MOST {
            return Ok(());
        }
        match self.hire(state) {
            Err(error) if state.threads == 0 => Err(error),
            _ => Ok(()),
        }
    }

    fn hire(&'static self, state: &mut State) -> io::Result<()> {
        thread::spawn("vigie-worker", || self.work())?;
        state.threads += 1;
        Ok(())
    }

    fn work(&'static self) {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            if state.dismissals > 0 {
                state.timers.retain(|Reverse(timer)| timer.is_wanted());
                if self.is_dispensable(&state) {
                    return self.retire(&mut state);
                }
            }
            if state.timers.peek().is_some_and(|Reverse(timer)| timer.due <= now) {
                let due = state.timers.pop();
                self.stand_in(&mut state);
                drop(state);
                if let Some(Reverse(timer)) = due.filter(|Reverse(timer)| timer.is_wanted()) {
                    guarded(timer.job);
                }
                state = self.state();
                continue;
            }
            let next = state.timers.peek().map(|Reverse(timer)| timer.due - now);
            state.idle += 1;
            let idle = state.idle;
            let most = match (state.dismissals, idle) {
                (1.., _) => GLANCE,
                (0, 2..) => SPARE,
                _ => LINGER,
            };
            drop(state);
            let job = self.receiver.recv_timeout(next.map_or(most, |next| next.min(most)));
            state = self.state();
            state.idle -= 1;
            match job {
                Ok(None) => {}
                Ok(Some(job)) => {
                    // The job just taken may have hidden another one from `push`.
                    let _ = self.staff(&mut state);
                    self.stand_in(&mut state);
                    drop(state);
                    guarded(job);
                    state = self.state();
                }
                Err(RecvTimeoutError::Timeout) if self.may_retire(&state, now) => return self.retire(&mut state),
                Err(_) => {}
            }
        }
    }

    fn may_retire(&self, state: &State, asleep_since: Instant) -> bool {
        let rested = asleep_since.elapsed() >= if state.idle > 0 { SPARE } else { LINGER };
        rested && self.is_dispensable(state)
    }

    /// Whether a thread that is not busy has nothing to stay for: the last one stays as long as a timer needs it.
    fn is_dispensable(&self, state: &State) -> bool {
        self.receiver.is_empty() && (state.idle > 0 || state.timers.is_empty())
    }

    fn retire(&self, state: &mut State) {
        state.threads -= 1;
        if state.dismissals > 0 {
            self.wake_another(state);
        }
    }

    /// One after the other, so that the channel is empty when the last thread has gone.
    fn wake_another(&self, state: &State) {
        if state.idle > 0 {
            let _ = self.sender.send(None);
        }
    }
}

impl Timer {
    fn is_wanted(&self) -> bool {
        self.owner.strong_count() > 0
    }
}

/// The job's owner sees that its work was not done.
fn guarded(job: Job) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
        // Told by who was dropped; forgotten for the next job.
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
    use std::sync::{Arc, mpsc};

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
        // A pool of its own, in which nobody else is idle.
        let pool: &'static Pool = Box::leak(Box::new(Pool::new()));
        let (sender, receiver) = mpsc::channel();
        let due = Instant::now() + 3 * CLOSE;
        let owner = Arc::new(());
        let weak = Arc::downgrade(&owner);
        pool.schedule(due, weak, Box::new(move || sender.send(()).unwrap())).unwrap();
        // The one worker waits for the timer: with its first message still in the channel, the job would bring a second one.
        while pool.state().idle == 0 || !pool.receiver.is_empty() {
            std::thread::yield_now();
        }
        let (tell, ended) = mpsc::channel();
        let lasts = move || {
            let end = due + Duration::from_secs(10);
            let mut next = None;
            while receiver.try_recv().is_err() && Instant::now() < end {
                next = next.max(pool.keep_the_clock());
                std::thread::sleep(Duration::from_millis(5));
            }
            tell.send((Instant::now() < end, next)).unwrap();
        };
        pool.push(Box::new(lasts)).unwrap();
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
}
