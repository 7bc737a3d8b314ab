//! A server that keys are read from or written to: the primary of a service, or one at an address; and its clients, one for each database.
//!
//! Guarantees: each call goes through the library, so it follows a failover until its timeout; no URI is shown. Leaves to others: which
//! commands are run.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use vigie::client::{CallFlags, Client, Target, Timeout};
use vigie::config::{Config, Settings};
use vigie::error::Result;
use vigie::resp::{Kind, Reply, encode};
use vigie::time::Deadline;
use vigie::topology::Sentinel;

use crate::outcome::{Failure, Outcome};

pub struct Place {
    /// Its service, or its address.
    pub name: String,
    /// The database in its URI.
    pub db: u32,
    /// Whether it knows PEXPIRETIME and what else came with Redis 7.0.
    pub is_seven: bool,
    /// Whether SET takes a moment at which the key ends (Redis 6.2).
    pub has_set_ends: bool,
    /// Whether fields of hashes can expire.
    pub has_field_ttls: bool,
    sentinel: Arc<Sentinel>,
    clients: Mutex<HashMap<u32, Arc<Client>>>,
    /// Databases in which some key ends.
    ending: Mutex<Vec<u32>>,
    timeout: Duration,
}

/// A list of commands on its way to a server.
#[derive(Default)]
pub struct List {
    bytes: Vec<u8>,
    pub len: usize,
}

impl List {
    pub fn add(&mut self, args: &[&[u8]]) {
        encode::command(&mut self.bytes, args);
        self.len += 1;
    }

    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn data(&self) -> &[u8] {
        &self.bytes
    }
}

impl Place {
    /// Connects. `which` names it in a failure: its URI may hold a password.
    pub fn reach(uri: &str, which: &str, timeout: Duration) -> Outcome<Self> {
        let mut config = Config::new();
        let settings = config.set("uri", uri).and_then(|()| config.settings()).map_err(|error| Failure {
            status: crate::outcome::USAGE,
            text: format!("{which}: {}", error.message()),
        })?;
        let (name, db) = (name_of(&settings), settings.client.db);
        let in_place = |error: vigie::error::Error| {
            let Failure { status, text } = Failure::from(error);
            Failure { status, text: format!("{which} ({name}): {text}") }
        };
        let sentinel = Sentinel::create(settings, Some(Deadline::after(timeout))).map_err(in_place)?;
        let mut place = Self {
            name: name.clone(),
            db,
            is_seven: false,
            has_set_ends: false,
            has_field_ttls: false,
            sentinel,
            clients: Mutex::default(),
            ending: Mutex::default(),
            timeout,
        };
        let known = place.client(db).and_then(|client| {
            let mut list = List::default();
            list.add(&[b"COMMAND", b"INFO", b"PEXPIRETIME"]);
            list.add(&[b"COMMAND", b"INFO", b"HPEXPIRETIME"]);
            // It came with the same release.
            list.add(&[b"COMMAND", b"INFO", b"GETEX"]);
            place.ask(&client, &list)
        });
        let known = known.map_err(in_place)?;
        let knows = |at: u32| {
            let row = known.child(0, at).and_then(|row| known.child(row, 0));
            row.is_some_and(|row| matches!(known.kind(row), Kind::Array | Kind::Map) && known.count(row) > 0)
        };
        (place.is_seven, place.has_field_ttls, place.has_set_ends) = (knows(0), knows(1), knows(2));
        Ok(place)
    }

    /// A client of one of its databases.
    pub fn client(&self, db: u32) -> Result<Arc<Client>> {
        if let Some(client) = self.clients.lock().get(&db) {
            return Ok(Arc::clone(client));
        }
        let mut overrides = Config::new();
        overrides.set("db", &db.to_string())?;
        let client = Client::open(&self.sentinel, None, Target::Primary, Some(&overrides))?;
        Ok(Arc::clone(self.clients.lock().entry(db).or_insert(client)))
    }

    /// A connection of its own, to one database.
    pub fn session(&self, db: u32) -> Result<Arc<Client>> {
        self.client(db)?.session(None)
    }

    /// Whether there may be a database here in which no key ends: nobody has seen the contrary.
    pub fn may_last(&self, db: u32) -> bool {
        !self.ending.lock().contains(&db)
    }

    /// Some key of this database ends.
    pub fn has_ends(&self, db: u32) {
        self.ending.lock().push(db);
    }

    /// How long a call may take.
    pub fn limit(&self) -> Timeout {
        Timeout::Ms(u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX))
    }

    /// Runs a list that may be run twice.
    pub fn ask(&self, client: &Client, list: &List) -> Result<Reply> {
        client.cmds_exec(&list.bytes, flags(CallFlags::IDEMPOTENT), self.limit())
    }

    /// Runs a list on a session, once.
    pub fn once(&self, session: &Client, list: &List) -> Result<Reply> {
        session.cmds_exec(&list.bytes, CallFlags::default(), self.limit())
    }

    /// Runs a list as one transaction.
    pub fn atomic(&self, session: &Client, list: &List) -> Result<Reply> {
        session.cmds_exec(&list.bytes, flags(CallFlags::ATOMIC), self.limit())
    }

    pub fn command(&self, client: &Client, args: &[&[u8]]) -> Result<Reply> {
        client.cmd_exec(args, flags(CallFlags::IDEMPOTENT), self.limit())
    }

    /// A section of INFO.
    fn info(&self, section: &str) -> Result<String> {
        let info = self.command(&*self.client(self.db)?, &[b"INFO", section.as_bytes()])?;
        Ok(String::from_utf8_lossy(info.bytes(0).unwrap_or_default()).into_owned())
    }

    /// The run id of the server that is the primary now; empty, if its user may not ask.
    pub fn run_id(&self) -> Result<String> {
        let text = self.info("server")?;
        Ok(text.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().trim().to_owned())
    }

    /// A number of INFO; 0 where it is not told.
    pub fn number(&self, section: &str, name: &str) -> Result<u64> {
        let text = self.info(section)?;
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(value.and_then(|value| value.trim().parse().ok()).unwrap_or_default())
    }

    /// Its databases that have keys, and how many.
    pub fn sizes(&self) -> Result<Vec<(u32, u64)>> {
        let text = self.info("keyspace")?;
        let row = |line: &str| {
            let (db, rest) = line.strip_prefix("db")?.split_once(":keys=")?;
            Some((db.parse().ok()?, rest.split(',').next()?.parse().ok()?))
        };
        Ok(text.lines().filter_map(row).collect())
    }
}

/// A service, or an address.
fn name_of(settings: &Settings) -> String {
    match (&settings.service, &settings.fixed.primary) {
        (Some(service), _) => service.clone(),
        (None, Some(primary)) => primary.to_string(),
        (None, None) => settings.sentinel.addrs.first().map(ToString::to_string).unwrap_or_default(),
    }
}

/// These are known.
fn flags(bits: u32) -> CallFlags {
    CallFlags::from_bits(bits).unwrap_or_default()
}
