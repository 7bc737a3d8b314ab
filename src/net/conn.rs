//! A connection with one user: handshakes, loans and sessions run on it.
//!
//! Guarantees: a connection from [`Conn::open`] has completed the handshake; no call on it exceeds its deadline by more than the
//! rounding of a receive timeout; a connection on which anything went wrong in the middle of a reply is broken and stays so. Leaves
//! to others: what a failure means for the command that met it.

use super::Connector;
use super::handshake::{self, Expect, Handshake, HandshakeOptions, ServerInfo, Step};
use super::socket::{Ready, Socket};
use super::wire::{Filled, In, Sending, Wire};
use crate::config::{ClientSettings, Endpoint, SentinelSettings, TcpSettings};
use crate::error::{Error, Result, Status, flags};
use crate::meter::{End, NodeMeter};
use crate::resp::{DecodeError, Decoded, Limits, Reply, Want};
use crate::time::{Deadline, WriteLease};
use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The size of the first receive: most connections never need more.
const RECEIVE: usize = 4 * 1024;
/// For how long what is there already is read behind the deadline.
const LATE: Duration = Duration::from_millis(100);
/// The size of a receive where the ones before were filled.
const MOST_RECEIVED: usize = 64 * 1024;

/// How to open a connection.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Options of the TCP socket.
    pub tcp: TcpSettings,
    /// Where it is to be encrypted.
    pub tls: Option<Arc<Connector>>,
    /// Limits for what the server may send.
    pub limits: Limits,
    /// The handshake.
    pub handshake: HandshakeOptions,
    /// The limit for connecting and the handshake together.
    pub timeout_connect: Duration,
    /// Decides in the end whether the connection may be used.
    pub admit: Option<Arc<dyn Admit>>,
}

impl ConnectOptions {
    /// For a data node, under a client's settings.
    pub fn of_node(settings: &ClientSettings, expect: Expect) -> Self {
        Self {
            tcp: settings.tcp,
            tls: Connector::of(&settings.tls),
            limits: settings.limits,
            handshake: HandshakeOptions::of_node(settings, expect),
            timeout_connect: settings.timeout_connect,
            admit: None,
        }
    }

    /// For a Sentinel that a program asks, under the settings for Sentinels.
    pub fn of_sentinel(settings: &SentinelSettings) -> Self {
        Self {
            tcp: settings.tcp,
            tls: Connector::of(&settings.tls),
            limits: settings.limits,
            handshake: HandshakeOptions::of_sentinel(settings),
            timeout_connect: settings.timeout,
            admit: None,
        }
    }

    /// Whether a connection that was opened with `others` is as good as one that is opened with these options.
    pub fn would_have_opened(&self, conn: &Conn, others: &Self) -> bool {
        (self.tcp, self.limits, &self.tls) == (others.tcp, others.limits, &others.tls)
            && self.admit.is_none()
            && self.handshake.would_have_got(&others.handshake, &conn.info)
    }
}

/// Decides whether a connection may be used after its handshake.
pub trait Admit: fmt::Debug + Send + Sync {
    /// Whether it may be used. The server may be asked more before the deadline.
    fn admit(&self, conn: &mut Conn, deadline: Deadline) -> Result<()>;
}

/// Why sending stopped, and how many bytes the kernel had taken by then.
#[derive(Debug)]
pub struct SendError {
    /// Bytes handed to the kernel.
    pub sent: usize,
    /// What happened.
    pub error: Error,
}

/// An open connection that belongs to one caller at a time.
pub struct Conn {
    wire: Wire,
    // Boxes: a connection is moved through many frames of a caller's stack.
    input: Box<In>,
    info: Box<ServerInfo>,
    endpoint: Endpoint,
    broken: AtomicBool,
    carries_transactions: bool,
}

impl Conn {
    /// Connects and shakes hands.
    pub fn open(endpoint: &Endpoint, options: &ConnectOptions, deadline: Deadline) -> Result<Self> {
        Self::open_noted(endpoint, options, deadline, &|_| ())
    }

