//! A worker against a model of the lists: answers are lost and primaries forget at random, and no job is lost or handed out twice
//! without a mark.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::envelope::Job;
use super::hand_back;
use super::keys::Keys;
use super::ledger::{self as answers, Leaving, Ledger};
use super::take::{Step, Take, is_too_large};
use crate::error::{Error, Status, flags};
use crate::resp::{Reply, ReplyBuilder, list};
use crate::sys::random;
use crate::time::Instant;

/// The lists, and what else there is.
#[derive(Debug, Default, Clone)]
struct Server {
    lists: BTreeMap<Vec<u8>, VecDeque<Vec<u8>>>,
    texts: BTreeMap<Vec<u8>, Vec<u8>>,
    sets: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
}

impl Server {
    fn list(&mut self, key: &[u8]) -> &mut VecDeque<Vec<u8>> {
        self.lists.entry(key.to_vec()).or_default()
    }

    fn run(&mut self, command: &[Vec<u8>], out: &mut ReplyBuilder) {
        let arg = |at: usize| command[at].clone();
        match command[0].as_slice() {
            b"SET" if command.len() == 6 && self.texts.contains_key(&command[1]) => _ = out.null(),
            b"SET" => {
                self.texts.insert(arg(1), arg(2));
                out.text("OK");
            }
            b"WATCH" => _ = out.text("OK"),
            b"PEXPIRE" => _ = out.int(1),
            b"SADD" => _ = out.int(i64::from(self.sets.entry(arg(1)).or_default().insert(arg(2)))),
            b"SREM" => _ = out.int(i64::from(self.sets.entry(arg(1)).or_default().remove(&command[2]))),
            b"SMEMBERS" => {
                out.array();
                self.sets.entry(arg(1)).or_default().iter().for_each(|member| _ = out.bytes(member));
                out.end();
            }
            b"EXISTS" => {
                let is_there = self.texts.contains_key(&command[1]) || !self.list(&command[1]).is_empty();
                out.int(i64::from(is_there));
            }
            b"DEL" => {
                for key in &command[1..] {
                    self.texts.remove(key);
                    self.lists.remove(key);
                }
                out.int(1);
            }
            b"GET" => match self.texts.get(&command[1]) {
                Some(token) => _ = out.bytes(token),
                None => _ = out.null(),
            },
            _ => self.run_on_list(command, out),
        }
    }

    fn run_on_list(&mut self, command: &[Vec<u8>], out: &mut ReplyBuilder) {
        let arg = |at: usize| command[at].clone();
        let list = self.list(&command[1]);
        let place = |list: &VecDeque<Vec<u8>>| list.iter().position(|text| *text == command[3]);
        match command[0].as_slice() {
            b"LPUSH" => {
                list.push_front(arg(2));
                out.int(list.len() as i64);
            }
            b"LLEN" => _ = out.int(list.len() as i64),
            b"LRANGE" => {
                out.array();
                list.iter().for_each(|text| _ = out.bytes(text));
                out.end();
            }
            b"LINDEX" => {
                let at: isize = String::from_utf8(arg(2)).unwrap().parse().unwrap();
                let at = if at < 0 { list.len().checked_add_signed(at) } else { usize::try_from(at).ok() };
                match at.and_then(|at| list.get(at)) {
                    Some(text) => _ = out.bytes(text),
                    None => _ = out.null(),
                }
            }
            b"LINSERT" => match place(list) {
                Some(at) => {
                    list.insert(at, arg(4));
                    out.int(list.len() as i64);
                }
                None => _ = out.int(-1),
            },
            b"LREM" => match place(list) {
                Some(at) => {
                    list.remove(at);
                    out.int(1);
                }
                None => _ = out.int(0),
            },
            b"LMOVE" | b"BLMOVE" => match list.pop_back() {
                Some(text) => {
                    out.bytes(&text);
                    self.list(&command[2]).push_front(text);
                }
                None => _ = out.null(),
            },
            other => panic!("{}", String::from_utf8_lossy(other)),
        }
    }

