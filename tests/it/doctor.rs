//! vigie-doctor: what it finds at healthy deployments and at others, its exit status, and its timeline.

use crate::calls::SERVICE;
use crate::support;

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
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
    let d = Deployment::new("doctor").conf("save 3600 1").failover_timeout(60_000).start();
    let uri = d.sentinel_uri();
    let fine = ask(&uri, &[]);
    assert_eq!(fine.status, 0, "{}{}", fine.text, fine.errors);
    fine.has("ok", "sentinels", "3 of 3 Sentinels answer and count");
    fine.has("ok", "quorum", "3 usable Sentinels");
    fine.has("ok", "primary", &d.primary(SERVICE));
    fine.has("ok", "candidates", "2 of 2 replicas could be promoted");
    assert!(!fine.text.contains("by the word of the Sentinels"), "{}", fine.text);
    fine.has("ok", "persistence", "save points");
    fine.has("note", "min_replicas_zero", "min-replicas-to-write is 0");
    assert!(fine.text.ends_with("0 faults, 0 warnings, 1 note\n"), "{}", fine.text);
    let json = ask(&uri, &["--json"]);
    let head = r#"{"version":"0.1.0","status":0,"faults":0,"warnings":0,"notes":1,"findings":[{"severity":"ok","#;
    assert!(json.status == 0 && json.text.starts_with(head) && json.text.ends_with("]}\n"), "{}", json.text);
    // Without a service all are looked at.
    let all = ask(&format!("redis-sentinel://{}", d.sentinel_addrs().join(",")), &[]);
    all.has("ok", "primary", &format!("{SERVICE}: the primary is"));

    // A replica of a replica, and a primary that would come back empty.
    let replicas = d.replica_nodes(SERVICE);
    let (host, port) = (replicas[0].host().to_owned(), replicas[0].port().to_string());
    let follow = |host: &str, port: &str| {
        replicas[1].cmd(&["REPLICAOF", host, port]);
        eventually("it is linked to the node that it is to follow", SOON, || {
            let info = replicas[1].info("replication");
            info["master_port"] == port && info["master_link_status"] == "up"
        });
    };
    follow(&host, &port);
    d.primary_node(SERVICE).cmd(&["CONFIG", "SET", "save", ""]);
    let chained = ask(&uri, &["--set", "write.replicas=2"]);
    let edge = format!("the replica {} follows {}, which is a replica itself", replicas[1].addr(), replicas[0].addr());
    chained.has("warning", "replica_chained", &edge);
    chained.has("fault", "write_options", "asks for 2; 1 of 2");
    chained.has("warning", "no_persistence", &d.primary(SERVICE));
    let chained = ask(&uri, &[]);
    assert_eq!((chained.status, chained.count("warning", "replica_chained")), (1, 1), "{}", chained.text);
    d.primary_node(SERVICE).cmd(&["CONFIG", "SET", "appendonly", "yes"]);
    follow(d.primary_node(SERVICE).host(), &d.primary_node(SERVICE).port().to_string());
    ask(&uri, &[]).has("ok", "persistence", "an append-only file");

    // No replica may be promoted, which the Sentinels do not know yet, and one takes writes. Then one has died.
    replicas.iter().for_each(|replica| _ = replica.cmd(&["CONFIG", "SET", "replica-priority", "0"]));
    replicas[0].cmd(&["CONFIG", "SET", "replica-read-only", "no"]);
    d.primary_node(SERVICE).cmd(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let stuck = ask(&uri, &[]);
    assert_eq!(stuck.count("note", "priority_zero"), 2, "{}", stuck.text);
    stuck.has("warning", "replica_writable", &replicas[0].addr());
    assert_eq!(stuck.count("warning", "replica_writable"), 1, "{}", stuck.text);
    replicas[0].cmd(&["CONFIG", "SET", "replica-read-only", "yes"]);
    stuck.has("fault", "no_candidate", "none of 2 replicas");
    stuck.has("ok", "min_replicas", "min-replicas-to-write is 1");
    assert_eq!(stuck.status, 2);
    replicas[0].cmd(&["CONFIG", "SET", "replica-priority", "100"]);
    replicas[1].kill();
    d.wait_s_down(SERVICE, &replicas[1]);
    let degraded = ask(&uri, &[]);
    degraded.has("warning", "replica_down", &replicas[1].addr());
    degraded.has("warning", "replica_down", "refused");
    degraded.has("ok", "candidates", "1 of 2 replicas");
    assert_eq!(degraded.status, 1, "{}", degraded.text);

    // Credentials that the nodes refuse; the Sentinels go on answering.
    let refused = ask(&uri, &["--set", "auth.password=no-s3cret", "--set", "auth.username=nobody"]);
    refused.has("fault", "node_refuses", &d.primary(SERVICE));
    assert_eq!(refused.count("fault", "no_primary") + refused.count("fault", "no_replica"), 0, "{}", refused.text);
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
    assert_eq!((said.status, said.count("note", "node_permissions")), (0, 1), "{}", said.text);
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
    assert_eq!((said.count("fault", "no_quorum"), said.count("ok", "quorum")), (1, 0), "{}", said.text);
    said.has("warning", "settings_differ", "quorum differs");
    said.has("warning", "tilt", &three[2].addr());
    said.has("warning", "dead_sentinels", "counts 4 Sentinels, of which 3 answer");
    said.has("warning", "sentinel_unreachable", "gives no answer");
    said.has("warning", "node_unreachable", &r.addr());
    assert!(said.text.contains("behind NAT"), "{}", said.text);
    assert_eq!(said.status, 2, "{}", said.text);
    // Where they contradict each other, it is told who says what.
    let enough = Value::Simple("OK 3 usable Sentinels. Quorum and failover authorization can be reached".into());
    three[1..].iter().for_each(|one| one.fault("SENTINEL CKQUORUM", Fault::Reply(enough.clone())));
    let said = ask(&uri(&three), &[]);
    said.has("fault", "no_quorum", &format!("says the Sentinel {}: NOQUORUM", three[0].addr()));
    let mut whose = [three[1].addr(), three[2].addr()];
    whose.sort();
    said.has("ok", "quorum", &format!("can be reached, says the Sentinel {}", whose.join(", ")));
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
    assert!(!said.text.contains("of another deployment: of another deployment"), "{}", said.text);
    // One of each: which is meant is not known, and none of them is to be reset or set.
    let mine = Scripted::sentinels(1, SERVICE, &p.addr());
    others[0].service(SERVICE, |state| state.down_after = 7_777);
    let said = ask(&uri(&mine.into_iter().chain(others).collect::<Vec<_>>()), &[]);
    said.has("fault", "stranger", "different deployments");
    assert_eq!(
        said.count("warning", "settings_differ") + said.count("fault", "sentinels_disagree"),
        0,
        "{}",
        said.text
    );
    assert!(!said.text.contains("RESET"), "{}", said.text);
}

