//! Handles with the option `fork` = reopen, in children of a C program. Each case is a process of its own, because it forks.

use crate::clib;
use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use support::{Deployment, Talking};

const SERVICE: &str = "orders";

/// The name of all connections of the program.
const NAME: &str = "forks";

/// Compiles a program of tests/c, once: a running program cannot be overwritten.
fn program(name: &'static str) -> PathBuf {
    static MADE: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    made.entry(name).or_insert_with(|| compile(name)).clone()
}

fn compile(name: &str) -> PathBuf {
    let program = clib::scratch("forks").join(name);
    let library = clib::library();
    let mut cc = Command::new("cc");
    cc.args(["-std=c99", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]).arg("-I").arg(clib::root().join("include"));
    cc.arg(clib::root().join("tests/c").join(name).with_extension("c")).arg("-o").arg(&program);
    cc.arg("-L").arg(library).arg("-lvigie").arg(format!("-Wl,-rpath,{}", library.display()));
    clib::succeed(&mut cc, "gcc");
    program
}

fn command(program: PathBuf, case: &str, deployment: &Deployment) -> Command {
    let mut command = Command::new(program);
    command
        .env("VIGIE_TEST_CASE", case)
        .env("VIGIE_TEST_SENTINELS", deployment.sentinel_addrs().join(","))
        .env("VIGIE_TEST_SERVICE", SERVICE)
        .env("VIGIE_TEST_PRIMARY", deployment.primary(SERVICE));
    command
}

/// The program succeeds, and the library writes nothing.
fn run(case: &str, deployment: &Deployment, environment: &[(&str, &str)]) {
    let output = clib::run(command(program("fork_reopen"), case, deployment).envs(environment.iter().copied()), "gcc");
    let written = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && written.is_empty(), "{case}: {}: {written}", output.status);
}

fn deployment(name: &str) -> Deployment {
    Deployment::new(name).services([SERVICE]).start()
}

#[test]
fn row_61_each_kind_of_handle_works_in_children_and_grandchildren() {
    run("kinds", &deployment("fork-kinds"), &[]);
}

#[test]
fn scenario_72_children_that_are_forked_amid_the_calls_of_64_threads_work() {
    run("threads", &deployment("fork-threads"), &[]);
}

#[cfg(feature = "tls")]
#[test]
fn scenario_72_the_same_with_tls() {
    let ca = support::Ca::new();
    let plan = support::TlsPlan { ca: ca.file(), pair: ca.local("server"), wants_clients: false };
    let deployment = Deployment::new("fork-tls").services([SERVICE]).tls(plan.clone()).sentinel_tls(plan).start();
    run("threads", &deployment, &[("VIGIE_TEST_TLS_CA", &*ca.file()), ("VIGIE_TEST_CALLERS", "8")]);
}

#[test]
fn a_thousand_forks_leave_the_descriptors_of_the_parent_as_they_were() {
    let deployment = deployment("fork-thousand");
    run("thousand", &deployment, &[]);
    let primary = deployment.primary_node(SERVICE);
    support::eventually("no connection is left", Duration::from_secs(30), || primary.clients_named(NAME).is_empty());
}

#[test]
fn a_program_that_is_executed_gets_no_descriptor_of_the_library() {
    run("executed", &deployment("fork-exec"), &[]);
}

/// The child has no copies of them.
#[test]
fn the_connections_of_a_parent_that_is_killed_end_though_its_child_lives() {
    let deployment = deployment("fork-killed");
    let primary = deployment.primary_node(SERVICE);
    let mut program = Talking::start(command(program("fork_reopen"), "killed", &deployment));
    program.tells("child");
    assert!(primary.clients_named(NAME).len() >= 2, "a lane and a session");
    support::proc::signal(program.child.id(), libc::SIGKILL);
    support::eventually("they end", Duration::from_secs(30), || primary.clients_named(NAME).is_empty());
    program.hears("on");
    program.tells("done");
}

/// The master's connections are the same while the workers run and after one of them has ended; every acknowledged write is there, and each
/// process got its own replies.
#[test]
fn scenario_72_a_prefork_server_of_four_goes_through_a_planned_failover_and_a_killed_primary() {
    let deployment = Deployment::new("fork-prefork").services([SERVICE]).replicas(2).start();
    let first = deployment.primary_node(SERVICE);
    let ids = |node: &support::Node| -> BTreeSet<u64> {
        node.clients_named("prefork").iter().map(|client| client.id).collect()
    };
    let mut program = Talking::start(command(program("fork_prefork"), "", &deployment));
    program.tells("open");
    let masters = ids(&first);
    assert!(!masters.is_empty());
    program.hears("on");
    program.tells("serving");
    let processes = "all processes are connected";
    support::eventually(processes, Duration::from_secs(60), || ids(&first).len() >= masters.len() + 5);
    program.hears("on");
    program.tells("still open");
    assert!(ids(&first).is_superset(&masters), "the master's connections stay: {masters:?}");

    let second = deployment.failover(SERVICE);
    await_writes(&second);
    deployment.wait_ready(SERVICE);
    program.hears("on");
    program.tells("once");
    second.kill();
    let third = deployment.wait_switched(SERVICE, &second);
    await_writes(&third);
    program.hears("on");
    program.tells("done");
    assert!(program.child.wait().expect("its end").success());
}

/// Waits until the program's writes have arrived at the new primary.
fn await_writes(primary: &support::Node) {
    let before = primary.calls("set");
    let come = || primary.calls("set") > before + 100;
    support::eventually("writes come to the next primary", Duration::from_secs(60), come);
}
