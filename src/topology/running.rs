//! The discoveries that are running, and the links on which they ask.
//!
//! Guarantees: never waits for a Sentinel. At most [`MOST`] discoveries of one handle run at a time, [`MOST_URGENT`]
//! including urgent ones, so that a handle whose Sentinels hang delays no other. A worker asks nodes for their role,
//! because that may wait. The callers that wait are told however a discovery ends. Leaves to others: when to discover
//! (service), what the answers mean (discovery), and the thread (monitor, or a worker).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::command::{Ask, CommandLinks, Ended, LinkKey, Ticket};
use super::discovery::{self, Hearing, Report};
use super::finish::{Discovery, failed};
use super::fixed;
use super::round::Round;
use super::service::{Service, Urgency, Wanted};
use super::source::Source;
use crate::error::Result;
use crate::net::LinkOptions;
use crate::sort;
use crate::sys::poll::{Found, PollFd};
use crate::sys::waker::Waker;
use crate::time::Deadline;
use crate::worker;

/// How many discoveries of one handle run at the same time.
const MOST: usize = 16;
/// The same limit for urgent ones.
const MOST_URGENT: usize = 64;
/// A poll accepts an INFO of this age: TILT lasts half a minute.
const INFO_KEPT: Duration = Duration::from_secs(1);
/// How often a thread that runs one discovery checks whether it is still wanted.
const CHECK: Duration = Duration::from_millis(20);

/// A running discovery.
pub(super) struct Running {
    asker: u64,
    discovery: Discovery,
    round: Round,
    deadline: Deadline,
    urgency: Urgency,
    options: Arc<LinkOptions>,
}

impl Running {
    /// Starts a discovery; `None` if its handle was closed.
    fn begin(discovery: Discovery, asker: u64, urgency: Urgency) -> Option<Self> {
        let service = discovery.service();
        if service.shared.is_closed() {
            discovery.abandon();
            return None;
        }
        #[cfg(feature = "test-panic")]
        assert!(service.name != "VIGIE.PANIC", "a service of this name was looked for");
        let settings = service.shared.settings();
        let deadline = Deadline::after(discovery::bound(&settings));
        let options = Arc::new(LinkOptions::of_sentinel(&settings.sentinel));
        let list = Arc::clone(service.shared.list());
        let round = Round::new(service.name(), settings, list, service.known(), deadline);
        Some(Self { asker, discovery, round, deadline, urgency, options })
    }

    /// Sends the questions that are due; false if there were none.
    fn ask(&mut self, links: &mut CommandLinks) -> bool {
        let due = self.round.take_due();
        let asks = !due.is_empty();
        let info_kept = if self.urgency == Urgency::Lazy { INFO_KEPT } else { Duration::ZERO };
        let info_since = self.round.begun().checked_sub(info_kept);
        for (index, endpoint, bytes, replies) in due {
            let ask = Ask {
                ticket: Ticket { asker: self.asker, index },
                bytes,
                replies,
                timeout: self.round.settings().sentinel.timeout,
                urgent: self.urgency == Urgency::Now,
                info_since: info_since.or(Some(self.round.begun())),
            };
            links.ask(&endpoint, &self.options, ask);
        }
        asks
    }

    fn is_wanted(&self) -> bool {
        self.discovery.service().is_wanted()
    }

    /// Judges the answers, and ends the discovery; on a worker if a node must be asked for its role.
    fn finish(self) {
        let Self { mut discovery, round, deadline, urgency, .. } = self;
        let service = Arc::clone(discovery.service());
        match conclude(&service, Hearing::of(round, deadline), false) {
            Ok(report) => discovery.finish(report),
            Err(hearing) => {
                // The result if no thread can be had.
                discovery.prepare(service.no_thread());
                let _ = worker::dial(service.host(), urgency == Urgency::Now, move || {
                    discovery.unprepare();
                    let service = Arc::clone(discovery.service());
                    finish_here(discovery, *hearing);
                    // The monitor may have to watch what the discovery found.
                    service.recheck();
                });
            }
        }
    }
}

fn conclude(service: &Service, hearing: Hearing, may_dial: bool) -> std::result::Result<Report, Box<Hearing>> {
    discovery::conclude(service.name(), service.shared.list(), &service.pauses, hearing, may_dial)
}

