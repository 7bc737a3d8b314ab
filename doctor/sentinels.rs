//! What is looked at of the Sentinels: who answers and who belongs together, whether they agree, and whether they could carry out a failover.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vigie::config::{DATA_PORT, Endpoint};
use vigie::error::clean;
use vigie::resp::{Kind, Reply};
use vigie::topology::{Sentinel, To};

use super::Wanted;
use super::finding::{Report, Severity, cut, said, said_line, text_of};
use Severity::{Fault, Note, Warning};

/// The replies of all Sentinels to one question, by address; an error as its line.
type Answers = BTreeMap<String, std::result::Result<Reply, String>>;

fn ask_all(sentinel: &Arc<Sentinel>, words: &[&str], wanted: &Wanted) -> Answers {
    let command: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    // Where all refuse it is an error, and what each said is its reply.
    let asked = sentinel.exec(&command, To::All, true, wanted.deadline());
    let Some(all) = asked.map_or_else(|error| error.reply().cloned(), Some) else { return Answers::new() };
    let ids: Vec<u32> = all.children(0).collect();
    let answer = |id: u32| match all.error_line(id) {
        Some(line) => Err(said_line(line)),
        None => Ok(all.subtree(id)),
    };
    ids.chunks_exact(2).map(|pair| (text_of(&all, pair[0]), answer(pair[1]))).collect()
}

/// A field of a MAP as text.
pub fn field(reply: &Reply, id: u32, key: &str) -> String {
    reply.find(id, key.as_bytes()).map(|id| text_of(reply, id)).unwrap_or_default()
}

/// The maps of an array in a MAP.
pub fn maps(reply: &Reply, key: &str) -> Vec<u32> {
    reply.find(0, key.as_bytes()).map(|id| reply.children(id).collect()).unwrap_or_default()
}

/// The primary that the first Sentinel which answers names, verified or not.
pub fn announced(sentinel: &Arc<Sentinel>, service: &str, wanted: &Wanted) -> Option<Endpoint> {
    let command: [&[u8]; 2] = [b"GET-MASTER-ADDR-BY-NAME", service.as_bytes()];
    let named = sentinel.exec(&command, To::First, false, wanted.deadline()).ok()?;
    let [host, port] = [0, 1].map(|place| named.children(0).nth(place).map(|id| text_of(&named, id)));
    let (host, port) = (host?, port?);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Endpoint::parse(&format!("{host}:{port}"), DATA_PORT).ok()
}

/// Looks at the Sentinels of a service; false: none of them knows it, and there is nothing else to say.
pub fn look(sentinel: &Arc<Sentinel>, service: &str, topology: &Reply, wanted: &Wanted, report: &mut Report) -> bool {
    let found = States::of(sentinel, topology, wanted, service);
    if found.is_unknown_to_all() {
        report.add(
            Fault,
            "service_unknown",
            format!("none of the {} Sentinels knows the service", found.rows.len()),
            "Programs that name it fail.",
            "Correct the name in the URI (without one vigie-doctor looks at all services), or `SENTINEL MONITOR` the service at each Sentinel.",
        );
        return false;
    }
    found.tell(report);
    permissions(topology, report);
    two_names(sentinel, topology, wanted, report);
    let mixes = views(topology, || are_strangers(sentinel, service, wanted), report);
    let mut masters = ask_all(sentinel, &["MASTER", service], wanted);
    masters.retain(|at, _| !found.is_stranger(at));
    if !mixes {
        settings(&masters, report);
    }
    peers(&masters, report);
    quorum(&ask_all(sentinel, &["CKQUORUM", service], wanted), masters.len(), report);
    programs(&ask_all(sentinel, &["INFO"], wanted), report);
    true
}

/// What became of each Sentinel when it was asked.
struct States {
    /// Address, state, and what is known of it.
    rows: Vec<[String; 3]>,
}

impl States {
    /// As the library has met them. Those that it did not wait for, because the others were enough, are asked here.
    fn of(sentinel: &Arc<Sentinel>, topology: &Reply, wanted: &Wanted, service: &str) -> Self {
        let met = |row| {
            let [addr, state, text] = ["addr", "state", "text"].map(|key| field(topology, row, key));
            if state != "skipped" {
                return [addr, state, text];
            }
            let command: [&[u8]; 2] = [b"GET-MASTER-ADDR-BY-NAME", service.as_bytes()];
            let (state, text) = match sentinel.exec(&command, To::At(&addr), false, wanted.deadline()) {
                Ok(reply) if reply.kind(0) == Kind::Null => ("unknown", String::new()),
                Ok(_) => ("ok", String::new()),
                Err(error) => ("failed", error.message().to_owned()),
            };
            [addr, state.to_owned(), text]
        };
        Self { rows: maps(topology, "sentinels").into_iter().map(met).collect() }
    }

