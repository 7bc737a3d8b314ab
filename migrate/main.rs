//! vigie-migrate: moves keys between servers of Redis or Valkey, under Sentinel or not. docs/migrate.md is its manual.
//!
//! A user of the library, and no part of it. `arguments` reads what is wanted, `place` is a server, `layout` says where a key goes, `work`
//! moves keys (`read` and `write` by their types), `progress`, `state` and `lock` make runs repeatable and single, `notes` says what
//! else is to be known, `verify` compares both sides.

mod arguments;
mod layout;
mod lock;
mod notes;
mod outcome;
mod place;
mod progress;
mod read;
mod state;
mod value;
mod verify;
mod work;
mod write;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use arguments::Wanted;
use layout::{Layout, OWN};
use lock::Lock;
use outcome::{Failure, Outcome, Report, usage};
use place::Place;
use state::State;
use work::Work;

fn main() -> ExitCode {
    let matches = match arguments::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let is_help = !error.use_stderr();
            // What cannot be printed has nobody who would read it. What was given may be a URI with a password.
            let _ = match is_help {
                true => error.print(),
                false => write!(std::io::stderr(), "{}", outcome::masked(&error.render().to_string())),
            };
            return ExitCode::from(if is_help { outcome::DONE } else { outcome::USAGE });
        }
    };
    let wanted = match arguments::read(&matches) {
        Ok(wanted) => wanted,
        Err(failure) => return told(&failure, false),
    };
    match run(&wanted) {
        Ok(report) => {
            let text = if wanted.json { report.json() } else { report.text() };
            match std::io::stdout().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::from(report.status()),
                Err(_) => ExitCode::from(outcome::CANNOT),
            }
        }
        Err(failure) => told(&failure, wanted.json),
    }
}

fn told(failure: &Failure, as_json: bool) -> ExitCode {
    match as_json {
        true => _ = std::io::stdout().write_all(outcome::failure(failure).as_bytes()),
        false => _ = writeln!(std::io::stderr(), "vigie-migrate: {}", outcome::line(&outcome::masked(&failure.text))),
    }
    ExitCode::from(failure.status)
}

/// The servers of a run.
struct Places {
    sources: Vec<Arc<Place>>,
    targets: Vec<Arc<Place>>,
    layout: Layout,
}

impl Places {
    /// A target as it is shown: in front of its address its number, if it is a shard.
    fn target(&self, at: usize) -> String {
        let name = &self.targets[at].name;
        if self.layout.has_shards() { format!("{} ({name})", layout::node(at)) } else { name.clone() }
    }
}

fn reach(wanted: &Wanted) -> Outcome<Places> {
    let place = |uri: &String, which: String| Place::reach(uri, &which, wanted.timeout).map(Arc::new);
    let sources: Vec<_> = wanted.sources.iter().map(|uri| place(uri, "--source".to_owned())).collect::<Outcome<_>>()?;
    let named = |at: usize| {
        if wanted.shards.is_some() { format!("--target {}", layout::node(at)) } else { "--target".to_owned() }
    };
    let targets: Vec<_> =
        wanted.targets.iter().enumerate().map(|(at, uri)| place(uri, named(at))).collect::<Outcome<_>>()?;
    let ids = |places: &[Arc<Place>]| places.iter().map(|place| Ok(place.run_id()?)).collect::<Outcome<Vec<_>>>();
    let (from, to) = (ids(&sources)?, ids(&targets)?);
    if wanted.delete_moved && from.iter().chain(&to).any(String::is_empty) {
        return usage(
            "--delete-moved has to know whether some server is source and target, and one of them does not tell its run_id (INFO server): \
             let the user run INFO",
        );
    }
    let same: Vec<Vec<bool>> =
        from.iter().map(|id| to.iter().map(|other| other == id && !id.is_empty()).collect()).collect();
    let layout = match wanted.shards {
        None if same[0][0] => return usage("source and target are the same server"),
        None => Layout::copy(),
        Some((hash, tags)) => {
            let names: Vec<String> = (0..targets.len()).map(layout::node).collect();
            Layout::shards(hash, tags, &names, same)
        }
    };
    if layout.is_in_place() && !wanted.says_hash {
        return usage(
            "some server is source and target, so a wrong hash would spread its keys anew: say --hash, which is shard.hash of the program \
             (crc32 if it sets none)",
        );
    }
    if layout.is_in_place() && wanted.shards.is_some_and(|(_, tags)| tags.strips()) {
        return usage(
            "some server is source and target, and tags of rediscluster do not stay in the names: a key that was stored with one would go \
             astray. Say --tags none if no key was",
        );
    }
    if layout.is_in_place() && wanted.flush {
        return usage("--flush would empty a source: some server is source and target");
    }
    if layout.is_in_place() && wanted.digest {
        return usage("--digest compares two sides, and here some server is source and target");
    }
    let is_source = |db: u32| wanted.databases.iter().any(|(from, _)| *from == db);
    if let Some((from, to)) = wanted.databases.iter().find(|(from, to)| from != to && is_source(*to)) {
        if layout.is_in_place() {
            return usage(format!(
                "--databases: {to} is where {from} goes and is a source too, and some server is both: its keys would be moved twice. Use two runs"
            ));
        }
    }
    if wanted.databases.is_empty() && targets.iter().any(|target| target.db != targets[0].db) {
        return usage("the targets name different databases: name one in all of them, or give --databases");
    }
    Ok(Places { sources, targets, layout })
}

