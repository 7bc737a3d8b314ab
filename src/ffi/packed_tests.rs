//! What a packed drain writes, read back as a program does: all that an event carries, and not a byte more.

use std::ptr;
use std::sync::Arc;

use super::super::handle;
use super::super::queue::{vigie_queue_create, vigie_queue_drain_packed, vigie_queue_free};
use super::super::types::{vigie_node, vigie_packed_event, vigie_queue};
use super::{OK, SMALLEST};
use crate::error::{Error, Status, flags};
use crate::queue::{Event, Queue, kind};
use crate::resp::{Node, Reply, ReplyBuilder};

/// What the buffer holds where nothing was written.
const UNTOUCHED: u8 = 0xa5;
const TOO_SMALL: i32 = Status::BufferTooSmall as i32;

struct Stage {
    handle: *mut vigie_queue,
    sender: Arc<Queue>,
}

/// A record, read back.
struct Record {
    head: vigie_packed_event,
    nodes: Vec<Node>,
    data: Vec<u8>,
}

impl Stage {
    fn new(capacity: usize) -> Self {
        let mut handle = ptr::null_mut();
        // SAFETY: a live variable, and a handle that lives as long as this.
        unsafe {
            assert_eq!(vigie_queue_create(capacity, &raw mut handle, ptr::null_mut()), OK);
            let sender = Arc::clone(&handle::borrow(handle, "queue").unwrap().0);
            Self { handle, sender }
        }
    }

    fn push(&self, token: u64, reply: Reply) {
        assert!(self.sender.push(Event { kind: kind::TOPOLOGY, token, outcome: Ok(Some(reply)) }));
    }

    fn fail(&self, token: u64, error: Error) {
        assert!(self.sender.push(Event { kind: kind::COMPLETION, token, outcome: Err(error) }));
    }

    /// Drains into a buffer of this many bytes at an odd address. Returns the count or status, the bytes reported, and the records.
    fn drain(&self, room: usize) -> (i32, usize, Vec<Record>) {
        let (mut buffer, mut used) = (vec![UNTOUCHED; room + 16], usize::MAX);
        let bytes = &mut buffer[1..];
        // SAFETY: a live handle, and a buffer with at least `room` bytes.
        let count = unsafe { vigie_queue_drain_packed(self.handle, 0, bytes.as_mut_ptr().cast(), room, &raw mut used) };
        let records = if count >= 0 { read(&bytes[..used], count) } else { Vec::new() };
        let written = if count >= 0 { used } else { 0 };
        assert!(bytes[written..].iter().all(|byte| *byte == UNTOUCHED), "written beyond {written}");
        (count, used, records)
    }

    fn one(&self) -> Record {
        let (count, _, mut records) = self.drain(1 << 21);
        assert_eq!(count, 1);
        records.remove(0)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // SAFETY: freed once.
        unsafe { vigie_queue_free(self.handle) };
    }
}

fn read(mut bytes: &[u8], count: i32) -> Vec<Record> {
    let records = (0..count).map(|_| {
        assert!(bytes.len() >= SMALLEST);
        // SAFETY: there are enough bytes for a head, and any bytes are one.
        let head = unsafe { bytes.as_ptr().cast::<vigie_packed_event>().read_unaligned() };
        let (record, rest) = bytes.split_at(head.size as usize);
        let (nodes, data) = record[40..].split_at(24 * head.node_count as usize);
        // SAFETY: as above, for nodes.
        let nodes = nodes.chunks(24).map(|node| unsafe { node.as_ptr().cast::<Node>().read_unaligned() }).collect();
        let (data, padding) = data.split_at(head.data_len as usize);
        assert!(padding.len() < 8 && padding.iter().all(|byte| *byte == 0) && head.size % 8 == 0);
        bytes = rest;
        Record { head, nodes, data: data.to_vec() }
    });
    let records: Vec<_> = records.collect();
    assert!(bytes.is_empty(), "{} bytes more than {count} records", bytes.len());
    records
}

