//! Ports for the servers of a test: distinct among tests, threads and test processes of this machine.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// A port that is reserved while this value lives. An abstract Unix socket is the lock, so that nothing is left behind, even if the
/// process is killed.
pub struct Port {
    pub number: u16,
    _lock: UnixListener,
}

/// Below the range of ephemeral ports: no outgoing connection can take a port while its server is down.
const FIRST: u16 = 10_000;
const LAST: u16 = 31_999;

/// Takes the lock of a number in a name space of the kit; `None` when another test holds it.
pub fn lock(space: &str, number: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("vigie-kit-{space}-{number}")).expect("a short name");
    UnixListener::bind_addr(&name).ok()
}

/// Reserves a port without a listener.
pub fn reserve() -> Port {
    for _ in 0..10_000 {
        let number = fastrand::u16(FIRST..=LAST);
        let Some(lock) = lock("port", number) else { continue };
        let free = |addr: &str| match TcpListener::bind((addr, number)) {
            Ok(listener) => {
                // A child between fork and exec holds a copy of the descriptor: closing ours alone would leave the port taken.
                // SAFETY: the descriptor is open until the listener is dropped below.
                unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
                true
            }
            Err(error) => error.kind() != io::ErrorKind::AddrInUse,
        };
        if free("0.0.0.0") && free("::1") {
            return Port { number, _lock: lock };
        }
    }
    panic!("no free port between {FIRST} and {LAST}");
}