/// Each state in which a server refuses writes, or in which they cannot be confirmed.
#[test]
fn a_primary_that_refuses_writes_is_a_fault() {
    let d = Deployment::new("doctor-writes").replicas(1).start();
    let (uri, primary) = (d.sentinel_uri(), d.primary_node(SERVICE));
    let set = |key: &str, value: &str| assert_eq!(primary.cmd(&["CONFIG", "SET", key, value]), Value::ok(), "{key}");
    let refuses = |line: &str, options: &[&str]| {
        let said = ask(&uri, options);
        said.has("fault", "writes_refused", line);
        assert_eq!(said.status, 2, "{}", said.text);
    };
    primary.cmd(&["ACL", "SETUSER", "reader", "on", ">pw", "~*", "&*", "+@all", "-@write"]);
    d.replica_nodes(SERVICE)[0].cmd(&["ACL", "SETUSER", "reader", "on", ">pw", "~*", "&*", "+@all", "-@write"]);
    let reader = ["--set", "auth.username=reader", "--set", "auth.password=pw"];
    ask(&uri, &[]).has("ok", "writes", "takes writes");
    let said = ask(&uri, &reader);
    said.has("ok", "writes", "by what INFO and CONFIG tell");
    said.has("note", "node_permissions", "SETRANGE vigie-doctor");
    // Without an answer nothing is well.
    for (lacks, part) in [
        ("-config", "CONFIG GET does not tell"),
        ("-info", "neither INFO nor CONFIG GET tells"),
        ("+config", "INFO does not tell"),
    ] {
        primary.cmd(&["ACL", "SETUSER", "reader", lacks]);
        let said = ask(&uri, &reader);
        said.has("note", "not_asked", part);
        assert_eq!(said.count("ok", "writes") + said.count("fault", "writes_refused"), 0, "{}", said.text);
        if lacks == "-info" {
            let refused =
                |what: &str| said.has("note", "node_permissions", &format!("may not run {what} at the primary"));
            ["INFO", "CONFIG GET min-replicas-to-write", "SETRANGE vigie-doctor"].into_iter().for_each(refused);
            assert_eq!(said.count("warning", "no_persistence") + said.count("ok", "persistence"), 0, "{}", said.text);
        }
    }
    primary.cmd(&["ACL", "SETUSER", "reader", "+info"]);
    // The second time by numbers: the user may not write.
    set("min-replicas-to-write", "5");
    refuses("NOREPLICAS Not enough good replicas", &[]);
    refuses("(min-replicas-to-write is 5, and 1 replicas are good enough)", &reader);
    set("min-replicas-to-write", "0");
    set("maxmemory", "1000");
    refuses("OOM command not allowed", &[]);
    refuses("of a maxmemory of 1000", &reader);
    set("maxmemory", "0");
    // A dump that cannot take its name.
    set("save", "3600 1");
    let Value::Array(dir) = primary.cmd(&["CONFIG", "GET", "dir"]) else { panic!("CONFIG GET") };
    let dump = std::path::Path::new(&dir[1].text()).join("dump.rdb");
    let _ = std::fs::remove_file(&dump);
    std::fs::create_dir_all(dump.join("full")).expect("a directory");
    primary.cmd(&["BGSAVE"]);
    let failed = || primary.cmd(&["INFO", "persistence"]).text().contains("rdb_last_bgsave_status:err");
    eventually("the dump has failed", SOON, failed);
    refuses("MISCONF", &[]);
    refuses("MISCONF the last BGSAVE failed", &reader);
    set("save", "");
    // It is written, and never confirmed.
    let said = ask(&uri, &["--set", "write.replicas=2"]);
    said.has("fault", "write_options", "`write.replicas` asks for 2; 1 of 1 replicas are linked");
    assert_eq!((said.status, said.count("fault", "writes_refused")), (2, 0), "{}", said.text);
    let said = ask(&uri, &["--set", "write.aof=on"]);
    said.has("fault", "write_options", "`write.aof` cannot be met");
    ask(&uri, &["--set", "write.replicas=1"]).has("ok", "write_options", "asks for 1");
    // A name that nobody knows, and nothing else.
    let said = ask(&uri.replace(SERVICE, "mistyped"), &[]);
    said.has("fault", "service_unknown", "none of the 3 Sentinels knows the service");
    let rest = ["no_primary", "no_replica", "few_sentinels"].map(|code| said.text.contains(code));
    assert_eq!((said.status, rest), (2, [false; 3]), "{}", said.text);
}

