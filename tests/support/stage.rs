//! A scripted deployment in which the test performs the failover, and the events that the library sends about it.
//!
//! Not part of the kit, which never uses the library under test: test files take it in with `#[path]`.
#![allow(dead_code)]

#[path = "tables.rs"]
pub mod tables;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use self::tables::{Seen, check_event};
use super::calls::{SERVICE, sentinel_at};
use super::support::{FakeNode, FakeSentinel, Scripted, eventually, eventually_some};
use vigie::queue::{Event, Queue, kind};
use vigie::resp::{Kind, Reply};
use vigie::time::Deadline;
use vigie::topology::{Sentinel, Service, WATCHABLE};

/// Longer than anything scripted takes, on a loaded machine too.
pub const SOON: Duration = Duration::from_secs(20);

/// Four times the longest pause before a discovery that is due.
const QUIET: Duration = Duration::from_millis(300);

/// One event, as the queue delivered it.
#[derive(Debug, Clone)]
pub struct Told {
    pub kind: u32,
    pub token: u64,
    pub at: Instant,
    fields: BTreeMap<String, String>,
}

impl Told {
    #[track_caller]
    fn of(event: Event) -> Told {
        check_event(&event, &mut Seen::default());
        let fields = event.outcome.ok().flatten().map(|reply| fields(&reply)).unwrap_or_default();
        Told { kind: event.kind, token: event.token, at: Instant::now(), fields }
    }

    /// A field as text; a boolean is `1` or `0`, null is empty.
    #[track_caller]
    pub fn get(&self, key: &str) -> &str {
        self.fields.get(key).unwrap_or_else(|| panic!("no {key} in {self:?}"))
    }

    pub fn is(&self, kind: u32, pairs: &[(&str, &str)]) -> bool {
        self.kind == kind && pairs.iter().all(|(key, value)| self.fields.get(*key).is_some_and(|has| has == value))
    }

    /// Another primary.
    pub fn is_switch(&self) -> bool {
        self.kind == kind::TOPOLOGY
    }
}

fn fields(reply: &Reply) -> BTreeMap<String, String> {
    let text = |id: u32| match reply.kind(id) {
        Kind::Null => String::new(),
        Kind::Int | Kind::Bool => reply.int(id).unwrap_or_default().to_string(),
        _ => String::from_utf8_lossy(reply.bytes(id).unwrap_or_default()).into_owned(),
    };
    let ids: Vec<u32> = reply.children(0).collect();
    ids.chunks(2).map(|pair| (text(pair[0]), text(pair[1]))).collect()
}

/// A watch on a handle that keeps all events.
pub struct Watch {
    pub queue: Arc<Queue>,
    seen: Mutex<Vec<Told>>,
}

impl Watch {
    /// For all kinds.
    pub fn on(sentinel: &Arc<Sentinel>) -> Watch {
        Watch::kinds(sentinel, WATCHABLE, 7)
    }

    pub fn kinds(sentinel: &Arc<Sentinel>, kinds: u32, token: u64) -> Watch {
        let queue = Queue::create(10_000).expect("a queue");
        sentinel.watch(kinds, &queue, token).expect("a watch");
        Watch { queue, seen: Mutex::default() }
    }

    /// All events so far.
    pub fn all(&self) -> Vec<Told> {
        let mut seen = self.seen.lock().expect("no panic under the lock");
        let mut events = Vec::new();
        self.queue.drain(Deadline::after(Duration::ZERO), &mut events, usize::MAX);
        seen.extend(events.into_iter().map(Told::of));
        seen.clone()
    }

    pub fn count(&self, is_it: impl Fn(&Told) -> bool) -> usize {
        self.all().iter().filter(|told| is_it(told)).count()
    }

    pub fn switches(&self) -> Vec<Told> {
        self.all().into_iter().filter(Told::is_switch).collect()
    }

