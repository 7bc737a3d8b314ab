//! Whether a replica may be read from, by its own account. It is checked on each new connection to the replica.
//!
//! Guarantees: an ordinary replica is not asked anything beyond the handshake; further questions are asked within the time that the
//! connection has; a refusal says whether a broken link is the only reason. Leaves to others: the rules (topology), and whether a
//! replica with nothing wrong but its link is used (choice).

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::config::Endpoint;
use crate::error::{Error, Result, Status, flags};
use crate::lane::{Bytes, Unit};
use crate::net::{Admit, Conn, Replication};
use crate::pool::Pool;
use crate::resp::{Want, encode};
use crate::time::Deadline;
use crate::topology::{Service, Told, Weighed};

/// How long the primary may take to answer with its replication id.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long a broken link does not count, once a read has no better replica.
const DESPERATE: Duration = Duration::from_secs(1);

/// What a replica is compared with.
pub(super) trait Lineage: Send + Sync {
    fn service(&self) -> &Arc<Service>;
    /// The pool of the present primary.
    fn primary(&self) -> Option<Arc<Pool>>;
}

/// Checks each connection to one replica.
pub(super) struct Admission {
    of: Weak<dyn Lineage>,
    replica: Endpoint,
    born: Instant,
    /// Milliseconds since `born` until which a broken link does not count.
    desperate_until: AtomicU64,
    /// The last connection was refused for the link alone.
    refused_by_link: AtomicBool,
}

impl Admission {
    pub(super) fn new(of: Weak<dyn Lineage>, replica: Endpoint) -> Self {
        let (desperate_until, refused_by_link) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { of, replica, born: Instant::now(), desperate_until, refused_by_link }
    }

    /// A read has no better replica: a broken link does not count for a moment.
    pub(super) fn accept_broken_link(&self) {
        let until = (self.born.elapsed() + DESPERATE).as_millis() as u64;
        self.desperate_until.store(until, Ordering::Relaxed);
    }

    /// Whether the last refusal was for the link alone.
    pub(super) fn has_refused_by_link(&self) -> bool {
        self.refused_by_link.load(Ordering::Relaxed)
    }

    fn is_desperate(&self) -> bool {
        (self.born.elapsed().as_millis() as u64) < self.desperate_until.load(Ordering::Relaxed)
    }

    fn weigh(&self, of: &dyn Lineage, conn: &mut Conn, deadline: Deadline) -> Result<Weighed> {
        let line = of.service().line_of(&self.replica, self.is_desperate());
        let (info, mut primary) = (conn.info().clone(), None);
        let mut theirs = info.asked_info.then_some(info.replication);
        loop {
            let weighed = line.weigh(&info.role, told(&theirs), told(&primary));
            match weighed {
                Weighed::AskReplica => theirs = Some(ask(conn, deadline)?),
                Weighed::AskPrimary => primary = Some(ask_primary(of, deadline)),
                weighed => return Ok(weighed),
            }
        }
    }
}

fn told(asked: &Option<Option<Replication>>) -> Told<'_> {
    match asked {
        None => Told::NotAsked,
        Some(None) => Told::Nothing,
        Some(Some(told)) => Told::Is(told),
    }
}

fn ask(conn: &mut Conn, deadline: Deadline) -> Result<Option<Replication>> {
    let mut question = Vec::with_capacity(48);
    encode::command(&mut question, &[b"INFO", b"replication"]);
    conn.request(&question, Want::One, deadline).map(|reply| Replication::parse(&reply))
}

/// Asks the primary for its replication id.
fn ask_primary(of: &dyn Lineage, deadline: Deadline) -> Option<Replication> {
    let announced = of.service().load().primary_announced.clone()?;
    let unit = Unit {
        bytes: Bytes::Args(&[b"INFO", b"replication"]),
        list: None,
        at_most_once: false,
        lease: None,
        atomic: false,
    };
    let told = Replication::parse(&of.primary()?.exec(unit, false, deadline.within(PATIENCE)).ok()?)?;
    of.service().learn_lineage(&announced, &told);
    Some(told)
}

impl Admit for Admission {
    fn admit(&self, conn: &mut Conn, deadline: Deadline) -> Result<()> {
        let Some(of) = self.of.upgrade() else { return Ok(()) };
        let weighed = self.weigh(&*of, conn, deadline)?;
        self.refused_by_link.store(matches!(weighed, Weighed::Unfit(_, true)), Ordering::Relaxed);
        of.service().note_weighed(&self.replica, &weighed);
        match weighed {
            Weighed::Unfit(why, _) => {
                let text = format!("{} is not read from: {why}", self.replica);
                Err(Error::new(Status::Role, text).with_endpoint(&self.replica).with_flags(flags::RETRYABLE))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Admission({})", self.replica)
    }
}