    /// As [`Conn::open`]. `note` is called with each socket before anything waits for it, so that the attempt can be ended from
    /// outside.
    pub fn open_noted(
        endpoint: &Endpoint,
        options: &ConnectOptions,
        deadline: Deadline,
        note: &dyn Fn(&Arc<Socket>),
    ) -> Result<Self> {
        let step = Deadline::after(deadline.left_or(options.timeout_connect));
        let opened = Self::greeted(endpoint, options, step, note);
        opened.map_err(|error| Self::not_opened(error, endpoint, deadline))
    }

    fn greeted(
        endpoint: &Endpoint,
        options: &ConnectOptions,
        deadline: Deadline,
        note: &dyn Fn(&Arc<Socket>),
    ) -> Result<Self> {
        // Before the dial, because what is wrong with its files or names is so without a server.
        let tls = match (&options.tls, endpoint) {
            (Some(connector), Endpoint::Tcp { .. }) => Some(connector.begin(endpoint)?),
            _ => None,
        };
        let mut conn = Self {
            wire: Wire::secured(Socket::connect(endpoint, &options.tcp, deadline, note)?, tls),
            input: Box::new(In::new(options.limits, RECEIVE, MOST_RECEIVED)),
            info: Box::new(ServerInfo::unknown()),
            endpoint: endpoint.clone(),
            broken: AtomicBool::new(false),
            carries_transactions: false,
        };
        conn.secure(deadline)?;
        let talked = conn.shake_hands(&options.handshake, deadline);
        talked.map_err(|error| {
            let after = deadline.elapsed().as_millis();
            error.in_context(format_args!("handshake with {endpoint}")).with_time(after, "")
        })?;
        if let Some(check) = &options.admit {
            check.admit(&mut conn, deadline)?;
        }
        Ok(conn)
    }

    /// The handshake of TLS, if there is one.
    fn secure(&self, deadline: Deadline) -> Result<()> {
        let what = || format!("TLS handshake with {}", self.endpoint);
        let after = || deadline.elapsed().as_millis();
        let failed = |error: &io::Error| Error::from_io(Status::Io, what(), error).with_time(after(), "");
        loop {
            // By the time before the attempt: after a stop of the process what has come is read.
            let left = deadline.left();
            if self.wire.secure().map_err(|error| failed(&error))? {
                return Ok(());
            }
            if left == Some(Duration::ZERO) {
                return Err(Error::new(Status::Timeout, format!("{}: {}", what(), self.wire.unfinished()))
                    .with_time(after(), ""));
            }
            self.wire.wait(true, self.wire.has_unsent(), left).map_err(|error| failed(&error))?;
        }
    }

    fn shake_hands(&mut self, options: &HandshakeOptions, deadline: Deadline) -> Result<()> {
        let mut handshake = Handshake::new(options.clone());
        let first = handshake.first();
        let sent = self.send_all(&first, deadline).map_err(|failed| failed.error);
        let mut next = sent.and_then(|()| self.recv(Want::One, deadline)).map_err(|error| self.perhaps_tls(error));
        loop {
            let reply = next?;
            match handshake.feed(&reply)? {
                Step::More => {}
                Step::Send(bytes) => self.send_all(&bytes, deadline).map_err(|failed| failed.error)?,
                Step::Done(info) => {
                    *self.info = info;
                    return Ok(());
                }
            }
            next = self.recv(Want::One, deadline);
        }
    }

    /// Says what the first answer may mean that was none.
    fn perhaps_tls(&self, error: Error) -> Error {
        let is_plain = !self.wire.is_secured() && matches!(self.endpoint, Endpoint::Tcp { .. });
        let is_alert = self.input.first() == Some(handshake::TLS_ALERT);
        match is_plain && (error.status() == Status::Io || is_alert) {
            true => error.with_note(handshake::perhaps_tls("tls")),
            false => error,
        }
    }

