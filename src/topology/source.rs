//! Where a handle learns its nodes from: Sentinels, or its configuration. The words that messages have for it.
//!
//! Guarantees: no I/O; an error about a fixed primary says once that no other is looked for. Leaves to others: asking the Sentinels
//! (round, discovery), and the primary that is given (fixed).

use crate::config::Settings;
use crate::error::{Error, Status};

/// What follows an error about a primary that the configuration gives.
const NO_SUCCESSOR: &str =
    "there is no Sentinel to follow to another primary: the configuration gives this one (redis:// or primary.addr)";

/// Where the nodes are learned from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Source {
    /// Sentinels name the primary and list its replicas.
    #[default]
    Sentinels,
    /// The configuration gives them.
    Fixed,
}

impl Source {
    /// The source of a handle with these settings.
    pub(super) fn of(settings: &Settings) -> Self {
        if settings.fixed.primary.is_some() { Self::Fixed } else { Self::Sentinels }
    }

    /// The word of the topology.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Sentinels => "sentinels",
            Self::Fixed => "fixed",
        }
    }

    /// Whose word it is, for a sentence.
    pub(super) fn whose(self) -> &'static str {
        match self {
            Self::Sentinels => "the Sentinels'",
            Self::Fixed => "the configuration's",
        }
    }

    /// The error, with a sentence that no other primary is looked for, if that is so and matters.
    pub fn explain(self, error: Error) -> Error {
        let concerns = matches!(
            error.status(),
            Status::Connect | Status::Resolve | Status::Role | Status::NoPrimary | Status::Timeout | Status::Io
        );
        if self == Self::Sentinels || !concerns || error.message().contains(NO_SUCCESSOR) {
            return error;
        }
        error.with_note(format_args!("; {NO_SUCCESSOR}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_stands_once_and_only_where_it_helps() {
        let dead = || Error::new(Status::NoPrimary, "refused");
        let told = Source::Fixed.explain(Source::Fixed.explain(dead()));
        assert_eq!(told.message().matches("no Sentinel to follow").count(), 1, "{told}");
        assert_eq!(Source::Sentinels.explain(dead()).message(), "refused");
        assert_eq!(Source::Fixed.explain(Error::new(Status::Auth, "WRONGPASS")).message(), "WRONGPASS");
    }
}
