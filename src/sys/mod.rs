//! What needs the system beyond the standard library, with safe interfaces.
//!
//! Guarantees: together with `ffi` the only room with `unsafe`; each block says why it is sound. Nothing here knows Redis.

#[cfg(test)]
mod child_tests;
#[cfg(not(loom))]
pub mod descriptor;
pub mod fault;
pub mod fork;
pub mod futex;
#[cfg(all(test, not(loom)))]
#[path = "fuzz_tests.rs"]
pub(crate) mod fuzz;
pub mod own;
pub mod panic;
pub mod poll;
pub mod random;
pub mod rank;
pub mod recv;
#[cfg(not(loom))]
pub(crate) mod seam;
pub mod slot;
mod sockets;
pub mod sync;
pub mod thread;
pub mod tried;
pub mod unforked;
pub mod waker;