/// Only the first cause is told; and a Sentinel that is slower than the others is not taken for a dead one.
#[test]
fn a_cause_is_told_without_what_only_follows_from_it() {
    let (_p, watch) = three();
    // It answers long after the others: they are enough for the library.
    watch[2].fault("SENTINEL GET-MASTER-ADDR-BY-NAME", Fault::Delay(Duration::from_millis(700)));
    watch.iter().for_each(|one| one.fault("SENTINEL REPLICAS", Fault::Error("NOPERM no replicas for you".into())));
    let said = ask(&uri(&watch), &[]);
    said.has("ok", "sentinels", "3 of 3 Sentinels answer");
    said.has("note", "not_asked", "which replicas there are is not known");
    assert_eq!(said.count("warning", "sentinel_unreachable") + said.count("fault", "no_replica"), 0, "{}", said.text);
    let (_p, watch) = three();
    let gone = refuse();
    watch.iter().for_each(|one| one.service(SERVICE, |s| (s.host, s.port) = fake_sentinel::split(&gone.addr())));
    let said = ask(&uri(&watch), &[]);
    said.has("fault", "node_unreachable", &gone.addr());
    assert_eq!((said.status, said.count("fault", "no_primary"), said.count("fault", "no_replica")), (2, 0, 0));
    // A replica that is linked and considered down is named with its address, and no reset is advised.
    let (_p, watch) = three();
    let lost = refuse();
    for one in &watch {
        one.service(SERVICE, |state| {
            state.add_replica(&lost.addr());
            state.replicas[0].flags = "slave,s_down".into();
        });
    }
    let said = ask(&uri(&watch), &[]);
    said.has("warning", "replica_down", &lost.addr());
    assert!(said.text.contains("its announced address leads nowhere") && !said.text.contains("RESET"), "{}", said.text);
}

/// A listener that answers nothing, on the port of a stopped process.
#[test]
fn a_node_that_accepts_connections_and_does_not_answer_is_told_as_such() {
    let (p, watch) = three();
    let [silent, down, well] = [(); 3].map(|()| Scripted::replica(&p.addr()));
    let silence = |one: &FakeNode| one.fault("*", Fault::Stall);
    [&silent, &down].into_iter().for_each(silence);
    for one in &watch {
        [&silent, &down, &well]
            .into_iter()
            .for_each(|replica| one.service(SERVICE, |s| s.add_replica(&replica.addr())));
        one.service(SERVICE, |state| state.replicas[1..].iter_mut().for_each(|one| one.flags = "slave,s_down".into()));
    }
    let soon = ["--set", "timeout.connect=2s"];
    let said = ask(&uri(&watch), &soon);
    said.has(
        "warning",
        "node_silent",
        &format!("the replica {} accepts connections and gives no answer", silent.addr()),
    );
    assert_eq!(said.count("note", "replica_unfit"), 0, "it follows from the other: {}", said.text);
    let of = |node: &FakeNode, met: &str| {
        let told = said.lines("warning", "replica_down");
        assert!(told.iter().any(|line| line.contains(&node.addr()) && line.contains(met)), "{met} in {}", said.text);
    };
    of(&down, "it accepts connections from here, and gives no answer");
    of(&well, "from here it answers");
    assert_eq!((said.count("warning", "node_unreachable"), said.text.contains("NAT")), (0, false), "{}", said.text);
    silence(&p);
    let said = ask(&uri(&watch), &soon);
    said.has("fault", "node_silent", &format!("the primary {} accepts connections and gives no answer", p.addr()));
    let others = ["no_primary", "node_unreachable", "NAT"].map(|part| said.text.contains(part));
    assert_eq!((said.status, others), (2, [false; 3]), "{}", said.text);
    [&silent, &down].into_iter().for_each(|one| one.clear_faults());
    // One that falls silent in the middle is told once, and no late answer is taken for that of another question.
    for question in ["INFO", "CONFIG", "WAIT", "SETRANGE"] {
        p.clear_faults();
        p.fault("WAIT", Fault::Reply(Value::Int(0)));
        p.fault(question, Fault::Stall);
        // The library asks for this one.
        p.fault("INFO replication", Fault::Delay(Duration::ZERO));
        let said = ask(&uri(&watch), &["--timeout", "0.5", "--set", "write.replicas=1"]);
        said.has("fault", "node_silent", &format!("has answered, and gives no answer to {question}"));
        let others =
            ["writes_refused", "cannot be met", "whether", "takes writes"].map(|part| said.text.contains(part));
        assert_eq!((said.count("fault", "node_silent"), others), (1, [false; 4]), "{}", said.text);
    }
    // One that says itself why it is of no use.
    p.clear_faults();
    p.fault("@accept", Fault::Last(b"-ERR max number of clients reached\r\n".to_vec()));
    let said = ask(&uri(&watch), &[]);
    said.has("fault", "node_refuses", "max number of clients");
    assert!(said.text.contains("raise `maxclients`"), "{}", said.text);
    // What answers in another language is neither silent nor behind NAT.
    p.clear_faults();
    p.fault("*", Fault::Last(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()));
    let said = ask(&uri(&watch), &[]);
    said.has("fault", "node_unreachable", &p.addr());
    assert!(said.text.contains("does not answer as a server of Redis") && !said.text.contains("NAT"), "{}", said.text);
}

