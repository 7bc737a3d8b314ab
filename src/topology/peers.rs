//! The known Sentinels: those of the configuration, which stay, and those learned from them, up to a limit.
//!
//! Guarantees: shuffled at the start, and then sorted by how useful each was; no entry is lost or doubled, however many
//! discoveries end at the same time; learned Sentinels never displace configured ones, and are removed when they
//! neither answer nor are named any more. Leaves to others: asking them.

use super::answer::Peer;
use std::sync::atomic::{AtomicU64, Ordering};

use super::identity::{Identity, Speaker};
use crate::config::Endpoint;
use crate::sort;
use crate::sys::random;
use crate::sys::rank::Rank;
use crate::sys::sync::{Lock, Locked};

/// A learned Sentinel is removed after this many discoveries in which it neither answered nor was named.
const MISSES: u32 = 3;

/// A Sentinel, for one discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its address as given or announced.
    pub endpoint: Endpoint,
    /// Whether the configuration names it.
    pub given: bool,
    /// Whether it counts for a majority: configured, or met before.
    pub counts: bool,
    /// The id that it gave last, or that others list for it.
    pub id: Option<String>,
}

/// The result with one Sentinel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Met {
    /// It answered, and the answer was of use; with its id, if it gives one.
    Good(Option<String>),
    /// It answered, and the answer was of no use.
    Useless(Option<String>),
    /// It answered, and is of another deployment.
    Stranger(Option<String>),
    /// It did not answer.
    Missed,
    /// Its answer was not waited for.
    Skipped,
}

/// The list.
pub struct SentinelList {
    entries: Lock<Vec<Entry>>,
    /// Grows when an address is added or removed.
    changes: AtomicU64,
}

struct Entry {
    endpoint: Endpoint,
    given: bool,
    id: Option<String>,
    /// It has given more than one id: several Sentinels share this address, and it is no second address of a known one.
    varies: bool,
    stranger: bool,
    met: bool,
    misses: u32,
    /// The number of discoveries since a Sentinel named it.
    unnamed: u32,
}

impl Entry {
    fn new(endpoint: Endpoint, given: bool, id: Option<String>) -> Self {
        Self { endpoint, given, id, varies: false, stranger: false, met: false, misses: 0, unnamed: 0 }
    }

    fn is_named(&self, id: Option<&String>) -> bool {
        !self.varies && id.is_some() && self.id.as_ref() == id
    }

    fn is_gone(&self) -> bool {
        !self.given && self.misses >= MISSES && self.unnamed >= MISSES
    }
}

impl SentinelList {
    /// The configured ones, in random order: processes with the same configuration must not all start with the same
    /// Sentinel.
    pub fn new(given: &[Endpoint]) -> Self {
        let mut entries: Vec<_> = given.iter().map(|endpoint| Entry::new(endpoint.clone(), true, None)).collect();
        random::rng().shuffle(&mut entries);
        Self { entries: Lock::new(Rank::Members, entries), changes: AtomicU64::new(1) }
    }

    /// A number that grows when an address is added or removed.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// All of them, the best first.
    pub fn members(&self) -> Vec<Member> {
        let member = |entry: &Entry| Member {
            endpoint: entry.endpoint.clone(),
            given: entry.given,
            counts: entry.given || entry.met,
            id: entry.id.clone(),
        };
        self.entries().iter().map(member).collect()
    }

