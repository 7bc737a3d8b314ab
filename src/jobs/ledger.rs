//! What one worker knows of its processing list: what it has in hand, and what stands there besides.
//!
//! Guarantees: what stands in the list and is not in hand is found again, whatever happened to the answers. Pure. Leaves to others:
//! when to look (take), and the sending (mod).

use std::cell::Cell;
use std::time::Duration;

use super::envelope::{Job, mark_of};
use super::keys::Keys;
use crate::error::{Error, Result, Status};
use crate::resp::{Kind, Reply, encode};
use crate::sys::random;
use crate::time::Instant;

/// How many commands [`Ledger::renewal`] adds.
pub const RENEWAL: u32 = 4;

/// What a worker knows.
pub struct Ledger {
    pub keys: Keys,
    /// Stands in the lease: another process with the same worker name has another one.
    token: String,
    pub lease: Duration,
    /// Handed out, and not acknowledged.
    held: Vec<Held>,
    /// In the processing list and not in hand; the oldest is the last.
    pub stranded: Vec<Vec<u8>>,
    /// Texts of the processing list, and how often each may have been handed out. Of a text that is not here nobody but its mark tells.
    given: Vec<(Vec<u8>, u32)>,
    /// The list is too large for one answer.
    pages: Option<Pages>,
    /// How many jobs were put aside unread, since this was read.
    pub unreadable: u64,
    pub standing: Standing,
    /// The server has no BLMOVE and LMOVE, or this user may not use them.
    pub has_old_commands: bool,
    renewed: Option<Instant>,
    /// When the leases of the others are to be looked at.
    next_look: Option<Instant>,
    /// Moves that were sent, and of which it is not known whether they still arrive.
    moves: u32,
    /// Another process had this name, and was not closed: it may have sent a move too.
    had_predecessor: bool,
    pub is_stopped: bool,
    /// How often a job may be handed out; 0: there is no limit.
    pub max_deliveries: u32,
    /// How often the lease was found to be gone, since this was read.
    pub leases_lost: u64,
    /// The present loss is counted.
    knows_loss: bool,
    /// How often what is in hand may have gone to others: with a lost lease, or with a close.
    pub partings: u64,
    /// Another process has taken over this worker's name. Its lease is not to be kept alive.
    is_replaced: Cell<bool>,
}

/// A processing list that is read job by job, from its tail.
#[derive(Default)]
struct Pages {
    /// How long it was at the first of them.
    len: Option<i64>,
    /// The oldest first.
    found: Vec<Vec<u8>>,
    /// The next one is too large to be read.
    is_stuck: bool,
}

/// A job in hand.
pub struct Held {
    pub job: Job,
    /// How often it may have been handed out, this time included.
    pub given: u32,
    /// An acknowledgement was sent, and its answer is missing.
    pub is_doubtful: bool,
}

/// What is known of the moves of a worker whose jobs go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// None of them can arrive any more: its name goes with it.
    Certain,
    /// One may be on its way: its name is kept for a while, and others look at its list.
    Doubtful,
    /// Nothing is known of its name: it is kept if it is, and what stands in its list goes back.
    Gone,
}

/// Whether the server knows this worker as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has not begun.
    New,
    /// Something was lost, or may have been: the lists are to be compared.
    Doubtful,
    Sure,
}

impl Ledger {
    pub fn new(keys: Keys, lease: Duration) -> Self {
        Self {
            keys,
            token: format!("{:032x}", random::rng().u128(..)),
            lease,
            held: Vec::new(),
            stranded: Vec::new(),
            given: Vec::new(),
            pages: None,
            unreadable: 0,
            standing: Standing::New,
            has_old_commands: false,
            renewed: None,
            next_look: None,
            moves: 0,
            had_predecessor: false,
            is_stopped: false,
            max_deliveries: 0,
            leases_lost: 0,
            knows_loss: false,
            partings: 0,
            is_replaced: Cell::new(false),
        }
    }

