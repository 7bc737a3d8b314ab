//! One discovery: ask all Sentinels, judge, verify with the data node itself.
//!
//! Guarantees: ends within a bound of its own, whatever Sentinels and nodes do; takes no address whose server does not say itself that it is
//! a primary; every error tells what each Sentinel said. Leaves to others: who waits for it, and what becomes of the result (service).

use super::answer::{self, Answer, Heard};
use super::identity::Identity;
use super::judge::{self, Candidate, Known, Proposal, Verdict, Voice};
use super::link::LinkOptions;
use super::pauses::Pauses;
use super::peers::{Met, SentinelList};
use super::query::{Outcome, Query};
use super::replicas;
use super::report;
use super::snapshot::{SentinelView, Snapshot};
use crate::config::{ClientSettings, Endpoint, Settings};
use crate::error::{Error, Result, Status, flags};
use crate::net::{Agreed, Conn, ConnectOptions, Expect, HandshakeOptions, Pause, Role, ServerInfo};
use crate::resp::{Limits, Reply};
use crate::time::Deadline;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long those who have not answered yet are given once enough has been said: one of them may know of a newer epoch. As long as
/// it took up to there, within these limits.
const GRACE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(20));

/// A Sentinel in a discovery.
pub struct Asked {
    /// Its address as given or announced.
    pub announced: Endpoint,
    /// Where it was asked.
    pub endpoint: Endpoint,
    /// Whether it counts for a majority.
    pub counts: bool,
    /// How it ended; `None`: others were faster.
    pub end: Option<Result<Answer>>,
}

/// What came of a discovery.
pub struct Report {
    /// The service, or why it has no primary.
    pub outcome: Result<Snapshot>,
    /// What each Sentinel said.
    pub sentinels: Vec<SentinelView>,
    /// What the next discovery may confirm (rule 3).
    pub proposed: Option<Proposal>,
    /// What each Sentinel says of a failover.
    pub words: Vec<Word>,
    /// A majority of all Sentinels names the primary.
    pub by_majority: bool,
    /// The epoch went back (rule 3).
    pub reset: bool,
    /// What they say, if some do not name the one that won.
    pub dissent: Option<String>,
    /// What the primary told of itself, if it was asked.
    pub verified: Option<ServerInfo>,
    /// When the questions went out.
    pub begun: Instant,
}

/// What a Sentinel says of a failover.
pub struct Word {
    /// The Sentinel.
    pub sentinel: Identity,
    /// Whether it leads one; `None` when it names another primary already: only a verified switch ends that one.
    pub in_failover: Option<bool>,
    /// It holds the primary for objectively down.
    pub o_down: bool,
    /// It holds it for down by itself.
    pub s_down: bool,
}

/// How long a discovery may take at the most: two rounds with the Sentinels, and the primary's own word.
pub fn bound(settings: &Settings) -> Duration {
    settings.sentinel.timeout * 2 + settings.client.timeout_connect
}

/// Discovers a service.
pub(super) fn run(service: &str, settings: &Settings, list: &SentinelList, known: &Known, pauses: &Pauses) -> Report {
    let begun = Instant::now();
    let deadline = Deadline::after(bound(settings));
    let asked = Round::ask(service, settings, list, deadline);
    let answers = asked.iter().enumerate().filter_map(|(index, asked)| asked.answer().map(|answer| (index, answer)));
    let voices = judge::voices(answers);
    let all = all(&asked);
    let verdict = judge::judge(&voices, known, all, settings.sentinel.min_others as usize);
    let (mut proposed, mut by_majority, mut reset, mut dissent, mut verified) = (None, false, false, None, None);
    let outcome = match verdict {
        Verdict::Candidates(candidates) => verify(&candidates, settings, known, voices.len(), pauses, deadline)
            .map(|(winner, told)| {
                verified = told;
                (by_majority, reset) = (winner.voices.len() * 2 > all, winner.reset);
                dissent = (winner.voices.len() < voices.len()).then(|| judge::views(&voices));
                snapshot(winner, &voices, &asked, settings)
            })
            .map_err(|error| report::unverified(service, &asked, error)),
        Verdict::Refused(status, why, proposal) => {
            proposed = proposal;
            Err(report::failure(service, &asked, status, &why, deadline))
        }
    };
    let words = voices.iter().map(|voice| word(voice, &asked, known)).collect();
    Report { outcome, sentinels: report::views(&asked), proposed, words, by_majority, reset, dissent, verified, begun }
}

fn word(voice: &Voice<'_>, asked: &[Asked], known: &Known) -> Word {
    let shows = |flag| judge::has_flag(voice.flags, flag);
    // The leader shows the flag for a while after the switch: then it names the new primary already. Until that is verified its
    // silence about the old one releases nothing: it will make a replica of it.
    let of_ours = known.primary.is_none() || known.primary.as_ref() == Some(voice.primary);
    Word {
        sentinel: asked[voice.index].identity(),
        in_failover: of_ours.then(|| shows("failover_in_progress")),
        o_down: of_ours && shows("o_down"),
        s_down: of_ours && shows("s_down"),
    }
}

