//! Which primary to believe: rules 1 to 3, as a pure function of what the Sentinels said and what was known before.
//!
//! Guarantees: no I/O, no clock, no memory. The highest epoch wins if its address was a known replica, or if two
//! Sentinels name it; among equal epochs the majority wins. An unknown address from a single Sentinel never wins if
//! anything is known or anybody else says otherwise. An epoch below the known one wins only if a majority of all known
//! Sentinels agrees in two polls that are [`EPOCH_RESET_AFTER`] apart, be it for another address or for the same.
//! Leaves to others: asking the candidate for its role, which decides in the end, and the timing of the polls.

use super::answer::{Answer, Heard, ReplicaAnswer, has_flag};
use super::deployment::Membership;
use crate::config::Endpoint;
use crate::error::Status;
use crate::sort;
use std::cmp::Ordering;
use std::time::Duration;

/// The time between the two polls that put an epoch back (rule 3). Sentinels tell each other of a switch every 2 s:
/// within that time the one Sentinel that knows of the switch may be the slow one in both polls.
pub const EPOCH_RESET_AFTER: Duration = Duration::from_secs(2);

/// What one Sentinel says, if it may be believed.
#[derive(Debug, Clone, Copy)]
pub struct Voice<'a> {
    /// Its index among those asked.
    pub index: usize,
    /// The address it names.
    pub primary: &'a Endpoint,
    /// The epoch.
    pub epoch: u64,
    /// The flags.
    pub flags: &'a str,
    /// The replicas that it lists.
    pub replicas: &'a [ReplicaAnswer],
    /// In TILT: it counts less.
    pub tilt: bool,
}

/// What was known before.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The primary, as announced.
    pub primary: Option<Endpoint>,
    /// Its epoch.
    pub epoch: u64,
    /// The replicas, as announced.
    pub replicas: Vec<Endpoint>,
    /// The proposal that the last poll could not accept without another poll (rule 3), and for how long polls have
    /// agreed on it.
    pub proposed: Option<(Proposal, Duration)>,
    /// The primary is a candidate that was taken at its own word: an older epoch does not replace it.
    pub provisional: bool,
    /// No connection to the primary has failed since it confirmed its role.
    pub trusted: bool,
    /// The deployment that the client has joined.
    pub membership: Membership,
}

impl Known {
    /// Whether earlier polls said the same, for long enough if the epoch goes back.
    fn has_agreed(&self, proposal: &Proposal) -> bool {
        let back = self.primary.is_some() && proposal.epoch <= self.epoch;
        let apart = if back { EPOCH_RESET_AFTER } else { Duration::ZERO };
        self.proposed.as_ref().is_some_and(|(known, age)| known == proposal && *age >= apart)
    }
}

/// An address and its epoch, usually below the known one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The address.
    pub primary: Endpoint,
    /// The epoch.
    pub epoch: u64,
}

/// An address that may be the primary's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// As announced.
    pub primary: Endpoint,
    /// The epoch to remember.
    pub epoch: u64,
    /// The indices of the voices for it, the highest epoch first.
    pub voices: Vec<usize>,
    /// Whether the epoch went back (rule 3).
    pub reset: bool,
    /// Only Sentinels in TILT name it: it may be used if it confirms its role, and proves nothing else.
    pub tilt: bool,
}

impl Candidate {
    /// How many other voices confirm the first one; none in TILT does.
    fn others(&self) -> usize {
        if self.tilt { 0 } else { self.voices.len() - 1 }
    }
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The candidates in the order of trust, at least one; and the lower epoch of the known primary that a later poll
    /// may confirm.
    Candidates(Vec<Candidate>, Option<Proposal>),
    /// No candidate, for this reason; and what a later poll may confirm.
    Refused(Status, String, Option<Proposal>),
}

/// The voices that may be believed (rule 2a): each Sentinel once, however many addresses it has. Sentinels in TILT only
/// count if all are in TILT, agree, and are more than half of all known Sentinels.
pub fn voices<'a>(answers: &[(usize, &'a Answer)], all: usize) -> Vec<Voice<'a>> {
    let (tilted, sound): (Vec<_>, Vec<_>) = each_once(answers).into_iter().partition(|voice| voice.tilt);
    let agree = tilted.iter().all(|voice| voice.primary == tilted[0].primary);
    if sound.is_empty() && agree && tilted.len() * 2 > all { tilted } else { sound }
}

