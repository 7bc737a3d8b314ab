//! What is looked at of the data nodes: whether they can be reached where they are announced, what they say that they are, and what would be
//! lost with the primary.

use std::collections::BTreeSet;
use std::io::IoSlice;

use vigie::config::{DATA_PORT, Endpoint, Settings, TlsVerify};
use vigie::error::{Error, Status, clean_line};
use vigie::net::{Conn, ConnectOptions, Expect};
use vigie::resp::{Reply, Want, encode, typed};

use super::Wanted;
use super::certificates;
use super::finding::{Report, Severity};
use super::sentinels::{field, maps, told_versions, version};
use super::writes;
use Severity::{Fault, Note, Warning};

/// A node of the service.
pub struct Node {
    /// `primary` or `replica`.
    role: &'static str,
    pub addr: String,
    announced: String,
}

/// Why a service could not be discovered, and the address that a Sentinel announces all the same.
pub struct Undiscovered {
    pub error: Error,
    pub announced: Option<Endpoint>,
}

/// Looks at the nodes of a service.
pub fn look(
    settings: &Settings,
    topology: &Reply,
    failed: Option<&Undiscovered>,
    wanted: &Wanted,
    report: &mut Report,
) {
    let mut versions = BTreeSet::new();
    let mut node =
        Node { role: "primary", addr: field(topology, 0, "primary"), announced: field(topology, 0, "announced") };
    if let Some(Undiscovered { error, announced }) = failed {
        // What the announced primary says itself is the first cause; without it there is what the library says.
        let faults = report.count(Fault);
        if let Some(announced) = announced {
            (node.addr, node.announced) =
                (settings.sentinel.address_map.apply(announced).to_string(), announced.to_string());
            if let Some(mut conn) = reach(settings, &node, wanted, report) {
                as_primary(&mut conn, &node, wanted, report);
            }
        }
        if report.count(Fault) == faults {
            report.add(
                Fault,
                "no_primary",
                format!("no primary was found: {}", error.message()),
                "Programs that use this service wait, or fail.",
                "See whether the primary that the message names runs, and is a primary; if it names none, whether the Sentinels agree.",
            );
        }
        // Which replicas there are is not known.
        return verification(settings, report);
    }
    if !node.addr.is_empty() {
        announced(settings, &node, report);
        if let Some(mut conn) = reach(settings, &node, wanted, report) {
            as_primary(&mut conn, &node, wanted, report);
            versions.extend(ask(&mut conn, &["INFO", "server"], wanted).ok().as_ref().and_then(version));
            writes::confirmed(&mut conn, settings.client.write, &node, wanted, report);
            writes::taken(&mut conn, &node, wanted, report);
        }
    }
    replicas(settings, topology, wanted, &mut versions, report);
    told_versions(&versions, "nodes", report);
    verification(settings, report);
}

/// An address that means another host at each place where it is read.
fn announced(settings: &Settings, node: &Node, report: &mut Report) {
    let is_local = |addr: &str| addr.starts_with("127.") || addr.starts_with("localhost:") || addr.starts_with("[::1]");
    let sentinels_are_local = settings.sentinel.addrs.iter().all(|addr| is_local(&addr.to_string()));
    if is_local(&node.announced)
        && node.addr == node.announced
        && !sentinels_are_local
        && !settings.sentinel.addrs.is_empty()
    {
        report.add(
            Fault,
            "announced_loopback",
            format!("the {} is announced as {}", node.role, node.announced),
            "That address leads each client to its own host.",
            "Monitor the primary by its real address, and set `replica-announce-ip` at the nodes; or map it with `address.map`.",
        );
    }
}

