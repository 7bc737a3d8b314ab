//! The decoder: takes bytes as they come from a connection, and gives units of replies as they are completed.
//!
//! Guarantees: the result does not depend on how the input is cut; every byte is looked at once; no recursion; a limit is checked
//! when a length is announced. The missing part of a large text may be received straight into the reply ([`Decoder::receive`]).
//! Leaves to others: receiving itself, and what a unit belongs to.

use std::io;

use super::head::{self, Head};
use super::node::{Kind, Node};
use super::reply::Reply;
use super::tree::Tree;
use super::{DecodeError, Limits};

/// Texts longer than this may be received straight into the reply.
const LARGE: usize = 64 * 1024;
/// If less than this is missing it is received together with what follows.
const LITTLE: usize = 16 * 1024;
/// The most that is received at once. The receiver checks its clock between two pieces.
const PIECE: usize = 1 << 20;

/// What the next unit consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// One reply.
    One,
    /// This many replies, as the children of one ARRAY.
    List(u32),
    /// As `List`, for a unit that begins with MULTI: its receiver looks at how the transaction ended.
    Transaction(u32),
    /// This many replies, which are skipped.
    Skip(u32),
}

/// What was completed.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// The unit.
    Reply(Reply),
    /// The unit, which was skipped.
    Skipped,
    /// An out-of-band message; the unit goes on.
    Push(Reply),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameRole {
    /// Its children are kept.
    Kept,
    /// They are not.
    Dropped,
    /// They are not, and the value that they belong to follows.
    Attribute,
}

/// An aggregate that is not complete.
#[derive(Debug)]
struct Frame {
    left: u64,
    count: u64,
    role: FrameRole,
}

impl Frame {
    /// How many texts it is likely to have, if they are as long as the first one.
    fn likely(&self) -> usize {
        usize::try_from(self.count).unwrap_or(1)
    }
}

/// A text that is not complete; `left` counts the CRLF as well.
#[derive(Debug)]
struct Text {
    kind: Kind,
    start: usize,
    len: usize,
    left: usize,
}

/// A unit that is not complete.
#[derive(Debug, Default)]
struct OpenUnit {
    tree: Tree,
    frames: Vec<Frame>,
    /// 1 when the outermost frame is the unit itself and not a reply.
    base: usize,
    /// Open frames whose children are not kept.
    dropping: usize,
    /// Nodes announced so far.
    nodes: u64,
    is_touched: bool,
    is_skip: bool,
}

enum Progress {
    More,
    Goes(usize),
    Ends(usize),
    /// The unit is complete, and nothing of it was put into the tree.
    Whole(usize, Reply),
}

/// Turns received bytes into replies.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    unit: OpenUnit,
    /// The unit that an out-of-band message interrupts.
    outer: Option<Box<OpenUnit>>,
    /// The beginning of a header line, when the input ended within it.
    line: Vec<u8>,
    text: Option<Text>,
    is_begun: bool,
    is_push: bool,
    dead: Option<DecodeError>,
}

impl Decoder {
    /// A decoder for a new connection.
    pub fn new(limits: Limits) -> Self {
        let max_nodes = limits.max_nodes.min(u32::MAX as usize - 1);
        Self {
            limits: Limits { max_nodes, ..limits },
            unit: OpenUnit::default(),
            outer: None,
            line: Vec::new(),
            text: None,
            is_begun: false,
            is_push: false,
            dead: None,
        }
    }

    /// Whether it is between units.
    pub fn is_idle(&self) -> bool {
        !self.is_begun && self.dead.is_none()
    }

    /// Frees what is kept for the next unit, if none is under way.
    pub fn relax(&mut self) {
        if self.is_idle() {
            self.unit = OpenUnit::default();
            self.line = Vec::new();
        }
    }

    /// Takes received bytes. Returns how many of them were used, and what they completed.
    ///
    /// If nothing was completed all were used. `want` counts when a unit begins. After an error the decoder is dead.
    pub fn decode(&mut self, input: &[u8], want: Want) -> Result<(usize, Option<Decoded>), DecodeError> {
        if let Some(error) = &self.dead {
            return Err(error.clone());
        }
        let result = self.run(input, want);
        if let Err(error) = &result {
            self.dead = Some(error.clone());
        }
        result
    }

