//! Which Sentinels to believe in unusual cases: another deployment, two addresses of one Sentinel, TILT, three that
//! name three (rule 2).

use crate::calls;
use crate::stage;
use crate::support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use calls::*;
use stage::{SOON, Told, Watch, at, stage};
use support::*;
use vigie::client::Client;
use vigie::error::{Error, Status, flags};
use vigie::queue::kind;
use vigie::time::Deadline;
use vigie::topology::Sentinel;

/// Two scripted deployments with the same service name; the second has had failovers, and therefore the higher epoch.
struct Two {
    a: FakeNode,
    b: FakeNode,
    of_a: Vec<FakeSentinel>,
    of_b: Vec<FakeSentinel>,
}

impl Two {
    fn new(of_a: usize, of_b: usize) -> Two {
        let (a, b) = (Scripted::primary(), Scripted::primary());
        let of_a = Scripted::sentinels(of_a, SERVICE, &a.addr());
        let of_b = Scripted::sentinels(of_b, SERVICE, &b.addr());
        of_b.iter().for_each(|one| one.service(SERVICE, |state| state.epoch = 9));
        Two { a, b, of_a, of_b }
    }

    /// A handle that is configured with so many Sentinels of each.
    fn given(&self, of_a: usize, of_b: usize, options: &[(&str, &str)]) -> Arc<Sentinel> {
        let all = self.of_a.iter().take(of_a).chain(self.of_b.iter().take(of_b));
        sentinel_at(&all.map(|one| one.addr()).collect::<Vec<_>>(), options)
    }

    /// B's primary has received no command at all, not even ROLE or HELLO.
    #[track_caller]
    fn b_is_left_alone(&self) {
        assert_eq!(self.b.commands(), Vec::<String>::new());
    }
}

fn refresh(sentinel: &Arc<Sentinel>) -> Result<(), Error> {
    sentinel.refresh(Some(SERVICE), Deadline::after(SOON)).map(drop)
}

fn polls(sentinel: &Arc<Sentinel>, count: u64) {
    let service = sentinel.service(SERVICE);
    let from = service.discovered();
    eventually("some polls", SOON, || service.discovered() >= from + count);
}

/// The state of each Sentinel in the topology, by its address.
fn states(sentinel: &Arc<Sentinel>) -> BTreeMap<String, &'static str> {
    let snapshot = sentinel.service(SERVICE).snapshot();
    snapshot.sentinels.iter().map(|view| (view.endpoint.to_string(), view.state)).collect()
}

fn topology(sentinel: &Arc<Sentinel>) -> String {
    json(&sentinel.topology(Some(SERVICE)).expect("an open handle"))
}

/// Events about Sentinels that name another primary than the others.
fn disagree(reason: &'static str) -> impl Fn(&Told) -> bool {
    move |told| told.is(kind::SENTINEL, &[("reason", reason), ("service", SERVICE), ("up", "")])
}

#[test]
fn a_stranger_among_the_given_sentinels_changes_nothing() {
    let two = Two::new(3, 3);
    for options in [&[][..], &[("sentinel.max_peers", "0")][..]] {
        for round in 0..5 {
            let sentinel = two.given(2, 1, options);
            let client = to_primary(&sentinel, &[]);
            assert_eq!(ok(&client, &format!("SET k {round}")), "OK");
            // A discovery does not wait for a slow Sentinel of the other deployment; a later one hears it.
            eventually("the stranger is told for what it is", SOON, || {
                refresh(&sentinel).expect("A is found again");
                assert_eq!(at(&sentinel.service(SERVICE)), two.a.addr());
                let states = states(&sentinel);
                let state = states[&two.of_b[0].addr()];
                assert_ne!(state, "ok", "{states:?}");
                state == "stranger"
            });
            sentinel.close();
        }
    }
    assert_eq!(two.a.count("SET"), 10);
    two.b_is_left_alone();
}