/// Connects as the library does.
fn reach(settings: &Settings, node: &Node, wanted: &Wanted, report: &mut Report) -> Option<Conn> {
    let endpoint = Endpoint::parse(&node.addr, DATA_PORT).ok()?;
    let options = ConnectOptions::of_node(&settings.client, Expect::Any);
    let opened = Conn::open(&endpoint, &options, wanted.deadline());
    let error = match opened {
        Ok(conn) => {
            report.ok("node_reached", format!("the {} {} answers", node.role, node.addr));
            certificates::of_server(&conn, &format!("the {} {}", node.role, node.addr), report);
            return Some(conn);
        }
        Err(error) => error,
    };
    let severity = if node.role == "primary" { Fault } else { Warning };
    let what = format!("the {} {} cannot be used from here: {}", node.role, shown(node), error.message());
    let (code, means, change) = match error.status() {
        Status::Auth => (
            "node_refuses",
            "It refuses the credentials, or the user may not run a command of the handshake.",
            "Correct `auth.username` and `auth.password`, and give the user what docs/permissions.md lists.",
        ),
        Status::Tls => (
            "node_tls",
            "The connection cannot be encrypted as the options want it.",
            "The message says what to change; docs/tls.md explains it. A certificate that is over has to be renewed at the node.",
        ),
        _ => (
            "node_unreachable",
            "The Sentinels announce this address, and it leads nowhere from here: behind NAT or in another network of containers they \
             announce what only they can reach.",
            "Start the node; or announce an address that clients reach (`replica-announce-ip`, `sentinel announce-ip`), or map it with \
             `address.map`.",
        ),
    };
    report.add(severity, code, what, means, change);
    None
}

pub fn shown(node: &Node) -> String {
    match node.addr == node.announced || node.announced.is_empty() {
        true => node.addr.clone(),
        false => format!("{} (announced as {})", node.addr, node.announced),
    }
}

/// A command, and its reply with types; an error reply is an error.
pub fn ask(conn: &mut Conn, words: &[&str], wanted: &Wanted) -> Result<Reply, String> {
    let args: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    let mut bytes = Vec::new();
    encode::command(&mut bytes, &args);
    let reply = conn
        .exchange(&mut [IoSlice::new(&bytes)], Want::One, None, wanted.deadline())
        .map_err(|failed| failed.error.message().to_owned())?;
    match reply.error_line(0) {
        Some(line) => Err(clean_line(line)),
        None => typed::typed(&args, reply).map_err(|error| error.message().to_owned()),
    }
}

/// Tells of a question that the user may not ask.
fn refused(node: &Node, words: &[&str], line: &str, report: &mut Report) {
    report.add(
        Note,
        "node_permissions",
        format!("the user may not run {} at the {} {}: {line}", words.join(" "), node.role, node.addr),
        "What it would have told is not checked; without ROLE and INFO the library believes the Sentinels alone.",
        "Give the user what docs/permissions.md lists under \"The user of vigie-doctor\".",
    );
}

fn as_primary(conn: &mut Conn, node: &Node, wanted: &Wanted, report: &mut Report) {
    match ask(conn, &["ROLE"], wanted) {
        Ok(role) if matches!(field(&role, 0, "role").as_str(), "master" | "primary") => {
            let replicas = maps(&role, "replicas").len();
            report.ok("primary", format!("the primary is {}, with {replicas} replicas connected", shown(node)));
        }
        Ok(role) => report.add(
            Fault,
            "wrong_role",
            format!("{} is named as the primary and says that it is a {}", shown(node), field(&role, 0, "role")),
            "Writes are refused there.",
            "A failover may be under way: look again. If it stays, see which node the Sentinels are to name.",
        ),
        Err(line) => refused(node, &["ROLE"], &line, report),
    }
    let words = ["CONFIG", "GET", "min-replicas-to-write"];
    match ask(conn, &words, wanted) {
        Ok(config) if field(&config, 0, words[2]) == "0" => report.add(
            Note,
            "min_replicas_zero",
            format!("min-replicas-to-write is 0 at {}", node.addr),
            "A primary that is cut off goes on taking writes of clients beside it, and all of them are lost when it is demoted.",
            "Set `min-replicas-to-write 1` and `min-replicas-max-lag 10` at all nodes, or `write.replicas` in programs whose writes count.",
        ),
        Ok(config) => report.ok("min_replicas", format!("min-replicas-to-write is {}", field(&config, 0, words[2]))),
        Err(line) if line.starts_with("NOPERM") => refused(node, &words, &line, report),
        // A service that has renamed or hidden CONFIG.
        Err(line) => report.add(
            Note,
            "not_asked",
            format!("min-replicas-to-write is not known at {}: {line}", node.addr),
            "",
            "See its value in the configuration of the node.",
        ),
    }
}

