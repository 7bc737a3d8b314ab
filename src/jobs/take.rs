//! How a worker comes to its next job: which commands it sends, and what follows from their answers. Pure.
//!
//! Guarantees: a job is handed out only after the primary has confirmed that it stands in the worker's processing list, and under an id
//! that nothing else in that list has; what was found there without being in hand, or may have been handed out before, is marked.
//! Leaves to others: the sending, the time, and what is handed back of dead workers (mod, hand_back).

use std::time::Duration;

use super::envelope::Job;
use super::ledger::{self, Ledger, RENEWAL, Standing};
use crate::error::{Error, Result, Status, flags};
use crate::resp::{Kind, Reply, encode};
use crate::time::Instant;

/// How much later than the end of a take the server's answer may come. Then it is in doubt.
pub const GRACE: Duration = Duration::from_millis(250);
/// A shorter wait is not worth a blocking command.
const SHORTEST: Duration = Duration::from_millis(20);

/// What is to be done next.
pub enum Step {
    /// These commands as one transaction. The answer is for [`Take::told`].
    Atomic(Vec<u8>),
    /// This one command, within this time if there is a limit of its own. The answer is for [`Take::told`].
    One(Vec<u8>, Option<Duration>),
    /// What these workers have is to be handed back, because their leases are over.
    HandBack(Vec<Other>),
    /// This job was handed out too often, and is to be put aside. It counts as in hand until then.
    SetAside(Job),
    /// The oldest job of the processing list cannot be read, and is to be put aside unread.
    Unread,
    /// It may be tried again after a pause.
    Failed(Error),
    /// The last answer has changed nothing, and came at once: what comes next waits for a pause.
    Idle,
    Over(Result<Option<Job>>),
}

/// Another worker that is known.
pub struct Other {
    pub name: Vec<u8>,
    /// It was found dead before, or has closed: only what arrived since then is of interest.
    pub is_gone: bool,
}

/// One wait for a job.
pub struct Take {
    phase: Phase,
    waits: bool,
    /// When the move under way began that the server ends after this long.
    waiting: Option<(Instant, Duration)>,
    /// The last answer said that the list is empty.
    is_empty: bool,
    /// Why the others could not be looked at, for a reason that lasts: told if there is no job.
    blind: Option<Error>,
}

enum Phase {
    Begin,
    Registering,
    /// Others that are known, and whose leases are to be read.
    Scanning,
    Leases(Vec<Other>),
    /// Gives what stands in the list another id or mark.
    Wrapping(Vec<u8>, Job),
    Taking,
    /// Reads whether it stands in the list.
    Confirming(Job),
    Renewing,
    Told(Step),
}

impl Take {
    /// One that waits, or that takes what is there.
    pub fn new(waits: bool) -> Self {
        Self { phase: Phase::Begin, waits, waiting: None, is_empty: false, blind: None }
    }

    /// Whether a job is in the processing list that is about to be handed out.
    pub fn has_taken(&self) -> bool {
        matches!(self.phase, Phase::Wrapping(..) | Phase::Confirming(_))
    }

    /// Whether the time may end it here: nothing that was taken or found out is to be told.
    pub fn may_end(&self) -> bool {
        matches!(self.phase, Phase::Begin | Phase::Leases(_))
    }

    /// Whether it found that there was no job.
    pub fn saw_none(&self) -> bool {
        self.is_empty
    }

    /// What to do next, with this much time left.
    pub fn next(&mut self, ledger: &mut Ledger, now: Instant, left: Option<Duration>) -> Step {
        match std::mem::replace(&mut self.phase, Phase::Begin) {
            Phase::Told(step) => step,
            // What was taken is made sure of first.
            phase @ (Phase::Wrapping(..) | Phase::Confirming(_)) => {
                let list = sure(ledger, &phase);
                self.phase = phase;
                list.map_or_else(|error| Step::Over(Err(error)), Step::Atomic)
            }
            Phase::Leases(others) => {
                let list = leases(ledger, &others);
                self.phase = Phase::Leases(others);
                Step::Atomic(list)
            }
            _ => self.begin(ledger, now, left),
        }
    }

    fn begin(&mut self, ledger: &mut Ledger, now: Instant, left: Option<Duration>) -> Step {
        // After a long sleep nobody may know this worker any more: no move without its name.
        if ledger.may_be_forgotten(now) {
            ledger.doubt();
        }
        if ledger.standing != Standing::Sure {
            if ledger.has_unreadable() {
                return Step::Unread;
            }
            self.phase = Phase::Registering;
            return Step::Atomic(ledger.registration());
        }
        if let Some(encoded) = ledger.stranded.pop() {
            return match ledger.marked(&encoded) {
                Ok(job) => {
                    self.phase = Phase::Wrapping(encoded, job);
                    self.next(ledger, now, left)
                }
                Err(error) => Step::Over(Err(error)),
            };
        }
        let ends = self.is_empty && (!self.waits || left.is_some_and(|left| left < SHORTEST));
        // At the end of a take there is no time for what the look finds; the next one begins with it.
        if !ends && ledger.is_scan_due(now) {
            self.phase = Phase::Scanning;
            let mut list = Vec::new();
            ledger.renewal(&mut list);
            encode::command(&mut list, &[b"SMEMBERS", &ledger.keys.workers]);
            encode::command(&mut list, &[b"SMEMBERS", &ledger.keys.gone]);
            return Step::Atomic(list);
        }
        if self.is_empty && ledger.is_renewal_due(now) {
            self.phase = Phase::Renewing;
            let mut list = Vec::new();
            ledger.renewal(&mut list);
            return Step::Atomic(list);
        }
        if ends {
            return Step::Over(self.blind.take().map_or(Ok(None), Err));
        }
        self.phase = Phase::Taking;
        ledger.move_begins();
        self.taking(ledger, now, left)
    }

