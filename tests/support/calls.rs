//! Short ways to call the library in tests: handles for a deployment or scripted servers, commands as text, statistics as numbers.
//!
//! Not part of the kit, which never uses the library under test: test files take it in with `#[path]`.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::support::{Deployment, FakeNode, FakeSentinel, Node, Scripted, proc};
use vigie::client::{CallFlags, Client, Target, Timeout};
use vigie::config::Config;
use vigie::error::{Error, Result, Status};
use vigie::resp::Reply;
use vigie::topology::Sentinel;

pub const SERVICE: &str = "mymaster";

/// A configuration of pairs.
pub fn config(pairs: &[(&str, &str)]) -> Config {
    let mut config = Config::new();
    for (key, value) in pairs {
        config.set(key, value).unwrap_or_else(|error| panic!("{key}={value}: {error}"));
    }
    config
}

/// A lazy sentinel handle for these addresses, with more options.
pub fn sentinel_at(addrs: &[String], pairs: &[(&str, &str)]) -> Arc<Sentinel> {
    let mut config = config(&[("sentinel.addrs", &addrs.join(",")), ("service", SERVICE)]);
    for (key, value) in pairs {
        config.set(key, value).unwrap_or_else(|error| panic!("{key}={value}: {error}"));
    }
    Sentinel::create(config.settings().expect("valid settings"), None).expect("a lazy handle")
}

pub fn sentinel_of(deployment: &Deployment, pairs: &[(&str, &str)]) -> Arc<Sentinel> {
    sentinel_at(&deployment.sentinel_addrs(), pairs)
}

/// One real primary, one real Sentinel: for what needs a server, and no failover.
pub fn single(name: &str) -> Deployment {
    Deployment::new(name).replicas(0).sentinels(1).quorum(1).start()
}

/// A scripted Sentinel for this primary and these replicas.
pub fn told(primary: &str, replicas: &[String]) -> FakeSentinel {
    let sentinel = Scripted::sentinel(SERVICE, primary);
    sentinel.service(SERVICE, |state| replicas.iter().for_each(|addr| state.add_replica(addr)));
    sentinel
}

/// A handle that asks one scripted Sentinel.
pub fn handle(sentinel: &FakeSentinel, pairs: &[(&str, &str)]) -> Arc<Sentinel> {
    sentinel_at(&[sentinel.addr()], pairs)
}

pub fn open(sentinel: &Arc<Sentinel>, target: Target, overrides: &[(&str, &str)]) -> Arc<Client> {
    let overrides = (!overrides.is_empty()).then(|| config(overrides));
    Client::open(sentinel, None, target, overrides.as_ref()).expect("a lazy client")
}

pub fn to_primary(sentinel: &Arc<Sentinel>, overrides: &[(&str, &str)]) -> Arc<Client> {
    open(sentinel, Target::Primary, overrides)
}

pub fn to_replicas(sentinel: &Arc<Sentinel>, overrides: &[(&str, &str)]) -> Arc<Client> {
    open(sentinel, Target::Replica, overrides)
}

/// A command of words, with the default timeout.
pub fn cmd(client: &Client, line: &str) -> Result<Reply> {
    call(client, line, 0, Timeout::Default)
}

/// A command of words, with a timeout in milliseconds.
pub fn within(client: &Client, line: &str, ms: u64) -> Result<Reply> {
    call(client, line, 0, Timeout::Ms(ms))
}

pub fn call(client: &Client, line: &str, flags: u32, timeout: Timeout) -> Result<Reply> {
    let words: Vec<&[u8]> = line.split_whitespace().map(str::as_bytes).collect();
    client.cmd_exec(&words, CallFlags::from_bits(flags).expect("known flags"), timeout)
}

/// A command of words that must succeed. Returns its reply as text.
#[track_caller]
pub fn ok(client: &Client, line: &str) -> String {
    match cmd(client, line) {
        Ok(reply) => text(&reply),
        Err(error) => panic!("{line}: {:?} {error}", error.status()),
    }
}

/// A command of words that must succeed. Returns its reply as a number.
#[track_caller]
pub fn number(client: &Client, line: &str) -> i64 {
    let reply = cmd(client, line).unwrap_or_else(|error| panic!("{line}: {:?} {error}", error.status()));
    reply.int(0).unwrap_or_else(|| panic!("{line}: no number: {}", json(&reply)))
}

/// The text of a reply's root; of anything but text, JSON.
pub fn text(reply: &Reply) -> String {
    reply.bytes(0).map_or_else(|| json(reply), |bytes| String::from_utf8_lossy(bytes).into_owned())
}

pub fn json(reply: &Reply) -> String {
    String::from_utf8_lossy(reply.to_json().unwrap().bytes(0).unwrap_or_default()).into_owned()
}

/// Commands of words as a RESP list.
pub fn list(lines: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines {
        let words: Vec<&[u8]> = line.split_whitespace().map(str::as_bytes).collect();
        vigie::resp::encode::command(&mut out, &words);
    }
    out
}

/// Runs a list of commands of words.
pub fn run(client: &Client, lines: &[&str]) -> Result<Reply> {
    client.cmds_exec(&list(lines), CallFlags::default(), Timeout::Default)
}

