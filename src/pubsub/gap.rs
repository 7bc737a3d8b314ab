//! The gap of a subscription that was made anew, as the program is told of it.
//!
//! Guarantees: EVENTS.md is written from the table; keys may be added, never changed. Leaves to others: when a gap begins and ends
//! (subscription).

use std::time::{Duration, Instant};

use crate::queue::{Event, kind};
use crate::resp::ReplyBuilder;
use crate::resp::fields::{
    self, Field, MapInfo,
    Value::{Int, Text},
    field,
};

/// Why a subscription was made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Switched,
    Lost,
    Silent,
    Link,
    Overflow,
    Credentials,
}

impl Cause {
    /// Each with its word and its meaning.
    const TABLE: &'static [(Cause, &'static str, &'static str)] = &[
        (Cause::Switched, "switched", "The node is not used any more: another primary took over, or the replica left."),
        (Cause::Lost, "lost", "The connection ended."),
        (Cause::Silent, "silent", "The server left a PING unanswered for `sub.ping`."),
        (
            Cause::Link,
            "link",
            "The replica's link to its primary was down, or the replica follows another primary now, as after each failover. `from` and `to` \
             are the same node if it serves on.",
        ),
        (Cause::Overflow, "overflow", "The buffer was full, and `sub.overflow` is `disconnect`."),
        (
            Cause::Credentials,
            "credentials",
            "User or password were changed, and a connection with RESP2 takes no AUTH beside its subscriptions. With RESP3 there is no gap.",
        ),
    ];

    fn word(self) -> &'static str {
        Self::TABLE.iter().find(|(cause, ..)| *cause == self).map_or("", |(_, word, _)| word)
    }
}

/// The beginning of a gap.
#[derive(Debug, Clone)]
pub(super) struct Gap {
    /// The last sign that messages arrived.
    pub(super) since: Instant,
    pub(super) from: String,
    pub(super) cause: Cause,
    pub(super) reason: String,
}

struct Told {
    service: String,
    gap: Gap,
    to: String,
    lasted: Duration,
}

const SUB_GAP: &[Field<Told>] = &[
    field("service", Text(|of| (&*of.service).into()), "", "The service."),
    field("from", Text(|of| (&*of.gap.from).into()), "", "The node that messages came from before: `host:port`."),
    field("to", Text(|of| (&*of.to).into()), "", "The node that they come from now. It may be the same one."),
    field(
        "gap_ms",
        Int(|of| i64::try_from(of.lasted.as_millis()).unwrap_or(i64::MAX)),
        "ms",
        "From the last sign that messages arrived (a message, or the answer to a PING; on a replica its word that its link is up) to the \
         confirmation of the last channel. What was published in this time may be missing.",
    ),
    field(
        "cause",
        Text(|of| of.gap.cause.word().into()),
        "",
        "Why, as a word that programs can act on: one of those below.",
    ),
    field("reason", Text(|of| (&*of.gap.reason).into()), "", "Why, as a sentence for people and logs."),
];

/// The map of the event, for EVENTS.md.
pub fn gap_map() -> (u32, MapInfo) {
    (kind::SUB_GAP, fields::describe("SUB_GAP", SUB_GAP))
}

/// The causes of a gap and what each means, for EVENTS.md.
pub fn gap_causes() -> impl Iterator<Item = (&'static str, &'static str)> {
    Cause::TABLE.iter().map(|(_, word, text)| (*word, *text))
}

impl Gap {
    /// The event at its end.
    pub(super) fn told(self, service: &str, to: &str, now: Instant) -> Event {
        let lasted = now.saturating_duration_since(self.since);
        let mut out = ReplyBuilder::new();
        fields::write(&mut out, SUB_GAP, &Told { service: service.to_owned(), gap: self, to: to.to_owned(), lasted });
        Event { kind: kind::SUB_GAP, token: 0, outcome: Ok(Some(out.finish())) }
    }
}
