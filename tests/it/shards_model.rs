//! Random commands to several shards and to one big server: what is seen must be the same.
//!
//! SHARDS_STEPS and SHARDS_SEED choose how many commands run, and which.

use std::sync::Arc;

use vigie::client::{CallFlags, Client, Target, Timeout};
use vigie::queue::Queue;
use vigie::resp::{Kind, Reply};
use vigie::shard::Shards;
use vigie::sys::random;

use crate::calls::{config, open};
use crate::completions;
use crate::support::*;

const KEYS: usize = 14;

struct Both {
    one: Arc<Client>,
    shards: Arc<Shards>,
    queue: Arc<Queue>,
    rng: fastrand_like::Rng,
    done: Vec<String>,
}

/// A generator with a seed that a failure prints.
mod fastrand_like {
    pub struct Rng(u64);

    impl Rng {
        pub fn new(seed: u64) -> Self {
            Self(seed)
        }

        /// SplitMix64.
        pub fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        pub fn below(&mut self, end: usize) -> usize {
            (self.next() % end as u64) as usize
        }

        pub fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
            from[self.below(from.len())]
        }
    }
}

/// What a reply shows, with what has no order sorted.
fn shown(reply: &Reply, node: u32, sorts: bool) -> String {
    if let Some(line) = reply.error_line(node) {
        let line = String::from_utf8_lossy(line).into_owned();
        return format!("error {}", line.split(' ').next().unwrap_or_default());
    }
    if reply.kind(node).is_aggregate() {
        let mut parts: Vec<String> = reply.children(node).map(|child| shown(reply, child, sorts)).collect();
        if sorts {
            parts.sort();
        }
        return format!("[{}]", parts.join(" "));
    }
    match (reply.bytes(node), reply.int(node), reply.kind(node)) {
        (_, _, Kind::Null) => "null".into(),
        (Some(bytes), _, _) => format!("{:?}", String::from_utf8_lossy(bytes)),
        (_, Some(number), _) => number.to_string(),
        _ => format!("{:?}", reply.kind(node)),
    }
}

fn outcome(outcome: vigie::error::Result<Reply>, sorts: bool) -> String {
    match outcome {
        Ok(reply) => shown(&reply, 0, sorts),
        Err(error) if !error.server_code().is_empty() => format!("error {}", error.server_code()),
        Err(error) => format!("{:?}: {}", error.status(), error.message()),
    }
}

impl Both {
    fn key(&mut self) -> String {
        format!("k{}", self.rng.below(KEYS))
    }

    fn value(&mut self) -> String {
        format!("v{}", self.rng.below(6))
    }

    fn keys(&mut self, most: usize) -> Vec<String> {
        let count = 1 + self.rng.below(most);
        (0..count).map(|_| self.key()).collect()
    }

    /// A random command, and whether its reply has no order.
    fn command(&mut self) -> (Vec<String>, bool) {
        let words = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let (a, b, v, w) = (self.key(), self.key(), self.value(), self.value());
        let n = self.rng.below(9).to_string();
        let end = |rng: &mut fastrand_like::Rng| rng.pick(&["LEFT", "RIGHT"]);
        match self.rng.below(44) {
            0 => (words(&["SET", &a, &v]), false),
            1 => (words(&["SET", &a, &v, "PX", "1000000"]), false),
            2 => (words(&["GET", &a]), false),
            3 => ([words(&[self.rng.pick(&["DEL", "UNLINK"])]), self.keys(3)].concat(), false),
            4 => ([words(&[self.rng.pick(&["EXISTS", "TOUCH"])]), self.keys(5)].concat(), false),
            5 => ([words(&["MGET"]), self.keys(6)].concat(), false),
            6 => (words(&[self.rng.pick(&["MSET", "MSETNX"]), &a, &v, &b, &w]), false),
            7 => (words(&["MSET", &a, &v, &b, &w, &a, &w]), false),
            8 => (words(&["INCR", &a]), false),
            9 => (words(&["APPEND", &a, &v]), false),
            10..=12 => (words(&[self.rng.pick(&["LPUSH", "RPUSH"]), &a, &v, &w]), false),
            13 => (words(&["LRANGE", &a, "0", "-1"]), false),
            14 => (words(&[self.rng.pick(&["LPOP", "RPOP", "LLEN"]), &a]), false),
            15 | 16 => (words(&["RPOPLPUSH", &a, &b]), false),
            17 | 18 => (words(&["LMOVE", &a, &b, end(&mut self.rng), end(&mut self.rng)]), false),
            19..=22 => (words(&["SADD", &a, &v, &w, &n]), false),
            23 => (words(&["SREM", &a, &v]), false),
            24 => (words(&["SMEMBERS", &a]), true),
            25 | 26 => ([words(&[self.rng.pick(&["SUNION", "SINTER", "SDIFF"])]), self.keys(3)].concat(), true),
            27 | 28 => {
                let name = self.rng.pick(&["SUNIONSTORE", "SINTERSTORE", "SDIFFSTORE"]);
                ([words(&[name, &a]), self.keys(3)].concat(), false)
            }
            29 | 30 => (words(&["SMOVE", &a, &b, &v]), false),
            31 => (words(&["HSET", &a, &v, &w, &w, &n]), false),
            32 => (words(&["HGETALL", &a]), true),
            33 => (words(&["ZADD", &a, &n, &v]), false),
            34 => (words(&["ZRANGE", &a, "0", "-1", "WITHSCORES"]), false),
            35 | 36 => (words(&["RENAME", &a, &b]), false),
            37 => (words(&["RENAMENX", &a, &b]), false),
            38 => (words(&["COPY", &a, &b]), false),
            39 => (words(&["COPY", &a, &b, "REPLACE"]), false),
            40 => (words(&[self.rng.pick(&["TYPE", "PERSIST"]), &a]), false),
            41 => (words(&["PEXPIRE", &a, "1000000"]), false),
            42 => (words(&["KEYS", self.rng.pick(&["*", "k1*", "nothing"])]), true),
            _ => (words(&["DBSIZE"]), false),
        }
    }

