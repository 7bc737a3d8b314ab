//! What a watch reports (`vigie_sentinel_watch`): each kind of event, once, to those that asked for it and to nobody
//! else.

use crate::calls;
use crate::stage;
use crate::support;

use std::sync::Arc;
use std::time::Duration;

use calls::*;
use stage::{SOON, Told, Watch, stage};
use support::*;
use vigie::error::Status;
use vigie::queue::{Queue, kind};
use vigie::time::Deadline;
use vigie::topology::WATCHABLE;

const ALL: [u32; 6] = [kind::TOPOLOGY, kind::NOTICE, kind::FENCE, kind::DEGRADED, kind::REPLICA, kind::SENTINEL];

fn of(kind: u32) -> impl Fn(&Told) -> bool {
    move |told| told.kind == kind
}

#[test]
fn a_switch_is_told_once_with_from_to_reason_and_epoch() {
    for probe in ["auto", "eager", "off"] {
        let stage = stage(3, &[("failover.probe", probe), ("monitor.interval", "200")]);
        stage.listened();
        // The first discovery is no switch.
        assert_eq!(stage.told.switches().len(), 0);
        stage.begin(1);
        stage.select(1);
        stage.told.wait_fence(true, "+try-failover");
        stage.switch_all();
        let switch = stage.told.wait("the switch", SOON, Told::is_switch);
        assert_eq!((switch.get("from"), switch.get("to")), (&*stage.p.addr(), &*stage.r.addr()));
        assert_eq!((switch.get("service"), switch.get("epoch"), switch.token), (SERVICE, "6", 7));
        assert!(!switch.get("reason").is_empty());
        let polls = stage.service().discovered();
        eventually("some polls", SOON, || stage.service().discovered() > polls + 3);
        assert_eq!(stage.told.switches().len(), 1, "{probe}");
        let fences: Vec<_> = stage.told.all().into_iter().filter(of(kind::FENCE)).collect();
        let states: Vec<_> = fences.iter().map(|told| told.get("on")).collect();
        assert_eq!((states, fences[1].get("reason")), (vec!["1", "0"], "switched"), "{probe}");
        assert!(fences.iter().all(|told| told.get("service") == SERVICE));
    }
}

#[test]
fn replicas_come_and_go_with_a_reason() {
    let stage = stage(3, &[]);
    stage.listened();
    let replica = stage.r.addr();
    let each = |change: &dyn Fn(&mut fake_sentinel::ServiceState)| {
        stage.watch.iter().for_each(|one| one.service(SERVICE, |state| change(state)));
        stage.polled();
    };
    let told = |fit: &'static str, reason: &'static str| {
        let wanted = |told: &Told| {
            told.is(kind::REPLICA, &[("fit", fit), ("replica", &replica), ("service", SERVICE)])
                && told.get("reason").contains(reason)
        };
        stage.told.wait(reason, SOON, wanted);
    };
    told("1", "fit");
    each(&|state| state.replicas[0].flags = "slave,s_down".into());
    // On a busy machine the slowest may be too late for the poll that finds it.
    let eyes = ["3 of 3", "2 of 3", "2 of 2"].map(|eyes| format!("s_down in the eyes of {eyes}"));
    stage.told.wait("s_down", SOON, |told| {
        told.is(kind::REPLICA, &[("fit", "0"), ("replica", &replica), ("service", SERVICE)])
            && eyes.iter().any(|eyes| told.get("reason").contains(eyes.as_str()))
    });
    each(&|state| state.replicas[0].flags = "slave".into());
    eventually("it is back", SOON, || stage.told.count(|told| told.is(kind::REPLICA, &[("fit", "1")])) == 2);
    each(&|state| state.replicas[0].link = "err".into());
    told("0", "link");
    each(&|state| state.replicas[0].link = "ok".into());
    each(&|state| state.replicas.clear());
    told("0", "not listed any more");
    // Nothing changed: nothing is reported.
    let count = stage.told.count(of(kind::REPLICA));
    each(&|_| {});
    assert_eq!((stage.told.count(of(kind::REPLICA)), count), (6, 6));
}

