//! One round of questions to all Sentinels: who is asked, and when enough has been said.
//!
//! Guarantees: Sentinels that are learned meanwhile are asked too, but nothing is learned from those of another
//! deployment; the round ends when more than half of the deciders agree and the others have had some more time. No I/O.
//! Leaves to others: sending the questions (command), who counts and whom to believe (deployment, judge), and what
//! follows (discovery).

use super::answer::{self, Answer, Heard};
use super::command::Answered;
use super::deployment::{self, Electorate, Seat};
use super::identity::{Identity, Speaker};
use super::judge::{self, Known, Voice};
use super::peers::{Member, Met, SentinelList};
use crate::config::{Endpoint, Settings};
use crate::error::Result;
use crate::resp::Reply;
use crate::time::Deadline;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much longer the others may take once enough has been said, because one of them may know a newer epoch: as long
/// as the round has taken so far, within these limits.
const GRACE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(20));

/// A Sentinel in a discovery.
pub struct Asked {
    /// Its address as given or announced.
    pub announced: Endpoint,
    /// Where it was asked.
    pub endpoint: Endpoint,
    /// Whether the configuration names it.
    pub given: bool,
    /// Whether it counts for a majority.
    pub counts: bool,
    /// The id that it gave last, or that others list for it.
    pub known_id: Option<String>,
    /// Its place in the order of answers; after all others if it did not answer.
    pub place: usize,
    /// How it ended; `None`: its answer was not waited for.
    pub end: Option<Result<Answer>>,
}

impl Asked {
    /// Its answer, if there is one.
    pub fn answer(&self) -> Option<&Answer> {
        self.end.as_ref().and_then(|end| end.as_ref().ok())
    }

    /// Its identity, by what it says now, or by what was known before.
    pub fn identity(&self) -> Identity {
        let id = self.answer().map_or(self.known_id.as_deref(), |answer| answer.id.as_deref());
        Identity::new(id, &self.announced)
    }

    /// Its identity and address.
    pub fn speaker(&self) -> Speaker {
        Speaker { identity: self.identity(), announced: self.announced.clone() }
    }

    /// The result with it.
    pub fn met(&self) -> Met {
        match &self.end {
            None => Met::Skipped,
            Some(Err(_)) => Met::Missed,
            Some(Ok(answer)) if !answer.tilt && matches!(answer.heard, Heard::Known(_)) => Met::Good(answer.id.clone()),
            Some(Ok(answer)) => Met::Useless(answer.id.clone()),
        }
    }
}

/// The answers of these.
pub fn answers<'a>(asked: &'a [Asked], of: &[usize]) -> Vec<(usize, &'a Answer)> {
    of.iter().filter_map(|index| asked[*index].answer().map(|answer| (*index, answer))).collect()
}

/// Which of those that answered count.
pub fn choose(asked: &[Asked], known: &Known) -> Electorate {
    let mut seats = Vec::new();
    for (index, asked) in asked.iter().enumerate() {
        if let Some(answer) = asked.answer() {
            seats.push(Seat { index, announced: &asked.announced, given: asked.given, answer });
        }
    }
    let given: HashSet<_> = asked.iter().filter(|asked| asked.given).map(Asked::identity).collect();
    deployment::choose(&seats, &known.membership, given.len(), known.primary.as_ref())
}

/// One round of questions to all Sentinels. It says what to ask whom, and is given the answers.
pub struct Round {
    service: String,
    settings: Arc<Settings>,
    list: Arc<SentinelList>,
    known: Known,
    asked: Vec<Asked>,
    /// Replies of Sentinels that have to be asked again with an older command.
    partial: Vec<(usize, Vec<Reply>)>,
    /// The number of answers.
    answered: usize,
    /// The questions to send: the index of the Sentinel, the bytes, the number of replies.
    due: Vec<(usize, Vec<u8>, usize)>,
    begun: Instant,
    deadline: Deadline,
    /// Enough has been said; the others have until then.
    grace: Option<Instant>,
}

impl Round {
    /// Starts a round with all known Sentinels.
    pub fn new(
        service: &str,
        settings: Arc<Settings>,
        list: Arc<SentinelList>,
        known: Known,
        deadline: Deadline,
    ) -> Self {
        let service = service.to_owned();
        let (asked, partial, due, answered, grace) = (Vec::new(), Vec::new(), Vec::new(), 0, None);
        let begun = Instant::now();
        let mut round = Self { service, settings, list, known, asked, partial, answered, due, begun, deadline, grace };
        for member in round.list.members() {
            round.add(member);
        }
        round
    }

    /// When it began.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// The settings of the round.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The questions to send now: the index of the Sentinel, its address, the bytes, the number of replies.
    pub fn take_due(&mut self) -> Vec<(usize, Endpoint, Vec<u8>, usize)> {
        let due = std::mem::take(&mut self.due);
        due.into_iter()
            .map(|(index, bytes, replies)| (index, self.asked[index].endpoint.clone(), bytes, replies))
            .collect()
    }

