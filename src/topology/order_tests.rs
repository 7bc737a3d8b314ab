//! The orders of ARCHITECTURE.md ("Order matters"), each examined between its two steps.
//!
//! A hook at a seam (sys/seam.rs) stops the thread between two steps, and does there what others could do at that
//! moment.

#[path = "../../tests/support/calls.rs"]
pub(super) mod calls;
#[path = "../../tests/support/completions.rs"]
mod completions;
#[path = "../../tests/support/stage.rs"]
pub(super) mod stage;
#[path = "../../tests/support/mod.rs"]
pub(super) mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::client::{CallFlags, Client, Timeout};
use crate::config::Endpoint;
use crate::error::{Result, Status, flags};
use crate::resp::Reply;
use crate::sys::seam::{self, Seam};
use calls::*;
use stage::{SOON, Stage, at, stage};
use support::*;

/// A fence that is up, with all subscriptions established.
fn fenced(options: &[(&str, &str)]) -> (Arc<Stage>, Arc<Client>) {
    let stage = Arc::new(stage(3, options));
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "SET k before");
    stage.listened();
    stage.quiet();
    stage.begin(0);
    stage.told.wait_fence(true, "+try-failover");
    (stage, client)
}

/// Both ways of a switch: the Sentinels agree, or the candidate is taken at its word.
fn switch(stage: &Stage, probe: &str) {
    match probe {
        "eager" => {
            stage.select(0);
            stage.promote();
        }
        _ => stage.switch_all(),
    }
    stage.told.wait_fence(false, "switched");
}

/// What other threads see at a seam.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sight {
    seam: Seam,
    is_new: bool,
    is_fenced: bool,
    /// The version matches the snapshot.
    is_versioned: bool,
}

#[test]
fn the_snapshot_is_there_before_its_version_and_the_doubts_and_all_of_them_before_the_fence_comes_down() {
    for probe in ["off", "eager"] {
        let (stage, _client) = fenced(&[("failover.probe", probe)]);
        let (service, new) = (stage.service(), stage.r.addr());
        let sights: Arc<Mutex<Vec<Sight>>> = Arc::default();
        let hooks = [Seam::SnapshotStored, Seam::FailoverSeqRaised, Seam::FenceMoved].map(|seam| {
            let (seen, of, new) = (Arc::clone(&sights), Arc::clone(&service), new.clone());
            seam::on(seam, &*service, move || {
                let snapshot = of.snapshot();
                let is_new = snapshot.primary.as_ref().is_some_and(|primary| primary.to_string() == new);
                let (is_fenced, is_versioned) = (of.is_fenced(), of.version() == snapshot.version);
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(Sight {
                    seam,
                    is_new,
                    is_fenced,
                    is_versioned,
                });
            })
        });
        switch(&stage, probe);
        drop(hooks);
        let sights = sights.lock().unwrap_or_else(PoisonError::into_inner);
        // What belongs to the switch: discoveries before it find the old primary, those after it the new one.
        let is_of_it = |sight: &&Sight| sight.is_new || !sight.is_fenced || sight.seam == Seam::FailoverSeqRaised;
        let moves = |sight: &&Sight| sight.seam != Seam::FenceMoved || !sight.is_fenced;
        let sights: Vec<&Sight> = sights.iter().filter(is_of_it).filter(moves).collect();
        let sight = |seam, is_new, is_fenced, is_versioned| Sight { seam, is_new, is_fenced, is_versioned };
        let wanted = [
            // The candidate has spoken, and is not taken yet.
            sight(Seam::FailoverSeqRaised, false, true, true),
            sight(Seam::SnapshotStored, true, true, false),
            sight(Seam::FailoverSeqRaised, true, true, true),
            sight(Seam::FenceMoved, true, false, true),
        ];
        let wanted: Vec<&Sight> = wanted.iter().skip(usize::from(probe == "off")).collect();
        assert_eq!(sights[..wanted.len().min(sights.len())], wanted, "{probe}");
    }
}

#[test]
fn a_write_that_begins_the_moment_the_fence_is_down_goes_to_the_new_primary() {
    for probe in ["off", "eager"] {
        let (stage, client) = fenced(&[("failover.probe", probe)]);
        let service = stage.service();
        let written: Arc<Mutex<Option<Result<Reply>>>> = Arc::default();
        let hook = {
            let (of, written) = (Arc::clone(&service), Arc::clone(&written));
            seam::on(Seam::FenceMoved, &*service, move || {
                let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
                if of.is_fenced() || written.is_some() {
                    return;
                }
                let call = Arc::clone(&client);
                *written = spawn(move || cmd(&call, "SET k now")).recv_timeout(SOON).ok();
            })
        };
        switch(&stage, probe);
        drop(hook);
        let outcome = written.lock().unwrap_or_else(PoisonError::into_inner).take().expect("nothing holds it back");
        outcome.expect("it is written");
        assert_eq!((stage.p.count("SET k now"), stage.r.count("SET k now")), (0, 1), "{probe}");
    }
}