/// The error of a call that must fail with this status.
#[track_caller]
pub fn fails<T>(status: Status, outcome: Result<T>) -> Error {
    match outcome {
        Ok(_) => panic!("succeeded, expected {status:?}"),
        Err(error) => {
            assert_eq!(error.status(), status, "{error}");
            error
        }
    }
}

/// The status and how long it took.
pub fn timed<T>(job: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let outcome = job();
    (outcome, began.elapsed())
}

/// The outcome of a call with a short timeout; if the machine was too slow for what is expected, the outcome with a longer one.
pub fn patiently<T>(run: impl Fn(u64) -> T, fits: impl Fn(&T) -> bool) -> T {
    let hasty = [250, 1000].into_iter().map(&run).find(&fits);
    hasty.unwrap_or_else(|| run(4000))
}

/// The error of a call with a timeout in milliseconds that must fail with this status: where the machine is too slow for a short
/// timeout, with a longer one.
#[track_caller]
pub fn fails_soon<T>(status: Status, run: impl Fn(u64) -> Result<T>) -> Error {
    fails(status, patiently(run, |outcome| outcome.as_ref().is_err_and(|error| error.status() == status)))
}

/// One pool of a client's statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStats {
    pub endpoint: String,
    pub role: String,
    pub numbers: BTreeMap<String, i64>,
}

impl PoolStats {
    #[track_caller]
    pub fn get(&self, key: &str) -> i64 {
        *self.numbers.get(key).unwrap_or_else(|| panic!("no {key} in {self:?}"))
    }
}

/// A counter of a client's statistics.
#[track_caller]
pub fn counter(client: &Client, key: &str) -> i64 {
    let stats = client.stats().expect("an open client");
    let id = stats.find(0, key.as_bytes()).unwrap_or_else(|| panic!("no counter {key}"));
    stats.int(id).expect("a number")
}

/// The pools of a client's statistics.
pub fn pools(client: &Client) -> Vec<PoolStats> {
    let stats = client.stats().expect("an open client");
    let list = stats.find(0, b"pools").expect("pools in the statistics");
    let word = |id: u32| String::from_utf8_lossy(stats.bytes(id).unwrap_or_default()).into_owned();
    let pool = |id: u32| {
        let at = |key: &str| stats.find(id, key.as_bytes()).map(word).unwrap_or_default();
        let pairs: Vec<u32> = stats.children(id).collect();
        let numbers = pairs.chunks(2).filter_map(|pair| Some((word(pair[0]), stats.int(pair[1])?))).collect();
        PoolStats { endpoint: at("endpoint"), role: at("role"), numbers }
    };
    stats.children(list).map(pool).collect()
}

/// The pool of the primary.
#[track_caller]
pub fn primary_pool(client: &Client) -> PoolStats {
    let pools = pools(client);
    pools.iter().find(|pool| pool.role == "primary").cloned().unwrap_or_else(|| panic!("no primary in {pools:?}"))
}

/// Which connection a command ran on: CLIENT ID.
#[track_caller]
pub fn client_id(client: &Client) -> i64 {
    number(client, "CLIENT ID")
}

/// How many connections with this name the server lists.
pub fn named(node: &Node, name: &str) -> usize {
    node.clients_named(name).len()
}

/// How often a scripted node has received a command, by its log, faults included.
pub fn seen(node: &FakeNode, line: &str) -> usize {
    node.count(line)
}

/// Runs a job on a thread of its own. Its outcome arrives on a channel.
pub fn spawn<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::channel();
    proc::thread("kit-caller", move || drop(sender.send(job())));
    receiver
}

/// The outcome of a spawned job. A job that has not ended within a minute hangs.
#[track_caller]
pub fn join<T>(job: &mpsc::Receiver<T>) -> T {
    job.recv_timeout(Duration::from_secs(60)).expect("the call ends, and without a panic")
}

/// The library's threads (as the system lists them, and as the library counts them) and the descriptors of this process.
pub fn held() -> (usize, usize, usize) {
    let live = vigie::sys::thread::live() as usize;
    (proc::threads_named("vigie").len(), live, proc::descriptors().len())
}

/// Waits until no thread of the library is left and there are as many descriptors as before.
#[track_caller]
pub fn back_to(start: (usize, usize, usize)) {
    assert_eq!((start.0, start.1), (0, 0), "a test that counts begins with nothing");
    let began = Instant::now();
    while held() != start {
        let late = began.elapsed() > Duration::from_secs(20);
        assert!(!late, "{start:?} at the start, now {:?} and {:?}", proc::threads(), proc::descriptors());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The name of a test as the harness knows it, without the crate: `concat!(module_path!(), "::the_test")`.
pub fn test_name(path: &str) -> &str {
    path.split_once("::").map_or(path, |(_, rest)| rest)
}

/// Runs a test in a process of its own, because it changes or counts what the process holds. The argument is that of [`test_name`].
#[track_caller]
pub fn alone(test: &str, body: impl FnOnce()) {
    let test = test_name(test);
    const MARK: &str = "VIGIE_TEST_ALONE";
    if std::env::var(MARK).is_ok_and(|name| name == test) {
        return body();
    }
    let mut command = std::process::Command::new(std::env::current_exe().expect("the test's own path"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(MARK, test);
    let output = command.output().expect("the test starts again");
    let [said, told] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success() && said.contains("1 passed"), "{test} in a process of its own:\n{said}{told}");
}