    /// The commands that take the lease and read the processing list. At its start a worker takes over what its name has; later its
    /// lease must still be its own.
    pub fn registration(&self) -> Vec<u8> {
        let (keys, ms) = (&self.keys, self.lease_ms());
        let mut list = Vec::new();
        let set = [b"SET", &keys.lease[..], self.token.as_bytes(), b"PX", ms.as_bytes(), b"NX"];
        let takes_over = self.standing == Standing::New && !self.is_replaced.get();
        encode::command(&mut list, if takes_over { &set[..5] } else { &set });
        self.renewal(&mut list);
        self.page(&mut list);
        list
    }

    /// The command that reads the processing list, or the next page of it.
    fn page(&self, list: &mut Vec<u8>) {
        let processing = &self.keys.processing[..];
        match &self.pages {
            None => encode::command(list, &[b"LRANGE", processing, b"0", b"-1"]),
            Some(Pages { is_stuck: false, found, .. }) => {
                let at = format!("-{}", found.len() + 1);
                encode::command(list, &[b"LINDEX", processing, at.as_bytes()]);
            }
            // What is too large has to become the last one before it can be put aside.
            Some(_) => move_oldest(list, processing, processing, self.has_old_commands),
        }
    }

    /// Whether the next job of the processing list is too large to be read.
    pub fn is_stuck(&self) -> bool {
        self.pages.as_ref().is_some_and(|pages| pages.is_stuck)
    }

    /// Whether the oldest job of the processing list is too large to be read.
    pub fn has_unreadable(&self) -> bool {
        self.pages.as_ref().is_some_and(|pages| pages.is_stuck && pages.found.is_empty())
    }

    /// That job was put aside, or was not there any more: the pages begin anew.
    pub fn set_aside(&mut self, is_moved: bool) {
        self.unreadable += u64::from(is_moved);
        self.pages = Some(Pages::default());
    }

    /// What a registration found; it goes on until the standing is sure.
    pub fn registered(&mut self, reply: &Reply, now: Instant) -> Result<()> {
        check(reply)?;
        self.own_lease(reply, 1)?;
        // It writes a lease only where there is none.
        let is_new = reply.child(0, 0).is_some_and(|node| reply.kind(node) != Kind::Null);
        if self.standing == Standing::Doubtful && is_new {
            self.note_loss();
        }
        self.knows_loss = false;
        let was_known = reply.child(0, 3).and_then(|node| reply.int(node)) == Some(0);
        let is_first = self.pages.as_ref().is_none_or(|pages| pages.len.is_none());
        self.had_predecessor |= self.standing == Standing::New && was_known && is_first;
        self.renewed = Some(now);
        let list = match self.pages.is_some() {
            true => self.paged(reply)?,
            false => Some(texts(reply, 1 + RENEWAL)?),
        };
        if let Some(list) = list {
            self.pages = None;
            self.compare(list)?;
            self.standing = Standing::Sure;
        }
        Ok(())
    }

    /// Takes a page. The whole list, once it is known.
    fn paged(&mut self, reply: &Reply) -> Result<Option<Vec<Vec<u8>>>> {
        let len = reply.child(0, RENEWAL).and_then(|node| reply.int(node));
        let text = reply.child(0, 1 + RENEWAL).and_then(|node| reply.bytes(node));
        let Some(pages) = &mut self.pages else { return Ok(None) };
        // Another length moves the places of the jobs, so that one could be missed.
        let is_other = pages.len.is_some_and(|known| Some(known) != len);
        let is_moved = pages.is_stuck && text.is_some() && text == pages.found.first().map(Vec::as_slice);
        match text {
            _ if is_other || (pages.is_stuck && !is_moved) => *pages = Pages::default(),
            Some(_) if is_moved => drop(pages.found.remove(0)),
            Some(text) => {
                pages.len = len;
                pages.found.push(encode::try_copy(text)?);
            }
            None => *pages = Pages { len, ..Pages::default() },
        }
        let is_whole = !pages.is_stuck && !is_other && pages.len == i64::try_from(pages.found.len()).ok();
        Ok(is_whole.then(|| std::mem::take(&mut pages.found).into_iter().rev().collect()))
    }

