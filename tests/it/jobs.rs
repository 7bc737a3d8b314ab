//! Lists of jobs, at least once: what is done is gone, what is not done comes again with a mark, and nothing is lost with workers,
//! answers or primaries.

use crate::calls;
use crate::completions;
use crate::installed;
use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use calls::*;
use installed::{Prefix, fresh_dir, root};
use support::*;
use vigie::client::{Client, Timeout};
use vigie::error::{Result, Status};
use vigie::jobs::{self, Job, Jobs};
use vigie::queue::Queue;
use vigie::resp::Reply;
use vigie::time::Deadline;

const SOON: Duration = Duration::from_secs(30);
const NOW: Timeout = Timeout::DontWait;

fn worker(client: &Arc<Client>, name: &str, worker: &str, lease_ms: u64) -> Jobs {
    Jobs::new(client, name, Some(worker), Timeout::Ms(lease_ms)).expect("a worker")
}

fn push(client: &Client, name: &str, payload: &str) {
    jobs::push(client, name, None, payload.as_bytes(), Timeout::Default).expect("pushed");
}

/// A short take that finds nothing. On a machine that stalls it may have no answer in its time.
#[track_caller]
fn takes_none(jobs: &Jobs, ms: u64) {
    let passes =
        |outcome: &Result<Option<Job>>| !outcome.as_ref().is_err_and(|error| error.status() == Status::Timeout);
    let outcome = (0..20).map(|_| jobs.take(Timeout::Ms(ms))).find(passes).expect("it ends in time at last");
    assert_eq!(outcome.expect("a take"), None);
}

#[track_caller]
fn taken(jobs: &Jobs) -> Job {
    jobs.take(Timeout::Ms(SOON.as_millis() as u64)).expect("a take").expect("a job")
}

fn nothing(jobs: &Jobs) {
    assert_eq!(jobs.take(NOW).expect("a take"), None);
}

#[track_caller]
fn done(jobs: &Jobs, job: &Job) {
    jobs.ack(job.id(), Timeout::Default).expect("acknowledged");
}

fn payload(job: &Job) -> String {
    String::from_utf8_lossy(job.payload()).into_owned()
}

/// Jobs taken, those of them with a mark, acknowledged, handed back; and leases lost.
fn counted(client: &Client) -> [i64; 5] {
    ["jobs_taken", "jobs_marked", "jobs_acknowledged", "jobs_handed_back", "leases_lost"]
        .map(|key| counter(client, key))
}

/// Payload and mark.
fn shown(job: &Job) -> (String, u32) {
    (payload(job), job.redelivered())
}

#[test]
fn what_is_handed_back_to_too_few_replicas_is_told_and_stands() {
    let d = Deployment::new("jobs-few").replicas(1).sentinels(1).quorum(1).start();
    let sentinel = sentinel_of(&d, &[]);
    let (client, replica) = (to_primary(&sentinel, &[("write.replicas", "1")]), d.replica_nodes(SERVICE).remove(0));
    let few = |outcome: Result<()>| {
        let error = fails(Status::Replicas, outcome);
        assert_eq!(error.count(), 0, "{error}");
    };
    ["a", "b"].iter().for_each(|payload| push(&client, "q", payload));
    let one = worker(&client, "q", "one", 60_000);
    let (first, second) = (taken(&one), taken(&one));
    replica.stop();
    let lists = ["q", "{q}:processing:one"];
    let lengths = || lists.map(|key| d.primary_node(SERVICE).cmd(&["LLEN", key]).int());
    few(one.give_back(first.id(), Timeout::Ms(400)));
    assert_eq!(lengths(), [Some(1), Some(1)], "moved once");
    fails(Status::InvalidState, one.give_back(first.id(), Timeout::Ms(400)));
    few(one.close(Timeout::Ms(400)));
    assert_eq!((lengths(), counted(&client)[3]), ([Some(2), Some(0)], 2));
    fails(Status::InvalidState, one.ack(second.id(), Timeout::Ms(400)));
    replica.cont();
    eventually("the replica is there again", SOON, || client_takes(&client, "two"));
}

/// Whether a worker of this name gets a job, and acknowledges it.
fn client_takes(client: &Arc<Client>, name: &str) -> bool {
    let own = worker(client, "q", name, 60_000);
    let job = own.take(Timeout::Ms(1000)).ok().flatten();
    job.is_some_and(|job| own.ack(job.id(), Timeout::Ms(1000)).is_ok())
}

#[test]
fn row_101_what_is_done_is_gone_and_what_is_not_done_comes_again_with_a_mark() {
    let d = single("jobs-101");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let node = d.primary_node(SERVICE);
    let first = worker(&client, "q", "one", 60_000);
    nothing(&first);
    ["a", "b", "c"].iter().for_each(|payload| push(&client, "q", payload));
    let a = taken(&first);
    assert_eq!((shown(&a), a.id().len()), (("a".into(), 0), 32), "in the order in which they were pushed");
    done(&first, &a);
    let again = fails(Status::InvalidState, first.ack(a.id(), Timeout::Default));
    assert!(again.message().contains("not in this worker's hand"), "{again}");
    let (b, c) = (taken(&first), taken(&first));
    nothing(&first);

    // Given back: behind the others, and marked.
    push(&client, "q", "d");
    first.give_back(b.id(), Timeout::Default).expect("given back");
    let (d_job, b_again) = (taken(&first), taken(&first));
    assert_eq!((shown(&d_job), shown(&b_again), b_again.id()), (("d".into(), 0), ("b".into(), 1), b.id()));
    done(&first, &d_job);
    assert_eq!(counted(&client), [5, 1, 2, 1, 0]);

    // One that starts again under its name has its own list at once, and the one before has not.
    drop(first);
    let second = worker(&client, "q", "one", 60_000);
    let (x, y) = (taken(&second), taken(&second));
    assert_eq!([shown(&x), shown(&y)], [("c".into(), 1), ("b".into(), 2)], "the oldest first");
    assert_eq!(x.id(), c.id());
    done(&second, &x);
    done(&second, &y);
    nothing(&second);
    second.close(Timeout::Default).expect("closed");
    fails(Status::Cancelled, second.take(NOW));
    // The first one was not closed: a move of it may be on its way, so its name is kept for a while.
    let left = || node.cmd(&["KEYS", "*"]).items().iter().map(Value::text).collect::<BTreeSet<String>>();
    assert_eq!(left(), BTreeSet::from(["{q}:gone".to_owned(), "{q}:gone:one".to_owned()]));
    assert!(node.cmd(&["PTTL", "{q}:gone:one"]).int().is_some_and(|ms| ms > 0));
    node.cmd(&["DEL", "{q}:gone", "{q}:gone:one"]);
    let third = worker(&client, "q", "three", 60_000);
    push(&client, "q", "e");
    assert_eq!(shown(&taken(&third)), ("e".into(), 0));
    third.close(Timeout::Default).expect("closed");
    assert_eq!(left(), BTreeSet::from(["q".to_owned()]), "nothing but the job is left behind");
    assert_eq!(node.calls("eval") + node.calls("evalsha"), 0, "no scripts");
}

