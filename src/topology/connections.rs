//! The event of a connection: it was opened, or closed for a reason.
//!
//! Guarantees: EVENTS.md is written from the tables; keys may be added, never changed. Leaves to others: counting connections (meter), and
//! telling of them (shared, watch).

use std::time::Duration;

use crate::meter::{End, EndInfo};
use crate::queue::kind;
use crate::resp::ReplyBuilder;
use crate::resp::fields::{
    self, Field, MapInfo,
    Value::{Bool, Int, Text},
    field,
};

/// The word for a connection that was opened.
const OPENED: (&str, &str) = ("opened", "Open: it has shaken hands, and its server has the role that it should have.");

/// A connection was opened or closed.
#[derive(Debug, Clone)]
pub(super) struct ConnectionChange {
    pub(super) service: String,
    pub(super) node: String,
    pub(super) role: &'static str,
    /// Why it was closed; `None`: it was opened.
    pub(super) end: Option<End>,
    pub(super) age: Duration,
}

impl ConnectionChange {
    fn words(&self) -> (&'static str, &'static str) {
        self.end.map_or(OPENED, |end| {
            let EndInfo { word, text, .. } = end.info();
            (word, text)
        })
    }
}

const CONNECTION: &[Field<ConnectionChange>] = &[
    field("service", Text(|of| (&*of.service).into()), "", "The service."),
    field("node", Text(|of| (&*of.node).into()), "", "The node: `host:port`."),
    field("role", Text(|of| of.role.into()), "", "What it is used for: `primary` or `replica`."),
    field("open", Bool(|of| of.end.is_none()), "", "Whether it was opened; else it was closed."),
    field("age_ms", Int(|of| of.age.as_millis() as i64), "ms", "For how long it was open; 0 when it was opened."),
    field("reason", Text(|of| of.words().1.into()), "", "Why, as a sentence for people and logs."),
    field("cause", Text(|of| of.words().0.into()), "", "Why, as a word that programs can act on: one of those below."),
];

/// Writes the keys of the event into a map.
pub(super) fn append(out: &mut ReplyBuilder, of: &ConnectionChange) {
    fields::append(out, CONNECTION, of);
}

/// The map of the event, for EVENTS.md.
pub fn connection_map() -> (u32, MapInfo) {
    (kind::CONNECTION, fields::describe("CONNECTION", CONNECTION))
}

/// Its causes and what each means, for EVENTS.md.
pub fn connection_causes() -> impl Iterator<Item = (&'static str, &'static str)> {
    std::iter::once(OPENED).chain(End::TABLE.iter().map(|info| (info.word, info.text)))
}
