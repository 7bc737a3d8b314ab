//! The rig of scenarios.md: one primary, two replicas, three Sentinels (quorum 2, down-after 1000 ms, failover-timeout 6000 ms), a
//! client through the Rust interface, and the counting around a run. Also the two ways to run a scenario: as a test, as a bench.

use super::figures::{HEADS, Judge, Outcome, median};
use super::probe::{Habits, Probe, Seen};
use crate::calls::{self, SERVICE};
use crate::support::deployment::Builder;
use crate::support::{Deployment, Node, Pacing, eventually, netns, proc, seed};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vigie::client::{Client, Target, Timeout, close_all};
use vigie::queue::{Queue, kind};
use vigie::resp::Reply;
use vigie::time::Deadline;
use vigie::topology::{Sentinel, WATCHABLE};

/// Name of the library's connections on the servers.
pub const NAME: &str = "torture";

/// A scenario of scenarios.md; several may share a number, as forms of one.
pub struct Scenario {
    pub number: u32,
    pub name: &'static str,
    pub run: fn(&Rig) -> Outcome,
    /// There is no form of it without network namespaces.
    pub needs_root: bool,
}

/// Makes `SCENARIOS` of a section, and a test of the short form of each:
/// `scenario_01_planned_failover(1, "planned failover", planned_failover, needs_root: false);`
#[macro_export]
macro_rules! scenarios {
    ($($test:ident($number:literal, $name:literal, $run:expr, needs_root: $root:literal);)*) => {
        pub const SCENARIOS: &[$crate::torture::rig::Scenario] = &[$(
            $crate::torture::rig::Scenario { number: $number, name: $name, run: $run, needs_root: $root },
        )*];
        $(
            #[test]
            fn $test() {
                let name = concat!(module_path!(), "::", stringify!($test));
                let one = $crate::torture::rig::Scenario { number: $number, name: $name, run: $run, needs_root: $root };
                $crate::torture::rig::test(name, &one);
            }
        )*
    };
}

/// How long a scenario runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// At most 15 s.
    Short,
    Full,
}

pub struct Rig {
    pub form: Form,
    pub seed: u64,
}

impl Rig {
    pub fn new(form: Form) -> Rig {
        Rig { form, seed: seed() }
    }
    pub fn is_full(&self) -> bool {
        self.form == Form::Full
    }
    /// One thing in the short form, another in the full one.
    pub fn pick<T>(&self, short: T, full: T) -> T {
        if self.is_full() { full } else { short }
    }
    /// Whether hosts can vanish here; without, SIGSTOP and proxies stand in.
    pub fn has_network(&self) -> bool {
        netns::available()
    }
    /// The usual deployment, not started.
    pub fn deployment(&self, name: &str) -> Builder {
        Deployment::new(name).down_after(1000).failover_timeout(6000)
    }
    /// A stage: the deployment started, a watched handle and a client of the primary, the counting begun.
    pub fn stage(&self, builder: Builder, options: &[(&str, &str)]) -> Stage {
        self.stage_on(builder.start(), options)
    }
    pub fn stage_on(&self, deployment: Deployment, options: &[(&str, &str)]) -> Stage {
        let addrs = deployment.sentinel_addrs();
        Stage::new(deployment, &addrs, options)
    }
}

/// Something that happened, as `Sentinel::watch` told it.
#[derive(Clone, Debug)]
pub struct Heard {
    pub at: Instant,
    /// One of `vigie::queue::kind`.
    pub kind: u32,
    /// JSON.
    pub text: String,
}

/// A handle that is watched, and a client of the primary.
pub struct Handle {
    pub sentinel: Arc<Sentinel>,
    pub client: Arc<Client>,
    queue: Arc<Queue>,
    heard: Arc<Mutex<Vec<Heard>>>,
    listener: Option<JoinHandle<()>>,
}

