//! What replicas say of themselves: whom they follow, whether their link is up, and whether they could be promoted.
//!
//! Guarantees: what a replica says itself counts more than what the Sentinels say of it, because they ask it every 10 s only. Leaves to
//! others: connecting (reach), and how many replicas a write needs (writes).

use std::collections::BTreeSet;

use vigie::config::Settings;
use vigie::net::Conn;
use vigie::resp::Reply;

use super::Wanted;
use super::finding::{Report, Severity, said};
use super::nodes::{Node, announced, leader};
use super::reach::{Hindrance, WAKE, ask_or_tell, message, open, reach, told};
use super::sentinels::{field, maps, version};
use super::writes;
use Severity::{Fault, Note, Warning};

/// The nodes that a replica may name as the one that it follows.
struct Leaders {
    /// The primary, as it is dialled and as it is announced.
    primary: [String; 2],
    /// Each replica, in the same way.
    replicas: BTreeSet<String>,
    /// The number of the primary's data set; empty: not known.
    data_set: String,
    /// The configuration lists the nodes, and no Sentinel.
    is_fixed: bool,
}

/// A replica as it is listed.
struct Listed {
    node: Node,
    flags: String,
    unfit: String,
    standing: Standing,
}

/// What is known of a replica.
#[derive(Clone, Copy)]
struct Standing {
    /// `replica-priority`; 0: it is never promoted.
    priority: i64,
    is_linked: bool,
    /// It confirms the writes of the primary.
    is_able: bool,
    /// By its own word, and not by that of the Sentinels.
    is_own: bool,
}

impl Listed {
    fn of(topology: &Reply, row: u32) -> Self {
        let [addr, announced, flags, unfit] =
            ["addr", "announced", "flags", "unfit"].map(|key| field(topology, row, key));
        let number = |key: &str| topology.find(row, key.as_bytes()).and_then(|id| topology.int(id)).unwrap_or(0);
        let (priority, is_linked) = (number("priority"), number("link_ok") == 1);
        let standing = Standing { priority, is_linked, is_able: false, is_own: false };
        Self { node: Node { role: "replica", addr, announced }, flags, unfit, standing }
    }

    fn is_down(&self) -> bool {
        self.flags.split(',').any(|flag| matches!(flag, "s_down" | "o_down" | "disconnected"))
    }
}

/// Looks at the replicas of a service. `data_set`: the number of the primary's, if it is known.
pub fn look(
    settings: &Settings,
    topology: &Reply,
    data_set: String,
    wanted: &Wanted,
    versions: &mut BTreeSet<String>,
    report: &mut Report,
) {
    let rows = maps(topology, "replicas");
    let primary = ["primary", "announced"].map(|key| field(topology, 0, key));
    let names = |row: &u32| ["addr", "announced"].map(|key| field(topology, *row, key));
    let is_fixed = settings.sentinel.addrs.is_empty();
    let leaders = Leaders { primary, replicas: rows.iter().flat_map(names).collect(), data_set, is_fixed };
    let (mut able, mut candidates, mut by_word) = (0, 0, 0);
    for row in &rows {
        let listed = Listed::of(topology, *row);
        announced(settings, &listed.node, report);
        let mut standing = listed.standing;
        if let Some(mut conn) = connected(settings, &listed, wanted, report) {
            let info = ask_or_tell(&mut conn, &listed.node, &["INFO"], wanted, report);
            versions.extend(info.as_ref().and_then(version));
            standing = asked(&mut conn, &listed, info.as_ref(), &leaders, wanted, report);
            let has_aof = || info.as_ref().is_some_and(|info| field(info, 0, "aof_enabled") == "1");
            standing.is_able &= !settings.client.write.aof || has_aof();
        }
        if standing.priority == 0 && !is_fixed {
            priority_zero(&listed, report);
        }
        let is_candidate = standing.priority != 0 && standing.is_linked && !listed.is_down();
        able += usize::from(standing.is_able);
        candidates += usize::from(is_candidate);
        by_word += usize::from(is_candidate && !standing.is_own);
    }
    writes::enough(settings.client.write, able, rows.len(), report);
    if !is_fixed {
        promotable(topology, rows.len(), candidates, by_word, report);
    }
}

