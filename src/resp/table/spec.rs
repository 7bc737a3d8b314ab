//! One row of the command table: a name, its properties, the places of its keys.
//!
//! Guarantees: data only, made at compile time. Leaves to others: the rows (rows), and finding one (the room's first file).

use std::fmt;

/// Properties of a command.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u16);

impl Flags {
    /// Nothing special: it writes, and answers at once.
    pub const NONE: Self = Self(0);
    /// It changes nothing, and a replica answers it.
    pub const READ: Self = Self(1);
    /// It may keep its connection waiting.
    pub const BLOCK: Self = Self(1 << 1);
    /// It changes the state of its connection: for sessions only.
    pub const STATE: Self = Self(1 << 2);
    /// It runs a script or a function.
    pub const SCRIPT: Self = Self(1 << 3);
    /// Its cursor belongs to one node.
    pub const SCAN: Self = Self(1 << 4);
    /// It may take the server long, or give a large reply.
    pub const SLOW: Self = Self(1 << 5);
    /// It begins or ends a subscription.
    pub const SUBSCRIBE: Self = Self(1 << 6);
    /// It belongs to a transaction made by hand.
    pub const TXN: Self = Self(1 << 7);
    /// It has no keys.
    pub const NO_KEYS: Self = Self(1 << 8);
    /// Its first argument is a command of its own.
    pub const CONTAINER: Self = Self(1 << 9);
    /// It changes nothing, but replicas refuse it or know something else: safe to send again, to the primary.
    pub const REPEAT: Self = Self(1 << 10);
    /// Some of the others depend on the arguments: [`classify`] settles them.
    pub const ARGS: Self = Self(1 << 11);

    /// It reads data that each node keeps for itself, and means the primary's: only a client for replicas asks a replica.
    pub const LOCAL: Self = Self(1 << 12);

    /// It gives the server a script, to be run by its hash.
    pub const LOADS: Self = Self(1 << 13);

    /// The table does not have it.
    pub const UNKNOWN: Self = Self(1 << 14);

    const NAMES: [(&'static str, Self); 15] = [
        ("READ", Self::READ),
        ("BLOCK", Self::BLOCK),
        ("STATE", Self::STATE),
        ("SCRIPT", Self::SCRIPT),
        ("SCAN", Self::SCAN),
        ("SLOW", Self::SLOW),
        ("SUBSCRIBE", Self::SUBSCRIBE),
        ("TXN", Self::TXN),
        ("NO_KEYS", Self::NO_KEYS),
        ("CONTAINER", Self::CONTAINER),
        ("REPEAT", Self::REPEAT),
        ("ARGS", Self::ARGS),
        ("LOCAL", Self::LOCAL),
        ("LOADS", Self::LOADS),
        ("UNKNOWN", Self::UNKNOWN),
    ];

    /// All of both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This without the other.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of the other are in this.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of the other is in this.
    pub const fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Self::NAMES.iter().filter(|(_, flag)| self.has(*flag)).map(|(name, _)| *name);
        f.write_str(&names.collect::<Vec<_>>().join("|"))
    }
}

/// A command, or a sub-command of a container.
#[derive(Debug)]
pub struct Spec {
    /// Its name in capitals; a sub-command's follows its container's, as `CLIENT LIST`.
    pub name: &'static str,
    /// Its properties, as far as the arguments don't matter.
    pub flags: Flags,
    /// Where its keys are.
    pub keys: Keys,
    /// Where the name of the sub-command begins with its space; 0 without one.
    pub(super) space: u8,
}

/// Where the keys are among the arguments; the command's name is argument 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// There are none.
    None,
    /// From `first` to `last` (from the end when negative), every `step`-th.
    Range {
        /// The first key.
        first: u8,
        /// The last one.
        last: i8,
        /// The distance of two.
        step: u8,
        /// Which of them a command writes that is not READ.
        writes: Writes,
    },
    /// Argument `at` says how many follow it, `step` apart; one more at `front` unless that is 0, which is then the only
    /// one that may be written.
    Counted {
        /// A key in front of the count.
        front: u8,
        /// The count.
        at: u8,
        /// The distance of two.
        step: u8,
    },
    /// Behind STREAMS: the first half of what follows.
    Streams,
    /// The first argument, which is read, and what follows STORE or STOREDIST, which is written.
    Store,
    /// The third argument, or all behind KEYS when that is empty.
    Migrate,
    /// No keys, but channels, from `first` to `last` (from the end when negative).
    Channels {
        /// The first channel.
        first: u8,
        /// The last one.
        last: i8,
    },
}

/// Which keys of a range may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// All of them.
    All,
    /// The first one; the others are read.
    First,
    /// The last one; the others are read.
    Last,
}