#[test]
fn as_many_given_ones_of_both_is_an_error_that_names_both() {
    let two = Two::new(3, 3);
    let client = to_primary(&two.given(1, 1, &[]), &[]);
    let error = fails_soon(Status::SplitView, |ms| within(&client, "SET k v", ms));
    for addr in [&two.of_a[0].addr(), &two.of_b[0].addr(), &two.a.addr(), &two.b.addr()] {
        assert!(error.message().contains(addr.as_str()), "{addr}: {error}");
    }
    assert!(error.message().contains("sentinel.addrs"), "{error}");
    assert_eq!((two.a.count("SET"), two.b.count("SET")), (0, 0));
}

#[test]
fn a_running_client_stays_with_the_deployment_that_it_has_joined() {
    let two = Two::new(3, 3);
    let sentinel = two.given(2, 1, &[("monitor.interval", "100"), ("timeout.sentinel", "200")]);
    let (client, told) = (to_primary(&sentinel, &[]), Watch::on(&sentinel));
    ok(&client, "SET k 1");
    polls(&sentinel, 2);
    // First fewer of A's Sentinels answer than of B's configured ones, then none.
    two.of_a[0].down();
    two.of_a[1].down();
    polls(&sentinel, 3);
    ok(&client, "SET k 2");
    two.of_a[2].down();
    polls(&sentinel, 3);
    two.a.close_all();
    ok(&client, "SET k 3");
    // Every report is about this.
    told.wait("the strangers", Duration::from_secs(15), |told| {
        disagree("strangers")(told) && told.get("text").contains(&two.b.addr())
    });
    assert_eq!((two.a.count("SET"), told.switches().len()), (3, 0));
    // With the primary gone as well, the error does not say that no Sentinel answers.
    two.a.down();
    let error = fails(Status::NoSentinel, within(&client, "GET k", 2000));
    assert!(error.message().contains("belong to another one and are not believed"), "{error}");
    two.b_is_left_alone();
}

#[test]
fn members_that_come_back_with_new_ids_and_a_newer_epoch_are_believed() {
    let (old, new) = (Scripted::primary(), Scripted::primary());
    new.state(|state| state.role = FakeRole::replica_of(&old.addr()));
    let fakes = Scripted::sentinels(3, SERVICE, &old.addr());
    fakes.iter().for_each(|fake| fake.service(SERVICE, |state| state.add_replica(&new.addr())));
    let addrs: Vec<String> = fakes.iter().map(|fake| fake.addr()).collect();
    let sentinel = sentinel_at(&addrs, &[("monitor.interval", "100")]);
    let client = to_primary(&sentinel, &[]);
    ok(&client, "SET k 1");
    polls(&sentinel, 2);
    // They failed over on the other side of a partition and were restarted there; the first Sentinel does not know.
    new.state(|state| state.role = FakeRole::Primary);
    for (number, fake) in fakes.iter().enumerate().skip(1) {
        fake.state(|state| state.id = format!("{number}").repeat(40));
        fake.service(SERVICE, |state| {
            state.switch_to(&new.addr());
            state.epoch += 6;
            state.add_replica(&old.addr());
        });
    }
    eventually("the primary that most of them name", SOON, || at(&sentinel.service(SERVICE)) == new.addr());
    ok(&client, "SET k 2");
    assert_eq!(new.count("SET"), 1);
}

#[test]
fn a_strangers_failover_raises_nothing() {
    let two = Two::new(3, 1);
    let sentinel = two.given(3, 1, &[]);
    let (client, told) = (to_primary(&sentinel, &[]), Watch::on(&sentinel));
    ok(&client, "SET k 1");
    two.of_a.iter().chain(&two.of_b).for_each(stage::heard);
    // It even speaks of A's primary.
    let about = format!("master {SERVICE} 127.0.0.1 {}", two.a.port());
    for channel in ["+sdown", "+odown", "+try-failover", "+elected-leader"] {
        two.of_b[0].publish(channel, &about);
    }
    two.of_b[0].service(SERVICE, |state| state.flags = "master,failover_in_progress".into());
    // Its events come before the reply to a PING that is sent after them.
    two.of_b[0].publish("+kit-end", "behind them");
    polls_now(&sentinel);
    ok(&client, "SET k 2");
    assert_eq!(told.count(|told| told.kind == kind::FENCE || told.kind == kind::NOTICE), 0, "{:?}", told.all());
    // A Sentinel of A is heard as before.
    two.of_a[0].publish("+try-failover", &about);
    told.wait_fence(true, "+try-failover");
}