impl Asked {
    /// What it said, if it did.
    pub fn answer(&self) -> Option<&Answer> {
        self.end.as_ref().and_then(|end| end.as_ref().ok())
    }

    /// Who it is; by its address before it has told its id.
    pub fn identity(&self) -> Identity {
        Identity::new(self.answer().and_then(|answer| answer.id.as_deref()), &self.announced)
    }

    fn met(&self) -> Met {
        match &self.end {
            None => Met::Skipped,
            Some(Err(_)) => Met::Missed,
            Some(Ok(answer)) if !answer.tilt && matches!(answer.heard, Heard::Known(_)) => Met::Good(answer.id.clone()),
            Some(Ok(answer)) => Met::Useless(answer.id.clone()),
        }
    }
}

/// How many Sentinels a majority is counted of.
fn all(asked: &[Asked]) -> usize {
    asked.iter().filter(|asked| asked.counts || asked.answer().is_some()).count()
}

/// One round of questions to all Sentinels.
struct Round<'a> {
    service: &'a str,
    settings: &'a Settings,
    list: &'a SentinelList,
    query: Query,
    asked: Vec<Asked>,
    /// In the order of their answers.
    answered: Vec<usize>,
    /// Named by those who answered, and not asked yet.
    learned: Vec<Endpoint>,
}

impl<'a> Round<'a> {
    fn ask(service: &'a str, settings: &'a Settings, list: &'a SentinelList, deadline: Deadline) -> Vec<Asked> {
        let (flight, replies) = answer::questions(service);
        let query = Query::new(LinkOptions::new(&settings.sentinel), flight, replies, settings.sentinel.timeout);
        let (asked, answered, learned) = (Vec::new(), Vec::new(), Vec::new());
        let mut round = Round { service, settings, list, query, asked, answered, learned };
        for member in list.members() {
            round.add(member.endpoint, member.counts);
        }
        round.listen(deadline);
        round.settle();
        round.asked
    }

    /// Asks one, unless address.map leads two addresses to the same place.
    fn add(&mut self, announced: Endpoint, counts: bool) {
        let endpoint = self.settings.sentinel.address_map.apply(&announced);
        if !self.asked.iter().any(|asked| asked.endpoint == endpoint) {
            self.query.add(endpoint.clone());
            self.asked.push(Asked { announced, endpoint, counts, end: None });
        }
    }

    /// Until all have ended, or enough has been said and the others have had their moment.
    fn listen(&mut self, deadline: Deadline) {
        let begun = Instant::now();
        let end = deadline.end().unwrap_or(begun);
        let mut limit = end;
        while self.query.unfinished() > 0 && Instant::now() < limit {
            for (index, outcome) in self.query.step(limit) {
                self.hear(index, outcome);
            }
            for peer in std::mem::take(&mut self.learned) {
                self.add(peer, false);
            }
            if limit == end && (self.is_settled() || self.is_enough()) {
                limit = end.min(Instant::now() + begun.elapsed().clamp(GRACE.0, GRACE.1));
            }
        }
    }

    fn hear(&mut self, index: usize, outcome: Outcome) {
        let end = match outcome {
            Outcome::Failed(error) => Err(error),
            Outcome::Answered(replies) => match self.understand(index, replies) {
                Some(end) => end,
                None => return,
            },
        };
        if let Ok(answer) = &end {
            self.answered.push(index);
            self.learned.extend(self.list.learn(&answer.peers, self.settings.sentinel.max_peers));
        }
        self.asked[index].end = Some(end);
    }

    /// What the replies mean; `None` when it had to be asked again in older words.
    fn understand(&mut self, index: usize, replies: Vec<Reply>) -> Option<Result<Answer>> {
        let Some(older) = answer::older_question(self.service, &replies) else {
            return Some(answer::read(&replies, &self.asked[index].endpoint));
        };
        match self.query.ask_more(index, &older, replies)? {
            Outcome::Answered(replies) => Some(answer::read(&replies, &self.asked[index].endpoint)),
            Outcome::Failed(error) => Some(Err(error)),
        }
    }

    fn voices(&self) -> Vec<Voice<'_>> {
        let answers = self.asked.iter().enumerate();
        judge::voices(answers.filter_map(|(index, asked)| asked.answer().map(|answer| (index, answer))))
    }

    fn is_settled(&self) -> bool {
        let all = self.asked.iter().filter(|asked| asked.counts).count();
        judge::is_settled(&self.voices(), all, self.settings.sentinel.min_others as usize)
    }

    /// All that count have ended and speak with one voice: those just learned need not be waited for long.
    fn is_enough(&self) -> bool {
        let waiting = self.asked.iter().any(|asked| asked.counts && asked.end.is_none());
        !waiting && judge::is_unanimous(&self.voices(), self.settings.sentinel.min_others as usize)
    }

    /// Tells the list how it went, the fastest first.
    fn settle(&self) {
        let slower = (0..self.asked.len()).filter(|index| !self.answered.contains(index));
        let order = self.answered.iter().copied().chain(slower);
        let met: Vec<_> = order.map(|index| (self.asked[index].announced.clone(), self.asked[index].met())).collect();
        self.list.settle(&met);
    }
}

