//! A program's command to the Sentinels that was submitted: no thread of the program waits for it. And all that one handle has under way.
//!
//! Guarantees: each ends exactly once, with its outcome, or early with what ended it: a cancel, a close, its deadline. One that ends early
//! says whether it may have run, and the thread that carries it is freed from its socket. Leaves to others: carrying it out (exec, submitted).

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::error::{Error, Result, Status, flags};
use crate::net::Socket;
use crate::queue::{Credits, Driven, Reservation, Source};
use crate::resp::Reply;
use crate::sys::rank::Rank;
use crate::sys::sync::{Condvar, Lock};
use crate::time::Deadline;

/// How long a close without a limit sleeps at a time.
const LOOK: Duration = Duration::from_secs(1);

/// One submitted command.
pub(super) struct AdminCall {
    /// Its name for messages.
    what: String,
    /// Running it twice does no harm.
    reads: bool,
    deadline: Deadline,
    state: Lock<AdminCallState>,
    all: Weak<AdminCalls>,
}

struct AdminCallState {
    /// Until it has ended.
    credit: Option<Reservation>,
    /// A thread carries it out.
    is_begun: bool,
    /// A Sentinel may have got it.
    is_sent: bool,
    /// The connection that it waits for.
    socket: Option<Arc<Socket>>,
}

impl AdminCall {
    /// Notes that a thread carries it out; false: it has ended.
    pub(super) fn begin(&self) -> bool {
        let mut state = self.state.lock();
        state.is_begun = true;
        state.credit.is_some()
    }

    /// The error of what is still to be done for one that has ended.
    pub(super) fn check(&self) -> Result<()> {
        match self.state.lock().credit {
            Some(_) => Ok(()),
            None => Err(self.error(Status::Cancelled, "it was ended")),
        }
    }

    /// Notes the connection on which it waits from now on.
    pub(super) fn watch(&self, socket: &Arc<Socket>) {
        let mut state = self.state.lock();
        if state.credit.is_none() {
            socket.shutdown();
        }
        state.socket = Some(Arc::clone(socket));
    }

    /// Notes that it is being sent.
    pub(super) fn note_sent(&self) {
        self.state.lock().is_sent = true;
    }

    /// Ends it with its outcome, if it has not ended.
    pub(super) fn end(self: &Arc<Self>, outcome: Result<Reply>) {
        let credit = self.state.lock().credit.take();
        self.complete(credit, outcome);
    }

    /// Ends it early. False: it had ended.
    pub(super) fn stop(self: &Arc<Self>, error: Error) -> bool {
        let mut state = self.state.lock();
        let (credit, maybe) = (state.credit.take(), state.is_sent && !self.reads);
        state.socket.take().iter().for_each(|socket| socket.shutdown());
        drop(state);
        let ended = credit.is_some();
        self.complete(credit, Err(if maybe { error.with_flags(flags::MAYBE_EXECUTED) } else { error }));
        ended
    }

    /// Ends it because its time is over and no thread has begun it. One that was begun ends itself in time.
    pub(super) fn expire(self: &Arc<Self>) {
        if !self.state.lock().is_begun {
            let text = "not sent, because submitted commands before it to the same Sentinels last so long";
            self.stop(self.error(Status::Timeout, text).with_flags(flags::RETRYABLE));
        }
    }

    pub(super) fn error(&self, status: Status, text: &str) -> Error {
        let after = self.deadline.elapsed().as_millis();
        Error::new(status, format!("{}: {text}", self.what)).with_time(after, "")
    }

    /// Tells the queue, and then those who wait for a close.
    fn complete(self: &Arc<Self>, credit: Option<Reservation>, outcome: Result<Reply>) {
        let Some(credit) = credit else { return };
        credit.complete(outcome.map(Some));
        self.forget();
    }

    fn forget(self: &Arc<Self>) {
        let Some(all) = self.all.upgrade() else { return };
        let mut list = all.list.lock();
        list.open.retain(|other| !Arc::ptr_eq(other, self));
        drop(list);
        all.ended.notify_all();
    }

    fn is(&self, queue: usize, token: u64) -> bool {
        let state = self.state.lock();
        state.credit.as_ref().is_some_and(|credit| credit.is_of(queue, token))
    }
}

/// Carries a command: dropped without an outcome, as by a panic, it ends the command all the same.
pub(super) struct Carried(pub(super) Arc<AdminCall>);

impl Drop for Carried {
    fn drop(&mut self) {
        let credit = self.0.state.lock().credit.take();
        if let Some(credit) = credit {
            // Its drop says that this is a bug, with what is known of it.
            drop(credit);
            self.0.forget();
        }
    }
}

/// All that a handle has under way.
pub(super) struct AdminCalls {
    list: Lock<List>,
    ended: Condvar,
}

#[derive(Default)]
struct List {
    open: Vec<Arc<AdminCall>>,
    closed: bool,
}

impl AdminCalls {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { list: Lock::new(Rank::AdminCalls, List::default()), ended: Condvar::new() })
    }

    /// Takes a command in, for which room was reserved; `None`: the handle is closed.
    pub(super) fn add(
        self: &Arc<Self>,
        what: String,
        reads: bool,
        deadline: Deadline,
        credits: &mut Credits,
    ) -> Option<Arc<AdminCall>> {
        let mut list = self.list.lock();
        if list.closed {
            return None;
        }
        let state =
            AdminCallState { credit: credits.next_of(usize::MAX), is_begun: false, is_sent: false, socket: None };
        let state = Lock::new(Rank::AdminCall, state);
        let admin_call = Arc::new(AdminCall { what, reads, deadline, state, all: Arc::downgrade(self) });
        list.open.push(Arc::clone(&admin_call));
        Some(admin_call)
    }

    /// Takes no more, lets those under way end until the deadline, and ends the others. Returns how many these were.
    pub(super) fn close(&self, deadline: Deadline) -> usize {
        let mut list = self.list.lock();
        list.closed = true;
        while !list.open.is_empty() && !deadline.is_over() {
            list = self.ended.wait_timeout(list, deadline.left_or(LOOK));
        }
        let left = list.open.clone();
        drop(list);
        let ended = |admin_call: &&Arc<AdminCall>| {
            admin_call.stop(admin_call.error(Status::Closed, "the sentinel handle was closed"))
        };
        left.iter().filter(ended).count()
    }
}

impl Source for AdminCalls {
    fn drive(&self) -> Driven {
        Driven::Read
    }

    fn is_over(&self) -> bool {
        false
    }

    fn cancel(&self, queue: usize, token: u64) -> usize {
        let open = self.list.lock().open.clone();
        let of_token = open.iter().filter(|admin_call| admin_call.is(queue, token));
        let cancelled = |admin_call: &&Arc<AdminCall>| {
            admin_call.stop(admin_call.error(Status::Cancelled, "cancelled by the caller"))
        };
        of_token.filter(cancelled).count()
    }
}
