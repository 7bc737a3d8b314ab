//! Section C: replicas.

use super::rig::Scenario;

pub const SCENARIOS: &[Scenario] = &[];
