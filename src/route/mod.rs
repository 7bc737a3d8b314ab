//! From a service to the connection pools of its nodes: which node a call goes to.
//!
//! Guarantees: a call is routed by the newest snapshot of the topology; a pool whose node lost its role is retired, and what waits in it
//! is answered; a cursor goes back to the node that gave it. Leaves to others: when a call may be sent, and what its outcome means
//! (call).
//!
//! `context` is what all of a client share and knows nothing above it. `view` is the service as pools, `choice` picks among them, `lag`,
//! `admit` and `scan` (with `cursors`) know what the choice depends on. `router` puts these together.

mod admit;
mod choice;
mod context;
mod cursors;
mod lag;
mod router;
mod scan;
mod view;

pub(crate) use context::{Context, Counted, lock};
pub(crate) use router::Router;
pub(crate) use scan::{Landed, Trip, asking, with_question};
pub(crate) use view::Route;
