//! What a run tells beside its counts, before it moves anything: what it passes by, and what has changed since the run that it goes on with.
//!
//! Guarantees: only reads. Leaves to others: what is told of the moving itself (main, work).

use crate::arguments::Wanted;
use crate::layout::OWN;
use crate::outcome::Outcome;
use crate::place::Place;
use crate::state::State;
use crate::{Places, databases, written};

/// All of it.
pub fn before(wanted: &Wanted, places: &Places, state: &State) -> Outcome<Vec<String>> {
    let mut notes = left_out(wanted, places)?;
    if wanted.flush && !state.is_new() {
        let text = "this run goes on with one that has emptied the targets, and does not empty them again: a run with --clean first lets it \
                    begin anew";
        notes.push(text.to_owned());
    }
    notes.extend(unread(wanted, places)?);
    notes.extend(restarted(wanted, places, state)?);
    Ok(notes)
}

/// Databases of the sources that have keys, and that this run passes by.
fn left_out(wanted: &Wanted, places: &Places) -> Outcome<Vec<String>> {
    let mut notes = Vec::new();
    for (at, source) in places.sources.iter().enumerate() {
        let taken = databases(wanted, places, at);
        let others: Vec<String> = source
            .sizes()?
            .into_iter()
            .filter(|(db, _)| taken.iter().all(|(from, _)| from != db))
            .map(|(db, keys)| format!("{db} ({keys} keys)"))
            .collect();
        if !others.is_empty() {
            notes.push(format!(
                "{}: other databases are no part of this run: {} (--databases)",
                source.name,
                others.join(", ")
            ));
        }
    }
    Ok(notes)
}

/// In place: what is on a target that is no source stays there. Some of its keys are looked at, because a new shard has only its own.
fn unread(wanted: &Wanted, places: &Places) -> Outcome<Vec<String>> {
    let mut notes = Vec::new();
    let others = places.targets.iter().enumerate();
    for (at, target) in others.filter(|(at, _)| places.layout.is_in_place() && !places.layout.reads(*at)) {
        let (mut keys, mut strays) = (0, 0);
        for db in written(wanted, places) {
            let names = some_names(target, db)?;
            keys += names.len();
            strays += names.iter().filter(|name| !places.layout.belongs(at, name)).count();
        }
        if strays > 0 {
            notes.push(format!(
                "{} is no source, and of {keys} of its keys {strays} belong elsewhere: they stay there, unless it is given with --source too",
                places.target(at)
            ));
        }
    }
    Ok(notes)
}

/// Up to some thousand names of a database.
fn some_names(place: &Place, db: u32) -> Outcome<Vec<Vec<u8>>> {
    let (client, mut cursor, mut names) = (place.client(db)?, "0".to_owned(), Vec::new());
    loop {
        let reply = place.command(&client, &[b"SCAN", cursor.as_bytes(), b"COUNT", b"1000"])?;
        let page: Vec<u32> = reply.children(0).collect();
        let [next, found] = page[..] else { return Ok(names) };
        let found = reply.children(found).filter_map(|name| reply.bytes(name)).map(<[u8]>::to_vec);
        names.extend(found.filter(|name| !name.starts_with(OWN)));
        cursor = String::from_utf8_lossy(reply.bytes(next).unwrap_or(b"0")).into_owned();
        if cursor == "0" || names.len() >= 4000 {
            return Ok(names);
        }
    }
}

/// Sources that are another server than the one that the runs before have read.
fn restarted(wanted: &Wanted, places: &Places, state: &State) -> Outcome<Vec<String>> {
    let mut notes = Vec::new();
    for (at, source) in places.sources.iter().enumerate() {
        let run_id = source.run_id()?;
        if databases(wanted, places, at).iter().any(|(db, _)| state.knew_another(&source.name, *db, &run_id)) {
            notes.push(format!(
                "{} failed over, or was started anew, since the run before: its keys are looked at once more",
                source.name
            ));
        }
    }
    Ok(notes)
}