#[test]
fn equal_payloads_of_others_are_all_done_once_each() {
    let d = single("jobs-equal");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let jobs = worker(&client, "q", "one", 60_000);
    ok(&client, "LPUSH q same same same vigie1:twice:0:x vigie1:twice:0:x");
    let all: Vec<Job> = (0..5).map(|_| taken(&jobs)).collect();
    let ids: BTreeSet<&str> = all.iter().map(Job::id).collect();
    assert_eq!(all.iter().filter(|job| payload(job) == "same" && job.redelivered() == 0).count(), 3);
    assert_eq!(ids.len(), 4, "each plain payload has an id of its own");
    assert_eq!(all.iter().map(Job::redelivered).collect::<Vec<_>>(), [0, 0, 0, 0, 1], "pushed twice: marked");
    for (n, job) in all.iter().enumerate() {
        done(&jobs, job);
        assert_eq!(number(&client, "LLEN {q}:processing:one"), 4 - n as i64);
    }
}

#[test]
fn a_worker_whose_lease_is_over_loses_its_jobs_to_others_and_is_told() {
    let d = single("jobs-lease");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let (dies, lives) = (worker(&client, "q", "dies", 1500), worker(&client, "q", "lives", 1500));
    ["a", "b"].iter().for_each(|payload| push(&client, "q", payload));
    ok(&client, "LPUSH q plain");
    let (a, _b, plain) = (taken(&dies), taken(&dies), taken(&dies));
    // While its lease lives nobody else gets its jobs; a renewal lasts as long as the lease.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2000) {
        dies.renew(Timeout::Default).expect("it lives");
        takes_none(&lives, 100);
    }
    let got: Vec<_> = (0..3).map(|_| taken(&lives)).collect();
    assert_eq!(got.iter().map(shown).collect::<Vec<_>>(), [("a".into(), 1), ("b".into(), 1), ("plain".into(), 1)]);
    let lost = fails(Status::InvalidState, dies.ack(a.id(), Timeout::Default));
    assert!(lost.message().contains("lease was over"), "{lost}");
    fails(Status::InvalidState, dies.give_back(plain.id(), Timeout::Default));
    fails(Status::InvalidState, dies.renew(Timeout::Default));
    // It goes on, with nothing in hand.
    push(&client, "q", "c");
    let c = taken(&dies);
    assert_eq!(shown(&c), ("c".into(), 0));
    done(&dies, &c);
    got.iter().for_each(|job| done(&lives, job));
    assert_eq!(number(&client, "LLEN q"), 0);
    assert_eq!(counted(&client), [7, 3, 4, 3, 1]);

    // Another process with the same name takes over, and the one before is told.
    let other = worker(&client, "q", "dies", 60_000);
    nothing(&other);
    push(&client, "q", "d");
    let error = fails(Status::InvalidState, dies.take(Timeout::Default));
    assert!(error.message().contains("used by another handle or process"), "{error}");
}

#[test]
fn a_stop_ends_a_take_at_once_and_an_empty_list_costs_no_busy_loop() {
    let d = single("jobs-stop");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let node = d.primary_node(SERVICE);
    let jobs = Arc::new(worker(&client, "q", "one", 60_000));
    nothing(&jobs);
    let before = node.calls("blmove");
    takes_none(&jobs, 400);
    assert!(node.calls("blmove") - before <= 3, "it waits in the server");
    let taking = {
        let jobs = Arc::clone(&jobs);
        spawn(move || jobs.take(Timeout::Unlimited))
    };
    eventually("it waits", SOON, || node.info("clients")["blocked_clients"] == "1");
    fails(Status::InvalidState, jobs.take(NOW));
    jobs.stop();
    fails(Status::Cancelled, join(&taking));
    fails(Status::Cancelled, jobs.take(Timeout::Default));
    push(&client, "q", "a");
    assert_eq!(number(&client, "LLEN q"), 1, "nobody takes it any more");

    // While the primary is away a take waits, and a stop ends it.
    let away = Arc::new(worker(&client, "q", "two", 60_000));
    node.kill();
    let taking = {
        let away = Arc::clone(&away);
        spawn(move || away.take(Timeout::Unlimited))
    };
    assert!(taking.recv_timeout(Duration::from_millis(500)).is_err(), "it waits for a primary");
    away.stop();
    fails(Status::Cancelled, join(&taking));
}

/// A worker that a proxy stands in front of.
struct Proxied {
    d: Deployment,
    proxy: Proxy,
    client: Arc<Client>,
    watch: FakeSentinel,
}

fn proxied(name: &str) -> Proxied {
    let d = Deployment::new(name).replicas(0).sentinels(0).start();
    let proxy = Proxy::start(&d.node("mymaster-0").addr());
    let watch = told(&proxy.addr(), &[]);
    let client = to_primary(&handle(&watch, &[]), &[]);
    Proxied { d, proxy, client, watch }
}

