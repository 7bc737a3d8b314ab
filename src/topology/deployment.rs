//! Which Sentinels belong to one deployment, and which of them count (rule 2, 0): a pure function of what they said and
//! of which deployment the client has joined.
//!
//! Guarantees: no I/O, no clock. Two Sentinels belong to one deployment if either lists the other's id (or its address,
//! where there is no id). Entries that are dead or have no port do not link them, except to one that answers and lists
//! nobody yet, because it has just restarted. Sentinels that list nobody yet are no conflict. Deployments conflict if
//! they name different primaries. A new client then joins the deployment with more of the configured Sentinels, and
//! none on a tie. A client that has joined a deployment stays with its ids while one of them answers. Leaves to others:
//! what follows from the voices that count (judge).

use super::answer::{Answer, Heard, Peer};
use super::identity::{Identity, Speaker};
use crate::config::Endpoint;
use crate::sort;
use std::collections::HashSet;

/// How many ids are remembered: they change behind a load balancer, or when Sentinels are rebuilt.
const REMEMBERED: usize = 128;

/// A Sentinel that answered.
#[derive(Debug, Clone, Copy)]
pub struct Seat<'a> {
    /// Its place among those asked.
    pub index: usize,
    /// Its address as given or announced.
    pub announced: &'a Endpoint,
    /// Whether the configuration names it.
    pub given: bool,
    /// What it said.
    pub answer: &'a Answer,
}

/// The Sentinels of the deployment that a client has joined, and those found to be of another one.
#[derive(Debug, Clone, Default)]
pub struct Membership {
    joined: Vec<Speaker>,
    strangers: Vec<Speaker>,
}

/// Which Sentinels count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Electorate {
    /// These, by their index, and those of another deployment.
    Ours {
        /// Their answers are judged.
        ours: Vec<usize>,
        /// They are of another deployment.
        strangers: Vec<usize>,
    },
    /// Undecidable: the configured Sentinels are split evenly.
    Torn(String),
    /// No Sentinel of the joined deployment answers; those that answer are of another one.
    Foreign {
        /// What they name.
        why: String,
        /// All who answered.
        strangers: Vec<usize>,
    },
}

impl Membership {
    /// Whether no deployment has been joined yet.
    pub fn is_new(&self) -> bool {
        self.joined.is_empty()
    }

    /// Whether this Sentinel is of another deployment. An id that occurs on both sides is told apart by its address.
    pub fn is_stranger(&self, who: &Speaker) -> bool {
        let both = self.joined.iter().any(|one| one.identity == who.identity);
        let same = |one: &Speaker| one.identity == who.identity && (!both || one.announced == who.announced);
        self.strangers.iter().any(same)
    }

    /// Notes the Sentinels that named the verified primary, and those of another deployment.
    pub fn note(&mut self, joined: Vec<Speaker>, strangers: Vec<Speaker>) {
        self.strangers.retain(|one| !joined.contains(one));
        self.joined.retain(|one| !strangers.contains(one));
        remember(&mut self.joined, joined);
        remember(&mut self.strangers, strangers);
    }

    fn has_joined(&self, seat: &Seat<'_>, contested: bool) -> bool {
        let identity = seat.identity();
        self.joined.iter().any(|one| one.identity == identity && (!contested || one.announced == *seat.announced))
    }
}

/// Appends the newest; drops the oldest beyond the limit.
fn remember(list: &mut Vec<Speaker>, new: Vec<Speaker>) {
    list.retain(|one| !new.contains(one));
    list.extend(new);
    list.drain(..list.len().saturating_sub(REMEMBERED));
}

impl<'a> Seat<'a> {
    fn identity(&self) -> Identity {
        Identity::new(self.answer.id.as_deref(), self.announced)
    }

