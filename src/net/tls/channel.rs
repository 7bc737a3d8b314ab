//! A session that two directions of a wire share.
//!
//! Rule 24: the session is under a lock of its own, never across a system call. Ciphertext is received without it, and sent under another
//! lock, which makes its holder the only one that sends: records leave in the order in which they were made. What receiving has produced
//! (an answer to a change of keys) goes out at once if no plaintext waits, else before the writer's next record.
//!
//! Guarantees: plaintext counts as sent when the kernel has the whole record with its last byte, and not earlier: the server can do
//! nothing with a part of a record. What was encrypted and is not sent stays, in order, and its sender goes on with the same bytes (rule
//! 13). Leaves to others: the socket, which comes as functions that never wait, but for [`Tls::fill`]'s; and deadlines.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};

use rustls::client::UnbufferedClientConnection;

use super::explain::Facts;
use super::session::Session;
use crate::error::TlsFault;
use crate::sys::fork;
use crate::sys::rank::Rank;
use crate::sys::sync::Lock;

/// The most plaintext in one record.
const RECORD: usize = 16 * 1024;
/// How much plaintext is encrypted before the kernel is given the records.
const BATCH: usize = 4 * RECORD;
/// The size of one receive during the handshake.
const HANDSHAKE: usize = 4 * 1024;
/// A buffer that has grown beyond this is freed once it is empty.
const KEEP: usize = 128 * 1024;

/// One connection's TLS.
pub struct Tls {
    out: Lock<Outgoing>,
    session: Lock<Session>,
    /// Of the process that made it.
    generation: u32,
}

/// What a receive has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// The server has ended the session, or the connection.
    Closed,
    /// Some ciphertext, and whatever plaintext it completed.
    Part,
    /// As much ciphertext as there was room for: there may be more.
    Full,
}

/// Records on their way to the kernel.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    taken: usize,
    /// Where records with plaintext end, and how much plaintext each has.
    records: VecDeque<(usize, usize)>,
    plaintext: usize,
    gather: Vec<u8>,
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    /// Hands the records to the kernel as far as it takes them. Returns how much plaintext was in those that it has whole.
    fn drain(&mut self, send: &mut dyn FnMut(&[u8]) -> io::Result<usize>) -> (usize, io::Result<()>) {
        let mut outcome = Ok(());
        while !self.is_empty() {
            match send(&self.bytes[self.taken..]) {
                Ok(taken) => self.taken += taken,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        let mut whole = 0;
        while let Some((end, len)) = self.records.front().copied() {
            if end > self.taken {
                break;
            }
            self.records.pop_front();
            whole += len;
        }
        self.plaintext -= whole;
        if self.is_empty() {
            (self.bytes, self.taken) = (std::mem::take(&mut self.bytes), 0);
            self.bytes.clear();
            if self.bytes.capacity() > KEEP {
                self.bytes = Vec::new();
            }
        }
        (whole, outcome)
    }

    /// Encrypts a batch of plaintext, behind what is there already.
    fn encrypt(&mut self, session: &mut Session, plaintext: &mut Plaintext<'_>) -> io::Result<()> {
        let mut gather = std::mem::take(&mut self.gather);
        let (mut outcome, mut batch) = (Ok(()), 0);
        while batch < BATCH && outcome.is_ok() {
            let Some(record) = plaintext.next_record(&mut gather) else { break };
            outcome = session.encrypt(record, &mut self.bytes);
            if outcome.is_ok() {
                self.records.push_back((self.bytes.len(), record.len()));
                self.plaintext += record.len();
                batch += record.len();
            }
        }
        self.gather = gather;
        outcome
    }
}

/// Plaintext from several places in order.
struct Plaintext<'a> {
    parts: &'a [IoSlice<'a>],
    /// How much of the first part is gone.
    gone: usize,
}

