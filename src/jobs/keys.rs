//! The keys of one list of jobs. All of them have its hash tag, so that they stay on one shard.
//!
//! Guarantees: two lists share no key. A name that leaves no room for a hash tag is refused, one that is nothing but a hash tag, and one
//! that looks like a key of another list.

use crate::error::{Error, Result, Status, quoted};

const MOST_WORKER: usize = 128;
/// What stands in the keys of a list behind its tag.
const PARTS: [&str; 5] = ["workers", "gone", "processing", "lease", "failed"];

/// The keys as one worker uses them.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The list that producers push to.
    pub ready: Vec<u8>,
    /// A set: who may have a processing list.
    pub workers: Vec<u8>,
    /// A set: who had one, and may have a move on its way all the same.
    pub gone: Vec<u8>,
    /// A list: the jobs that were handed out too often.
    pub failed: Vec<u8>,
    /// This worker's name.
    pub worker: Vec<u8>,
    /// A list: what this worker has in hand.
    pub processing: Vec<u8>,
    /// A text with an expiry: this worker lives.
    pub lease: Vec<u8>,
    tag: String,
}

impl Keys {
    /// Those of this list, for this worker.
    pub fn new(name: &str, worker: &str) -> Result<Self> {
        if worker.is_empty() || worker.len() > MOST_WORKER {
            let text = format!("worker {}: its name has 1 to {MOST_WORKER} bytes", quoted(worker));
            return Err(Error::new(Status::InvalidArg, text));
        }
        let mut keys = Self {
            ready: name.into(),
            workers: Vec::new(),
            gone: Vec::new(),
            failed: Vec::new(),
            worker: worker.into(),
            processing: Vec::new(),
            lease: Vec::new(),
            tag: tag(name)?,
        };
        keys.workers = keys.key("workers", b"");
        keys.gone = keys.key("gone", b"");
        keys.failed = keys.key("failed", b"");
        (keys.processing, keys.lease) = keys.of(worker.as_bytes());
        Ok(keys)
    }

    /// The processing list and the lease of another worker.
    pub fn of(&self, worker: &[u8]) -> (Vec<u8>, Vec<u8>) {
        (self.key("processing:", worker), self.key("lease:", worker))
    }

    /// A text with an expiry: a move of this worker, which is gone, may still arrive.
    pub fn memory_of(&self, worker: &[u8]) -> Vec<u8> {
        self.key("gone:", worker)
    }

    /// The list's name, for messages.
    pub fn name(&self) -> String {
        quoted(&String::from_utf8_lossy(&self.ready))
    }

    fn key(&self, what: &str, worker: &[u8]) -> Vec<u8> {
        [self.tag.as_bytes(), b":", what.as_bytes(), worker].concat()
    }
}

/// What all keys but the list itself begin with: the list's name as the hash tag, or the name with the hash tag that it has.
fn tag(name: &str) -> Result<String> {
    let has_tag = name.find('{').and_then(|open| name[open + 1..].find('}')).is_some_and(|len| len > 0);
    let text = match (name.is_empty(), has_tag, name.contains(['{', '}'])) {
        (true, ..) => "name is empty".to_owned(),
        (_, true, _) if name.starts_with('{') && name.find('}') == Some(name.len() - 1) => {
            format!(
                "name {}: the list {} has the same keys: use that name",
                quoted(name),
                quoted(&name[1..name.len() - 1])
            )
        }
        (_, true, _) if name.split(':').skip(1).any(|part| PARTS.contains(&part)) => {
            format!("name {}: another list has keys of this form", quoted(name))
        }
        (_, true, _) => return Ok(name.to_owned()),
        (_, _, false) => return Ok(format!("{{{name}}}")),
        _ => format!("name {}: braces are for a hash tag, as in orders{{eu}}", quoted(name)),
    };
    Err(Error::new(Status::InvalidArg, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_have_the_hash_tag_of_the_list() {
        let shown = |name| {
            let keys = Keys::new(name, "w{1}").unwrap();
            [keys.workers, keys.processing, keys.lease].map(|key| String::from_utf8(key).unwrap())
        };
        assert_eq!(shown("mail"), ["{mail}:workers", "{mail}:processing:w{1}", "{mail}:lease:w{1}"]);
        assert!(["{a}b", "a{b}", "{a:lease}:x"].iter().all(|name| Keys::new(name, "w").is_ok()));
        assert_eq!(shown("a{eu}b"), ["a{eu}b:workers", "a{eu}b:processing:w{1}", "a{eu}b:lease:w{1}"]);
    }

    #[test]
    fn a_name_without_a_usable_tag_is_refused() {
        for name in ["", "{}a", "a}b", "a{b", "}{", "{a}", "{a}:processing:w", "{a}:workers", "x{a}:gone", "{a}:failed"]
        {
            assert_eq!(Keys::new(name, "w").expect_err("refused").status(), Status::InvalidArg, "{name}");
        }
        assert!(Keys::new("a", "").is_err() && Keys::new("a", &"w".repeat(129)).is_err());
    }
}
