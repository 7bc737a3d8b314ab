//! Builds a node table: the children of a node end up contiguous, the root at 0.
//!
//! Guarantees: a flat reply is written once, in place; memory follows what was added; small replies reuse the same scratch.
//! Leaves to others: limits and counts (`decode`), what is added (`decode`, `build`).

use super::head;
use super::node::{Kind, Node};
use super::reply::Reply;

/// The most nodes that are reserved before any of them was received.
const RESERVE_NODES: usize = 65_536;
/// The most bytes of text that are reserved before they were received.
const RESERVE_BYTES: usize = 64 << 20;
/// Below this many bytes a buffer is copied into the reply and kept for the next one.
const SCRATCH: usize = 4096;

/// Texts up to this length are copied as a block of this size.
const BLOCK: usize = 64;

/// An aggregate that is not complete.
///
/// Children go to the tail of `nodes` until one of them is an aggregate itself; then they move to `pending`, and all of them
/// together to the tail when the last one is complete.
#[derive(Debug)]
struct Level {
    kind: Kind,
    in_place: bool,
    start: usize,
}

/// The table, and the aggregates that are open.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    pending: Vec<Node>,
    pub(super) data: Vec<u8>,
    open: Vec<Level>,
    /// There was no memory for a node: what is added from then on is dropped.
    starved: bool,
}

impl Tree {
    /// Opens an aggregate that will have about `count` children. False when there is no memory for them.
    pub(super) fn open(&mut self, kind: Kind, count: usize) -> bool {
        match self.open.last_mut() {
            None => self.nodes.clear(),
            Some(parent) if parent.in_place => {
                let start = self.pending.len();
                if self.pending.try_reserve(self.nodes.len() - parent.start).is_err() {
                    return false;
                }
                self.pending.extend_from_slice(&self.nodes[parent.start..]);
                self.nodes.truncate(parent.start);
                (parent.start, parent.in_place) = (start, false);
            }
            Some(_) => {}
        }
        let room = count.min(RESERVE_NODES) + usize::from(self.open.is_empty());
        if self.nodes.try_reserve(room).is_err() {
            return false;
        }
        if self.open.is_empty() {
            self.nodes.push(Node::NULL);
        }
        self.open.push(Level { kind, in_place: true, start: self.nodes.len() });
        true
    }

    /// Makes room for one more value, an aggregate or a text of this length, and for closing it. False: there is no memory.
    pub(super) fn make_room(&mut self, text: usize) -> bool {
        self.nodes.try_reserve(self.pending.len() + 3).is_ok()
            && self.pending.try_reserve(self.nodes.len() + 3).is_ok()
            && self.open.try_reserve(1).is_ok()
            && self.data.try_reserve(text + 1).is_ok()
    }

    /// Adds a complete value to the innermost open aggregate, or makes it the root.
    #[inline]
    pub(super) fn add(&mut self, node: Node) {
        let list = match self.open.last() {
            Some(level) if level.in_place => &mut self.nodes,
            Some(_) => &mut self.pending,
            None => {
                self.nodes.clear();
                &mut self.nodes
            }
        };
        if has_room(list) { list.push(node) } else { self.starved = true }
    }

    /// Whether there was no memory for a part of what was added.
    pub(super) fn is_starved(&self) -> bool {
        self.starved
    }

    /// Adds texts and whole numbers that are wholly in the input. Returns how many, and the bytes they took.
    ///
    /// Anything else ends the run, and so does a text for which no room is reserved or allowed.
    #[inline]
    pub(super) fn add_run(&mut self, input: &[u8], most: u64, max_bytes: usize) -> (u64, usize) {
        let list = match self.open.last() {
            Some(level) if level.in_place => &mut self.nodes,
            _ => &mut self.pending,
        };
        let data = &mut self.data;
        let room = data.capacity().min(max_bytes);
        let (mut count, mut rest) = (0, input);
        while count < most {
            if !has_room(list) {
                self.starved = true;
                break;
            }
            let (node, used) = match rest.first() {
                Some(b'$') => {
                    let Some((text, used)) = head::whole_text(rest) else { break };
                    if room.saturating_sub(data.len()) < text.len() {
                        break;
                    }
                    let node = Node::text(Kind::String, data.len(), text.len() - 1);
                    append(data, &rest[used - text.len() - 1..], text.len() - 1);
                    (node, used)
                }
                Some(b':') => {
                    let Some(number) = head::whole_int(rest) else { break };
                    number
                }
                _ => break,
            };
            list.push(node);
            rest = &rest[used..];
            count += 1;
        }
        (count, input.len() - rest.len())
    }