    fn primary(&self) -> Option<&'a Endpoint> {
        match &self.answer.heard {
            Heard::Known(view) => Some(&view.primary),
            Heard::Unknown | Heard::NoAddress(_) => None,
        }
    }

    /// The same id with different primaries at different addresses is not one Sentinel: its addresses are told apart.
    fn is_contested(&self, seats: &[Self]) -> bool {
        let contradicts = |other: &Self| {
            other.answer.id == self.answer.id
                && matches!((self.primary(), other.primary()), (Some(own), Some(others)) if own != others)
        };
        self.answer.id.is_some() && seats.iter().any(contradicts)
    }

    fn lists(&self, other: &Self, contested: bool) -> bool {
        let is_other = |peer: &Peer| match (&peer.id, &other.answer.id) {
            (Some(listed), Some(told)) => listed == told && (!contested || peer.endpoint == *other.announced),
            _ => peer.endpoint == *other.announced,
        };
        // The others consider a restarted Sentinel down until it answers them, and it lists nobody yet.
        self.answer.peers.iter().any(|peer| is_other(peer) && (!peer.dead || !other.lists_any()))
    }

    fn lists_any(&self) -> bool {
        self.answer.peers.iter().any(|peer| !peer.dead)
    }
}

/// Sentinels that belong together, or that name the same primary.
struct Side<'a> {
    seats: Vec<Seat<'a>>,
    primaries: HashSet<&'a Endpoint>,
    /// The side is known to be a deployment: one of its Sentinels lists others, or shares its id with a Sentinel that
    /// contradicts it.
    attached: bool,
}

impl Side<'_> {
    fn given(&self) -> usize {
        self.seats.iter().filter(|seat| seat.given).map(Seat::identity).collect::<HashSet<_>>().len()
    }

    fn views(&self) -> String {
        let seats: Vec<_> = self.seats.iter().map(|seat| seat.announced.to_string()).collect();
        let mut primaries: Vec<_> = self.primaries.iter().map(ToString::to_string).collect();
        sort::by(&mut primaries, Ord::cmp);
        format!("{} ({} given) for {}", seats.join(", "), self.given(), primaries.join(" and "))
    }
}

