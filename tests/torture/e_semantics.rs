//! Section E: what a call means.

use super::rig::Scenario;

pub const SCENARIOS: &[Scenario] = &[];
