//! A scripted RESP server: answers as a handler says, injects faults, and remembers every command.
//!
//! It knows connections, faults, subscriptions and the log; what a Sentinel or a data node answers is in
//! fake_sentinel.rs and fake_node.rs.

use super::listen::{Acceptor, Listen, Place, Stream};
use super::proc;
use super::resp::{self, Value};
use super::wait::eventually;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a client has said about its connection.
#[derive(Clone, Debug)]
pub struct Session {
    pub protocol: u8,
    pub logged_in: bool,
    pub name: String,
    pub db: u32,
    channels: BTreeSet<String>,
    patterns: BTreeSet<String>,
}

/// One command as a handler sees it.
pub struct Call<'a> {
    /// Connections are counted from 1.
    pub conn: u64,
    pub args: &'a [Vec<u8>],
    pub session: &'a mut Session,
}

/// A handler's answer to a command.
pub enum Act {
    Reply(Value),
    /// Several replies, as SUBSCRIBE gives.
    Replies(Vec<Value>),
    /// Replies, then closes.
    Last(Value),
    /// Sends nothing and goes on.
    Silence,
    /// Closes without an answer.
    Close,
}

/// A fault on commands, which takes precedence over the handler.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This error line instead (the command is not executed).
    Error(String),
    /// This reply instead (not executed).
    Reply(Value),
    /// These bytes instead (not executed).
    Raw(Vec<u8>),
    /// These bytes instead (not executed), then closes.
    Last(Vec<u8>),
    /// Announces an array of a thousand million elements and no more.
    Endless,
    /// Waits until the faults are cleared, then executes and answers.
    Stall,
    /// Waits this long, then executes and answers.
    Delay(Duration),
    /// Executes, sends half of the reply and closes.
    Half,
    /// Executes and closes: the reply is lost.
    Lost,
    /// Closes; not executed.
    Close,
    /// Closes with a reset; not executed.
    Reset,
    /// Executes and sends the reply in pieces of this many bytes, with a pause between them.
    Pieces(usize, Duration),
}

struct Rule {
    pattern: String,
    fault: Fault,
    skip: u32,
    left: Option<u32>,
}

/// A command that was received.
#[derive(Clone, Debug)]
pub struct Entry {
    pub at: Instant,
    pub conn: u64,
    pub peer: String,
    pub args: Vec<Vec<u8>>,
}

impl Entry {
    pub fn text(&self) -> String {
        self.args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect::<Vec<_>>().join(" ")
    }
}

struct Conn {
    id: u64,
    peer: String,
    stream: Stream,
    session: Mutex<Session>,
    /// One writer at a time, so that published messages do not break replies.
    writing: Mutex<()>,
}

type Handler = dyn Fn(&mut Call) -> Act + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    rules: Mutex<Vec<Rule>>,
    /// Counts changes of the rules; a stall ends when it changes.
    version: AtomicU64,
    log: Mutex<Vec<Entry>>,
    conns: Mutex<BTreeMap<u64, Arc<Conn>>>,
    accepted: AtomicU64,
    peak: AtomicU64,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

