//! The byte in the pipe: there while something is due, for whoever polls.
//!
//! Guarantees: at most one byte of ours is in the pipe; a drain takes at most one, under the queue's lock, before the mark is
//! cleared. It does not matter who reads the byte (Node's stream does): the next drain finds the pipe empty, and puts a
//! new byte in if it leaves something behind.

use std::os::fd::RawFd;

use crate::sys::pipe::Pipe;

pub(super) struct Bell {
    pipe: Pipe,
    /// Somebody has asked for the descriptor: before that, bytes would be system calls for nobody.
    watched: bool,
    /// A byte was put in, and no drain has taken it back.
    armed: bool,
}

impl Bell {
    pub(super) fn new(pipe: Pipe) -> Self {
        Self { pipe, watched: false, armed: false }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.pipe.fd()
    }

    /// From now on somebody polls.
    pub(super) fn watch(&mut self, due: bool) {
        self.watched = true;
        if due {
            self.ring();
        }
    }

    /// Something is due.
    pub(super) fn ring(&mut self) {
        if self.watched && !self.armed {
            self.armed = true;
            self.pipe.put();
        }
    }

    /// After a drain. The byte is put in anew for what is left, so that a poll that waits for a change (EPOLLET) sees one.
    pub(super) fn settle(&mut self, due: bool) {
        if self.armed {
            self.pipe.take();
            self.armed = false;
        }
        if due {
            self.ring();
        }
    }
}
