//! What the packages of all languages stand on: one version everywhere, and the test kit that their suites start.

use crate::installed::{fresh_dir, root};

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value as Json;

/// A tree in which every package is there and says another version than Cargo.toml.
fn tree_of_packages(name: &str) -> PathBuf {
    let dir = fresh_dir(name);
    let put = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("ours");
        fs::write(path, text).expect("ours");
    };
    put("Cargo.toml", "[package]\nversion = \"1.2.3\"\n");
    let header = "#define VIGIE_VERSION_MAJOR 0\n#define VIGIE_VERSION_MINOR 1\n#define VIGIE_VERSION_PATCH 0\n";
    put("include/vigie.h", header);
    put("include/vigie/error.hpp", "#define VIGIE_HPP_VERSION_MAJOR 0\n#define VIGIE_HPP_VERSION_MINOR 1\n");
    put("packages/python/pyproject.toml", "[project]\nname = \"vigie-redis\"\nversion = \"0.1.0\"\n");
    put("packages/ruby/vigie.gemspec", "Gem::Specification.new do |spec|\n  spec.version = \"0.1.0\"\nend\n");
    put("packages/go/version.go", "package vigie\n\nconst Version = \"0.1.0\"\n");
    put(
        "packages/node/package.json",
        "{\n  \"version\": \"0.1.0\",\n  \"optionalDependencies\": {\n    \"@vigie/linux-x64\": \"0.0.9\"\n  }\n}\n",
    );
    put("packages/node/npm/linux-x64/package.json", "{\n  \"version\": \"0.1.0\"\n}\n");
    dir
}

/// Whether the script succeeds, and what it says.
fn versions(dir: &Path, mode: &str) -> (bool, String) {
    let mut command = Command::new(root().join("scripts/versions"));
    let output = command.arg(mode).env("VIGIE_ROOT", dir).output().expect("bash is installed");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_version_that_differs_is_found_in_every_package_and_can_be_set() {
    let dir = tree_of_packages("versions-differ");
    let places = [
        "vigie.h",
        "error.hpp",
        "pyproject.toml",
        "vigie.gemspec",
        "version.go",
        "node/package.json",
        "linux-x64/package.json",
    ];
    let (good, said) = versions(&dir, "--check");
    assert!(!good, "{said}");
    for place in places {
        assert!(said.contains(place), "{place} is not in:\n{said}");
    }
    assert!(said.contains("0.0.9"), "the optional dependency is not in:\n{said}");
    assert_eq!(versions(&dir, "--write"), (true, String::new()));
    assert_eq!(versions(&dir, "--check"), (true, String::new()));
    let node = fs::read_to_string(dir.join("packages/node/package.json")).expect("written");
    assert!(node.contains("\"@vigie/linux-x64\": \"1.2.3\""), "{node}");
}

#[test]
fn a_package_that_is_not_there_is_no_error_and_one_without_a_version_is() {
    let dir = tree_of_packages("versions-missing");
    assert!(versions(&dir, "--write").0);
    fs::remove_dir_all(dir.join("packages/node")).expect("there");
    assert_eq!(versions(&dir, "--check"), (true, String::new()));
    fs::write(dir.join("packages/go/version.go"), "package vigie\n").expect("ours");
    let (good, said) = versions(&dir, "--check");
    assert!(!good && said.contains("version.go names no version"), "{said}");
}

struct Kit {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Kit {
    fn start() -> Self {
        let mut command = Command::new(root().join("packages/testkit/deployment"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bash is installed");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, lines }
    }

    fn answer(&mut self) -> Json {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("text");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    fn run(&mut self, command: &str) -> Json {
        writeln!(self.child.stdin.as_mut().expect("piped"), "{command}").expect("it lives");
        self.answer()
    }
}

#[test]
fn the_test_kit_kills_and_moves_a_primary_and_leaves_nothing_behind() {
    let mut kit = Kit::start();
    let first = kit.answer();
    assert_eq!(
        (first["replicas"].as_array().map(Vec::len), first["sentinels"].as_array().map(Vec::len)),
        (Some(2), Some(3))
    );
    let second = kit.run("failover");
    assert!(second["primary"].is_u64() && second["primary"] != first["primary"], "{second}");
    assert_eq!(kit.run("kill primary")["killed"], second["primary"]);
    let third = kit.run("wait");
    assert!(third["primary"].is_u64() && third["primary"] != second["primary"], "{third}");
    assert_eq!(third["replicas"].as_array().map(Vec::len), Some(1));
    assert!(kit.run("dance")["error"].is_string());
    let pid = third["primary_pid"].as_u64().expect("a pid");
    drop(kit.child.stdin.take());
    assert!(kit.child.wait().expect("a child").success());
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the primary lives");
}
