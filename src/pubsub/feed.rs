//! The connection of a subscription: it is polled, by a drain that waits or by the poller, and tells its owner what has come.
//!
//! Guarantees: nothing here waits; one thread at a time reads, so that messages keep their order; one turn reads a bounded number of
//! bytes; a connection that is idle keeps no receive buffer. Leaves to others: what a message means (wishes), what follows from the end
//! of the connection (subscription), and who drives it when no drain does (poller).

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::poller;
use crate::error::{Error, Result, Status};
use crate::meter::End;
use crate::net::{Conn, Filled, In, Out, Wire};
use crate::pool::Pool;
use crate::queue::{Driven, Source};
use crate::resp::{Decoded, Reply, Want};
use crate::sys::rank::Rank;
use crate::sys::sync::Lock;
use crate::sys::tried::Tried;

/// The most bytes of one receive, after which its messages are told and others have their turn: so they are drained while they are in the
/// processor's cache. With half a megabyte in a turn a message cost almost twice as much.
const TURN: usize = 8 * 1024;
/// Receives in a row of a large message.
const MOST_PIECES: usize = 8;
/// For how long the poller leaves a feed to a drain that has just ended, because the drain is likely to be repeated.
const DRAIN_GRACE: Duration = Duration::from_millis(5);
/// No time: nothing is due.
const NEVER: u64 = u64::MAX;

/// Who is told what has come.
pub(super) trait Hears: Send + Sync {
    /// These came, in this order, and then perhaps the end of the connection. The clock was read before the socket. `lives`: bytes came, be
    /// it of a message that is not complete.
    fn hear(&self, feed: &Feed, came: Vec<Reply>, lives: bool, end: Option<Error>, now: Instant);
}

/// A connection that messages come from.
pub(super) struct Feed {
    wire: Wire,
    pool: Arc<Pool>,
    owner: Weak<dyn Hears>,
    /// Of the thread that reads.
    input: Tried<In>,
    output: Lock<Out>,
    /// The kernel has not taken all of the output.
    full: AtomicBool,
    over: AtomicBool,
    /// The last turn has found something, or has not read all.
    busy: AtomicBool,
    more: AtomicBool,
    born: Instant,
    /// When it is driven although nothing came, in microseconds since `born`.
    due: AtomicU64,
    drains: AtomicUsize,
    /// A drain has ended since the poller looked last.
    drained: AtomicBool,
    /// Until when the poller leaves it alone, in microseconds since `born`.
    left_until: AtomicU64,
}

impl Feed {
    pub(super) fn new(conn: Conn, pool: Arc<Pool>, owner: Weak<dyn Hears>) -> Arc<Self> {
        let (wire, mut input) = conn.into_wire();
        input.set_most(TURN);
        Arc::new(Self {
            wire,
            pool,
            owner,
            input: Tried::new(input),
            output: Lock::new(Rank::FeedOut, Out::default()),
            full: AtomicBool::new(false),
            over: AtomicBool::new(false),
            busy: AtomicBool::new(true),
            more: AtomicBool::new(false),
            born: Instant::now(),
            due: AtomicU64::new(NEVER),
            drains: AtomicUsize::new(0),
            drained: AtomicBool::new(false),
            left_until: AtomicU64::new(0),
        })
    }

    /// The node at the other end.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Sends bytes as soon as the server takes them. A failure ends the connection, and the next turn finds that.
    pub(super) fn send(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut output = self.output.lock();
        output.push(bytes);
        self.flush(&mut output);
    }

    fn flush(&self, output: &mut Out) {
        if self.wire.flush(output).is_err() {
            self.wire.shutdown();
        }
        let is_full = !output.is_empty() || self.wire.has_unsent();
        if !self.full.swap(is_full, Ordering::AcqRel) && is_full {
            poller::wake();
        }
    }

    /// Has it driven at this time, even if nothing comes.
    pub(super) fn set_due(&self, due: Instant) {
        self.due.store(self.micros(due), Ordering::Release);
    }

    /// Notes why the connection ends, unless that is known.
    pub(super) fn note_end(&self, end: End) {
        self.wire.note_end(end);
    }

