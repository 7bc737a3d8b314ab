//! What a server says of itself: the answer to ROLE.
//!
//! Guarantees: an answer of another shape is no role. Leaves to others: what role is wanted.

use crate::resp::{Kind, Reply};
use std::fmt;

/// The role of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It takes writes.
    Primary {
        /// Its replication offset.
        offset: i64,
        /// The replicas that are connected to it, with the offsets that they have confirmed.
        replicas: Vec<RoleReplica>,
    },
    /// It follows a primary.
    Replica {
        /// The primary's host as the replica was told.
        host: String,
        /// The primary's port.
        port: u16,
        /// The state of the link: connect, connecting, sync or connected.
        state: String,
        /// How far it has come; -1 before the first synchronisation.
        offset: i64,
    },
    /// A Sentinel, with the services that it watches.
    Sentinel(Vec<String>),
    /// A server too old to know ROLE.
    Unknown,
}

/// One replica as its primary lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleReplica {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The offset that it has confirmed.
    pub offset: i64,
}

impl Role {
    /// Reads the answer to ROLE.
    pub fn parse(reply: &Reply) -> Option<Self> {
        if reply.kind(0) != Kind::Array {
            return None;
        }
        match reply.bytes(reply.child(0, 0)?)? {
            b"master" => Some(Self::Primary {
                offset: reply.int(reply.child(0, 1)?)?,
                replicas: children(reply, reply.child(0, 2)?).filter_map(|id| RoleReplica::parse(reply, id)).collect(),
            }),
            b"slave" => Some(Self::Replica {
                host: text(reply, reply.child(0, 1)?)?,
                port: u16::try_from(reply.int(reply.child(0, 2)?)?).ok()?,
                state: text(reply, reply.child(0, 3)?)?,
                offset: reply.int(reply.child(0, 4)?)?,
            }),
            b"sentinel" => {
                Some(Self::Sentinel(children(reply, reply.child(0, 1)?).filter_map(|id| text(reply, id)).collect()))
            }
            _ => None,
        }
    }
}

impl RoleReplica {
    fn parse(reply: &Reply, id: u32) -> Option<Self> {
        Some(Self {
            host: text(reply, reply.child(id, 0)?)?,
            port: u16::try_from(reply.int(reply.child(id, 1)?)?).ok()?,
            offset: reply.int(reply.child(id, 2)?)?,
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary { .. } => f.write_str("primary"),
            Self::Replica { host, port, state, .. } => write!(f, "replica of {host}:{port} (link: {state})"),
            Self::Sentinel(_) => f.write_str("sentinel"),
            Self::Unknown => f.write_str("unknown (it does not know ROLE)"),
        }
    }
}

fn children(reply: &Reply, id: u32) -> impl Iterator<Item = u32> + '_ {
    (0..reply.count(id)).filter_map(move |index| reply.child(id, index))
}

fn text(reply: &Reply, id: u32) -> Option<String> {
    reply.bytes(id).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{Decoded, Decoder, Limits, Want};

    fn role(wire: &[u8]) -> Option<Role> {
        match Decoder::new(Limits::default()).decode(wire, Want::One).unwrap() {
            (_, Some(Decoded::Reply(reply))) => Role::parse(&reply),
            other => panic!("{:?} is no whole reply", other.0),
        }
    }

    #[test]
    fn each_role_is_read() {
        let wire = b"*3\r\n$6\r\nmaster\r\n:9\r\n*1\r\n*3\r\n$9\r\n127.0.0.1\r\n$4\r\n7001\r\n$1\r\n8\r\n";
        let replicas = vec![RoleReplica { host: "127.0.0.1".into(), port: 7001, offset: 8 }];
        assert_eq!(role(wire), Some(Role::Primary { offset: 9, replicas }));
        let wire = b"*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:7000\r\n$9\r\nconnected\r\n:-1\r\n";
        let state = "connected".into();
        assert_eq!(role(wire), Some(Role::Replica { host: "h".into(), port: 7000, state, offset: -1 }));
        let wire = b"*2\r\n$8\r\nsentinel\r\n*1\r\n$8\r\nmymaster\r\n";
        assert_eq!(role(wire), Some(Role::Sentinel(vec!["mymaster".into()])));
    }

    #[test]
    fn anything_else_is_no_role() {
        let others: [&[u8]; 5] = [
            b"+OK\r\n",
            b"*0\r\n",
            b"*1\r\n$6\r\nmaster\r\n",
            b"*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:70000\r\n+x\r\n:1\r\n",
            b"*1\r\n$4\r\nking\r\n",
        ];
        for wire in others {
            assert_eq!(role(wire), None, "{}", String::from_utf8_lossy(wire));
        }
    }
}
