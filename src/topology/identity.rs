//! Who a Sentinel is, however it was reached.
//!
//! Guarantees: one Sentinel is one identity under all its names: a host name and an address, a load balancer and what stands behind it,
//! IPv4 and IPv6. One that does not tell its id (before Redis 6.2) is known by the address where it was asked.

use crate::config::Endpoint;

/// A Sentinel: its id, or its address where it tells none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// What MYID says.
    Id(String),
    /// The address as given or announced.
    At(Endpoint),
}

impl Identity {
    /// By the id if there is one, else by the address.
    pub fn new(id: Option<&str>, announced: &Endpoint) -> Self {
        id.map_or_else(|| Self::At(announced.clone()), |id| Self::Id(id.to_owned()))
    }
}

/// A Sentinel that says something, and where it was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speaker {
    /// Who it is.
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
