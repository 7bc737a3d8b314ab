//! A worker against a model of the lists: answers are lost and primaries forget at random, and no job is lost or handed out twice
//! without a mark.

use std::collections::VecDeque;
use std::time::Duration;

use super::envelope::Job;
use super::keys::Keys;
use super::ledger::Ledger;
use super::take::{Step, Take};
use crate::error::{Error, Status, flags};
use crate::resp::{Reply, ReplyBuilder, list};
use crate::sys::random;
use crate::time::Instant;

/// The two lists and the lease.
#[derive(Default, Clone)]
struct Server {
    ready: VecDeque<Vec<u8>>,
    processing: VecDeque<Vec<u8>>,
    lease: Option<Vec<u8>>,
}

impl Server {
    fn run(&mut self, command: &[Vec<u8>], out: &mut ReplyBuilder) {
        let arg = |at: usize| command[at].clone();
        match command[0].as_slice() {
            b"SET" if command.len() == 6 && self.lease.is_some() => _ = out.null(),
            b"SET" => {
                self.lease = Some(arg(2));
                out.text("OK");
            }
            b"PEXPIRE" | b"SADD" => _ = out.int(1),
            b"GET" => match &self.lease {
                Some(token) => _ = out.bytes(token),
                None => _ = out.null(),
            },
            b"LLEN" => _ = out.int(self.processing.len() as i64),
            b"LRANGE" => {
                out.array();
                for text in &self.processing {
                    out.bytes(text);
                }
                out.end();
            }
            b"LINDEX" => match self.processing.front() {
                Some(text) => _ = out.bytes(text),
                None => _ = out.null(),
            },
            b"LINSERT" => match self.processing.iter().position(|text| *text == command[3]) {
                Some(at) => {
                    self.processing.insert(at, arg(4));
                    out.int(self.processing.len() as i64);
                }
                None => _ = out.int(-1),
            },
            b"LREM" => match self.processing.iter().position(|text| *text == command[3]) {
                Some(at) => {
                    self.processing.remove(at);
                    out.int(1);
                }
                None => _ = out.int(0),
            },
            b"LMOVE" | b"BLMOVE" => match self.ready.pop_back() {
                Some(text) => {
                    out.bytes(&text);
                    self.processing.push_front(text);
                }
                None => _ = out.null(),
            },
            b"SMEMBERS" => _ = out.array().text("w").end(),
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
    seen: std::collections::BTreeMap<Vec<u8>, Vec<u32>>,
    in_hand: Vec<Job>,
}

fn ledger() -> Ledger {
    Ledger::new(Keys::new("q", "w").unwrap(), Duration::from_secs(10))
}

fn lost() -> Error {
    Error::new(Status::Io, "lost").with_flags(flags::MAYBE_EXECUTED)
}

impl World {
    fn new(jobs: usize) -> Self {
        let plain = |n: usize| n.to_string().into_bytes();
        let envelope = |n: usize| Job::new(None, 0, n.to_string().as_bytes()).unwrap().encoded().to_vec();
        let ready = (0..jobs).map(|n| if n % 3 == 0 { plain(n) } else { envelope(n) }).collect();
        let server = Server { ready, ..Server::default() };
        Self {
            durable: server.clone(),
            server,
            ledger: ledger(),
            take: Take::new(true),
            now: Instant::now(),
            seen: Default::default(),
            in_hand: Vec::new(),
        }
    }

    /// One step of the take, with this fate. `false`: there was no job.
    fn step(&mut self, fate: Fate) -> bool {
        self.now += Duration::from_millis(300);
        let left = Some(Duration::from_millis(if fate == Fate::Fine { 0 } else { 1000 }));
        let (list, is_list) = match self.take.next(&mut self.ledger, self.now, left) {
            Step::Atomic(list) => (list, true),
            Step::One(list, _) => (list, false),
            Step::HandBack(_) => unreachable!("the model has no other worker"),
            Step::Failed(_) => return true,
            Step::Over(outcome) => {
                self.take = Take::new(true);
                let Some(job) = outcome.expect("a definite error") else { return false };
                self.seen.entry(job.payload().to_vec()).or_default().push(job.redelivered());
                self.in_hand.push(job);
                return true;
            }
        };
        let outcome = match fate {
            Fate::NotSent => Err(lost()),
            Fate::NoAnswer => {
                self.server.answer(&list, is_list);
                Err(lost())
            }
            Fate::Fine => Ok(self.server.answer(&list, is_list)),
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
        self.server.processing.retain(|text| text != job.encoded());
        if is_answered {
            self.durable = self.server.clone();
            self.ledger.forget(&job);
        } else {
            self.in_hand.push(job);
        }
    }

    /// Another worker finds the lease over, and hands everything back.
    fn lose_lease(&mut self) {
        self.server.lease = None;
        for text in std::mem::take(&mut self.server.processing).into_iter().rev() {
            self.server.ready.push_front(Job::marked(&text).unwrap().encoded().to_vec());
        }
        self.durable = self.server.clone();
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
}

#[test]
fn three_thousand_random_histories_lose_no_job_and_mark_what_comes_twice() {
    let mut rng = random::rng();
    for history in 0..3_000 {
        let (seed, jobs) = (rng.u64(..), 1 + history % 6);
        let mut fate = fastrand::Rng::with_seed(seed);
        let mut world = World::new(jobs);
        for _ in 0..fate.usize(0..60) {
            match fate.u32(0..20) {
                0 => world.server = world.durable.clone(),
                1 => world.lose_lease(),
                2 => world.restart(),
                3 => world.server.lease = None,
                4..=6 => world.ack(fate.bool()),
                7 => drop(world.step(Fate::NotSent)),
                8..=9 => drop(world.step(Fate::NoAnswer)),
                _ => drop(world.step(Fate::Fine)),
            }
        }
        // In the end nothing goes wrong any more, and another worker with the name does the rest.
        world.restart();
        let mut steps = 0;
        while world.step(Fate::Fine) {
            steps += 1;
            assert!(steps < 500, "seed {seed}: it does not end");
        }
        while !world.in_hand.is_empty() {
            world.ack(true);
        }
        assert_eq!((world.server.ready.len(), world.server.processing.len()), (0, 0), "seed {seed}");
        for n in 0..jobs {
            let marks = world.seen.get(n.to_string().as_bytes()).unwrap_or_else(|| panic!("seed {seed}: {n} is lost"));
            let unmarked = marks.iter().filter(|mark| **mark == 0).count();
            assert!(unmarked <= 1, "seed {seed}: {n} came {unmarked} times without a mark");
        }
    }
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
