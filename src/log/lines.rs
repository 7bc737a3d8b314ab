//! What the log can say: each line with its level, its target, and its message.
//!
//! Guarantees: docs/logs.md lists each of them (a test compares). Leaves to others: the keys behind them, and when they are said.

use crate::config::LogLevel::{self, Debug, Error, Info, Warning};

/// How a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// How important it is.
    pub level: LogLevel,
    /// What it is about, as a word.
    pub target: &'static str,
    /// What happened, for people.
    pub message: &'static str,
}

macro_rules! heads {
    ($($name:ident $level:ident $target:literal $message:literal)*) => {
        $(#[doc = $message] pub const $name: Head = Head { level: $level, target: $target, message: $message };)*

        /// All of them.
        pub const ALL: &[Head] = &[$($name,)*];
    };
}

heads! {
    SWITCHED           Warning "topology" "the service has another primary"
    FENCE_UP           Warning "fence"    "writes are held back"
    FENCE_DOWN         Warning "fence"    "writes pass again"
    SPOKEN_OF          Info    "notice"   "the service was mentioned"
    REFUSED            Warning "notice"   "a node refuses the user or the password"
    CREDENTIALS        Info    "config"   "the user or the password was changed"
    TROUBLE            Warning "primary"  "the primary has failed a connection or a call: it may be gone"
    SILENT             Warning "primary"  "the primary does not answer: calls wait for it"
    SERVES             Warning "primary"  "the primary serves again"
    ABORTED            Warning "notice"   "a failover was aborted: no other primary takes over"
    REBOOTED           Warning "notice"   "a server was restarted: what it had not saved is gone"
    ATTENTION          Warning "notice"   "something about the service needs attention"
    ALL_GONE           Error   "degraded" "all Sentinels are gone"
    ONE_BACK           Warning "degraded" "a Sentinel is back"
    REPLICA_FIT        Info    "replica"  "the replica is read from"
    REPLICA_UNFIT      Warning "replica"  "the replica is not read from any more"
    REPLICA_SPOKEN_OF  Info    "replica"  "the replica was mentioned"
    SENTINEL_UP        Info    "sentinel" "the Sentinel is listened to"
    SENTINEL_DOWN      Warning "sentinel" "the Sentinel is gone"
    SENTINEL_SPOKEN_OF Info    "sentinel" "the Sentinel was mentioned"
    SENTINELS_DIFFER   Warning "sentinel" "something about the Sentinels needs attention"
    PROBE              Info    "failover" "the candidate is asked for its role"
    CANDIDATE          Warning "failover" "the candidate says that it is a primary"
    RETIRED            Info    "pool"     "a node is not used any more, and its connections are closed"
    OPENED             Debug   "connection" "a connection was opened"
    CLOSED             Debug   "connection" "a connection was closed"
    FD_OVER            Error   "log"      "nothing can be written to log.fd any more: it is off"
    DROPPED            Warning "log"      "lines were dropped, because nobody read them in time"
    BEGUN              Info    "log"      "the log begins"
}