    /// Until a connection is open any failure is "cannot connect", and nothing has been executed.
    fn not_opened(error: Error, endpoint: &Endpoint, deadline: Deadline) -> Error {
        let error = error.with_endpoint(endpoint);
        let timed_out = error.status() == Status::Timeout || error.errno() == libc::ETIMEDOUT;
        match error.status() {
            Status::Timeout | Status::Connect if timed_out && deadline.is_over() => {
                error.with_status(Status::Timeout).with_flags(flags::RETRYABLE)
            }
            Status::Timeout => {
                let cause = io::Error::from_raw_os_error(libc::ETIMEDOUT);
                Error::from_io(Status::Connect, error.message(), &cause)
                    .with_endpoint(endpoint)
                    .with_flags(flags::RETRYABLE)
            }
            Status::Io => error.with_status(Status::Connect).with_flags(flags::RETRYABLE),
            _ => error,
        }
    }

    /// Sends all of it. The deadline is checked only when the kernel takes no more.
    pub fn send_all(&self, bytes: &[u8], deadline: Deadline) -> std::result::Result<(), SendError> {
        self.send_all_parts(&mut [IoSlice::new(bytes)], deadline)
    }

    /// As [`Conn::send_all`], from several places in order.
    pub fn send_all_parts(&self, parts: &mut [IoSlice<'_>], deadline: Deadline) -> std::result::Result<(), SendError> {
        let mut sending = Sending::new(parts);
        while !sending.is_done() {
            let outcome = match self.wire.send(&mut sending) {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_for_room(deadline),
                Err(error) => Err(self.failed("send to", &error, deadline)),
            };
            if let Err(error) = outcome {
                self.broken.store(true, Ordering::Relaxed);
                return Err(SendError { sent: sending.sent(), error });
            }
        }
        Ok(())
    }

    fn wait_for_room(&self, deadline: Deadline) -> Result<()> {
        if deadline.is_over() {
            return Err(self.timed_out("takes no more bytes", deadline));
        }
        let waited = self.wire.wait(false, true, deadline.left());
        waited.map(|_| ()).map_err(|error| self.failed("send to", &error, deadline))
    }

    /// Sends a unit and receives its replies, both at once: the server may wait for its replies to be read, or limit how many are
    /// unread, so they are read while the rest is sent. What the server sent before it ended the connection counts more than the
    /// error that was seen here. A unit that was answered before all of it was sent leaves the connection broken. Under a lease
    /// nothing is handed to the kernel once it is over: FENCED if nothing had been; otherwise the connection is broken.
    pub fn exchange(
        &mut self,
        parts: &mut [IoSlice<'_>],
        want: Want,
        lease: Option<&WriteLease>,
        deadline: Deadline,
    ) -> std::result::Result<Reply, SendError> {
        let mut sending = Sending::new(parts);
        while !sending.is_done() {
            if lease.is_some_and(WriteLease::is_over) {
                return Err(self.held_back(sending.sent(), self.wire.has_unsent()));
            }
            let taken = if lease.is_some() { self.wire.send_piece(&mut sending) } else { self.wire.send(&mut sending) };
            let early = match taken {
                Ok(()) if sending.is_done() => Ok(None),
                Ok(()) => self.read_or_wait(want, deadline),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.read_or_wait(want, deadline),
                Err(error) => {
                    let heard = self.try_recv(want).ok().flatten();
                    heard.map_or_else(|| Err(self.failed("send to", &error, deadline)), |reply| Ok(Some(reply)))
                }
            };
            let ended = match early {
                Ok(None) => continue,
                Ok(Some(reply)) => Ok(reply),
                Err(error) => Err(SendError { sent: sending.sent(), error }),
            };
            self.broken.store(true, Ordering::Relaxed);
            return ended;
        }
        let sent = sending.sent();
        self.recv(want, deadline).map_err(|error| SendError { sent, error })
    }

    /// The lease ended before all was sent. `half_sent`: a part of it was encrypted and cannot be taken back.
    fn held_back(&self, sent: usize, half_sent: bool) -> SendError {
        let error = match sent {
            0 if !half_sent => {
                Error::new(Status::Fenced, format!("not sent to {}: writes are held back", self.endpoint))
                    .with_flags(flags::RETRYABLE)
            }
            _ => {
                self.broken.store(true, Ordering::Relaxed);
                let text = format!("writes are held back while bytes for {} were being sent", self.endpoint);
                Error::new(Status::Io, text)
            }
        };
        SendError { sent, error: error.with_endpoint(&self.endpoint) }
    }

    /// Between two sends: waits until one of the directions is ready, and reads what is there. Returns the unit's replies if they
    /// are complete.
    fn read_or_wait(&mut self, want: Want, deadline: Deadline) -> Result<Option<Reply>> {
        if deadline.is_over() {
            // After a stop of this process what has come is read; nothing more is sent.
            return self.try_recv(want)?.map(Some).ok_or_else(|| self.timed_out("takes no more bytes", deadline));
        }
        let ready = self.wire.wait(true, true, deadline.left());
        match ready.map_err(|error| self.failed("send to", &error, deadline))? {
            Ready { read: true, .. } => self.try_recv(want),
            _ => Ok(None),
        }
    }

    /// Receives the next unit of replies. Out-of-band messages are dropped. The errors carry no flags: the caller knows what was
    /// sent.
    pub fn recv(&mut self, want: Want, deadline: Deadline) -> Result<Reply> {
        let received = self.receive(want, deadline);
        if received.is_err() {
            self.broken.store(true, Ordering::Relaxed);
        }
        received
    }

    /// The next unit, if it is there already. Does not wait.
    pub fn try_recv(&mut self, want: Want) -> Result<Option<Reply>> {
        loop {
            match self.decoded(want) {
                Ok(None) if !self.wire.has_input() => return Ok(None),
                Ok(None) => match self.fill(Deadline::after(Duration::ZERO)) {
                    Ok(()) => {}
                    Err(error) => return self.input.refuse_rest().map(Some).ok_or(error),
                },
                other => return other,
            }
        }
    }

    fn receive(&mut self, want: Want, deadline: Deadline) -> Result<Reply> {
        let mut late: Option<Instant> = None;
        loop {
            if let Some(reply) = self.decoded(want)? {
                return Ok(reply);
            }
            // What has come in time is read, also after a stop of the process, but not what comes without end.
            if deadline.is_over() && late.get_or_insert_with(Instant::now).elapsed() >= LATE {
                self.broken.store(true, Ordering::Relaxed);
                return Err(self.timed_out("has not answered, though it goes on sending", deadline));
            }
            if let Err(error) = self.fill(deadline) {
                self.broken.store(true, Ordering::Relaxed);
                return self.input.refuse_rest().ok_or(error);
            }
        }
    }

    /// Decodes the received bytes.
    fn decoded(&mut self, want: Want) -> Result<Option<Reply>> {
        loop {
            match self.input.drain(want).map_err(|error| self.undecodable(&error))? {
                Some(Decoded::Reply(reply)) => return Ok(Some(reply)),
                Some(Decoded::Skipped) => return Ok(Some(Reply::null())),
                Some(Decoded::Push(_)) => {}
                None => return Ok(None),
            }
        }
    }

    fn fill(&mut self, deadline: Deadline) -> Result<()> {
        loop {
            // By the time before the read: after a stop of the process what has come is read.
            let left = deadline.left();
            match self.wire.fill(&mut self.input, left) {
                Ok(Filled::Closed) => {
                    if let Some(error) = self.wire.ended_here(&self.endpoint) {
                        return Err(error);
                    }
                    self.wire.note_end(End::Lost);
                    let closed = io::Error::from_raw_os_error(libc::ECONNRESET);
                    let what = format!("connection closed by {}", self.endpoint);
                    return Err(Error::from_io(Status::Io, what, &closed).with_endpoint(&self.endpoint));
                }
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if left == Some(Duration::ZERO) {
                        return Err(self.timed_out("has not answered", deadline));
                    }
                }
                Err(error) => return Err(self.failed("receive from", &error, deadline)),
            }
        }
    }

    /// Sends, then receives one unit.
    pub fn request(&mut self, bytes: &[u8], want: Want, deadline: Deadline) -> Result<Reply> {
        self.send_all(bytes, deadline).map_err(|failed| failed.error)?;
        self.recv(want, deadline)
    }

    /// Counts what goes over it from now on, and its end, for this node.
    pub fn count_for(&mut self, node: &Arc<NodeMeter>) {
        self.wire.set_tally(node.opened());
    }

    /// Notes why it ends, unless that is known.
    pub fn note_end(&self, end: End) {
        self.wire.note_end(end);
    }

    /// What the handshake has found out about the server.
    pub fn info(&self) -> &ServerInfo {
        &self.info
    }

    /// Whether it is known to carry transactions.
    pub fn carries_transactions(&self) -> bool {
        self.carries_transactions
    }

    /// Notes whether it carries transactions.
    pub fn note_transactions(&mut self, carries: bool) {
        self.carries_transactions = carries;
    }

    /// Where it leads to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// When it was opened.
    pub fn opened(&self) -> Instant {
        self.wire.opened()
    }

    /// The certificate that the server has shown, in DER; `None` without TLS.
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        self.wire.peer_certificate()
    }