    /// Lets `receive` append to a large text that has begun: it is given the data block and how much it may append, all of which is
    /// reserved. `None`: no such text is open, or it is skipped. [`Decoder::decode`] returns what was completed, and needs no input
    /// for that.
    pub fn receive(
        &mut self,
        receive: impl FnOnce(&mut Vec<u8>, usize) -> io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        let text = self.text.as_mut().filter(|text| text.len > LARGE && text.left >= LITTLE)?;
        if self.unit.dropping > 0 || self.dead.is_some() {
            return None;
        }
        let data = &mut self.unit.tree.data;
        let before = data.len();
        // When the reserved part is full it grows with what was received, not with what was announced.
        let step = if data.capacity() > before { 0 } else { text.left.min((before - text.start).max(PIECE)) };
        if data.try_reserve_exact(step).is_err() {
            self.dead = Some(no_memory(text.len as u64, "bytes"));
            return None;
        }
        let most = text.left.min(data.capacity() - before).min(PIECE);
        let received = receive(data, most);
        data.truncate(before + most);
        let got = data.len() - before;
        let body = got.min(text.left - 2);
        text.left -= got;
        if let Err(error) = line_end(&data[before + body..], text.left) {
            self.dead = Some(error);
        }
        data.truncate(before + body);
        Some(received.map(|_| got))
    }

    /// Completes a list after the end of the connection. If the server's last line said that it understands nothing from there on,
    /// it has not run the rest, and each of the missing replies is that line.
    pub fn refuse_rest(&mut self) -> Option<Reply> {
        let in_list = self.is_begun && !self.is_push && self.line.is_empty() && self.text.is_none();
        let unit = &mut self.unit;
        let [Frame { left, role: FrameRole::Kept, .. }] = unit.frames[..] else { return None };
        let last = unit.tree.last_child().filter(|last| last.kind() == Kind::Error)?;
        let (start, len) = (last.value as usize, last.len as usize);
        let line = unit.tree.data.get(start..start + len)?;
        if !in_list || unit.base == 0 || !line.starts_with(b"ERR Protocol error") {
            return None;
        }
        // They share one text.
        (0..left).for_each(|_| unit.tree.add(last));
        if unit.tree.is_starved() {
            return None;
        }
        self.is_begun = false;
        Some(self.unit.tree.finish())
    }

    fn run(&mut self, input: &[u8], want: Want) -> Result<(usize, Option<Decoded>), DecodeError> {
        if !self.is_begun {
            if let Want::List(0) | Want::Skip(0) = want {
                let unit = if want == Want::Skip(0) { Decoded::Skipped } else { Decoded::Reply(empty_list()) };
                return Ok((0, Some(unit)));
            }
            if input.is_empty() {
                return Ok((0, None));
            }
            if want == Want::One {
                if let Some((used, reply)) = whole_string(input, self.limits.max_bytes) {
                    return Ok((used, Some(Decoded::Reply(reply))));
                }
                if let Some((used, list)) = whole_list(input, &self.limits) {
                    return Ok((used, Some(list)));
                }
            }
            self.begin(want)?;
        }
        let mut at = 0;
        loop {
            let rest = &input[at..];
            let step = if self.text.is_some() {
                self.text(rest)?
            } else if self.line.is_empty() {
                self.head(rest)?
            } else {
                self.rest_of_head(rest)?
            };
            match step {
                Progress::More => return Ok((input.len(), None)),
                Progress::Goes(used) => at += used,
                Progress::Ends(_) if self.unit.tree.is_starved() => return Err(no_memory(self.unit.nodes, "nodes")),
                Progress::Ends(used) => return Ok((at + used, Some(self.end()))),
                Progress::Whole(used, reply) => {
                    self.is_begun = false;
                    return Ok((at + used, Some(Decoded::Reply(reply))));
                }
            }
        }
    }

