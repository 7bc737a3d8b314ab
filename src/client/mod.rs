//! The handles: a client, its sessions and its subscriptions.
//!
//! Guarantees: the connections of a client are closed with its last handle; a close ends the calls that are running at its
//! deadline. Leaves to others: everything that happens to a call (call, submit). This room puts the rooms below together and
//! decides nothing itself.

mod call_handle;
mod home;
mod line;
mod metrics;
mod scan;
mod session;
mod shared;
mod stats;
pub(crate) mod steps;
mod unwaited;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::call::{blocking, judge};
use crate::config::{ClientSettings, Config, ForkMode};
use crate::error::{Error, Result, Status};
use crate::meter::Deed;
use crate::plan::{Keep, NO_TIME, Plan, reshaped};
use crate::pool::Pool;
use crate::queue::Queue;
use crate::resp::{Reply, ReplyBuilder, typed};
use crate::time::Deadline;
use crate::topology::Sentinel;

use session::{Session, executed};
use shared::Shared;

pub use call_handle::{CallHandle, times_map};
pub(crate) use home::Home;
pub use metrics::{MetricInfo, metric_infos};
pub use scan::ScanLoop;
pub use stats::{connection_ends, stats_maps};

pub use crate::plan::{CallFlags, Target};
pub use crate::pubsub::Subscription;
pub(crate) use crate::submit::{Submission, Times};
pub use crate::time::Timeout;

/// Runs commands: for one service and target, or pinned to one connection.
pub struct Client {
    shared: Arc<Shared>,
    session: Option<Arc<Session>>,
}

impl Client {
    /// A client for a service. It connects with its first command, unless `pool.eager` is on.
    pub fn open(
        sentinel: &Arc<Sentinel>,
        service: Option<&str>,
        target: Target,
        overrides: Option<&Config>,
    ) -> Result<Arc<Self>> {
        if sentinel.is_closed() {
            return Err(crate::topology::closed());
        }
        let shared = Shared::new(sentinel, service, target, overrides)?;
        let eager = shared.context().settings().pool.eager;
        let client = Arc::new(Self { shared, session: None });
        if eager {
            client.cmd_exec(&[b"PING"], CallFlags::default(), Timeout::Default)?;
        }
        Ok(client)
    }

    /// What it does in a forked child. It never changes.
    pub fn fork_mode(&self) -> ForkMode {
        self.shared.context().settings().fork
    }

    /// Whether it is pinned to one connection.
    pub fn is_session(&self) -> bool {
        self.session.is_some()
    }

    /// In a forked child: the parent's client made anew, on a handle of the child, from what never changes. Nothing is connected.
    pub fn reopened(&self, sentinel: &Arc<Sentinel>) -> Result<Arc<Self>> {
        let context = self.shared.context();
        let (service, overrides) = (context.service.name(), context.overrides());
        let shared = Shared::new(sentinel, Some(service), context.target, overrides)?;
        let client = Self { shared, session: None };
        if self.is_closed() || sentinel.is_closed() {
            client.close(Timeout::DontWait)?;
        }
        Ok(Arc::new(client))
    }

    /// Which nodes its calls go to.
    pub(crate) fn target(&self) -> Target {
        self.shared.context().target
    }

    /// A client pinned to one connection, which it takes with its first command. On a split client the connection is to the
    /// primary.
    pub fn session(self: &Arc<Self>, overrides: Option<&Config>) -> Result<Arc<Self>> {
        self.session_at(overrides, None)
    }

    /// The same. `home`: knows the keys of its shard, if it is on one of several.
    pub(crate) fn session_at(
        self: &Arc<Self>,
        overrides: Option<&Config>,
        home: Option<Arc<dyn Home>>,
    ) -> Result<Arc<Self>> {
        if self.session.is_some() {
            return Err(Error::new(Status::InvalidState, "a session cannot be made from a session"));
        }
        let context = self.shared.context();
        context.check_open()?;
        let settings = self.settings_with(overrides)?;
        if overrides.is_some() {
            settings.settle_with(&context.sentinel.settings().sentinel)?;
        }
        Ok(Arc::new(Self { shared: Arc::clone(&self.shared), session: Some(Session::new(settings, home)) }))
    }

    /// A subscription, whose messages arrive on the queue with this token. It connects with its first channel: on a client for
    /// replicas to one of them, else to the primary.
    pub fn subscription(
        &self,
        queue: &Arc<Queue>,
        token: u64,
        overrides: Option<&Config>,
    ) -> Result<Arc<Subscription>> {
        self.subscription_of(queue, token, overrides, None)
    }