/// After two discoveries, everything said before has been heard and judged.
fn polls_now(sentinel: &Arc<Sentinel>) {
    for _ in 0..2 {
        refresh(sentinel).expect("found");
    }
}

#[test]
fn strangers_are_no_part_of_a_majority() {
    let two = Two::new(2, 4);
    let options = [("monitor.interval", "100"), ("write.majority_ms", "400")];
    let sentinel = two.given(2, 1, &options);
    let client = to_primary(&sentinel, &[]);
    ok(&client, "SET k 1");
    // All Sentinels of A name the primary; the four others do not matter.
    polls(&sentinel, 8);
    ok(&client, "SET k 2");
    // Rebuilt Sentinels start at epoch 0. All of A's agree, which is enough.
    let next = Scripted::primary();
    for one in &two.of_a {
        one.service(SERVICE, |state| (state.port, state.epoch) = (next.port(), 0));
    }
    eventually("the lower epoch is accepted", SOON, || at(&sentinel.service(SERVICE)) == next.addr());
    // A write that begins while the switch is published is in doubt.
    eventually("writes pass", SOON, || cmd(&client, "SET k 3").is_ok());
    // One of two is no majority, whatever B's Sentinels say.
    two.of_a[0].down();
    eventually("writes are refused", SOON, || {
        within(&client, "SET k 4", 30).is_err_and(|error| error.status() == Status::Fenced)
    });
    two.b_is_left_alone();
}

#[test]
fn strangers_are_no_others() {
    let two = Two::new(2, 3);
    let error = refresh(&two.given(2, 1, &[("sentinel.min_others", "2")])).expect_err("one other");
    assert!(error.status() == Status::NoPrimary && error.message().contains("min_others"), "{error}");
    refresh(&two.given(2, 1, &[("sentinel.min_others", "1")])).expect("one other is enough");
}

#[test]
fn one_id_with_two_primaries_is_a_conflict() {
    let two = Two::new(1, 1);
    let id = two.of_a[0].state(|state| state.id.clone());
    two.of_b[0].state(|state| state.id = id);
    for _ in 0..5 {
        let error = refresh(&two.given(1, 1, &[])).expect_err("nobody can tell");
        assert_eq!(error.status(), Status::SplitView, "{error}");
    }
    two.b_is_left_alone();
    // A client that has met one of them stays with that deployment.
    let sentinel = two.given(1, 0, &[("monitor.interval", "100")]);
    refresh(&sentinel).expect("A alone");
    two.of_a[0].service(SERVICE, |state| state.add_peer(&two.of_b[0].addr()));
    polls(&sentinel, 4);
    assert_eq!(at(&sentinel.service(SERVICE)), two.a.addr());
}

