//! The programs of tests/languages/: each language opens a deployment through the installed library, runs commands, reads a
//! nested reply, takes an error apart and frees everything; and completions of every kind from packed drains.

use crate::installed;
use crate::support;

use installed::{Prefix, fresh_dir, root, text_of};
use std::process::Command;
use support::Deployment;

/// Runs an interpreter with the program, the library and the deployment as arguments.
#[track_caller]
fn prove(interpreter: &str, program: &str) {
    let deployment = Deployment::new(interpreter).replicas(1).sentinels(1).quorum(1).start();
    let mut command = Command::new(interpreter);
    command.current_dir(root().join("tests/languages")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(program).arg(Prefix::shared().library()).arg(deployment.sentinel_uri());
    assert_eq!(text_of(&mut command), "ok\n");
}

#[test]
fn python_through_ctypes() {
    prove("python3", "python.py");
    prove("python3", "packed.py");
}

#[test]
fn ruby_through_ffi() {
    prove("ruby", "ruby.rb");
    prove("ruby", "packed.rb");
}

#[test]
fn node_through_koffi() {
    let koffi = root().join("tests/languages/node_modules/koffi");
    assert!(koffi.is_dir(), "koffi is missing: run scripts/setup test");
    prove("node", "node.js");
    prove("node", "packed.js");
}

#[test]
fn go_through_cgo() {
    let deployment = Deployment::new("go").replicas(1).sentinels(1).quorum(1).start();
    let (prefix, out) = (Prefix::shared(), fresh_dir("go").join("proof"));
    let mut build = Command::new("go");
    build.current_dir(root().join("tests/languages/go")).args(["build", "-o"]).arg(&out).arg(".");
    build.env("PKG_CONFIG_PATH", prefix.lib.join("pkgconfig")).env("CGO_ENABLED", "1").env("GOFLAGS", "-mod=mod");
    text_of(&mut build);
    let mut proof = Command::new(&out);
    assert_eq!(text_of(proof.arg(deployment.sentinel_uri()).env("LD_LIBRARY_PATH", &prefix.lib)), "ok\n");
}
