//! Section E: durable writes, deadlines, the clock, and the soak.

use super::figures::{Outcome, ms};
use super::probe::{Habits, Kind, Probe, Seen};
use super::rig::{NAME, Rig, Stage, word};
use crate::calls::SERVICE;
use crate::support::{Layout, Node, eventually, proc};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vigie::client::{Target, Timeout};
use vigie::queue::kind;

scenarios! {
    scenario_68_one_replica_fenced(68, "durable writes: one replica, fence", one_replica_fenced, needs_root: false);
    scenario_68_all_replicas_unfenced(68, "durable writes: all replicas, no fence", all_replicas_unfenced, needs_root: false);
    scenario_69_killed(69, "deadline of 50 ms, primary killed", hasty_killed, needs_root: false);
    scenario_69_stopped(69, "deadline of 50 ms, primary stopped", hasty_stopped, needs_root: false);
    scenario_69_vanished(69, "deadline of 50 ms, primary's host vanishes", hasty_vanished, needs_root: true);
    scenario_69_pair_vanished(69, "deadline of 50 ms, host of primary and Sentinel vanishes", hasty_pair_vanished, needs_root: true);
    scenario_69_sentinels_mute(69, "deadline of 50 ms, Sentinels mute", hasty_mute, needs_root: false);
    scenario_71_soak(71, "soak with random faults", soak, needs_root: false);
    scenario_75_clock_jump(75, "clock jump", clock_jump, needs_root: false);
}

const SECOND: Duration = Duration::from_secs(1);

/// VIGIE_CALL_REPLICAS(n).
const fn replicas(n: u32) -> u32 {
    n << 24
}

/// A planned failover under writes that count only when replicas have them: none that was acknowledged may be lost.
fn durable(rig: &Rig, options: &[(&str, &str)], flags: u32) -> Outcome {
    let stage = rig.stage(rig.deployment("durable"), options);
    let habits = Habits { timeout: Timeout::Ms(rig.pick(400, 2000)), flags, ..Habits::default() };
    let mut probe = stage.probe_with(habits);
    probe.run_for(Duration::from_millis(500));
    probe.fault();
    let old = stage.deployment.failover_by(SERVICE, &stage.sentinel(1));
    stage.deployment.wait_switched(SERVICE, &old);
    probe.run_for(Duration::from_millis(rig.pick(1500, 14_000)));
    let acknowledged = probe.acknowledged();
    let (mut outcome, _) = stage.finish(probe);
    outcome.note(format!("{acknowledged} writes acknowledged by replicas"));
    outcome.must("writes are acknowledged", acknowledged > 50, acknowledged.to_string());
    outcome.expect_lost(0);
    let expected = |kind: &super::probe::Kind| kind.maybe() || kind.retryable() || kind.name == "REPLICAS";
    outcome.expect_errors(rig.pick(100, 10_000), expected);
    outcome
}

fn one_replica_fenced(rig: &Rig) -> Outcome {
    let mut outcome = durable(rig, &[], replicas(1));
    outcome.expect_failover_gap(2000.0);
    outcome
}

fn all_replicas_unfenced(rig: &Rig) -> Outcome {
    durable(rig, &[("failover.fence", "off"), ("write.replicas", "all")], 0)
}

// ---- 69: no call is longer than its deadline ----------------------------------------------------

fn hasty_killed(rig: &Rig) -> Outcome {
    hasty(rig, rig.stage(rig.deployment("hasty-kill"), &[]), &|stage| stage.primary().kill(), &|_| ())
}

fn hasty_stopped(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("hasty-stop"), &[]);
    let old = stage.primary();
    hasty(rig, stage, &|stage| stage.primary().stop(), &|_| old.cont())
}

fn hasty_vanished(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("hasty-drop").network(Layout::Apart), &[]);
    hasty(rig, stage, &|stage| stage.primary().netns().vanish(), &|_| ())
}

fn hasty_pair_vanished(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("hasty-pair").network(Layout::Paired), &[]);
    hasty(rig, stage, &|stage| stage.primary().netns().vanish(), &|_| ())
}

fn hasty_mute(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("hasty-mute"), &[]);
    let break_it = |stage: &Stage| {
        stage.deployment.sentinel_nodes().iter().for_each(|sentinel| sentinel.stop());
        kill_ours(&stage.deployment.data_nodes(SERVICE)[0]);
    };
    hasty(rig, stage, &break_it, &|stage| stage.deployment.sentinel_nodes().iter().for_each(|one| one.cont()))
}