    /// The command that takes a job.
    fn taking(&mut self, ledger: &Ledger, now: Instant, left: Option<Duration>) -> Step {
        let (ready, processing) = (&ledger.keys.ready[..], &ledger.keys.processing[..]);
        let whole = left.map_or(ledger.lease / 3, |left| left.min(ledger.lease / 3));
        let mut list = Vec::new();
        if !self.waits || whole < SHORTEST {
            match ledger.has_old_commands {
                true => encode::command(&mut list, &[b"RPOPLPUSH", ready, processing]),
                false => encode::command(&mut list, &[b"LMOVE", ready, processing, b"RIGHT", b"LEFT"]),
            }
            return Step::One(list, None);
        }
        self.waiting = Some((now, whole));
        let seconds = format!("{:.3}", whole.as_secs_f64());
        match ledger.has_old_commands {
            true => encode::command(&mut list, &[b"BRPOPLPUSH", ready, processing, seconds.as_bytes()]),
            false => {
                encode::command(&mut list, &[b"BLMOVE", ready, processing, b"RIGHT", b"LEFT", seconds.as_bytes()]);
            }
        }
        Step::One(list, Some(whole + GRACE))
    }

    /// The answer to the commands of the last step.
    pub fn told(&mut self, ledger: &mut Ledger, now: Instant, outcome: Result<Reply>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Begin);
        let is_list = !matches!(phase, Phase::Taking);
        let is_open = outcome.as_ref().is_err_and(|error| error.has(flags::MAYBE_EXECUTED) && !is_too_large(error));
        if !is_list && !is_open {
            ledger.move_is_over();
        }
        if reads_jobs(&phase) && outcome.as_ref().is_err_and(is_too_large) {
            ledger.doubt();
            ledger.too_large();
            self.is_empty = false;
            return;
        }
        if let (Phase::Scanning, Err(error)) = (&phase, &outcome) {
            if is_too_large(error) {
                ledger.looked(now, true);
                self.blind =
                    Some(error.clone().with_note("; the names of the workers are more than this client reads"));
                return;
            }
        }
        let outcome = outcome.and_then(|reply| if is_list { ledger::check(&reply).map(|()| reply) } else { Ok(reply) });
        let concluded = match outcome {
            Ok(reply) => self.conclude(phase, ledger, now, &reply),
            Err(error) if (matches!(phase, Phase::Taking) || ledger.is_stuck()) && lacks_command(ledger, &error) => {
                ledger.has_old_commands = true;
                return;
            }
            Err(error) => Err(error),
        };
        if let Err(error) = concluded {
            ledger.doubt();
            self.is_empty = false;
            self.phase = Phase::Told(if passes(&error) { Step::Failed(error) } else { Step::Over(Err(error)) });
        }
    }

    fn conclude(&mut self, phase: Phase, ledger: &mut Ledger, now: Instant, reply: &Reply) -> Result<()> {
        match phase {
            Phase::Registering => ledger.registered(reply, now)?,
            Phase::Scanning => {
                ledger.renewed(reply, 0, now)?;
                ledger.looked(now, true);
                let (alive, gone) = (ledger::texts(reply, RENEWAL)?, ledger::texts(reply, RENEWAL + 1)?);
                let named = |names: Vec<Vec<u8>>, is_gone| names.into_iter().map(move |name| Other { name, is_gone });
                let mut others: Vec<Other> = named(alive, false).chain(named(gone, true)).collect();
                others.retain(|other| other.name != ledger.keys.worker);
                if !others.is_empty() {
                    self.phase = Phase::Leases(others);
                }
            }
            Phase::Leases(others) => {
                // Behind the answer to SADD.
                let mut answers = (1..).map(|at| reply.child(0, at).and_then(|node| reply.int(node)) == Some(1));
                let mut is_there = || answers.next() == Some(true);
                let is_over = |other: &Other| {
                    let (lives, is_remembered) = (is_there(), other.is_gone && is_there());
                    let has_jobs = other.is_gone && is_there();
                    !lives && (!is_remembered || has_jobs)
                };
                let dead: Vec<Other> = others.into_iter().filter(is_over).collect();
                if !dead.is_empty() {
                    self.phase = Phase::Told(Step::HandBack(dead));
                }
            }
            Phase::Wrapping(_, job) => {
                let stood_there = reply.child(0, 0).and_then(|node| reply.int(node)).is_some_and(|len| len > 0);
                self.made_sure(ledger, job, stood_there, reply, 2, now)?;
            }
            Phase::Confirming(job) => {
                let stands_there = reply.child(0, 0).and_then(|node| reply.bytes(node)) == Some(job.encoded());
                self.made_sure(ledger, job, stands_there, reply, 1, now)?;
            }
            Phase::Taking if reply.kind(0) == Kind::Null => {
                self.is_empty = true;
                // A proxy may answer what blocks at once.
                if self.waiting.take().is_some_and(|(since, time)| now.saturating_duration_since(since) < time / 2) {
                    self.phase = Phase::Told(Step::Idle);
                }
            }
            Phase::Taking => {
                self.is_empty = false;
                let encoded = reply.bytes(0).unwrap_or_default();
                self.phase = match Job::read(encoded)? {
                    Some(job) if !ledger.holds(&job) => Phase::Confirming(job),
                    // A producer has pushed it twice.
                    Some(_) => Phase::Wrapping(encode::try_copy(encoded)?, ledger.marked(encoded)?),
                    None => Phase::Wrapping(encode::try_copy(encoded)?, Job::new(None, 0, encoded)?),
                };
            }
            Phase::Renewing => ledger.renewed(reply, 0, now)?,
            Phase::Begin | Phase::Told(_) => {}
        }
        Ok(())
    }

    /// Hands a job out if it stands in the processing list; if a failover has taken it back it is in the other list.
    fn made_sure(
        &mut self,
        ledger: &mut Ledger,
        job: Job,
        stands_there: bool,
        reply: &Reply,
        first: u32,
        now: Instant,
    ) -> Result<()> {
        let is_worn_out = stands_there && ledger.hold(job.clone());
        ledger.renewed(reply, first, now)?;
        match stands_there {
            true if is_worn_out => self.phase = Phase::Told(Step::SetAside(job)),
            true => self.phase = Phase::Told(Step::Over(Ok(Some(job)))),
            false => {
                ledger.doubt();
                self.phase = Phase::Told(Step::Idle);
            }
        }
        Ok(())
    }
}

