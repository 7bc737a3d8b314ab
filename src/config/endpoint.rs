//! Addresses: `host:port` and Unix sockets, in one normal form.
//!
//! Guarantees: two spellings of one address are equal (IPv6 forms, upper and lower case); `parse` reads what `Display` writes; a
//! fault never quotes the text, so that a password in the wrong place is not shown. Leaves to others: resolving names (net), and
//! naming the option or entry at fault (list, table).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use crate::error::{Error, Result, Status};

/// The port of a Sentinel when none is given.
pub const SENTINEL_PORT: u16 = 26379;
/// The port of a data node when none is given.
pub const DATA_PORT: u16 = 6379;
/// What fits into `sockaddr_un` with its NUL, on every system.
const UNIX_PATH_MAX: usize = 103;
const HOST_MAX: usize = 255;

/// Where a server listens. Make it with [`Endpoint::parse`] or [`Endpoint::tcp`]: they bring it to its normal form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// A host name or literal address, without brackets, and a port.
    Tcp {
        /// Lower case; an IPv6 address in its shortest form.
        host: String,
        /// Never 0 if it was parsed.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressFault {
    /// Nothing at all.
    #[error("the address is empty")]
    Empty,
    /// Nothing in front of the port.
    #[error("the host is empty")]
    EmptyHost,
    /// A colon and nothing behind it.
    #[error("the port behind the colon is missing")]
    PortMissing,
    /// Letters where a port should be.
    #[error("the port is not a number from 1 to 65535")]
    PortText,
    /// Zero.
    #[error("port 0 cannot be connected to")]
    PortZero,
    /// Too large.
    #[error("the port is above 65535")]
    PortRange,
    /// Something like `[::1` or `[abc]`.
    #[error("what stands in brackets is not an IPv6 address, or a bracket is missing")]
    Brackets,
    /// `::1:6379` could be read in two ways.
    #[error("an IPv6 address needs brackets, also in front of a port, as in [::1]:6379")]
    NeedsBrackets,
    /// Blanks, slashes and the like.
    #[error("the host has a character that no host name has")]
    HostCharacter,
    /// Four numbers with dots between, one of them too large.
    #[error("the host looks like an IPv4 address but is none")]
    Ipv4,
    /// Longer than DNS allows.
    #[error("the host is longer than 255 characters")]
    HostLong,
    /// Relative, too long or with control characters.
    #[error("a Unix socket needs an absolute path of at most 103 bytes, as in unix:/run/redis.sock")]
    UnixPath,
    /// Where only TCP makes sense.
    #[error("a Unix socket cannot stand here")]
    UnixHere,
}

impl Endpoint {
    /// Reads `host`, `host:port`, `[ipv6]`, `[ipv6]:port` or `unix:/path`.
    pub fn parse(text: &str, default_port: u16) -> Result<Self> {
        Self::read(text, default_port)
            .map_err(|fault| Error::new(Status::Config, format!("address {}: {fault}", super::value::shown(text))))
    }

    /// The endpoint of a host (without brackets) and a port, as a Sentinel announces them.
    pub fn tcp(host: &str, port: u16) -> Result<Self> {
        let fault = match normal_host(host) {
            Ok(_) if port == 0 => AddressFault::PortZero,
            Ok(host) => return Ok(Self::Tcp { host, port }),
            Err(fault) => fault,
        };
        Err(Error::new(Status::Config, format!("host {} port {port}: {fault}", super::value::shown(host))))
    }

    /// Whether no name has to be resolved: a literal address (without a zone) or a Unix socket.
    pub fn is_ip(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => host.parse::<IpAddr>().is_ok(),
            Self::Unix(_) => true,
        }
    }

    /// The same as [`Endpoint::parse`] with a fault that quotes nothing.
    pub(super) fn read(text: &str, default_port: u16) -> std::result::Result<Self, AddressFault> {
        match text.strip_prefix("unix:") {
            Some(path) => unix(path),
            None => {
                let (host, port) = split(text)?;
                Ok(Self::Tcp { host, port: port.unwrap_or(default_port) })
            }
        }
    }

    /// The same for TCP only.
    pub(super) fn read_tcp(text: &str, default_port: u16) -> std::result::Result<Self, AddressFault> {
        match Self::read(text, default_port)? {
            Self::Unix(_) => Err(AddressFault::UnixHere),
            tcp => Ok(tcp),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Host in its normal form, and the port if one is given.
pub(super) fn split(text: &str) -> std::result::Result<(String, Option<u16>), AddressFault> {
    if text.is_empty() {
        return Err(AddressFault::Empty);
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, behind) = rest.split_once(']').ok_or(AddressFault::Brackets)?;
        let host = normal_ipv6(inside).ok_or(AddressFault::Brackets)?;
        return match behind.strip_prefix(':') {
            Some(port) => Ok((host, Some(read_port(port)?))),
            None if behind.is_empty() => Ok((host, None)),
            None => Err(AddressFault::Brackets),
        };
    }
    match text.split_once(':') {
        Some(_) if looks_like_ipv6(text) => Err(AddressFault::NeedsBrackets),
        Some((host, port)) => Ok((normal_host(host)?, Some(read_port(port)?))),
        None => Ok((normal_host(text)?, None)),
    }
}

/// An IPv6 address without brackets, with a port behind it or not.
fn looks_like_ipv6(text: &str) -> bool {
    let colons = text.bytes().filter(|byte| *byte == b':').count();
    normal_ipv6(text).is_some()
        || (colons > 1 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')))
}

fn unix(path: &str) -> std::result::Result<Endpoint, AddressFault> {
    let fits = path.len() > 1 && path.len() <= UNIX_PATH_MAX && path.starts_with('/');
    if fits && !path.chars().any(char::is_control) {
        Ok(Endpoint::Unix(PathBuf::from(path)))
    } else {
        Err(AddressFault::UnixPath)
    }
}

fn read_port(text: &str) -> std::result::Result<u16, AddressFault> {
    if text.is_empty() {
        return Err(AddressFault::PortMissing);
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AddressFault::PortText);
    }
    match text.parse::<u16>() {
        Ok(0) => Err(AddressFault::PortZero),
        Ok(port) => Ok(port),
        Err(_) => Err(AddressFault::PortRange),
    }
}

fn normal_host(host: &str) -> std::result::Result<String, AddressFault> {
    if host.is_empty() {
        return Err(AddressFault::EmptyHost);
    }
    if let Some(address) = normal_ipv6(host) {
        return Ok(address);
    }
    if host.len() > HOST_MAX {
        return Err(AddressFault::HostLong);
    }
    if !host.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        return Err(AddressFault::HostCharacter);
    }
    let looks_ipv4 = host.split('.').count() == 4 && host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if looks_ipv4 && host.parse::<Ipv4Addr>().is_err() {
        return Err(AddressFault::Ipv4);
    }
    Ok(host.to_ascii_lowercase())
}

