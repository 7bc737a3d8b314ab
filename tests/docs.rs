//! CONFIGURATION.md, ERRORS.md, STATISTICS.md, TOPOLOGY.md and EVENTS.md are written from the tables in the source; this test fails when
//! they drift.
//!
//! `UPDATE_DOCS=1 cargo test --test docs` writes them anew.

use std::fmt::Write as _;
use std::path::Path;

use vigie::client::{MetricInfo, connection_ends, metric_infos, stats_maps, times_map};
use vigie::config::{Config, Described};
use vigie::error::Status;
use vigie::log::{self, line_map};
use vigie::pubsub::{gap_causes, gap_map};
use vigie::queue::kind;
use vigie::resp::fields::{FieldInfo, MapInfo};
use vigie::topology::{connection_causes, connection_map, event_causes, event_maps, topology_maps};

const CONFIGURATION_HEAD: &str = "\
# Configuration

<!-- Written from src/config/table.rs by `UPDATE_DOCS=1 cargo test --test docs`. Change the table, not this page. -->

A user who sets only the addresses of the Sentinels and the name of the service has a configuration fit for production:
timeouts, keepalive, retries and verification are on.

Every option has two spellings:

```c
vigie_config_set(config, \"timeout.call\", \"250\", &err);
vigie_config_set(config, \"uri\", \"redis-sentinel://user:password@h1:26379,h2,[::1]:26380/mymaster?timeout.call=250\", &err);
```

- **Precedence:** what is set later wins. A `uri` is applied at the point where it is set: it replaces what it names
  (with `user:password@` both, even if one is empty) and leaves the rest. Nothing is read from the environment.
- **Without Sentinels**, on a laptop or in CI, the same program runs with `redis://user:password@host:6379/db`, or with the option
  `primary.addr`: every service name leads to that primary, and nothing is discovered. `replica.addrs` gives its replicas.
- **The URI** is percent-decoded and must then be UTF-8; `+` is a plus. Its user and password are those of the data
  nodes; the Sentinels have `sentinel.username` and `sentinel.password`. Inside a user, a password, the service or a
  value write `/` as `%2F`, `?` as `%3F`, `#` as `%23`, `&` as `%26`, `%` as `%25` and, behind the host, `@` as `%40`.
- **Durations** are whole milliseconds (`250`), or have a unit behind the number: `250ms`, `5s`, `1m`. `off` stands for
  no limit where the table lists it.
- **Switches** are `true` or `false`; `yes`/`no`, `on`/`off`, `1`/`0` mean the same, also for options whose words are
  `on` and `off`.
- **Lists** have commas between; blanks around an entry do not count; an entry given twice counts once.
- **An empty text** stands for \"not set\": no password, no name, no map.
- **Checking:** an unknown option or a bad value is refused where it is set (`VIGIE_ERR_CONFIG`, with the option's name
  and the nearest known one), options that contradict each other when the handle is made; neither opens a connection.
  Passwords are never quoted, and shown as `***` by `vigie_config_describe()`.
- **Permissions:** what the users of `auth.username` and `sentinel.username` need, as lines to copy:
  [docs/permissions.md](docs/permissions.md).
- **Connections to Sentinels** belong to the process: at each Sentinel one for questions and one for events, whatever the number of
  services and handles. Handles share them if all options are equal that shape such a connection: `client.name`, `protocol`,
  `sentinel.username`, `sentinel.password`, `timeout.sentinel`, `tcp.*`. A handle with a `client.name` of its own has a pair of its own.
  So one handle serves many services, and services with passwords of their own can have a handle each without another connection.
- **Services** are polled every `monitor.interval` while a client, a call or a watch holds them, and for 60 s after that. Their entry stays in
  the topology, with its age.
- **Threads of the library** in one process, however many handles it has: one that listens to the Sentinels and asks them (`monitor`
  other than `off`); up to 4 for jobs that never wait for the network; up to 40 that open connections, two for one host, so that there
  are many only while as many hosts hang; up to 2 that resolve names. They start when there is work, and all but the first end 2 s after it.
  Calls do their input and output on the threads of the program.
- **TLS** is off, apart for the data nodes (`tls`) and the Sentinels (`sentinel.tls`); `rediss-sentinel://` sets both. Options below a
  switch that is off are refused, so that nobody speaks plainly by mistake. A build without TLS (`vigie_has_feature(\"tls\")` is 0)
  refuses the switches with `VIGIE_ERR_UNSUPPORTED`. [docs/tls.md](docs/tls.md) says what each failure means.

