//! Section D: networks, names, logins.

use super::rig::Scenario;

pub const SCENARIOS: &[Scenario] = &[];
