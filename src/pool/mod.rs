//! All connections to one node: lanes, which calls share, and loans, which serve one user at a time.
//!
//! Guarantees: there are never more than `pool.max` connections, and one place is kept for the first lane, so that ordinary calls
//! never wait for loans; a retired pool closes all its connections and answers every call with the cause; after the first use
//! `pool.min` connections are kept warm. Leaves to others: which node this is (topology), what to do about an error (call).

mod census;
mod lanes;
mod loans;
mod submit_lane;
mod sweep;
mod upkeep;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use crossbeam_utils::CachePadded;

use crate::config::{Endpoint, LaneSettings, PoolSettings};
use crate::error::{Error, Result};
use crate::lane::Lane;
use crate::meter::{End, NodeMeter};
use crate::net::{Conn, ConnectOptions, Pause, Socket};
use crate::sys::rank::Rank;
use crate::sys::sync::{Condvar, Lock, Locked};
use crate::time::Deadline;

use census::Census;
use loans::Loans;
pub use loans::{Loan, Purpose};
pub use submit_lane::{SubmitLane, Traffic, UNBLOCKING};

/// How long a connection that a discovery has opened is kept for the next caller.
const OFFERED: Duration = Duration::from_secs(1);

/// What a pool is made from.
#[derive(Clone)]
pub struct PoolSpec {
    /// The node, with the address that is dialled.
    pub endpoint: Endpoint,
    /// How its connections are opened.
    pub connect: ConnectOptions,
    /// How many there are, and for how long.
    pub pool: PoolSettings,
    /// How the shared ones behave.
    pub lane: LaneSettings,
    /// The pause after a failure, which all who connect to the node in this role share.
    pub pause: Arc<Pause>,
    /// Where its connections are counted.
    pub meter: Arc<NodeMeter>,
}

/// The connections to one node.
pub struct Pool {
    endpoint: Endpoint,
    name: String,
    connect: ArcSwap<ConnectOptions>,
    settings: PoolSettings,
    lane_settings: LaneSettings,
    pause: Arc<Pause>,
    /// The pause after a refusal of these connections' own options (credentials, database, name), which says nothing about the node.
    refusals: Arc<Pause>,
    lanes: ArcSwap<Vec<Arc<Lane>>>,
    /// The lanes of submitted calls: of ordinary ones, and of writes with their WAIT.
    submit_lanes: [ArcSwapOption<SubmitLane>; 2],
    /// The mean number of calls in flight, times 256.
    load: AtomicU32,
    growing: AtomicBool,
    /// No further lane could be opened. The next attempt is made after the next tick.
    grown: AtomicBool,
    /// A job is opening what `pool.min` and `pool.lifetime` ask for.
    opening: AtomicBool,
    inner: Lock<Inner>,
    first_opened: Condvar,
    served: CachePadded<AtomicUsize>,
    census: Census,
    meter: Arc<NodeMeter>,
}

#[derive(Default)]
struct Inner {
    loans: Loans,
    /// The number of lanes, of idle and lent connections, and of those that are being opened.
    total: usize,
    /// Lanes that take no new calls but have not answered all old ones. They count until they have.
    draining: Vec<Arc<Lane>>,
    first: FirstLane,
    /// Lanes for one submitted call at a time.
    dedicated: Vec<Arc<SubmitLane>>,
    /// A connection that a discovery has opened, for the next caller that opens one. It counts when it is taken.
    offered: Option<Conn>,
    /// Every socket, from before its handshake on.
    sockets: Vec<Weak<Socket>>,
    ended: Option<Error>,
    /// Held while the sweep looks after the pool.
    upkeep: Option<Arc<sweep::Needed>>,
}

/// The opening of the first lane: one caller opens it, the others wait for it.
#[derive(Default)]
struct FirstLane {
    /// How many callers are opening it: a second one does if the first takes long.
    opening: usize,
    /// When the last of these attempts began.
    since: Option<Instant>,
    attempts: u64,
    failure: Option<Error>,
    /// How often the options have changed: an attempt that failed before the last change says nothing about now.
    changes: u64,
}

/// How often an attempt that waits until a refusal has passed looks again.
const REFUSAL_LOOK: Duration = Duration::from_millis(20);

