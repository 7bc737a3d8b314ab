//! Discovery from outside of its room: real deployments, and Sentinels and nodes that lie, stall and refuse.

use crate::calls;
use crate::support;

use std::sync::Arc;
use std::time::{Duration, Instant};
use support::*;
use vigie::config::Config;
use vigie::error::{Error, Status, flags};
use vigie::time::Deadline;
use vigie::topology::{Sentinel, Snapshot};

const SERVICE: &str = "mymaster";

fn handle(addrs: &[String], options: &[(&str, &str)]) -> Arc<Sentinel> {
    Sentinel::create(config(addrs, options).settings().expect("good settings"), None).expect("a handle")
}

fn config(addrs: &[String], options: &[(&str, &str)]) -> Config {
    let mut config = Config::new();
    config.set("sentinel.addrs", &addrs.join(",")).expect("addresses");
    for (key, value) in options {
        config.set(key, value).expect("an option");
    }
    config
}

fn secs(seconds: u64) -> Deadline {
    Deadline::after(Duration::from_secs(seconds))
}

fn discover(sentinel: &Arc<Sentinel>) -> Result<Arc<Snapshot>, Error> {
    let service = sentinel.service(SERVICE);
    service.discover(service.discovered(), secs(10))
}

fn found(addrs: &[String], options: &[(&str, &str)]) -> Arc<Snapshot> {
    discover(&handle(addrs, options)).unwrap_or_else(|error| panic!("{error:?}"))
}

fn fails(addrs: &[String], options: &[(&str, &str)]) -> Error {
    discover(&handle(addrs, options)).expect_err("a failure")
}