/// Clients of submitted calls are told when all of it is visible, and not under the lock, which they take.
#[test]
fn a_change_is_told_when_the_fence_is_down_and_the_lock_is_let_go() {
    for probe in ["off", "eager"] {
        let (stage, _client) = fenced(&[("failover.probe", probe)]);
        let (service, new) = (stage.service(), stage.r.addr());
        let (told, early, locked) =
            (Arc::new(AtomicBool::new(false)), Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let hook = {
            let (of, told, early, locked) =
                (Arc::clone(&service), Arc::clone(&told), Arc::clone(&early), Arc::clone(&locked));
            seam::on(Seam::ChangeTold, &*service.shared, move || {
                let is_down = !of.is_fenced();
                let is_new = at(&of) == new;
                early.fetch_or(is_down && !is_new, Ordering::Relaxed);
                let waker = Arc::clone(&of);
                locked.fetch_or(spawn(move || waker.wake()).recv_timeout(SOON).is_err(), Ordering::Relaxed);
                told.fetch_or(is_new, Ordering::Relaxed);
            })
        };
        switch(&stage, probe);
        eventually("the change is told", SOON, || told.load(Ordering::Relaxed));
        drop(hook);
        assert_eq!((early.load(Ordering::Relaxed), locked.load(Ordering::Relaxed)), (false, false), "{probe}");
    }
}

/// A call that reads the raised number finds the fence up, even if it was down because the leader was gone.
#[test]
fn the_fence_is_up_again_when_the_candidate_is_doubted() {
    let stage = Arc::new(stage(3, &[("failover.probe", "off")]));
    stage.listened();
    stage.begin(0);
    stage.select(0);
    stage.told.wait_word("+selected-slave");
    let leader = &stage.watch[0];
    leader.down();
    for one in &stage.watch {
        one.service(SERVICE, |state| {
            let peers = state.peers.iter_mut().filter(|peer| peer.port == leader.port());
            peers.for_each(|peer| peer.flags = "sentinel,s_down".into());
        });
    }
    stage.told.wait_fence(false, "is gone");
    let (service, open) = (stage.service(), Arc::<AtomicBool>::default());
    let hook = {
        let (of, open) = (Arc::clone(&service), Arc::clone(&open));
        seam::on(Seam::FailoverSeqRaised, &*service, move || open.store(!of.is_fenced(), Ordering::Relaxed))
    };
    let failover_seq = service.failover_seq();
    stage.promote();
    eventually("the candidate has spoken", SOON, || service.failover_seq() != failover_seq);
    drop(hook);
    assert!(!open.load(Ordering::Relaxed), "a write could have passed, and been told as a success");
}

/// A word and a switch at the same time: if a word is about the primary when it is judged, it still is when it is acted
/// on.
#[test]
fn a_word_is_judged_and_acted_on_in_one_moment() {
    for word in ["+try-failover", "+odown", "+sdown"] {
        let stage = Arc::new(stage(2, &[("failover.probe", "eager")]));
        stage.listened();
        stage.quiet();
        let service = stage.service();
        stage.promote();
        let candidate: Endpoint = Endpoint::tcp("127.0.0.1", stage.r.port()).expect("an address");
        let others: Arc<Mutex<Vec<_>>> = Arc::default();
        let judged = Arc::new(AtomicBool::new(false));
        let hook = {
            let (of, others, done) = (Arc::clone(&service), Arc::clone(&others), Arc::clone(&judged));
            seam::on(Seam::WordJudged, &*service, move || {
                if done.swap(true, Ordering::Relaxed) {
                    return;
                }
                let (switcher, candidate) = (Arc::clone(&of), candidate.clone());
                let switched = spawn(move || switcher.candidate_is_primary(&candidate));
                // With the lock held the switch comes after the effect of the word, without it before.
                match of.is_locked() {
                    true => others.lock().unwrap_or_else(PoisonError::into_inner).push(switched),
                    false => join(&switched),
                }
            })
        };
        stage.word(0, word);
        // It is reported only if the primary is still the one that it is about.
        eventually("the word is judged", SOON, || judged.load(Ordering::Relaxed));
        drop(hook);
        others.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|switched| join(&switched));
        stage.wait_primary(&stage.r.addr());
        // Once a later event has been handled, the effect of this one has come.
        stage.word_of_replica(0, "+slave");
        stage.told.wait_word("+slave");
        assert!(!service.is_fenced() && !service.holds_for_down(), "{word}: of a primary that is none any more");
    }
}

