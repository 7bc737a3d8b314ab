//! Moves keys: from a page of SCAN to their targets.
//!
//! Guarantees: a key that its target has is overwritten only with --replace; a text goes by MGET and SET, which cost the servers half of what
//! DUMP and RESTORE do; another value goes as its server dumps it, and by its type where the target does not take that; what could not go
//! is named. A page is noted as done when all of its keys are. Leaves to others: reading and writing by types (read, write), the comparison
//! at the end (verify).

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};

use parking_lot::Mutex;
use vigie::client::{CallFlags, Client};
use vigie::error::{Result, Status, flags};
use vigie::resp::Kind;

use crate::arguments::Wanted;
use crate::layout::{Layout, OWN, Way};
use crate::lock::Lock;
use crate::outcome::{Fate, Outcome, Tally, cannot};
use crate::place::{List, Place};
use crate::progress::Progress;
use crate::read::{self, Ends, Read};
use crate::state::{DONE, Seen, State};
use crate::value::{Entry, expires_alike};
use crate::write::{self, Written};

/// Why a key of the target was not overwritten.
const KEPT: &str = "the target has another value under this name (--replace overwrites it)";

/// Why a key did not go whose name at the target is that of another one.
const SHARED: &str = "another key of the sources has this name there, because tags are not stored (--tags cluster or none keeps them apart)";

/// How many of the keys that were moved the state file names.
const MOST_SEEN: usize = 64;

/// Keys of one MGET: no command takes long.
const TEXTS: usize = 20;

/// How often a key is written again whose answer was lost.
const TRIES: u32 = 3;

/// What a run works with.
pub struct Work<'a> {
    pub wanted: &'a Wanted,
    pub sources: &'a [Arc<Place>],
    pub targets: &'a [Arc<Place>],
    pub layout: &'a Layout,
    pub locks: &'a [Lock],
    /// By target: whether it does not take what a source dumps.
    by_type: Vec<AtomicBool>,
    pub tally: Mutex<Tally>,
    /// How many keys each target would get.
    pub placed: Mutex<Vec<u64>>,
    /// Some keys that were moved, for the state file.
    seen: Mutex<Vec<Seen>>,
    /// Where tags are not stored: by the name at a target the key that has it, both as hashes.
    claims: Mutex<HashMap<u64, u64>>,
    pub tick: &'a (dyn Fn(u64) + Sync),
}

/// A key on its way.
struct Going<'k> {
    key: &'k [u8],
    name: &'k [u8],
    payload: Payload,
    expires: Option<i64>,
}

/// A value on its way.
#[derive(PartialEq)]
enum Payload {
    Text(Vec<u8>),
    Dump(Vec<u8>),
}

/// Names that SCAN gave, and their number.
type Page = (u64, Vec<Vec<u8>>);

/// What became of a page.
struct Moved {
    /// Whether all of its keys were looked at: a limit may end it before.
    is_whole: bool,
    tally: Tally,
}

/// The database whose names are read, and the threads that move them.
struct Reading<'a> {
    place: &'a Place,
    db: u32,
    pages: Sender<Page>,
    outcomes: Receiver<(u64, Outcome<Moved>)>,
    /// How many pages may be under way, so that no thread waits for names.
    ahead: usize,
    /// After how many pages the state is written.
    note_after: u64,
}

/// Where keys are read.
#[derive(Clone, Copy)]
struct At<'a> {
    place: &'a Place,
    client: &'a Client,
    db: u32,
    /// Its number among the targets, if it is one.
    target: usize,
}

impl<'a> Work<'a> {
    pub fn new(
        wanted: &'a Wanted,
        (sources, targets): (&'a [Arc<Place>], &'a [Arc<Place>]),
        layout: &'a Layout,
        locks: &'a [Lock],
        tick: &'a (dyn Fn(u64) + Sync),
    ) -> Self {
        let by_type = targets.iter().map(|_| AtomicBool::new(wanted.by_type)).collect();
        let placed = Mutex::new(vec![0; targets.len()]);
        let (tally, seen, claims) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { wanted, sources, targets, layout, locks, by_type, tally, placed, seen, claims, tick }
    }

