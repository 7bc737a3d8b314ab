//! `address.map`: from the address that a Sentinel announces to the one that can be reached from here (NAT, containers).
//!
//! Guarantees: an exact `host:port` counts before a host alone; a host alone keeps the port; the map is applied once, never to its own
//! result. Leaves to others: when to apply it (topology).

use std::collections::HashMap;

use super::endpoint::{AddressFault, Endpoint, split};

/// The parsed `address.map`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressMap {
    exact: HashMap<Endpoint, Endpoint>,
    hosts: HashMap<String, String>,
}

/// Why an entry of the map is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum MapFault {
    #[error("it is not of the form from=to")]
    Form,
    #[error("left of '=': {0}")]
    From(AddressFault),
    #[error("right of '=': {0}")]
    To(AddressFault),
    #[error("a host without a port keeps the port, so its target must be a host without a port")]
    PortOnOneSide,
    #[error("the address left of '=' already has another target")]
    Twice,
}

impl AddressMap {
    /// Where to connect for this announced address.
    pub fn apply(&self, announced: &Endpoint) -> Endpoint {
        if let Some(target) = self.exact.get(announced) {
            return target.clone();
        }
        match announced {
            Endpoint::Tcp { host, port } => match self.hosts.get(host) {
                Some(target) => Endpoint::Tcp { host: target.clone(), port: *port },
                None => announced.clone(),
            },
            Endpoint::Unix(_) => announced.clone(),
        }
    }

    /// Whether every address stays as it is.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.hosts.is_empty()
    }

    /// Takes in one `from=to`.
    pub(super) fn add(&mut self, entry: &str) -> Result<(), MapFault> {
        let (from, to) = entry.split_once('=').ok_or(MapFault::Form)?;
        let (from, to) = (from.trim_matches(' '), to.trim_matches(' '));
        if from.starts_with("unix:") {
            return Err(MapFault::From(AddressFault::UnixHere));
        }
        let (host, port) = split(from).map_err(MapFault::From)?;
        match port {
            Some(port) => {
                let target = Endpoint::read(to, port).map_err(MapFault::To)?;
                put(&mut self.exact, Endpoint::Tcp { host, port }, target)
            }
            None if to.starts_with("unix:") => Err(MapFault::PortOnOneSide),
            None => match split(to).map_err(MapFault::To)? {
                (target, None) => put(&mut self.hosts, host, target),
                (_, Some(_)) => Err(MapFault::PortOnOneSide),
            },
        }
    }
}

fn put<K: Eq + std::hash::Hash, V: PartialEq>(map: &mut HashMap<K, V>, from: K, to: V) -> Result<(), MapFault> {
    match map.get(&from) {
        Some(known) if *known != to => Err(MapFault::Twice),
        _ => {
            map.insert(from, to);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[&str]) -> Result<AddressMap, MapFault> {
        let mut map = AddressMap::default();
        entries.iter().try_for_each(|entry| map.add(entry)).map(|()| map)
    }

    fn applied(map: &AddressMap, text: &str) -> String {
        map.apply(&Endpoint::read(text, 6379).unwrap()).to_string()
    }

    #[test]
    fn exact_before_host_and_the_port_is_kept() {
        let entries = ["10.0.0.1:6379=127.0.0.1:7000", "10.0.0.1=h1", "10.0.0.3:6379=unix:/run/r.sock", "[::2]=[::3]"];
        let map = map(&entries).unwrap();
        assert_eq!(applied(&map, "10.0.0.1:6379"), "127.0.0.1:7000");
        assert_eq!(applied(&map, "10.0.0.1:6380"), "h1:6380");
        assert_eq!(applied(&map, "10.0.0.3"), "unix:/run/r.sock");
        assert_eq!(applied(&map, "[0::2]:9"), "[::3]:9");
        assert_eq!(applied(&map, "10.0.0.9:1"), "10.0.0.9:1");
    }

    #[test]
    fn it_is_applied_once() {
        let map = map(&["a:1=b:1", "b:1=a:1"]).unwrap();
        assert_eq!(applied(&map, "a:1"), "b:1");
        assert_eq!(applied(&map, "b:1"), "a:1");
    }

    #[test]
    fn an_exact_target_without_a_port_keeps_it() {
        assert_eq!(applied(&map(&["a:7=b"]).unwrap(), "a:7"), "b:7");
    }

    #[test]
    fn bad_entries_are_refused() {
        assert_eq!(map(&["a"]), Err(MapFault::Form));
        assert_eq!(map(&["=b"]), Err(MapFault::From(AddressFault::Empty)));
        assert_eq!(map(&["a="]), Err(MapFault::To(AddressFault::Empty)));
        assert_eq!(map(&["a:0=b"]), Err(MapFault::From(AddressFault::PortZero)));
        assert_eq!(map(&["a=b:1"]), Err(MapFault::PortOnOneSide));
        assert_eq!(map(&["a=unix:/x"]), Err(MapFault::PortOnOneSide));
        assert_eq!(map(&["unix:/x=a"]), Err(MapFault::From(AddressFault::UnixHere)));
        assert_eq!(map(&["a:1=b:1", "A:1=c:1"]), Err(MapFault::Twice));
        assert!(map(&["a:1=b:1", "A:1=b:1"]).is_ok());
    }
}