/// Without Sentinels the node that is named is looked at, whatever it is.
#[test]
fn a_primary_without_sentinels_that_is_none_is_told_at_once() {
    let p = Scripted::primary();
    let r = Scripted::replica(&p.addr());
    let (other, chained) = (Scripted::primary(), Scripted::replica(&r.addr()));
    let listed = format!("replica.addrs={},{},{}", r.addr(), other.addr(), chained.addr());
    let said = ask(&format!("redis://{}", p.addr()), &["--set", &listed]);
    said.has("ok", "primary", &p.addr());
    said.has("warning", "wrong_role", &other.addr());
    said.has("warning", "replica_chained", &chained.addr());
    assert!(said.status == 1 && !said.text.contains("Sentinel"), "{}", said.text);
    r.clear_log();
    let said = ask(&format!("redis://{}", r.addr()), &["--timeout", "60"]);
    let told = format!("{} is named as the primary and says that it is a slave of {}", r.addr(), p.addr());
    said.has("fault", "wrong_role", &told);
    let follows = ["no_primary", "no_replica", "Sentinels are to name"].map(|part| said.text.contains(part));
    assert_eq!((said.status, follows, said.errors.as_str()), (2, [false; 3], ""), "{}", said.text);
    // Asked once by the library, and once by the doctor.
    assert!(r.count("ROLE") <= 3, "{:?}", r.commands());
    let said = ask(&format!("redis://{}", refuse().addr()), &["--timeout", "60"]);
    said.has("fault", "node_unreachable", "refused");
    assert!(said.status == 2 && !said.text.contains("The Sentinels announce"), "{}", said.text);
}