#[test]
fn sentinels_go_up_and_down_and_degraded_is_told_when_none_is_left() {
    let stage = stage(3, &[]);
    stage.listened();
    let state = |index: usize, up: &str| {
        let addr = stage.watch[index].addr();
        stage.told.count(|told| told.is(kind::SENTINEL, &[("sentinel", &addr), ("up", up)]))
    };
    eventually("all three are up", SOON, || (0..3).all(|one| state(one, "1") == 1));
    assert_eq!(stage.told.count(of(kind::DEGRADED)), 0, "they were on their way, not gone");
    stage.watch[0].down();
    eventually("the first is down", SOON, || state(0, "0") == 1);
    stage.watch[1].down();
    eventually("the second is down", SOON, || state(1, "0") == 1);
    assert_eq!(stage.told.count(of(kind::DEGRADED)), 0);
    stage.watch[2].down();
    let gone = stage.told.wait("the loss of all", SOON, of(kind::DEGRADED));
    assert!(gone.get("on") == "1" && !gone.get("reason").is_empty(), "{gone:?}");
    let topology = || json(&stage.sentinel.topology(None).expect("an open handle"));
    assert!(topology().contains("\"degraded\":true"), "{}", topology());
    assert_eq!((state(2, "0"), state(2, "1")), (1, 1));
    stage.watch[1].up();
    stage.told.wait("one is back", SOON, |told| told.is(kind::DEGRADED, &[("on", "0")]));
    eventually("it is up", SOON, || state(1, "1") == 2);
    assert!(topology().contains("\"degraded\":false"), "{}", topology());
    assert_eq!((stage.told.count(of(kind::DEGRADED)), state(0, "0"), state(2, "0")), (2, 1, 1));
    let down = stage.told.wait("a reason", SOON, |told| told.is(kind::SENTINEL, &[("up", "0")]));
    assert!(down.get("reason").contains("connection closed"), "{down:?}");
}

#[test]
fn a_sentinel_that_never_was_there_is_down_and_not_degraded() {
    let (p, nobody) = (Scripted::primary(), refuse());
    let one = Scripted::sentinel(SERVICE, &p.addr());
    let sentinel = sentinel_at(&[nobody.addr(), one.addr()], &[]);
    let watch = Watch::on(&sentinel);
    ok(&to_primary(&sentinel, &[]), "SET k v");
    let addr = nobody.addr();
    watch.wait("it is down", SOON, |told| told.is(kind::SENTINEL, &[("sentinel", &addr), ("up", "0")]));
    let addr = one.addr();
    watch.wait("the other is up", SOON, |told| told.is(kind::SENTINEL, &[("sentinel", &addr), ("up", "1")]));
    assert_eq!(watch.count(of(kind::DEGRADED)), 0);
}

#[test]
fn a_frozen_sentinel_is_down_within_three_seconds() {
    let stage = stage(2, &[]);
    stage.listened();
    stage.watch[0].fault("*", Fault::Stall);
    let addr = stage.watch[0].addr();
    let told = takes_at_most("the event", Duration::from_millis(3600), || {
        stage.told.wait("it is down", SOON, |told| told.is(kind::SENTINEL, &[("sentinel", &addr), ("up", "0")]))
    });
    assert!(told.get("reason").contains("no answer"), "{told:?}");
}

#[test]
fn each_kind_can_be_watched_by_itself() {
    let stage = stage(2, &[("failover.fence_max", "300")]);
    let single: Vec<Watch> =
        ALL.iter().map(|kind| Watch::kinds(&stage.sentinel, *kind, u64::from(*kind) << 32)).collect();
    stage.listened();
    stage.begin(0);
    stage.told.wait_fence(true, "+try-failover");
    stage.told.wait_fence(false, "fence_expired");
    stage.switch_all();
    stage.told.wait("the switch", SOON, Told::is_switch);
    stage.watch.iter().for_each(|one| one.down());
    stage.told.wait("the loss of all", SOON, of(kind::DEGRADED));
    for (watch, kind) in single.iter().zip(ALL) {
        // Sentinels may have come up before these watches began.
        let all = watch.all();
        assert!(!all.is_empty() || kind == kind::REPLICA, "{kind}");
        assert!(all.iter().all(|told| told.kind == kind && told.token == u64::from(kind) << 32), "{all:?}");
        let (own, whole) = (all.len(), stage.told.count(of(kind)));
        assert!(own <= whole && own > 0 || kind == kind::REPLICA, "{kind}: {own} of {whole}");
    }
    assert_eq!(ALL.iter().fold(0, |all, kind| all | kind), WATCHABLE);
}

