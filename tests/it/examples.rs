//! The examples of examples-c/, compiled against the installed library and run against real deployments.

use crate::installed;
use crate::support;

use installed::{Prefix, fresh_dir, root, run};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::Deployment;

/// Each test has its own copy, because they run at the same time.
fn compiled(name: &str) -> PathBuf {
    static COPIES: AtomicUsize = AtomicUsize::new(0);
    let out = fresh_dir(&format!("example-{}", COPIES.fetch_add(1, Ordering::Relaxed))).join(name);
    Prefix::shared().compile(&root().join("examples-c").join(name).with_extension("c"), &out);
    out
}

/// Runs an example; returns its output. It must exit with status 0 and write nothing to stderr.
#[track_caller]
fn output_of(name: &str, uri: &str) -> String {
    let output = run(Command::new(compiled(name)).arg(uri));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn hello_says_what_it_wrote() {
    let deployment = Deployment::new("hello").start();
    // The first run may be faster than replication, and says so; in the second the replica has the value.
    let first = output_of("hello", &deployment.sentinel_uri());
    assert!(first.starts_with("the replica says: "), "{first}");
    let primary = deployment.primary_node("mymaster");
    assert_eq!(primary.cmd(&["WAIT", "2", "5000"]), support::Value::Int(2));
    assert_eq!(output_of("hello", &deployment.sentinel_uri()), "the replica says: hello\n");
    assert_eq!(primary.cmd(&["GET", "greeting"]).text(), "hello");
    assert_eq!(primary.calls("get"), 1, "only the test itself asked the primary");
}

#[test]
fn the_readme_names_every_example() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    for entry in std::fs::read_dir(root().join("examples-c")).expect("examples-c") {
        let name = entry.expect("an entry").file_name().into_string().expect("text");
        let shown = name == "hello.c" || readme.contains(&format!("`{name}`"));
        assert!(shown || !name.ends_with(".c"), "README.md does not name {name}");
    }
}

/// Readers copy the first example, so it must be right.
#[test]
fn the_program_of_the_readme_runs() {
    let deployment = Deployment::new("readme").start();
    let text = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let program =
        text.split("```c\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a C program in the README");
    let dir = fresh_dir("readme");
    std::fs::write(dir.join("hello.c"), program).expect("the directory is ours");
    Prefix::shared().compile(&dir.join("hello.c"), &dir.join("hello"));
    let output = run(Command::new(dir.join("hello")).arg(deployment.sentinel_uri()));
    assert!(output.stdout.starts_with(b"the replica says: "), "{output:?}");
    assert_eq!(deployment.primary_node("mymaster").cmd(&["GET", "greeting"]).text(), "hello");
    let failed =
        Command::new(dir.join("hello")).arg("redis-sentinel://127.0.0.1:1/mymaster").output().expect("it starts");
    assert_eq!(failed.status.code(), Some(1), "a failure is told to the shell");
}

#[test]
fn split_reads_from_a_replica_and_writes_to_the_primary() {
    let deployment = Deployment::new("split").start();
    let output = output_of("split", &deployment.sentinel_uri());
    assert!(output.starts_with("visit number 1\na replica says: "), "{output}");
    assert!(output.ends_with("\nthe primary says: 1 visits\n"), "{output}");
    assert_eq!(deployment.primary_node("mymaster").calls("get"), 1);
    let on_replicas: u64 = deployment.replica_nodes("mymaster").iter().map(|node| node.calls("get")).sum();
    assert_eq!(on_replicas, 1);
}

#[test]
fn pipeline_prints_every_answer() {
    let deployment = Deployment::new("pipeline").start();
    let output = output_of("pipeline", &deployment.sentinel_uri());
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines.len(), 5, "{output}");
    assert_eq!(lines[..3], ["int 0", "int 3", "array one two three"]);
    assert!(lines[3].starts_with("error WRONGTYPE "), "{output}");
    assert_eq!(lines[4], "null");
}

#[test]
fn transaction_moves_money_and_doubles_it() {
    let deployment = Deployment::new("transaction").start();
    assert_eq!(output_of("transaction", &deployment.sentinel_uri()), "a has 70, b has 30\ndoubled: 140\n");
    let primary = deployment.primary_node("mymaster");
    assert_eq!((primary.calls("exec"), primary.calls("watch")), (2, 1));
}