/// The doctor needs no permission that the users of docs/permissions.md do not have.
#[test]
fn the_users_of_the_page_see_everything() {
    let page = std::fs::read_to_string(crate::installed::root().join("docs/permissions.md")).expect("the page");
    let (_, section) = page.split_once("## The user of vigie-doctor").expect("a section");
    let users: Vec<&str> = section.lines().filter(|line| line.starts_with("user doctor")).collect();
    let builder = Deployment::new("doctor-users").replicas(1).acl("kit", "kit").sentinel_acl("kit", "kit");
    let d = builder.sentinel_conf(users[0]).conf(users[1]).conf("save 3600 1").start();
    let names = [
        "sentinel.username=doctor-sentinel",
        "sentinel.password=secret",
        "auth.username=doctor",
        "auth.password=secret",
    ];
    let mut options: Vec<&str> = names.iter().flat_map(|one| ["--set", one]).collect();
    options.extend(["--set", "write.replicas=1"]);
    let bare = format!("redis-sentinel://{}", d.sentinel_addrs().join(","));
    let said = ask(&bare, &options);
    let denied =
        ["node_permissions", "not_asked", "sentinel_permissions", "by what INFO"].map(|part| said.text.contains(part));
    assert_eq!((said.status, denied), (0, [false; 4]), "{}{}", said.text, said.errors);
    said.has("ok", "write_options", "asks for 1");
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
    let stray = Scripted::replica(&promoted.addr());
    stray.state(|state| state.replid = Some("f".repeat(40)));
    let renamed = Scripted::replica(&p.addr().replace("127.0.0.1", "localhost"));
    let replicas = [&cut, &doubted, &promoted, &shut, &stray, &renamed];
    for one in &watch {
        replicas.iter().for_each(|replica| one.service(SERVICE, |state| state.add_replica(&replica.addr())));
    }
    // The Sentinels have not heard yet that its link is up again.
    watch.iter().for_each(|one| one.service(SERVICE, |state| state.replicas[1].link = "err".into()));
    let said = ask(&uri(&watch), &[]);
    said.has("warning", "replica_link", &cut.addr());
    said.has("note", "replica_unfit", &doubted.addr());
    said.has("warning", "wrong_role", &promoted.addr());
    said.has("warning", "replica_chained", &stray.addr());
    assert_eq!(said.count("warning", "replica_chained") + said.count("warning", "wrong_primary"), 1, "{}", said.text);
    said.has("warning", "node_refuses", &shut.addr());
    // It knows no CONFIG.
    said.has("note", "not_asked", &p.addr());
    assert_eq!(said.status, 1, "{}", said.text);
    // Two that cannot be asked: the word of the Sentinels counts for them.
    said.has("ok", "candidates", "1 of them by the word of the Sentinels");
    stray.state(|state| state.role = FakeRole::replica_of(&Scripted::primary().addr()));
    let said = ask(&uri(&watch), &[]);
    said.has("warning", "wrong_primary", &stray.addr());
    assert_eq!(said.count("warning", "replica_chained"), 0, "{}", said.text);
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
    // Twenty whole days in the second in which it was signed, and nineteen afterwards.
    let ends = said.lines("warning", "certificate_ends");
    assert!(ends[0].contains("for 19 more days") || ends[0].contains("for 20 more days"), "{ends:?}");
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
        let output = doctor().args(&arguments).arg("--json").output().expect("it starts");
        let json = String::from_utf8_lossy(&output.stdout).into_owned();
        let head = r#"{"version":"0.1.0","status":3,"error":""#;
        assert!(json.starts_with(head), "{arguments:?}: {output:?}");
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
    assert!(forced.errors.contains("1 of 1 replicas follow it"), "{}", forced.errors);
    let new = d.settled_primary(SERVICE).addr();
    let replica = d.replica_nodes(SERVICE).into_iter().find(|node| ![&old, &new].contains(&&node.addr()));
    assert_eq!(followed(&replica.expect("three nodes")), new);
    // One clock for the seconds and the time of the day: their difference is the moment of the start.
    let starts: Vec<f64> = forced.text.lines().map(start_of).collect();
    let (least, most) = (starts.iter().copied().fold(f64::MAX, f64::min), starts.iter().copied().fold(0.0, f64::max));
    // A first line that is as old as the start stands at 0, and seconds are rounded.
    assert!(starts.len() > 5 && most - least < 0.002, "{least} {most} {}", forced.text);
    // The time of the day stands beside the seconds, and values are for people.
    let held = forced.text.lines().find(|line| line.contains("writes are held back")).expect("a line");
    let words: Vec<&str> = held.split_whitespace().collect();
    assert!(words[0].ends_with('s') && words[1].starts_with("20") && words[1].ends_with('Z'), "{held}");
    assert!(held.contains("  on=yes  reason=\"") && !held.contains("on=1"), "{held}");
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

/// The time of the day in a line of the timeline, less the seconds before it.
fn start_of(line: &str) -> f64 {
    let mut words = line.split_whitespace();
    let after: f64 = words.next().and_then(|word| word.strip_suffix('s')?.parse().ok()).expect("seconds");
    let (_, time) = words.next().and_then(|word| word.strip_suffix('Z')?.split_once('T')).expect("a time");
    let of_day = time.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().expect("a number"));
    // A run that sees midnight goes on with the day before.
    if of_day < 600.0 && after > of_day { of_day + 86_400.0 - after } else { of_day - after }
}

/// The primary that a node follows by its own account.
fn followed(node: &Node) -> String {
    let role = node.cmd(&["ROLE"]);
    format!("{}:{}", role.items()[1].text(), role.items()[2].int().expect("a port"))
}

#[test]
fn a_replica_that_does_not_follow_the_new_primary_is_named() {
    let d = Deployment::new("doctor-stray").start();
    let stray = d.replica_nodes(SERVICE).remove(0);
    d.sentinel_debug("info-period", 100);
    stray.cmd(&["CONFIG", "SET", "replica-priority", "0"]);
    // It stays with the primary that there was, because the Sentinels may not turn it around.
    stray.cmd(&["ACL", "SETUSER", "default", "-slaveof", "-replicaof"]);
    eventually("each Sentinel knows that it is not to be promoted", SOON, || {
        d.sentinel_nodes().iter().all(|one| {
            let told = one.cmd(&["SENTINEL", "REPLICAS", SERVICE]);
            let of = |entry: &&Value| entry.field("name") == Some(stray.addr());
            let entry = told.items().iter().find(of).expect("it is listed");
            entry.field("slave-priority").as_deref() == Some("0")
        })
    });
    let said = ask(&d.sentinel_uri(), &["--force-failover", "--yes", "--timeout", "1"]);
    assert!(said.errors.contains("0 of 1 replicas follow it"), "{}{}", said.text, said.errors);
    assert!(
        said.errors.contains(&format!("{} does not follow {}", stray.addr(), d.primary(SERVICE))),
        "{}",
        said.errors
    );
    assert_eq!(said.status, 1);
}

/// Nothing but line ends may command a terminal.
#[track_caller]
fn is_harmless(text: &str) {
    let commands = |one: char| one != '\n' && (one.is_control() || ['\u{202e}', '\u{2028}'].contains(&one));
    assert!(!text.contains(commands), "{text:?}");
}