    /// Completes the innermost open aggregate.
    pub(super) fn close(&mut self) {
        let Some(level) = self.open.pop() else { return };
        let (first, count) = if level.in_place {
            (level.start, self.nodes.len() - level.start)
        } else {
            let first = self.nodes.len();
            let children = self.pending.get(level.start..).unwrap_or_default();
            if self.nodes.try_reserve(children.len()).is_ok() {
                self.nodes.extend_from_slice(children);
            } else {
                self.starved = true;
            }
            self.pending.truncate(level.start);
            (first, self.nodes.len() - first)
        };
        let node = Node::aggregate(level.kind, first, u32::try_from(count).unwrap_or(u32::MAX));
        if self.open.is_empty() {
            self.nodes[0] = node;
        } else {
            self.add(node);
        }
    }

    /// How many aggregates are open.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// The children that the innermost open aggregate has so far.
    pub(super) fn children(&self) -> usize {
        self.open.last().map_or(0, |level| {
            let list = if level.in_place { &self.nodes } else { &self.pending };
            list.len() - level.start
        })
    }

    /// The last of them.
    pub(super) fn last_child(&self) -> Option<Node> {
        let level = self.open.last()?;
        let list = if level.in_place { &self.nodes } else { &self.pending };
        list.get(level.start..)?.last().copied()
    }

    /// Copies a text and makes its node.
    pub(super) fn text(&mut self, kind: Kind, bytes: &[u8]) -> Node {
        let start = self.data.len();
        self.data.extend_from_slice(bytes);
        self.data.push(0);
        Node::text(kind, start, bytes.len())
    }

    /// Makes room for `count` texts of `len` bytes, up to a limit. False: there is no memory.
    pub(super) fn reserve_text(&mut self, len: usize, count: usize) -> bool {
        let exact = len.saturating_add(1).saturating_mul(count);
        // The others may be a little longer. Memory that is not touched costs nothing, and the larger size keeps glibc from
        // returning a list to the kernel and faulting it in again with each reply.
        let slack = if count > 1 { exact / 4 } else { 0 };
        let room = exact.saturating_add(slack).min(RESERVE_BYTES);
        if self.data.capacity() - self.data.len() >= room {
            return true;
        }
        let reserved = if count == 1 && self.data.is_empty() {
            self.data.try_reserve_exact(room)
        } else {
            self.data.try_reserve(room)
        };
        reserved.is_ok()
    }

    /// The finished reply; the tree is empty afterwards.
    pub(super) fn finish(&mut self) -> Reply {
        while !self.open.is_empty() {
            self.close();
        }
        let reply = match self.nodes.as_slice() {
            [] => Reply::small(Node::NULL, &[]).unwrap_or_else(Reply::null),
            [root] => {
                let root = *root;
                Reply::small(root, &self.data).unwrap_or_else(|| Reply::scalar(root, hand_over(&mut self.data)))
            }
            _ if Reply::is_short(self.data.len()) => Reply::short(hand_over(&mut self.nodes), &[&self.data]),
            _ => Reply::tree(hand_over(&mut self.nodes), hand_over(&mut self.data)),
        };
        self.clear();
        reply
    }

    /// Drops what was added; the scratch stays.
    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.nodes.clear();
        self.data.clear();
        self.pending.clear();
        if self.pending.capacity() > SCRATCH {
            self.pending = Vec::new();
        }
        self.starved = false;
    }
}

/// Makes room for one more node. False when there is no memory.
#[inline]
fn has_room(list: &mut Vec<Node>) -> bool {
    list.len() < list.capacity() || list.try_reserve(1).is_ok()
}

/// Appends the text that `from` begins with, and a NUL.
#[inline]
fn append(data: &mut Vec<u8>, from: &[u8], len: usize) {
    let end = data.len() + len;
    match from.first_chunk::<BLOCK>() {
        // A block of a fixed size is copied without a call; the excess is cut off.
        Some(block) if len <= BLOCK && data.capacity() - data.len() >= BLOCK => data.extend_from_slice(block),
        _ => data.extend_from_slice(&from[..len]),
    }
    data.truncate(end);
    data.push(0);
}

/// A small buffer is copied exactly, so that it can be used again; a large one is given away, so that nothing is copied.
fn hand_over<T: Clone>(buffer: &mut Vec<T>) -> Vec<T> {
    if buffer.len() * size_of::<T>() > SCRATCH || buffer.capacity() * size_of::<T>() > 2 * SCRATCH {
        std::mem::take(buffer)
    } else {
        buffer.clone()
    }
}
