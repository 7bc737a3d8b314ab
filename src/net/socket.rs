//! A socket, TCP (v4, v6) or Unix: the only place in the library that writes to one. After the dial only the wire calls it for
//! that; others may shut it down.
//!
//! Guarantees: no send ever raises SIGPIPE; no descriptor is inherited by an exec'd program; TCP sockets carry NODELAY, keepalive and
//! TCP_USER_TIMEOUT as configured; a receive waits at most about as long as told, a send never. One thread may
//! receive while another sends and a third shuts down. Leaves to others: deadlines (the clock is the caller's), and closing: the
//! descriptor lives as long as the last owner, because its number may be reused at once. A forked child neither shuts down nor closes
//! what its parent has opened: its own copy is closed at the fork.

use crate::config::TcpSettings;
use crate::meter::End;
use crate::sys::own::Own;
use crate::sys::poll::{self, PollFd};
use crate::sys::recv;
use socket2::{Domain, Protocol, SockAddr, SockRef, TcpKeepalive, Type};
use std::fmt;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// SIGPIPE is suppressed per send where the system can do that, and by an option that socket2 sets at creation elsewhere.
#[cfg(not(target_vendor = "apple"))]
const SEND_FLAGS: libc::c_int = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
#[cfg(target_vendor = "apple")]
const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT;

/// Parts that are handed to the kernel at once: it takes up to 1024.
const PARTS: usize = 64;

/// The shortest receive timeout: zero would mean "none" to the kernel.
const LEAST_TIMEOUT: Duration = Duration::from_millis(1);
/// The kernel counts receive timeouts in ticks of up to 10 ms, and waits one more: a wait ends earlier by this much, and poll,
/// which is exact, waits for the rest.
const TICK: Duration = Duration::from_millis(12);

/// What a wait found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// A receive would not wait.
    pub read: bool,
    /// A send would not wait.
    pub write: bool,
}

/// A connected (or connecting) stream socket.
pub struct Socket {
    inner: Own<socket2::Socket>,
    /// SO_RCVTIMEO as it is now, in nanoseconds (0: none); saves a system call per receive.
    receive_timeout: AtomicU64,
    peer: String,
    /// Why this side has ended it, as [`Socket::shutdown_as`] keeps it; 0: it has not.
    ended_as: AtomicU8,
}