#[test]
fn two_real_deployments_of_one_name() {
    let [a, b] = ["ours", "theirs"].map(|name| Deployment::new(name).replicas(1).start());
    b.failover(SERVICE);
    let theirs = b.sentinel_nodes();
    eventually("they agree on the higher epoch", deployment::PATIENCE, || {
        let epoch = |node: &Arc<Node>| node.cmd(&["SENTINEL", "MASTER", SERVICE]).field("config-epoch");
        theirs.iter().all(|node| epoch(node).as_deref() == Some("1"))
    });
    let (ours, stranger) = (a.sentinel_addrs(), theirs[2].addr());
    for given in [&ours[..2], &ours[..]] {
        let sentinel = sentinel_at(&[given, std::slice::from_ref(&stranger)].concat(), &[]);
        let client = to_primary(&sentinel, &[]);
        for round in 0..4 {
            ok(&client, &format!("SET k {round}"));
            refresh(&sentinel).expect("found");
        }
        assert_eq!(at(&sentinel.service(SERVICE)), a.primary(SERVICE));
    }
    let torn = sentinel_at(&[ours[0].clone(), stranger], &[]);
    assert_eq!(refresh(&torn).expect_err("one of each").status(), Status::SplitView);
    // A's failover is followed although a Sentinel of B is configured.
    let sentinel = sentinel_at(&[ours[0].clone(), ours[1].clone(), theirs[1].addr()], &[]);
    let client = to_primary(&sentinel, &[]);
    ok(&client, "SET k before");
    let old = a.failover(SERVICE);
    let new = a.wait_switched(SERVICE, &old);
    ok(&client, "SET k after");
    assert_eq!((at(&sentinel.service(SERVICE)), new.cmd(&["GET", "k"]).text()), (new.addr(), "after".into()));
}

/// A fresh client that was given this Sentinel and one other writes. Whether this one knew nobody when the client came.
fn written_while_it_knows_nobody(d: &Deployment, alone: &Node, value: &str) -> bool {
    let fresh = sentinel_at(&[alone.addr(), d.sentinel_nodes()[1].addr()], &[]);
    let client = to_primary(&fresh, &[]);
    let knows_nobody = alone.cmd(&["SENTINEL", "SENTINELS", SERVICE]).items().is_empty();
    // A Sentinel that was reset has no connection to the primary for a moment, which is another error.
    let first = refresh(&fresh).err().map(|error| error.status());
    assert_ne!(first, Some(Status::SplitView), "{value}: {}", topology(&fresh));
    ok(&client, &format!("SET fresh {value}"));
    assert_eq!(at(&fresh.service(SERVICE)), d.primary(SERVICE), "{}", topology(&fresh));
    knows_nobody
}

#[test]
fn real_sentinels_that_know_nobody_yet_are_no_strangers() {
    let d = Deployment::new("knows-nobody").start();
    let sentinel = sentinel_of(&d, &[("monitor.interval", "100")]);
    let (client, told) = (to_primary(&sentinel, &[]), Watch::on(&sentinel));
    ok(&client, "SET k before");
    let nodes = d.sentinel_nodes();
    // All at once: for about a second each of them stands alone.
    eventually("all were reset, and met so", deployment::PATIENCE, || {
        nodes.iter().for_each(|node| assert_eq!(node.cmd(&["SENTINEL", "RESET", SERVICE]).int(), Some(1)));
        let met = written_while_it_knows_nobody(&d, &nodes[0], "reset");
        polls(&sentinel, 1);
        ok(&client, "SET k reset");
        met
    });
    d.wait_ready(SERVICE);
    assert_eq!(told.count(disagree("split_view")), 0, "{:?}", told.all());
    // One that misses a failover, and comes back with the old primary and without the others.
    let mut old = String::new();
    eventually("it was met before it knew anybody", deployment::PATIENCE, || {
        nodes[2].kill();
        forget_the_others(&nodes[2]);
        let before = d.primary_node(SERVICE);
        old = before.addr();
        d.failover_by(SERVICE, &nodes[0]);
        d.wait_switched(SERVICE, &before);
        nodes[2].restart();
        let met = written_while_it_knows_nobody(&d, &nodes[2], "restarted");
        polls(&sentinel, 1);
        ok(&client, "SET k restarted");
        if !met {
            d.wait_ready(SERVICE);
        }
        met
    });
    // Each attempt is a failover of its own, and a second one may lead back to the first primary.
    assert_ne!(d.primary(SERVICE), old, "no way back from the last one");
    assert_eq!(told.count(disagree("strangers")), 0, "{:?}", told.all());
}

