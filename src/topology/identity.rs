//! The identity of a Sentinel, independent of the address where it was reached.
//!
//! Guarantees: a Sentinel has one identity under all its addresses: host name and IP address, load balancer and direct,
//! IPv4 and IPv6. A Sentinel that gives no id (before Redis 6.2) is known by its address.

use crate::config::Endpoint;

/// A Sentinel, by its id, or by its address if it gives no id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The reply to SENTINEL MYID.
    Id(String),
    /// The address as given or announced.
    At(Endpoint),
}

impl Identity {
    /// The id if there is one, else the address.
    pub fn new(id: Option<&str>, announced: &Endpoint) -> Self {
        id.map_or_else(|| Self::At(announced.clone()), |id| Self::Id(id.to_owned()))
    }
}

/// A Sentinel, and where it was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speaker {
    /// Its identity.
    pub identity: Identity,
    /// Its address as given or announced.
    pub announced: Endpoint,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_sentinel_under_every_address_and_without_one_the_address_is() {
        let (name, ip) = (Endpoint::tcp("sentinel", 26379).unwrap(), Endpoint::tcp("10.0.0.1", 26379).unwrap());
        assert_eq!(Identity::new(Some("a"), &name), Identity::new(Some("a"), &ip));
        assert_ne!(Identity::new(Some("a"), &name), Identity::new(Some("b"), &name));
        assert_ne!(Identity::new(None, &name), Identity::new(None, &ip));
        assert_eq!(Identity::new(None, &name), Identity::new(None, &name));
    }
}