    /// An answer was larger than this client reads: what comes next is read in smaller parts, until one job is too large by itself.
    pub fn too_large(&mut self) {
        match &mut self.pages {
            None => self.pages = Some(Pages::default()),
            Some(pages) if pages.is_stuck => *pages = Pages::default(),
            Some(pages) => pages.is_stuck = true,
        }
    }

    /// What stands in the list and not in hand is stranded; what is in hand and not there any more was acknowledged or handed back.
    pub fn compare(&mut self, list: Vec<Vec<u8>>) -> Result<()> {
        self.held.retain(|held| list.iter().any(|encoded| encoded == held.job.encoded()));
        self.given.retain(|(encoded, _)| list.contains(encoded));
        let mut held: Vec<&[u8]> = self.held.iter().map(|held| held.job.encoded()).collect();
        self.stranded = list
            .into_iter()
            .filter(|encoded| match held.iter().position(|known| known == encoded) {
                Some(at) => {
                    held.swap_remove(at);
                    false
                }
                None => true,
            })
            .collect();
        if self.standing == Standing::New {
            // The one that had this name before may have handed out each of them once more than its mark says.
            let more = |encoded: &Vec<u8>| Ok((encode::try_copy(encoded)?, mark_of(encoded).saturating_add(1)));
            self.given = self.stranded.iter().map(more).collect::<Result<_>>()?;
        }
        Ok(())
    }

    /// The command that keeps the lease alive while other things are done.
    pub fn keep_lease(&self) -> Vec<u8> {
        let mut list = Vec::new();
        if !self.is_replaced.get() && self.standing != Standing::New {
            encode::command(&mut list, &[b"PEXPIRE", &self.keys.lease, self.lease_ms().as_bytes()]);
        }
        list
    }

    /// The commands that keep the lease, and count what stands in the processing list.
    pub fn renewal(&self, list: &mut Vec<u8>) {
        let keys = &self.keys;
        match self.is_replaced.get() {
            true => encode::command(list, &[b"EXISTS", &keys.lease]),
            false => encode::command(list, &[b"PEXPIRE", &keys.lease, self.lease_ms().as_bytes()]),
        }
        encode::command(list, &[b"GET", &keys.lease]);
        encode::command(list, &[b"SADD", &keys.workers, &keys.worker]);
        encode::command(list, &[b"LLEN", &keys.processing]);
    }

    /// What a renewal says, whose answers begin here: a worker without a lease, or with another list than it knows, has to compare.
    pub fn renewed(&mut self, reply: &Reply, first: u32, now: Instant) -> Result<()> {
        let has_lease = self.own_lease(reply, first)?;
        let len = reply.child(0, first + 3).and_then(|node| reply.int(node));
        let expected = i64::try_from(self.held.len() + self.stranded.len()).ok();
        self.renewed = Some(now);
        if !has_lease {
            self.note_loss();
        }
        if !has_lease || len != expected {
            self.doubt();
        }
        Ok(())
    }

    /// Whether the lease, as a renewal read it, is there. Another process' is an error.
    pub fn own_lease(&self, reply: &Reply, first: u32) -> Result<bool> {
        self.owns(reply.child(0, first + 1).and_then(|node| reply.bytes(node)))
    }

    /// Whether this text of a lease is this worker's. Another process' is an error.
    pub fn owns(&self, lease: Option<&[u8]>) -> Result<bool> {
        match lease {
            None => Ok(false),
            Some(found) if found == self.token.as_bytes() => {
                self.is_replaced.set(false);
                Ok(true)
            }
            Some(_) => {
                self.is_replaced.set(true);
                Err(self.is_shared())
            }
        }
    }

