//! Section A: the primary fails.

use super::figures::Outcome;
use super::rig::Rig;
use crate::calls::SERVICE;
use std::time::Duration;

scenarios! {
    scenario_01_planned_failover(1, "planned failover", planned_failover, needs_root: false);
}

fn planned_failover(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("planned"), &[]);
    let mut probe = stage.probe();
    probe.run_for(Duration::from_millis(300));
    probe.fault();
    let old = stage.deployment.failover_by(SERVICE, &stage.sentinel(1));
    stage.deployment.wait_switched(SERVICE, &old);
    probe.run_for(Duration::from_millis(rig.pick(500, 12_000)));
    let (mut outcome, _) = stage.finish(probe);
    outcome.expect_lost(0);
    outcome.expect_errors(2, |kind| kind.maybe());
    outcome.expect_gap(1500.0);
    outcome.expect_longest(1550.0);
    outcome
}
