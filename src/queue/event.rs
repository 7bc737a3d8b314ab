//! What a queue holds: events, and the kinds of them.
//!
//! Guarantees: the numbers of the kinds are those of the header; EVENTS.md is written from the table. Leaves to others: what an event
//! carries beside that.

use crate::error::Result;
use crate::resp::{Reply, ReplyBuilder};

/// What an event is about; the numbers are those of the header, and bits of a mask.
pub mod kind {
    /// A call that was submitted is over.
    pub const COMPLETION: u32 = 1 << 0;
    /// A message of a subscription, or an answer to what was subscribed to.
    pub const MESSAGE: u32 = 1 << 1;
    /// A subscription was made anew: messages may be missing.
    pub const SUB_GAP: u32 = 1 << 2;
    /// A service has another primary.
    pub const TOPOLOGY: u32 = 1 << 3;
    /// A line of the log.
    pub const LOG: u32 = 1 << 4;
    /// Events were lost to a full queue.
    pub const DROPPED: u32 = 1 << 5;
    /// Writes are held back, or no longer.
    pub const FENCE: u32 = 1 << 6;
    /// All Sentinels are gone, or one is back.
    pub const DEGRADED: u32 = 1 << 7;
    /// A replica came in or went out.
    pub const REPLICA: u32 = 1 << 8;
    /// A Sentinel came, went, is down or up.
    pub const SENTINEL: u32 = 1 << 9;
    /// Something was said of a service that keeps its primary.
    pub const NOTICE: u32 = 1 << 10;
    /// A connection to a node was opened or closed.
    pub const CONNECTION: u32 = 1 << 11;

    /// Each kind with its name in the header and what it tells, as EVENTS.md has them.
    pub const ALL: &[(u32, &str, &str)] = &[
        (
            COMPLETION,
            "COMPLETION",
            "A call of vigie_cmds_submit() is over. The reply is the call's own, and the error that of vigie_cmds_exec(); no map.",
        ),
        (
            MESSAGE,
            "MESSAGE",
            "What a subscription has received. The reply is the server's, as a PUSH: `message` with channel and text, `pmessage` with \
             pattern, channel and text, or `smessage` with channel and text. Answers to vigie_sub_exec() come in the same way: \
             `subscribe` and `unsubscribe` (`psubscribe`, ...) with the name and the number of subscriptions, `pong` with a text. With \
             an error no reply: VIGIE_ERR_SERVER if the server refuses a channel, vigie_error_reply() has the command and the name; \
             any other status if the subscription cannot be made at the moment (VIGIE_ERR_AUTH and the like; told once, tried on), \
             or for good (VIGIE_ERR_CLOSED, the last event).",
        ),
        (
            SUB_GAP,
            "SUB_GAP",
            "A subscription was made anew, and its server has confirmed all of it: messages that were published during the gap may be \
             missing, and none after it. What is read from the database from now on is not older than the gap.",
        ),
        (TOPOLOGY, "TOPOLOGY", "A service has another primary. It is sent for nothing else."),
        (
            LOG,
            "LOG",
            "A line of the log, if `log.level` admits it. The map goes on with the keys of what happened: for the targets `topology`, \
             `notice`, `fence`, `degraded`, `replica` and `sentinel` those of the event of that name. docs/logs.md lists the others. \
             VIGIE_EVENT_ALL does not contain this kind, because it tells the same once more.",
        ),
        (
            DROPPED,
            "DROPPED",
            "Events were lost here, because the queue was full; with the token of a subscription, messages of it, because its own buffer \
             was full. The reply is an INT: how many; no map.",
        ),
        (FENCE, "FENCE", "Writes of a service are held back because of a failover, or no longer."),
        (
            DEGRADED,
            "DEGRADED",
            "All Sentinels are gone, or one is back. Meanwhile the known primary is used, and a failover is noticed late.",
        ),
        (REPLICA, "REPLICA", "A replica is used for reads from now on, or no longer, or a Sentinel mentioned it."),
        (
            SENTINEL,
            "SENTINEL",
            "A Sentinel is connected from now on, or no longer, or was mentioned; or Sentinels name another primary \
             than the others.",
        ),
        (NOTICE, "NOTICE", "A service was mentioned that keeps its primary."),
        (
            CONNECTION,
            "CONNECTION",
            "A connection of a client to a node was opened or closed. VIGIE_EVENT_ALL does not have it, because there may be many. It is \
             told by a thread of the library, in order, but later than what it is about.",
        ),
    ];
}

/// One thing that happened.
#[derive(Debug)]
pub struct Event {
    /// One of [`kind`].
    pub kind: u32,
    /// The number that the application gave with its call, its watch or its subscription; 0 for DROPPED of the queue itself.
    pub token: u64,
    /// What it carries. Only completions and messages carry errors.
    pub outcome: Result<Option<Reply>>,
}

impl Event {
    /// This many events are missing here.
    pub(super) fn dropped(token: u64, count: i64) -> Self {
        Self { kind: kind::DROPPED, token, outcome: Ok(Some(ReplyBuilder::new().int(count).finish())) }
    }

    /// The memory that it takes, about.
    #[inline]
    pub(super) fn weight(&self) -> usize {
        match &self.outcome {
            Ok(Some(reply)) => reply.weight(),
            Ok(None) => 0,
            Err(error) => error.reply().map_or(0, |reply| reply.weight()),
        }
    }
}
