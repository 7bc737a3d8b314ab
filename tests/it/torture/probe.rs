//! The standard probe: a writer that appends numbers to one list, in order, and a reader; both note what each call gave and when.

use crate::support::{Deployment, Node, eventually_some, proc};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vigie::client::{CallFlags, Client, Timeout};
use vigie::error::{Error, Status, flags};

/// An error as the table counts it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// `IO`, `TIMEOUT`, `SERVER READONLY`.
    pub name: String,
    pub flags: u32,
}

impl Kind {
    pub fn of(error: &Error) -> Kind {
        let name = error.status().info().name.trim_start_matches("VIGIE_ERR_");
        let name = match error.status() {
            Status::Server => format!("{name} {}", error.server_code()),
            _ => name.to_owned(),
        };
        Kind { name, flags: error.flags() }
    }
    pub fn maybe(&self) -> bool {
        self.flags & flags::MAYBE_EXECUTED != 0
    }
    pub fn retryable(&self) -> bool {
        self.flags & flags::RETRYABLE != 0
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name.to_lowercase())?;
        let marks = [(flags::MAYBE_EXECUTED, "?"), (flags::RETRYABLE, "+"), (flags::FAILOVER, "f")];
        marks.iter().filter(|(flag, _)| self.flags & flag != 0).try_for_each(|(_, mark)| f.write_str(mark))
    }
}

/// One call of the probe.
#[derive(Clone, Debug)]
pub struct Sample {
    pub number: u64,
    pub began: Instant,
    pub ended: Instant,
    pub outcome: Result<(), (Kind, String)>,
}

impl Sample {
    pub fn is_ok(&self) -> bool {
        self.outcome.is_ok()
    }
    pub fn took(&self) -> Duration {
        self.ended - self.began
    }
}

/// What a probe does.
#[derive(Clone)]
pub struct Habits {
    pub key: String,
    /// Between the end of a call and the next one.
    pub pace: Duration,
    pub timeout: Timeout,
    pub flags: u32,
    pub reads: bool,
}

impl Default for Habits {
    fn default() -> Self {
        let (key, pace) = ("torture".to_owned(), Duration::from_millis(2));
        Habits { key, pace, timeout: Timeout::Ms(5000), flags: 0, reads: true }
    }
}

pub struct Probe {
    habits: Habits,
    began: Instant,
    fault: Option<Instant>,
    /// When the fault was done.
    struck: Option<Instant>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writes: Arc<Mutex<Vec<Sample>>>,
    reads: Arc<Mutex<Vec<Sample>>>,
    threads: Vec<JoinHandle<()>>,
}

/// What a probe saw, as it is judged.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub writes: Vec<Sample>,
    pub reads: Vec<Sample>,
    /// Longest time without an acknowledged write, and without an answered read.
    pub gap: Duration,
    pub read_gap: Duration,
    /// Acknowledged but missing; of these, acknowledged within 100 ms before the fault.
    pub lost: usize,
    pub lost_late: usize,
    /// When each of the lost was acknowledged.
    pub missing: Vec<Instant>,
    /// When the fault began, and when it was done.
    pub fault: Option<Instant>,
    pub struck: Option<Instant>,
    pub duplicates: usize,
    /// Told as surely not executed, and there.
    pub ghosts: usize,
    pub errors: BTreeMap<Kind, usize>,
    pub read_errors: BTreeMap<Kind, usize>,
    pub longest: Duration,
    /// The text of one error of each kind.
    pub examples: BTreeMap<Kind, String>,
}

impl Probe {
    /// Writes and reads until `stop`; returns when the first write was acknowledged.
    pub fn start(client: &Arc<Client>, habits: Habits) -> Probe {
        let mut probe = Probe {
            began: Instant::now(),
            fault: None,
            struck: None,
            stop: Arc::default(),
            acknowledged: Arc::default(),
            writes: Arc::default(),
            reads: Arc::default(),
            threads: Vec::new(),
            habits,
        };
        probe.spawn(client, true);
        if probe.habits.reads {
            probe.spawn(client, false);
        }
        probe.await_writes(1);
        probe.began = Instant::now();
        probe
    }