The column *changes* says where an option can be set besides the sentinel handle's own configuration: **client** = a
client may have its own value (the configuration given to `vigie_primary_for` and its like); **running** = it can be
changed while the handle is open, with `vigie_sentinel_configure`, or several at once with `vigie_sentinel_configure_all`.
";

const ERRORS_HEAD: &str = "\
# Errors

<!-- Written from src/error.rs by `UPDATE_DOCS=1 cargo test --test docs`. Change the table, not this page. -->

A function that can fail returns a `vigie_status`: 0 (`VIGIE_OK`) or one of the negative numbers below, which are never
used for anything else again. The error object has a sentence that says what was tried, where, what happened and after
how long; for `VIGIE_ERR_SERVER` it is the server's own line, unaltered (where a server refuses a new connection, what was tried
stands in front of it).

`vigie_error_flags()` says what may be done about it:

| flag | bit | meaning |
|---|---|---|
| `RETRYABLE` | 1 | The same call may succeed if it is tried again. |
| `MAYBE_EXECUTED` | 2 | It was sent and its answer did not come: it may have run. Look before you send it again. |
| `FAILOVER` | 4 | It happened while the topology was changing. |

An error without `MAYBE_EXECUTED` means that the command surely did not run, that the server answered it,
or that it is a scan, which changes nothing: go on with the same cursor. `VIGIE_ERR_REPLICAS` is such an answer: the write has run at the
primary, and only its copies are missing. To send it again would run it twice.
";

/// What the three pages about maps say of all maps.
const MAPS: &str = "\
Keys may be added in later versions, and none is renamed or changes its type: ignore those that you do not know.
Types are those of `vigie_reply_type()`: *int* is `VIGIE_TYPE_INT`, *bool* `VIGIE_TYPE_BOOL`, *text* `VIGIE_TYPE_STRING`,
*null* `VIGIE_TYPE_NULL`. In JSON (`vigie_reply_json()`) they are numbers, `true` and `false`, strings, and `null`.
";

const STATISTICS_HEAD: &str = "\
# Statistics

<!-- Written from src/client/stats.rs and src/meter/tally.rs by `UPDATE_DOCS=1 cargo test --test docs`. Change the tables, not this page. -->

`vigie_client_stats()` gives a MAP of what a client has done since it was made, and of its connections as they are at this moment. It
asks nobody and does not wait. Counters only grow; a session counts in the client that it was made from. The entries of `pools` come and go
with their nodes; what is counted for a node goes on when it comes back, and stays in the sums of the client. A closed client gives
`VIGIE_ERR_CLOSED`: read its last figures before the close.

Latencies need no clock of their own: a connection reads the clock when a batch of calls is sent and when replies come, because it measures
the round trip. So every reply counts, and none is sampled. A latency is that of the server and the network; the waits of a call before it
is sent have figures of their own (`held_back`, `waits`, `waited_us`, `fenced_ms`). It is told for each connection, in buckets of which
sixteen cover each doubling from 1 µs to 134 s, and added up here.

