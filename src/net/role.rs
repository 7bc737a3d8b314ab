//! A server's role, as it reports it by any of the commands that the user may call.
//!
//! Guarantees: one place parses ROLE, HELLO's `role` and INFO replication, in the forms of Redis, Valkey, KeyDB and Dragonfly; an
//! answer of another form is no role. Leaves to others: which role is wanted, and which node a replica should follow.

use crate::error::clean;
use crate::resp::{Kind, Reply, encode};
use std::fmt;

/// The role of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It takes writes.
    Primary {
        /// Its replication offset; -1 if it is not given.
        offset: i64,
        /// The replicas that are connected to it.
        replicas: Vec<RoleReplica>,
    },
    /// It follows a primary.
    Replica {
        /// The primary's host, as the replica knows it; empty if only the role is known.
        host: String,
        /// The primary's port.
        port: u16,
        /// The state of the link: connect, connecting, sync or connected; empty if only the role is known.
        state: String,
        /// Its replication offset; -1 before the first synchronisation.
        offset: i64,
        /// It takes writes nevertheless (KeyDB's active replica).
        writes: bool,
    },
    /// A Sentinel, with the services that it watches.
    Sentinel(Vec<String>),
    /// Not known: the server is too old, or the user may call none of the commands.
    Unknown,
}

/// A replica, as its primary lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleReplica {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The offset that it has confirmed; `None` if the server gives a state in its place.
    pub offset: Option<i64>,
}

/// The answer to INFO replication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replication {
    /// The role.
    pub role: Role,
    /// The replication id of its data; empty if it is not given.
    pub id: String,
    /// The replication id before the last switch.
    pub older: Option<String>,
    /// It is in a full synchronisation with its primary.
    pub syncing: bool,
    /// It has been synchronised since it was started.
    pub has_data: bool,
}

/// The command by which a server gives its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tells {
    /// ROLE.
    Role,
    /// HELLO, under this protocol.
    Hello(u8),
    /// INFO replication.
    Info,
    /// None that this user may call.
    Nothing,
}

impl Tells {
    /// The command that asks for the role again on an open connection.
    pub fn question(self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(48);
        match self {
            Self::Role => encode::command(&mut out, &[b"ROLE"]),
            Self::Hello(2) => encode::command(&mut out, &[b"HELLO", b"2"]),
            Self::Hello(_) => encode::command(&mut out, &[b"HELLO", b"3"]),
            Self::Info => encode::command(&mut out, &[b"INFO", b"replication"]),
            Self::Nothing => return None,
        }
        Some(out)
    }

    /// Reads the answer.
    pub fn read(self, reply: &Reply) -> Option<Role> {
        match self {
            Self::Role => Role::parse(reply),
            Self::Hello(_) => Role::of_hello(reply),
            Self::Info => Replication::parse(reply).map(|told| told.role),
            Self::Nothing => None,
        }
    }
}

impl Role {
    /// Reads the answer to ROLE. KeyDB with several primaries answers one entry for each; the first counts.
    pub fn parse(reply: &Reply) -> Option<Self> {
        if reply.kind(0) != Kind::Array {
            return None;
        }
        let first = reply.child(0, 0)?;
        Self::parse_at(reply, if reply.kind(first) == Kind::Array { first } else { 0 })
    }

    fn parse_at(reply: &Reply, at: u32) -> Option<Self> {
        let field = |index| reply.child(at, index);
        match reply.bytes(field(0)?)? {
            b"master" => {
                // Dragonfly gives no offset of its own.
                let (offset, listed) = match (field(1)?, field(2)) {
                    (offset, Some(listed)) => (reply.int(offset)?, listed),
                    (listed, None) => (-1, listed),
                };
                if reply.kind(listed) != Kind::Array {
                    return None;
                }
                let replicas = children(reply, listed).filter_map(|id| RoleReplica::parse(reply, id)).collect();
                Some(Self::Primary { offset, replicas })
            }
            word @ (b"slave" | b"replica" | b"active-replica") => Some(Self::Replica {
                host: text(reply, field(1)?)?,
                port: u16::try_from(number(reply, field(2)?)?).ok()?,
                state: link_state(text(reply, field(3)?)?),
                offset: field(4).and_then(|id| reply.int(id)).unwrap_or(-1),
                writes: word == b"active-replica",
            }),
            b"sentinel" => Some(Self::Sentinel(children(reply, field(1)?).filter_map(|id| text(reply, id)).collect())),
            _ => None,
        }
    }

    /// Reads the role in the answer to HELLO, which does not say whom a replica follows.
    pub fn of_hello(reply: &Reply) -> Option<Self> {
        let word = |key: &[u8]| reply.find(0, key).and_then(|id| reply.bytes(id));
        match (word(b"role"), word(b"mode")) {
            (_, Some(b"sentinel")) => Some(Self::Sentinel(Vec::new())),
            (Some(role), _) => Self::of_word(role),
            _ => None,
        }
    }