    /// Ends the connection. Nothing that comes from it is told any more.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.wire.shutdown();
    }

    fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.born).as_micros() as u64
    }

    /// Whether a drain drives it.
    pub(super) fn is_drained(&self) -> bool {
        self.drains.load(Ordering::SeqCst) > 0
    }

    /// Whether a drain has ended since the last time that this was asked.
    pub(super) fn was_drained(&self) -> bool {
        self.drained.swap(false, Ordering::SeqCst)
    }

    /// Until when the poller leaves it alone, if that is not over.
    pub(super) fn is_left_until(&self, now: Instant) -> Option<Instant> {
        let until = self.born + Duration::from_micros(self.left_until.load(Ordering::Acquire));
        (until > now).then_some(until)
    }

    /// The poller leaves it alone for a while.
    pub(super) fn leave_alone(&self, time: Duration) {
        self.left_until.store(self.micros(Instant::now() + time), Ordering::Release);
    }

    /// Receives and decodes: what came, whether bytes came, and what ends the connection.
    fn read(&self, input: &mut In) -> (Vec<Reply>, bool, Option<Error>) {
        let (mut came, mut lives, mut more) = (Vec::new(), false, false);
        for _ in 0..MOST_PIECES {
            let filled = match self.receive(input, &mut came) {
                Ok(filled) => filled,
                Err(error) => return (came, lives, Some(error)),
            };
            lives |= filled.is_some();
            // After less than a whole buffer nothing is left, and poll tells of what comes later.
            more = matches!(filled, Some(Filled::Full | Filled::Straight));
            if filled != Some(Filled::Straight) {
                break;
            }
        }
        self.more.store(more, Ordering::Release);
        (came, lives, None)
    }

    /// One receive. `None`: there is nothing to receive.
    fn receive(&self, input: &mut In, came: &mut Vec<Reply>) -> Result<Option<Filled>> {
        let filled = match self.wire.fill(input, Some(Duration::ZERO)) {
            Ok(Filled::Closed) => return Err(self.broken(&io::Error::from_raw_os_error(libc::ECONNRESET))),
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(self.broken(&error)),
        };
        loop {
            match input.drain(Want::One) {
                Ok(Some(Decoded::Reply(reply) | Decoded::Push(reply))) => came.push(reply),
                Ok(Some(Decoded::Skipped)) => {}
                Ok(None) => return Ok(Some(filled)),
                Err(error) => {
                    let text = format!("message of {}: {error}", self.pool.name());
                    return Err(error.error(text).with_endpoint(self.pool.name()));
                }
            }
        }
    }

    fn broken(&self, cause: &io::Error) -> Error {
        if let Some(error) = self.wire.ended_here(&self.pool.name()) {
            return error;
        }
        let what = format!("the connection of a subscription to {} ended", self.pool.name());
        Error::from_io(Status::Io, what, cause).with_endpoint(self.pool.name())
    }
}

impl Source for Feed {
    fn fd(&self) -> Option<RawFd> {
        Some(self.wire.fd())
    }

    fn begin_drain(&self) {
        self.drains.fetch_add(1, Ordering::SeqCst);
    }

    fn end_drain(&self) {
        self.leave_alone(DRAIN_GRACE);
        self.drained.store(true, Ordering::SeqCst);
        self.drains.fetch_sub(1, Ordering::SeqCst);
        poller::drain_ended();
    }

    fn wants_write(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    fn is_eager(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    fn due(&self) -> Option<Instant> {
        if self.more.load(Ordering::Acquire) {
            return Some(self.born);
        }
        let due = self.due.load(Ordering::Acquire);
        (due != NEVER).then(|| self.born + Duration::from_micros(due))
    }

    fn drive(&self) -> Driven {
        let Some(mut input) = self.input.write() else { return Driven::Busy };
        if self.is_over() {
            return Driven::Read;
        }
        let unfinished = Unfinished(self);
        if self.wants_write() {
            self.flush(&mut self.output.lock());
        }
        let now = Instant::now();
        let (came, lives, end) = self.read(&mut input);
        if self.wire.has_unsent() {
            // What TLS answers by itself.
            self.full.store(true, Ordering::Release);
        }
        let was_busy = self.busy.swap(!came.is_empty(), Ordering::Relaxed);
        // A look right after messages may find nothing: the buffer is kept for the next ones.
        if !lives && !was_busy {
            input.relax();
        }
        match self.owner.upgrade() {
            Some(owner) => owner.hear(self, came, lives, end, now),
            None => self.end(),
        }
        std::mem::forget(unfinished);
        Driven::Read
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn cancel(&self, _queue: usize, _token: u64) -> usize {
        0
    }
}

/// Ends the connection after a panic in the middle of a turn: what came with it may have been told in part.
struct Unfinished<'a>(&'a Feed);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
