//! The services of examples-c beside the same programs with hiredis (benches/hiredis-service): those run, and ours are shorter.

use crate::calls;
use crate::installed;
use crate::jobs::numbers;
use crate::support;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use std::time::Duration;

use calls::SERVICE;
use installed::{cc, fresh_dir, root, run, text_of};
use support::*;

/// What no machine exceeds.
const SOON: Duration = Duration::from_secs(60);

fn with_hiredis(name: &str) -> PathBuf {
    root().join("benches/hiredis-service").join(name).with_extension("c")
}

fn code_lines(source: PathBuf) -> usize {
    let text = text_of(Command::new(root().join("scripts/code-lines")).arg(source));
    text.split_once(' ').and_then(|(count, _)| count.parse().ok()).expect("a number")
}

/// Runs a program with hiredis through the death of its primary, and compares what it says with the data, as far as it promises that.
fn lives_and_is_longer(name: &str) {
    let ours = code_lines(root().join("examples-c").join(name).with_extension("c"));
    let theirs = code_lines(with_hiredis(name));
    println!("{name}: {ours} lines with vigie, {theirs} with hiredis");
    assert!(ours > 0 && ours < theirs, "{name}: {ours} lines with vigie, {theirs} with hiredis");

    let program = fresh_dir(&format!("hiredis-{name}")).join(name);
    let flags = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g", "-o"];
    run(cc().args(flags).arg(&program).arg(with_hiredis(name)).args(["-lhiredis", "-lpthread"]));
    let d = Deployment::new(&format!("hiredis-{name}")).start();
    let mut command = Command::new(program);
    command.arg(SERVICE).args(d.sentinel_addrs()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = proc::spawn(command).expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("serving"));
    let done = |node: &Node| node.cmd(&["SCARD", "service:done"]).int().unwrap_or(0);
    let old = d.primary_node(SERVICE);
    eventually("a hundred orders are done", SOON, || done(&old) > 100);
    old.kill();
    let new = d.wait_switched(SERVICE, &old);
    let before = done(&new);
    eventually("a hundred more are done on the new primary", SOON, || done(&new) > before + 100);
    child.stdin.take().expect("piped").write_all(b"stop\n").expect("it listens");
    let last = lines.next().expect("it says what it did");
    assert!(child.wait().expect("it ends by itself").success());

    let (said, done) = (numbers(&last), done(&new));
    let pushed = -new.cmd(&["GET", "service:stock"]).text().parse::<i64>().expect("a number");
    println!("{last}; {pushed} pushed, {done} done");
    assert_eq!(done, pushed, "each order that changed the stock was done: {last}");
    assert!(pushed <= said["booked"] + said["unknown"], "{pushed} were pushed: {last}");
    assert!(said["booked"] > 200 && said["heard"] > 100 && said["gaps"] >= 1, "{last}");
}

#[test]
fn a_service_with_threads_lives_with_hiredis_and_is_longer() {
    lives_and_is_longer("service");
}

#[test]
fn a_service_on_one_event_loop_lives_with_hiredis_and_is_longer() {
    lives_and_is_longer("service_loop");
}