#[test]
fn what_a_server_says_commands_no_terminal_and_makes_no_line() {
    const BAD: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}\u{2028}\u{7f}";
    let (p, watch) = three();
    let lost = refuse().addr();
    let version = format!("# Server\r\nredis_version:9{BAD}\nforged:1\r\n");
    for one in &watch {
        one.fault("SENTINEL CKQUORUM", Fault::Error(format!("NOQUORUM {BAD}")));
        one.fault("INFO", Fault::Reply(Value::bulk(&version)));
        one.service(SERVICE, |state| {
            state.add_replica(&lost);
            state.replicas[0].flags = format!("slave,s_down,{BAD}\nok       node_reached           forged");
        });
    }
    p.fault("ROLE", Fault::Error(format!("NOPERM {BAD}")));
    let said = ask(&uri(&watch), &[]);
    said.has("fault", "no_quorum", "NOQUORUM \\u{1b}[2J\\u{1b}]0;owned\\u{7}\\u{9b}31m\\u{202e}\\u{2028}\\u{7f}");
    said.has("warning", "replica_down", "\\nok ");
    assert!(!said.text.lines().any(|line| line.starts_with("ok") && line.ends_with("forged")), "{}", said.text);
    is_harmless(&said.text);
    let json = ask(&uri(&watch), &["--json"]);
    is_harmless(&json.text);
    assert!(json.text.contains("NOQUORUM \\u001b[2J") && json.text.contains("\\u009b31m\\u202e"), "{}", json.text);
    // What a Sentinel announces, as it comes.
    let mut watching = doctor();
    watching.arg(uri(&watch)).arg("--watch").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut watching = watching.spawn().expect("it starts");
    let mut lines = BufReader::new(watching.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let up = |line: &String| line.contains("the Sentinel is listened to");
    assert_eq!(lines.by_ref().filter(up).take(3).count(), 3);
    watch[0].publish(&format!("+odd{BAD}"), &format!("master {SERVICE} {}", p.addr().replace(':', " ")));
    let heard = lines.find(|line| line.contains("+odd") && line.contains("\\u{1b}[2J")).expect("it is told");
    is_harmless(&heard);
    watching.kill().expect("it runs");
    watching.wait().expect("it ends");
    // Also where it could not look.
    watch.iter().for_each(|one| one.fault("SENTINEL", Fault::Error(format!("ERR {BAD}"))));
    let said = ask(&format!("{}&x{BAD}=1", uri(&watch)), &["--watch", "--for", "0.1"]);
    assert_eq!(said.status, 3, "{}", said.text);
    is_harmless(&said.errors);
}

/// However much it says, and wherever it says it.
#[test]
fn what_a_server_says_is_cut_and_shows_no_secret() {
    const SECRET: &str = "s3cr3t-of-the-test";
    let big = |head: &str| format!("{head} {SECRET} {}", "x".repeat(1 << 20));
    // A longer line is no reply to the library.
    let error = |code: &str| Fault::Error(format!("{code} {SECRET} {}", "x".repeat(50_000)));
    let (p, watch) = three();
    let [odd, cut, down] = [(); 3].map(|()| Scripted::replica(&p.addr()));
    for one in &watch {
        let (host, port) = fake_sentinel::split(&p.addr());
        let settings = ["parallel-syncs", "failover-timeout"].map(|key| (key, big(&one.addr())));
        let numbers = ["quorum", "config-epoch", "num-other-sentinels"].map(|key| (key, "2".into()));
        let fields = [("name", SERVICE.into()), ("ip", host), ("port", port.to_string()), ("flags", "master".into())];
        let fields = fields.into_iter().chain(numbers);
        one.fault("SENTINEL MASTER", Fault::Reply(Value::fields(fields.chain(settings))));
        one.fault("SENTINEL CKQUORUM", error("NOQUORUM"));
        let info = format!(
            "# Server\r\nredis_version:{}\r\nsentinel_tilt:{}\r\nsentinel_tilt_since_seconds:{}\r\n",
            big("9"),
            u8::from(one.addr() == watch[0].addr()),
            big("1")
        );
        one.fault("INFO", Fault::Reply(Value::bulk(info)));
        [&odd, &cut, &down].into_iter().for_each(|node| one.service(SERVICE, |state| state.add_replica(&node.addr())));
        one.service(SERVICE, |state| state.replicas[2].flags = format!("slave,s_down,{}", big("odd")));
    }
    p.fault("INFO", Fault::Reply(Value::bulk(format!("redis_version:{}\r\nused_memory:1\r\n", big("9")))));
    p.fault("CONFIG", Fault::Reply(Value::texts(["min-replicas-to-write", &big("7")])));
    p.fault("SETRANGE", error("NOREPLICAS"));
    odd.fault("ROLE", error("ERR"));
    let link =
        [Value::bulk("slave"), Value::bulk(big("host")), Value::Int(1), Value::bulk(big("state")), Value::Int(1)];
    // The library asks for the role, too, and is to know it.
    cut.fault_from("ROLE", 1, Fault::Reply(Value::Array(link.to_vec())));
    let options = ["--set", &format!("sentinel.password={SECRET}"), "--set", &format!("auth.password={SECRET}")];
    let login = Some(Login::password(SECRET));
    watch.iter().for_each(|one| one.state(|state| state.door.login = login.clone()));
    [&p, &odd, &cut, &down].into_iter().for_each(|one| one.state(|state| state.door.login = login.clone()));
    for json in [&["--json"][..], &[]] {
        let said = ask(&uri(&watch), &[&options[..], json].concat());
        let whole = said.text.clone() + &said.errors;
        assert!(whole.len() < 30_000 && !whole.contains(SECRET), "{} bytes: {:.9000}", whole.len(), whole);
        if json.is_empty() {
            said.has("fault", "no_quorum", "NOQUORUM *** x");
            said.has("fault", "writes_refused", "NOREPLICAS *** x");
            said.has("ok", "min_replicas", "7 *** x");
            said.has("warning", "settings_differ", "*** x");
            said.has("warning", "tilt", "1 *** x");
            said.has("warning", "replica_down", "*** x");
            said.has("ok", "versions", "Redis 9 *** x");
        }
    }
    p.fault("ROLE", Fault::Reply(Value::Array(vec![Value::bulk(big("role"))])));
    let said = ask(&uri(&watch), &options);
    assert!(said.text.len() < 30_000 && !said.text.contains(SECRET), "{:.9000}", said.text);
}

