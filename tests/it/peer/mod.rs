//! A server that does what a test says: one thread and one script for each connection.
#![allow(dead_code)] // Each test binary uses a part of it.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vigie::config::{ClientSettings, Endpoint, LaneSettings, PoolSettings};
use vigie::lane::{Bytes, Lane, Outcome, Unit};
use vigie::net::{Conn, ConnectOptions, Expect};
use vigie::pool::{Pool, PoolSpec};
use vigie::resp::Limits;
use vigie::time::Deadline;

/// One connection, as the server sees it.
pub struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
    ready: VecDeque<Vec<Vec<u8>>>,
}

impl Peer {
    /// The next complete command; `None` at the end of the connection.
    pub fn next(&mut self) -> Option<Vec<Vec<u8>>> {
        loop {
            if let Some(command) = self.ready.pop_front() {
                return Some(command);
            }
            let mut piece = [0; 65536];
            match self.stream.read(&mut piece) {
                Ok(n) if n > 0 => self.buffer.extend_from_slice(&piece[..n]),
                _ => return None,
            }
            let mut at = 0;
            while let Some((command, used)) = parse(&self.buffer[at..]) {
                self.ready.push_back(command);
                at += used;
            }
            self.buffer.drain(..at);
        }
    }

    /// The next command's last argument.
    pub fn next_arg(&mut self) -> Option<Vec<u8>> {
        self.next().map(|mut args| args.pop().unwrap())
    }

    /// Whether a command arrives within so long.
    pub fn hears_within(&mut self, time: Duration) -> Option<Vec<u8>> {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let heard = self.next_arg();
        self.stream.set_read_timeout(None).unwrap();
        heard
    }

    /// Sends bytes; a client that has gone is no fault of the script.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends a text as a bulk.
    pub fn say_bulk(&mut self, text: &[u8]) -> bool {
        let mut reply = format!("${}\r\n", text.len()).into_bytes();
        reply.extend_from_slice(text);
        reply.extend_from_slice(b"\r\n");
        self.say(reply)
    }

    /// Says this last word and ends the connection, both in one packet: who receives the one knows of the other.
    pub fn say_last(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = socket2::SockRef::from(&self.stream).set_tcp_cork(true);
        self.say(bytes);
        self.cut();
    }

    /// Answers each command with its last argument until the connection ends.
    pub fn echo(&mut self) {
        while let Some(text) = self.next_arg() {
            if !self.say_bulk(&text) {
                return;
            }
        }
    }

