//! The order in which submitted calls of one class start (rule 23). Pure.
//!
//! Guarantees: a newer call for the primary never starts before an older one that did not run: not while the older one is waiting,
//! has come back and is not judged yet, is being handled, or is in flight on another connection. A call that waits for its
//! connection keeps its place. The cost of an operation does not grow with the number of waiting calls. Leaves to others: what
//! starts a call, and when (pending).

use std::collections::{BTreeMap, VecDeque};

/// The calls that share an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrderClass {
    /// Everything for the primary: in order, on one connection at a time.
    Primary,
    /// Reads of replicas: any that can start does.
    Replicas,
    /// Calls that block a connection of their own: in order.
    Blocking,
}

impl OrderClass {
    /// How many there are.
    pub(crate) const COUNT: usize = 3;
}

/// The calls of one class that wait (`W`), or that came back from a connection (`L`) and are not judged yet (`B`).
pub(super) struct StartOrder<W, B, L> {
    class: OrderClass,
    /// By the order of their submission.
    waiting: BTreeMap<u64, W>,
    back: VecDeque<B>,
    /// A call that waited or came back is being handled: no other call may overtake it.
    in_hand: bool,
    /// Calls for which connections are being opened.
    opening: Vec<u64>,
    /// Calls up to this number had to wait at the gate.
    gated_to: Option<u64>,
    /// The connections on which the last calls were started, one for each kind of traffic.
    last: [Option<L>; 3],
    /// Calls that were started and have neither ended nor come back.
    in_flight: usize,
}

impl<W, B, L: Clone + PartialEq> StartOrder<W, B, L> {
    pub(super) fn new(class: OrderClass) -> Self {
        Self {
            class,
            waiting: BTreeMap::new(),
            back: VecDeque::new(),
            in_hand: false,
            opening: Vec::new(),
            gated_to: None,
            last: [None, None, None],
            in_flight: 0,
        }
    }

    /// Counts new calls that are about to start on this connection. False: they may not.
    pub(super) fn begin_new(&mut self, on: &L, traffic: usize, calls: usize) -> bool {
        !self.has_older() && self.begin(on, traffic, calls)
    }

    /// Counts calls that are about to start, and before which no call waits. False: calls that have come back, or that are in
    /// flight on another connection, come first.
    pub(super) fn begin(&mut self, on: &L, traffic: usize, calls: usize) -> bool {
        if self.class != OrderClass::Replicas && !self.back.is_empty() {
            return false;
        }
        if self.class == OrderClass::Primary {
            let last = &mut self.last[traffic];
            if last.as_ref() != Some(on) {
                if self.in_flight > 0 {
                    return false;
                }
                *last = Some(on.clone());
            }
        }
        self.in_flight += calls;
        true
    }

    /// Counts calls that have ended, have come back, or were not started. True: no call is in flight any more, which others may be
    /// waiting for.
    pub(super) fn finish(&mut self, calls: usize) -> bool {
        self.in_flight -= calls;
        calls > 0 && self.in_flight == 0
    }

    /// Whether a new call has to wait. Reads do not wait for a call whose connection to another replica is being opened.
    fn has_older(&self) -> bool {
        let only_openings =
            self.class == OrderClass::Replicas && self.waiting.keys().all(|order| self.opening.contains(order));
        self.in_hand || !self.back.is_empty() || !(self.waiting.is_empty() || only_openings)
    }

    /// Forgets the connections for which this is true, and returns them.
    pub(super) fn forget(&mut self, is_over: impl Fn(&L) -> bool) -> [Option<L>; 3] {
        self.last.each_mut().map(|last| last.take_if(|last| is_over(last)))
    }

    pub(super) fn insert(&mut self, order: u64, call: W) {
        self.waiting.insert(order, call);
    }

    pub(super) fn remove(&mut self, order: u64) -> Option<W> {
        self.waiting.remove(&order)
    }

    pub(super) fn get_mut(&mut self, order: u64) -> Option<&mut W> {
        self.waiting.get_mut(&order)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut W> {
        self.waiting.values_mut()
    }

    pub(super) fn retain(&mut self, keep: impl FnMut(&u64, &mut W) -> bool) {
        self.waiting.retain(keep);
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a call that came back. It is judged before any other call starts.
    pub(super) fn come_back(&mut self, call: B) {
        self.back.push_back(call);
    }

    pub(super) fn returned(&self) -> impl Iterator<Item = &B> {
        self.back.iter()
    }

    pub(super) fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.back.is_empty()
    }

    /// The next call to judge. [`StartOrder::put_back`] follows.
    pub(super) fn take_returned(&mut self) -> Option<B> {
        let back = self.back.pop_front()?;
        self.in_hand = true;
        Some(back)
    }

    /// The next call that can start, and whether it has had to wait at the gate. `Err`: calls that came back have to be judged
    /// first, because they are older. [`StartOrder::put_back`] or [`StartOrder::open`] follows.
    pub(super) fn take_next(&mut self) -> Result<Option<(u64, W, bool)>, Unjudged> {
        if !self.back.is_empty() {
            return Err(Unjudged);
        }
        let mut ready = self.waiting.keys().copied();
        let order = match self.class {
            OrderClass::Replicas => ready.find(|order| !self.opening.contains(order)),
            OrderClass::Primary | OrderClass::Blocking => ready.next().filter(|order| !self.opening.contains(order)),
        };
        let next = order.and_then(|order| Some((order, self.waiting.remove(&order)?, self.was_gated(order))));
        self.in_hand = next.is_some();
        Ok(next)
    }

    /// The call in hand has been handled: it goes on waiting, is over, or is in flight.
    pub(super) fn put_back(&mut self, waits: Option<(u64, W)>) {
        if let Some((order, call)) = waits {
            self.insert(order, call);
        }
        self.in_hand = false;
    }

    /// Notes that a connection is being opened for the call in hand, which has been inserted again and keeps its place.
    pub(super) fn open(&mut self, order: u64) {
        self.opening.push(order);
        self.in_hand = false;
    }

    pub(super) fn opened(&mut self, order: u64) {
        self.opening.retain(|opening| *opening != order);
    }

    /// Notes that this call waits at the gate, and with it all calls behind it.
    pub(super) fn note_gated(&mut self, order: u64) {
        let last = self.waiting.last_key_value().map(|(order, _)| *order);
        self.gated_to = self.gated_to.max(last).max(Some(order));
    }

    pub(super) fn was_gated(&self, order: u64) -> bool {
        Some(order) <= self.gated_to
    }

    /// Takes out all calls that wait or came back.
    pub(super) fn take_all(&mut self) -> (BTreeMap<u64, W>, VecDeque<B>) {
        (std::mem::take(&mut self.waiting), std::mem::take(&mut self.back))
    }

    /// Drops the call in hand: the thread that handled it has panicked.
    pub(super) fn let_go(&mut self) {
        self.in_hand = false;
    }
}

/// Calls have come back and have to be judged first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unjudged;

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