/// Connects to a replica, and tells of it.
fn connected(settings: &Settings, listed: &Listed, wanted: &Wanted, report: &mut Report) -> Option<Conn> {
    let Listed { node, flags, .. } = listed;
    if !listed.is_down() {
        return reach(settings, node, wanted, report);
    }
    let opened = open(settings, &node.addr, wanted);
    let (met, change) = match &opened {
        Ok(_) => ("from here it answers".to_owned(), UNSEEN),
        Err(error) => {
            let (how, change) = match Hindrance::of(error) {
                Hindrance::Silence => ("accepts connections from here, and gives no answer", WAKE),
                Hindrance::Refusal | Hindrance::Excuse | Hindrance::Tls => {
                    ("runs, and cannot be used from here", REFUSED)
                }
                _ if listed.standing.is_linked => ("cannot be used from here either", MISNAMED),
                _ => ("cannot be used from here either", GONE),
            };
            (format!("it {how}: {}", message(error)), change)
        }
    };
    report.add(
        Warning,
        "replica_down",
        format!("the Sentinels consider the replica {} down ({}); {met}", node.addr, said(flags)),
        "It serves no reads and cannot be promoted.",
        change,
    );
    opened.map(|conn| told(conn, node, report)).ok()
}

const UNSEEN: &str = "If it has just come back, they see it within a second. Otherwise look for what is between the Sentinels and it: a firewall, \
     another network, a password that they do not have (`sentinel auth-pass`).";
const REFUSED: &str = "Read the message, and see whether the Sentinels are refused as well (`sentinel auth-user`, `sentinel auth-pass`, TLS).";
const MISNAMED: &str = "It is linked to its primary, or was when the Sentinels reached it last: if it runs, its announced address leads nowhere. \
     Correct `replica-announce-ip` and `replica-announce-port` there; otherwise start it.";
const GONE: &str = "Start it. If it is gone for good, `SENTINEL RESET <service>` makes the Sentinels forget it: one Sentinel after the other, and \
     the next only when the last one knows its replicas and the other Sentinels again.";

/// Asks a replica, and tells what is wrong with what it says of itself.
fn asked(
    conn: &mut Conn,
    listed: &Listed,
    info: Option<&Reply>,
    leaders: &Leaders,
    wanted: &Wanted,
    report: &mut Report,
) -> Standing {
    let (Listed { node, unfit, .. }, mut standing) = (listed, listed.standing);
    let told = |key: &str| info.map(|info| field(info, 0, key)).unwrap_or_default();
    let role = ask_or_tell(conn, node, &["ROLE"], wanted, report);
    standing.is_own = role.is_some() && info.is_some();
    standing.priority = told("slave_priority").parse().unwrap_or(standing.priority);
    let (leader, state) = match &role {
        Some(role) => match field(role, 0, "role").as_str() {
            "slave" | "replica" => (leader(role), field(role, 0, "state")),
            other => {
                turned(node, other, leaders.is_fixed, report);
                standing.is_linked = false;
                return standing;
            }
        },
        // INFO calls the same state `up`.
        None => (String::new(), told("master_link_status").replace("up", LINKED)),
    };
    if told("slave_read_only") == "0" {
        writable(node, report);
    }
    if !state.is_empty() {
        standing.is_linked = state == LINKED;
    }
    let is_cut = !state.is_empty() && !standing.is_linked;
    if is_cut {
        unlinked(node, &leader, &state, report);
    }
    let is_astray = is_cut || astray(node, &leader, &told("master_replid"), leaders, report);
    standing.is_able = standing.is_linked && !is_astray;
    if !is_astray && !listed.is_down() && !unfit.is_empty() {
        report.add(
            Note,
            "replica_unfit",
            format!("the library does not read from the replica {}: {}", node.addr, said(unfit)),
            "Reads go to the other nodes meanwhile.",
            "Nothing, if it has just started, or if a failover has just been.",
        );
    }
    standing
}

/// The word of ROLE for a link that is up.
const LINKED: &str = "connected";

fn turned(node: &Node, word: &str, is_fixed: bool, report: &mut Report) {
    report.add(
        Warning,
        "wrong_role",
        format!("{} is listed as a replica and says that it is a {}", node.addr, said(word)),
        "Writes that it takes are lost when it is made a replica again.",
        match is_fixed {
            true => "`REPLICAOF` the primary there, or take it out of `replica.addrs`.",
            false => {
                "The Sentinels turn it around within 10 s. If it stays, it was started by hand without `replicaof`."
            }
        },
    );
}

