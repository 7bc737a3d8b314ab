//! Fuzzing: random inputs for a target, guided by what they reach. For tests; `make fuzz` gives each target ten minutes, an ordinary test run
//! a second (`FUZZ_SECONDS`).
//!
//! An input that reaches something new is kept, and later ones are made from those that were kept. `make fuzz` has the compiler count the
//! edges of the code that was run, rustls included; without these counters the target's own account of what happened takes their place.

use std::collections::HashSet;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The counters of the compiler: one byte for each edge.
static COUNTERS: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static EDGES: AtomicUsize = AtomicUsize::new(0);
const LONGEST: usize = 512;
const MOST_KEPT: usize = 20_000;

/// Called by the code that the compiler inserts, once for each object file before `main`: the linker puts all counters side by side.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    COUNTERS.store(start, Ordering::Relaxed);
    EDGES.store((stop as usize).saturating_sub(start as usize), Ordering::Relaxed);
}

/// What the inputs of a target have reached.
struct Reached {
    seen: Vec<u8>,
    accounts: HashSet<u64>,
}

impl Reached {
    /// Whether the last run, of which the target gave this account, has reached something new. Forgets what it has counted.
    fn take(&mut self, account: u64) -> bool {
        let mut is_new = self.accounts.insert(account);
        let (counters, edges) = (COUNTERS.load(Ordering::Relaxed), EDGES.load(Ordering::Relaxed));
        self.seen.resize(edges, 0);
        for (at, seen) in self.seen.iter_mut().enumerate() {
            // SAFETY: the counters are a static of the linker, `edges` long. Other threads of the test program may count meanwhile, which
            // makes a number wrong and nothing else.
            let count = unsafe { counters.add(at).replace(0) };
            // A loop that runs more often is new at each power of two.
            let bucket = if count == 0 { 0 } else { 1 << count.ilog2() };
            is_new |= bucket & !*seen != 0;
            *seen |= bucket;
        }
        is_new
    }

    fn edges(&self) -> usize {
        self.seen.iter().filter(|seen| **seen != 0).count()
    }
}

/// Gives the target inputs until its time is over. It panics where something is wrong, and returns an account of what happened otherwise.
pub fn run(name: &str, mut target: impl FnMut(&[u8]) -> u64) {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    let (begun, time) = (Instant::now(), Duration::from_secs(seconds));
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut reached = Reached { seen: Vec::new(), accounts: HashSet::new() };
    let (mut kept, mut runs) = (vec![Vec::new()], 0_u64);
    while begun.elapsed() < time {
        let input = next(&mut rng, &kept);
        let told = Told(&input);
        let account = target(&input);
        std::mem::forget(told);
        runs += 1;
        if reached.take(account) && kept.len() < MOST_KEPT {
            kept.push(input);
        }
    }
    println!(
        "{name}: {runs} executions in {seconds} s, {} inputs kept, {} outcomes, {} of {} edges",
        kept.len(),
        reached.accounts.len(),
        reached.edges(),
        reached.seen.len()
    );
    assert!(runs > 10 && kept.len() > 5, "{name} has hardly run");
}

/// Shows the input with which the target failed.
struct Told<'a>(&'a [u8]);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        println!("the input: {:?}", self.0);
    }
}

fn next(rng: &mut fastrand::Rng, kept: &[Vec<u8>]) -> Vec<u8> {
    // Newer ones more often.
    let from = if rng.bool() { kept.len().saturating_sub(50) } else { 0 };
    let mut input = kept[rng.usize(from..kept.len())].clone();
    for _ in 0..=rng.usize(..6) {
        let at = rng.usize(..=input.len());
        match rng.u8(..7) {
            0 | 1 => input.splice(at..at, (0..=rng.usize(..12)).map(|_| rng.u8(..))).for_each(drop),
            2 if at < input.len() => input[at] = rng.u8(..),
            3 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
            4 => drop(input.drain(at..input.len().min(at + rng.usize(..8)))),
            5 => {
                let other = &kept[rng.usize(..kept.len())];
                let cut = rng.usize(..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[cut..]);
            }
            _ => {
                let copied = input[at..input.len().min(at + 16)].to_vec();
                input.splice(at..at, copied).for_each(drop);
            }
        }
    }
    input.truncate(LONGEST);
    input
}

/// An input, read by its target from front to back.
pub struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    /// The next byte; `None` at the end.
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A number below this one, of two bytes at most; 0 at the end.
    pub fn below(&mut self, end: usize) -> usize {
        let high = if end > 256 { usize::from(self.byte().unwrap_or(0)) << 8 } else { 0 };
        (high + usize::from(self.byte().unwrap_or(0))) % end.max(1)
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(self.0.len().min(most));
        self.0 = rest;
        taken.to_vec()
    }
}
