//! The arguments, and what they ask for.
//!
//! Guarantees: no option is taken and ignored: what does not go together is refused. Leaves to others: whether the servers are there.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use vigie::shard::{Hash, MOST_SHARDS, Tags};

use crate::outcome::{Outcome, usage};

const ABOUT: &str = "Moves keys from servers of Redis or Valkey to others, under Sentinel or not";
const NOTES: &str = "\
A URI is redis://[user:password@]host[:port][/db], rediss:// with TLS, or redis-sentinel://host:port[,host:port...]/service, with options
of the library behind a '?'; @FILE stands for the URI in the first line of a file, so that no password is in the list of processes.

The exit status: 0 everything is at its target, or as much as --limit lets go; 1 some keys are not, the digests differ, or a target has evicted
keys; 2 bad arguments; 3 it could not run to its end.";

/// What was asked for.
pub struct Wanted {
    pub mode: &'static str,
    pub sources: Vec<String>,
    /// In the order of their numbers.
    pub targets: Vec<String>,
    pub shards: Option<(Hash, Tags)>,
    /// Whether --hash was given: what is in place has to say it.
    pub says_hash: bool,
    /// Databases, from and to; empty: those of the URIs.
    pub databases: Vec<(u32, u32)>,
    pub pattern: Option<Vec<u8>>,
    pub limit: Option<u64>,
    pub replace: bool,
    pub dry_run: bool,
    pub json: bool,
    pub digest: bool,
    pub delete_moved: bool,
    pub clean: bool,
    pub flush: bool,
    pub by_type: bool,
    pub state: Option<PathBuf>,
    pub batch: usize,
    pub threads: usize,
    pub timeout: Duration,
    pub lock: Duration,
}

pub fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let shared = [
        option("databases", "FROM:TO,...", "Databases of the source and where each goes [those of the URIs]"),
        option("match", "GLOB", "Only keys that match"),
        option("limit", "N", "Moves at most so many keys; the next run goes on")
            .value_parser(value_parser!(u64).range(1..)),
        flag("replace", "Overwrites keys that the target has; without it they are kept and told"),
        flag("flush", "Empties the databases of the targets first"),
        flag("dry-run", "Writes nothing, and says what would go where"),
        flag("json", "One JSON object at the end, in place of text and progress bar"),
        flag("digest", "Compares all keys of both sides at the end"),
        flag("delete-moved", "Deletes at the source what the target has with the same value"),
        flag("clean", "Removes the state file, the lock and unfinished keys of an earlier run, and does nothing else"),
        flag("by-type", "Reads and writes values by their types, without DUMP and RESTORE"),
        option("state", "FILE", "Where progress is kept [vigie-migrate-*.state here]")
            .value_parser(value_parser!(PathBuf)),
        option("batch", "N", "Keys in one pipeline")
            .default_value("500")
            .value_parser(value_parser!(u64).range(1..=100_000)),
        option("threads", "N", "Pipelines at the same time, at most 12")
            .default_value("4")
            .value_parser(value_parser!(u64).range(1..=12)),
        option("timeout", "SECONDS", "How long a call may take, a failover included")
            .default_value("60")
            .value_parser(value_parser!(u64).range(1..=86_400)),
        option("lock", "SECONDS", "After how long the lock of a run that was killed frees itself")
            .default_value("30")
            .value_parser(value_parser!(u64).range(1..=3600)),
    ];
    let source = option("source", "URI", "Where keys are read").required(true);
    let copy = Command::new("copy")
        .about("Copies keys from one server to another")
        .args([source.clone(), option("target", "URI", "Where they are written").required(true)])
        .args(shared.clone());
    let reshard =
        Command::new("reshard")
            .about("Spreads the keys of some servers over the shards of a program")
            .args([
                source.action(ArgAction::Append),
                option("target", "node_N=URI", "A shard, as often as there are: node_1 to node_N")
                    .required(true)
                    .action(ArgAction::Append),
                option(
                    "hash",
                    "HASH",
                    "shard.hash of the program [crc32; has to be said if some server is source and target]",
                )
                .value_parser(["crc32", "crc16", "rendezvous"]),
                option("tags", "TAGS", "shard.tags of the program [rediscluster with crc32, else cluster]")
                    .value_parser(["rediscluster", "cluster", "none"]),
            ])
            .args(shared);
    Command::new("vigie-migrate")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(NOTES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([copy, reshard])
}