    fn begin(&mut self, want: Want) -> Result<(), DecodeError> {
        let unit = &mut self.unit;
        unit.frames.clear();
        (unit.base, unit.dropping, unit.nodes) = (1, 0, 1);
        (unit.is_touched, unit.is_skip) = (false, false);
        self.is_begun = true;
        match want {
            Want::One => unit.base = 0,
            Want::List(count) | Want::Transaction(count) => self.open(Kind::Array, u64::from(count))?,
            Want::Skip(count) => {
                unit.is_skip = true;
                unit.drop_next(u64::from(count), FrameRole::Dropped);
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Decoded {
        if !self.is_push {
            self.is_begun = false;
            return if self.unit.is_skip { Decoded::Skipped } else { Decoded::Reply(self.unit.tree.finish()) };
        }
        self.is_push = false;
        let reply = self.unit.tree.finish();
        match self.outer.take() {
            Some(unit) => self.unit = *unit,
            None => self.is_begun = false,
        }
        Decoded::Push(reply)
    }

    /// Reads a header line at the start of the input; an incomplete one is kept.
    #[inline]
    fn head(&mut self, rest: &[u8]) -> Result<Progress, DecodeError> {
        if rest.is_empty() {
            return Ok(Progress::More);
        }
        if let Some(step) = self.run_of_values(rest) {
            return Ok(step);
        }
        let Some((head, used)) = head::parse(rest)? else {
            self.line.extend_from_slice(rest);
            return Ok(Progress::More);
        };
        if self.unit.frames.is_empty() {
            if let Some(reply) = alone(&head, self.limits.max_bytes) {
                return Ok(Progress::Whole(used, reply));
            }
        }
        Ok(if self.apply(head)? { Progress::Ends(used) } else { Progress::Goes(used) })
    }

    /// Reads children of an aggregate that are wholly in the input, one after the other.
    ///
    /// Anything unusual is left to the general path.
    #[inline]
    fn run_of_values(&mut self, rest: &[u8]) -> Option<Progress> {
        let unit = &mut self.unit;
        let frame = unit.frames.last_mut().filter(|frame| frame.role == FrameRole::Kept)?;
        if frame.left == frame.count {
            let first = head::whole_text(rest).filter(|(text, _)| text.len() <= self.limits.max_bytes);
            if let Some((text, _)) = first {
                // Without the room the run ends at once, and the general path reports why.
                unit.tree.reserve_text(text.len() - 1, frame.likely());
            }
        }
        let (count, used) = unit.tree.add_run(rest, frame.left, self.limits.max_bytes);
        if count == 0 {
            return None;
        }
        unit.is_touched = true;
        frame.left -= count;
        let ends = frame.left == 0 && unit.complete();
        Some(if ends { Progress::Ends(used) } else { Progress::Goes(used) })
    }

    /// A header line whose beginning came earlier.
    fn rest_of_head(&mut self, rest: &[u8]) -> Result<Progress, DecodeError> {
        let is_long = self.line.first().is_some_and(|&first| head::is_long(first));
        let most = if is_long { head::LONG } else { head::SHORT }.saturating_sub(self.line.len());
        let window = &rest[..rest.len().min(most)];
        let end = memchr::memchr(b'\n', window);
        let used = end.map_or(window.len(), |end| end + 1);
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(&window[..used]);
        // A long line is searched again only when it is whole, or too long: otherwise many small pieces would cost quadratic time.
        let parsed = if is_long && end.is_none() && line.len() < head::LONG { Ok(None) } else { head::parse(&line) };
        let step = match parsed? {
            Some((head, _)) => Ok(if self.apply(head)? { Progress::Ends(used) } else { Progress::Goes(used) }),
            None => {
                self.line = line;
                return Ok(Progress::More);
            }
        };
        line.clear();
        line.shrink_to(256);
        self.line = line;
        step
    }

    /// Acts on a header line. True: the unit is complete.
    #[inline]
    fn apply(&mut self, head: Head<'_>) -> Result<bool, DecodeError> {
        match head {
            Head::Text(kind, len) => {
                self.open_text(kind, len)?;
                Ok(false)
            }
            Head::Value(node) => Ok(self.unit.done(node)),
            Head::Line(kind, line) => {
                let node = if self.unit.dropping == 0 {
                    self.check_bytes(line.len())?;
                    self.unit.tree.text(kind, line)
                } else {
                    Node::NULL
                };
                Ok(self.unit.done(node))
            }
            Head::Aggregate(kind, count) => {
                if kind == Kind::Push {
                    self.begin_push()?;
                }
                self.aggregate(kind, count)
            }
            Head::Attribute(count) => {
                self.check_depth()?;
                // Nothing of it is kept, but without a bound a unit might never end.
                self.count_nodes(count.max(1))?;
                if count > 0 {
                    self.unit.drop_next(count, FrameRole::Attribute);
                }
                Ok(false)
            }
        }
    }

    /// An out-of-band message may come only where a reply of the unit may begin.
    fn begin_push(&mut self) -> Result<(), DecodeError> {
        if self.is_push || self.unit.frames.len() > self.unit.base {
            return Err(DecodeError::Protocol("a push message within a reply".to_owned()));
        }
        self.is_push = true;
        if self.unit.is_touched {
            self.outer = Some(Box::new(std::mem::take(&mut self.unit)));
        }
        // A unit of which nothing has come is begun again after the message.
        self.unit.tree.clear();
        self.begin(Want::One)
    }

    fn aggregate(&mut self, kind: Kind, count: u64) -> Result<bool, DecodeError> {
        self.check_depth()?;
        if count == 0 {
            return Ok(self.unit.done(Node::aggregate(kind, 0, 0)));
        }
        if self.unit.dropping > 0 {
            if !self.unit.is_skip {
                self.count_nodes(count)?;
            }
            self.unit.drop_next(count, FrameRole::Dropped);
        } else {
            self.open(kind, count)?;
        }
        Ok(false)
    }

    fn count_nodes(&mut self, count: u64) -> Result<(), DecodeError> {
        self.unit.nodes = self.unit.nodes.saturating_add(count);
        if self.unit.nodes > self.limits.max_nodes as u64 {
            let (nodes, limit) = (self.unit.nodes, self.limits.max_nodes);
            return Err(DecodeError::Limit(format!("a reply has {nodes} nodes or more, the limit is {limit}")));
        }
        Ok(())
    }

    fn open(&mut self, kind: Kind, count: u64) -> Result<(), DecodeError> {
        self.count_nodes(count)?;
        let unit = &mut self.unit;
        if !unit.tree.open(kind, count as usize) {
            return Err(no_memory(count, "nodes"));
        }
        unit.frames.push(Frame { left: count, count, role: FrameRole::Kept });
        Ok(())
    }

    fn check_depth(&self) -> Result<(), DecodeError> {
        if self.unit.frames.len() - self.unit.base < self.limits.max_depth {
            return Ok(());
        }
        Err(DecodeError::Limit(format!("a reply is nested deeper than {} levels", self.limits.max_depth)))
    }

    #[inline]
    fn check_bytes(&self, len: usize) -> Result<(), DecodeError> {
        let total = self.unit.tree.data.len().saturating_add(len).saturating_add(1);
        if total <= self.limits.max_bytes {
            return Ok(());
        }
        Err(DecodeError::Limit(format!("a reply has {total} bytes or more, the limit is {}", self.limits.max_bytes)))
    }

    #[inline]
    fn open_text(&mut self, kind: Kind, len: usize) -> Result<(), DecodeError> {
        if self.unit.dropping == 0 {
            self.check_bytes(len)?;
            let count = match self.unit.frames.last() {
                Some(frame) if frame.left == frame.count => frame.likely(),
                _ => 1,
            };
            // A text that is received straight into the block comes with its line end.
            let room = if len > LARGE { len.saturating_add(1) } else { len };
            if !self.unit.tree.reserve_text(room, count) {
                return Err(no_memory(len as u64, "bytes"));
            }
        }
        self.text = Some(Text { kind, start: self.unit.tree.data.len(), len, left: len + 2 });
        Ok(())
    }

    /// The bytes of a text and the CRLF behind it.
    #[inline]
    fn text(&mut self, rest: &[u8]) -> Result<Progress, DecodeError> {
        let Some(text) = &mut self.text else { return Ok(Progress::Goes(0)) };
        let used = text.left.min(rest.len());
        let body = text.left.saturating_sub(2).min(used);
        if self.unit.dropping == 0 {
            self.unit.tree.data.extend_from_slice(&rest[..body]);
        }
        text.left -= used;
        line_end(&rest[body..used], text.left)?;
        if text.left > 0 {
            return Ok(Progress::More);
        }
        let Some(text) = self.text.take() else { return Ok(Progress::Goes(used)) };
        let node = if self.unit.dropping == 0 { self.close_text(&text)? } else { Node::NULL };
        Ok(if self.unit.done(node) { Progress::Ends(used) } else { Progress::Goes(used) })
    }

    #[inline]
    fn close_text(&mut self, text: &Text) -> Result<Node, DecodeError> {
        let data = &mut self.unit.tree.data;
        data.push(0);
        if text.kind != Kind::Verbatim {
            return Ok(Node::text(text.kind, text.start, text.len));
        }
        // "txt:" stays in the data block, but no node refers to it.
        match data.get(text.start..text.start + 4) {
            Some([_, _, _, b':']) if text.len >= 4 => Ok(Node::text(text.kind, text.start + 4, text.len - 4)),
            _ => Err(head::protocol("a verbatim text without a format", &[])),
        }
    }
}

impl OpenUnit {
    fn drop_next(&mut self, count: u64, role: FrameRole) {
        self.frames.push(Frame { left: count, count, role });
        self.dropping += 1;
    }

    /// Follows a complete value, which may complete what it is the last part of. True: the unit is complete.
    #[inline]
    fn done(&mut self, node: Node) -> bool {
        self.is_touched = true;
        if self.dropping == 0 {
            self.tree.add(node);
        }
        let Some(frame) = self.frames.last_mut() else { return true };
        frame.left -= 1;
        frame.left == 0 && self.complete()
    }

    /// Follows a complete aggregate, which may complete what it is the last part of. True: the unit is complete.
    fn complete(&mut self) -> bool {
        self.is_touched = true;
        while let Some(Frame { role, .. }) = self.frames.pop() {
            if role == FrameRole::Kept {
                self.tree.close();
            } else {
                self.dropping -= 1;
            }
            if role == FrameRole::Attribute {
                return false;
            }
            let Some(parent) = self.frames.last_mut() else { break };
            parent.left -= 1;
            if parent.left > 0 {
                return false;
            }
        }
        true
    }
}

/// A reply that is a single bulk string, wholly in the input, needs no state. Anything else is left to the general path.
#[inline]
fn whole_string(input: &[u8], max_bytes: usize) -> Option<(usize, Reply)> {
    let (text, used) = head::whole_text(input)?;
    if text.len() <= max_bytes { Some((used, Reply::string(text)?)) } else { None }
}

/// The most children of a list that needs no state.
const FEW: usize = 4;

/// A list of a few texts, wholly in the input, needs no state either: so come the messages of a subscription. Anything else is left to the
/// general path, limits that are near included.
#[inline]
fn whole_list(input: &[u8], limits: &Limits) -> Option<(usize, Decoded)> {
    let &[first @ (b'*' | b'>'), digit @ b'2'..=b'4', b'\r', b'\n', ..] = input else { return None };
    let (mut texts, mut at, mut len): ([&[u8]; FEW], _, _) = ([&[]; FEW], 4, 0);
    let texts = &mut texts[..usize::from(digit - b'0')];
    for one in &mut *texts {
        let (text, used) = head::whole_text(&input[at..])?;
        *one = text;
        (at, len) = (at + used, len + text.len());
    }
    if len > limits.max_bytes || limits.max_depth == 0 || limits.max_nodes < 2 + texts.len() {
        return None;
    }
    Some(match first {
        b'>' => (at, Decoded::Push(Reply::texts(Kind::Push, texts)?)),
        _ => (at, Decoded::Reply(Reply::texts(Kind::Array, texts)?)),
    })
}

/// A reply that is a single line needs no tree.
#[inline]
fn alone(head: &Head<'_>, max_bytes: usize) -> Option<Reply> {
    match *head {
        Head::Value(node) => Reply::small(node, &[]),
        Head::Line(kind, line) if line.len() < max_bytes => Reply::line(kind, line),
        _ => None,
    }
}

/// Checks the part of a text's line end that has come; `left` bytes are still to come.
#[inline]
fn line_end(end: &[u8], left: usize) -> Result<(), DecodeError> {
    if b"\r\n"[..2 - left.min(2)].ends_with(end) {
        return Ok(());
    }
    Err(head::protocol("a text is not followed by a line end", &[]))
}

fn empty_list() -> Reply {
    Reply::small(Node::aggregate(Kind::Array, 0, 0), &[]).unwrap_or_else(Reply::null)
}

#[cold]
fn no_memory(count: u64, what: &str) -> DecodeError {
    DecodeError::NoMemory(format!("no memory for a reply of {count} {what}"))
}