/// The shortest form of an IPv6 address; a zone (`%eth0`) stays, because interface names differ by case.
fn normal_ipv6(text: &str) -> Option<String> {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    let address = address.parse::<Ipv6Addr>().ok()?;
    match zone {
        None => Some(address.to_string()),
        Some(zone) if is_zone(zone) => Some(format!("{address}%{zone}")),
        Some(_) => None,
    }
}

fn is_zone(zone: &str) -> bool {
    (1..=32).contains(&zone.len()) && zone.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<String, AddressFault> {
        Endpoint::read(text, 6379).map(|endpoint| endpoint.to_string())
    }

    #[test]
    fn spellings_of_one_address_are_equal() {
        for (left, right) in [
            ("[::1]:6379", "[0:0:0:0:0:0:0:1]"),
            ("[2001:DB8::A]", "[2001:db8:0::000a]:6379"),
            ("LocalHost", "localhost:6379"),
            ("[fe80::0:1%eth0]", "[FE80::1%eth0]:6379"),
        ] {
            assert_eq!(Endpoint::read(left, 6379), Endpoint::read(right, 6379));
        }
        assert_ne!(Endpoint::read("[fe80::1%eth0]", 1), Endpoint::read("[fe80::1%ETH0]", 1));
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for text in ["10.0.0.1:1", "[::1]:65535", "redis-1.a_b.example:6379", "unix:/run/r.sock", "[fe80::1%eth0]:7"] {
            assert_eq!(read(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn every_fault_has_its_own_word() {
        use AddressFault::*;
        let long = "a".repeat(256);
        let long_path = format!("unix:/{}", "p".repeat(103));
        for (text, fault) in [
            ("", Empty),
            (":6379", EmptyHost),
            ("h:", PortMissing),
            ("h:x", PortText),
            ("h:+1", PortText),
            ("h:0", PortZero),
            ("h:70000", PortRange),
            ("h:99999999999999999999", PortRange),
            ("[::1", Brackets),
            ("[h]:1", Brackets),
            ("[::1]1", Brackets),
            ("[::1%]:1", Brackets),
            ("::1", NeedsBrackets),
            ("::1:6379", NeedsBrackets),
            ("2001:db8:1:2:3:4:5:6:26379", NeedsBrackets),
            ("fe80::1:26379:x", PortText),
            ("a b:1", HostCharacter),
            ("a@b", HostCharacter),
            ("300.1.1.1", Ipv4),
            (&long, HostLong),
            ("unix:r.sock", UnixPath),
            ("unix:/", UnixPath),
            (&long_path, UnixPath),
        ] {
            assert_eq!(read(text), Err(fault), "{text}");
        }
        assert_eq!(Endpoint::read_tcp("unix:/r.sock", 1), Err(UnixHere));
    }

    #[test]
    fn announced_hosts_come_without_brackets() {
        assert_eq!(Endpoint::tcp("0::1", 7).unwrap().to_string(), "[::1]:7");
        assert!(Endpoint::tcp("h", 0).is_err());
        assert!(Endpoint::tcp("a/b", 1).is_err());
    }

    #[test]
    fn only_literals_need_no_resolver() {
        assert!(Endpoint::read("[::1]", 1).unwrap().is_ip());
        assert!(Endpoint::read("10.0.0.1", 1).unwrap().is_ip());
        assert!(!Endpoint::read("localhost", 1).unwrap().is_ip());
        assert!(!Endpoint::read("[fe80::1%eth0]", 1).unwrap().is_ip());
    }
}
