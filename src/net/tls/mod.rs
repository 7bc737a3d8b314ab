//! TLS, between the plaintext of a wire and the ciphertext of its socket. Built with the feature `tls`; without it, and in the model of the
//! lane, absent.rs stands in its place.
//!
//! From below: `explain` (what an error means, and what to change), `files` (certificates and keys from PEM), `verify` (what is checked of
//! a server's certificate), `connector` (the settings of one kind of connections, ready for use), `session` (one connection's state),
//! `channel` (a session that two directions share).
//!
//! Guarantees: no I/O on sockets; no message holds a password or a key. Leaves to others: the socket, and when to wait (wire).

mod channel;
mod connector;
mod explain;
mod files;
mod session;
mod verify;

pub use channel::{Got, Tls};
pub use connector::Connector;
pub use files::client_certificate;