    /// The same. `together`: it is one of several that the program has as one, and counts itself there while it lives: the last one tells
    /// of their end.
    pub(crate) fn subscription_of(
        &self,
        queue: &Arc<Queue>,
        token: u64,
        overrides: Option<&Config>,
        together: Option<&Arc<AtomicUsize>>,
    ) -> Result<Arc<Subscription>> {
        if self.session.is_some() {
            let text =
                "a subscription cannot be made from a session: make it from the client that the session was made from";
            return Err(Error::new(Status::InvalidState, text));
        }
        self.shared.context().check_open()?;
        self.shared.subscribe(self.settings_with(overrides)?, queue, token, together)
    }

    fn settings_with(&self, overrides: Option<&Config>) -> Result<ClientSettings> {
        let settings = self.shared.context().settings();
        match overrides {
            Some(config) => config.overlay(&settings),
            None => Ok(ClientSettings::clone(&settings)),
        }
    }

    /// Runs one command. An error reply is an error.
    #[inline(always)]
    pub fn cmd_exec(&self, args: &[&[u8]], flags: CallFlags, timeout: Timeout) -> Result<Reply> {
        if flags.has(CallFlags::EACH | CallFlags::ATOMIC | CallFlags::TYPED) {
            return self.cmd_exec_typed(args, flags, timeout);
        }
        self.exec_one(&mut Plan::command(args)?, flags, timeout)
    }

    /// As [`Client::cmd_exec`], with a flag that few calls have.
    #[cold]
    fn cmd_exec_typed(&self, args: &[&[u8]], flags: CallFlags, timeout: Timeout) -> Result<Reply> {
        if flags.has(CallFlags::EACH | CallFlags::ATOMIC) {
            return Err(flags.for_lists());
        }
        let has_form = args
            .first()
            .is_some_and(|name| [&b"ROLE"[..], b"INFO"].iter().any(|known| name.eq_ignore_ascii_case(known)));
        if !has_form {
            let text = "flags: VIGIE_CALL_TYPED: of the commands to data nodes ROLE and INFO have a typed form";
            return Err(Error::new(Status::InvalidArg, text));
        }
        typed::typed(args, self.exec_one(&mut Plan::command(args)?, flags.without(CallFlags::TYPED), timeout)?)
    }

    #[inline(always)]
    fn exec_one(&self, plan: &mut Plan<'_>, flags: CallFlags, timeout: Timeout) -> Result<Reply> {
        let (reply, pool) = self.exec(plan, flags, timeout)?;
        match reply.error_line(0) {
            Some(line) => Err(self.shared.context().report(judge::error_of(plan, line, pool.name()))),
            None => Ok(reply),
        }
    }

    /// Runs a list of commands, RESP-encoded one after the other. The reply is an ARRAY with one node for each command. With `EACH`
    /// the list is one command: the reply is its own, and an error reply is an error. With `ATOMIC` it is one transaction.
    pub fn cmds_exec(&self, list: &[u8], flags: CallFlags, timeout: Timeout) -> Result<Reply> {
        refuse_typed(flags)?;
        if flags.has(CallFlags::ATOMIC) {
            flags.check_atomic()?;
            let mut plan = Plan::atomic(list)?;
            self.shared.context().count_transaction();
            let outcome = self.exec(&mut plan, flags, timeout).map(|(reply, _)| reply);
            self.shared.context().count_transaction_end(&outcome);
            return outcome;
        }
        if flags.has(CallFlags::EACH) {
            return self.exec_one(&mut Plan::one(list)?, flags, timeout);
        }
        self.exec(&mut Plan::list(list)?, flags, timeout).map(|(reply, _)| reply)
    }

    fn exec(&self, plan: &mut Plan<'_>, call_flags: CallFlags, timeout: Timeout) -> Result<(Reply, Arc<Pool>)> {
        match plan.wants_care() {
            false => self.exec_plan(plan, call_flags, timeout),
            true => self.exec_with_care(plan, call_flags, timeout),
        }
    }

    /// Runs a plan with scripts, or with commands that the table does not have.
    #[cold]
    fn exec_with_care(
        &self,
        plan: &mut Plan<'_>,
        call_flags: CallFlags,
        timeout: Timeout,
    ) -> Result<(Reply, Arc<Pool>)> {
        self.place(plan);
        match plan.has_scripts() {
            false => self.exec_plan(plan, call_flags, timeout),
            true => self.exec_scripts(plan, call_flags, timeout),
        }
    }

    /// Finds out whether a plan needs a connection of its own. A session has one.
    fn place(&self, plan: &mut Plan<'_>) {
        if self.session.is_none() && !plan.is_known() {
            self.shared.router().place(plan);
        }
    }

