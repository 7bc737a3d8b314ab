//! Feature rows 22 to 37: how the primary is found, which Sentinels are believed, and what is rejected.

use crate::api;
use crate::moving;
use crate::support;

use api::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::fake_sentinel::ServiceState;
use support::*;
use vigie::client::{Client, Target, Timeout};
use vigie::error::{Status, flags};
use vigie::time::Deadline;
use vigie::topology::Sentinel;

const SHORT: Timeout = Timeout::Ms(700);

/// One port on all loopback addresses: connections are accepted in order, noted by their destination address, and
/// forwarded (or closed, if nothing is behind that address).
struct Door {
    port: ports::Port,
    seen: Arc<Mutex<Vec<Ipv4Addr>>>,
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Door {
    fn open(behind: &[(&str, String)]) -> Door {
        let port = ports::reserve();
        let listener = TcpListener::bind(("0.0.0.0", port.number)).expect("the port is ours");
        let mut door = Door { port, seen: Arc::default(), over: Arc::default(), thread: None };
        let behind: BTreeMap<String, String> = behind.iter().map(|(ip, addr)| (ip.to_string(), addr.clone())).collect();
        let (seen, over) = (Arc::clone(&door.seen), Arc::clone(&door.over));
        let thread = proc::thread("kit-door", move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::Acquire) {
                    return;
                }
                let Ok(std::net::SocketAddr::V4(local)) = stream.local_addr() else { continue };
                seen.lock().expect("no panic under the lock").push(*local.ip());
                if let Some(server) = behind.get(&local.ip().to_string()).and_then(|addr| TcpStream::connect(addr).ok())
                {
                    lead(&stream, &server);
                    lead(&server, &stream);
                }
            }
        });
        door.thread = Some(thread);
        door
    }

    fn addr(&self, ip: &str) -> String {
        format!("{ip}:{}", self.port.number)
    }

    /// Takes what was noted since the last call.
    fn seen(&self) -> Vec<String> {
        let mut seen = self.seen.lock().expect("no panic under the lock");
        std::mem::take(&mut *seen).iter().map(ToString::to_string).collect()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        let _ = TcpStream::connect(("127.0.0.1", self.port.number));
        // The port is only free once nobody listens any more.
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn lead(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().expect("a descriptor"), to.try_clone().expect("a descriptor"));
    proc::thread("kit-door-lead", move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
    });
}

/// Three Sentinels of a healthy service.
fn three(primary: &str) -> Vec<FakeSentinel> {
    Scripted::sentinels(3, SERVICE, primary)
}

fn each(fakes: &[FakeSentinel], change: impl Fn(&mut ServiceState)) {
    fakes.iter().for_each(|fake| fake.service(SERVICE, |state| change(state)));
}

/// The primary that a new discovery finds.
fn found(sentinel: &Arc<Sentinel>) -> String {
    primary(&refresh(sentinel).unwrap_or_else(|error| panic!("{error:?}")))
}

#[test]
fn row_22_dead_sentinel_skipped() {
    let d = Deployment::new("row22").replicas(0).start();
    let addr = d.primary(SERVICE);
    let sentinel = connect(&d.sentinel_uri(), &[]);
    let first = sentinels(&refresh(&sentinel).expect("found"))[0].addr.clone();
    let dead = d.sentinel_nodes().into_iter().find(|node| node.addr() == first).expect("one of them is the first");
    dead.kill();
    assert_eq!(found(&sentinel), addr);
    // The next discovery starts with another Sentinel.
    let after = sentinels(&refresh(&sentinel).expect("found"));
    assert!(
        after[0].addr != first && after.iter().any(|told| told.addr == first && told.state == "failed"),
        "{after:?}"
    );
    // And for those that start with it.
    for _ in 0..8 {
        let fresh = connect(&d.sentinel_uri(), &[]);
        assert_eq!(text(&cmd(&client(&fresh, Target::Primary), &["SET", "k", "v"]), 0), "OK");
    }
}