    #[cold]
    fn is_shared(&self) -> Error {
        let text = format!(
            "worker '{}' of {} is used by another handle or process: each needs a name of its own",
            String::from_utf8_lossy(&self.keys.worker),
            self.keys.name()
        );
        Error::new(Status::InvalidState, text)
    }

    /// Whether this text of a lease lets this worker give up what it has.
    pub fn is_own_or_over(&self, lease: Option<&[u8]>) -> bool {
        lease.is_none_or(|token| token == self.token.as_bytes())
    }

    fn note_loss(&mut self) {
        self.partings += u64::from(!self.knows_loss);
        self.leases_lost += u64::from(!self.knows_loss);
        self.knows_loss = true;
    }

    /// The lists are to be compared before the next job is taken.
    pub fn doubt(&mut self) {
        if self.standing == Standing::Sure {
            self.standing = Standing::Doubtful;
        }
    }

    pub fn is_renewal_due(&self, now: Instant) -> bool {
        self.renewed.is_none_or(|at| now.saturating_duration_since(at) >= self.lease / 3)
    }

    /// Whether the lease may have been over for so long that the name is not kept any more.
    pub fn may_be_forgotten(&self, now: Instant) -> bool {
        self.renewed.is_none_or(|at| now.saturating_duration_since(at) >= self.lease)
    }

    /// Dead workers are looked for twice in the length of a lease.
    pub fn is_scan_due(&self, now: Instant) -> bool {
        self.next_look.is_none_or(|at| now >= at)
    }

    /// The others were looked at; sooner again if not all that was found could be handed back.
    pub fn looked(&mut self, now: Instant, is_whole: bool) {
        self.next_look = now.checked_add(if is_whole { self.lease / 2 } else { self.lease / 4 });
    }

    /// A move is about to be sent.
    pub fn move_begins(&mut self) {
        self.moves += 1;
    }

    /// It will not arrive any more: it was answered, or never sent.
    pub fn move_is_over(&mut self) {
        self.moves = self.moves.saturating_sub(1);
    }

    /// What is known of the moves that can arrive in the processing list, once this worker sends none.
    pub fn leaving(&self) -> Leaving {
        match self.standing {
            // It has sent none, and has not asked whether another one had its name before, which may have.
            Standing::New => Leaving::Gone,
            _ if self.moves == 0 && !self.had_predecessor => Leaving::Certain,
            _ => Leaving::Doubtful,
        }
    }

    /// A job is in hand. Whether it was handed out so often before that it is put aside.
    pub fn hold(&mut self, job: Job) -> bool {
        let given = self.given_of(job.encoded());
        self.given.retain(|(encoded, _)| encoded != job.encoded());
        self.held.push(Held { job, given: given.saturating_add(1), is_doubtful: false });
        self.max_deliveries > 0 && given >= self.max_deliveries
    }

    /// How often what stands in the list may have been handed out. What this worker took and did not hand out does not count: its take
    /// was cancelled, or had no answer.
    fn given_of(&self, encoded: &[u8]) -> u32 {
        let known = self.given.iter().find(|(text, _)| text == encoded);
        known.map_or_else(|| mark_of(encoded), |(_, given)| *given)
    }

    /// What goes back to the list of what stood in this worker's. A job that it did not hand out counts as it did before, with a mark.
    pub fn returned(&self, encoded: &[u8]) -> Result<Job> {
        match self.held.iter().find(|held| held.job.encoded() == encoded) {
            Some(held) => Job::marked_as(encoded, held.given),
            None if self.standing == Standing::New => Job::marked(encoded),
            None => Job::marked_as(encoded, self.given_of(encoded).max(1)),
        }
    }

