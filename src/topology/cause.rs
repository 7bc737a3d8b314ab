//! Why something is reported: a stable word for programs, and a sentence for people.
//!
//! Guarantees: a word keeps its meaning in all versions; each word except the channels of Sentinels is in
//! [`Cause::TABLE`], from which EVENTS.md is written. Leaves to others: when something is reported (transition, finish,
//! follow, handle_state).

use std::borrow::Cow;
use std::fmt;

use crate::queue::kind::{DEGRADED, FENCE, NOTICE, REPLICA, SENTINEL, TOPOLOGY};

/// The library's own causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    SentinelsAgree,
    EpochReset,
    CandidateIsPrimary,
    FailoverInProgress,
    ElectionOver,
    LeaderBack,
    LeaseOver,
    OnLease,
    LeaderGone,
    FailoverOver,
    FenceExpired,
    Switched,
    Listening,
    EventsRefused,
    Lost,
    Refused,
    Answered,
    QuestionsRefused,
    SplitView,
    Strangers,
    Fit,
    Unproven,
    Promoted,
    NotListed,
    SubjectivelyDown,
    ObjectivelyDown,
    Disconnected,
    LinkDown,
    OtherPrimary,
    OtherData,
    Contradicted,
    RoleUnknown,
    Fixed,
    CertificatesKept,
    CredentialsRefused,
}

/// A cause as the documentation and the tests see it.
#[derive(Debug, Clone, Copy)]
pub struct CauseInfo {
    cause: Cause,
    /// The word.
    pub word: &'static str,
    /// The kinds of events that carry it, as a mask.
    pub kinds: u32,
    /// What it means.
    pub text: &'static str,
}

const fn row(cause: Cause, word: &'static str, kinds: u32, text: &'static str) -> CauseInfo {
    CauseInfo { cause, word, kinds, text }
}