/// Takes the other Sentinels out of what a Sentinel that is not running has written down.
fn forget_the_others(sentinel: &Node) {
    let path = sentinel.dir().join("node.conf");
    let text = std::fs::read_to_string(&path).expect("its configuration");
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("known-sentinel")).collect();
    assert!(kept.len() < text.lines().count(), "it knew others: {text}");
    std::fs::write(&path, kept.join("\n") + "\n").expect("written");
}

/// Three Sentinels, the first of them configured under two names.
fn two_names(options: &[(&str, &str)]) -> (FakeNode, Vec<FakeSentinel>, Proxy, Arc<Sentinel>) {
    let node = Scripted::primary();
    let fakes = Scripted::sentinels(3, SERVICE, &node.addr());
    let second = Proxy::start(&fakes[0].addr());
    let addrs: Vec<String> = fakes.iter().map(|fake| fake.addr()).chain([second.addr()]).collect();
    let sentinel = sentinel_at(&addrs, options);
    (node, fakes, second, sentinel)
}

#[test]
fn two_names_for_one_sentinel_count_once_in_a_majority() {
    let options = [("monitor.interval", "100"), ("write.majority_ms", "400"), ("timeout.sentinel", "200")];
    let (_node, fakes, _second, sentinel) = two_names(&options);
    let client = to_primary(&sentinel, &[]);
    ok(&client, "SET k 1");
    polls(&sentinel, 2);
    // Two of three are a majority, although there are four names.
    fakes[2].down();
    polls(&sentinel, 8);
    ok(&client, "SET k 2");
    // One of three is no majority, although it has two of the four names.
    fakes[1].down();
    eventually("writes are refused", SOON, || within(&client, "SET k 3", 30).is_err());
}

#[test]
fn two_names_for_one_sentinel_hold_the_fence_once() {
    let (node, fakes, second, sentinel) = two_names(&[]);
    let (client, told) = (to_primary(&sentinel, &[]), Watch::on(&sentinel));
    ok(&client, "SET k 1");
    eventually("it is listened to under both names", SOON, || fakes[0].publish("+kit-hello", "hello") == 2);
    let about = format!("master {SERVICE} 127.0.0.1 {}", node.port());
    // A poll may come first.
    fakes[0].service(SERVICE, |state| state.flags = "master,failover_in_progress".into());
    fakes[0].publish("+try-failover", &about);
    told.wait_fence(true, "");
    second.refuse();
    second.cut();
    eventually("one name is gone", SOON, || fakes[0].publish("+kit-hello", "hello") == 1);
    fakes[0].service(SERVICE, |state| state.flags = "master".into());
    fakes[0].publish("-failover-abort-not-elected", &about);
    told.wait_fence(false, "");
    ok(&client, "SET k 2");
}

fn tilt(fakes: &[FakeSentinel], on: bool) {
    fakes.iter().for_each(|fake| fake.state(|state| state.tilt = on));
}

#[test]
fn a_new_client_works_while_all_sentinels_are_in_tilt_and_agree() {
    let (node, other) = (Scripted::primary(), Scripted::primary());
    let fakes = Scripted::sentinels(3, SERVICE, &node.addr());
    let addrs: Vec<String> = fakes.iter().map(|fake| fake.addr()).collect();
    tilt(&fakes, true);
    ok(&to_primary(&sentinel_at(&addrs, &[]), &[]), "SET k v");
    let fails_with = |status, options: &[(&str, &str)]| {
        let error = refresh(&sentinel_at(&addrs, options)).expect_err("not believed");
        assert_eq!(error.status(), status, "{error}");
    };
    // Not for min_others, not without its role, not if they differ, not by half of them.
    fails_with(Status::NoPrimary, &[("sentinel.min_others", "1")]);
    node.state(|state| state.role = FakeRole::replica_of(&other.addr()));
    fails_with(Status::Role, &[]);
    node.state(|state| state.role = FakeRole::Primary);
    fakes[2].service(SERVICE, |state| state.switch_to(&other.addr()));
    fails_with(Status::NoPrimary, &[]);
    fakes[2].down();
    refresh(&sentinel_at(&addrs, &[])).expect("two of three");
    fakes[1].down();
    fails_with(Status::NoPrimary, &[("timeout.sentinel", "200")]);
    assert_eq!(other.commands(), Vec::<String>::new());
}

