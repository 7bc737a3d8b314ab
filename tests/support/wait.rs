//! Waiting for a condition instead of sleeping, and the seed of a test.

use std::cell::Cell;
use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(5);
/// A test that hangs must end, on any machine.
const SLOWEST: f64 = 8.0;

/// Polls until `condition` holds; panics with `what` when `timeout` is over.
#[track_caller]
pub fn eventually(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    eventually_some(what, timeout, || condition().then_some(()));
}

/// Polls until `probe` finds something, and returns it. Panics with `what` when `timeout` is over.
///
/// The timeout grows on a slow machine: if a sleep between two polls takes three times as long as it should, the timeout may, too.
#[track_caller]
pub fn eventually_some<T>(what: &str, timeout: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    let (mut rests, mut rested) = (0, Duration::ZERO);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        let slowness = if rests == 0 { 1.0 } else { rested.as_secs_f64() / (STEP * rests).as_secs_f64() };
        let patience = timeout.mul_f64(slowness.clamp(1.0, SLOWEST));
        assert!(began.elapsed() < patience, "waited {:?} in vain for: {what}", began.elapsed());
        let rest = Instant::now();
        std::thread::sleep(STEP);
        (rests, rested) = (rests + 1, rested + rest.elapsed());
    }
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
