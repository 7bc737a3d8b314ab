//! From an endpoint to a connected socket: resolve, then try each address in turn.
//!
//! Guarantees: ends within the deadline, whatever the resolver and the network do; the remaining time is divided fairly between the
//! addresses that are still to be tried; the error says what happened with each. Leaves to others: whether the deadline was the
//! call's or timeout.connect (a timeout is CONNECT with ETIMEDOUT here).

use super::dial::Dial;
use super::resolve;
use super::socket::Socket;
use crate::config::{Endpoint, TcpSettings};
use crate::error::{Error, Result, Status, flags, system_text};
use crate::sys::poll::{self, PollFd};
use crate::sys::thread;
use crate::time::Deadline;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to wait before a Unix socket with a full backlog is tried again: it cannot be polled.
const BACKLOG_PAUSE: Duration = Duration::from_millis(2);

impl Socket {
    /// Connects, trying each address of the endpoint until the deadline. `note` is called with each socket before anything waits
    /// for it: shutting it down from another thread ends the attempt.
    pub fn connect(
        endpoint: &Endpoint,
        tcp: &TcpSettings,
        deadline: Deadline,
        note: &dyn Fn(&Arc<Self>),
    ) -> Result<Arc<Self>> {
        match endpoint {
            Endpoint::Unix(path) => {
                let socket = unix(path, deadline).map_err(|error| failed(endpoint, &error, "", deadline))?;
                let socket = Arc::new(socket);
                note(&socket);
                Ok(socket)
            }
            Endpoint::Tcp { host, port } => {
                let addresses = resolve::resolve(host, *port, deadline)?;
                in_turn(endpoint, &addresses, tcp, deadline, note)
            }
        }
    }
}

fn in_turn(
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
    tcp: &TcpSettings,
    deadline: Deadline,
    note: &dyn Fn(&Arc<Socket>),
) -> Result<Arc<Socket>> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut earlier = String::new();
    for (tried, address) in addresses.iter().enumerate() {
        let rest = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = deadline.left().map_or(deadline, |left| deadline.within(left / rest));
        match one(address, tcp, share, note) {
            Ok(socket) => return Ok(socket),
            Err(error) => {
                if addresses.len() > 1 {
                    earlier.push_str(&format!("; {address}: {}", system_text(&error)));
                }
                last = error;
            }
        }
    }
    Err(failed(endpoint, &last, &earlier, deadline))
}

/// Tries one address within its share of the time. Takes the first of up to two connections that is there.
fn one(
    address: &SocketAddr,
    tcp: &TcpSettings,
    deadline: Deadline,
    note: &dyn Fn(&Arc<Socket>),
) -> io::Result<Arc<Socket>> {
    let mut dial = Dial::begin(*address, tcp, note)?;
    loop {
        let until_next = dial.wakes_at().map(|at| at.saturating_duration_since(Instant::now()));
        let left = [deadline.left(), until_next].into_iter().flatten().min();
        poll::wait(&mut dial.poll_fds().collect::<Vec<PollFd>>(), left)?;
        if let Some(socket) = dial.advance(tcp, note)? {
            return Ok(socket);
        }
        if deadline.is_over() {
            return Err(timed_out());
        }
    }
}

fn unix(path: &Path, deadline: Deadline) -> io::Result<Socket> {
    loop {
        match Socket::connect_unix(path) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if deadline.is_over() {
                    return Err(timed_out());
                }
                thread::sleep(deadline.left_or(BACKLOG_PAUSE));
            }
            other => return other,
        }
    }
}

fn timed_out() -> io::Error {
    io::Error::from_raw_os_error(libc::ETIMEDOUT)
}

fn failed(endpoint: &Endpoint, cause: &io::Error, each: &str, deadline: Deadline) -> Error {
    Error::from_io(Status::Connect, format_args!("cannot connect to {endpoint}"), cause)
        .with_note(each)
        .with_note(format_args!(" (after {} ms)", deadline.elapsed().as_millis()))
        .with_endpoint(endpoint)
        .with_flags(flags::RETRYABLE)
}