/// Asks the candidates themselves, in the order of trust.
fn verify<'a>(
    candidates: &'a [Candidate],
    settings: &Settings,
    known: &Known,
    voices: usize,
    pauses: &Pauses,
    deadline: Deadline,
) -> Result<(&'a Candidate, Option<ServerInfo>)> {
    let mut failure = None;
    for (place, candidate) in candidates.iter().enumerate() {
        let is_known = known.primary.as_ref() == Some(&candidate.primary) && known.epoch == candidate.epoch;
        if known.trusted && is_known {
            // It said so itself, and every connection to it is asked again: a poll need not cost it one.
            return Ok((candidate, None));
        }
        let endpoint = settings.client.address_map.apply(&candidate.primary);
        let pause = pauses.of_primary(&endpoint, candidate.epoch, &settings.client.retry);
        if is_known && pause.reason().is_some_and(|error| error.status() == Status::Server) {
            // It has the role, and cannot serve at the moment: those who want to use it ask it often enough.
            return Ok((candidate, None));
        }
        let error = match ask_role(candidate, &endpoint, settings, &pause, deadline) {
            Ok(told) => return Ok((candidate, Some(told))),
            Err(error) => error,
        };
        let next_has_most = candidates.get(place + 1).is_some_and(|next| next.voices.len() * 2 > voices);
        let goes_on = match error.status() {
            Status::Auth => false,
            Status::Role => true,
            // The next one may be the old primary, still taking writes that will be lost: only one lone voice yields to a majority.
            _ => candidate.voices.len() < 2 && next_has_most,
        };
        failure = failure.or(Some(error));
        if !goes_on {
            break;
        }
    }
    Err(failure.unwrap_or_else(|| Error::new(Status::NoPrimary, "no candidate")))
}

/// The candidate's own word, with the data nodes' credentials.
/// It is not dialled while it is left alone.
fn ask_role(
    candidate: &Candidate,
    endpoint: &Endpoint,
    settings: &Settings,
    pause: &Arc<Pause>,
    deadline: Deadline,
) -> Result<ServerInfo> {
    let named = format!("the primary that {} Sentinels name (epoch {})", candidate.voices.len(), candidate.epoch);
    let asked = pause.attempt().and_then(|attempt| {
        let opened = Conn::open(endpoint, &role_options(&settings.client), deadline);
        let asked = opened.and_then(|conn| match &conn.info().role {
            role if role.is_primary() || *role == Role::Unknown => Ok(conn.info().clone()),
            role => {
                let text = format!("{endpoint}, {named}, has the role {role}: a stale address");
                Err(Error::new(Status::Role, text).with_endpoint(endpoint).with_flags(flags::RETRYABLE))
            }
        });
        attempt.told(&asked);
        asked
    });
    match asked {
        Ok(told) => Ok(told),
        Err(error) => match error.status() {
            Status::Auth | Status::Tls | Status::Unsupported | Status::Role => Err(error),
            // What does not pass by itself.
            Status::Server | Status::Connect if !error.has(flags::RETRYABLE) => Err(error),
            _ => {
                let context = format!("cannot verify {endpoint}, {named}");
                Err(error.with_status(Status::NoPrimary).in_context(context).with_flags(flags::RETRYABLE))
            }
        },
    }
}

/// Only the role matters here: a server that is still loading is the primary all the same.
fn role_options(client: &ClientSettings) -> ConnectOptions {
    let limits = &client.limits;
    ConnectOptions {
        tcp: client.tcp,
        limits: Limits { max_bytes: limits.max_bytes, max_depth: limits.max_depth, max_nodes: limits.max_nodes },
        handshake: HandshakeOptions {
            auth: client.auth.clone(),
            db: 0,
            protocol: client.protocol,
            client_name: client.client_name.clone(),
            no_evict: false,
            no_touch: false,
            expect: Expect::Any,
            lineage: true,
            agreed: Agreed::default(),
        },
        admit: None,
        timeout_connect: client.timeout_connect,
    }
}

fn snapshot(winner: &Candidate, voices: &[Voice<'_>], asked: &[Asked], settings: &Settings) -> Snapshot {
    let map = &settings.client.address_map;
    let best = winner.voices.iter().find_map(|index| voices.iter().find(|voice| voice.index == *index));
    let quorum =
        winner.voices.first().and_then(|index| asked[*index].answer()).map_or(0, |answer| match &answer.heard {
            Heard::Known(view) => view.quorum,
            _ => 0,
        });
    Snapshot {
        primary: Some(map.apply(&winner.primary)),
        primary_announced: Some(winner.primary.clone()),
        epoch: winner.epoch,
        quorum,
        replicas: best.map_or_else(Vec::new, |best| replicas::merge(best, voices, &winner.primary, map)),
        asked: Some(Instant::now()),
        ..Snapshot::default()
    }
}
