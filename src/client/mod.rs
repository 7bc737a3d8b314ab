//! One call's life: where it goes, what it runs on, what its outcome means, whether it is sent again.
//!
//! Guarantees: a call returns at its deadline; what may have run is never sent again unless the rules allow it (rules 10 to
//! 15), and the caller is told; a primary that is away is waited for. Leaves to others: who is primary (topology),
//! connections (pool, lane), the commands' properties (resp).

mod admit;
mod core;
mod cursors;
mod durable;
mod exec;
mod hold;
mod judge;
mod lag;
mod line;
mod plan;
mod route;
mod scan;
mod session;
mod submit;

use std::sync::Arc;
use std::time::Duration;

use crate::config::{ClientSettings, Config};
use crate::error::{Error, Result, Status};
use crate::pool::Pool;
use crate::resp::Reply;
use crate::time::Deadline;
use crate::topology::Sentinel;

use self::core::Core;
use plan::Plan;
use session::Session;

/// Where a client's commands go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Everything to the primary.
    Primary,
    /// Reads to replicas; writes are refused.
    Replica,
    /// Reads to replicas, everything else to the primary.
    Split,
}

/// What a caller says about one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallFlags(u32);

impl CallFlags {
    /// Safe to send again after an unknown outcome.
    pub const IDEMPOTENT: u32 = 1 << 1;
    /// Send once.
    pub const NO_RETRY: u32 = 1 << 2;
    /// On a split client: this read goes to the primary.
    pub const ON_PRIMARY: u32 = 1 << 4;
    /// Each command of a list is a call of its own.
    pub const EACH: u32 = 1 << 5;
    /// Not on the lane that everybody shares.
    pub const SLOW: u32 = 1 << 6;
    /// Done only when so many replicas have it: in the highest byte.
    const REPLICAS: u32 = 0xFF << 24;
    const KNOWN: u32 = Self::IDEMPOTENT | Self::NO_RETRY | Self::ON_PRIMARY | Self::EACH | Self::SLOW | Self::REPLICAS;

    /// Flags from the C interface; unknown ones are refused.
    pub fn from_bits(bits: u32) -> Result<Self> {
        match bits & !Self::KNOWN {
            0 => Ok(Self(bits)),
            unknown => Err(Error::new(Status::InvalidArg, format!("unknown call flags {unknown:#x}"))),
        }
    }

    /// How many replicas must have a write; 0: as configured.
    fn replicas(self) -> u32 {
        self.0 >> 24
    }

    fn on_primary() -> Self {
        Self(Self::ON_PRIMARY)
    }

    fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }
}

/// Of a call with a timeout of 0 or less: -1 is no limit elsewhere.
const NO_TIME: &str = "timeout_ms is 0 or less, which leaves no time (VIGIE_TIMEOUT_NONE: no limit; VIGIE_TIMEOUT_DEFAULT: the \
                       option timeout.call)";

/// How long a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// As configured.
    Default,
    /// No limit.
    Unlimited,
    /// Milliseconds.
    Ms(u64),
    /// Not at all: what would have to wait is not done.
    DontWait,
}

impl Budget {
    /// From the C interface's number.
    pub fn from_ms(ms: i64) -> Self {
        match ms {
            -2_147_483_648 => Self::Default,
            2_147_483_647 => Self::Unlimited,
            ms if ms <= 0 => Self::DontWait,
            ms => Self::Ms(ms as u64),
        }
    }

    /// The deadline that follows, with this default.
    pub fn deadline(self, default: Duration) -> Deadline {
        match self {
            Self::Default => Deadline::after(default),
            Self::Unlimited => Deadline::never(),
            Self::Ms(ms) => Deadline::after(Duration::from_millis(ms)),
            Self::DontWait => Deadline::after(Duration::ZERO),
        }
    }
}

/// Runs commands: for one service and target, or pinned to one connection of such a client.
pub struct Client {
    core: Arc<Core>,
    session: Option<Session>,
}

impl Client {
    /// A client for a service. No socket is opened before the first command, unless `pool.eager` says so.
    pub fn open(
        sentinel: &Arc<Sentinel>,
        service: Option<&str>,
        target: Target,
        overrides: Option<&Config>,
    ) -> Result<Arc<Self>> {
        let core = Core::new(sentinel, service, target, overrides)?;
        let eager = core.settings().pool.eager;
        let client = Arc::new(Self { core, session: None });
        if eager {
            client.cmd_exec(&[b"PING"], CallFlags::default(), Budget::Default)?;
        }
        Ok(client)
    }

