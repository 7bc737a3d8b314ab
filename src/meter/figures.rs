//! The figures of a client, as they are at one moment: data only, from which statistics and metrics are made.
//!
//! Guarantees: the figures of two clients can be added, so that those of a client that is gone stay in the sums. Leaves to others: taking
//! them (route, client), and their names (client).

use super::deeds::DeedCounts;
use super::node::NodeFigures;
use crate::error::Status;

/// What a client has counted, and its connections now.
#[derive(Debug, Clone, Default)]
pub struct ClientFigures {
    /// Its service.
    pub service: String,
    /// Where its calls go: primary, replica or split.
    pub target: &'static str,
    /// Calls that were begun.
    pub calls: u64,
    /// Calls that are under way.
    pub in_flight: u64,
    /// Attempts after the first of a call.
    pub retries: u64,
    /// Errors, by their place in [`Status::ALL`].
    pub errors: Vec<u64>,
    /// Those of them that may have run.
    pub maybe_executed: u64,
    /// Reads that went to the primary for want of a replica.
    pub fallbacks: u64,
    /// Calls that were held back at the gate.
    pub held_back: u64,
    /// Transactions that were begun.
    pub transactions: u64,
    /// Transactions, scripts, scans, jobs and messages.
    pub deeds: DeedCounts,
    /// Subscriptions that are open.
    pub subscriptions: u64,
    /// Each of them.
    pub subscription_rows: Vec<SubscriptionRow>,
    /// Its nodes, those that are not used any more included.
    pub nodes: Vec<NodeRow>,
    /// There was no memory for `nodes` or `subscription_rows`.
    pub lacks_rows: bool,
}

/// A client's connections to one node.
#[derive(Debug, Clone, Default)]
pub struct NodeRow {
    /// `host:port`.
    pub endpoint: String,
    /// primary or replica.
    pub role: &'static str,
    /// What they have counted.
    pub counted: NodeFigures,
    /// How many there are now; `None` for a node that is not used any more.
    pub now: Option<NodeNow>,
}

/// A subscription at one moment.
#[derive(Debug, Clone, Default)]
pub struct SubscriptionRow {
    /// The token of its events.
    pub token: u64,
    /// The node that it hears; "" without a connection.
    pub endpoint: String,
    /// Messages that came, and their bytes.
    pub messages: u64,
    /// As `sub.max_bytes` counts them.
    pub bytes: u64,
    /// Messages that were lost to its bound.
    pub dropped: u64,
    /// Gaps that were told.
    pub gaps: u64,
    /// Messages that wait to be drained.
    pub buffered: u64,
    /// Their bytes.
    pub buffered_bytes: u64,
}

/// The connections to a node at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeNow {
    /// All of them.
    pub size: u64,
    /// Those that calls share.
    pub lanes: u64,
    /// Loans without a user.
    pub idle: u64,
    /// Loans in use.
    pub in_use: u64,
    /// Calls that wait for a loan.
    pub waiting: u64,
    /// Calls that wait for replies.
    pub in_flight: u64,
    /// Attempts on shared connections.
    pub served: u64,
    /// Connections for submitted calls.
    pub submit_lanes: u64,
    /// The calls that wait for replies there.
    pub submitted: u64,
    /// The smoothed round trip in microseconds; -1 before the first.
    pub srtt_us: i64,
}

impl ClientFigures {
    /// All errors.
    pub fn all_errors(&self) -> u64 {
        self.errors.iter().sum()
    }

    /// The errors that there were, with their names.
    pub fn errors_by_name(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.each_error().filter(|(_, count)| *count > 0)
    }

    /// Each status of an error, also those that there were none of.
    pub fn each_error(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let named = Status::ALL.iter().zip(&self.errors);
        named.map(|(info, count)| (info.name, *count))
    }

    /// The sum over all nodes.
    pub fn all_nodes(&self) -> NodeFigures {
        let mut sum = NodeFigures::default();
        self.nodes.iter().for_each(|node| sum.add(&node.counted));
        sum
    }

    /// Adds another client of the same service and target. What is counted is added, and so is what there is now.
    pub fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.in_flight += other.in_flight;
        self.retries += other.retries;
        self.errors.resize(self.errors.len().max(other.errors.len()), 0);
        self.errors.iter_mut().zip(&other.errors).for_each(|(sum, one)| *sum += one);
        self.maybe_executed += other.maybe_executed;
        self.fallbacks += other.fallbacks;
        self.held_back += other.held_back;
        self.transactions += other.transactions;
        self.deeds.add(&other.deeds);
        self.subscriptions += other.subscriptions;
        match self.subscription_rows.try_reserve(other.subscription_rows.len()) {
            Ok(()) => self.subscription_rows.extend(other.subscription_rows),
            Err(_) => self.lacks_rows = true,
        }
        other.nodes.into_iter().for_each(|node| add_node(&mut self.nodes, node));
    }

    /// What stays of a client that is gone.
    pub fn gone(mut self) -> Self {
        (self.in_flight, self.subscriptions) = (0, 0);
        self.subscription_rows = Vec::new();
        self.nodes.iter_mut().for_each(|node| node.now = None);
        self
    }
}

/// Adds a node to a list that has each only once.
pub fn add_node(nodes: &mut Vec<NodeRow>, node: NodeRow) {
    match nodes.iter_mut().find(|known| known.endpoint == node.endpoint && known.role == node.role) {
        Some(known) => {
            known.counted.add(&node.counted);
            known.now = match (known.now, node.now) {
                (Some(one), Some(other)) => Some(one.and(other)),
                (one, other) => one.or(other),
            };
        }
        None => nodes.push(node),
    }
}

/// Adds a client to a list that has each service and target only once.
pub fn add_client(rows: &mut Vec<ClientFigures>, client: ClientFigures) {
    match rows.iter_mut().find(|known| known.service == client.service && known.target == client.target) {
        Some(known) => known.add(client),
        None => rows.push(client),
    }
}

impl NodeNow {
    fn and(self, other: Self) -> Self {
        Self {
            size: self.size + other.size,
            lanes: self.lanes + other.lanes,
            idle: self.idle + other.idle,
            in_use: self.in_use + other.in_use,
            waiting: self.waiting + other.waiting,
            in_flight: self.in_flight + other.in_flight,
            served: self.served + other.served,
            submit_lanes: self.submit_lanes + other.submit_lanes,
            submitted: self.submitted + other.submitted,
            srtt_us: self.srtt_us.max(other.srtt_us),
        }
    }
}
