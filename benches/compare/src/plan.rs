//! What is measured, and the running of it: round by round, every candidate of a cell in each round, the first place in turn.

use crate::candidate::engine::BareEngine;
use crate::candidate::fred::Fred;
use crate::candidate::hiredis::Hiredis;
use crate::candidate::redis_benchmark::RedisBenchmark;
use crate::candidate::vigie::Vigie;
use crate::candidate::{Candidate, ELEMENT, ELEMENTS, Job, LIST, SMALL, key, redis_rs, value};
use crate::drive::{Ground, Sample, Span};
use crate::fail;
use crate::options::Options;
use crate::progress::Progress;
use crate::vigie::Sentinel;

/// How many threads, or tasks, at once.
pub const THREADS: [usize; 7] = [1, 2, 4, 6, 8, 64, 256];
/// Bytes of a value.
pub const SIZES: [usize; 4] = [SMALL, 1024, 64 * 1024, 1024 * 1024];
const PIPELINES: [usize; 3] = [1, 16, 64];
/// Submits that are outstanding.
pub const WINDOWS: [usize; 2] = [64, 256];
/// The option that lets a lone caller spin.
const SPIN: &[(&str, &str)] = &[("lane.spin_us", "50")];

/// A deployment, as scripts/deployment.sh started it.
pub struct Deployment {
    /// For vigie.
    pub uri: String,
    /// host:port of the primary, then of the replicas.
    pub addresses: Vec<String>,
}

impl Deployment {
    fn primary(&self) -> (&str, u16) {
        let parts = self.addresses.first().and_then(|address| address.rsplit_once(':'));
        let parts = parts.and_then(|(host, port)| Some((host, port.parse().ok()?)));
        parts.unwrap_or_else(|| fail("a deployment without the address of its primary"))
    }

    fn hiredis(&self) -> Hiredis {
        let (host, port) = self.primary();
        Hiredis { host: host.to_owned(), port }
    }

    /// Writes what is read later.
    pub fn fill(&self, ground: &mut Ground) {
        let primary = &mut ground.servers[0];
        for size in SIZES {
            primary.ask(&[b"SET", key(size).as_bytes(), &value(size)]);
        }
        primary.ask(&[b"DEL", LIST.as_bytes()]);
        let elements: Vec<Vec<u8>> = (0..ELEMENTS).map(|n| format!("{n:0ELEMENT$}").into_bytes()).collect();
        let mut args: Vec<&[u8]> = vec![b"RPUSH", LIST.as_bytes()];
        args.extend(elements.iter().map(Vec::as_slice));
        primary.ask(&args);
        let replicas = ground.servers.len() - 1;
        let there = ground.servers[0].ask(&[b"WAIT", replicas.to_string().as_bytes(), b"10000"]);
        if there != replicas.to_string() {
            fail(format!("{there} of {replicas} replicas have the values"));
        }
    }
}

/// A candidate in a cell, with what it does there.
struct Entry<'a> {
    label: String,
    who: &'a dyn Candidate,
    job: Job,
}

/// What is compared with each other. The first entry is what the ratios refer to.
struct Cell<'a> {
    section: &'static str,
    title: String,
    parallel: usize,
    ground: usize,
    span: Span,
    entries: Vec<Entry<'a>>,
}

/// The samples of one candidate, one for each round.
pub struct Row {
    /// Its name.
    pub label: String,
    /// One for each round.
    pub samples: Vec<Sample>,
}

impl Row {
    /// The median of the rounds.
    pub fn median(&self, what: impl Fn(&Sample) -> f64) -> f64 {
        crate::median(self.samples.iter().map(what))
    }
}

/// A cell that was measured.
pub struct Measured {
    /// The part of the run.
    pub section: &'static str,
    /// What was done.
    pub title: String,
    /// By how many threads.
    pub parallel: usize,
    /// By whom.
    pub rows: Vec<Row>,
}

/// Everybody who takes part.
pub struct Everybody<'a> {
    hiredis: Hiredis,
    vigie: Vigie<'a>,
    spin: Vigie<'a>,
    others: Vec<Box<dyn Candidate>>,
    engine: BareEngine,
    batch: RedisBenchmark,
    crowd: RedisBenchmark,
    remote_hiredis: Hiredis,
    remote_vigie: Vigie<'a>,
    split: Vigie<'a>,
}

