//! Replies as JSON.
//!
//! Guarantees: valid JSON for every reply, without recursion; an error if there is no memory for it. Leaves to others: which reply.

use super::node::Kind;
use super::reply::Body;
use crate::error::{Error, Result};

/// The output, until there is no memory for more.
struct Out {
    bytes: Vec<u8>,
    full: bool,
}

impl Out {
    fn push(&mut self, byte: u8) {
        self.extend_from_slice(&[byte]);
    }

    fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.full = self.full || self.bytes.try_reserve(bytes.len()).is_err();
        if !self.full {
            self.bytes.extend_from_slice(bytes);
        }
    }
}

/// An aggregate that is being written: the remaining ids, and whether they are keys and values.
struct OpenAggregate {
    next: u32,
    end: u32,
    is_map: bool,
    is_value: bool,
}

/// Writes the whole reply, and leaves room for one byte behind it.
pub(super) fn write(reply: &Body) -> Result<Vec<u8>> {
    let mut out = Out { bytes: Vec::new(), full: false };
    let room = reply.data().len() + reply.nodes().len() * 4;
    out.full = out.bytes.try_reserve(room).is_err();
    let mut open: Vec<OpenAggregate> = Vec::new();
    enter(reply, 0, &mut out, &mut open);
    while let Some(level) = open.last_mut().filter(|_| !out.full) {
        if level.next == level.end {
            out.push(if level.is_map { b'}' } else { b']' });
            open.pop();
            if open.last().is_some_and(|parent| parent.next < parent.end) {
                out.push(b',');
            }
            continue;
        }
        let id = level.next;
        level.next += 1;
        if level.is_map && !level.is_value {
            level.is_value = true;
            key(reply, id, &mut out);
            out.push(b':');
            continue;
        }
        level.is_value = false;
        let is_last = level.next == level.end;
        let depth = open.len();
        enter(reply, id, &mut out, &mut open);
        if open.len() == depth && !is_last {
            out.push(b',');
        }
    }
    if out.full || out.bytes.try_reserve(1).is_err() {
        return Err(Error::no_memory(room.max(out.bytes.len()), "JSON"));
    }
    Ok(out.bytes)
}

fn enter(reply: &Body, id: u32, out: &mut Out, open: &mut Vec<OpenAggregate>) {
    let kind = reply.kind(id);
    if kind.is_aggregate() {
        let is_map = kind == Kind::Map;
        out.push(if is_map { b'{' } else { b'[' });
        let children = reply.children(id);
        open.push(OpenAggregate { next: children.start, end: children.end, is_map, is_value: false });
    } else {
        scalar(reply, id, out);
    }
}

fn scalar(reply: &Body, id: u32, out: &mut Out) {
    let text = reply.bytes(id).unwrap_or_default();
    match reply.kind(id) {
        Kind::Int => out.extend_from_slice(reply.int(id).unwrap_or(0).to_string().as_bytes()),
        Kind::Bool => out.extend_from_slice(if reply.int(id) == Some(1) { b"true" } else { b"false" }),
        Kind::Double => double(reply.double(id).unwrap_or(0.0), out),
        Kind::Error => {
            out.extend_from_slice(b"{\"error\":");
            string(text, out);
            out.push(b'}');
        }
        kind if kind.is_text() => string(text, out),
        _ => out.extend_from_slice(b"null"),
    }
}

fn double(value: f64, out: &mut Out) {
    if value.is_finite() {
        out.extend_from_slice(format!("{value:?}").as_bytes());
    } else {
        let text = if value.is_nan() { "nan" } else { ["inf", "-inf"][usize::from(value < 0.0)] };
        string(text.as_bytes(), out);
    }
}

/// JSON knows only strings as keys: a text as it is, any other scalar as its JSON, an aggregate (no server sends one) by kind.
fn key(reply: &Body, id: u32, out: &mut Out) {
    match reply.kind(id) {
        kind if kind.is_text() => string(reply.bytes(id).unwrap_or_default(), out),
        kind if kind.is_aggregate() => string(format!("{kind:?}").as_bytes(), out),
        Kind::Double => {
            let value = reply.double(id).unwrap_or(0.0);
            string(format!("{value:?}").as_bytes(), out);
        }
        _ => {
            out.push(b'"');
            scalar(reply, id, out);
            out.push(b'"');
        }
    }
}

fn string(text: &[u8], out: &mut Out) {
    out.push(b'"');
    for chunk in text.utf8_chunks() {
        let mut bytes = chunk.valid().as_bytes();
        while let [byte, rest @ ..] = bytes {
            let byte = *byte;
            if matches!(byte, 0xc2 | 0xd8 | 0xe2) {
                if let Some(left) = escape_unseen(bytes, out) {
                    bytes = left;
                    continue;
                }
            }
            bytes = rest;
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                0..=0x1f | 0x7f => escape(byte, out),
                _ => out.push(byte),
            }
        }
        chunk.invalid().iter().for_each(|&byte| escape(byte, out));
    }
    out.push(b'"');
}

/// Writes a character that terminals obey or that nobody sees as its number, and returns what is behind it: the upper control characters, the ends of
/// lines and paragraphs, and what turns the direction of writing.
fn escape_unseen<'a>(bytes: &'a [u8], out: &mut Out) -> Option<&'a [u8]> {
    let (code, rest) = match bytes {
        [0xc2, low @ 0x80..=0x9f, rest @ ..] => (u32::from(*low), rest),
        [0xd8, 0x9c, rest @ ..] => (0x61c, rest),
        [0xe2, 0x80, low @ (0x8e | 0x8f | 0xa8..=0xae), rest @ ..] => (0x2000 + u32::from(low & 0x3f), rest),
        [0xe2, 0x81, low @ 0xa6..=0xa9, rest @ ..] => (0x2040 + u32::from(low & 0x3f), rest),
        _ => return None,
    };
    out.extend_from_slice(format!("\\u{code:04x}").as_bytes());
    Some(rest)
}

fn escape(byte: u8, out: &mut Out) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\u00");
    out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}
