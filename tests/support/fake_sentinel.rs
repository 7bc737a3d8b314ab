//! A scripted Sentinel: answers from a state that tests change while it runs.

use super::door::{self, Door};
use super::listen::Listen;
use super::resp::Value;
use super::scripted::{Act, Call, Preset, Scripted};
use std::collections::BTreeMap;

pub type FakeSentinel = Preset<SentinelState>;

#[derive(Clone, Debug)]
pub struct SentinelState {
    pub door: Door,
    /// The services that it watches, by name; any other name is unknown to it.
    pub services: BTreeMap<String, ServiceState>,
    /// What MYID says; by default the id that `add_peer` gives to its address.
    pub id: String,
    pub tilt: bool,
    /// Knows SENTINEL REPLICAS; before 5.0 there was only SLAVES.
    pub replicas_command: bool,
}

#[derive(Clone, Debug, Default)]
pub struct ServiceState {
    pub host: String,
    pub port: u16,
    /// The address that MASTER describes, if it is another one: on the leader that is the old primary's, under the new epoch, from
    /// the promotion to +switch-master.
    pub described: Option<String>,
    /// `master`, `s_down,master`, `s_down,o_down,master,disconnected`, ...
    pub flags: String,
    /// `failover-state`: `wait_start`, `select_slave`, ...; empty leaves the field out, as without a failover.
    pub failover_state: String,
    pub epoch: u64,
    pub quorum: u32,
    /// `down-after-milliseconds`.
    pub down_after: u64,
    pub replicas: Vec<ReplicaState>,
    pub peers: Vec<PeerState>,
}

#[derive(Clone, Debug)]
pub struct ReplicaState {
    pub host: String,
    pub port: u16,
    pub flags: String,
    /// `master-link-status`: `ok`, `err`; empty leaves the field out.
    pub link: String,
    pub priority: u32,
    pub offset: u64,
    /// The node that it follows by its own INFO; by default the primary.
    pub follows: Option<String>,
}

#[derive(Clone, Debug)]
pub struct PeerState {
    pub host: String,
    pub port: u16,
    pub flags: String,
    pub id: String,
}

/// Splits `host:port` or `[v6]:port`.
pub fn split(addr: &str) -> (String, u16) {
    let (host, port) = addr.rsplit_once(':').unwrap_or_else(|| panic!("not host:port: {addr}"));
    (host.trim_matches(['[', ']']).into(), port.parse().unwrap_or_else(|_| panic!("not host:port: {addr}")))
}

impl ServiceState {
    /// A healthy service with this primary, quorum 2, epoch 1.
    pub fn of(primary: &str) -> ServiceState {
        let (host, port) = split(primary);
        ServiceState { host, port, flags: "master".into(), epoch: 1, quorum: 2, down_after: 1000, ..Default::default() }
    }
    /// Names another primary, with the next epoch.
    pub fn switch_to(&mut self, primary: &str) {
        (self.host, self.port) = split(primary);
        self.epoch += 1;
    }
    /// Adds a healthy replica.
    pub fn add_replica(&mut self, addr: &str) {
        let (host, port) = split(addr);
        let (flags, link) = ("slave".into(), "ok".into());
        self.replicas.push(ReplicaState { host, port, flags, link, priority: 100, offset: 1000, follows: None });
    }
    /// Adds another Sentinel.
    pub fn add_peer(&mut self, addr: &str) {
        let (host, port) = split(addr);
        self.peers.push(PeerState { host, port, flags: "sentinel".into(), id: format!("{port:040x}") });
    }
}

impl Scripted {
    /// A Sentinel on 127.0.0.1 that watches one healthy service.
    pub fn sentinel(service: &str, primary: &str) -> FakeSentinel {
        Scripted::sentinel_on(Listen::V4, service, primary)
    }
    pub fn sentinel_on(listen: Listen, service: &str, primary: &str) -> FakeSentinel {
        let services = BTreeMap::from([(service.to_string(), ServiceState::of(primary))]);
        let (door, id) = (Door::open("sentinel"), String::new());
        let fake =
            Preset::start(listen, SentinelState { door, services, id, tilt: false, replicas_command: true }, answer);
        fake.state(|state| state.id = format!("{:040x}", fake.port()));
        fake
    }
    /// Sentinels on 127.0.0.1 that watch one healthy service and know each other.
    pub fn sentinels(count: usize, service: &str, primary: &str) -> Vec<FakeSentinel> {
        let all: Vec<FakeSentinel> = (0..count).map(|_| Scripted::sentinel(service, primary)).collect();
        for one in &all {
            for other in all.iter().filter(|other| other.port() != one.port()) {
                one.service(service, |state| state.add_peer(&other.addr()));
            }
        }
        all
    }
}

impl FakeSentinel {
    /// Reads or changes the state of one service.
    pub fn service<R>(&self, name: &str, change: impl FnOnce(&mut ServiceState) -> R) -> R {
        self.state(|state| change(state.services.get_mut(name).unwrap_or_else(|| panic!("no service {name}"))))
    }
    /// Names another primary with the next epoch and publishes +switch-master; returns the number of subscribers.
    pub fn switch_master(&self, service: &str, primary: &str) -> usize {
        let (old_host, old_port) = self.service(service, |state| (state.host.clone(), state.port));
        self.service(service, |state| state.switch_to(primary));
        let (host, port) = split(primary);
        self.publish("+switch-master", &format!("{service} {old_host} {old_port} {host} {port}"))
    }
}

