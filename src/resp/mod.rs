//! RESP2 and RESP3 in memory: replies, their decoder, encoded commands, and the command table.
//!
//! Guarantees: no I/O, no `unsafe`, no recursion, no panic on any input; memory grows with what was received, never with what a
//! peer announced; exceeding a limit is an error. Leaves to others: sockets (`net`), what a reply means (`call`).

mod build;
mod decode;
#[cfg(test)]
mod decode_tests;
pub mod encode;
pub mod fields;
mod head;
mod json;
pub mod list;
mod node;
mod reply;
pub mod table;
mod tree;
pub mod typed;

pub use build::{ReplyBuilder, picked};
pub use decode::{Decoded, Decoder, Want};
pub use node::{Kind, Node};
pub use reply::{Allocation, Body, Reply};

use crate::error::{Error, Status};
use std::fmt;

/// How large a reply may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of text, the NUL behind each included.
    pub max_bytes: usize,
    /// Aggregates within each other.
    pub max_depth: usize,
    /// Nodes: every value and every aggregate counts as one.
    pub max_nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // The longest value that a server stores is 512 MiB; the limit leaves room for the rest of its reply.
        Self { max_bytes: (512 << 20) + (64 << 10), max_depth: 128, max_nodes: 16 << 20 }
    }
}

/// Why a reply could not be decoded; the connection is of no use afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// Not RESP, with a short quotation of what came instead.
    Protocol(String),
    /// RESP, but more of it than the limits allow.
    Limit(String),
    /// There was no memory for it.
    NoMemory(String),
}

impl DecodeError {
    /// The error that is made of it, with this text.
    #[cold]
    pub fn error(&self, text: impl Into<String>) -> Error {
        match self {
            Self::Protocol(_) => Error::new(Status::Protocol, text),
            Self::Limit(_) => Error::new(Status::Limit, text),
            Self::NoMemory(_) => Error::new(Status::Limit, text).for_want_of_memory(),
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(text) | Self::Limit(text) | Self::NoMemory(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for DecodeError {}
