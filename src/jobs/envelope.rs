//! A job as it stands in a list: `vigie1:<id>:<redelivered>:<payload>`, which a producer in any language can make.
//!
//! Guarantees: what is no envelope is a plain payload, whole and unchanged. Leaves to others: when a job gets another mark (take,
//! hand_back).

use std::sync::Arc;

use crate::error::{Error, Result, Status, quoted};
use crate::resp::{Reply, ReplyBuilder, encode};
use crate::sys::random;

const BEGIN: &[u8] = b"vigie1:";
const MOST_ID: usize = 64;

/// A job with an id of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// As it stands in the list.
    encoded: Arc<Vec<u8>>,
    head: Head,
}

/// What an envelope begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    id_end: usize,
    payload_at: usize,
    redelivered: u32,
}

impl Head {
    /// `None`: it is a plain payload.
    fn of(encoded: &[u8]) -> Option<Self> {
        let rest = encoded.strip_prefix(BEGIN)?;
        let id_len = rest.iter().take(MOST_ID + 1).position(|byte| *byte == b':')?;
        let digits = &rest[id_len + 1..];
        let len = digits.iter().take(11).position(|byte| *byte == b':')?;
        let number =
            std::str::from_utf8(&digits[..len]).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
        let redelivered = number.parse().ok()?;
        let id_end = BEGIN.len() + id_len;
        is_id(&rest[..id_len]).then_some(Self { id_end, payload_at: id_end + len + 2, redelivered })
    }

    fn id<'a>(&self, encoded: &'a [u8]) -> &'a str {
        std::str::from_utf8(&encoded[BEGIN.len()..self.id_end]).unwrap_or_default()
    }
}

impl Job {
    /// A job with this id, or a random one.
    pub fn new(id: Option<&str>, redelivered: u32, payload: &[u8]) -> Result<Self> {
        let random;
        let id = match id {
            Some(id) if is_id(id.as_bytes()) => id,
            Some(id) => {
                let text = format!("id {}: 1 to {MOST_ID} of A-Z a-z 0-9 . _ -", quoted(id));
                return Err(Error::new(Status::InvalidArg, text));
            }
            None => {
                random = format!("{:032x}", random::rng().u128(..));
                &random
            }
        };
        let head = format!("vigie1:{id}:{redelivered}:");
        let len = head.len() + payload.len();
        let mut encoded = Vec::new();
        encoded.try_reserve_exact(len).map_err(|_| Error::no_memory(len, "a job"))?;
        encoded.extend_from_slice(head.as_bytes());
        encoded.extend_from_slice(payload);
        let head = Head { id_end: BEGIN.len() + id.len(), payload_at: head.len(), redelivered };
        Ok(Self { encoded: Arc::new(encoded), head })
    }

    /// Reads an envelope; `None`: it is a plain payload.
    pub fn read(encoded: &[u8]) -> Result<Option<Self>> {
        let Some(head) = Head::of(encoded) else { return Ok(None) };
        Ok(Some(Self { encoded: Arc::new(encode::try_copy(encoded)?), head }))
    }

    /// What stands in a list, marked as handed out once more. A plain payload gets an id.
    pub fn marked(encoded: &[u8]) -> Result<Self> {
        match Head::of(encoded) {
            Some(head) => {
                let mark = head.redelivered.saturating_add(1);
                Self::new(Some(head.id(encoded)), mark, &encoded[head.payload_at..])
            }
            None => Self::new(None, 1, encoded),
        }
    }

    /// What stands in a list, with this mark at least. A plain payload gets an id.
    pub fn marked_as(encoded: &[u8], redelivered: u32) -> Result<Self> {
        match Head::of(encoded) {
            Some(head) => {
                let mark = redelivered.max(head.redelivered);
                Self::new(Some(head.id(encoded)), mark, &encoded[head.payload_at..])
            }
            None => Self::new(None, redelivered, encoded),
        }
    }

    /// As a program gets it.
    pub fn shown(&self) -> Result<Reply> {
        let mut out = ReplyBuilder::new();
        out.map().text("id").text(self.id()).text("payload").bytes(self.payload());
        out.text("redelivered").int(i64::from(self.redelivered())).end();
        out.try_finish()
    }

    /// As it stands in the list.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Its identity.
    pub fn id(&self) -> &str {
        self.head.id(&self.encoded)
    }

    /// What the producer gave.
    pub fn payload(&self) -> &[u8] {
        &self.encoded[self.head.payload_at..]
    }

    /// How often it may have been handed out before.
    pub fn redelivered(&self) -> u32 {
        self.head.redelivered
    }
}

/// How often a job was handed out, as its text tells.
pub fn mark_of(encoded: &[u8]) -> u32 {
    Head::of(encoded).map_or(0, |head| head.redelivered)
}

fn is_id(id: &[u8]) -> bool {
    (1..=MOST_ID).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_read_as_it_was_written() {
        for (id, payload) in [("a", &b""[..]), ("A-1_b.c", b"pay:load"), (&"x".repeat(64), b"\0\xff:")] {
            let job = Job::new(Some(id), 7, payload).unwrap();
            assert_eq!((job.id(), job.redelivered(), job.payload()), (id, 7, payload));
            assert_eq!(Job::read(job.encoded()).unwrap(), Some(job));
        }
        assert_eq!(Job::new(Some("a"), 0, b"x").unwrap().encoded(), b"vigie1:a:0:x");
    }

    #[test]
    fn what_is_no_envelope_is_a_plain_payload() {
        let long = format!("vigie1:{}:0:x", "x".repeat(65));
        for plain in
            ["", "x", "vigie1:", "vigie1::0:x", "vigie1:a b:0:x", "vigie1:a:-1:x", "vigie1:a:+1:x", "vigie1:a::x"]
        {
            assert_eq!(Job::read(plain.as_bytes()).unwrap(), None, "{plain}");
        }
        for plain in ["vigie1:a:99999999999:x", "vigie1:a:4294967296:x", "vigie1:a:0", "vigie2:a:0:x", long.as_str()] {
            assert_eq!(Job::read(plain.as_bytes()).unwrap(), None, "{plain}");
        }
    }

    #[test]
    fn a_mark_counts_and_a_plain_payload_gets_an_id_with_it() {
        assert_eq!(Job::marked(b"vigie1:a:1:x").unwrap().encoded(), b"vigie1:a:2:x");
        assert_eq!(Job::marked(b"vigie1:a:4294967295:x").unwrap().redelivered(), u32::MAX);
        let (one, other) = (Job::marked(b"same").unwrap(), Job::marked(b"same").unwrap());
        assert_eq!((one.payload(), one.redelivered(), one.id().len()), (&b"same"[..], 1, 32));
        assert_ne!(one.id(), other.id());
    }

    #[test]
    fn a_bad_id_is_refused() {
        for id in ["", "a:b", "a b", "\u{e9}", &"x".repeat(65)] {
            let error = Job::new(Some(id), 0, b"").expect_err("refused");
            assert_eq!(error.status(), Status::InvalidArg, "{id}");
        }
    }
}