/// The ways of a write, each on an open connection.
type Way = (&'static str, fn(&Arc<Client>, &Arc<Client>) -> Result<Reply>);

const WAYS: [Way; 5] = [
    ("call", |client, _| cmd(client, "SET k late")),
    ("list", |client, _| run(client, &["SET k late", "GET k"])),
    ("session", |_, session| cmd(session, "SET k late")),
    ("submit", |client, _| {
        let queue = completions::queue(10);
        client.cmds_submit(&list(&["SET k late"]), CallFlags::default(), Timeout::Default, &queue, 1)?;
        completions::one(&queue).1
    }),
    ("durable", |client, _| call(client, "SET k late", 0, Timeout::Default)),
];

/// A write that had passed the fence when a failover began, and is answered by the old primary after the candidate has
/// said that it is one: whatever the write had checked before, it is no success.
#[test]
fn a_failover_between_any_two_looks_of_a_write_makes_its_answer_doubtful() {
    for seam in [Seam::FailoverSeqRead, Seam::GatePassed] {
        for way in WAYS {
            assert!(fails_over_at(seam, 0, way), "{} passes {seam:?}", way.0);
            // A session checks again when it has its turn.
            let again = fails_over_at(seam, 1, way);
            assert!(again || way.0 != "session");
        }
    }
}

/// One such write, with the failover when it passes the seam for the nth time; false: it does not pass it so often.
fn fails_over_at(seam: Seam, time: usize, (name, write): Way) -> bool {
    let stage = Arc::new(stage(2, &[("failover.probe", "off"), ("timeout.call", "1000")]));
    let durable: &[(&str, &str)] = if name == "durable" { &[("write.replicas", "1")] } else { &[] };
    let client = to_primary(&stage.sentinel, durable);
    let session = client.session(None).expect("a session");
    stage.p.fault("WAIT", Fault::Reply(Value::Int(1)));
    for _ in 0..2 {
        write(&client, &session).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    stage.listened();
    stage.p.clear_log();
    let (service, passed) = (stage.service(), Arc::new(AtomicUsize::new(0)));
    let hook = {
        let (stage, passed) = (Arc::clone(&stage), Arc::clone(&passed));
        seam::on(seam, &*service, move || {
            if passed.fetch_add(1, Ordering::Relaxed) == time {
                fail_over(&stage);
            }
        })
    };
    let outcome = write(&client, &session);
    drop(hook);
    if passed.load(Ordering::Relaxed) <= time {
        return false;
    }
    let Err(error) = outcome else { panic!("{name}, {seam:?} {time}: a success that will be lost") };
    let sent = stage.p.count("SET") > 0;
    let is_told = error.has(flags::MAYBE_EXECUTED) && error.has(flags::FAILOVER);
    assert!(is_told || (!sent && error.status() == Status::Fenced), "{name}, {seam:?} {time}, sent {sent}: {error}");
    true
}

/// A failover up to the word of the candidate, which is not taken at it.
fn fail_over(stage: &Stage) {
    let service = stage.service();
    let failover_seq = service.failover_seq();
    stage.begin(0);
    eventually("the fence is up", SOON, || service.is_fenced());
    stage.select(0);
    stage.promote();
    eventually("the candidate has said that it is a primary", SOON, || service.failover_seq() != failover_seq);
}

/// The seam of one object does not concern another, nor anything after the hook is gone.
#[test]
fn hooks_are_for_one_object_and_end_with_their_guard() {
    let (one, other, count) = (1, 1, Arc::new(Mutex::new(0)));
    let hook = seam::on(Seam::GatePassed, &one, {
        let count = Arc::clone(&count);
        move || *count.lock().unwrap_or_else(PoisonError::into_inner) += 1
    });
    seam::pass(Seam::GatePassed, &one);
    seam::pass(Seam::GatePassed, &other);
    seam::pass(Seam::FailoverSeqRead, &one);
    drop(hook);
    seam::pass(Seam::GatePassed, &one);
    assert_eq!(*count.lock().unwrap_or_else(PoisonError::into_inner), 1);
}
