//! Writes values by their types: into a key of another name, which then takes the name of the key in one step.
//!
//! Guarantees: a run that is killed leaves no half value under the name of a key; what it leaves under the other name ends by itself after
//! ten minutes; all steps are on one connection, so a failover between them leaves nothing half done that is then renamed. Leaves to
//! others: what to do when the name is taken (work).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use vigie::client::Client;
use vigie::error::Result;

use crate::layout::OWN;
use crate::place::{List, Place};
use crate::value::{Entry, Group, Stream, Value};

/// Elements of one command.
const PORTION: usize = 500;
/// A list is sent when it is as large.
const LARGE: usize = 1 << 20;
/// How long an unfinished value lasts.
const UNFINISHED_MS: &[u8] = b"600000";

/// What writing a key came to.
pub enum Written {
    Yes,
    /// The name is taken.
    Taken,
    /// It expired before it had its name.
    Over,
    Not(String),
}

/// Where keys are written: a connection of its own.
pub struct Into<'a> {
    pub place: &'a Place,
    pub session: &'a Client,
    pub replace: bool,
}

/// Names under which values are made: of their own, and the same when a batch is written again, which removes what the first try has left.
pub fn unfinished_names(entries: &[(&[u8], &Entry)]) -> Vec<Vec<u8>> {
    entries.iter().map(|(name, _)| unfinished(name)).collect()
}

/// Writes entries, each under its name, by way of those.
pub fn write(into: &Into<'_>, entries: &[(&[u8], &Entry)], keys: &[Vec<u8>]) -> Result<Vec<Written>> {
    let mut writer = Writer { into, list: List::default(), of: Vec::new(), now: 0, faults: vec![None; entries.len()] };
    for (at, (key, (_, entry))) in keys.iter().zip(entries).enumerate() {
        writer.now = at;
        writer.build(key, entry)?;
    }
    writer.send()?;
    rename(into, keys, entries, writer.faults)
}

/// Gives the values that are whole their names.
fn rename(
    into: &Into<'_>,
    keys: &[Vec<u8>],
    entries: &[(&[u8], &Entry)],
    faults: Vec<Option<String>>,
) -> Result<Vec<Written>> {
    let command: &[u8] = if into.replace { b"RENAME" } else { b"RENAMENX" };
    let mut list = List::default();
    for ((key, (name, _)), fault) in keys.iter().zip(entries).zip(&faults) {
        if fault.is_none() {
            list.add(&[command, key, name]);
        }
        // What was not renamed is in nobody's way.
        list.add(&[b"UNLINK", key]);
    }
    let reply = into.place.once(into.session, &list)?;
    let mut ids = reply.children(0);
    let mut told = |(fault, expires): (Option<String>, bool)| {
        let id = if fault.is_none() { ids.next().unwrap_or(u32::MAX) } else { u32::MAX };
        ids.next();
        match (fault.or_else(|| reply.error_line(id).map(text)), reply.int(id)) {
            (Some(why), _) if expires && why.contains("no such key") => Written::Over,
            (Some(why), _) => Written::Not(why),
            (None, Some(0)) => Written::Taken,
            (None, _) => Written::Yes,
        }
    };
    let expires = entries.iter().map(|(_, entry)| entry.expires.is_some());
    Ok(faults.into_iter().zip(expires).map(&mut told).collect())
}

/// Numbers the values of this process, so that two threads that write one name do not write one value.
static COUNT: AtomicU64 = AtomicU64::new(0);

