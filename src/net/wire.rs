//! The bytes of one connection, below all its users: [`super::Conn`] waits for them, [`super::Link`] is polled, and the callers of
//! a lane share them.
//!
//! A wire has three parts, because one thread may send while another receives. [`Wire`] is the connection itself and is shared;
//! [`In`] has the received bytes and the decoder, and belongs to the thread that reads; [`Out`] has the bytes that are still to be
//! sent, and belongs to the thread that writes. A connection with one user has all three; a lane keeps `In` and `Out` under two
//! locks.
//!
//! Guarantees: after the dial only this file sends and receives over a connection; the bytes that the kernel took are counted
//! exactly; only [`Wire::fill`] and [`Wire::wait`] wait, and not longer than told; a receive buffer grows only where receives fill
//! it. Leaves to others: deadlines, what an error means and its text, and when to send.
//!
//! TLS stands here, once for all users: where the wire has a [`Tls`], it encrypts what is sent and decrypts what was received. `In`, `Out`
//! and all counts are those of the plaintext. A wire without one pays a branch for it.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::socket::{Ready, Socket};
use super::{Got, Tls};
use crate::error::{Error, Result, Status, flags};
use crate::meter::{Bytes, End, Tally};
use crate::resp::encode::Pieces;
use crate::resp::{DecodeError, Decoded, Decoder, Limits, Reply, Want};
use crate::time::Instant;

/// A send buffer that has grown beyond this is freed once it is empty.
const KEEP: usize = 256 * 1024;
/// Bytes that are handed to the kernel between two looks at the clock, where that is looked at: less than a millisecond's worth.
const PIECE: usize = 256 * 1024;

/// The part of a connection that both directions share.
#[derive(Debug)]
pub struct Wire {
    socket: Arc<Socket>,
    opened: Instant,
    tls: Option<Box<Tls>>,
    /// Of a connection whose bytes and end are counted.
    tally: Option<Box<Tally>>,
    bytes: Option<Arc<Bytes>>,
}

/// What a receive has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// The peer has ended the connection.
    Closed,
    /// Less than there was room for.
    Part,
    /// As much as there was room for: there may be more.
    Full,
    /// A piece of a large text, put straight into its reply: most likely there is more.
    Straight,
}

impl Wire {
    /// Over a socket that has just been connected.
    pub fn new(socket: Arc<Socket>) -> Self {
        Self::secured(socket, None)
    }

    /// As [`Wire::new`], with TLS, whose handshake is still to be done by [`Wire::secure`].
    pub fn secured(socket: Arc<Socket>, tls: Option<Tls>) -> Self {
        Self { socket, opened: Instant::now(), tls: tls.map(Box::new), tally: None, bytes: None }
    }

    /// Counts what goes over it from now on, and its end.
    pub fn set_tally(&mut self, tally: Tally) {
        self.bytes = Some(Arc::clone(tally.bytes()));
        self.tally = Some(Box::new(tally));
    }

    /// What it counts.
    pub fn tally(&self) -> Option<&Tally> {
        self.tally.as_deref()
    }

    /// Notes why it ends, unless that is known.
    pub fn note_end(&self, end: End) {
        self.tally.iter().for_each(|tally| tally.note_end(end));
    }

    /// Notes that it is given up, because nothing was answered since then.
    pub fn note_silence(&self, since: Instant) {
        self.tally.iter().for_each(|tally| tally.note_silence(since));
    }

    /// The end of the connection, if this side has brought it about: an end that this side causes looks to its users like one by the
    /// peer, and the peer must not be blamed for it.
    pub fn ended_here(&self, endpoint: &dyn std::fmt::Display) -> Option<Error> {
        let end = self.socket.ended_as()?;
        self.note_end(end);
        let (why, flags) = match end {
            End::Role => ("its node is not used any more", flags::FAILOVER),
            End::Closed => ("its client was closed", 0),
            _ => ("its user gave it up", 0),
        };
        let text = format!("the connection to {endpoint} was closed by this library: {why}");
        Some(Error::new(Status::Io, text).with_endpoint(endpoint).with_flags(flags))
    }

    #[inline]
    fn sent(&self, bytes: usize) {
        if let Some(counted) = &self.bytes {
            counted.count_sent(bytes);
        }
    }