impl Handle {
    /// Asks these Sentinels.
    pub fn open(addrs: &[String], options: &[(&str, &str)]) -> Handle {
        let mut all = vec![("client.name", NAME)];
        all.extend_from_slice(options);
        let sentinel = calls::sentinel_at(addrs, &all);
        let queue = Queue::create(65_536).expect("a queue");
        sentinel.watch(WATCHABLE, &queue, 1).expect("an open handle");
        let client = calls::to_primary(&sentinel, &[]);
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let (source, sink) = (queue.clone(), heard.clone());
        let listener = proc::thread("kit-events", move || {
            loop {
                let mut events = Vec::new();
                source.drain(Deadline::after(Duration::from_secs(1)), &mut events, 64);
                let at = Instant::now();
                if events.iter().any(|event| event.token == STOP) {
                    return;
                }
                for event in events {
                    let text = event.outcome.ok().flatten().as_ref().map(calls::json).unwrap_or_default();
                    sink.lock().expect("no panic under the lock").push(Heard { at, kind: event.kind, text });
                }
            }
        });
        Handle { sentinel, client, queue, heard, listener: Some(listener) }
    }

    /// A further client of this handle.
    pub fn client(&self, target: Target, overrides: &[(&str, &str)]) -> Arc<Client> {
        calls::open(&self.sentinel, target, overrides)
    }
    /// All events so far.
    pub fn events(&self) -> Vec<Heard> {
        self.heard.lock().expect("no panic under the lock").clone()
    }
    /// The events of one kind.
    pub fn events_of(&self, kind: u32) -> Vec<Heard> {
        self.events().into_iter().filter(|heard| heard.kind == kind).collect()
    }
    /// Switches from one primary to another, as told.
    pub fn switches(&self) -> Vec<Heard> {
        self.events_of(kind::TOPOLOGY)
    }
    /// The events as text, for messages.
    pub fn story(&self, since: Instant) -> String {
        let line = |heard: &Heard| {
            let at = heard.at.checked_duration_since(since).map_or(-1.0, |after| after.as_secs_f64() * 1000.0);
            format!("{at:>8.0} ms {}", heard.text)
        };
        self.events().iter().map(line).collect::<Vec<_>>().join("\n")
    }
    /// The primary as the library knows it now.
    pub fn primary(&self) -> String {
        let snapshot = self.sentinel.service(SERVICE).snapshot();
        snapshot.primary.as_ref().map(ToString::to_string).unwrap_or_default()
    }
    #[track_caller]
    pub fn await_primary(&self, addr: &str, within: Duration) {
        eventually(&format!("the library knows {addr} as primary"), within, || self.primary() == addr);
    }
    fn discoveries(&self) -> u64 {
        self.sentinel.service(SERVICE).discovered()
    }
    /// Ends the client and all that was made from the handle.
    pub fn close(&mut self) {
        let _ = close_all(&self.sentinel, Timeout::Ms(500));
        if let Some(listener) = self.listener.take() {
            // Pushed as a completion, which no watch gives.
            let stop = vigie::queue::Event { kind: kind::COMPLETION, token: STOP, outcome: Ok(None) };
            self.queue.push(stop);
            self.queue.wakeup();
            let _ = listener.join();
        }
        self.queue.close();
    }
}

const STOP: u64 = u64::MAX;

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

/// The text of a key in the JSON of an event: what stands between its quotes, or the bare word.
pub fn word<'a>(json: &'a str, key: &str) -> &'a str {
    let Some((_, rest)) = json.split_once(&format!("\"{key}\":")) else { return "" };
    match rest.strip_prefix('"') {
        Some(text) => text.split('"').next().unwrap_or_default(),
        None => rest.split([',', '}']).next().unwrap_or_default(),
    }
}

/// A deployment, a handle and the counting around them.
pub struct Stage {
    /// Dropped first.
    pub handle: Handle,
    pub deployment: Deployment,
    pub began: Instant,
    start: (usize, usize),
    discoveries: u64,
    sampler: Sampler,
}

