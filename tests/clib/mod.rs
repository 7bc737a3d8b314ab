//! The library as C programs get it from cargo, and the tools that the tests of the C side need.
//!
//! Guarantees: a missing tool fails the test with a sentence that names the package; nothing is skipped in silence.

#![allow(dead_code)] // each test binary uses its own part

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The root of the project.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A directory for what a test makes, under cargo's target directory.
pub fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{} cannot be made: {e}", dir.display()));
    dir
}

/// Runs a tool; if it is not there, says which package brings it.
pub fn run(command: &mut Command, package: &str) -> Output {
    let tool = command.get_program().to_owned();
    command.output().unwrap_or_else(|e| panic!("{} does not run ({e}): install {package}", Path::new(&tool).display()))
}

/// Runs a tool that has to succeed.
pub fn succeed(command: &mut Command, package: &str) -> String {
    let output = run(command, package);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    text
}

/// The directory with `libvigie.so`, its soname and `libvigie.a`. Cargo has built both together with the tests.
pub fn library() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let test = std::env::current_exe().expect("the system knows this program");
        linked("clib", test.parent().expect("it is in a directory"))
    })
}

/// The same with the test-only panic inside, and without TLS, whose crates take longest to build.
pub fn library_that_panics() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let target = scratch("clib-panic").join("target");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root()).args(["build", "--lib", "--target-dir"]).arg(&target);
        cargo.args(["--no-default-features", "--features", "test-panic,private-std"]);
        succeed(&mut cargo, "cargo");
        linked("clib-panic", &target.join("debug"))
    })
}

/// A directory with links to the libraries that were made in another one.
fn linked(name: &str, made: &Path) -> PathBuf {
    let dir = scratch(name);
    for file in ["libvigie.so", "libvigie.a"] {
        link(&made.join(file), &dir.join(file));
    }
    link(&made.join("libvigie.so"), &dir.join(soname(&dir.join("libvigie.so"))));
    dir
}

fn link(from: &Path, to: &Path) {
    let _ = std::fs::remove_file(to);
    std::os::unix::fs::symlink(from, to).unwrap_or_else(|e| panic!("{} cannot be made: {e}", to.display()));
}

/// The soname that a shared library carries.
pub fn soname(library: &Path) -> String {
    let text = succeed(Command::new("readelf").arg("-d").arg(library), "binutils");
    let line = text.lines().find(|line| line.contains("(SONAME)"));
    let name = line.and_then(|line| line.split(['[', ']']).nth(1));
    name.unwrap_or_else(|| panic!("{} has no soname", library.display())).to_owned()
}

/// The symbols of abi/exports.txt with the version that brought each.
pub fn exports() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(root().join("abi/exports.txt")).expect("abi/exports.txt can be read");
    let row = |line: &str| {
        let (name, since) = line.split_once(' ').unwrap_or_else(|| panic!("abi/exports.txt: no version in {line:?}"));
        (name.to_owned(), since.to_owned())
    };
    text.lines().map(row).collect()
}