pub struct Scripted {
    shared: Arc<Shared>,
    acceptor: Mutex<Option<Acceptor>>,
    place: Place,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Scripted {
    /// Listens on 127.0.0.1.
    pub fn start(handler: impl Fn(&mut Call) -> Act + Send + Sync + 'static) -> Scripted {
        Scripted::start_on(Listen::V4, handler)
    }

    pub fn start_on(listen: Listen, handler: impl Fn(&mut Call) -> Act + Send + Sync + 'static) -> Scripted {
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            rules: Mutex::default(),
            version: AtomicU64::new(0),
            log: Mutex::default(),
            conns: Mutex::default(),
            accepted: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            threads: Mutex::default(),
        });
        let server = Scripted { shared, acceptor: Mutex::default(), place: Place::reserve(listen) };
        server.up();
        server
    }

    pub fn addr(&self) -> String {
        self.place.addr()
    }
    pub fn port(&self) -> u16 {
        self.place.port()
    }

    /// Stops listening (connections are refused) and closes all connections.
    pub fn down(&self) {
        locked(&self.acceptor).take();
        self.close_all();
    }
    /// Listens again at the same address.
    pub fn up(&self) {
        let shared = self.shared.clone();
        let acceptor = Acceptor::start(&self.place, move |stream, peer| shared.accept(stream, peer));
        *locked(&self.acceptor) = Some(acceptor.expect("the place is ours"));
    }
    /// The kernel completes handshakes, but the connections are not accepted.
    pub fn pause_accept(&self, on: bool) {
        if let Some(acceptor) = &*locked(&self.acceptor) {
            acceptor.pause(on);
        }
    }
    pub fn close_all(&self) {
        self.shared.all().iter().for_each(|conn| conn.stream.shutdown());
    }
    pub fn reset_all(&self) {
        self.shared.all().iter().for_each(|conn| conn.stream.reset());
    }

    /// Puts a fault on commands that begin with the words of `pattern` (`GET`, `SENTINEL MASTER`; `*` is every command, `@accept` a
    /// new connection, `@long` a command of which 64 KiB have come, and not all). The rule that was added last counts first.
    pub fn fault(&self, pattern: &str, fault: Fault) {
        self.rule(pattern, fault, 0, None);
    }
    /// A fault on this many commands only.
    pub fn fault_times(&self, pattern: &str, times: u32, fault: Fault) {
        self.rule(pattern, fault, 0, Some(times));
    }
    /// A fault on one command, after `skip` matching ones.
    pub fn fault_after(&self, pattern: &str, skip: u32, fault: Fault) {
        self.rule(pattern, fault, skip, Some(1));
    }
    /// A fault on all commands after `skip` matching ones.
    pub fn fault_from(&self, pattern: &str, skip: u32, fault: Fault) {
        self.rule(pattern, fault, skip, None);
    }
    fn rule(&self, pattern: &str, fault: Fault, skip: u32, left: Option<u32>) {
        locked(&self.shared.rules).push(Rule { pattern: pattern.into(), fault, skip, left });
    }
    /// Clears the faults; stalled commands go on.
    pub fn clear_faults(&self) {
        locked(&self.shared.rules).clear();
        self.shared.version.fetch_add(1, Ordering::Release);
    }

    /// All commands so far.
    pub fn log(&self) -> Vec<Entry> {
        locked(&self.shared.log).clone()
    }
    pub fn clear_log(&self) {
        locked(&self.shared.log).clear();
    }
    /// All commands so far as text.
    pub fn commands(&self) -> Vec<String> {
        locked(&self.shared.log).iter().map(Entry::text).collect()
    }
    /// How many commands began with the words of `pattern`.
    pub fn count(&self, pattern: &str) -> usize {
        locked(&self.shared.log).iter().filter(|entry| matches(pattern, &entry.args)).count()
    }
    /// Did any argument ever hold this text?
    pub fn saw(&self, text: &str) -> bool {
        let holds = |arg: &Vec<u8>| arg.windows(text.len()).any(|window| window == text.as_bytes());
        locked(&self.shared.log).iter().flat_map(|entry| &entry.args).any(holds)
    }
    /// Waits until `count` commands have begun with the words of `pattern`.
    #[track_caller]
    pub fn wait_count(&self, pattern: &str, count: usize, timeout: Duration) {
        eventually(&format!("{} gets {pattern} {count} times", self.addr()), timeout, || self.count(pattern) >= count);
    }
    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Acquire)
    }
    /// Connections open now.
    pub fn connections(&self) -> usize {
        locked(&self.shared.conns).len()
    }
    /// The most connections that were ever open at a time.
    pub fn peak(&self) -> u64 {
        self.shared.peak.load(Ordering::Acquire)
    }
    /// What the clients have said about the open connections.
    pub fn sessions(&self) -> Vec<Session> {
        self.shared.all().iter().map(|conn| locked(&conn.session).clone()).collect()
    }

    /// Publishes to the subscribers of the channel; returns their number.
    pub fn publish(&self, channel: &str, payload: &str) -> usize {
        self.shared.all().iter().map(|conn| conn.publish(channel, payload)).sum()
    }
    /// Sends bytes to every open connection, unasked.
    pub fn push_bytes(&self, bytes: &[u8]) {
        self.shared.all().iter().for_each(|conn| drop(conn.write(bytes)));
    }
}

impl Scripted {
    /// Its address and the last commands, for the message of a failing test.
    fn report(&self) {
        let log = self.log();
        let last = log.iter().skip(log.len().saturating_sub(30));
        let lines: String =
            last.map(|entry| format!("\n  on connection {}: {:.200}", entry.conn, entry.text())).collect();
        eprintln!(
            "--- scripted server {}, {} connections, {} commands{lines}",
            self.addr(),
            self.accepted(),
            log.len()
        );
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.report();
        }
        self.clear_faults();
        self.down();
        let threads = std::mem::take(&mut *locked(&self.shared.threads));
        threads.into_iter().for_each(|thread| drop(thread.join()));
    }
}

