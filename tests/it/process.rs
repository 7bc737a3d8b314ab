//! The library as part of a process: its threads at the end, forks, descriptors, memory, stack. Each case is a separate
//! program, because it changes what the whole process shares.

use crate::clib;
use crate::installed;
use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use support::{Deployment, Talking};

const SERVICE: &str = "orders";

/// Compiles tests/c/process_NAME.c, once: a running program cannot be overwritten.
fn compile(name: &str) -> PathBuf {
    static MADE: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    made.entry(name.to_owned()).or_insert_with(|| compile_anew(name)).clone()
}

fn compile_anew(name: &str) -> PathBuf {
    let source = clib::root().join(format!("tests/c/process_{name}.c"));
    let program = clib::scratch("process").join(name);
    let library = clib::library();
    let mut cc = Command::new("cc");
    cc.args(["-std=c99", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]).arg("-I").arg(clib::root().join("include"));
    cc.arg(source).arg("-o").arg(&program).arg("-L").arg(library).arg("-lvigie");
    clib::succeed(cc.arg(format!("-Wl,-rpath,{}", library.display())), "gcc");
    program
}

fn run(name: &str, sentinels: &str, environment: &[(&str, &str)]) {
    run_program(&compile(name), sentinels, environment);
}

/// The program succeeds, and the library writes nothing meanwhile.
fn run_program(program: &Path, sentinels: &str, environment: &[(&str, &str)]) {
    let mut command = Command::new(program);
    command.env("VIGIE_TEST_SENTINELS", sentinels).env("VIGIE_TEST_SERVICE", SERVICE);
    let output = clib::run(command.envs(environment.iter().copied()), "gcc");
    let (told, written) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    print!("{told}");
    assert!(output.status.success() && written.is_empty(), "{}: {told}{written}", output.status);
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

#[test]
fn without_memory_a_call_fails_and_nothing_is_written() {
    let (_deployment, sentinels) = deployment("process-nomem");
    run("nomem", &sentinels, &[]);
}

#[test]
fn a_freed_handle_is_told_as_such() {
    let (_deployment, sentinels) = deployment("process-freed");
    run("freed", &sentinels, &[]);
}

/// Uses the installed library: without optimisation frames are several times as large.
#[test]
fn a_call_takes_less_stack_than_the_header_says() {
    let header = std::fs::read_to_string(clib::root().join("include/vigie.h")).expect("the header can be read");
    let stated = header.split("Stack: a call takes less than ").nth(1).and_then(|rest| rest.split(" KB").next());
    let stated: u32 = stated.and_then(|number| number.parse().ok()).expect("the header states it");
    assert!(stated <= 12, "the header states {stated} KB");
    let (_deployment, sentinels) = deployment("process-stack");
    let program = installed::fresh_dir("process-stack").join("stack");
    installed::Prefix::shared().compile(&clib::root().join("tests/c/process_stack.c"), &program);
    run_program(&program, &sentinels, &[("VIGIE_TEST_STACK", &(stated * 1024).to_string())]);
}

/// As above, over TLS, where the calls that open a connection take more.
#[cfg(feature = "tls")]
#[test]
fn a_call_with_tls_takes_less_stack_than_the_header_says() {
    let header = std::fs::read_to_string(clib::root().join("include/vigie.h")).expect("the header can be read");
    let header = header.split_whitespace().filter(|word| *word != "*").collect::<Vec<_>>().join(" ");
    let stated =
        header.split("opens a connection with TLS less than ").nth(1).and_then(|rest| rest.split(" KB").next());
    let stated: u32 = stated.and_then(|number| number.parse().ok()).expect("the header states it");
    assert!(stated <= 48, "the header states {stated} KB");
    let ca = support::Ca::new();
    let plan = support::TlsPlan { ca: ca.file(), pair: ca.local("server"), wants_clients: false };
    let deployment = Deployment::new("stack-tls").services([SERVICE]).tls(plan.clone()).sentinel_tls(plan).start();
    let program = installed::fresh_dir("process-stack-tls").join("stack");
    installed::Prefix::shared().compile(&clib::root().join("tests/c/process_stack.c"), &program);
    let environment = [("VIGIE_TEST_STACK", &*(stated * 1024).to_string()), ("VIGIE_TEST_TLS_CA", &*ca.file())];
    run_program(&program, &deployment.sentinel_addrs().join(","), &environment);
}

/// Stops a process for 6 s while its calls are in flight and are answered: it detects no silence, and keeps its
/// connections.
#[test]
fn a_process_that_was_stopped_looks_before_it_judges() {
    let (deployment, sentinels) = deployment("process-stopped");
    let primary = deployment.primary_node(SERVICE);
    let servers = || deployment.nodes().into_iter();
    // At a Sentinel only the subscription: a discovery uses other connections.
    let connections = |node: &support::Node| -> BTreeSet<u64> {
        let stays = |client: &&support::node::ClientInfo| {
            node.role() != support::Role::Sentinel || client.fields.get("psub").is_some_and(|patterns| patterns != "0")
        };
        node.clients_named("stopped").iter().filter(stays).map(|client| client.id).collect()
    };
    let mut program = Stoppable::start(&sentinels, &[]);

    program.tells("open");
    let blocked = |at_least| {
        let enough = || primary.info("clients")["blocked_clients"].parse::<u32>().is_ok_and(|all| all >= at_least);
        support::eventually("the calls have arrived", Duration::from_secs(30), enough);
    };
    blocked(1);
    let before: Vec<_> = servers().map(|node| connections(&node)).collect();
    assert!(before.iter().filter(|ids| !ids.is_empty()).count() > 3, "the primary and each Sentinel: {before:?}");
    assert!(primary.cmd(&["CLIENT", "PAUSE", "600000", "WRITE"]).is_ok());
    program.go_on();
    program.tells("calling");
    // The shared lane and that of the submitted call.
    blocked(3);
    program.go_on();
    program.tells("all calling");
    program.stop();
    assert!(primary.cmd(&["CLIENT", "UNPAUSE"]).is_ok());
    assert_eq!(primary.cmd(&["RPUSH", "stopped:list", "pushed"]).int(), Some(1));
    std::thread::sleep(Duration::from_secs(6));
    program.continues();
    program.tells("done");
    let after: Vec<_> = servers().map(|node| connections(&node)).collect();
    assert_eq!(before, after, "the same connections at every server");
    program.go_on();
    program.ends_well();
}

/// Stops a process while a Sentinel owes it a reply, and still owes it afterwards: it asks again before it judges.
#[test]
fn a_process_that_was_stopped_asks_a_sentinel_once_more() {
    let node = support::Scripted::primary();
    let sentinels = support::Scripted::sentinels(2, SERVICE, &node.addr());
    let addrs: Vec<String> = sentinels.iter().map(|one| one.addr()).collect();
    let mut program = Stoppable::start(&addrs.join(","), &[("VIGIE_TEST_IDLE", "1")]);
    program.tells("open");
    sentinels[0].wait_count("PING", 1, Duration::from_secs(30));
    sentinels[0].fault("PING", support::Fault::Raw(Vec::new()));
    sentinels[0].wait_count("PING", sentinels[0].count("PING") + 1, Duration::from_secs(30));
    program.stop();
    sentinels[0].clear_faults();
    std::thread::sleep(Duration::from_secs(3));
    program.continues();
    program.ends_well();
}

/// process_stopped.c; it ends with the test.
struct Stoppable(Talking);

impl Stoppable {
    fn start(sentinels: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(compile("stopped"));
        command.env("VIGIE_TEST_SENTINELS", sentinels).env("VIGIE_TEST_SERVICE", SERVICE);
        command.envs(environment.iter().copied());
        Self(Talking::start(command))
    }

    #[track_caller]
    fn tells(&mut self, expected: &str) {
        self.0.tells(expected);
    }

    fn go_on(&mut self) {
        self.0.hears("on");
    }

    fn stop(&self) {
        support::proc::signal(self.0.child.id(), libc::SIGSTOP);
        support::proc::await_stopped(self.0.child.id(), true);
    }

    fn continues(&mut self) {
        support::proc::signal(self.0.child.id(), libc::SIGCONT);
        self.go_on();
    }

    #[track_caller]
    fn ends_well(mut self) {
        assert!(self.0.child.wait().expect("its end").success());
    }
}
