//! A slot on a waiting thread's stack, and the completer through which another thread fills it.
//!
//! Guarantees: the slot outlives the completer, because [`scope`] does not return before the completer was used or dropped; a value
//! is delivered at most once; orders (to take the reader's or the writer's role) are never lost, whatever follows them. After its
//! last access to the state the delivering thread does not touch the slot: it wakes the waiter by the lane's words only.

use std::ptr::NonNull;

use super::fault::Fault;
use super::futex::Word;
use super::sync::UnsafeCell;
use super::sync::atomic::{AtomicU32, Ordering};
use super::sync::pause;
use crate::time::Instant;

const PARKED: u32 = 1;
const DONE: u32 = 2;
const RELEASED: u32 = 4;
const READER: u32 = 8;
const WRITER: u32 = 16;

/// Where a thread waits for its value. Aligned so that it shares no pair of cache lines.
#[repr(align(128))]
pub struct Slot<T> {
    state: AtomicU32,
    value: UnsafeCell<Option<T>>,
}

/// Fills the slot once, or is dropped.
pub struct Completer<T>(NonNull<Slot<T>>);

// SAFETY: the completer is a unique right to write the value once; the slot is alive until the completer is gone (see `scope`).
unsafe impl<T: Send> Send for Completer<T> {}

/// What a waiter is asked to do for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Take the reader's role.
    TakeReader,
    /// Take the writer's role.
    TakeWriter,
}

/// What a waiter finds when it looks.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen<T> {
    /// Its value.
    Done(T),
    /// The completer was dropped without a value.
    Released,
    /// An order, which it has to follow first.
    Order(Order),
    /// The end came.
    Late,
}

/// Makes a slot and its completer, and runs `wait` with both. Returns only after the completer is gone.
// In a model its frame has to end with it: a slot that goes too early is seen by what is written over it.
#[cfg_attr(loom, inline(never))]
#[cfg_attr(not(loom), inline)]
pub fn scope<T, R>(wait: impl FnOnce(&Slot<T>, Completer<T>) -> R) -> R {
    let slot = Slot { state: AtomicU32::new(0), value: UnsafeCell::new(None) };
    let outlive = Outlive(&slot);
    let result = wait(outlive.0, Completer(NonNull::from(&slot)));
    drop(outlive);
    result
}

struct Outlive<'a, T>(&'a Slot<T>);

impl<T> Drop for Outlive<'_, T> {
    fn drop(&mut self) {
        let mut spins = 0u32;
        while !Fault::SlotGoesFirst.is_made() && self.0.state.load(Ordering::Acquire) & (DONE | RELEASED) == 0 {
            spins += 1;
            pause(spins);
        }
    }
}

impl<T> Slot<T> {
    /// Waits on `word` with `bits` until there is something to see, or the end.
    pub fn wait(&self, word: &Word, bits: u32, end: Option<Instant>) -> Seen<T> {
        // The clock is read only after a sleep: the kernel knows it too, and most sleeps end with a value.
        let mut slept = false;
        loop {
            let ticket = word.ticket();
            let state = self.state.fetch_or(PARKED, Ordering::AcqRel);
            if let Some(seen) = self.look(state) {
                return seen;
            }
            if slept && end.is_some_and(|end| Instant::now() >= end) {
                self.state.fetch_and(!PARKED, Ordering::Relaxed);
                return Seen::Late;
            }
            let ticket = if Fault::CountReadTooLate.is_made() { word.ticket() } else { ticket };
            word.wait(ticket, bits, end);
            slept = true;
        }
    }

    /// Whether nothing more will be delivered: the value is there, or the completer is gone.
    pub fn is_settled(&self) -> bool {
        self.state.load(Ordering::Acquire) & (DONE | RELEASED) != 0
    }

    /// An order that was given and not seen yet.
    pub fn peek_order(&self) -> Option<Order> {
        match self.state.load(Ordering::Acquire) & (READER | WRITER) {
            0 => None,
            orders => self.take_order(orders),
        }
    }

    /// Takes this order if it was given, and leaves another one.
    pub fn take(&self, order: Order) -> bool {
        let bit = bit(order);
        self.state.load(Ordering::Acquire) & bit != 0 && self.state.fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }

    /// Looks without waiting: a value, an order, or nothing yet.
    pub fn peek(&self) -> Option<Seen<T>> {
        self.look(self.state.load(Ordering::Acquire))
    }

    fn look(&self, state: u32) -> Option<Seen<T>> {
        if let Some(order) = self.take_order(state) {
            return Some(Seen::Order(order));
        }
        if state & DONE != 0 {
            // SAFETY: DONE was set with release after the only write of the value, by a completer that is gone; acquired above.
            let value = self.value.with_mut(|value| unsafe { (*value).take() });
            return Some(value.map_or(Seen::Released, Seen::Done));
        }
        (state & RELEASED != 0).then_some(Seen::Released)
    }
}

fn bit(order: Order) -> u32 {
    match order {
        Order::TakeReader => READER,
        Order::TakeWriter => WRITER,
    }
}

impl<T> Slot<T> {
    fn take_order(&self, state: u32) -> Option<Order> {
        let (order, bit) = match (state & READER, state & WRITER) {
            (0, 0) => return None,
            (0, _) => (Order::TakeWriter, WRITER),
            _ => (Order::TakeReader, READER),
        };
        let taken = if Fault::OneOrderLost.is_made() { READER | WRITER } else { bit };
        self.state.fetch_and(!(taken | PARKED), Ordering::AcqRel);
        Some(order)
    }
}

impl<T> Completer<T> {
    /// Delivers the value. True: the waiter is asleep and has to be woken.
    pub fn deliver(self, value: T) -> bool {
        let slot = self.0;
        std::mem::forget(self);
        let stored = if Fault::StoredWithoutRelease.is_made() { Ordering::Relaxed } else { Ordering::AcqRel };
        // SAFETY: the slot lives until DONE is seen; this completer is the only writer, and the waiter reads only after DONE.
        unsafe {
            slot.as_ref().value.with_mut(|cell| *cell = Some(value));
            slot.as_ref().state.fetch_or(DONE, stored) & PARKED != 0
        }
    }

    /// Gives an order. True: the waiter is asleep and has to be woken.
    pub fn order(&self, order: Order) -> bool {
        // SAFETY: the slot lives as long as this completer.
        unsafe { self.0.as_ref().state.fetch_or(bit(order), Ordering::AcqRel) & PARKED != 0 }
    }
}

impl<T> Drop for Completer<T> {
    fn drop(&mut self) {
        // SAFETY: the slot lives until RELEASED is seen, and is not touched after.
        unsafe { self.0.as_ref().state.fetch_or(RELEASED, Ordering::AcqRel) };
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn a_value_reaches_a_sleeping_waiter() {
        let word = Word::default();
        let (sender, receiver) = mpsc::channel::<Completer<String>>();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for completer in receiver {
                    if completer.deliver("value".to_owned()) {
                        word.wake(1);
                    }
                }
            });
            for _ in 0..1000 {
                let seen = scope(|slot, completer| {
                    sender.send(completer).unwrap();
                    slot.wait(&word, 1, None)
                });
                assert_eq!(seen, Seen::Done("value".to_owned()));
            }
            drop(sender);
        });
    }

    #[test]
    fn an_order_is_seen_before_the_value_that_came_after_it() {
        scope(|slot, completer: Completer<u8>| {
            assert!(!completer.order(Order::TakeWriter));
            assert!(!completer.order(Order::TakeReader));
            completer.deliver(7);
            assert_eq!(slot.peek(), Some(Seen::Order(Order::TakeReader)));
            assert!(!slot.take(Order::TakeReader));
            assert_eq!(slot.peek(), Some(Seen::Order(Order::TakeWriter)));
            assert_eq!(slot.peek(), Some(Seen::Done(7)));
        });
    }

    #[test]
    fn a_waiter_gives_up_and_a_dropped_token_is_told() {
        let word = Word::default();
        scope(|slot, completer: Completer<u8>| {
            let end = Instant::now() + Duration::from_millis(2);
            assert_eq!(slot.wait(&word, 1, Some(end)), Seen::Late);
            drop(completer);
            assert_eq!(slot.wait(&word, 1, None), Seen::Released);
        });
    }
}