impl Cause {
    /// Every cause, in the order of the enum.
    pub(crate) const TABLE: &[CauseInfo] = &[
        row(
            Self::SentinelsAgree,
            "sentinels_agree",
            TOPOLOGY,
            "The Sentinels name this primary, and it has confirmed its role.",
        ),
        row(
            Self::EpochReset,
            "epoch_reset",
            TOPOLOGY | NOTICE,
            "A majority of the Sentinels names this primary under a lower epoch than before: they were rebuilt.",
        ),
        row(
            Self::CandidateIsPrimary,
            "candidate_is_primary",
            TOPOLOGY | FENCE,
            "The replica that was chosen for promotion says that it is a primary. TOPOLOGY: it is used before the Sentinels \
             agree on it (`failover.probe`). FENCE, on: the old primary must not be written to.",
        ),
        row(
            Self::FailoverInProgress,
            "failover_in_progress",
            FENCE,
            "On: a Sentinel that was asked reports the flag of this name.",
        ),
        row(
            Self::ElectionOver,
            "election_over",
            FENCE,
            "On: the Sentinel that tries the failover no longer waits for its election.",
        ),
        row(Self::LeaderBack, "leader_back", FENCE, "On: the Sentinel that leads the failover was gone, and is back."),
        row(Self::LeaseOver, "lease_over", FENCE, "On: the conditions of `on_lease` are no longer met."),
        row(
            Self::OnLease,
            "on_lease",
            FENCE,
            "Off: the failover waits for its election and the primary is up; the fence goes up again when that changes.",
        ),
        row(
            Self::LeaderGone,
            "leader_gone",
            FENCE,
            "Off: the Sentinel that led the failover is gone, and its candidate is still a replica.",
        ),
        row(
            Self::FailoverOver,
            "failover_over",
            FENCE,
            "Off: no Sentinel that was asked reports the flag `failover_in_progress` any more.",
        ),
        row(Self::FenceExpired, "fence_expired", FENCE, "Off: it was on for `failover.fence_max`."),
        row(Self::Switched, "switched", FENCE, "Off: the service has a new primary, which was verified."),
        row(
            Self::Listening,
            "listening",
            SENTINEL | DEGRADED,
            "SENTINEL, up: its events are received. DEGRADED, off: those of this Sentinel.",
        ),
        row(
            Self::EventsRefused,
            "events_refused",
            SENTINEL | DEGRADED,
            "SENTINEL, up, or DEGRADED, off: it answers, but the user may not subscribe to all of its events; it is asked instead.",
        ),
        row(
            Self::Lost,
            "lost",
            SENTINEL | DEGRADED,
            "SENTINEL, down: it cannot be reached, or does not answer. DEGRADED, on: this was the last Sentinel.",
        ),
        row(
            Self::Refused,
            "refused",
            SENTINEL | DEGRADED,
            "SENTINEL, down: it refuses the credentials, or a required command. DEGRADED, on: this was the last Sentinel.",
        ),
        row(Self::Answered, "answered", DEGRADED, "Off: a Sentinel answers again (`monitor` is not `on`)."),
        row(
            Self::QuestionsRefused,
            "questions_refused",
            SENTINEL,
            "The user may not run commands with which the library asks it; `reason` has its replies.",
        ),
        row(
            Self::SplitView,
            "split_view",
            SENTINEL,
            "These Sentinels have named another primary than the others for 3 s, or no majority names one.",
        ),
        row(Self::Strangers, "strangers", SENTINEL, "These Sentinels are of another deployment, and do not count."),
        row(Self::Fit, "fit", REPLICA, "Fit: it is read from."),
        row(
            Self::Unproven,
            "unproven",
            REPLICA,
            "Mentioned: it is read from by the word of the Sentinels, or of the configuration (`replica.addrs`), because it does not give \
             its role or its replication id.",
        ),
        row(Self::Promoted, "promoted", REPLICA, "Not fit: it is the primary now."),
        row(Self::NotListed, "not_listed", REPLICA, "Not fit: the Sentinels do not list it any more."),
        row(Self::SubjectivelyDown, "s_down", REPLICA, "Not fit: most Sentinels consider it down."),
        row(Self::ObjectivelyDown, "o_down", REPLICA, "Not fit: most Sentinels consider it objectively down."),
        row(Self::Disconnected, "disconnected", REPLICA, "Not fit: most Sentinels are not connected to it."),
        row(
            Self::LinkDown,
            "link_down",
            REPLICA,
            "Not fit: its link to the primary is down, according to most Sentinels or to itself.",
        ),
        row(Self::OtherPrimary, "other_primary", REPLICA, "Not fit: it follows another node than the primary."),
        row(Self::OtherData, "other_data", REPLICA, "Not fit: its data are not those of the primary."),
        row(
            Self::Contradicted,
            "contradicted",
            REPLICA,
            "Not fit: it does not give all that is needed, and the Sentinels (or the configuration) do not vouch for it.",
        ),
        row(
            Self::RoleUnknown,
            "role_unknown",
            NOTICE,
            "The user may not ask the primary for its role by ROLE, HELLO or INFO; the word of the Sentinels counts, or that of the \
             configuration (`primary.addr`).",
        ),
        row(
            Self::Fixed,
            "fixed",
            NOTICE,
            "The configuration gives the primary (`primary.addr`, `redis://`), and it has confirmed its role: no Sentinel is asked, and \
             no other primary is looked for. Once for each service.",
        ),
        row(
            Self::CertificatesKept,
            "certificates_kept",
            NOTICE,
            "Files of `tls.ca`, `tls.cert` or `tls.key`, or those for the Sentinels, have changed and are no use: new connections go on \
             with what was read before. Said once for each such change, to the first service that opens a connection or is polled after it.",
        ),
        row(
            Self::CredentialsRefused,
            "credentials_refused",
            NOTICE,
            "A data node refuses the user or the password: on a new connection, or with NOAUTH on one that it had accepted, which is replaced. \
             A token may have expired. Said once for each node after each change of the settings.",
        ),
    ];

    fn word(self) -> &'static str {
        Self::TABLE.iter().find(|row| row.cause == self).map_or("", |row| row.word)
    }
}

/// Why something is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    word: Cow<'static, str>,
    text: String,
}

impl Why {
    /// A cause of the library's own, with a sentence.
    pub(crate) fn own(cause: Cause, text: impl Into<String>) -> Self {
        Self { word: Cow::Borrowed(cause.word()), text: text.into() }
    }

    /// A cause that needs no sentence.
    pub(crate) fn word(cause: Cause) -> Self {
        Self::own(cause, cause.word())
    }

    /// Because a Sentinel published something on this channel.
    pub(crate) fn said(channel: &str, text: impl Into<String>) -> Self {
        Self { word: Cow::Owned(channel.to_owned()), text: text.into() }
    }

    /// Whether this is the cause.
    pub(crate) fn is(&self, cause: Cause) -> bool {
        self.word == cause.word()
    }

    /// Whether it is a cause of the library's own, and no channel of a Sentinel.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self.word, Cow::Borrowed(_))
    }

    /// The word: a cause of the table, or a Sentinel's channel.
    pub fn cause(&self) -> &str {
        &self.word
    }

    /// The sentence.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_a_row_of_its_own_in_the_order_of_the_enum() {
        for (place, row) in Cause::TABLE.iter().enumerate() {
            assert_eq!(row.cause as usize, place, "{}", row.word);
            assert_eq!(Cause::TABLE.iter().filter(|other| other.word == row.word).count(), 1, "{}", row.word);
            assert!(row.kinds != 0 && row.word.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()), "{}", row.word);
        }
        assert_eq!(Cause::CredentialsRefused as usize + 1, Cause::TABLE.len(), "the last of the enum has a row");
    }
}
