//! Who is compared: a file for each. All do the same jobs with the same keys, and look at what they get.

use crate::drive::{Ground, Sample};

pub mod engine;
pub mod fred;
pub mod hiredis;
pub mod redis_benchmark;
pub mod redis_rs;
#[cfg(redispp)]
pub mod redispp;
pub mod vigie;

/// Elements of the list that LRANGE reads, and the bytes of each.
pub const ELEMENTS: usize = 10_000;
/// Bytes of an element.
pub const ELEMENT: usize = 32;
/// The key of that list.
pub const LIST: &str = "bench:list";
/// Bytes of the value where nothing else is said.
pub const SMALL: usize = 64;

/// What is done again and again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Job {
    /// GET of so many bytes.
    Get(usize),
    /// SET of so many bytes.
    Set(usize),
    /// LRANGE of the whole list.
    Lrange,
    /// So many GETs of 64 bytes in one pipeline.
    Pipeline(usize),
    /// GETs of 64 bytes by submit and drain, so many outstanding; `each`: a submit for each command, not for each refill.
    Window {
        /// How many are outstanding.
        size: usize,
        /// One submit per command.
        single: bool,
    },
}

/// The key that has a value of this size.
pub fn key(size: usize) -> String {
    format!("bench:{size}")
}

/// The key that SET writes; apart from what GET reads.
pub fn written(size: usize) -> String {
    format!("bench:set:{size}")
}

/// A value that does not compress to nothing and has line ends in it.
pub fn value(size: usize) -> Vec<u8> {
    b"0123456789abcdefghijklmnopqrstuvwxyz \r\n".iter().copied().cycle().take(size).collect()
}

/// One command in RESP.
pub fn encoded(args: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend(format!("${}\r\n", arg.len()).bytes());
        out.extend(*arg);
        out.extend(b"\r\n");
    }
    out
}

/// A client that takes part.
pub trait Candidate {
    /// Its name in the tables.
    fn name(&self) -> &str;

    /// Does a job with so many threads or tasks at once.
    fn run(&self, job: Job, parallel: usize, ground: &mut Ground) -> Sample;
}