fn finish_here(discovery: Discovery, hearing: Hearing) {
    if let Ok(report) = conclude(discovery.service(), hearing, true) {
        discovery.finish(report);
    }
}

/// Runs a discovery on this thread, with links of its own if there are Sentinels to ask.
pub(super) fn run_alone(discovery: Discovery, until: Deadline) {
    match discovery.service().source() {
        Source::Sentinels => ask_sentinels(discovery, until),
        Source::Fixed => ask_primary(discovery),
    }
}

/// Asks the primary that the configuration gives.
fn ask_primary(discovery: Discovery) {
    let service = Arc::clone(discovery.service());
    if !service.is_wanted() {
        return discovery.abandon();
    }
    let settings = service.shared.settings();
    discovery.finish(fixed::discover(service.name(), &settings, &service.known(), &service.pauses));
}

fn ask_sentinels(discovery: Discovery, until: Deadline) {
    let Some(mut running) = Running::begin(discovery, 0, Urgency::Now) else { return };
    let mut links = CommandLinks::default();
    // Without a waker the result of a lookup is noticed at the next check.
    let waker = Waker::new().ok().map(Arc::new);
    while running.is_wanted() && !until.is_over() {
        running.ask(&mut links);
        let ended = links.drive(&Found::all(), waker.as_ref());
        let now = Instant::now();
        let has_come = !ended.is_empty();
        for (ticket, outcome) in ended {
            running.round.hear(ticket.index, outcome);
        }
        if running.round.is_over(now) {
            break;
        }
        if !has_come {
            let check = now + CHECK;
            links.wait(waker.as_ref(), running.round.ends_at().map_or(check, |end| end.min(check)));
        }
    }
    drop(links);
    let Running { discovery, round, deadline, .. } = running;
    finish_here(discovery, Hearing::of(round, deadline));
}

/// Runs a discovery on a worker, where no thread watches the Sentinels.
pub(super) fn run_on_worker(wanted: Wanted) -> Result<()> {
    let Some(service) = wanted.service.upgrade() else { return Ok(()) };
    let (number, host, urgent) = (wanted.number, service.host(), wanted.urgency == Urgency::Now);
    let delay = wanted.at.saturating_duration_since(Instant::now());
    let (owner, waits) = (Weak::clone(&wanted.service), Weak::clone(&wanted.service));
    let job = move || {
        if let Some(discovery) = Discovery::of(&wanted) {
            run_alone(discovery, Deadline::never());
        }
    };
    let started = match delay.is_zero() {
        true => worker::dial(host, urgent, job),
        false => worker::after(delay, owner, move || {
            if let (Err(_), Some(service)) = (worker::dial(host, urgent, job), waits.upgrade()) {
                let error = service.no_thread();
                Discovery::new(service, number).finish(failed(error));
            }
        }),
    };
    started.map_err(|error| service.no_thread().with_note(format_args!(" ({error})")))
}

/// Ends a requested discovery that will not be run.
pub(super) fn abandon(wanted: &Wanted) {
    if let Some(discovery) = Discovery::of(wanted) {
        discovery.abandon();
    }
}

/// All discoveries that one thread drives.
#[derive(Default)]
pub(super) struct Discoveries {
    links: CommandLinks,
    running: Vec<Running>,
    waiting: Vec<Wanted>,
    last_asker: u64,
}

impl Discoveries {
    /// Adds requested discoveries. Some of those that were requested before have become more urgent.
    pub(super) fn take_on(&mut self, wanted: Vec<Wanted>, hurried: &[Wanted]) {
        self.waiting.extend(wanted);
        for more in hurried {
            let is_that = |one: &Wanted| one.number == more.number && one.service.ptr_eq(&more.service);
            if let Some(waiting) = self.waiting.iter_mut().find(|one| is_that(one)) {
                waiting.urgency = waiting.urgency.max(more.urgency);
                waiting.at = if more.urgency == Urgency::Now { more.at } else { waiting.at };
            }
            let is_running = |one: &&mut Running| one.discovery.is(more);
            if let Some(running) = self.running.iter_mut().find(is_running).filter(|_| more.urgency == Urgency::Now) {
                running.urgency = Urgency::Now;
                self.links.hurry(running.asker);
            }
        }
    }

