//! The scan loop: one SCAN, HSCAN, SSCAN or ZSCAN from its beginning to its end, page by page.
//!
//! Guarantees: all pages of one pass come from one server in one role, which has not been started anew meanwhile; what ends a pass
//! is an error, or, as often as the program allows, the beginning of another pass, which is counted. A call that fails for another
//! reason leaves the scan where it was. Leaves to others: which node gave which cursor (route/scan).

use std::sync::Arc;

use super::{CallFlags, Client, Timeout};
use crate::error::{Error, Result, Status, flags};
use crate::meter::Deed;
use crate::resp::{Reply, ReplyBuilder};
use crate::sys::rank::Rank;
use crate::sys::sync::Lock;
use crate::time::Deadline;

/// The commands with a cursor and a page, and where the cursor is.
const COMMANDS: [(&[u8], usize); 4] = [(b"SCAN", 1), (b"HSCAN", 2), (b"SSCAN", 2), (b"ZSCAN", 2)];

/// A scan from its beginning to its end.
pub struct ScanLoop {
    client: Arc<Client>,
    most_restarts: u32,
    /// `None` while a thread has it.
    position: Lock<Option<Position>>,
}

/// Where a scan is.
struct Position {
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
        let name = args.first().copied().unwrap_or_default();
        let known = COMMANDS.iter().find(|(command, _)| name.eq_ignore_ascii_case(command));
        let invalid = |text: &str| Err(Error::new(Status::InvalidArg, text));
        let Some((_, at)) = known else { return invalid("a scan loop runs SCAN, HSCAN, SSCAN or ZSCAN") };
        if args.get(*at).is_none_or(|cursor| *cursor != b"0") {
            return invalid("a scan loop begins with cursor 0: SCAN 0 ..., HSCAN key 0 ...");
        }
        client.check_scannable()?;
        let args = args.iter().map(|arg| arg.to_vec()).collect();
        let position = Position { args, at: *at, generation: None, restarts: 0, end: None };
        Ok(Self { client: Arc::clone(client), most_restarts, position: Lock::new(Rank::ScanLoop, Some(position)) })
    }

    /// The next page that has elements; `None`: there is none.
    pub fn next(&self, timeout: Timeout) -> Result<Option<Reply>> {
        let taken = self.position.lock().take();
        let busy = || Error::new(Status::InvalidState, "another thread waits for a page of this scan");
        let mut position = taken.ok_or_else(busy)?;
        let page = self.next_from(&mut position, timeout);
        *self.position.lock() = Some(position);
        page
    }

    /// How often it has begun anew; `None` while another thread waits for a page.
    pub fn restarts(&self) -> Option<u32> {
        self.position.lock().as_ref().map(|position| position.restarts)
    }

    fn next_from(&self, position: &mut Position, timeout: Timeout) -> Result<Option<Reply>> {
        let deadline = timeout.deadline(self.client.shared.context().settings().timeout_call);
        loop {
            match &position.end {
                None => {}
                Some(End::Whole) => return Ok(None),
                Some(End::Interrupted(error)) => return Err(error.clone()),
            }
            match self.page(position, deadline) {
                Ok(Some(page)) => {
                    self.client.count(Deed::ScanPage, 1);
                    return Ok(Some(page));
                }
                Ok(None) if deadline.is_over() => return Err(position.late(deadline)),
                Ok(None) => {}
                Err(error) if error.status() == Status::ScanInterrupted => {
                    self.client.count(Deed::ScanInterrupted, 1);
                    let again = position.begin_again(error, self.most_restarts);
                    self.client.count(Deed::ScanRestart, u64::from(again));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One step: a page, or `None` if the server gave none of the elements.
    fn page(&self, position: &mut Position, deadline: Deadline) -> Result<Option<Reply>> {
        let args: Vec<&[u8]> = position.args.iter().map(Vec::as_slice).collect();
        // The same cursor may be used twice: what was lost on its way comes again.
        let (reply, generation, node) =
            self.client.exec_scan(&args, CallFlags::default().with(CallFlags::IDEMPOTENT), deadline)?;
        if position.generation.is_some_and(|known| known != generation) {
            let text = format!("the scan is on {node}, which did not give its cursor: begin with cursor 0");
            return Err(Error::new(Status::ScanInterrupted, text).with_endpoint(node));
        }
        let (cursor, elements) = (reply.child(0, 0).and_then(|id| reply.bytes(id)), reply.child(0, 1));
        let (Some(cursor), Some(elements)) = (cursor, elements) else {
            let text = format!("{node} answered {} with no cursor and page", String::from_utf8_lossy(args[0]));
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
        position.go_on(cursor.to_vec(), generation);
        Ok(page)
    }
}

impl Position {
    fn go_on(&mut self, cursor: Vec<u8>, generation: u64) {
        if cursor == b"0" {
            self.end = Some(End::Whole);
        }
        (self.args[self.at], self.generation) = (cursor, Some(generation));
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