#[test]
fn one_watch_for_each_queue_and_none_ends_it() {
    let stage = stage(1, &[]);
    stage.listened();
    let queue = Queue::create(100).expect("a queue");
    let drain = || {
        let mut events = Vec::new();
        queue.drain(Deadline::after(Duration::ZERO), &mut events, usize::MAX);
        events.into_iter().map(|event| (event.kind, event.token)).collect::<Vec<_>>()
    };
    let fence = |on: bool| {
        let told = stage.told.count(of(kind::FENCE));
        if on {
            stage.begin(0)
        } else {
            stage.abort(0, "not-elected")
        }
        eventually("the fence moves", SOON, || stage.told.count(of(kind::FENCE)) == told + 1);
        // The queues are served one after the other: all of them, once the next event has come.
        let end = |told: &Told| told.is(kind::NOTICE, &[("reason", "+kit-end")]);
        let ends = stage.told.count(end);
        stage.word(0, "+kit-end");
        eventually("the word behind it", SOON, || stage.told.count(end) == ends + 1);
    };
    stage.sentinel.watch(kind::FENCE, &queue, 1).expect("a watch");
    fence(true);
    assert_eq!(drain(), [(kind::FENCE, 1)]);
    // A new watch replaces the old one: its kinds and its token.
    stage.sentinel.watch(kind::FENCE | kind::DEGRADED, &queue, 2).expect("a watch");
    fence(false);
    assert_eq!(drain(), [(kind::FENCE, 2)], "once, not for each watch");
    stage.sentinel.watch(0, &queue, 3).expect("its end");
    fence(true);
    assert_eq!(drain(), []);
    stage.sentinel.watch(kind::FENCE, &queue, 4).expect("a watch");
    fence(false);
    assert_eq!(drain(), [(kind::FENCE, 4)]);
    // Kinds that cannot be watched are refused, and the watch stays.
    for kinds in [kind::COMPLETION, kind::DROPPED, 1 << 31, u32::MAX] {
        fails(Status::InvalidArg, stage.sentinel.watch(kinds, &queue, 5));
    }
    fence(true);
    assert_eq!(drain(), [(kind::FENCE, 4)]);
    // The queue is dropped: nothing holds it, and the others continue.
    assert_eq!(Arc::strong_count(&queue), 1, "a watch does not keep a queue");
    drop(queue);
    fence_after(&stage);
}

fn fence_after(stage: &stage::Stage) {
    let told = stage.told.count(of(kind::FENCE));
    // A fence that a silent Sentinel has ended on a busy machine goes up again.
    stage.begin(0);
    stage.abort(0, "not-elected");
    eventually("the fence moves", SOON, || stage.told.count(of(kind::FENCE)) > told);
}

