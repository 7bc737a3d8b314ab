//! How many instructions a command costs its caller in user space, from the call through the C interface to the freed reply: counted by
//! valgrind over the library as it is installed, and kept in tests/instructions.txt, so that the hot path cannot rot unseen.
//!
//! A count over the recorded one by more than 5 % fails. Instructions are the compiler's choice: with another toolchain than the recorded one
//! the bound is 25 %, on another kind of processor 100 %. UPDATE_INSTRUCTIONS=1 writes the record anew.

mod installed;
mod support;

use installed::{Prefix, fresh_dir, root, run, text_of};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;
use support::{Ca, Deployment, Feature, Node, TlsPlan, eventually, lacks};

const SERVICE: &str = "orders";
const SOON: Duration = Duration::from_secs(60);
/// The second of the shards.
const OTHER: &str = "others";
const HEAD: &str = "# Instructions in user space, as tests/instructions.rs counts them, of the thread that calls. A GET of 64 bytes: exec, by vigie_cmd_exec() of a
# primary client; submit, by vigie_cmds_submit() and vigie_queue_drain() in windows of 256; split, replica, shard (one of two), tls, by vigie_cmd_exec() of
# such a client. atomic: SET and GET as one transaction. durable: a SET that one replica has. message: one of a subscription. Written by
# UPDATE_INSTRUCTIONS=1 cargo test --test instructions
";

/// The ways to send a command, and how many commands are counted.
const WAYS: &[(&str, u64)] = &[
    ("exec", 2000),
    ("submit", 20_480),
    ("split", 1000),
    ("replica", 1000),
    ("tls", 1000),
    ("shard", 1000),
    ("atomic", 1000),
    ("durable", 1000),
    ("message", 5120),
];
/// The clock decides a little: of so many runs the best is taken.
const RUNS: usize = 3;
/// So many programs run at a time.
const BESIDE: usize = 2;

/// What the counts depend on besides our own code.
fn toolchain() -> String {
    let first = |command: &mut Command| text_of(command).lines().next().unwrap_or_default().to_owned();
    let rustc = first(Command::new("rustc").arg("--version"));
    let libc = first(Command::new("getconf").arg("GNU_LIBC_VERSION"));
    format!("{rustc}, {libc}, {}", first(Command::new("valgrind").arg("--version")))
}

/// Instructions of the calling thread inside `measured`, for each command.
fn count(program: &Path, way: &str, commands: u64, environment: &[(&str, String)]) -> f64 {
    // What callgrind_annotate shows when a count has grown.
    let out = program.with_file_name(format!("callgrind.{way}.out"));
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--toggle-collect=measured", "--fair-sched=yes"]);
    valgrind.arg(format!("--callgrind-out-file={}", out.display())).arg(program).args([way, &commands.to_string()]);
    run(valgrind.envs(environment.iter().map(|(name, value)| (name, value))));
    let text = fs::read_to_string(&out).expect("callgrind wrote it");
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a total");
    total.trim().parse::<f64>().expect("a number") / commands as f64
}

/// The recorded values by their names.
fn record(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).expect("tests/instructions.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The best count of each way.
fn counts() -> Vec<(&'static str, f64)> {
    let ca = Ca::new();
    let plan = || TlsPlan { ca: ca.file(), pair: ca.local("server"), wants_clients: false };
    let plain = Deployment::new("instructions").services([SERVICE, OTHER]).start();
    let secret = (!lacks(Feature::Tls)).then(|| {
        let builder = Deployment::new("instructions-tls").services([SERVICE]).replicas(0).sentinels(1);
        builder.tls(plan()).sentinel_tls(plan()).start()
    });
    let set = ["SET", "instructions", &"0123456789".repeat(7)[..64]];
    plain.primary_node(SERVICE).cmd(&set);
    let has_it = |node: &Node| node.cmd(&["EXISTS", "instructions"]).int() == Some(1);
    eventually("the replicas have the value", SOON, || plain.replica_nodes(SERVICE).iter().all(|node| has_it(node)));
    let environment = |deployment: &Deployment| {
        let named = |name, value: &str| (name, value.to_owned());
        vec![
            named("VIGIE_TEST_SENTINELS", &deployment.sentinel_addrs().join(",")),
            named("VIGIE_TEST_SERVICE", SERVICE),
            named("VIGIE_TEST_OTHER_SERVICE", OTHER),
        ]
    };
    let program = fresh_dir("instructions").join("instructions");
    Prefix::shared().compile(&root().join("tests/c/instructions.c"), &program);
    let best = |way: &'static str, commands| {
        let environment = match (way, &secret) {
            ("tls", None) => return None,
            ("tls", Some(secret)) => {
                let mut all = environment(secret);
                all.push(("VIGIE_TEST_TLS_CA", ca.file()));
                all
            }
            _ => environment(&plain),
        };
        let counted = (0..RUNS).map(|_| count(&program, way, commands, &environment));
        Some((way, counted.inspect(|c| println!("{way}: {c}")).fold(f64::MAX, f64::min).round()))
    };
    let (next, counts) = (Mutex::new(WAYS.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..BESIDE {
            scope.spawn(|| {
                while let Some((way, commands)) = { next.lock().unwrap().next() } {
                    let found = best(way, *commands);
                    counts.lock().unwrap().extend(found);
                }
            });
        }
    });
    let place = |way: &str| WAYS.iter().position(|(name, _)| *name == way);
    let mut counts = counts.into_inner().unwrap();
    counts.sort_by_key(|(way, _)| place(way));
    counts
}

#[test]
fn a_command_costs_no_more_instructions_than_recorded() {
    let path = root().join("tests/instructions.txt");
    let counts = counts();
    let (toolchain, arch) = (toolchain(), std::env::consts::ARCH);
    if std::env::var_os("UPDATE_INSTRUCTIONS").is_some() {
        let lines: String = counts.iter().map(|(way, count)| format!("{way}: {count}\n")).collect();
        fs::write(&path, format!("{HEAD}toolchain: {toolchain}\narch: {arch}\n{lines}")).expect("written");
    }
    let record = record(&path);
    let percent = match (record["arch"] == arch, record["toolchain"] == toolchain) {
        (true, true) => 5.0,
        (true, false) => 25.0,
        (false, _) => 100.0,
    };
    if percent > 5.0 {
        println!(
            "recorded with {} on {}, now {toolchain} on {arch}: the bound is {percent} %",
            record["toolchain"], record["arch"]
        );
    }
    for (way, count) in counts {
        let recorded: f64 = record[way].parse().expect("a number");
        println!("{way}: {count} instructions for a command, recorded {recorded}");
        let bound = recorded * (1.0 + percent / 100.0);
        assert!(count <= bound, "{way}: {count} instructions for a command, recorded {recorded}, bound {bound}");
    }
}
