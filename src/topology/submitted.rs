//! Submitted commands to the Sentinels: what a program asks for without a thread that waits.
//!
//! Guarantees: a submit never waits; what is refused here has no completion, everything else exactly one. A worker that may wait for the
//! network carries each of them; for one handle, and for one address, two at a time, so that Sentinels that hang hold up neither another
//! address nor another handle. Leaves to others: the commands (exec), and what ends them early (admin_call).

use std::sync::Arc;

use super::admin::To;
use super::admin_call::{AdminCall, Carried};
use super::exec::{SERVICES, check_time};
use super::sentinel::Sentinel;
use super::shared::closed;
use crate::error::{Error, Result, Status, flags};
use crate::queue::{Queue, Source};
use crate::resp::Reply;
use crate::time::Deadline;
use crate::worker::{self, Host};

/// What was submitted, with a copy of what the program gave.
enum Task {
    Command { words: Vec<Vec<u8>>, address: Option<String>, all: bool, typed: bool },
    Services { follow: bool },
}

/// What a task is for others: its name for messages, whether running it twice does no harm, and its memory.
struct Described {
    what: String,
    reads: bool,
    bytes: usize,
}

impl Sentinel {
    /// As [`Sentinel::exec`], without waiting: the outcome arrives on the queue, with this token.
    pub fn submit(
        self: &Arc<Self>,
        command: &[&[u8]],
        to: To<'_>,
        typed: bool,
        deadline: Deadline,
        queue: &Arc<Queue>,
        token: u64,
    ) -> Result<()> {
        let looked_up = self.looked_up(command, to, deadline)?;
        let described =
            Described { what: looked_up.name(), reads: looked_up.only_reads(), bytes: looked_up.bytes().len() };
        let address = match to {
            To::At(address) => Some(address.to_owned()),
            To::First | To::All => None,
        };
        let words = command.iter().map(|word| word.to_vec()).collect();
        let task = Task::Command { words, address, all: to == To::All, typed };
        self.send_off(task, described, deadline, queue, token)
    }

    /// As [`Sentinel::services`], without waiting: the outcome arrives on the queue, with this token.
    pub fn submit_services(
        self: &Arc<Self>,
        follow: bool,
        deadline: Deadline,
        queue: &Arc<Queue>,
        token: u64,
    ) -> Result<()> {
        self.check_askable(SERVICES)?;
        check_time(SERVICES, deadline)?;
        let described = Described { what: SERVICES.to_owned(), reads: true, bytes: 0 };
        self.send_off(Task::Services { follow }, described, deadline, queue, token)
    }

    /// Lets submitted commands end until the deadline, and ends the others.
    pub fn close_submitted(&self, deadline: Deadline) -> Result<()> {
        let ended = self.shared().admin_calls().close(deadline);
        if ended == 0 {
            return Ok(());
        }
        let after = deadline.elapsed().as_millis();
        let commands =
            if ended == 1 { "1 submitted command was".to_owned() } else { format!("{ended} submitted commands were") };
        let text = format!("closing the sentinel handle: {commands} running after {after} ms and ended then");
        Err(Error::new(Status::Timeout, text))
    }

    /// Gives a task to a worker.
    fn send_off(
        self: &Arc<Self>,
        task: Task,
        described: Described,
        deadline: Deadline,
        queue: &Arc<Queue>,
        token: u64,
    ) -> Result<()> {
        let host = match &task {
            Task::Command { address: Some(address), .. } => Host::of(("a Sentinel", address)),
            _ => Host::of(("a handle", Arc::as_ptr(self.shared()) as usize)),
        };
        let Described { what, reads, bytes } = described;
        let mut credits = queue.reserve_bytes(token, 1, bytes, self.settings().client.submit_bytes)?;
        let admin_calls = self.shared().admin_calls();
        let admin_call = admin_calls.add(what, reads, deadline, &mut credits).ok_or_else(closed)?;
        let source: Arc<dyn Source> = Arc::clone(admin_calls) as Arc<dyn Source>;
        queue.attach(&source);
        if let Some(left) = deadline.left() {
            let late = Arc::downgrade(&admin_call);
            // Without a thread for it, and so for the command, the command ends below.
            let _ = worker::after(left, Arc::downgrade(&admin_call), move || {
                late.upgrade().iter().for_each(AdminCall::expire);
            });
        }
        let (sentinel, own) = (Arc::clone(self), Arc::clone(&admin_call));
        let job = move || Carried(own).run(&sentinel, &task, deadline);
        if let Err(error) = worker::dial(host, false, job) {
            let error = Error::from_io(Status::Io, "no thread to carry a submitted command", &error);
            admin_call.stop(error.with_flags(flags::RETRYABLE));
        }
        Ok(())
    }

    fn carry(self: &Arc<Self>, task: &Task, deadline: Deadline, admin_call: &AdminCall) -> Result<Reply> {
        let asking = self.asking(deadline, Some(admin_call));
        match task {
            Task::Services { follow } => self.list_services(*follow, &asking),
            Task::Command { words, address, all, typed } => {
                let to = match address {
                    Some(address) => To::At(address),
                    None if *all => To::All,
                    None => To::First,
                };
                let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                let command = self.looked_up(&words, to, deadline)?;
                self.run(command, to, *typed, asking)
            }
        }
    }
}

impl Carried {
    fn run(self, sentinel: &Arc<Sentinel>, task: &Task, deadline: Deadline) {
        if self.0.begin() {
            let outcome = sentinel.carry(task, deadline, &self.0);
            self.0.end(outcome);
        }
    }
}
