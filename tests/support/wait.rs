//! Waiting for a condition instead of sleeping, bounds on time that hold on a loaded machine, and the seed of a test.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(5);

/// Polls until `condition` holds; panics with `what` when `timeout` is over.
#[track_caller]
pub fn eventually(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    eventually_some(what, timeout, || condition().then_some(()));
}

/// Polls until `probe` finds something and gives it back; panics with `what` when `timeout` is over.
#[track_caller]
pub fn eventually_some<T>(what: &str, timeout: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(began.elapsed() < timeout, "waited {:?} in vain for: {what}", began.elapsed());
        std::thread::sleep(STEP);
    }
}

/// Runs it, and takes its time without that which the machine took away meanwhile: as much as a second thread overslept.
pub fn timed_fairly<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    /// Ends the other thread, when the run panics too.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let end = End(&over);
        let watch = scope.spawn(|| {
            let mut overslept = Duration::ZERO;
            while !over.load(Ordering::Acquire) {
                let began = Instant::now();
                std::thread::sleep(STEP);
                overslept += began.elapsed() - STEP;
            }
            overslept
        });
        let began = Instant::now();
        let outcome = run();
        let took = began.elapsed();
        drop(end);
        (outcome, took.saturating_sub(watch.join().expect("it only sleeps")))
    })
}

/// Runs it, up to three times, until it took what was configured, and at most a tenth more.
#[track_caller]
pub fn about<T>(ms: u64, run: impl FnMut() -> T) -> T {
    let limit = Duration::from_millis(ms);
    until_fits(limit.mul_f64(0.8), limit.mul_f64(1.1), run)
}

/// Runs it, up to three times, until it took at most so long.
#[track_caller]
pub fn at_most<T>(ms: u64, run: impl FnMut() -> T) -> T {
    until_fits(Duration::ZERO, Duration::from_millis(ms), run)
}

#[track_caller]
fn until_fits<T>(least: Duration, most: Duration, mut run: impl FnMut() -> T) -> T {
    let mut times = Vec::new();
    while times.len() < 3 {
        let (outcome, took) = timed_fairly(&mut run);
        if (least..=most).contains(&took) {
            return outcome;
        }
        times.push(took);
    }
    panic!("took {times:?}, expected are {least:?} to {most:?}");
}

/// The seed of this test: `VIGIE_SEED`, or a random one. One value per test thread, printed when the test fails.
pub fn seed() -> u64 {
    thread_local!(static SEED: Cell<Option<u64>> = const { Cell::new(None) });
    SEED.with(|cell| {
        if let Some(seed) = cell.get() {
            return seed;
        }
        let given = std::env::var("VIGIE_SEED").ok().map(|text| text.parse().expect("VIGIE_SEED is a number"));
        let seed = given.unwrap_or_else(|| fastrand::u64(..));
        // The harness shows this only when the test fails.
        eprintln!("seed {seed} (VIGIE_SEED={seed} repeats it)");
        cell.set(Some(seed));
        seed
    })
}
