//! The socket of a model (`cfg(loom)`): a connection in memory whose other end does what the model says.
//!
//! Commands are of the form `*1 $1 x`, 11 bytes each; the server answers `+x`. Guarantees: each function means the same as over a
//! real socket, and each call is one step that loom may put before or after any other.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::RawFd;
use std::time::Duration;

use crate::meter::End;
use crate::sys::futex::Word;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::time::Instant;

/// The length of a command.
pub const COMMAND: usize = 11;
/// The length of an answer.
pub const ANSWER: usize = 4;

const READ: u32 = 1;
const WRITE: u32 = 2;

/// What a wait found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// A receive would not wait.
    pub read: bool,
    /// A send would not wait.
    pub write: bool,
}

/// How the other end behaves.
#[derive(Clone, Copy)]
pub struct Script {
    /// How many bytes go in before it is full.
    pub room: usize,
    /// It answers nothing before the model lets it.
    pub silent: bool,
}

#[derive(Default)]
struct Ends {
    heard: Vec<u8>,
    unsaid: VecDeque<u8>,
    ready: VecDeque<u8>,
    room: usize,
    silent: bool,
    closed: bool,
}

/// A connection in memory.
pub struct Socket {
    ends: Mutex<Ends>,
    word: Word,
}

impl Socket {
    /// One whose other end follows this script.
    pub fn scripted(script: Script) -> Self {
        let ends = Ends { room: script.room, silent: script.silent, ..Ends::default() };
        Self { ends: Mutex::new(ends), word: Word::default() }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut ends = self.ends();
        let taken = bytes.len().min(ends.room);
        match (ends.closed, taken) {
            (true, _) => return Err(ErrorKind::BrokenPipe.into()),
            (false, 0) => return Err(ErrorKind::WouldBlock.into()),
            _ => {}
        }
        ends.room -= taken;
        let complete = ends.heard.len() / COMMAND;
        ends.heard.extend_from_slice(&bytes[..taken]);
        for at in complete..ends.heard.len() / COMMAND {
            let letter = ends.heard[at * COMMAND + 8];
            ends.unsaid.extend([b'+', letter, b'\r', b'\n']);
        }
        if !ends.silent {
            self.say_of(ends, usize::MAX);
        }
        Ok(taken)
    }

    /// Why this side has ended it under its users: the model has no such end.
    pub fn ended_as(&self) -> Option<End> {
        None
    }

    /// Takes as many bytes as there is room for, from several places in order.
    pub fn send_parts(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send(&parts.iter().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>())
    }

    /// Receives behind the end of a vector: at most so much.
    pub fn recv_append(&self, into: &mut Vec<u8>, most: usize, timeout: Option<Duration>) -> io::Result<usize> {
        let mut buffer = vec![0; most];
        let n = self.recv_into(&mut buffer, timeout)?;
        into.extend_from_slice(&buffer[..n]);
        Ok(n)
    }

    /// Receives, waiting until this time is over.
    pub fn recv_into(&self, buf: &mut [u8], timeout: Option<Duration>) -> io::Result<usize> {
        let end = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let ticket = self.word.ticket();
            match self.recv_now(buf) {
                Err(_) if end.is_none_or(|end| Instant::now() < end) => self.word.wait(ticket, READ, end),
                got => return got,
            }
        }
    }

    fn recv_now(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut ends = self.ends();
        let n = ends.ready.len().min(buf.len());
        if n == 0 && !ends.closed {
            return Err(ErrorKind::WouldBlock.into());
        }
        ends.ready.drain(..n).zip(buf).for_each(|(byte, place)| *place = byte);
        Ok(n)
    }

    /// The first byte that a receive would bring.
    pub fn peek_byte(&self) -> io::Result<Option<u8>> {
        let ends = self.ends();
        match (ends.ready.front(), ends.closed) {
            (None, false) => Err(ErrorKind::WouldBlock.into()),
            (first, _) => Ok(first.copied()),
        }
    }

    /// Waits until one of these directions is ready, or this long.
    pub fn wait(&self, read: bool, write: bool, timeout: Option<Duration>) -> io::Result<Ready> {
        let end = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let ticket = self.word.ticket();
            let ends = self.ends();
            let ready = Ready {
                read: read && (ends.closed || !ends.ready.is_empty()),
                write: write && (ends.closed || ends.room > 0),
            };
            drop(ends);
            if ready.read || ready.write || end.is_some_and(|end| Instant::now() >= end) {
                return Ok(ready);
            }
            self.word.wait(ticket, if read { READ } else { 0 } | if write { WRITE } else { 0 }, end);
        }
    }

    /// Whether it has ended.
    pub fn is_hung_up(&self) -> bool {
        self.ends().closed
    }

    /// Ends the connection from this side.
    pub fn shutdown(&self) {
        self.ends().closed = true;
        self.word.wake(READ | WRITE);
    }

    /// No descriptor.
    pub fn fd(&self) -> RawFd {
        -1
    }

    /// The server says so many bytes of its answers.
    pub fn say(&self, bytes: usize) {
        self.say_of(self.ends(), bytes);
    }

    /// The server says all that is due, and answers at once from now on.
    pub fn speak(&self) {
        let mut ends = self.ends();
        ends.silent = false;
        self.say_of(ends, usize::MAX);
    }

    fn say_of(&self, mut ends: MutexGuard<'_, Ends>, bytes: usize) {
        let n = ends.unsaid.len().min(bytes);
        let said: Vec<u8> = ends.unsaid.drain(..n).collect();
        ends.ready.extend(said);
        drop(ends);
        if n > 0 {
            self.word.wake(READ);
        }
    }

    /// The server reads: there is room for so many more bytes.
    pub fn make_room(&self, bytes: usize) {
        let mut ends = self.ends();
        ends.room = ends.room.saturating_add(bytes);
        drop(ends);
        self.word.wake(WRITE);
    }

    /// The commands that the server has heard completely.
    pub fn heard(&self) -> Vec<char> {
        self.ends().heard.chunks_exact(COMMAND).map(|command| char::from(command[8])).collect()
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().expect("no panic under this lock")
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Socket(scripted)")
    }
}
