//! Faults that the model of the lane makes on purpose, one in each run, to show that it detects them (tests/it/loom.rs).
//!
//! Guarantees: outside of the model no fault is made, and asking for one costs nothing. Leaves to others: the wrong action at the
//! place that a fault is named after.

/// The faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The reader's role is passed to a caller that is not told.
    ReaderNotTold,
    /// The writer's role is passed to a caller that is not told.
    WriterNotTold,
    /// A caller that was told to take a role is not woken.
    NotWoken,
    /// A reader whose deadline comes keeps its role.
    LateReaderKeepsRole,
    /// A caller whose deadline comes overlooks an order that it was given meanwhile.
    LateOrderOverlooked,
    /// The units of a dead lane are ended before its writer has reported what the kernel took.
    SortedTooSoon,
    /// A caller that comes back from writing does not check that there is a reader.
    WriterDoesNotLook,
    /// A reader leaves and passes its role to nobody.
    ReaderPassesNothing,
    /// A reply is stored without a release.
    StoredWithoutRelease,
    /// A waiter reads the word's count after it has looked.
    CountReadTooLate,
    /// A slot is freed before its completer.
    SlotGoesFirst,
    /// An order is lost when two are given.
    OneOrderLost,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 12] = [
        Self::ReaderNotTold,
        Self::WriterNotTold,
        Self::NotWoken,
        Self::LateReaderKeepsRole,
        Self::LateOrderOverlooked,
        Self::SortedTooSoon,
        Self::WriterDoesNotLook,
        Self::ReaderPassesNothing,
        Self::StoredWithoutRelease,
        Self::CountReadTooLate,
        Self::SlotGoesFirst,
        Self::OneOrderLost,
    ];

    /// Whether this run makes it.
    #[cfg(not(loom))]
    #[inline(always)]
    pub const fn is_made(self) -> bool {
        false
    }

    /// Whether this run makes it: the environment names it.
    #[cfg(loom)]
    pub fn is_made(self) -> bool {
        std::env::var("VIGIE_FAULT").is_ok_and(|made| made == format!("{self:?}"))
    }
}