impl Session {
    /// SUBSCRIBE and its three relatives, with their arguments.
    pub fn subscribe(&mut self, args: &[Vec<u8>]) -> Act {
        let kind = String::from_utf8_lossy(&args[0]).to_lowercase();
        let set = if kind.starts_with('p') { &mut self.patterns } else { &mut self.channels };
        let mut names: Vec<String> = args[1..].iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        let leaving = kind.contains("unsub");
        if leaving && names.is_empty() {
            names = set.iter().cloned().collect();
        }
        let mut counts = Vec::new();
        for name in &names {
            if leaving {
                set.remove(name)
            } else {
                set.insert(name.clone())
            };
            counts.push(set.len() as i64);
        }
        let other = if kind.starts_with('p') { self.channels.len() } else { self.patterns.len() } as i64;
        let reply = |(name, count)| Value::Push(vec![Value::bulk(&kind), Value::bulk(name), Value::Int(count + other)]);
        Act::Replies(names.iter().zip(counts).map(reply).collect())
    }
}

impl Conn {
    fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        let _one = locked(&self.writing);
        (&self.stream).write_all(bytes)
    }

    fn publish(&self, channel: &str, payload: &str) -> usize {
        let session = locked(&self.session).clone();
        let mut out = Vec::new();
        let mut count = 0;
        if session.channels.contains(channel) {
            Value::Push(["message", channel, payload].map(Value::bulk).to_vec()).encode(session.protocol, &mut out);
            count += 1;
        }
        for pattern in session.patterns.iter().filter(|pattern| glob(pattern, channel)) {
            let message = ["pmessage", pattern, channel, payload].map(Value::bulk).to_vec();
            Value::Push(message).encode(session.protocol, &mut out);
            count += 1;
        }
        match self.write(&out) {
            Ok(()) => count,
            Err(_) => 0,
        }
    }
}

/// Patterns of PSUBSCRIBE with `*` only.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text
            .strip_prefix(head)
            .is_some_and(|tail| (0..=tail.len()).any(|at| tail.is_char_boundary(at) && glob(rest, &tail[at..]))),
    }
}

/// Do the arguments begin with the words of the pattern?
fn matches(pattern: &str, args: &[Vec<u8>]) -> bool {
    let words: Vec<&str> = pattern.split_whitespace().collect();
    let same = words.iter().zip(args).all(|(word, arg)| arg.eq_ignore_ascii_case(word.as_bytes()));
    pattern == "*" || words.len() <= args.len() && same
}

/// The part of a command that has come when `@long` applies.
const LONG: usize = 64 << 10;

/// What a fault can apply to.
#[derive(Clone, Copy)]
enum Moment<'a> {
    Accepted,
    Long,
    Command(&'a [Vec<u8>]),
}

/// Whether a connection goes on.
enum Flow {
    On,
    End,
}

impl Shared {
    fn all(&self) -> Vec<Arc<Conn>> {
        locked(&self.conns).values().cloned().collect()
    }

    fn accept(self: &Arc<Self>, stream: Stream, peer: String) {
        let id = self.accepted.fetch_add(1, Ordering::AcqRel) + 1;
        let (channels, patterns) = (BTreeSet::new(), BTreeSet::new());
        let session = Session { protocol: 2, logged_in: false, name: String::new(), db: 0, channels, patterns };
        let conn = Arc::new(Conn { id, peer, stream, session: Mutex::new(session), writing: Mutex::default() });
        let mut conns = locked(&self.conns);
        conns.insert(id, conn.clone());
        self.peak.fetch_max(conns.len() as u64, Ordering::AcqRel);
        drop(conns);
        let shared = self.clone();
        let thread = proc::thread("kit-scripted", move || {
            shared.serve(&conn);
            locked(&shared.conns).remove(&conn.id);
            conn.stream.shutdown();
        });
        let mut threads = locked(&self.threads);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
    }

    /// The fault for this moment, if a rule has one.
    fn fault_for(&self, moment: Moment) -> Option<Fault> {
        let mut rules = locked(&self.rules);
        let hits = |rule: &Rule| match moment {
            Moment::Accepted => rule.pattern == "@accept",
            Moment::Long => rule.pattern == "@long",
            Moment::Command(args) => !rule.pattern.starts_with('@') && matches(&rule.pattern, args),
        };
        for rule in rules.iter_mut().rev().filter(|rule| hits(rule) && rule.left != Some(0)) {
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.left = rule.left.map(|left| left - 1);
            return Some(rule.fault.clone());
        }
        None
    }