/// Where progress is kept, if nobody says so.
fn state_path(wanted: &Wanted, places: &Places) -> PathBuf {
    let names =
        |places: &[Arc<Place>]| places.iter().map(|place| state::plain(&place.name)).collect::<Vec<_>>().join("+");
    let name = format!("vigie-migrate-{}-to-{}.state", names(&places.sources), names(&places.targets));
    wanted.state.clone().unwrap_or_else(|| PathBuf::from(if name.len() > 200 { "vigie-migrate.state" } else { &name }))
}

/// The databases of a source, and where each goes.
fn databases(wanted: &Wanted, places: &Places, source: usize) -> Vec<(u32, u32)> {
    match wanted.databases.is_empty() {
        true => vec![(places.sources[source].db, places.targets[0].db)],
        false => wanted.databases.clone(),
    }
}

/// What a run is for, as one line: another one has passed by other keys.
fn identity(wanted: &Wanted, places: &Places) -> String {
    let names =
        |places: &[Arc<Place>]| places.iter().map(|place| state::plain(&place.name)).collect::<Vec<_>>().join(",");
    let shards = wanted.shards.map(|(hash, tags)| format!("{} {}", hash.name(), tags.name()));
    let dbs = (0..places.sources.len()).flat_map(|source| databases(wanted, places, source));
    let dbs: Vec<String> = dbs.map(|(from, to)| format!("{from}:{to}")).collect();
    format!(
        "{} from {} to {} shards {} databases {} match {}{}",
        wanted.mode,
        names(&places.sources),
        names(&places.targets),
        shards.unwrap_or_default(),
        dbs.join(","),
        outcome::shown(wanted.pattern.as_deref().unwrap_or_default()),
        if wanted.flush { " flush" } else { "" }
    )
}

/// A lock on each database of each target. A server that is two targets is one to lock.
fn lock_all(wanted: &Wanted, places: &Places) -> Outcome<Vec<Lock>> {
    let token = format!("{:032x}", vigie::sys::random::rng().u128(..));
    let dbs = written(wanted, places);
    let pairs = places.targets.iter().flat_map(|target| dbs.iter().map(move |db| (target, *db)));
    pairs.map(|(target, db)| Lock::take(target, db, &token, wanted.lock)).collect()
}

/// The databases of the targets that a run writes to.
fn written(wanted: &Wanted, places: &Places) -> Vec<u32> {
    let mut dbs: Vec<u32> =
        (0..places.sources.len()).flat_map(|source| databases(wanted, places, source)).map(|(_, to)| to).collect();
    dbs.sort_unstable();
    dbs.dedup();
    dbs
}

fn run(wanted: &Wanted) -> Outcome<Report> {
    let begun = Instant::now();
    let places = reach(wanted)?;
    let path = state_path(wanted, &places);
    if wanted.clean {
        let removed = clean(wanted, &places, &path)?;
        return Ok(Report { mode: wanted.mode, is_complete: true, removed: Some(removed), ..Report::default() });
    }
    let mut state = State::read(&path, &identity(wanted, &places))?;
    let unmoved_before = state.unmoved;
    let locks = if wanted.dry_run { Vec::new() } else { lock_all(wanted, &places)? };
    let bar = bar(wanted, &places)?;
    let tick = |keys: u64| bar.inc(keys);
    let work = Work::new(wanted, (&places.sources, &places.targets), &places.layout, &locks, &tick);
    let mut notes = notes::before(wanted, &places, &state)?;
    if wanted.flush && state.is_new() {
        flush(&work, &places.targets)?;
    }
    if !state.is_new() && !work.is_as_left(&state)? {
        notes.push("a target has not what the runs before have moved there: this one began anew".to_owned());
        state.forget();
    }
    let evicted = evictions(&places.targets)?;
    let is_complete = run_whole(&work, &mut state, &mut notes)?;
    let evicted = evictions(&places.targets)?.saturating_sub(evicted);
    let is_clean = Report::is_clean(&work.tally.lock()) && unmoved_before == 0 && evicted == 0;
    match wanted.delete_moved {
        true if is_complete && is_clean => work.delete_moved()?,
        true => notes.push("nothing was deleted at the sources, because not everything is at its target".to_owned()),
        false => {}
    }
    if wanted.digest && !is_complete {
        notes.push("no digests, because the run is not complete".to_owned());
    }
    let digests = if wanted.digest && is_complete && !wanted.dry_run { Some(work.digests()?) } else { None };
    if is_complete && !wanted.dry_run {
        State::remove(&path)?;
    }
    bar.finish_and_clear();
    let placed = match wanted.dry_run {
        true => (0..places.targets.len()).map(|at| places.target(at)).zip(work.placed.lock().iter().copied()).collect(),
        false => Vec::new(),
    };
    let tally = std::mem::take(&mut *work.tally.lock());
    let seconds = begun.elapsed().as_secs_f64();
    let (mode, is_dry) = (wanted.mode, wanted.dry_run);
    let placement = wanted.shards.map(|(hash, tags)| (hash.name(), tags.name()));
    Ok(Report {
        mode,
        is_dry,
        placement,
        is_complete,
        tally,
        unmoved_before,
        seconds,
        digests,
        placed,
        evicted,
        notes,
        removed: None,
    })
}