#[test]
fn the_greatest_numbers_of_a_server_end_no_run() {
    let (p, watch) = three();
    for (number, one) in [i64::MAX, i64::MIN, i64::MAX].into_iter().zip(&watch) {
        let (host, port) = fake_sentinel::split(&p.addr());
        let number = number.to_string();
        let numbers = ["num-other-sentinels", "num-slaves", "quorum", "config-epoch", "down-after-milliseconds"];
        let fields = [("name", SERVICE), ("ip", &host), ("port", &port.to_string()), ("flags", "master")];
        let fields = fields.into_iter().chain(numbers.map(|key| (key, number.as_str())));
        one.fault("SENTINEL MASTER", Fault::Reply(Value::fields(fields)));
        let info = format!("# Server\r\nredis_version:{number}.{number}\r\nsentinel_tilt_since_seconds:{number}\r\n");
        one.fault("INFO", Fault::Reply(Value::bulk(info)));
    }
    p.fault(
        "ROLE",
        Fault::Reply(Value::Array(vec![Value::bulk("master"), Value::Int(i64::MIN), Value::Array(vec![])])),
    );
    let said = ask(&uri(&watch), &["--set", "replica.max_lag=1"]);
    said.has("warning", "dead_sentinels", "counts 9223372036854775807 Sentinels");
    assert_eq!((said.status, said.errors.as_str()), (2, ""), "{}", said.text);
}

#[test]
fn an_output_that_cannot_be_written_has_an_exit_status() {
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").expect("/dev/full"));
    let (_p, watch) = three();
    let uri = uri(&watch);
    let runs: [&[&str]; 6] =
        [&["--help"], &["--version"], &["--json"], &[&uri], &[&uri, "--json"], &[&uri, "--watch", "--for", "60"]];
    for arguments in runs {
        let output = doctor().args(arguments).stdout(full()).output().expect("it starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(3) && told.contains("cannot write to its output"),
            "{arguments:?}: {output:?}"
        );
        let deaf = doctor().args(arguments).stdout(full()).stderr(full()).status().expect("it starts");
        assert_eq!(deaf.code(), Some(3), "{arguments:?}");
        // A reader that has seen enough changes nothing.
        let expected = match arguments {
            ["--json"] => 3,
            [_] | [_, "--json"] if arguments[0] == uri => 2,
            _ => 0,
        };
        let mut left = doctor().args(arguments).stdout(Stdio::piped()).stderr(full()).spawn().expect("it starts");
        drop(left.stdout.take());
        assert_eq!(left.wait().expect("it ends").code(), Some(expected), "{arguments:?}");
    }
}

#[test]
fn an_argument_that_is_no_text_is_not_repeated() {
    for arguments in [
        vec![OsStr::from_bytes(b"redis-sentinel://me:s3cr\xffet@h/m")],
        vec![OsStr::new("--json"), OsStr::new("redis-sentinel://h/m"), OsStr::from_bytes(b"--set=s3cr\xffet")],
        vec![OsStr::new("redis-sentinel://h/m"), OsStr::new("--set=auth.password=s3cret")],
        vec![OsStr::new("redis-sentinel://h/m"), OsStr::new("-as3cret")],
        vec![OsStr::new("--timeout"), OsStr::new("redis-sentinel://:s3cret@h/m")],
    ] {
        let output = doctor().args(&arguments).output().expect("it starts");
        let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {told}");
        assert!(told.contains("vigie-doctor cannot look: ") && !told.contains("s3cr"), "{arguments:?}: {told}");
    }
}

