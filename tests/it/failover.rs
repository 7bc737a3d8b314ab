//! A failover by scripted Sentinels: what late, doubled and lost events do to the fence and to the switch.

use crate::calls;
use crate::support;

use calls::SERVICE;
use std::sync::Arc;
use std::time::Duration;
use support::*;
use vigie::time::Deadline;
use vigie::topology::{Sentinel, Service};

const PATIENCE: Duration = Duration::from_secs(5);

struct Scene {
    old: FakeNode,
    new: FakeNode,
    sentinels: Vec<FakeSentinel>,
    /// Held so that the monitor keeps running.
    sentinel: Arc<Sentinel>,
    service: Arc<Service>,
}

/// A primary, a replica and three Sentinels, all scripted, with a subscription to each Sentinel.
fn scene(options: &[(&str, &str)]) -> Scene {
    let old = Scripted::primary();
    let new = Scripted::replica(&old.addr());
    let sentinels = Scripted::sentinels(3, SERVICE, &old.addr());
    for one in &sentinels {
        one.service(SERVICE, |state| state.add_replica(&new.addr()));
    }
    let addrs: Vec<String> = sentinels.iter().map(|one| one.addr()).collect();
    let sentinel = calls::sentinel_at(&addrs, options);
    let service = sentinel.service(SERVICE);
    service.discover(0, Deadline::after(PATIENCE)).expect("found");
    for one in &sentinels {
        one.wait_count("PSUBSCRIBE", 1, PATIENCE);
    }
    Scene { old, new, sentinels, sentinel, service }
}

impl Scene {
    fn primary(&self) -> String {
        self.service.load().primary.as_ref().map(ToString::to_string).unwrap_or_default()
    }
    fn words(&self, addr: &str) -> String {
        addr.replace(':', " ")
    }
    /// An event about the primary, from the first Sentinel.
    fn say(&self, channel: &str) {
        assert_eq!(
            self.sentinels[0].publish(channel, &format!("master {SERVICE} {}", self.words(&self.old.addr()))),
            1
        );
    }
    /// The first Sentinel selects the replica.
    fn select(&self) {
        let (new, old) = (self.new.addr(), self.old.addr());
        let payload = format!("slave {new} {} @ {SERVICE} {}", self.words(&new), self.words(&old));
        assert_eq!(self.sentinels[0].publish("+selected-slave", &payload), 1);
    }
    /// Waits for so many polls while the fence is up.
    fn await_fenced_polls(&self, count: u64) {
        let finished = self.service.discovered();
        eventually("more polls", PATIENCE * 2, || {
            let polls = self.service.discovered() - finished;
            assert!(self.service.is_fenced(), "the fence is down after {polls} polls");
            polls >= count
        });
    }
    fn await_fence(&self, up: bool) {
        eventually(&format!("the fence is up: {up}"), PATIENCE, || self.service.is_fenced() == up);
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.sentinel.close();
    }
}

