//! vigie-doctor: what it finds at healthy deployments and at others, its exit status, and its timeline.

use crate::calls::SERVICE;
use crate::support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use support::*;

const SOON: Duration = Duration::from_secs(20);

fn doctor() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vigie-doctor"))
}

/// What it says, and its exit status.
struct Said {
    status: i32,
    text: String,
    errors: String,
}

fn ask(uri: &str, options: &[&str]) -> Said {
    let Output { status, stdout, stderr } = doctor().arg(uri).args(options).output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Said { status: status.code().expect("it ends by itself"), text: text(stdout), errors: text(stderr) }
}

impl Said {
    /// The lines that begin with this severity and this code.
    fn lines(&self, severity: &str, code: &str) -> Vec<&str> {
        let is_it = |line: &&str| {
            let mut words = line.split_whitespace();
            words.next() == Some(severity) && words.next() == Some(code)
        };
        self.text.lines().filter(is_it).collect()
    }

    #[track_caller]
    fn has(&self, severity: &str, code: &str, part: &str) {
        let found = self.lines(severity, code);
        assert!(
            found.iter().any(|line| line.contains(part)),
            "{severity} {code} {part} in\n{}{}",
            self.text,
            self.errors
        );
    }

    #[track_caller]
    fn count(&self, severity: &str, code: &str) -> usize {
        self.lines(severity, code).len()
    }
}

fn uri(sentinels: &[FakeSentinel]) -> String {
    let addrs: Vec<String> = sentinels.iter().map(|one| one.addr()).collect();
    // Scripted servers answer slowly on a loaded machine.
    format!("redis-sentinel://{}/{SERVICE}?timeout.sentinel=5s&timeout.connect=5s", addrs.join(","))
}