    /// Runs a plan with scripts: by their hashes, as far as that can be mended where a server does not know them.
    #[cold]
    fn exec_scripts(&self, plan: &mut Plan<'_>, call_flags: CallFlags, timeout: Timeout) -> Result<(Reply, Arc<Pool>)> {
        let Some(scripts) = self.shared.context().scripts() else { return self.exec_plan(plan, call_flags, timeout) };
        // A session does not send again, and NO_RETRY sends once.
        let mends = self.session.is_none() && !plan.is_atomic() && !call_flags.has(CallFlags::NO_RETRY);
        let keep = if mends { Keep::Last } else { Keep::None };
        match plan.spelled_out(scripts, keep) {
            None => {
                plan.use_scripts(scripts, mends);
                self.count(Deed::ScriptShortened, u64::from(plan.is_shortened()));
                self.exec_plan(plan, call_flags, timeout)
            }
            Some(bytes) => {
                let mut plan = reshaped(&bytes, plan.shape())?;
                plan.use_scripts(scripts, mends);
                self.count(Deed::ScriptShortened, u64::from(plan.is_shortened()));
                self.place(&mut plan);
                self.exec_plan(&plan, call_flags, timeout)
            }
        }
    }

    #[inline(always)]
    fn exec_plan(&self, plan: &Plan<'_>, call_flags: CallFlags, timeout: Timeout) -> Result<(Reply, Arc<Pool>)> {
        let context = self.shared.context();
        let _admitted = context.enter()?;
        if timeout == Timeout::DontWait {
            return Err(context.report(no_time(&plan.name())));
        }
        let outcome = match &self.session {
            Some(session) => self.exec_in_session(session, plan, call_flags, timeout),
            None => {
                let settings = context.settings();
                let (deadline, retry) = (plan.deadline(timeout, settings.timeout_call), settings.retry);
                drop(settings);
                blocking::exec(self.shared.router(), plan, call_flags, deadline, retry)
            }
        };
        outcome
            .and_then(|outcome| executed(plan, context.service.name(), outcome))
            .map_err(|error| context.report(error))
    }

    #[cold]
    fn exec_in_session(
        &self,
        session: &Arc<Session>,
        plan: &Plan<'_>,
        call_flags: CallFlags,
        timeout: Timeout,
    ) -> Result<(Reply, Arc<Pool>)> {
        let run = |plan: &Plan<'_>| {
            session.check(self.shared.context(), plan, call_flags)?;
            session.exec(&self.shared, plan, call_flags, plan.deadline(timeout, session.settings.timeout_call))
        };
        let Some(home) = &session.home else { return run(plan) };
        match home::stored(&**home, &plan.commands()?)? {
            Some(bytes) => run(&reshaped(&bytes, plan.shape())?),
            None => run(plan),
        }
    }

    /// Refuses a scan loop where it has no place.
    fn check_scannable(&self) -> Result<()> {
        if self.session.is_some() {
            let text =
                "a scan loop cannot be made from a session: make it from the client that the session was made from";
            return Err(Error::new(Status::InvalidState, text));
        }
        self.shared.context().check_open()
    }

    /// Runs one step of a scan. Returns the reply, the generation of the node that gave it, and the node's name.
    fn exec_scan(&self, command: &[u8], flags: CallFlags, timeout: Timeout) -> Result<(Reply, u64, String)> {
        let mut plan = Plan::one(command)?;
        let (reply, pool) = self.exec(&mut plan, flags, timeout)?;
        match reply.error_line(0) {
            Some(line) => Err(self.shared.context().report(judge::error_of(&plan, line, pool.name()))),
            None => Ok((reply, self.shared.router().scan_generation(&pool), pool.name().to_owned())),
        }
    }

    /// Copies a list of commands and runs it without waiting. Its completion arrives on the queue. With `EACH` every command is a
    /// call of its own. What is refused here is refused as a whole, and has no completion.
    pub fn cmds_submit(
        &self,
        commands: &[u8],
        flags: CallFlags,
        timeout: Timeout,
        queue: &Arc<Queue>,
        token: u64,
    ) -> Result<()> {
        self.submit(Submission::of(commands, flags, timeout, queue, token))
    }

    /// As [`Client::cmds_submit`], of which it is the whole.
    pub(crate) fn submit(&self, submission: Submission<'_>) -> Result<()> {
        let Submission { flags, timeout, .. } = submission;
        let context = self.shared.context();
        if timeout == Timeout::DontWait {
            return Err(context.report(no_time("the list")));
        }
        refuse_typed(flags)?;
        context.check_open()?;
        let taken = match &self.session {
            Some(session) => line::submit(session, &self.shared, submission),
            None => self.shared.submit(submission),
        };
        if flags.has(CallFlags::ATOMIC) && taken.is_ok() {
            context.count_transaction();
        }
        taken
    }

    /// Whether no call of it is running.
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.context().active().load(Ordering::Acquire) == 0
    }

    /// The service that it is for.
    pub(crate) fn service_name(&self) -> &str {
        self.shared.context().service.name()
    }

    /// How many bytes of submitted calls may be outstanding.
    pub(crate) fn submit_bytes(&self) -> usize {
        self.shared.context().settings().submit_bytes
    }

    /// The address of its primary, as it is known now; "" if none is.
    pub(crate) fn primary_name(&self) -> String {
        self.shared.context().service.load().primary.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// When a call that begins now and has this timeout is over.
    pub fn deadline(&self, timeout: Timeout) -> Deadline {
        timeout.deadline(self.shared.context().settings().timeout_call)
    }

    /// The primary and the replicas as they are known now, without network.
    pub fn topology(&self) -> Result<Reply> {
        self.shared.context().check_open()?;
        self.shared.topology()
    }

    /// Counts so many more of this.
    pub(crate) fn count(&self, deed: Deed, more: u64) {
        self.shared.context().count(deed, more);
    }

    /// Counters and pools, without network.
    pub fn stats(&self) -> Result<Reply> {
        self.shared.context().check_open()?;
        self.shared.stats()
    }

    /// The same as text for Prometheus.
    pub fn metrics(&self, open_metrics: bool) -> Result<Reply> {
        metrics_of_clients(&[("", self)], open_metrics)
    }

    /// Closes idle connections at once, and busy ones when they are done. The next call connects again, perhaps to another replica.
    pub fn disconnect(&self) -> Result<()> {
        self.shared.context().check_open()?;
        match &self.session {
            Some(session) => session.give_back(),
            None => self.shared.router().disconnect(),
        }
        Ok(())
    }

    /// Whether it was closed: with its own close, or with that of what it was made from.
    pub fn is_closed(&self) -> bool {
        self.shared.context().is_closed() || self.session.as_ref().is_some_and(|session| session.is_closed())
    }

    /// Ends what was made from it, and says why. No call may be running.
    pub(crate) fn end(&self, why: &'static str) {
        self.shared.context().explain_close(why);
        // The time of a close without time is over at once; that calls were running is what it says then.
        drop(self.close(Timeout::DontWait));
    }

    /// Refuses new calls, ends blocking commands at once, lets other calls finish within the timeout, then ends them, too. On a
    /// session: gives its connection back.
    pub fn close(&self, timeout: Timeout) -> Result<()> {
        match &self.session {
            Some(session) => {
                session.close(timeout.deadline(session.settings.timeout_call));
                Ok(())
            }
            None => self.shared.close(timeout.deadline(self.shared.context().settings().timeout_call)),
        }
    }
}