fn primary(snapshot: &Snapshot) -> String {
    snapshot.primary.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn addrs(fakes: &[FakeSentinel]) -> Vec<String> {
    fakes.iter().map(|fake| fake.addr()).collect()
}

#[test]
fn a_real_deployment_is_found_and_followed() {
    let d = Deployment::new("topo-real").start();
    let sentinel = handle(&d.sentinel_addrs(), &[]);
    let begun = Instant::now();
    let first = discover(&sentinel).expect("found");
    println!("first discovery: {:?}", begun.elapsed());
    assert_eq!(primary(&first), d.primary(SERVICE));
    assert_eq!(first.replicas.len(), 2);
    assert!(first.replicas.iter().all(|replica| replica.unfit.is_none()), "{:?}", first.replicas);
    assert!(first.sentinels.iter().all(|view| view.state == "ok"), "{:?}", first.sentinels);
    println!(
        "{}",
        String::from_utf8_lossy(
            sentinel.topology(None).expect("known").to_json().expect("memory").bytes(0).expect("text")
        )
    );
    let again = discover(&sentinel).expect("found");
    assert!(again.version == first.version && again.discovery > first.discovery);
    let old = d.primary_node(SERVICE);
    old.kill();
    let deadline = secs(20);
    let new = loop {
        match discover(&sentinel) {
            Ok(snapshot) if primary(&snapshot) != primary(&first) => break snapshot,
            Ok(_) => {}
            Err(error) => assert!(error.has(flags::RETRYABLE), "{error:?}"),
        }
        assert!(!deadline.is_over());
    };
    // Found as soon as the leader of the failover names it: the others follow.
    assert_eq!(primary(&new), d.wait_switched(SERVICE, &old).addr());
    assert!(new.epoch > first.epoch && new.version > first.version);
}

#[test]
fn row_33_learned_peers_carry_on_when_the_only_given_one_dies() {
    let d = Deployment::new("topo-peers").start();
    let seed = &d.sentinel_nodes()[0];
    let sentinel = handle(&[seed.addr()], &[]);
    discover(&sentinel).expect("found through the given one");
    seed.kill();
    let snapshot = discover(&sentinel).expect("found through learned ones");
    assert_eq!(primary(&snapshot), d.primary(SERVICE));
    // One of them may be too slow for a discovery, and answers the next one.
    eventually("both learned ones answer", Duration::from_secs(10), || {
        let snapshot = discover(&sentinel).expect("found through learned ones");
        assert_eq!(primary(&snapshot), d.primary(SERVICE));
        snapshot.sentinels.iter().filter(|view| view.state == "ok").count() == 2
    });
}

#[test]
fn row_7_and_9_each_side_gets_its_own_password() {
    let d = Deployment::new("topo-auth").password("data-pw-ä").sentinel_password("sentinel-pw").start();
    let both = [("auth.password", "data-pw-ä"), ("sentinel.password", "sentinel-pw")];
    assert_eq!(primary(&found(&d.sentinel_addrs(), &both)), d.primary(SERVICE));
    for (options, wanted) in [(&both[..1], "sentinel.password"), (&both[1..], "handshake")] {
        let error = fails(&d.sentinel_addrs(), options);
        assert!(error.status() == Status::Auth && error.message().contains(wanted), "{error:?}");
    }
    let mut wrong = config(&d.sentinel_addrs(), &both);
    wrong.set("sentinel.password", "data-pw-ä").expect("an option");
    // A Sentinel that does not answer is waited for for so long.
    wrong.set("timeout.sentinel", "20000").expect("an option");
    let error = takes_at_most("what waiting does not mend", Duration::from_secs(5), || {
        Sentinel::create(wrong.settings().expect("settings"), Some(secs(60))).expect_err("refused")
    });
    assert_eq!(error.status(), Status::Auth, "{error:?}");
}

#[test]
fn scenario_28_a_blackholed_sentinel_in_front_costs_nothing() {
    let node = Scripted::primary();
    let fakes = Scripted::sentinels(2, SERVICE, &node.addr());
    let hole = blackhole();
    let all = [vec![hole.addr()], addrs(&fakes)].concat();
    // Its own limits are far off: a discovery that waits for it does not end in time. The fastest of ten shows what it costs, because one
    // of many is as slow as a loaded machine likes.
    let far = [("timeout.sentinel", "60s"), ("timeout.connect", "60s")];
    let pacing = Pacing::start();
    let discovery = |_| {
        let began = Instant::now();
        assert_eq!(primary(&found(&all, &far)), node.addr());
        began.elapsed()
    };
    let fastest = (0..10).map(discovery).min().expect("ten of them");
    pacing.stop().judge("the fastest of ten discoveries", fastest, Duration::from_millis(150));
}

#[test]
fn row_15_three_stalled_sentinels_cost_one_timeout() {
    let node = Scripted::primary();
    let fakes = Scripted::sentinels(3, SERVICE, &node.addr());
    fakes.iter().for_each(|fake| fake.fault("*", Fault::Stall));
    let (error, took, pace) = paced(|| fails(&addrs(&fakes), &[("timeout.sentinel", "300")]));
    assert!(error.status() == Status::NoSentinel && error.has(flags::RETRYABLE), "{error:?}");
    assert!(fakes.iter().all(|fake| error.message().contains(&fake.addr())), "{error:?}");
    assert!(took >= Duration::from_millis(290), "{took:?}");
    pace.judge("three that stall", took, Duration::from_millis(450));
    let sentinel = handle(&addrs(&fakes), &[("timeout.sentinel", "300")]);
    let error =
        sentinel.service(SERVICE).discover(0, Deadline::after(Duration::from_millis(50))).expect_err("too short");
    assert_eq!(error.status(), Status::Timeout, "{error:?}");
}

#[test]
fn row_21_and_24_who_says_what_is_told_apart() {
    let node = Scripted::primary();
    let refused = refuse();
    let error = fails(&[refused.addr()], &[]);
    assert!(error.status() == Status::NoSentinel && error.message().contains("refused"), "{error:?}");
    let fakes = Scripted::sentinels(2, SERVICE, &node.addr());
    assert_eq!(primary(&found(&[vec![refused.addr()], addrs(&fakes)].concat(), &[])), node.addr());
    let strange = handle(&addrs(&fakes), &[]);
    let error = strange.service("other").discover(0, secs(5)).expect_err("unknown");
    assert!(error.status() == Status::UnknownService && !error.has(flags::RETRYABLE), "{error:?}");
    let error = fails(&[node.addr()], &[]);
    assert!(error.status() == Status::NoSentinel && error.message().contains("not a Sentinel"), "{error:?}");
    fakes[0].fault("SENTINEL", Fault::Error("NOPERM no permissions".into()));
    assert_eq!(primary(&found(&addrs(&fakes), &[])), node.addr());
    fakes[1].service(SERVICE, |state| state.flags = "master,s_down,o_down".into());
    let error = fails(&addrs(&fakes), &[]);
    assert!(error.status() == Status::NoPrimary, "{error:?}");
    assert!(error.message().contains("o_down") && error.message().contains("NOPERM"), "{error:?}");
}

#[test]
fn row_29_and_31_a_stale_address_is_refused_until_its_role_is_right() {
    let node = Scripted::replica("127.0.0.1:1");
    let fakes = Scripted::sentinels(3, SERVICE, &node.addr());
    let sentinel = handle(&addrs(&fakes), &[]);
    let error = discover(&sentinel).expect_err("a replica");
    assert!(error.status() == Status::Role && error.has(flags::RETRYABLE), "{error:?}");
    node.state(|state| state.role = FakeRole::Primary);
    assert_eq!(primary(&discover(&sentinel).expect("a primary now")), node.addr());
}

#[test]
fn a_liar_costs_nothing_while_the_others_answer() {
    let (node, replica, stranger) = (Scripted::primary(), Scripted::primary(), Scripted::primary());
    replica.state(|state| state.role = FakeRole::replica_of(&node.addr()));
    let fakes = Scripted::sentinels(3, SERVICE, &node.addr());
    fakes.iter().for_each(|fake| fake.service(SERVICE, |state| state.add_replica(&replica.addr())));
    let sentinel = handle(&addrs(&fakes), &[]);
    for lie in [stranger.addr(), replica.addr()] {
        fakes[0].service(SERVICE, |state| {
            state.switch_to(&lie);
            state.epoch = 1_000_000;
        });
        for _ in 0..3 {
            let snapshot = discover(&sentinel).expect("the two others");
            assert_eq!((primary(&snapshot), snapshot.epoch), (node.addr(), 1));
        }
    }
    fakes[1].service(SERVICE, |state| state.switch_to(&stranger.addr()));
    fakes[1].service(SERVICE, |state| state.epoch = 1);
    fakes[0].down();
    let fresh = fails(&addrs(&fakes[1..]), &[]);
    assert!(fresh.status() == Status::SplitView, "{fresh:?}");
    assert!(fresh.message().contains(&stranger.addr()) && fresh.message().contains(&node.addr()), "{fresh:?}");
}

#[test]
fn row_19_enough_others_have_to_agree() {
    let node = Scripted::primary();
    let fakes = Scripted::sentinels(3, SERVICE, &node.addr());
    assert_eq!(primary(&found(&addrs(&fakes), &[("sentinel.min_others", "2")])), node.addr());
    // With one configured, the others are asked in the same discovery, because they are needed.
    assert_eq!(primary(&found(&[fakes[0].addr()], &[("sentinel.min_others", "2")])), node.addr());
    let error = fails(&addrs(&fakes), &[("sentinel.min_others", "3")]);
    assert!(error.status() == Status::NoPrimary && error.message().contains("min_others"), "{error:?}");
}

#[test]
fn row_32_a_hundred_threads_cost_one_discovery() {
    let node = Scripted::primary();
    let fakes = Scripted::sentinels(3, SERVICE, &node.addr());
    fakes.iter().for_each(|fake| fake.fault_times("SENTINEL MASTER", 1, Fault::Delay(Duration::from_millis(100))));
    let sentinel = handle(&addrs(&fakes), &[("monitor", "off")]);
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| assert!(sentinel.service(SERVICE).discover(0, secs(10)).is_ok()));
        }
    });
    assert_eq!(sentinel.service(SERVICE).discovered(), 1);
    assert!(fakes.iter().all(|fake| fake.accepted() <= 1));
}