    fn spawn(&mut self, client: &Arc<Client>, writes: bool) {
        let (client, habits, stop) = (client.clone(), self.habits.clone(), self.stop.clone());
        let acknowledged = self.acknowledged.clone();
        let samples = if writes { self.writes.clone() } else { self.reads.clone() };
        let name = if writes { "kit-probe-w" } else { "kit-probe-r" };
        self.threads.push(proc::thread(name, move || {
            let call_flags = CallFlags::from_bits(habits.flags).expect("known flags");
            for number in 1.. {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                let text = number.to_string();
                let args: [&[u8]; 3] = [b"RPUSH", habits.key.as_bytes(), text.as_bytes()];
                let read: [&[u8]; 2] = [b"GET", b"torture-reads"];
                let began = Instant::now();
                let outcome = match writes {
                    true => client.cmd_exec(&args, call_flags, habits.timeout),
                    false => client.cmd_exec(&read, CallFlags::default(), habits.timeout),
                };
                let ended = Instant::now();
                let outcome = outcome.map(drop).map_err(|error| (Kind::of(&error), error.message().to_owned()));
                if writes && outcome.is_ok() {
                    acknowledged.fetch_add(1, Ordering::AcqRel);
                }
                samples.lock().expect("no panic under the lock").push(Sample { number, began, ended, outcome });
                std::thread::sleep(habits.pace);
            }
        }));
    }

    /// Writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Waits until so many more writes were acknowledged.
    #[track_caller]
    pub fn await_writes(&self, more: u64) {
        let goal = self.acknowledged() + more;
        eventually_some(&format!("{more} more writes"), Duration::from_secs(60), || {
            (self.acknowledged() >= goal).then_some(())
        });
    }