    fn count(&self, wanted: &str) -> usize {
        self.rows.iter().filter(|[_, state, _]| state == wanted).count()
    }

    fn is_unknown_to_all(&self) -> bool {
        self.count("unknown") > 0 && self.count("unknown") + self.count("failed") == self.rows.len()
    }

    fn is_stranger(&self, at: &str) -> bool {
        self.rows.iter().any(|[addr, state, _]| addr == at && state == "stranger")
    }

    fn tell(&self, report: &mut Report) {
        for [addr, state, text] in &self.rows {
            match state.as_str() {
                "stranger" => report.add(
                    Fault,
                    "stranger",
                    format!("the Sentinel {addr} is {text}"),
                    "It watches a service of the same name elsewhere. The library does not believe it; other clients may write there.",
                    NOT_OURS,
                ),
                "unknown" => report.add(
                    Warning,
                    "service_unknown",
                    format!("the Sentinel {addr} does not know the service"),
                    "It takes no part in a failover of this service.",
                    "`SENTINEL MONITOR` the service there, or take the address out of the configuration.",
                ),
                "failed" => report.add(
                    Warning,
                    "sentinel_unreachable",
                    format!("the Sentinel {addr} gives no answer: {text}"),
                    "One Sentinel less to notice a failure and to vote; events that only it announces are not heard.",
                    "Start it, open the way to it, or correct its credentials (`sentinel.username`, `sentinel.password`, `sentinel.tls`).",
                ),
                // TILT is told by its INFO.
                _ => {}
            }
        }
        let good = self.count("ok");
        if good > 0 {
            report.ok("sentinels", format!("{good} of {} Sentinels answer and count", self.rows.len()));
        }
    }
}

/// What to do about a Sentinel of another deployment.
const NOT_OURS: &str = "Take its address out of the configuration, or give the services different names.";

/// What the user may not hear or ask.
fn permissions(topology: &Reply, report: &mut Report) {
    for row in maps(topology, "sentinels") {
        for (key, what) in [("events", "may not subscribe to all events of"), ("refused", "may not ask all of")] {
            let (addr, refusal) = (field(topology, row, "addr"), field(topology, row, key));
            if !refusal.is_empty() {
                report.add(
                    Warning,
                    "sentinel_permissions",
                    format!("the user {what} the Sentinel {addr}: {refusal}"),
                    "A failover is noticed later, and less is known of its nodes.",
                    "Give the user of `sentinel.username` the commands and channels of docs/permissions.md.",
                );
            }
        }
    }
}

/// One Sentinel that is known by two addresses.
fn two_names(sentinel: &Arc<Sentinel>, topology: &Reply, wanted: &Wanted, report: &mut Report) {
    let mut by_id: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // Those that the library has found to be another one are not in its topology.
    let given = sentinel.settings().sentinel.addrs.iter().map(ToString::to_string).collect::<Vec<_>>();
    let learned = maps(topology, "sentinels").into_iter().map(|row| field(topology, row, "addr"));
    let addrs: BTreeSet<String> = given.into_iter().chain(learned).collect();
    for addr in addrs {
        if let Ok(id) = sentinel.exec(&[b"MYID"], To::At(&addr), false, wanted.deadline()) {
            by_id.entry(text_of(&id, 0)).or_default().push(addr);
        }
    }
    for names in by_id.values().filter(|names| names.len() > 1) {
        report.add(
            Note,
            "two_names",
            format!("{} are one Sentinel", names.join(" and ")),
            "The library counts it once; a client that counts addresses sees a majority where there is none.",
            "Configure the addresses that the Sentinels announce (`sentinel announce-ip`, `announce-hostnames`).",
        );
    }
}

