//! Asks what decides whether the fence may come down while a Sentinel tries to fail over: that Sentinel, the others,
//! and the primary (step 4, point 5).
//!
//! Guarantees: never waits; asks only while the answers matter; a Sentinel that holds the fence is asked every
//! [`HOLDER`]; a Sentinel that was elected is only dialled, and only if it is not heard any more. Leaves to others:
//! what follows (fence, lease).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::{self, Shown};
use super::asker::{Asker, Came, Question};
use super::fence::{Holder, Stage};
use super::identity::{Identity, Speaker};
use super::lease::{FROM, Witness};
use super::peers::SentinelList;
use super::probe::Probe;
use crate::config::{ClientSettings, Endpoint};
use crate::net::LinkOptions;
use crate::resp::Reply;
use crate::sys::poll::PollFd;
use crate::sys::waker::Waker;

/// The interval of questions to a Sentinel that holds the fence.
const HOLDER: Duration = Duration::from_millis(20);
/// The interval of questions to all others, and of dials to a leader that is gone.
const OTHERS: Duration = Duration::from_millis(200);
/// The connections are opened this long before the first lease is possible.
const EARLY: Duration = Duration::from_millis(50);
/// A server that does not answer for so long is dialled again.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is to be asked now.
pub(super) struct Agenda {
    /// The Sentinels that may still wait for their election.
    try_: Vec<Speaker>,
    /// The Sentinels that were elected and are not heard.
    lost: Vec<Speaker>,
}

/// A result of asking.
pub(super) enum Finding {
    /// The view of a Sentinel that holds the fence, and when the question was sent.
    Holder(Identity, Instant, Shown),
    /// What another Sentinel says.
    Witness(Witness),
    /// Whether the primary says that it is one, and when the question was sent.
    Primary(Instant, bool),
    /// A Sentinel that was elected refused a connection; the dial began at this time.
    Refused(Identity, Instant),
    /// A Sentinel that was elected answers again.
    Back(Identity),
}

impl Agenda {
    /// What these holders are to be asked. `hears`: whether the Sentinel at this address is subscribed to.
    pub(super) fn of(holders: &[Holder], hears: &dyn Fn(&Endpoint) -> bool, now: Instant) -> Option<Self> {
        let all = |is_meant: &dyn Fn(&Holder) -> bool| {
            let meant = holders.iter().filter(|holder| is_meant(holder));
            let speaker = |holder: &Holder| {
                let (identity, announced) = (holder.sentinel.clone(), holder.announced.clone());
                Speaker { identity, announced }
            };
            meant.map(speaker).collect::<Vec<_>>()
        };
        let leads = |holder: &Holder| holder.stage == Stage::Leads;
        let lost = all(&|holder| holder.stage == Stage::Gone || (leads(holder) && !hears(&holder.announced)));
        // While a Sentinel that was elected holds the fence, no lease is possible.
        let is_due = |holder: &Holder| matches!(holder.stage, Stage::Tries(_)) && now + EARLY >= holder.since + FROM;
        let try_ = if holders.iter().any(leads) { Vec::new() } else { all(&is_due) };
        (!lost.is_empty() || !try_.is_empty()).then_some(Self { try_, lost })
    }

    /// When there will be something to ask.
    pub(super) fn begins_at(holders: &[Holder]) -> Option<Instant> {
        let tries = holders.iter().filter(|holder| matches!(holder.stage, Stage::Tries(_)));
        tries.map(|holder| holder.since + FROM - EARLY).min()
    }
}

/// The connections for it.
pub(super) struct Inquiry {
    options: Arc<LinkOptions>,
    seats: Vec<AskedSentinel>,
    primary: Option<Probe>,
}

struct AskedSentinel {
    announced: Endpoint,
    asker: Asker,
}

impl Inquiry {
    pub(super) fn new(options: Arc<LinkOptions>) -> Self {
        Self { options, seats: Vec::new(), primary: None }
    }