    /// A role of which only the name is known.
    fn of_word(word: &[u8]) -> Option<Self> {
        match word {
            b"master" | b"primary" => Some(Self::Primary { offset: -1, replicas: Vec::new() }),
            b"slave" | b"replica" | b"active-replica" => Some(Self::Replica {
                host: String::new(),
                port: 0,
                state: String::new(),
                offset: -1,
                writes: word == b"active-replica",
            }),
            _ => None,
        }
    }

    /// Whether it takes writes.
    pub fn is_primary(&self) -> bool {
        matches!(self, Self::Primary { .. } | Self::Replica { writes: true, .. })
    }
}

/// One name for a healthy link: Dragonfly has others.
fn link_state(state: String) -> String {
    match state.as_str() {
        "stable_sync" | "stable sync" | "online" => "connected".to_owned(),
        _ => state,
    }
}

impl RoleReplica {
    fn parse(reply: &Reply, id: u32) -> Option<Self> {
        let offset = reply.child(id, 2)?;
        Some(Self {
            host: text(reply, reply.child(id, 0)?)?,
            port: u16::try_from(number(reply, reply.child(id, 1)?)?).ok()?,
            offset: number(reply, offset),
        })
    }

    /// From a line of INFO: `slave0:ip=h,port=1,state=online,offset=5,lag=0`.
    fn of_line(line: &str) -> Option<Self> {
        let field = |name: &str| line.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        let offset = field("offset").and_then(|offset| offset.parse().ok());
        Some(Self { host: field("ip")?.to_owned(), port: field("port")?.parse().ok()?, offset })
    }
}

impl Replication {
    /// Reads the answer to INFO replication.
    pub fn parse(reply: &Reply) -> Option<Self> {
        if !matches!(reply.kind(0), Kind::String | Kind::Status | Kind::Verbatim) {
            return None;
        }
        let info = String::from_utf8_lossy(reply.bytes(0)?);
        let field =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let number = |name: &str| field(name).and_then(|text| text.parse::<i64>().ok());
        let mut role = Role::of_word(field("role")?.as_bytes())?;
        let syncing = number("master_sync_in_progress").is_some_and(|on| on != 0);
        match &mut role {
            Role::Primary { offset, replicas } => {
                *offset = number("master_repl_offset").unwrap_or(-1);
                let listed = info.lines().filter_map(|line| line.strip_prefix("slave")?.split_once(':'));
                let listed = listed.filter(|(number, _)| number.parse::<u32>().is_ok());
                *replicas = listed.filter_map(|(_, line)| RoleReplica::of_line(line.trim())).collect();
            }
            Role::Replica { host, port, state, offset, .. } => {
                *host = field("master_host").unwrap_or_default().to_owned();
                *port = number("master_port").and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
                let up = field("master_link_status").is_some_and(|link| link == "up");
                *state = match (up, syncing) {
                    (true, _) => "connected".to_owned(),
                    (false, true) => "sync".to_owned(),
                    (false, false) => "connect".to_owned(),
                };
                *offset = number("slave_repl_offset").unwrap_or(-1);
            }
            Role::Sentinel(_) | Role::Unknown => {}
        }
        let id = |name: &str| field(name).filter(|id| id.bytes().any(|digit| digit != b'0')).map(str::to_owned);
        let has_data = number("slave_repl_offset").is_none_or(|offset| offset > 0) && !syncing;
        let (id, older) = (id("master_replid").unwrap_or_default(), id("master_replid2"));
        Some(Self { role, id, older, syncing, has_data })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary { .. } => f.write_str("primary"),
            Self::Replica { host, .. } if host.is_empty() => f.write_str("replica"),
            Self::Replica { host, port, state, .. } => {
                write!(f, "replica of {}:{port} (link: {})", clean(host), clean(state))
            }
            Self::Sentinel(_) => f.write_str("sentinel"),
            Self::Unknown => f.write_str("unknown (it tells it by no command that this user may call)"),
        }
    }
}

fn children(reply: &Reply, id: u32) -> impl Iterator<Item = u32> + '_ {
    (0..reply.count(id)).filter_map(move |index| reply.child(id, index))
}