/// Whether no chain of acquaintance leads from the first Sentinel to each other one: those of one deployment list each other.
fn are_strangers(sentinel: &Arc<Sentinel>, service: &str, wanted: &Wanted) -> bool {
    let (ids, lists) = (ask_all(sentinel, &["MYID"], wanted), ask_all(sentinel, &["SENTINELS", service], wanted));
    let listed = |list: &Reply| list.children(0).map(|row| field(list, row, "runid")).collect::<BTreeSet<_>>();
    let known = |at: &str, id: &Reply| Some((text_of(id, 0), listed(lists.get(at)?.as_ref().ok()?)));
    let mut rest: Vec<_> = ids.iter().filter_map(|(at, id)| known(at, id.as_ref().ok()?)).collect();
    let Some(first) = rest.pop() else { return false };
    let mut ours = vec![first];
    let is_linked = |(id, list): &(String, BTreeSet<String>), ours: &[(String, BTreeSet<String>)]| {
        ours.iter().any(|(other, theirs)| list.contains(other) || theirs.contains(id))
    };
    while let Some(place) = rest.iter().position(|one| is_linked(one, &ours)) {
        ours.push(rest.swap_remove(place));
    }
    !rest.is_empty()
}

/// Sentinels that name different primaries; true: they are of different deployments.
fn views(topology: &Reply, are_strangers: impl Fn() -> bool, report: &mut Report) -> bool {
    let views = field(topology, 0, "split_view");
    let mixes = !views.is_empty() && are_strangers();
    match () {
        () if views.is_empty() => {}
        () if mixes => report.add(
            Fault,
            "stranger",
            format!("Sentinels of different deployments are given: {views}"),
            "They watch services of the same name, and nothing says which one is meant.",
            NOT_OURS,
        ),
        () => report.add(
            Fault,
            "sentinels_disagree",
            format!("the Sentinels name different primaries: {views}"),
            "A network is divided, or a Sentinel was restored from an old state: writes to the wrong primary are lost.",
            "See which of them are cut off. If none is, `SENTINEL RESET` the service at those that are wrong, one after the other: the next \
             only when the last one knows its replicas and the other Sentinels again.",
        ),
    }
    mixes
}

/// What the Sentinels have configured for the service.
fn settings(masters: &Answers, report: &mut Report) {
    let known: Vec<(&String, &Reply)> = masters.iter().filter_map(|(at, one)| Some((at, one.as_ref().ok()?))).collect();
    for key in ["quorum", "down-after-milliseconds", "failover-timeout", "parallel-syncs"] {
        let value = |one: &Reply| said(&field(one, 0, key));
        let values: Vec<String> = known.iter().map(|(at, one)| format!("{} at {at}", value(one))).collect();
        let distinct: BTreeSet<String> = known.iter().map(|(_, one)| value(one)).collect();
        if distinct.len() > 1 {
            report.add(
                Warning,
                "settings_differ",
                format!("{key} differs: {}", values.join(", ")),
                "How a failover goes depends on which Sentinel leads it.",
                "Set it to the same value at each: `SENTINEL SET` reaches one Sentinel only.",
            );
        }
    }
    let Some((_, first)) = known.first() else { return };
    let number = |key: &str| first.find(0, key.as_bytes()).and_then(|id| first.int(id)).unwrap_or(0);
    let (down_after, quorum) = (number("down-after-milliseconds"), number("quorum"));
    let what = format!("down-after-milliseconds is {down_after}");
    match down_after {
        ..1000 => report.add(
            Warning,
            "down_after_short",
            what,
            "A pause of the server or the network of less than a second starts a failover, which may lose writes.",
            "Set it to 1000 or more, unless your servers never pause for a slow command, a fork or a snapshot.",
        ),
        30_000.. => report.add(
            Warning,
            "down_after_long",
            what,
            "A dead primary is not replaced for so long: all writes wait or fail meanwhile.",
            "`SENTINEL SET <service> down-after-milliseconds 5000` at each Sentinel is a usual value.",
        ),
        _ => report.ok("down_after", what),
    }
    if quorum == 1 && masters.len() > 1 {
        report.add(
            Note,
            "quorum_one",
            "quorum is 1".into(),
            "A single Sentinel that cannot reach the primary begins a failover, though a majority still has to elect it.",
            "Use more than half of the Sentinels.",
        );
    }
}

/// Sentinels that others still count.
fn peers(masters: &Answers, report: &mut Report) {
    let present = masters.values().filter(|one| one.is_ok()).count() as i64;
    let counts = masters.iter().filter_map(|(at, one)| {
        let one = one.as_ref().ok()?;
        Some((at, one.find(0, b"num-other-sentinels").and_then(|id| one.int(id))?.saturating_add(1)))
    });
    let Some((at, most)) = counts.max_by_key(|(_, count)| *count) else { return };
    if most > present {
        report.add(
            Warning,
            "dead_sentinels",
            format!("{at} counts {most} Sentinels, of which {present} answer"),
            "The majority that elects a leader is counted over all that were ever known: dead ones make it harder to reach.",
            "If they are gone for good, `SENTINEL RESET <service>` at each of the others, one after the other, at least 30 s apart.",
        );
    }
}