#[test]
fn row_23_hung_sentinel_skipped() {
    let d = Deployment::new("row23").replicas(0).start();
    let addr = d.primary(SERVICE);
    let known = connect(&d.sentinel_uri(), &[]);
    let first = sentinels(&refresh(&known).expect("found"))[0].addr.clone();
    d.sentinel_nodes().iter().find(|node| node.addr() == first).expect("one of them is the first").stop();
    // timeout.sentinel is 500 ms by default.
    let limit = 550;
    for sentinel in [known, connect(&d.sentinel_uri(), &[]), connect(&d.sentinel_uri(), &[])] {
        assert_eq!(at_most(limit, || found(&sentinel)), addr);
        assert_eq!(text(&at_most(limit, || cmd(&client(&sentinel, Target::Primary), &["PING"])), 0), "PONG");
    }
    // The last one alone is enough too.
    d.serving_sentinels()[0].stop();
    assert_eq!(at_most(limit, || found(&connect(&d.sentinel_uri(), &[]))), addr);
    d.sentinel_nodes().iter().for_each(|node| node.cont());
}

#[test]
fn row_24_bad_sentinel_answers_skipped() {
    let node = Scripted::primary();
    let fakes = Scripted::sentinels(2, SERVICE, &node.addr());
    let (bad, good) = (&fakes[0], &fakes[1]);
    let noauth = || Fault::Error("NOAUTH Authentication required.".into());
    let nil = || Fault::Reply(Value::NilArray);
    let cases = [
        ("*", noauth(), "NOAUTH", "failed"),
        ("SENTINEL", noauth(), "NOAUTH", "failed"),
        ("SENTINEL", Fault::Error("ERR out of order today".into()), "out of order today", "failed"),
        ("SENTINEL MASTER", Fault::Error("ERR out of order today".into()), "out of order today", "failed"),
        ("SENTINEL GET-MASTER-ADDR-BY-NAME", nil(), "no address", "unused"),
        ("SENTINEL GET-MASTER-ADDR-BY-NAME", Fault::Half, "closed", "failed"),
        ("SENTINEL MASTER", Fault::Half, "closed", "failed"),
        ("SENTINEL GET-MASTER-ADDR-BY-NAME", Fault::Raw(b"!?\r\n".to_vec()), "", "failed"),
        ("SENTINEL GET-MASTER-ADDR-BY-NAME", Fault::Reply(Value::Int(7)), "", "failed"),
    ];
    for (pattern, fault, reason, state) in cases {
        bad.fault(pattern, fault.clone());
        let case = format!("{pattern} {fault:?}");
        let sentinel = connect(&uri_of(&fakes), &[]);
        let topology = refresh(&sentinel).unwrap_or_else(|error| panic!("{case}: {error:?}"));
        assert_eq!(primary(&topology), node.addr(), "{case}");
        assert_eq!(text(&cmd(&client(&sentinel, Target::Primary), &["SET", "k", "v"]), 0), "OK", "{case}");
        let told = sentinels(&topology).into_iter().find(|told| told.addr == bad.addr()).expect("both are told of");
        // The good Sentinel may have been faster.
        let retained = told.state == state && told.text.contains(reason) || told.state == "skipped";
        assert!(retained, "{case}: {told:?}");
        good.down();
        let error = refresh(&connect(&uri_of(&fakes), &[])).expect_err("no good one is left");
        let message = error.message();
        assert!(message.contains(&bad.addr()) && message.contains(reason), "{case}: {error:?}");
        good.up();
        bad.clear_faults();
    }
}

#[test]
fn row_25_answering_sentinel_moved_to_front() {
    let node = Scripted::primary();
    let fakes = Scripted::sentinels(2, SERVICE, &node.addr());
    let (bad, good) = ("127.0.0.11", "127.0.0.12");
    // Without peers, which would also be asked at their own addresses.
    each(&fakes, |state| state.peers.clear());
    let door = Door::open(&[(bad, fakes[0].addr()), (good, fakes[1].addr())]);
    for round in 0..4 {
        fakes[0].fault("SENTINEL", Fault::Error("ERR out of order".into()));
        // Connections that stay open would hide the order.
        let options = [("timeout.sentinel", "5s"), ("monitor", "disconnect")];
        let sentinel = connect(&uri(&[door.addr(bad), door.addr(good)]), &options);
        assert_eq!(found(&sentinel), node.addr());
        door.seen();
        assert_eq!(found(&sentinel), node.addr());
        assert_eq!(door.seen()[0], good, "round {round}: the good one is asked first after the other has failed");
        // And the other way round.
        fakes[0].clear_faults();
        fakes[1].fault("SENTINEL", Fault::Error("ERR out of order".into()));
        assert_eq!(found(&sentinel), node.addr());
        door.seen();
        assert_eq!(found(&sentinel), node.addr());
        assert_eq!(door.seen()[0], bad, "round {round}: it has recovered, the other has failed");
        fakes[1].clear_faults();
    }
}

