//! A scripted data node: a few commands on strings, and a role that tests change while it runs.

use super::door::{self, Door};
use super::fake_sentinel::split;
use super::listen::Listen;
use super::resp::Value;
use super::scripted::{Act, Call, Preset, Scripted};
use std::collections::BTreeMap;

pub type FakeNode = Preset<NodeState>;

/// What ROLE says.
#[derive(Clone, Debug)]
pub enum FakeRole {
    Primary,
    /// Replica of host and port; `link` is `connected`, `connect`, `sync`, ...
    Replica {
        host: String,
        port: u16,
        link: String,
    },
}

#[derive(Clone, Debug)]
pub struct NodeState {
    pub door: Door,
    pub role: FakeRole,
    /// Its own.
    port: u16,
    pub offset: u64,
    /// Answers -LOADING to every command that a loading server refuses.
    pub loading: bool,
    /// Answers -MASTERDOWN to every command that a replica without stale data refuses.
    pub masterdown: bool,
    /// Answers -READONLY to writes; a replica does so anyway.
    pub readonly: bool,
    /// The replication id in INFO; by default that of the primary that it is or follows.
    pub replid: Option<String>,
    pub data: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl FakeRole {
    /// A replica with a healthy link.
    pub fn replica_of(primary: &str) -> FakeRole {
        let (host, port) = split(primary);
        FakeRole::Replica { host, port, link: "connected".into() }
    }
    /// A replica whose link is in this state.
    pub fn replica_linked(primary: &str, link: &str) -> FakeRole {
        let (host, port) = split(primary);
        FakeRole::Replica { host, port, link: link.into() }
    }
    fn word(&self) -> &'static str {
        match self {
            FakeRole::Primary => "master",
            FakeRole::Replica { .. } => "slave",
        }
    }
}

impl Scripted {
    /// A primary on 127.0.0.1.
    pub fn primary() -> FakeNode {
        Scripted::node_on(Listen::V4, FakeRole::Primary)
    }
    /// A replica on 127.0.0.1 with a healthy link to `primary`.
    pub fn replica(primary: &str) -> FakeNode {
        Scripted::node_on(Listen::V4, FakeRole::replica_of(primary))
    }
    pub fn node_on(listen: Listen, role: FakeRole) -> FakeNode {
        let (door, data) = (Door::open("standalone"), BTreeMap::new());
        let (loading, masterdown, readonly, replid) = (false, false, false, None);
        let state = NodeState { door, role, port: 0, offset: 1000, loading, masterdown, readonly, replid, data };
        let node = Preset::start(listen, state, answer);
        node.state(|state| state.port = node.port());
        node
    }
}

fn answer(state: &mut NodeState, call: &mut Call) -> Act {
    let command = call.word(0);
    // The commands that the server's own table marks as allowed while loading, and with stale data.
    let always = ["HELLO", "AUTH", "QUIT", "CLIENT", "INFO", "ROLE", "SELECT", "SUBSCRIBE", "PSUBSCRIBE"];
    let door = state.door.clone();
    let shut = door.login.is_some() && !call.session.logged_in;
    if !shut && !always.contains(&command.as_str()) {
        if state.loading {
            return Act::Reply(Value::error("LOADING Redis is loading the dataset in memory"));
        }
        if state.masterdown {
            return Act::Reply(Value::error(
                "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            ));
        }
    }
    if let Some(act) = door.answer(if state.role.word() == "slave" { "replica" } else { "master" }, call) {
        return act;
    }
    match command.as_str() {
        "ROLE" => Act::Reply(role(state)),
        "INFO" => Act::Reply(Value::bulk(info(state))),
        "SUBSCRIBE" | "PSUBSCRIBE" | "UNSUBSCRIBE" | "PUNSUBSCRIBE" => call.subscribe(),
        "SELECT" => match call.text(1).parse() {
            Ok(db) if db < 16 => {
                call.session.db = db;
                Act::Reply(Value::ok())
            }
            _ => Act::Reply(Value::error("ERR DB index is out of range")),
        },
        _ => data(state, call),
    }
}

fn role(state: &NodeState) -> Value {
    Value::Array(match &state.role {
        FakeRole::Primary => {
            vec![Value::bulk("master"), Value::Int(state.offset as i64), Value::Array(Vec::new())]
        }
        FakeRole::Replica { host, port, link } => vec![
            Value::bulk("slave"),
            Value::bulk(host),
            Value::Int((*port).into()),
            Value::bulk(link),
            Value::Int(state.offset as i64),
        ],
    })
}

fn info(state: &NodeState) -> String {
    let mut text = format!("# Replication\r\nrole:{}\r\nmaster_repl_offset:{}\r\n", state.role.word(), state.offset);
    let mut history = state.port;
    if let FakeRole::Replica { host, port, link } = &state.role {
        let (status, syncing) = (if link == "connected" { "up" } else { "down" }, u8::from(link == "sync"));
        text += &format!("master_host:{host}\r\nmaster_port:{port}\r\nmaster_link_status:{status}\r\n");
        text += &format!("master_sync_in_progress:{syncing}\r\nslave_repl_offset:{}\r\n", state.offset);
        history = *port;
    }
    let id = state.replid.clone().unwrap_or_else(|| format!("{history:040x}"));
    text += &format!("master_replid:{id}\r\nmaster_replid2:{:040}\r\n", 0);
    text + &format!("loading:{}\r\n", u8::from(state.loading))
}

fn data(state: &mut NodeState, call: &Call) -> Act {
    let command = call.word(0);
    let known = [("ECHO", 2), ("GET", 2), ("SET", 3), ("DEL", 2), ("INCR", 2), ("LPOP", 2), ("BLPOP", 3)];
    let Some((_, count)) = known.into_iter().find(|(name, _)| *name == command) else { return door::unknown(call) };
    if call.args.len() < count {
        let line = format!("ERR wrong number of arguments for '{}' command", command.to_lowercase());
        return Act::Reply(Value::error(line));
    }
    let replica = matches!(state.role, FakeRole::Replica { .. });
    if (replica || state.readonly) && ["SET", "DEL", "INCR", "LPOP", "BLPOP"].contains(&command.as_str()) {
        return Act::Reply(Value::error("READONLY You can't write against a read only replica."));
    }
    let key = call.args[1].clone();
    Act::Reply(match command.as_str() {
        "ECHO" => Value::Bulk(key),
        "GET" => state.data.get(&key).map_or(Value::Nil, Value::bulk),
        "SET" => {
            let old = state.data.insert(key, call.args[2].clone());
            match call.args.last().is_some_and(|arg| arg == b"GET") {
                true => old.map_or(Value::Nil, Value::bulk),
                false => Value::ok(),
            }
        }
        // A list of one element; a pop that blocks does not wait.
        "LPOP" => state.data.remove(&key).map_or(Value::Nil, Value::bulk),
        "BLPOP" => match state.data.remove(&key) {
            Some(value) => Value::Array(vec![Value::bulk(key), Value::bulk(value)]),
            None => Value::Nil,
        },
        "DEL" => Value::Int(state.data.remove(&key).is_some().into()),
        _ => {
            let old = state.data.get(&key).map_or(Some(0), |text| String::from_utf8_lossy(text).parse::<i64>().ok());
            let Some(old) = old else { return Act::Reply(Value::error("ERR value is not an integer or out of range")) };
            state.data.insert(key, (old + 1).to_string().into_bytes());
            Value::Int(old + 1)
        }
    })
}