    fn answer(&mut self, commands: &[u8], is_list: bool) -> Reply {
        let mut out = ReplyBuilder::new();
        if is_list {
            out.array();
        }
        for command in list::parse(commands).expect("well formed").commands() {
            let args: Vec<Vec<u8>> = command.args().map(<[u8]>::to_vec).collect();
            self.run(&args, &mut out);
        }
        if is_list {
            out.end();
        }
        out.finish()
    }
}

/// One worker, and what it has done.
struct World {
    server: Server,
    /// What a failover cannot take back: the state after the last answer that waited for replicas.
    durable: Server,
    ledger: Ledger,
    take: Take,
    now: Instant,
    /// Handed out, with the mark of each delivery.
    seen: BTreeMap<Vec<u8>, Vec<u32>>,
    in_hand: Vec<Job>,
    /// Moves that were sent, given up, and will still arrive.
    late: Vec<Vec<u8>>,
    /// Put aside because they were handed out too often.
    worn_out: Vec<Job>,
}

/// The largest text, and the most of an array, that the worker reads.
const READABLE: usize = 100;
/// Each job with a number of this kind is larger.
const LARGE: usize = 5;

fn payload(n: usize) -> Vec<u8> {
    let width = if n % LARGE == LARGE - 1 { READABLE } else { 1 };
    format!("{n:0width$}").into_bytes()
}

/// Whether a client with a limit reads this answer.
fn is_readable(reply: &Reply) -> bool {
    let len = |node: u32| reply.bytes(node).map_or(0, <[u8]>::len);
    let whole = |node: u32| len(node) + reply.children(node).map(len).sum::<usize>();
    len(0) <= READABLE && reply.children(0).all(|node| whole(node) <= READABLE)
}

fn too_large() -> Error {
    Error::new(Status::Limit, "too large").with_flags(flags::MAYBE_EXECUTED)
}

fn keys(worker: &str) -> Keys {
    Keys::new("q", worker).unwrap()
}

fn ledger() -> Ledger {
    Ledger::new(keys("w"), Duration::from_secs(10))
}

fn lost() -> Error {
    Error::new(Status::Io, "lost").with_flags(flags::MAYBE_EXECUTED)
}

impl World {
    fn new(jobs: usize) -> Self {
        let envelope = |n: usize| Job::new(None, 0, &payload(n)).unwrap().encoded().to_vec();
        let ready = (0..jobs).map(|n| if n % 3 == 0 { payload(n) } else { envelope(n) }).collect();
        let server = Server { lists: BTreeMap::from([(b"q".to_vec(), ready)]), ..Server::default() };
        Self {
            durable: server.clone(),
            server,
            ledger: ledger(),
            take: Take::new(true),
            now: Instant::now(),
            seen: Default::default(),
            in_hand: Vec::new(),
            late: Vec::new(),
            worn_out: Vec::new(),
        }
    }

    /// One step of the take, with this fate. `false`: there was no job.
    fn step(&mut self, fate: Fate) -> bool {
        self.now += Duration::from_millis(300);
        let left = Some(Duration::from_millis(if fate == Fate::Fine { 0 } else { 1000 }));
        let (list, is_list) = match self.take.next(&mut self.ledger, self.now, left) {
            Step::Atomic(list) => (list, true),
            Step::One(list, _) => (list, false),
            Step::HandBack(dead) => {
                for other in dead {
                    self.bury(&other.name, if other.is_gone { Leaving::Gone } else { Leaving::Doubtful });
                }
                return true;
            }
            Step::Failed(_) | Step::Idle => return true,
            Step::Unread => {
                let keys = keys("w");
                let lease = self.server.texts.get(&self.ledger.keys.lease).cloned();
                let may_move = matches!(self.ledger.owns(lease.as_deref()), Ok(true));
                if may_move && fate != Fate::NotSent {
                    let oldest =
                        self.server.list(&self.ledger.keys.processing.clone()).pop_back().expect("it is watched");
                    self.server.list(&keys.failed).push_front(oldest);
                }
                self.ledger.set_aside(may_move && fate == Fate::Fine);
                return true;
            }
            Step::SetAside(job) => {
                let keys = keys("w");
                self.server.list(&keys.processing).retain(|text| text != job.encoded());
                self.server.list(&keys.failed).push_front(job.encoded().to_vec());
                self.ledger.forget(&job);
                self.worn_out.push(job);
                return true;
            }
            Step::Over(outcome) => {
                self.take = Take::new(true);
                let Some(job) = outcome.expect("a definite error") else { return false };
                self.seen.entry(job.payload().to_vec()).or_default().push(job.redelivered());
                self.in_hand.push(job);
                return true;
            }
        };
        let outcome = match fate {
            Fate::Late if !is_list => {
                self.late.push(list);
                Err(lost())
            }
            Fate::NotSent | Fate::Late => Err(lost()),
            Fate::NoAnswer => {
                self.server.answer(&list, is_list);
                Err(lost())
            }
            Fate::Fine => Some(self.server.answer(&list, is_list)).filter(is_readable).ok_or_else(too_large),
        };
        if fate == Fate::Fine && is_list {
            self.durable = self.server.clone();
        }
        self.take.told(&mut self.ledger, self.now, outcome);
        true
    }

