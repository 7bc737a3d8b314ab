//! Which node a replica must follow to be read from, and what was found out about each replica.
//!
//! Guarantees: a replica is fit by its own word if its link is up and leads to the primary, to the candidate, or,
//! shortly after a switch, to the previous primary. Where addresses do not match (host names, NAT, cascades), equal
//! replication ids decide; where these are refused, the word of the Sentinels does, and that is reported. While the
//! primary is down or new, a broken link does not count, but data of another history do (rule 32). Leaves to others:
//! asking the nodes (route), and what the Sentinels say about them (replicas).

use super::cause::{Cause, Why};
use super::snapshot::Snapshot;
use super::source::Source;
use crate::config::Endpoint;
use crate::error::clean;
use crate::net::{Replication, Role};
use crate::sys::rank::Rank;
use crate::sys::sync::{Lock, Locked};
use arc_swap::ArcSwap;

/// A node's answer to the question for its replication id.
#[derive(Debug, Clone, Copy)]
pub enum Told<'a> {
    /// Not asked yet.
    NotAsked,
    /// It does not say, or cannot be reached.
    Nothing,
    /// Its answer.
    Is(&'a Replication),
}

/// What a replica is weighed by.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// The nodes that it may follow, the primary first.
    pub leaders: Vec<Endpoint>,
    /// The latest known replication id of the primary.
    pub id: Option<String>,
    /// Earlier replication ids.
    pub older: Vec<String>,
    /// A broken link does not count.
    pub in_grace: bool,
    /// What the Sentinels say about it: the node that it follows, and whether its link is up.
    pub listed: Option<(Option<Endpoint>, bool)>,
    /// Who lists it.
    pub source: Source,
}

/// The verdict on a replica so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weighed {
    /// It may be read from.
    Fit,
    /// It may be read from by the word of the Sentinels, for this reason.
    Unproven(Why),
    /// It must not be read from, for this reason; and whether the only reason is its link.
    Unfit(Why, bool),
    /// Its replication id is needed.
    AskReplica,
    /// The primary's replication id is needed.
    AskPrimary,
}

impl Line {
    /// Weighs a replica by its role, and by the replication ids of the replica and the primary.
    pub fn weigh(&self, role: &Role, theirs: Told<'_>, primary: Told<'_>) -> Weighed {
        let (at, state) = match role {
            Role::Replica { host, port, state, .. } => (Endpoint::tcp(host, *port).ok(), state.as_str()),
            Role::Unknown => {
                return self.by_others(None, "", "it tells its role by no command that this user may call");
            }
            // Not a replica; the handshake has handled that.
            _ => return Weighed::Fit,
        };
        let connected = state == "connected";
        let follows = at.as_ref().is_some_and(|at| self.leaders.contains(at));
        if follows && connected {
            return Weighed::Fit;
        }
        let unfit = |cause, text: String| Weighed::Unfit(Why::own(cause, text), cause == Cause::LinkDown);
        let broken = || unfit(Cause::LinkDown, format!("its link to the primary is down ({})", clean(state)));
        if follows && !self.in_grace {
            return broken();
        }
        let theirs = match theirs {
            Told::NotAsked => return Weighed::AskReplica,
            Told::Is(told) if !told.id.is_empty() => told,
            Told::Is(_) | Told::Nothing => return self.by_others(at, state, "it does not tell its replication id"),
        };
        let other = || {
            let (at, primary) = (named(at.as_ref()), named(self.leaders.first()));
            match follows {
                true => unfit(Cause::OtherData, format!("its data are not those of the primary {primary}")),
                false => unfit(Cause::OtherPrimary, format!("it follows {at}, not the primary {primary}")),
            }
        };
        let lent = |id: &String| self.in_grace && *id == theirs.id;
        if self.id.as_ref() != Some(&theirs.id) && !self.older.iter().any(lent) {
            match primary {
                Told::NotAsked => return Weighed::AskPrimary,
                Told::Is(told) if told.id == theirs.id || told.older.as_ref().is_some_and(lent) => {}
                Told::Is(told) if !told.id.is_empty() => return other(),
                // The primary is unreachable, and its replication id was never known.
                _ if follows && self.id.is_none() && theirs.has_data => {}
                _ if !theirs.has_data || (self.id.is_some() && !connected) => return other(),
                _ => return self.by_others(at, state, "the primary does not tell its replication id"),
            }
        }
        if connected || (self.in_grace && !theirs.syncing) { Weighed::Fit } else { broken() }
    }