/// A pool in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All connections, including those that are being opened.
    pub total: usize,
    /// Shared ones.
    pub lanes: usize,
    /// Loans that wait for a user.
    pub idle: usize,
    /// Loans in use.
    pub lent: usize,
    /// Callers that wait for a loan.
    pub waiting: usize,
    /// Units that wait for replies on lanes.
    pub in_flight: usize,
    /// Lanes that only submitted calls use, and the units on them.
    pub submit_lanes: usize,
    /// Units that wait for replies on them.
    pub submitted: usize,
    /// Calls served, wrapping.
    pub served: usize,
}

impl Pool {
    /// A pool without connections. The first call opens the first one.
    pub fn new(spec: PoolSpec) -> Arc<Self> {
        Arc::new(Self {
            name: spec.endpoint.to_string(),
            endpoint: spec.endpoint,
            connect: ArcSwap::from_pointee(spec.connect),
            settings: spec.pool,
            lane_settings: spec.lane,
            refusals: Arc::new(spec.pause.like_it_for_refusals()),
            pause: spec.pause,
            lanes: ArcSwap::default(),
            submit_lanes: Default::default(),
            load: AtomicU32::new(0),
            growing: AtomicBool::new(false),
            grown: AtomicBool::new(false),
            opening: AtomicBool::new(false),
            inner: Lock::new(Rank::Pool, Inner::default()),
            first_opened: Condvar::new(),
            served: CachePadded::default(),
            census: Census::default(),
            meter: spec.meter,
        })
    }

    /// The node.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The node as text.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Uses these options for connections that are opened from now on. With `at_once` existing connections are replaced, too: idle
    /// ones now, busy ones when they are done.
    pub fn reconfigure(&self, mut connect: ConnectOptions, at_once: bool) {
        let mut inner = self.lock();
        let before = self.connect.load();
        connect.admit.clone_from(&before.admit);
        // Existing connections stay, and new ones must speak the same protocol.
        if !at_once && connect.handshake.protocol == before.handshake.protocol {
            connect.handshake.agreed = before.handshake.agreed.clone();
        }
        // Under the lock, so that a round and its options belong together.
        self.connect.store(Arc::new(connect));
        // What was refused under the former options says nothing about these.
        self.refusals.clear();
        inner.first.failure = None;
        inner.first.changes += 1;
        let idle = at_once.then(|| self.renew(&mut inner));
        let offered = inner.offered.take();
        drop(inner);
        drop((idle, offered));
        self.first_opened.notify_all();
    }

    /// What its connections have counted.
    pub fn meter(&self) -> &Arc<NodeMeter> {
        &self.meter
    }

    /// Closes idle connections now, and busy ones when they are done. The next call connects again.
    pub fn disconnect(&self) {
        let mut inner = self.lock();
        let idle = self.renew(&mut inner);
        drop(inner);
        drop(idle);
    }

    /// Begins a new round of connections. The caller closes what is returned, outside the lock.
    fn renew(&self, inner: &mut Inner) -> Vec<Conn> {
        self.drain_lanes(inner, |_| Some(End::Disconnected));
        let mut idle = inner.loans.renew();
        idle.iter().for_each(|conn| conn.note_end(End::Disconnected));
        inner.total -= idle.len();
        self.serve_waiting(inner);
        idle.extend(inner.offered.take());
        idle
    }

    /// Ends everything now: connections are shut down, and waiting and later calls are answered with the cause.
    pub fn retire(&self, cause: Error) {
        let mut inner = self.lock();
        if inner.ended.is_some() {
            return;
        }
        inner.ended = Some(cause.clone());
        inner.upkeep = None;
        let lanes = self.lanes.swap(Arc::default());
        let end = End::of(&cause).unwrap_or(End::Closed);
        self.drain_submit_lanes(&mut inner, |_| Some(end));
        let draining = std::mem::take(&mut inner.draining);
        let idle = inner.loans.end(end);
        idle.iter().for_each(|conn| conn.note_end(end));
        inner.total -= lanes.len() + draining.len() + idle.len();
        let sockets = std::mem::take(&mut inner.sockets);
        let offered = inner.offered.take();
        drop(inner);
        // Before their sockets are shut down: with TLS their servers are told.
        drop((offered, idle));
        self.first_opened.notify_all();
        lanes.iter().chain(&draining).for_each(|lane| lane.shut(cause.clone()));
        // After the lanes, so that their waiters get this cause.
        sockets.iter().filter_map(Weak::upgrade).for_each(|socket| socket.shutdown_as(end));
    }

