//! Loans: connections that serve one user at a time, for sessions, blocking commands, and lists too large for a lane.
//!
//! Guarantees: waiters are served first come, first served; a connection that was discarded, or is too old, is not lent again; a
//! waiter gets a connection, a place to open one, or an error with the numbers of the pool.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Inner, Pool};
use crate::error::{Error, Result, Status, flags};
use crate::meter::End;
use crate::net::{Conn, Socket};
use crate::resp::Want;
use crate::sys::sync::{Condvar, Locked};
use crate::time::Deadline;

/// The loans of a pool.
#[derive(Default)]
pub(super) struct Loans {
    idle: VecDeque<Idle>,
    /// The sockets of those in use, so that the end of the pool can shut them down.
    lent: Vec<(u64, Arc<Socket>, Purpose)>,
    /// How many of those in use carry a single unit, and come back soon.
    units: usize,
    opening: usize,
    /// Connections and places on their way to a waiter, each with the waiter's number.
    handed: Vec<(u64, Handed)>,
    /// The waiters by their numbers, and where each sleeps. std's condition variable leaves nothing behind on the caller's thread; what
    /// parks a thread by its handle does, and leak checkers report that.
    waiting: VecDeque<(u64, Arc<Condvar>)>,
    next: u64,
    /// Loans of an earlier round are closed when they come back.
    round: u64,
}

struct Idle {
    conn: Conn,
    since: Instant,
    /// When it last gave a sign of life.
    alive: Instant,
    /// When it was asked for one, if it has not answered yet.
    asked: Option<Instant>,
}

impl Idle {
    fn new(conn: Conn) -> Self {
        let now = Instant::now();
        Self { conn, since: now, alive: now, asked: None }
    }

    /// Whether it may be lent: it has answered, and nothing else is due.
    fn is_ready(&mut self) -> bool {
        self.hears() && self.asked.is_none() && self.conn.is_quiet()
    }

    /// Reads the answer if it is there. False: the connection is broken.
    fn hears(&mut self) -> bool {
        if self.asked.is_some() {
            match self.conn.try_recv(Want::One) {
                Ok(Some(_)) => (self.alive, self.asked) = (Instant::now(), None),
                Ok(None) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Whether nothing is known to be wrong with it.
    fn is_sound(&mut self) -> bool {
        self.hears() && (self.asked.is_some() || self.conn.is_quiet())
    }

    /// False when it was asked and has not answered for `limit`. Asks when it has been silent for `silent`.
    fn is_alive(&mut self, silent: Duration, limit: Duration) -> bool {
        if !self.hears() || self.asked.is_some_and(|asked| asked.elapsed() >= limit) {
            return false;
        }
        if self.asked.is_none() && self.alive.elapsed() >= silent {
            self.asked = Some(Instant::now());
            return self.conn.send_all(PING, Deadline::after(Duration::ZERO)).is_ok();
        }
        true
    }
}

/// How many units may wait for each connection that carries a single one.
const TURNS: usize = 4;
/// The longest wait of a unit for a connection of its own; half of its time, if that is less.
const PATIENCE: Duration = Duration::from_secs(5);
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// What a connection is lent for, as a message says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A blocking command, or one of which it is not known whether it blocks.
    Blocking,
    /// A session.
    Session,
    /// A write that waits for replicas.
    Durable,
    /// A unit that is large or slow.
    Unit,
}

impl Purpose {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Blocking, "blocking command"),
        (Self::Session, "session"),
        (Self::Durable, "durable write"),
        (Self::Unit, "large or slow call"),
    ];
}

/// What a waiter is handed: a connection, or a place for one.
enum Handed {
    Conn(Box<Conn>, u64),
    Place,
}

/// A connection on loan; dropping it gives it back.
pub struct Loan {
    pool: Arc<Pool>,
    conn: Option<Conn>,
    /// The socket of the connection that was taken out.
    taken: Option<Arc<Socket>>,
    id: u64,
    round: u64,
    discarded: bool,
    /// It carries one unit only.
    of_unit: bool,
}

