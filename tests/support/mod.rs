//! The test kit: real deployments of Redis/Valkey under Sentinel, scripted servers, and a proxy that injects faults.
//!
//! Included with `mod support;`. It never uses the library under test: it has its own RESP, so that a fault of the library cannot
//! hide in the tools that look for it.
#![allow(dead_code, unused_imports)]

pub mod certs;
pub mod client;
pub mod deadend;
pub mod deployment;
pub mod door;
pub mod fake_node;
pub mod fake_sentinel;
pub mod listen;
pub mod netns;
pub mod node;
pub mod pace;
pub mod ports;
pub mod proc;
pub mod proxy;
pub mod resp;
pub mod scripted;
pub mod server;
pub mod talking;
#[cfg(feature = "tls")]
pub mod tls_door;
pub mod wait;

pub use certs::{Ca, Pair};
pub use client::{Client, Login};
pub use deadend::{blackhole, refuse};
pub use deployment::TlsPlan;
pub use deployment::{Deployment, Layout};
pub use fake_node::{FakeNode, FakeRole};
pub use fake_sentinel::{FakeSentinel, ServiceState};
pub use listen::Listen;
pub use node::{Node, Role};
pub use pace::{Pace, Pacing, about, at_most, paced, takes_at_most};
pub use proxy::{Proxy, Trap, Way};
pub use resp::Value;
pub use scripted::{Act, Call, Fault, Scripted};
pub use server::{Feature, lacks};
pub use talking::Talking;
#[cfg(feature = "tls")]
pub use tls_door::TlsDoor;
pub use wait::{eventually, eventually_some, seed};