/// The voice of each Sentinel. If a Sentinel contradicts itself at two addresses, the newer epoch counts; with equal
/// epochs neither does.
pub fn each_once<'a>(answers: &[(usize, &'a Answer)]) -> Vec<Voice<'a>> {
    let mut voices: Vec<(Option<&str>, Voice<'a>, bool)> = Vec::new();
    for &(index, answer) in answers {
        let Heard::Known(view) = &answer.heard else { continue };
        let (primary, epoch, flags, replicas) = (&view.primary, view.epoch, view.flags.as_str(), &view.replicas);
        let voice = Voice { index, primary, epoch, flags, replicas, tilt: answer.tilt };
        let id = answer.id.as_deref();
        match voices.iter_mut().find(|(known, ..)| id.is_some() && *known == id) {
            None => voices.push((id, voice, true)),
            Some((_, known, counts)) if voice.primary != known.primary => match voice.epoch.cmp(&known.epoch) {
                Ordering::Greater => (*known, *counts) = (voice, true),
                Ordering::Equal => *counts = false,
                Ordering::Less => {}
            },
            Some(_) => {}
        }
    }
    voices.into_iter().filter(|(.., counts)| *counts).map(|(_, voice, _)| voice).collect()
}

/// Whether waiting for more answers can change nothing: more than half of all deciders agree on address and epoch, no
/// voice names another address under a higher epoch, and `min_others` voices agree. Voices in TILT wait for all.
pub fn is_settled(voices: &[Voice<'_>], decides: impl Fn(&Voice<'_>) -> bool, all: usize, min_others: usize) -> bool {
    voices.iter().any(|voice| {
        let agreeing = || voices.iter().filter(|other| other.primary == voice.primary && other.epoch == voice.epoch);
        let higher = voices.iter().any(|other| other.primary != voice.primary && other.epoch > voice.epoch);
        let deciding = agreeing().filter(|other| decides(other)).count();
        !voice.tilt && deciding * 2 > all && agreeing().count() > min_others && !higher
    })
}

/// Whether the voice names another primary without a newer epoch, or the known one under an older epoch.
pub fn goes_back(voice: &Voice<'_>, known: &Known) -> bool {
    known
        .primary
        .as_ref()
        .is_some_and(|primary| voice.epoch < known.epoch || (voice.epoch == known.epoch && primary != voice.primary))
}

