//! CONFIGURATION.md and ERRORS.md are written from the tables in the source; this test fails when they drift.
//!
//! `UPDATE_DOCS=1 cargo test --test docs` writes them anew.

use std::fmt::Write as _;
use std::path::Path;

use vigie::config::{Config, Described};
use vigie::error::Status;

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
- **The URI** is percent-decoded and must then be UTF-8; `+` is a plus. Its user and password are those of the data
  nodes; the Sentinels have `sentinel.username` and `sentinel.password`. Inside a user, a password, the service or a
  value write `/` as `%2F`, `?` as `%3F`, `#` as `%23`, `&` as `%26`, `%` as `%25` and, behind the host, `@` as `%40`.
- **Durations** are whole milliseconds (`250`), or have a unit behind the number: `250ms`, `5s`, `1m`. `off` stands for
  no limit where the table lists it.
- **Switches** are `true` or `false`; `yes`/`no`, `on`/`off`, `1`/`0` mean the same.
- **Lists** have commas between; blanks around an entry do not count; an entry given twice counts once.
- **An empty text** stands for \"not set\": no password, no name, no map.
- **Checking:** an unknown option or a bad value is refused where it is set (`VIGIE_ERR_CONFIG`, with the option's name
  and the nearest known one), options that contradict each other when the handle is made; neither opens a connection.
  Passwords are never quoted, and shown as `***` by `vigie_config_describe()`.
- **Permissions:** what the users of `auth.username` and `sentinel.username` need, as lines to copy:
  [docs/permissions.md](docs/permissions.md).
- **TLS** is not in this build: `rediss-sentinel://` and `rediss://` give `VIGIE_ERR_UNSUPPORTED`, options whose names
  begin with `tls` `VIGIE_ERR_CONFIG`.

The column *changes* says where an option can be set besides the sentinel handle's own configuration: **client** = a
client may have its own value (the configuration given to `vigie_primary_for` and its like); **running** = it can be
changed while the handle is open, with `vigie_sentinel_configure`.
";

const ERRORS_HEAD: &str = "\
# Errors

<!-- Written from src/error.rs by `UPDATE_DOCS=1 cargo test --test docs`. Change the table, not this page. -->

A function that can fail returns a `vigie_status`: 0 (`VIGIE_OK`) or one of the negative numbers below, which are never
used for anything else again. The error object has a sentence that says what was tried, where, what happened and after
how long; for `VIGIE_ERR_SERVER` it is the server's own line, unaltered.

`vigie_error_flags()` says what may be done about it:

| flag | bit | meaning |
|---|---|---|
| `RETRYABLE` | 1 | The same call may succeed if it is tried again. |
| `MAYBE_EXECUTED` | 2 | It was sent and its answer did not come: it may have run. Look before you send it again. |
| `FAILOVER` | 4 | It happened while the topology was changing. |

An error without `MAYBE_EXECUTED` means that the command surely did not run, that the server answered it,
or that it is a scan, which changes nothing: go on with the same cursor.
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

fn compare(name: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, wanted).unwrap();
    }
    let present = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(present == wanted, "{name} differs from the source: run UPDATE_DOCS=1 cargo test --test docs");
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