impl Loan {
    /// The connection.
    pub fn conn(&mut self) -> Option<&mut Conn> {
        self.conn.as_mut()
    }

    /// The pool that it is from.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The database that is selected on it, unless its user has changed that; `None` if it was opened before the options changed.
    pub fn db(&self) -> Option<u32> {
        let inner = self.pool.lock();
        (self.round == inner.loans.round).then(|| self.pool.connect.load().handshake.db)
    }

    /// Takes the connection out, for another use by the same user. It keeps its place, and is shut down when the loan ends.
    pub(super) fn take(&mut self) -> Option<Conn> {
        let conn = self.conn.take()?;
        self.taken = Some(Arc::clone(conn.socket()));
        Some(conn)
    }

    /// Discards the connection: it is closed when it is given back.
    pub fn discard(&mut self) {
        self.discarded = true;
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.pool.give_back(conn, self.id, self.round, self.discarded, self.of_unit);
        }
        if let Some(socket) = self.taken.take() {
            socket.shutdown_as(End::GivenUp);
            self.pool.end_loan(self.id, self.of_unit);
        }
    }
}

impl Loans {
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (self.idle.len(), self.lent.len(), self.waiting.len())
    }

    /// What the connections are lent for: `2 sessions, 1 durable write`.
    fn purposes(&self) -> String {
        let count = |purpose: Purpose| self.lent.iter().filter(|(_, _, lent)| *lent == purpose).count();
        let counts = Purpose::ALL.map(|(purpose, name)| (count(purpose), name));
        let told = counts.iter().filter(|(count, _)| *count > 0).map(|(count, name)| {
            let plural = if *count == 1 { "" } else { "s" };
            format!("{count} {name}{plural}")
        });
        told.collect::<Vec<_>>().join(", ")
    }

    /// The present round.
    pub(super) fn round(&self) -> u64 {
        self.round
    }

    /// Begins a new round: returns the idle connections. Lent ones are closed when they come back.
    pub(super) fn renew(&mut self) -> Vec<Conn> {
        self.round += 1;
        self.idle.drain(..).map(|idle| idle.conn).collect()
    }

    /// Shuts down lent connections and drops the waiters, who learn of the end by that.
    pub(super) fn end(&mut self, end: End) -> Vec<Conn> {
        self.waiting.drain(..).for_each(|(_, sleeper)| sleeper.notify_one());
        self.lent.iter().for_each(|(_, socket, _)| socket.shutdown_as(end));
        self.renew()
    }

    /// Takes out the idle connections that are broken, or to which `ends` gives a reason.
    pub(super) fn sweep(&mut self, ends: impl Fn(&Conn, Duration) -> Option<End>) -> Vec<Conn> {
        self.keep(|idle| match idle.is_sound() {
            true => ends(&idle.conn, idle.since.elapsed()),
            false => Some(End::Lost),
        })
    }

    /// Takes out the idle connections that were asked and have not answered for `limit`, and asks those silent for `silent`.
    pub(super) fn ask_for_life(&mut self, silent: Duration, limit: Duration) -> Vec<Conn> {
        self.keep(|idle| (!idle.is_alive(silent, limit)).then_some(End::Silent))
    }

    fn keep(&mut self, mut ends: impl FnMut(&mut Idle) -> Option<End>) -> Vec<Conn> {
        let (mut kept, mut gone) = (VecDeque::with_capacity(self.idle.len()), Vec::new());
        for mut idle in self.idle.drain(..) {
            match ends(&mut idle) {
                None => kept.push_back(idle),
                Some(end) => {
                    idle.conn.note_end(end);
                    gone.push(idle.conn);
                }
            }
        }
        self.idle = kept;
        gone
    }

    /// Hands something to the first waiter, or returns it if there is none.
    fn hand(&mut self, what: Handed) -> Option<Handed> {
        let Some((waiter, sleeper)) = self.waiting.pop_front() else { return Some(what) };
        self.handed.push((waiter, what));
        sleeper.notify_one();
        None
    }

    fn is_handed(&self, waiter: u64) -> bool {
        self.handed.iter().any(|(number, _)| *number == waiter)
    }

    /// Ends a wait: what the waiter was handed.
    fn leave(&mut self, waiter: u64) -> Option<Handed> {
        match self.handed.iter().position(|(number, _)| *number == waiter) {
            Some(place) => Some(self.handed.swap_remove(place).1),
            None => {
                self.waiting.retain(|(number, _)| *number != waiter);
                None
            }
        }
    }

    /// Gives a connection to the first waiter, or keeps it for the next one.
    fn offer(&mut self, conn: Conn) {
        if let Some(Handed::Conn(conn, _)) = self.hand(Handed::Conn(Box::new(conn), self.round)) {
            self.idle.push_back(Idle::new(*conn));
        }
    }

    fn lend(&mut self, conn: &Conn) -> u64 {
        self.next += 1;
        self.lent.push((self.next, Arc::clone(conn.socket()), Purpose::Unit));
        self.next
    }

    fn count(&self) -> usize {
        self.idle.len() + self.lent.len() + self.opening + self.handed.len()
    }
}

