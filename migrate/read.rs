//! Reads the values of keys by their types, page by page, so that a large one does not stop its server.
//!
//! Guarantees: the first pages of many keys are asked for in one pipeline; a type that no command can read is told. Leaves to others: what
//! changes while it is read (docs/migrate.md: writes are stopped or fenced).

use std::collections::{BTreeMap, BTreeSet};

use vigie::client::Client;
use vigie::error::Result;
use vigie::resp::{Kind, Reply};

use crate::place::{List, Place};
use crate::value::{Entry, Fields, Group, Pending, Stream, StreamEntry, Value};

/// Elements of one page.
const PAGE: usize = 1000;

/// How often a clock is asked that goes on meanwhile.
const CLOCK_TRIES: u32 = 5;

/// What reading a key came to.
pub enum Read {
    Entry(Entry),
    /// There is no such key, or no longer.
    Gone,
    /// It cannot be read, and why.
    Not(String),
}

/// A source of keys: a server, and a connection or a client to one of its databases.
#[derive(Clone, Copy)]
pub struct From<'a> {
    pub place: &'a Place,
    pub client: &'a Client,
}

/// Reads keys.
pub fn read(from: From<'_>, keys: &[&[u8]]) -> Result<Vec<Read>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut list = List::default();
    for key in keys {
        list.add(&[b"TYPE", key]);
        ask_end(from.place, key, &mut list);
    }
    let reply = from.ask(&list)?;
    let mut nodes = reply.children(0);
    let mut heads = Vec::with_capacity(keys.len());
    let mut pages = List::default();
    for key in keys {
        let kind = nodes.next().and_then(|id| reply.bytes(id)).unwrap_or_default().to_vec();
        let ends = ends(from, key, &reply, &mut nodes)?;
        let first = pages.len;
        first_page(&kind, key, &mut pages);
        heads.push((kind, ends, first));
    }
    let pages = if pages.len == 0 { Reply::null() } else { from.ask(&pages)? };
    let mut all = Vec::with_capacity(keys.len());
    for (key, (kind, ends, first)) in keys.iter().zip(heads) {
        all.push(match ends {
            Ends::Gone => Read::Gone,
            Ends::Error(why) => Read::Not(why),
            Ends::At(expires) => match value(from, key, &kind, &pages, first)? {
                Ok(Some(value)) => Read::Entry(Entry { value, expires }),
                Ok(None) => Read::Gone,
                Err(why) => Read::Not(why),
            },
        });
    }
    Ok(all)
}

impl From<'_> {
    pub fn ask(&self, list: &List) -> Result<Reply> {
        self.place.ask(self.client, list)
    }
}

/// When a key ends.
pub enum Ends {
    /// Unix time in ms.
    At(Option<i64>),
    Gone,
    Error(String),
}

/// Asks when a key ends. A server that tells only what is left of its time is asked for its clock before and after that.
pub fn ask_end(place: &Place, key: &[u8], list: &mut List) {
    match place.is_seven {
        true => list.add(&[b"PEXPIRETIME", key]),
        false => {
            list.add(&[b"TIME"]);
            list.add(&[b"PTTL", key]);
            list.add(&[b"TIME"]);
        }
    }
}

/// The answer to that, of which these are the next nodes.
pub fn ends(from: From<'_>, key: &[u8], reply: &Reply, nodes: &mut dyn Iterator<Item = u32>) -> Result<Ends> {
    let mut next = || nodes.next().unwrap_or(u32::MAX);
    if from.place.is_seven {
        return Ok(end(reply, next(), 0));
    }
    let (before, left, after) = (next(), next(), next());
    let mut found = (end(reply, left, now(reply, before)), now(reply, before) == now(reply, after));
    // The clock went on in between: the end may be off by that, and another second.
    for _ in 0..CLOCK_TRIES {
        if found.1 || !matches!(found.0, Ends::At(Some(_))) {
            break;
        }
        let mut list = List::default();
        ask_end(from.place, key, &mut list);
        let reply = from.ask(&list)?;
        let part = |index| reply.child(0, index).unwrap_or(u32::MAX);
        found = (end(&reply, part(1), now(&reply, part(0))), now(&reply, part(0)) == now(&reply, part(2)));
    }
    Ok(found.0)
}

/// What a server answered to TIME, in ms.
fn now(reply: &Reply, id: u32) -> i64 {
    let part = |index| reply.child(id, index).and_then(|id| reply.int(id)).unwrap_or_default();
    part(0) * 1000 + part(1) / 1000
}

/// An end: of a number that counts from this moment on.
fn end(reply: &Reply, id: u32, from: i64) -> Ends {
    if let Some(line) = reply.error_line(id) {
        return Ends::Error(String::from_utf8_lossy(line).into_owned());
    }
    match reply.int(id) {
        Some(-1) => Ends::At(None),
        Some(-2) | None => Ends::Gone,
        Some(at) => Ends::At(Some(from + at)),
    }
}