    /// The answers, and what was known before.
    pub fn into_parts(self) -> (Vec<Asked>, Known, Arc<Settings>) {
        (self.asked, self.known, self.settings)
    }

    /// Adds a Sentinel, unless address.map maps another one to the same address.
    fn add(&mut self, Member { endpoint: announced, given, counts, id: known_id }: Member) {
        let endpoint = self.settings.sentinel.address_map.apply(&announced);
        if !self.asked.iter().any(|asked| asked.endpoint == endpoint) {
            let (question, replies) = answer::questions(&self.service);
            self.due.push((self.asked.len(), question, replies));
            let place = usize::MAX;
            self.asked.push(Asked { announced, endpoint, given, counts, known_id, place, end: None });
        }
    }

    /// Whether all have answered or failed, or enough has been said and the time of the others is over.
    pub fn is_over(&mut self, now: Instant) -> bool {
        if self.asked.iter().all(|asked| asked.end.is_some()) {
            return true;
        }
        if self.grace.is_none() && self.deadline.is_missed() {
            // This process was stopped for a while: the Sentinels get their time again.
            self.deadline = self.deadline.renewed(self.settings.sentinel.timeout * 2);
        }
        let end = self.deadline.end();
        now >= end.unwrap_or(now) || self.grace.is_some_and(|end| now >= end)
    }

    /// When it ends even if nothing more is said.
    pub fn ends_at(&self) -> Option<Instant> {
        [self.grace, self.deadline.end()].into_iter().flatten().min()
    }

    /// Takes the answer to a question.
    pub fn hear(&mut self, index: usize, outcome: Result<Answered>) {
        if self.asked[index].end.is_some() {
            return;
        }
        let end = match outcome.map(|answered| self.understand(index, answered)) {
            Ok(None) => return,
            Ok(Some(end)) => end,
            Err(error) => Err(error),
        };
        let asked = &mut self.asked[index];
        if end.is_ok() {
            asked.place = self.answered;
            self.answered += 1;
        }
        asked.end = Some(end);
        let asked = &self.asked[index];
        if let Some(answer) = asked.answer().filter(|_| !self.known.membership.is_stranger(&asked.speaker())) {
            for peer in self.list.learn(&answer.peers, self.settings.sentinel.max_peers) {
                self.add(Member { endpoint: peer, given: false, counts: false, id: None });
            }
        }
        if self.grace.is_none() && self.is_enough() {
            self.grace = Some(Instant::now() + self.begun.elapsed().clamp(GRACE.0, GRACE.1));
        }
    }

    /// Reads the replies; `None` if the Sentinel has to be asked again with an older command.
    fn understand(&mut self, index: usize, answered: Answered) -> Option<Result<Answer>> {
        let place = self.partial.iter().position(|(whose, _)| *whose == index);
        let mut replies = place.map(|place| self.partial.swap_remove(place).1).unwrap_or_default();
        replies.extend(answered.replies);
        if let Some(older) = answer::older_question(&self.service, &replies) {
            self.partial.push((index, replies));
            self.due.push((index, older, 1));
            return None;
        }
        let own = answered.info.unwrap_or_default();
        Some(answer::read(&replies, &answered.id, &own, &self.asked[index].endpoint))
    }

    /// Whether waiting for more answers can change nothing: more than half of the deciders agree, or all of them have
    /// ended and nobody disagrees.
    fn is_enough(&self) -> bool {
        let Electorate::Ours { ours, .. } = choose(&self.asked, &self.known) else { return false };
        let deciders: HashSet<_> =
            self.asked.iter().filter(|asked| self.decides(asked)).map(|asked| asked.identity()).collect();
        let voices = judge::voices(&answers(&self.asked, &ours), deciders.len());
        let waiting = self.asked.iter().any(|asked| self.decides(asked) && asked.end.is_none());
        // Rule 3: the known primary yields to an older epoch only if no reachable Sentinel names it.
        let counts = |voice: &Voice<'_>| !(waiting && judge::goes_back(voice, &self.known));
        let decides = |voice: &Voice<'_>| self.decides(&self.asked[voice.index]) && counts(voice);
        let min_others = self.settings.sentinel.min_others as usize;
        judge::is_settled(&voices, decides, deciders.len(), min_others)
            || (!waiting && judge::is_unanimous(&voices, min_others))
    }

    /// The configured Sentinels decide which deployment is joined; after that its members decide.
    fn decides(&self, asked: &Asked) -> bool {
        match self.known.membership.is_new() {
            true => asked.given,
            false => asked.counts && !self.known.membership.is_stranger(&asked.speaker()),
        }
    }
}
