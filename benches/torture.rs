//! The torture bench: the full form of the scenarios, `RUNS` times each, medians, a table, docs/torture.md.
//!
//! SCENARIO=1,4 chooses; RUNS=5; OUT=docs/torture.md writes the table of a full run.

#[path = "../tests/support/calls.rs"]
mod calls;
#[path = "../tests/support/stage.rs"]
mod stage;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/it/torture/mod.rs"]
#[macro_use]
mod torture;

fn main() {
    torture::rig::bench(&torture::all());
}
