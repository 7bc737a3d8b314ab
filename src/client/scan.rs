//! The scan loop: one SCAN, HSCAN, SSCAN or ZSCAN from its beginning to its end, page by page.
//!
//! Guarantees: all pages of one pass come from one server in one role, which has not been started anew meanwhile; what ends a pass
//! is an error, or, as often as the program allows, the beginning of another pass, which is counted. A call that fails for another
//! reason leaves the scan where it was. A thread that waits and an event loop run the same steps (`Pages`). Leaves to others: which node gave which cursor (route/scan).

use std::sync::Arc;

use super::steps::{Next, Operation, StepCall, Steps, Told};
use super::{CallFlags, Client, Timeout};
use crate::error::{Error, Result, Status, flags};
use crate::meter::Deed;
use crate::queue::Queue;
use crate::resp::{Reply, ReplyBuilder, encode};
use crate::sys::rank::Rank;
use crate::sys::sync::Lock;
use crate::time::Deadline;

/// The commands with a cursor and a page, and where the cursor is.
const COMMANDS: [(&[u8], usize); 4] = [(b"SCAN", 1), (b"HSCAN", 2), (b"SSCAN", 2), (b"ZSCAN", 2)];

/// A scan from its beginning to its end.
pub struct ScanLoop {
    /// The first of those that are scanned.
    client: Arc<Client>,
    most_restarts: u32,
    /// `None` while a page is being waited for.
    position: Lock<Option<Position>>,
}

/// Where a scan is.
struct Position {
    /// The one that is being scanned.
    client: Arc<Client>,
    /// Those that come after it, the next one last.
    rest: Vec<Arc<Client>>,
    args: Vec<Vec<u8>>,
    /// Where the cursor is among the arguments.
    at: usize,
    /// The generation of the node that gave the cursor; `None` at the beginning of a pass.
    generation: Option<u64>,
    restarts: u32,
    end: Option<End>,
}

/// Why there is no other page.
#[derive(Clone)]
enum End {
    Whole,
    Interrupted(Error),
}

impl ScanLoop {
    /// A scan that begins with its first page. `args`: the command, with cursor 0. `most_restarts`: how often it may begin anew.
    pub fn new(client: &Arc<Client>, args: &[&[u8]], most_restarts: u32) -> Result<Self> {
        Self::over(client, Vec::new(), args, most_restarts)
    }

    /// As [`ScanLoop::new`], and then the same on these, the last one first.
    pub(crate) fn over(
        client: &Arc<Client>,
        rest: Vec<Arc<Client>>,
        args: &[&[u8]],
        most_restarts: u32,
    ) -> Result<Self> {
        let name = args.first().copied().unwrap_or_default();
        let known = COMMANDS.iter().find(|(command, _)| name.eq_ignore_ascii_case(command));
        let invalid = |text: &str| Err(Error::new(Status::InvalidArg, text));
        let Some((_, at)) = known else { return invalid("a scan loop runs SCAN, HSCAN, SSCAN or ZSCAN") };
        if args.get(*at).is_none_or(|cursor| *cursor != b"0") {
            return invalid("a scan loop begins with cursor 0: SCAN 0 ..., HSCAN key 0 ...");
        }
        client.check_scannable()?;
        let args = args.iter().map(|arg| arg.to_vec()).collect();
        let on = Arc::clone(client);
        let position = Position { client: on, rest, args, at: *at, generation: None, restarts: 0, end: None };
        Ok(Self { client: Arc::clone(client), most_restarts, position: Lock::new(Rank::ScanLoop, Some(position)) })
    }

    /// The next page that has elements; `None`: there is none.
    pub fn next(self: &Arc<Self>, timeout: Timeout) -> Result<Option<Reply>> {
        let mut pages = self.pages(timeout)?;
        let mut told = None;
        loop {
            match pages.next(told.take()) {
                Next::Over(outcome) => return outcome,
                Next::Call(call) => told = Some(call.run_scan()),
                // A scan does not pause.
                Next::Pause(_) => {}
            }
        }
    }

    /// As [`ScanLoop::next`], without waiting: the page arrives on the queue with this token.
    pub fn next_submit(self: &Arc<Self>, timeout: Timeout, queue: &Arc<Queue>, token: u64) -> Result<()> {
        if timeout == Timeout::DontWait {
            return Err(super::no_time("the scan"));
        }
        Steps::begin(&self.client, Box::new(self.pages(timeout)?), queue, token).map(|_| ())
    }

    /// How often it has begun anew; `None` while another thread waits for a page.
    pub fn restarts(&self) -> Option<u32> {
        self.position.lock().as_ref().map(|position| position.restarts)
    }

    fn pages(self: &Arc<Self>, timeout: Timeout) -> Result<Pages> {
        let deadline = self.client.deadline(timeout);
        let position = self.position.lock().take();
        let busy = || Error::new(Status::InvalidState, "another page of this scan is being waited for");
        let position = Some(position.ok_or_else(busy)?);
        Ok(Pages { scan: Arc::clone(self), position, deadline, has_asked: false })
    }
}

/// The way to one page. It has the scan's position until then.
struct Pages {
    scan: Arc<ScanLoop>,
    position: Option<Position>,
    deadline: Deadline,
    has_asked: bool,
}

