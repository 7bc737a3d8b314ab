//! Listeners and streams for the kit's servers: TCP and Unix alike, stoppable at any time.

use super::ports::{self, Port};
use super::proc;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Where a server listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listen {
    #[default]
    V4,
    V6,
    Unix,
}

/// A reserved place: its lock stays while the server is down, so that it can come back at the same address.
pub enum Place {
    Tcp(SocketAddr, Port),
    Unix(PathBuf),
}

impl Place {
    pub fn reserve(listen: Listen) -> Place {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let tcp = |ip: &str| {
            let port = ports::reserve();
            Place::Tcp(SocketAddr::new(ip.parse().expect("an address"), port.number), port)
        };
        match listen {
            Listen::V4 => tcp("127.0.0.1"),
            Listen::V6 => tcp("::1"),
            Listen::Unix => {
                let name = format!("vigie-{}-{}.sock", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
                Place::Unix(std::env::temp_dir().join(name))
            }
        }
    }
    /// `host:port`, `[v6]:port` or `unix:/path`.
    pub fn addr(&self) -> String {
        match self {
            Place::Tcp(addr, _) => addr.to_string(),
            Place::Unix(path) => format!("unix:{}", path.display()),
        }
    }
    /// Zero for a Unix socket.
    pub fn port(&self) -> u16 {
        match self {
            Place::Tcp(addr, _) => addr.port(),
            Place::Unix(_) => 0,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Place::Unix(path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Connects to `host:port`, `[v6]:port` or `unix:/path`; waits a second at most.
    pub fn connect(addr: &str) -> io::Result<Stream> {
        match addr.strip_prefix("unix:") {
            Some(path) => Ok(Stream::Unix(UnixStream::connect(path)?)),
            None => {
                let addr = addr.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
                Stream::tcp(TcpStream::connect_timeout(&addr, Duration::from_secs(1))?)
            }
        }
    }
    fn tcp(stream: TcpStream) -> io::Result<Stream> {
        stream.set_nodelay(true)?;
        Ok(Stream::Tcp(stream))
    }
    pub fn try_clone(&self) -> io::Result<Stream> {
        Ok(match self {
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone()?),
            Stream::Unix(stream) => Stream::Unix(stream.try_clone()?),
        })
    }
    /// Ends both directions; wakes a thread that reads or writes.
    pub fn shutdown(&self) {
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
    pub fn shutdown_write(&self) {
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }
    /// Makes the peer see a reset: connecting a TCP socket to no address drops the connection at once, even if another process
    /// holds a descriptor of it.
    pub fn reset(&self) {
        let Stream::Tcp(stream) = self else { return self.shutdown() };
        let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as u16, sa_data: [0; 14] };
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let size = size_of_val(&linger) as u32;
        // SAFETY: both structures live on this stack frame and their true sizes are given.
        let gone = unsafe {
            libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), size);
            libc::connect(stream.as_raw_fd(), &raw const nowhere, size_of_val(&nowhere) as u32)
        };
        // Some kernels refuse while another thread waits on the socket; then at least the connection ends.
        if gone != 0 {
            self.shutdown();
        }
    }
    /// Has the peer closed or reset its side?
    pub fn hung_up(&self) -> bool {
        poll(self.fd(), libc::POLLRDHUP, Duration::ZERO)
    }
    /// Is there something to read (or the end) within the time?
    pub fn readable(&self, within: Duration) -> bool {
        poll(self.fd(), libc::POLLIN, within)
    }
    fn fd(&self) -> RawFd {
        match self {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).read(buffer),
            Stream::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }
}
impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).write(bytes),
            Stream::Unix(stream) => (&mut &*stream).write(bytes),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn poll(fd: RawFd, events: i16, timeout: Duration) -> bool {
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one valid entry, and its count is one.
    unsafe { libc::poll(&raw mut entry, 1, timeout.as_millis() as i32) > 0 }
}

impl Listener {
    fn bind(place: &Place) -> io::Result<Listener> {
        match place {
            Place::Tcp(addr, _) => Ok(Listener::Tcp(TcpListener::bind(addr)?)),
            Place::Unix(path) => {
                let _ = std::fs::remove_file(path);
                Ok(Listener::Unix(UnixListener::bind(path)?))
            }
        }
    }
    fn accept(&self) -> io::Result<(Stream, String)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((Stream::tcp(stream)?, peer.to_string()))
            }
            Listener::Unix(listener) => Ok((Stream::Unix(listener.accept()?.0), "unix".into())),
        }
    }
    fn fd(&self) -> RawFd {
        match self {
            Listener::Tcp(listener) => listener.as_raw_fd(),
            Listener::Unix(listener) => listener.as_raw_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A child between fork and exec holds a copy of the descriptor: closing ours alone would leave the port open.
        // SAFETY: the descriptor is open until the listener inside is dropped, after this function.
        unsafe { libc::shutdown(self.fd(), libc::SHUT_RDWR) };
    }
}

/// A thread that accepts connections until dropped.
pub struct Acceptor {
    stop: Arc<AtomicBool>,
    paused: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    /// Calls `serve` (on the accepting thread) with each connection and the address of its peer.
    pub fn start(place: &Place, mut serve: impl FnMut(Stream, String) + Send + 'static) -> io::Result<Acceptor> {
        let listener = Listener::bind(place)?;
        let (stop, paused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (stop_seen, pause_seen) = (stop.clone(), paused.clone());
        let thread = proc::thread("kit-accept", move || {
            while !stop_seen.load(Ordering::Acquire) {
                if !poll(listener.fd(), libc::POLLIN, Duration::from_millis(5)) {
                    continue;
                }
                // Checked after the wait: a connection that comes after `pause(true)` has returned is not taken.
                if pause_seen.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(5));
                } else if let Ok((stream, peer)) = listener.accept() {
                    serve(stream, peer);
                }
            }
        });
        Ok(Acceptor { stop, paused, thread: Some(thread) })
    }
    /// While paused the kernel completes handshakes, but the connections are not accepted.
    pub fn pause(&self, on: bool) {
        self.paused.store(on, Ordering::Release);
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