    /// Does what can be done without waiting, after a poll that found these descriptors ready; the services whose
    /// discoveries have ended.
    pub(super) fn drive(&mut self, found: &Found, waker: &Arc<Waker>) -> Vec<Arc<Service>> {
        self.begin_due(Instant::now());
        let (mut ended, none) = (Vec::new(), Found::none());
        let mut found = found;
        loop {
            let mut asks = false;
            for one in &mut self.running {
                asks |= one.ask(&mut self.links);
            }
            let came = self.links.drive(found, Some(waker));
            found = &none;
            let has_come = asks || !came.is_empty();
            self.hear(came);
            self.finish_over(Instant::now(), &mut ended);
            if !has_come {
                return ended;
            }
        }
    }

    fn begin_due(&mut self, now: Instant) {
        // Urgent ones first, otherwise in the order of request.
        sort::by_key(&mut self.waiting, |wanted| std::cmp::Reverse(wanted.urgency));
        let mut place = 0;
        while place < self.waiting.len() {
            let wanted = &self.waiting[place];
            if now < wanted.at || !self.has_room(wanted) {
                place += 1;
                continue;
            }
            let wanted = self.waiting.remove(place);
            self.last_asker += 1;
            let asker = self.last_asker;
            // A panic ends only this discovery: the callers that wait are told when it is dropped.
            let begun =
                catch_unwind(AssertUnwindSafe(|| Running::begin(Discovery::of(&wanted)?, asker, wanted.urgency)));
            self.running.extend(begun.ok().flatten());
        }
    }

    /// Whether its handle has room for one more.
    fn has_room(&self, wanted: &Wanted) -> bool {
        let Some(service) = wanted.service.upgrade() else { return true };
        let of_handle = |one: &&Running| Arc::ptr_eq(&one.discovery.service().shared, &service.shared);
        let most = if wanted.urgency == Urgency::Now { MOST_URGENT } else { MOST };
        self.running.iter().filter(of_handle).count() < most
    }

    fn hear(&mut self, came: Ended) {
        for (ticket, outcome) in came {
            let Some(place) = self.running.iter().position(|one| one.asker == ticket.asker) else { continue };
            let running = &mut self.running[place];
            if catch_unwind(AssertUnwindSafe(|| running.round.hear(ticket.index, outcome))).is_err() {
                drop(self.running.swap_remove(place));
            }
        }
    }

    fn finish_over(&mut self, now: Instant, ended: &mut Vec<Arc<Service>>) {
        let mut place = 0;
        while place < self.running.len() {
            let running = &mut self.running[place];
            let is_wanted = running.is_wanted();
            if is_wanted && !running.round.is_over(now) {
                place += 1;
                continue;
            }
            let running = self.running.swap_remove(place);
            self.links.cancel(running.asker);
            if !is_wanted {
                running.discovery.abandon();
                continue;
            }
            ended.push(Arc::clone(running.discovery.service()));
            let _ = catch_unwind(AssertUnwindSafe(|| running.finish()));
        }
    }

    /// After a panic: ends all discoveries, and drops the links.
    pub(super) fn restart(&mut self) {
        // A discovery that is dropped reports the panic.
        self.waiting.drain(..).for_each(|wanted| drop(Discovery::of(&wanted)));
        self.running.clear();
        self.links = CommandLinks::default();
    }

    /// Ends all discoveries: the last handle was closed.
    pub(super) fn abandon(&mut self) {
        self.waiting.drain(..).for_each(|wanted| abandon(&wanted));
        self.running.drain(..).for_each(|running| running.discovery.abandon());
        self.links = CommandLinks::default();
    }

    /// Closes links that are not among these, once no discovery waits on them.
    pub(super) fn tidy(&mut self, kept: &[LinkKey]) {
        self.links.tidy(&|link| kept.iter().any(|key| link.is(key)));
    }

    /// The descriptors to poll.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd> {
        self.links.poll_fds()
    }

    /// When to drive them again even if nothing happens.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let begin = self.waiting.iter().filter(|wanted| self.has_room(wanted)).map(|one| one.at);
        let end = self.running.iter().filter_map(|running| running.round.ends_at());
        begin.chain(end).chain(self.links.wakes_at()).min()
    }
}