#[test]
fn lost_answers_lose_no_job_and_do_none_twice() {
    let stage = proxied("jobs-doubt");
    let (client, node) = (&stage.client, stage.d.node("mymaster-0"));
    let jobs = worker(client, "q", "one", 60_000);
    nothing(&jobs);
    let pushed = |payload: &str| node.cmd(&["LPUSH", "q", payload]);

    // A take whose answer is lost: the lists are compared, and what stands there is handed out with a mark.
    for (command, payload) in [("BLMOVE", "vigie1:a:0:a"), ("LINSERT", "plain"), ("LINDEX", "vigie1:b:0:b")] {
        pushed(payload);
        stage.proxy.trap(command, Trap::LoseReply);
        let job = taken(&jobs);
        assert_eq!((job.redelivered(), stage.proxy.traps_left()), (1, 0), "{command}");
        done(&jobs, &job);
        assert_eq!(node.cmd(&["LLEN", "{q}:processing:one"]).int(), Some(0), "{command}");
    }

    // The same on an event loop, also for an acknowledgement and for one that is given back.
    let queue = completions::queue(1);
    let ends = || next_of(&queue).1.expect("an outcome");
    for command in ["BLMOVE", "LINDEX", "LREM", "LPUSH"] {
        pushed("vigie1:e:0:e");
        stage.proxy.trap(command, Trap::LoseReply);
        jobs.take_submit(Timeout::Ms(SOON.as_millis() as u64), &queue, TAKE).expect("submitted");
        let (id, _, mark) = arrived(&ends().expect("a job"));
        assert_eq!(mark, u32::from(command.starts_with(['B'])) + u32::from(command == "LINDEX"), "{command}");
        match command {
            "LPUSH" => jobs.give_back_submit(&id, Timeout::Default, &queue, ACK).expect("submitted"),
            _ => jobs.ack_submit(&id, Timeout::Default, &queue, ACK).expect("submitted"),
        }
        assert!(ends().is_none());
        let left = ["q", "{q}:processing:one"].map(|key| node.cmd(&["LLEN", key]).int());
        assert_eq!(left, [Some(i64::from(command == "LPUSH")), Some(0)], "{command}");
        assert_eq!(stage.proxy.traps_left(), 0, "{command}");
    }
    done(&jobs, &taken(&jobs));

    // An acknowledgement whose answer is lost is looked up: it was executed, so it is not sent again.
    for (trap, times) in [(Trap::LoseReply, 1), (Trap::CloseBefore, 1)] {
        pushed("vigie1:c:0:c");
        let job = taken(&jobs);
        let before = node.calls("lrem");
        stage.proxy.trap("LREM", trap);
        done(&jobs, &job);
        assert_eq!((node.calls("lrem") - before, stage.proxy.traps_left()), (times, 0), "{trap:?}");
        assert_eq!(node.cmd(&["LLEN", "{q}:processing:one"]).int(), Some(0), "{trap:?}");
    }

    // The same for one that is given back: it is in the list once.
    for trap in [Trap::LoseReply, Trap::CloseBefore] {
        pushed("vigie1:d:0:d");
        let job = taken(&jobs);
        stage.proxy.trap("LPUSH", trap);
        jobs.give_back(job.id(), Timeout::Default).expect("given back");
        assert_eq!((node.cmd(&["LRANGE", "q", "0", "-1"]).items().len(), stage.proxy.traps_left()), (1, 0), "{trap:?}");
        let job = taken(&jobs);
        assert_eq!(shown(&job), ("d".into(), 1));
        done(&jobs, &job);
    }
    nothing(&jobs);
}

/// The next job, by takes that are short beside the lease.
#[track_caller]
fn taken_in_short_takes(jobs: &Jobs) -> Job {
    let began = Instant::now();
    loop {
        if let Some(job) = jobs.take(Timeout::Ms(200)).expect("a take") {
            return job;
        }
        assert!(began.elapsed() < SOON, "no job comes");
    }
}

#[test]
fn short_takes_hand_back_what_dead_workers_have_and_what_arrives_for_them_later() {
    let stage = proxied("jobs-late");
    let (client, node) = (&stage.client, stage.d.node("mymaster-0"));
    let is_in = |set: &str, worker: &str| node.cmd(&["SISMEMBER", set, worker]).int() == Some(1);
    let arrives_late = |worker: &str| {
        node.cmd(&["LPUSH", "{q}:late", "vigie1:late:0:late"]);
        node.cmd(&["RPOPLPUSH", "{q}:late", &format!("{{q}}:processing:{worker}")]);
    };
    let (dies, lives) = (worker(client, "q", "dies", 2000), worker(client, "q", "lives", 1200));
    push(client, "q", "a");
    taken(&dies);
    drop(dies);
    let job = taken_in_short_takes(&lives);
    assert_eq!(shown(&job), ("a".into(), 1));
    done(&lives, &job);

    // A move of the dead worker that was under way all the time.
    assert!(is_in("{q}:gone", "dies") && !is_in("{q}:workers", "dies"));
    arrives_late("dies");
    let job = taken_in_short_takes(&lives);
    assert_eq!(shown(&job), ("late".into(), 1));
    done(&lives, &job);
    assert!(is_in("{q}:gone", "dies"), "another one may come");
    node.cmd(&["DEL", "{q}:gone:dies"]);
    eventually("its name is forgotten when its time is over", SOON, || {
        takes_none(&lives, 200);
        !is_in("{q}:gone", "dies")
    });

    // One that closes, and does not know what became of its last move.
    let shuts = worker(client, "q", "shuts", 60_000);
    nothing(&shuts);
    stage.proxy.trap("LMOVE", Trap::LoseReply);
    shuts.take(NOW).expect_err("the answer is lost");
    shuts.close(Timeout::Default).expect("closed");
    assert!(is_in("{q}:gone", "shuts") && !is_in("{q}:workers", "shuts"));
    arrives_late("shuts");
    let job = taken_in_short_takes(&lives);
    assert_eq!(shown(&job), ("late".into(), 1));
    done(&lives, &job);
    lives.close(Timeout::Default).expect("closed");
    assert!(!is_in("{q}:gone", "lives") && !is_in("{q}:workers", "lives"), "all its moves were answered");
}

