//! One discovery: what follows from what all Sentinels said, judged, and verified with the data node itself.
//!
//! Guarantees: ends within its own time limit, whatever Sentinels and nodes do; accepts an address only if the server
//! there says that it is a primary; every error names what each Sentinel said. Leaves to others: running it (running),
//! and what follows from the result (finish).

use super::answer::{Heard, has_flag};
use super::deployment::Electorate;
use super::identity::Speaker;
use super::judge::{self, Candidate, Decision, Known, Proposal, Voice};
use super::pauses::Pauses;
use super::peers::{Met, SentinelList};
use super::presence::Presence;
use super::replicas;
use super::report;
use super::round::{self, Asked, Round};
use super::snapshot::{SentinelView, Snapshot};
use super::verify::{Verified, unasked, verify};
use crate::config::{Endpoint, Settings};
use crate::error::{Error, Result, Status};
use crate::sort;
use crate::time::Deadline;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The result of a discovery.
pub struct Report {
    /// The service, or why it has no primary.
    pub outcome: Result<Snapshot>,
    /// What each Sentinel said.
    pub sentinels: Vec<SentinelView>,
    /// What a later discovery may confirm (rule 3).
    pub proposed: Option<Proposal>,
    /// What each Sentinel says of a failover.
    pub words: Vec<Word>,
    /// Which Sentinels answered, and where.
    pub presence: Presence,
    /// A majority of all Sentinels names the primary.
    pub by_majority: bool,
    /// The epoch went back (rule 3).
    pub reset: bool,
    /// Only Sentinels in TILT name the primary: the fence does not come down by their word.
    pub tilt: bool,
    /// What the Sentinels name, if some disagree with the winner, or if there is no winner for that reason.
    pub dissent: Option<Views>,
    /// The connection on which the primary was asked for its role, if it was.
    pub verified: Option<Verified>,
    /// The Sentinels of another deployment, and what they name.
    pub strangers: Option<Views>,
    /// The Sentinels that named the verified primary, and those of another deployment.
    pub membership: Option<(Vec<Speaker>, Vec<Speaker>)>,
    /// When the questions went out.
    pub begun: Instant,
}

impl Report {
    /// The report of a discovery that heard and found nothing.
    pub fn failed(error: Error, begun: Instant) -> Self {
        let (sentinels, words) = (Vec::new(), Vec::new());
        let (proposed, dissent, strangers, membership, verified) = (None, None, None, None, None);
        let (by_majority, reset, tilt) = (false, false, false);
        let outcome = Err(error);
        Self {
            outcome,
            sentinels,
            proposed,
            words,
            presence: Presence::default(),
            by_majority,
            reset,
            tilt,
            dissent,
            strangers,
            membership,
            verified,
            begun,
        }
    }
}

/// Sentinels that name another primary.
pub struct Views {
    /// They, as announced.
    pub sentinels: Vec<Endpoint>,
    /// What all of them name.
    pub text: String,
}

/// What a Sentinel says about a failover.
pub struct Word {
    /// The Sentinel.
    pub sentinel: Speaker,
    /// Whether it leads one; `None` if it already names another primary: only a verified switch ends that failover.
    pub in_failover: Option<bool>,
    /// It considers the primary objectively down.
    pub o_down: bool,
    /// It considers the primary subjectively down.
    pub s_down: bool,
    /// It is in TILT: a missing flag means nothing.
    pub tilt: bool,
}

impl Word {
    /// Takes back what it says about a primary that was left.
    pub(super) fn forget(&mut self) {
        (self.in_failover, self.o_down, self.s_down) = (None, false, false);
    }
}

/// The time limit of a discovery: two rounds with the Sentinels, and the verification of the primary.
pub fn bound(settings: &Settings) -> Duration {
    settings.sentinel.timeout * 2 + settings.client.timeout_connect
}

/// The answers of the Sentinels, before they are judged.
pub(super) struct Hearing {
    asked: Vec<Asked>,
    known: Known,
    settings: Arc<Settings>,
    begun: Instant,
    deadline: Deadline,
    /// The list of Sentinels has been updated by it.
    settled: bool,
}

impl Hearing {
    /// The answers of a finished round.
    pub(super) fn of(round: Round, deadline: Deadline) -> Self {
        let begun = round.begun();
        let (asked, known, settings) = round.into_parts();
        Self { asked, known, settings, begun, deadline, settled: false }
    }
}

