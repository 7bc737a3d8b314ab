//! One round of questions to all Sentinels: who is asked, and when enough has been said.
//!
//! Guarantees: those who are learned meanwhile are asked too, those of another deployment are not learned from; the round ends when more
//! than half of those who decide agree and the others have had their moment. Leaves to others: who counts and whom to believe
//! (deployment, judge), and what becomes of it (discovery).

use super::answer::{self, Answer, Heard};
use super::deployment::{self, Choice, Seat};
use super::identity::{Identity, Speaker};
use super::judge::{self, Known, Voice};
use super::peers::{Member, Met, SentinelList};
use super::query::{Outcome, Query};
use crate::config::{Endpoint, Settings};
use crate::error::Result;
use crate::net::LinkOptions;
use crate::resp::Reply;
use crate::time::Deadline;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// How long those who have not answered yet are given once enough has been said: one of them may know of a newer epoch. As long as
/// it took up to there, within these limits.
const GRACE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(20));

/// How often a round that waits looks whether it is still wanted.
const GLANCE: Duration = Duration::from_millis(20);

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
pub fn choose(asked: &[Asked], known: &Known) -> Choice {
    let mut seats = Vec::new();
    for (index, asked) in asked.iter().enumerate() {
        if let Some(answer) = asked.answer() {
            seats.push(Seat { index, announced: &asked.announced, given: asked.given, answer });
        }
    }
    let given: HashSet<_> = asked.iter().filter(|asked| asked.given).map(Asked::identity).collect();
    deployment::choose(&seats, &known.membership, given.len(), known.primary.as_ref())
}

/// One round of questions to all Sentinels.
pub struct Round<'a> {
    service: &'a str,
    settings: &'a Settings,
    list: &'a SentinelList,
    known: &'a Known,
    query: Query,
    asked: Vec<Asked>,
    /// How many have answered.
    answered: usize,
    /// Named by those who answered, and not asked yet.
    learned: Vec<Endpoint>,
}

impl<'a> Round<'a> {
    /// Asks all of them, and those whom they name.
    pub fn ask(
        service: &'a str,
        settings: &'a Settings,
        list: &'a SentinelList,
        known: &'a Known,
        deadline: Deadline,
        is_wanted: &dyn Fn() -> bool,
    ) -> Vec<Asked> {
        let (flight, replies) = answer::questions(service);
        let query =
            Query::new(LinkOptions::of_sentinel(&settings.sentinel), flight, replies, settings.sentinel.timeout);
        let (asked, answered, learned) = (Vec::new(), 0, Vec::new());
        let mut round = Round { service, settings, list, known, query, asked, answered, learned };
        for member in list.members() {
            round.add(member);
        }
        round.listen(deadline, is_wanted);
        round.asked
    }

    /// Asks one, unless address.map leads two addresses to the same place.
    fn add(&mut self, Member { endpoint: announced, given, counts, id: known_id }: Member) {
        let endpoint = self.settings.sentinel.address_map.apply(&announced);
        if !self.asked.iter().any(|asked| asked.endpoint == endpoint) {
            self.query.add(endpoint.clone());
            let place = usize::MAX;
            self.asked.push(Asked { announced, endpoint, given, counts, known_id, place, end: None });
        }
    }

    /// Until all have ended, or enough has been said and the others have had their moment.
    fn listen(&mut self, mut deadline: Deadline, is_wanted: &dyn Fn() -> bool) {
        let begun = Instant::now();
        let mut end = deadline.end().unwrap_or(begun);
        let mut limit = end;
        while self.query.unfinished() > 0 && is_wanted() {
            if Instant::now() >= limit {
                let was_stopped = limit == end && deadline.is_missed();
                if !was_stopped {
                    break;
                }
                // Nobody has had the time that was meant for the answers.
                deadline = deadline.renewed(self.settings.sentinel.timeout * 2);
                end = deadline.end().unwrap_or(end);
                limit = end;
            }
            for (index, outcome) in self.query.step(limit.min(Instant::now() + GLANCE)) {
                self.hear(index, outcome);
            }
            for peer in std::mem::take(&mut self.learned) {
                self.add(Member { endpoint: peer, given: false, counts: false, id: None });
            }
            if limit == end && self.is_enough() {
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
        let asked = &mut self.asked[index];
        if end.is_ok() {
            asked.place = self.answered;
            self.answered += 1;
        }
        asked.end = Some(end);
        let asked = &self.asked[index];
        if let Some(answer) = asked.answer().filter(|_| !self.known.membership.is_stranger(&asked.speaker())) {
            self.learned.extend(self.list.learn(&answer.peers, self.settings.sentinel.max_peers));
        }
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

    /// Whether there is nothing to gain from waiting for long: more than half of those who decide agree, or all of these have ended and
    /// nobody disagrees.
    fn is_enough(&self) -> bool {
        let Choice::Ours { ours, .. } = choose(&self.asked, self.known) else { return false };
        let deciders: HashSet<_> =
            self.asked.iter().filter(|asked| self.decides(asked)).map(|asked| asked.identity()).collect();
        let voices = judge::voices(&answers(&self.asked, &ours), deciders.len());
        let waiting = self.asked.iter().any(|asked| self.decides(asked) && asked.end.is_none());
        // Rule 3: the known primary yields to an older word only when nobody who can be reached names it.
        let counts = |voice: &Voice<'_>| !(waiting && judge::goes_back(voice, self.known));
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