fn text(reply: &Reply, id: u32) -> Option<String> {
    reply.bytes(id).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// A number, as such or as text.
fn number(reply: &Reply, id: u32) -> Option<i64> {
    reply.int(id).or_else(|| text(reply, id)?.parse().ok())
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
        let replicas = vec![RoleReplica { host: "127.0.0.1".into(), port: 7001, offset: Some(8) }];
        assert_eq!(role(wire), Some(Role::Primary { offset: 9, replicas }));
        let wire = b"*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:7000\r\n$9\r\nconnected\r\n:-1\r\n";
        let state = "connected".into();
        assert_eq!(role(wire), Some(Role::Replica { host: "h".into(), port: 7000, state, offset: -1, writes: false }));
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

    fn replica_of(host: &str, state: &str, writes: bool) -> Option<Role> {
        Some(Role::Replica { host: host.into(), port: 7000, state: state.into(), offset: -1, writes })
    }

    #[test]
    fn dragonfly_tells_a_state_in_place_of_an_offset_and_its_ports_as_text() {
        let wire = b"*2\r\n$6\r\nmaster\r\n*1\r\n*3\r\n$1\r\nh\r\n$4\r\n7001\r\n$11\r\nstable_sync\r\n";
        let replicas = vec![RoleReplica { host: "h".into(), port: 7001, offset: None }];
        assert_eq!(role(wire), Some(Role::Primary { offset: -1, replicas }));
        for (state, known) in [
            ("stable_sync", "connected"),
            ("online", "connected"),
            ("full_sync", "full_sync"),
            ("preparation", "preparation"),
        ] {
            let wire = format!("*4\r\n+replica\r\n+h\r\n+7000\r\n+{state}\r\n");
            assert_eq!(role(wire.as_bytes()), replica_of("h", known, false));
        }
    }

    #[test]
    fn keydb_has_replicas_that_take_writes_and_several_primaries() {
        let wire = "*5\r\n+active-replica\r\n+h\r\n:7000\r\n+connected\r\n:-1\r\n";
        assert_eq!(role(wire.as_bytes()), replica_of("h", "connected", true));
        assert!(role(wire.as_bytes()).is_some_and(|role| role.is_primary()));
        let several = format!("*2\r\n{}{wire}", wire.replace("active-replica", "slave").replace("+h", "+first"));
        assert_eq!(role(several.as_bytes()), replica_of("first", "connected", false));
    }

    fn reply(wire: &str) -> Reply {
        match Decoder::new(Limits::default()).decode(wire.as_bytes(), Want::One).unwrap() {
            (_, Some(Decoded::Reply(reply))) => reply,
            other => panic!("{:?} is no whole reply", other.0),
        }
    }

    #[test]
    fn hello_tells_the_role_and_nothing_more() {
        let hello = |fields: &str, count: usize| Role::of_hello(&reply(&format!("%{count}\r\n{fields}")));
        assert_eq!(hello("+mode\r\n+standalone\r\n+role\r\n+master\r\n", 2).map(|role| role.is_primary()), Some(true));
        assert_eq!(hello("+role\r\n+replica\r\n", 1).map(|role| role.to_string()).as_deref(), Some("replica"));
        assert_eq!(hello("+mode\r\n+sentinel\r\n", 1), Some(Role::Sentinel(vec![])));
        assert_eq!(hello("+role\r\n+king\r\n", 1), None);
        assert_eq!(hello("+server\r\n+redis\r\n", 1), None);
    }

    fn info(text: &str) -> Option<Replication> {
        let text = format!("# Replication\r\n{text}");
        Replication::parse(&reply(&format!("${}\r\n{text}\r\n", text.len())))
    }

    #[test]
    fn info_tells_the_role_the_link_and_the_history() {
        let told = info(
            "role:slave\r\nmaster_host:h\r\nmaster_port:7000\r\nmaster_link_status:down\r\nmaster_sync_in_progress:1\r\n\
             slave_repl_offset:0\r\nmaster_replid:abc\r\nmaster_replid2:000\r\n",
        );
        let told = told.unwrap();
        assert_eq!(told.role.to_string(), "replica of h:7000 (link: sync)");
        assert_eq!((told.id.as_str(), &told.older, told.syncing, told.has_data), ("abc", &None, true, false));
        let told = info(
            "role:master\r\nconnected_slaves:1\r\nslave0:ip=h,port=7001,state=online,offset=8,lag=0\r\n\
             master_replid:abc\r\nmaster_replid2:def\r\nmaster_repl_offset:9\r\n",
        );
        let replicas = vec![RoleReplica { host: "h".into(), port: 7001, offset: Some(8) }];
        let told = told.unwrap();
        assert_eq!((told.role, told.older.as_deref()), (Role::Primary { offset: 9, replicas }, Some("def")));
        let active =
            info("role:active-replica\r\nmaster_host:h\r\nmaster_port:1\r\nmaster_link_status:up\r\n").unwrap();
        assert!(active.role.is_primary() && active.role.to_string().contains("connected"), "{active:?}");
        assert_eq!(info("redis_mode:sentinel\r\n"), None);
        assert_eq!(Replication::parse(&reply("-NOPERM no\r\n")), None);
    }

    #[test]
    fn the_role_is_asked_again_by_the_command_that_told_it() {
        for (tells, words) in [
            (Tells::Role, "ROLE"),
            (Tells::Hello(2), "HELLO\r\n$1\r\n2"),
            (Tells::Hello(3), "HELLO\r\n$1\r\n3"),
            (Tells::Info, "INFO"),
        ] {
            let question = String::from_utf8(tells.question().unwrap()).unwrap();
            assert!(question.contains(words), "{question}");
        }
        assert_eq!(Tells::Nothing.question(), None);
        assert!(Tells::Hello(3).read(&reply("%1\r\n+role\r\n+master\r\n")).is_some_and(|role| role.is_primary()));
    }
}