/// Decides which Sentinels count. `given`: how many the configuration names; `primary`: the known one.
pub fn choose(seats: &[Seat<'_>], membership: &Membership, given: usize, primary: Option<&Endpoint>) -> Electorate {
    let contested: Vec<bool> = seats.iter().map(|seat| seat.is_contested(seats)).collect();
    let parts = parts(seats, &contested);
    let joined: Vec<bool> =
        seats.iter().zip(&contested).map(|(seat, contested)| membership.has_joined(seat, *contested)).collect();
    if joined.contains(&true) {
        return stay(seats, &parts, &joined, &contested);
    }
    let sides = sides(seats, &parts, &contested);
    let conflict = sides.iter().filter(|side| !side.primaries.is_empty()).count() > 1;
    if conflict && sides.iter().any(|side| side.attached) {
        return most_given(&sides, membership, given, primary);
    }
    let all =
        Side { seats: seats.to_vec(), primaries: seats.iter().filter_map(Seat::primary).collect(), attached: false };
    let everybody = seats.iter().map(|seat| seat.index).collect();
    match foreign(&all, membership, given, primary) {
        Some(why) => Electorate::Foreign { why, strangers: everybody },
        None => Electorate::Ours { ours: everybody, strangers: Vec::new() },
    }
}

/// A joined deployment keeps its ids while one of them answers, and those that most of these are linked with: a
/// Sentinel that was unreachable before may know a newer epoch. One Sentinel that was moved to another deployment does
/// not bring that one's members along. Others count if all name the same primary, or if they name none.
fn stay(seats: &[Seat<'_>], parts: &[usize], joined: &[bool], contested: &[bool]) -> Electorate {
    let ours: Vec<usize> = (0..seats.len()).filter(|place| joined[*place]).collect();
    let named: HashSet<_> = ours.iter().filter_map(|place| seats[*place].primary()).collect();
    let our_parts: HashSet<usize> = ours.iter().map(|place| parts[*place]).collect();
    let linked = |place: usize| {
        let with = |other: &&usize| are_linked(seats, contested, place, **other);
        !contested[place] && ours.iter().filter(with).count() * 2 > ours.len()
    };
    let (mut counted, mut strangers) = (Vec::new(), Vec::new());
    for (place, seat) in seats.iter().enumerate() {
        let agrees = seat.primary().is_none_or(|primary| named.len() == 1 && named.contains(primary));
        if joined[place] || agrees || linked(place) {
            counted.push(seat.index);
        } else if !our_parts.contains(&parts[place]) {
            strangers.push(seat.index);
        }
    }
    Electorate::Ours { ours: counted, strangers }
}

/// Chooses the deployment with most of the configured Sentinels.
fn most_given(sides: &[Side<'_>], membership: &Membership, given: usize, primary: Option<&Endpoint>) -> Electorate {
    let mut order: Vec<&Side<'_>> = sides.iter().filter(|side| !side.primaries.is_empty()).collect();
    sort::by_key(&mut order, |side| std::cmp::Reverse(side.given()));
    let [best, second, ..] = order[..] else { return Electorate::Torn(String::from("no Sentinel names a primary")) };
    if best.given() == second.given() {
        let views: Vec<_> = order.iter().map(|side| side.views()).collect();
        let why = "the Sentinels belong to different deployments, and as many of the given ones to each";
        return Electorate::Torn(format!("{why}: {}; sentinel.addrs must name one deployment", views.join("; ")));
    }
    let indices = |of: &dyn Fn(&Side<'_>) -> bool| {
        let seats = sides.iter().filter(|side| of(side)).flat_map(|side| &side.seats);
        seats.map(|seat| seat.index).collect::<Vec<_>>()
    };
    if let Some(why) = foreign(best, membership, given, primary) {
        return Electorate::Foreign { why, strangers: indices(&|side| !side.primaries.is_empty()) };
    }
    let is_ours = |side: &Side<'_>| side.primaries.is_empty() || std::ptr::eq(side, best);
    Electorate::Ours { ours: indices(&is_ours), strangers: indices(&|side| !is_ours(side)) }
}

/// Why other Sentinels do not replace a joined deployment that is silent: they name another primary, and are not the
/// majority of the configured ones.
fn foreign(side: &Side<'_>, membership: &Membership, given: usize, primary: Option<&Endpoint>) -> Option<String> {
    let primary = primary.filter(|_| !membership.is_new())?;
    let takes_over = side.primaries.is_empty() || side.primaries.contains(primary) || side.given() * 2 > given;
    (!takes_over).then(|| {
        let why = "none of the Sentinels of this deployment answers, and others are not believed";
        format!("{why}: {}, of {given} that are given", side.views())
    })
}

/// The part that each Sentinel belongs to, as the index of the part's first member. One deployment is one part.
fn parts(seats: &[Seat<'_>], contested: &[bool]) -> Vec<usize> {
    let mut parts: Vec<usize> = (0..seats.len()).collect();
    for a in 0..seats.len() {
        for b in a + 1..seats.len() {
            if are_linked(seats, contested, a, b) {
                join(&mut parts, a, b);
            }
        }
    }
    parts
}

/// Whether two are the same Sentinel, or either lists the other.
fn are_linked(seats: &[Seat<'_>], contested: &[bool], a: usize, b: usize) -> bool {
    let (one, other, contested) = (&seats[a], &seats[b], contested[a] || contested[b]);
    (!contested && one.identity() == other.identity()) || one.lists(other, contested) || other.lists(one, contested)
}

fn join(parts: &mut [usize], a: usize, b: usize) {
    let (low, high) = (parts[a].min(parts[b]), parts[a].max(parts[b]));
    parts.iter_mut().filter(|part| **part == high).for_each(|part| *part = low);
}

/// Merges parts that name the same primary: Sentinels that have just started list nobody for a while.
fn sides<'a>(seats: &[Seat<'a>], parts: &[usize], contested: &[bool]) -> Vec<Side<'a>> {
    let mut parts = parts.to_vec();
    for (a, one) in seats.iter().enumerate() {
        for (b, other) in seats.iter().enumerate().skip(a + 1) {
            if one.primary().is_some() && one.primary() == other.primary() {
                join(&mut parts, a, b);
            }
        }
    }
    let firsts = (0..seats.len()).filter(|place| parts[*place] == *place);
    let side = |first: usize| {
        let places = || (0..seats.len()).filter(|place| parts[*place] == first);
        Side {
            seats: places().map(|place| seats[place]).collect(),
            primaries: places().filter_map(|place| seats[place].primary()).collect(),
            attached: places().any(|place| contested[place] || seats[place].lists_any()),
        }
    };
    firsts.map(side).collect()
}

#[cfg(test)]
#[path = "deployment_tests.rs"]
mod tests;