#[test]
fn a_discovery_that_began_before_a_candidate_was_taken_does_not_turn_it_back() {
    let scene = scene(&[("failover.probe", "eager"), ("monitor.interval", "1000")]);
    for one in &scene.sentinels {
        one.fault("SENTINEL MASTER", Fault::Delay(Duration::from_millis(300)));
    }
    scene.say("+try-failover");
    scene.new.state(|state| state.role = FakeRole::Primary);
    // Starts a discovery that will hear of the old primary, which still says that it is one.
    let asked = scene.sentinels[0].count("SENTINEL MASTER");
    let job = {
        let service = scene.service.clone();
        calls::spawn(move || service.discover(service.discovered(), Deadline::after(PATIENCE)).map(drop))
    };
    scene.sentinels[0].wait_count("SENTINEL MASTER", asked + 1, PATIENCE);
    scene.select();
    eventually("the candidate is taken", PATIENCE, || scene.primary() == scene.new.addr());
    drop(calls::join(&job));
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        assert_eq!(scene.primary(), scene.new.addr(), "turned back after {:?}", began.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_fence_stays_up_while_its_leader_names_a_candidate_that_does_not_answer() {
    let scene = scene(&[("monitor.interval", "200"), ("failover.probe", "off")]);
    scene.say("+try-failover");
    scene.await_fence(true);
    // The leader is committed: it names the candidate, but still describes the old primary.
    let new = scene.new.addr();
    scene.new.down();
    scene.sentinels[0].service(SERVICE, |state| state.switch_to(&new));
    scene.await_fenced_polls(5);
    // It aborts, and announces that.
    let (old, epoch) = (scene.old.addr(), 1);
    scene.sentinels[0].service(SERVICE, |state| {
        state.switch_to(&old);
        state.epoch = epoch;
    });
    scene.say("-failover-abort-slave-timeout");
    scene.await_fence(false);
    assert_eq!(scene.primary(), scene.old.addr());
}

/// The flag disappears when the leader has won; only "master" from the candidate ends the failover (rule 5).
#[test]
fn the_fence_stays_up_while_the_candidate_of_its_leader_says_that_it_is_a_replica() {
    for probe in ["auto", "off"] {
        let scene = scene(&[("monitor.interval", "200"), ("failover.probe", probe)]);
        scene.sentinels[0].service(SERVICE, |state| state.flags = "master,failover_in_progress".into());
        scene.say("+try-failover");
        scene.await_fence(true);
        let (new, old) = (scene.new.addr(), scene.old.addr());
        scene.sentinels[0].service(SERVICE, |state| state.switch_to(&new));
        for described in [Some(old), None] {
            scene.sentinels[0].service(SERVICE, |state| {
                state.described = described;
                state.flags = "master".into();
            });
            scene.await_fenced_polls(4);
        }
        assert_eq!(scene.primary(), scene.old.addr());
        scene.new.state(|state| state.role = FakeRole::Primary);
        eventually("it is followed when it says so", PATIENCE, || scene.primary() == new);
        scene.await_fence(false);
    }
}

#[test]
fn a_late_word_about_the_primary_before_changes_nothing() {
    let scene = scene(&[("monitor.interval", "1000")]);
    let new = scene.new.addr();
    scene.new.state(|state| state.role = FakeRole::Primary);
    for one in &scene.sentinels {
        one.service(SERVICE, |state| state.replicas.clear());
        one.switch_master(SERVICE, &new);
    }
    eventually("the switch", PATIENCE, || scene.primary() == new);
    scene.say("+odown");
    scene.say("+failover-state-reconf-slaves");
    scene.say("+failover-end");
    let finished = scene.service.discovered();
    eventually("two more polls", PATIENCE, || {
        assert!(!scene.service.is_fenced(), "fenced by history");
        scene.service.discovered() >= finished + 2
    });
    assert_eq!(scene.primary(), new);
}

#[test]
fn what_happens_during_a_discovery_is_asked_for_after_it() {
    let scene = scene(&[("monitor.interval", "60000")]);
    scene.sentinels.iter().for_each(|one| one.fault("INFO", Fault::Delay(Duration::from_millis(200))));
    let new = scene.new.addr();
    let slave = format!("slave {new} {} @ {SERVICE} {}", scene.words(&new), scene.words(&scene.old.addr()));
    // The event starts a discovery; while that waits for INFO, the replica is found to be down.
    let asked = scene.sentinels[0].count("INFO");
    scene.sentinels[0].publish("+slave", &slave);
    scene.sentinels.iter().for_each(|one| one.wait_count("INFO", asked.min(1), PATIENCE));
    scene.sentinels[0].wait_count("INFO", asked + 1, PATIENCE);
    for one in &scene.sentinels {
        one.service(SERVICE, |state| state.replicas[0].flags = "s_down,slave".into());
        one.publish("+sdown", &slave);
    }
    eventually("the replica is known to be unfit", PATIENCE, || {
        scene.service.load().replicas.iter().all(|replica| replica.unfit.is_some())
    });
}

#[test]
fn without_a_fence_the_candidate_is_asked_all_the_same() {
    let scene = scene(&[("failover.fence", "off"), ("monitor.interval", "60000")]);
    scene.sentinels[0].service(SERVICE, |state| state.flags = "s_down,o_down,master".into());
    scene.say("+odown");
    scene.say("+try-failover");
    scene.select();
    std::thread::sleep(Duration::from_millis(300));
    scene.old.down();
    scene.new.state(|state| state.role = FakeRole::Primary);
    eventually("the candidate is taken", Duration::from_millis(500), || scene.primary() == scene.new.addr());
}

#[test]
fn a_read_that_the_switch_ends_is_sent_to_the_new_primary_at_once() {
    let scene = scene(&[("failover.probe", "eager"), ("timeout.sentinel", "3000")]);
    let client = calls::to_primary(&scene.sentinel, &[]);
    calls::ok(&client, "PING");
    scene.old.fault("GET", Fault::Stall);
    let job = calls::spawn(move || calls::cmd(&client, "GET k").map(drop));
    scene.old.wait_count("GET", 1, PATIENCE);
    // From now on a discovery takes long.
    scene.sentinels.iter().for_each(|one| one.fault("SENTINEL", Fault::Stall));
    scene.new.state(|state| state.role = FakeRole::Primary);
    scene.select();
    eventually("the candidate is taken", PATIENCE, || scene.primary() == scene.new.addr());
    let outcome = takes_at_most("the read, after the switch,", Duration::from_millis(1000), || calls::join(&job));
    outcome.expect("a read is repeated");
}

/// Silent Sentinels do not delay a write while the known primary serves, whatever happens to its connections (rule 34).
#[test]
fn a_write_finds_its_way_while_the_sentinels_are_stopped_and_connections_are_killed() {
    let scene = scene(&[("monitor.interval", "60000")]);
    let client = calls::to_primary(&scene.sentinel, &[]);
    calls::ok(&client, "SET k v");
    scene.sentinels.iter().for_each(|one| one.fault("*", Fault::Stall));
    for _ in 0..3 {
        let accepted = scene.old.accepted();
        scene.old.close_all();
        let closed = || scene.old.connections() == 0;
        eventually("its connections are closed", PATIENCE, closed);
        // No Sentinel answers a question for a second, and none is asked.
        takes_at_most("the write", Duration::from_millis(300), || drop(calls::ok(&client, "SET k v")));
        assert!(scene.old.accepted() > accepted, "on a connection made anew");
    }
    // A write in flight when its connection ends waits for at most one discovery, and for none once the Sentinels are
    // known to be silent.
    let flags = vigie::client::CallFlags::IDEMPOTENT;
    for (known, most) in [(false, 2500), (true, 300)] {
        eventually("they are silent", PATIENCE, || !known || scene.sentinel.is_degraded());
        scene.old.fault_times("INCR", 1, Fault::Close);
        let outcome = takes_at_most(&format!("known to be silent: {known}"), Duration::from_millis(most), || {
            calls::call(&client, "INCR n", flags, vigie::client::Timeout::Default)
        });
        outcome.expect("it is repeated");
    }
}

/// The error names the primary that does not answer, not the Sentinels that are gone as well (rule 34).
#[test]
fn a_primary_that_stalls_while_the_sentinels_are_dead_is_a_timeout() {
    use vigie::error::{Status, flags};
    let scene = scene(&[("monitor.interval", "60000")]);
    let client = calls::to_primary(&scene.sentinel, &[]);
    calls::ok(&client, "SET k v");
    scene.sentinels.iter().for_each(|one| one.down());
    eventually("all are gone", PATIENCE, || scene.sentinel.is_degraded());
    for line in ["SET k w", "GET k"] {
        // On an open connection, and on one that is accepted and not served.
        let fresh = calls::to_primary(&scene.sentinel, &[]);
        for (client, stands) in [(&client, true), (&fresh, false)] {
            scene.old.fault("*", Fault::Stall);
            let error = calls::fails(Status::Timeout, calls::within(client, line, 400));
            assert!(line == "GET k" || error.has(flags::MAYBE_EXECUTED) == stands, "{line}, {stands}: {error}");
            scene.old.clear_faults();
            calls::ok(client, line);
        }
    }
}