impl<'a> Everybody<'a> {
    /// At these two deployments: one that has no replicas, and one for reads over two.
    pub fn new(plain: &Deployment, sentinel: &'a Sentinel, wide: &Deployment, remote: &'a Sentinel) -> Self {
        let (host, port) = plain.primary();
        let vigie = |sentinel, name, split, options| Vigie { sentinel, name, split, options };
        Self {
            hiredis: plain.hiredis(),
            vigie: vigie(sentinel, "vigie", false, &[]),
            spin: vigie(sentinel, "vigie, spin", false, SPIN),
            others: others(host, port, &plain.addresses[0]),
            engine: BareEngine { host: host.to_owned(), port },
            batch: RedisBenchmark::new(host, port, 1, 64),
            crowd: RedisBenchmark::new(host, port, 64, 1),
            remote_hiredis: wide.hiredis(),
            remote_vigie: vigie(remote, "vigie", false, &[]),
            split: vigie(remote, "vigie, split", true, &[]),
        }
    }

    /// The cells that were asked for.
    fn cells(&'a self, options: &Options) -> Vec<Cell<'a>> {
        let mut cells = Vec::new();
        let mut section = |name: &str, make: &dyn Fn() -> Vec<Cell<'a>>| {
            if options.wants(name) {
                cells.extend(make());
            }
        };
        section("threads", &|| self.threads(options.span(800)));
        section("sizes", &|| self.sizes(options));
        section("lists", &|| [1, 8].map(|n| self.list(n, options.span(250))).into());
        section("pipelines", &|| self.pipelines(options.span(200)));
        section("submit", &|| vec![self.submit(options.span(800))]);
        section("replicas", &|| [8, 64].map(|n| self.replicas(n, options.span(300))).into());
        cells
    }