/// A page that shows what the program does not say misleads.
#[test]
fn the_page_shows_what_the_program_says() {
    let page = std::fs::read_to_string(crate::installed::root().join("docs/doctor.md")).expect("docs/doctor.md");
    let sources: String = [
        "main.rs",
        "sentinels.rs",
        "nodes.rs",
        "reach.rs",
        "primary.rs",
        "replicas.rs",
        "writes.rs",
        "certificates.rs",
    ]
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

/// vigie-doctor with these arguments.
fn ask_with(args: &[&str]) -> Said {
    let Output { status, stdout, stderr } = doctor().args(args).output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Said { status: status.code().expect("it ends by itself"), text: text(stdout), errors: text(stderr) }
}

#[test]
fn shards_are_looked_at_one_by_one_and_so_are_their_keys() {
    let d = Deployment::new("doctor-shards").services(["users", "b", "c"]).replicas(1).conf("save 3600 1").start();
    let [users, given, pair, replica] = ["users-0", "b-0", "c-0", "c-1"].map(|name| d.node(name));
    let texts = [
        "node_1=sentinel:users".to_owned(),
        format!("node_2=redis://{}", given.addr()),
        format!("node_3=redis://{}|redis://{}", pair.addr(), replica.addr()),
    ];
    let uri = format!("redis-sentinel://{}", d.sentinel_addrs().join(","));
    let crc16 = ["--set", "shard.hash=crc16"];
    let look = |more: &[&str]| {
        let shards = texts.iter().flat_map(|text| ["--shard", text]);
        ask_with(&shards.chain([&*uri]).chain(more.iter().copied()).collect::<Vec<_>>())
    };
    let open = || {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let sentinel = crate::calls::sentinel_of(&d, &[]);
        let options = crate::calls::config(&[("shard.hash", "crc16")]);
        vigie::shard::Shards::open(Some(&sentinel), &texts, Some(&options)).expect("shards")
    };
    let shards = open();
    for n in 0..60 {
        let (flags, key) = (vigie::client::CallFlags::default(), format!("k{n}"));
        shards.cmd_exec(&[b"SET", key.as_bytes(), b"v"], flags, vigie::client::Timeout::Default).expect("set");
    }
    // Every check of a service, for each shard, and the keys.
    let fine = look(&crc16);
    assert_eq!(fine.status, 0, "{}{}", fine.text, fine.errors);
    fine.has("ok", "quorum", "node_1 (users): ");
    for (name, node, replicas) in [("node_1 (users)", &users, 1), ("node_2", &given, 1), ("node_3", &pair, 1)] {
        fine.has("ok", "primary", &format!("{name}: the primary is {}, with {replicas} replicas", node.addr()));
        fine.has("ok", "node_reached", &format!("{name}: the primary {} answers", node.addr()));
        fine.has("ok", "persistence", &format!("{name}: "));
        fine.has("ok", "keys_placed", &format!("{name}: "));
        fine.has("note", "min_replicas_zero", &format!("{name}: "));
    }
    fine.has("ok", "node_reached", &format!("node_3: the replica {} answers", replica.addr()));
    let counted: usize = fine.lines("ok", "keys_placed").iter().map(|line| number_behind(line, ": ")).sum();
    assert_eq!(counted, 60, "{}", fine.text);
    let json = look(&["--set", "shard.hash=crc16", "--json"]);
    assert!(json.text.contains(r#""code":"keys_placed","service":"node_2""#), "{}", json.text);

    // By another hash the same keys are astray; a note where their tags may have been stripped.
    let other = look(&["--set", "shard.hash=crc32", "--set", "shard.tags=none"]);
    assert_eq!((other.status, other.count("warning", "keys_misplaced")), (1, 3), "{}", other.text);
    let stripped = look(&[]);
    assert_eq!((stripped.status, stripped.count("note", "keys_misplaced")), (0, 3), "{}", stripped.text);
    // One key that is on a wrong shard, and a replica in place of a primary.
    let astray = (0..).map(|n| format!("astray{n}")).find(|key| shards.shard_of(key.as_bytes()).unwrap() == 2).unwrap();
    given.cmd(&["SET", &astray, "v"]);
    pair.cmd(&["CONFIG", "SET", "save", ""]);
    let wrong = look(&crc16);
    wrong.has("warning", "keys_misplaced", &format!("such as {astray} (node_3)"));
    assert_eq!((wrong.count("warning", "keys_misplaced"), wrong.count("ok", "keys_placed")), (1, 2), "{}", wrong.text);
    wrong.has("warning", "no_persistence", "node_3: ");
    assert_eq!(wrong.count("warning", "no_persistence"), 1, "{}", wrong.text);

    // A shard that is down does not hide the others; two names for one server are one.
    given.kill();
    let alias = format!("node_4=redis://{}", pair.addr());
    let down = look(&["--set", "shard.hash=crc16", "--shard", &alias, "--timeout", "2"]);
    assert_eq!(down.status, 2, "{}", down.text);
    assert!(down.lines("fault", "node_unreachable").iter().all(|line| line.contains("node_2: ")), "{}", down.text);
    down.has("fault", "node_unreachable", "node_2: ");
    down.has("note", "shard_alias", "node_4: it is the server of node_3");
    down.has("ok", "primary", "node_1 (users): ");
    // Without a service there is no URI; what is not given right is told before anything is looked at.
    let one = ask_with(&["--shard", &format!("node_1=redis://{}", pair.addr())]);
    one.has("ok", "keys_placed", "node_1: ");
    for (args, part) in [
        (&["--shard", "node_1=sentinel:users"][..], "give the URI of its Sentinels"),
        (&["--shard", "node_2=redis://h:1"], "node_1"),
        (&["--shard", "node_1=redis://h:1", "--watch"], "--shard goes neither"),
        (&["--shard"], "--shard needs a value"),
    ] {
        let refused = ask_with(args);
        assert!(
            refused.status == 3 && refused.errors.contains(part),
            "{args:?}: {} {}",
            refused.status,
            refused.errors
        );
    }
}

/// The number behind the last of these.
fn number_behind(line: &str, mark: &str) -> usize {
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    line.match_indices(mark).find_map(|(at, _)| digits(&line[at + mark.len()..]).parse().ok()).expect(line)
}