    /// A client pinned to one connection, taken at its first command. On a split client that is the primary's.
    pub fn session(self: &Arc<Self>, overrides: Option<&Config>) -> Result<Arc<Self>> {
        if self.session.is_some() {
            return Err(Error::new(Status::InvalidState, "a session cannot be made from a session"));
        }
        self.core.check_open()?;
        let settings = match overrides {
            Some(config) => config.overlay(&self.core.settings())?,
            None => ClientSettings::clone(&self.core.settings()),
        };
        Ok(Arc::new(Self { core: Arc::clone(&self.core), session: Some(Session::new(settings)) }))
    }

    /// Runs one command; an error reply is an error.
    pub fn cmd_exec(&self, args: &[&[u8]], flags: CallFlags, budget: Budget) -> Result<Reply> {
        if flags.has(CallFlags::EACH) {
            let text = "flags: VIGIE_CALL_EACH is for lists of commands";
            return Err(Error::new(Status::InvalidArg, text));
        }
        self.exec_one(&Plan::command(args)?, flags, budget)
    }

    fn exec_one(&self, plan: &Plan<'_>, flags: CallFlags, budget: Budget) -> Result<Reply> {
        let (reply, pool) = self.exec(plan, flags, budget)?;
        match reply.error_line(0) {
            Some(line) => Err(self.core.told(judge::error_of(plan, line, pool.name()))),
            None => Ok(reply),
        }
    }

    /// Runs a list of commands, RESP-encoded one after the other; the reply is an ARRAY with one node for each. With `EACH`
    /// it is one command, whose reply is its own and whose error is an error.
    pub fn cmds_exec(&self, list: &[u8], flags: CallFlags, budget: Budget) -> Result<Reply> {
        if flags.has(CallFlags::EACH) {
            return self.exec_one(&Plan::one(list)?, flags, budget);
        }
        self.exec(&Plan::list(list)?, flags, budget).map(|(reply, _)| reply)
    }

    /// The reply, unless a transaction in it was not executed.
    fn executed(plan: &Plan<'_>, (reply, pool): (Reply, Arc<Pool>)) -> Result<(Reply, Arc<Pool>)> {
        if !plan.was_aborted(&reply) {
            return Ok((reply, pool));
        }
        let text = "EXEC answered null: a watched key was changed, and nothing of the transaction was executed";
        let error = Error::new(Status::TxnAborted, text).with_endpoint(pool.name());
        Err(if plan.is_list() { error.with_reply(reply) } else { error })
    }

    fn exec(&self, plan: &Plan<'_>, call_flags: CallFlags, budget: Budget) -> Result<(Reply, Arc<Pool>)> {
        let _inside = self.core.enter()?;
        if budget == Budget::DontWait {
            let text = format!("{} was not sent: {NO_TIME}", plan.name());
            return Err(self.core.told(Error::new(Status::Timeout, text)));
        }
        let outcome = match &self.session {
            Some(session) => session.exec(&self.core, plan, plan.deadline(budget, session.settings.timeout_call)),
            None => {
                let settings = self.core.settings();
                let (timeout, retry) = (settings.timeout_call, settings.retry);
                drop(settings);
                self.core.exec(plan, call_flags, plan.deadline(budget, timeout), retry)
            }
        };
        outcome.and_then(|outcome| Self::executed(plan, outcome)).map_err(|error| self.core.told(error))
    }

    /// Primary and replicas as known now, without network.
    pub fn topology(&self) -> Result<Reply> {
        self.core.check_open()?;
        self.core.topology()
    }

    /// Counters and pools, without network.
    pub fn stats(&self) -> Result<Reply> {
        self.core.check_open()?;
        self.core.stats()
    }

    /// Closes idle connections at once, busy ones when they are done; the next call connects again, perhaps to another replica.
    pub fn disconnect(&self) -> Result<()> {
        self.core.check_open()?;
        match &self.session {
            Some(session) => session.give_back(),
            None => self.core.disconnect(),
        }
        Ok(())
    }

    /// Refuses new work, ends blocking commands at once, lets the others finish within the budget, then ends them too. On a
    /// session: gives its connection back.
    pub fn close(&self, budget: Budget) -> Result<()> {
        match &self.session {
            Some(session) => {
                session.close(budget.deadline(session.settings.timeout_call));
                Ok(())
            }
            None => self.core.close(budget.deadline(self.core.settings().timeout_call)),
        }
    }
}

/// Closes a sentinel handle and all clients made from it.
pub fn close_all(sentinel: &Arc<Sentinel>, budget: Budget) -> Result<()> {
    let deadline = budget.deadline(sentinel.settings().client.timeout_call);
    // Nothing new begins while the clients are closed one after the other.
    sentinel.close();
    let closed = sentinel.children().iter().map(|child| child.close(deadline)).collect::<Vec<_>>();
    closed.into_iter().collect()
}