fn unfinished(name: &[u8]) -> Vec<u8> {
    let number = format!("{:x}.{:x}:", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    [OWN, b"tmp:", number.as_bytes(), name].concat()
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

/// Commands that were not sent yet.
struct Writer<'a> {
    into: &'a Into<'a>,
    list: List,
    /// For each command of the list the entry that it is for.
    of: Vec<usize>,
    /// The entry that is being written.
    now: usize,
    /// Why an entry could not be written.
    faults: Vec<Option<String>>,
}

impl Writer<'_> {
    fn build(&mut self, key: &[u8], entry: &Entry) -> Result<()> {
        if let Value::Fields(fields) = &entry.value {
            if !self.into.place.has_field_ttls && fields.values().any(|(_, expires)| expires.is_some()) {
                self.faults[self.now] = Some("fields of it expire, which the target does not know".to_owned());
                return Ok(());
            }
        }
        self.add(&[b"UNLINK", key])?;
        self.value(key, &entry.value)?;
        match entry.expires {
            Some(at) => self.add(&[b"PEXPIREAT", key, at.to_string().as_bytes()]),
            None => self.add(&[b"PERSIST", key]),
        }
    }

    fn add(&mut self, args: &[&[u8]]) -> Result<()> {
        self.list.add(args);
        self.of.push(self.now);
        if self.list.bytes() > LARGE { self.send() } else { Ok(()) }
    }

    fn value(&mut self, key: &[u8], value: &Value) -> Result<()> {
        match value {
            Value::Text(text) => self.add(&[b"SET", key, text])?,
            Value::List(items) => self.portions(b"RPUSH", key, &mut items.iter().map(|item| vec![item.as_slice()]))?,
            Value::Set(members) => {
                self.portions(b"SADD", key, &mut members.iter().map(|member| vec![member.as_slice()]))?
            }
            Value::Fields(fields) => {
                self.portions(
                    b"HSET",
                    key,
                    &mut fields.iter().map(|(field, (value, _))| vec![field.as_slice(), value.as_slice()]),
                )?;
                for (field, (_, expires)) in fields {
                    if let Some(at) = expires {
                        self.add(&[b"HPEXPIREAT", key, at.to_string().as_bytes(), b"FIELDS", b"1", field])?;
                    }
                }
            }
            Value::Scores(scores) => {
                let texts: Vec<(String, &[u8])> =
                    scores.iter().map(|(member, score)| (number(*score), member.as_slice())).collect();
                self.portions(b"ZADD", key, &mut texts.iter().map(|(score, member)| vec![score.as_bytes(), *member]))?;
            }
            Value::Stream(stream) => self.stream(key, stream)?,
        }
        self.add(&[b"PEXPIRE", key, UNFINISHED_MS])
    }

    /// Adds elements, some in each command.
    fn portions(&mut self, command: &[u8], key: &[u8], elements: &mut dyn Iterator<Item = Vec<&[u8]>>) -> Result<()> {
        let mut begun = false;
        loop {
            let (mut args, mut bytes) = (vec![command, key], 0);
            for element in &mut *elements {
                bytes += element.iter().map(|part| part.len()).sum::<usize>();
                args.extend(element);
                if args.len() > PORTION || bytes > LARGE {
                    break;
                }
            }
            if args.len() == 2 {
                return Ok(());
            }
            self.add(&args)?;
            if !std::mem::replace(&mut begun, true) {
                self.add(&[b"PEXPIRE", key, UNFINISHED_MS])?;
            }
        }
    }

    fn stream(&mut self, key: &[u8], stream: &Stream) -> Result<()> {
        // An entry that is pending and was deleted is added for as long as it takes to make it pending.
        let mut entries: BTreeMap<(u64, u64), Option<&Vec<Vec<u8>>>> =
            stream.entries.iter().map(|(id, fields)| (parsed(id), Some(fields))).collect();
        for pending in stream.groups.iter().flat_map(|group| &group.pending) {
            entries.entry(parsed(&pending.id)).or_default();
        }
        // So that a stream without entries exists.
        if entries.is_empty() {
            self.add(&[b"XGROUP", b"CREATE", key, OWN, b"0", b"MKSTREAM"])?;
            self.add(&[b"PEXPIRE", key, UNFINISHED_MS])?;
            self.add(&[b"XGROUP", b"DESTROY", key, OWN])?;
        }
        let mut begun = false;
        for (id, fields) in &entries {
            let id = format!("{}-{}", id.0, id.1);
            let mut args: Vec<&[u8]> = vec![b"XADD", key, id.as_bytes()];
            match fields {
                Some(fields) => args.extend(fields.iter().map(Vec::as_slice)),
                None => args.extend([b"deleted".as_slice(), b""]),
            }
            self.add(&args)?;
            if !std::mem::replace(&mut begun, true) {
                self.add(&[b"PEXPIRE", key, UNFINISHED_MS])?;
            }
        }
        for group in &stream.groups {
            self.group(key, group)?;
        }
        for (id, _) in entries.iter().filter(|(_, fields)| fields.is_none()) {
            self.add(&[b"XDEL", key, format!("{}-{}", id.0, id.1).as_bytes()])?;
        }
        let added = stream.added.map(|added| added.to_string());
        match (&added, &stream.max_deleted) {
            (Some(added), Some(deleted)) if self.into.place.is_seven => {
                self.add(&[b"XSETID", key, &stream.last, b"ENTRIESADDED", added.as_bytes(), b"MAXDELETEDID", deleted])
            }
            _ => self.add(&[b"XSETID", key, &stream.last]),
        }
    }

    fn group(&mut self, key: &[u8], group: &Group) -> Result<()> {
        let mut args: Vec<&[u8]> = vec![b"XGROUP", b"CREATE", key, &group.name, &group.last];
        let read = group.read.map(|read| read.to_string());
        if let (Some(read), true) = (&read, self.into.place.is_seven) {
            args.extend([b"ENTRIESREAD".as_slice(), read.as_bytes()]);
        }
        self.add(&args)?;
        for consumer in &group.consumers {
            self.add(&[b"XGROUP", b"CREATECONSUMER", key, &group.name, consumer])?;
        }
        for pending in &group.pending {
            let (delivered, times) = (pending.delivered.to_string(), pending.times.to_string());
            let args: [&[u8]; 12] = [
                b"XCLAIM",
                key,
                &group.name,
                &pending.consumer,
                b"0",
                &pending.id,
                b"TIME",
                delivered.as_bytes(),
                b"RETRYCOUNT",
                times.as_bytes(),
                b"FORCE",
                b"JUSTID",
            ];
            self.add(&args)?;
        }
        Ok(())
    }

    /// Sends what there is, and notes what was refused.
    fn send(&mut self) -> Result<()> {
        if self.list.len == 0 {
            return Ok(());
        }
        let (list, of) = (std::mem::take(&mut self.list), std::mem::take(&mut self.of));
        let reply = self.into.place.once(self.into.session, &list)?;
        for (id, entry) in reply.children(0).zip(of) {
            if let Some(line) = reply.error_line(id) {
                self.faults[entry].get_or_insert_with(|| text(line));
            }
        }
        Ok(())
    }
}

/// The shortest text that is this number again.
fn number(score: f64) -> String {
    match score {
        score if score == f64::INFINITY => "inf".to_owned(),
        score if score == f64::NEG_INFINITY => "-inf".to_owned(),
        score => format!("{score}"),
    }
}

/// The two numbers of an id.
fn parsed(id: &[u8]) -> (u64, u64) {
    let text = String::from_utf8_lossy(id);
    let (ms, sequence) = text.split_once('-').unwrap_or((&text, "0"));
    (ms.parse().unwrap_or_default(), sequence.parse().unwrap_or_default())
}
