//! Handles with the option `fork` = reopen, in children of a C program. Each case is a process of its own, because it forks.

use crate::clib;
use crate::support;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use support::Deployment;

const SERVICE: &str = "orders";

/// The name of all connections of the program.
const NAME: &str = "forks";

fn program() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| compile("fork_reopen")).clone()
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
    let output = clib::run(command(program(), case, deployment).envs(environment.iter().copied()), "gcc");
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
    let mut program = Talking::start(command(program(), "killed", &deployment));
    program.tells("child");
    assert!(primary.clients_named(NAME).len() >= 2, "a lane and a session");
    support::proc::signal(program.child.id(), libc::SIGKILL);
    support::eventually("they end", Duration::from_secs(30), || primary.clients_named(NAME).is_empty());
    program.hears("on");
    program.tells("done");
}

/// A program that talks with the test; it ends with the test.
struct Talking {
    child: Child,
    told: std::io::Lines<BufReader<ChildStdout>>,
    says: ChildStdin,
}

impl Talking {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let told = BufReader::new(child.stdout.take().expect("piped")).lines();
        let says = child.stdin.take().expect("piped");
        Self { child, told, says }
    }

    #[track_caller]
    fn tells(&mut self, expected: &str) {
        assert_eq!(self.told.next().and_then(Result::ok).as_deref(), Some(expected));
    }

    fn hears(&mut self, line: &str) {
        writeln!(self.says, "{line}").expect("it reads");
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
