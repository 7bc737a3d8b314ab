//! vigie (French: a lookout): Redis and Valkey under Sentinel, dependable for every language that can call C.
//!
//! The C interface is `include/vigie.h`; ARCHITECTURE.md is the plan of the house. Dependency runs downwards:
//! `ffi` > `jobs`, `shard` > `client` > `submit`, `pubsub` > `call` > `route` > `plan`, `topology` > `pool` > `lane`, `log` > `worker` > `net`, `queue` > `config`, `meter` > `resp` > `sys` > `time` > `error`.

// The kit of tests/support, which unit tests use as well, names the library `vigie`.
#[cfg(test)]
extern crate self as vigie;

// Under `cfg(loom)` (src/lane/model_tests.rs) the crate is the lane and the rooms below it, over a scripted connection.
#[cfg(not(loom))]
mod call;
#[cfg(not(loom))]
pub mod client;
pub mod config;
pub mod error;
#[cfg(not(loom))]
pub mod ffi;
#[cfg(not(loom))]
pub mod jobs;
pub mod lane;
#[cfg(not(loom))]
pub mod log;
pub mod meter;
pub mod net;
#[cfg(not(loom))]
pub mod plan;
#[cfg(not(loom))]
pub mod pool;
#[cfg(not(loom))]
pub mod pubsub;
#[cfg(not(loom))]
pub mod queue;
pub mod resp;
#[cfg(not(loom))]
mod route;
#[cfg(not(loom))]
mod script;
#[cfg(not(loom))]
pub mod shard;
mod sort;
#[cfg(not(loom))]
mod submit;
pub mod sys;
pub mod time;
#[cfg(not(loom))]
pub mod topology;
#[cfg(not(loom))]
pub mod worker;