fn answer(state: &mut SentinelState, call: &mut Call) -> Act {
    let door = state.door.clone();
    if let Some(act) = door.answer("sentinel", call) {
        return act;
    }
    match call.word(0).as_str() {
        "ROLE" => Act::Reply(Value::Array(vec![Value::bulk("sentinel"), Value::texts(state.services.keys())])),
        "INFO" => Act::Reply(Value::bulk(info(state))),
        "SENTINEL" => Act::Reply(sentinel(state, call)),
        "SUBSCRIBE" | "PSUBSCRIBE" | "UNSUBSCRIBE" | "PUNSUBSCRIBE" => call.subscribe(),
        _ => door::unknown(call),
    }
}

fn info(state: &SentinelState) -> String {
    let mut text = format!(
        "# Sentinel\r\nsentinel_masters:{}\r\nsentinel_tilt:{}\r\nsentinel_tilt_since_seconds:{}\r\n\
         sentinel_running_scripts:0\r\nsentinel_scripts_queue_length:0\r\nsentinel_simulate_failure_flags:0\r\n",
        state.services.len(),
        u8::from(state.tilt),
        if state.tilt { 1 } else { -1 },
    );
    for (index, (name, service)) in state.services.iter().enumerate() {
        let status = ["o_down", "s_down"].into_iter().find(|flag| service.flags.contains(flag));
        let status = status.map_or("ok", |flag| if flag == "o_down" { "odown" } else { "sdown" });
        let (host, port) = (&service.host, service.port);
        let (slaves, sentinels) = (service.replicas.len(), service.peers.len() + 1);
        text += &format!(
            "master{index}:name={name},status={status},address={host}:{port},slaves={slaves},sentinels={sentinels}\r\n"
        );
    }
    text
}

fn sentinel(state: &SentinelState, call: &Call) -> Value {
    let command = call.word(1);
    if command == "MASTERS" {
        return Value::Array(state.services.iter().map(|(name, service)| master(name, service)).collect());
    }
    if command == "MYID" {
        return Value::bulk(&state.id);
    }
    let name = call.text(2);
    let service = state.services.get(&name);
    if command == "GET-MASTER-ADDR-BY-NAME" {
        return service.map_or(Value::NilArray, |service| Value::texts([&service.host, &service.port.to_string()]));
    }
    let Some(service) = service else { return Value::error("ERR No such master with that name") };
    match command.as_str() {
        "MASTER" => master(&name, service),
        "REPLICAS" if state.replicas_command => {
            Value::Array(service.replicas.iter().map(|one| replica(service, one)).collect())
        }
        "SLAVES" => Value::Array(service.replicas.iter().map(|one| replica(service, one)).collect()),
        "SENTINELS" => Value::Array(service.peers.iter().map(peer).collect()),
        _ => Value::error(format!("ERR Unknown subcommand or wrong number of arguments for '{}'", call.text(1))),
    }
}

fn master(name: &str, service: &ServiceState) -> Value {
    let named = || (service.host.clone(), service.port);
    let (host, port) = service.described.as_deref().map_or_else(named, split);
    let fields = [
        ("name", name.to_string()),
        ("ip", host),
        ("port", port.to_string()),
        ("runid", format!("{port:040x}")),
        ("flags", service.flags.clone()),
        ("link-pending-commands", "0".into()),
        ("link-refcount", "1".into()),
        ("last-ping-sent", "0".into()),
        ("last-ok-ping-reply", "100".into()),
        ("last-ping-reply", "100".into()),
        ("down-after-milliseconds", service.down_after.to_string()),
        ("info-refresh", "1000".into()),
        ("role-reported", "master".into()),
        ("role-reported-time", "5000".into()),
        ("config-epoch", service.epoch.to_string()),
        ("num-slaves", service.replicas.len().to_string()),
        ("num-other-sentinels", service.peers.len().to_string()),
        ("quorum", service.quorum.to_string()),
        ("failover-timeout", "4000".into()),
        ("parallel-syncs", "1".into()),
        ("failover-state", service.failover_state.clone()),
    ];
    Value::fields(fields.into_iter().filter(|(key, value)| *key != "failover-state" || !value.is_empty()))
}

fn replica(service: &ServiceState, one: &ReplicaState) -> Value {
    let (host, port) = one.follows.as_deref().map_or_else(|| (service.host.clone(), service.port), split);
    let fields = [
        ("name", format!("{}:{}", one.host, one.port)),
        ("ip", one.host.clone()),
        ("port", one.port.to_string()),
        ("runid", format!("{:040x}", one.port)),
        ("flags", one.flags.clone()),
        ("link-pending-commands", "0".into()),
        ("master-link-down-time", "0".into()),
        ("master-link-status", one.link.clone()),
        ("master-host", host),
        ("master-port", port.to_string()),
        ("slave-priority", one.priority.to_string()),
        ("slave-repl-offset", one.offset.to_string()),
        ("replica-announced", "1".into()),
    ];
    Value::fields(fields.into_iter().filter(|(key, value)| *key != "master-link-status" || !value.is_empty()))
}

fn peer(one: &PeerState) -> Value {
    Value::fields([
        ("name", one.id.clone()),
        ("ip", one.host.clone()),
        ("port", one.port.to_string()),
        ("runid", one.id.clone()),
        ("flags", one.flags.clone()),
        ("link-pending-commands", "0".into()),
        ("last-ok-ping-reply", "100".into()),
        ("last-hello-message", "500".into()),
        ("voted-leader", "?".into()),
        ("voted-leader-epoch", "0".into()),
    ])
}