/// Asks for the first page of a value.
fn first_page(kind: &[u8], key: &[u8], list: &mut List) {
    let count = PAGE.to_string();
    let count = count.as_bytes();
    match kind {
        b"string" => list.add(&[b"GET", key]),
        b"list" => list.add(&[b"LRANGE", key, b"0", (PAGE - 1).to_string().as_bytes()]),
        b"set" => list.add(&[b"SSCAN", key, b"0", b"COUNT", count]),
        b"hash" => list.add(&[b"HSCAN", key, b"0", b"COUNT", count]),
        b"zset" => list.add(&[b"ZSCAN", key, b"0", b"COUNT", count]),
        b"stream" => list.add(&[b"XRANGE", key, b"-", b"+", b"COUNT", count]),
        _ => {}
    }
}

type Told<T> = Result<std::result::Result<T, String>>;

/// The value of a key, of which the first page is among these. `None`: it is gone.
fn value(from: From<'_>, key: &[u8], kind: &[u8], pages: &Reply, first: usize) -> Told<Option<Value>> {
    let id = u32::try_from(first).ok().and_then(|first| pages.child(0, first)).unwrap_or(u32::MAX);
    let known: [&[u8]; 6] = [b"string", b"list", b"set", b"hash", b"zset", b"stream"];
    if !known.contains(&kind) {
        let text = format!(
            "its type, {}, is that of a module, which goes only by DUMP and RESTORE",
            String::from_utf8_lossy(kind)
        );
        return Ok(if kind == b"none" { Ok(None) } else { Err(text) });
    }
    if let Some(line) = pages.error_line(id) {
        return Ok(Err(String::from_utf8_lossy(line).into_owned()));
    }
    let page = pages.subtree(id);
    let value = match kind {
        b"string" => match page.bytes(0) {
            Some(text) => Value::Text(text.to_vec()),
            None => return Ok(Ok(None)),
        },
        b"list" => Value::List(list(from, key, page)?),
        b"set" => Value::Set(scanned(from, key, b"SSCAN", page)?.into_iter().collect()),
        b"hash" => Value::Fields(fields(from, key, page)?),
        b"zset" => Value::Scores(scores(from, key, page)?),
        _ => match stream(from, key, page)? {
            Ok(stream) => return Ok(Ok(Some(Value::Stream(stream)))),
            Err(why) => return Ok(Err(why)),
        },
    };
    // No type but these has an empty value: it was deleted meanwhile.
    let is_gone = value.len() == 0 && kind != b"string";
    Ok(Ok(Some(value).filter(|_| !is_gone)))
}

fn texts(reply: &Reply, id: u32) -> Vec<Vec<u8>> {
    reply.children(id).map(|child| reply.bytes(child).unwrap_or_default().to_vec()).collect()
}

fn list(from: From<'_>, key: &[u8], page: Reply) -> Result<Vec<Vec<u8>>> {
    let (mut items, mut last) = (texts(&page, 0), page.count(0) as usize);
    while last == PAGE {
        let (start, end) = (items.len().to_string(), (items.len() + PAGE - 1).to_string());
        let page = from.place.command(from.client, &[b"LRANGE", key, start.as_bytes(), end.as_bytes()])?;
        last = page.count(0) as usize;
        items.extend(texts(&page, 0));
    }
    Ok(items)
}

/// All pages of SSCAN, HSCAN or ZSCAN.
fn scanned(from: From<'_>, key: &[u8], command: &[u8], mut page: Reply) -> Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    loop {
        let part = |index| page.child(0, index).unwrap_or(u32::MAX);
        all.extend(texts(&page, part(1)));
        let cursor = page.bytes(part(0)).unwrap_or(b"0").to_vec();
        if cursor == b"0" {
            return Ok(all);
        }
        page = from.place.command(from.client, &[command, key, &cursor, b"COUNT", PAGE.to_string().as_bytes()])?;
    }
}

fn pairs(texts: Vec<Vec<u8>>) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let mut texts = texts.into_iter();
    std::iter::from_fn(move || Some((texts.next()?, texts.next()?)))
}

fn fields(from: From<'_>, key: &[u8], page: Reply) -> Result<Fields> {
    let mut fields: Fields =
        pairs(scanned(from, key, b"HSCAN", page)?).map(|(field, value)| (field, (value, None))).collect();
    if !from.place.has_field_ttls {
        return Ok(fields);
    }
    let names: Vec<Vec<u8>> = fields.keys().cloned().collect();
    for names in names.chunks(PAGE) {
        let count = names.len().to_string();
        let mut args: Vec<&[u8]> = vec![b"HPEXPIRETIME", key, b"FIELDS", count.as_bytes()];
        args.extend(names.iter().map(Vec::as_slice));
        let reply = from.place.command(from.client, &args)?;
        for (name, id) in names.iter().zip(reply.children(0)) {
            match reply.int(id) {
                Some(at) if at > 0 => {
                    fields.entry(name.clone()).and_modify(|(_, expires)| *expires = Some(at)).or_default()
                }
                // -2: it has expired meanwhile.
                Some(-2) => {
                    fields.remove(name);
                    continue;
                }
                _ => continue,
            };
        }
    }
    Ok(fields)
}

