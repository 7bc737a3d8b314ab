//! A TCP proxy that injects faults at run time: delay, trickle, silence, cuts, resets, lost replies.

use super::listen::{Acceptor, Listen, Place, Stream};
use super::proc;
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Direction of travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What happens to the connection whose client sends a trapped pattern. A trap works once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// Closes before the server gets it.
    CloseBefore,
    /// The server gets it and answers; the answer is dropped and the connection closed.
    LoseReply,
    /// The server gets it and answers; this many bytes of the answer pass, then the connection is closed.
    CutReply(usize),
}

/// What one direction does to all connections.
#[derive(Clone, Debug, Default)]
struct Faults {
    delay: Duration,
    trickle: Option<(usize, Duration)>,
    swallow: bool,
    stall: bool,
    drop_chunks: Vec<Vec<u8>>,
}

struct Shared {
    target: Mutex<String>,
    up: Mutex<Faults>,
    down: Mutex<Faults>,
    traps: Mutex<Vec<(Vec<u8>, Trap)>>,
    pairs: Mutex<Vec<Arc<Pair>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    accepted: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
}

/// A connection from the client and the one to the server that belongs to it.
struct Pair {
    client: Stream,
    server: Stream,
    closed: AtomicBool,
    /// Directions that have ended.
    ended: AtomicU64,
    /// After a trap: this many bytes of the reply still pass.
    reply_left: Mutex<Option<usize>>,
}

pub struct Proxy {
    shared: Arc<Shared>,
    acceptor: Mutex<Option<Acceptor>>,
    place: Place,
}

/// Longest time until a fault set at run time takes hold of an idle connection.
const TICK: Duration = Duration::from_millis(5);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Proxy {
    /// Listens on 127.0.0.1 and forwards to `target` (`host:port`, `unix:/path`).
    pub fn start(target: &str) -> Proxy {
        Proxy::start_on(Listen::V4, target)
    }
    pub fn start_on(listen: Listen, target: &str) -> Proxy {
        let shared = Arc::new(Shared {
            target: Mutex::new(target.into()),
            up: Mutex::default(),
            down: Mutex::default(),
            traps: Mutex::default(),
            pairs: Mutex::default(),
            threads: Mutex::default(),
            accepted: AtomicU64::new(0),
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
        });
        let proxy = Proxy { shared, acceptor: Mutex::default(), place: Place::reserve(listen) };
        proxy.listen();
        proxy
    }

    pub fn addr(&self) -> String {
        self.place.addr()
    }
    pub fn port(&self) -> u16 {
        self.place.port()
    }
    /// Where new connections go from now on.
    pub fn retarget(&self, target: &str) {
        *locked(&self.shared.target) = target.into();
    }

    /// New connections are refused; the present ones go on.
    pub fn refuse(&self) {
        locked(&self.acceptor).take();
    }
    /// Takes new connections again, at the same address.
    pub fn listen(&self) {
        let shared = self.shared.clone();
        let acceptor = Acceptor::start(&self.place, move |stream, _| shared.accept(stream));
        *locked(&self.acceptor) = Some(acceptor.expect("the place is ours"));
    }
    /// The kernel completes handshakes, but the connections are not accepted.
    pub fn pause_accept(&self, on: bool) {
        if let Some(acceptor) = &*locked(&self.acceptor) {
            acceptor.pause(on);
        }
    }
    /// Closes all connections, on both sides.
    pub fn cut(&self) {
        locked(&self.shared.pairs).iter().for_each(|pair| pair.close());
    }
    /// Ends all connections with a reset, on both sides.
    pub fn reset(&self) {
        locked(&self.shared.pairs).iter().for_each(|pair| pair.reset());
    }

    /// Everything that travels in this direction arrives later by this much.
    pub fn delay(&self, way: Way, delay: Duration) {
        locked(self.shared.faults(way)).delay = delay;
    }
    /// Only `bytes` at a time, with a pause after each.
    pub fn trickle(&self, way: Way, bytes: usize, pause: Duration) {
        locked(self.shared.faults(way)).trickle = Some((bytes.max(1), pause));
    }
    /// Everything is read and dropped.
    pub fn swallow(&self, way: Way, on: bool) {
        locked(self.shared.faults(way)).swallow = on;
    }
    /// Nothing is read: the sender's buffers fill.
    pub fn stall(&self, way: Way, on: bool) {
        locked(self.shared.faults(way)).stall = on;
    }
    /// Drops each chunk (what one read gave) that holds this pattern, for example a published message.
    pub fn drop_chunks(&self, way: Way, pattern: &str) {
        locked(self.shared.faults(way)).drop_chunks.push(pattern.as_bytes().to_vec());
    }
    /// Waits for these bytes on their way up.
    pub fn trap(&self, pattern: &str, trap: Trap) {
        locked(&self.shared.traps).push((pattern.as_bytes().to_vec(), trap));
    }
    /// No more faults of any kind for connections that still live.
    pub fn clear(&self) {
        *locked(&self.shared.up) = Faults::default();
        *locked(&self.shared.down) = Faults::default();
        locked(&self.shared.traps).clear();
    }

    /// Connections taken so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Acquire)
    }
    /// Connections open now.
    pub fn connections(&self) -> usize {
        locked(&self.shared.pairs).len()
    }
    /// Bytes read so far, swallowed ones included.
    pub fn bytes(&self, way: Way) -> u64 {
        self.shared.counter(way).load(Ordering::Acquire)
    }
    /// Traps that have not worked yet.
    pub fn traps_left(&self) -> usize {
        locked(&self.shared.traps).len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.refuse();
        self.cut();
        let threads = std::mem::take(&mut *locked(&self.shared.threads));
        threads.into_iter().for_each(|thread| drop(thread.join()));
    }
}