impl Record {
    fn holds(&self, reply: &Reply) {
        assert_eq!((self.nodes.as_slice(), self.data.as_slice()), (reply.nodes(), reply.data()));
        let vigie_node { r#type, count, value, len, .. } = self.head.root;
        let root = reply.nodes()[0];
        assert_eq!((r#type, count, value, len), (root.kind, root.count, root.value, root.len));
    }

    /// The value behind a key of a MAP, as it reads.
    fn value(&self, key: &str) -> String {
        let text = |node: &Node| {
            let (start, len) = (node.value as usize, node.len as usize);
            assert_eq!(self.data[start + len], 0, "a NUL follows each text");
            String::from_utf8(self.data[start..start + len].to_vec()).unwrap()
        };
        let children = &self.nodes[self.nodes[0].value as usize..][..self.nodes[0].count as usize];
        let pair = children.chunks(2).find(|pair| text(&pair[0]) == key).unwrap_or_else(|| panic!("no {key}"));
        if pair[1].len == 0 && pair[1].kind != 2 { (pair[1].value as i64).to_string() } else { text(&pair[1]) }
    }
}

fn text(bytes: usize) -> Reply {
    ReplyBuilder::new().bytes(&vec![b'x'; bytes]).finish()
}

#[test]
fn every_kind_of_reply_comes_back_as_it_was() {
    let mut all = ReplyBuilder::new();
    all.array()
        .int(i64::MIN)
        .double(-0.5)
        .bool(true)
        .null()
        .text("")
        .bytes(b"\0\r\n\xff")
        .error("ERR no")
        .array()
        .end();
    all.map().text("k").set().int(1).array().text("deep").end().end().end().push().text("p").end();
    let replies = [
        all.finish(),
        Reply::null(),
        ReplyBuilder::new().int(-1).finish(),
        ReplyBuilder::new().double(f64::INFINITY).finish(),
        ReplyBuilder::new().bool(false).finish(),
        ReplyBuilder::new().array().end().finish(),
        text(0),
        text(7),
        text(64),
        text(1 << 20),
    ];
    let stage = Stage::new(replies.len());
    replies.iter().zip(0..).for_each(|(reply, token)| stage.push(u64::MAX - token, reply.clone()));
    let (count, used, records) = stage.drain(1 << 21);
    assert_eq!((count as usize, used > 1 << 20), (replies.len(), true));
    for ((record, reply), token) in records.iter().zip(&replies).zip(0..) {
        let vigie_packed_event { token: told, kind, status, error_flags, .. } = record.head;
        assert_eq!((told, kind, status, error_flags), (u64::MAX - token, kind::TOPOLOGY, OK, 0));
        record.holds(reply);
    }
    assert_eq!(records[8].head.size, 64 + 64 + 8, "a text of 64 bytes and its NUL");
}

#[test]
fn an_error_comes_with_all_that_its_functions_tell() {
    let stage = Stage::new(4);
    let server = Error::from_server(b"WRONGTYPE a\0b", "127.0.0.1:1").with_flags(flags::FAILOVER).with_count(3);
    stage.fail(7, server);
    let refused = std::io::Error::from_raw_os_error(libc::ECONNREFUSED);
    stage.fail(8, Error::from_io(Status::Connect, "", &refused).with_flags(flags::RETRYABLE | flags::MAYBE_EXECUTED));
    let (count, _, records) = stage.drain(4096);
    assert_eq!(count, 2);
    let [first, second] = &records[..] else { panic!("two") };
    let head = &first.head;
    assert_eq!((head.kind, head.token, head.status), (kind::COMPLETION, 7, Status::Server.code()));
    assert_eq!((head.error_flags, head.root.r#type, head.root.count), (flags::FAILOVER, 11, 10));
    assert_eq!(first.value("message"), "WRONGTYPE a\0b");
    assert_eq!((first.value("server_code"), first.value("endpoint")), ("WRONGTYPE".into(), "127.0.0.1:1".into()));
    assert_eq!((first.value("count"), first.value("errno")), ("3".into(), "0".into()));
    assert_eq!((second.head.status, second.head.error_flags), (Status::Connect.code(), 3));
    assert_eq!((second.value("server_code"), second.value("endpoint")), (String::new(), String::new()));
    assert_eq!((second.value("count"), second.value("errno")), ("-1".into(), libc::ECONNREFUSED.to_string()));
}

#[test]
fn an_error_with_a_reply_brings_it_along() {
    let stage = Stage::new(4);
    let reply = ReplyBuilder::new().array().text("a").array().int(1).null().end().text("").end().finish();
    stage.fail(7, Error::new(Status::Io, "late").with_reply(reply.clone()));
    let (count, used, records) = stage.drain(4096);
    assert_eq!((count, used as u64), (1, records[0].head.size));
    let mut whole = ReplyBuilder::new();
    whole.map().text("message").text("late").text("server_code").text("").text("endpoint").text("");
    let whole = whole.text("count").int(-1).text("errno").int(0).text("reply").reply(&reply).end().finish();
    records[0].holds(&whole);
}

#[test]
fn events_without_a_reply_and_lost_ones_are_records_too() {
    let stage = Stage::new(1);
    assert!(stage.sender.push(Event { kind: kind::FENCE, token: 5, outcome: Ok(None) }));
    assert!(!stage.sender.push(Event { kind: kind::FENCE, token: 6, outcome: Ok(None) }));
    assert!(!stage.sender.push(Event { kind: kind::FENCE, token: 7, outcome: Ok(None) }));
    // Room for one of them: the DROPPED event waits for the next drain, uncut.
    let (count, used, records) = stage.drain(2 * SMALLEST - 1);
    assert_eq!((count, used, records[0].head.kind, records[0].head.token), (1, 64, kind::FENCE, 5));
    assert_eq!((records[0].head.root.r#type, records[0].head.node_count, records[0].head.data_len), (0, 1, 0));
    stage.push(8, text(1));
    let (count, _, records) = stage.drain(4096);
    let [dropped, next] = &records[..] else { panic!("{count}, not two") };
    assert_eq!((dropped.head.kind, dropped.head.token, dropped.head.root.value), (kind::DROPPED, 0, 2));
    assert_eq!(next.head.token, 8);
}

#[test]
fn what_does_not_fit_stays_and_is_the_next_one() {
    let stage = Stage::new(8);
    let sizes = [100, 3000, 10, 10];
    sizes.iter().zip(0..).for_each(|(bytes, token)| stage.push(token, text(*bytes)));
    let large = size_of::<vigie_packed_event>() + 3001_usize.next_multiple_of(8);
    // The small ones behind the large one do not overtake it.
    let (count, used, records) = stage.drain(2048);
    assert_eq!((count, used, records[0].head.token), (1, 64 + 104, 0));
    for room in [SMALLEST, large - 1] {
        assert_eq!((stage.drain(room).0, stage.drain(room).1), (TOO_SMALL, large));
    }
    let (count, used, records) = stage.drain(large);
    assert_eq!((count, used, records[0].head.token), (1, large, 1));
    let (count, _, records) = stage.drain(2048);
    assert_eq!((count, records[0].head.token, records[1].head.token), (2, 2, 3));
    assert_eq!((stage.drain(SMALLEST).0, stage.drain(SMALLEST).1), (0, 0));
}

#[test]
fn an_error_that_does_not_fit_says_its_size_too() {
    let stage = Stage::new(1);
    stage.fail(1, Error::from_server("ERR ".repeat(100).as_bytes(), "10.0.0.1:6379"));
    let (status, needed, _) = stage.drain(SMALLEST);
    assert_eq!((status, stage.drain(needed - 1).0), (TOO_SMALL, TOO_SMALL));
    assert_eq!((stage.drain(needed).0, stage.drain(SMALLEST).0), (1, 0));
}

#[test]
fn room_comes_back_with_what_is_taken_and_not_before() {
    let stage = Stage::new(2);
    let full = || stage.sender.reserve_bytes(9, 1, 1, 200).map(drop).is_err_and(|e| e.status() == Status::QueueFull);
    for (call, bytes) in stage.sender.reserve(1, 2).unwrap().zip([10, 500]) {
        assert!(full());
        call.complete(Ok(Some(text(bytes))));
    }
    assert!(full());
    assert_eq!((stage.drain(256).0, stage.drain(256).0), (1, TOO_SMALL));
    assert!(full(), "the bytes of the one that stayed");
    assert_eq!(stage.one().head.token, 2);
    assert!(!full());
}

#[test]
fn wrong_arguments_are_refused_and_take_nothing() {
    let stage = Stage::new(1);
    stage.push(1, text(1));
    let (mut buffer, mut used) = ([UNTOUCHED; 256], 7);
    let invalid = Status::InvalidArg.code();
    let (buf, out) = (buffer.as_mut_ptr().cast::<std::ffi::c_void>(), &raw mut used);
    // SAFETY: a live handle and live variables; the lengths that are too large are refused before anything is written.
    unsafe {
        assert_eq!((vigie_queue_drain_packed(ptr::null_mut(), 0, buf, 256, out), *out), (invalid, 0));
        assert_eq!(vigie_queue_drain_packed(stage.handle, -1, ptr::null_mut(), 256, out), invalid);
        for wrong in [0, SMALLEST - 1, usize::MAX] {
            assert_eq!(vigie_queue_drain_packed(stage.handle, -1, buf, wrong, ptr::null_mut()), invalid);
        }
        assert_eq!(vigie_queue_drain_packed(stage.handle, -1, buf, 256, ptr::null_mut()), 1);
    }
    assert!(buffer[..72].iter().any(|byte| *byte != UNTOUCHED) && buffer[72..].iter().all(|byte| *byte == UNTOUCHED));
}
