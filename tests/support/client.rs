//! The kit's own client: one blocking connection, RESP2, a timeout on everything.

use super::resp::{self, Value};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Long enough for a loaded machine, and short enough for a test that meets a frozen server.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// A login: user (none for the password of the default user) and password.
#[derive(Clone, Debug, Default)]
pub struct Login {
    pub user: Option<String>,
    pub password: Option<String>,
}

impl Login {
    pub fn password(password: &str) -> Login {
        Login { user: None, password: Some(password.into()) }
    }
    pub fn acl(user: &str, password: &str) -> Login {
        Login { user: Some(user.into()), password: Some(password.into()) }
    }
}

trait Stream: Read + Write + Send {
    fn limit(&self, timeout: Option<Duration>) -> io::Result<()>;
}
impl Stream for TcpStream {
    fn limit(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(timeout).and_then(|()| self.set_write_timeout(timeout))
    }
}
impl Stream for UnixStream {
    fn limit(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(timeout).and_then(|()| self.set_write_timeout(timeout))
    }
}

pub struct Client {
    stream: BufReader<Box<dyn Stream>>,
}

impl Client {
    /// Connects to `host:port`, `[v6]:port` or `unix:/path`.
    pub fn connect(addr: &str) -> io::Result<Client> {
        Client::connect_within(addr, TIMEOUT)
    }

    /// As `connect`; the timeout also bounds each later read and write.
    pub fn connect_within(addr: &str, timeout: Duration) -> io::Result<Client> {
        let stream: Box<dyn Stream> = match addr.strip_prefix("unix:") {
            Some(path) => Box::new(UnixStream::connect(path)?),
            None => {
                let addr: SocketAddr = addr.to_socket_addrs()?.next().ok_or(ErrorKind::AddrNotAvailable)?;
                let stream = TcpStream::connect_timeout(&addr, timeout)?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        };
        stream.limit(Some(timeout))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// Connects and logs in; a refused login is an error.
    pub fn login(addr: &str, login: &Login, timeout: Duration) -> io::Result<Client> {
        let mut client = Client::connect_within(addr, timeout)?;
        let reply = match (&login.user, &login.password) {
            (Some(user), Some(password)) => client.cmd(&["AUTH", user, password])?,
            (None, Some(password)) => client.cmd(&["AUTH", password])?,
            _ => Value::ok(),
        };
        if reply.is_error() {
            return Err(io::Error::new(ErrorKind::PermissionDenied, reply.text()));
        }
        Ok(client)
    }

    /// One command, one reply.
    pub fn cmd<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Value> {
        self.send(args)?;
        self.read()
    }

    /// Sends a command without waiting.
    pub fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<()> {
        let mut out = Vec::new();
        resp::encode_command(args, &mut out);
        self.send_bytes(&out)
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// The next reply or published message.
    pub fn read(&mut self) -> io::Result<Value> {
        resp::decode(&mut self.stream)
    }

    /// Reads raw bytes until the server closes or `limit` bytes are there.
    pub fn read_bytes(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Read::by_ref(&mut self.stream).take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Bounds each later read and write.
    pub fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.stream.get_ref().limit(Some(timeout))
    }
}