impl Pool {
    /// Lends a connection: an idle one, a new one, or the next that comes free.
    pub fn loan(self: &Arc<Self>, purpose: Purpose, deadline: Deadline) -> Result<Loan> {
        let loan = self.loan_any(deadline)?;
        let mut inner = self.lock();
        inner.loans.lent.iter_mut().filter(|(id, ..)| *id == loan.id).for_each(|(.., lent)| *lent = purpose);
        drop(inner);
        Ok(loan)
    }

    fn loan_any(self: &Arc<Self>, deadline: Deadline) -> Result<Loan> {
        let inner = self.lock();
        inner.check()?;
        let inner = match self.loan_at_once(inner, deadline) {
            Ok(loan) => return loan,
            Err(inner) => inner,
        };
        if self.settings.wait == Some(Duration::ZERO) {
            let remedy = "raise pool.max, set pool.wait";
            return Err(Error::new(Status::PoolBusy, self.all_taken(&inner, remedy))
                .with_endpoint(&self.name)
                .with_flags(flags::RETRYABLE));
        }
        self.wait_for_loan(inner, deadline)
    }

    /// Lends a connection for a single unit that would otherwise use a lane, after all waiters that are there already. It waits
    /// only if enough loans carry single units, because those come back soon; otherwise the unit is sent sooner on a lane.
    pub fn loan_for_unit(self: &Arc<Self>, deadline: Deadline) -> Option<Loan> {
        let inner = self.lock();
        if inner.ended.is_some() {
            return None;
        }
        let loan = match self.loan_at_once(inner, deadline) {
            Ok(loan) => loan,
            Err(inner)
                if inner.loans.waiting.len() >= inner.loans.units * TURNS
                    || self.settings.wait == Some(Duration::ZERO) =>
            {
                return None;
            }
            Err(inner) => {
                let patience = deadline.left().map_or(PATIENCE, |left| PATIENCE.min(left / 2));
                self.wait_for_loan(inner, deadline.within(patience))
            }
        };
        let mut loan = loan.ok()?;
        loan.of_unit = true;
        self.lock().loans.units += 1;
        Some(loan)
    }

