//! Metrics: what a scrape gives is of the format, to the letter, and its figures are those of the statistics. The parser is this file's own,
//! and refuses whatever the format does not allow.

use crate::calls;
use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use calls::*;
use support::*;
use vigie::client::{CallFlags, Client, Target, Timeout, metrics_of, stats_of};
use vigie::error::Status;
use vigie::shard::Shards;
use vigie::topology::Sentinel;

const PATIENCE: std::time::Duration = deployment::PATIENCE;

/// The samples of a text: each by its name and its labels.
type Samples = BTreeMap<(String, BTreeMap<String, String>), f64>;

/// Reads a text as the format 0.0.4 defines it, or as OpenMetrics does.
#[track_caller]
fn parse(text: &str, open_metrics: bool) -> Samples {
    let (mut samples, mut families) = (Samples::new(), BTreeSet::new());
    let mut body = text.strip_suffix('\n').expect("the last line ends");
    if open_metrics {
        body = body.strip_suffix("\n# EOF").expect("# EOF at the end");
    }
    assert!(!body.contains("# EOF"), "in the older format it is a comment that nobody expects");
    let mut lines = body.split('\n').peekable();
    while let Some(line) = lines.next() {
        let (name, help) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')).expect(line);
        assert!(families.insert(name.to_owned()), "{name} is there twice");
        assert!(!help.is_empty() && !help.contains(['\\', '"']) && is_name(name, true), "{line}");
        let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")[..])).expect(name);
        let mut buckets: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (sample, mut labels, value) = parse_sample(line);
            let suffix = sample.strip_prefix(name).unwrap_or_else(|| panic!("{line} in the family {name}"));
            match (kind, suffix) {
                ("counter", "_total") if open_metrics => assert!(!name.ends_with("_total") && value >= 0.0, "{line}"),
                ("counter", "") if !open_metrics => assert!(name.ends_with("_total") && value >= 0.0, "{line}"),
                ("gauge", "") => assert!(!name.ends_with("_total"), "{line}"),
                ("histogram", "_sum" | "_count") => {}
                ("histogram", "_bucket") => {
                    let bound = labels.remove("le").expect("a bucket has a bound");
                    let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a bound") };
                    buckets.entry(labels.clone()).or_default().push((bound, value));
                    labels.insert("le".to_owned(), bound.to_string());
                }
                _ => panic!("{line}: a {kind} has no such sample"),
            }
            assert!(suffix == "_bucket" || !labels.contains_key("le"), "{line}");
            assert!(samples.insert((sample.to_owned(), labels), value).is_none(), "{line} is there twice");
        }
        for (labels, buckets) in buckets {
            assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name}: {buckets:?}");
            assert!(buckets.len() <= 16 && buckets.last().is_some_and(|last| last.0.is_infinite()), "{buckets:?}");
            let count = samples[&(format!("{name}_count"), labels.clone())];
            assert_eq!(buckets.last().map(|last| last.1), Some(count), "{name}");
            assert!(samples[&(format!("{name}_sum"), labels)] >= 0.0);
        }
    }
    samples
}

fn is_name(name: &str, colons: bool) -> bool {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || (colons && letter == ':');
    !name.is_empty() && name.chars().all(fits) && !name.starts_with(|first: char| first.is_ascii_digit())
}