#[test]
fn script_counts_permits_on_a_server_that_has_forgotten_it() {
    let deployment = Deployment::new("script").start();
    let left = "ann: 2 left\nann: 1 left\nann: 0 left\nann: -1 left\n";
    let bob = "bob: 2 left, though the server had forgotten the script\n";
    assert_eq!(output_of("script", &deployment.sentinel_uri()), format!("{left}{bob}"));
    let primary = deployment.primary_node("mymaster");
    assert_eq!((primary.calls("eval"), primary.calls("evalsha")), (2, 4));
}

#[test]
fn scan_counts_the_keys_of_a_replica_and_scan_loop_those_of_the_primary() {
    let deployment = Deployment::new("scan-example").start();
    let primary = deployment.primary_node("mymaster");
    (0..250).for_each(|n| _ = primary.cmd(&["SET", &format!("user:{n}"), "v"]));
    assert_eq!(primary.cmd(&["WAIT", "2", "5000"]), support::Value::Int(2));
    let output = output_of("scan_loop", &deployment.sentinel_uri());
    assert_eq!(output, "250 keys, begun anew 0 times\n");
    assert!(primary.calls("scan") > 1, "page by page");
    let on_primary = primary.calls("scan");
    let output = output_of("scan", &deployment.sentinel_uri());
    assert!(output.starts_with("250 keys on ") && output.ends_with("pages, begun anew 0 times\n"), "{output}");
    assert_eq!(primary.calls("scan"), on_primary);
}

#[test]
fn threads_get_their_own_answers() {
    let deployment = Deployment::new("threads").start();
    assert_eq!(output_of("threads", &deployment.sentinel_uri()), "16 threads, 501 calls each, 0 wrong\n");
    assert_eq!(deployment.primary_node("mymaster").cmd(&["GET", "threads:7"]).text(), "500");
}

#[test]
fn submit_gets_each_completion() {
    let deployment = Deployment::new("submit").start();
    assert_eq!(output_of("submit", &deployment.sentinel_uri()), "10000 calls, 0 failed\n");
    assert_eq!(deployment.primary_node("mymaster").cmd(&["GET", "submit:n"]).text(), "10000");
}

#[test]
fn sentinel_admin_shows_each_service_of_the_deployment() {
    let deployment = Deployment::new("admin-example").services(["orders", "users"]).replicas(1).start();
    let uri = format!("redis-sentinel://{}", deployment.sentinel_addrs().join(","));
    let output = output_of("sentinel_admin", &uri);
    for name in ["orders", "users"] {
        let (primary, replica) = (deployment.primary(name), deployment.node(&format!("{name}-1")).addr());
        for line in
            [format!("{name}: primary {primary}, quorum 2\n"), format!("  replica {replica}: link ok, priority 100\n")]
        {
            assert!(output.contains(&line), "{line} in {output}");
        }
    }
    let quorums = deployment.sentinel_addrs().into_iter().map(|addr| format!("  {addr}: 3 usable Sentinels\n"));
    quorums.for_each(|line| assert_eq!(output.matches(&line).count(), 2, "{output}"));
}

#[test]
fn jobs_does_each_and_repeats_what_failed_and_so_does_jobs_loop() {
    let deployment = Deployment::new("jobs-example").replicas(0).sentinels(1).quorum(1).start();
    let primary = deployment.primary_node("mymaster");
    for name in ["jobs", "jobs_loop"] {
        primary.cmd(&["LPUSH", "mail", "vigie1:1:0:one", "fail", "two"]);
        let output = run(Command::new(compiled(name)).args([&deployment.sentinel_uri(), "mail", "w1", "4"]));
        let told = String::from_utf8(output.stdout).expect("text");
        assert_eq!(told, "did one\nfailed fail\ndid two\ndid fail (perhaps not for the first time)\n", "{name}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{name}");
        assert_eq!(primary.cmd(&["KEYS", "*"]).items().len(), 0, "{name}: everything is done");
    }
}