#[test]
fn names_and_older_words_work() {
    let node = Scripted::primary();
    let fakes = Scripted::sentinels(3, SERVICE, &node.addr());
    for fake in &fakes {
        fake.state(|state| (state.replicas_command, state.door.hello, state.door.setinfo) = (false, false, false));
        fake.service(SERVICE, |state| state.add_replica("127.0.0.1:7"));
    }
    let named: Vec<_> = fakes.iter().map(|fake| format!("localhost:{}", fake.port())).collect();
    let snapshot = takes_at_most("a discovery by names", Duration::from_millis(300), || found(&named, &[]));
    assert_eq!((primary(&snapshot), snapshot.replicas.len()), (node.addr(), 1));
}

#[test]
fn row_20_a_sentinel_that_needs_400_ms_is_waited_for() {
    // Of the default of 500 ms it leaves 100 to the machine. Where that takes more, a failure says nothing, and another Sentinel is asked.
    for _ in 0..10 {
        let node = Scripted::primary();
        let fakes = Scripted::sentinels(1, SERVICE, &node.addr());
        fakes[0].fault_times("ROLE", 1, Fault::Delay(Duration::from_millis(400)));
        fakes[0].fault_times("SENTINEL MASTER", 1, Fault::Delay(Duration::from_millis(400)));
        let (outcome, _, pace) = paced(|| discover(&handle(&addrs(&fakes), &[])));
        match outcome {
            Ok(found) => return assert_eq!(primary(&found), node.addr()),
            Err(error) => assert!(pace.allowance() > Duration::from_millis(50), "{error:?} {pace:?}"),
        }
    }
    panic!("ten Sentinels were not waited for");
}

#[test]
fn row_23_a_hung_sentinel_is_skipped() {
    let d = Deployment::new("topo-hung").start();
    let hung = &d.sentinel_nodes()[0];
    hung.stop();
    let found = takes_at_most("the others' answers", Duration::from_millis(550), || found(&d.sentinel_addrs(), &[]));
    assert_eq!(primary(&found), d.primary(SERVICE));
    let error = takes_at_most("the hung one alone", Duration::from_millis(650), || fails(&[hung.addr()], &[]));
    assert!(error.status() == Status::NoSentinel && error.message().contains("handshake within"), "{error:?}");
    hung.cont();
}