impl Pair {
    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.client.shutdown();
        self.server.shutdown();
    }
    fn reset(&self) {
        self.closed.store(true, Ordering::Release);
        self.client.reset();
        self.server.reset();
    }
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
    fn streams(&self, way: Way) -> (&Stream, &Stream) {
        match way {
            Way::Up => (&self.client, &self.server),
            Way::Down => (&self.server, &self.client),
        }
    }
    /// Sleeps until `due` unless the connection is closed before.
    fn sleep_until(&self, due: Instant) {
        while !self.is_closed() {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(TICK));
        }
    }
}

impl Shared {
    fn faults(&self, way: Way) -> &Mutex<Faults> {
        if way == Way::Up { &self.up } else { &self.down }
    }
    fn counter(&self, way: Way) -> &AtomicU64 {
        if way == Way::Up { &self.bytes_up } else { &self.bytes_down }
    }

    fn accept(self: &Arc<Self>, client: Stream) {
        self.accepted.fetch_add(1, Ordering::AcqRel);
        let target = locked(&self.target).clone();
        let Ok(server) = Stream::connect(&target) else { return client.reset() };
        let (closed, ended, reply_left) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::new(None));
        let pair = Arc::new(Pair { client, server, closed, ended, reply_left });
        locked(&self.pairs).push(pair.clone());
        let mut threads = locked(&self.threads);
        threads.retain(|thread| !thread.is_finished());
        for way in [Way::Up, Way::Down] {
            // The queue between the two threads is what makes a delay a delay, and not a lower throughput.
            let (sender, receiver) = sync_channel(1024);
            let (shared, reading) = (self.clone(), pair.clone());
            threads.push(proc::thread("kit-proxy-read", move || shared.read(&reading, way, sender)));
            let (shared, writing) = (self.clone(), pair.clone());
            threads.push(proc::thread("kit-proxy-write", move || shared.write(&writing, way, receiver)));
        }
    }

    fn read(&self, pair: &Pair, way: Way, queue: SyncSender<(Instant, Vec<u8>)>) {
        let (mut from, to) = pair.streams(way);
        let (mut chunk, mut tail) = (vec![0; 16 << 10], Vec::new());
        while !pair.is_closed() {
            if !from.readable(TICK) {
                continue;
            }
            // Checked after the wait: bytes that are sent after `stall(.., true)` has returned are not read.
            if locked(self.faults(way)).stall {
                std::thread::sleep(TICK);
                continue;
            }
            let count = match from.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => {
                    to.reset();
                    return pair.close();
                }
            };
            self.counter(way).fetch_add(count as u64, Ordering::AcqRel);
            let faults = locked(self.faults(way)).clone();
            let bytes = &chunk[..count];
            if faults.swallow || faults.drop_chunks.iter().any(|pattern| holds(bytes, pattern)) {
                continue;
            }
            if way == Way::Up && !self.spring(pair, bytes, &mut tail) {
                return pair.close();
            }
            if queue.send((Instant::now() + faults.delay, bytes.to_vec())).is_err() {
                return;
            }
        }
    }

    /// Looks for traps; false when the bytes must not pass.
    fn spring(&self, pair: &Pair, bytes: &[u8], tail: &mut Vec<u8>) -> bool {
        let mut traps = locked(&self.traps);
        tail.extend_from_slice(bytes);
        let hit = traps.iter().position(|(pattern, _)| holds(tail, pattern));
        let longest = traps.iter().map(|(pattern, _)| pattern.len()).max().unwrap_or(1);
        // A pattern may be split over two chunks.
        tail.drain(..tail.len().saturating_sub(longest - 1));
        let Some(hit) = hit else { return true };
        tail.clear();
        let left = match traps.remove(hit).1 {
            Trap::CloseBefore => return false,
            Trap::LoseReply => 0,
            Trap::CutReply(bytes) => bytes,
        };
        *locked(&pair.reply_left) = Some(left);
        true
    }

    fn write(&self, pair: &Pair, way: Way, queue: Receiver<(Instant, Vec<u8>)>) {
        let (_, mut to) = pair.streams(way);
        for (due, mut bytes) in queue {
            pair.sleep_until(due);
            let left = if way == Way::Down { *locked(&pair.reply_left) } else { None };
            bytes.truncate(left.unwrap_or(usize::MAX));
            let (size, pause) = locked(self.faults(way)).trickle.unwrap_or((bytes.len().max(1), Duration::ZERO));
            for piece in bytes.chunks(size) {
                if pair.is_closed() || to.write_all(piece).is_err() {
                    pair.close();
                    break;
                }
                pair.sleep_until(Instant::now() + pause);
            }
            match left {
                Some(left) if left <= bytes.len() => pair.close(),
                Some(left) => *locked(&pair.reply_left) = Some(left - bytes.len()),
                None => {}
            }
        }
        // The reader saw the end of its side.
        to.shutdown_write();
        if pair.ended.fetch_add(1, Ordering::AcqRel) == 1 {
            pair.close();
            locked(&self.pairs).retain(|other| !std::ptr::eq(&**other, pair));
        }
    }
}

fn holds(bytes: &[u8], pattern: &[u8]) -> bool {
    !pattern.is_empty() && bytes.windows(pattern.len()).any(|window| window == pattern)
}