#[test]
fn a_running_client_asks_the_primary_itself_while_all_are_in_tilt() {
    let stage = stage(3, &[("write.majority_ms", "off")]);
    tilt(&stage.watch, true);
    let asked = stage.p.count("ROLE");
    refresh(&stage.sentinel).expect("they agree");
    assert!(stage.p.count("ROLE") > asked, "not known before is not enough");
    stage.p.state(|state| state.role = FakeRole::replica_of(&stage.r.addr()));
    assert_eq!(refresh(&stage.sentinel).expect_err("a replica").status(), Status::Role);
}

#[test]
fn tilt_is_no_majority_and_lowers_no_fence() {
    let stage = stage(3, &[("monitor.interval", "100"), ("failover.fence_max", "60000")]);
    let client = to_primary(&stage.sentinel, &[("write.majority_ms", "500")]);
    ok(&client, "SET k v");
    stage.listened();
    let fenced = |yes: bool| topology(&stage.sentinel).contains(&format!("\"fenced\":{yes}"));
    assert!(fenced(false), "{}", topology(&stage.sentinel));
    stage.begin(0);
    stage.told.wait_fence(true, "+try-failover");
    assert!(fenced(true), "a program that begins to watch now finds it: {}", topology(&stage.sentinel));
    tilt(&stage.watch, true);
    stage.flags(0, "master");
    polls(&stage.sentinel, 4);
    assert!(stage.service().is_fenced(), "they do not see it any more, and that says nothing");
    // A switch that only they announce does not count either.
    stage.promote();
    stage.watch.iter().for_each(|one| one.service(SERVICE, |state| state.switch_to(&stage.r.addr())));
    stage.wait_primary(&stage.r.addr());
    polls(&stage.sentinel, 2);
    assert!(stage.service().is_fenced(), "the fence outlives the switch");
    tilt(&stage.watch, false);
    stage.told.wait_fence(false, "");
    eventually("a majority names it again", SOON, || within(&client, "SET k w", 200).is_ok());
    tilt(&stage.watch, true);
    eventually("writes are refused", SOON, || {
        within(&client, "SET k x", 30).is_err_and(|error| error.status() == Status::Fenced)
    });
    let error = fails(Status::Fenced, within(&client, "SET k x", 30));
    assert!(error.message().contains("3 of 3 Sentinels are in TILT mode"), "{error}");
    assert_eq!(stage.p.count("SET"), 1);
}

#[test]
fn an_epoch_never_goes_back_on_the_word_of_tilt() {
    let stage = stage(3, &[("monitor.interval", "100")]);
    stage.promote();
    tilt(&stage.watch, true);
    for one in &stage.watch {
        one.service(SERVICE, |state| (state.port, state.epoch) = (stage.r.port(), 0));
    }
    polls(&stage.sentinel, 5);
    assert_eq!((at(&stage.service()), stage.told.switches().len()), (stage.p.addr(), 0));
    tilt(&stage.watch, false);
    stage.wait_primary(&stage.r.addr());
}

/// Each Sentinel names a different one of three known nodes, and all of these are primaries.
fn split(stage: &stage::Stage, third: &FakeNode) {
    stage.promote();
    for (one, port) in stage.watch.iter().zip([stage.p.port(), stage.r.port(), third.port()]) {
        one.service(SERVICE, |state| state.port = port);
    }
}