    /// The word of the Sentinels, who have asked the replica themselves, up to ten seconds ago; or that of the configuration, which
    /// cannot vouch for a replica that follows another address than that of the primary.
    fn by_others(&self, at: Option<Endpoint>, state: &str, why: &str) -> Weighed {
        let stands = matches!(state, "" | "connected") || self.in_grace;
        match &self.listed {
            Some((follows, link_ok)) if stands && (*link_ok || self.in_grace) && (at.is_none() || *follows == at) => {
                Weighed::Unproven(Why::own(
                    Cause::Unproven,
                    format!("{why}: {} word for it is taken", self.source.whose()),
                ))
            }
            _ => {
                let at = named(at.as_ref());
                let word = match self.source {
                    Source::Sentinels => "the Sentinels say otherwise",
                    Source::Fixed => "the configuration cannot vouch for it",
                };
                let text = format!("{why}, it follows {at} (link: {}), and {word}", clean(state));
                Weighed::Unfit(Why::own(Cause::Contradicted, text), false)
            }
        }
    }
}

fn named(endpoint: Option<&Endpoint>) -> String {
    endpoint.map_or_else(|| "nobody known".to_owned(), ToString::to_string)
}

/// What a service knows about the replication ids of its nodes, and what was found out about nodes that were weighed or
/// could not be asked.
pub(super) struct Following(Lock<FollowingState>);

#[derive(Debug, Default)]
struct FollowingState {
    /// The primary, as announced, that the ids belong to.
    of: Option<Endpoint>,
    id: Option<String>,
    older: Vec<String>,
    remarks: Vec<Remark>,
    /// What was last reported of each replica: whether it is fit.
    told: Vec<(Endpoint, bool)>,
}

#[derive(Debug)]
struct Remark {
    node: Endpoint,
    why: Why,
    fit: bool,
}

/// How many ids of earlier primaries are kept.
const OLDER: usize = 4;

/// Reports a replica, by the address where it is dialled: whether it is fit from now on, or `None` if it is only
/// mentioned.
pub(super) type TellReplica<'a> = &'a dyn Fn(&Endpoint, Option<bool>, Why);

impl Following {
    pub(super) fn new() -> Self {
        Self(Lock::new(Rank::Following, FollowingState::default()))
    }

