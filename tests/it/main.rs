//! All integration tests in one program, so that the kit is compiled once: a module for each subject.
//!
//! What changes or counts what the process holds (its signals, limits, descriptors, threads, memory) runs in a child: a program of
//! tests/c, or the test itself, started again by `calls::alone`. Programs of their own are: resp_allocations, which has an allocator of its
//! own; instructions, which counts on a quiet machine; and layering, header and docs, which look at sources and pages and need no server.

#[path = "../support/vigie.rs"]
mod api;
#[path = "../support/calls.rs"]
mod calls;
#[path = "../clib/mod.rs"]
mod clib;
#[path = "../support/completions.rs"]
mod completions;
#[path = "../installed/mod.rs"]
mod installed;
#[path = "../support/stage.rs"]
mod stage;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/writer.rs"]
mod writer;

mod administration;
mod administration_submit;
mod announced;
mod bad_input;
mod beside_hiredis;
mod c_api;
mod call_handles;
mod config_property;
mod credentials;
mod deaf;
mod deployments;
mod described;
mod doctor;
mod durable;
mod epochs;
mod event_loops;
mod examples;
mod exports;
mod failover;
mod fence;
mod fixed;
mod forks;
mod install;
mod isolation;
mod jobs;
mod kit;
mod lane_hazards;
mod languages;
mod lease;
mod logs;
mod loom;
mod messages;
mod metrics;
#[cfg(feature = "programs")]
mod migrate;
#[cfg(feature = "programs")]
mod migrate_versions;
mod moving;
mod own_connections;
mod packages;
mod peer;
mod permissions;
mod pool_rules;
mod process;
mod pubsub;
mod queue;
mod resp_differential;
mod resp_property;
mod resp_support;
mod resp_table;
mod retry_rules;
mod roles;
mod rows_calls;
mod rows_clients;
mod rows_config;
mod rows_discovery;
mod rows_errors;
mod rows_events;
mod rows_failover;
mod rows_pools;
mod rows_replicas;
mod rows_shards;
mod scans;
mod scripts;
mod session_submit;
mod sessions;
mod shards_lost;
mod shards_model;
mod shards_session;
mod statistics;
mod submit;
mod submit_line;
#[cfg(feature = "tls")]
mod tls;
mod topology;
#[macro_use]
mod torture;
mod transactions;
mod vectors;