#[test]
fn row_26_initial_order_is_random() {
    let door = Door::open(&[]);
    let ips = ["127.0.0.11", "127.0.0.12", "127.0.0.13"];
    let uri = uri(&ips.map(|ip| door.addr(ip)));
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    fastrand::seed(seed());
    // Twice the thousand of the row, so that chance alone stays within the band.
    for _ in 0..2000 {
        // A connection that stays open would hide the order.
        assert!(refresh(&connect(&uri, &[("monitor", "disconnect")])).is_err());
        let seen = door.seen();
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 3, "all were asked: {seen:?}");
        *first.entry(seen[0].clone()).or_default() += 1;
    }
    assert!(ips.iter().all(|ip| (560..=780).contains(&first[*ip])), "28 to 39 % of 2000 each: {first:?}");
}

#[test]
fn row_26_order_is_safe_under_concurrency() {
    let node = Scripted::primary();
    let fakes = Scripted::sentinels(2, SERVICE, &node.addr());
    let dead = refuse();
    let name = |number: usize| format!("service-{number}");
    for fake in &fakes {
        let services = (0..64).map(|number| (name(number), ServiceState::of(&node.addr())));
        fake.state(|state| state.services.extend(services));
    }
    let all: BTreeSet<String> = [fakes[0].addr(), fakes[1].addr(), dead.addr()].into();
    let sentinel = connect(&uri(&all.iter().collect::<Vec<_>>()), &[]);
    std::thread::scope(|scope| {
        for number in 0..64 {
            let (sentinel, node, name) = (&sentinel, &node, name(number));
            scope.spawn(move || {
                for _ in 0..3 {
                    let soon = Deadline::after(Duration::from_secs(10));
                    let topology = sentinel.refresh(Some(&name), soon).unwrap_or_else(|error| panic!("{error:?}"));
                    assert_eq!(primary(&topology), node.addr());
                }
            });
        }
    });
    for number in 0..64 {
        let soon = Deadline::after(Duration::from_secs(10));
        let topology = sentinel.refresh(Some(&name(number)), soon).unwrap_or_else(|error| panic!("{error:?}"));
        let list: Vec<String> = sentinels(&topology).into_iter().map(|told| told.addr).collect();
        assert_ne!(list[0], dead.addr(), "a live one is in front");
        assert_eq!(list.len(), 3, "nothing was doubled or lost: {list:?}");
        assert_eq!(list.into_iter().collect::<BTreeSet<_>>(), all);
    }
}

#[test]
fn row_27_primary_flags_checked() {
    for (flags, reason) in
        [("s_down,o_down,master", "o_down"), ("master,disconnected", "disconnected"), ("s_down,master", "s_down")]
    {
        let node = Scripted::primary();
        let fakes = three(&node.addr());
        let sentinel = connect(&uri_of(&fakes), &[]);
        each(&fakes, |state| state.flags = flags.into());
        let error = refresh(&sentinel).expect_err("not to be used");
        assert_eq!(error.status(), Status::NoPrimary, "{error:?}");
        assert!(error.message().contains(&format!("is {reason} in the eyes of")), "{error:?}");
        let client = client(&sentinel, Target::Primary);
        let error = fails(&client, &["SET", "k", "v"], SHORT);
        assert!(error.status() == Status::NoPrimary && error.message().contains(reason), "{error:?}");
        assert_eq!(node.accepted(), 0, "it is not even connected to");
        each(&fakes, |state| state.flags = "master".into());
        fakes[0].service(SERVICE, |state| state.flags = flags.into());
        assert_eq!(text(&cmd(&client, &["PING"]), 0), "PONG", "one Sentinel's opinion is not enough");
    }
}

