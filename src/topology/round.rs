//! One round of questions to all Sentinels: who is asked, and when enough has been said.
//!
//! Guarantees: those who are learned meanwhile are asked too, those of another deployment are not learned from; the round ends when more
//! than half of those who decide agree and the others have had their moment. No I/O. Leaves to others: the questions' way (command),
//! who counts and whom to believe (deployment, judge), and what becomes of it (discovery).

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

/// How long those who have not answered yet are given once enough has been said: one of them may know of a newer epoch. As long as
/// it took up to there, within these limits.
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
    /// The id that it told last, or that others tell of it.
    pub known_id: Option<String>,
    /// In which place it answered, after the others if it did not.
    pub place: usize,
    /// How it ended; `None`: others were faster.
    pub end: Option<Result<Answer>>,
}

impl Asked {
    /// What it said, if it did.
    pub fn answer(&self) -> Option<&Answer> {
        self.end.as_ref().and_then(|end| end.as_ref().ok())
    }

    /// Who it is: what it says now, or what was known of it before if it does not answer.
    pub fn identity(&self) -> Identity {
        let id = self.answer().map_or(self.known_id.as_deref(), |answer| answer.id.as_deref());
        Identity::new(id, &self.announced)
    }

    /// The same with its address.
    pub fn speaker(&self) -> Speaker {
        Speaker { identity: self.identity(), announced: self.announced.clone() }
    }

    /// How it went with it.
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

/// Who counts of those who answered.
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

/// One round of questions to all Sentinels: who asks them is told whom, and tells what they answered.
pub struct Round {
    service: String,
    settings: Arc<Settings>,
    list: Arc<SentinelList>,
    known: Known,
    asked: Vec<Asked>,
    /// What one has answered that had to be asked again in older words.
    partial: Vec<(usize, Vec<Reply>)>,
    /// How many have answered.
    answered: usize,
    /// What is to be asked, and of whom.
    due: Vec<(usize, Vec<u8>, usize)>,
    begun: Instant,
    deadline: Deadline,
    /// Enough has been said: the others have until then.
    grace: Option<Instant>,
}

impl Round {
    /// A round that asks all Sentinels that are known.
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

    /// The settings that it goes by.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// What is to be asked now: of which of the Sentinels, where it is, the question, and how many replies that has.
    pub fn take_due(&mut self) -> Vec<(usize, Endpoint, Vec<u8>, usize)> {
        let due = std::mem::take(&mut self.due);
        due.into_iter()
            .map(|(index, bytes, replies)| (index, self.asked[index].endpoint.clone(), bytes, replies))
            .collect()
    }

    /// What was said, and what was known before.
    pub fn into_parts(self) -> (Vec<Asked>, Known, Arc<Settings>) {
        (self.asked, self.known, self.settings)
    }

    /// Asks one, unless address.map leads two addresses to the same place.
    fn add(&mut self, Member { endpoint: announced, given, counts, id: known_id }: Member) {
        let endpoint = self.settings.sentinel.address_map.apply(&announced);
        if !self.asked.iter().any(|asked| asked.endpoint == endpoint) {
            let (question, replies) = answer::questions(&self.service);
            self.due.push((self.asked.len(), question, replies));
            let place = usize::MAX;
            self.asked.push(Asked { announced, endpoint, given, counts, known_id, place, end: None });
        }
    }

    /// Whether all have ended, or enough has been said and the others have had their moment.
    pub fn is_over(&mut self, now: Instant) -> bool {
        if self.asked.iter().all(|asked| asked.end.is_some()) {
            return true;
        }
        if self.grace.is_none() && self.deadline.is_missed() {
            // This process was stopped: nobody has had the time that was meant for the answers.
            self.deadline = self.deadline.renewed(self.settings.sentinel.timeout * 2);
        }
        let end = self.deadline.end();
        now >= end.unwrap_or(now) || self.grace.is_some_and(|end| now >= end)
    }

    /// When it is over though nobody says anything more.
    pub fn ends_at(&self) -> Option<Instant> {
        [self.grace, self.deadline.end()].into_iter().flatten().min()
    }

    /// Takes what came of a question.
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

    /// What the replies mean; `None` when it has to be asked again in older words.
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

    /// Whether there is nothing to gain from waiting for long: more than half of those who decide agree, or all of these have ended and
    /// nobody disagrees.
    fn is_enough(&self) -> bool {
        let Electorate::Ours { ours, .. } = choose(&self.asked, &self.known) else { return false };
        let deciders: HashSet<_> =
            self.asked.iter().filter(|asked| self.decides(asked)).map(|asked| asked.identity()).collect();
        let voices = judge::voices(&answers(&self.asked, &ours), deciders.len());
        let waiting = self.asked.iter().any(|asked| self.decides(asked) && asked.end.is_none());
        // Rule 3: the known primary yields to an older word only when nobody who can be reached names it.
        let counts = |voice: &Voice<'_>| !(waiting && judge::goes_back(voice, &self.known));
        let decides = |voice: &Voice<'_>| self.decides(&self.asked[voice.index]) && counts(voice);
        let min_others = self.settings.sentinel.min_others as usize;
        judge::is_settled(&voices, decides, deciders.len(), min_others)
            || (!waiting && judge::is_unanimous(&voices, min_others))
    }

    /// The given ones decide which deployment is joined; after that its members count.
    fn decides(&self, asked: &Asked) -> bool {
        match self.known.membership.is_new() {
            true => asked.given,
            false => asked.counts && !self.known.membership.is_stranger(&asked.speaker()),
        }
    }
}
