//! Events as records in one block of memory, for languages in which each read of foreign memory is expensive.
//!
//! Guarantees: a record holds everything that its event carries, errors included, gives its own length, and has no pointers;
//! nothing is written beyond the computed length. Leaves to others: which events fit (`queue` asks), the buffer (the caller).

use std::mem::{offset_of, size_of};
use std::ptr;

use super::types::{OK, vigie_node, vigie_packed_event};
use crate::error::Error;
use crate::queue::Event;
use crate::resp::{Kind, Node, Reply, ReplyBuilder};

/// The smallest record: an event with one node and no text.
pub(super) const SMALLEST: usize = size_of::<vigie_packed_event>();

/// Where the nodes begin.
const NODES: usize = offset_of!(vigie_packed_event, root);

const NOTHING: Node = Node { kind: Kind::None as u8, ..Node::NULL };

type TextFields = [(&'static str, fn(&Error) -> &str); 3];
type NumberFields = [(&'static str, fn(&Error) -> i64); 2];

/// The properties of an error beside its status and its flags, under the names of the functions that return them.
const TEXTS: TextFields =
    [("message", Error::message), ("server_code", Error::server_code), ("endpoint", Error::endpoint)];
const NUMBERS: NumberFields = [("count", Error::count), ("errno", |error| error.errno() as i64)];

/// The bytes that an event takes as a record.
pub(super) fn size_of_record(event: &Event) -> usize {
    match &event.outcome {
        Ok(None) => size(1, 0),
        Ok(Some(reply)) => size(reply.nodes().len(), reply.data().len()),
        Err(error) if error.reply().is_some() => {
            let told = told(error);
            size(told.nodes().len(), told.data().len())
        }
        Err(error) => {
            let texts: usize = TEXTS.iter().map(|(name, text)| name.len() + 1 + text(error).len() + 1).sum();
            let numbers: usize = NUMBERS.iter().map(|(name, _)| name.len() + 1).sum();
            size(1 + 2 * (TEXTS.len() + NUMBERS.len()), texts + numbers)
        }
    }
}

fn size(nodes: usize, data: usize) -> usize {
    (NODES + nodes * size_of::<Node>() + data).next_multiple_of(8)
}

fn told(error: &Error) -> Reply {
    let mut map = ReplyBuilder::new();
    map.map();
    TEXTS.iter().for_each(|(name, text)| _ = map.text(name).text(text(error)));
    NUMBERS.iter().for_each(|(name, number)| _ = map.text(name).int(number(error)));
    error.reply().into_iter().for_each(|reply| _ = map.text("reply").reply(reply));
    map.finish()
}

/// Writes the record of an event, and returns its length.
///
/// # Safety
/// `to` is writable for as many bytes as `size_of_record` gives for this event; its alignment does not matter.
pub(super) unsafe fn write(event: &Event, to: *mut u8) -> usize {
    let (of_error, status, error_flags);
    let reply = match &event.outcome {
        Ok(reply) => {
            (status, error_flags) = (OK, 0);
            reply.as_ref()
        }
        Err(error) => {
            (status, error_flags) = (error.status().code(), error.flags());
            of_error = told(error);
            Some(&of_error)
        }
    };
    let (nodes, data) = reply.map_or((&[NOTHING][..], &[][..]), |reply| (reply.nodes(), reply.data()));
    let (behind, size) = (NODES + size_of_val(nodes), size(nodes.len(), data.len()));
    assert!(size == size_of_record(event), "a record of {size} bytes was reckoned as another");
    let head = vigie_packed_event {
        size: size as u64,
        token: event.token,
        kind: event.kind,
        status,
        error_flags,
        node_count: u32::try_from(nodes.len()).unwrap_or(u32::MAX),
        data_len: data.len() as u64,
        root: nodes.first().map_or(NOTHING, |node| *node).into(),
    };
    // SAFETY: `to` is writable for `size` bytes, which is what head, nodes, data and padding take together; a buffer of the caller
    // overlaps none of them.
    unsafe {
        to.cast::<vigie_packed_event>().write_unaligned(head);
        ptr::copy_nonoverlapping(nodes.as_ptr().cast::<u8>(), to.add(NODES), size_of_val(nodes));
        ptr::copy_nonoverlapping(data.as_ptr(), to.add(behind), data.len());
        ptr::write_bytes(to.add(behind + data.len()), 0, size - behind - data.len());
    }
    size
}

impl From<Node> for vigie_node {
    fn from(node: Node) -> Self {
        let Node { kind, flags, reserved, count, value, len } = node;
        Self { r#type: kind, flags, reserved, count, value, len }
    }
}

#[cfg(test)]
#[path = "packed_tests.rs"]
mod tests;