    /// Adds those that a Sentinel names, up to `most` learned ones; which of them are new.
    pub fn learn(&self, peers: &[Peer], most: usize) -> Vec<Endpoint> {
        let mut entries = self.entries();
        let mut new = Vec::new();
        for peer in peers {
            // A known Sentinel that does not answer may have moved: its new address is asked beside the old one.
            let same = |entry: &Entry| {
                entry.endpoint == peer.endpoint || (entry.misses == 0 && entry.is_named(peer.id.as_ref()))
            };
            if let Some(entry) = entries.iter_mut().find(|entry| same(entry)) {
                entry.unnamed = 0;
            } else if make_room(&mut entries, most) {
                entries.push(Entry::new(peer.endpoint.clone(), false, peer.id.clone()));
                new.push(peer.endpoint.clone());
            }
        }
        if !new.is_empty() {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
        new
    }

    /// The addresses that have given more than one id.
    pub fn varying(&self) -> Vec<Endpoint> {
        self.entries().iter().filter(|entry| entry.varies).map(|entry| entry.endpoint.clone()).collect()
    }

    /// Notes the id of a Sentinel that answered too late for the discoveries so far.
    pub fn introduce(&self, endpoint: &Endpoint, id: Option<&str>) {
        let mut entries = self.entries();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.endpoint == *endpoint && entry.id.is_none()) {
            (entry.met, entry.id) = (true, id.map(str::to_owned));
        }
    }

    /// The Sentinels that count, each once, and where they are reached.
    pub fn speakers(&self) -> Vec<Speaker> {
        self.each_once(|entry| entry.given || entry.met)
    }

    /// The same, and those that were learned and have not been met yet: a program's command may go to all of them.
    pub fn reachable(&self) -> Vec<Speaker> {
        self.each_once(|_| true)
    }

    fn each_once(&self, is_meant: impl Fn(&Entry) -> bool) -> Vec<Speaker> {
        let mut all: Vec<Speaker> = Vec::new();
        for entry in self.entries().iter().filter(|entry| is_meant(entry) && !entry.stranger) {
            let identity = Identity::new(entry.id.as_deref(), &entry.endpoint);
            if !all.iter().any(|known| known.identity == identity) {
                all.push(Speaker { identity, announced: entry.endpoint.clone() });
            }
        }
        all
    }