impl Socket {
    /// Begins a TCP connection without waiting for it; when the socket is writable, [`Socket::connect_result`] tells the outcome.
    pub fn start(address: &SocketAddr, tcp: &TcpSettings) -> io::Result<Self> {
        let inner = socket2::Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
        set_options(&inner, tcp)?;
        inner.set_nonblocking(true)?;
        match inner.connect(&SockAddr::from(*address)) {
            Ok(()) => {}
            Err(error) if in_progress(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(Self::of(inner, address.to_string()))
    }

    fn of(inner: socket2::Socket, peer: String) -> Self {
        Self { inner: Own::new(inner), receive_timeout: AtomicU64::new(0), peer, ended_as: AtomicU8::new(0) }
    }

    /// Connects to a Unix socket. `WouldBlock`: the server's backlog is full at the moment.
    pub fn connect_unix(path: &Path) -> io::Result<Self> {
        let inner = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        inner.set_nonblocking(true)?;
        inner.connect(&SockAddr::unix(path)?)?;
        inner.set_nonblocking(false)?;
        Ok(Self::of(inner, format!("unix:{}", path.display())))
    }

    /// The outcome of a connection that was begun: to be asked once the socket is writable.
    pub fn connect_result(&self) -> io::Result<()> {
        if let Some(error) = self.inner.take_error()? {
            return Err(error);
        }
        let peer = self.inner.peer_addr()?;
        // The kernel may use the very port of a dead local server for the connection, and so connect it to itself.
        if peer.as_socket().is_some() && self.inner.local_addr()?.as_socket() == peer.as_socket() {
            return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
        }
        self.inner.set_nonblocking(false)
    }

    /// Hands bytes to the kernel, from several places in order, as many as it takes now. `WouldBlock`: none.
    #[inline]
    pub(super) fn send_parts(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            let sent = match parts {
                [one] => self.inner.send_with_flags(one, SEND_FLAGS),
                many => self.inner.send_vectored_with_flags(&many[..many.len().min(PARTS)], SEND_FLAGS),
            };
            match sent {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Receives, waiting about this long at most (`None`: no limit). `WouldBlock`: nothing came; the caller checks its clock,
    /// because the kernel may return early or late, and a timeout is rounded down so that most receives need not set it again.
    #[inline]
    pub(super) fn recv_into(&self, buf: &mut [u8], timeout: Option<Duration>) -> io::Result<usize> {
        self.recv_by(timeout, |flags| recv::recv(self.inner.as_fd(), buf, flags))
    }

    /// As [`Socket::recv_into`], behind the end of a vector: at most so much, and no more than it has reserved.
    pub(super) fn recv_append(&self, into: &mut Vec<u8>, most: usize, timeout: Option<Duration>) -> io::Result<usize> {
        self.recv_by(timeout, |flags| recv::recv_append(self.inner.as_fd(), into, most, flags))
    }

    #[inline]
    fn recv_by(
        &self,
        timeout: Option<Duration>,
        mut recv: impl FnMut(libc::c_int) -> io::Result<usize>,
    ) -> io::Result<usize> {
        match timeout {
            Some(timeout) if timeout.is_zero() => return at_once(recv),
            Some(timeout) if timeout < 2 * TICK => {
                // After a failure of poll the receive shows the error.
                let waits = self.wait(true, false, Some(timeout)).is_ok_and(|ready| !ready.read);
                return if waits { Err(io::ErrorKind::WouldBlock.into()) } else { at_once(recv) };
            }
            _ => {}
        }
        self.set_receive_timeout(timeout.map(|timeout| timeout - TICK))?;
        recv(0).map_err(|error| match error.kind() {
            // With a receive timeout a signal always interrupts, and looks like the end of the timeout.
            io::ErrorKind::Interrupted => io::ErrorKind::WouldBlock.into(),
            _ => error,
        })
    }

    /// The first byte that a receive would bring; `None` at the end of the connection. Nothing is consumed, and nothing waits.
    pub(super) fn peek_byte(&self) -> io::Result<Option<u8>> {
        let mut one = [0];
        let got = recv::recv(self.inner.as_fd(), &mut one, libc::MSG_PEEK | libc::MSG_DONTWAIT)?;
        Ok((got > 0).then_some(one[0]))
    }

    /// Waits until one of these directions is ready, or about this long.
    pub(super) fn wait(&self, read: bool, write: bool, timeout: Option<Duration>) -> io::Result<Ready> {
        let mut fds = [PollFd::new(self.fd(), read, write)];
        poll::wait(&mut fds, timeout)?;
        Ok(Ready { read: read && fds[0].readable(), write: write && fds[0].writable() })
    }

    /// Whether the peer has ended or broken the connection, even if it sent something before that was not received yet. Nothing is
    /// consumed. Not every system tells.
    pub(super) fn is_hung_up(&self) -> bool {
        let mut fds = [PollFd::for_hang_up(self.fd())];
        poll::wait(&mut fds, Some(Duration::ZERO)).is_ok() && fds[0].is_reported()
    }

    /// Ends both directions: a thread that waits on the socket is woken, and the peer is notified. The descriptor stays open.
    pub fn shutdown(&self) {
        if self.inner.is_here() {
            // A socket that is not connected any more has nothing to end.
            let _ = self.inner.shutdown(Shutdown::Both);
        }
    }

    /// As [`Socket::shutdown`], while others use it: they see the same as if the peer had ended it, and learn here that it did not. The
    /// first reason stays.
    pub fn shutdown_as(&self, end: End) {
        let _ = self.ended_as.compare_exchange(0, end as u8 + 1, Ordering::AcqRel, Ordering::Acquire);
        self.shutdown();
    }

    /// Why this side has ended it under its users; `None`: it has not.
    pub fn ended_as(&self) -> Option<End> {
        let at = usize::from(self.ended_as.load(Ordering::Acquire)).checked_sub(1)?;
        End::TABLE.get(at).map(|info| info.end)
    }

    /// The descriptor, for poll.
    pub fn fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }

    /// The address that it is connected to, as text.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    #[inline(always)]
    fn set_receive_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(round_down);
        let nanos = timeout.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        if self.receive_timeout.load(Ordering::Relaxed) != nanos {
            self.inner.set_read_timeout(timeout)?;
            self.receive_timeout.store(nanos, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({}, fd {})", self.peer, self.fd())
    }
}

/// Rounds down to a sixteenth of the greatest power of two, so that a deadline that shrinks by microseconds keeps the same timeout.
fn round_down(timeout: Duration) -> Duration {
    let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    let step = (1 << nanos.checked_ilog2().unwrap_or(0)) / 16;
    let rounded = if step == 0 { nanos } else { nanos - nanos % step };
    Duration::from_nanos(rounded).max(LEAST_TIMEOUT)
}

/// Receives what is there, without waiting.
fn at_once(mut recv: impl FnMut(libc::c_int) -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match recv(libc::MSG_DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn in_progress(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || error.kind() == io::ErrorKind::Interrupted
        || error.raw_os_error() == Some(libc::EINPROGRESS)
}

fn set_options(socket: &socket2::Socket, tcp: &TcpSettings) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    if !tcp.keepalive_idle.is_zero() {
        let mut keepalive = TcpKeepalive::new().with_time(tcp.keepalive_idle);
        if !tcp.keepalive_interval.is_zero() {
            keepalive = keepalive.with_interval(tcp.keepalive_interval);
        }
        if tcp.keepalive_count > 0 {
            keepalive = keepalive.with_retries(tcp.keepalive_count);
        }
        socket.set_tcp_keepalive(&keepalive)?;
    }
    #[cfg(target_os = "linux")]
    if !tcp.user_timeout.is_zero() {
        socket.set_tcp_user_timeout(Some(tcp.user_timeout))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::Instant;

    impl Socket {
        /// Two sockets joined to each other.
        pub(crate) fn pair() -> io::Result<(Self, Self)> {
            let (a, b) = socket2::Socket::pair(Domain::UNIX, Type::STREAM, None)?;
            Ok((Self::of(a, String::from("pair")), Self::of(b, String::from("pair"))))
        }
    }

    fn tcp() -> TcpSettings {
        TcpSettings {
            keepalive_idle: Duration::from_secs(1),
            keepalive_interval: Duration::from_secs(3),
            keepalive_count: 5,
            user_timeout: Duration::from_millis(7000),
        }
    }

    fn connected(listener: &TcpListener) -> Socket {
        let socket = Socket::start(&listener.local_addr().unwrap(), &tcp()).unwrap();
        assert!(socket.wait(false, true, Some(Duration::from_secs(5))).unwrap().write);
        socket.connect_result().unwrap();
        socket
    }

    #[test]
    fn row_16_keepalive_options_are_set_as_configured() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = connected(&listener);
        assert!(socket.inner.keepalive().unwrap() && socket.inner.tcp_nodelay().unwrap());
        assert_eq!(socket.inner.tcp_keepalive_time().unwrap(), Duration::from_secs(1));
        assert_eq!(socket.inner.tcp_keepalive_interval().unwrap(), Duration::from_secs(3));
        assert_eq!(socket.inner.tcp_keepalive_retries().unwrap(), 5);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.inner.tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_receive_ends_about_when_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = connected(&listener);
        let begun = Instant::now();
        let error = socket.recv_into(&mut [0; 8], Some(Duration::from_millis(40))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(begun.elapsed() >= Duration::from_millis(20), "{:?}", begun.elapsed());
        assert_eq!(socket.recv_into(&mut [0; 8], Some(Duration::ZERO)).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn sending_to_a_closed_peer_is_an_error_and_no_signal() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = connected(&listener);
        drop(listener.accept().unwrap());
        assert_eq!(socket.recv_into(&mut [0; 8], None).unwrap(), 0);
        let mut failed = false;
        for _ in 0..1000 {
            failed |= socket.send_parts(&[IoSlice::new(b"x")]).is_err();
            if failed {
                break;
            }
            socket.wait(false, false, Some(Duration::from_millis(1))).unwrap();
        }
        assert!(failed);
    }

    #[test]
    fn a_shutdown_wakes_a_receiver() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = connected(&listener);
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| socket.recv_into(&mut [0; 8], None));
            socket.shutdown();
            assert_eq!(receiver.join().unwrap().unwrap(), 0);
        });
    }

    #[test]
    fn a_refused_connection_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let outcome = Socket::start(&address, &tcp()).and_then(|socket| {
            socket.wait(false, true, Some(Duration::from_secs(5)))?;
            socket.connect_result()
        });
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn timeouts_are_rounded_down_by_less_than_a_sixteenth() {
        for micros in [1u64, 999, 1000, 1001, 4999, 123_456, 5_000_000, 4_999_999] {
            let asked = Duration::from_micros(micros);
            let rounded = round_down(asked);
            assert!(rounded <= asked.max(LEAST_TIMEOUT) && rounded >= LEAST_TIMEOUT);
            assert!(asked <= LEAST_TIMEOUT || asked - rounded <= asked / 16, "{asked:?} {rounded:?}");
        }
        assert_eq!(round_down(Duration::from_millis(4999)), round_down(Duration::from_millis(4990)));
        assert_eq!(round_down(Duration::ZERO), LEAST_TIMEOUT);
    }
}
