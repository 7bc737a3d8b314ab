//! What a primary says of itself: its role, whether it keeps its data, and whether it goes on alone.
//!
//! Guarantees: nothing is said without an answer of the node; what it does not answer is told. Leaves to others: whether it takes writes
//! (writes).

use std::collections::BTreeMap;

use vigie::config::Settings;
use vigie::net::Conn;
use vigie::resp::Reply;

use super::Wanted;
use super::finding::{Report, Severity, said};
use super::nodes::{Node, leader, shown};
use super::reach::{ask, ask_or_tell, unanswered};
use super::sentinels::{field, maps};
use Severity::{Fault, Note, Warning};

/// Settings that are asked for.
pub const KEYS: [&str; 3] = ["min-replicas-to-write", "stop-writes-on-bgsave-error", "save"];

/// What a primary has answered.
pub struct Account {
    /// INFO.
    pub info: Option<Reply>,
    /// Settings, by name, as far as it tells them.
    pub config: BTreeMap<&'static str, String>,
    /// Whether it said that it has another role.
    pub is_other: bool,
}

impl Account {
    /// A field of INFO; empty: it was not told.
    pub fn told(&self, key: &str) -> String {
        self.info.as_ref().map(|info| field(info, 0, key)).unwrap_or_default()
    }

    /// A setting; empty: it was not told.
    pub fn configured(&self, key: &str) -> &str {
        self.config.get(key).map(String::as_str).unwrap_or_default()
    }
}

/// Asks a node that is named as the primary for its role, and tells; true: it has another one.
pub fn role(conn: &mut Conn, settings: &Settings, node: &Node, wanted: &Wanted, report: &mut Report) -> bool {
    let Some(role) = ask_or_tell(conn, node, &["ROLE"], wanted, report) else { return false };
    let word = field(&role, 0, "role");
    if matches!(word.as_str(), "master" | "primary") {
        let replicas = maps(&role, "replicas").len();
        report.ok("primary", format!("the primary is {}, with {replicas} replicas connected", shown(node)));
        return false;
    }
    let of = if role.find(0, b"host").is_some() { format!(" of {}", said(&leader(&role))) } else { String::new() };
    report.add(
        Fault,
        "wrong_role",
        format!("{} is named as the primary and says that it is a {}{of}", shown(node), said(&word)),
        "Writes are refused there.",
        match settings.sentinel.addrs.is_empty() {
            true => "Name the primary in the URI, or the Sentinels, which know it also after a failover (`redis-sentinel://`).",
            false => "A failover may be under way: look again. If it stays, see which node the Sentinels are to name.",
        },
    );
    true
}

/// Asks a primary for what it says of itself, and tells.
pub fn look(conn: &mut Conn, settings: &Settings, node: &Node, wanted: &Wanted, report: &mut Report) -> Account {
    let is_other = role(conn, settings, node, wanted, report);
    let info = ask_or_tell(conn, node, &["INFO"], wanted, report);
    let mut account = Account { info, config: BTreeMap::new(), is_other };
    for key in KEYS {
        let words = ["CONFIG", "GET", key];
        match ask(conn, &words, wanted) {
            Ok(reply) => _ = reply.find(0, key.as_bytes()).map(|_| account.config.insert(key, field(&reply, 0, key))),
            Err(line) => {
                unanswered(conn, node, &words, &line, report);
                break;
            }
        }
    }
    if !is_other {
        alone(&account, node, report);
        kept(&account, node, report);
    }
    account
}

/// Whether it goes on taking writes without replicas.
fn alone(account: &Account, node: &Node, report: &mut Report) {
    match account.config.get(KEYS[0]).map(String::as_str) {
        None => {}
        Some("0") => report.add(
            Note,
            "min_replicas_zero",
            format!("min-replicas-to-write is 0 at {}", node.addr),
            "A primary that is cut off goes on taking writes of clients beside it, and all of them are lost when it is demoted.",
            "Set `min-replicas-to-write 1` and `min-replicas-max-lag 10` at all nodes, or `write.replicas` in programs whose writes count.",
        ),
        Some(min) => report.ok("min_replicas", format!("min-replicas-to-write is {}", said(min))),
    }
}

/// Whether it has its data after a restart.
fn kept(account: &Account, node: &Node, report: &mut Report) {
    let how = match (account.told("aof_enabled").as_str(), account.config.get("save").map(String::as_str)) {
        ("1", _) => "an append-only file",
        (_, Some(points)) if !points.is_empty() => "save points",
        ("0", Some(_)) => {
            return report.add(
                Warning,
                "no_persistence",
                format!("the primary {} keeps its data in memory alone: no append-only file, no save points", shown(node)),
                "If it is started again before the Sentinels notice that it was gone, it is empty, and the replicas copy that: all data are lost.",
                "Set `appendonly yes` or `save` points at all nodes; or let nothing start a node again by itself before a failover is over.",
            );
        }
        _ => return,
    };
    report.ok("persistence", format!("the primary {} has {how}", node.addr));
}
