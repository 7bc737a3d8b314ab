//! Waiting for a condition instead of sleeping, and the seed of a test.

use std::cell::Cell;
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
