//! Addresses, sockets, handshakes: from an endpoint in the configuration to a connection whose server has shown its role.
//!
//! Guarantees: everything happens within a deadline; only `socket.rs` writes to a socket; a connection that leaves this room has
//! been authenticated, named, set to its database and asked for its ROLE. Leaves to others: who should be connected to (topology),
//! how many connections there are (pool), and what an error means for a call (client).
//!
//! Where TLS goes in: [`Socket`] moves wire bytes and nothing else, and nobody above it looks at wire bytes: [`Conn`] and the lanes
//! append plaintext to a buffer and decode plaintext from one. The two directions of a TLS session share state, so the session sits
//! beside the socket (not around one direction of it), under the lock of its owner: what goes out is sealed into ciphertext before
//! `Socket::send`, what `Socket::recv` brought is opened before the decoder, and reading may leave ciphertext to send.
//! Those are the two places in `Conn::send_all` and `Conn::recv`; the handshake above and the socket below stay as they are.

mod conn;
mod connect;
mod dial;
mod handshake;
mod pause;
pub mod resolve;
mod role;
mod socket;
mod waker;

pub use conn::{Admit, Conn, ConnectOptions, SendError};
pub use dial::Dial;
#[cfg(test)]
pub(crate) use dial::full_listener;
pub use handshake::{Agreed, Expect, Handshake, HandshakeOptions, ServerInfo, Step, no_database};
pub use pause::Pause;
pub use role::{Replication, Role, RoleReplica, Tells};
pub use socket::{Ready, Socket};
pub use waker::Waker;
