//! Latencies as counts in buckets: sixteen to each doubling of the time, from a microsecond to two minutes.
//!
//! Guarantees: to record some takes no allocation, no loop and no locked instruction, because the bits of a floating-point number are its
//! bucket; a quantile is too high by 1/16 at most, and never too low; two histograms can be added. Leaves to others: which times are
//! recorded, and that there is one writer at a time (lane).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::add;

/// Buckets for each doubling: 2 to this power.
const SPLIT: u32 = 4;
/// How far the exponent and the first bits of the fraction of an `f32` are shifted.
const SHIFT: u32 = 23 - SPLIT;
/// These bits of one microsecond.
const FIRST: u32 = 127 << SPLIT;
/// The bits of the longest time that the first bucket does not count, less one bucket.
const ZERO: i32 = (((FIRST - 1) << SHIFT) + 1) as i32;
/// Times above 2 to this power of microseconds share the last bucket.
const LAST: u32 = 27;
const BUCKETS: usize = 2 + ((LAST as usize) << SPLIT);

/// The latencies of one connection, with one writer at a time.
pub struct Latencies {
    buckets: [AtomicU64; BUCKETS],
    /// Microseconds, as the bits of an `f64`: to make a whole number of it costs more than the rest.
    sum_us: AtomicU64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum_us: AtomicU64::new(0) }
    }
}

impl Latencies {
    /// Records so many of this time, in microseconds.
    #[inline]
    pub fn record(&self, us: f32, count: u64) {
        let sum = f64::from_bits(self.sum_us.load(Ordering::Relaxed)) + f64::from(us) * count as i64 as f64;
        self.sum_us.store(sum.to_bits(), Ordering::Relaxed);
        if let Some(bucket) = self.buckets.get(bucket_of(us)) {
            add(bucket, count);
        }
    }
}

/// The bucket of a time. A time at the edge of a bucket belongs to that bucket.
#[inline]
fn bucket_of(us: f32) -> usize {
    let place = (us.to_bits() as i32).wrapping_sub(ZERO) >> SHIFT;
    place.clamp(0, BUCKETS as i32 - 1) as usize
}

/// The longest time that a bucket counts; `None`: the last one has no end.
fn edge_of(bucket: usize) -> Option<f32> {
    (bucket < BUCKETS - 1).then(|| f32::from_bits((bucket as u32 + FIRST) << SHIFT))
}

/// Latencies as they are at one moment, of any number of connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    sum_us: u64,
}

impl Histogram {
    /// How much memory one takes.
    pub const BYTES: usize = BUCKETS * size_of::<u64>();

    /// Adds those of a connection.
    #[inline(never)]
    pub fn add_latencies(&mut self, of: &Latencies) {
        self.counts.resize(BUCKETS, 0);
        self.counts.iter_mut().zip(&of.buckets).for_each(|(sum, one)| *sum += one.load(Ordering::Relaxed));
        self.sum_us += f64::from_bits(of.sum_us.load(Ordering::Relaxed)) as u64;
    }

    /// Adds another histogram.
    #[inline(never)]
    pub fn add(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, one)| *sum += one);
        self.sum_us += other.sum_us;
    }

    /// How many there are.
    #[inline(never)]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of them.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us)
    }

    /// How many took at most 2 to this power of microseconds.
    pub fn count_up_to(&self, power: u32) -> u64 {
        let within = |(bucket, _): &(usize, &u64)| edge_of(*bucket).is_some_and(|edge| edge <= (1u32 << power) as f32);
        self.counts.iter().enumerate().take_while(within).map(|(_, count)| count).sum()
    }

    /// The time that so many of a thousand did not exceed; `None` if there are none.
    pub fn quantile(&self, per_mille: u64) -> Option<Duration> {
        let count = self.count();
        let rank = (count * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        let at = self.counts.iter().position(|of_bucket| {
            seen += of_bucket;
            seen >= rank
        })?;
        Some(Duration::from_secs_f32(edge_of(at).unwrap_or((1 << LAST) as f32) / 1e6))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn of(times_us: impl IntoIterator<Item = f32>) -> Histogram {
        let latencies = Latencies::default();
        times_us.into_iter().for_each(|us| latencies.record(us, 1));
        let mut histogram = Histogram::default();
        histogram.add_latencies(&latencies);
        histogram
    }

    #[test]
    fn each_time_lies_within_its_bucket_and_the_buckets_have_no_gap() {
        let mut before = 0.0;
        for bucket in 0..BUCKETS - 1 {
            let edge = edge_of(bucket).unwrap();
            assert!(edge > before, "{bucket}");
            let next = f32::from_bits(before.to_bits() + 1);
            assert_eq!((bucket_of(next), bucket_of(edge)), (bucket, bucket), "up to {edge}");
            assert!(bucket == 0 || edge - before <= before / 16.0, "{before} to {edge}");
            before = edge;
        }
        assert_eq!((before, edge_of(0), edge_of(BUCKETS - 1)), ((1 << LAST) as f32, Some(1.0), None));
        assert_eq!((bucket_of(0.0), bucket_of(before * 1.01), bucket_of(f32::MAX)), (0, BUCKETS - 1, BUCKETS - 1));
    }

    #[test]
    fn a_quantile_is_never_too_low_and_at_most_a_sixteenth_too_high() {
        // From a microsecond to 100 ms, unevenly.
        let times: Vec<f32> = (0..20_000u32).map(|at| 1.0 + (at * at / 4000) as f32).collect();
        let histogram = of(times.iter().copied());
        let sum = times.iter().map(|us| f64::from(*us)).sum::<f64>() as u64;
        assert_eq!((histogram.count(), histogram.sum()), (20_000, Duration::from_micros(sum)));
        for per_mille in [1, 500, 900, 990, 999, 1000] {
            let exact = times[(times.len() as u64 * per_mille).div_ceil(1000) as usize - 1];
            let told = histogram.quantile(per_mille).unwrap().as_secs_f32() * 1e6;
            assert!(told >= exact * 0.9999 && told <= exact * 1.0626, "{per_mille}: {told} for {exact}");
        }
        assert_eq!(of([]).quantile(500), None);
        assert_eq!(of([1e30]).quantile(500).map(|time| time.as_secs()), Some(134));
    }

    #[test]
    fn what_is_counted_up_to_a_power_of_two_is_exact() {
        let after = |us: f32| f32::from_bits(us.to_bits() + 1);
        let histogram = of([64.0, after(64.0), 127.0, 128.0, after(128.0)]);
        assert_eq!([6, 7, 8].map(|power| histogram.count_up_to(power)), [1, 4, 5]);
        let mut sum = of([7.0]);
        sum.add(&histogram);
        sum.add(&Histogram::default());
        assert_eq!((sum.count(), sum.count_up_to(6)), (6, 2));
    }
}