#[test]
fn a_take_ends_though_no_job_is_ever_confirmed_and_a_stop_ends_one_that_hands_back() {
    let stage = proxied("jobs-ends");
    let node = stage.d.node("mymaster-0");
    let client = to_primary(&handle(&stage.watch, &[]), &[("timeout.call", "100s")]);
    let jobs = worker(&client, "q", "one", 60_000);
    nothing(&jobs);
    push(&client, "q", "a");
    // Each answer comes so late that another one has taken the job back.
    stage.proxy.delay(Way::Down, Duration::from_millis(30));
    let over = Arc::new(AtomicBool::new(false));
    let thief = {
        let (over, mut server) = (Arc::clone(&over), node.connect().expect("it listens"));
        spawn(move || {
            while !over.load(Ordering::Acquire) {
                server.cmd(&["RPOPLPUSH", "{q}:processing:one", "q"]).expect("it answers");
            }
        })
    };
    let taking = spawn(move || {
        loop {
            match jobs.take(Timeout::Ms(300)) {
                Ok(None) | Err(_) => return jobs,
                // The thief was not fast enough.
                Ok(Some(_)) => {}
            }
        }
    });
    drop(join(&taking));
    over.store(true, Ordering::Release);
    join(&thief);
    stage.proxy.clear();

    let dies = worker(&client, "p", "dies", 100);
    push(&client, "p", "b");
    taken(&dies);
    eventually("its lease ends", SOON, || node.cmd(&["EXISTS", "{p}:lease:dies"]).int() == Some(0));
    stage.proxy.drop_chunks(Way::Up, "WATCH");
    let lives = Arc::new(worker(&client, "p", "lives", 60_000));
    let before = node.calls("exists");
    let taking = {
        let lives = Arc::clone(&lives);
        spawn(move || lives.take(Timeout::Unlimited))
    };
    eventually("it has looked", SOON, || node.calls("exists") > before);
    assert!(taking.recv_timeout(Duration::from_millis(200)).is_err(), "it hands back");
    lives.stop();
    fails(Status::Cancelled, join(&taking));
}

#[test]
fn a_server_without_the_new_commands_serves_as_well() {
    let d = Deployment::new("jobs-old").replicas(0).sentinels(1).quorum(1);
    let d =
        d.conf("rename-command BLMOVE \"\"").conf("rename-command LMOVE \"\"").conf("rename-command EVAL \"\"").start();
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let jobs = worker(&client, "q", "one", 60_000);
    nothing(&jobs);
    push(&client, "q", "a");
    let job = jobs.take(NOW).expect("a take").expect("a job");
    done(&jobs, &job);
    push(&client, "q", "b");
    done(&jobs, &taken(&jobs));
    let node = d.primary_node(SERVICE);
    assert!(node.calls("rpoplpush") >= 2 && node.calls("brpoplpush") >= 1);
}

#[test]
fn what_is_wrong_is_told_and_not_tried_again() {
    let d = single("jobs-wrong");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    ok(&client, "SET text x");
    let error = fails(Status::Server, worker(&client, "text", "one", 60_000).take(Timeout::Unlimited));
    assert!(error.message().contains("'text'") && error.message().contains("WRONGTYPE"), "{error}");
    let session = client.session(None).expect("a session");
    let refused = fails(Status::InvalidState, Jobs::new(&session, "q", None, Timeout::Default).map(|_| ()));
    assert!(refused.message().contains("a worker of 'q'") && refused.message().contains("is a session"), "{refused}");
    let reads = calls::open(&sentinel_of(&d, &[]), vigie::client::Target::Replica, &[]);
    let refused = fails(Status::InvalidState, Jobs::new(&reads, "q", None, Timeout::Default).map(|_| ()));
    assert!(refused.message().contains("reads from replicas"), "{refused}");
    for lease in [Timeout::Ms(99), Timeout::Unlimited, Timeout::DontWait] {
        fails(Status::InvalidArg, Jobs::new(&client, "q", None, lease).map(|_| ()));
    }
    fails(Status::InvalidArg, jobs::push(&client, "q", Some("a b"), b"", Timeout::Default));

    // Without time nothing is sent, and the job stays in hand.
    let jobs = worker(&client, "q", "one", 60_000);
    push(&client, "q", "a");
    let job = taken(&jobs);
    fails(Status::Timeout, jobs.ack(job.id(), NOW));
    fails(Status::Timeout, jobs.give_back(job.id(), NOW));
    fails(Status::Timeout, jobs.renew(NOW));
    assert_eq!(number(&client, "LLEN {q}:processing:one"), 1);
    done(&jobs, &job);
}

/// What workers have done: payloads with the mark of each delivery.
type Deliveries = BTreeMap<String, Vec<u32>>;

fn work(jobs: &Jobs, over: &AtomicBool) -> Result<Deliveries> {
    let mut seen = Deliveries::new();
    loop {
        match jobs.take(Timeout::Ms(1000)) {
            Ok(Some(job)) => {
                seen.entry(payload(&job)).or_default().push(job.redelivered());
                // An error leaves it in hand, or elsewhere: it comes again.
                drop(jobs.ack(job.id(), Timeout::Default));
            }
            Ok(None) if over.load(Ordering::Acquire) => return Ok(seen),
            Ok(None) => {}
            Err(error) if error.status() == Status::InvalidState => return Err(error),
            Err(_) => {}
        }
    }
}

const TAKE: u64 = 1;
const ACK: u64 = 2;

/// Id, payload and mark of a job that arrived on a queue.
fn arrived(job: &Reply) -> (String, String, u32) {
    let text = |key: &[u8]| String::from_utf8(job.bytes(job.find(0, key).unwrap()).unwrap().to_vec()).unwrap();
    let mark = job.int(job.find(0, b"redelivered").unwrap()).unwrap();
    (text(b"id"), text(b"payload"), u32::try_from(mark).unwrap())
}

/// The next completion: its token and its outcome.
#[track_caller]
fn next_of(queue: &Queue) -> (u64, Result<Option<Reply>>) {
    let event = completions::drain(queue, 1).remove(0);
    (event.token, event.outcome)
}

/// As [`work`], on an event loop.
fn work_on_a_loop(jobs: &Jobs, over: &AtomicBool) -> Result<Deliveries> {
    let (queue, mut seen) = (completions::queue(1), Deliveries::new());
    let take = || jobs.take_submit(Timeout::Ms(1000), &queue, TAKE);
    take()?;
    loop {
        match next_of(&queue) {
            (TAKE, Ok(Some(job))) => {
                let (id, payload, mark) = arrived(&job);
                seen.entry(payload).or_default().push(mark);
                jobs.ack_submit(&id, Timeout::Default, &queue, ACK)?;
            }
            (TAKE, Ok(None)) if over.load(Ordering::Acquire) => return Ok(seen),
            (TAKE, Err(error)) if error.status() == Status::InvalidState => return Err(error),
            _ => take()?,
        }
    }
}

