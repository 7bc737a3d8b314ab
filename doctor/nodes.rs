//! What is looked at of the data nodes: the primary and its replicas, one after the other, and what they have in common.
//!
//! Leaves to others: connecting to them (reach), and what each says of itself (primary, writes, replicas).

use std::collections::BTreeSet;

use vigie::config::{Endpoint, Settings, TlsVerify};
use vigie::error::Error;
use vigie::net::Conn;
use vigie::resp::Reply;

use super::Wanted;
use super::finding::{LINE, Report, Severity, cut, said};
use super::reach::{ask, message, open, reach};
use super::sentinels::{field, told_versions, version};
use super::{primary, replicas, writes};
use Severity::{Fault, Warning};

/// A node of the service.
pub struct Node {
    /// `primary` or `replica`.
    pub role: &'static str,
    pub addr: String,
    pub announced: String,
}

/// Why a service could not be discovered, and the address that is named as its primary all the same.
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
    if let Some(failed) = failed {
        undiscovered(settings, failed, wanted, report);
        // Which replicas there are is not known.
        return verification(settings, report);
    }
    let (mut versions, mut data_set) = (BTreeSet::new(), String::new());
    let node =
        Node { role: "primary", addr: field(topology, 0, "primary"), announced: field(topology, 0, "announced") };
    if !node.addr.is_empty() {
        announced(settings, &node, report);
        if let Some(mut conn) = reach(settings, &node, wanted, report) {
            let account = primary::look(&mut conn, settings, &node, wanted, report);
            versions.extend(account.info.as_ref().and_then(version));
            data_set = account.told("master_replid");
            if !account.is_other {
                writes::confirmed(&mut conn, settings.client.write, &node, wanted, report);
                writes::taken(&mut conn, &node, &account, wanted, report);
            }
        }
    }
    replicas::look(settings, topology, data_set, wanted, &mut versions, report);
    told_versions(&versions, "nodes", report);
    verification(settings, report);
}

/// What the node that is named as the primary says itself is the first cause; without it there is what the library says.
fn undiscovered(settings: &Settings, failed: &Undiscovered, wanted: &Wanted, report: &mut Report) {
    let faults = report.count(Fault);
    if let Some(announced) = &failed.announced {
        let addr = settings.client.address_map.apply(announced).to_string();
        let node = Node { role: "primary", addr, announced: announced.to_string() };
        if let Some(mut conn) = reach(settings, &node, wanted, report) {
            primary::role(&mut conn, settings, &node, wanted, report);
        }
    }
    if report.count(Fault) == faults {
        report.add(
            Fault,
            "no_primary",
            format!("no primary was found: {}", cut(failed.error.message(), LINE)),
            "Programs that use this service wait, or fail.",
            "See whether the primary that the message names runs, and is a primary; if it names none, whether the Sentinels agree.",
        );
    }
}

/// An address that means another host at each place where it is read.
pub fn announced(settings: &Settings, node: &Node, report: &mut Report) {
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

/// A node as it is named to people.
pub fn shown(node: &Node) -> String {
    match node.addr == node.announced || node.announced.is_empty() {
        true => node.addr.clone(),
        false => format!("{} (announced as {})", node.addr, node.announced),
    }
}

/// The node that a replica names in ROLE as the one that it follows.
pub fn leader(role: &Reply) -> String {
    let host = field(role, 0, "host");
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    format!("{host}:{}", field(role, 0, "port"))
}

/// Whether the node at this address follows the primary of the topology, and none of these others; if not, why.
pub fn follows(
    settings: &Settings,
    addr: &str,
    topology: &Reply,
    others: &BTreeSet<String>,
    wanted: &Wanted,
) -> Result<(), String> {
    let open = |addr: &str| open(settings, addr, wanted).map_err(|error| message(&error));
    let mut conn = open(addr)?;
    let role = ask(&mut conn, &["ROLE"], wanted)?;
    if matches!(field(&role, 0, "role").as_str(), "master" | "primary") {
        return Err("it says that it is a primary".into());
    }
    let named = leader(&role);
    let [primary, announced] = ["primary", "announced"].map(|key| field(topology, 0, key));
    if named == primary || named == announced {
        return Ok(());
    }
    let stray = Err(format!("it follows {}", said(&named)));
    if others.contains(&named) {
        return stray;
    }
    // It may know the primary by another name; the number of the data set is the same then.
    let data_set =
        |conn: &mut Conn| ask(conn, &["INFO", "replication"], wanted).map(|info| field(&info, 0, "master_replid"));
    let own = data_set(&mut conn)?;
    let theirs = data_set(&mut open(&primary)?)?;
    if !own.is_empty() && own == theirs { Ok(()) } else { stray }
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