/// Whether all voices name one address, and enough of them do.
pub fn is_unanimous(voices: &[Voice<'_>], min_others: usize) -> bool {
    voices.len() > min_others && voices.iter().all(|voice| voice.primary == voices[0].primary)
}

/// Decides. `all`: the number of known Sentinels of the deployment.
pub fn judge(voices: &[Voice<'_>], known: &Known, all: usize, min_others: usize) -> Decision {
    let groups = groups(voices, known);
    if groups.is_empty() {
        return refuse(Status::NoPrimary, "no Sentinel's answer could be used");
    }
    let lone = voices.len() == 1 && known.primary.is_none();
    let eligible: Vec<_> = groups.iter().filter(|group| group.is_eligible() || lone).collect();
    let Some(first) = eligible.first() else {
        return nobody_eligible(&groups, voices, known, all);
    };
    let rivals: Vec<_> = eligible.iter().filter(|group| group.epoch == first.epoch).collect();
    let votes: usize = rivals.iter().map(|group| group.voices.len()).sum();
    if first.voices.len() * 2 <= votes {
        return refuse(Status::SplitView, format!("no majority among the Sentinels: {}", views(voices)));
    }
    let mut candidates = Vec::new();
    let mut why = None;
    for group in &eligible {
        if candidates.is_empty() || group.epoch < first.epoch {
            match group.against(known, voices, all) {
                Ok(candidate) => candidates.push(candidate),
                Err(refusal) => why = why.or(Some(refusal)),
            }
        }
    }
    let restarts = eligible.iter().find_map(|group| group.restarts(known, all));
    match (candidates.first(), why) {
        (Some(best), _) if best.others() < min_others => few_others(best, min_others),
        (Some(best), _) => match down(best, voices, known) {
            Some(why) => refuse(Status::NoPrimary, why),
            None => Decision::Candidates(candidates, restarts.filter(|proposal| !known.has_agreed(proposal))),
        },
        (None, Some(why)) => why,
        (None, None) => refuse(Status::NoPrimary, "no Sentinel's answer could be used"),
    }
}

/// The voices for one address.
struct Group<'a> {
    primary: &'a Endpoint,
    /// The epoch that the group counts with.
    epoch: u64,
    voices: Vec<Voice<'a>>,
    is_known_primary: bool,
    is_known_replica: bool,
}

impl Group<'_> {
    fn is_eligible(&self) -> bool {
        self.voices.len() >= 2 || self.is_known_replica || self.is_known_primary
    }

    /// Applies rule 3, also to an equal epoch: another address replaces a known primary only with a newer epoch, or in
    /// a second poll.
    fn against(&self, known: &Known, voices: &[Voice<'_>], all: usize) -> Result<Candidate, Decision> {
        if known.primary.is_none() || self.epoch > known.epoch {
            return Ok(self.candidate(self.epoch, false));
        }
        if self.is_known_primary {
            // With its older epoch it would lose against a primary of an epoch in between.
            let restarts = self.restarts(known, all).is_some_and(|proposal| known.has_agreed(&proposal));
            return Ok(self.candidate(if restarts { self.epoch } else { known.epoch }, restarts));
        }
        let defended = known.provisional || voices.iter().any(|voice| Some(voice.primary) == known.primary.as_ref());
        // A majority of all Sentinels, not of those that answer: otherwise one stale Sentinel that is alone for a
        // moment could undo everything.
        if defended || !self.has_most(all.max(voices.len())) {
            let text =
                format!("stale: epoch {} is not above the known one, {}: {}", self.epoch, known.epoch, views(voices));
            return Err(refuse(Status::NoPrimary, text));
        }
        self.twice(known, format!("goes back behind the known epoch {}", known.epoch))
    }

    /// The lower epoch of the known primary, if a majority of all known Sentinels names it, and none of them the known
    /// epoch.
    fn restarts(&self, known: &Known, all: usize) -> Option<Proposal> {
        let lower = self.is_known_primary && self.voices[0].epoch < known.epoch && !known.provisional;
        let believed = self.has_most(all) && !self.voices.iter().all(|voice| voice.tilt);
        (lower && believed).then(|| self.proposal())
    }

    fn has_most(&self, all: usize) -> bool {
        self.voices.len() * 2 > all
    }

    fn proposal(&self) -> Proposal {
        Proposal { primary: self.primary.clone(), epoch: self.epoch }
    }

    /// Accepts the group if earlier polls said the same.
    fn twice(&self, known: &Known, what: String) -> Result<Candidate, Decision> {
        if self.voices.iter().all(|voice| voice.tilt) {
            return Err(refuse(
                Status::NoPrimary,
                format!("{} {what}: not believed of Sentinels in TILT", self.primary),
            ));
        }
        let proposal = self.proposal();
        if known.has_agreed(&proposal) {
            return Ok(self.candidate(self.epoch, true));
        }
        let text = format!("{} under epoch {} {what}: to be confirmed by a later poll", self.primary, self.epoch);
        Err(Decision::Refused(Status::NoPrimary, text, Some(proposal)))
    }

    fn candidate(&self, epoch: u64, reset: bool) -> Candidate {
        let voices = self.voices.iter().map(|voice| voice.index).collect();
        let tilt = self.voices.iter().all(|voice| voice.tilt);
        Candidate { primary: self.primary.clone(), epoch, voices, reset, tilt }
    }
}

/// Groups the voices by address: the highest epoch first, then the most voices.
fn groups<'a>(voices: &[Voice<'a>], known: &Known) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for voice in voices {
        match groups.iter_mut().find(|group| group.primary == voice.primary) {
            Some(group) => group.voices.push(*voice),
            None => groups.push(Group {
                primary: voice.primary,
                epoch: 0,
                voices: vec![*voice],
                is_known_primary: known.primary.as_ref() == Some(voice.primary),
                is_known_replica: is_known_replica(voice, voices, known),
            }),
        }
    }
    for group in &mut groups {
        sort::by_key(&mut group.voices, |voice| std::cmp::Reverse(voice.epoch));
        group.epoch = counted_epoch(group, known);
    }
    sort::by_key(&mut groups, |group| std::cmp::Reverse((group.epoch, group.voices.len())));
    groups
}

