//! Scans: a cursor goes back to the node that gave it, or is reported as invalid (rule 15).
//!
//! Guarantees: a known cursor is used only on its own node, and only in the generation that gave it: the node has kept its role,
//! and its server has not been restarted. The server is asked for that (INFO server, in front of the scan, in one unit) only if a
//! connection has been opened since the last question. Concurrent scans do not disturb each other. Leaves to others: the table
//! (`cursors`), and where an unknown cursor goes (`choice`).

use std::sync::{Arc, Weak};

use super::choice::Choice;
use super::cursors::{Cursors, Key, Origin};
use super::view::{ReplicaTarget, Route};
use crate::error::{Error, Result, Status, flags};
use crate::lane::{Bytes, Failure, Outcome, Unit};
use crate::plan::{Plan, Target};
use crate::pool::Pool;
use crate::resp::{Body, Kind, Reply, ReplyBuilder, encode};
use crate::sys::sync::Lock;

/// How many cursors are kept.
const MOST: usize = 4096;

const ASK: [&[u8]; 2] = [b"INFO", b"server"];

/// What is known about the scans of a client.
pub(super) struct Scans {
    cursors: Cursors,
    nodes: Vec<ScanNode>,
    generations: u64,
    /// The replica on which the scans of a replica client begin.
    pub(super) pin: Option<String>,
}

/// A node that scans were sent to.
struct ScanNode {
    pool: Weak<Pool>,
    origin: Origin,
    /// Its server's run_id; `None` if the server does not give it.
    run: Option<Vec<u8>>,
    /// How often its client ids had gone back, and how many connections had been opened, when it was asked.
    restarts: u64,
    opened: u64,
}

/// A scan that is being sent.
pub(crate) struct Trip {
    /// How many connections had been opened when it began.
    opened: u64,
    /// It asks the server for its run_id first.
    pub(crate) asks: bool,
}

/// What follows from the outcome of a unit with scans.
pub(crate) enum Landed {
    /// Its outcome stands.
    Outcome(Outcome),
    /// It has to be sent again.
    Again(Error),
    /// A cursor is no longer valid.
    Over(Error),
}

impl Default for Scans {
    fn default() -> Self {
        Self { cursors: Cursors::new(MOST), nodes: Vec::new(), generations: 0, pin: None }
    }
}

impl Scans {
    fn node(&self, pool: &Arc<Pool>) -> Option<&ScanNode> {
        self.nodes.iter().find(|node| node.is(pool))
    }

    pub(super) fn generation(&self, pool: &Arc<Pool>) -> Option<u64> {
        self.node(pool).map(|node| node.origin.generation)
    }

    /// The known cursors that the scans of a plan continue from.
    fn known(&self, plan: &Plan<'_>, from: usize) -> Vec<Key> {
        let mut known = Vec::new();
        plan.each_scan(from, |_, args, at| {
            let key = self.cursors.key(args, at, args[at]);
            if args[at] != b"0" && self.cursors.givers(&key).next().is_some() {
                known.push(key);
            }
        });
        known
    }

    /// The cursors among these that another generation gave.
    fn strange(&self, known: &[Key], generation: Option<u64>) -> Vec<Key> {
        let is_own = |key: &&Key| self.cursors.givers(key).any(|origin| Some(origin.generation) == generation);
        known.iter().filter(|key| !is_own(key)).copied().collect()
    }

    /// Forgets cursors that are no longer valid, of which there is at least one, and makes the error. `now`: the node that the
    /// scans would go to.
    fn interrupt(&mut self, lost: &[Key], now: &str) -> Error {
        let node = lost.first().and_then(|key| self.cursors.givers(key).next()).map(|origin| Arc::clone(&origin.node));
        let node = node.unwrap_or_else(|| "none".into());
        lost.iter().for_each(|key| self.cursors.forget(key));
        let what = match *node == *now {
            true => format!("{node} as it was before it was started anew, or changed its role"),
            false => format!("a node that is not read from any more ({node})"),
        };
        let text = format!("the cursor belongs to {what}: begin with cursor 0");
        Error::new(Status::ScanInterrupted, text).with_endpoint(node)
    }

    /// Notes which run_id the server gave. Returns the generation of its node.
    fn note(&mut self, pool: &Arc<Pool>, run: Option<Vec<u8>>, opened: u64) -> Origin {
        let restarts = pool.restarts();
        self.nodes.retain(|node| node.pool.strong_count() > 0);
        if let Some(node) = self.nodes.iter_mut().find(|node| node.is(pool)) {
            let same = match (&node.run, &run) {
                (Some(before), Some(now)) => before == now,
                _ => node.restarts == restarts,
            };
            if same {
                (node.opened, node.restarts, node.run) = (opened, restarts, run);
                return node.origin.clone();
            }
        }
        self.nodes.retain(|node| !node.is(pool));
        self.generations += 1;
        let origin = Origin { generation: self.generations, node: pool.name().into() };
        self.nodes.push(ScanNode { pool: Arc::downgrade(pool), origin: origin.clone(), run, restarts, opened });
        origin
    }

