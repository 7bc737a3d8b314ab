//! vigie (French: a lookout): Redis and Valkey under Sentinel, dependable for every language that can call C.
//!
//! The C interface is `include/vigie.h`; ARCHITECTURE.md is the plan of the house. Dependency runs downwards:
//! `ffi` > `client` > `topology` > `pool` > `lane`, `worker` > `net`, `queue` > `resp`, `config` > `error`, `time` > `sys`.

pub mod client;
pub mod config;
pub mod error;
pub mod ffi;
pub mod lane;
pub mod net;
pub mod pool;
pub mod queue;
pub mod resp;
pub mod sys;
pub mod time;
pub mod topology;
pub mod worker;