/// Known before, or listed by another Sentinel now: a single Sentinel could invent both the primary and the replica.
fn is_known_replica(voice: &Voice<'_>, voices: &[Voice<'_>], known: &Known) -> bool {
    if known.primary.as_ref() == Some(voice.primary) {
        return false;
    }
    let lists_it = |other: &Voice<'_>| other.replicas.iter().any(|replica| replica.announced == *voice.primary);
    known.replicas.contains(voice.primary) || voices.iter().any(|other| other.index != voice.index && lists_it(other))
}

/// One Sentinel alone cannot raise the epoch of the known primary above a newer one, nor that of another address above
/// what a second voice confirms, unless the address was a replica: its ROLE shows whether it was promoted.
fn counted_epoch(group: &Group<'_>, known: &Known) -> u64 {
    let top = group.voices[0].epoch;
    match group.voices.get(1) {
        _ if group.is_known_replica => top,
        Some(second) => second.epoch,
        None if group.is_known_primary => top.min(known.epoch),
        None => top,
    }
}

fn nobody_eligible(groups: &[Group<'_>], voices: &[Voice<'_>], known: &Known, all: usize) -> Decision {
    if groups.len() > 1 {
        return refuse(Status::SplitView, format!("each Sentinel names another address: {}", views(voices)));
    }
    let group = &groups[0];
    if all == 1 {
        // There is no second Sentinel, so a second poll takes its place.
        return match group.twice(known, String::from("is unknown and named by the only Sentinel")) {
            Ok(candidate) => Decision::Candidates(vec![candidate], None),
            Err(refusal) => refusal,
        };
    }
    let text = format!("{} is unknown and named by one Sentinel only: not believed", group.primary);
    refuse(Status::NoPrimary, text)
}

fn few_others(best: &Candidate, min_others: usize) -> Decision {
    let others = best.others();
    let text =
        format!("{} is confirmed by {others} other Sentinels, sentinel.min_others asks for {min_others}", best.primary);
    refuse(Status::NoPrimary, text)
}

/// Why a primary is not worth connecting to: more than half of its voices consider it down. After a promotion Sentinels
/// need a second to reconnect to it; during that time only its ROLE counts.
fn down(best: &Candidate, voices: &[Voice<'_>], known: &Known) -> Option<String> {
    let promoted = known.primary.as_ref().is_some_and(|before| *before != best.primary);
    let bad = ["o_down", "s_down", "disconnected"];
    bad.into_iter().filter(|bad| !(promoted && *bad == "disconnected")).find_map(|bad| {
        let naming = voices.iter().filter(|voice| best.voices.contains(&voice.index));
        let count = naming.filter(|voice| has_flag(voice.flags, bad)).count();
        let most = count * 2 > best.voices.len();
        most.then(|| format!("{} is {bad} in the eyes of {count} of {} Sentinels", best.primary, best.voices.len()))
    })
}

fn refuse(status: Status, why: impl Into<String>) -> Decision {
    Decision::Refused(status, why.into(), None)
}

/// Which primaries are named, by how many voices, under which epoch.
pub fn views(voices: &[Voice<'_>]) -> String {
    let mut parts: Vec<(&Endpoint, u64, usize)> = Vec::new();
    for voice in voices {
        match parts.iter_mut().find(|(primary, epoch, _)| *primary == voice.primary && *epoch == voice.epoch) {
            Some((_, _, count)) => *count += 1,
            None => parts.push((voice.primary, voice.epoch, 1)),
        }
    }
    let parts: Vec<_> =
        parts.iter().map(|(primary, epoch, count)| format!("{count} x {primary} (epoch {epoch})")).collect();
    parts.join(", ")
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