/// Closes a sentinel handle and all clients made from it.
pub fn close_all(sentinel: &Arc<Sentinel>, timeout: Timeout) -> Result<()> {
    let deadline = timeout.deadline(sentinel.settings().client.timeout_call);
    // No call begins while the clients are closed one after the other.
    sentinel.close();
    let mut closed = sentinel.children().iter().map(|child| child.close(deadline)).collect::<Vec<_>>();
    closed.push(sentinel.close_submitted(deadline));
    closed.into_iter().collect()
}

/// What a handle and its clients have done.
pub fn stats_of(sentinel: &Sentinel) -> Result<Reply> {
    stats::of_handle(sentinel.figures()?)
}

/// The same as text for Prometheus.
pub fn metrics_of(sentinel: &Sentinel, open_metrics: bool) -> Result<Reply> {
    said(&metrics::text(sentinel.figures()?, open_metrics))
}

/// The figures of these clients and of their services as text for Prometheus. Each with the name of its shard; "": it is none.
pub fn metrics_of_clients(clients: &[(&str, &Client)], open_metrics: bool) -> Result<Reply> {
    let (mut services, mut rows) = (Vec::new(), Vec::new());
    for (shard, client) in clients {
        client.shared.context().check_open()?;
        services.push(((*shard).to_owned(), client.shared.context().service.figures()));
        rows.push(((*shard).to_owned(), client.shared.figures()));
    }
    if rows.iter().any(|(_, figures)| figures.lacks_rows) {
        return Err(Error::new(Status::Limit, "the statistics: no memory for those of the nodes and subscriptions"));
    }
    said(&metrics::text_of(None, services, rows, open_metrics))
}

fn said(text: &str) -> Result<Reply> {
    let mut out = ReplyBuilder::new();
    out.text(text);
    out.try_finish()
}

/// Lists have no typed form.
fn refuse_typed(flags: CallFlags) -> Result<()> {
    match flags.has(CallFlags::TYPED) {
        false => Ok(()),
        true => {
            let text =
                "flags: VIGIE_CALL_TYPED is for one ROLE or INFO by vigie_cmd_exec(), and for vigie_sentinel_exec()";
            Err(Error::new(Status::InvalidArg, text))
        }
    }
}

/// The error of a call with a timeout of 0 or less.
fn no_time(what: &str) -> Error {
    Error::new(Status::Timeout, format!("{what} was not sent: {NO_TIME}"))
}