    /// Lends an idle connection, or opens one in a free place, if no caller waits. Otherwise returns the lock.
    fn loan_at_once<'a>(
        self: &'a Arc<Self>,
        mut inner: Locked<'a, Inner>,
        deadline: Deadline,
    ) -> std::result::Result<Result<Loan>, Locked<'a, Inner>> {
        if !inner.loans.waiting.is_empty() {
            return Err(inner);
        }
        if let Some(loan) = self.lend_idle(&mut inner) {
            return Ok(Ok(loan));
        }
        if !self.has_room_for_loan(&inner) {
            self.end_idle_dedicated(&mut inner);
        }
        if !self.has_room_for_loan(&inner) {
            return Err(inner);
        }
        inner.total += 1;
        inner.loans.opening += 1;
        drop(inner);
        Ok(self.open_loan(deadline))
    }

    /// One place is kept for the first lane, however many are on loan.
    fn loans_at_most(&self) -> usize {
        self.settings.max.saturating_sub(self.lanes.load().len().max(1))
    }

    fn has_room_for_loan(&self, inner: &Inner) -> bool {
        inner.loans.count() < self.loans_at_most() && self.has_room(inner)
    }

    /// Ends a connection of submitted blocking commands on which none is under way: it has no more right to its place than a caller that
    /// waits.
    fn end_idle_dedicated(&self, inner: &mut Inner) {
        let idle = inner.dedicated.iter().position(|submit_lane| submit_lane.claim());
        if let Some(at) = idle {
            let gone = inner.dedicated.remove(at);
            inner.draining.push(Arc::clone(gone.lane()));
            self.drop_drained(inner);
        }
    }

    /// Makes room for callers that wait, where commands that blocked are over by now.
    pub(super) fn make_room(&self) {
        let mut inner = self.lock();
        for _ in 0..inner.loans.waiting.len() {
            self.end_idle_dedicated(&mut inner);
        }
    }

    /// Counts a connection that is to be opened for lending. False: there is no room for it.
    pub(super) fn reserve_loan(&self) -> bool {
        let mut inner = self.lock();
        let room = inner.ended.is_none() && self.has_room_for_loan(&inner);
        inner.total += usize::from(room);
        inner.loans.opening += usize::from(room);
        room
    }

    fn lend_idle(self: &Arc<Self>, inner: &mut Inner) -> Option<Loan> {
        while let Some(mut idle) = inner.loans.idle.pop_front() {
            let old = self.is_too_old(&idle.conn);
            if old || !idle.is_ready() {
                idle.conn.note_end(if old { End::Lifetime } else { End::Lost });
                inner.total -= 1;
                continue;
            }
            let round = inner.loans.round;
            return Some(self.lend(inner, idle.conn, round));
        }
        None
    }

    fn lend(self: &Arc<Self>, inner: &mut Inner, conn: Conn, round: u64) -> Loan {
        let id = inner.loans.lend(&conn);
        Loan { pool: Arc::clone(self), conn: Some(conn), taken: None, id, round, discarded: false, of_unit: false }
    }

    /// Opens a connection in a place that was reserved.
    fn open_loan(self: &Arc<Self>, deadline: Deadline) -> Result<Loan> {
        let opened = self.open(deadline);
        let mut inner = self.lock();
        inner.loans.opening -= 1;
        let ended = inner.check();
        match (opened, ended) {
            (Ok((conn, round)), Ok(())) => {
                let loan = self.lend(&mut inner, conn, round);
                drop(inner);
                self.start_upkeep();
                Ok(loan)
            }
            (opened, ended) => {
                self.free_place(&mut inner);
                Err(ended
                    .err()
                    .or(opened.err())
                    .unwrap_or_else(|| Error::new(Status::Internal, "a connection got lost")))
            }
        }
    }

    /// Joins the queue of the waiters, and waits for its turn.
    fn wait_for_loan<'a>(self: &'a Arc<Self>, mut inner: Locked<'a, Inner>, deadline: Deadline) -> Result<Loan> {
        let begun = Instant::now();
        let limit = self.settings.wait.map_or(deadline, |wait| deadline.within(wait));
        inner.loans.next += 1;
        let (number, sleeper) = (inner.loans.next, Arc::new(Condvar::new()));
        inner.loans.waiting.push_back((number, Arc::clone(&sleeper)));
        while !inner.loans.is_handed(number) && inner.ended.is_none() && !limit.is_over() {
            inner = match limit.left() {
                Some(left) => sleeper.wait_timeout(inner, left),
                None => sleeper.wait(inner),
            };
        }
        let received = inner.loans.leave(number);
        self.meter.waited(begun.elapsed());
        inner.check()?;
        match received {
            Some(Handed::Conn(conn, round)) => Ok(self.lend(&mut inner, *conn, round)),
            Some(Handed::Place) => {
                inner.loans.opening += 1;
                drop(inner);
                self.open_loan(deadline)
            }
            None => {
                let remedy = match self.settings.wait {
                    Some(_) if !deadline.is_over() => "raise pool.max or pool.wait",
                    _ => "raise pool.max, give the call more time",
                };
                let text = format!("{} (after {} ms)", self.all_taken(&inner, remedy), begun.elapsed().as_millis());
                Err(Error::new(Status::PoolTimeout, text).with_endpoint(&self.name).with_flags(flags::RETRYABLE))
            }
        }
    }

    fn all_taken(&self, inner: &Inner, remedy: &str) -> String {
        let (idle, lent, waiting) = inner.loans.counts();
        format!(
            "no dedicated connection to {} is free: size {}, in_use {lent} ({}), idle {idle}, connected {}, waiting {waiting}, pool.max {} (one place \
             is kept for calls that share a connection); {remedy}, or hold sessions and blocking commands for a shorter time",
            self.name,
            inner.total,
            inner.loans.purposes(),
            inner.total - inner.loans.opening,
            self.settings.max
        )
    }

    /// Gives back the place of a loan whose connection is closed.
    fn end_loan(&self, id: u64, of_unit: bool) {
        let mut inner = self.lock();
        inner.loans.lent.retain(|(lent, ..)| *lent != id);
        inner.loans.units -= usize::from(of_unit);
        self.free_place(&mut inner);
    }

    fn give_back(&self, conn: Conn, id: u64, round: u64, discarded: bool, of_unit: bool) {
        let mut inner = self.lock();
        inner.loans.lent.retain(|(lent, ..)| *lent != id);
        inner.loans.units -= usize::from(of_unit);
        let is_old = || self.is_too_old(&conn).then_some(End::Lifetime);
        let end = inner
            .end()
            .or_else(|| discarded.then_some(End::GivenUp))
            .or_else(|| (round != inner.loans.round).then_some(End::Disconnected))
            .or_else(is_old)
            .or_else(|| (!conn.is_quiet()).then_some(End::Lost));
        if let Some(end) = end {
            conn.note_end(end);
            drop(conn);
            return self.free_place(&mut inner);
        }
        inner.loans.offer(conn);
    }

    /// Closes idle connections, because their places are needed.
    pub(super) fn drop_idle(&self, inner: &mut Inner) {
        inner.total -= inner.loans.sweep(|_, _| Some(End::Idle)).len();
    }

    /// Gives a place back.
    pub(super) fn free_place(&self, inner: &mut Inner) {
        inner.total -= 1;
        self.serve_waiting(inner);
    }

    /// Lets the next waiters open connections, as long as there is room.
    pub(super) fn serve_waiting(&self, inner: &mut Inner) {
        while !inner.loans.waiting.is_empty() && self.has_room_for_loan(inner) {
            inner.total += usize::from(inner.loans.hand(Handed::Place).is_none());
        }
    }

    /// Adds a connection that was opened in a reserved place, to keep `pool.min` warm.
    pub(super) fn keep_warm(&self, opened: Result<(Conn, u64)>) -> bool {
        let mut inner = self.lock();
        inner.loans.opening -= 1;
        match opened {
            Ok((conn, round)) if inner.ended.is_none() && round == inner.loans.round => {
                inner.loans.offer(conn);
                true
            }
            _ => {
                self.free_place(&mut inner);
                false
            }
        }
    }

    pub(super) fn is_too_old(&self, conn: &Conn) -> bool {
        self.settings.lifetime.is_some_and(|lifetime| conn.opened().elapsed() > lifetime)
    }
}