    fn state(&self) -> Locked<'_, FollowingState> {
        self.0.lock()
    }

    /// The replication id of this primary, and the earlier ones, as far as they are known.
    pub(super) fn ids(&self, primary: Option<&Endpoint>) -> (Option<String>, Vec<String>) {
        self.state().ids(primary)
    }

    /// Notes the replication id of the primary.
    pub(super) fn learn(&self, primary: &Endpoint, told: &Replication) {
        self.state().learn(primary, told);
    }

    /// Notes the result of weighing a replica, and reports what is new in it. The snapshot is loaded under the lock, so
    /// that the latest report is true.
    pub(super) fn note_weighed(
        &self,
        replica: &Endpoint,
        weighed: &Weighed,
        snapshot: &ArcSwap<Snapshot>,
        tell: TellReplica<'_>,
    ) {
        let remark = match weighed {
            Weighed::Unproven(why) => Some((why.clone(), true)),
            Weighed::Unfit(why, _) => Some((why.clone(), false)),
            _ => None,
        };
        let mut state = self.state();
        let snapshot = snapshot.load();
        let listed = snapshot.replicas.iter().find(|view| view.endpoint == *replica);
        let is_new = state.remark(replica, remark);
        match (weighed, listed) {
            (_, None) => {}
            (Weighed::Unfit(why, _), Some(_)) => state.tell_fit(replica, false, why.clone(), tell),
            (_, Some(view)) if view.unfit.is_none() => state.tell_fit(replica, true, Why::word(Cause::Fit), tell),
            // The Sentinels say that it is unfit.
            (_, Some(_)) => {}
        }
        if let (Weighed::Unproven(why), true) = (weighed, is_new) {
            tell(replica, None, why.clone());
        }
    }

    /// Reports what a discovery changes for the replicas.
    pub(super) fn note_listed(&self, before: &Snapshot, after: &Snapshot, tell: TellReplica<'_>) {
        let is_in = |snapshot: &Snapshot, node: &Endpoint| snapshot.replicas.iter().any(|view| view.endpoint == *node);
        let mut state = self.state();
        for replica in &after.replicas {
            let node = &replica.endpoint;
            match &replica.unfit {
                None if state.objects_to(node) => {}
                None => state.tell_fit(node, true, Why::word(Cause::Fit), tell),
                Some(why) if state.told(node) == Some(true) => state.tell_fit(node, false, why.clone(), tell),
                Some(_) => {}
            }
        }
        for gone in before.replicas.iter().map(|view| &view.endpoint).filter(|node| !is_in(after, node)) {
            if state.told(gone) == Some(true) {
                let is_primary = after.primary_announced.as_ref() == Some(gone) || after.primary.as_ref() == Some(gone);
                let why = match is_primary {
                    true => Why::own(Cause::Promoted, "it is the primary now"),
                    false => Why::own(Cause::NotListed, "not listed any more"),
                };
                state.tell_fit(gone, false, why, tell);
            }
            state.told.retain(|(node, _)| node != gone);
        }
    }

    /// Why a replica was unfit when it was last weighed.
    pub(super) fn objection_to(&self, replica: &Endpoint) -> Option<Why> {
        let state = self.state();
        let remark = state.remarks.iter().find(|remark| remark.node == *replica && !remark.fit);
        remark.map(|remark| remark.why.clone())
    }

    /// Forgets what was found out about nodes that a discovery did not list.
    pub(super) fn forget_gone(&self, snapshot: &Snapshot) {
        self.state().prune(snapshot);
    }

    /// Notes whether the primary confirmed its role itself; what to report when it newly does not.
    pub(super) fn note_primary(&self, primary: &Endpoint, unproven: bool, source: Source) -> Option<Why> {
        let text = format!(
            "{primary} is taken for the primary on {} word: no command that this user may call tells",
            source.whose()
        );
        let why = Why::own(Cause::RoleUnknown, text);
        let is_new = self.state().remark(primary, unproven.then(|| (why.clone(), true)));
        (is_new && unproven).then_some(why)
    }
}

impl FollowingState {
    /// The ids, if they belong to this primary.
    fn ids(&self, primary: Option<&Endpoint>) -> (Option<String>, Vec<String>) {
        match self.of.as_ref() == primary {
            true => (self.id.clone(), self.older.clone()),
            // Of a new primary only the earlier history is known.
            false => (None, self.id.iter().chain(&self.older).cloned().collect()),
        }
    }

    fn learn(&mut self, primary: &Endpoint, told: &Replication) {
        if told.id.is_empty() {
            return;
        }
        let before = self.id.replace(told.id.clone());
        let older = told.older.iter().cloned().chain(before).chain(std::mem::take(&mut self.older));
        for id in older {
            if id != told.id && !self.older.contains(&id) && self.older.len() < OLDER {
                self.older.push(id);
            }
        }
        self.of = Some(primary.clone());
    }

    fn told(&self, replica: &Endpoint) -> Option<bool> {
        self.told.iter().find(|(node, _)| node == replica).map(|(_, fit)| *fit)
    }

    /// Reports whether a replica is fit, unless that was the last report. The state stays locked, so that the latest
    /// report is true.
    fn tell_fit(&mut self, replica: &Endpoint, fit: bool, why: Why, tell: TellReplica<'_>) {
        if self.told(replica) == Some(fit) {
            return;
        }
        self.told.retain(|(node, _)| node != replica);
        self.told.push((replica.clone(), fit));
        tell(replica, Some(fit), why);
    }

    /// Whether a replica was unfit by its own word when it was last weighed.
    fn objects_to(&self, replica: &Endpoint) -> bool {
        self.remarks.iter().any(|remark| remark.node == *replica && !remark.fit)
    }

    /// Forgets nodes that are gone.
    fn prune(&mut self, snapshot: &Snapshot) {
        let listed = |node: &Endpoint| snapshot.replicas.iter().any(|replica| replica.endpoint == *node);
        self.remarks.retain(|remark| snapshot.primary.as_ref() == Some(&remark.node) || listed(&remark.node));
    }