    /// Lets it run for so long.
    pub fn run_for(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// The fault comes now: what was acknowledged shortly before may be lost with the host.
    pub fn fault(&mut self) {
        self.fault.get_or_insert_with(Instant::now);
    }

    /// Does what ends the primary: the fault lasts from before it until it is done, and writes are acknowledged meanwhile.
    pub fn fault_by<T>(&mut self, ends: impl FnOnce() -> T) -> T {
        self.fault();
        let done = ends();
        self.struck = Some(Instant::now());
        done
    }

    /// Since the fault.
    pub fn since_fault(&self) -> Duration {
        self.fault.map(|at| at.elapsed()).unwrap_or_default()
    }

    /// Ends the probe and compares with the list on the primary that the Sentinels agree on.
    #[track_caller]
    pub fn stop(self, deployment: &Deployment) -> Seen {
        let key = self.habits.key.clone();
        self.stop_with(move || list_of(&deployment.settled_primary(crate::calls::SERVICE), &key))
    }

    /// The same with the list of this node.
    pub fn stop_at(self, node: &Node) -> Seen {
        let key = self.habits.key.clone();
        self.stop_with(move || list_of(node, &key))
    }

    /// Ends the probe and compares with the list that is fetched then.
    pub fn stop_with(mut self, list: impl FnOnce() -> Vec<u64>) -> Seen {
        self.stop.store(true, Ordering::Release);
        // From here on no write is expected.
        let end = Instant::now();
        self.threads.drain(..).for_each(|thread| thread.join().expect("the probe does not panic"));
        let writes = std::mem::take(&mut *self.writes.lock().expect("no panic under the lock"));
        let reads = std::mem::take(&mut *self.reads.lock().expect("no panic under the lock"));
        let pace = self.habits.pace;
        let mut seen = Seen { gap: gap(&writes, self.began, end, pace), ..Seen::default() };
        seen.read_gap = if reads.is_empty() { Duration::ZERO } else { gap(&reads, self.began, end, pace) };
        seen.longest = writes.iter().chain(&reads).map(Sample::took).max().unwrap_or_default();
        count_errors(&writes, &mut seen.errors, &mut seen.examples);
        count_errors(&reads, &mut seen.read_errors, &mut seen.examples);
        let mut there: HashMap<u64, usize> = HashMap::new();
        list().into_iter().for_each(|number| *there.entry(number).or_default() += 1);
        for sample in &writes {
            match &sample.outcome {
                Ok(()) if !there.contains_key(&sample.number) => {
                    let late = |fault: Instant| {
                        let struck = self.struck.unwrap_or(fault);
                        sample.ended + Duration::from_millis(100) >= fault && sample.ended <= struck
                    };
                    seen.lost += 1;
                    seen.missing.push(sample.ended);
                    seen.lost_late += usize::from(self.fault.is_some_and(late));
                }
                // REPLICAS says that it was executed.
                Err((kind, _)) if !kind.maybe() && kind.name != "REPLICAS" && there.contains_key(&sample.number) => {
                    seen.ghosts += 1;
                }
                _ => {}
            }
        }
        (seen.fault, seen.struck) = (self.fault, self.struck);
        seen.duplicates = there.values().filter(|count| **count > 1).count();
        (seen.writes, seen.reads) = (writes, reads);
        seen
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Seen {
    /// What several probes saw: the worst of each.
    pub fn of_all(all: impl IntoIterator<Item = Seen>) -> Seen {
        let mut whole = Seen::default();
        for one in all {
            whole.writes.extend(one.writes);
            whole.reads.extend(one.reads);
            whole.missing.extend(one.missing);
            whole.examples.extend(one.examples);
            (whole.gap, whole.read_gap) = (whole.gap.max(one.gap), whole.read_gap.max(one.read_gap));
            whole.longest = whole.longest.max(one.longest);
            whole.lost += one.lost;
            whole.lost_late += one.lost_late;
            whole.duplicates += one.duplicates;
            whole.ghosts += one.ghosts;
            one.errors.into_iter().for_each(|(kind, count)| *whole.errors.entry(kind).or_default() += count);
            one.read_errors.into_iter().for_each(|(kind, count)| *whole.read_errors.entry(kind).or_default() += count);
        }
        whole
    }
    /// Acknowledged writes.
    pub fn acknowledged(&self) -> usize {
        self.writes.iter().filter(|sample| sample.is_ok()).count()
    }
    /// When the first write was acknowledged after `at`.
    pub fn first_after(&self, at: Instant) -> Option<Instant> {
        self.writes.iter().filter(|sample| sample.is_ok() && sample.ended > at).map(|sample| sample.ended).min()
    }
}

/// The numbers of a probe's list on a node.
#[track_caller]
pub fn list_of(node: &Node, key: &str) -> Vec<u64> {
    let reply = node.cmd(&["LRANGE", key, "0", "-1"]);
    reply.items().iter().filter_map(|item| item.text().parse().ok()).collect()
}

/// The longest time without a success, less the time for which the machine kept the probe from calling at all.
fn gap(samples: &[Sample], began: Instant, end: Instant, pace: Duration) -> Duration {
    let (mut longest, mut since, mut stood) = (Duration::ZERO, began, Duration::ZERO);
    let mut free = began;
    for sample in samples.iter().filter(|sample| sample.ended >= began) {
        stood += stall(free, sample.began, pace);
        free = sample.ended;
        if sample.is_ok() {
            longest = longest.max((sample.ended.min(end).saturating_duration_since(since)).saturating_sub(stood));
            (since, stood) = (sample.ended, Duration::ZERO);
        }
    }
    stood += stall(free, end, pace);
    longest.max(end.saturating_duration_since(since).saturating_sub(stood))
}

/// How long a thread that calls at this pace did not run, if that was longer than a sleep may be late.
fn stall(free: Instant, until: Instant, pace: Duration) -> Duration {
    const LATE: Duration = Duration::from_millis(10);
    let beyond = until.saturating_duration_since(free).saturating_sub(pace);
    if beyond > LATE { beyond } else { Duration::ZERO }
}

#[test]
fn a_gap_is_what_calls_took_and_not_what_the_probe_was_kept_from() {
    let began = Instant::now();
    let at = |ms: u64| began + Duration::from_millis(ms);
    let sample = |from: u64, to: u64, good: bool| {
        let error = || (Kind { name: "IO".into(), flags: 0 }, String::new());
        Sample { number: from, began: at(from), ended: at(to), outcome: if good { Ok(()) } else { Err(error()) } }
    };
    let gap = |samples: &[Sample], end: u64| gap(samples, began, at(end), Duration::from_millis(2)).as_millis();
    assert_eq!(gap(&[sample(1, 2, true), sample(4, 400, true), sample(402, 403, true)], 405), 398, "a slow call");
    assert_eq!(
        gap(&[sample(1, 2, true), sample(4, 5, false), sample(7, 300, false), sample(302, 303, true)], 305),
        301
    );
    assert_eq!(gap(&[sample(1, 2, true), sample(802, 803, true)], 805), 3, "it was not run");
    assert_eq!(gap(&[sample(1, 2, true), sample(4, 204, false), sample(1004, 1005, true)], 1006), 205, "both");
    assert_eq!(gap(&[sample(1, 2, true)], 700), 2, "nor at the end");
    assert_eq!(gap(&[sample(1, 2, true), sample(4, 900, true)], 700), 698, "the end comes during a call");
}

fn count_errors(samples: &[Sample], errors: &mut BTreeMap<Kind, usize>, examples: &mut BTreeMap<Kind, String>) {
    for sample in samples {
        if let Err((kind, text)) = &sample.outcome {
            *errors.entry(kind.clone()).or_default() += 1;
            examples.entry(kind.clone()).or_insert_with(|| text.clone());
        }
    }
}