#[test]
fn two_handles_tell_one_queue_each_with_its_token() {
    let (one, two) = (stage(1, &[]), stage(1, &[]));
    let queue = Queue::create(100).expect("a queue");
    for (token, stage) in [(1, &one), (2, &two)] {
        stage.listened();
        stage.sentinel.watch(kind::FENCE, &queue, token).expect("a watch");
        stage.begin(0);
        stage.told.wait_fence(true, "+try-failover");
    }
    let mut events = Vec::new();
    queue.drain(Deadline::after(Duration::ZERO), &mut events, usize::MAX);
    assert_eq!(events.iter().map(|event| event.token).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_closed_handle_tells_nothing_and_takes_no_watch() {
    let stage = stage(1, &[]);
    stage.listened();
    let before = stage.told.all().len();
    stage.sentinel.close();
    fails(Status::Closed, stage.sentinel.watch(WATCHABLE, &stage.told.queue, 1));
    eventually("it is left", SOON, || stage.watch[0].connections() == 0);
    stage.begin(0);
    assert_eq!(stage.told.all().len(), before);
}

#[test]
fn a_full_queue_counts_what_it_lost() {
    let stage = stage(1, &[]);
    stage.listened();
    let queue = Queue::create(3).expect("a queue");
    stage.sentinel.watch(kind::REPLICA, &queue, 9).expect("a watch");
    let words: Vec<String> = (0..10).map(|number| format!("+kit-{number}")).collect();
    words.iter().for_each(|word| stage.word_of_replica(0, word));
    stage.told.wait_word("+kit-9");
    let mut events = Vec::new();
    queue.drain(Deadline::after(Duration::ZERO), &mut events, usize::MAX);
    let kinds: Vec<u32> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [kind::REPLICA, kind::REPLICA, kind::REPLICA, kind::DROPPED]);
    let lost = events[3].outcome.as_ref().ok().and_then(|reply| reply.as_ref()?.int(0));
    assert_eq!(lost, Some(7));
}

#[test]
fn events_of_another_service_are_not_told() {
    let stage = stage(2, &[]);
    stage.listened();
    // The events of the start have come.
    stage.told.wait("both are up", SOON, |_| stage.told.count(|told| told.is(kind::SENTINEL, &[("up", "1")])) == 2);
    stage.quiet();
    let before = stage.told.all().len();
    let (p, r) = (stage.p.port(), stage.r.port());
    for one in &stage.watch {
        one.publish("+try-failover", &format!("master other 127.0.0.1 {p}"));
        one.publish("+sdown", &format!("slave 127.0.0.1:{r} 127.0.0.1 {r} @ other 127.0.0.1 {p}"));
        one.publish("+sentinel", &format!("sentinel abc 127.0.0.1 9 @ other 127.0.0.1 {p}"));
        one.publish("+switch-master", &format!("other 127.0.0.1 {p} 127.0.0.1 {r}"));
        // Nor messages that only look like events.
        one.publish("+try-failover", SERVICE);
        one.publish("__sentinel__:hello", &format!("127.0.0.1,9,abc,1,{SERVICE},127.0.0.1,{p},1"));
        one.publish("+switch-master", &format!("{SERVICE} 127.0.0.1 x 127.0.0.1 {r}"));
        one.publish("+sdown", &format!("master {SERVICE}x 127.0.0.1 {p}"));
    }
    (0..2).for_each(|one| stage.word_of_replica(one, "+kit-end"));
    stage.told.wait_word("+kit-end");
    stage.listened();
    let told = stage.told.all();
    assert_eq!(told.len(), before + 1, "{:?}", &told[before..]);
    assert!(!stage.service().is_fenced());
}

#[test]
fn a_real_failover_from_the_first_word_to_the_demoted_replica() {
    let d = Deployment::new("events").start();
    let sentinel = sentinel_of(&d, &[]);
    let watch = Watch::on(&sentinel);
    ok(&to_primary(&sentinel, &[]), "SET k v");
    let listening = |told: &Told| told.is(kind::SENTINEL, &[("up", "1")]);
    eventually("all are listened to", SOON, || watch.count(listening) == 3);
    let old = d.failover(SERVICE);
    let new = d.wait_switched(SERVICE, &old);
    let (old, new) = (old.addr(), new.addr());
    let switch = watch.wait("the switch", SOON, Told::is_switch);
    assert_eq!((switch.get("from"), switch.get("to")), (&*old, &*new));
    let up = watch.wait_fence(true, "by ");
    let down = watch.wait_fence(false, "switched");
    assert!(up.at <= switch.at && switch.at <= down.at);
    watch.wait("the chosen one", SOON, |told| {
        told.is(kind::REPLICA, &[("reason", "+selected-slave"), ("replica", &new)])
    });
    watch.wait("it leaves the replicas", SOON, |told| told.is(kind::REPLICA, &[("fit", "0"), ("replica", &new)]));
    let dropped = |told: &Told| told.is(kind::REPLICA, &[("cause", "not_listed"), ("replica", &new)]);
    assert_eq!(watch.count(dropped), 0, "it was promoted, which is another cause");
    d.hurry();
    let joined = |told: &Told| told.is(kind::REPLICA, &[("fit", "1"), ("replica", &old)]);
    // With the usual periods, as before Redis 7.0, the Sentinels need more than ten seconds for it.
    watch.wait("the old one joins them", SOON * 2, joined);
    assert_eq!((watch.switches().len(), watch.count(of(kind::FENCE)), watch.count(of(kind::DEGRADED))), (1, 2, 0));
}

#[test]
fn row_82_a_switch_is_told_exactly_once() {
    let d = Deployment::new("row82").start();
    let sentinel = sentinel_of(&d, &[("monitor.interval", "300")]);
    let (client, watch) = (to_primary(&sentinel, &[]), Watch::kinds(&sentinel, kind::TOPOLOGY, 42));
    ok(&client, "SET k v");
    let mut fds = [vigie::sys::poll::PollFd::new(watch.queue.fd(), true, false)];
    let old = d.failover(SERVICE);
    assert_eq!(vigie::sys::poll::wait(&mut fds, Some(Duration::from_secs(10))).expect("poll"), 1, "it is readable");
    let new = d.wait_switched(SERVICE, &old);
    let switch = watch.wait("the switch", SOON, |told| told.is_switch());
    assert_eq!((switch.get("from"), switch.get("to"), switch.token), (&*old.addr(), &*new.addr(), 42));
    assert_eq!((switch.get("service"), switch.get("reason").is_empty()), (SERVICE, false));
    let polls = sentinel.service(SERVICE).discovered();
    eventually("some polls", SOON, || sentinel.service(SERVICE).discovered() > polls + 4);
    assert_eq!(watch.switches().len(), 1);
    let epoch = d.sentinel_nodes()[0].cmd(&["SENTINEL", "MASTER", SERVICE]).field("config-epoch");
    assert_eq!(Some(sentinel.service(SERVICE).load().epoch.to_string()), epoch);
    assert!(watch.all().iter().all(|told| told.kind == kind::TOPOLOGY));
}

/// An alert must not be about a node that was never down.
#[test]
fn late_words_about_the_primary_before_are_no_notice_about_the_one_now() {
    let stage = stage(1, &[]);
    stage.listened();
    let new = stage.r.addr();
    stage.switch_all();
    stage.wait_primary(&new);
    stage.word(0, "-odown");
    stage.watch[0].publish("-sdown", &format!("master {SERVICE} 127.0.0.1 {}", stage.r.port()));
    let told =
        stage.told.wait("a word about the primary now", SOON, |told| told.is(kind::NOTICE, &[("cause", "-sdown")]));
    assert!(told.get("primary") == new && told.get("text").ends_with(&format!(" of {new}")), "{told:?}");
    assert_eq!(stage.told.count(|told| told.is(kind::NOTICE, &[("cause", "-odown")])), 0);
}

/// First the connections end, and then the next ones are refused.
#[test]
fn all_sentinels_that_refuse_the_credentials_are_told_as_such() {
    for monitor in ["on", "disconnect"] {
        let node = Scripted::primary();
        let fakes = Scripted::sentinels(2, SERVICE, &node.addr());
        let admit = |password| {
            let login = Login::password(password);
            fakes.iter().for_each(|one| one.state(|state| state.door.login = Some(login.clone())));
        };
        admit("first");
        let addrs: Vec<String> = fakes.iter().map(|one| one.addr()).collect();
        let options = [("sentinel.password", "first"), ("monitor", monitor), ("monitor.interval", "100")];
        let sentinel = sentinel_at(&addrs, &options);
        let (client, watch) = (to_primary(&sentinel, &[]), Watch::on(&sentinel));
        ok(&client, "SET k v");
        if monitor == "on" {
            fakes.iter().for_each(stage::heard);
        }
        admit("second");
        fakes.iter().for_each(|one| one.close_all());
        let refused = |told: &Told| told.is(kind::DEGRADED, &[("on", "1"), ("cause", "refused")]);
        watch.wait("the refusal", SOON, refused);
        assert_eq!(watch.count(refused), 1);
        admit("first");
        watch.wait("the end of it", SOON, |told| told.is(kind::DEGRADED, &[("on", "0")]));
        ok(&client, "SET k w");
    }
}