    /// Notes a remark on a node; whether it is new.
    fn remark(&mut self, node: &Endpoint, remark: Option<(Why, bool)>) -> bool {
        let known = self.remarks.iter().position(|one| one.node == *node);
        match (known, remark) {
            (None, None) => false,
            (Some(at), None) => {
                self.remarks.remove(at);
                true
            }
            (Some(at), Some((why, fit))) => {
                let is_new = self.remarks[at].why != why;
                self.remarks[at] = Remark { node: node.clone(), why, fit };
                is_new
            }
            (None, Some((why, fit))) => {
                self.remarks.push(Remark { node: node.clone(), why, fit });
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &str) -> Endpoint {
        Endpoint::tcp(name, 6379).unwrap()
    }

    fn role(host: &str, state: &str) -> Role {
        Role::Replica { host: host.into(), port: 6379, state: state.into(), offset: 1, writes: false }
    }

    fn told(id: &str, older: Option<&str>, has_data: bool) -> Replication {
        let older = older.map(str::to_owned);
        Replication { role: Role::Unknown, id: id.into(), older, syncing: false, has_data }
    }

    fn line() -> Line {
        Line { leaders: vec![at("p"), at("c")], ..Line::default() }
    }

    fn in_grace() -> Line {
        let listed = Some((Some(at("p")), true));
        Line { in_grace: true, id: Some("A".into()), older: vec!["B".into()], listed, ..line() }
    }

    fn unfit(weighed: Weighed) -> (String, bool) {
        match weighed {
            Weighed::Unfit(why, by_link) => (why.to_string(), by_link),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_connected_one_of_the_primary_or_of_the_candidate_costs_no_question() {
        for leader in ["p", "c"] {
            assert_eq!(line().weigh(&role(leader, "connected"), Told::NotAsked, Told::NotAsked), Weighed::Fit);
        }
        for state in ["connect", "connecting", "sync", "handshake", "full_sync"] {
            let (why, by_link) = unfit(line().weigh(&role("p", state), Told::NotAsked, Told::NotAsked));
            assert!(by_link && why.contains(state), "{why}");
        }
    }

    #[test]
    fn equal_ids_decide_where_addresses_differ() {
        let (ours, others, primary) = (told("A", None, true), told("X", None, true), told("A", None, true));
        let nat = role("nat", "connected");
        assert_eq!(line().weigh(&nat, Told::NotAsked, Told::NotAsked), Weighed::AskReplica);
        assert_eq!(line().weigh(&nat, Told::Is(&ours), Told::NotAsked), Weighed::AskPrimary);
        assert_eq!(line().weigh(&nat, Told::Is(&ours), Told::Is(&primary)), Weighed::Fit);
        let known = Line { id: Some("A".into()), ..line() };
        assert_eq!(
            known.weigh(&nat, Told::Is(&ours), Told::NotAsked),
            Weighed::Fit,
            "what is known saves the question"
        );
        assert_eq!(known.weigh(&nat, Told::Is(&others), Told::NotAsked), Weighed::AskPrimary, "it may be new");
        let (why, by_link) = unfit(known.weigh(&nat, Told::Is(&others), Told::Is(&primary)));
        assert!(!by_link && why.contains("follows nat:6379") && why.contains("primary p:6379"), "{why}");
        let branched = told("X", Some("A"), true);
        unfit(known.weigh(&nat, Told::Is(&branched), Told::Is(&primary)));
        let (why, by_link) = unfit(known.weigh(&role("nat", "sync"), Told::Is(&ours), Told::NotAsked));
        assert!(by_link && why.contains("sync"), "{why}");
    }

    #[test]
    fn the_sentinels_word_is_enough_where_ids_are_refused() {
        let nat = role("nat", "connected");
        for (listed, fit) in [
            (Some((Some(at("nat")), true)), true),
            (Some((Some(at("nat")), false)), false),
            (Some((Some(at("p")), true)), false),
            (None, false),
        ] {
            let weighed = Line { listed: listed.clone(), ..line() }.weigh(&nat, Told::Nothing, Told::NotAsked);
            assert_eq!(matches!(weighed, Weighed::Unproven(_)), fit, "{listed:?}: {weighed:?}");
            assert!(fit || matches!(weighed, Weighed::Unfit(..)), "{weighed:?}");
        }
        let listed = Some((Some(at("p")), true));
        for role in [Role::Unknown, role("", "")] {
            let weighed = Line { listed: listed.clone(), ..line() }.weigh(&role, Told::Nothing, Told::NotAsked);
            assert!(matches!(weighed, Weighed::Unproven(_)), "{weighed:?}");
        }
        let cut = Line { listed: Some((Some(at("p")), false)), ..line() };
        assert!(matches!(cut.weigh(&Role::Unknown, Told::Nothing, Told::NotAsked), Weighed::Unfit(..)));
        let weighed = Line { in_grace: true, ..cut }.weigh(&Role::Unknown, Told::Nothing, Told::NotAsked);
        assert!(matches!(weighed, Weighed::Unproven(_)), "while links do not count: {weighed:?}");
        let primary_mute = Line { listed: Some((Some(at("nat")), true)), ..line() };
        let weighed = primary_mute.weigh(&nat, Told::Is(&told("A", None, true)), Told::Nothing);
        assert!(matches!(weighed, Weighed::Unproven(_)), "{weighed:?}");
    }

    #[test]
    fn while_the_primary_is_away_a_broken_link_counts_for_nothing_and_foreign_data_do() {
        let cut = role("p", "connect");
        assert_eq!(in_grace().weigh(&cut, Told::NotAsked, Told::NotAsked), Weighed::AskReplica);
        for id in ["A", "B"] {
            assert_eq!(in_grace().weigh(&cut, Told::Is(&told(id, None, true)), Told::NotAsked), Weighed::Fit);
        }
        let empty = told("new", None, false);
        assert_eq!(in_grace().weigh(&cut, Told::Is(&empty), Told::NotAsked), Weighed::AskPrimary);
        let (why, by_link) = unfit(in_grace().weigh(&cut, Told::Is(&empty), Told::Nothing));
        assert!(!by_link && why.contains("not those of the primary"), "{why}");
        let promoted = told("N", Some("A"), true);
        let unheard = Line { id: None, older: vec![], ..in_grace() };
        let weighed = unheard.weigh(&cut, Told::Is(&told("A", None, true)), Told::Is(&promoted));
        assert_eq!(weighed, Weighed::Fit, "it has what the new primary was promoted with");
        assert_eq!(unheard.weigh(&cut, Told::Is(&told("A", None, true)), Told::Nothing), Weighed::Fit);
        unfit(unheard.weigh(&cut, Told::Is(&empty), Told::Nothing));
        let syncing = Replication { syncing: true, ..told("A", None, true) };
        assert!(unfit(in_grace().weigh(&cut, Told::Is(&syncing), Told::NotAsked)).1);
    }

    #[test]
    fn ids_are_kept_with_the_primary_that_they_are_of() {
        let mut state = FollowingState::default();
        state.learn(&at("p"), &told("A", Some("O"), true));
        assert_eq!(state.ids(Some(&at("p"))), (Some("A".into()), vec!["O".into()]));
        assert_eq!(state.ids(Some(&at("q"))), (None, vec!["A".into(), "O".into()]));
        state.learn(&at("q"), &told("N", Some("A"), true));
        assert_eq!(state.ids(Some(&at("q"))), (Some("N".into()), vec!["A".into(), "O".into()]));
        state.learn(&at("q"), &told("", None, true));
        assert_eq!(state.ids(Some(&at("q"))).0, Some("N".into()), "who tells nothing changes nothing");
    }

    #[test]
    fn a_remark_is_told_once() {
        let mut state = FollowingState::default();
        let say = |text: &str| Some((Why::own(Cause::OtherPrimary, text), false));
        assert!(!state.remark(&at("r"), None));
        assert!(state.remark(&at("r"), say("x")) && !state.remark(&at("r"), say("x")));
        assert!(state.remark(&at("r"), say("y")) && state.remark(&at("r"), None) && !state.remark(&at("r"), None));
        assert!(state.remark(&at("r"), say("x")) && state.remark(&at("p"), say("x")));
        state.prune(&Snapshot { primary: Some(at("p")), ..Snapshot::default() });
        assert!(
            state.remark(&at("r"), say("x")) && !state.remark(&at("p"), say("x")),
            "of one that is gone nothing is kept"
        );
    }
}