/// SENTINEL MASTER as a Sentinel answers it between a promotion and `+switch-master`: the old address under the new epoch.
fn stale_master(addr: &str, epoch: u64) -> Value {
    let (host, port) = support::fake_sentinel::split(addr);
    let (port, epoch) = (port.to_string(), epoch.to_string());
    Value::fields([
        ("name", SERVICE.to_string()),
        ("ip", host),
        ("port", port),
        ("flags", "master".into()),
        ("config-epoch", epoch),
        ("num-slaves", "0".into()),
        ("num-other-sentinels", "2".into()),
        ("quorum", "2".into()),
    ])
}

#[test]
fn row_28_address_only_from_get_master_addr() {
    let (old, new) = (Scripted::primary(), Scripted::primary());
    let fakes = three(&new.addr());
    for fake in &fakes {
        fake.fault("SENTINEL MASTER", Fault::Reply(stale_master(&old.addr(), 2)));
        fake.fault("SENTINEL MASTERS", Fault::Reply(Value::Array(vec![stale_master(&old.addr(), 2)])));
    }
    let sentinel = connect(&uri_of(&fakes), &[]);
    let client = client(&sentinel, Target::Primary);
    cmd(&client, &["SET", "k", "v"]);
    assert_eq!(primary(&client.topology().expect("known")), new.addr());
    assert_eq!((new.count("SET"), old.accepted()), (1, 0), "nobody connected to the stale address");
    let asked: usize = fakes.iter().map(|fake| fake.count("SENTINEL GET-MASTER-ADDR-BY-NAME mymaster")).sum();
    assert!(asked >= 2, "{asked}");
    assert!(fakes.iter().all(|fake| fake.count("SENTINEL MASTERS") == 0));
}

#[test]
fn row_29_role_verified_on_the_discovered_node() {
    let replica = Scripted::replica("127.0.0.1:7001");
    let fakes = three(&replica.addr());
    let sentinel = connect(&uri_of(&fakes), &[]);
    let error = refresh(&sentinel).expect_err("it is a replica");
    assert_eq!(error.status(), Status::Role, "{error:?}");
    assert!(error.message().contains(&replica.addr()) && error.message().contains("7001"), "{error:?}");
    for target in [Target::Primary, Target::Split] {
        let error = fails(&client(&sentinel, target), &["SET", "k", "v"], SHORT);
        assert!(error.status() == Status::Role && error.has(flags::RETRYABLE), "{error:?}");
    }
    assert!(replica.count("ROLE") > 0 && replica.count("SET") == 0, "{:?}", replica.commands());
}

/// The connections of a node that received commands after the handshake, and whether ROLE came first.
fn asked_for_role(node: &FakeNode) -> BTreeMap<u64, bool> {
    let mut roles = BTreeSet::new();
    let mut asked = BTreeMap::new();
    for entry in node.log() {
        match entry.text().split(' ').next().unwrap_or_default() {
            "ROLE" => drop(roles.insert(entry.conn)),
            "SET" | "GET" => drop(asked.entry(entry.conn).or_insert(roles.contains(&entry.conn))),
            _ => {}
        }
    }
    asked
}

#[test]
fn row_30_role_verified_on_every_pooled_connection() {
    let node = Scripted::primary();
    let fakes = three(&node.addr());
    let sentinel = connect(&uri_of(&fakes), &[("pool.min", "10"), ("pool.max", "10")]);
    let client = client(&sentinel, Target::Primary);
    cmd(&client, &["SET", "k", "v"]);
    eventually("ten connections", Duration::from_secs(3), || node.connections() == 10);
    let sessions: Vec<Arc<Client>> = (0..9).map(|_| client.session(None).expect("a session")).collect();
    sessions.iter().for_each(|session| drop(cmd(session, &["SET", "k", "w"])));
    let asked = asked_for_role(&node);
    assert!(asked.len() == 10 && asked.values().all(|before| *before), "connections and ROLE before SET: {asked:?}");
    drop(sessions);
    // A demoted node that a Sentinel still names gets no command on a new connection.
    let sets = node.count("SET");
    node.state(|state| state.role = FakeRole::replica_of("127.0.0.1:7001"));
    node.close_all();
    eventually("all are gone", Duration::from_secs(2), || node.connections() == 0);
    let error = fails(&client, &["SET", "k", "x"], SHORT);
    assert_eq!(error.status(), Status::Role, "{error:?}");
    assert_eq!(node.count("SET"), sets);
}