/// Closes the library's connections to a node.
fn kill_ours(node: &Node) {
    for one in node.clients_named(NAME) {
        node.cmd(&["CLIENT", "KILL", "ID", &one.id.to_string()]);
    }
}

fn hasty(rig: &Rig, stage: Stage, break_it: &dyn Fn(&Stage), heal: &dyn Fn(&Stage)) -> Outcome {
    let client = stage.handle.client(Target::Split, &[]);
    let habits = Habits { timeout: Timeout::Ms(50), pace: Duration::from_millis(5), ..Habits::default() };
    let mut probe = Probe::start(&client, habits);
    probe.run_for(Duration::from_millis(300));
    let old = stage.primary();
    probe.fault_by(|| break_it(&stage));
    probe.run_for(Duration::from_millis(rig.pick(1000, 3000)));
    probe.await_writes(50);
    if !old.is_serving() {
        stage.deployment.wait_switched(SERVICE, &old);
        probe.await_writes(20);
    }
    heal(&stage);
    probe.run_for(Duration::from_millis(rig.pick(300, 3000)));
    let (mut outcome, seen) = stage.finish(probe);
    let mut took: Vec<f64> = seen.writes.iter().chain(&seen.reads).map(|sample| ms(sample.took())).collect();
    took.sort_by(f64::total_cmp);
    let rank = |share: f64| took.get((took.len() as f64 * share) as usize).copied().unwrap_or_default();
    outcome.note(format!("99.9 % of {} calls took at most {:.1} ms", took.len(), rank(0.999)));
    outcome.expect_lost_only_late();
    outcome.expect_longest(60.0);
    outcome
}

// ---- 75: only monotonic clocks --------------------------------------------------------------------

/// A deadline that followed the wall clock would move with it: no source of the library may read that clock, but for the time in a line of
/// the log, which is read by people and compared with nothing.
fn clock_jump(_rig: &Rig) -> Outcome {
    let mut outcome = Outcome::default();
    let mut files = Vec::new();
    rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let forbidden = ["SystemTime", "UNIX_EPOCH", "CLOCK_REALTIME", "gettimeofday", "libc::time("];
    let mut found = Vec::new();
    for file in &files {
        if file.ends_with("src/log/mod.rs") {
            continue;
        }
        let text = fs::read_to_string(file).expect("a source");
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let hits = code.filter(|line| forbidden.iter().any(|word| line.contains(word)));
        found.extend(hits.map(|line| format!("{}: {}", file.display(), line.trim())));
    }
    outcome.must("the sources are there", files.len() > 40, files.len().to_string());
    outcome.must("no source but the log reads the wall clock", found.is_empty(), found.join("; "));
    outcome.note(format!("by inspection of {} sources", files.len()));
    outcome
}

fn rust_files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => rust_files(&path, into),
            false if path.extension().is_some_and(|end| end == "rs") => into.push(path),
            false => {}
        }
    }
}

// ---- 71: the soak -----------------------------------------------------------------------------------

/// What a soak does to the deployment, and takes back.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Planned,
    KillPrimary,
    StopPrimary,
    KillReplica,
    StopReplica,
    StopSentinel,
    KillSentinel,
    CutClients,
}

const FAULTS: [Fault; 8] = [
    Fault::Planned,
    Fault::KillPrimary,
    Fault::StopPrimary,
    Fault::KillReplica,
    Fault::StopReplica,
    Fault::StopSentinel,
    Fault::KillSentinel,
    Fault::CutClients,
];