    /// Waits for an event of this kind with these fields.
    #[track_caller]
    pub fn wait(&self, what: &str, within: Duration, is_it: impl Fn(&Told) -> bool) -> Told {
        let began = Instant::now();
        loop {
            let all = self.all();
            if let Some(told) = all.iter().find(|told| is_it(told)) {
                return told.clone();
            }
            assert!(began.elapsed() < within, "waited {:?} in vain for {what}; told were {all:#?}", began.elapsed());
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    #[track_caller]
    pub fn wait_fence(&self, on: bool, reason: &str) -> Told {
        let on = if on { "1" } else { "0" };
        let what = format!("the fence {on}: {reason}");
        // A poll may see the flag that goes with this word before the word comes.
        let flag = if reason == "+try-failover" { "failover_in_progress" } else { reason };
        let is_meant = |said: &str| said.contains(reason) || said.contains(flag);
        self.wait(&what, SOON, |told| told.is(kind::FENCE, &[("on", on)]) && is_meant(told.get("reason")))
    }

    /// Waits for the event about a Sentinel's message, so that the message has been acted on.
    #[track_caller]
    pub fn wait_word(&self, channel: &str) -> Told {
        self.wait(channel, SOON, |told| told.is(told.kind, &[("reason", channel)]))
    }
}

/// A primary, a replica, and Sentinels that know each other, all scripted; and a handle that listens to them.
pub struct Stage {
    pub p: FakeNode,
    pub r: FakeNode,
    pub watch: Vec<FakeSentinel>,
    pub sentinel: Arc<Sentinel>,
    pub told: Watch,
}

/// Polls only if something has happened, unless the options say otherwise.
pub fn stage(sentinels: usize, options: &[(&str, &str)]) -> Stage {
    let p = Scripted::primary();
    let r = Scripted::replica(&p.addr());
    let watch = Scripted::sentinels(sentinels, SERVICE, &p.addr());
    for one in &watch {
        one.service(SERVICE, |state| {
            state.epoch = 5;
            state.add_replica(&r.addr());
        });
    }
    let addrs: Vec<String> = watch.iter().map(|one| one.addr()).collect();
    let interval = [("monitor.interval", "60000")];
    let options: Vec<(&str, &str)> = interval.iter().chain(options).copied().collect();
    let sentinel = sentinel_at(&addrs, &options);
    let told = Watch::on(&sentinel);
    let stage = Stage { p, r, watch, sentinel, told };
    let service = stage.service();
    let discover = || service.discover(service.discovered(), Deadline::after(SOON)).ok();
    eventually_some("the primary is found", SOON, discover);
    stage
}

impl Stage {
    pub fn service(&self) -> Arc<Service> {
        self.sentinel.service(SERVICE)
    }

    /// Waits until every Sentinel is listened to, once, and the library knows that.
    #[track_caller]
    pub fn listened(&self) {
        for one in &self.watch {
            heard(one);
            let addr = one.addr();
            self.told.wait("it is up", SOON, |told| told.is(kind::SENTINEL, &[("sentinel", &addr), ("up", "1")]));
        }
    }

    fn about_primary(&self) -> String {
        format!("master {SERVICE} 127.0.0.1 {}", self.p.port())
    }

    fn about_replica(&self) -> String {
        let (r, p) = (self.r.port(), self.p.port());
        format!("slave 127.0.0.1:{r} 127.0.0.1 {r} @ {SERVICE} 127.0.0.1 {p}")
    }

    pub fn flags(&self, leader: usize, flags: &str) {
        self.watch[leader].service(SERVICE, |state| state.flags = flags.into());
    }

    /// A Sentinel begins a failover, as sentinel.c does: first the flag, then the message.
    pub fn begin(&self, leader: usize) {
        let flags = self.watch[leader].service(SERVICE, |state| state.flags.clone());
        self.flags(leader, &format!("{flags},failover_in_progress"));
        self.watch[leader].publish("+try-failover", &self.about_primary());
    }

    pub fn select(&self, leader: usize) {
        self.watch[leader].publish("+selected-slave", &self.about_replica());
    }

    /// The replica is a primary now. No message was sent about it.
    pub fn promote(&self) {
        self.r.state(|state| state.role = super::support::FakeRole::Primary);
    }

    /// The leader is committed: its address and epoch are new, and it says so. MASTER still describes the old primary, including
    /// its flags.
    pub fn commit(&self, leader: usize) {
        self.watch[leader].service(SERVICE, |state| {
            state.described = Some(self.p.addr());
            state.switch_to(&self.r.addr());
        });
        self.watch[leader].publish("+promoted-slave", &self.about_replica());
    }

    pub fn abort(&self, leader: usize, why: &str) {
        self.flags(leader, "master");
        self.watch[leader].publish(&format!("-failover-abort-{why}"), &self.about_primary());
    }

    /// Something about the primary: `+odown`, `+sdown`, ...
    pub fn word(&self, sentinel: usize, channel: &str) {
        self.watch[sentinel].publish(channel, &self.about_primary());
    }

    pub fn word_of_replica(&self, sentinel: usize, channel: &str) {
        self.watch[sentinel].publish(channel, &self.about_replica());
    }

    /// All Sentinels switch, the leader last, as the real ones do.
    pub fn switch_all(&self) {
        self.promote();
        for one in self.watch.iter().rev() {
            one.service(SERVICE, |state| {
                state.flags = "master".into();
                state.described = None;
                let addr = self.r.addr();
                if !addr.ends_with(&format!(":{}", state.port)) {
                    state.switch_to(&addr);
                }
                state.replicas.clear();
            });
            let (old, new) = (self.p.port(), self.r.port());
            one.publish("+switch-master", &format!("{SERVICE} 127.0.0.1 {old} 127.0.0.1 {new}"));
        }
    }

    /// How often the Sentinels were asked.
    pub fn asked(&self) -> usize {
        self.watch.iter().map(|one| one.count("SENTINEL GET-MASTER-ADDR-BY-NAME")).sum()
    }

    /// Waits until no question is sent any more, and no discovery is due.
    #[track_caller]
    pub fn quiet(&self) {
        let service = self.service();
        let look = || (self.asked(), service.discovered());
        let mut last = (look(), Instant::now());
        eventually("nobody is asked any more", SOON, || {
            let now = look();
            if now != last.0 {
                last = (now, Instant::now());
            }
            last.1.elapsed() > QUIET
        });
    }

    /// Has the Sentinels asked: waits for one discovery that may have begun before, and for one that did not.
    #[track_caller]
    pub fn polled(&self) {
        for _ in 0..2 {
            self.sentinel.refresh(Some(SERVICE), Deadline::after(SOON)).expect("the primary is there");
        }
    }

    #[track_caller]
    pub fn wait_primary(&self, addr: &str) {
        let service = self.service();
        // Calls go by the version, which is stored after the snapshot.
        let is_seen = || service.version() == service.load().version;
        eventually(&format!("the primary is {addr}"), SOON, || at(&service) == addr && is_seen());
    }
}

/// The node that commands for the primary go to.
pub fn at(service: &Service) -> String {
    service.load().primary.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// Waits until a scripted Sentinel is listened to, by one subscription.
#[track_caller]
pub fn heard(one: &FakeSentinel) {
    let count = eventually_some("it is listened to", SOON, || {
        let count = one.publish("+kit-hello", "hello");
        (count > 0).then_some(count)
    });
    assert_eq!(count, 1, "one subscription for each Sentinel");
}