#[test]
fn settings_change_while_the_handle_is_open() {
    let node = Scripted::primary();
    let fakes = Scripted::sentinels(1, SERVICE, "10.255.255.1:6379");
    let map = format!("10.255.255.1:6379={}", node.addr());
    let sentinel = handle(&addrs(&fakes), &[("timeout.connect", "100")]);
    let error = discover(&sentinel).expect_err("nowhere");
    assert!(error.status() == Status::NoPrimary && error.has(flags::RETRYABLE), "{error:?}");
    let version = sentinel.config_version();
    sentinel.configure("address.map", &map).expect("may be changed");
    assert!(sentinel.config_version() > version);
    assert_eq!(primary(&discover(&sentinel).expect("mapped")), node.addr());
    assert_eq!(sentinel.configure("pool.max", "3").expect_err("fixed").status(), Status::Config);
    sentinel.close();
    assert_eq!(discover(&sentinel).expect_err("closed").status(), Status::Closed);
}

#[test]
fn changed_credentials_renew_the_subscriptions() {
    const SOON: Duration = Duration::from_secs(20);
    let node = Scripted::primary();
    let fakes = Scripted::sentinels(2, SERVICE, &node.addr());
    let admit = |login: Login| fakes.iter().for_each(|one| one.state(|state| state.door.login = Some(login.clone())));
    admit(Login::password("first"));
    let sentinel = handle(&addrs(&fakes), &[("sentinel.password", "first")]);
    discover(&sentinel).expect("found");
    let listened = || fakes.iter().all(|one| one.publish("+kit-hello", "hello") == 1);
    eventually("all are listened to", SOON, listened);
    // Open connections to a Sentinel with changed credentials continue; new ones need the new credentials.
    let changes =
        [("sentinel.password", Login::password("second")), ("sentinel.username", Login::acl("watch", "second"))];
    for (key, login) in changes {
        let before: Vec<_> = fakes.iter().map(|one| one.count("PSUBSCRIBE")).collect();
        let value = if key == "sentinel.password" { login.password.clone() } else { login.user.clone() };
        admit(login);
        sentinel.configure(key, &value.expect("one of both")).expect("may be changed");
        for (one, before) in fakes.iter().zip(before) {
            one.wait_count("PSUBSCRIBE", before + 1, SOON);
        }
        eventually("by one subscription each", SOON, listened);
        discover(&sentinel).expect("found with the new ones");
    }
}

#[test]
fn row_35_eager_waits_for_a_sentinel_and_lazy_does_not() {
    let refused = refuse();
    let lazy = config(&[refused.addr()], &[]);
    assert!(Sentinel::create(lazy.settings().expect("settings"), None).is_ok());
    let error = at_most(400, || {
        let wait = Deadline::after(Duration::from_millis(200));
        Sentinel::create(lazy.settings().expect("settings"), Some(wait)).expect_err("nobody")
    });
    assert_eq!(error.status(), Status::NoSentinel, "{error:?}");
    let begun = Instant::now();
    let wait = Deadline::after(Duration::from_millis(300));
    Sentinel::create(lazy.settings().expect("settings"), Some(wait)).expect_err("nobody");
    // The last attempt is at the end: a Sentinel that starts late is still found.
    assert!(begun.elapsed() >= Duration::from_millis(270), "given up after {:?} of 300 ms", begun.elapsed());
    let node = Scripted::primary();
    let fakes = Scripted::sentinels(1, SERVICE, &node.addr());
    let eager = config(&[vec![refused.addr()], addrs(&fakes)].concat(), &[]);
    assert!(Sentinel::create(eager.settings().expect("settings"), Some(secs(5))).is_ok());
}

/// A refusal under the old options does not count under the new ones, however recent.
#[test]
fn a_changed_option_ends_what_was_remembered_of_the_old_ones() {
    let call_with = |sentinel: &Arc<Sentinel>| calls::cmd(&calls::to_primary(sentinel, &[]), "GET k");
    let node = Scripted::primary();
    node.state(|state| state.door.login = Some(Login::password("right")));
    let watch = calls::told(&node.addr(), &[]);
    watch.state(|state| state.door.login = Some(Login::password("watch")));
    let sentinel = calls::handle(&watch, &[("auth.password", "wrong"), ("sentinel.password", "wrong")]);
    calls::fails(Status::Auth, call_with(&sentinel));
    sentinel.configure("sentinel.password", "watch").expect("may be changed");
    // The Sentinel is asked again: now the node refuses.
    let error = calls::fails(Status::Auth, call_with(&sentinel));
    assert!(error.message().contains("auth.password"), "{error:?}");
    sentinel.configure("auth.password", "right").expect("may be changed");
    call_with(&sentinel).unwrap_or_else(|error| panic!("with the right password: {error:?}"));
}