    /// Does what can be done without waiting.
    pub(super) fn drive(
        &mut self,
        agenda: &Agenda,
        subject: &Subject<'_>,
        waker: &Arc<Waker>,
        findings: &mut Vec<Finding>,
    ) {
        self.place(agenda, subject);
        let (mut shown, mut witness) = (Vec::new(), Vec::new());
        answer::ask_shown(subject.service, &mut shown);
        answer::ask_witness(subject.service, &mut witness);
        let find = |all: &[Speaker], seat: &AskedSentinel| {
            let found = all.iter().find(|speaker| speaker.announced == seat.announced);
            found.map(|speaker| speaker.identity.clone())
        };
        for seat in &mut self.seats {
            let (tries, lost) = (find(&agenda.try_, seat), find(&agenda.lost, seat));
            let (bytes, replies, every) = if tries.is_some() { (&shown, 2, HOLDER) } else { (&witness, 4, OTHERS) };
            let came = seat.asker.drive(&Question { bytes, replies, every, patience: PATIENCE }, waker);
            findings.extend(match (came, lost) {
                (Came::Ready | Came::Answer(..), Some(leader)) => Some(Finding::Back(leader)),
                (Came::Refused(begun), Some(leader)) => Some(Finding::Refused(leader, begun)),
                (Came::Answer(sent, replies), None) => subject.understand(&seat.announced, tries, sent, &replies),
                (Came::Ready | Came::Refused(_) | Came::Nothing, _) => None,
            });
        }
        if let Some(primary) = &mut self.primary {
            findings.extend(primary.drive(waker).map(|(asked, is_one)| Finding::Primary(asked, is_one)));
        }
    }

    /// One connection for each Sentinel that is asked, and a probe for the primary.
    fn place(&mut self, agenda: &Agenda, subject: &Subject<'_>) {
        let all = || subject.known.iter().chain(&agenda.try_).chain(&agenda.lost).map(|speaker| &speaker.announced);
        self.seats.retain(|seat| all().any(|announced| *announced == seat.announced));
        for announced in all() {
            if !self.seats.iter().any(|seat| seat.announced == *announced) {
                let endpoint = subject.settings.address_map.apply(announced);
                let asker = Asker::new(endpoint, Arc::clone(&self.options));
                self.seats.push(AskedSentinel { announced: announced.clone(), asker });
            }
        }
        if self.primary.as_ref().map(|probe| &probe.announced) != subject.primary {
            let probe = |primary: &Endpoint| Probe::new(primary.clone(), subject.settings, OTHERS);
            self.primary = subject.primary.map(probe);
        }
    }

    /// The descriptors to poll.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd> {
        let seats = self.seats.iter().flat_map(|seat| seat.asker.poll_fds());
        seats.chain(self.primary.iter().flat_map(Probe::poll_fds))
    }

    /// When to drive it again even if nothing happens.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let seats = self.seats.iter().filter_map(|seat| seat.asker.wakes_at());
        seats.chain(self.primary.as_ref().and_then(Probe::wakes_at)).min()
    }
}

/// The subject of an inquiry.
pub(super) struct Subject<'a> {
    pub(super) service: &'a str,
    /// The Sentinels of the deployment.
    pub(super) known: &'a [Speaker],
    pub(super) list: &'a SentinelList,
    /// The primary, as announced.
    pub(super) primary: Option<&'a Endpoint>,
    pub(super) settings: &'a ClientSettings,
}

impl Subject<'_> {
    /// Reads an answer. The identity of the Sentinel that answered counts, not the address. A Sentinel that gives no id
    /// is taken for the one that tries at this address, unless several may stand behind it.
    fn understand(
        &self,
        announced: &Endpoint,
        tries: Option<Identity>,
        asked: Instant,
        replies: &[Reply],
    ) -> Option<Finding> {
        let id = answer::read_id(replies.first()?);
        self.list.introduce(announced, id.as_deref());
        let known = tries.filter(|_| id.is_none() && !self.list.varying().contains(announced));
        let sentinel = known.unwrap_or_else(|| Identity::new(id.as_deref(), announced));
        if replies.len() == 2 {
            return answer::shown(&replies[1]).map(|shown| Finding::Holder(sentinel, asked, shown));
        }
        let (shown, tilt, missed) = answer::witness(replies)?;
        let is_down = ["s_down", "o_down", "failover_in_progress"].iter().any(|flag| shown.has(flag));
        let of_ours = self.primary.is_some() && shown.primary.as_ref() == self.primary;
        // By id and by address: before Redis 6.2 a Sentinel lists the ids of others, but does not give its own.
        let names = |peer: answer::Peer| {
            [Identity::At(peer.endpoint.clone()), Identity::new(peer.id.as_deref(), &peer.endpoint)]
        };
        let misses = missed.into_iter().flat_map(names).collect();
        Some(Finding::Witness(Witness { sentinel, asked, sees_primary: of_ours && !tilt && !is_down, misses }))
    }
}
