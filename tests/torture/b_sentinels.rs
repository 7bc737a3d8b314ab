//! Section B: Sentinels wrong, slow, gone.

use super::rig::Scenario;

pub const SCENARIOS: &[Scenario] = &[];