#[test]
fn row_31_role_mismatch_retried() {
    let node = Scripted::replica("127.0.0.1:7001");
    let fakes = three(&node.addr());
    let sentinel = connect(&uri_of(&fakes), &[("pool.eager", "true"), ("timeout.call", "3s")]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The duration of the fault, not a wait.
            std::thread::sleep(Duration::from_millis(800));
            node.state(|state| state.role = FakeRole::Primary);
        });
        let (client, took, pace) = paced(|| Client::open(&sentinel, None, Target::Primary, None));
        let client = client.unwrap_or_else(|error| panic!("{error:?}"));
        assert!(took >= Duration::from_millis(750), "{took:?}");
        pace.judge("an opening while the role is wrong", took, Duration::from_millis(3000));
        assert_eq!(text(&cmd(&client, &["SET", "k", "v"]), 0), "OK");
    });
    let stale = Scripted::replica("127.0.0.1:7001");
    let fakes = three(&stale.addr());
    let sentinel = connect(&uri_of(&fakes), &[("pool.eager", "true"), ("timeout.call", "1s")]);
    let error = at_most(1100, || Client::open(&sentinel, None, Target::Primary, None).err().expect("never right"));
    assert_eq!(error.status(), Status::Role, "{error:?}");
    assert!(stale.count("ROLE") > 2, "it was tried again: {}", stale.count("ROLE"));
}

/// When a Sentinel was asked, one span for each connection.
fn spans(fake: &FakeSentinel) -> Vec<(Instant, Instant)> {
    let mut spans: BTreeMap<u64, (Instant, Instant)> = BTreeMap::new();
    for entry in fake.log() {
        spans.entry(entry.conn).or_insert((entry.at, entry.at)).1 = entry.at;
    }
    let mut spans: Vec<_> = spans.into_values().collect();
    spans.sort();
    spans
}

#[test]
fn row_32_one_discovery_at_a_time() {
    one_discovery_at_a_time("on");
    // Each discovery has its own connections: the log shows when it began and ended.
    let spans = one_discovery_at_a_time("off");
    assert!(spans.iter().all(|spans| spans.windows(2).all(|pair| pair[0].1 <= pair[1].0)), "two at a time: {spans:?}");
}

fn one_discovery_at_a_time(monitor: &str) -> Vec<Vec<(Instant, Instant)>> {
    let node = Scripted::primary();
    let fakes = three(&node.addr());
    let sentinel = connect(&uri_of(&fakes), &[("monitor", monitor)]);
    let client = client(&sentinel, Target::Primary);
    cmd(&client, &["SET", "k", "v"]);
    // Wide enough to show two at a time.
    fakes.iter().for_each(|fake| fake.fault("SENTINEL MASTER", Fault::Delay(Duration::from_millis(30))));
    fakes.iter().for_each(|fake| fake.clear_log());
    let begun = Instant::now();
    node.down();
    std::thread::scope(|scope| {
        let calls: Vec<_> =
            (0..100).map(|_| scope.spawn(|| try_cmd(&client, &["GET", "k"], Timeout::Default))).collect();
        fakes[0].wait_count("SENTINEL SENTINELS", 4, Duration::from_secs(5));
        node.up();
        for call in calls {
            let reply = call.join().expect("no panic").unwrap_or_else(|error| panic!("{error:?}"));
            assert_eq!(text(&reply, 0), "v");
        }
    });
    // Between two discoveries there is a pause of at least 50 ms.
    let most = begun.elapsed().as_millis() as usize / 50 + 2;
    for fake in &fakes {
        let asked = fake.count("SENTINEL SENTINELS");
        assert!((3..=most).contains(&asked), "{asked} discoveries, at most {most}");
    }
    fakes.iter().map(spans).collect()
}