/// A signal ends the wait; what was pushed before is taken.
#[test]
fn interrupt_stops_at_a_signal_and_loses_nothing() {
    let deployment = Deployment::new("interrupt").start();
    let mut program = Command::new(compiled("interrupt"));
    let mut program = program.arg(deployment.sentinel_uri()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(program.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("waiting for jobs"));
    let primary = deployment.primary_node("mymaster");
    primary.cmd(&["RPUSH", "jobs", "a"]);
    assert_eq!(lines.next().as_deref(), Some("took a"));
    support::eventually("it waits", Duration::from_secs(20), || primary.info("clients")["blocked_clients"] == "1");
    support::eventually("the signal is seen", Duration::from_secs(20), || {
        // One that comes while nothing waits in the kernel does not interrupt.
        // SAFETY: a child that was not waited for.
        unsafe { libc::kill(program.id() as libc::pid_t, libc::SIGINT) };
        primary.info("clients")["blocked_clients"] == "0"
    });
    let last = lines.next().expect("its last line");
    assert!(last.starts_with("stopped: BLPOP was cancelled, and has taken nothing"), "{last}");
    assert_eq!(program.wait().expect("it ends by itself").code(), Some(0));
}

/// Laptops and CI run the program that will ship: only the URI differs.
#[test]
fn each_example_runs_on_a_primary_without_sentinels() {
    let nodes = Deployment::new("examples-fixed").replicas(1).sentinels(0).start();
    let (primary, replica) = (nodes.node("mymaster-0"), nodes.node("mymaster-1"));
    let uri = format!("redis://{}?replica.addrs={}", primary.addr(), replica.addr());
    assert!(output_of("hello", &uri).starts_with("the replica says: "));
    assert_eq!(primary.cmd(&["GET", "greeting"]).text(), "hello");
    assert!(output_of("split", &uri).contains("\nthe primary says: 1 visits\n"));
    assert_eq!(output_of("pipeline", &uri).lines().count(), 5);
    assert!(output_of("threads", &uri).ends_with(" 0 wrong\n"));
    assert_eq!(output_of("submit", &uri), "10000 calls, 0 failed\n");
}

#[test]
fn admin_loop_asks_the_sentinels_without_a_thread_that_waits() {
    let deployment = Deployment::new("admin-loop").services(["orders", "users"]).replicas(0).start();
    let uri = format!("redis-sentinel://{}", deployment.sentinel_addrs().join(","));
    let output = output_of("admin_loop", &uri);
    for name in ["orders", "users"] {
        let primary = format!("{name}: primary {}\n", deployment.primary(name));
        let quorum = format!("{name}: a failover could be carried out, say 3 of 3 Sentinels\n");
        assert!(output.contains(&primary) && output.contains(&quorum), "{output}");
    }
}

/// The next user, one that the server refuses, and back.
#[test]
fn credentials_change_together_while_the_program_runs() {
    let deployment = Deployment::new("credentials-example").replicas(0).sentinels(1).quorum(1).start();
    let node = deployment.primary_node("mymaster");
    for (user, password) in [("ada", ">one"), ("bea", ">two")] {
        node.cmd(&["ACL", "SETUSER", user, "on", password, "~*", "&*", "+@all"]);
    }
    let uri = deployment.sentinel_uri().replacen("://", "://ada:one@", 1);
    let mut program = Command::new(compiled("credentials"));
    let mut program = program.arg(&uri).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let lines = b"bea two\nada wrong\nada one\n";
    std::io::Write::write_all(&mut program.stdin.take().expect("piped"), lines).expect("it reads");
    let output = program.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(told, "at first: ada\nnow: bea\nnow: refused\nagain: bea\nnow: ada\n");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn metrics_prints_what_prometheus_scrapes() {
    let deployment = Deployment::new("metrics-example").start();
    let output = output_of("metrics", &deployment.sentinel_uri());
    for line in [
        "# TYPE vigie_calls_total counter\n",
        "vigie_calls_total{service=\"mymaster\",target=\"primary\"} 100\n",
        "vigie_sentinels 3\n",
        "# TYPE vigie_round_trip_seconds histogram\n",
    ] {
        assert!(output.contains(line), "{line} in {output}");
    }
    assert_eq!(deployment.primary_node("mymaster").calls("incr"), 100);
}

/// The example has no client: its own requests must be enough to be told of the failover.
#[test]
fn events_tells_of_a_failover() {
    let deployment = Deployment::new("events").start();
    let mut program = Command::new(compiled("events"));
    let mut program = program.arg(deployment.sentinel_uri()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(program.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "watching"), "it ended before that");
    let old = deployment.failover("mymaster");
    let switched = format!("topology  mymaster: {} -> ", old.addr());
    let told: Vec<String> = lines.collect();
    assert_eq!(program.wait().expect("it ends by itself").code(), Some(0));
    // Other events of the same drain, such as the end of the fence, may be printed after it.
    assert_eq!(told.iter().filter(|line| line.starts_with(&switched)).count(), 1, "{told:?}");
    assert!(told.iter().any(|line| line.starts_with("fence     mymaster: writes are held back")), "{told:?}");
}

#[test]
fn log_tells_of_a_failover() {
    let deployment = Deployment::new("log").start();
    let mut program = Command::new(compiled("log"));
    let program = program.arg(deployment.sentinel_uri()).args(["1", "json"]).stdout(Stdio::piped());
    let mut program = program.spawn().expect("it starts");
    let mut lines = BufReader::new(program.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let listens = |line: &String| line.contains(r#""message":"the Sentinel is listened to""#);
    assert_eq!(lines.by_ref().filter(listens).take(3).count(), 3, "all Sentinels");
    deployment.failover("mymaster");
    let told: Vec<String> = lines.collect();
    assert_eq!(program.wait().expect("it ends by itself").code(), Some(0));
    assert!(told.iter().all(|line| line.starts_with(r#"{"time":""#) && line.ends_with('}')), "{told:#?}");
    for message in ["writes are held back", "the service has another primary", "writes pass again"] {
        assert!(told.iter().any(|line| line.contains(message)), "{message} in {told:#?}");
    }
}

#[test]
fn subscribe_hears_messages_of_channels_and_patterns_through_a_failover() {
    let deployment = Deployment::new("subscribe").start();
    let mut program = Command::new(compiled("subscribe"));
    let program = program.arg(deployment.sentinel_uri()).args(["3", "news", "sport.*"]);
    let mut program = program.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(program.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let mut next = || lines.next().expect("it goes on");
    let mut listening = [next(), next()];
    listening.sort();
    assert_eq!(listening, ["listening news", "listening sport.*"]);
    let old = deployment.primary_node("mymaster");
    assert_eq!(old.cmd(&["PUBLISH", "news", "one"]), support::Value::Int(1));
    assert_eq!(old.cmd(&["PUBLISH", "sport.ski", "two"]), support::Value::Int(1));
    assert_eq!([next(), next()], ["message   news: one", "message   sport.ski: two (by sport.*)"]);
    old.kill();
    let new = deployment.wait_switched("mymaster", &old);
    let at = format!(" ms, now at {} (", new.addr());
    while !next().contains(&at) {}
    assert_eq!(new.cmd(&["PUBLISH", "news", "three"]), support::Value::Int(1));
    assert_eq!(next(), "message   news: three");
    assert_eq!(program.wait().expect("it ends by itself").code(), Some(0));
}

/// Without a primary to kill, the demo is a short load, and says that nothing was lost.
#[test]
fn demo_runs_without_a_kill() {
    let deployment = Deployment::new("demo-calm").start();
    let output = run(Command::new(compiled("demo")).arg(deployment.sentinel_uri()).arg("3"));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(
        text.contains("\n  lost                    0\n") && text.contains("\n  executed twice          0\n"),
        "{text}"
    );
    assert!(text.contains("progress") && text.contains(&deployment.primary("mymaster")), "{text}");
}

#[test]
fn demo_survives_the_kill_of_the_primary() {
    let deployment = Deployment::new("demo-kill").start();
    let victim = deployment.primary_node("mymaster");
    let mut demo = Command::new(compiled("demo"));
    let output = run(demo.arg(deployment.sentinel_uri()).arg("12").arg(victim.pid().to_string()));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("KILL") && text.contains("service back"), "{text}");
    let successor = deployment.wait_switched("mymaster", &victim);
    assert!(text.contains(&format!("primary {}", successor.addr())), "the new address was not shown:\n{text}");
    assert!(text.contains(", 1 of "), "the replica that follows the new primary was not noticed:\n{text}");
}

/// The demo's verdict is only worth something if it can be bad.
#[test]
fn demo_fails_when_the_service_does_not_come_back() {
    let deployment = Deployment::new("demo-gone").replicas(0).start();
    let victim = deployment.primary_node("mymaster").pid().to_string();
    let output =
        Command::new(compiled("demo")).args([&deployment.sentinel_uri(), "4", &victim]).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("FAILED: the service did not come back") || text.contains("could not be read back"),
        "{text}"
    );
}

#[test]
fn demo_fails_when_an_acknowledged_write_is_missing() {
    let deployment = Deployment::new("demo-lost").start();
    let mut demo = Command::new(compiled("demo"));
    let demo = demo.args([&deployment.sentinel_uri(), "3"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let primary = deployment.primary_node("mymaster");
    let written = || primary.cmd(&["LLEN", "demo:2"]).int().is_some_and(|count| count > 100);
    support::eventually("the demo's writes", Duration::from_secs(20), written);
    primary.cmd(&["DEL", "demo:2"]);
    let output = demo.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("FAILED: acknowledged writes are missing"), "{text}");
}

/// Ctrl-C reaches the whole group of processes, as in a terminal.
#[test]
fn the_demo_script_leaves_nothing_behind_on_ctrl_c() {
    let temporary = fresh_dir("demo-ctrl-c");
    let mut script = Command::new(root().join("scripts/demo"));
    // Long enough that the demo does not end while a slow machine looks for a primary.
    script.args([Prefix::shared().root.as_path(), "40".as_ref()]).env("TMPDIR", &temporary).process_group(0);
    script.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut script = script.spawn().expect("it starts");
    let mut lines = BufReader::new(script.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("KILL")), "the primary was not killed");
    assert!(lines.any(|line| line.contains("1 of 2 replicas fit")), "the demo did not go on");
    let group = i32::try_from(script.id()).expect("a pid");
    // SAFETY: only signals the group of the child, which has not been waited for.
    assert_eq!(unsafe { libc::kill(-group, libc::SIGINT) }, 0);
    let rest: Vec<String> = lines.collect();
    assert_eq!(script.wait().expect("it ends").code(), Some(130), "{rest:#?}");
    let mut noise = String::new();
    script.stderr.take().expect("piped").read_to_string(&mut noise).expect("text");
    assert_eq!(noise, "", "the shell says something");
    assert_eq!(std::fs::read_dir(&temporary).expect("it is ours").count(), 0, "files are left in {temporary:?}");
    // SAFETY: signal 0 only asks whether anybody is left in the group.
    assert_eq!(unsafe { libc::kill(-group, 0) }, -1, "processes are left");
}

#[cfg(feature = "tls")]
#[test]
fn tls_shows_a_certificate_and_says_what_a_failure_means() {
    let (ca, other) = (support::Ca::new(), support::Ca::new());
    let plan = support::TlsPlan { ca: ca.file(), pair: ca.local("server"), wants_clients: true };
    let d = Deployment::new("example-tls").tls(plan.clone()).sentinel_tls(plan).start();
    let uri = d.sentinel_uri().replacen("redis-", "rediss-", 1);
    let (mine, program) = (ca.encrypt(&ca.local("mine"), "sesame"), compiled("tls"));
    let of = |words: &[&str]| {
        let output = Command::new(&program).arg(&uri).args(words).output().expect("it starts");
        let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
        (output.status.code(), text)
    };
    let whole = [&*ca.file(), &mine.cert, &mine.key, "sesame"].map(str::to_owned);
    let whole: Vec<&str> = whole.iter().map(String::as_str).collect();
    assert_eq!(of(&whole), (Some(0), "over TLS: visit 1\n".to_owned()));
    for (words, told) in [
        (&whole[..1], "TLS failed, and the message says what to change: "),
        (&whole[..3], "the configuration or its files are no use: option \"tls.key\": "),
        (&[&*other.file()], "TLS failed, and the message says what to change: "),
    ] {
        let (code, text) = of(words);
        assert!(code == Some(1) && text.starts_with(told), "{text}");
    }
}

#[test]
fn examples_explain_what_is_wrong() {
    for (name, uri, word) in [
        ("hello", "redis-sentinel://127.0.0.1:1/mymaster", "VIGIE_ERR_NO_SENTINEL: "),
        ("split", "nonsense", "VIGIE_ERR_CONFIG: "),
        ("pipeline", "redis-sentinel://127.0.0.1:99999/mymaster", "VIGIE_ERR_CONFIG: "),
        ("threads", "redis-sentinel://127.0.0.1:1/mymaster", "VIGIE_ERR_NO_SENTINEL: "),
        ("events", "redis-sentinel://127.0.0.1:1/mymaster", "VIGIE_ERR_NO_SENTINEL: "),
        ("subscribe", "", "VIGIE_ERR_CONFIG: "),
        ("demo", "", "VIGIE_ERR_CONFIG: "),
        ("sentinel_admin", "redis-sentinel://127.0.0.1:1", "VIGIE_ERR_NO_SENTINEL: "),
        ("admin_loop", "", "VIGIE_ERR_CONFIG: "),
        ("credentials", "redis-sentinel://127.0.0.1:1/mymaster", "VIGIE_ERR_NO_SENTINEL: "),
        ("sentinel_admin", "redis://127.0.0.1:1", "VIGIE_ERR_NO_PRIMARY: "),
        ("hello", "redis://127.0.0.1:1", "VIGIE_ERR_NO_PRIMARY: "),
        ("hello", "rediss://127.0.0.1:1", "VIGIE_ERR_NO_PRIMARY: "),
    ] {
        let output = Command::new(compiled(name)).arg(uri).output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name} {uri}: {text}");
        assert!(text.contains(word), "{name} {uri}: {text}");
    }
}

#[test]
fn shards_are_one_client() {
    let d = Deployment::new("example-shards").services(["a", "b", "c"]).replicas(0).sentinels(0).start();
    let uris = ["a-0", "b-0", "c-0"].map(|node| format!("redis://{}", d.node(node).addr()));
    let output = run(Command::new(compiled("shards")).args(&uris));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let output = String::from_utf8(output.stdout).expect("text");
    let wanted = "a is on node_1\nhello is on node_2\nfoo is on node_3\nfoo\na\nhello\nPFMERGE needs all of its keys on one shard: ";
    assert!(output.starts_with(wanted), "{output}");
    assert!(["a-0", "b-0", "c-0"].iter().all(|node| d.node(node).cmd(&["DBSIZE"]) == support::Value::Int(0)));
}

/// C leaves it open whether the arguments of a call are evaluated from the left or from the right.
#[test]
fn no_program_passes_an_error_on_in_the_call_that_makes_it() {
    for name in ["shards", "shards_hash"] {
        let output = Command::new(compiled(name)).args(["no-uri"; 3]).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains("node_1"), "{name}: {text}");
    }
    let files = ["examples-c", "benches", "docs", "tests/c"].map(|dir| std::fs::read_dir(root().join(dir)).expect(dir));
    let files = files.into_iter().flatten().map(|entry| entry.expect("an entry").path());
    for path in files.filter(|path| path.is_file()).chain([root().join("README.md"), root().join("include/vigie.h")]) {
        let text = std::fs::read_to_string(&path).expect("text");
        for name in ["err", "error"] {
            for (at, made) in text.match_indices(&format!("&{name}),")) {
                let next = text[at + made.len()..].trim_start();
                let passed = next
                    .strip_prefix(name)
                    .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'));
                assert!(!passed, "{}: {}", path.display(), text[..at].lines().last().unwrap_or_default());
            }
        }
    }
}

#[test]
fn shards_by_a_hash_of_the_program() {
    let d = Deployment::new("example-shards-hash").services(["a", "b", "c"]).replicas(0).sentinels(0).start();
    let nodes = ["a-0", "b-0", "c-0"].map(|node| d.node(node));
    let output = run(
        Command::new(compiled("shards_hash")).args(nodes.each_ref().map(|node| format!("redis://{}", node.addr())))
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let output = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..3], ["user:0 is on node_1: 1", "user:1 is on node_2: 3", "user:2 is on node_3: 3"], "{output}");
    assert!(
        lines[3].contains("gave shard 3 for 'nobody', and there are 3: it gives 0 to 2; nothing was sent"),
        "{output}"
    );
    assert_eq!(lines[4], "of 2 shards user:2 is on node_1");
    for (at, (node, stored)) in nodes.iter().zip(["1", "3", "3"]).enumerate() {
        assert_eq!(node.cmd(&["KEYS", "*"]), support::Value::texts([format!("user:{at}")]), "on its shard alone");
        assert_eq!(node.cmd(&["GET", &format!("user:{at}")]).text(), stored, "and not overwritten by what was refused");
    }
}