#[track_caller]
fn parse_sample(line: &str) -> (&str, BTreeMap<String, String>, f64) {
    let end = line.find(['{', ' ']).expect("a name");
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name, true), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, behind) = rest.split_once("=\"").expect("a label");
            assert!(is_name(label, false), "{line}");
            let mut value = String::new();
            let mut letters = behind.char_indices();
            let end = loop {
                match letters.next().expect("a value ends") {
                    (at, '"') => break at + 1,
                    (_, '\\') => value.push(match letters.next() {
                        Some((_, 'n')) => '\n',
                        Some((_, letter @ ('\\' | '"'))) => letter,
                        other => panic!("{line}: {other:?} behind a backslash"),
                    }),
                    (_, letter) => value.push(letter),
                }
            };
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}: {label} twice");
            rest = &behind[end..];
            match rest.split_at(1) {
                (",", behind) => rest = behind,
                ("}", behind) => {
                    rest = behind;
                    break;
                }
                _ => panic!("{line}: behind a label"),
            }
        }
    }
    let number = rest.strip_prefix(' ').expect("one space before the value");
    assert!(!number.contains(' '), "no time stamps: {line}");
    (name, labels, number.parse().unwrap_or_else(|_| panic!("{line}: no number")))
}

fn scrape(sentinel: &Sentinel, open_metrics: bool) -> Samples {
    parse(&text(&metrics_of(sentinel, open_metrics).expect("an open handle")), open_metrics)
}

/// The sum of all samples of this name with these labels.
fn sum(samples: &Samples, name: &str, labels: &[(&str, &str)]) -> f64 {
    let fits =
        |of: &BTreeMap<String, String>| labels.iter().all(|(key, value)| of.get(*key).is_some_and(|is| is == value));
    let found: Vec<f64> =
        samples.iter().filter(|((is, of), _)| is == name && fits(of)).map(|(_, value)| *value).collect();
    assert!(!found.is_empty(), "no {name} with {labels:?}");
    found.iter().sum()
}

/// Counters and the counts of histograms are not less than before.
#[track_caller]
fn never_go_back(before: &Samples, after: &Samples) {
    let counts = |name: &str| ["_total", "_bucket", "_count", "_sum"].iter().any(|end| name.ends_with(end));
    for ((name, labels), value) in before.iter().filter(|((name, _), _)| counts(name)) {
        let now = after.get(&(name.clone(), labels.clone())).unwrap_or_else(|| panic!("{name} {labels:?} is gone"));
        assert!(now >= value, "{name} {labels:?}: {value}, then {now}");
    }
}

#[test]
fn a_scrape_is_of_the_format_and_its_counters_outlive_clients_and_failovers() {
    let d = Deployment::new("metrics").replicas(1).start();
    let sentinel = sentinel_of(&d, &[]);
    parse(&text(&metrics_of(&sentinel, false).unwrap()), false);
    let clients: Vec<Arc<Client>> =
        [Target::Primary, Target::Primary, Target::Split].map(|target| open(&sentinel, target, &[])).into();
    for client in &clients {
        for _ in 0..40 {
            ok(client, "SET k v");
            ok(client, "GET k");
        }
        assert!(cmd(client, "LPUSH k v").is_err());
    }
    let (first, open) = (scrape(&sentinel, false), scrape(&sentinel, true));
    let names = |of: &Samples| of.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&first), names(&open), "the samples are the same in both formats");
    assert_eq!(sum(&first, "vigie_calls_total", &[("target", "primary")]), 162.0, "both clients together");
    assert_eq!(sum(&first, "vigie_calls_total", &[("service", SERVICE), ("target", "split")]), 81.0);
    assert_eq!(sum(&first, "vigie_call_errors_total", &[("status", "VIGIE_ERR_SERVER")]), 3.0);
    let answered: i64 = clients.iter().map(|client| counter(client, "answered")).sum();
    assert!((243..=answered).contains(&(sum(&first, "vigie_round_trip_seconds_count", &[]) as i64)));
    let took = sum(&first, "vigie_round_trip_seconds_sum", &[]);
    assert!(took > 0.0 && took < 60.0, "in seconds: {took}");
    assert_eq!(sum(&first, "vigie_sentinels", &[]), 3.0);
    let on_replica = [("role", "replica"), ("endpoint", &*d.replica_nodes(SERVICE)[0].addr())];
    assert!(sum(&first, "vigie_round_trip_seconds_count", &on_replica) >= 40.0);

    drop(clients);
    let second = scrape(&sentinel, false);
    never_go_back(&first, &second);
    assert!(sum(&second, "vigie_connections_closed_total", &[("reason", "closed")]) >= 3.0);
    let is_present = |((name, _), _): (&(String, BTreeMap<String, String>), &f64)| name == "vigie_pool_connections";
    assert!(first.iter().any(is_present) && !second.iter().any(is_present), "there is no pool any more");

    let client = to_primary(&sentinel, &[]);
    ok(&client, "SET k v");
    let old = d.failover(SERVICE);
    d.wait_switched(SERVICE, &old);
    eventually("the library has switched", PATIENCE, || {
        sum(&scrape(&sentinel, false), "vigie_failovers_total", &[]) == 1.0
    });
    ok(&client, "SET k w");
    let third = scrape(&sentinel, false);
    never_go_back(&second, &third);
    assert!(sum(&third, "vigie_fences_total", &[]) >= 1.0 && sum(&third, "vigie_fence_seconds_total", &[]) > 0.0);
    let gap = sum(&third, "vigie_failover_last_gap_seconds", &[]);
    assert!(gap > 0.0 && gap == sum(&third, "vigie_failover_gap_seconds_total", &[]), "{gap}");
    assert!(sum(&third, "vigie_connections_closed_total", &[("reason", "role"), ("endpoint", &old.addr())]) >= 1.0);

    // The same as a reply, for programs.
    let told = json(&stats_of(&sentinel).unwrap());
    for part in [r#""failovers":1"#, r#""sentinels":3"#, r#""target":"split""#, r#""degraded":false"#] {
        assert!(told.contains(part), "{part} in {told}");
    }
}