#[test]
fn a_job_that_was_handed_out_too_often_is_put_aside_and_the_others_go_on() {
    let stage = proxied("jobs-worn");
    let (client, node) = (&stage.client, stage.d.node("mymaster-0"));
    let jobs = worker(client, "q", "one", 60_000);
    let lengths = || ["q", "{q}:processing:one", "{q}:failed"].map(|key| node.cmd(&["LLEN", key]).int().unwrap());
    jobs.limit_deliveries(2);
    ok(client, "LPUSH q vigie1:bad:0:bad");
    for mark in 0..2 {
        assert_eq!(shown(&taken(&jobs)), ("bad".into(), mark));
        let opened = || pools(client).iter().map(|pool| pool.get("opened")).sum::<i64>();
        let before = opened();
        jobs.give_back("bad", Timeout::Default).expect("given back");
        assert!(mark == 0 || opened() == before, "the connection of the first one serves the second one");
    }
    ok(client, "LPUSH q vigie1:good:0:good");
    let good = taken(&jobs);
    assert_eq!((shown(&good), lengths()), (("good".into(), 0), [0, 1, 1]));
    assert_eq!(node.cmd(&["LRANGE", "{q}:failed", "0", "-1"]).items()[0].text(), "vigie1:bad:2:bad");
    fails(Status::InvalidState, jobs.ack("bad", Timeout::Default));

    // It is there once, though the answer to its move is lost, and also on an event loop.
    ok(client, "LPUSH q vigie1:worse:7:worse");
    stage.proxy.trap("{q}:failed", Trap::LoseReply);
    takes_none(&jobs, 300);
    assert_eq!((lengths(), stage.proxy.traps_left()), ([0, 1, 2], 0));
    ok(client, "LPUSH q vigie1:worst:2:worst");
    let queue = completions::queue(1);
    jobs.take_submit(Timeout::Ms(100), &queue, TAKE).expect("submitted");
    assert!(next_of(&queue).1.expect("a take").is_none());
    assert_eq!((lengths(), counter(client, "jobs_set_aside")), ([0, 1, 3], 2));
    done(&jobs, &good);
    jobs.limit_deliveries(0);
    ok(client, "LPUSH q vigie1:any:9:any");
    assert_eq!(shown(&taken(&jobs)), ("any".into(), 9));
}

/// Waits until a blocking command waits in the server.
fn waits_in(node: &Node) {
    eventually("it waits", SOON, || node.info("clients")["blocked_clients"] == "1");
}

#[test]
fn a_worker_on_an_event_loop_takes_acknowledges_and_hands_back_without_a_thread() {
    let d = single("jobs-loop");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let node = d.primary_node(SERVICE);
    let (queue, jobs) = (completions::queue(2), worker(&client, "q", "one", 60_000));
    let long = Timeout::Ms(SOON.as_millis() as u64);
    let job_of = |told: (u64, Result<Option<Reply>>)| arrived(&told.1.expect("a take").expect("a job"));
    let is_done = |(token, outcome): (u64, Result<Option<Reply>>)| {
        assert_eq!(token, 9);
        assert!(outcome.expect("done").is_none());
    };

    // A take waits for a job; one is under way at a time, and a full queue refuses without a trace.
    jobs.take_submit(long, &queue, TAKE).expect("taken");
    waits_in(&node);
    fails(Status::InvalidState, jobs.take_submit(NOW, &queue, 3));
    fails(Status::InvalidState, jobs.take(NOW));
    jobs::push_submit(&client, "q", Some("a"), b"first", long, (&queue, 4)).expect("pushed");
    fails(Status::QueueFull, jobs.renew_submit(long, &queue, 5));
    let mut both = completions::drain(&queue, 2);
    both.sort_by_key(|event| event.token);
    let [job, pushed] = both.try_into().expect("two");
    assert_eq!((pushed.token, pushed.outcome.expect("pushed").expect("a length").int(0)), (4, Some(1)));
    assert_eq!(job_of((job.token, job.outcome)), ("a".into(), "first".into(), 0));

    // What is in hand is renewed, handed back, taken again with a mark, and acknowledged once.
    jobs.renew_submit(long, &queue, 9).expect("submitted");
    is_done(next_of(&queue));
    jobs.give_back_submit("a", long, &queue, 9).expect("submitted");
    is_done(next_of(&queue));
    fails(Status::InvalidState, jobs.give_back_submit("a", long, &queue, 9));
    jobs.take_submit(NOW, &queue, TAKE).expect("submitted");
    assert_eq!(job_of(next_of(&queue)), ("a".into(), "first".into(), 1));
    jobs.ack_submit("a", long, &queue, 9).expect("submitted");
    is_done(next_of(&queue));
    fails(Status::InvalidState, jobs.ack_submit("a", long, &queue, 9));
    jobs.take_submit(Timeout::Ms(50), &queue, TAKE).expect("submitted");
    assert!(next_of(&queue).1.expect("a take").is_none(), "there was none in the time");
    assert_eq!(counted(&client), [2, 1, 1, 1, 0]);

    // A cancellation ends a take that waits, and no job is lost by it.
    jobs.take_submit(long, &queue, TAKE).expect("submitted");
    waits_in(&node);
    assert_eq!(queue.cancel(TAKE), 1);
    fails(Status::Cancelled, next_of(&queue).1.map(drop));
    push(&client, "q", "second");
    jobs.take_submit(long, &queue, TAKE).expect("submitted");
    let (id, payload, _) = job_of(next_of(&queue));
    assert_eq!(payload, "second");

    // A close of the client ends a take that finds no way to the primary.
    let other = to_primary(&sentinel_of(&d, &[]), &[]);
    let away = worker(&other, "p", "two", 60_000);
    node.stop();
    away.take_submit(Timeout::Unlimited, &queue, 6).expect("submitted");
    fails(Status::Timeout, other.close(Timeout::Ms(0)));
    fails(Status::Closed, next_of(&queue).1.map(drop));
    node.cont();

    // A close ends the take under way, and hands back what is in hand.
    jobs.take_submit(long, &queue, TAKE).expect("submitted");
    waits_in(&node);
    jobs.close_submit(long, &queue, 9).expect("submitted");
    let (token, outcome) = next_of(&queue);
    fails(Status::Cancelled, outcome.map(drop));
    assert_eq!(token, TAKE, "it ends first");
    is_done(next_of(&queue));
    fails(Status::InvalidState, jobs.ack_submit(&id, long, &queue, 9));
    jobs.take_submit(long, &queue, TAKE).expect("submitted");
    fails(Status::Cancelled, next_of(&queue).1.map(drop));
    let left = node.cmd(&["KEYS", "*"]).items().iter().map(Value::text).collect::<Vec<String>>();
    let others: Vec<_> = left.iter().filter(|key| !key.starts_with("{q}:gone")).collect();
    assert_eq!(others, ["q"], "its lists and its lease are gone");
    assert_eq!(node.cmd(&["LLEN", "q"]).int(), Some(1));

    // The server is asked to end its blocking command: if it does so in time, no name has to be kept.
    let leaves_nothing_behind = |n: u32| {
        let (jobs, key) = (worker(&client, "r", &n.to_string(), 60_000), "{r}:gone");
        jobs.take_submit(long, &queue, TAKE).expect("submitted");
        waits_in(&node);
        jobs.close_submit(long, &queue, 9).expect("submitted");
        completions::drain(&queue, 2);
        node.cmd(&["DEL", key]).int() == Some(0)
    };
    assert!((0..20).any(leaves_nothing_behind));
}

