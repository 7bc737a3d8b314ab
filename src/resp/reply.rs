//! A reply: an immutable tree of nodes over one block of text.
//!
//! Guarantees: every question has an answer, a wrong id gives none; a small scalar is one allocation, a large one two, a list with
//! little text two, any other list three; freeing does not walk the tree. Leaves to others: how it comes about (`decode`, `build`).

use std::fmt;
use std::ops::Deref;

use super::node::{Kind, Node};
use crate::error::{Error, Result};

/// The text that fits into the first allocation. Together with the other fields it fills a block of 160 bytes of the usual
/// allocators.
const INLINE: usize = 102;

/// A reply of a server, or one that the library made.
#[derive(Clone, PartialEq)]
pub struct Reply(Box<Allocation>);

/// The allocation of a reply, with room in front: the C border keeps a handle's header there, so that a handle needs no further
/// allocation.
#[derive(Clone, PartialEq)]
#[repr(C)]
pub struct Allocation {
    front: [u64; 3],
    body: Body,
}

/// The content of a reply.
#[derive(Clone, PartialEq)]
pub struct Body(Form);

#[derive(Clone, PartialEq)]
enum Form {
    Small {
        node: Node,
        len: u8,
        data: [u8; INLINE],
    },
    /// A tree whose text is small.
    Short {
        nodes: Vec<Node>,
        len: u8,
        data: [u8; INLINE],
    },
    Large {
        nodes: Nodes,
        data: Vec<u8>,
    },
}

/// The nodes of a large text or a large tree. With a fourth form in its place each look at a reply would cost a jump through a table.
#[derive(Clone, PartialEq)]
enum Nodes {
    One(Node),
    Many(Vec<Node>),
}

impl Nodes {
    fn all(&self) -> &[Node] {
        match self {
            Nodes::One(node) => std::slice::from_ref(node),
            Nodes::Many(nodes) => nodes,
        }
    }

    fn root(&mut self) -> Option<&mut Node> {
        match self {
            Nodes::One(node) => Some(node),
            Nodes::Many(nodes) => nodes.first_mut(),
        }
    }
}

impl Reply {
    #[inline(always)]
    fn new(form: Form) -> Self {
        Self(Box::new(Allocation { front: [0; 3], body: Body(form) }))
    }

    fn form(&mut self) -> &mut Form {
        &mut self.0.body.0
    }

    /// The reply as one block of memory.
    pub fn into_allocation(self) -> Box<Allocation> {
        self.0
    }

    #[inline(always)]
    pub(super) fn small(node: Node, bytes: &[u8]) -> Option<Self> {
        if bytes.len() > INLINE {
            return None;
        }
        // Filled in place: a body that is filled first would be copied there.
        let mut reply = Self::new(Form::Small { node, len: bytes.len() as u8, data: [0; INLINE] });
        if let Form::Small { data, .. } = reply.form() {
            data[..bytes.len()].copy_from_slice(bytes);
        }
        Some(reply)
    }

    /// A STRING, of a text with one more byte behind it for the NUL. `None` when there is no memory.
    #[inline]
    pub(super) fn string(text: &[u8]) -> Option<Self> {
        let len = text.len().checked_sub(1)?;
        let node = Node::text(Kind::String, 0, len);
        if let Some(mut reply) = Self::small(node, text) {
            if let Form::Small { data, .. } = reply.form() {
                data[len] = 0;
            }
            return Some(reply);
        }
        let mut data = Vec::new();
        data.try_reserve_exact(text.len()).ok()?;
        data.extend_from_slice(text);
        data[len] = 0;
        Some(Self::scalar(node, data))
    }

    /// A text that is a line; `None` when it is not small.
    pub(super) fn line(kind: Kind, line: &[u8]) -> Option<Self> {
        if line.len() >= INLINE {
            return None;
        }
        let mut reply = Self::small(Node::text(kind, 0, line.len()), line)?;
        if let Form::Small { len, .. } = reply.form() {
            *len += 1;
        }
        Some(reply)
    }

    pub(super) fn scalar(node: Node, data: Vec<u8>) -> Self {
        Self::new(Form::Large { nodes: Nodes::One(node), data })
    }

    pub(super) fn tree(nodes: Vec<Node>, data: Vec<u8>) -> Self {
        if data.len() <= INLINE {
            return Self::short(nodes, &[&data]);
        }
        Self::new(Form::Large { nodes: Nodes::Many(nodes), data })
    }

    /// A tree of these texts, one behind the other, whose length together is at most that of a small text ([`Reply::is_short`]).
    #[inline]
    pub(super) fn short(nodes: Vec<Node>, texts: &[&[u8]]) -> Self {
        let mut reply = Self::new(Form::Short { nodes, len: 0, data: [0; INLINE] });
        if let Form::Short { len, data, .. } = reply.form() {
            let mut at = 0;
            for text in texts {
                data[at..at + text.len()].copy_from_slice(text);
                at += text.len();
            }
            *len = at as u8;
        }
        reply
    }

