//! The room's place in a model (`cfg(loom)`): a connection in memory whose other end does what the model says.
//!
//! Commands are of the form `*1 $1 x`, 11 bytes each; the server answers `+x`. Guarantees: what [`Socket`] offers here means what it means over
//! a real socket, and each call of it is one step that loom may put before or after any other.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use crate::resp::{Decoder, Limits};
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
struct Wire {
    heard: Vec<u8>,
    unsaid: VecDeque<u8>,
    ready: VecDeque<u8>,
    room: usize,
    silent: bool,
    closed: bool,
}

/// A connection in memory.
pub struct Socket {
    wire: Mutex<Wire>,
    word: Word,
}

impl Socket {
    fn new(script: Script) -> Self {
        let wire = Wire { room: script.room, silent: script.silent, ..Wire::default() };
        Self { wire: Mutex::new(wire), word: Word::default() }
    }

    /// Takes as many bytes as there is room for.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = self.wire();
        let taken = bytes.len().min(wire.room);
        match (wire.closed, taken) {
            (true, _) => return Err(ErrorKind::BrokenPipe.into()),
            (false, 0) => return Err(ErrorKind::WouldBlock.into()),
            _ => {}
        }
        wire.room -= taken;
        let complete = wire.heard.len() / COMMAND;
        wire.heard.extend_from_slice(&bytes[..taken]);
        for at in complete..wire.heard.len() / COMMAND {
            let letter = wire.heard[at * COMMAND + 8];
            wire.unsaid.extend([b'+', letter, b'\r', b'\n']);
        }
        if !wire.silent {
            self.say_of(wire, usize::MAX);
        }
        Ok(taken)
    }

    /// Takes as many bytes as there is room for, from several places in order.
    pub fn send_parts(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send(&parts.iter().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>())
    }

    /// Receives behind the end of a vector: at most so much.
    pub fn recv_append(&self, into: &mut Vec<u8>, most: usize, timeout: Option<Duration>) -> io::Result<usize> {
        let mut buffer = vec![0; most];
        let n = self.recv(&mut buffer, timeout)?;
        into.extend_from_slice(&buffer[..n]);
        Ok(n)
    }

    /// Receives, waiting until this time is over.
    pub fn recv(&self, buf: &mut [u8], timeout: Option<Duration>) -> io::Result<usize> {
        let end = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let ticket = self.word.ticket();
            match self.try_recv(buf) {
                Err(_) if end.is_none_or(|end| Instant::now() < end) => self.word.wait(ticket, READ, end),
                got => return got,
            }
        }
    }

    /// Receives what is there.
    pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.wire();
        let n = wire.ready.len().min(buf.len());
        if n == 0 && !wire.closed {
            return Err(ErrorKind::WouldBlock.into());
        }
        wire.ready.drain(..n).zip(buf).for_each(|(byte, place)| *place = byte);
        Ok(n)
    }

    /// Whether the other end is gone, with nothing left to receive.
    pub fn is_closed_by_peer(&self) -> bool {
        matches!(self.peek(), Ok(None))
    }

    /// The first byte that a receive would bring.
    pub fn peek(&self) -> io::Result<Option<u8>> {
        let wire = self.wire();
        match (wire.ready.front(), wire.closed) {
            (None, false) => Err(ErrorKind::WouldBlock.into()),
            (first, _) => Ok(first.copied()),
        }
    }

    /// Waits until one of these directions is ready, or this long.
    pub fn wait(&self, read: bool, write: bool, timeout: Option<Duration>) -> io::Result<Ready> {
        let end = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let ticket = self.word.ticket();
            let wire = self.wire();
            let ready = Ready {
                read: read && (wire.closed || !wire.ready.is_empty()),
                write: write && (wire.closed || wire.room > 0),
            };
            drop(wire);
            if ready.read || ready.write || end.is_some_and(|end| Instant::now() >= end) {
                return Ok(ready);
            }
            self.word.wait(ticket, if read { READ } else { 0 } | if write { WRITE } else { 0 }, end);
        }
    }

    /// Ends the connection from this side.
    pub fn shutdown(&self) {
        self.wire().closed = true;
        self.word.wake(READ | WRITE);
    }

    /// No descriptor.
    pub fn fd(&self) -> RawFd {
        -1
    }

    /// The server says so many bytes of its answers.
    pub fn say(&self, bytes: usize) {
        self.say_of(self.wire(), bytes);
    }

    /// The server says all that is due, and answers at once from now on.
    pub fn speak(&self) {
        let mut wire = self.wire();
        wire.silent = false;
        self.say_of(wire, usize::MAX);
    }

    fn say_of(&self, mut wire: MutexGuard<'_, Wire>, bytes: usize) {
        let n = wire.unsaid.len().min(bytes);
        let said: Vec<u8> = wire.unsaid.drain(..n).collect();
        wire.ready.extend(said);
        drop(wire);
        if n > 0 {
            self.word.wake(READ);
        }
    }

    /// The server reads: there is room for so many more bytes.
    pub fn make_room(&self, bytes: usize) {
        let mut wire = self.wire();
        wire.room = wire.room.saturating_add(bytes);
        drop(wire);
        self.word.wake(WRITE);
    }

    /// The commands that the server has heard completely.
    pub fn heard(&self) -> Vec<char> {
        self.wire().heard.chunks_exact(COMMAND).map(|command| char::from(command[8])).collect()
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().expect("no panic under this lock")
    }
}

/// A connection that has shaken hands.
pub struct Conn(Arc<Socket>);

impl Conn {
    /// One whose other end follows this script.
    pub fn scripted(script: Script) -> Self {
        Self(Arc::new(Socket::new(script)))
    }

    /// When it was opened.
    pub fn opened(&self) -> Instant {
        Instant::now()
    }

    /// What a lane needs of it.
    pub fn into_parts(self) -> (Arc<Socket>, Decoder, Vec<u8>) {
        (self.0, Decoder::new(Limits::default()), Vec::new())
    }
}