    /// Acknowledges the oldest job in hand; the answer may be lost.
    fn ack(&mut self, is_answered: bool) {
        let Some(job) = (!self.in_hand.is_empty()).then(|| self.in_hand.remove(0)) else { return };
        let processing = self.ledger.keys.processing.clone();
        self.server.list(&processing).retain(|text| text != job.encoded());
        if is_answered {
            self.durable = self.server.clone();
            self.ledger.forget(&job);
        } else {
            self.in_hand.push(job);
        }
    }

    /// What a worker left goes back, as one that looks would do it.
    fn bury(&mut self, worker: &[u8], leaving: Leaving) {
        let keys = keys("other");
        let seen = self.server.answer(&hand_back::look(&keys, worker), true);
        if leaving != Leaving::Certain && seen.child(0, 1).is_some_and(|node| seen.bytes(node).is_some()) {
            return;
        }
        let is_remembered = seen.child(0, 2).and_then(|node| seen.int(node)) == Some(1);
        let moves =
            hand_back::burial(&keys, worker, &answers::texts(&seen, 3).unwrap(), is_remembered, leaving, &Job::marked)
                .unwrap();
        self.server.answer(&moves, true);
        self.durable = self.server.clone();
    }

    /// Another worker finds the lease over, and hands everything back.
    fn lose_lease(&mut self) {
        self.server.texts.remove(&keys("w").lease);
        self.bury(b"w", Leaving::Doubtful);
    }

    /// It ends in order.
    fn close(&mut self) {
        let leaving = self.ledger.leaving();
        self.server.texts.remove(&keys("w").lease);
        self.bury(b"w", leaving);
        self.restart();
    }

    fn deliver(&mut self) {
        if let Some(sent) = self.late.pop() {
            self.server.answer(&sent, false);
        }
    }

    /// So much time goes by that nothing is on its way any more, and another one looks.
    fn forget_the_gone(&mut self) {
        if self.late.is_empty() {
            self.now += Duration::from_secs(600);
            self.server.texts.remove(&keys("w").memory_of(b"w"));
            self.bury(b"w", Leaving::Gone);
        }
    }

    /// Something happens to it.
    fn suffer(&mut self, fate: &mut fastrand::Rng) {
        match fate.u32(0..25) {
            0 => self.server = self.durable.clone(),
            1 => self.lose_lease(),
            2 => self.restart(),
            3 => drop(self.server.texts.remove(&keys("w").lease)),
            4..=6 => self.ack(fate.bool()),
            7 => drop(self.step(Fate::NotSent)),
            8..=9 => drop(self.step(Fate::NoAnswer)),
            10..=11 => drop(self.step(Fate::Late)),
            12 => self.deliver(),
            13 => self.close(),
            14 => self.forget_the_gone(),
            _ => drop(self.step(Fate::Fine)),
        }
    }