    fn compare(&mut self, commands: &[(Vec<String>, bool)], way: usize) {
        let lists: Vec<Vec<&[u8]>> =
            commands.iter().map(|(args, _)| args.iter().map(|arg| arg.as_bytes()).collect()).collect();
        let sorts = commands.iter().any(|(_, sorts)| *sorts);
        let (flags, time) = (CallFlags::default(), Timeout::Ms(60_000));
        let mut encoded = Vec::new();
        for args in &lists {
            vigie::resp::encode::command(&mut encoded, args);
        }
        let (one, other) = match way {
            0 => (self.one.cmd_exec(&lists[0], flags, time), self.shards.cmd_exec(&lists[0], flags, time)),
            1 => (self.one.cmds_exec(&encoded, flags, time), self.shards.cmds_exec(&encoded, flags, time)),
            _ => {
                self.shards.cmds_submit(&encoded, flags, time, &self.queue, 7).expect("taken");
                (self.one.cmds_exec(&encoded, flags, time), completions::one(&self.queue).1)
            }
        };
        let (one, other) = (outcome(one, sorts), outcome(other, sorts));
        let lines: Vec<String> = commands.iter().map(|(args, _)| args.join(" ")).collect();
        self.done.push(lines.join("; "));
        let last = self.done.len().saturating_sub(12);
        assert_eq!(one, other, "one server, and shards, after\n{}", self.done[last..].join("\n"));
    }

    /// All that is there, with its times to live.
    fn compare_all(&mut self) {
        for at in 0..KEYS {
            let key = format!("k{at}");
            for name in ["TYPE", "PTTL"] {
                let lives = |text: String| if name == "PTTL" { (text.len() > 3).to_string() } else { text };
                let args = [name.as_bytes(), key.as_bytes()];
                let one = self.one.cmd_exec(&args, CallFlags::default(), Timeout::Default);
                let other = self.shards.cmd_exec(&args, CallFlags::default(), Timeout::Default);
                assert_eq!(lives(outcome(one, false)), lives(outcome(other, false)), "{name} {key}");
            }
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The shards' own servers, and the big one.
fn both(d: &Deployment, names: &[&str], options: &[(&str, &str)], seed: u64) -> Both {
    let texts: Vec<String> =
        names.iter().enumerate().map(|(at, name)| format!("node_{}=redis://{}", at + 1, d.node(name).addr())).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let shards = Shards::open(None, &texts, Some(&config(options))).expect("shards");
    let uri = format!("redis://{}", d.node("one-0").addr());
    let sentinel = vigie::topology::Sentinel::create(config(&[("uri", &uri)]).settings().unwrap(), None).expect("one");
    let one = open(&sentinel, Target::Primary, &[]);
    Both { one, shards, queue: completions::queue(64), rng: fastrand_like::Rng::new(seed), done: Vec::new() }
}

#[test]
fn ten_thousand_commands_show_the_same_as_on_one_big_server() {
    let d = Deployment::new("shards-model").services(["one", "a", "b", "c"]).replicas(0).sentinels(0).start();
    let seed = number("SHARDS_SEED", random::rng().u64(..));
    println!("SHARDS_SEED={seed}");
    let options = [("shard.hash", "crc16"), ("timeout.call", "60000")];
    let mut both = both(&d, &["a-0", "b-0", "c-0"], &options, seed);
    let mut left = number("SHARDS_STEPS", 10_000);
    while left > 0 {
        let way = both.rng.below(3);
        let count = if way == 0 { 1 } else { 1 + both.rng.below(5) };
        let commands: Vec<_> = (0..count).map(|_| both.command()).collect();
        both.compare(&commands, way);
        left = left.saturating_sub(count as u64);
        if left % 64 == 0 {
            both.compare_all();
        }
    }
    both.compare_all();
}
