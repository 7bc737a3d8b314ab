//! The torture bench: the scenarios of failover, each over real servers, with figures.
//!
//! `rig` measures and judges; a file per section holds the scenarios. Each short form is a test, in a process of its own; `benches/torture.rs` the full ones, with medians and a table (`make torture`).
#![allow(dead_code)]

#[macro_use]
pub mod rig;
pub mod cuts;
pub mod extra;
pub mod figures;
pub mod probe;

pub mod a_primary;
pub mod b_sentinels;
pub mod c_replicas;
pub mod d_network;
pub mod e_semantics;
pub mod f_services;

use rig::Scenario;

/// All scenarios, by section.
pub fn all() -> Vec<&'static Scenario> {
    let sections = [
        a_primary::SCENARIOS,
        b_sentinels::SCENARIOS,
        c_replicas::SCENARIOS,
        d_network::SCENARIOS,
        e_semantics::SCENARIOS,
        f_services::SCENARIOS,
    ];
    sections.into_iter().flatten().collect()
}

#[test]
fn scenarios_are_distinct() {
    let mut names: Vec<(u32, &str)> = all().iter().map(|one| (one.number, one.name)).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "two scenarios have one number and name");
    assert!(count > 0);
}