    fn restart(&mut self) {
        (self.ledger, self.take) = (ledger(), Take::new(true));
        self.in_hand.clear();
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Fine,
    NotSent,
    NoAnswer,
    /// It arrives after it was given up.
    Late,
}

/// Histories that failed once: how many the test had run before, and the seed.
const FAILED_ONCE: [(usize, u64); 3] =
    [(10, 6_434_544_607_152_373_478), (2, 1_423_390_357_824_597_634), (0, 2_262_809_857_299_069_752)];

#[test]
fn three_thousand_random_histories_lose_no_job_and_mark_what_comes_twice() {
    let mut rng = random::rng();
    let random = (0..3_000).map(|history| (history, rng.u64(..)));
    for (history, seed) in FAILED_ONCE.into_iter().chain(random) {
        if let Err(what) = live_through(history, seed) {
            panic!("history {history} with seed {seed}: {what}");
        }
    }
}

/// One history. Both numbers decide what happens in it.
fn live_through(history: usize, seed: u64) -> Result<(), String> {
    let mut fate = fastrand::Rng::with_seed(seed);
    let jobs = 1 + history % 7;
    let mut world = World::new(jobs);
    for _ in 0..fate.usize(0..60) {
        world.suffer(&mut fate);
    }
    // In the end nothing goes wrong any more, and another worker does the rest: one with the name, or one that has to look.
    while !world.late.is_empty() {
        world.deliver();
    }
    world.restart();
    if history % 2 == 0 {
        world.server.texts.remove(&keys("w").lease);
        world.ledger = Ledger::new(keys("x"), Duration::from_secs(10));
    }
    let mut steps = 0;
    while world.step(Fate::Fine) {
        steps += 1;
        if steps == 500 {
            return Err("it does not end".into());
        }
    }
    while !world.in_hand.is_empty() {
        world.ack(true);
    }
    let unread = world.server.lists.remove(&keys("w").failed).unwrap_or_default();
    if !world.server.lists.values().all(VecDeque::is_empty) {
        return Err(format!("something is left: {:?}", world.server));
    }
    if unread.len() != (0..jobs).filter(|n| n % LARGE == LARGE - 1).count() {
        return Err(format!("put aside unread: {unread:?}"));
    }
    for n in (0..jobs).filter(|n| n % LARGE != LARGE - 1) {
        let marks = world.seen.get(&payload(n)).ok_or_else(|| format!("{n} is lost"))?;
        let unmarked = marks.iter().filter(|mark| **mark == 0).count();
        if unmarked > 1 {
            return Err(format!("{n} came {unmarked} times without a mark"));
        }
    }
    Ok(())
}

/// What was never handed out does not count, however often its take had no answer; what was, does, once for each worker that died.
#[test]
fn a_limit_counts_what_was_handed_out_and_not_what_was_taken() {
    let mut world = World::new(1);
    let next_of_it = |world: &mut World| {
        world.ledger.max_deliveries = 3;
        while world.in_hand.is_empty() && world.worn_out.is_empty() {
            assert!(world.step(Fate::Fine), "{:?}", world.server);
        }
    };
    for _ in 0..20 {
        // The commands before the move, the move itself, and what makes sure of it, in each of which an answer is lost.
        for answered in 0..5 {
            (0..answered).for_each(|_| _ = world.step(Fate::Fine));
            if world.in_hand.is_empty() {
                world.step(Fate::NoAnswer);
            }
        }
        if !world.in_hand.is_empty() {
            break;
        }
    }
    next_of_it(&mut world);
    let first = world.in_hand[0].clone();
    assert_eq!(world.ledger.returned(first.encoded()).unwrap().redelivered(), 1, "once, however often it was taken");
    for mark in [1, 2] {
        next_of_it(&mut world);
        assert_eq!(world.in_hand.first().map(Job::redelivered), Some(mark), "{:?}", world.server);
        world.restart();
    }
    next_of_it(&mut world);
    assert_eq!(world.worn_out.first().map(Job::redelivered), Some(3), "{:?}", world.server);
}

/// One that was replaced under its name does not keep the lease of the other one alive, and goes on when that is over.
#[test]
fn a_worker_that_was_replaced_keeps_no_lease_alive() {
    let mut world = World::new(1);
    world.step(Fate::Fine);
    let lease = world.ledger.keys.lease.clone();
    world.server.texts.insert(lease.clone(), b"another".to_vec());
    let mut renewals = 0;
    for _ in 0..5 {
        let list = match world.take.next(&mut world.ledger, world.now, Some(Duration::from_secs(1))) {
            Step::Atomic(list) | Step::One(list, _) => list,
            Step::Over(outcome) => {
                assert_eq!(outcome.map(|_| ()).expect_err("replaced").status(), Status::InvalidState);
                world.take = Take::new(true);
                continue;
            }
            _ => panic!("nothing else"),
        };
        renewals += usize::from(String::from_utf8_lossy(&list).contains("PEXPIRE"));
        let reply = world.server.answer(&list, true);
        world.take.told(&mut world.ledger, world.now, Ok(reply));
    }
    assert!(renewals <= 1, "{renewals}: once, before it knew");
    assert_eq!(world.server.texts.get(&lease).map(Vec::as_slice), Some(&b"another"[..]));
    world.server.texts.remove(&lease);
    world.take = Take::new(true);
    while world.in_hand.is_empty() {
        assert!(world.step(Fate::Fine));
    }
}

/// Its predecessor may have sent a move, which still arrives: another one finds what it brings.
#[test]
fn a_worker_that_closes_before_it_began_does_not_let_its_name_be_forgotten() {
    let mut world = World::new(1);
    // It registers, and looks for others; its first move is late.
    for fate in [Fate::Fine, Fate::Fine, Fate::Late] {
        world.step(fate);
    }
    assert_eq!(world.late.len(), 1);
    world.restart();
    world.close();
    world.deliver();
    world.ledger = Ledger::new(keys("x"), Duration::from_secs(10));
    while world.step(Fate::Fine) {}
    assert_eq!(world.in_hand.len(), 1, "{:?}", world.server);
}

/// A take that fails for good says so, and one that may pass is tried again.
#[test]
fn errors_that_pass_are_told_from_those_that_do_not() {
    for (error, passes) in [
        (lost(), true),
        (Error::new(Status::Timeout, ""), true),
        (Error::new(Status::Replicas, ""), true),
        (Error::from_server(b"WRONGTYPE no list", ""), false),
        (Error::new(Status::Closed, ""), false),
    ] {
        let (mut take, mut ledger, now) = (Take::new(true), ledger(), Instant::now());
        assert!(matches!(take.next(&mut ledger, now, None), Step::Atomic(_)));
        take.told(&mut ledger, now, Err(error));
        match take.next(&mut ledger, now, None) {
            Step::Failed(_) => assert!(passes),
            Step::Over(Err(_)) => assert!(!passes),
            _ => panic!("an error is told"),
        }
    }
}

#[test]
fn want_of_memory_is_no_answer_that_is_too_large() {
    assert!(is_too_large(&too_large()));
    assert!(!is_too_large(&Error::no_memory(1 << 20, "a transaction").in_context("BLMOVE")));
    assert!(!is_too_large(&lost()));
}

/// What comes next of a take that waits, with this much time left.
fn next_of(take: &mut Take, ledger: &mut Ledger, now: Instant, left_ms: u64) -> Step {
    take.next(ledger, now, Some(Duration::from_millis(left_ms)))
}

/// The first command of a step.
fn name_of(step: &Step) -> String {
    let (Step::Atomic(list) | Step::One(list, _)) = step else { return String::new() };
    let commands = list::parse(list).expect("well formed");
    commands.commands().map(|command| String::from_utf8_lossy(command.args().next().unwrap()).into_owned()).collect()
}

/// Takes that are short beside the lease look as well: what they would find at their end has no time left.
#[test]
fn a_look_that_falls_due_during_a_take_is_made_by_the_next_one() {
    let (mut server, mut ledger, mut now) = (Server::default(), ledger(), Instant::now());
    let (mut looks, mut looks_at_the_end) = (0, 0);
    for _ in 0..20 {
        let mut take = Take::new(true);
        let mut left = 1000;
        loop {
            let step = next_of(&mut take, &mut ledger, now, left);
            let is_look = name_of(&step).contains("SMEMBERS");
            looks += u32::from(is_look);
            looks_at_the_end += u32::from(is_look && left == 0);
            let (list, is_list) = match step {
                Step::Atomic(list) => (list, true),
                Step::One(list, _) => (list, false),
                Step::Over(outcome) => break assert!(outcome.expect("no error").is_none()),
                _ => panic!("nothing else"),
            };
            if !is_list {
                (now, left) = (now + Duration::from_millis(1000), 0);
            }
            take.told(&mut ledger, now, Ok(server.answer(&list, is_list)));
        }
    }
    assert_eq!((looks, looks_at_the_end), (4, 0), "every 5 seconds of 20");
}

#[test]
fn another_job_with_an_id_in_hand_gets_an_id_of_its_own() {
    let mut world = World::new(0);
    world.server.list(b"q").extend([b"vigie1:a:0:second".to_vec(), b"vigie1:a:0:first".to_vec()]);
    while world.step(Fate::Fine) {}
    assert_eq!(world.in_hand.len(), 2);
    let (first, second) = (world.in_hand[0].clone(), world.in_hand[1].clone());
    assert_eq!((first.id(), first.payload(), second.payload()), ("a", &b"first"[..], &b"second"[..]));
    assert_ne!(second.id(), "a");
    assert_eq!(world.ledger.find("a").expect("in hand").job, first);
    assert_eq!(world.ledger.find(second.id()).expect("in hand").job, second);
}

#[test]
fn a_job_that_was_pushed_three_times_is_in_hand_three_times() {
    let mut world = World::new(0);
    world.server.list(b"q").extend((0..3).map(|_| b"vigie1:a:0:same".to_vec()));
    while world.step(Fate::Fine) {}
    let texts: BTreeSet<&[u8]> = world.in_hand.iter().map(Job::encoded).collect();
    assert_eq!((world.in_hand.len(), texts.len()), (3, 3), "each with a text of its own");
    assert!(world.in_hand.iter().all(|job| job.id() == "a"));
    for left in (0..3).rev() {
        world.ack(true);
        assert_eq!((world.ledger.find("a").is_ok(), world.server.list(&keys("w").processing).len()), (left > 0, left));
    }
    while world.step(Fate::Fine) {}
    assert!(world.in_hand.is_empty(), "nothing is left");
    assert!(world.server.list(&keys("w").processing).is_empty());
}

/// What comes next waits for a pause, so that an odd server costs no busy loop.
#[test]
fn an_answer_that_changes_nothing_is_followed_by_a_pause() {
    let (mut server, mut ledger, mut now) = (Server::default(), ledger(), Instant::now());
    let mut take = Take::new(true);
    let mut idles_after = |waited: Duration, answer: &mut dyn FnMut(&[u8], bool) -> Reply| {
        let mut has_moved = false;
        loop {
            match take.next(&mut ledger, now, Some(Duration::from_millis(1000))) {
                Step::Atomic(list) => take.told(&mut ledger, now, Ok(answer(&list, true))),
                Step::One(..) if has_moved => break false,
                Step::One(list, _) => {
                    has_moved = true;
                    now += waited;
                    take.told(&mut ledger, now, Ok(answer(&list, false)));
                }
                Step::Idle => break true,
                _ => panic!("nothing else"),
            }
        }
    };
    assert!(idles_after(Duration::ZERO, &mut |list, is_list| server.answer(list, is_list)), "nil at once");
    assert!(
        !idles_after(Duration::from_millis(1000), &mut |list, is_list| server.answer(list, is_list)),
        "nil in time"
    );
    // A move that brings a job which then is not in the list.
    server.list(b"q").push_back(b"vigie1:a:0:x".to_vec());
    let mut forgets = |list: &[u8], is_list: bool| {
        let reply = server.answer(list, is_list);
        if !is_list {
            server.list(&keys("w").processing).clear();
        }
        reply
    };
    assert!(idles_after(Duration::from_millis(1000), &mut forgets), "never confirmed");
}

/// An error after an empty answer is what counts: nobody knows whether there is a job by then.
#[test]
fn a_list_that_is_out_of_reach_at_the_end_was_not_empty() {
    let (mut server, mut ledger, now) = (Server::default(), ledger(), Instant::now());
    let mut take = Take::new(true);
    while !take.saw_none() {
        let (list, is_list) = match next_of(&mut take, &mut ledger, now, 1000) {
            Step::Atomic(list) => (list, true),
            Step::One(list, _) => (list, false),
            _ => panic!("nothing else"),
        };
        take.told(&mut ledger, now, Ok(server.answer(&list, is_list)));
    }
    drop(next_of(&mut take, &mut ledger, now, 1000));
    take.told(&mut ledger, now, Err(lost()));
    assert!(matches!(next_of(&mut take, &mut ledger, now, 0), Step::Failed(_)));
    assert!(!take.saw_none());
}
