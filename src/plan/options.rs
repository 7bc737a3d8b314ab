//! What a caller says about a call beside its commands and its timeout: target and flags.
//!
//! Guarantees: unknown flags are refused.

use crate::error::{Error, Result, Status};

/// Where a client's commands go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Everything to the primary.
    Primary,
    /// Reads to replicas; writes are refused.
    Replica,
    /// Reads to replicas, everything else to the primary.
    Split,
}

impl Target {
    /// Its word in statistics and in the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Split => "split",
        }
    }
}

/// The flags of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallFlags(u32);

impl CallFlags {
    /// A list is one transaction.
    pub const ATOMIC: u32 = 1;
    /// Safe to send again after an unknown outcome.
    pub const IDEMPOTENT: u32 = 1 << 1;
    /// Send once.
    pub const NO_RETRY: u32 = 1 << 2;
    /// For commands to Sentinels: to every one that is known. Refused for calls of clients.
    pub const ALL: u32 = 1 << 3;
    /// On a split client: this read goes to the primary. Refused on a client for replicas.
    pub const ON_PRIMARY: u32 = 1 << 4;
    /// Each command of a list is a call of its own.
    pub const EACH: u32 = 1 << 5;
    /// Not on a lane that other calls share.
    pub const SLOW: u32 = 1 << 6;
    /// The reply has its meaning in its types: for ROLE and INFO, and for commands to Sentinels.
    pub const TYPED: u32 = 1 << 7;
    /// How many replicas must have it before it counts as done: in the highest byte.
    const REPLICAS: u32 = 0xFF << 24;
    /// What VIGIE_CALL_REPLICAS(n) of the header makes of a number that does not fit.
    const BAD_REPLICAS: u32 = 1 << 23;
    const KNOWN: u32 = Self::ATOMIC
        | Self::IDEMPOTENT
        | Self::NO_RETRY
        | Self::ON_PRIMARY
        | Self::EACH
        | Self::SLOW
        | Self::TYPED
        | Self::REPLICAS;

    /// Flags from the C interface; unknown ones are refused.
    #[inline(always)]
    pub fn from_bits(bits: u32) -> Result<Self> {
        match bits & !Self::KNOWN {
            0 => Ok(Self(bits)),
            Self::BAD_REPLICAS => {
                Err(Error::new(Status::InvalidArg, "flags: VIGIE_CALL_REPLICAS(n): n must be from 0 to 255"))
            }
            Self::ALL => Err(Error::new(
                Status::InvalidArg,
                "flags: VIGIE_CALL_ALL is for vigie_sentinel_exec(): a client has one primary",
            )),
            unknown => Err(Error::new(Status::InvalidArg, format!("unknown call flags {unknown:#x}"))),
        }
    }

    /// The error for a single command with a flag that is for lists.
    #[cold]
    pub(crate) fn for_lists(self) -> Error {
        let text = match self.has(Self::ATOMIC) {
            true => "flags: VIGIE_CALL_ATOMIC is for lists of commands: a single command is atomic by itself",
            false => "flags: VIGIE_CALL_EACH is for lists of commands",
        };
        Error::new(Status::InvalidArg, text)
    }

    /// Refuses flags that contradict `ATOMIC`.
    pub(crate) fn check_atomic(self) -> Result<()> {
        let text = if self.has(Self::EACH) {
            "flags: VIGIE_CALL_ATOMIC makes one call of a list, VIGIE_CALL_EACH as many as it has commands: choose one of them"
        } else if self.has(Self::IDEMPOTENT) {
            "flags: VIGIE_CALL_ATOMIC with VIGIE_CALL_IDEMPOTENT: a transaction is never sent again once it may have run; read \
             its keys before it is repeated"
        } else {
            return Ok(());
        };
        Err(Error::new(Status::InvalidArg, text))
    }

    /// How many replicas must have a write; 0: as configured.
    pub(crate) fn replicas(self) -> u32 {
        self.0 >> 24
    }

    /// The same with one more flag.
    pub(crate) fn with(self, flag: u32) -> Self {
        Self(self.0 | flag)
    }

    pub(crate) fn on_primary() -> Self {
        Self(Self::ON_PRIMARY)
    }

    /// The same without this flag.
    pub(crate) fn without(self, flag: u32) -> Self {
        Self(self.0 & !flag)
    }

    /// Whether any of these flags is set.
    pub(crate) fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }
}

/// The reason why a call with a timeout of 0 or less is refused; elsewhere -1 means no limit.
pub(crate) const NO_TIME: &str = "timeout_ms is 0 or less, which leaves no time (VIGIE_TIMEOUT_NONE: no limit; VIGIE_TIMEOUT_DEFAULT: the \
                       option timeout.call)";