/// The commands that make sure of a job, and renew the lease. LINSERT does nothing if what it looks for is gone.
fn sure(ledger: &Ledger, phase: &Phase) -> Result<Vec<u8>> {
    let processing = &ledger.keys.processing[..];
    let mut list = Vec::new();
    match phase {
        Phase::Wrapping(from, to) => {
            encode::try_command(&mut list, &[b"LINSERT", processing, b"BEFORE", from, to.encoded()])?;
            encode::try_command(&mut list, &[b"LREM", processing, b"1", from])?;
        }
        _ => encode::command(&mut list, &[b"LINDEX", processing, b"0"]),
    }
    ledger.renewal(&mut list);
    Ok(list)
}

/// The commands that ask who lives. The first one writes, so that a primary answers.
fn leases(ledger: &Ledger, others: &[Other]) -> Vec<u8> {
    let mut list = Vec::new();
    encode::command(&mut list, &[b"SADD", &ledger.keys.workers, &ledger.keys.worker]);
    for other in others {
        let (processing, lease) = ledger.keys.of(&other.name);
        encode::command(&mut list, &[b"EXISTS", &lease]);
        if other.is_gone {
            encode::command(&mut list, &[b"EXISTS", &ledger.keys.memory_of(&other.name)]);
            encode::command(&mut list, &[b"EXISTS", &processing]);
        }
    }
    list
}

/// Whether the answers of this phase carry jobs.
fn reads_jobs(phase: &Phase) -> bool {
    matches!(phase, Phase::Registering | Phase::Taking | Phase::Wrapping(..) | Phase::Confirming(_))
}

/// An answer of this size came, and was not read: what it answers was done.
pub fn is_too_large(error: &Error) -> bool {
    // Want of memory says nothing about the answer, and what was not sent has none.
    error.status() == Status::Limit && error.errno() != libc::ENOMEM
}

/// BLMOVE and LMOVE came with Redis 6.2.
fn lacks_command(ledger: &Ledger, error: &Error) -> bool {
    !ledger.has_old_commands && error.status() == Status::Server && is_refused(error)
}

/// Whether the server does not know a command, or this user may not use it.
pub fn is_refused(error: &Error) -> bool {
    // In a transaction the code is EXECABORT, and the reason stands behind it.
    error.server_code() == "NOPERM" || ["unknown command", "NOPERM"].iter().any(|why| error.message().contains(why))
}

/// Whether it may be tried again: nothing is wrong with what was sent.
pub fn passes(error: &Error) -> bool {
    error.flags() & (flags::RETRYABLE | flags::MAYBE_EXECUTED) != 0
        || matches!(error.status(), Status::Timeout | Status::Replicas | Status::TxnAborted)
}