#[test]
fn scenario_24_a_running_client_is_told_that_three_name_three() {
    let stage = stage(3, &[("monitor.interval", "100")]);
    let third = Scripted::primary();
    let held: Arc<Client> = to_primary(&stage.sentinel, &[("write.majority_ms", "300")]);
    ok(&held, "SET k v");
    stage.watch.iter().for_each(|one| one.service(SERVICE, |state| state.add_replica(&third.addr())));
    refresh(&stage.sentinel).expect("they agree");
    assert!(topology(&stage.sentinel).contains("\"split_view\":null"), "{}", topology(&stage.sentinel));
    split(&stage, &third);
    let told = stage.told.wait("it is told", Duration::from_secs(15), disagree("split_view"));
    let nodes = [stage.p.addr(), stage.r.addr(), third.addr()];
    assert!(nodes.iter().all(|addr| told.get("text").contains(addr.as_str())), "{told:?}");
    assert!(stage.watch.iter().all(|one| told.get("sentinel").contains(&one.addr())), "{told:?}");
    let error = fails_soon(Status::SplitView, |ms| within(&held, "SET k w", ms));
    assert!(nodes.iter().all(|addr| error.message().contains(addr.as_str())), "{error}");
    assert!(error.has(flags::RETRYABLE) && !error.has(flags::MAYBE_EXECUTED), "{error}");
    let shown = topology(&stage.sentinel);
    assert!(!shown.contains("\"split_view\":null") && shown.contains(&third.addr()), "{shown}");
    // Reported once, without another primary; and over when they agree.
    polls(&stage.sentinel, 3);
    assert_eq!((stage.told.count(disagree("split_view")), stage.told.switches().len()), (1, 0));
    stage.watch.iter().for_each(|one| one.service(SERVICE, |state| state.port = stage.p.port()));
    eventually("writes go on", SOON, || within(&held, "SET k x", 200).is_ok());
    assert!(topology(&stage.sentinel).contains("\"split_view\":null"));
    assert_eq!((stage.p.count("SET"), stage.r.count("SET") + third.count("SET")), (2, 0));
}

#[test]
fn rule_2_two_that_name_a_closed_port_under_a_newer_epoch_are_right() {
    let old = Scripted::primary();
    let closed = refuse();
    let fakes = Scripted::sentinels(3, SERVICE, &old.addr());
    for fake in &fakes[1..] {
        fake.service(SERVICE, |state| {
            state.switch_to(&closed.addr());
            // The others list it as a replica: its address may be believed, and its ROLE says master.
            state.add_replica(&old.addr());
        });
    }
    let addrs: Vec<String> = fakes.iter().map(|fake| fake.addr()).collect();
    for _ in 0..5 {
        let client = to_primary(&sentinel_at(&addrs, &[]), &[]);
        let error = fails_soon(Status::NoPrimary, |ms| within(&client, "SET k v", ms));
        assert!(error.has(flags::RETRYABLE) && error.message().contains(&closed.addr()), "{error}");
    }
    assert_eq!(old.count("SET"), 0, "the old primary still says that it is one");
}

#[test]
fn rule_2_a_demoted_primary_is_none_whatever_the_sentinels_say() {
    let stage = stage(3, &[]);
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "SET k v");
    stage.p.state(|state| state.role = FakeRole::replica_of(&stage.r.addr()));
    let error = refresh(&stage.sentinel).expect_err("asked for, a discovery verifies what was known");
    assert!(error.status() == Status::Role && error.has(flags::RETRYABLE), "{error}");
    // The same if a call finds out.
    stage.p.state(|state| state.role = FakeRole::Primary);
    refresh(&stage.sentinel).expect("it is one again");
    ok(&client, "SET k w");
    stage.p.state(|state| state.role = FakeRole::replica_of(&stage.r.addr()));
    assert!(within(&client, "SET k x", 300).is_err());
    let service = stage.service();
    eventually("discoveries fail", SOON, || service.last_error().is_some_and(|error| error.status() == Status::Role));
}