fn scores(from: From<'_>, key: &[u8], page: Reply) -> Result<BTreeMap<Vec<u8>, f64>> {
    let score = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
    Ok(pairs(scanned(from, key, b"ZSCAN", page)?).map(|(member, text)| (member, score(&text))).collect())
}

/// The id behind this one is where the next page begins.
fn behind(id: &[u8]) -> Vec<u8> {
    [b"(", id].concat()
}

fn entries(from: From<'_>, key: &[u8], mut page: Reply) -> Result<Vec<StreamEntry>> {
    let mut all: Vec<StreamEntry> = Vec::new();
    loop {
        for id in page.children(0) {
            let part = |index| page.child(id, index).unwrap_or(u32::MAX);
            all.push((page.bytes(part(0)).unwrap_or_default().to_vec(), texts(&page, part(1))));
        }
        let Some((last, _)) = all.last().filter(|_| page.count(0) as usize == PAGE) else { return Ok(all) };
        let start = behind(last);
        page =
            from.place.command(from.client, &[b"XRANGE", key, &start, b"+", b"COUNT", PAGE.to_string().as_bytes()])?;
    }
}

fn stream(from: From<'_>, key: &[u8], page: Reply) -> Told<Stream> {
    let mut list = List::default();
    list.add(&[b"XINFO", b"STREAM", key]);
    list.add(&[b"XINFO", b"GROUPS", key]);
    let reply = from.ask(&list)?;
    let part = |index| reply.child(0, index).unwrap_or(u32::MAX);
    if let Some(line) = reply.error_line(part(0)).or(reply.error_line(part(1))) {
        return Ok(Err(String::from_utf8_lossy(line).into_owned()));
    }
    let (info, groups) = (reply.subtree(part(0)), reply.subtree(part(1)));
    let text = |key: &[u8]| info.find(0, key).and_then(|id| info.bytes(id)).map(<[u8]>::to_vec);
    let mut stream = Stream {
        entries: entries(from, key, page)?,
        last: text(b"last-generated-id").unwrap_or_else(|| b"0-0".to_vec()),
        added: info.find(0, b"entries-added").and_then(|id| info.int(id)),
        max_deleted: text(b"max-deleted-entry-id"),
        groups: Vec::new(),
    };
    for id in groups.children(0) {
        let text = |key: &[u8]| groups.find(id, key).and_then(|id| groups.bytes(id)).unwrap_or_default().to_vec();
        let read = groups.find(id, b"entries-read").and_then(|id| groups.int(id));
        let group = Group { name: text(b"name"), last: text(b"last-delivered-id"), read, ..Group::default() };
        stream.groups.push(members(from, key, group)?);
    }
    stream.groups.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(Ok(stream))
}

/// The consumers of a group, and what is pending.
fn members(from: From<'_>, key: &[u8], mut group: Group) -> Result<Group> {
    let consumers = from.place.command(from.client, &[b"XINFO", b"CONSUMERS", key, &group.name])?;
    let name = |id| consumers.find(id, b"name").and_then(|id| consumers.bytes(id)).unwrap_or_default().to_vec();
    group.consumers = consumers.children(0).map(name).collect::<BTreeSet<_>>();
    let mut start = b"-".to_vec();
    loop {
        let mut list = List::default();
        list.add(&[b"TIME"]);
        list.add(&[b"XPENDING", key, &group.name, &start, b"+", PAGE.to_string().as_bytes()]);
        let reply = from.ask(&list)?;
        let part = |index| reply.child(0, index).unwrap_or(u32::MAX);
        let (now, rows) = (now(&reply, part(0)), part(1));
        for row in reply.children(rows).filter(|row| reply.kind(*row) == Kind::Array) {
            let part = |index| reply.child(row, index).unwrap_or(u32::MAX);
            let text = |index| reply.bytes(part(index)).unwrap_or_default().to_vec();
            let number = |index| reply.int(part(index)).unwrap_or_default();
            group.pending.push(Pending {
                id: text(0),
                consumer: text(1),
                delivered: now - number(2),
                times: number(3),
            });
        }
        match group.pending.last() {
            Some(last) if reply.count(rows) as usize == PAGE => start = behind(&last.id),
            _ => return Ok(group),
        }
    }
}
