//! What a lane is given and what it returns: a unit, its outcome, and the completion of a submitted call.
//!
//! Guarantees: data only. Leaves to others: everything that happens to a unit (the room's other files).

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::resp::Reply;
use crate::resp::encode::{self, Pieces};
use crate::time::WriteLease;

/// The outcome of a unit.
pub type Outcome = std::result::Result<Reply, Failure>;

/// Why there is no reply, and how much of the unit may have reached the server.
#[derive(Debug, Clone)]
pub struct Failure {
    /// How many of its bytes were handed to the kernel, or may still be. A command whose last byte is not among them has certainly
    /// not been executed.
    pub sent: usize,
    /// What happened.
    pub error: Error,
    /// The peer ended the connection, or made it useless, while this unit's replies were due next.
    pub at_head: bool,
}

impl Failure {
    /// A failure that is not the end of a connection at this unit.
    pub fn new(sent: usize, error: Error) -> Self {
        Self { sent, error, at_head: false }
    }

    /// A failure before anything was sent.
    pub fn unsent(error: Error) -> Self {
        Self::new(0, error)
    }
}

/// A unit: one call's bytes and the replies that it waits for.
#[derive(Clone, Copy)]
pub struct Unit<'a> {
    /// What is sent.
    pub bytes: Bytes<'a>,
    /// `None`: one reply, as it is. `Some(n)`: n replies, as the children of one ARRAY.
    pub list: Option<u32>,
    /// It must not be sent a second time. Before it is sent the connection is checked for its end, even if the peer has just sent
    /// something.
    pub at_most_once: bool,
    /// It is sent only as long as this lease lasts. A unit that is taken back ends as unsent, with the status FENCED.
    pub lease: Option<&'a Arc<WriteLease>>,
    /// It begins with MULTI and ends the transaction. The lane ends if its replies leave the transaction open.
    pub atomic: bool,
}

/// The bytes of a unit, encoded or still to be encoded.
#[derive(Clone, Copy)]
pub enum Bytes<'a> {
    /// One command's arguments.
    Args(&'a [&'a [u8]]),
    /// RESP, one command after the other.
    Raw(&'a [u8]),
}

impl<'a> Bytes<'a> {
    /// Appends them to a buffer, unless there is no memory for them.
    #[inline]
    pub fn append_to(&self, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Bytes::Args(args) => encode::try_command(out, args),
            Bytes::Raw(raw) => encode::try_encoded(out, raw),
        }
    }

    /// The bytes in pieces, for sending without a copy, if any argument is large.
    #[inline(always)]
    pub fn pieces(&self) -> Option<Pieces<'a>> {
        match self {
            Bytes::Args(args) => Pieces::of(args),
            Bytes::Raw(raw) => Pieces::encoded(raw),
        }
    }

    /// Their number.
    pub fn len(&self) -> usize {
        match self {
            Bytes::Args(args) => encode::command_len(args),
            Bytes::Raw(raw) => raw.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A submitted call. Completing it must not wait, and must not call the lane that runs it.
pub trait Completion: Send + Sync {
    /// The call's unit is over.
    fn complete(self: Arc<Self>, outcome: Outcome);
    /// Whether it is the call of this queue and token.
    fn is(&self, owner: usize, token: u64) -> bool;
}

/// What driving a lane found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driven {
    /// What there was has been read.
    Read,
    /// A caller has the reader's role.
    Busy,
}