#[cfg(test)]
mod tests {
    use super::super::dial::full_listener;
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    fn tcp() -> TcpSettings {
        TcpSettings {
            keepalive_idle: Duration::from_secs(15),
            keepalive_interval: Duration::from_secs(5),
            keepalive_count: 3,
            user_timeout: Duration::ZERO,
        }
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(5))
    }

    #[test]
    fn the_next_address_is_tried_when_one_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        let refused = SocketAddr::from(([127, 0, 0, 2], good.port()));
        let endpoint = Endpoint::Tcp { host: "two".into(), port: good.port() };
        let socket = in_turn(&endpoint, &[refused, good], &tcp(), soon(), &|_| ()).unwrap();
        assert_eq!(socket.peer(), good.to_string());
        let error = in_turn(&endpoint, &[refused, refused], &tcp(), soon(), &|_| ()).unwrap_err();
        assert_eq!((error.status(), error.errno()), (Status::Connect, libc::ECONNREFUSED));
        assert!(error.has(flags::RETRYABLE) && error.message().contains("127.0.0.2"), "{error}");
    }

    #[test]
    fn a_lost_first_packet_costs_no_second() {
        let (listener, address, _held) = full_listener();
        let begun = std::sync::Mutex::new(Vec::new());
        let note = |socket: &Arc<Socket>| {
            begun.lock().unwrap().push(Arc::clone(socket));
            // The first packet of the first one is lost by now; there is room for another.
            while listener.accept().is_ok() {}
        };
        let socket = one(&address, &tcp(), Deadline::after(Duration::from_secs(20)), &note).unwrap();
        let begun = begun.into_inner().unwrap();
        assert_eq!(begun.len(), 2);
        assert!(Arc::ptr_eq(&socket, &begun[1]), "the first one sends again only after a second");
    }

    #[test]
    fn a_full_backlog_ends_in_a_timeout() {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let endpoint = Endpoint::Tcp { host: "127.0.0.1".into(), port: address.port() };
        let begun = Instant::now();
        let mut held = Vec::new();
        let error = loop {
            match Socket::connect(&endpoint, &tcp(), Deadline::after(Duration::from_millis(80)), &|_| ()) {
                Ok(socket) => held.push(socket),
                Err(error) => break error,
            }
        };
        assert_eq!((error.status(), error.errno()), (Status::Connect, libc::ETIMEDOUT));
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?} {}", begun.elapsed(), held.len());
    }

    #[test]
    fn a_shutdown_ends_an_attempt() {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let endpoint = Endpoint::Tcp { host: "127.0.0.1".into(), port: address.port() };
        let begun = Instant::now();
        let mut held = Vec::new();
        let error = loop {
            let ends = |socket: &Arc<Socket>| {
                let socket = Arc::clone(socket);
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(50));
                    socket.shutdown();
                });
            };
            match Socket::connect(&endpoint, &tcp(), soon(), &ends) {
                Ok(socket) => held.push(socket),
                Err(error) => break error,
            }
        };
        assert_eq!(error.status(), Status::Connect);
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }

    #[test]
    fn unix_sockets_connect_and_a_missing_one_says_so() {
        let path = std::env::temp_dir().join(format!("vigie-connect-{}.sock", std::process::id()));
        let error = Socket::connect(&Endpoint::Unix(path.clone()), &tcp(), soon(), &|_| ()).unwrap_err();
        assert_eq!((error.status(), error.errno()), (Status::Connect, libc::ENOENT));
        let listener = UnixListener::bind(&path).unwrap();
        assert!(Socket::connect(&Endpoint::Unix(path.clone()), &tcp(), soon(), &|_| ()).is_ok());
        drop(listener);
        std::fs::remove_file(path).unwrap();
    }
}