    #[inline]
    fn received(&self, bytes: usize) {
        if let Some(counted) = &self.bytes {
            counted.count_received(bytes);
        }
    }

    /// Goes on with the handshake of TLS, without waiting. False: [`Wire::wait`] for input, and for room if [`Wire::has_unsent`].
    pub fn secure(&self) -> io::Result<bool> {
        self.tls.as_ref().map_or(Ok(true), |tls| tls.advance(self.recv_now(), self.send_now()))
    }

    /// Whether it has TLS.
    pub fn is_secured(&self) -> bool {
        self.tls.is_some()
    }

    /// The certificate that the server has shown, in DER.
    #[cfg(not(loom))]
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        self.tls.as_ref().and_then(|tls| tls.peer_certificate())
    }

    /// The sentence for a handshake of TLS that was not answered in time.
    pub fn unfinished(&self) -> String {
        self.tls.as_ref().map_or_else(String::new, |tls| tls.unfinished())
    }

    /// Whether records of TLS wait for room. What is in them is not counted as sent, but it can leave at any moment.
    pub fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.has_unsent())
    }

    fn recv_now(&self) -> impl FnMut(&mut [u8]) -> io::Result<usize> {
        |buffer| self.socket.recv_into(buffer, Some(Duration::ZERO))
    }

    fn send_now(&self) -> impl FnMut(&[u8]) -> io::Result<usize> {
        |bytes| self.socket.send_parts(&[IoSlice::new(bytes)])
    }

    /// When it was connected.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// The socket, to shut it down from outside.
    pub fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// The descriptor, for poll.
    pub fn fd(&self) -> RawFd {
        self.socket.fd()
    }

    /// Receives once, waiting about this long at most (`None`: no limit). `WouldBlock`: nothing came. Earlier bytes must have been
    /// decoded; the missing part of a large text goes straight into its reply.
    #[inline]
    pub fn fill(&self, input: &mut In, timeout: Option<Duration>) -> io::Result<Filled> {
        debug_assert!(input.is_empty(), "what was received before is not decoded yet");
        if let Some(tls) = &self.tls {
            return self.fill_secured(tls, input, timeout);
        }
        if let Some(received) = input.decoder.receive(|text, most| self.socket.recv_append(text, most, timeout)) {
            return received.map(|got| {
                self.received(got);
                if got == 0 { Filled::Closed } else { Filled::Straight }
            });
        }
        input.make_room();
        let got = self.socket.recv_into(&mut input.buffer, timeout)?;
        self.received(got);
        (input.start, input.end) = (0, got);
        Ok(match got {
            0 => Filled::Closed,
            got if got == input.buffer.len() => {
                input.room = input.room.saturating_mul(4).min(input.most);
                Filled::Full
            }
            _ => Filled::Part,
        })
    }

    /// As [`Wire::fill`]. Ciphertext that completes no record is a part without bytes.
    #[cold]
    fn fill_secured(&self, tls: &Tls, input: &mut In, timeout: Option<Duration>) -> io::Result<Filled> {
        let In { decoder, buffer, cipher, room, most, .. } = input;
        if *room == 0 {
            return Ok(Filled::Closed);
        }
        if cipher.len() < *room {
            cipher.resize(*room, 0);
        }
        buffer.clear();
        let recv = |cipher: &mut [u8]| self.socket.recv_into(cipher, timeout);
        let (mut got, mut recv, mut plaintext) = (None, Some(recv), 0);
        let straight = decoder.receive(|text, at_most| {
            let mut left = at_most;
            let outcome = tls.fill(cipher, recv.take().expect("called once"), self.send_now(), &mut |bytes| {
                let (now, later) = bytes.split_at(bytes.len().min(left));
                text.extend_from_slice(now);
                buffer.extend_from_slice(later);
                left -= now.len();
                plaintext += now.len();
            });
            got = Some(outcome);
            Ok(0)
        });
        let got = match (got, recv) {
            (Some(got), _) => got?,
            (None, recv) => {
                let recv = recv.expect("not called yet");
                tls.fill(cipher, recv, self.send_now(), &mut |bytes| buffer.extend_from_slice(bytes))?
            }
        };
        (input.start, input.end) = (0, input.buffer.len());
        self.received(plaintext + input.end);
        if got == Got::Full {
            *room = room.saturating_mul(4).min(*most);
        }
        Ok(match got {
            Got::Closed => Filled::Closed,
            _ if straight.is_some() => Filled::Straight,
            Got::Full => Filled::Full,
            Got::Part => Filled::Part,
        })
    }

    /// Hands bytes to the kernel, as many as it takes now. `WouldBlock`: none.
    #[inline]
    pub fn send(&self, sending: &mut Sending<'_, '_>) -> io::Result<()> {
        let taken = self.put(sending.rest)?;
        self.sent(taken);
        sending.advance(taken);
        Ok(())
    }

    /// As [`Wire::send`], but no more than a piece, because the caller looks at the clock in between: while the peer reads, the kernel takes
    /// any number of bytes in one go.
    pub fn send_piece(&self, sending: &mut Sending<'_, '_>) -> io::Result<()> {
        let mut room = PIECE;
        let mut parts = Vec::new();
        for part in sending.rest.iter() {
            let bytes = &part[..part.len().min(room)];
            parts.push(IoSlice::new(bytes));
            room -= bytes.len();
            if room == 0 {
                break;
            }
        }
        let taken = self.put(&parts)?;
        self.sent(taken);
        drop(parts);
        sending.advance(taken);
        Ok(())
    }

    /// Sends what is in the buffer, as far as the kernel takes it now.
    pub fn flush(&self, output: &mut Out) -> io::Result<()> {
        while !output.is_empty() {
            match self.put(&[IoSlice::new(output.rest())]) {
                Ok(taken) => {
                    self.sent(taken);
                    output.took(taken);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn put(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.tls {
            None => self.socket.send_parts(parts),
            Some(tls) => self.put_secured(tls, parts),
        }
    }

    #[cold]
    fn put_secured(&self, tls: &Tls, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let error = match tls.put(parts, self.send_now()) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => error,
            other => return other,
        };
        // What the server has sent before it ended the connection may say why.
        let heard = tls.look(self.recv_now(), self.send_now());
        Err(match heard {
            Some(Err(fault)) if fault.get_ref().is_some() => fault,
            _ => error,
        })
    }

    /// Waits until one of these directions is ready, or about this long.
    pub fn wait(&self, read: bool, write: bool, timeout: Option<Duration>) -> io::Result<Ready> {
        let is_ahead = read && self.tls.as_ref().is_some_and(|tls| tls.is_ahead());
        let timeout = if is_ahead { Some(Duration::ZERO) } else { timeout };
        let ready = self.socket.wait(read, write, timeout)?;
        Ok(Ready { read: ready.read || is_ahead, ..ready })
    }

    /// Whether there is something to receive at this moment, the end of the connection included.
    pub fn has_input(&self) -> bool {
        if self.tls.is_some() {
            // A record need not bring plaintext.
            return !self.peek().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        }
        !self.wait(true, false, Some(Duration::ZERO)).is_ok_and(|ready| !ready.read)
    }

    /// The first byte that [`Wire::fill`] would bring; `None` at the end of the connection. Nothing is consumed, and nothing waits.
    pub fn peek(&self) -> io::Result<Option<u8>> {
        match &self.tls {
            None => self.socket.peek_byte(),
            Some(tls) => tls.look(self.recv_now(), self.send_now()).unwrap_or_else(|| self.socket.peek_byte()),
        }
    }

    /// Whether the peer has ended or broken the connection, as far as the kernel knows by now. Nothing is consumed.
    pub fn is_closed_by_peer(&self) -> bool {
        // Behind what is still to be received, records of TLS among it, the end shows here alone.
        if self.tls.is_some() && self.socket.is_hung_up() {
            return true;
        }
        match self.peek() {
            Ok(first) => first.is_none(),
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// Ends both directions: a thread that waits on the connection is woken, and the peer is notified.
    pub fn shutdown(&self) {
        self.say_end();
        self.socket.shutdown();
        self.tally.iter().for_each(|tally| tally.ended());
    }

    /// Ends the session of TLS in order, so that the server can tell the end of the connection from a cut.
    fn say_end(&self) {
        if let Some(tls) = &self.tls {
            tls.end(self.send_now());
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.say_end();
    }
}

/// The received bytes of a connection, and the decoder that makes units of them.
#[derive(Debug)]
pub struct In {
    decoder: Decoder,
    /// Empty before the first receive, and after [`In::relax`].
    buffer: Vec<u8>,
    /// Where ciphertext is received; empty without TLS.
    cipher: Vec<u8>,
    /// How long the buffer is while it is in use, and how long it may become.
    room: usize,
    most: usize,
    /// The bytes that are not decoded yet.
    start: usize,
    end: usize,
}

impl In {
    /// For a new connection, with room for this many bytes of one receive, and for four times as many whenever a receive has filled
    /// it, up to `most`.
    pub fn new(limits: Limits, room: usize, most: usize) -> Self {
        Self { decoder: Decoder::new(limits), buffer: Vec::new(), cipher: Vec::new(), room, most, start: 0, end: 0 }
    }

    /// Receives no more than this at once from now on.
    pub fn set_most(&mut self, most: usize) {
        (self.room, self.most) = (self.room.min(most), most);
    }

    #[inline]
    fn make_room(&mut self) {
        if self.buffer.len() < self.room {
            self.buffer.resize(self.room, 0);
        }
    }

    /// Frees the buffer, and what the decoder keeps for the next unit, if nothing is under way. For connections that are mostly idle.
    pub fn relax(&mut self) {
        if self.is_empty() && self.is_between_units() {
            self.cipher = Vec::new();
            (self.buffer, self.start, self.end) = (Vec::new(), 0, 0);
            self.decoder.relax();
        }
    }

    /// Decodes the next unit of the received bytes; `None` when all are decoded and no unit is complete. To be called after each
    /// [`Wire::fill`], even if there are no bytes: a text that was received straight into its reply is completed here.
    #[inline]
    pub fn drain(&mut self, want: Want) -> std::result::Result<Option<Decoded>, DecodeError> {
        let (used, decoded) = self.decoder.decode(&self.buffer[self.start..self.end], want)?;
        self.start += used;
        Ok(decoded)
    }

    /// Whether all received bytes are decoded.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first byte that is not decoded.
    pub fn first(&self) -> Option<u8> {
        self.buffer[self.start..self.end].first().copied()
    }

    /// Takes no more bytes: those that are not decoded are dropped, and the next [`Wire::fill`] finds the connection ended.
    pub fn close(&mut self) {
        (self.buffer, self.room, self.most, self.start, self.end) = (Vec::new(), 0, 0, 0, 0);
        self.cipher = Vec::new();
    }

    /// Whether the decoder is between two units, and has met no error.
    pub fn is_between_units(&self) -> bool {
        self.decoder.is_idle()
    }

    /// The list that is complete because the connection has ended, see [`Decoder::refuse_rest`].
    pub fn refuse_rest(&mut self) -> Option<Reply> {
        self.decoder.refuse_rest()
    }
}

/// Bytes that are to be sent on a connection.
#[derive(Debug, Default)]
pub struct Out {
    bytes: Vec<u8>,
    /// How many of them the kernel has taken. It is more than there are if it has also taken some of the pieces that were sent
    /// behind them.
    taken: usize,
}

impl Out {
    /// Whether the kernel has taken all.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.taken >= self.bytes.len()
    }

    /// What the kernel has not taken yet.
    #[inline]
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// Adds bytes at the end.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Counts bytes that the kernel took from [`Out::rest`], and from what was sent behind it.
    #[inline]
    pub fn took(&mut self, count: usize) {
        self.taken += count;
    }

    /// Takes over the bytes of another buffer, which gets the memory of this one. All that was here has been taken.
    pub fn refill(&mut self, from: &mut Vec<u8>) {
        self.bytes.clear();
        self.taken = 0;
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
        std::mem::swap(&mut self.bytes, from);
    }

    /// Copies the part of the pieces behind these bytes that the kernel has not taken, so that the stream stays whole.
    pub fn keep_rest(&mut self, pieces: &Pieces<'_>) -> Result<()> {
        match self.taken.saturating_sub(self.bytes.len()) {
            0 => pieces.append_from(0, &mut self.bytes),
            gone => {
                self.bytes.clear();
                self.taken = 0;
                pieces.append_from(gone, &mut self.bytes)
            }
        }
    }
}

/// Bytes that are being sent, from one place or several in order.
pub struct Sending<'p, 'b> {
    rest: &'p mut [IoSlice<'b>],
    sent: usize,
}

impl<'p, 'b> Sending<'p, 'b> {
    /// Nothing of it is sent yet.
    #[inline]
    pub fn new(parts: &'p mut [IoSlice<'b>]) -> Self {
        let mut this = Self { rest: parts, sent: 0 };
        // Empty parts at the beginning count as sent.
        if this.rest.first().is_some_and(|part| part.is_empty()) {
            this.advance(0);
        }
        this
    }

    /// The kernel took so many bytes.
    #[inline(always)]
    fn advance(&mut self, taken: usize) {
        self.sent += taken;
        match &*self.rest {
            // Most sends are one piece, of which all is taken.
            [only] if only.len() == taken => self.rest = &mut [],
            _ => IoSlice::advance_slices(&mut self.rest, taken),
        }
    }

    /// How many bytes the kernel took.
    #[inline]
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// Whether it took all.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.rest.is_empty()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Two ends of one connection.
    fn pair() -> (Wire, Wire) {
        let (a, b) = Socket::pair().unwrap();
        (Wire::new(Arc::new(a)), Wire::new(Arc::new(b)))
    }

    fn received(wire: &Wire, into: &mut Vec<u8>) -> usize {
        let before = into.len();
        into.reserve(1 << 20);
        while wire.socket.recv_append(into, 1 << 16, Some(Duration::ZERO)).is_ok_and(|got| got > 0) {}
        into.len() - before
    }

    #[test]
    fn what_is_relaxed_keeps_no_buffer_and_loses_nothing() {
        let (wire, peer) = pair();
        let mut input = In::new(Limits::default(), 64, 64);
        let mut take = |bytes: &[u8]| {
            peer.socket.send_parts(&[IoSlice::new(bytes)]).unwrap();
            wire.fill(&mut input, None).unwrap();
            let decoded = input.drain(Want::One).unwrap();
            input.relax();
            (input.buffer.capacity(), decoded.is_some())
        };
        assert_eq!(take(b"*2\r\n+one\r\n"), (64, false), "a unit is under way");
        assert_eq!(take(b"+two\r\n"), (0, true));
        assert_eq!(take(b"$-1\r"), (64, false), "within a line");
        assert_eq!(take(b"\n"), (0, true));
        assert_eq!(take(b"+three\r\n+four\r\n"), (64, true), "four is not decoded yet");
        assert!(
            matches!(input.drain(Want::One), Ok(Some(Decoded::Reply(four))) if four.bytes(0) == Some(b"four".as_slice()))
        );
    }

    #[test]
    fn a_buffer_that_was_filled_is_longer_the_next_time_up_to_its_bound() {
        let (wire, peer) = pair();
        let mut input = In::new(Limits::default(), 8, 100);
        peer.socket.send_parts(&[IoSlice::new(&b"+ok\r\n".repeat(100))]).unwrap();
        let mut lengths = Vec::new();
        while matches!(wire.fill(&mut input, Some(Duration::ZERO)), Ok(Filled::Full)) {
            lengths.push(input.buffer.len());
            while input.drain(Want::One).unwrap().is_some() {}
        }
        assert_eq!(lengths, [8, 32, 100, 100, 100, 100]);
    }

    fn numbers(count: usize) -> Vec<u8> {
        (0..count).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn a_piece_is_all_that_is_sent_between_two_looks_at_the_clock() {
        let (near, far) = pair();
        let all = numbers(3 * PIECE);
        let mut parts = [IoSlice::new(&all[..5]), IoSlice::new(&all[5..PIECE + 9]), IoSlice::new(&all[PIECE + 9..])];
        let (mut sending, mut heard) = (Sending::new(&mut parts), Vec::new());
        while !sending.is_done() {
            let before = sending.sent();
            near.send_piece(&mut sending).unwrap();
            assert!((1..=PIECE).contains(&(sending.sent() - before)));
            received(&far, &mut heard);
        }
        assert!(heard == all);
    }

    #[test]
    fn what_the_kernel_does_not_take_stays_and_goes_out_in_order() {
        let (near, far) = pair();
        let (all, mut out, mut heard) = (numbers(4 << 20), Out::default(), Vec::new());
        let (first, second) = all.split_at(3 << 20);
        out.push(first);
        near.flush(&mut out).unwrap();
        assert!(!out.is_empty() && out.rest().len() < first.len(), "the socket is full");
        out.push(second);
        while !out.is_empty() {
            assert!(received(&far, &mut heard) > 0);
            near.flush(&mut out).unwrap();
        }
        received(&far, &mut heard);
        assert!(heard == all && out.rest().is_empty());
        drop(far);
        out.push(b"x");
        assert!(near.flush(&mut out).is_err() && out.rest() == b"x");
    }

    #[test]
    fn of_what_is_sent_behind_the_buffer_the_rest_is_kept() {
        let text = numbers(50_000);
        let args: [&[u8]; 2] = [b"ECHO", &text];
        let pieces = Pieces::of(&args).unwrap();
        let whole: Vec<u8> = pieces.iter().flatten().copied().collect();
        // Within the buffer, at its end, within a piece, and all of it.
        for taken in [0, 3, 10, 17, 10 + 40_000, 10 + whole.len()] {
            let mut out = Out::default();
            out.refill(&mut b"0123456789".to_vec());
            out.took(taken);
            out.keep_rest(&pieces).unwrap();
            assert!(out.rest() == &[&b"0123456789"[..], &whole].concat()[taken..], "{taken}");
        }
    }

    #[test]
    fn parts_are_sent_to_the_end_and_counted() {
        let (near, far) = pair();
        let mut parts = [&b""[..], b"ab", b"", b"cde"].map(IoSlice::new);
        let mut sending = Sending::new(&mut parts);
        while !sending.is_done() {
            near.send(&mut sending).unwrap();
        }
        assert_eq!(sending.sent(), 5);
        let mut heard = Vec::new();
        received(&far, &mut heard);
        assert_eq!(heard, b"abcde");
        assert!(Sending::new(&mut [IoSlice::new(b"")]).is_done());
    }

    #[test]
    fn units_come_out_however_the_bytes_came() {
        let (near, far) = pair();
        let large = numbers(200_000);
        let mut out = Out::default();
        out.push(&[b"+a\r\n>1\r\n+p\r\n$200000\r\n", &large[..], b"\r\n:7\r\n"].concat());
        let (mut input, mut units, mut ways) = (In::new(Limits::default(), 64, 64), Vec::new(), Vec::new());
        while units.len() < 4 {
            far.flush(&mut out).unwrap();
            ways.push(near.fill(&mut input, Some(Duration::from_secs(20))).unwrap());
            while let Some(unit) = input.drain(Want::One).unwrap() {
                units.push(unit);
            }
            assert!(input.is_empty() && input.first().is_none());
        }
        let [Decoded::Reply(a), Decoded::Push(_), Decoded::Reply(text), Decoded::Reply(seven)] = &units[..] else {
            panic!("{units:?}")
        };
        assert!(a.bytes(0) == Some(b"a") && text.bytes(0) == Some(&large[..]) && seven.int(0) == Some(7));
        assert!(ways[0] == Filled::Full && ways.contains(&Filled::Straight) && ways.last() == Some(&Filled::Part));
        assert!(input.is_between_units() && !near.has_input() && !near.is_closed_by_peer());
        let silent = near.fill(&mut input, Some(Duration::ZERO)).unwrap_err();
        assert_eq!(silent.kind(), ErrorKind::WouldBlock);
        drop(far);
        assert!(near.has_input() && near.is_closed_by_peer());
        assert_eq!(near.fill(&mut input, None).unwrap(), Filled::Closed);
    }

    #[test]
    fn what_is_closed_takes_nothing_in_any_more() {
        let (near, far) = pair();
        let (mut input, mut out) = (In::new(Limits::default(), 64, 64), Out::default());
        out.push(b"+a\r\n+b\r\n");
        far.flush(&mut out).unwrap();
        near.fill(&mut input, None).unwrap();
        assert!(input.drain(Want::One).unwrap().is_some());
        assert_eq!(input.first(), Some(b'+'));
        input.close();
        out.push(b"+c\r\n");
        far.flush(&mut out).unwrap();
        assert!(input.drain(Want::One).unwrap().is_none());
        assert_eq!(near.fill(&mut input, Some(Duration::ZERO)).unwrap(), Filled::Closed);
    }
}