    /// Whether so many bytes of text fit beside the nodes of a tree.
    #[inline]
    pub(super) fn is_short(len: usize) -> bool {
        len <= INLINE
    }

    /// A list of texts, each of which has one more byte behind it for the NUL. `None` when there is no memory.
    pub(super) fn texts(kind: Kind, texts: &[&[u8]]) -> Option<Self> {
        let mut nodes = Vec::with_capacity(1 + texts.len());
        nodes.push(Node::aggregate(kind, 1, texts.len() as u32));
        let mut end = 0;
        for text in texts {
            nodes.push(Node::text(Kind::String, end, text.len().checked_sub(1)?));
            end += text.len();
        }
        if Self::is_short(end) {
            let mut reply = Self::short(nodes, texts);
            if let Form::Short { nodes, data, .. } = reply.form() {
                end_texts(nodes, data);
            }
            return Some(reply);
        }
        let mut data = Vec::new();
        data.try_reserve_exact(end).ok()?;
        texts.iter().for_each(|text| data.extend_from_slice(text));
        end_texts(&nodes, &mut data);
        Some(Self::new(Form::Large { nodes: Nodes::Many(nodes), data }))
    }

    /// The same with a PUSH in place of an ARRAY at the root: RESP2 has no type of its own for messages.
    pub fn into_push(mut self) -> Self {
        let root = match self.form() {
            Form::Small { node, .. } => Some(node),
            Form::Short { nodes, .. } => nodes.first_mut(),
            Form::Large { nodes, .. } => nodes.root(),
        };
        if let Some(root) = root.filter(|root| root.kind() == Kind::Array) {
            root.kind = Kind::Push as u8;
        }
        self
    }

    /// A reply without a value.
    pub fn null() -> Self {
        Self::new(Form::Small { node: Node::NULL, len: 0, data: [0; INLINE] })
    }
}

/// Puts the NUL behind each text of a list.
#[inline]
fn end_texts(nodes: &[Node], data: &mut [u8]) {
    for node in &nodes[1..] {
        data[(node.value + node.len) as usize] = 0;
    }
}

impl Deref for Reply {
    type Target = Body;

    fn deref(&self) -> &Body {
        &self.0.body
    }
}

impl Body {
    /// All nodes; the first is the root.
    pub fn nodes(&self) -> &[Node] {
        match &self.0 {
            Form::Small { node, .. } => std::slice::from_ref(node),
            Form::Short { nodes, .. } => nodes,
            Form::Large { nodes, .. } => nodes.all(),
        }
    }

    /// The text of all nodes, a NUL behind each.
    #[inline]
    pub fn data(&self) -> &[u8] {
        match &self.0 {
            Form::Small { len, data, .. } | Form::Short { len, data, .. } => &data[..usize::from(*len)],
            Form::Large { data, .. } => data,
        }
    }

    /// About how many bytes of memory it takes.
    #[inline]
    pub fn weight(&self) -> usize {
        size_of::<Allocation>() + size_of_val(self.nodes()) + self.data().len()
    }

    fn node(&self, id: u32) -> Option<&Node> {
        self.nodes().get(id as usize)
    }

    /// What a node is; `Kind::None` for a wrong id.
    #[inline]
    pub fn kind(&self, id: u32) -> Kind {
        self.node(id).map_or(Kind::None, Node::kind)
    }

    /// How many children a node has.
    pub fn count(&self, id: u32) -> u32 {
        self.node(id).map_or(0, |node| node.count)
    }

    /// The id of a child.
    pub fn child(&self, id: u32, index: u32) -> Option<u32> {
        let node = self.node(id)?;
        if index >= node.count {
            return None;
        }
        u32::try_from(node.value.checked_add(u64::from(index))?).ok()
    }

    /// The ids of all children.
    pub fn children(&self, id: u32) -> std::ops::Range<u32> {
        match self.child(id, 0) {
            Some(first) => first..first + self.count(id),
            None => 0..0,
        }
    }

    /// The value behind a key: of a MAP, or of an ARRAY in which keys and values alternate (a map in RESP2).
    pub fn find(&self, id: u32, key: &[u8]) -> Option<u32> {
        let count = self.count(id);
        if !matches!(self.kind(id), Kind::Map | Kind::Array) || count % 2 != 0 {
            return None;
        }
        self.children(id).step_by(2).find(|&child| self.bytes(child) == Some(key)).map(|child| child + 1)
    }

