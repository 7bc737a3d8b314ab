//! Which node is the primary and which replicas are fit: what the Sentinels of a deployment say, judged, verified, and
//! kept for readers.
//!
//! Guarantees: readers load an immutable snapshot without waiting; one discovery at a time per service; one thread asks
//! all Sentinels at the same time; the primary in a snapshot has confirmed its role. A Sentinel that lies, hangs or
//! lags delays nothing while the others answer. Leaves to others: connections to the data nodes (pool), and what a call
//! does meanwhile (call).
//!
//! ARCHITECTURE.md, "The files of topology", has the order of the files: none uses one above it.

mod admin;
mod admin_call;
mod announced;
mod answer;
mod asker;
mod cause;
mod command;
mod connections;
mod deployment;
mod discovery;
mod events;
mod exec;
mod failover;
mod fence;
mod finish;
mod fixed;
mod follow;
mod handle;
mod handle_state;
mod identity;
mod inquiry;
mod judge;
mod lease;
mod listener;
mod monitor;
#[cfg(test)]
mod order_tests;
mod overhear;
mod pauses;
mod peers;
mod presence;
mod probe;
mod reach;
mod recent;
mod renewal;
mod replicas;
mod report;
mod round;
mod running;
mod scope;
mod sentinel;
mod service;
mod shared;
mod snapshot;
mod source;
mod submitted;
mod subscription;
mod subscriptions;
mod table;
mod toll;
mod transition;
mod verify;
mod watch;

pub use admin::To;
pub use cause::{CauseInfo, Why};
pub use connections::{connection_causes, connection_map};
pub use follow::{Told, Weighed};
pub use handle::HandleFigures;
pub use sentinel::Sentinel;
pub use service::Service;
pub(crate) use service::Urgency;
pub use shared::Child;
pub(crate) use shared::closed;
pub use snapshot::{ReplicaView, SentinelView, Snapshot};
pub use source::Source;
pub use table::topology_maps;
pub use toll::ServiceFigures;
pub use watch::{WATCHABLE, event_causes, event_maps};