    /// The run ids of the targets.
    pub fn target_ids(&self) -> Outcome<Vec<String>> {
        self.targets.iter().map(|target| Ok(target.run_id()?)).collect()
    }

    /// Whether the targets are the servers that earlier runs wrote to, and have what these have moved, as far as the state file names it.
    pub fn is_as_left(&self, state: &State) -> Outcome<bool> {
        if state.targets != self.target_ids()? {
            return Ok(false);
        }
        for (target, db, name) in &state.seen {
            let Some(place) = self.targets.get(*target) else { return Ok(false) };
            if place.command(&*place.client(*db)?, &[b"EXISTS", name])?.int(0) != Some(1) {
                return Ok(false);
            }
        }
        *self.seen.lock() = state.seen.clone();
        Ok(true)
    }

    /// A key was moved. One that expires may be gone when the next run looks.
    fn saw(&self, target: At<'_>, name: &[u8], expires: Option<i64>) {
        if expires.is_some() || name.len() > 256 {
            return;
        }
        let mut seen = self.seen.lock();
        let one = (target.target, target.db, name.to_vec());
        match seen.len() < MOST_SEEN {
            true => seen.push(one),
            false if vigie::sys::random::rng().usize(..MOST_SEEN) == 0 => {
                let at = vigie::sys::random::rng().usize(..MOST_SEEN);
                seen[at] = one;
            }
            false => {}
        }
    }

