//! Latencies in a log-linear histogram: one per worker, merged at the end, so that nothing is shared while it counts.

use std::time::Duration;

/// Steps within a power of two: a value is known to 1.6 %.
const STEPS: u64 = 64;
/// Up to 2^40 ns, 18 minutes.
const POWERS: u64 = 40;

/// How often which latency was seen.
pub struct Histogram {
    counts: Box<[u32]>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; (STEPS * (POWERS - 5)) as usize].into(), total: 0 }
    }
}

impl Histogram {
    /// Counts one latency.
    pub fn add(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let last = self.counts.len() - 1;
        self.counts[index(ns).min(last)] += 1;
        self.total += 1;
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
    }

    /// The latency in microseconds that this part of all values does not exceed; 0 without values.
    pub fn quantile(&self, part: f64) -> f64 {
        let wanted = (part * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return middle(at as u64) / 1e3;
            }
        }
        0.0
    }
}

/// Values below STEPS have a step each; from there each power of two has STEPS of them.
fn index(ns: u64) -> usize {
    let power = u64::from(ns.max(1).ilog2());
    let first = u64::from(STEPS.ilog2());
    if power < first {
        return ns as usize;
    }
    ((power - first) * STEPS + (ns >> (power - first))) as usize
}

/// The nanoseconds in the middle of a step: the reverse of `index`.
fn middle(index: u64) -> f64 {
    if index < STEPS {
        return index as f64;
    }
    let shift = index / STEPS - 1;
    let low = (index - shift * STEPS) << shift;
    low as f64 + (1u64 << shift) as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_again_within_two_percent() {
        for ns in (0..2_000u64).chain((11..39).map(|power| (1 << power) + (1 << (power - 2)) + 7)) {
            let again = middle(index(ns) as u64);
            assert!((again - ns as f64).abs() <= ns as f64 * 0.02, "{ns} became {again}");
        }
    }

    #[test]
    fn steps_follow_one_another() {
        let mut last = 0;
        for ns in 0..100_000 {
            let at = index(ns);
            assert!(at == last || at == last + 1, "{ns} is at {at}, the one before at {last}");
            last = at;
        }
    }

    #[test]
    fn quantiles_of_a_hundred_values() {
        let mut histogram = Histogram::default();
        let mut other = Histogram::default();
        for us in 1..=50 {
            histogram.add(Duration::from_micros(us));
            other.add(Duration::from_micros(us + 50));
        }
        histogram.merge(&other);
        for (part, wanted) in [(0.01, 1.0), (0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            let found = histogram.quantile(part);
            assert!((found - wanted).abs() < wanted * 0.02, "{part}: {found}, not {wanted}");
        }
        assert_eq!(Histogram::default().quantile(0.5), 0.0);
        histogram.add(Duration::from_secs(1 << 20));
        assert!(histogram.quantile(1.0) > 1e8, "what is too long counts as the longest");
    }
}