/// Judges the answers. Gives them back if a node must be asked for its role and `may_dial` is false.
pub(super) fn conclude(
    service: &str,
    list: &SentinelList,
    pauses: &Pauses,
    mut hearing: Hearing,
    may_dial: bool,
) -> std::result::Result<Report, Box<Hearing>> {
    let Hearing { asked, known, settings, begun, deadline, .. } = &hearing;
    let counted = Counted::of(asked, known);
    let presence = Presence::of(asked, known.primary.as_ref(), list.varying());
    if !hearing.settled {
        list.settle(&counted.met());
    }
    let voices = &counted.voices;
    let verdict = match &counted.refused {
        Some((status, why)) => Decision::Refused(*status, why.clone(), None),
        None => judge::judge(voices, known, counted.all, settings.sentinel.min_others as usize),
    };
    let mut report = Report {
        words: counted.words(known),
        presence,
        strangers: counted.strangers_say(),
        sentinels: report::views(asked, &counted.strangers),
        ..Report::failed(Error::new(Status::NoPrimary, "not judged yet"), *begun)
    };
    let mut joined = Vec::new();
    report.outcome = match verdict {
        Decision::Candidates(candidates, proposal) => {
            let unasked = candidates.first().and_then(|first| unasked(first, settings, known, pauses));
            let found = match unasked {
                Some(winner) => Ok((winner, None)),
                None if may_dial => verify(&candidates, settings, known, voices.len(), pauses, *deadline),
                None => {
                    hearing.settled = true;
                    return Err(Box::new(hearing));
                }
            };
            found
                .map(|(winner, verified)| {
                    (report.verified, report.proposed) = (verified, proposal);
                    report.by_majority = !winner.tilt && winner.voices.len() * 2 > counted.all;
                    (report.reset, report.tilt) = (winner.reset, winner.tilt);
                    report.dissent = counted.dissent(Some(&winner.primary), judge::views(voices));
                    joined = counted.speakers(&counted.naming(&winner.primary));
                    snapshot(winner, voices, asked, settings)
                })
                .map_err(|error| report::unverified(service, asked, error))
        }
        Decision::Refused(status, why, proposal) => {
            if status == Status::SplitView {
                report.dissent =
                    counted.dissent(None, if voices.is_empty() { why.clone() } else { judge::views(voices) });
            }
            report.proposed = proposal;
            Err(report::failure(service, asked, status, &why, *deadline))
        }
    };
    report.membership = Some((joined, counted.speakers(&counted.strangers)));
    Ok(report)
}

fn word(voice: &Voice<'_>, asked: &[Asked], known: &Known) -> Word {
    let shows = |flag| has_flag(voice.flags, flag);
    // The leader keeps the flag for a while after the switch, and already names the new primary. Until that one is
    // verified, the missing flag of the old one releases nothing: the leader is going to make the old one a replica.
    let of_ours = known.primary.is_none() || known.primary.as_ref() == Some(voice.primary);
    Word {
        sentinel: asked[voice.index].speaker(),
        in_failover: of_ours.then(|| shows("failover_in_progress")),
        o_down: of_ours && shows("o_down"),
        s_down: of_ours && shows("s_down"),
        tilt: voice.tilt,
    }
}

/// A Sentinel that does not watch the service any more leads no failover of it.
fn word_of_nothing(asked: &Asked) -> Option<Word> {
    let answer = asked.answer().filter(|answer| matches!(answer.heard, Heard::Unknown))?;
    let (sentinel, tilt) = (asked.speaker(), answer.tilt);
    Some(Word { sentinel, in_failover: Some(false), o_down: false, s_down: false, tilt })
}

/// The answers, by whether they count.
struct Counted<'a> {
    asked: &'a [Asked],
    voices: Vec<Voice<'a>>,
    /// The Sentinels of the deployment that answered, including those in TILT or without a view of the service.
    ours: Vec<usize>,
    strangers: Vec<usize>,
    /// Why no answer counts.
    refused: Option<(Status, String)>,
    /// The number of Sentinels that a majority is counted from: each once, whatever its names.
    all: usize,
}