    /// Those who take part in nearly everything: hiredis, vigie, the others where `all`.
    fn usual(&'a self, job: Job, all: impl Fn(&dyn Candidate) -> bool) -> Vec<Entry<'a>> {
        let others = self.others.iter().map(AsRef::as_ref).filter(|who| all(*who));
        let who = [&self.hiredis as &dyn Candidate, &self.vigie].into_iter().chain(others);
        who.map(|who| entry(who, job)).collect()
    }

    fn threads(&'a self, span: Span) -> Vec<Cell<'a>> {
        let cell = |parallel: usize| {
            let job = Job::Get(SMALL);
            let mut entries = self.usual(job, |_| true);
            entries.push(entry(&self.engine, job));
            match parallel {
                1 => entries.push(entry(&self.spin, job)),
                64 => entries.push(entry(&self.crowd, job)),
                _ => {}
            }
            self.cell("threads", title(job), parallel, span, entries)
        };
        THREADS.map(cell).into()
    }

    fn sizes(&'a self, options: &Options) -> Vec<Cell<'a>> {
        // A megabyte takes 64 threads tens of milliseconds.
        let span =
            |job| options.span(if matches!(job, Job::Get(0x10_0000..) | Job::Set(0x10_0000..)) { 400 } else { 150 });
        let jobs =
            SIZES.iter().flat_map(|size| [Job::Get(*size), Job::Set(*size)]).filter(|job| *job != Job::Get(SMALL));
        let cells = jobs.flat_map(|job| [1, 8, 64].map(|parallel| (job, parallel)));
        cells.map(|(job, n)| self.cell("sizes", title(job), n, span(job), self.usual(job, |_| true))).collect()
    }

    fn list(&'a self, parallel: usize, span: Span) -> Cell<'a> {
        let entries = self.usual(Job::Lrange, speaks_all);
        self.cell("lists", title(Job::Lrange), parallel, span, entries)
    }

    fn pipelines(&'a self, span: Span) -> Vec<Cell<'a>> {
        let cells = PIPELINES.into_iter().flat_map(|count| [1, 8].map(|parallel| (Job::Pipeline(count), parallel)));
        cells.map(|(job, n)| self.cell("pipelines", title(job), n, span, self.usual(job, speaks_all))).collect()
    }

    fn submit(&'a self, span: Span) -> Cell<'a> {
        let pipeline = Job::Pipeline(64);
        let mut entries = vec![entry(&self.hiredis, pipeline), entry(&self.batch, Job::Get(SMALL))];
        entries[0].label = "hiredis, pipeline of 64".to_owned();
        for size in WINDOWS {
            for (single, how) in [(false, ""), (true, ", one by one")] {
                let label = format!("vigie, window {size}{how}");
                entries.push(Entry { label, who: &self.vigie, job: Job::Window { size, single } });
            }
        }
        self.cell("submit", "GET of 64 bytes, submitted".to_owned(), 1, span, entries)
    }

    fn replicas(&'a self, parallel: usize, span: Span) -> Cell<'a> {
        let who: [&dyn Candidate; 3] = [&self.remote_hiredis, &self.remote_vigie, &self.split];
        let entries = who.map(|who| entry(who, Job::Get(SMALL))).into();
        let title = format!("{}, two replicas", title(Job::Get(SMALL)));
        Cell { ground: 1, ..self.cell("replicas", title, parallel, span, entries) }
    }

    fn cell(
        &self,
        section: &'static str,
        title: String,
        parallel: usize,
        span: Span,
        entries: Vec<Entry<'a>>,
    ) -> Cell<'a> {
        Cell { section, title, parallel, ground: 0, span, entries }
    }

    /// Measures everything that was asked for.
    pub fn measure(&self, options: &Options, grounds: &mut [Ground; 2]) -> Vec<Measured> {
        let cells = self.cells(options);
        let progress = Progress::new(cells.len());
        let done =
            cells.iter().enumerate().map(|(n, cell)| cell.measure(n, options.rounds, grounds, &progress)).collect();
        progress.end();
        done
    }
}

fn others(host: &str, port: u16, address: &str) -> Vec<Box<dyn Candidate>> {
    let _ = (host, port); // for redis-plus-plus, where there is one
    vec![
        #[cfg(redispp)]
        Box::new(crate::candidate::redispp::RedisPlusPlus { host: host.to_owned(), port }),
        Box::new(redis_rs::Sync::new(address)),
        Box::new(redis_rs::Async::new(address)),
        Box::new(Fred::new(address)),
    ]
}

/// Who is missing, and why.
pub fn notes() -> Vec<String> {
    let missing = "redis-plus-plus: not among the system's packages (libredis++-dev), so it does not take part.";
    if cfg!(redispp) { Vec::new() } else { vec![missing.to_owned()] }
}

/// redis-plus-plus takes part in GET and SET alone.
fn speaks_all(who: &dyn Candidate) -> bool {
    who.name() != "redis-plus-plus"
}

fn entry(who: &dyn Candidate, job: Job) -> Entry<'_> {
    Entry { label: who.name().to_owned(), who, job }
}

/// A number of bytes as people write it.
fn bytes(size: usize) -> String {
    match size {
        0..1024 => format!("{size} bytes"),
        1024..0x10_0000 => format!("{} KiB", size / 1024),
        _ => format!("{} MiB", size / 0x10_0000),
    }
}

/// What a job is called in the tables.
pub fn title(job: Job) -> String {
    match job {
        Job::Get(size) => format!("GET of {}", bytes(size)),
        Job::Set(size) => format!("SET of {}", bytes(size)),
        Job::Lrange => format!("LRANGE of {ELEMENTS} x {ELEMENT} bytes"),
        Job::Pipeline(count) => format!("GET of {SMALL} bytes, pipelines of {count}"),
        Job::Window { size, .. } => format!("GET of {SMALL} bytes, window {size}"),
    }
}

impl Cell<'_> {
    fn measure(&self, number: usize, rounds: usize, grounds: &mut [Ground; 2], progress: &Progress) -> Measured {
        let ground = &mut grounds[self.ground];
        ground.span = self.span;
        let title = format!("{}, {} at once", self.title, self.parallel);
        let row = |entry: &Entry<'_>| Row { label: entry.label.clone(), samples: Vec::new() };
        let mut rows: Vec<Row> = self.entries.iter().map(row).collect();
        let count = self.entries.len();
        for step in 0..rounds * count {
            // Whoever comes first in a round has the colder caches: turn about.
            let at = (step / count + step) % count;
            progress.step(number, step as f64 / (rounds * count) as f64, &title, &self.entries[at].label);
            ground.mark();
            rows[at].samples.push(self.entries[at].who.run(self.entries[at].job, self.parallel, ground));
        }
        Measured { section: self.section, title: self.title.clone(), parallel: self.parallel, rows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_as_people_write_them() {
        let titles = SIZES.map(|size| title(Job::Get(size)));
        assert_eq!(titles, ["GET of 64 bytes", "GET of 1 KiB", "GET of 64 KiB", "GET of 1 MiB"]);
    }
}