impl Stage {
    /// A handle for these Sentinels (a proxy in front of them, perhaps).
    pub fn new(deployment: Deployment, addrs: &[String], options: &[(&str, &str)]) -> Stage {
        await_stream(&deployment);
        let sampler = Sampler::start();
        let start = held();
        let handle = Handle::open(addrs, options);
        handle.client.cmd_exec(&[b"PING"], Default::default(), Timeout::Default).expect("a primary that answers");
        eventually("a subscription at every Sentinel", Duration::from_secs(5), || {
            let listening = |heard: &Heard| heard.kind == kind::SENTINEL && word(&heard.text, "up") == "true";
            let off = options.iter().any(|(key, value)| *key == "monitor" && *value != "on");
            off || handle.events().iter().filter(|heard| listening(heard)).count() >= addrs.len()
        });
        let discoveries = handle.discoveries();
        Stage { handle, deployment, began: Instant::now(), start, discoveries, sampler }
    }

    pub fn client(&self) -> &Arc<Client> {
        &self.handle.client
    }
    /// The standard probe on the client.
    pub fn probe(&self) -> Probe {
        Probe::start(self.client(), Habits::default())
    }
    pub fn probe_with(&self, habits: Habits) -> Probe {
        Probe::start(self.client(), habits)
    }
    /// The data node that is primary now.
    pub fn primary(&self) -> Arc<Node> {
        self.deployment.primary_node(SERVICE)
    }
    pub fn sentinel(&self, index: usize) -> Arc<Node> {
        self.deployment.node(&format!("sentinel-{index}"))
    }
    /// The events since the stage was set, for messages.
    pub fn story(&self) -> String {
        self.handle.story(self.began)
    }

    /// Ends the probe, closes the library's handles, counts what is left, and gives all figures.
    #[track_caller]
    pub fn finish(self, probe: Probe) -> (Outcome, Seen) {
        let seen = probe.stop(&self.deployment);
        let mut outcome = self.close();
        outcome.take(&seen);
        (outcome, seen)
    }

    /// As `finish`, for a scenario with a probe of its own.
    pub fn close(mut self) -> Outcome {
        let wall = self.began.elapsed().as_secs_f64();
        let mut outcome = Outcome::default();
        let asked = self.handle.discoveries() - self.discoveries;
        outcome.queries = Some(asked as f64 * self.deployment.sentinel_nodes().len() as f64 / wall);
        let primary = self.deployment.serving_sentinels().iter().any(|_| true).then(|| self.primary());
        if let Some(primary) = primary.filter(|primary| primary.is_serving()) {
            outcome.connections = Some(primary.clients_named(NAME).len());
        }
        outcome.cpu = Some(self.sampler.cpu());
        if std::env::var("TORTURE_STORY").is_ok() {
            eprintln!("{}", self.story());
        }
        self.handle.close();
        let Stage { handle, deployment, sampler, start, .. } = self;
        drop(handle);
        // Workers without work retire after two seconds.
        let patience = Instant::now();
        let mut now = held();
        while (now.0 > start.0 || now.1 > start.1) && patience.elapsed() < Duration::from_secs(6) {
            std::thread::sleep(Duration::from_millis(10));
            now = held();
        }
        let (threads, descriptors) = sampler.stop();
        outcome.threads = Some((start.0, threads.max(start.0), now.0));
        outcome.descriptors = Some((start.1, descriptors.max(start.1), now.1));
        outcome.expect_flat();
        if now.0 > start.0 || now.1 > start.1 {
            outcome.note(format!("left: {:?}, {:?}", proc::threads_named("vigie"), proc::descriptors()));
        }
        drop(deployment);
        outcome
    }
}