/// The rest of a list is handed out though a job in it is larger than a client reads, and that job can be found.
#[test]
fn a_job_that_is_too_large_to_be_read_is_put_aside_and_stops_nobody() {
    let d = single("jobs-large");
    let (sentinel, node) = (sentinel_of(&d, &[]), d.primary_node(SERVICE));
    let reads_less = sentinel_of(&d, &[("reply.max_bytes", "65536")]);
    let (producer, client) = (to_primary(&sentinel, &[]), to_primary(&reads_less, &[]));
    let large = "x".repeat(100_000);
    let failed = || node.cmd(&["LLEN", "{q}:failed"]).int();
    push(&producer, "q", &large);
    push(&producer, "q", "small");
    let one = worker(&client, "q", "one", 60_000);
    let small = taken(&one);
    assert_eq!((small.payload(), failed()), (&b"small"[..], Some(1)));
    assert_eq!(counter(&client, "jobs_set_aside"), 1);
    // It has one that can be read in hand, and is behind it in the list.
    push(&producer, "q", &large);
    push(&producer, "q", "second");
    let second = taken(&one);
    assert_eq!((second.payload(), failed()), (&b"second"[..], Some(2)));
    for job in [small, second] {
        one.ack(job.id(), Timeout::Default).expect("acknowledged");
    }
    // One that dies with it in hand, because it could read it.
    let dies = worker(&producer, "q", "dies", 200);
    push(&producer, "q", &large);
    assert_eq!(taken(&dies).payload(), large.as_bytes());
    drop(dies);
    push(&producer, "q", "third");
    assert_eq!(taken(&one).payload(), b"third");
    let short = worker(&client, "q", "short", 400);
    eventually("what the dead one had is put aside", SOON, || {
        takes_none(&short, 100);
        failed() == Some(3)
    });
    assert_eq!(
        node.cmd(&["LINDEX", "{q}:failed", "0"]).text().len(),
        node.cmd(&["LINDEX", "{q}:failed", "1"]).text().len()
    );
    assert!(counter(&client, "jobs_set_aside") == 3, "each once");
}

/// Jobs come all the same, and the reason why dead workers cannot be found is told where there is none.
#[test]
fn more_names_of_workers_than_a_client_reads_stop_no_job() {
    let d = single("jobs-names");
    let (client, node) = (to_primary(&sentinel_of(&d, &[("reply.max_bytes", "1024")]), &[]), d.primary_node(SERVICE));
    (0..60).for_each(|n| assert!(node.cmd(&["SADD", "{q}:workers", &format!("{n:040}")]).int() == Some(1)));
    push(&client, "q", "a");
    let jobs = worker(&client, "q", "w", 60_000);
    assert_eq!(taken(&jobs).payload(), b"a");
    // A new handle looks at once.
    let error = fails(Status::Limit, worker(&client, "q", "v", 60_000).take(Timeout::Ms(100)));
    assert!(error.message().contains("the names of the workers"), "{error}");
}

/// What such a user lacks is found out where it is first needed, and older commands do it.
#[test]
fn a_user_without_the_newer_commands_works_with_the_older_ones() {
    let stage = proxied("jobs-old-user");
    let node = stage.d.node("mymaster-0");
    assert!(node.cmd(&["ACL", "SETUSER", "default", "-lpos", "-lmove", "-blmove"]).is_ok());
    let reads_less = handle(&stage.watch, &[("reply.max_bytes", "65536")]);
    let (producer, client) = (&stage.client, to_primary(&reads_less, &[]));
    // In its own list from the beginning, before it has taken anything.
    let large = "x".repeat(100_000);
    node.cmd(&["LPUSH", "{q}:processing:one", &large]);
    push(producer, "q", "small");
    let one = worker(&client, "q", "one", 60_000);
    let job = taken(&one);
    assert_eq!((job.payload(), node.cmd(&["LLEN", "{q}:failed"]).int()), (&b"small"[..], Some(1)));
    one.give_back(job.id(), Timeout::Default).expect("handed back");

    // An acknowledgement whose answer is lost is looked up in the list.
    let two = worker(producer, "q", "two", 60_000);
    let job = taken(&two);
    stage.proxy.trap("LREM", Trap::LoseReply);
    done(&two, &job);
    assert_eq!(stage.proxy.traps_left(), 0);
    assert_eq!(node.cmd(&["LLEN", "{q}:processing:two"]).int(), Some(0));
    let log = node.cmd(&["ACL", "LOG"]);
    let refused: Vec<String> = log.items().iter().flat_map(Value::items).map(Value::text).collect();
    assert!(["lpos", "lmove"].iter().all(|word| refused.iter().any(|text| text == word)), "asked for: {refused:?}");
}