impl<'a> Plaintext<'a> {
    /// What follows so many bytes.
    fn behind(parts: &'a [IoSlice<'a>], mut skip: usize) -> Self {
        let mut parts = parts;
        while let Some((first, rest)) = parts.split_first() {
            if skip < first.len() {
                break;
            }
            skip -= first.len();
            parts = rest;
        }
        Self { parts, gone: skip }
    }

    /// As much as fits into a record: a piece of a long part as it is, short ones gathered.
    fn next_record<'s>(&mut self, gather: &'s mut Vec<u8>) -> Option<&'s [u8]>
    where
        'a: 's,
    {
        let (first, rest) = self.parts.split_first()?;
        let left = first.len() - self.gone;
        if left >= RECORD || (rest.is_empty() && left > 0) {
            return Some(self.take(RECORD));
        }
        gather.clear();
        while gather.len() < RECORD && !self.parts.is_empty() {
            gather.extend_from_slice(self.take(RECORD - gather.len()));
        }
        (!gather.is_empty()).then_some(gather)
    }

    /// Takes so much of the first part at most.
    fn take(&mut self, most: usize) -> &'a [u8] {
        let Some((first, rest)) = self.parts.split_first() else { return &[] };
        let left: &'a [u8] = &first[self.gone..];
        let taken = &left[..left.len().min(most)];
        self.gone += taken.len();
        if self.gone == first.len() {
            (self.parts, self.gone) = (rest, 0);
        }
        taken
    }
}

impl Tls {
    pub(super) fn new(conn: UnbufferedClientConnection, facts: Facts) -> Self {
        Self {
            out: Lock::new(Rank::TlsOut, Outgoing::default()),
            session: Lock::new(Rank::TlsSession, Session::new(conn, facts)),
            generation: fork::generation(),
        }
    }

