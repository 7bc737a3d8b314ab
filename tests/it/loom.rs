//! The lane's roles in every order of a few threads (src/lane/model_tests.rs): the model is built and run here, in a directory of its own
//! below build/, because `--cfg loom` changes every crate that is built with it. Then it is run again with each of the faults that are named
//! in the sources, and has to see it.

#[allow(dead_code)] // The names alone are needed here.
#[path = "../../src/sys/fault.rs"]
mod fault;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fault::Fault;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Builds and runs the model of the package in this directory.
fn model(package: &Path, fault: Option<Fault>) -> Output {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(package).args(["test", "--release", "--lib", "--target-dir"]).arg(root().join("build/loom"));
    command.args(["--no-default-features", "--", "lane::model_tests", "--test-threads=1", "--nocapture"]);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO") && text != "CARGO_HOME" && text != "CARGO_BUILD_JOBS" {
            command.env_remove(&name);
        }
    }
    let profile = [("LTO", "off"), ("CODEGEN_UNITS", "16"), ("OPT_LEVEL", "1"), ("DEBUG", "0")];
    command.envs(profile.map(|(name, value)| (format!("CARGO_PROFILE_RELEASE_{name}"), value)));
    command.env("RUSTFLAGS", "--cfg loom").env("RUST_BACKTRACE", "0");
    command.envs(fault.map(|fault| ("VIGIE_FAULT", format!("{fault:?}"))));
    command.output().expect("cargo runs")
}

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// The package with its sources as they are, but without the crates that only other tests need: they take longest to build.
fn package(name: &str) -> PathBuf {
    let copy = root().join("build").join(name);
    fs::create_dir_all(&copy).expect("build/ is ours");
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    let sections = manifest.split("\n[").enumerate();
    let kept = sections.filter(|(_, text)| !text.starts_with("dev-dependencies]") && !text.starts_with("[bench]]"));
    let kept: String = kept.map(|(at, text)| if at == 0 { text.to_owned() } else { format!("\n[{text}") }).collect();
    renew(&copy.join("Cargo.toml"), kept.as_bytes());
    for name in ["Cargo.lock", "build.rs"] {
        renew(&copy.join(name), &fs::read(root().join(name)).expect("a file of the package"));
    }
    copy_sources(&root().join("src"), &copy.join("src"));
    copy
}

/// Writes a file that is not so already: cargo builds nothing that has not changed.
fn renew(path: &Path, text: &[u8]) {
    if fs::read(path).is_ok_and(|there| there == text) {
        return;
    }
    fs::write(path, text).expect("the directory is ours");
}

/// The same files in both directories. One that is in the copy alone would hide that it is missing.
fn copy_sources(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the directory is ours");
    let names = |dir: &Path| -> Vec<OsString> {
        fs::read_dir(dir).expect("it can be listed").map(|entry| entry.expect("an entry").file_name()).collect()
    };
    for name in names(to) {
        match to.join(&name) {
            stale if stale.is_dir() && !from.join(&name).is_dir() => fs::remove_dir_all(stale),
            stale if stale.is_file() && !from.join(&name).is_file() => fs::remove_file(stale),
            _ => Ok(()),
        }
        .expect("the directory is ours");
    }
    for name in names(from) {
        let path = from.join(&name);
        if path.is_dir() {
            copy_sources(&path, &to.join(name));
        } else {
            renew(&to.join(name), &fs::read(&path).expect("a source"));
        }
    }
}

#[test]
fn the_roles_are_handed_over_in_every_order_and_each_fault_is_seen() {
    let package = package("loom-model");
    let output = model(&package, None);
    let text = text_of(&output);
    assert!(output.status.success() && text.contains("three_callers"), "{text}");
    print!("{text}");

    let made: String = sources(&root().join("src")).concat();
    for fault in Fault::ALL {
        let asked = format!("Fault::{fault:?}");
        assert_eq!(made.matches(&asked).count(), 1, "{asked} is asked for at one place");
        let output = model(&package, Some(fault));
        let text = text_of(&output);
        // What loom, or an assertion of the model, says about it.
        let seen =
            ["deadlock; threads", "panicked at", "Causality violation"].iter().find(|word| text.contains(**word));
        assert!(!output.status.success() && seen.is_some(), "not seen: {fault:?}\n{text}");
        println!("seen: {fault:?}");
    }
}

/// The texts of all sources.
fn sources(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("src can be listed").map(|entry| entry.expect("an entry").path());
    let texts = entries.map(|path| match path.is_dir() {
        true => sources(&path).concat(),
        // What a fuzz target has found is no text.
        false if path.extension().is_none_or(|extension| extension != "rs") => String::new(),
        false => fs::read_to_string(&path).expect("readable"),
    });
    texts.collect()
}