#[test]
fn row_33_peers_are_learned() {
    let d = Deployment::new("row33").start();
    let all: BTreeSet<String> = d.sentinel_addrs().into_iter().collect();
    let given = &d.sentinel_nodes()[0];
    let sentinel = connect(&uri(&[given.addr()]), &[]);
    let client = client(&sentinel, Target::Primary);
    cmd(&client, &["SET", "k", "v"]);
    given.kill();
    assert_eq!(found(&sentinel), d.primary(SERVICE));
    let old = d.failover(SERVICE);
    let new = d.wait_switched(SERVICE, &old);
    assert_eq!(found(&sentinel), new.addr());
    wait_served_by(&client, new.port());
    let known = sentinels(&client.topology().expect("known"));
    assert_eq!(known.iter().map(|told| told.addr.clone()).collect::<BTreeSet<_>>(), all);
    assert_eq!(known.iter().filter(|told| told.state == "ok").count(), 2, "{known:?}");
}

#[test]
fn row_33_bogus_peers_are_bounded() {
    let node = Scripted::primary();
    let fake = Scripted::sentinel(SERVICE, &node.addr());
    let (hole, door) = (blackhole(), Door::open(&[]));
    let sentinel =
        connect(&uri(&[fake.addr()]), &[("sentinel.max_peers", "8"), ("timeout.sentinel", "5s"), ("monitor", "off")]);
    for round in 0..10 {
        fake.service(SERVICE, |state| {
            state.peers.clear();
            state.add_peer(&fake.addr());
            state.add_peer(&hole.addr());
            // Different ones in each discovery; every one accepts the connection and closes it.
            for last in 1..=30 {
                state.add_peer(&door.addr(&format!("127.0.{}.{last}", round + 1)));
                state.peers.last_mut().expect("one was added").id = format!("{round:020}{last:020}");
            }
        });
        let limit = Duration::from_millis(2500);
        let primary = takes_at_most("a discovery that does not wait for bogus ones", limit, || found(&sentinel));
        assert_eq!(primary, node.addr());
        let known: Vec<String> =
            sentinels(&sentinel.topology(Some(SERVICE)).expect("known")).into_iter().map(|told| told.addr).collect();
        // Those that were removed in this discovery are still reported.
        assert!(known.len() <= 1 + 2 * 8, "{} are known: {known:?}", known.len());
        assert_eq!(known.iter().filter(|addr| **addr == fake.addr()).count(), 1, "{known:?}");
        assert!(door.seen().len() <= 2 * 8, "attempts are bounded too");
    }
}

#[test]
fn row_34_host_names_in_answers() {
    let d = Deployment::new("row34n").replicas(1).hostnames(true).start();
    assert!(d.primary(SERVICE).starts_with("localhost:"));
    both_sides_work(&d);
}

#[test]
fn row_34_ipv6_in_answers() {
    let d = Deployment::new("row34v6").replicas(1).ipv6(true).start();
    assert!(d.primary(SERVICE).starts_with("[::1]:"));
    both_sides_work(&d);
}

fn both_sides_work(d: &Deployment) {
    let sentinel = connect(&d.sentinel_uri(), &[("replica.fallback", "error")]);
    let writer = client(&sentinel, Target::Primary);
    assert_eq!(text(&cmd(&writer, &["SET", "k", "v"]), 0), "OK");
    assert_eq!(primary(&writer.topology().expect("known")), d.primary(SERVICE));
    let replica = &d.replica_nodes(SERVICE)[0];
    replica.cmd(&["CONFIG", "RESETSTAT"]);
    assert_eq!(cmd(&client(&sentinel, Target::Replica), &["EXISTS", "k"]).kind(0), vigie::resp::Kind::Int);
    assert_eq!(replica.calls("exists"), 1);
}

#[test]
fn row_34_names_are_resolved_at_each_reconnect() {
    moving::run(concat!(module_path!(), "::row_34_names_are_resolved_at_each_reconnect"), follow_a_moving_name);
}