    /// The text of a node that has one.
    pub fn bytes(&self, id: u32) -> Option<&[u8]> {
        self.bytes_nul(id)?.split_last().map(|(_, text)| text)
    }

    /// The text of a node with the NUL behind it.
    #[inline(always)]
    pub fn bytes_nul(&self, id: u32) -> Option<&[u8]> {
        let node = self.node(id).filter(|node| node.kind().is_text())?;
        let start = usize::try_from(node.value).ok()?;
        let end = start.checked_add(usize::try_from(node.len).ok()?)?.checked_add(1)?;
        self.data().get(start..end)
    }

    /// INT, BOOL, or a text that is a whole number.
    pub fn int(&self, id: u32) -> Option<i64> {
        let node = self.node(id)?;
        match node.kind() {
            Kind::Int | Kind::Bool => Some(node.value as i64),
            Kind::Error => None,
            _ => std::str::from_utf8(self.bytes(id)?).ok()?.parse().ok(),
        }
    }

    /// DOUBLE, INT, or a text that is a number.
    pub fn double(&self, id: u32) -> Option<f64> {
        let node = self.node(id)?;
        match node.kind() {
            Kind::Double => Some(f64::from_bits(node.value)),
            Kind::Int => Some(node.value as i64 as f64),
            Kind::Error => None,
            _ => super::head::double(self.bytes(id)?),
        }
    }

    /// The text of an ERROR.
    #[inline]
    pub fn error_line(&self, id: u32) -> Option<&[u8]> {
        if self.kind(id) == Kind::Error { self.bytes(id) } else { None }
    }

    /// A node and all that is below it as a reply of its own; NULL for a wrong id.
    pub fn subtree(&self, id: u32) -> Reply {
        self.subtree_in(id, Vec::new(), Vec::new())
    }

    /// As [`Reply::subtree`], of a node that has most of the reply below it; `None`: there is no memory for it.
    pub fn try_subtree(&self, id: u32) -> Option<Reply> {
        let (mut nodes, mut data) = (Vec::new(), Vec::new());
        nodes.try_reserve_exact(self.nodes().len()).ok()?;
        data.try_reserve_exact(self.data().len()).ok()?;
        Some(self.subtree_in(id, nodes, data))
    }

    fn subtree_in(&self, id: u32, mut nodes: Vec<Node>, mut data: Vec<u8>) -> Reply {
        let Some(&root) = self.node(id) else { return Reply::null() };
        nodes.push(root);
        let mut next = 0;
        while let Some(&node) = nodes.get(next) {
            let kind = node.kind();
            if kind.is_aggregate() && node.count > 0 {
                let first = node.value as usize;
                nodes[next].value = nodes.len() as u64;
                let children = self.nodes().get(first..first + node.count as usize).unwrap_or_default();
                nodes.extend_from_slice(children);
            } else if let (true, Some(text)) = (kind.is_text(), self.text_nul(&node)) {
                nodes[next].value = data.len() as u64;
                data.extend_from_slice(text);
            }
            next += 1;
        }
        if nodes.len() > 1 {
            return Reply::tree(nodes, data);
        }
        Reply::small(nodes[0], &data).unwrap_or_else(|| Reply::scalar(nodes[0], data))
    }

    /// `None` for what is no text: the value of a number may be anything.
    fn text_nul(&self, node: &Node) -> Option<&[u8]> {
        let end = node.value.checked_add(node.len)?.checked_add(1)?;
        self.data().get(node.value as usize..end as usize)
    }

    /// The whole reply as JSON, in a STRING.
    ///
    /// Bytes that are not UTF-8 become `\u00XX` each (as if they were Latin-1); keys of maps become strings; a bignum, NaN and
    /// the infinities too; an error becomes `{"error": "..."}`.
    pub fn to_json(&self) -> Result<Reply> {
        let mut data = super::json::write(self)?;
        let node = Node::text(Kind::String, 0, data.len());
        data.push(0);
        Ok(Reply::small(node, &data).unwrap_or_else(|| Reply::scalar(node, data)))
    }
}

/// Kinds and sizes only, because a reply may hold what must not be logged.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({:?}, {} nodes, {} bytes)", self.kind(0), self.nodes().len(), self.data().len())
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl Allocation {
    /// The offset of the body, behind the room in front.
    pub const BODY: usize = std::mem::offset_of!(Self, body);
}

const _: () = assert!(size_of::<Allocation>() == 152);

/// A server's answer, kept in the error of a call that failed despite it.
impl Error {
    /// The same with this reply.
    pub fn with_reply(self, reply: Reply) -> Self {
        self.with_enclosed(reply)
    }

    /// The reply, if one is kept.
    pub fn reply(&self) -> Option<&Reply> {
        self.enclosed()
    }
}