/// `SECONDS=600 SEED=n make torture SCENARIO=71`. What it holds must not grow: the second half against the first.
fn soak(rig: &Rig) -> Outcome {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("SECONDS").unwrap_or(rig.pick(8, 120));
    let seed = number("SEED").unwrap_or(rig.seed);
    eprintln!("soak of {seconds} s, SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let stage = rig.stage(rig.deployment("soak"), &[]);
    stage.deployment.sentinel_debug("info-period", 500);
    let client = stage.handle.client(Target::Split, &[("replica.max_lag", "100000000")]);
    let mut probe = Probe::start(&client, Habits::default());
    probe.fault();
    let mut held: Vec<(u64, usize, usize)> = vec![holds()];
    let mut history = Vec::new();
    let (mut longest, mut switches, mut frozen) = (Duration::ZERO, 0, Vec::new());
    while probe.since_fault() < Duration::from_secs(seconds) {
        let fault = FAULTS[random.usize(..FAULTS.len())];
        history.push(fault);
        let pause = Duration::from_millis(random.u64(100..rig.pick(600, 2500)));
        let began = Instant::now();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| strike(&stage, fault, pause, &mut random)));
        if done.is_err() {
            panic!("SEED={seed}: {history:?}\n{}", stage.story());
        }
        if matches!(fault, Fault::StopSentinel) {
            frozen.push((began, Instant::now()));
        }
        switches += usize::from(matches!(fault, Fault::Planned | Fault::KillPrimary | Fault::StopPrimary));
        probe.await_writes(20);
        longest = longest.max(began.elapsed());
        held.push(holds());
    }
    let rounds = history.len();
    let most = |part: &[(u64, usize, usize)]| {
        let first = part.iter().map(|one| one.0).max().unwrap_or_default();
        (
            first,
            part.iter().map(|one| one.1).max().unwrap_or_default(),
            part.iter().map(|one| one.2).max().unwrap_or_default(),
        )
    };
    // The samples of the probe are the test's own memory.
    let own = probe_memory(&probe);
    let (early, late) = held.split_at(held.len().div_ceil(2));
    let (early, late) = (most(early), most(late));
    let fences = fences(&stage);
    let (mut outcome, seen) = stage.finish(probe);
    excuse_held(&mut outcome, &seen, &fences, &frozen);
    outcome.note(format!(
        "SEED={seed}, {rounds} faults, {switches} failovers in {seconds} s; RSS {} -> {} KiB (probe {own}), FD {} -> {}, TH {} -> {}",
        early.0, late.0, early.1, late.1, early.2, late.2
    ));
    let story = format!("SEED={seed} {history:?}");
    outcome.must("FD flat", late.1 <= early.1 + 6, format!("{early:?} {late:?} {story}"));
    outcome.must("TH flat", late.2 <= early.2.max(8), format!("{early:?} {late:?} {story}"));
    outcome.must("RSS flat", late.0 <= early.0 + own + 4096, format!("{early:?} {late:?} probe {own} {story}"));
    let doubtful = switches * 4 + rounds * 2;
    outcome.expect_errors(doubtful, |kind| kind.maybe());
    outcome.expect_no_duplicates();
    // A killed primary may take the last moment with it, a planned failover nothing.
    outcome.must("hardly a write is lost", outcome.lost.is_some_and(|lost| lost.0 <= 3 * rounds), story);
    outcome.expect_longest(5020.0);
    outcome
}

/// From when until when the fence was up, each time; the last one perhaps still is.
fn fences(stage: &Stage) -> Vec<(Instant, Instant)> {
    let mut spans: Vec<(Instant, Instant)> = Vec::new();
    let mut since = None;
    for heard in stage.handle.events_of(kind::FENCE) {
        match word(&heard.text, "on") {
            "true" => since = since.or(Some(heard.at)),
            _ => spans.extend(since.take().map(|since| (since, heard.at))),
        }
    }
    spans.extend(since.map(|since| (since, Instant::now())));
    spans
}

/// A Sentinel that freezes in the middle of its failover takes nothing back, and nobody can for it (rule 5): it may already have sent,
/// or send when it thaws, what makes a primary of a replica, and then what the old primary acknowledges is lost. Only
/// `failover.fence_max` ends such a fence (rule 6), after 10 s: a write that may wait for 5 s is told FENCED, and is surely not executed.
/// That is excused of a write behind a fence that was up as long as it waited, and in whose life a Sentinel was frozen.
fn excuse_held(outcome: &mut Outcome, seen: &Seen, fences: &[(Instant, Instant)], frozen: &[(Instant, Instant)]) {
    // An event is heard a moment after the fence has moved.
    let moment = Duration::from_millis(20);
    let held = |began: Instant, ended: Instant| {
        let behind = |fence: &&(Instant, Instant)| fence.0 <= began + moment && fence.1 + moment >= ended;
        let froze = |fence: &(Instant, Instant)| frozen.iter().any(|one| one.0 <= fence.1 && one.1 >= fence.0);
        fences.iter().find(behind).is_some_and(froze)
    };
    let kinds = seen.writes.iter().filter_map(|write| match &write.outcome {
        Err((kind, _)) if kind.name == "FENCED" && !kind.maybe() && held(write.began, write.ended) => {
            Some(kind.clone())
        }
        _ => None,
    });
    let kinds: Vec<Kind> = kinds.collect();
    if !kinds.is_empty() {
        outcome.excuse("behind the fence of a frozen Sentinel", kinds);
    }
}

