//! Several primaries that a program uses as one client: each shard is looked at as a service is, and whether its keys belong to it.
//!
//! Guarantees: every finding is named by its shard; which shard a key is on is computed by the library's own code. Leaves to others: what is
//! looked at of a service (main, sentinels, nodes).

use std::collections::BTreeSet;

use vigie::config::{Config, Settings};
use vigie::error::{Error, Result, Status};
use vigie::shard::{self, Map, Spec, Target};
use vigie::topology::Sentinel;

use super::finding::{Report, Severity, said};
use super::nodes::Node;
use super::reach::{ask_or_tell, open};
use super::{Wanted, certificates, look_at};

/// So many keys of a shard are looked at, and some more of the last page.
const KEYS: usize = 10_000;
/// So many are asked for at a time.
const PAGE: &str = "500";
/// Keys of `vigie-migrate` stay where they are.
const OWN: &[u8] = b"vigie-migrate:";

/// The settings of all shards. Without a URI there are no Sentinels.
fn settings(wanted: &Wanted, config: &Config) -> Result<Settings> {
    if !wanted.uri.is_empty() {
        return config.settings();
    }
    let base = Settings::default();
    let client = config.overlay(&base.client)?;
    Ok(Settings { client, ..base })
}

/// Looks at all shards.
pub fn look(config: &Config, wanted: &Wanted) -> Result<Report> {
    let texts: Vec<&str> = wanted.shards.iter().map(String::as_str).collect();
    let spec = Spec::parse(&texts)?;
    let base = settings(wanted, config)?;
    let map = shard::map_of(&base.client, &spec);
    let sentinel = match (spec.needs_sentinels(), base.sentinel.addrs.is_empty()) {
        (false, _) => None,
        (true, false) => Some(Sentinel::create(base.clone(), Some(wanted.deadline()))?),
        (true, true) => {
            let text = "a shard is a service: give the URI of its Sentinels, redis-sentinel://host:port[,host:port...]";
            return Err(Error::new(Status::Config, text));
        }
    };
    let (mut report, mut addrs) = (Report::default(), BTreeSet::new());
    addrs.extend(sentinel.iter().flat_map(|_| base.sentinel.addrs.iter().map(ToString::to_string)));
    let aliases = spec.aliases();
    for (at, shard) in spec.shards.iter().enumerate() {
        report.service.clone_from(&shard.name);
        if aliases[at] < at {
            one_server(&spec.shards[aliases[at]].name, &mut report);
            continue;
        }
        let (own, settings, service) = match &shard.target {
            Target::Service(service) => {
                report.service = format!("{} ({})", shard.name, said(service));
                (None, Settings { service: Some(service.clone()), ..base.clone() }, service)
            }
            Target::Fixed(fixed) => {
                let settings = shard::fixed_settings(&base, fixed, spec.db);
                (Some(Sentinel::create(settings.clone(), None)?), settings, &shard.name)
            }
        };
        let Some(sentinel) = own.as_ref().or(sentinel.as_ref()) else { continue };
        if let Some(primary) = look_at(sentinel, &settings, service, wanted, &mut report, &mut addrs)? {
            keys(&settings, primary, (at, &map, &aliases), wanted, &mut report);
        }
    }
    // Those of the nodes were looked at with the nodes; these are of the Sentinels and of the program.
    certificates::look(&base, &addrs, wanted, &mut report);
    Ok(report)
}

fn one_server(first: &str, report: &mut Report) {
    report.add(
        Severity::Note,
        "shard_alias",
        format!("it is the server of {first}"),
        "Both names are one client; what is asked of all shards is asked there once.",
        "Nothing, if that is meant.",
    );
}

/// Looks at keys of a shard, and tells whether programs look for them elsewhere.
fn keys(settings: &Settings, addr: String, place: (usize, &Map, &[usize]), wanted: &Wanted, report: &mut Report) {
    let node = Node { role: "primary", announced: addr.clone(), addr };
    // One that cannot be reached was told of already.
    let Ok(mut conn) = open(settings, &node.addr, wanted) else { return };
    let (mut seen, mut astray, mut example) = (0, 0, None);
    let mut cursor = String::from("0");
    loop {
        let page = ["SCAN", &cursor, "COUNT", PAGE];
        let Some(reply) = ask_or_tell(&mut conn, &node, &page, wanted, report) else { return };
        let names = reply.child(0, 1).unwrap_or_default();
        for key in reply.children(names).filter_map(|id| reply.bytes(id)).filter(|key| !key.starts_with(OWN)) {
            seen += 1;
            if let Some(home) = elsewhere(key, place) {
                astray += 1;
                example.get_or_insert_with(|| format!("{} ({home})", said(&String::from_utf8_lossy(key))));
            }
        }
        let next = reply.child(0, 0).and_then(|id| reply.bytes(id)).unwrap_or_default();
        cursor = String::from_utf8_lossy(next).into_owned();
        if cursor == "0" || cursor.is_empty() || seen >= KEYS {
            break;
        }
    }
    told(place.1, (seen, astray), example, &node, report);
}

/// Where programs look for a key that is stored under this name, if it is not on this shard.
fn elsewhere(key: &[u8], (at, map, aliases): (usize, &Map, &[usize])) -> Option<String> {
    match map.locate(key) {
        // Two names may be one server.
        Ok(located) if aliases[located.shard] == aliases[at] => None,
        Ok(located) => Some(map.name(located.shard).to_owned()),
        Err(_) => Some("on no shard: its tag is not well formed".to_owned()),
    }
}

fn told(map: &Map, (seen, astray): (usize, usize), example: Option<String>, node: &Node, report: &mut Report) {
    let ways = format!("{} and {} tags", map.hash().name(), map.tags().name());
    let Some(example) = example else {
        return report.ok(
            "keys_placed",
            format!("{seen} of {seen} keys that were looked at at {} belong there by {ways}", node.addr),
        );
    };
    let what = format!(
        "{astray} of {seen} keys that were looked at at {} belong to another shard by {ways}, such as {example}",
        node.addr
    );
    let change = "Compare `shard.hash`, `shard.tags` and the order of the shards with the programs that wrote them; `vigie-migrate reshard` moves \
                  keys, and with `--delete-moved` removes what it has left behind.";
    match map.tags().strips() {
        false => report.add(
            Severity::Warning,
            "keys_misplaced",
            what,
            "Programs with these shards look for them elsewhere, and do not find them.",
            change,
        ),
        true => report.add(
            Severity::Note,
            "keys_misplaced",
            what,
            "With `rediscluster` tags the tag of a key is not stored, so a key that has one looks like this. One that has none is not found.",
            change,
        ),
    }
}