/// What the arguments ask for.
pub fn read(matches: &ArgMatches) -> Outcome<Wanted> {
    let Some((name, given)) = matches.subcommand() else { return usage("no command: copy or reshard (--help)") };
    let is_copy = name == "copy";
    let texts = |name: &str| given.get_many::<String>(name).into_iter().flatten().cloned().collect::<Vec<_>>();
    let text = |name: &str| given.get_one::<String>(name).cloned();
    let number = |name: &str| given.get_one::<u64>(name).copied().unwrap_or(1);
    let seconds = |name: &str| Duration::from_secs(number(name));
    let targets = texts("target");
    let wanted = Wanted {
        mode: if is_copy { "copy" } else { "reshard" },
        sources: texts("source").iter().map(|uri| resolved(uri)).collect::<Outcome<_>>()?,
        targets: if is_copy {
            targets.iter().map(|uri| resolved(uri)).collect::<Outcome<_>>()?
        } else {
            nodes(&targets)?
        },
        shards: if is_copy {
            None
        } else {
            Some(placement(&text("hash").unwrap_or_default(), text("tags").as_deref()))
        },
        says_hash: !is_copy && text("hash").is_some(),
        databases: text("databases").map_or(Ok(Vec::new()), |text| databases(&text))?,
        pattern: text("match").map(String::into_bytes),
        limit: given.get_one::<u64>("limit").copied(),
        replace: given.get_flag("replace"),
        dry_run: given.get_flag("dry-run"),
        json: given.get_flag("json"),
        digest: given.get_flag("digest"),
        delete_moved: given.get_flag("delete-moved"),
        clean: given.get_flag("clean"),
        flush: given.get_flag("flush"),
        by_type: given.get_flag("by-type"),
        state: given.get_one::<PathBuf>("state").cloned(),
        batch: usize::try_from(number("batch")).unwrap_or(1),
        threads: usize::try_from(number("threads")).unwrap_or(1),
        timeout: seconds("timeout"),
        lock: seconds("lock"),
    };
    check(&wanted)?;
    Ok(wanted)
}

fn check(wanted: &Wanted) -> Outcome<()> {
    let clash = [
        (
            wanted.clean && wanted.dry_run,
            "--clean removes what an earlier run left, and --dry-run changes nothing: choose one of them",
        ),
        (wanted.clean && wanted.flush, "--clean copies nothing: --flush belongs to a run that does"),
        (wanted.dry_run && wanted.flush, "--dry-run changes nothing: leave out --flush"),
        (wanted.dry_run && wanted.digest, "--dry-run changes nothing that could be compared: leave out --digest"),
        (wanted.dry_run && wanted.delete_moved, "--dry-run changes nothing: leave out --delete-moved"),
        (
            wanted.delete_moved && wanted.digest,
            "--digest compares both sides, and --delete-moved empties one: give --digest in a run before",
        ),
    ];
    match clash.iter().find(|(is_there, _)| *is_there) {
        Some((_, text)) => usage(*text),
        None => Ok(()),
    }
}

/// A URI, or what stands in a file.
fn resolved(uri: &str) -> Outcome<String> {
    let Some(path) = uri.strip_prefix('@') else { return Ok(uri.to_owned()) };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().next().unwrap_or_default().trim().to_owned()),
        Err(error) => usage(format!("the file of a URI, {path}, cannot be read: {error}")),
    }
}

fn placement(hash: &str, tags: Option<&str>) -> (Hash, Tags) {
    let hash = match hash {
        "crc16" => Hash::Crc16,
        "rendezvous" => Hash::Rendezvous,
        _ => Hash::Crc32,
    };
    let tags = match tags {
        Some("rediscluster") => Tags::Rediscluster,
        Some("none") => Tags::None,
        None if hash == Hash::Crc32 => Tags::Rediscluster,
        _ => Tags::Cluster,
    };
    (hash, tags)
}

/// The URIs of node_1 to node_N, in this order.
fn nodes(texts: &[String]) -> Outcome<Vec<String>> {
    let mut places: Vec<Option<String>> = vec![None; texts.len()];
    if texts.len() > MOST_SHARDS {
        return usage(format!("{} targets are given; {MOST_SHARDS} are possible", texts.len()));
    }
    for (text, at) in texts.iter().zip(1..) {
        // What stands in front of a '=' may be a piece of a URI: it is not shown.
        let number = text
            .strip_prefix("node_")
            .and_then(|rest| rest.split_once('='))
            .filter(|(digits, _)| !digits.starts_with(['0', '+']));
        let place = number.and_then(|(digits, uri)| Some((digits.parse::<usize>().ok()?, uri)));
        let Some((number, uri)) = place.filter(|(number, _)| (1..=texts.len()).contains(number)) else {
            let count = texts.len();
            return usage(match place {
                Some((number, _)) => {
                    format!(
                        "--target node_{number} is given, but there are {count} targets: their numbers go from 1 to {count}, without gaps"
                    )
                }
                None => {
                    format!("--target {at} of {count} has no number: node_{at}=URI, as the program names its shards")
                }
            });
        };
        if places[number - 1].replace(resolved(uri)?).is_some() {
            return usage(format!("--target node_{number} is given twice"));
        }
    }
    Ok(places.into_iter().flatten().collect())
}

/// `2:2,5:1`; `2` alone stays 2.
fn databases(text: &str) -> Outcome<Vec<(u32, u32)>> {
    let mut pairs: Vec<(u32, u32)> = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once(':').unwrap_or((part, part));
        let (Ok(from), Ok(to)) = (from.trim().parse(), to.trim().parse()) else {
            return usage(format!("--databases: {part:?} is no pair of databases: 2:2,5:1 copies 2 to 2 and 5 to 1"));
        };
        if pairs.iter().any(|(other, _)| *other == from) {
            return usage(format!("--databases: {from} is named twice as a source"));
        }
        pairs.push((from, to));
    }
    Ok(pairs)
}
