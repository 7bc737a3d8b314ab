//! SCAN over all shards: one cursor, which carries the shard that is being scanned.
//!
//! Guarantees: every shard is scanned from its beginning to its end, one after the other; the cursor 0 begins and ends. A cursor carries the
//! server's own, the shard, and a mark of the shards: it has more digits than a server's, and after a change of the shards it is refused.
//! Leaves to others: which node of the shard gave a cursor (route/scan).

use super::task::{Ask, Task};
use crate::client::steps::{Next, Operation, Told};
use crate::error::{Error, Result, Status, quoted};
use crate::resp::{Reply, ReplyBuilder};

/// The lowest bits of a cursor are the mark of its shards.
const MARK_BITS: u32 = u16::BITS;

/// One SCAN.
pub(super) struct Scan {
    task: Task,
    args: Vec<Vec<u8>>,
    /// Those that are scanned: one for each server.
    shards: Vec<usize>,
    /// Which of them it is at.
    at: usize,
}

impl Scan {
    pub(super) fn new(task: Task, args: &[&[u8]], shards: Vec<usize>) -> Result<Self> {
        let mut args: Vec<Vec<u8>> = args.iter().map(|arg| arg.to_vec()).collect();
        let Some(cursor) = args.get_mut(1) else {
            return Err(Error::new(Status::InvalidArg, "SCAN needs a cursor: 0 to begin with"));
        };
        let number = std::str::from_utf8(cursor).ok().and_then(|text| text.parse::<u128>().ok());
        let Some(number) = number else {
            let text = format!(
                "SCAN: cursor {} is no number: give what the last SCAN returned",
                quoted(&String::from_utf8_lossy(cursor))
            );
            return Err(Error::new(Status::InvalidArg, text));
        };
        let (count, position) = (shards.len() as u128, number >> MARK_BITS);
        if number != 0 && number as u16 != task.state.mark() {
            let text = format!(
                "SCAN: cursor {number} is not of these shards: they were changed, or it is made up; begin anew with 0"
            );
            return Err(Error::new(Status::ScanInterrupted, text));
        }
        let at = (position % count) as usize;
        *cursor = (position / count).to_string().into_bytes();
        Ok(Self { task, args, shards, at })
    }

    fn answer(&self, told: Told) -> Result<Reply> {
        let reply = self.task.answer(self.shards[self.at], told)?;
        let cursor = reply.child(0, 0).and_then(|node| reply.bytes(node)).unwrap_or_default();
        let number = std::str::from_utf8(cursor).ok().and_then(|text| text.parse::<u64>().ok()).map(u128::from);
        let (Some(number), Some(names)) = (number, reply.child(0, 1)) else {
            return Err(Error::new(Status::Protocol, "the reply to SCAN has no cursor"));
        };
        let count = self.shards.len() as u128;
        let position = match (number, self.at + 1 < self.shards.len()) {
            (0, true) => Some(self.at as u128 + 1),
            (0, false) => None,
            // 64 bits, times at most some thousand shards: there is room for all of it.
            (number, _) => Some(number * count + self.at as u128),
        };
        let next = position.map_or(0, |position| position << MARK_BITS | u128::from(self.task.state.mark()));
        let mut out = ReplyBuilder::new();
        out.array().bytes(next.to_string().as_bytes()).part(&reply, names).end();
        out.try_finish()
    }
}

impl Operation for Scan {
    fn next(&mut self, told: Option<Told>) -> Next {
        match told {
            Some(told) => Next::Over(self.answer(told).map(Some)),
            None => {
                let args: Vec<&[u8]> = self.args.iter().map(Vec::as_slice).collect();
                match Ask::one(self.shards[self.at], &args) {
                    Ok(ask) => self.task.ask(vec![ask]),
                    Err(error) => Next::Over(Err(error)),
                }
            }
        }
    }
}