    /// Keys that have their names at the target to themselves. Where tags are not stored `x{a}` and `x{b}` are both `x`, if they are on one
    /// shard, and so is `x`. The first of them goes; the others are named.
    fn unshared<'k>(
        &self,
        from: &At<'_>,
        (target, to): (usize, u32),
        keys: Vec<(&'k [u8], &'k [u8])>,
        fate: Fate,
        tally: &mut Tally,
    ) -> Outcome<Vec<(&'k [u8], &'k [u8])>> {
        if !self.layout.strips() {
            return Ok(keys);
        }
        let plain = self.plain_names(from, (target, to), &keys)?;
        let mut claims = self.claims.lock();
        let mut is_free = |(key, name): &(&[u8], &[u8])| {
            let own = hashed(*key);
            let mut claim = || *claims.entry(hashed((target, to, *name))).or_insert(own);
            key == name || (!plain.contains(name) && claim() == own)
        };
        let (free, shared): (Vec<_>, Vec<_>) = keys.into_iter().partition(|one| is_free(one));
        shared.iter().for_each(|(key, _)| tally.name(fate, key, from.db, SHARED));
        Ok(free)
    }

    /// Of the names of keys that lose their tags those that are names of keys without a tag, which go to the same place.
    fn plain_names<'k>(
        &self,
        from: &At<'_>,
        (target, to): (usize, u32),
        keys: &[(&'k [u8], &'k [u8])],
    ) -> Outcome<HashSet<&'k [u8]>> {
        let goes_there = |name: &[u8], source: usize| match self.layout.way(source, (from.db, to), name) {
            Way::To(at, stored) => at == target && stored == name,
            Way::Stays | Way::Nowhere(_) => false,
        };
        let names: Vec<&[u8]> = keys.iter().filter(|(key, name)| key != name).map(|(_, name)| *name).collect();
        let mut plain = HashSet::new();
        for (source, place) in self.sources.iter().enumerate().filter(|_| !names.is_empty()) {
            let names: Vec<&[u8]> = names.iter().copied().filter(|name| goes_there(name, source)).collect();
            for (from, _) in self.databases(source).into_iter().filter(|(_, there)| *there == to) {
                let mut list = List::default();
                names.iter().for_each(|name| list.add(&[b"EXISTS", name]));
                if list.len > 0 {
                    let reply = place.ask(&*place.client(from)?, &list)?;
                    let is_there = |at: u32| reply.child(0, at).and_then(|node| reply.int(node)) == Some(1);
                    plain.extend(names.iter().zip(0..).filter(|(_, at)| is_there(*at)).map(|(name, _)| *name));
                }
            }
        }
        let mut claims = self.claims.lock();
        plain.iter().for_each(|name| _ = claims.insert(hashed((target, to, *name)), hashed(*name)));
        Ok(plain)
    }

    /// The databases of a source, and where each goes.
    pub fn databases(&self, source: usize) -> Vec<(u32, u32)> {
        match self.wanted.databases.is_empty() {
            true => vec![(self.sources[source].db, self.targets[0].db)],
            false => self.wanted.databases.clone(),
        }
    }

    /// Moves everything, or as much as one run may. Whether nothing is left.
    pub fn run(&self, state: &mut State) -> Outcome<bool> {
        for source in 0..self.sources.len() {
            for (from, to) in self.databases(source) {
                if !self.run_database(source, from, to, state)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn run_database(&self, source: usize, from: u32, to: u32, state: &mut State) -> Outcome<bool> {
        let place = &self.sources[source];
        let run_id = place.run_id()?;
        let cursor = state.cursor(&place.name, from, &run_id);
        if cursor == DONE {
            return Ok(true);
        }
        let (pages, taken) = mpsc::channel();
        let (told, outcomes) = mpsc::channel();
        let taken = Mutex::new(taken);
        std::thread::scope(|scope| {
            // A run that has a limit takes one page after the other.
            let workers = if self.wanted.limit.is_some() { 1 } else { self.wanted.threads };
            for _ in 0..workers {
                let (taken, told) = (&taken, told.clone());
                scope.spawn(move || self.work(source, (from, to), taken, &told));
            }
            let ahead = if self.wanted.limit.is_some() { 1 } else { workers * 2 };
            let reading = Reading { place, db: from, pages, outcomes, ahead, note_after: workers as u64 };
            self.pages(reading, Progress::new(run_id, cursor), state)
        })
    }

    /// Moves pages until there are no more.
    fn work(
        &self,
        source: usize,
        dbs: (u32, u32),
        taken: &Mutex<Receiver<Page>>,
        told: &Sender<(u64, Outcome<Moved>)>,
    ) {
        loop {
            let next = taken.lock().recv();
            let Ok((number, page)) = next else { return };
            // A page whose thread fails has an outcome all the same, because somebody waits for it.
            let outcome = catch_unwind(AssertUnwindSafe(|| self.page(source, dbs, &page)))
                .unwrap_or_else(|_| cannot("a thread of this program failed"));
            if told.send((number, outcome)).is_err() {
                return;
            }
        }
    }

    /// Reads names ahead of the threads that move them, and notes how far all pages without a gap are done.
    fn pages(&self, reading: Reading<'_>, mut progress: Progress, state: &mut State) -> Outcome<bool> {
        let client = reading.place.client(reading.db)?;
        loop {
            while !progress.is_read && progress.under_way() < reading.ahead {
                if self.is_full() {
                    return Ok(false);
                }
                self.locks.iter().try_for_each(Lock::check)?;
                let (page, next) = scan(reading.place, &client, &progress.next, self.wanted)?;
                let job = (progress.read(next), page);
                // The threads are there as long as this one.
                let _ = reading.pages.send(job);
            }
            if progress.under_way() == 0 {
                return Ok(true);
            }
            let Ok((number, outcome)) = reading.outcomes.recv() else {
                return cannot("a thread of this program failed");
            };
            let moved = outcome?;
            if !moved.is_whole {
                // The same page again: what was moved of it is equal by then.
                self.tally.lock().add(moved.tally);
                return Ok(false);
            }
            progress.done(number, moved.tally, &mut self.tally.lock());
            if progress.unnoted() >= reading.note_after || progress.is_over() {
                self.note(&reading, &mut progress, state)?;
            }
        }
    }

    fn note(&self, reading: &Reading<'_>, progress: &mut Progress, state: &mut State) -> Outcome<()> {
        if self.wanted.dry_run {
            return Ok(());
        }
        if let Some(cursor) = progress.cursor_of(reading.place.run_id()?) {
            let unmoved = state.unmoved + self.tally.lock().unmoved();
            state.seen.clone_from(&self.seen.lock());
            state.note(&reading.place.name, reading.db, &progress.run_id, &cursor, unmoved)?;
        }
        Ok(())
    }

    /// Whether this run has moved as much as it may.
    fn is_full(&self) -> bool {
        self.wanted.limit.is_some_and(|limit| self.tally.lock().of(Fate::Moved) >= limit)
    }

    /// Moves the keys of a page.
    fn page(&self, source: usize, (from, to): (u32, u32), page: &[Vec<u8>]) -> Outcome<Moved> {
        self.locks.iter().try_for_each(Lock::check)?;
        let mut by_target: Vec<Vec<(&[u8], &[u8])>> = self.targets.iter().map(|_| Vec::new()).collect();
        let mut tally = Tally::default();
        for key in page.iter().filter(|key| !key.starts_with(OWN)) {
            match self.layout.way(source, (from, to), key) {
                Way::To(target, name) => by_target[target].push((key, name)),
                Way::Stays => tally.count(Fate::Stayed, 1),
                Way::Nowhere(why) => tally.name(Fate::Failed, key, from, why),
            }
        }
        let mut is_whole = true;
        let reader = self.sources[source].client(from)?;
        let at = At { place: &self.sources[source], client: &reader, db: from, target: 0 };
        for (target, keys) in by_target.into_iter().enumerate().filter(|(_, keys)| !keys.is_empty()) {
            let keys = self.unshared(&at, (target, to), keys, Fate::Failed, &mut tally)?;
            let moved = self.tally.lock().of(Fate::Moved) + tally.of(Fate::Moved);
            let left = self.wanted.limit.map(|limit| limit.saturating_sub(moved));
            let room = left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
            if self.wanted.dry_run {
                let count = keys.len().min(room);
                is_whole &= count == keys.len();
                self.placed.lock()[target] += count as u64;
                tally.count(Fate::Moved, count as u64);
                continue;
            }
            is_whole &= self.keys((source, from), (target, to), &keys, room, &mut tally)?;
        }
        (self.tick)(page.len() as u64);
        Ok(Moved { is_whole, tally })
    }

    /// Moves keys to one target. Whether the limit let all of them go.
    fn keys(
        &self,
        (source, from): (usize, u32),
        (target, to): (usize, u32),
        keys: &[(&[u8], &[u8])],
        room: usize,
        tally: &mut Tally,
    ) -> Outcome<bool> {
        let (source, place) = (&self.sources[source], &self.targets[target]);
        let (reader, writer) = (source.client(from)?, place.client(to)?);
        let source = At { place: source, client: &reader, db: from, target };
        let place = At { place, client: &writer, db: to, target };
        let fits = if room < keys.len() { fitting(place, keys, room)? } else { keys.to_vec() };
        let by_type = &self.by_type[target];
        let rest = match by_type.load(Ordering::Relaxed) {
            true => fits.clone(),
            false => self.restore(source, place, &fits, tally, by_type, TRIES)?,
        };
        if !rest.is_empty() {
            self.by_types(source, place, &rest, tally)?;
        }
        Ok(fits.len() == keys.len())
    }

    /// Moves texts as they are, and other values as their server dumps them. Returns those that the target does not take.
    fn restore<'k>(
        &self,
        source: At<'_>,
        target: At<'_>,
        keys: &[(&'k [u8], &'k [u8])],
        tally: &mut Tally,
        by_type: &AtomicBool,
        tries: u32,
    ) -> Outcome<Vec<(&'k [u8], &'k [u8])>> {
        let going = values(source, keys, target.place.has_set_ends, tally)?;
        if going.is_empty() {
            return Ok(Vec::new());
        }
        let mut list = List::default();
        going.iter().for_each(|one| write_of(one, self.wanted.replace, &mut list));
        // Not repeated by itself: the second time it would find its own key. What is in doubt is compared below.
        let reply = match target.client.cmds_exec(list.data(), CallFlags::default(), target.place.limit()) {
            Ok(reply) => Some(reply),
            Err(error) if error.has(flags::MAYBE_EXECUTED) => None,
            Err(error) => return Err(error.into()),
        };
        let (mut doubtful, mut refused) = (Vec::new(), Vec::new());
        for (one, at) in going.iter().zip(0..) {
            let node = reply.as_ref().map(|reply| (reply, reply.child(0, at).unwrap_or(u32::MAX)));
            match node.map(|(reply, node)| reply.error_line(node)) {
                // SET NX says so if there is a key.
                Some(None) if node.is_some_and(|(reply, node)| reply.kind(node) == Kind::Null) => doubtful.push(one),
                Some(None) => {
                    tally.count(Fate::Moved, 1);
                    self.saw(target, one.name, one.expires);
                }
                Some(Some(line)) if line.starts_with(b"BUSYKEY") => doubtful.push(one),
                None => doubtful.push(one),
                Some(Some(line)) if is_other_version(line) => refused.push((one.key, one.name)),
                Some(Some(line)) => tally.name(Fate::Failed, one.key, source.db, String::from_utf8_lossy(line)),
            }
        }
        if !refused.is_empty() {
            by_type.store(true, Ordering::Relaxed);
        }
        let missing = compare(source, target, &doubtful, self.wanted.replace, tally)?;
        match tries {
            _ if missing.is_empty() => {}
            // The answer was lost with the connection, and so was the command.
            1.. => refused.extend(self.restore(source, target, &missing, tally, by_type, tries - 1)?),
            0 => missing.iter().for_each(|(key, _)| {
                tally.name(Fate::Failed, key, source.db, "it was written several times, and is not there");
            }),
        }
        Ok(refused)
    }

    fn by_types(&self, source: At<'_>, target: At<'_>, keys: &[(&[u8], &[u8])], tally: &mut Tally) -> Outcome<()> {
        let names: Vec<&[u8]> = keys.iter().map(|(key, _)| *key).collect();
        let read = read::read(source.from(), &names)?;
        let (mut entries, mut of) = (Vec::new(), Vec::new());
        for ((key, name), one) in keys.iter().zip(&read) {
            match one {
                Read::Entry(entry) => {
                    entries.push((*name, entry));
                    of.push(*key);
                }
                Read::Gone => tally.count(Fate::Gone, 1),
                Read::Not(why) => tally.name(Fate::Failed, key, source.db, why.clone()),
            }
        }
        if entries.is_empty() {
            return Ok(());
        }
        for (((name, entry), key), written) in entries.iter().zip(of).zip(self.write(target, &entries)?) {
            match written {
                Written::Yes => {
                    tally.count(Fate::Moved, 1);
                    self.saw(target, name, entry.expires);
                }
                Written::Over => tally.count(Fate::Gone, 1),
                Written::Not(why) => tally.name(Fate::Failed, key, source.db, why),
                Written::Taken => match read::read(target.from(), &[name])?.first() {
                    Some(Read::Entry(other))
                        if other.value.mark() == entry.value.mark() && expires_alike(other.expires, entry.expires) =>
                    {
                        tally.count(Fate::Equal, 1);
                    }
                    _ => tally.name(Fate::Kept, key, source.db, KEPT),
                },
            }
        }
        Ok(())
    }

    /// Writes values by their types. The connection may end with its primary: then all of them are written again, and those that have their
    /// names by then are found there.
    fn write(&self, target: At<'_>, entries: &[(&[u8], &Entry)]) -> Result<Vec<Written>> {
        let (mut tries, keys) = (TRIES, write::unfinished_names(entries));
        loop {
            let session = target.place.session(target.db)?;
            let into = write::Into { place: target.place, session: &session, replace: self.wanted.replace };
            match write::write(&into, entries, &keys) {
                Err(_) if tries > 0 => tries -= 1,
                outcome => return outcome,
            }
        }
    }

    /// Deletes at the sources what the targets have with the same value.
    pub fn delete_moved(&self) -> Outcome<()> {
        for source in 0..self.sources.len() {
            let place = &self.sources[source];
            for (from, to) in self.databases(source) {
                let client = place.client(from)?;
                let mut cursor = "0".to_owned();
                loop {
                    self.locks.iter().try_for_each(Lock::check)?;
                    let (page, next) = scan(place, &client, &cursor, self.wanted)?;
                    let at = At { place, client: &client, db: from, target: 0 };
                    for key in page.iter().filter(|key| !key.starts_with(OWN)) {
                        let Way::To(target, name) = self.layout.way(source, (from, to), key) else { continue };
                        let mut tally = Tally::default();
                        let keys = vec![(key.as_slice(), name)];
                        if !self.unshared(&at, (target, to), keys, Fate::Undeleted, &mut tally)?.is_empty() {
                            self.delete(place, (key, from), (&self.targets[target], name, to))?;
                        }
                        self.tally.lock().add(tally);
                    }
                    cursor = next;
                    if cursor == "0" {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn delete(
        &self,
        source: &Place,
        (key, from): (&[u8], u32),
        (place, name, to): (&Place, &[u8], u32),
    ) -> Outcome<()> {
        let (session, client) = (source.session(from)?, place.client(to)?);
        let mut watch = List::default();
        watch.add(&[b"WATCH", key]);
        let watched = source.once(&session, &watch)?;
        if let Some(line) = watched.child(0, 0).and_then(|node| watched.error_line(node)) {
            return cannot(format!("keys cannot be compared under WATCH: {}", String::from_utf8_lossy(line)));
        }
        let one = At { place: source, client: &session, db: from, target: 0 };
        let other = At { place, client: &client, db: to, target: 0 };
        let ours = values(one, &[(key, key)], false, &mut Tally::default())?;
        let theirs = values(other, &[(name, name)], false, &mut Tally::default())?;
        // Without one of ours it has expired meanwhile.
        let Some(ours) = ours.first() else { return Ok(()) };
        let is_equal = match theirs.first() {
            Some(theirs) => {
                expires_alike(ours.expires, theirs.expires)
                    && (ours.payload == theirs.payload || same_value((one, key), (other, name))?)
            }
            None => false,
        };
        if !is_equal {
            self.tally.lock().name(Fate::Undeleted, key, from, "the target does not have this value");
            return Ok(());
        }
        let mut list = List::default();
        list.add(&[b"UNLINK", key]);
        match source.atomic(&session, &list) {
            Ok(_) => self.tally.lock().count(Fate::Deleted, 1),
            Err(error) if error.status() == Status::TxnAborted => {
                self.tally.lock().name(Fate::Undeleted, key, from, "it was changed while it was compared");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl<'a> At<'a> {
    fn from(self) -> read::From<'a> {
        read::From { place: self.place, client: self.client }
    }
}

/// Keys that the target may have: equal ones are done, others are kept, and those that it has not are returned.
fn compare<'k>(
    source: At<'_>,
    target: At<'_>,
    keys: &[&Going<'k>],
    replaces: bool,
    tally: &mut Tally,
) -> Outcome<Vec<(&'k [u8], &'k [u8])>> {
    let mut missing = Vec::new();
    if keys.is_empty() {
        return Ok(missing);
    }
    let names: Vec<(&[u8], &[u8])> = keys.iter().map(|one| (one.name, one.name)).collect();
    let there = values(target, &names, target.place.has_set_ends, &mut Tally::default())?;
    let there: HashMap<&[u8], &Going<'_>> = there.iter().map(|other| (other.name, other)).collect();
    for one in keys {
        let Some(other) = there.get(one.name) else {
            missing.push((one.key, one.name));
            continue;
        };
        // What has no order may be dumped in another one.
        let is_equal = expires_alike(other.expires, one.expires)
            && (other.payload == one.payload || same_value((source, one.key), (target, one.name))?);
        match is_equal {
            true => tally.count(Fate::Equal, 1),
            // Only the answer was lost, or the command with it.
            false if replaces => missing.push((one.key, one.name)),
            false => tally.name(Fate::Kept, one.key, source.db, KEPT),
        }
    }
    Ok(missing)
}

/// Whether two keys have the same value, read by its type.
fn same_value(one: (At<'_>, &[u8]), other: (At<'_>, &[u8])) -> Result<bool> {
    let mark = |(at, key): (At<'_>, &[u8])| -> Result<Option<u128>> {
        Ok(read::read(at.from(), &[key])?.into_iter().next().and_then(|one| match one {
            Read::Entry(entry) => Some(entry.value.mark()),
            Read::Gone | Read::Not(_) => None,
        }))
    };
    let mark_of_one = mark(one)?;
    Ok(mark_of_one.is_some() && mark_of_one == mark(other)?)
}

/// As many keys as a limit lets go. What the target has already costs nothing of it.
fn fitting<'k>(target: At<'_>, keys: &[(&'k [u8], &'k [u8])], room: usize) -> Outcome<Vec<(&'k [u8], &'k [u8])>> {
    let mut list = List::default();
    keys.iter().for_each(|(_, name)| list.add(&[b"EXISTS", name]));
    let there = target.place.ask(target.client, &list)?;
    let mut left = room;
    let mut fits = Vec::new();
    for (key, at) in keys.iter().zip(0..) {
        let is_there = there.child(0, at).and_then(|node| there.int(node)) == Some(1);
        if is_there || left > 0 {
            left -= usize::from(!is_there);
            fits.push(*key);
        }
    }
    Ok(fits)
}

/// A page of keys, and the cursor behind it.
pub fn scan(place: &Place, client: &Client, cursor: &str, wanted: &Wanted) -> Outcome<(Vec<Vec<u8>>, String)> {
    scan_for(place, client, cursor, wanted.batch, wanted.pattern.as_deref())
}

/// The same with another pattern.
pub fn scan_for(
    place: &Place,
    client: &Client,
    cursor: &str,
    batch: usize,
    pattern: Option<&[u8]>,
) -> Outcome<(Vec<Vec<u8>>, String)> {
    let count = batch.to_string();
    let mut args: Vec<&[u8]> = vec![b"SCAN", cursor.as_bytes(), b"COUNT", count.as_bytes()];
    if let Some(pattern) = pattern {
        args.extend([b"MATCH".as_slice(), pattern]);
    }
    let reply = match place.command(client, &args) {
        // After a failover the scan begins anew: what comes twice is equal, or was seen.
        Err(error) if error.status() == Status::ScanInterrupted => {
            args[1] = b"0";
            place.command(client, &args)?
        }
        outcome => outcome?,
    };
    let next = reply.child(0, 0).and_then(|node| reply.bytes(node)).unwrap_or(b"0");
    let names = reply.child(0, 1).unwrap_or(u32::MAX);
    let keys = reply.children(names).filter_map(|node| reply.bytes(node)).map(<[u8]>::to_vec).collect();
    Ok((keys, String::from_utf8_lossy(next).into_owned()))
}

/// What a server has of these keys: as dumps, or texts as they are. Those that are gone are counted, and missing.
fn values<'k>(at: At<'_>, keys: &[(&'k [u8], &'k [u8])], texts: bool, tally: &mut Tally) -> Outcome<Vec<Going<'k>>> {
    if !texts {
        return dumps(at, keys, tally);
    }
    if let Some((mut going, others)) = lasting(at, keys) {
        if !others.is_empty() {
            going.extend(dumps(at, &others, tally)?);
        }
        return Ok(going);
    }
    let mut list = List::default();
    for keys in keys.chunks(TEXTS) {
        list.add(&mget(keys));
        // While the server still has these keys in its cache.
        keys.iter().for_each(|(key, _)| read::ask_end(at.place, key, &mut list));
    }
    let reply = at.place.ask(at.client, &list)?;
    let mut nodes = reply.children(0);
    let (mut going, mut others) = (Vec::with_capacity(keys.len()), Vec::new());
    for keys in keys.chunks(TEXTS) {
        // An error has no children.
        let mut texts = reply.children(nodes.next().unwrap_or(u32::MAX));
        for (key, name) in keys {
            let text = texts.next().and_then(|node| reply.bytes(node));
            match (text, read::ends(at.from(), key, &reply, &mut nodes)?) {
                (_, Ends::Gone) => tally.count(Fate::Gone, 1),
                (Some(text), Ends::At(expires)) => {
                    going.push(Going { key, name, payload: Payload::Text(text.to_vec()), expires });
                }
                // No text, or MGET is not allowed.
                _ => others.push((*key, *name)),
            }
        }
    }
    if !others.is_empty() {
        going.extend(dumps(at, &others, tally)?);
    }
    Ok(going)
}

fn mget<'k>(keys: &[(&'k [u8], &'k [u8])]) -> Vec<&'k [u8]> {
    [b"MGET".as_slice()].into_iter().chain(keys.iter().map(|(key, _)| *key)).collect()
}

/// Keys as a caller names them: at the source, and at the target.
type Names<'k> = Vec<(&'k [u8], &'k [u8])>;

/// Texts of a database in which no key ends, and the keys that are none. That no key ends is asked in the same transaction, so that it is true
/// of the moment in which they are read. `None`: some key ends, or the server does not let it be asked like this.
fn lasting<'k>(at: At<'_>, keys: &[(&'k [u8], &'k [u8])]) -> Option<(Vec<Going<'k>>, Names<'k>)> {
    if !at.place.may_last(at.db) {
        return None;
    }
    let mut list = List::default();
    list.add(&[b"INFO", b"keyspace"]);
    keys.chunks(TEXTS).for_each(|keys| list.add(&mget(keys)));
    let Ok(reply) = at.place.atomic(at.client, &list) else {
        // Whatever went wrong: the other way, which follows a failover, tells it, and is taken from then on.
        at.place.has_ends(at.db);
        return None;
    };
    let mut nodes = reply.children(0);
    let info =
        String::from_utf8_lossy(nodes.next().and_then(|node| reply.bytes(node)).unwrap_or_default()).into_owned();
    let own = format!("db{}:", at.db);
    if !info.lines().any(|line| line.starts_with(&own) && line.contains(",expires=0,")) {
        at.place.has_ends(at.db);
        return None;
    }
    let (mut going, mut others) = (Vec::with_capacity(keys.len()), Vec::new());
    for keys in keys.chunks(TEXTS) {
        // An error has no children.
        let mut texts = reply.children(nodes.next().unwrap_or(u32::MAX));
        for (key, name) in keys {
            match texts.next().and_then(|node| reply.bytes(node)) {
                Some(text) => going.push(Going { key, name, payload: Payload::Text(text.to_vec()), expires: None }),
                None => others.push((*key, *name)),
            }
        }
    }
    Some((going, others))
}

/// What a server dumps of these keys.
fn dumps<'k>(at: At<'_>, keys: &[(&'k [u8], &'k [u8])], tally: &mut Tally) -> Outcome<Vec<Going<'k>>> {
    let mut list = List::default();
    for (key, _) in keys {
        list.add(&[b"DUMP", key]);
        read::ask_end(at.place, key, &mut list);
    }
    let reply = at.place.ask(at.client, &list)?;
    let mut nodes = reply.children(0);
    let mut going = Vec::with_capacity(keys.len());
    for (key, name) in keys {
        let Some(node) = nodes.next() else { break };
        match (reply.bytes(node), reply.error_line(node), read::ends(at.from(), key, &reply, &mut nodes)?) {
            (_, Some(line), _) => tally.name(Fate::Failed, key, at.db, String::from_utf8_lossy(line)),
            (_, _, Ends::Error(why)) => tally.name(Fate::Failed, key, at.db, why),
            (Some(payload), None, Ends::At(expires)) => {
                going.push(Going { key, name, payload: Payload::Dump(payload.to_vec()), expires });
            }
            _ => tally.count(Fate::Gone, 1),
        }
    }
    Ok(going)
}

fn write_of(one: &Going<'_>, replaces: bool, list: &mut List) {
    // RESTORE takes 0 as no expiry, and SET does not take it.
    let ends = one.expires.map_or(0, |at| at.max(1)).to_string();
    let mut args: Vec<&[u8]> = Vec::with_capacity(6);
    match &one.payload {
        Payload::Text(text) => {
            args.extend([b"SET".as_slice(), one.name, text]);
            if one.expires.is_some() {
                args.extend([b"PXAT".as_slice(), ends.as_bytes()]);
            }
            if !replaces {
                args.push(b"NX");
            }
        }
        Payload::Dump(dump) => {
            args.extend([b"RESTORE".as_slice(), one.name, ends.as_bytes(), dump]);
            if one.expires.is_some() {
                args.push(b"ABSTTL");
            }
            if replaces {
                args.push(b"REPLACE");
            }
        }
    }
    list.add(&args);
}

/// 64 bits of what is kept for each key where tags are not stored.
fn hashed(what: impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(what)
}

/// Whether a server does not take what another version dumps.
fn is_other_version(line: &[u8]) -> bool {
    [&b"ERR DUMP payload version"[..], b"ERR Bad data format"].iter().any(|begin| line.starts_with(begin))
}