/// Each job can be read, but not all of them in one answer.
#[test]
fn a_workers_list_that_is_too_large_for_one_answer_is_read_and_handed_back_job_by_job() {
    let d = single("jobs-pages");
    let (sentinel, node) = (sentinel_of(&d, &[("reply.max_bytes", "65536")]), d.primary_node(SERVICE));
    let client = to_primary(&sentinel, &[]);
    let payloads: Vec<String> = (0..4).map(|n| n.to_string().repeat(30_000)).collect();
    payloads.iter().for_each(|payload| push(&client, "q", payload));
    let all = |jobs: &Jobs| (0..4).map(|_| taken(jobs)).collect::<Vec<_>>();
    let told =
        |all: &[Job]| all.iter().map(|job| String::from_utf8(job.payload().to_vec()).unwrap()).collect::<Vec<_>>();
    let one = worker(&client, "q", "one", 60_000);
    assert_eq!(told(&all(&one)), payloads);
    drop(one);
    // Under its name: the oldest first, each marked.
    let again = worker(&client, "q", "one", 60_000);
    let got = all(&again);
    assert!(told(&got) == payloads && got.iter().all(|job| job.redelivered() == 1));
    again.close(Timeout::Ms(20_000)).expect("it hands them back");
    let len = |key: &str| node.cmd(&["LLEN", key]).int();
    assert_eq!((len("q"), len("{q}:processing:one")), (Some(4), Some(0)));
    // One that dies, and another that looks.
    let dies = worker(&client, "q", "dies", 200);
    assert_eq!(told(&all(&dies)), payloads);
    drop(dies);
    let other = worker(&client, "q", "other", 400);
    let got = all(&other);
    assert!(told(&got) == payloads && got.iter().all(|job| job.redelivered() == 3), "{:?}", got[0].redelivered());
    // An acknowledgement and a return ask about one job, whatever the size of the list.
    other.ack(got[0].id(), Timeout::Default).expect("acknowledged");
    other.give_back(got[1].id(), Timeout::Default).expect("handed back");
    assert_eq!((len("q"), len("{q}:processing:other")), (Some(1), Some(2)));
}

/// What cannot be handed back hides neither the jobs of other dead workers nor those that wait, and is told when there is nothing else.
#[test]
fn a_dead_worker_whose_list_is_none_stops_nobody_and_is_told() {
    let d = single("jobs-wrongtype");
    let (client, node) = (to_primary(&sentinel_of(&d, &[]), &[]), d.primary_node(SERVICE));
    for n in 0..4 {
        let name = format!("dead{n}");
        push(&client, "q", &name);
        drop((taken(&worker(&client, "q", &name, 100)), name));
    }
    for bad in ["a-bad", "z-bad"] {
        node.cmd(&["SADD", "{q}:workers", bad]);
        node.cmd(&["SET", &format!("{{q}}:processing:{bad}"), "no list"]);
    }
    let lives = worker(&client, "q", "lives", 400);
    push(&client, "q", "waits");
    let mut seen = BTreeSet::new();
    eventually("all jobs", SOON, || {
        if let Ok(Some(job)) = lives.take(Timeout::Ms(200)) {
            seen.insert(String::from_utf8(job.payload().to_vec()).expect("text"));
        }
        seen.len() == 5
    });
    eventually("the reason is told", SOON, || match lives.take(Timeout::Ms(100)) {
        Err(error) => error.server_code() == "WRONGTYPE",
        Ok(job) => {
            assert_eq!(job, None);
            false
        }
    });
}

#[test]
fn a_worker_without_a_lease_says_so() {
    let d = single("jobs-renew");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let (jobs, queue) = (worker(&client, "q", "w", 60_000), Queue::create(4).expect("a queue"));
    let says = |part: &str| {
        let error = fails(Status::InvalidState, jobs.renew(Timeout::Default));
        assert!(error.message().contains(part), "{error}");
        jobs.renew_submit(Timeout::Default, &queue, 7).expect("submitted");
        fails(Status::InvalidState, next_of(&queue).1.map(drop));
    };
    says("its first take gets it");
    takes_none(&jobs, 100);
    jobs.renew(Timeout::Default).expect("it has one");
    jobs.close(Timeout::Default).expect("closed");
    says("was closed");
    // Without time nothing is submitted.
    let late = worker(&client, "q", "late", 60_000);
    for refused in [late.renew_submit(Timeout::DontWait, &queue, 1), late.close_submit(Timeout::DontWait, &queue, 1)] {
        let error = fails(Status::Timeout, refused);
        assert!(error.message().contains("timeout_ms is 0 or less"), "{error}");
    }
    assert_eq!(queue.drain(Deadline::after(Duration::ZERO), &mut Vec::new(), 4), 0, "no completion");
}

/// A planned one, a primary that is killed, and a planned one.
fn three_failovers(d: &Deployment) {
    d.wait_ready(SERVICE);
    for kills in [false, true, false] {
        if kills {
            let old = d.primary_node(SERVICE);
            old.kill();
            d.wait_switched(SERVICE, &old);
            old.restart();
        } else {
            let old = d.failover(SERVICE);
            d.wait_switched(SERVICE, &old);
        }
        d.hurry();
        d.wait_ready(SERVICE);
        d.calm();
    }
}

