//! The library as a part of a process: its threads at the end, forks, descriptors, memory, stack. Each case is a program of its own,
//! because it changes what the whole process shares.

mod clib;
mod support;

use std::path::PathBuf;
use std::process::Command;

use support::Deployment;

const SERVICE: &str = "orders";

/// Compiles tests/c/process_NAME.c.
fn compile(name: &str) -> PathBuf {
    let source = clib::root().join(format!("tests/c/process_{name}.c"));
    let program = clib::scratch("process").join(name);
    let library = clib::library();
    let mut cc = Command::new("cc");
    cc.args(["-std=c99", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]).arg("-I").arg(clib::root().join("include"));
    cc.arg(source).arg("-o").arg(&program).arg("-L").arg(library).arg("-lvigie");
    clib::succeed(cc.arg(format!("-Wl,-rpath,{}", library.display())), "gcc");
    program
}

fn run(name: &str, sentinels: &str, environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(compile(name));
    command.env("VIGIE_TEST_SENTINELS", sentinels).env("VIGIE_TEST_SERVICE", SERVICE);
    clib::succeed(command.envs(environment.iter().copied()), "gcc")
}

fn deployment(name: &str) -> (Deployment, String) {
    let deployment = Deployment::new(name).services([SERVICE]).start();
    let sentinels = deployment.sentinel_addrs().join(",");
    (deployment, sentinels)
}

#[test]
fn threads_end_at_once_after_the_last_handle_and_a_join_keeps_its_time() {
    let (_deployment, sentinels) = deployment("process-join");
    run("join", &sentinels, &[]);
}

#[test]
fn a_discovery_that_nobody_waits_for_any_more_ends_at_once() {
    let hole = support::blackhole();
    run("join", &hole.addr(), &[("VIGIE_TEST_SILENT", "1")]);
}

#[test]
fn a_poll_that_fails_does_not_spin_and_calls_go_on() {
    let (_deployment, sentinels) = deployment("process-nofile");
    run("nofile", &sentinels, &[]);
}
