//! One measurement: workers go on and on, and what they do between two moments counts.
//!
//! Warm-up and measurement follow each other without a pause, so that a thread's first calls and the opening of its
//! connection are in no figure. CPU is the whole process's, threads of libraries included.

pub mod tasks;

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::histogram::Histogram;
use crate::probe::Probe;

/// How long a measurement takes.
#[derive(Clone, Copy)]
pub struct Span {
    /// What comes before, and does not count.
    pub warm: Duration,
    /// What counts.
    pub counted: Duration,
}

/// Where a measurement takes place: the servers that are read, and for how long.
pub struct Ground {
    /// The primary first.
    pub servers: Vec<Probe>,
    /// What the present cell takes.
    pub span: Span,
    /// The youngest connection of each server before the candidate came.
    since: Vec<u64>,
}

impl Ground {
    /// The servers at these addresses.
    pub fn new(addresses: &[String], span: Span) -> Self {
        Self { servers: addresses.iter().map(|address| Probe::open(address)).collect(), span, since: Vec::new() }
    }

    /// A candidate begins: what connects from now on is its own.
    pub fn mark(&mut self) {
        self.since = self.servers.iter_mut().map(Probe::youngest).collect();
    }

    /// How many connections the candidate has.
    pub fn newcomers(&mut self) -> usize {
        self.servers.iter_mut().zip(&self.since).map(|(server, id)| server.younger_than(*id)).sum()
    }
}

/// What one candidate did in one round.
#[derive(Clone, Copy, Default)]
pub struct Sample {
    /// Commands per second.
    pub rate: f64,
    /// Microseconds: half of the calls took no longer. A pipeline is one call.
    pub p50: f64,
    /// Microseconds: 99 % of the calls took no longer.
    pub p99: f64,
    /// Microseconds of CPU of the client per command.
    pub client_cpu: f64,
    /// Microseconds of CPU of all servers per command.
    pub server_cpu: f64,
    /// Connections to the servers at the end.
    pub connections: f64,
    /// Calls into the library per command, where they are counted.
    pub crossings: Option<f64>,
}

/// What one worker has counted.
#[derive(Default)]
pub struct Tally {
    counting: bool,
    commands: u64,
    crossings: u64,
    latencies: Histogram,
}

impl Tally {
    /// A call is over that stood for so many commands.
    pub fn add(&mut self, commands: u32, latency: Duration) {
        if self.counting {
            self.commands += u64::from(commands);
            self.latencies.add(latency);
        }
    }

    /// The library was called so often.
    pub fn cross(&mut self, times: u32) {
        if self.counting {
            self.crossings += u64::from(times);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.commands += other.commands;
        self.crossings += other.crossings;
        self.latencies.merge(&other.latencies);
    }
}

/// What a worker does again and again.
pub type Turn<'a> = Box<dyn FnMut(&mut Tally) + 'a>;

/// A turn that is one call and says how many commands it was.
pub fn timed<'a>(mut call: impl FnMut() -> u32 + 'a) -> Turn<'a> {
    let mut began = Instant::now();
    Box::new(move |tally| {
        let commands = call();
        let now = Instant::now();
        tally.add(commands, now - began);
        began = now;
    })
}

const WARM: u8 = 0;
const COUNT: u8 = 1;
const STOP: u8 = 2;

/// What workers look at between two turns.
#[derive(Default)]
pub struct Phase {
    now: AtomicU8,
    ready: AtomicUsize,
}

impl Phase {
    /// A worker has its connection.
    pub fn report_ready(&self) {
        self.ready.fetch_add(1, Ordering::Release);
    }

    /// False: it is over. Otherwise the tally knows whether to count.
    pub fn goes_on(&self, tally: &mut Tally) -> bool {
        let now = self.now.load(Ordering::Relaxed);
        tally.counting = now == COUNT;
        now != STOP
    }
}

/// Waits for the workers, lets them warm up, and takes the readings; what is missing is the workers' own tallies.
pub fn observe(phase: &Phase, workers: usize, ground: &mut Ground) -> Readings {
    while phase.ready.load(Ordering::Acquire) < workers {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(ground.span.warm);
    let before = Moment::now(&ground.servers);
    phase.now.store(COUNT, Ordering::Relaxed);
    thread::sleep(ground.span.counted);
    phase.now.store(WARM, Ordering::Relaxed);
    let after = Moment::now(&ground.servers);
    let connections = ground.newcomers();
    phase.now.store(STOP, Ordering::Relaxed);
    Readings {
        wall: (after.wall - before.wall).as_secs_f64(),
        client_cpu: after.client - before.client,
        server_cpu: after.servers - before.servers,
        connections,
    }
}

/// What was read off clocks and servers.
pub struct Readings {
    wall: f64,
    client_cpu: f64,
    server_cpu: f64,
    connections: usize,
}

impl Readings {
    /// The sample, with what the workers counted.
    pub fn sample(&self, tallies: impl IntoIterator<Item = Tally>) -> Sample {
        let mut all = Tally::default();
        tallies.into_iter().for_each(|tally| all.merge(&tally));
        let commands = all.commands.max(1) as f64;
        Sample {
            rate: all.commands as f64 / self.wall,
            p50: all.latencies.quantile(0.5),
            p99: all.latencies.quantile(0.99),
            client_cpu: self.client_cpu * 1e6 / commands,
            server_cpu: self.server_cpu * 1e6 / commands,
            connections: self.connections as f64,
            crossings: (all.crossings > 0).then_some(all.crossings as f64 / commands),
        }
    }
}

struct Moment {
    wall: Instant,
    client: f64,
    servers: f64,
}

impl Moment {
    fn now(servers: &[Probe]) -> Self {
        let servers = servers.iter().map(Probe::cpu).sum();
        Self { wall: Instant::now(), client: cpu(libc::RUSAGE_SELF), servers }
    }
}

/// Seconds of CPU, of this process or of its children that have ended.
pub fn cpu(whose: i32) -> f64 {
    // SAFETY: the call fills the structure, which lives here.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(whose, &mut usage), 0, "getrusage knows this number");
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// So many threads, each with a turn of its own that is made on it.
pub fn threads<'a>(count: usize, ground: &mut Ground, make: &(dyn Fn() -> Turn<'a> + Sync)) -> Sample {
    let phase = Phase::default();
    thread::scope(|scope| {
        let work = || {
            let mut turn = make();
            let mut tally = Tally::default();
            phase.report_ready();
            while phase.goes_on(&mut tally) {
                turn(&mut tally);
            }
            tally
        };
        let workers: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        let readings = observe(&phase, count, ground);
        readings.sample(workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")))
    })
}