fn follow_a_moving_name(answer: &str) {
    let nodes = [Scripted::primary(), Scripted::primary()];
    let ips = ["127.0.0.21", "127.0.0.22"];
    let door = Door::open(&[(ips[0], nodes[0].addr()), (ips[1], nodes[1].addr())]);
    let fakes = three("127.0.0.1:1");
    each(&fakes, |state| (state.host, state.port) = (moving::NAME.into(), door.port.number));
    std::fs::write(answer, ips[0]).expect("written");
    let client = client(&connect(&uri_of(&fakes), &[]), Target::Primary);
    cmd(&client, &["GET", "k"]);
    assert_eq!((nodes[0].count("GET"), nodes[1].accepted()), (1, 0));
    for round in 1..=3 {
        let (here, there) = (&nodes[round % 2], &nodes[(round + 1) % 2]);
        here.clear_log();
        std::fs::write(answer, ips[round % 2]).expect("written");
        there.down();
        // A read, because it may be repeated if the end of the connection overtakes its reply.
        let (_, took) = timed(|| cmd(&client, &["GET", "k"]));
        assert_eq!(here.count("GET"), 1, "round {round}: the name was resolved anew after {took:?}");
        assert_eq!(primary(&client.topology().expect("known")), format!("{}:{}", moving::NAME, door.port.number));
        there.up();
    }
}

#[test]
fn row_35_lazy_open() {
    let nobody = refuse();
    let sentinel = connect(&uri(&[nobody.addr()]), &[]);
    for target in [Target::Primary, Target::Replica, Target::Split] {
        let client = client(&sentinel, target);
        let error = at_most(770, || fails(&client, &["GET", "k"], SHORT));
        assert_eq!(error.status(), Status::NoSentinel, "{error:?}");
    }
    let node = Scripted::primary();
    let fakes = three(&node.addr());
    let sentinel = connect(&uri_of(&fakes), &[]);
    let client = client(&sentinel, Target::Split);
    assert!(node.accepted() == 0 && fakes.iter().all(|fake| fake.accepted() == 0), "no socket before the first use");
    assert_eq!(text(&cmd(&client, &["PING"]), 0), "PONG");
}

#[test]
fn row_35_eager_open() {
    let (nobody, node) = (refuse(), Scripted::primary());
    let fakes = three(&nobody.addr());
    let eager = [("pool.eager", "true"), ("timeout.call", "800")];
    let sentinel = connect(&uri_of(&fakes), &eager);
    let error = at_most(880, || Client::open(&sentinel, None, Target::Primary, None).err().expect("no primary"));
    assert!(error.status() == Status::NoPrimary && error.message().contains(&nobody.addr()), "{error:?}");
    let within = |ms| Some(Deadline::after(Duration::from_millis(ms)));
    let settings = |addr: String| config(&uri(&[addr]), &[]).settings().expect("settings");
    let error = at_most(550, || Sentinel::create(settings(nobody.addr()), within(500)).expect_err("no Sentinel"));
    assert_eq!(error.status(), Status::NoSentinel, "{error:?}");
    each(&fakes, |state| state.switch_to(&node.addr()));
    Sentinel::create(settings(fakes[0].addr()), within(500)).expect("a Sentinel answers");
    let sentinel = connect(&uri_of(&fakes), &eager);
    let _open = Client::open(&sentinel, None, Target::Primary, None).expect("a primary answers");
    assert!(node.connections() >= 1 && node.count("PING") >= 1, "it is connected when open returns");
}

#[test]
fn row_37_query_current_address() {
    let d = Deployment::new("row37").start();
    let told = || {
        let reply = d.sentinel_nodes()[0].cmd(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]);
        format!("{}:{}", reply.items()[0].text(), reply.items()[1].text())
    };
    let sentinel = connect(&d.sentinel_uri(), &[]);
    let client = client(&sentinel, Target::Primary);
    assert_eq!(primary(&client.topology().expect("nothing known yet")), "");
    cmd(&client, &["SET", "k", "v"]);
    let addr = primary(&client.topology().expect("known"));
    assert_eq!(addr, told());
    let old = d.failover(SERVICE);
    let new = d.wait_switched(SERVICE, &old);
    d.hurry();
    wait_served_by(&client, new.port());
    assert_eq!(primary(&client.topology().expect("known")), told());
    assert_eq!(told(), new.addr());
    assert_ne!(addr, told());
}