    /// Whether the pool has been retired.
    pub fn is_retired(&self) -> bool {
        self.lock().ended.is_some()
    }

    /// The pool in numbers.
    pub fn counts(&self) -> Counts {
        let lanes = self.lanes.load();
        let submit_lanes = self.own_submit_lanes();
        let submitted = submit_lanes.iter().map(|lane| lane.in_flight() as usize).sum::<usize>();
        let inner = self.lock();
        let (idle, lent, waiting) = inner.loans.counts();
        Counts {
            total: inner.total + usize::from(inner.offered.is_some()),
            lanes: lanes.len(),
            idle,
            lent,
            waiting,
            in_flight: lanes.iter().map(|lane| lane.in_flight() as usize).sum::<usize>() + submitted,
            submit_lanes: submit_lanes.len(),
            submitted,
            served: self.served.load(Ordering::Relaxed),
        }
    }

    /// Since when the node has answered nothing, with replies due on the connections that ordinary calls share.
    pub fn silent_since(&self) -> Option<Instant> {
        let marks = self.silences();
        let heard = marks.iter().map(|(heard, _)| *heard).max();
        let since = marks.iter().filter_map(|(_, since)| *since).chain(self.meter.silent_since()).min()?;
        Some(heard.map_or(since, |heard| since.max(heard)))
    }

    /// When the node last sent anything on these connections.
    pub fn heard_at(&self) -> Option<Instant> {
        self.silences().into_iter().map(|(heard, _)| heard).max()
    }

    fn silences(&self) -> Vec<(Instant, Option<Instant>)> {
        let (lanes, submitted) = (self.lanes.load(), self.submit_lanes[0].load_full());
        let submitted = submitted.as_ref().map(|submitted| submitted.lane());
        lanes.iter().chain(submitted).map(|lane| lane.silence()).collect()
    }

    /// The smoothed round trip of its first lane; `None` before the first reply.
    pub fn srtt(&self) -> Option<Duration> {
        let srtt = self.lanes.load().first()?.srtt();
        (!srtt.is_zero()).then_some(srtt)
    }