impl<'a> Counted<'a> {
    fn of(asked: &'a [Asked], known: &Known) -> Self {
        let (ours, strangers, refused) = match round::choose(asked, known) {
            Electorate::Ours { ours, strangers } => (ours, strangers, None),
            Electorate::Torn(why) => (Vec::new(), Vec::new(), Some((Status::SplitView, why))),
            Electorate::Foreign { why, strangers } => (Vec::new(), strangers, Some((Status::NoSentinel, why))),
        };
        let counts = |(index, asked): &(usize, &Asked)| match asked.answer() {
            Some(_) => !strangers.contains(index),
            None => asked.counts && !known.membership.is_stranger(&asked.speaker()),
        };
        let all = asked.iter().enumerate().filter(counts).map(|(_, asked)| asked.identity()).collect::<HashSet<_>>();
        let voices = judge::voices(&round::answers(asked, &ours), all.len());
        Self { asked, voices, ours, strangers, refused, all: all.len() }
    }

    /// What the Sentinels of the deployment say about a failover, including those in TILT.
    fn words(&self, known: &Known) -> Vec<Word> {
        let voices = judge::each_once(&round::answers(self.asked, &self.ours));
        let known = voices.iter().map(|voice| word(voice, self.asked, known));
        known.chain(self.asked.iter().filter_map(word_of_nothing)).collect()
    }

    /// The Sentinels that do not name this primary. Without a primary: all voices; without voices: all that answered.
    fn dissent(&self, primary: Option<&Endpoint>, text: String) -> Option<Views> {
        let announced = |index: usize| self.asked[index].announced.clone();
        let mut sentinels: Vec<_> = self.voices.iter().map(|voice| (voice.primary, announced(voice.index))).collect();
        sentinels.retain(|(named, _)| primary != Some(*named));
        let mut sentinels: Vec<_> = sentinels.into_iter().map(|(_, announced)| announced).collect();
        if self.voices.is_empty() {
            sentinels
                .extend(self.asked.iter().filter(|asked| asked.answer().is_some()).map(|one| one.announced.clone()));
        }
        (!sentinels.is_empty()).then_some(Views { sentinels, text })
    }

    fn strangers_say(&self) -> Option<Views> {
        let voices = judge::each_once(&round::answers(self.asked, &self.strangers));
        let sentinels: Vec<_> = voices.iter().map(|voice| self.asked[voice.index].announced.clone()).collect();
        (!voices.is_empty()).then(|| Views { sentinels, text: judge::views(&voices) })
    }

    /// The Sentinels that name this primary.
    fn naming(&self, primary: &Endpoint) -> Vec<usize> {
        let names = |asked: &Asked| {
            asked.answer().is_some_and(|answer| matches!(&answer.heard, Heard::Known(view) if view.primary == *primary))
        };
        self.ours.iter().copied().filter(|index| names(&self.asked[*index])).collect()
    }

    fn speakers(&self, indices: &[usize]) -> Vec<Speaker> {
        indices.iter().map(|index| self.asked[*index].speaker()).collect()
    }

    /// The result with each Sentinel, in the order of their answers.
    fn met(&self) -> Vec<(Endpoint, Met)> {
        let met = |(index, asked): (usize, &Asked)| match asked.met() {
            Met::Good(id) | Met::Useless(id) if self.strangers.contains(&index) => Met::Stranger(id),
            met => met,
        };
        let mut all: Vec<_> = self.asked.iter().enumerate().collect();
        sort::by_key(&mut all, |(_, asked)| asked.place);
        all.into_iter().map(|(index, asked)| (asked.announced.clone(), met((index, asked)))).collect()
    }
}

fn snapshot(winner: &Candidate, voices: &[Voice<'_>], asked: &[Asked], settings: &Settings) -> Snapshot {
    let map = &settings.client.address_map;
    let view = |index: usize| match asked[index].answer().map(|answer| &answer.heard) {
        Some(Heard::Known(view)) => Some(view),
        _ => None,
    };
    let unlisted = |voice: &Voice<'_>| view(voice.index).and_then(|view| view.unlisted.clone());
    let of_winner = || winner.voices.iter().filter_map(|index| voices.iter().find(|voice| voice.index == *index));
    // A Sentinel that does not list the replicas to this user says nothing about them.
    let best = of_winner().find(|voice| unlisted(voice).is_none()).or_else(|| of_winner().next());
    let quorum = winner.voices.first().and_then(|index| view(*index)).map_or(0, |view| view.quorum);
    Snapshot {
        primary: Some(map.apply(&winner.primary)),
        primary_announced: Some(winner.primary.clone()),
        epoch: winner.epoch,
        quorum,
        replicas: best.map_or_else(Vec::new, |best| replicas::merge(best, voices, &winner.primary, map)),
        unlisted: best.and_then(unlisted),
        asked: Some(Instant::now()),
        ..Snapshot::default()
    }
}
