//! Replies that the library makes itself: topology, statistics, settings.
//!
//! Guarantees: any order of calls gives a well-formed reply. Leaves to others: its contents.

use super::node::{Kind, Node};
use super::reply::{Body, Reply};
use super::tree::Tree;
use crate::error::{Error, Result, Status};

/// Builds a reply value by value; aggregates are opened and ended.
///
/// Aggregates that are open at the end are closed; a key without a value gets NULL; values after the root are dropped.
#[derive(Debug, Default)]
pub struct ReplyBuilder {
    tree: Tree,
    maps: Vec<bool>,
    has_root: bool,
    /// There was no memory for one of the values.
    incomplete: bool,
}

impl ReplyBuilder {
    /// An empty builder; finished as it is, it gives NULL.
    pub fn new() -> Self {
        Self::default()
    }

    fn open(&mut self, kind: Kind) -> &mut Self {
        if self.takes_more(0) && self.tree.open(kind, 0) {
            self.maps.push(kind == Kind::Map);
            self.has_root = true;
        }
        self
    }

    /// Whether there is a place and memory for one more value with a text of this length.
    fn takes_more(&mut self, text: usize) -> bool {
        self.incomplete = self.incomplete || !self.tree.make_room(text);
        !self.incomplete && !self.is_complete()
    }

    fn is_complete(&self) -> bool {
        self.has_root && self.tree.depth() == 0
    }

    fn add(&mut self, node: Node) -> &mut Self {
        if self.takes_more(0) {
            self.tree.add(node);
            self.has_root = true;
        }
        self
    }

    /// Opens a map: keys and values alternate until [`end`](Self::end).
    pub fn map(&mut self) -> &mut Self {
        self.open(Kind::Map)
    }

    /// Opens an array.
    pub fn array(&mut self) -> &mut Self {
        self.open(Kind::Array)
    }

    /// Opens a set.
    pub fn set(&mut self) -> &mut Self {
        self.open(Kind::Set)
    }

    /// Opens a push.
    pub fn push(&mut self) -> &mut Self {
        self.open(Kind::Push)
    }

    /// Ends the innermost open aggregate.
    pub fn end(&mut self) -> &mut Self {
        self.incomplete = self.incomplete || !self.tree.make_room(0);
        if self.incomplete {
            self.maps.pop();
            return self;
        }
        if self.maps.pop() == Some(true) && self.tree.children() % 2 != 0 {
            self.tree.add(Node::NULL);
        }
        self.tree.close();
        self
    }

    /// A text of this kind; any kind that is not a text counts as STRING.
    pub fn text_of(&mut self, kind: Kind, bytes: &[u8]) -> &mut Self {
        if !self.takes_more(bytes.len()) {
            return self;
        }
        let node = self.tree.text(if kind.is_text() { kind } else { Kind::String }, bytes);
        self.add(node)
    }

    /// A STRING.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.text_of(Kind::String, bytes)
    }

    /// A STRING; also for the keys of a map.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// An ERROR.
    pub fn error(&mut self, line: &str) -> &mut Self {
        self.text_of(Kind::Error, line.as_bytes())
    }

    /// An INT.
    pub fn int(&mut self, value: i64) -> &mut Self {
        self.add(Node::int(value))
    }

    /// A DOUBLE.
    pub fn double(&mut self, value: f64) -> &mut Self {
        self.add(Node::double(value))
    }

    /// A BOOL.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.add(Node::bool(value))
    }

    /// A NULL.
    pub fn null(&mut self) -> &mut Self {
        self.add(Node::NULL)
    }

    /// A copy of a whole reply as one value.
    pub fn reply(&mut self, reply: &Body) -> &mut Self {
        self.part(reply, 0)
    }

    /// A copy of a node and everything below it, as one value.
    pub fn part(&mut self, reply: &Body, id: u32) -> &mut Self {
        if !reply.kind(id).is_aggregate() {
            self.copy(reply, id);
            return self;
        }
        let root: std::ops::Range<u32> = id..id.saturating_add(1);
        let mut open = vec![root];
        while let Some(ids) = open.last_mut() {
            match ids.next() {
                Some(id) if reply.kind(id).is_aggregate() => {
                    self.open(reply.kind(id));
                    open.push(reply.children(id));
                }
                Some(id) => self.copy(reply, id),
                None => {
                    open.pop();
                    if !open.is_empty() {
                        self.end();
                    }
                }
            }
        }
        self
    }

    fn copy(&mut self, reply: &Body, id: u32) {
        match (reply.bytes(id), reply.nodes().get(id as usize)) {
            (Some(text), _) => self.text_of(reply.kind(id), text),
            (None, Some(node)) => self.add(*node),
            (None, None) => self,
        };
    }

    /// The reply; the builder is empty afterwards. Without memory for all of it, NULL.
    pub fn finish(&mut self) -> Reply {
        while !self.maps.is_empty() {
            self.end();
        }
        self.has_root = false;
        self.incomplete |= self.tree.is_starved();
        if self.incomplete {
            self.tree.clear();
        }
        self.tree.finish()
    }

    /// As [`finish`](Self::finish), with an error for a lack of memory.
    pub fn try_finish(&mut self) -> Result<Reply> {
        let reply = self.finish();
        match std::mem::take(&mut self.incomplete) {
            true => Err(no_memory()),
            false => Ok(reply),
        }
    }
}