    /// Replaces the cursors of a plan by the ones in its reply.
    fn go_on(&mut self, plan: &Plan<'_>, from: usize, origin: &Origin, reply: &Reply) {
        plan.each_scan(from, |index, args, at| {
            let place = if plan.is_list() { reply.child(0, (index - from) as u32) } else { Some(0) };
            let Some(next) = place.and_then(|place| reply.child(place, 0)).and_then(|node| cursor(reply, node)) else {
                return;
            };
            if args[at] != b"0" {
                self.cursors.take(&self.cursors.key(args, at, args[at]), origin.generation);
            }
            if next != b"0" {
                self.cursors.give(self.cursors.key(args, at, &next), origin.clone());
            }
        });
    }
}

impl ScanNode {
    fn is(&self, pool: &Arc<Pool>) -> bool {
        std::ptr::eq(self.pool.as_ptr(), Arc::as_ptr(pool))
    }
}

/// The route of a plan with scans.
pub(super) fn route(scans: &Lock<Scans>, choice: &Choice<'_>, plan: &Plan<'_>, tried: &[String]) -> Result<Route> {
    let mut scans = scans.lock();
    let known = scans.known(plan, 0);
    if choice.context.target != Target::Replica {
        let route = choice.primary()?;
        let lost = scans.strange(&known, scans.generation(&route.pool));
        return if lost.is_empty() { Ok(route) } else { Err(scans.interrupt(&lost, route.pool.name())) };
    }
    if known.is_empty() {
        return choice.pinned(plan.scan, tried, &mut scans.pin);
    }
    let own = |known: &[Key], pool: &Arc<Pool>| {
        let generation = scans.generation(pool);
        let was_tried = || tried.iter().any(|name| name == pool.name());
        generation.is_some() && scans.strange(known, generation).is_empty() && !was_tried()
    };
    if let Some((pool, replica)) = serves_on(choice, |pool| own(&known, pool)) {
        return Ok(Route { pinned: true, ..Route::to(pool, replica, 0) });
    }
    let serves = |key: &&Key| serves_on(choice, |pool| own(&[**key], pool)).is_some();
    let lost: Vec<Key> = known.iter().filter(|key| !serves(key)).copied().collect();
    if lost.is_empty() {
        let text = "the cursors of the list belong to different nodes: go on with each of them in a call of its own";
        return Err(Error::new(Status::ScanInterrupted, text));
    }
    Err(scans.interrupt(&lost, ""))
}

/// The node that a replica client may read from and on which a scan began.
fn serves_on<'a>(
    choice: &Choice<'a>,
    own: impl Fn(&Arc<Pool>) -> bool,
) -> Option<(&'a Arc<Pool>, Option<&'a Arc<ReplicaTarget>>)> {
    let replicas = choice.view.replicas.iter().filter(|replica| choice.is_fit(replica));
    let replicas = replicas.map(|replica| (&replica.pool, Some(replica)));
    replicas.chain(choice.view.primary.iter().map(|pool| (pool, None))).find(|(pool, _)| own(pool))
}

/// Begins a scan that is about to be sent to this node.
pub(super) fn begin(scans: &Lock<Scans>, pool: &Arc<Pool>) -> Box<Trip> {
    let opened = pool.opened();
    let asks = scans.lock().node(pool).is_none_or(|node| node.opened != opened);
    Box::new(Trip { opened, asks })
}