    /// Ends the connection, from any side.
    pub fn cut(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Reads until the client closes.
    pub fn await_end(&mut self) {
        while self.next().is_some() {}
    }

    fn greet(&mut self) -> bool {
        while let Some(command) = self.next() {
            let said = match command[0].to_ascii_uppercase().as_slice() {
                b"HELLO" => self.say("%1\r\n+proto\r\n:3\r\n"),
                b"ROLE" => return self.say("*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"),
                _ => self.say("+OK\r\n"),
            };
            if !said {
                return false;
            }
        }
        false
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.cut();
    }
}

fn parse(input: &[u8]) -> Option<(Vec<Vec<u8>>, usize)> {
    let mut at = 0;
    let count = header(input, &mut at, b'*')?;
    let mut args = Vec::new();
    for _ in 0..count {
        let len = header(input, &mut at, b'$')?;
        args.push(input.get(at..at + len)?.to_vec());
        at += len + 2;
    }
    (at <= input.len()).then_some((args, at))
}

fn header(input: &[u8], at: &mut usize, kind: u8) -> Option<usize> {
    let rest = input.get(*at..)?;
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    assert_eq!(rest[0], kind, "the client sent no command: {:?}", String::from_utf8_lossy(&rest[..rest.len().min(80)]));
    *at += end + 2;
    std::str::from_utf8(&rest[1..end]).ok()?.parse().ok()
}

/// Whether the client has ended its side, or this side was shut down.
fn hung_up(stream: &TcpStream) -> bool {
    let mut fd = libc::pollfd { fd: stream.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one structure on this stack frame, and a descriptor that the stream keeps open.
    unsafe { libc::poll(&raw mut fd, 1, 0) > 0 }
}

/// A listening server; its threads end with their connections.
pub struct Server {
    pub endpoint: Endpoint,
    /// Connections that were ever accepted, and those open at the moment, and most at one time.
    pub accepted: Arc<AtomicUsize>,
    pub open: Arc<AtomicUsize>,
    pub most_open: Arc<AtomicUsize>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Server {
    /// Runs the script for each connection, after the handshake; it is told which one it is.
    pub fn start(script: impl Fn(Peer, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let this = Self {
            endpoint: Endpoint::Tcp { host: "127.0.0.1".into(), port },
            accepted: Arc::default(),
            open: Arc::default(),
            most_open: Arc::default(),
            streams: Arc::default(),
        };
        let (accepted, open, most) = (this.accepted.clone(), this.open.clone(), this.most_open.clone());
        let (streams, script) = (this.streams.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut streams = streams.lock().unwrap();
                // Not `open`, which follows only when a thread of ours has seen the end.
                streams.retain(|stream| !hung_up(stream));
                streams.push(stream.try_clone().unwrap());
                most.fetch_max(streams.len(), Ordering::SeqCst);
                drop(streams);
                let number = accepted.fetch_add(1, Ordering::SeqCst);
                open.fetch_add(1, Ordering::SeqCst);
                let (open, script) = (open.clone(), script.clone());
                std::thread::spawn(move || {
                    let mut peer = Peer { stream, buffer: Vec::new(), ready: VecDeque::new() };
                    if peer.greet() {
                        script(peer, number);
                    }
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        this
    }

    /// A server that answers each command with its last argument.
    pub fn echo() -> Self {
        Self::start(|mut peer, _| peer.echo())
    }

    /// Cuts every connection there is, as CLIENT KILL would.
    pub fn kill_all(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub fn lane(&self, settings: LaneSettings) -> Lane {
        let conn = Conn::open(&self.endpoint, &connect_options(Limits::default()), after(20_000)).unwrap();
        Lane::new(conn.into_wire(), self.endpoint.to_string(), settings)
    }

    pub fn spec(&self, pool: PoolSettings) -> PoolSpec {
        PoolSpec {
            endpoint: self.endpoint.clone(),
            connect: connect_options(Limits::default()),
            pool,
            lane: LaneSettings::default(),
            pause: Arc::default(),
            meter: Arc::default(),
        }
    }

    pub fn pool(&self, pool: PoolSettings) -> Arc<Pool> {
        Pool::new(self.spec(pool))
    }
}

pub fn connect_options(limits: Limits) -> ConnectOptions {
    let timeout_connect = Duration::from_secs(20);
    ConnectOptions::of_node(&ClientSettings { limits, timeout_connect, ..ClientSettings::default() }, Expect::Any)
}

pub fn after(ms: u64) -> Deadline {
    Deadline::after(Duration::from_millis(ms))
}

/// ECHO of this text on a lane.
pub fn echo(lane: &Lane, text: &[u8], deadline: Deadline) -> Outcome {
    lane.exec(
        Unit { bytes: Bytes::Args(&[b"ECHO", text]), list: None, at_most_once: false, lease: None, atomic: false },
        deadline,
    )
}

/// ECHO of this text through a pool.
pub fn pool_echo(pool: &Arc<Pool>, text: &[u8], deadline: Deadline) -> Outcome {
    pool.exec(
        Unit { bytes: Bytes::Args(&[b"ECHO", text]), list: None, at_most_once: false, lease: None, atomic: false },
        false,
        deadline,
    )
}

pub fn echo_len(text: &[u8]) -> usize {
    Bytes::Args(&[b"ECHO", text]).len()
}

/// That the outcome is this text.
#[track_caller]
pub fn assert_text(outcome: &Outcome, text: &[u8]) {
    match outcome {
        Ok(reply) => assert_eq!(reply.bytes(0), Some(text)),
        Err(failure) => panic!("no {:?}: {failure:?}", String::from_utf8_lossy(&text[..text.len().min(40)])),
    }
}

/// Waits until it is so; fails after a time that nothing here needs, on a loaded machine neither.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "not in time: {what}");
        std::thread::sleep(Duration::from_micros(500));
    }
}