/// Waits until every replica gets the stream: a primary holds it back until the first acknowledgement, up to a second after the
/// replica is listed as in sync, and what is written meanwhile dies with the primary.
#[track_caller]
fn await_stream(deployment: &Deployment) {
    let replicas = deployment.data_nodes(SERVICE).iter().filter(|node| node.is_serving()).count() - 1;
    if replicas == 0 || deployment.serving_sentinels().is_empty() {
        return;
    }
    // The Sentinels may know it by another address.
    let primary = deployment.data_nodes(SERVICE).into_iter().find(|node| node.role_word() == "master");
    await_stream_of(&primary.expect("a primary"), replicas, Duration::from_secs(30));
}

/// The same for the replicas of any primary, so many.
#[track_caller]
pub fn await_stream_of(primary: &Node, replicas: usize, patience: Duration) {
    let mut client = primary.connect().expect("the primary answers");
    eventually("every replica acknowledges", patience, || {
        let set = client.cmd(&["SET", "torture-stream", "1"]).expect("the primary answers");
        assert!(set.is_ok() || set.is_error(), "{}", set.text());
        let wait = client.cmd(&["WAIT", &replicas.to_string(), "1000"]).expect("the primary answers");
        wait.int() == Some(replicas as i64)
    });
}

/// The library's threads and the descriptors of this process.
fn held() -> (usize, usize) {
    let (threads, _, descriptors) = calls::held();
    (threads, descriptors)
}

/// Counts threads, descriptors and processor time while a scenario runs.
struct Sampler {
    stop: Arc<AtomicBool>,
    most: Arc<Mutex<Most>>,
    thread: Option<JoinHandle<()>>,
    began: Instant,
    cpu: Duration,
}

#[derive(Default)]
struct Most {
    threads: usize,
    descriptors: usize,
    /// Time of each thread of the library since the first look, those that have ended included.
    run: BTreeMap<i32, u64>,
    /// Of the threads of the kit that only watch.
    kit: BTreeMap<i32, u64>,
    /// What each thread had used before.
    before: BTreeMap<i32, u64>,
}

