//! A role of the lane, the reader's or the writer's: its holder, and how it passes to another caller. Protected by the lane's lock.
//!
//! Guarantees: there is one holder at a time; a sleeping caller learns of its role by an order in its slot, and [`LaneRole::given`]
//! names the unit whose caller has to be woken. Leaves to others: the choice of the next holder (state), and waking, which follows
//! the lock (mod).

use super::unit::Outcome;
use crate::sys::fault::Fault;
use crate::sys::slot::{Completer, Order};

/// A holder without a unit in the ring.
pub(super) const NOBODY: u64 = u64::MAX;

/// The holder of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneRole {
    /// Not held: the next caller takes it.
    Free,
    /// The caller of this unit was ordered to take it, and has not done so yet.
    Ordered(u64),
    /// Held by the caller of this unit, or by [`NOBODY`]: a thread without a unit.
    Taken(u64),
}

impl LaneRole {
    pub(super) fn is_free(self) -> bool {
        self == Self::Free
    }

    /// Whether the caller of this unit has it, or was ordered to take it.
    pub(super) fn is_with(self, number: u64) -> bool {
        matches!(self, Self::Ordered(holder) | Self::Taken(holder) if holder == number)
    }

    /// Takes the role, which is free or was given to this holder.
    pub(super) fn take(&mut self, by: u64) {
        debug_assert!(self.is_free() || self.is_with(by), "{by} takes a role that is {self:?}");
        *self = Self::Taken(by);
    }

    /// Gives the role to the next holder. Returns the role, and the unit whose caller has to be woken.
    pub(super) fn given(next: Option<(u64, &Completer<Outcome>)>, order: Order) -> (Self, Option<u64>) {
        let untold = match order {
            Order::TakeReader => Fault::ReaderNotTold,
            Order::TakeWriter => Fault::WriterNotTold,
        };
        let asleep =
            next.filter(|(_, completer)| !untold.is_made() && completer.order(order)).map(|(number, _)| number);
        (next.map_or(Self::Free, |(number, _)| Self::Ordered(number)), asleep)
    }

    /// Frees the role: the next caller takes it.
    pub(super) fn give_up(&mut self) {
        *self = Self::Free;
    }
}
