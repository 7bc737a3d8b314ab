//! The lane's roles in every order of a few threads (src/lane/model_tests.rs): the model is built and run here, in a directory of its own
//! below build/, because `--cfg loom` changes every crate that is built with it. Then it is run over a copy of the sources with faults, and
//! has to see each of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What is done wrong, where, the line as it is, and the line with the fault. `fault(n)` is true in the run for the n-th of them.
const FAULTS: &[(&str, &str, &str, &str)] = &[
    (
        "the reader's role is passed to somebody who is not told",
        "lane/mod.rs",
        "let asleep = next.filter(|(_, token)| token.order(Order::Lead))",
        "let asleep = next.filter(|(_, token)| !crate::fault(0) && token.order(Order::Lead))",
    ),
    (
        "whoever is asked to take a role is not woken",
        "lane/mod.rs",
        "if let Some(number) = asleep {",
        "if let Some(number) = asleep.filter(|_| !crate::fault(1)) {",
    ),
    (
        "a leader whose deadline comes keeps the role",
        "lane/mod.rs",
        "if self.leads.take() {",
        "if self.leads.take() && !crate::fault(2) {",
    ),
    (
        "a caller whose deadline comes takes no notice of an order that it was given meanwhile",
        "lane/mod.rs",
        "while let Some(order) = self.slot.peek_order() {",
        "while let Some(order) = self.slot.peek_order().filter(|_| !crate::fault(3)) {",
    ),
    (
        "a dead lane is sorted before its writer has said what the kernel took",
        "lane/mod.rs",
        "if st.writer.is_some() { st } else { self.bury(st) }",
        "if st.writer.is_some() && !crate::fault(4) { st } else { self.bury(st) }",
    ),
    (
        "whoever comes back from writing does not look whether somebody reads",
        "lane/mod.rs",
        "let free = st.dead.is_none() && st.reader.is_none() && !self.slot.is_settled();",
        "let free = !crate::fault(5) && st.dead.is_none() && st.reader.is_none() && !self.slot.is_settled();",
    ),
    (
        "a reader leaves and passes nothing on",
        "lane/reader.rs",
        "self.pass_lead(self.lock(), call.number);",
        "if crate::fault(6) { self.lock().reader = None; } else { self.pass_lead(self.lock(), call.number); }",
    ),
    (
        "a writer leaves a full socket and passes nothing on",
        "lane/writer.rs",
        "let asleep = next.filter(|(_, token)| token.order(Order::Flush))",
        "let asleep = next.filter(|(_, token)| !crate::fault(7) && token.order(Order::Flush))",
    ),
    (
        "a reply is stored without a release",
        "sys/slot.rs",
        "slot.as_ref().state.fetch_or(DONE, Ordering::AcqRel)",
        "slot.as_ref().state.fetch_or(DONE, if crate::fault(8) { Ordering::Relaxed } else { Ordering::AcqRel })",
    ),
    (
        "a waiter reads the word's count after it has looked",
        "sys/slot.rs",
        "word.wait(ticket, bits, end);",
        "word.wait(if crate::fault(9) { word.ticket() } else { ticket }, bits, end);",
    ),
    (
        "a slot goes before its token",
        "sys/slot.rs",
        "while self.0.state.load(Ordering::Acquire) & (DONE | RELEASED) == 0 {",
        "while !crate::fault(10) && self.0.state.load(Ordering::Acquire) & (DONE | RELEASED) == 0 {",
    ),
    (
        "an order is lost when two are given",
        "sys/slot.rs",
        "self.state.fetch_and(!(bit | PARKED), Ordering::AcqRel);",
        "self.state.fetch_and(!(PARKED | if crate::fault(11) { LEAD | FLUSH } else { bit }), Ordering::AcqRel);",
    ),
];