#[test]
fn a_healthy_deployment_has_nothing_to_complain_about_until_something_is_wrong() {
    let d = Deployment::new("doctor").start();
    let uri = d.sentinel_uri();
    let fine = ask(&uri, &[]);
    assert_eq!(fine.status, 0, "{}{}", fine.text, fine.errors);
    fine.has("ok", "sentinels", "3 of 3 Sentinels answer and count");
    fine.has("ok", "quorum", "3 usable Sentinels");
    fine.has("ok", "primary", &d.primary(SERVICE));
    fine.has("ok", "candidates", "2 of 2 replicas");
    fine.has("note", "min_replicas_zero", "min-replicas-to-write is 0");
    assert!(fine.text.ends_with("0 faults, 0 warnings, 1 notes\n"), "{}", fine.text);
    let json = ask(&uri, &["--json"]);
    let head = r#"{"version":"0.1.0","status":0,"faults":0,"warnings":0,"notes":1,"findings":[{"severity":"ok","#;
    assert!(json.status == 0 && json.text.starts_with(head) && json.text.ends_with("]}\n"), "{}", json.text);
    // Without a service all are looked at.
    let all = ask(&format!("redis-sentinel://{}", d.sentinel_addrs().join(",")), &[]);
    all.has("ok", "primary", &format!("{SERVICE}: the primary is"));

    // No replica may be promoted, and one has died.
    let replicas = d.replica_nodes(SERVICE);
    d.sentinel_debug("info-period", 100);
    for replica in &replicas {
        replica.cmd(&["CONFIG", "SET", "replica-priority", "0"]);
    }
    d.primary_node(SERVICE).cmd(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    eventually("the Sentinels know the priorities", SOON, || ask(&uri, &[]).count("note", "priority_zero") == 2);
    let stuck = ask(&uri, &[]);
    stuck.has("fault", "no_candidate", "none of 2 replicas");
    stuck.has("ok", "min_replicas", "min-replicas-to-write is 1");
    assert_eq!(stuck.status, 2);
    replicas[0].cmd(&["CONFIG", "SET", "replica-priority", "100"]);
    replicas[1].kill();
    d.wait_s_down(SERVICE, &replicas[1]);
    let degraded = ask(&uri, &[]);
    degraded.has("warning", "replica_down", &replicas[1].addr());
    degraded.has("ok", "candidates", "1 of 2 replicas");
    assert_eq!(degraded.status, 1, "{}", degraded.text);

    // Credentials that the nodes refuse; the Sentinels go on answering.
    let refused = ask(&uri, &["--set", "auth.password=no-s3cret", "--set", "auth.username=nobody"]);
    refused.has("fault", "no_primary", "no primary was found");
    assert!(refused.status == 2 && !refused.text.contains("no-s3cret"), "{}", refused.text);
}

#[test]
fn a_user_without_permissions_is_told_what_it_lacks() {
    let d = Deployment::new("doctor-acl").replicas(1).start();
    let rights = ["ACL", "SETUSER", "eve", "on", ">pw", "~*", "&*", "+@all", "-config"];
    for node in d.data_nodes(SERVICE) {
        node.cmd(&rights);
    }
    let said = ask(&d.sentinel_uri(), &["--set", "auth.username=eve", "--set", "auth.password=pw"]);
    said.has("note", "node_permissions", "CONFIG GET min-replicas-to-write");
    assert_eq!(said.status, 0, "{}", said.text);
}

#[test]
fn sentinels_that_could_not_carry_out_a_failover_are_faults() {
    let (p, r) = (Scripted::primary(), refuse());
    let three = Scripted::sentinels(3, SERVICE, &p.addr());
    for one in &three {
        one.service(SERVICE, |state| state.add_replica(&r.addr()));
        one.fault("SENTINEL CKQUORUM", Fault::Error("NOQUORUM 1 usable Sentinels. Not enough".into()));
    }
    three[1].service(SERVICE, |state| state.quorum = 3);
    three[2].state(|state| state.tilt = true);
    // One that nobody finds any more.
    three[0].service(SERVICE, |state| state.add_peer(&refuse().addr()));
    let said = ask(&uri(&three), &[]);
    said.has("fault", "no_quorum", "NOQUORUM 1 usable");
    said.has("warning", "settings_differ", "quorum differs");
    said.has("warning", "tilt", &three[2].addr());
    said.has("warning", "dead_sentinels", "counts 4 Sentinels, of which 3 answer");
    said.has("warning", "sentinel_unreachable", "gives no answer");
    said.has("warning", "node_unreachable", &r.addr());
    assert_eq!(said.status, 2, "{}", said.text);
}

#[test]
fn strangers_two_names_and_too_few_are_told() {
    let (p, q) = (Scripted::primary(), Scripted::primary());
    let mine = Scripted::sentinels(2, SERVICE, &p.addr());
    let others = Scripted::sentinels(1, SERVICE, &q.addr());
    let port = mine[0].port();
    let both = format!(
        "redis-sentinel://127.0.0.1:{port},localhost:{port},{},{}/{SERVICE}?timeout.sentinel=5s&timeout.connect=5s",
        mine[1].addr(),
        others[0].addr()
    );
    let said = ask(&both, &[]);
    said.has("note", "two_names", &format!("127.0.0.1:{port} and localhost:{port} are one Sentinel"));
    said.has("fault", "stranger", &others[0].addr());
    said.has("fault", "no_replica", "there is no replica");
    assert_eq!(said.status, 2, "{}", said.text);
}

/// Three Sentinels that know each other, and the primary that they watch.
fn three() -> (FakeNode, Vec<FakeSentinel>) {
    let primary = Scripted::primary();
    let watch = Scripted::sentinels(3, SERVICE, &primary.addr());
    (primary, watch)
}

#[test]
fn sentinels_that_disagree_or_know_less_are_told() {
    let (p, watch) = three();
    let others = [Scripted::primary(), Scripted::primary()];
    for (one, other) in watch.iter().zip(&others) {
        one.service(SERVICE, |state| (state.host, state.port) = fake_sentinel::split(&other.addr()));
    }
    let said = ask(&uri(&watch), &[]);
    said.has("fault", "sentinels_disagree", &p.addr());
    said.has("fault", "no_primary", "no primary was found");
    let (_p, watch) = three();
    watch[1].state(|state| state.services.clear());
    watch[2].fault("SENTINEL SENTINELS", Fault::Error("NOPERM this user has no permissions".into()));
    watch[0].service(SERVICE, |state| (state.quorum, state.down_after) = (1, 30_000));
    watch[2].service(SERVICE, |state| (state.quorum, state.down_after) = (1, 30_000));
    watch[0].fault("SENTINEL CKQUORUM", Fault::Error("NOPERM this user has no permissions".into()));
    watch[0].fault("INFO", Fault::Reply(Value::bulk("# Server\r\nredis_version:5.0.14\r\n")));
    let said = ask(&uri(&watch), &[]);
    said.has("warning", "service_unknown", &watch[1].addr());
    said.has("warning", "sentinel_permissions", &watch[2].addr());
    said.has("warning", "down_after_long", "down-after-milliseconds is 30000");
    said.has("note", "quorum_one", "quorum is 1");
    said.has("note", "not_asked", &watch[0].addr());
    said.has("note", "versions", "the Sentinels run Redis 5.0.14");
    for (count, what) in [(1, "there is one Sentinel"), (2, "there are two Sentinels")] {
        let primary = Scripted::primary();
        let few = Scripted::sentinels(count, SERVICE, &primary.addr());
        few.iter().for_each(|one| one.service(SERVICE, |state| state.down_after = 200));
        let said = ask(&uri(&few), &[]);
        said.has("warning", "few_sentinels", what);
        said.has("warning", "down_after_short", "down-after-milliseconds is 200");
    }
    let empty = Scripted::sentinel(SERVICE, &refuse().addr());
    empty.state(|state| state.services.clear());
    let said = ask(&format!("redis-sentinel://{}?timeout.sentinel=5s", empty.addr()), &[]);
    said.has("fault", "no_service", "the Sentinels watch no service");
    assert_eq!(said.status, 2);
}

#[test]
fn replicas_that_are_not_what_they_should_be_are_told() {
    let (p, watch) = three();
    let of = |role| Scripted::node_on(Listen::V4, role);
    let cut = of(FakeRole::replica_linked(&p.addr(), "connect"));
    let doubted = Scripted::replica(&p.addr());
    let promoted = Scripted::primary();
    let shut = Scripted::replica(&p.addr());
    shut.state(|state| state.door.login = Some(Login::password("other")));
    let replicas = [&cut, &doubted, &promoted, &shut];
    for one in &watch {
        replicas.iter().for_each(|replica| one.service(SERVICE, |state| state.add_replica(&replica.addr())));
    }
    // The Sentinels have not heard yet that its link is up again.
    watch.iter().for_each(|one| one.service(SERVICE, |state| state.replicas[1].link = "err".into()));
    let said = ask(&uri(&watch), &[]);
    said.has("warning", "replica_link", &cut.addr());
    said.has("note", "replica_unfit", &doubted.addr());
    said.has("warning", "wrong_role", &promoted.addr());
    said.has("warning", "node_refuses", &shut.addr());
    // It knows no CONFIG.
    said.has("note", "not_asked", &p.addr());
    assert_eq!(said.status, 1, "{}", said.text);
}

/// Sentinels elsewhere that announce what leads each host to itself.
#[test]
fn a_node_that_is_announced_as_the_local_host_is_a_fault() {
    let (p, watch) = three();
    let at = |one: &FakeSentinel| format!("10.255.255.1:{}", one.port());
    let addrs: Vec<String> = watch.iter().map(at).collect();
    let map: Vec<String> = watch.iter().map(|one| format!("{}={}", at(one), one.addr())).collect();
    let uri = format!("redis-sentinel://{}/{SERVICE}?timeout.sentinel=5s&timeout.connect=5s", addrs.join(","));
    let said = ask(&uri, &["--set", &format!("address.map={}", map.join(","))]);
    said.has("fault", "announced_loopback", &p.addr());
}

#[cfg(feature = "tls")]
#[test]
fn certificates_that_end_soon_or_are_over_are_told() {
    let ca = Ca::new();
    let lasting = |name: &str| ca.sign(name, 400, Some(certs::LOCAL));
    let primary = Scripted::primary();
    let replica = Scripted::replica(&primary.addr());
    let fine = TlsDoor::open(&primary.addr(), &lasting("fine"));
    let over = TlsDoor::open(&replica.addr(), &ca.expired("over"));
    let watch = Scripted::sentinels(1, SERVICE, &fine.addr());
    watch[0].service(SERVICE, |state| state.add_replica(&over.addr()));
    let ending = TlsDoor::open(&watch[0].addr(), &ca.sign("ending", 20, Some(certs::LOCAL)));
    let uri = format!("rediss-sentinel://{}/{SERVICE}?timeout.sentinel=5s&timeout.connect=5s", ending.addr());
    let ca_file = format!("tls.ca={}", ca.file());
    let own = ca.expired("own");
    let (cert, key) = (format!("tls.cert={}", own.cert), format!("tls.key={}", own.key));
    let said = ask(&uri, &["--set", &ca_file, "--set", &cert, "--set", &key]);
    said.has("ok", "certificate", &format!("the primary {} is valid until", fine.addr()));
    said.has("warning", "node_tls", "has expired");
    said.has("warning", "certificate_ends", &format!("the Sentinel {} is valid until", ending.addr()));
    said.has("warning", "certificate_ends", "for 19 more days");
    said.has("fault", "certificate_over", &format!("this program ({}) was valid until", own.cert));
    assert_eq!((said.status, said.count("fault", "certificate_over")), (2, 1), "{}", said.text);
    // Who checks nothing is connected to it, and told.
    let late = TlsDoor::open(&primary.addr(), &ca.expired("late"));
    watch[0].service(SERVICE, |state| (state.host, state.port) = fake_sentinel::split(&late.addr()));
    let said = ask(&uri, &["--set", "tls.verify=none", "--set", &format!("sentinel.{ca_file}")]);
    said.has("warning", "tls_not_verified", "`tls.verify`");
    said.has("fault", "certificate_over", &format!("the primary {} was valid until", late.addr()));
}

#[test]
fn who_cannot_look_says_why() {
    let nobody = format!("redis-sentinel://{}/{SERVICE}", refuse().addr());
    for (arguments, part) in [
        (vec![nobody.as_str(), "--timeout", "0.2"], "VIGIE_ERR_NO_SENTINEL"),
        (vec!["redis-sentinel://h/m?no.such=1"], "no.such"),
        (vec!["redis-sentinel://h/m", "--force-failover"], "--yes"),
        (vec!["redis-sentinel://h/m", "--watc"], "unknown option --watc"),
        (vec!["redis-sentinel://h/m", "--set", "auth.password"], "KEY=VALUE"),
        (vec![], "no URI"),
    ] {
        let output = doctor().args(&arguments).output().expect("it starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(3) && told.contains(part), "{arguments:?}: {output:?}");
    }
    let help = doctor().arg("--help").output().expect("it starts");
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("--force-failover"));
}

#[test]
fn a_failover_is_started_only_on_purpose_and_the_timelines_show_it() {
    let d = Deployment::new("doctor-live").start();
    let mut watching = doctor().arg(d.sentinel_uri()).arg("--watch").stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(watching.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let up = |line: &String| line.contains("the Sentinel is listened to");
    assert_eq!(lines.by_ref().filter(up).take(3).count(), 3);
    let old = d.primary(SERVICE);
    let forced = ask(&d.sentinel_uri(), &["--force-failover", "--yes"]);
    assert_eq!(forced.status, 0, "{}{}", forced.text, forced.errors);
    assert!(forced.errors.contains(&format!("{SERVICE} has moved from {old} to ")), "{}", forced.errors);
    for part in ["writes are held back", "the service has another primary", "writes pass again"] {
        assert!(forced.text.contains(part), "{part} in {}", forced.text);
    }
    // The other one goes on until it is ended, and has seen the same.
    assert!(
        lines.any(|line| line.contains("the service has another primary") && line.contains(&format!("from={old}")))
    );
    watching.kill().expect("it runs");
    watching.wait().expect("it ends");
}

/// A page that shows what the program does not say misleads.
#[test]
fn the_page_shows_what_the_program_says() {
    let page = std::fs::read_to_string(crate::installed::root().join("docs/doctor.md")).expect("docs/doctor.md");
    let sources: String = ["main.rs", "sentinels.rs", "nodes.rs", "certificates.rs"]
        .iter()
        .map(|file| std::fs::read_to_string(crate::installed::root().join("doctor").join(file)).expect("a source"))
        .collect();
    let example = page.split("```\n").nth(1).expect("an example");
    let heads: Vec<(&str, &str)> = example
        .lines()
        .filter(|line| !line.starts_with(' ') && !line.starts_with('$'))
        .filter_map(|line| line.split_once(' ').map(|(severity, rest)| (severity, rest.trim_start())))
        .collect();
    assert!(heads.len() > 5, "{heads:?}");
    for (severity, rest) in heads.iter().filter(|(severity, _)| severity.parse::<u32>().is_err()) {
        assert!(["ok", "note", "warning", "fault"].contains(severity), "{severity}");
        let code = rest.split(' ').next().expect("a code");
        assert!(sources.contains(&format!("\"{code}\"")), "{code} is never said");
    }
    // Each thing that may be complained about has a test in this file.
    let tests = include_str!("doctor.rs");
    let listed = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    for (code, _) in listed {
        assert!(tests.contains(&format!("\"{code}\"")), "no test shows {code}");
    }
    // Each thing that may be complained about is explained.
    let codes = sources.split('"').filter(|part| page.contains(&format!("| `{part}` |"))).count();
    let rows = page.lines().filter(|line| line.starts_with("| `")).count();
    assert!(codes >= rows, "the table has codes that are never said: {rows} rows, {codes} codes");
}