    /// The socket, for shutting it down from outside.
    pub fn socket(&self) -> &Arc<Socket> {
        self.wire.socket()
    }

    /// Whether something went wrong on it, or replies are left over. Then it cannot be used any more.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed) || !self.input.is_between_units()
    }

    /// Whether the peer has ended it, as far as the kernel knows by now.
    pub fn is_closed_by_peer(&self) -> bool {
        self.wire.is_closed_by_peer()
    }

    /// The end of the connection, if this side has brought it about.
    pub fn ended_here(&self) -> Option<Error> {
        self.wire.ended_here(&self.endpoint)
    }

    /// Whether it looks alive while nothing is due: no bytes, no end, no error. Bytes that were not asked for count as its end.
    pub fn is_quiet(&self) -> bool {
        !self.is_broken() && self.input.is_empty() && !self.wire.has_input()
    }

    /// Its wire, for a lane, with the bytes that were received and are not decoded yet.
    pub fn into_wire(self) -> (Wire, In) {
        (self.wire, *self.input)
    }

    fn failed(&self, what: &str, cause: &io::Error, deadline: Deadline) -> Error {
        if let Some(error) = self.wire.ended_here(&self.endpoint) {
            return error;
        }
        self.wire.note_end(End::Lost);
        let after = deadline.elapsed().as_millis();
        Error::from_io(Status::Io, format_args!("{what} {}", self.endpoint), cause)
            .with_note(format_args!(" (after {after} ms)"))
            .with_endpoint(&self.endpoint)
    }

    fn timed_out(&self, what: &str, deadline: Deadline) -> Error {
        let text = format!("{} {what} (after {} ms)", self.endpoint, deadline.elapsed().as_millis());
        Error::new(Status::Timeout, text).with_endpoint(&self.endpoint)
    }

    fn undecodable(&self, error: &DecodeError) -> Error {
        self.wire.note_end(End::Protocol);
        error.error(format!("reply of {}: {error}", self.endpoint)).with_endpoint(&self.endpoint)
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conn({:?}, {:?})", self.endpoint, self.info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Expect, Role};
    use crate::time::Passage;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    const GREETING: &[u8] = b"%1\r\n+proto\r\n:3\r\n+OK\r\n+OK\r\n*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";

    fn options(timeout_connect: u64) -> ConnectOptions {
        let timeout_connect = Duration::from_millis(timeout_connect);
        ConnectOptions { timeout_connect, ..ConnectOptions::of_node(&ClientSettings::default(), Expect::Any) }
    }

    /// A server that runs this with its only connection.
    fn server(talk: impl FnOnce(TcpStream) + Send + 'static) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || talk(listener.accept().unwrap().0));
        Endpoint::Tcp { host: "127.0.0.1".into(), port }
    }

    fn open(endpoint: &Endpoint, timeout_connect: u64, deadline: u64) -> Result<Conn> {
        Conn::open(endpoint, &options(timeout_connect), Deadline::after(Duration::from_millis(deadline)))
    }

    #[test]
    fn opens_asks_and_drops_what_comes_out_of_band() {
        let endpoint = server(|mut stream| {
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(GREETING).unwrap();
            assert_eq!(stream.read(&mut [0; 64]).unwrap(), 14);
            stream.write_all(b">2\r\n+x\r\n+y\r\n+PONG\r\n").unwrap();
            let _ = stream.read(&mut [0; 64]);
        });
        let mut conn = open(&endpoint, 5000, 5000).unwrap();
        assert!(matches!(conn.info(), ServerInfo { protocol: 3, role: Role::Primary { .. }, .. }));
        assert!(conn.is_quiet());
        let reply = conn.request(b"*1\r\n$4\r\nPING\r\n", Want::One, Deadline::after(Duration::from_secs(5))).unwrap();
        assert_eq!(reply.bytes(0), Some(b"PONG".as_slice()));
        assert!(!conn.is_broken() && conn.into_wire().1.is_empty());
    }

    #[test]
    fn row_13_a_silent_server_is_given_up_in_time() {
        for (timeout_connect, deadline, status) in [(60, 5000, Status::Connect), (5000, 60, Status::Timeout)] {
            let endpoint = server(|mut stream| while stream.read(&mut [0; 4096]).is_ok_and(|got| got > 0) {});
            let begun = Instant::now();
            let error = open(&endpoint, timeout_connect, deadline).unwrap_err();
            assert!(error.status() == status && error.has(flags::RETRYABLE), "{error:?}");
            assert!(error.endpoint() == endpoint.to_string() && error.message().contains("after"), "{error:?}");
            assert!(begun.elapsed() < Duration::from_secs(4), "the longer of the two: {:?}", begun.elapsed());
        }
    }

    #[test]
    fn a_trickle_does_not_extend_the_deadline() {
        let endpoint = server(|mut stream| {
            while stream.write_all(b"+").and_then(|()| stream.write_all(b"slow\r\n")).is_ok() {
                std::thread::sleep(Duration::from_millis(1));
                let _ = stream.write_all(b"*1\r\n*1\r\n*1\r\n");
            }
        });
        let begun = Instant::now();
        assert!(open(&endpoint, 100, 5000).is_err());
        assert!(begun.elapsed() < Duration::from_secs(4), "as long as the server talks: {:?}", begun.elapsed());
    }

    /// Without a bound the call would last as long as the server sends.
    #[test]
    fn pushes_without_end_do_not_extend_the_deadline() {
        let endpoint = server(|mut stream| {
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(GREETING).unwrap();
            let _ = stream.read(&mut [0; 64]).unwrap();
            let pushes = b">1\r\n+x\r\n".repeat(8192);
            while stream.write_all(&pushes).is_ok() {}
        });
        let mut conn = open(&endpoint, 5000, 5000).unwrap();
        let deadline = Deadline::after(Duration::from_millis(100));
        let error = conn.request(b"*1\r\n$4\r\nPING\r\n", Want::One, deadline).unwrap_err();
        assert!(error.status() == Status::Timeout && conn.is_broken(), "{error:?}");
    }

    #[test]
    fn a_server_that_hangs_up_or_talks_rubbish_is_told_so() {
        let error = open(&server(drop), 5000, 5000).unwrap_err();
        assert!(error.status() == Status::Connect && error.has(flags::RETRYABLE), "{error:?}");
        let endpoint = server(|mut stream| {
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
            let _ = stream.read(&mut [0; 4096]);
        });
        let error = open(&endpoint, 5000, 5000).unwrap_err();
        assert!(error.status() == Status::Protocol && !error.has(flags::RETRYABLE), "{error:?}");
    }

    #[test]
    fn a_peer_that_reads_nothing_ends_the_sending_in_time() {
        let endpoint = server(|mut stream| {
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(GREETING).unwrap();
            std::thread::sleep(Duration::from_secs(20));
        });
        let conn = open(&endpoint, 5000, 5000).unwrap();
        let failed = conn.send_all(&vec![0; 64 << 20], Deadline::after(Duration::from_millis(300))).unwrap_err();
        assert!(failed.sent > 0 && failed.sent < 64 << 20);
        assert!(failed.error.status() == Status::Timeout && conn.is_broken());
    }

    #[test]
    fn what_is_sent_in_parts_arrives_in_order() {
        let large: Vec<u8> = (0..9_000_000).map(|at| (at % 255) as u8).collect();
        let parts: Vec<&[u8]> = (0..200).map(|n| &large[n * 41_000..][..[0, 3, 41_000, 17_000][n % 4]]).collect();
        let (whole, mut slices) = (parts.concat(), parts.iter().map(|part| IoSlice::new(part)).collect::<Vec<_>>());
        let len = whole.len();
        let endpoint = server(move |mut stream| {
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(GREETING).unwrap();
            let mut heard = vec![0; len];
            stream.read_exact(&mut heard).unwrap();
            stream.write_all(if heard == whole { b"+same\r\n" } else { b"+other\r\n" }).unwrap();
        });
        let mut conn = open(&endpoint, 5000, 5000).unwrap();
        let deadline = Deadline::after(Duration::from_secs(20));
        conn.send_all_parts(&mut slices, deadline).unwrap();
        assert_eq!(conn.recv(Want::One, deadline).unwrap().bytes(0), Some(&b"same"[..]));
    }

    /// Sends so much, with the rest of a greeted server's connection told by `talk`.
    fn exchanged(want: Want, large: usize, talk: impl FnOnce(TcpStream) + Send + 'static) -> (Conn, Result<Reply>) {
        let endpoint = server(move |mut stream| {
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(GREETING).unwrap();
            talk(stream);
        });
        let mut conn = open(&endpoint, 5000, 5000).unwrap();
        let (bytes, deadline) = (vec![b'x'; large], Deadline::after(Duration::from_secs(20)));
        let outcome = conn.exchange(&mut [IoSlice::new(&bytes)], want, None, deadline);
        (conn, outcome.map_err(|failed| failed.error))
    }

    #[test]
    fn replies_are_read_while_the_rest_is_sent() {
        // The server says more than the sockets hold before it reads on.
        let said = 24 << 20;
        let (conn, outcome) = exchanged(Want::List(2), 24 << 20, move |mut stream| {
            stream.write_all(format!("${said}\r\n").as_bytes()).unwrap();
            stream.write_all(&vec![b'y'; said]).unwrap();
            stream.read_exact(&mut vec![0; 24 << 20]).unwrap();
            stream.write_all(b"\r\n+done\r\n").unwrap();
        });
        let reply = outcome.unwrap();
        assert_eq!((reply.bytes(1).map(<[u8]>::len), reply.bytes(2)), (Some(said), Some(&b"done"[..])));
        assert!(!conn.is_broken());
    }

    #[test]
    fn the_last_word_of_a_server_counts_more_than_the_end_of_the_connection() {
        let (conn, outcome) = exchanged(Want::One, 24 << 20, |mut stream| {
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(b"-ERR Protocol error: too long\r\n").unwrap();
        });
        assert_eq!(outcome.unwrap().error_line(0), Some(&b"ERR Protocol error: too long"[..]));
        assert!(conn.is_broken(), "the rest of what was sent is still to come");
        let (_, outcome) = exchanged(Want::List(3), 100, |mut stream| {
            stream.write_all(b":1\r\n-ERR Protocol error: too long\r\n").unwrap();
        });
        let reply = outcome.unwrap();
        assert_eq!((reply.int(1), reply.error_line(3)), (Some(1), Some(&b"ERR Protocol error: too long"[..])));
        let (_, outcome) = exchanged(Want::List(3), 24 << 20, |mut stream| {
            stream.write_all(b":1\r\n-ERR no\r\n").unwrap();
        });
        assert_eq!(outcome.unwrap_err().status(), Status::Io);
    }

    #[test]
    fn nothing_is_handed_to_the_kernel_once_the_gate_is_shut() {
        let deadline = Deadline::after(Duration::from_secs(20));
        let lease = Arc::new(WriteLease::default());
        lease.set(Passage::Until(Instant::now() + Duration::from_secs(60)));
        let (shut, read_on) = (Arc::clone(&lease), std::sync::mpsc::channel::<usize>());
        let (heard, all) = (read_on.0, read_on.1);
        let endpoint = server(move |mut stream| {
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(GREETING).unwrap();
            assert_eq!(stream.read(&mut [0; 14]).unwrap(), 14);
            stream.write_all(b"+PONG\r\n").unwrap();
            // The sender waits for room by now, or soon.
            stream.read_exact(&mut [0; 4096]).unwrap();
            shut.set(Passage::Until(Instant::now()));
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            heard.send(4096 + rest.len()).unwrap();
        });
        let mut conn = open(&endpoint, 5000, 5000).unwrap();
        let ping = b"*1\r\n$4\r\nPING\r\n";
        assert!(conn.exchange(&mut [IoSlice::new(ping)], Want::One, Some(&lease), deadline).is_ok());
        let large = vec![b'x'; 64 << 20];
        let failed = conn.exchange(&mut [IoSlice::new(&large)], Want::One, Some(&lease), deadline).unwrap_err();
        assert_eq!(failed.error.status(), Status::Io, "{}", failed.error);
        assert!(failed.sent < large.len() && conn.is_broken(), "{} bytes", failed.sent);
        drop(conn);
        assert_eq!(all.recv().unwrap(), failed.sent, "what the kernel took is counted to the byte");

        let mut conn = open(
            &server(|mut stream| {
                let _ = stream.read(&mut [0; 4096]).unwrap();
                stream.write_all(GREETING).unwrap();
                assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0, "something was sent");
            }),
            5000,
            5000,
        )
        .unwrap();
        let failed = conn.exchange(&mut [IoSlice::new(ping)], Want::One, Some(&lease), deadline).unwrap_err();
        assert_eq!((failed.sent, failed.error.status()), (0, Status::Fenced));
        assert!(failed.error.has(flags::RETRYABLE) && !conn.is_broken(), "it can serve others");
    }

    #[test]
    fn what_came_while_the_process_was_stopped_is_taken_though_the_time_is_over() {
        let endpoint = server(|mut stream| {
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(GREETING).unwrap();
            let _ = stream.read(&mut [0; 64]).unwrap();
            stream.write_all(b"+PONG\r\n").unwrap();
            let _ = stream.read(&mut [0; 64]);
        });
        let mut conn = open(&endpoint, 5000, 5000).unwrap();
        let over = Deadline::after(Duration::ZERO);
        conn.send_all(b"*1\r\n$4\r\nPING\r\n", over).unwrap();
        assert!(conn.wire.wait(true, false, Some(Duration::from_secs(20))).unwrap().read);
        assert_eq!(conn.recv(Want::One, over).unwrap().bytes(0), Some(&b"PONG"[..]));
        assert_eq!(conn.recv(Want::One, over).unwrap_err().status(), Status::Timeout);
    }
}