impl Operation for Pages {
    fn next(&mut self, told: Option<Told>) -> Next {
        let Some(mut position) = self.position.take() else { return Next::Over(Ok(None)) };
        let next = match told.and_then(|told| position.told(told, self.scan.most_restarts)) {
            Some(outcome) => Next::Over(outcome),
            None => self.ask(&position),
        };
        match next {
            // Before the completion: the program may ask for the next page as soon as it has that.
            Next::Over(_) => *self.scan.position.lock() = Some(position),
            _ => self.position = Some(position),
        }
        next
    }
}

impl Pages {
    fn ask(&mut self, position: &Position) -> Next {
        match &position.end {
            None => {}
            Some(End::Whole) => return Next::Over(Ok(None)),
            Some(End::Interrupted(error)) => return Next::Over(Err(error.clone())),
        }
        if std::mem::replace(&mut self.has_asked, true) && self.deadline.is_over() {
            return Next::Over(Err(position.late(self.deadline)));
        }
        let timeout = match self.deadline.left() {
            None => Timeout::Unlimited,
            Some(left) if left.is_zero() => Timeout::DontWait,
            Some(left) => Timeout::Ms(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1)),
        };
        let mut commands = Vec::new();
        let args: Vec<&[u8]> = position.args.iter().map(Vec::as_slice).collect();
        if let Err(error) = encode::try_command(&mut commands, &args) {
            return Next::Over(Err(error));
        }
        // The same cursor may be used twice: what was lost on its way comes again.
        let flags = CallFlags::default().with(CallFlags::IDEMPOTENT | CallFlags::EACH);
        Next::Call(StepCall { client: Arc::clone(&position.client), commands, flags, timeout, beside: Vec::new() })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if let Some(position) = self.position.take() {
            *self.scan.position.lock() = Some(position);
        }
    }
}

impl StepCall {
    /// Runs one command of a scan on this thread.
    fn run_scan(&self) -> Told {
        match self.client.exec_scan(&self.commands, self.flags.without(CallFlags::EACH), self.timeout) {
            Ok((reply, generation, node)) => {
                Told { outcome: Ok(reply), from: Some((generation, node)), beside: Vec::new() }
            }
            Err(error) => Told::of(Err(error)),
        }
    }
}

impl Position {
    /// The answer to its command. What ends the way to a page is returned.
    fn told(&mut self, told: Told, most_restarts: u32) -> Option<Result<Option<Reply>>> {
        let client = Arc::clone(&self.client);
        match self.page(told) {
            Ok(page) => page.map(|page| {
                client.count(Deed::ScanPage, 1);
                Ok(Some(page))
            }),
            Err(error) if error.status() == Status::ScanInterrupted => {
                client.count(Deed::ScanInterrupted, 1);
                let again = self.begin_again(error, most_restarts);
                client.count(Deed::ScanRestart, u64::from(again));
                None
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// A page, or `None` if the server gave none of the elements.
    fn page(&mut self, told: Told) -> Result<Option<Reply>> {
        let reply = told.outcome?;
        let (generation, node) = told.from.ok_or_else(|| Error::new(Status::Internal, "a page without its node"))?;
        if self.generation.is_some_and(|known| known != generation) {
            let text = format!("the scan is on {node}, which did not give its cursor: begin with cursor 0");
            return Err(Error::new(Status::ScanInterrupted, text).with_endpoint(node));
        }
        let (cursor, elements) = (reply.child(0, 0).and_then(|id| reply.bytes(id)), reply.child(0, 1));
        let (Some(cursor), Some(elements)) = (cursor, elements) else {
            let text = format!("{node} answered {} with no cursor and page", String::from_utf8_lossy(&self.args[0]));
            return Err(Error::new(Status::Protocol, text).with_endpoint(node));
        };
        let count = reply.count(elements);
        let page = match count {
            0 => None,
            _ => {
                let mut page = ReplyBuilder::new();
                _ = page.part(&reply, elements);
                Some(page.try_finish()?)
            }
        };
        self.go_on(cursor.to_vec(), generation);
        Ok(page)
    }

    fn go_on(&mut self, cursor: Vec<u8>, generation: u64) {
        (self.args[self.at], self.generation) = (cursor, Some(generation));
        if self.args[self.at] == b"0" {
            match self.rest.pop() {
                Some(next) => (self.client, self.generation) = (next, None),
                None => self.end = Some(End::Whole),
            }
        }
    }

    /// Begins anew, if it may.
    fn begin_again(&mut self, error: Error, most: u32) -> bool {
        if self.restarts >= most {
            self.end = Some(End::Interrupted(error));
            return false;
        }
        self.restarts += 1;
        (self.args[self.at], self.generation) = (b"0".to_vec(), None);
        true
    }

    fn late(&self, deadline: Deadline) -> Error {
        let text = format!(
            "the server gave no element of the scan within {} ms: the next call goes on from here; with MATCH on many keys a larger \
             COUNT helps",
            deadline.elapsed().as_millis()
        );
        Error::new(Status::Timeout, text).with_flags(flags::RETRYABLE)
    }
}
