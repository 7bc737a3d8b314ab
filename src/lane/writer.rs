//! The writer's role: sends what callers have appended, in order.
//!
//! Guarantees: `sent` counts exactly what the kernel took; a writer whose own bytes are out does at most [`ROUNDS`] more
//! rounds, then hands the role on; a full socket never blocks reading. Whoever ends the role buries a lane that died meanwhile.

use std::io::ErrorKind;
use std::sync::MutexGuard;

use super::state::St;
use super::{Call, Lane, NOBODY, RoleGuard};
use crate::error::{Error, Status};
use crate::sys::slot::Order;
use crate::time::Deadline;

/// Rounds for others, after one's own bytes are out.
const ROUNDS: u32 = 4;

/// How one round of sending ended.
enum Round {
    Sent,
    /// The caller's deadline came while the socket was full.
    Late,
    Broken(Error),
}

impl Lane {
    /// Takes the writer's role (or has been given it) and sends until nothing may be sent.
    pub(super) fn flush<'a>(&'a self, mut st: MutexGuard<'a, St>, call: Option<&Call<'_>>) -> MutexGuard<'a, St> {
        let _guard = RoleGuard { lane: self, role: Order::Flush };
        let own = call.map_or(NOBODY, |call| call.number);
        let mut rounds = 0;
        st.writer = true;
        loop {
            st.swap_out();
            let (buffer, from) = (std::mem::take(&mut st.out), st.out_at);
            drop(st);
            let (taken, round) = self.send(&buffer[from..], call);
            st = self.lock();
            st.sent += taken as u64;
            (st.out, st.out_at) = (buffer, from + taken);
            match round {
                Round::Broken(error) => return self.end_writing(st, Some(error)),
                Round::Late => return self.pass_flush_from(st, own),
                Round::Sent if st.dead.is_some() => return self.end_writing(st, None),
                Round::Sent if !st.has_unsent() || !st.may_flush(&self.settings) => return self.end_writing(st, None),
                Round::Sent => {}
            }
            rounds += u32::from(call.is_none() || st.is_sent(own));
            if rounds > ROUNDS {
                return self.pass_flush_from(st, own);
            }
        }
    }

    /// Hands the writer's role, which the caller was given and does not want, to another.
    pub(super) fn pass_flush<'a>(&'a self, st: MutexGuard<'a, St>) -> MutexGuard<'a, St> {
        self.pass_flush_from(st, NOBODY)
    }

    fn pass_flush_from<'a>(&'a self, mut st: MutexGuard<'a, St>, but: u64) -> MutexGuard<'a, St> {
        if st.dead.is_some() {
            return self.end_writing(st, None);
        }
        match st.last_unsent_live(but) {
            Some((number, token)) => {
                if token.order(Order::Flush) {
                    let (word, bit) = self.word(number);
                    word.wake(bit);
                }
            }
            // Nobody waits for these bytes: the next caller sends them, in front of its own.
            None => st.writer = false,
        }
        st
    }

    fn end_writing<'a>(&'a self, mut st: MutexGuard<'a, St>, broken: Option<Error>) -> MutexGuard<'a, St> {
        st.writer = false;
        match broken {
            Some(cause) => self.kill(st, cause),
            None if st.dead.is_some() => self.bury(st),
            None => st,
        }
    }

    /// Sends until all is taken, the deadline comes, or the connection breaks.
    fn send(&self, bytes: &[u8], call: Option<&Call<'_>>) -> (usize, Round) {
        let deadline = call.map_or_else(Deadline::never, |call| call.deadline);
        let mut taken = 0;
        while taken < bytes.len() {
            match self.socket.send(&bytes[taken..]) {
                Ok(n) => taken += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if deadline.is_over() {
                        return (taken, Round::Late);
                    }
                    if let Err(error) = self.wait_for_room(call, deadline) {
                        return (taken, Round::Broken(error));
                    }
                }
                Err(error) => {
                    let what = format!("sending to {}", self.endpoint);
                    return (taken, Round::Broken(Error::from_io(Status::Io, what, &error)));
                }
            }
        }
        (taken, Round::Sent)
    }

    /// Waits until the socket takes more. A server that waits for us to read its replies must not be waited for: when there
    /// is something to read and nobody else reads, read first.
    fn wait_for_room(&self, call: Option<&Call<'_>>, deadline: Deadline) -> Result<(), Error> {
        let leads = call.is_some_and(|call| call.leads.get());
        let mut st = self.lock();
        let read_here = leads || !st.reader;
        st.reader = true;
        drop(st);
        let ready = self.socket.wait(read_here, true, deadline.left());
        if read_here && matches!(&ready, Ok(ready) if ready.read) {
            self.read_available();
        }
        if read_here && !leads {
            drop(self.pass_lead(self.lock(), call.map_or(NOBODY, |call| call.number)));
        }
        match ready {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::from_io(Status::Io, format!("waiting to send to {}", self.endpoint), &error)),
        }
    }
}
