//! From a service to the connection pools of its nodes: which node a call goes to.
//!
//! Guarantees: a call is routed by the newest snapshot of the topology; when a node loses its role its pool is retired, and the
//! calls that wait in the pool are answered; a cursor goes back to the node that gave it. Leaves to others: when a call may be
//! sent, and what its outcome means (call).
//!
//! `context` is shared by all parts of a client and uses only `nodes`, what was counted for each node. `view` is the service as pools, `choice` picks among them;
//! `lag`, `admit` and `scan` (with `cursors`) provide what the choice depends on. `router` puts these together.

mod admit;
mod choice;
mod commands;
mod context;
mod cursors;
mod lag;
mod nodes;
mod router;
mod scan;
mod view;

pub(crate) use context::Context;
pub(crate) use router::Router;
pub(crate) use scan::{Landed, Trip, asking, with_question};
pub(crate) use view::Route;
