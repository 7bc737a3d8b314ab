//! The users of docs/permissions.md, read from that page: with exactly these permissions everything works, and no
//! server refuses anything (step 4, point 7).

use crate::calls;
use crate::stage;
use crate::support;
use crate::writer;

use std::sync::Arc;
use std::time::Duration;

use calls::*;
use stage::Watch;
use support::*;
use vigie::client::{CallFlags, Client, Target, Timeout};
use vigie::error::Status;
use vigie::jobs::{self, Jobs};
use vigie::queue::kind;
use vigie::topology::Sentinel;
use writer::Writer;

const PAGE: &str = include_str!("../../docs/permissions.md");
const AT_SENTINELS: [&str; 3] = ["app-sentinel", "app-sentinel-signs", "app-sentinel-table"];
const AT_NODES: [&str; 4] = ["app", "app-reader", "app-durable", "app-jobs"];
/// `app` with all that the page adds.
const WITH_ALL: &str = "app-with-all";
const PATIENCE: Duration = Duration::from_secs(30);

/// The lines of a section of the page that make users.
fn users_of(section: &str) -> Vec<&'static str> {
    let (_, rest) = PAGE.split_once(&format!("\n## {section}\n")).expect("a section of the page");
    let section = rest.split("\n## ").next().unwrap_or_default();
    section.lines().filter(|line| line.starts_with("user ")).collect()
}

/// What the page allows to add to a user of the data nodes.
fn additions() -> Vec<String> {
    let (_, rest) = PAGE.split_once("| add | for |").expect("a table of the page");
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with("| `"));
    rows.map(|row| row.split('`').nth(1).expect("a permission").replace('\\', "")).collect()
}

fn names(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| line.split(' ').nth(1).expect("a name").to_owned()).collect()
}

/// Servers with the users of the page, and one user for the kit; nobody else may do anything.
fn deployment() -> Deployment {
    let (sentinels, nodes) = (users_of("At the Sentinels"), users_of("At the data nodes"));
    assert_eq!(
        (names(&sentinels), names(&nodes)),
        (AT_SENTINELS.map(String::from).into(), AT_NODES.map(String::from).into())
    );
    assert_eq!(additions().len(), 5, "{:?}", additions());
    let with_all = nodes[0].replacen("user app ", &format!("user {WITH_ALL} "), 1) + " " + &additions().join(" ");
    let builder = Deployment::new("permissions").acl("kit", "kit").sentinel_acl("kit", "kit").conf(&with_all);
    let builder = nodes.iter().fold(builder, |builder, line| builder.conf(line));
    sentinels.iter().fold(builder, |builder, line| builder.sentinel_conf(line)).start()
}

/// A handle of these users, with all subscriptions up.
fn login(d: &Deployment, sentinel_user: &str, user: &str, options: &[(&str, &str)]) -> (Arc<Sentinel>, Watch) {
    let mut all = vec![("sentinel.username", sentinel_user), ("sentinel.password", "secret"), ("client.name", user)];
    all.extend([("auth.username", user), ("auth.password", "secret")]);
    all.extend_from_slice(options);
    let sentinel = sentinel_of(d, &all);
    let told = Watch::on(&sentinel);
    (sentinel, told)
}

/// Every Sentinel is heard, on all channels that are acted upon.
#[track_caller]
fn hears(sentinel: &Arc<Sentinel>, told: &Watch) {
    let listens = |told: &stage::Told| told.is(kind::SENTINEL, &[("up", "1"), ("reason", "listening")]);
    eventually("every Sentinel is listened to", PATIENCE, || told.count(listens) >= 3);
    let topology = json(&sentinel.topology(Some(SERVICE)).expect("an open handle"));
    for nothing in ["\"events\":null", "\"refused\":null"] {
        assert_eq!(topology.matches(nothing).count(), 3, "{nothing}: {topology}");
    }
}

/// The refusals of a server: the reason, the object, the user.
fn refused(node: &Node) -> Vec<(String, String, String)> {
    let field = |entry: &Value, key: &str| entry.field(key).unwrap_or_default();
    let log = node.cmd(&["ACL", "LOG"]);
    let entry = |entry: &Value| (field(entry, "reason"), field(entry, "object"), field(entry, "username"));
    log.items().iter().map(entry).collect()
}

