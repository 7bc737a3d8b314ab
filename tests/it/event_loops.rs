//! The same program in each event loop: 100,000 submits whose completions are awaited by the descriptor of the queue,
//! next to a timer.
//!
//! Each program checks that every completion came once with the right value, that the server received all commands in
//! order, that the queue was full and drained, and that the timer of the loop was never late by more than 2.25 s; it
//! prints its figures. At first the server is silent for three seconds while the queue is full: that exposes a loop
//! that waits inside the library.

use crate::installed;
use crate::support;

use installed::{C_FLAGS, Prefix, cc, fresh_dir, root, run, text_of};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::{Deployment, Node, eventually};

const SERVICE: &str = "mymaster";

/// The longest time that a loop may be blocked.
const SILENCE: Duration = Duration::from_secs(3);

/// Runs the program, whose last argument is the deployment, and shows its figures.
#[track_caller]
fn prove(name: &str, program: &mut Command) {
    let deployment = Deployment::new(name).replicas(0).sentinels(1).quorum(1).services([SERVICE]).start();
    program.arg(deployment.sentinel_uri()).env("PYTHONDONTWRITEBYTECODE", "1");
    program.env("VIGIE_TEST_SENTINELS", deployment.sentinel_addrs().join(",")).env("VIGIE_TEST_SERVICE", SERVICE);
    let primary = deployment.primary_node(SERVICE);
    primary.cmd(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    let mut child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    be_silent(&primary, &mut child);
    let output = child.wait_with_output().expect("the program ends");
    let (figures, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{figures}{errors}", output.status);
    assert!(figures.ends_with(", ok\n") && figures.lines().count() == 1, "{figures}");
    print!("{figures}");
}

/// Waits for the first writes, then keeps the server silent for this time.
fn be_silent(primary: &Node, child: &mut Child) {
    eventually("the program's writes wait in the server", Duration::from_secs(20), || {
        primary.info("clients")["blocked_clients"] != "0" || child.try_wait().expect("it is our child").is_some()
    });
    std::thread::sleep(SILENCE); // the silence itself, not a wait for something
    primary.cmd(&["CLIENT", "UNPAUSE"]);
}

fn programs() -> PathBuf {
    root().join("tests/languages")
}

fn script(interpreter: &str, program: &str, library: &Path) -> Command {
    let mut command = Command::new(interpreter);
    command.arg(programs().join(program)).arg(library);
    command
}

#[test]
fn epoll_in_c() {
    let out = fresh_dir("loop-c").join("epoll");
    Prefix::shared().compile(&root().join("tests/c/epoll.c"), &out);
    prove("loop-c", &mut Command::new(out));
}

#[test]
fn libuv_in_node_through_koffi() {
    assert!(programs().join("node_modules/koffi").is_dir(), "koffi is missing: run scripts/setup test");
    prove("loop-koffi", &mut script("node", "loop_koffi.js", &Prefix::shared().library()));
}

/// Uses the headers of the running Node: next to it, or those of the system for libuv.
#[test]
fn libuv_in_node_through_an_addon() {
    let (prefix, addon) = (Prefix::shared(), fresh_dir("loop-addon").join("queue.node"));
    let mut node = Command::new("node");
    let place = text_of(node.args(["-p", "require('path').join(process.execPath, '../../include/node')"]));
    let mut build = cc();
    build.args(C_FLAGS).args(["-shared", "-fPIC", "-isystem", place.trim_end()]).arg(programs().join("addon/queue.c"));
    build.args(prefix.pkg_config(&["--cflags", "--libs"])).arg(format!("-Wl,-rpath,{}", prefix.lib.display()));
    run(build.arg("-o").arg(&addon));
    prove("loop-addon", &mut script("node", "loop_addon.js", &addon));
}

#[test]
fn asyncio_in_python() {
    prove("loop-python", &mut script("python3", "loop_asyncio.py", &Prefix::shared().library()));
}

#[test]
fn io_select_in_ruby() {
    prove("loop-ruby", &mut script("ruby", "loop_select.rb", &Prefix::shared().library()));
}

#[test]
fn the_netpoller_of_go() {
    let (prefix, out) = (Prefix::shared(), fresh_dir("loop-go").join("netpoller"));
    let mut build = Command::new("go");
    build.current_dir(programs().join("go")).args(["build", "-o"]).arg(&out).arg("./netpoller");
    build.env("PKG_CONFIG_PATH", prefix.lib.join("pkgconfig")).env("CGO_ENABLED", "1").env("GOFLAGS", "-mod=mod");
    run(&mut build);
    prove("loop-go", Command::new(&out).env("LD_LIBRARY_PATH", &prefix.lib));
}
