//! Short ways to take the completions of submitted calls from a queue.
//!
//! Used beside calls.rs, with `#[path]`.
#![allow(dead_code)]

use std::sync::Arc;
use std::time::Duration;

use super::calls::text;
use vigie::client::CallFlags;
use vigie::error::Result;
use vigie::queue::{Event, Queue, kind};
use vigie::resp::Reply;
use vigie::time::Deadline;

pub const EACH: u32 = CallFlags::EACH;

pub fn queue(capacity: usize) -> Arc<Queue> {
    Queue::create(capacity).expect("a queue")
}

/// Drains this many completions, waiting for them.
#[track_caller]
pub fn drain(queue: &Queue, count: usize) -> Vec<Event> {
    let (mut events, end) = (Vec::new(), Deadline::after(Duration::from_secs(30)));
    while events.len() < count && !end.is_over() {
        let most = count - events.len();
        queue.drain(end, &mut events, most);
    }
    assert_eq!(events.len(), count, "completions that came");
    assert!(events.iter().all(|event| event.kind == kind::COMPLETION));
    events
}

#[track_caller]
pub fn one(queue: &Queue) -> (u64, Result<Reply>) {
    let event = drain(queue, 1).remove(0);
    (event.token, event.outcome.map(|reply| reply.expect("a completion without an error carries a reply")))
}

pub fn said(event: &Event) -> String {
    match &event.outcome {
        Ok(Some(reply)) => text(reply),
        Ok(None) => "nothing".into(),
        Err(error) => format!("{:?} {error}", error.status()),
    }
}
