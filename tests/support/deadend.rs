//! Addresses that lead nowhere: a port that refuses, and one that never completes a handshake.

use super::ports::{self, Port};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// A port without a listener, reserved while this value lives.
pub struct Refused {
    port: Port,
}

/// Connections to this address are refused at once.
pub fn refuse() -> Refused {
    Refused { port: ports::reserve() }
}

impl Refused {
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port.number)
    }
    pub fn port(&self) -> u16 {
        self.port.number
    }
}

/// An address that swallows handshakes: a listener whose queue is full, so that the kernel drops every further SYN.
pub struct Blackhole {
    port: Port,
    _listener: Socket,
    _queue: Vec<Socket>,
}

/// Connections to this address hang until their own timeout.
pub fn blackhole() -> Blackhole {
    let port = ports::reserve();
    let addr: SocketAddr = (Ipv4Addr::LOCALHOST, port.number).into();
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // A child between fork and exec may still hold the socket that tried the port.
    listener.set_reuse_address(true).expect("an option");
    listener.bind(&addr.into()).expect("the port is ours");
    listener.listen(0).expect("a listener");
    let mut queue = Vec::new();
    for _ in 0..64 {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        match filler.connect_timeout(&addr.into(), Duration::from_millis(50)) {
            Ok(()) => queue.push(filler),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Blackhole { port, _listener: listener, _queue: queue };
            }
            Err(error) => panic!("filling the queue of a blackhole: {error}"),
        }
    }
    panic!("this kernel completes handshakes although the queue of the listener is full");
}

impl Blackhole {
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port.number)
    }
    pub fn port(&self) -> u16 {
        self.port.number
    }
}
