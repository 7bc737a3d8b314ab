//! vigie (French: a lookout): Redis and Valkey under Sentinel, dependable for every language that can call C.
//!
//! The C interface is `include/vigie.h`; ARCHITECTURE.md is the plan of the house. Dependency runs downwards:
//! `ffi` > `client` > `topology` > `pool` > `lane` > `net` > `resp`, `config` > `error`, `time`, `stats` > `sys`.

pub mod config;
pub mod error;
pub mod ffi;
pub mod time;