`vigie_sentinel_stats()` gives the same for a whole handle, with what failovers have cost each service ([handle](#handle)): there the
clients of a service and target are one map, and those that were freed stay in it. `vigie_sentinel_metrics()` gives that as
[text for Prometheus](#metrics). What was counted for a subscription stays in the sums of its client when it is freed, and its entry in
`subscription_list` goes. `vigie_call_times()` says where the time of one call went that has a call handle ([times](#times)).
";

const METRICS_HEAD: &str = "
## Metrics

`vigie_sentinel_metrics()` gives Prometheus' text format 0.0.4, or OpenMetrics 1.0 (`VIGIE_METRICS_OPENMETRICS`), where HELP and TYPE have the
name without `_total`. `vigie_client_metrics()` gives the same of one client, without the families of the handle; of a client over shards each
sample has a label `shard` in front of `service`, and a shard that is no service of the Sentinels has its name as its service. Clients of a service are added up, so that no two samples have the same labels. Counters do not go back when
clients are freed or nodes leave; gauges of a pool are there only while it is. Beyond 64 nodes of a client those without a pool are added
up under the endpoint `others`. Subscriptions and workers have no labels of their own: their figures are sums. The bounds of `round_trip_seconds` are powers of two of microseconds, because these are exact
edges of the buckets that are counted.

| name | type | labels | what it says |
|---|---|---|---|
";

const TOPOLOGY_HEAD: &str = "\
# Topology

<!-- Written from src/topology/table.rs by `UPDATE_DOCS=1 cargo test --test docs`. Change the table, not this page. -->

`vigie_client_topology()` gives a MAP of what is known of the client's service; `vigie_sentinel_topology()` and
`vigie_sentinel_refresh()` give the same for the service that is named, or, for NULL, a MAP from the name of each service that was asked
for to such a map (`vigie_sentinel_refresh()` asks for the one of the configuration, too). Only `vigie_sentinel_refresh()` asks the Sentinels,
or the primary of `primary.addr` for its role. `vigie_sentinel_services()` gives a MAP from the name of each service that the Sentinels watch to a
map \"deployment\". [EVENTS.md](EVENTS.md) tells of changes.
";

const EVENTS_HEAD: &str = "\
# Events

<!-- Written from src/queue/event.rs, src/topology/watch.rs, src/topology/cause.rs, src/topology/connections.rs, src/log and src/pubsub/gap.rs by `UPDATE_DOCS=1 cargo test --test
docs`. Change the tables, not this page. -->

A queue (`vigie_queue_create()`) gives the completions of submitted calls, the messages of subscriptions (`vigie_sub_for()`), and, after
`vigie_sentinel_watch()`, what happens to the services of a handle. The field `kind` of an event says which of the following it is.
Every event of a watch has a MAP as its reply.

Act on `cause`, which is a word with a fixed meaning; `reason` and `text` are for people, and their wording may change. `reason` is a
sentence, or the word of `cause` where there is no more to say; in NOTICE it is always that word, and the sentence is in `text`.
";

/// The ranges of numbers, each with what it is about.
const RANGES: [(&str, std::ops::RangeInclusive<i32>); 5] = [
    ("The call itself: -1 to -99", -99..=-1),
    ("The connection: -100 to -199", -199..=-100),
    ("Sentinels and topology: -200 to -299", -299..=-200),
    ("Pools and queues: -300 to -399", -399..=-300),
    ("The server's answer: -400 to -499", -499..=-400),
];

fn configuration() -> String {
    let mut page = CONFIGURATION_HEAD.to_owned();
    let mut group = None;
    for row in Config::new().describe() {
        let (prefix, rest) = row.key.split_once('.').unwrap_or((row.key, ""));
        let prefix = if rest.is_empty() { "general" } else { prefix };
        if group != Some(prefix) {
            group = Some(prefix);
            let head = "| option | type | default | what it does | changes | since |\n|---|---|---|---|---|---|\n";
            let _ = write!(page, "\n## {prefix}\n\n{head}");
        }
        page.push_str(&configuration_row(&row));
    }
    page
}

fn configuration_row(row: &Described) -> String {
    let kind =
        if row.range.is_empty() { row.type_name.to_owned() } else { format!("{}: {}", row.type_name, row.range) };
    let default = if row.default.is_empty() { String::new() } else { format!("`{}`", row.default) };
    let changes: Vec<_> =
        [("client", row.per_client), ("running", row.dynamic)].iter().filter(|c| c.1).map(|c| c.0).collect();
    let changes = changes.join(", ");
    format!("| `{}` | {kind} | {default} | {} | {changes} | {} |\n", row.key, row.text, row.since)
}

fn errors() -> String {
    let mut page = ERRORS_HEAD.to_owned();
    for (title, range) in RANGES {
        let _ = write!(page, "\n## {title}\n\n| name | number | cause | what to do |\n|---|---|---|---|\n");
        for info in Status::ALL.iter().filter(|info| range.contains(&info.status.code())) {
            let _ = writeln!(page, "| `{}` | {} | {} | {} |", info.name, info.status.code(), info.cause, info.remedy);
        }
    }
    page
}

fn maps_page(head: &str, maps: &[MapInfo]) -> String {
    let mut page = format!("{head}\n{MAPS}");
    for map in maps {
        let _ = write!(page, "\n## {}\n\n{}", map.name, map_table(map));
    }
    page
}

/// The reasons for which connections are closed.
fn ends() -> String {
    let mut table = String::from("\n## Reasons for the end of a connection\n\n| reason | meaning |\n|---|---|\n");
    for info in connection_ends() {
        let _ = writeln!(table, "| `{}` | {} |", info.word, info.text);
    }
    table
}

fn map_table(map: &MapInfo) -> String {
    let mut table = String::from("| key | type | unit | what it says | since |\n|---|---|---|---|---|\n");
    for FieldInfo { key, type_name, nullable, maps, unit, text, since } in &map.fields {
        let kind = match maps {
            Some(name) => format!("array of [{name}](#{name})"),
            None if *nullable => format!("{type_name} or null"),
            None => (*type_name).to_owned(),
        };
        let _ = writeln!(table, "| `{key}` | {kind} | {unit} | {text} | {since} |");
    }
    table
}

fn events() -> String {
    let mut page = format!("{EVENTS_HEAD}\n{MAPS}");
    let maps: Vec<_> = event_maps().into_iter().chain([gap_map(), connection_map(), line_map()]).collect();
    for (kind, name, text) in kind::ALL {
        let _ = write!(page, "\n## VIGIE_EVENT_{name} ({kind})\n\n{text}\n");
        if let Some((_, map)) = maps.iter().find(|(of, _)| of == kind) {
            let _ = write!(page, "\n{}", map_table(map));
        }
        let own: Vec<_> = match *kind {
            kind::SUB_GAP => gap_causes().collect(),
            kind::CONNECTION => connection_causes().collect(),
            _ => Vec::new(),
        };
        if !own.is_empty() {
            page.push_str("\nIts causes are its own:\n\n| cause | meaning |\n|---|---|\n");
            own.iter().for_each(|(word, text)| _ = writeln!(page, "| `{word}` | {text} |"));
        }
    }
    page.push_str(
        "\n## Causes\n\nWords that begin with `+` or `-` are channels of Sentinels: one has published a message there. NOTICE, REPLICA and \
         SENTINEL give them for whatever is published about the service; FENCE for `+try-failover`, `+elected-leader`, \
         `+failover-state-*`, `+selected-slave` and `+promoted-slave` (on), and for `-failover-abort-*` (off). The others are the \
         library's own:\n\n| cause | events | meaning |\n|---|---|---|\n",
    );
    for cause in event_causes() {
        let kinds: Vec<_> = kind::ALL.iter().filter(|(kind, ..)| cause.kinds & kind != 0).map(|kind| kind.1).collect();
        let _ = writeln!(page, "| `{}` | {} | {} |", cause.word, kinds.join(", "), cause.text);
    }
    page
}

fn compare(name: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, wanted).unwrap();
    }
    let present = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(present == wanted, "{name} differs from the source: run UPDATE_DOCS=1 cargo test --test docs");
}

/// A line that is not on the page is not understood by who reads it.
#[test]
fn the_page_about_the_log_lists_each_line() {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/logs.md")).expect("docs/logs.md");
    for log::Head { level, target, message } in log::lines::ALL {
        let row = format!("| {} | `{target}` | {message} |", log::word(*level));
        assert!(page.contains(&row), "docs/logs.md lacks {row}");
    }
    let rows = page
        .lines()
        .filter(|line| ["error", "warning", "info", "debug"].iter().any(|w| line.starts_with(&format!("| {w} | `"))));
    assert_eq!(rows.count(), log::lines::ALL.len(), "docs/logs.md has lines that are never written");
}

/// The licences of what is compiled in are installed with it; `scripts/third-party` writes them.
#[test]
fn third_party_names_each_crate_that_is_compiled_in() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("THIRD-PARTY")).expect("THIRD-PARTY");
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.current_dir(root).args([
        "tree",
        "--offline",
        "--locked",
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
    ]);
    let output = cargo.args(["--format", "{p} ({l})"]).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<_> = tree.lines().filter(|line| !line.starts_with("vigie ")).collect();
    assert!(lines.iter().any(|line| line.starts_with("rustls v")), "{tree}");
    for line in lines {
        let line = line.replacen(" v", " ", 1);
        let line = line.trim_end_matches(" (*)");
        assert!(page.contains(&format!("- {line}: ")), "THIRD-PARTY lacks {line}: run scripts/third-party");
    }
}

/// README's table of tested servers: who, how many, what was skipped for which of the kit's reasons, and when.
#[test]
fn each_row_of_the_tested_servers_is_whole() {
    let read = |name: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap_or_else(|_| panic!("{name}"))
    };
    let (readme, reasons) = (read("README.md"), read("tests/support/server.rs"));
    let (_, rest) = readme.split_once("<!-- servers: scripts/test-servers writes these rows -->\n").expect("its begin");
    let (table, _) = rest.split_once("<!-- servers end -->").expect("its end");
    let is_number = |cell: &str| !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit());
    let mut kinds = Vec::new();
    for row in table.lines().skip(2) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [server, counted, failed, skipped, date] = cells[..] else { panic!("not five cells: {row}") };
        // "632", or "632 (2 of them when run again)".
        let (passed, again) = counted.split_once(" (").unwrap_or((counted, "0 of them when run again)"));
        let again = again.strip_suffix(" of them when run again)").expect("the second attempts");
        let (name, version) = server.split_once(' ').expect("a name and a version");
        assert!(matches!(name, "Redis" | "Valkey") && version.split('.').count() == 3, "{row}");
        assert!(
            version.split('.').all(is_number)
                && is_number(passed)
                && is_number(again)
                && passed != "0"
                && failed == "0",
            "{row}"
        );
        let date: Vec<&str> = date.split('-').collect();
        assert!(date.len() == 3 && date.iter().all(|part| is_number(part)), "{row}");
        for reason in skipped.split("; ").filter(|_| skipped != "none") {
            let (count, why) = reason.split_once(": ").expect("a number and a reason");
            assert!(is_number(count) && reasons.contains(&format!("\"{why}\"")), "{reason:?} is none of the kit's");
        }
        let major = version.split('.').next().unwrap_or_default();
        let kind = format!("{name} {major}");
        assert!(!kinds.contains(&kind), "two rows of {kind}");
        kinds.push(kind);
    }
    assert!(!kinds.is_empty(), "no server was tested");
}