/// Scans to the end; the number of keys.
fn scan(client: &Client) -> usize {
    let (mut cursor, mut keys) = (String::from("0"), 0);
    loop {
        let reply = match cmd(client, &format!("SCAN {cursor} COUNT 5")) {
            Ok(reply) => reply,
            // On a busy machine a Sentinel may lose the replica that was scanned.
            Err(error) if error.status() == Status::ScanInterrupted => {
                (cursor, keys) = (String::from("0"), 0);
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let [next, found] = reply.children(0).collect::<Vec<_>>()[..] else { panic!("{}", json(&reply)) };
        cursor = String::from_utf8_lossy(reply.bytes(next).unwrap_or_default()).into_owned();
        keys += reply.children(found).count();
        if cursor == "0" {
            return keys;
        }
    }
}

#[test]
fn the_users_of_the_page_are_refused_nothing() {
    if lacks(Feature::SubCommands) {
        return;
    }
    let d = deployment();
    let (all, signs, table) = (AT_SENTINELS[0], AT_SENTINELS[1], AT_SENTINELS[2]);
    let lag = ("replica.max_lag", "1000000");
    let strict = ("replica.fallback", "error");
    let handles = [
        login(&d, all, "app", &[lag]),
        login(&d, all, "app-reader", &[lag, strict]),
        login(&d, all, "app-durable", &[("write.replicas", "1")]),
        login(&d, all, WITH_ALL, &[("client.no_evict", "true"), ("db", "1"), ("protocol", "2")]),
        login(&d, signs, "app", &[]),
        login(&d, table, "app", &[]),
    ];
    let primaries: Vec<_> = handles.iter().map(|(sentinel, _)| to_primary(sentinel, &[])).collect();
    let split = open(&handles[0].0, Target::Split, &[]);
    let (with_jobs, _) = login(&d, all, "app-jobs", &[("write.replicas", "1")]);
    let producer = to_primary(&with_jobs, &[]);
    let worker = Jobs::new(&producer, "mail", Some("w"), Timeout::Ms(60_000)).expect("a worker");
    let reader = to_replicas(&handles[1].0, &[]);
    let in_time = Timeout::Ms(20_000);
    let use_jobs = || {
        jobs::push(&producer, "mail", None, b"job", in_time).expect("pushed");
        let job = worker.take(in_time).expect("a take").expect("a job");
        worker.give_back(job.id(), in_time).expect("given back");
        let again = worker.take(in_time).expect("a take").expect("the job again");
        worker.renew(in_time).expect("renewed");
        worker.ack(again.id(), in_time).expect("acknowledged");
    };
    // Once before the failover, once after it.
    let use_all = |round: i64| {
        for (client, (sentinel, told)) in primaries.iter().zip(&handles) {
            let line = if Arc::ptr_eq(client, &primaries[1]) { "GET k".to_owned() } else { format!("SET k {round}") };
            call(client, &line, 0, Timeout::Ms(20_000)).unwrap_or_else(|error| panic!("{line}: {error}"));
            hears(sentinel, told);
        }
        let read = |client, line: &str| within(client, line, 2000).is_ok_and(|reply| text(&reply) == round.to_string());
        eventually("a replica is read from", PATIENCE, || read(&split, "GET k") && read(&reader, "GET k"));
        let fallbacks = (counter(&split, "fallbacks"), counter(&reader, "fallbacks"));
        assert_eq!(fallbacks.1, 0, "the replicas are fit");
        for number in 0..40 {
            ok(&primaries[0], &format!("SET key-{number} v"));
        }
        eventually("all is replicated", PATIENCE, || number_of(&reader) >= 41);
        assert!(scan(&primaries[0]) >= 41 && scan(&split) >= 41 && scan(&reader) >= 41);
        let with_all = primaries[3].session(None).expect("a session");
        for line in ["WATCH k", "MULTI", "SET k 0", "EXEC"] {
            ok(&with_all, line);
        }
        ok(&with_all, "EVAL return(1) 0");
        run(&with_all, &["MULTI", "SET k 0", "EXEC"]).unwrap_or_else(|error| panic!("{error}"));
        let atomic = CallFlags::from_bits(CallFlags::ATOMIC).expect("a known flag");
        for client in [&with_all, &primaries[3]] {
            let outcome = client.cmds_exec(&list(&["SET k 0", "GET k"]), atomic, Timeout::Ms(20_000));
            outcome.unwrap_or_else(|error| panic!("{error}"));
        }
        use_jobs();
    };
    use_all(1);
    let durable = Writer::start(&primaries[2], 20_000);
    durable.wait(20);
    let old = d.failover(SERVICE);
    let new = d.wait_switched(SERVICE, &old);
    for (_, told) in &handles {
        eventually("the switch is followed", PATIENCE, || !told.switches().is_empty());
    }
    use_all(2);
    let written = durable.stop();
    assert_eq!((written.missing(&new).len(), written.doubled(&new)), (0, 0));
    // The client logs in to the old primary as well.
    d.await_link(&old);

    for node in d.data_nodes(SERVICE) {
        assert_eq!(refused(&node), [], "{}", node.name());
    }
    let whole = ["*", "+*"];
    for node in d.sentinel_nodes() {
        let is_asked_first = |(reason, object, user): &(String, String, String)| {
            let asked = if user == signs { &whole[..1] } else { &whole[..] };
            reason == "channel" && (user == signs || user == table) && asked.contains(&object.as_str())
        };
        let others: Vec<_> = refused(&node).into_iter().filter(|entry| !is_asked_first(entry)).collect();
        assert_eq!(others, [], "{}", node.name());
    }
}

/// Every command that the library sends by itself has a row with the effect of its absence.
#[test]
fn each_command_of_the_library_has_a_row_with_what_happens_without_it() {
    let (_, rest) = PAGE.split_once("\n## With less\n").expect("a section of the page");
    let section = rest.split("\n## ").next().unwrap_or_default().replace('\\', "");
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).collect();
    for command in [
        "role",
        "info",
        "ping",
        "select",
        "wait",
        "subscribe",
        "psubscribe",
        "client|setname",
        "client|setinfo",
        "client|no-evict",
        "client|no-touch",
        "sentinel|myid",
        "sentinel|get-master-addr-by-name",
        "sentinel|master",
        "sentinel|replicas",
        "sentinel|sentinels",
    ] {
        let name = format!("`+{command}`");
        let row = rows.iter().find(|row| row.split(" | ").next().is_some_and(|cell| cell.contains(&name)));
        let what = row.unwrap_or_else(|| panic!("{name} has no row")).split(" | ").nth(1).unwrap_or_default();
        assert!(what.len() > 10, "{name}: {what}");
    }
    assert!(section.contains("HELLO and AUTH need no permission"));
}

fn number_of(client: &Client) -> i64 {
    within(client, "DBSIZE", 2000).ok().and_then(|reply| reply.int(0)).unwrap_or_default()
}