#[test]
fn scenario_row_101_three_failovers_lose_no_job_and_mark_what_comes_twice() {
    let d = Deployment::new("jobs-failover").start();
    let sentinel = sentinel_of(&d, &[]);
    let client = to_primary(&sentinel, &[("write.replicas", "1")]);
    let (halt, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let workers: Vec<_> = ["one", "two", "loop"]
        .into_iter()
        .map(|name| {
            let (client, over) = (Arc::clone(&client), Arc::clone(&over));
            let works = if name == "loop" { work_on_a_loop } else { work };
            spawn(move || works(&worker(&client, "q", name, 3000), &over))
        })
        .collect();
    let producer = {
        let (client, halt) = (Arc::clone(&client), Arc::clone(&halt));
        spawn(move || {
            let mut pushed = BTreeSet::new();
            for n in 0u32.. {
                if halt.load(Ordering::Acquire) {
                    break;
                }
                let payload = n.to_string();
                if jobs::push(&client, "q", None, payload.as_bytes(), Timeout::Ms(2000)).is_ok() {
                    pushed.insert(payload);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            pushed
        })
    };
    three_failovers(&d);
    halt.store(true, Ordering::Release);
    let pushed = join(&producer);
    over.store(true, Ordering::Release);
    let mut seen = Deliveries::new();
    let mut looped = 0;
    for work in &workers {
        let deliveries = join(work).expect("no lease was lost");
        looped = deliveries.len();
        for (payload, marks) in deliveries {
            seen.entry(payload).or_default().extend(marks);
        }
    }
    let lost: Vec<_> = pushed.iter().filter(|payload| !seen.contains_key(*payload)).collect();
    let unmarked: Vec<_> =
        seen.iter().filter(|(_, marks)| marks.iter().filter(|mark| **mark == 0).count() > 1).collect();
    let twice = seen.values().filter(|marks| marks.len() > 1).count();
    println!("{} pushed, {} done, {twice} of them twice", pushed.len(), seen.len());
    assert!(pushed.len() > 100, "{} were pushed", pushed.len());
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), pushed.len());
    assert!(unmarked.is_empty(), "delivered twice without a mark: {unmarked:?}");
    assert!(looped > 20, "{looped} were done on the event loop");
    let left: Vec<Value> = ["q", "{q}:processing:one", "{q}:processing:two", "{q}:processing:loop"]
        .iter()
        .map(|key| d.primary_node(SERVICE).cmd(&["LLEN", key]))
        .collect();
    assert!(left.iter().all(|len| *len == Value::Int(0)), "everything is done: {left:?}");
}

/// A program of examples-c, on a deployment whose writes wait for a replica.
fn example(name: &str, d: &Deployment) -> Command {
    let out = fresh_dir(&format!("jobs-{name}")).join(name);
    Prefix::shared().compile(&root().join("examples-c").join(name).with_extension("c"), &out);
    let mut program = Command::new(out);
    program.arg(format!("{}?write.replicas=1", d.sentinel_uri())).stdout(Stdio::piped());
    program
}

#[test]
fn a_consumer_of_a_stream_handles_every_entry_through_a_failover() {
    let d = Deployment::new("stream-example").start();
    let primary = d.primary_node(SERVICE);
    let add = |node: &Node, value: &str| {
        assert!(!node.cmd(&["XADD", "s", "*", "v", value]).is_error());
        assert_eq!(node.cmd(&["WAIT", "1", "20000"]).int().map(|n| n >= 1), Some(true));
    };
    primary.cmd(&["XGROUP", "CREATE", "s", "workers", "0", "MKSTREAM"]);
    add(&primary, "left by one that died");
    assert!(!primary.cmd(&["XREADGROUP", "GROUP", "workers", "dead", "COUNT", "1", "STREAMS", "s", ">"]).is_nil());
    let mut program = example("stream_consumer", &d);
    program.args(["s", "c1", "9"]);
    let mut program = proc::spawn(program).expect("it starts");
    let lines = BufReader::new(program.stdout.take().expect("piped")).lines().map_while(std::result::Result::ok);
    let mut values = lines.map(|line| line.split_once(' ').expect("an id and a value").1.to_owned());
    let mut seen = BTreeSet::new();
    (0..4).for_each(|n| add(&primary, &n.to_string()));
    while !(0..4).all(|n: u32| seen.contains(&n.to_string())) {
        seen.insert(values.next().expect("it goes on"));
    }
    let old = d.failover(SERVICE);
    let new = d.wait_switched(SERVICE, &old);
    (4..8).for_each(|n| add(&new, &n.to_string()));
    seen.extend(values);
    assert!(program.wait().expect("it ends by itself").success());
    let expected: BTreeSet<String> =
        (0..8).map(|n: u32| n.to_string()).chain(["left by one that died".to_owned()]).collect();
    assert_eq!(seen, expected);
    assert_eq!(new.cmd(&["XPENDING", "s", "workers"]).items()[0], Value::Int(0), "everything is acknowledged");
}

/// The numbers of a line such as `booked 7, unknown 0`.
pub(crate) fn numbers(line: &str) -> BTreeMap<String, i64> {
    let pairs = line.split(", ").filter_map(|pair| pair.split_once(' '));
    pairs.map(|(name, number)| (name.to_owned(), number.parse().expect("a number"))).collect()
}

/// Runs a program of transactions, a subscriber and a worker through three failovers, and compares what it says with the data.
fn serves_through_three_failovers(name: &str) {
    let d = Deployment::new(name).start();
    let mut program = example(name, &d);
    program.stdin(Stdio::piped()).stderr(Stdio::null());
    let mut program = proc::spawn(program).expect("it starts");
    let mut lines = BufReader::new(program.stdout.take().expect("piped")).lines().map_while(std::result::Result::ok);
    assert_eq!(lines.next().as_deref(), Some("serving"));
    three_failovers(&d);
    program.stdin.take().expect("piped").write_all(b"stop\n").expect("it listens");
    let last = lines.next().expect("it says what it did");
    assert!(program.wait().expect("it ends by itself").success());
    println!("{last}");
    let (said, primary) = (numbers(&last), d.primary_node(SERVICE));
    let pushed = -primary.cmd(&["GET", "service:stock"]).text().parse::<i64>().expect("a number");
    let done = primary.cmd(&["SCARD", "service:done"]).int().expect("a number");
    assert!(said["booked"] > 100, "{last}");
    assert_eq!(done, pushed, "each order that changed the stock was done: {last}");
    assert!((said["booked"]..=said["booked"] + said["unknown"]).contains(&pushed), "{pushed} were pushed: {last}");
    assert!(said["heard"] > 100 && said["gaps"] >= 3, "{last}");
}

#[test]
fn a_service_with_transactions_a_subscriber_and_a_worker_lives_through_three_failovers() {
    serves_through_three_failovers("service");
}

#[test]
fn the_same_service_on_one_event_loop_lives_through_three_failovers() {
    serves_through_three_failovers("service_loop");
}