/// RSS in KiB, descriptors and the library's threads.
fn holds() -> (u64, usize, usize) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let rss = rss.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default();
    (rss, proc::descriptors().len(), proc::threads_named("vigie").len())
}

/// What the probe's samples may take by now, in KiB.
fn probe_memory(probe: &Probe) -> u64 {
    // Writes and reads, 120 bytes each, in vectors that double.
    probe.acknowledged() * 2 * 120 * 3 / 1024
}

/// One fault, its pause, and the end of it: the deployment is whole again afterwards.
fn strike(stage: &Stage, fault: Fault, pause: Duration, random: &mut fastrand::Rng) {
    let deployment = &stage.deployment;
    let replicas = deployment.replica_nodes(SERVICE);
    let replica = &replicas[random.usize(..replicas.len())];
    let sentinels = deployment.sentinel_nodes();
    let sentinel = &sentinels[random.usize(..sentinels.len())];
    let rest = || std::thread::sleep(pause);
    match fault {
        Fault::Planned => {
            let old = deployment.failover_by(SERVICE, sentinel);
            deployment.wait_switched(SERVICE, &old);
        }
        Fault::KillPrimary | Fault::StopPrimary => {
            await_no_tilt(stage);
            let old = stage.primary();
            if matches!(fault, Fault::KillPrimary) {
                old.kill()
            } else {
                old.stop()
            }
            deployment.wait_switched(SERVICE, &old);
            rest();
            if matches!(fault, Fault::KillPrimary) { old.restart() } else { old.cont() }
        }
        Fault::KillReplica => {
            replica.kill();
            rest();
            replica.restart();
        }
        Fault::StopReplica => {
            replica.stop();
            rest();
            replica.cont();
        }
        Fault::StopSentinel => {
            sentinel.stop();
            rest();
            sentinel.cont();
        }
        Fault::KillSentinel => {
            sentinel.kill();
            rest();
            sentinel.restart();
        }
        Fault::CutClients => {
            kill_ours(&stage.primary());
            rest();
        }
    }
    await_whole(stage);
}

/// No Sentinel is in TILT, which lasts half a minute. Sentinels that all are see the end of a primary only after it; the links of its
/// replicas have been down for longer than ten times down-after then, and none of them is ever promoted.
fn await_no_tilt(stage: &Stage) {
    eventually("no Sentinel is in TILT", Duration::from_secs(60), || {
        let sentinels = stage.deployment.serving_sentinels();
        sentinels.iter().all(|one| one.info("sentinel").get("sentinel_tilt").is_some_and(|tilt| tilt == "0"))
    });
}

/// All nodes are replicas of one primary again, in the Sentinels' eyes and their own.
fn await_whole(stage: &Stage) {
    let deployment = &stage.deployment;
    // Shorter than what users have: a soak is to meet many failovers.
    for sentinel in deployment.serving_sentinels() {
        sentinel.cmd(&["SENTINEL", "DEBUG", "info-period", "500"]);
        sentinel.cmd(&["SENTINEL", "DEBUG", "publish-period", "300"]);
    }
    eventually("the deployment is whole again", Duration::from_secs(40), || {
        let primary = stage.primary();
        let nodes: Vec<Arc<Node>> = deployment.data_nodes(SERVICE);
        let follows = |node: &Arc<Node>| {
            // A Sentinel that demotes it ends all its connections, this one among them.
            let Ok(info) = node.try_info("replication") else { return false };
            let is = |key: &str, value: &str| info.get(key).is_some_and(|found| found == value);
            is("role", "slave") && is("master_link_status", "up") && is("master_port", &primary.port().to_string())
        };
        nodes.iter().filter(|node| node.port() != primary.port()).all(follows)
    });
    for sentinel in deployment.serving_sentinels() {
        sentinel.cmd(&["SENTINEL", "DEBUG", "publish-period", "2000"]);
    }
    deployment.wait_ready(SERVICE);
}
