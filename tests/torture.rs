//! The short forms of the torture scenarios, one test each (they are made by `scenarios!` in torture/*.rs).

#[path = "support/calls.rs"]
mod calls;
mod support;
#[path = "torture/mod.rs"]
#[macro_use]
mod torture;

#[test]
fn scenarios_are_distinct() {
    let mut names: Vec<(u32, &str)> = torture::all().iter().map(|one| (one.number, one.name)).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "two scenarios have one number and name");
    assert!(count > 0);
}