/// Moves everything. If a target has failed over meanwhile, its former primary may have confirmed what the next one never had: then all
/// keys are looked at once more.
fn run_whole(work: &Work<'_>, state: &mut State, notes: &mut Vec<String>) -> Outcome<bool> {
    let mut before = work.target_ids()?;
    state.targets = before.clone();
    let mut is_complete = work.run(state)?;
    loop {
        let now = work.target_ids()?;
        if !is_complete || work.wanted.dry_run || now == before {
            return Ok(is_complete);
        }
        notes.push("a target failed over, or was started anew: all keys were looked at once more".to_owned());
        before = now;
        state.forget();
        state.targets = before.clone();
        let first = std::mem::take(&mut *work.tally.lock());
        is_complete = work.run(state)?;
        work.tally.lock().follow(&first);
    }
}

/// How many keys the targets have given up for want of memory since they were started.
fn evictions(targets: &[Arc<Place>]) -> Outcome<u64> {
    targets.iter().map(|target| Ok(target.number("stats", "evicted_keys:")?)).sum()
}

fn bar(wanted: &Wanted, places: &Places) -> Outcome<ProgressBar> {
    if wanted.json || !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let mut keys = 0;
    for source in &places.sources {
        let at = places.sources.iter().position(|other| Arc::ptr_eq(other, source)).unwrap_or_default();
        for (db, _) in databases(wanted, places, at) {
            let size = source.command(&*source.client(db)?, &[b"DBSIZE"])?;
            keys += u64::try_from(size.int(0).unwrap_or_default()).unwrap_or_default();
        }
    }
    let bar = ProgressBar::new(keys);
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} keys  {per_sec}  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    Ok(bar)
}

fn flush(work: &Work<'_>, targets: &[Arc<Place>]) -> Outcome<()> {
    let mut dbs: Vec<u32> = work.databases(0).into_iter().map(|(_, to)| to).collect();
    dbs.sort_unstable();
    dbs.dedup();
    for target in targets {
        for db in &dbs {
            unlink(target, *db, None, work.wanted.batch)?;
        }
    }
    Ok(())
}

/// Removes what runs before have left, if none is under way: how many keys.
fn clean(wanted: &Wanted, places: &Places, path: &std::path::Path) -> Outcome<u64> {
    let _locks = lock_all(wanted, places)?;
    let mut removed = 0;
    for target in &places.targets {
        for db in written(wanted, places) {
            removed += unlink(target, db, Some(&[OWN, b"*"].concat()), wanted.batch)?;
        }
    }
    State::remove(path)?;
    Ok(removed)
}

/// Deletes what matches, key by key, but for the lock of this run. Returns how many keys.
fn unlink(target: &Place, db: u32, pattern: Option<&[u8]>, batch: usize) -> Outcome<u64> {
    let (client, mut cursor, mut removed) = (target.client(db)?, "0".to_owned(), 0);
    loop {
        let (page, next) = work::scan_for(target, &client, &cursor, batch, pattern)?;
        let gone: Vec<&[u8]> = page.iter().map(Vec::as_slice).filter(|key| *key != lock::key()).collect();
        if !gone.is_empty() {
            let reply = target.command(&client, &[&[b"UNLINK".as_slice()][..], &gone].concat())?;
            removed += u64::try_from(reply.int(0).unwrap_or_default()).unwrap_or_default();
        }
        cursor = next;
        if cursor == "0" {
            return Ok(removed);
        }
    }
}
