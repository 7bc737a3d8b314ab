//! The queue's descriptor: a pipe with a byte in it while something is due, for an event loop that polls it.
//!
//! Guarantees: at most one byte of ours is in the pipe. A drain takes it, under the queue's lock, before the mark is cleared. It does not
//! matter who reads the byte (a stream of Node does so itself): the next drain finds the pipe empty, and puts a new byte in if it leaves
//! something behind.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::sys::waker::Waker;

pub(super) struct ReadyFd {
    waker: Waker,
    /// What the application polls: if it is closed there, in spite of what the header says, writing to the pipe is no SIGPIPE.
    given: OwnedFd,
    /// The application has asked for the descriptor. Before that a byte would be a system call for nothing.
    is_used: bool,
    /// A byte was put in, and no drain has taken it.
    is_set: bool,
}

impl ReadyFd {
    pub(super) fn new() -> io::Result<Self> {
        let waker = Waker::new()?;
        Ok(Self { given: waker.share()?, waker, is_used: false, is_set: false })
    }

    /// The descriptor, for an application that polls it from now on.
    pub(super) fn fd(&mut self, due: bool) -> RawFd {
        self.is_used = true;
        if due {
            self.set();
        }
        self.given.as_raw_fd()
    }

    /// Makes it readable: something is due.
    pub(super) fn set(&mut self) {
        if self.is_used && !self.is_set {
            self.is_set = true;
            self.waker.wake();
        }
    }

    /// Follows a drain. For what is left a new byte is put in, so that a poll that waits for a change (EPOLLET) sees one.
    pub(super) fn settle(&mut self, due: bool) {
        if self.is_set {
            self.waker.clear();
            self.is_set = false;
        }
        if due {
            self.set();
        }
    }
}