    fn lock(&self) -> Locked<'_, Inner> {
        self.inner.lock()
    }

    /// Keeps a connection for the next caller that opens one, if the pool has none and would have opened it in the same way.
    /// Otherwise it is returned.
    pub fn offer(self: &Arc<Self>, conn: Conn, options: &ConnectOptions) -> Option<Conn> {
        let mut inner = self.lock();
        // After a refusal its connections drain, and those who open one wait out the pause: they take this one then.
        let drains = self.pause.refused().is_some() && self.lanes.load().is_empty() && self.has_room(&inner);
        let has_none = inner.total == 0 || drains;
        let is_free = inner.ended.is_none() && has_none && *conn.endpoint() == self.endpoint;
        if !is_free || !self.connect.load().would_have_opened(&conn, options) {
            return Some(conn);
        }
        let before = inner.offered.replace(conn);
        drop(inner);
        drop(before);
        // The upkeep closes it if it is not taken.
        self.start_upkeep();
        None
    }

    /// Closes a connection that was offered and not taken.
    fn close_offered(&self) {
        let mut inner = self.lock();
        let old = inner.offered.take_if(|conn| conn.opened().elapsed() >= OFFERED);
        drop(inner);
        drop(old);
    }

    /// Opens a connection, and returns the round in which that began: a connection of an earlier round is not kept. A node that has
    /// just failed is not dialled for a while; the error is then that of the last attempt.
    fn open(&self, deadline: Deadline) -> Result<(Conn, u64)> {
        self.wait_out_refusal(deadline);
        let mut inner = self.lock();
        let round = inner.loans.round();
        let offered = inner.offered.take();
        drop(inner);
        if let Some(mut conn) = offered.filter(|conn| conn.opened().elapsed() < OFFERED && conn.is_quiet()) {
            conn.count_for(&self.meter);
            self.note(conn.socket());
            self.census.count(conn.info().id, conn.info().version, conn.opened());
            return Ok((conn, round));
        }
        loop {
            // The options are read after the permission, so that what is noted for these options was refused under them.
            let (own, attempt) = (self.refusals.attempt()?, self.pause.attempt()?);
            let inner = self.lock();
            let (round, options) = (inner.loans.round(), self.connect.load_full());
            drop(inner);
            let note = |socket: &Arc<Socket>| self.note(socket);
            let begun = Instant::now();
            let mut opened = Conn::open_noted(&self.endpoint, &options, deadline, &note);
            match &mut opened {
                Ok(conn) => conn.count_for(&self.meter),
                Err(_) => self.meter.refused(),
            }
            let is_retired = self.is_retired();
            // Retiring the pool ends the attempt: that is no fault of the node.
            if opened.is_ok() || !is_retired {
                own.told(&opened);
                attempt.told(&opened);
            }
            let is_outdated = || !Arc::ptr_eq(&options, &self.connect.load());
            if opened.is_err() && !is_retired && !deadline.is_over() && is_outdated() {
                // Callers that came after the change share this attempt, and must not get a refusal of the options before it.
                continue;
            }
            // Before anything is sent on it.
            opened.iter().for_each(|conn| self.census.count(conn.info().id, conn.info().version, begun));
            return opened.map(|conn| (conn, round));
        }
    }

    /// Opens a connection that serves no calls: it is not one of the pool's, and takes no place of `pool.max`. It is shut down when the
    /// pool is retired.
    pub fn open_apart(&self, deadline: Deadline) -> Result<Conn> {
        self.lock().check()?;
        self.open(deadline).map(|(conn, _)| conn)
    }

    /// Waits until a node that was connected to and refused what it was asked has had its pause. Such a wait does not count as an
    /// attempt.
    fn wait_out_refusal(&self, deadline: Deadline) {
        if self.pause.refused().is_none() {
            return;
        }
        let mut inner = self.lock();
        while let Some(left) = self.pause.refused().filter(|_| inner.ended.is_none() && !deadline.is_over()) {
            let wait = deadline.left_or(left.min(REFUSAL_LOOK));
            inner = self.first_opened.wait_timeout(inner, wait);
        }
    }

    /// How many connections have been opened. As long as the number stays the same the answers come from the same server.
    pub fn opened(&self) -> u64 {
        self.census.opened()
    }

    /// The version of its server, 7.2.4 as 0x070204; 0 if it is not known.
    pub fn version(&self) -> u32 {
        self.census.version()
    }

    /// How often the server's connection numbers have gone back, which shows a restart.
    pub fn restarts(&self) -> u64 {
        self.census.restarts()
    }

    /// For how long the node is not dialled, because it could not be connected to or has refused these connections.
    pub fn pause_left(&self) -> Option<Duration> {
        self.pause.left().max(self.refusals.left())
    }

    /// The node refused what a node in its role does: its connections serve nothing new, and it is not dialled for a while.
    pub fn refuse(&self, error: &Error) {
        // The first of many refusals has closed them; what has been offered since then was asked for its role after it.
        let is_first = self.pause.refused().is_none();
        self.pause.refuse(error);
        if is_first {
            self.disconnect();
        }
    }

    /// Remembers a socket before it is connected, because the end of the pool must not wait for its handshake.
    fn note(&self, socket: &Arc<Socket>) {
        let mut inner = self.lock();
        inner.sockets.retain(|socket| socket.strong_count() > 0);
        inner.sockets.push(Arc::downgrade(socket));
        inner.end().iter().for_each(|end| socket.shutdown_as(*end));
    }

    fn new_lane(&self, conn: Conn) -> Arc<Lane> {
        Arc::new(Lane::new(conn.into_wire(), self.name.clone(), self.lane_settings))
    }

    fn lanes_at_most(&self) -> usize {
        self.lane_settings.max.clamp(1, self.settings.max.saturating_sub(1).max(1))
    }
}

impl Inner {
    /// Why its connections end, once the pool has ended.
    fn end(&self) -> Option<End> {
        self.ended.as_ref().map(|cause| End::of(cause).unwrap_or(End::Closed))
    }

    fn check(&self) -> Result<()> {
        self.ended.clone().map_or(Ok(()), Err)
    }
}