    /// Sorts the Sentinels: useful ones first, in the order given here; removes those that are gone.
    pub fn settle(&self, met: &[(Endpoint, Met)]) {
        let mut entries = self.entries();
        let somebody_answered = met.iter().any(|(_, met)| matches!(met, Met::Good(_)));
        for entry in entries.iter_mut() {
            entry.unnamed = entry.unnamed.saturating_add(u32::from(somebody_answered));
        }
        for (endpoint, met) in met {
            if let Some(entry) = entries.iter_mut().find(|entry| entry.endpoint == *endpoint) {
                match met {
                    Met::Good(id) | Met::Useless(id) | Met::Stranger(id) => {
                        (entry.met, entry.misses, entry.unnamed) = (true, 0, 0);
                        entry.stranger = matches!(met, Met::Stranger(_));
                        entry.varies |= entry.id.is_some() && id.is_some() && entry.id != *id;
                        entry.id.clone_from(id);
                    }
                    Met::Missed => entry.misses = entry.misses.saturating_add(1),
                    Met::Skipped => {}
                }
            }
        }
        // The sort is stable: those that were not asked or not waited for keep their place among their kind.
        sort::by_key(&mut entries, |entry| {
            met.iter().position(|(endpoint, _)| *endpoint == entry.endpoint).map_or((1, 0), |place| {
                match met[place].1 {
                    Met::Good(_) => (0, place),
                    Met::Skipped => (1, 0),
                    Met::Useless(_) | Met::Stranger(_) => (2, 0),
                    Met::Missed => (3, 0),
                }
            })
        });
        let before = entries.len();
        entries.retain(|entry| !entry.is_gone());
        drop_doubles(&mut entries);
        if entries.len() != before {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn entries(&self) -> Locked<'_, Vec<Entry>> {
        self.entries.lock()
    }
}

/// Makes room for one more learned Sentinel: one of another deployment is removed, or a silent one that never answered.
fn make_room(entries: &mut Vec<Entry>, most: usize) -> bool {
    if entries.iter().filter(|entry| !entry.given).count() < most {
        return true;
    }
    let bogus = entries.iter().position(|entry| !entry.given && (entry.stranger || !entry.met && entry.misses > 0));
    bogus.map(|place| entries.remove(place)).is_some()
}

/// Removes a learned address of a Sentinel that is known by another address.
fn drop_doubles(entries: &mut Vec<Entry>) {
    let mut place = 0;
    while place < entries.len() {
        let entry = &entries[place];
        let twin = |other: &Entry| other.is_named(entry.id.as_ref()) && other.endpoint != entry.endpoint;
        let answers = |other: &Entry| other.met && other.misses == 0;
        let better = |(at, other): (usize, &Entry)| twin(other) && answers(other) && (other.given || at < place);
        if !entry.given && entries.iter().enumerate().any(better) {
            entries.remove(place);
        } else {
            place += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Endpoint {
        Endpoint::tcp("10.0.0.1", port).unwrap()
    }

    fn peer(port: u16, id: &str) -> Peer {
        Peer { endpoint: at(port), id: Some(id.into()), dead: false }
    }

    fn good(port: u16) -> (Endpoint, Met) {
        (at(port), Met::Good(Some(format!("id{port}"))))
    }

    fn ports(list: &SentinelList) -> Vec<u16> {
        let port = |member: Member| match member.endpoint {
            Endpoint::Tcp { port, .. } => port,
            Endpoint::Unix(_) => 0,
        };
        list.members().into_iter().map(port).collect()
    }

    #[test]
    fn one_that_answers_later_than_the_discoveries_so_far_is_known_by_its_id_from_then_on() {
        let list = SentinelList::new(&[at(1), at(2)]);
        list.settle(&[good(1), (at(2), Met::Skipped)]);
        let identities = || list.speakers().into_iter().map(|speaker| speaker.identity).collect::<Vec<_>>();
        assert_eq!(identities(), [Identity::Id("id1".into()), Identity::At(at(2))]);
        list.introduce(&at(2), Some("id2"));
        assert_eq!(identities(), [Identity::Id("id1".into()), Identity::Id("id2".into())]);
        list.introduce(&at(2), Some("another behind the same address"));
        list.introduce(&at(9), Some("id9"));
        assert_eq!(identities().len(), 2);
        // A Sentinel of another deployment does not count.
        list.settle(&[(at(1), Met::Stranger(Some("id1".into())))]);
        assert_eq!(identities(), [Identity::Id("id2".into())]);
        // Two addresses of one Sentinel count once.
        let list = SentinelList::new(&[at(1), at(2)]);
        list.introduce(&at(1), Some("a"));
        list.introduce(&at(2), Some("a"));
        assert_eq!(list.speakers().len(), 1);
    }

    #[test]
    fn row_26_each_is_first_about_as_often() {
        let given = [at(1), at(2), at(3)];
        let mut first = [0; 4];
        for _ in 0..1000 {
            first[usize::from(ports(&SentinelList::new(&given))[0])] += 1;
        }
        assert!(first[1..].iter().all(|count| (250..420).contains(count)), "{first:?}");
    }

    #[test]
    fn row_25_good_ones_go_first_and_silent_ones_last() {
        let list = SentinelList::new(&[at(1), at(2), at(3), at(4)]);
        list.settle(&[(at(1), Met::Missed), good(3), (at(4), Met::Useless(None)), (at(2), Met::Skipped)]);
        assert_eq!(ports(&list), [3, 2, 4, 1]);
        list.settle(&[good(1), good(3)]);
        assert_eq!(ports(&list), [1, 3, 2, 4]);
    }

    #[test]
    fn row_33_peers_are_learned_once_bounded_and_forgotten() {
        let list = SentinelList::new(&[at(1)]);
        list.settle(&[good(1)]);
        // Itself (by address and by id), a double, and more than the limit.
        let named = [peer(1, "id1"), peer(9, "id1"), peer(2, "id2"), peer(2, "id2"), peer(3, "id3"), peer(4, "id4")];
        assert_eq!(list.learn(&named, 2), [at(2), at(3)]);
        assert!(!list.members()[1].counts);
        // Learned ones that never answered are replaced; those that did are not.
        list.settle(&[good(1), good(2), (at(3), Met::Missed)]);
        assert_eq!(list.learn(&named, 2), [at(4)]);
        list.settle(&[good(1), good(2), good(4)]);
        assert!(list.learn(&[peer(5, "id5")], 2).is_empty());
        for _ in 0..MISSES {
            list.settle(&[(at(1), Met::Missed), good(2), (at(4), Met::Missed)]);
        }
        assert_eq!(ports(&list), [2, 1]);
    }

    #[test]
    fn a_learned_address_of_a_given_sentinel_is_dropped() {
        let list = SentinelList::new(&[at(1)]);
        list.learn(&[Peer { endpoint: at(7), id: None, dead: false }], 9);
        let same = |port| (at(port), Met::Good(Some(String::from("same"))));
        list.settle(&[same(7), same(1)]);
        assert_eq!(ports(&list), [1]);
    }

    #[test]
    fn one_that_has_moved_is_found_by_those_that_name_it() {
        // Learned, and given: the old address of a given one stays.
        for (given, left) in [(vec![at(1)], vec![1, 7]), (vec![at(1), at(2)], vec![1, 7, 2])] {
            let list = SentinelList::new(&given);
            list.learn(&[peer(2, "id2")], 9);
            list.settle(&[good(1), good(2)]);
            let moved = [peer(7, "id2")];
            assert!(list.learn(&moved, 9).is_empty(), "a second name, while it answers under the first");
            list.settle(&[good(1), (at(2), Met::Missed)]);
            assert_eq!(list.learn(&moved, 9), [at(7)]);
            assert!(list.learn(&moved, 9).is_empty());
            let counting = |list: &SentinelList| list.speakers().len();
            assert_eq!(counting(&list), 2, "it counts once");
            for _ in 0..MISSES {
                list.settle(&[good(1), (at(7), Met::Good(Some("id2".into()))), (at(2), Met::Missed)]);
                list.learn(&moved, 9);
            }
            assert_eq!((ports(&list), counting(&list)), (left, 2));
        }
    }

    #[test]
    fn behind_a_load_balancer_nobody_is_taken_for_known() {
        let list = SentinelList::new(&[at(1)]);
        let told = |port, id: &str| (at(port), Met::Good(Some(id.into())));
        let named = [peer(7, "a"), peer(8, "b")];
        list.settle(&[told(1, "a")]);
        // As far as is known, it is Sentinel a.
        assert_eq!(list.learn(&named, 9), [at(8)]);
        // Next time it is b: so it is no second address, and those behind it are asked separately.
        list.settle(&[told(1, "b"), told(8, "b")]);
        assert_eq!(ports(&list), [1, 8]);
        assert_eq!(list.learn(&named, 9), [at(7)]);
        list.settle(&[told(1, "a"), told(7, "a"), told(8, "b")]);
        assert_eq!(ports(&list), [1, 7, 8]);
    }

    #[test]
    fn strangers_make_way_for_others() {
        let list = SentinelList::new(&[at(1)]);
        assert_eq!(list.learn(&[peer(5, "id5"), peer(6, "id6")], 2).len(), 2);
        list.settle(&[good(1), (at(5), Met::Stranger(Some("id5".into()))), good(6)]);
        assert_eq!(list.learn(&[peer(7, "id7"), peer(8, "id8")], 2), [at(7)]);
        let mut left = ports(&list);
        left.sort_unstable();
        assert_eq!(left, [1, 6, 7]);
    }

    #[test]
    fn row_26_nothing_is_lost_or_doubled_when_many_settle_at_once() {
        let given: Vec<_> = (1..=3).map(at).collect();
        let list = SentinelList::new(&given);
        std::thread::scope(|scope| {
            for thread in 0..64 {
                let list = &list;
                scope.spawn(move || {
                    for round in 0..50 {
                        let good_port = if (thread + round) % 2 == 0 { 2 } else { 3 };
                        list.learn(&[peer(4, "id4"), peer(5, "id5")], 2);
                        list.settle(&[(at(1), Met::Missed), good(good_port), good(4), good(5)]);
                    }
                });
            }
        });
        let mut all = ports(&list);
        assert!([2, 3].contains(&all[0]), "{all:?}");
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3, 4, 5]);
    }
}
