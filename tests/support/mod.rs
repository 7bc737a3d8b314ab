//! The test kit: real deployments of Redis/Valkey under Sentinel, scripted servers, a proxy that makes faults.
//!
//! Included by every integration test with `mod support;`. It never uses the library under test: it speaks RESP by
//! itself, so that a fault of the library cannot hide in the tools that look for it.
#![allow(dead_code, unused_imports)]

pub mod client;
pub mod deployment;
pub mod netns;
pub mod node;
pub mod ports;
pub mod proc;
pub mod resp;
pub mod wait;

pub use client::Client;
pub use deployment::{Deployment, Layout};
pub use node::{Node, Role};
pub use resp::Value;
pub use wait::{eventually, eventually_some, seed};
