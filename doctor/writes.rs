//! Whether the primary takes writes now, and whether the options that programs write with can be met.
//!
//! It runs one write that never changes anything, SETRANGE of nothing, because only a write tells each reason for which a server refuses it.
//! A user that may not run it is served by the numbers of INFO and CONFIG.

use vigie::config::{Replicas, WriteSettings};
use vigie::net::Conn;

use super::Wanted;
use super::finding::{Report, Severity, said};
use super::nodes::{Node, shown};
use super::primary::{Account, KEYS};
use super::reach::{ask, unanswered};
use Severity::{Fault, Note};

/// A write without effect: nothing is put at the beginning of a key that need not exist.
const NO_EFFECT: [&str; 4] = ["SETRANGE", "vigie-doctor", "0", ""];

/// Looks whether the primary takes writes.
pub fn taken(conn: &mut Conn, node: &Node, account: &Account, wanted: &Wanted, report: &mut Report) {
    let tried = ask(conn, &NO_EFFECT, wanted);
    let told = tried.as_ref().err().filter(|line| change_of(line).is_some()).cloned();
    if let Some(line) = told.or_else(|| by_numbers(account)) {
        return refused(&line, node, account, report);
    }
    let Err(line) = tried else { return report.ok("writes", format!("{} takes writes", shown(node))) };
    unanswered(conn, node, &NO_EFFECT[..2], &line, report);
    if conn.is_broken() {
        return;
    }
    match missing(account) {
        None => {
            report.ok("writes", format!("{} takes writes, by what INFO and CONFIG tell without SETRANGE", shown(node)));
        }
        Some(missing) => report.add(
            Note,
            "not_asked",
            format!("whether {} takes writes is not known: SETRANGE is refused, and {missing}", shown(node)),
            "A refusal of all writes would not be seen here.",
            "Give the user what docs/permissions.md lists under \"The user of vigie-doctor\".",
        ),
    }
}

/// What was not told of that by which a refusal of writes can be known.
fn missing(account: &Account) -> Option<&'static str> {
    let has_memory = !account.told("used_memory").is_empty();
    let has_settings = KEYS.iter().all(|key| account.config.contains_key(key));
    match (has_memory, has_settings) {
        (true, true) => None,
        (true, false) => Some("CONFIG GET does not tell either"),
        (false, true) => Some("INFO does not tell either"),
        (false, false) => Some("neither INFO nor CONFIG GET tells"),
    }
}

fn refused(line: &str, node: &Node, account: &Account, report: &mut Report) {
    let (min, good) = (account.configured(KEYS[0]), said(&account.told(GOOD)));
    let numbers = match line.starts_with("NOREPLICAS") && !good.is_empty() {
        true => format!(" (min-replicas-to-write is {}, and {good} replicas are good enough)", said(min)),
        false => String::new(),
    };
    report.add(
        Fault,
        "writes_refused",
        format!("the primary {} refuses every write: {line}{numbers}", shown(node)),
        "Programs that write wait, or fail; reads go on.",
        change_of(line).unwrap_or_default(),
    );
}

/// The replicas that are connected and lag no more than `min-replicas-max-lag`.
const GOOD: &str = "min_slaves_good_slaves";

/// What to change, by the code of the refusal; `None`: it says nothing about writes as such.
fn change_of(line: &str) -> Option<&'static str> {
    Some(match line.split(' ').next()? {
        "NOREPLICAS" => {
            "Start or link the replicas that are missing, or lower `min-replicas-to-write` at all nodes to what can be kept."
        }
        "MISCONF" => {
            "See the log of the server: the disk is full or may not be written. After the mending `BGSAVE` lets writes pass again."
        }
        "OOM" => "Raise `maxmemory`, delete data, or choose a `maxmemory-policy` that evicts.",
        "READONLY" => "It is a replica: name the primary, or see which node the Sentinels are to name.",
        _ => return None,
    })
}

/// Why writes have to be refused, by what the server tells of itself, in its own words.
fn by_numbers(account: &Account) -> Option<String> {
    let text = |key: &str| account.told(key);
    let [min, stops, points] = KEYS.map(|key| account.configured(key));
    let stops = stops == "yes" && !points.is_empty();
    let number = |key: &str| text(key).parse::<u64>().ok();
    let used = number("used_memory")?.saturating_sub(number("mem_not_counted_for_evict").unwrap_or(0));
    let (limit, policy) = (number("maxmemory").unwrap_or(0), text("maxmemory_policy"));
    let lacks = number(GOOD).zip(min.parse::<u64>().ok()).is_some_and(|(good, min)| min > good);
    let aof_fails = text("aof_enabled") == "1" && text("aof_last_write_status") == "err";
    match () {
        () if limit > 0 && used > limit && policy == "noeviction" => {
            Some(format!("OOM {used} bytes are used of a maxmemory of {limit}, and maxmemory-policy is noeviction"))
        }
        () if stops && text("rdb_last_bgsave_status") == "err" => {
            Some("MISCONF the last BGSAVE failed, and stop-writes-on-bgsave-error is yes".into())
        }
        () if aof_fails => Some("MISCONF the last write of the append-only file failed".into()),
        () if lacks => Some("NOREPLICAS there are not enough good replicas".into()),
        () => None,
    }
}

/// Looks whether writes can be confirmed as `write.aof` asks for, at the primary.
pub fn confirmed(conn: &mut Conn, write: WriteSettings, node: &Node, wanted: &Wanted, report: &mut Report) {
    let mut asked = Vec::new();
    if write.aof {
        asked.push(("write.aof", ["WAITAOF", "1", "0", "1"].as_slice()));
    } else if write.replicas != Replicas::None {
        asked.push(("write.replicas", ["WAIT", "0", "1"].as_slice()));
    }
    for (option, words) in asked {
        let Err(line) = ask(conn, words, wanted) else { continue };
        if conn.is_broken() {
            unanswered(conn, node, words, &line, report);
        } else {
            report.add(
                Fault,
                UNMET,
                format!("`{option}` cannot be met by the primary {}: {line}", shown(node)),
                "Each write runs, and then fails.",
                "`write.aof` needs `appendonly yes` and Redis 7.2 or Valkey, `write.replicas` the permission `+wait` (docs/permissions.md).",
            );
        }
    }
}

const UNMET: &str = "write_options";

/// Looks whether as many replicas as `write.replicas` asks for can confirm a write.
pub fn enough(write: WriteSettings, able: usize, listed: usize, report: &mut Report) {
    let needed = match write.replicas {
        Replicas::None => return,
        Replicas::AtLeast(count) => count as usize,
        Replicas::All => listed,
    };
    let on_disk = if write.aof { " and have `appendonly yes`" } else { "" };
    let what = format!("`write.replicas` asks for {needed}; {able} of {listed} replicas are linked{on_disk}");
    match able < needed {
        true => report.add(
            Fault,
            UNMET,
            what,
            "Each write runs, and then fails because too few replicas confirm it.",
            "Start or link more replicas (with `write.aof`: `appendonly yes` at each), or lower `write.replicas`.",
        ),
        false => report.ok(UNMET, what),
    }
}