/// An array of children of several replies: for each of them the place of its reply, and its index there. One that is not there is NULL.
///
/// The texts of all replies are copied as they are, so this is for those of which most children are wanted.
pub fn picked(replies: &[&Body], places: &[(usize, u32)]) -> Result<Reply> {
    let (mut nodes, mut data, mut lists) = (Vec::new(), Vec::new(), Vec::with_capacity(replies.len()));
    let (texts, count) = (replies.iter().map(|reply| reply.data().len()).sum(), places.len());
    if nodes.try_reserve_exact(count + 1).is_err() || data.try_reserve_exact(texts).is_err() {
        return Err(no_memory());
    }
    for reply in replies {
        let ids = reply.children(0);
        let children = reply.nodes().get(ids.start as usize..ids.end as usize).unwrap_or_default();
        lists.push((children, data.len() as u64));
        data.extend_from_slice(reply.data());
    }
    nodes.push(Node::aggregate(Kind::Array, 1, u32::try_from(count).map_err(|_| no_memory())?));
    for &(reply, index) in places {
        let node = match lists.get(reply).and_then(|(list, start)| Some((list.get(index as usize)?, start))) {
            Some((node, start)) if node.kind().is_text() => Node { value: node.value + start, ..*node },
            Some((node, _)) if node.kind().is_aggregate() => return picked_trees(replies, places),
            Some((node, _)) => *node,
            None => Node::NULL,
        };
        nodes.push(node);
    }
    Ok(Reply::tree(nodes, data))
}

/// The same for children that have children.
#[cold]
fn picked_trees(replies: &[&Body], places: &[(usize, u32)]) -> Result<Reply> {
    let mut out = ReplyBuilder::new();
    out.array();
    for &(reply, index) in places {
        match replies.get(reply).and_then(|reply| Some((reply, reply.child(0, index)?))) {
            Some((reply, node)) => out.part(reply, node),
            None => out.null(),
        };
    }
    out.end();
    out.try_finish()
}

#[cold]
fn no_memory() -> Error {
    Error::new(Status::Limit, "no memory for the reply")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_picked_from_several_replies() {
        let texts = ReplyBuilder::new().array().text("a").null().text("").int(-1).end().finish();
        let long = ReplyBuilder::new().array().bytes(&[b'x'; 200]).error("ERR no").end().finish();
        let pick = |places: &[(usize, u32)], replies: &[&Body]| json(&picked(replies, places).unwrap());
        let x = "x".repeat(200);
        let expected = format!(r#"["{x}","",null,-1,"a",{{"error":"ERR no"}},null,null]"#);
        let places = [(1, 0), (0, 2), (0, 1), (0, 3), (0, 0), (1, 1), (0, 4), (2, 0)];
        assert_eq!(pick(&places, &[&texts, &long]), expected);
        assert_eq!(pick(&[(0, 2), (0, 0)], &[&texts]), r#"["","a"]"#);
        assert_eq!(pick(&[], &[&texts]), "[]");
        assert_eq!(pick(&[(0, 0), (0, 0)], &[&ReplyBuilder::new().text("no list").finish()]), "[null,null]");
        let mut nested = ReplyBuilder::new();
        let nested = nested.array().array().text("k").end().map().text("m").int(1).end().end().finish();
        assert_eq!(pick(&[(1, 1), (0, 0), (1, 0)], &[&texts, &nested]), r#"[{"m":1},"a",["k"]]"#);
    }

    fn json(reply: &Reply) -> String {
        String::from_utf8_lossy(reply.to_json().unwrap().bytes(0).unwrap_or_default()).into_owned()
    }

    #[test]
    fn nested_values_keep_their_places() {
        let mut builder = ReplyBuilder::new();
        builder.map().text("a").array().int(1).array().text("x").end().double(0.5).end();
        builder.text("b").map().text("c").bool(true).end().text("d").null().end();
        let reply = builder.finish();
        assert_eq!(json(&reply), r#"{"a":[1,["x"],0.5],"b":{"c":true},"d":null}"#);
        let b = reply.find(0, b"b").and_then(|b| reply.find(b, b"c"));
        assert_eq!(b.and_then(|id| reply.int(id)), Some(1));
        let a = reply.find(0, b"a").expect("a");
        assert_eq!(json(&reply.subtree(a)), r#"[1,["x"],0.5]"#);
    }

    #[test]
    fn any_order_of_calls_is_well_formed() {
        assert_eq!(ReplyBuilder::new().finish().kind(0), Kind::Null);
        assert_eq!(json(&ReplyBuilder::new().end().int(1).int(2).end().finish()), "1");
        assert_eq!(json(&ReplyBuilder::new().map().text("k").end().text("late").finish()), r#"{"k":null}"#);
        assert_eq!(json(&ReplyBuilder::new().array().map().text("k").finish()), r#"[{"k":null}]"#);
    }

    #[test]
    fn json_escapes_what_json_cannot_hold() {
        let mut builder = ReplyBuilder::new();
        builder.array().bytes(b"\xffa\"\n\x01\xc3\xa9").double(f64::NAN).double(-f64::INFINITY).error("ERR no");
        builder.map().int(1).int(2).end();
        let expected = "[\"\\u00ffa\\\"\\n\\u0001\u{e9}\",\"nan\",\"-inf\",{\"error\":\"ERR no\"},{\"1\":2}]";
        assert_eq!(json(&builder.finish()), expected);
    }

    #[test]
    fn a_copied_reply_is_equal() {
        let mut builder = ReplyBuilder::new();
        builder.array().text("x").map().text("k").set().int(1).end().end().array().end().end();
        let reply = builder.finish();
        let mut numbers = ReplyBuilder::new();
        let numbers = numbers.map().text("a").int(-1).text("b").int(i64::MIN).end().finish();
        assert_eq!(json(&numbers.subtree(0)), r#"{"a":-1,"b":-9223372036854775808}"#);
        assert_eq!(json(&numbers.subtree(2)), "-1");
        assert_eq!(ReplyBuilder::new().reply(&reply).finish(), reply);
        assert_eq!(json(&reply.subtree(0)), json(&reply));
    }
}