fn replicas(
    settings: &Settings,
    topology: &Reply,
    wanted: &Wanted,
    versions: &mut BTreeSet<String>,
    report: &mut Report,
) {
    let rows = maps(topology, "replicas");
    let is_fixed = settings.sentinel.addrs.is_empty();
    let write = settings.client.write;
    let (mut candidates, mut able) = (0, 0);
    for row in &rows {
        let [addr, announced_as, flags, unfit] =
            ["addr", "announced", "flags", "unfit"].map(|key| field(topology, *row, key));
        let number = |key: &str| topology.find(*row, key.as_bytes()).and_then(|id| topology.int(id)).unwrap_or(0);
        let (priority, linked) = (number("priority"), number("link_ok") == 1);
        let node = Node { role: "replica", addr, announced: announced_as };
        announced(settings, &node, report);
        let is_down = flags.split(',').any(|flag| matches!(flag, "s_down" | "o_down" | "disconnected"));
        if priority == 0 && !is_fixed {
            report.add(
                Note,
                "priority_zero",
                format!("the replica {} has priority 0", node.addr),
                "It is never promoted.",
                "If it is meant to take over, set `replica-priority 100`.",
            );
        }
        candidates += usize::from(priority != 0 && linked && !is_down);
        if is_down {
            report.add(
                Warning,
                "replica_down",
                format!("the Sentinels consider the replica {} down ({flags})", node.addr),
                "It serves no reads and cannot be promoted.",
                change_of_down(topology, *row),
            );
            continue;
        }
        if let Some(mut conn) = reach(settings, &node, wanted, report) {
            let is_linked = as_replica(&mut conn, &node, &unfit, wanted, report);
            let has_aof = |info: Reply| field(&info, 0, "aof_enabled") == "1";
            let is_able = !write.aof || ask(&mut conn, &["INFO", "persistence"], wanted).is_ok_and(has_aof);
            able += usize::from(is_linked && is_able);
            versions.extend(ask(&mut conn, &["INFO", "server"], wanted).ok().as_ref().and_then(version));
        }
    }
    writes::enough(write, able, rows.len(), report);
    if is_fixed {
        return;
    }
    let hides = |row: &u32| field(topology, *row, "refused").to_ascii_lowercase().contains("replicas");
    match candidates {
        0 if rows.is_empty() && maps(topology, "sentinels").iter().any(hides) => report.add(
            Note,
            "not_asked",
            "which replicas there are is not known: the user may not run SENTINEL REPLICAS".into(),
            "Whether one of them could be promoted is not checked.",
            "Allow `sentinel|replicas` to the user of `sentinel.username` (docs/permissions.md).",
        ),
        0 if rows.is_empty() => report.add(
            Fault,
            "no_replica",
            "there is no replica".into(),
            "If the primary fails, there is nothing to replace it with.",
            "Start a replica on another host (`replicaof`); the Sentinels find it by themselves.",
        ),
        0 => report.add(
            Fault,
            "no_candidate",
            format!("none of {} replicas could be promoted now", rows.len()),
            "They are down, not linked to the primary, or have priority 0: if the primary fails, nothing replaces it.",
            "See what is said of each of them.",
        ),
        _ => report.ok("candidates", format!("{candidates} of {} replicas could be promoted", rows.len())),
    }
}