impl Sampler {
    fn start() -> Sampler {
        let (stop, most): (Arc<AtomicBool>, Arc<Mutex<Most>>) = Default::default();
        most.lock().expect("no panic under the lock").before =
            times().into_iter().map(|(id, _, run)| (id, run)).collect();
        let (stopped, sink) = (stop.clone(), most.clone());
        let thread = proc::thread("kit-sampler", move || {
            while !stopped.load(Ordering::Acquire) {
                sink.lock().expect("no panic under the lock").look();
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Sampler { stop, most, thread: Some(thread), began: Instant::now(), cpu: process_time() }
    }
    /// Per cent of a core: the process without the kit's watching, the library's threads.
    fn cpu(&self) -> (f64, f64) {
        let mut most = self.most.lock().expect("no panic under the lock");
        most.look();
        let wall = self.began.elapsed().as_secs_f64();
        let share = |nanos: u64| nanos as f64 / 1e7 / wall;
        let all = (process_time() - self.cpu).as_nanos() as u64;
        (share(all.saturating_sub(most.kit.values().sum())), share(most.run.values().sum()))
    }
    fn stop(mut self) -> (usize, usize) {
        self.stop.store(true, Ordering::Release);
        let _ = self.thread.take().map(JoinHandle::join);
        let most = self.most.lock().expect("no panic under the lock");
        (most.threads, most.descriptors)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Most {
    fn look(&mut self) {
        let (threads, descriptors) = held();
        self.threads = self.threads.max(threads);
        self.descriptors = self.descriptors.max(descriptors);
        for (id, name, run) in times() {
            let run = run.saturating_sub(self.before.get(&id).copied().unwrap_or(0));
            match &name {
                name if name.starts_with("vigie-") => self.run.insert(id, run),
                name if name.starts_with("kit-") && !name.starts_with("kit-probe") => self.kit.insert(id, run),
                _ => None,
            };
        }
    }
}

/// Number, name and processor time in ns of each thread of this process.
fn times() -> Vec<(i32, String, u64)> {
    let time = |(id, name): (i32, String)| {
        let stat = fs::read_to_string(format!("/proc/self/task/{id}/schedstat")).ok()?;
        Some((id, name, stat.split(' ').next()?.parse().ok()?))
    };
    proc::threads().into_iter().filter_map(time).collect()
}

/// Processor time of this process.
fn process_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure lives on this stack frame.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A field of the library's topology of the usual service.
pub fn topology(handle: &Handle) -> Reply {
    handle.sentinel.topology(Some(SERVICE)).expect("an open handle")
}

/// The short form as a test, in a process of its own because it counts what the process holds.
pub fn test(name: &str, scenario: &Scenario) {
    calls::alone(name, || {
        let pacing = Pacing::start();
        let outcome = match scenario.needs_root && !netns::available() {
            true => Outcome::skipped("needs root and network namespaces"),
            false => (scenario.run)(&Rig::new(Form::Short)),
        };
        let pace = pacing.stop();
        eprintln!("{}", outcome.line());
        record(scenario, &outcome);
        let failures = outcome.failures(Judge::Loose(pace.allowance()));
        assert!(
            failures.is_empty(),
            "scenario {} ({}), {pace:?}:\n{}",
            scenario.number,
            scenario.name,
            failures.join("\n")
        );
    });
}

/// A line for who reads the log of `make test`: the harness shows nothing of a test that passes.
fn record(scenario: &Scenario, outcome: &Outcome) {
    let line = format!("{:>3} {:<44} {}\n", scenario.number, scenario.name, outcome.line());
    if let Ok(path) = std::env::var("TORTURE_LOG") {
        if let Ok(mut file) = fs::File::options().create(true).append(true).open(path) {
            let _ = file.write_all(line.as_bytes());
        }
    }
}

/// The full forms: `SCENARIO=1,4` (all), `RUNS=5` (1), `FORM=short`, `OUT=docs/torture.md` (printed only). With chosen scenarios only
/// their part of that page is written.
pub fn bench(all: &[&Scenario]) {
    let chosen: Vec<u32> = number_list("SCENARIO");
    let runs = number_list("RUNS").first().copied().unwrap_or(1).max(1) as usize;
    let form = if std::env::var("FORM").is_ok_and(|form| form == "short") { Form::Short } else { Form::Full };
    let mut rows = Vec::new();
    for scenario in all.iter().filter(|one| chosen.is_empty() || chosen.contains(&one.number)) {
        let outcomes: Vec<Outcome> = (1..=runs).map(|run| run_once(scenario, form, run, runs)).collect();
        let whole = median(&outcomes);
        println!("{:>3} {}: {}", scenario.number, scenario.name, verdict(&whole));
        rows.push((*scenario, whole));
    }
    let table = table(&rows);
    println!("\n{table}");
    if let Some(path) = std::env::var("OUT").ok().filter(|path| !path.is_empty()) {
        let before = fs::read_to_string(&path).unwrap_or_default();
        let text = match chosen.is_empty() {
            true => with_chosen(&page(&table, runs), chosen_part(&before).unwrap_or_default()),
            false => with_chosen(&before, &format!("\n{}\n{table}", chosen_head(&chosen, runs))),
        };
        fs::write(&path, text).unwrap_or_else(|error| panic!("{path}: {error}"));
        println!("written to {path}");
    }
    if rows.iter().any(|(_, outcome)| !outcome.failures(Judge::Exact).is_empty()) {
        std::process::exit(1);
    }
}

fn run_once(scenario: &Scenario, form: Form, run: usize, runs: usize) -> Outcome {
    if scenario.needs_root && !netns::available() {
        return Outcome::skipped("needs root and network namespaces");
    }
    let began = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (scenario.run)(&Rig::new(form)))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        let mut outcome = Outcome::default();
        outcome.must("the scenario runs to its end", false, text.lines().next().unwrap_or_default());
        outcome
    });
    let took = began.elapsed().as_secs_f64();
    println!("{:>3} {} {run}/{runs} ({took:.1} s): {}", scenario.number, scenario.name, outcome.line());
    for failure in outcome.failures(Judge::Exact) {
        println!("      ! {failure}");
    }
    outcome
}

fn number_list(variable: &str) -> Vec<u32> {
    let text = std::env::var(variable).unwrap_or_default();
    text.split([',', ' ']).filter_map(|word| word.parse().ok()).collect()
}

fn verdict(outcome: &Outcome) -> String {
    match (&outcome.skipped, outcome.failures(Judge::Exact)) {
        (Some(why), _) => format!("skipped ({why})"),
        (None, failures) if failures.is_empty() => "met".into(),
        (None, failures) => failures.join("; "),
    }
}

fn table(rows: &[(&Scenario, Outcome)]) -> String {
    let mut text = format!("| no. | scenario | {} | targets | verdict |\n|{}\n", HEADS.join(" | "), "---|".repeat(14));
    for (scenario, outcome) in rows {
        let cells = outcome.cells().join(" | ");
        let targets: Vec<String> = outcome.checks.iter().filter_map(target).collect();
        let (number, name, targets) = (scenario.number, scenario.name, targets.join(", "));
        let notes = outcome.notes.iter().map(|note| format!("; {note}")).collect::<String>();
        let _ = writeln!(text, "| {number} | {name} | {cells} | {targets} | {}{notes} |", verdict(outcome));
    }
    let skipped = rows.iter().filter(|(_, outcome)| outcome.skipped.is_some()).count();
    let met = rows.iter().filter(|(_, outcome)| verdict(outcome) == "met").count();
    let _ = writeln!(text, "\n{met} of {} met, {skipped} skipped", rows.len());
    text
}

fn target(check: &super::figures::Check) -> Option<String> {
    match check {
        super::figures::Check::Time { what, measured, target, .. } if what == "G" || what == "X" => {
            let _ = measured;
            Some(format!("{what} <= {target:.0}"))
        }
        super::figures::Check::Time { what, measured, target, .. } => {
            Some(format!("{what} {measured:.0} <= {target:.0}"))
        }
        super::figures::Check::Must { .. } => None,
    }
}

/// docs/torture.md.
fn page(table: &str, runs: usize) -> String {
    let head = include_str!("page.md");
    head.replace("@TABLE@", table)
        .replace("@RUNS@", &runs.to_string())
        .replace("@MACHINE@", &machine())
        .replace("@DATE@", &today())
}

const CHOSEN: [&str; 2] = ["<!-- chosen -->", "<!-- /chosen -->"];

fn chosen_part(page: &str) -> Option<&str> {
    Some(page.split_once(CHOSEN[0])?.1.split_once(CHOSEN[1])?.0)
}

fn with_chosen(page: &str, part: &str) -> String {
    let whole = [CHOSEN[0], chosen_part(page).expect("the page has a place for chosen scenarios"), CHOSEN[1]].concat();
    page.replace(&whole, &[CHOSEN[0], part, CHOSEN[1]].concat())
}

fn chosen_head(chosen: &[u32], runs: usize) -> String {
    let numbers: Vec<String> = chosen.iter().map(u32::to_string).collect();
    let command = format!("make torture SCENARIO={} RUNS={runs} WRITE=docs/torture.md", numbers.join(","));
    format!(
        "Written by `{command}` on {}: {}. Medians of {runs}; of what must not happen the worst run.\n",
        today(),
        machine()
    )
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_start_matches([' ', '\t', ':']));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores ({}), Linux {}", model.unwrap_or("unknown"), kernel.trim())
}

fn today() -> String {
    let output = std::process::Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
