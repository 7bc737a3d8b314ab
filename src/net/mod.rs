//! Addresses, sockets, handshakes: from an endpoint in the configuration to a connection whose server has shown its role.
//!
//! Guarantees: everything happens within a deadline; only `socket.rs` writes to a socket, and after the dial only `wire.rs` calls
//! it for that; a connection that leaves this room has been authenticated, named, set to its database and asked for its ROLE.
//! Leaves to others: which server to connect to (topology), how many connections there are (pool), and what an error means for a
//! call (call).
//!
//! From below: `socket`; `dial` and `connect` make one; `wire` moves the bytes of a connection, through `tls` where that is wanted. On a wire
//! are `conn`, which waits until a deadline, `link`, which is polled, and the lanes (a room of their own). `handshake` does no I/O:
//! `conn` and `link` both run it.
//!
//! Under `cfg(loom)` (src/lane/model_tests.rs) the room is the wire alone, over a scripted socket.

#[cfg(not(all(feature = "tls", not(loom))))]
mod absent;
#[cfg(not(loom))]
mod conn;
#[cfg(not(loom))]
mod connect;
#[cfg(not(loom))]
mod dial;
#[cfg(not(loom))]
mod handshake;
#[cfg(not(loom))]
mod link;
#[cfg(not(loom))]
mod pause;
#[cfg(not(loom))]
pub mod resolve;
#[cfg(not(loom))]
mod role;
#[cfg_attr(loom, path = "scripted.rs")]
mod socket;
#[cfg(all(feature = "tls", not(loom)))]
mod tls;
mod wire;

#[cfg(not(all(feature = "tls", not(loom))))]
use absent::{Got, Tls};
#[cfg(all(feature = "tls", not(loom)))]
use tls::{Got, Tls};

#[cfg(all(not(feature = "tls"), not(loom)))]
pub use absent::{Connector, client_certificate};
#[cfg(all(feature = "tls", not(loom)))]
pub use tls::{Connector, client_certificate};

#[cfg(not(loom))]
pub use conn::{Admit, Conn, ConnectOptions, SendError};
#[cfg(all(test, not(loom)))]
pub(crate) use dial::full_listener;
#[cfg(not(loom))]
pub use handshake::{Agreed, Expect, Handshake, HandshakeOptions, ServerInfo, Step, no_database};
#[cfg(not(loom))]
pub use link::{Link, LinkEvent, LinkOptions};
#[cfg(not(loom))]
pub use pause::Pause;
#[cfg(not(loom))]
pub use role::{Replication, Role, RoleReplica, Tells};
#[cfg(loom)]
pub use socket::{ANSWER, COMMAND, Script};
pub use socket::{Ready, Socket};
pub use wire::{Filled, In, Out, Sending, Wire};