fn quorum(answers: &Answers, sentinels: usize, report: &mut Report) {
    let mut usable = 0;
    let mut reaching: Vec<&str> = Vec::new();
    let mut lacking: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (at, answer) in answers {
        match answer {
            Ok(told) => {
                usable = usable.max(told.find(0, b"usable").and_then(|id| told.int(id)).unwrap_or(0));
                reaching.push(at);
            }
            Err(line) if line.starts_with("NOQUORUM") => lacking.entry(line).or_default().push(at),
            Err(line) if line.starts_with("NOPERM") => report.add(
                Note,
                "not_asked",
                format!("the Sentinel {at} was not asked whether a quorum can be reached: {line}"),
                "",
                "Allow `sentinel|ckquorum`: docs/permissions.md has it under \"The user of vigie-doctor\".",
            ),
            Err(_) => {}
        }
    }
    // Where they contradict each other, whose word it is.
    let whose = match lacking.is_empty() {
        true => String::new(),
        false => format!(", says the Sentinel {}", reaching.join(", ")),
    };
    for (line, at) in lacking {
        report.add(
            Fault,
            "no_quorum",
            format!("no failover is possible, says the Sentinel {}: {line}", at.join(", ")),
            "If the primary fails now, nobody replaces it.",
            "Start Sentinels that are down, or lower `quorum` to more than half of those that exist.",
        );
    }
    if usable > 0 {
        report.ok("quorum", format!("{usable} usable Sentinels, and a quorum can be reached{whose}"));
    }
    let change = "Run three or more, on hosts that fail apart from each other.";
    match sentinels {
        0 => {}
        1 => report.add(
            Warning,
            "few_sentinels",
            "there is one Sentinel".into(),
            "If its host fails, nothing is replaced.",
            change,
        ),
        2 => report.add(
            Warning,
            "few_sentinels",
            "there are two Sentinels".into(),
            "Both have to be alive for a failover: with one of them lost nothing is replaced.",
            change,
        ),
        _ => {}
    }
}

/// TILT, and versions.
fn programs(infos: &Answers, report: &mut Report) {
    let mut versions: BTreeSet<String> = BTreeSet::new();
    for (at, info) in infos.iter().filter_map(|(at, info)| Some((at, info.as_ref().ok()?))) {
        if field(info, 0, "sentinel_tilt") == "1" {
            let since = said(&field(info, 0, "sentinel_tilt_since_seconds"));
            let since = if since.is_empty() { String::new() } else { format!(", for {since} s") };
            report.add(
                Warning,
                "tilt",
                format!("the Sentinel {at} is in TILT{since}"),
                "Its clock jumped or its host stalled: it starts no failover, and its word does not count, for at least 30 s.",
                "Look for a stalled virtual machine, swapping, or a clock that was set.",
            );
        }
        versions.extend(version(info));
    }
    told_versions(&versions, "Sentinels", report);
}

/// So much of what a server calls its version is shown.
const VERSION_SHOWN: usize = 32;

/// The version in an INFO.
pub fn version(info: &Reply) -> Option<String> {
    let of = |key: &str, name: &str| {
        let text = field(info, 0, key);
        (!text.is_empty()).then(|| format!("{name} {}", cut(&clean(&text), VERSION_SHOWN)))
    };
    of("valkey_version", "Valkey").or_else(|| of("redis_version", "Redis")).filter(|_| info.kind(0) == Kind::Map)
}

/// Notes which versions run.
pub fn told_versions(versions: &BTreeSet<String>, whose: &str, report: &mut Report) {
    let list: Vec<&str> = versions.iter().map(String::as_str).collect();
    let what = format!("the {whose} run {}", list.join(", "));
    let is_old = |version: &&str| {
        version.split([' ', '.']).nth(1).and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major < 6)
    };
    match list.len() {
        0 => {}
        1 if !list.iter().any(is_old) => report.ok("versions", what),
        _ => report.add(
            Note,
            "versions",
            what,
            "The library is tested with Redis 6.2 and newer, and Valkey; with several versions the replicas must not be older than the primary.",
            "Run one version, 6.2 or newer.",
        ),
    }
}