const FAULT: &str = "
/// Whether this fault is to be made.
pub fn fault(number: usize) -> bool {
    static MADE: std::sync::OnceLock<Option<usize>> = std::sync::OnceLock::new();
    let made = || std::env::var(\"FAULT\").ok().and_then(|text| text.parse().ok());
    *MADE.get_or_init(made) == Some(number)
}
";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Builds and runs the model of the package in this directory.
fn model(package: &Path, fault: Option<usize>) -> Output {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(package).args(["test", "--release", "--lib", "--target-dir"]).arg(root().join("build/loom"));
    command.args(["--", "lane::model_tests", "--test-threads=1", "--nocapture"]);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO") && text != "CARGO_HOME" && text != "CARGO_BUILD_JOBS" {
            command.env_remove(&name);
        }
    }
    let profile = [("LTO", "off"), ("CODEGEN_UNITS", "16"), ("OPT_LEVEL", "1"), ("DEBUG", "0")];
    command.envs(profile.map(|(name, value)| (format!("CARGO_PROFILE_RELEASE_{name}"), value)));
    command.env("RUSTFLAGS", "--cfg loom").env("RUST_BACKTRACE", "0");
    command.envs(fault.map(|fault| ("FAULT", fault.to_string())));
    command.output().expect("cargo runs")
}

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// The package with its sources as they are, but without the crates that only other tests need: they take longest to build.
fn package(name: &str) -> PathBuf {
    let copy = root().join("build").join(name);
    let _ = fs::remove_dir_all(&copy);
    fs::create_dir_all(&copy).expect("build/ is ours");
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    let sections = manifest.split("\n[").enumerate();
    let kept = sections.filter(|(_, text)| !text.starts_with("dev-dependencies]") && !text.starts_with("[bench]]"));
    let kept: String = kept.map(|(at, text)| if at == 0 { text.to_owned() } else { format!("\n[{text}") }).collect();
    fs::write(copy.join("Cargo.toml"), kept).expect("the directory is ours");
    for name in ["Cargo.lock", "build.rs"] {
        fs::copy(root().join(name), copy.join(name)).expect("the directory is ours");
    }
    copy_sources(&root().join("src"), &copy.join("src"));
    copy
}

/// The package whose sources have all the faults, each behind its number.
fn faulty_package() -> PathBuf {
    let copy = package("loom-faults");
    let change = |file: &str, change: &dyn Fn(String) -> String| {
        let path = copy.join("src").join(file);
        let text = fs::read_to_string(&path).expect("copied");
        fs::write(&path, change(text)).expect("the directory is ours");
    };
    for (what, file, line, with_fault) in FAULTS {
        change(file, &|text| {
            assert_eq!(text.matches(line).count(), 1, "{what}: {file} has not this line once: {line}");
            text.replace(line, with_fault)
        });
    }
    change("lib.rs", &|text| text + FAULT);
    copy
}

fn copy_sources(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the directory is ours");
    for entry in fs::read_dir(from).expect("src can be listed") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_sources(&path, &target);
        } else {
            fs::copy(&path, &target).expect("the directory is ours");
        }
    }
}

#[test]
fn the_roles_are_handed_over_in_every_order_and_each_fault_is_seen() {
    let output = model(&package("loom-model"), None);
    let text = text_of(&output);
    assert!(output.status.success() && text.contains("three_callers"), "{text}");
    print!("{text}");

    let copy = faulty_package();
    let output = model(&copy, None);
    assert!(output.status.success(), "without a fault: {}", text_of(&output));
    for (number, (what, ..)) in FAULTS.iter().enumerate() {
        let output = model(&copy, Some(number));
        let text = text_of(&output);
        // What loom, or an assertion of the model, says about it; a copy that cannot be built says something else.
        let seen =
            ["deadlock; threads", "panicked at", "Causality violation"].iter().find(|word| text.contains(**word));
        assert!(!output.status.success() && seen.is_some(), "not seen: {what}\n{text}");
        println!("seen: {what}");
    }
}