#[test]
fn configuration_md_is_what_the_option_table_says() {
    compare("CONFIGURATION.md", &configuration());
}

#[test]
fn errors_md_is_what_the_status_table_says() {
    compare("ERRORS.md", &errors());
}

#[test]
fn statistics_md_topology_md_and_events_md_are_what_the_tables_of_the_maps_say() {
    let maps: Vec<_> = stats_maps().into_iter().chain([times_map()]).collect();
    let mut page = maps_page(STATISTICS_HEAD, &maps);
    page.push_str(&ends());
    page.push_str(METRICS_HEAD);
    for MetricInfo { name, kind, labels, help } in metric_infos() {
        let suffix = if kind == "counter" { "_total" } else { "" };
        let labels: Vec<_> = labels.split_whitespace().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(page, "| `vigie_{name}{suffix}` | {kind} | {} | {help} |", labels.join(", "));
    }
    compare("STATISTICS.md", &page);
    compare("TOPOLOGY.md", &maps_page(TOPOLOGY_HEAD, &topology_maps()));
    compare("EVENTS.md", &events());
}

/// The kinds of the header are those of the table, and those with a map can be watched.
#[test]
fn each_kind_of_event_of_the_header_stands_on_its_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = std::fs::read_to_string(root.join("include/vigie.h")).unwrap();
    let values = header.lines().map(|line| line.trim().trim_end_matches(','));
    let in_header = values.filter_map(|line| line.strip_prefix("VIGIE_EVENT_")?.strip_suffix(')'));
    let in_header: Vec<_> = in_header.map(str::to_owned).collect();
    let mut kinds: Vec<_> = kind::ALL.iter().collect();
    kinds.sort_by_key(|(kind, ..)| *kind);
    let in_table: Vec<_> =
        kinds.iter().map(|(kind, name, _)| format!("{name} = (1 << {}", kind.trailing_zeros())).collect();
    assert_eq!(in_header, in_table);
    let watched = event_maps().iter().fold(0, |mask, (kind, _)| mask | kind);
    assert_eq!(watched, vigie::topology::WATCHABLE);
}

