//! Short names for handles, clients, calls and events, for the tests of the feature rows.
#![allow(dead_code)]

use crate::support::{FakeSentinel, eventually};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vigie::client::{CallFlags, Client, Target, Timeout};
use vigie::config::Config;
use vigie::error::{Error, Result};
use vigie::resp::{Kind, Reply};
use vigie::time::Deadline;
use vigie::topology::Sentinel;

pub const SERVICE: &str = "mymaster";

/// A configuration from a URI and options on top.
pub fn config(uri: &str, options: &[(&str, &str)]) -> Config {
    let mut config = Config::new();
    for (key, value) in [("uri", uri)].iter().chain(options) {
        config.set(key, value).unwrap_or_else(|error| panic!("{key} = {value}: {error:?}"));
    }
    config
}

/// A handle that has not asked the Sentinels yet.
pub fn connect(uri: &str, options: &[(&str, &str)]) -> Arc<Sentinel> {
    let settings = config(uri, options).settings().unwrap_or_else(|error| panic!("{uri}: {error:?}"));
    Sentinel::create(settings, None).unwrap_or_else(|error| panic!("{uri}: {error:?}"))
}

/// The URI of these Sentinels and the usual service.
pub fn uri<A: AsRef<str>>(addrs: &[A]) -> String {
    let addrs: Vec<&str> = addrs.iter().map(AsRef::as_ref).collect();
    format!("redis-sentinel://{}/{SERVICE}", addrs.join(","))
}

/// As `uri`, for scripted Sentinels. They get more time than they can need: a test in which time matters sets its own.
pub fn uri_of(fakes: &[FakeSentinel]) -> String {
    uri(&fakes.iter().map(|fake| fake.addr()).collect::<Vec<_>>()) + "?timeout.sentinel=5s"
}

pub fn client(sentinel: &Arc<Sentinel>, target: Target) -> Arc<Client> {
    Client::open(sentinel, None, target, None).unwrap_or_else(|error| panic!("{target:?}: {error:?}"))
}

/// One command within the configured time.
pub fn cmd(client: &Client, args: &[&str]) -> Reply {
    try_cmd(client, args, Timeout::Default).unwrap_or_else(|error| panic!("{}: {error:?}", args.join(" ")))
}

pub fn try_cmd(client: &Client, args: &[&str], timeout: Timeout) -> Result<Reply> {
    let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
    client.cmd_exec(&args, CallFlags::default(), timeout)
}

/// The error of a command that must fail.
pub fn fails(client: &Client, args: &[&str], timeout: Timeout) -> Error {
    match try_cmd(client, args, timeout) {
        Ok(reply) => panic!("{} was answered with {:?}", args.join(" "), text(&reply, 0)),
        Err(error) => error,
    }
}

/// One discovery of the usual service, now.
pub fn refresh(sentinel: &Arc<Sentinel>) -> Result<Reply> {
    sentinel.refresh(Some(SERVICE), Deadline::after(Duration::from_secs(10)))
}

/// Runs it and measures its time.
pub fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    (run(), begun.elapsed())
}

pub fn text(reply: &Reply, id: u32) -> String {
    match reply.kind(id) {
        Kind::Int => reply.int(id).unwrap_or_default().to_string(),
        _ => String::from_utf8_lossy(reply.bytes(id).unwrap_or_default()).into_owned(),
    }
}

/// A field of a MAP as text.
pub fn field(reply: &Reply, id: u32, key: &str) -> String {
    reply.find(id, key.as_bytes()).map(|id| text(reply, id)).unwrap_or_default()
}

/// The primary in a topology, as `host:port`.
pub fn primary(topology: &Reply) -> String {
    field(topology, 0, "primary")
}

/// A Sentinel in a topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub addr: String,
    pub state: String,
    pub text: String,
}

/// The Sentinels in a topology, in the order in which they were asked.
pub fn sentinels(topology: &Reply) -> Vec<Told> {
    let list = topology.find(0, b"sentinels").expect("a list of Sentinels");
    let told = |id| Told {
        addr: field(topology, id, "addr"),
        state: field(topology, id, "state"),
        text: field(topology, id, "text"),
    };
    topology.children(list).map(told).collect()
}

/// Waits until the client's commands reach the server with this port, whatever their outcome until then.
#[track_caller]
pub fn wait_served_by(client: &Client, port: u16) {
    eventually(&format!("commands land on port {port}"), Duration::from_secs(10), || {
        let info = try_cmd(client, &["INFO", "server"], Timeout::Ms(1000));
        info.is_ok_and(|info| text(&info, 0).contains(&format!("tcp_port:{port}\r\n")))
    });
}