/// What to do about a replica that the Sentinels consider down: one whose link to the primary is up has no need to be started.
fn change_of_down(topology: &Reply, row: u32) -> &'static str {
    match topology.find(row, b"link_ok").and_then(|id| topology.int(id)) {
        Some(1) => {
            "It is linked to its primary, or was when the Sentinels reached it last: if it runs, its announced address leads nowhere. Correct \
             `replica-announce-ip` and `replica-announce-port` there; otherwise start it."
        }
        _ => {
            "Start it. If it is gone for good, `SENTINEL RESET <service>` makes the Sentinels forget it: one Sentinel after the other, and the \
             next only when the last one knows its replicas and the other Sentinels again."
        }
    }
}

/// Whether the node at this address follows the primary of the topology, and none of these others; if not, why.
pub fn follows(
    settings: &Settings,
    addr: &str,
    topology: &Reply,
    others: &BTreeSet<String>,
    wanted: &Wanted,
) -> Result<(), String> {
    let open = |addr: &str| {
        let endpoint = Endpoint::parse(addr, DATA_PORT)?;
        Conn::open(&endpoint, &ConnectOptions::of_node(&settings.client, Expect::Any), wanted.deadline())
    };
    let said = |error: Error| error.message().to_owned();
    let mut conn = open(addr).map_err(said)?;
    let role = ask(&mut conn, &["ROLE"], wanted)?;
    let [word, host, port] = ["role", "host", "port"].map(|key| field(&role, 0, key));
    if matches!(word.as_str(), "master" | "primary") {
        return Err("it says that it is a primary".into());
    }
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let named = format!("{host}:{port}");
    let [primary, announced] = ["primary", "announced"].map(|key| field(topology, 0, key));
    if named == primary || named == announced {
        return Ok(());
    }
    let stray = Err(format!("it follows {named}"));
    if others.contains(&named) {
        return stray;
    }
    // It may know the primary by another name; the number of the data set is the same then.
    let data_set =
        |conn: &mut Conn| ask(conn, &["INFO", "replication"], wanted).map(|info| field(&info, 0, "master_replid"));
    let own = data_set(&mut conn)?;
    let theirs = data_set(&mut open(&primary).map_err(said)?)?;
    if !own.is_empty() && own == theirs { Ok(()) } else { stray }
}

/// What a replica says of itself; false: no write reaches it.
fn as_replica(conn: &mut Conn, node: &Node, unfit: &str, wanted: &Wanted, report: &mut Report) -> bool {
    let mut is_replica = true;
    match ask(conn, &["ROLE"], wanted) {
        Ok(role) if matches!(field(&role, 0, "role").as_str(), "slave" | "replica") => {
            let state = field(&role, 0, "state");
            if state != "connected" {
                report.add(
                    Warning,
                    "replica_link",
                    format!("the replica {} is not linked to its primary: {state}", node.addr),
                    "What it has grows older, and it cannot be promoted without loss.",
                    "See its log: `masterauth`, the network, a primary that is still loading, or a full sync that does not end.",
                );
                return false;
            }
        }
        Ok(role) => {
            is_replica = false;
            report.add(
                Warning,
                "wrong_role",
                format!("{} is listed as a replica and says that it is a {}", node.addr, field(&role, 0, "role")),
                "Writes that it takes are lost when it is made a replica again.",
                "The Sentinels turn it around within 10 s. If it stays, it was started by hand without `replicaof`.",
            );
        }
        Err(line) => refused(node, &["ROLE"], &line, report),
    }
    if !unfit.is_empty() {
        report.add(
            Note,
            "replica_unfit",
            format!("the library does not read from the replica {}: {unfit}", node.addr),
            "Reads go to the other nodes meanwhile.",
            "Nothing, if it has just started, or if a failover has just been.",
        );
    }
    is_replica
}

/// TLS that does not verify the server.
fn verification(settings: &Settings, report: &mut Report) {
    for (tls, whose) in [(&settings.client.tls, "nodes"), (&settings.sentinel.tls, "Sentinels")] {
        if tls.on && tls.verify != TlsVerify::Full {
            report.add(
                Warning,
                "tls_not_verified",
                format!("the certificates of the {whose} are not checked in full (`{}.verify`)", tls.prefix),
                "Somebody on the way can pretend to be them.",
                "Leave the option at `full`.",
            );
        }
    }
}
