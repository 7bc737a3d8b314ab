//! The order of submitted calls against a model: random histories of submitting, starting, coming back and opening.

use std::collections::{BTreeMap, BTreeSet};

use super::{OrderClass, StartOrder, Unjudged};

/// The place of each call that is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Waiting,
    /// On this connection.
    InFlight(u32),
    Back,
}

struct Model {
    class: OrderClass,
    order: StartOrder<(), u64, u32>,
    places: BTreeMap<u64, Place>,
    next: u64,
    /// The connection that is offered to calls which start now.
    lane: u32,
    opening: BTreeSet<u64>,
    rng: fastrand::Rng,
}

impl Model {
    fn new(class: OrderClass, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        let (places, opening) = (BTreeMap::new(), BTreeSet::new());
        Self { class, order: StartOrder::new(class), places, next: 0, lane: 0, opening, rng }
    }

    /// Rule 23: a call starts only if each older one is over, or in flight on the same connection.
    fn check_start(&self, order: u64, on: u32) {
        if self.class == OrderClass::Replicas {
            return;
        }
        for (older, place) in self.places.range(..order) {
            let fine = match place {
                Place::InFlight(lane) => self.class == OrderClass::Blocking || *lane == on,
                Place::Waiting | Place::Back => false,
            };
            assert!(fine, "call {order} starts on {on} while the older call {older} is {place:?}");
        }
    }

    fn submit(&mut self) {
        let order = self.next;
        self.next += 1;
        let starts = self.class != OrderClass::Blocking && self.rng.bool() && self.order.begin_new(&self.lane, 0, 1);
        if starts {
            self.check_start(order, self.lane);
            self.places.insert(order, Place::InFlight(self.lane));
        } else {
            self.order.insert(order, ());
            self.places.insert(order, Place::Waiting);
        }
    }

    /// One that is in flight ends, or comes back.
    fn arrive(&mut self) {
        let in_flight: Vec<u64> = self
            .places
            .iter()
            .filter(|(_, place)| matches!(place, Place::InFlight(_)))
            .map(|(order, _)| *order)
            .collect();
        let Some(order) = self.rng.choice(in_flight) else { return };
        if self.rng.u8(..4) == 0 {
            self.places.insert(order, Place::Back);
            self.order.come_back(order);
        } else {
            self.places.remove(&order);
        }
        self.order.finish(1);
    }

    /// What a worker does: judges what came back, starts what can be started.
    fn work(&mut self) {
        while let Some(order) = self.order.take_returned() {
            // A call that comes back meanwhile may not be overtaken, either.
            self.maybe_submit();
            let again = self.rng.bool();
            match again {
                true => _ = self.places.insert(order, Place::Waiting),
                false => _ = self.places.remove(&order),
            }
            self.order.put_back(again.then_some((order, ())));
        }
        loop {
            self.maybe_arrive();
            let order = match self.order.take_next() {
                Ok(Some((order, (), _))) => order,
                Ok(None) => return,
                Err(Unjudged) => return assert!(self.places.values().any(|place| *place == Place::Back)),
            };
            assert!(!self.opening.contains(&order), "call {order} waits for its connection");
            self.maybe_submit();
            self.maybe_arrive();
            match self.rng.u8(..4) {
                0 => return self.order.put_back(Some((order, ()))),
                1 => {
                    self.opening.insert(order);
                    self.order.insert(order, ());
                    self.order.open(order);
                }
                _ if self.order.begin(&self.lane, 0, 1) => {
                    self.check_start(order, self.lane);
                    self.places.insert(order, Place::InFlight(self.lane));
                    self.order.put_back(None);
                }
                _ => return self.order.put_back(Some((order, ()))),
            }
        }
    }

    fn maybe_submit(&mut self) {
        if self.rng.u8(..8) == 0 {
            self.submit();
        }
    }

    fn maybe_arrive(&mut self) {
        if self.rng.u8(..8) == 0 {
            self.arrive();
        }
    }

    fn step(&mut self) {
        match self.rng.u8(..8) {
            0..=2 => self.submit(),
            3..=4 => self.arrive(),
            5 => self.lane += 1,
            6 => {
                if let Some(order) = self.opening.pop_first() {
                    self.order.opened(order);
                }
            }
            _ => self.work(),
        }
    }

    /// Whatever happened before, all calls end once nothing stops them.
    fn finish(mut self) {
        let mut rounds = 0;
        while !self.places.is_empty() {
            self.arrive();
            self.work();
            self.opening.iter().for_each(|order| self.order.opened(*order));
            self.opening.clear();
            rounds += 1;
            assert!(rounds < 100_000, "calls are stuck: {:?}", self.places);
        }
        assert!(!self.order.has_work() && self.order.begin_new(&u32::MAX, 0, 1), "nothing is left behind");
    }
}

#[test]
fn rule_23_a_newer_call_never_starts_before_an_older_one_that_did_not_run() {
    for class in [OrderClass::Primary, OrderClass::Blocking, OrderClass::Replicas] {
        for seed in 0..3_000 {
            let mut model = Model::new(class, seed);
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for _ in 0..60 {
                    model.step();
                }
                model.finish();
            }));
            assert!(ran.is_ok(), "{class:?}, seed {seed}");
        }
    }
}

#[test]
fn reads_of_replicas_pass_one_whose_connection_is_being_opened() {
    let mut order: StartOrder<(), u64, u32> = StartOrder::new(OrderClass::Replicas);
    order.insert(0, ());
    assert!(!order.begin_new(&1, 0, 1));
    let (number, (), _) = order.take_next().unwrap().unwrap();
    order.insert(number, ());
    order.open(number);
    assert!(order.begin_new(&1, 0, 1));
    order.opened(number);
    assert!(!order.begin_new(&1, 0, 1));
}

#[test]
fn what_waits_behind_a_held_call_was_held_too() {
    let mut order: StartOrder<(), u64, u32> = StartOrder::new(OrderClass::Primary);
    [3, 4].into_iter().for_each(|number| order.insert(number, ()));
    order.note_gated(2);
    assert!(order.was_gated(2) && order.was_gated(4) && !order.was_gated(5));
}