#[test]
fn a_name_that_would_end_a_label_comes_back_as_it_was() {
    let node = Scripted::primary();
    let name = "a \"quoted\\ name\nin two lines {é}";
    let config = config(&[("primary.addr", &node.addr())]);
    let sentinel = Sentinel::create(config.settings().unwrap(), None).unwrap();
    let client = Client::open(&sentinel, Some(name), Target::Primary, None).unwrap();
    ok(&client, "SET k v");
    for open_metrics in [false, true] {
        assert_eq!(sum(&scrape(&sentinel, open_metrics), "vigie_calls_total", &[("service", name)]), 1.0);
    }
    drop(client);
    let again = Client::open(&sentinel, Some(name), Target::Replica, None).unwrap();
    assert_eq!(
        sum(&scrape(&sentinel, false), "vigie_calls_total", &[("service", name)]),
        1.0,
        "of the one that was freed"
    );
    drop(again);
}

#[test]
fn each_shard_has_its_name_and_its_addresses_in_topology_statistics_and_metrics() {
    let d = Deployment::new("metrics-shards").services(["users", "b", "c"]).replicas(1).sentinels(1).quorum(1).start();
    let sentinel = sentinel_of(&d, &[]);
    let [primary, given, pair, replica] = ["users-0", "b-0", "c-0", "c-1"].map(|name| d.node(name).addr());
    let texts = [
        "node_1=sentinel:users".to_owned(),
        format!("node_2=redis://{given}"),
        format!("node_3=redis://{pair}|redis://{replica}"),
        format!("node_4=redis://{given}"),
    ];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let shards = Shards::open(Some(&sentinel), &texts, None).expect("shards");
    let key =
        |shard| (0..).map(|n| format!("k{n}")).find(|key| shards.shard_of(key.as_bytes()).unwrap() == shard).unwrap();
    let run = |args: &[&[u8]]| shards.cmd_exec(args, CallFlags::default(), Timeout::Default).expect("it runs");
    for shard in 0..4 {
        let key = key(shard);
        run(&[b"SET", key.as_bytes(), b"v"]);
        run(&[b"GET", key.as_bytes()]);
    }
    // The topology of each: its name, its primary, its replicas.
    let topology = shards.topology().expect("open");
    let of = topology.find(0, b"shards").expect("shards");
    assert_eq!(topology.children(of).count(), 2 * 4);
    for (name, service, addr, replicas) in [
        ("node_1", "users", &primary, vec![d.node("users-1").addr()]),
        ("node_2", "node_2", &given, vec![d.node("b-1").addr()]),
        ("node_3", "node_3", &pair, vec![replica.clone()]),
        ("node_4", "node_2", &given, vec![d.node("b-1").addr()]),
    ] {
        let node = topology.find(of, name.as_bytes()).unwrap_or_else(|| panic!("{name} in {}", json(&topology)));
        let word = |node, key: &str| {
            let found = topology.find(node, key.as_bytes()).and_then(|id| topology.bytes(id)).unwrap_or_default();
            String::from_utf8_lossy(found).into_owned()
        };
        assert_eq!((word(node, "name"), &word(node, "primary")), (service.to_owned(), addr), "{name}");
        let rows = topology.find(node, b"replicas").expect("replicas");
        let found: Vec<String> = topology.children(rows).map(|row| word(row, "addr")).collect();
        assert_eq!(found, replicas, "{name}");
    }
    // The statistics of each, as a reply and as JSON.
    let stats = shards.stats().expect("open");
    let told = json(&stats);
    for (name, addr) in [("node_1", &primary), ("node_2", &given), ("node_3", &pair)] {
        let of = stats.find(0, b"shards").and_then(|of| stats.find(of, name.as_bytes())).expect(name);
        let calls = stats.find(of, b"calls").and_then(|id| stats.int(id)).expect("calls");
        assert!(calls >= 3, "{name}: {calls}");
        assert!(
            json(&stats.subtree(of)).contains(&format!("\"endpoint\":\"{addr}\"")) && told.contains(name),
            "{told}"
        );
    }
    // The metrics, in both formats: a label for the shard, and each server once.
    for open_metrics in [false, true] {
        let samples = parse(&text(&shards.metrics(open_metrics).expect("open")), open_metrics);
        for (name, service, addr) in
            [("node_1", "users", &primary), ("node_2", "node_2", &given), ("node_3", "node_3", &pair)]
        {
            let labels = [("shard", name), ("service", service)];
            assert!(sum(&samples, "vigie_calls_total", &labels) >= 3.0);
            assert_eq!(sum(&samples, "vigie_failovers_total", &labels), 0.0);
            assert_eq!(sum(&samples, "vigie_call_errors_total", &labels), 0.0);
            let on = [labels[0], labels[1], ("endpoint", addr), ("role", "primary")];
            assert!(sum(&samples, "vigie_round_trip_seconds_count", &on) >= 1.0);
            assert!(sum(&samples, "vigie_connections_opened_total", &on) >= 1.0);
        }
        let on = [("shard", "node_3"), ("endpoint", &replica), ("role", "replica")];
        assert!(sum(&samples, "vigie_round_trip_seconds_count", &on) >= 1.0);
        assert!(
            !samples.keys().any(|(name, of)| name == "vigie_sentinels" || of.values().any(|value| value == "node_4"))
        );
    }
    // Of one service: the same without that label. The handle's own text goes on without it, too.
    let client = Client::open(&sentinel, Some("users"), Target::Primary, None).expect("a client");
    ok(&client, "PING");
    let samples = parse(&text(&client.metrics(false).expect("open")), false);
    assert!(samples.keys().all(|(_, labels)| !labels.contains_key("shard")));
    assert_eq!(sum(&samples, "vigie_calls_total", &[("service", "users")]), 1.0);
    assert!(scrape(&sentinel, false).keys().all(|(_, labels)| !labels.contains_key("shard")));
    shards.close(Timeout::Default).expect("closed");
    assert_eq!(fails(Status::Closed, shards.metrics(false)).status(), Status::Closed);
}