/// A cause that nothing gives would be a promise to nobody: each is named in the sources outside its own file.
#[test]
fn each_cause_is_given_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/topology");
    let table = std::fs::read_to_string(root.join("cause.rs")).unwrap();
    let files = std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path());
    let others = files.filter(|path| !path.ends_with("cause.rs"));
    let others: String = others.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let names: Vec<_> =
        table.split("row(").filter_map(|row| row.trim_start().strip_prefix("Self::")?.split(',').next()).collect();
    assert_eq!(names.len(), event_causes().len());
    for name in names {
        assert!(others.contains(&format!("Cause::{name}")), "{name}");
    }
}

#[test]
fn each_option_and_each_code_stands_on_its_page_once() {
    let (configuration, errors) = (configuration(), errors());
    for row in Config::new().describe() {
        assert_eq!(configuration.matches(&format!("\n| `{}` |", row.key)).count(), 1, "{}", row.key);
        assert!(!row.text.contains(['|', '\n']), "{}", row.key);
    }
    for info in Status::ALL {
        assert_eq!(errors.matches(&format!("\n| `{}` |", info.name)).count(), 1, "{}", info.name);
    }
    let headings: Vec<_> = configuration.lines().filter(|line| line.starts_with("## ")).collect();
    let mut unique = headings.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(headings.len(), unique.len(), "a group is torn apart: {headings:?}");
}