    /// The certificate that the server has shown, in DER.
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        self.session.lock().peer_certificate()
    }

    /// Goes on with the handshake, as far as possible without waiting; both functions return WouldBlock where they would wait. True: it is
    /// over. False: the socket has to be waited for, to be read, and to be written if [`Tls::has_unsent`].
    #[inline(never)]
    pub fn advance(
        &self,
        mut recv: impl FnMut(&mut [u8]) -> io::Result<usize>,
        mut send: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        let mut buffer = vec![0; HANDSHAKE];
        loop {
            let (ready, fault, sent) = self.step(&mut send);
            if let Some(fault) = fault {
                return Err(fault);
            }
            if ready {
                return Ok(true);
            }
            let got = match recv(&mut buffer) {
                Ok(0) => {
                    Err(io::Error::new(ErrorKind::UnexpectedEof, TlsFault::new(self.session.lock().facts.ended())))
                }
                Ok(got) => Ok(got),
                Err(error) if error.kind() == ErrorKind::WouldBlock => match sent {
                    Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
                    _ => return Ok(false),
                },
                Err(error) => Err(error),
            }?;
            self.session.lock().take_ahead(&mut buffer[..got]);
        }
    }

    /// Sends what the handshake has produced.
    fn step(&self, send: &mut dyn FnMut(&[u8]) -> io::Result<usize>) -> (bool, Option<io::Error>, io::Result<()>) {
        let mut out = self.out.lock();
        let mut session = self.session.lock();
        session.advance(&mut |_| ());
        out.bytes.append(&mut session.produced);
        let (ready, fault) = (session.ready, session.fault());
        drop(session);
        let (_, sent) = out.drain(send);
        (ready, fault, sent)
    }

    /// Encrypts plaintext and hands it to the kernel. Returns how much is sent, as defined in the first lines of this file; the next call
    /// goes on with the bytes behind. `WouldBlock`: none.
    #[inline(never)]
    pub fn put(&self, parts: &[IoSlice<'_>], mut send: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        let mut out = self.out.lock();
        // What was encrypted before is the beginning of these parts.
        let (mut sent, mut outcome) = out.drain(&mut send);
        if outcome.is_ok() {
            let mut session = self.session.lock();
            let encrypted = out.encrypt(&mut session, &mut Plaintext::behind(parts, sent));
            drop(session);
            let (more, drained) = out.drain(&mut send);
            sent += more;
            outcome = encrypted.and(drained);
        }
        match outcome {
            // An error is met again by the next call.
            _ if sent > 0 => Ok(sent),
            Ok(()) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Whether records wait to be sent; some may hold plaintext that is not counted as sent yet.
    pub fn has_unsent(&self) -> bool {
        !self.out.lock().is_empty()
    }

    /// Whether plaintext was received that nobody has taken yet.
    pub fn is_ahead(&self) -> bool {
        !self.session.lock().ahead.is_empty()
    }

    /// Receives once into `cipher`, by a function that may wait, and hands out what can be decrypted.
    #[inline(never)]
    pub fn fill(
        &self,
        cipher: &mut [u8],
        recv: impl FnOnce(&mut [u8]) -> io::Result<usize>,
        send: impl FnMut(&[u8]) -> io::Result<usize>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Got> {
        let mut session = self.session.lock();
        if !session.ahead.is_empty() {
            sink(&std::mem::take(&mut session.ahead));
            return Ok(Got::Part);
        }
        if let Some(ended) = ended(&session) {
            return ended.map(|()| Got::Closed);
        }
        if session.receiving {
            // Another thread looks at what there is, without waiting, and is done at once.
            drop(session);
            std::thread::yield_now();
            return Ok(Got::Part);
        }
        session.receiving = true;
        drop(session);
        let received = recv(cipher);
        let mut session = self.session.lock();
        session.receiving = false;
        let got = received?;
        let mut is_any = false;
        session.closed |= got == 0;
        session.take(&mut cipher[..got], &mut |bytes| {
            is_any = true;
            sink(bytes);
        });
        let (ended, has_answer) = (ended(&session), session.has_answer());
        drop(session);
        if has_answer {
            self.answer(send);
        }
        match ended {
            // What came before the end is given out first.
            Some(ended) if !is_any => ended.map(|()| Got::Closed),
            _ if got == cipher.len() => Ok(Got::Full),
            _ => Ok(Got::Part),
        }
    }

    /// The first byte of plaintext that [`Tls::fill`] would give out, `None` at the end, `WouldBlock` without any; both functions never
    /// wait. A part of a record counts as a byte. Nothing at all: another thread receives at this moment, and only the socket can tell.
    #[inline(never)]
    pub fn look(
        &self,
        mut recv: impl FnMut(&mut [u8]) -> io::Result<usize>,
        mut send: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> Option<io::Result<Option<u8>>> {
        let mut buffer = Vec::new();
        loop {
            let mut session = self.session.lock();
            if let Some(first) = session.ahead.first() {
                return Some(Ok(Some(*first)));
            }
            if let Some(ended) = ended(&session) {
                return Some(ended.map(|()| None));
            }
            if session.receiving {
                return None;
            }
            session.receiving = true;
            drop(session);
            buffer.resize(HANDSHAKE, 0);
            let received = recv(&mut buffer);
            let mut session = self.session.lock();
            session.receiving = false;
            match received {
                Err(error) if error.kind() == ErrorKind::WouldBlock && session.has_part() => return Some(Ok(Some(0))),
                Err(error) => return Some(Err(error)),
                Ok(got) => {
                    session.closed |= got == 0;
                    session.take_ahead(&mut buffer[..got]);
                }
            }
            let has_answer = session.has_answer();
            drop(session);
            if has_answer {
                self.answer(&mut send);
            }
        }
    }

    /// Sends what receiving has produced, unless plaintext is on its way: then its sender sends this as well, because only the sender
    /// may count it.
    fn answer(&self, mut send: impl FnMut(&[u8]) -> io::Result<usize>) {
        let mut out = self.out.lock();
        if out.plaintext > 0 {
            return;
        }
        let mut session = self.session.lock();
        out.bytes.append(&mut session.produced);
        drop(session);
        // What goes wrong here goes wrong again when something is received or sent.
        let _ = out.drain(&mut send);
    }

    /// Tells the server that nothing follows, if the kernel takes that now. Nothing is sent by a forked child, whose parent goes on with the
    /// session, nor behind records that were not sent whole.
    #[inline(never)]
    pub fn end(&self, send: impl FnOnce(&[u8]) -> io::Result<usize>) {
        if self.generation != fork::generation() {
            return;
        }
        let out = self.out.lock();
        if !out.is_empty() {
            return;
        }
        let Some(record) = self.session.lock().end() else { return };
        // A server that does not get the record still sees the connection close.
        let _ = send(&record);
    }

    /// The sentence for a handshake that was not answered in time.
    pub fn unfinished(&self) -> String {
        self.session.lock().facts.unfinished()
    }
}

/// How the session has ended, if it has.
fn ended(session: &Session) -> Option<io::Result<()>> {
    match session.fault() {
        Some(fault) => Some(Err(fault)),
        None => session.closed.then_some(Ok(())),
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;