/// Judges the outcome of a plan with scans: its cursors may belong to another generation, or that may be unknown yet.
pub(super) fn land(
    scans: &Lock<Scans>,
    plan: &Plan<'_>,
    from: usize,
    pool: &Arc<Pool>,
    trip: &Trip,
    outcome: Outcome,
) -> Landed {
    let prefix = if trip.asks { encode::command_len(&ASK) } else { 0 };
    let whole = match outcome {
        Ok(reply) => reply,
        Err(failure) => {
            return Landed::Outcome(Err(Failure { sent: failure.sent.saturating_sub(prefix), ..failure }));
        }
    };
    let opened = pool.opened();
    let mut scans = scans.lock();
    let (reply, origin) = match trip.asks {
        true => {
            let run = whole.child(0, 0).and_then(|node| run_id(&whole, node));
            // The very first connection is the one that answered.
            let as_of = if (trip.opened, opened) == (0, 1) { opened } else { trip.opened };
            match without_first(&whole, plan.is_list()) {
                Ok(reply) => (reply, scans.note(pool, run, as_of)),
                Err(error) => {
                    return Landed::Outcome(Err(Failure::new(usize::MAX, error.with_endpoint(pool.name()))));
                }
            }
        }
        false if opened == trip.opened => match scans.node(pool) {
            Some(node) => (whole, node.origin.clone()),
            None => return Landed::Outcome(Ok(whole)),
        },
        false if plan.reads => {
            let text = "answered on a connection that was opened meanwhile: who is there is asked";
            return Landed::Again(Error::new(Status::Io, text).with_endpoint(pool.name()));
        }
        // A plan that has written is not sent again. The origin of its cursors is unknown.
        false => return Landed::Outcome(Ok(whole)),
    };
    let known = scans.known(plan, from);
    let lost = scans.strange(&known, Some(origin.generation));
    if !lost.is_empty() {
        let error = scans.interrupt(&lost, pool.name());
        let error = if plan.reads { error } else { error.with_flags(flags::MAYBE_EXECUTED).with_reply(reply) };
        return Landed::Over(error);
    }
    scans.go_on(plan, from, &origin, &reply);
    Landed::Outcome(Ok(reply))
}

/// Encodes a unit with the question in front.
pub(crate) fn asking(unit: Unit<'_>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    encode::command(&mut bytes, &ASK);
    unit.bytes.append_to(&mut bytes)?;
    Ok(bytes)
}

/// The unit of these bytes.
pub(crate) fn with_question<'a>(bytes: &'a [u8], unit: Unit<'a>) -> Unit<'a> {
    Unit { bytes: Bytes::Raw(bytes), list: Some(unit.list.unwrap_or(1) + 1), ..unit }
}

/// The replies of a unit, without the answer to the question in front.
fn without_first(whole: &Reply, list: bool) -> Result<Reply> {
    let mut rest = ReplyBuilder::new();
    match list {
        true => {
            rest.array();
            whole.children(0).skip(1).for_each(|child| _ = rest.part(whole, child));
            rest.end();
        }
        false => _ = rest.part(whole, whole.child(0, 1).unwrap_or_default()),
    }
    rest.try_finish()
}

/// The run_id in the text of INFO; `None` if INFO was refused.
fn run_id(reply: &Body, node: u32) -> Option<Vec<u8>> {
    let text = reply.bytes(node).filter(|_| reply.kind(node) != Kind::Error)?;
    let mut lines = text.split(|byte| *byte == b'\n');
    let id = lines.find_map(|line| line.strip_prefix(b"run_id:"))?;
    Some(id.trim_ascii().to_vec()).filter(|id| !id.is_empty())
}

/// The next cursor in a reply: a text, or a number for Bloom filters.
fn cursor(reply: &Body, node: u32) -> Option<Vec<u8>> {
    match reply.kind(node) {
        Kind::Int => reply.int(node).map(|cursor| cursor.to_string().into_bytes()),
        Kind::Error => None,
        _ => reply.bytes(node).map(<[u8]>::to_vec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_run_is_read_from_info() {
        let id = |text: &str| run_id(&ReplyBuilder::new().text(text).finish(), 0);
        assert_eq!(id("# Server\r\nredis_version:7\r\nrun_id:abc\r\ntcp_port:1\r\n"), Some(b"abc".to_vec()));
        assert_eq!((id("# Server\r\n"), id("run_id:\r\n")), (None, None));
        assert_eq!(run_id(&ReplyBuilder::new().error("NOPERM run_id:abc").finish(), 0), None);
    }

    #[test]
    fn the_question_in_front_leaves_no_trace() {
        let whole =
            ReplyBuilder::new().array().text("run_id:a").array().text("17").array().end().end().int(3).end().finish();
        let list = without_first(&whole, true).unwrap();
        assert_eq!((list.count(0), list.child(0, 1).and_then(|node| list.int(node))), (2, Some(3)));
        let one = without_first(&whole, false).unwrap();
        assert_eq!(one.child(0, 0).and_then(|node| cursor(&one, node)), Some(b"17".to_vec()));
        let args: [&[u8]; 2] = [b"SCAN", b"0"];
        let unit = Unit { bytes: Bytes::Args(&args), list: None, at_most_once: true, lease: None, atomic: false };
        assert_eq!(asking(unit).unwrap(), b"*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n*2\r\n$4\r\nSCAN\r\n$1\r\n0\r\n");
    }
}