    fn serve(&self, conn: &Conn) {
        if matches!(self.apply(conn, Moment::Accepted), Flow::End) {
            return;
        }
        let mut input: Vec<u8> = Vec::new();
        let mut chunk = [0; 16 << 10];
        let mut long = false;
        loop {
            let mut taken = 0;
            while let Ok(Some((args, length))) = resp::parse_command(&input[taken..]) {
                (taken, long) = (taken + length, false);
                if args.is_empty() {
                    continue;
                }
                let entry = Entry { at: Instant::now(), conn: conn.id, peer: conn.peer.clone(), args: args.clone() };
                locked(&self.log).push(entry);
                if matches!(self.apply(conn, Moment::Command(&args)), Flow::End) {
                    return;
                }
            }
            input.drain(..taken);
            let is_long = input.len() >= LONG && !std::mem::replace(&mut long, true);
            if is_long && matches!(self.apply(conn, Moment::Long), Flow::End) {
                return;
            }
            match (&conn.stream).read(&mut chunk) {
                Ok(count) if count > 0 => input.extend_from_slice(&chunk[..count]),
                _ => return,
            }
        }
    }

    /// Executes one command with the fault that applies to it, or applies a fault alone.
    fn apply(&self, conn: &Conn, moment: Moment) -> Flow {
        let instead = |bytes: &[u8]| if conn.write(bytes).is_ok() { Flow::On } else { Flow::End };
        let fault = self.fault_for(moment);
        let protocol = locked(&conn.session).protocol;
        match &fault {
            Some(Fault::Error(line)) => return instead(&Value::error(line).to_bytes(protocol)),
            Some(Fault::Reply(value)) => return instead(&value.to_bytes(protocol)),
            Some(Fault::Raw(bytes)) => return instead(bytes),
            Some(Fault::Last(bytes)) => {
                let _ = conn.write(bytes);
                return Flow::End;
            }
            Some(Fault::Endless) => return instead(b"*1000000000\r\n"),
            Some(Fault::Close) => return Flow::End,
            Some(Fault::Reset) => {
                conn.stream.reset();
                return Flow::End;
            }
            Some(Fault::Stall) => self.stall(conn),
            Some(Fault::Delay(time)) => std::thread::sleep(*time),
            _ => {}
        }
        let Moment::Command(args) = moment else { return Flow::On };
        let (bytes, flow) = self.execute(conn, args);
        let sent = match fault {
            Some(Fault::Lost) => return Flow::End,
            Some(Fault::Half) => {
                let _ = conn.write(&bytes[..bytes.len() / 2]);
                return Flow::End;
            }
            Some(Fault::Pieces(size, pause)) => bytes.chunks(size).try_for_each(|piece| {
                conn.write(piece)?;
                std::thread::sleep(pause);
                Ok(())
            }),
            _ => conn.write(&bytes),
        };
        if sent.is_ok() { flow } else { Flow::End }
    }

    /// The bytes that the handler answers.
    fn execute(&self, conn: &Conn, args: &[Vec<u8>]) -> (Vec<u8>, Flow) {
        let mut session = locked(&conn.session);
        let act = (self.handler)(&mut Call { conn: conn.id, args, session: &mut session });
        let mut out = Vec::new();
        match act {
            Act::Reply(value) => value.encode(session.protocol, &mut out),
            Act::Replies(values) => values.iter().for_each(|value| value.encode(session.protocol, &mut out)),
            Act::Last(value) => {
                value.encode(session.protocol, &mut out);
                return (out, Flow::End);
            }
            Act::Silence => {}
            Act::Close => return (out, Flow::End),
        }
        (out, Flow::On)
    }

    /// Waits until the faults are cleared or the peer is gone.
    fn stall(&self, conn: &Conn) {
        let version = self.version.load(Ordering::Acquire);
        while self.version.load(Ordering::Acquire) == version && !conn.stream.hung_up() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Call<'_> {
    /// An argument as upper-case text; empty when it is not there.
    pub fn word(&self, index: usize) -> String {
        self.text(index).to_uppercase()
    }
    /// An argument as text; empty when it is not there.
    pub fn text(&self, index: usize) -> String {
        self.args.get(index).map(|arg| String::from_utf8_lossy(arg).into_owned()).unwrap_or_default()
    }
    /// SUBSCRIBE and its relatives.
    pub fn subscribe(&mut self) -> Act {
        self.session.subscribe(self.args)
    }
}

/// A scripted server with a state that tests change while it runs.
pub struct Preset<S> {
    server: Scripted,
    state: Arc<Mutex<S>>,
}

impl<S: Send + 'static> Preset<S> {
    pub fn start(listen: Listen, state: S, answer: fn(&mut S, &mut Call) -> Act) -> Preset<S> {
        let state = Arc::new(Mutex::new(state));
        let seen = state.clone();
        let server = Scripted::start_on(listen, move |call| answer(&mut locked(&seen), call));
        Preset { server, state }
    }
    /// Reads or changes the state.
    pub fn state<R>(&self, change: impl FnOnce(&mut S) -> R) -> R {
        change(&mut locked(&self.state))
    }
}

impl<S> Deref for Preset<S> {
    type Target = Scripted;
    fn deref(&self) -> &Scripted {
        &self.server
    }
}