fn unlinked(node: &Node, leader: &str, state: &str, report: &mut Report) {
    report.add(
        Warning,
        "replica_link",
        format!("the replica {} is not linked to its primary {}: {}", node.addr, said(leader), said(state)),
        "What it has grows older, and it cannot be promoted without loss.",
        "See its log: `masterauth`, the network, a primary that is still loading, or a full sync that does not end.",
    );
}

fn writable(node: &Node, report: &mut Report) {
    report.add(
        Warning,
        "replica_writable",
        format!("the replica {} takes writes of clients (replica-read-only is no)", node.addr),
        "What is written there is on no other node, differs from the primary's data, and is gone with the next full sync.",
        "Set `replica-read-only yes` there, and see which program writes to it.",
    );
}

/// Tells of a replica that follows another node than the primary; true: it does.
fn astray(node: &Node, leader: &str, data_set: &str, leaders: &Leaders, report: &mut Report) -> bool {
    if leader.is_empty() || leaders.primary.iter().any(|primary| primary == leader) {
        return false;
    }
    let what = format!("the replica {} follows {}", node.addr, said(leader));
    if leaders.replicas.contains(leader) {
        report.add(
            Warning,
            "replica_chained",
            format!("{what}, which is a replica itself"),
            "What it has is older by one way more, it is cut off when that one fails, and no write that waits for replicas counts it.",
            match leaders.is_fixed {
                true => "`REPLICAOF` the primary there.",
                false => {
                    "`REPLICAOF` the primary there. The Sentinels do it too, after a failover at once, otherwise when `failover-timeout` is over."
                }
            },
        );
        return true;
    }
    // It may know the primary by another name; the number of the data set is the same then.
    let differs = !data_set.is_empty() && !leaders.data_set.is_empty() && data_set != leaders.data_set;
    if differs {
        report.add(
            Warning,
            "wrong_primary",
            format!("{what}, whose data are not those of the primary {}", leaders.primary[0]),
            "It serves other data, and would bring them along if it were promoted.",
            match leaders.is_fixed {
                true => "`REPLICAOF` the primary there, or take it out of `replica.addrs`.",
                false => {
                    "`REPLICAOF` the primary there. If it belongs to another service, `SENTINEL RESET` this one at each Sentinel, one after the \
                     other: the next only when the last one knows its replicas and the other Sentinels again."
                }
            },
        );
    }
    differs
}

/// A replica that is not to be promoted, by its own word or by that of the Sentinels.
fn priority_zero(listed: &Listed, report: &mut Report) {
    let but = match listed.standing.priority {
        0 => String::new(),
        other => format!("; the Sentinels, which ask every 10 s, still have {other}"),
    };
    report.add(
        Note,
        "priority_zero",
        format!("the replica {} has priority 0{but}", listed.node.addr),
        "It is never promoted.",
        "If it is meant to take over, set `replica-priority 100`.",
    );
}

/// Whether there is something to promote.
fn promotable(topology: &Reply, listed: usize, candidates: usize, by_word: usize, report: &mut Report) {
    let hides = |row: &u32| field(topology, *row, "refused").to_ascii_lowercase().contains("replicas");
    let by_word = match by_word {
        0 => String::new(),
        count => format!(", {count} of them by the word of the Sentinels, which ask every 10 s"),
    };
    match candidates {
        0 if listed == 0 && maps(topology, "sentinels").iter().any(hides) => report.add(
            Note,
            "not_asked",
            "which replicas there are is not known: the user may not run SENTINEL REPLICAS".into(),
            "Whether one of them could be promoted is not checked.",
            "Allow `sentinel|replicas` to the user of `sentinel.username` (docs/permissions.md).",
        ),
        0 if listed == 0 => report.add(
            Fault,
            "no_replica",
            "there is no replica".into(),
            "If the primary fails, there is nothing to replace it with.",
            "Start a replica on another host (`replicaof`); the Sentinels find it by themselves.",
        ),
        0 => report.add(
            Fault,
            "no_candidate",
            format!("none of {listed} replicas could be promoted now"),
            "They are down, not linked to the primary, or have priority 0: if the primary fails, nothing replaces it.",
            "See what is said of each of them.",
        ),
        _ => report.ok("candidates", format!("{candidates} of {listed} replicas could be promoted{by_word}")),
    }
}
