//! The meters of a client: one for each node and role that it has ever used, so that a node that comes back goes on where it was.
//!
//! Guarantees: no counter goes back; there are at most [`MOST`] of them, and those of nodes beyond that are added up under one name.
//! Leaves to others: the counting (meter).

use std::sync::{Arc, Weak};

use crate::meter::{Histogram, NodeMeter, NodeRow, Tells, add_node};
use crate::sys::rank::Rank;
use crate::sys::sync::Lock;

/// How many nodes are told apart: addresses of containers come and go.
const MOST: usize = 64;
/// The name of all nodes beyond that.
const OTHERS: &str = "others";

/// The meters of a client's nodes.
pub(super) struct Nodes(Lock<Known>);

#[derive(Default)]
struct Known {
    meters: Vec<(String, &'static str, Arc<NodeMeter>)>,
    /// What is left of nodes that were dropped from the list.
    others: Vec<NodeRow>,
}

impl Nodes {
    pub(super) fn new() -> Self {
        Self(Lock::new(Rank::Nodes, Known::default()))
    }

    /// The meter of this node in this role.
    pub(super) fn meter(&self, endpoint: &str, role: &'static str, told: Weak<dyn Tells>) -> Arc<NodeMeter> {
        let mut known = self.0.lock();
        if let Some((.., meter)) = known.meters.iter().find(|(name, of, _)| name == endpoint && *of == role) {
            return Arc::clone(meter);
        }
        if known.meters.len() >= MOST {
            known.drop_oldest();
        }
        let meter = Arc::new(NodeMeter::new(endpoint, role, told));
        known.meters.push((endpoint.to_owned(), role, Arc::clone(&meter)));
        meter
    }

    /// What they have counted; `None` without memory for it.
    pub(super) fn rows(&self) -> Option<Vec<NodeRow>> {
        let known = self.0.lock();
        let mut rows = Vec::new();
        let count = known.others.len() + known.meters.len();
        rows.try_reserve_exact(count).ok()?;
        // For the histograms, whose own allocations cannot fail, and for that of the sum.
        let mut room: Vec<u8> = Vec::new();
        room.try_reserve_exact((count + 1) * Histogram::BYTES).ok()?;
        drop(std::hint::black_box(room));
        rows.extend(known.others.iter().cloned());
        let row = |(endpoint, role, meter): &(String, &'static str, Arc<NodeMeter>)| NodeRow {
            endpoint: endpoint.clone(),
            role,
            counted: meter.figures(),
            now: None,
        };
        rows.extend(known.meters.iter().map(row));
        Some(rows)
    }
}

impl Known {
    /// Drops the node that was met first among those without a connection.
    fn drop_oldest(&mut self) {
        let Some(at) = self.meters.iter().position(|(.., meter)| Arc::strong_count(meter) == 1) else { return };
        let (_, role, meter) = self.meters.remove(at);
        let row = NodeRow { endpoint: OTHERS.to_owned(), role, counted: meter.figures(), now: None };
        add_node(&mut self.others, row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::End;
    use std::time::Duration;

    struct Nobody;

    impl Tells for Nobody {
        fn connection(&self, _node: &str, _role: &'static str, _closed: Option<(End, Duration)>) {}
    }

    fn meter(nodes: &Nodes, endpoint: &str, role: &'static str) -> Arc<NodeMeter> {
        nodes.meter(endpoint, role, Weak::<Nobody>::new())
    }

    #[test]
    fn a_node_that_comes_back_goes_on_and_those_beyond_the_bound_are_added_up() {
        let nodes = Nodes::new();
        meter(&nodes, "a:1", "primary").refused();
        meter(&nodes, "a:1", "replica").refused();
        meter(&nodes, "a:1", "primary").refused();
        let in_use = meter(&nodes, "b:1", "primary");
        in_use.refused();
        for at in 0..MOST {
            meter(&nodes, &format!("c:{at}"), "replica").refused();
        }
        in_use.refused();
        let rows = nodes.rows().expect("memory");
        let refused = |endpoint: &str, role: &str| {
            let mut found = rows.iter().filter(|row| row.endpoint == endpoint && row.role == role);
            (found.next().map_or(0, |row| row.counted.refused), found.count())
        };
        assert_eq!((refused(OTHERS, "primary"), refused("b:1", "primary")), ((2, 0), (2, 0)));
        assert_eq!(rows.iter().map(|row| row.counted.refused).sum::<u64>(), 5 + MOST as u64, "none is lost");
        assert_eq!(rows.len(), MOST + 2);
    }
}