    /// Whether a job with this id is in hand already: a producer has pushed it twice.
    pub fn holds(&self, job: &Job) -> bool {
        self.held.iter().any(|held| held.job.id() == job.id())
    }

    /// What stands in the list, with a mark; with an id of its own where another job has that id in hand.
    pub fn marked(&mut self, encoded: &[u8]) -> Result<Job> {
        let given = self.given_of(encoded);
        let job = Job::marked_as(encoded, given.max(1))?;
        let is_other = |held: &Held| held.job.id() == job.id() && held.job.payload() != job.payload();
        let mut job = match self.held.iter().any(is_other) {
            true => Job::new(None, job.redelivered(), job.payload())?,
            false => job,
        };
        // A job that was pushed several times keeps its id; equal texts in hand could not be told apart.
        while self.held.iter().any(|held| held.job == job) {
            job = Job::marked(job.encoded())?;
        }
        self.given.push((encode::try_copy(job.encoded())?, given));
        Ok(job)
    }

    /// A job in hand.
    pub fn find(&mut self, id: &str) -> Result<&mut Held> {
        let name = self.keys.name();
        self.held.iter_mut().find(|held| held.job.id() == id).ok_or_else(|| not_in_hand(&name, id))
    }

    pub fn forget(&mut self, job: &Job) {
        self.held.retain(|held| held.job != *job);
    }

    /// Nothing is in hand any more, and the worker has to begin anew.
    pub fn give_up(&mut self) {
        self.held.clear();
        self.stranded.clear();
        self.given.clear();
        self.pages = None;
        self.standing = Standing::New;
    }

    fn lease_ms(&self) -> String {
        self.lease.as_millis().to_string()
    }
}

#[cold]
pub fn not_in_hand(name: &str, id: &str) -> Error {
    let text = format!(
        "job {} of {name} is not in this worker's hand: it was acknowledged or handed back before, or the worker's lease was over \
         and another one has it",
        crate::error::quoted(id)
    );
    Error::new(Status::InvalidState, text)
}

/// The texts of an ARRAY among the replies of a list.
pub fn texts(reply: &Reply, index: u32) -> Result<Vec<Vec<u8>>> {
    texts_at(reply, index).map(encode::try_copy).collect()
}

fn texts_at(reply: &Reply, index: u32) -> impl Iterator<Item = &[u8]> {
    let node = reply.child(0, index).unwrap_or(u32::MAX);
    reply.children(node).filter_map(|child| reply.bytes(child))
}

/// The command that moves the oldest job of a list to another one.
pub fn move_oldest(list: &mut Vec<u8>, from: &[u8], to: &[u8], has_old_commands: bool) {
    match has_old_commands {
        true => encode::command(list, &[b"RPOPLPUSH", from, to]),
        false => encode::command(list, &[b"LMOVE", from, to, b"RIGHT", b"LEFT"]),
    }
}

/// The question whether a job stands in a list. `reads_list`: without LPOS, which came with Redis 6.0.6.
pub fn ask_for(list: &mut Vec<u8>, processing: &[u8], job: &Job, reads_list: bool) -> Result<()> {
    match reads_list {
        true => encode::command(list, &[b"LRANGE", processing, b"0", b"-1"]),
        false => encode::try_command(list, &[b"LPOS", processing, job.encoded()])?,
    }
    Ok(())
}

/// The answer to that question, among those of a list.
pub fn stands_in(reply: &Reply, index: u32, job: &Job, reads_list: bool) -> bool {
    match reads_list {
        true => texts_at(reply, index).any(|encoded| encoded == job.encoded()),
        false => reply.child(0, index).is_some_and(|node| reply.int(node).is_some()),
    }
}

/// An error reply among those of a list is an error.
pub fn check(reply: &Reply) -> Result<()> {
    match reply.children(0).find_map(|node| reply.error_line(node)) {
        Some(line) => Err(Error::from_server(line, "")),
        None => Ok(()),
    }
}
