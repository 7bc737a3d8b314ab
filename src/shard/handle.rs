//! The handle over several shards, and how its calls run.
//!
//! Guarantees: a call uses one map from its beginning to its end. While the shards are changed, a call whose key moves waits until all calls
//! that began under the old map are over, so that each key sees the order of its calls; the others go on. Leaves to others: the map and
//! the operations (the files beside), a call to one shard (client).

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::commands;
use super::hash::OwnHash;
use super::map::{Route, Where};
use super::nodes::{Source, State};
use super::pipeline::{self, Step};
use super::session::OnShard;
use super::split::{Split, Work};
use super::subscription::ShardedSubscription;
use super::task::{Rounds, Task, time};
use crate::client::steps::{self, AfterCancel, Next, Operation, Steps, Told};
use crate::client::{self, CallFlags, CallHandle, Client, ScanLoop, Submission, Timeout, Times};
use crate::config::{Config, ForkMode};
use crate::error::{Error, Result, Status, flags};
use crate::plan::Plan;
use crate::queue::{Credits, Queue};
use crate::resp::list::{self, CommandList};
use crate::resp::table::{self, Named};
use crate::resp::{Reply, ReplyBuilder, encode};
use crate::sys::rank::Rank;
use crate::sys::sync::Lock;
use crate::sys::thread;
use crate::time::Deadline;
use crate::topology::Sentinel;

/// How often a call that waits for the old map looks again.
const LOOK: Duration = Duration::from_millis(1);

/// A client over several shards.
pub struct Shards {
    sentinel: Option<Arc<Sentinel>>,
    overrides: Option<Config>,
    own: Option<Arc<dyn OwnHash>>,
    state: ArcSwap<State>,
    /// The map before, while calls are running under it.
    old: Lock<Option<Arc<State>>>,
    has_old: AtomicBool,
    /// The sessions and subscriptions of the old map are being ended. Calls that wait for the old map wait for that too.
    ends_old: AtomicBool,
    rounds: Rounds,
    closed: AtomicBool,
}

/// Where a call goes.
enum Place<'a> {
    One(usize, Route<'a>),
    Several(Box<dyn Operation>),
}

impl Shards {
    /// A handle over these shards. `sentinel`: knows those that are services; the others take its settings.
    pub fn open(sentinel: Option<&Arc<Sentinel>>, texts: &[&str], overrides: Option<&Config>) -> Result<Arc<Self>> {
        Self::open_by(sentinel, texts, overrides, None)
    }

    /// The same with a hash function of the program, which is called by the threads that use the handle.
    pub fn open_by(
        sentinel: Option<&Arc<Sentinel>>,
        texts: &[&str],
        overrides: Option<&Config>,
        own: Option<Arc<dyn OwnHash>>,
    ) -> Result<Arc<Self>> {
        let state = State::new(&Source { sentinel, overrides, own: own.as_ref() }, texts)?;
        let shards = Self::over(state, sentinel, overrides, own, false);
        shards.check_reachable(&shards.state.load_full())?;
        Ok(shards)
    }

    /// What it does in a forked child. It never changes.
    pub fn fork_mode(&self) -> ForkMode {
        self.state.load().client(0).fork_mode()
    }

    /// In a forked child: the parent's handle made anew over its newest shards, from what is read without a lock. `sentinel`: that of the
    /// child, if there is one. Nothing is connected.
    pub fn reopened(&self, sentinel: Option<&Arc<Sentinel>>) -> Result<Arc<Self>> {
        let state = self.state.load().reopened(sentinel)?;
        let closed = self.closed.load(Ordering::Acquire);
        Ok(Self::over(state, sentinel, self.overrides.as_ref(), self.own.clone(), closed))
    }

    fn over(
        state: State,
        sentinel: Option<&Arc<Sentinel>>,
        overrides: Option<&Config>,
        own: Option<Arc<dyn OwnHash>>,
        closed: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            sentinel: sentinel.cloned(),
            overrides: overrides.cloned(),
            own,
            state: ArcSwap::from_pointee(state),
            old: Lock::new(Rank::Shards, None),
            has_old: AtomicBool::new(false),
            ends_old: AtomicBool::new(false),
            rounds: Rounds::new(),
            closed: AtomicBool::new(closed),
        })
    }

    /// The handle of a forked child is in use: the logs of its shards say so.
    pub fn began(&self) {
        self.state.load().began();
    }

    /// Asks each primary whether it is there, unless a shard may be down.
    fn check_reachable(&self, state: &Arc<State>) -> Result<()> {
        if state.is_degraded() {
            return Ok(());
        }
        let task = self.task(state, CallFlags::default(), Timeout::Default).on_primary();
        let Some(mut operation) = commands::without_key(task, &[b"PING"])? else { return Ok(()) };
        let reply = match self.rounds.run(&mut *operation, state.len()) {
            // Where none has answered the error has what each of them says.
            Err(error) => error.reply().cloned().ok_or(error)?,
            Ok(reply) => reply,
        };
        let mut nodes = reply.children(0);
        while let (Some(name), Some(answer)) = (nodes.next(), nodes.next()) {
            if let Some(line) = reply.error_line(answer) {
                let line = String::from_utf8_lossy(line);
                let name = reply.bytes(name).map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
                let (code, text) = line.split_once(' ').unwrap_or(("", &line));
                let known = Status::ALL.iter().find(|row| row.name.strip_prefix("VIGIE_ERR_") == Some(code));
                let status = known.map_or(Status::Server, |row| row.status);
                let shown = if known.is_some() { text } else { &line };
                let shown = shown.strip_prefix(&format!("{name}: ")).unwrap_or(shown);
                let text = format!(
                    "shards: {name} cannot be used: {shown}; with the option \"shard.degraded\" the handle opens, or takes other shards, \
                     without it"
                );
                return Err(Error::new(status, text).with_flags(flags::RETRYABLE));
            }
        }
        Ok(())
    }

    fn task(&self, state: &Arc<State>, flags: CallFlags, timeout: Timeout) -> Task {
        let deadline = state.client(0).deadline(timeout);
        Task { state: Arc::clone(state), flags, deadline }
    }

    fn check_open(&self) -> Result<()> {
        match self.closed.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(Error::new(Status::Closed, "the client was closed")),
        }
    }

    /// Runs one command, as [`Client::cmd_exec`].
    pub fn cmd_exec(&self, args: &[&[u8]], flags: CallFlags, timeout: Timeout) -> Result<Reply> {
        if flags.has(CallFlags::EACH | CallFlags::ATOMIC) {
            return Err(flags.for_lists());
        }
        self.check_open()?;
        let state = self.state.load();
        let route = route(&state, args)?;
        if self.has_old.load(Ordering::Acquire) {
            self.await_old(&state, &[route.args(args)], timeout)?;
        }
        if let Where::One(shard) | Where::Channel(shard) = route.to {
            // The guard keeps the map in use until the call is over.
            let outcome = state.client(shard).cmd_exec(route.args(args), flags, timeout);
            return outcome.map_err(|error| state.named(shard, error));
        }
        let state = Arc::clone(&state);
        match self.place(&state, args, route, flags, timeout)? {
            Place::One(shard, route) => {
                let outcome = state.client(shard).cmd_exec(route.args(args), flags, timeout);
                outcome.map_err(|error| state.named(shard, error))
            }
            Place::Several(mut operation) => {
                refuse_typed(flags)?;
                self.rounds.run(&mut *operation, state.len())
            }
        }
    }

    /// Where a command goes that is not for one shard by its keys.
    fn place<'a>(
        &self,
        state: &Arc<State>,
        args: &[&'a [u8]],
        route: Route<'a>,
        flags: CallFlags,
        timeout: Timeout,
    ) -> Result<Place<'a>> {
        let task = self.task(state, flags.without(CallFlags::EACH), timeout);
        match &route.to {
            Where::One(shard) | Where::Channel(shard) => Ok(Place::One(*shard, route)),
            Where::Many(keys) => commands::over_several(task, route.args(args), keys).map(Place::Several),
            Where::Channels(channels) => Err(state.map.cross_shard(args, channels)),
            Where::Unknown => Err(commands::unknown(args)),
            Where::Keyless => match commands::without_key(task, args)? {
                Some(operation) => Ok(Place::Several(operation)),
                // What needs a session is refused here, before a list has sent anything.
                None => match Plan::command(args)?.check_shared().map(|()| state.default_shard())? {
                    Some(shard) => Ok(Place::One(shard, route)),
                    None => Err(commands::homeless(args)),
                },
            },
        }
    }

    /// Runs a list of commands, as [`Client::cmds_exec`]: the commands of each shard together, all shards at the same time.
    pub fn cmds_exec(&self, list: &[u8], flags: CallFlags, timeout: Timeout) -> Result<Reply> {
        self.check_open()?;
        let state = self.state.load_full();
        let parsed = parse(list)?;
        if self.has_old.load(Ordering::Acquire) {
            self.await_old_for_list(&state, parsed, timeout)?;
        }
        if flags.has(CallFlags::EACH) {
            if let (1, Some(command)) = (parsed.len(), parsed.commands().next()) {
                let args: Vec<&[u8]> = command.args().collect();
                return self.cmd_exec(&args, flags.without(CallFlags::EACH), timeout);
            }
            Plan::one(list)?;
        }
        match self.deal(&state, parsed, flags, timeout)? {
            Dealt::One(shard, bytes) => {
                let outcome = state.client(shard).cmds_exec(bytes.as_deref().unwrap_or(list), flags, timeout);
                outcome.map_err(|error| state.named(shard, error))
            }
            Dealt::Several(mut operation) => {
                refuse_typed(flags)?;
                self.rounds.run(&mut *operation, state.len())
            }
        }
    }

    /// What a list becomes.
    fn deal(&self, state: &Arc<State>, list: CommandList<'_>, flags: CallFlags, timeout: Timeout) -> Result<Dealt> {
        if flags.has(CallFlags::ATOMIC) {
            flags.check_atomic()?;
            return atomic(state, list);
        }
        let steps = pipeline::deal(&state.map, list)?;
        if let [Step::Together(parts)] = &steps[..] {
            if let [part] = &parts[..] {
                return Ok(Dealt::One(part.shard, Some(part.bytes.clone())));
            }
        }
        let mut work = Vec::new();
        for step in steps {
            work.push(match step {
                Step::Together(parts) => Work::Together(parts),
                Step::Apart(apart) => match self.place(state, &apart.args, apart.route, flags, timeout)? {
                    Place::Several(operation) => Work::Apart(apart.at, operation),
                    Place::One(shard, route) => {
                        let mut bytes = Vec::new();
                        encode::try_command(&mut bytes, route.args(&apart.args))?;
                        Work::Together(vec![pipeline::Part { shard, at: vec![apart.at], bytes }])
                    }
                },
            });
        }
        let task = self.task(state, flags, timeout);
        Ok(Dealt::Several(Box::new(Split::new(task, list.len(), work))))
    }

    /// Copies a list of commands and runs it without waiting, as [`Client::cmds_submit`].
    pub fn cmds_submit(
        self: &Arc<Self>,
        list: &[u8],
        flags: CallFlags,
        timeout: Timeout,
        queue: &Arc<Queue>,
        token: u64,
    ) -> Result<()> {
        self.check_open()?;
        if timeout == Timeout::DontWait {
            return Err(Error::new(Status::Timeout, format!("the list was not sent: {}", crate::plan::NO_TIME)));
        }
        refuse_typed(flags)?;
        let state = self.state.load_full();
        let parsed = parse(list)?;
        if !flags.has(CallFlags::EACH) {
            let call = self.prepare(&state, parsed, list, flags, timeout)?;
            return self.start(&state, call, flags, timeout, (queue, token, None), &Cell::new(None));
        }
        let mut calls = Vec::with_capacity(parsed.len());
        for command in parsed.commands() {
            calls.push(self.prepare(&state, command.alone(), command.bytes(), flags, timeout)?);
        }
        // All or nothing: every call has its room before the first one is sent.
        let most = state.client(0).submit_bytes();
        let mut rooms = queue.reserve_bytes(token, calls.len(), list.len(), most)?;
        for (at, (call, command)) in calls.into_iter().zip(parsed.commands()).enumerate() {
            let token = token.wrapping_add(at as u64);
            let room = Cell::new(Some(rooms.split(1, command.bytes().len())));
            match (self.start(&state, call, flags, timeout, (queue, token, None), &room), room.take()) {
                (Ok(()), _) => {}
                (Err(error), _) if at == 0 => return Err(error),
                (Err(error), left) => {
                    if let Some(credit) = left.and_then(|mut left| left.next_of(usize::MAX)) {
                        credit.complete(Err(error));
                    }
                }
            }
        }
        Ok(())
    }

    fn prepare(
        &self,
        state: &Arc<State>,
        list: CommandList<'_>,
        bytes: &[u8],
        flags: CallFlags,
        timeout: Timeout,
    ) -> Result<Prepared> {
        let is_moving = self.has_old.load(Ordering::Acquire) && self.moves(state, list);
        let dealt = match (flags.has(CallFlags::EACH), list.commands().next()) {
            (true, Some(command)) => {
                let args: Vec<&[u8]> = command.args().collect();
                let route = route(state, &args)?;
                match self.place(state, &args, route, flags, timeout)? {
                    Place::Several(operation) => Dealt::Several(operation),
                    Place::One(shard, route) => {
                        let mut stripped = Vec::new();
                        encode::try_command(&mut stripped, route.args(&args))?;
                        Dealt::One(shard, Some(stripped))
                    }
                }
            }
            _ => self.deal(state, list, flags, timeout)?,
        };
        Ok(match dealt {
            Dealt::One(shard, own) if !is_moving => Prepared::One(shard, own.unwrap_or_else(|| bytes.to_vec())),
            Dealt::One(shard, own) => {
                let task = self.task(state, flags, timeout);
                let commands = own.unwrap_or_else(|| bytes.to_vec());
                Prepared::Several(Box::new(Alone { task, shard, commands: Some(commands) }), is_moving)
            }
            Dealt::Several(operation) => Prepared::Several(operation, is_moving),
        })
    }

    fn start(
        self: &Arc<Self>,
        state: &Arc<State>,
        call: Prepared,
        flags: CallFlags,
        timeout: Timeout,
        (queue, token, times): (&Arc<Queue>, u64, Option<&Arc<Times>>),
        room: &Cell<Option<Credits>>,
    ) -> Result<()> {
        match call {
            Prepared::One(shard, commands) => {
                let (commands, room) = (&commands[..], Some(room));
                let submission = Submission { times, room, ..Submission::of(commands, flags, timeout, queue, token) };
                let outcome = state.client(shard).submit(submission);
                outcome.map_err(|error| state.named(shard, error))
            }
            Prepared::Several(operation, waits) => {
                let deadline = state.client(0).deadline(timeout);
                let operation: Box<dyn Operation> = match waits {
                    true => Box::new(AfterOld {
                        shards: Arc::clone(self),
                        state: Arc::clone(state),
                        operation,
                        deadline,
                        waits,
                    }),
                    false => operation,
                };
                match room.take().and_then(|mut room| room.next_of(usize::MAX)) {
                    None => Steps::begin(state.client(0), operation, queue, token).map(drop),
                    credit => {
                        Steps::begin_with(state.client(0), operation, queue, token, credit);
                        Ok(())
                    }
                }
            }
        }
    }

    /// Runs one command with a call handle, as [`CallHandle::cmd_exec`].
    pub fn call_cmd_exec(
        self: &Arc<Self>,
        call: &CallHandle,
        args: &[&[u8]],
        flags: CallFlags,
        timeout: Timeout,
    ) -> Result<Reply> {
        if flags.has(CallFlags::EACH | CallFlags::ATOMIC) {
            return Err(flags.for_lists());
        }
        let mut command = Vec::new();
        encode::try_command(&mut command, args)?;
        self.call_exec(call, &command, flags.with(CallFlags::EACH), timeout)
    }

    /// Runs a list with a call handle, as [`CallHandle::exec`].
    pub fn call_exec(
        self: &Arc<Self>,
        call: &CallHandle,
        list: &[u8],
        flags: CallFlags,
        timeout: Timeout,
    ) -> Result<Reply> {
        call.run(list, flags, |queue, token, times| {
            self.check_open()?;
            refuse_typed(flags)?;
            let state = self.state.load_full();
            let prepared = self.prepare(&state, parse(list)?, list, flags, timeout)?;
            self.start(&state, prepared, flags, timeout, (queue, token, Some(times)), &Cell::new(None))
        })
    }

    /// A scan from its beginning to its end: SCAN over all servers, one after the other; HSCAN and its kin on the shard of their key.
    pub fn scan(&self, args: &[&[u8]], most_restarts: u32) -> Result<ScanLoop> {
        self.check_open()?;
        let state = self.state.load();
        let route = route(&state, args)?;
        match route.to {
            Where::One(shard) => ScanLoop::new(state.client(shard), route.args(args), most_restarts),
            _ => {
                let mut rest: Vec<Arc<Client>> =
                    state.servers().iter().rev().map(|shard| Arc::clone(state.client(*shard))).collect();
                let first = rest.pop().ok_or_else(|| Error::new(Status::Internal, "no shard"))?;
                ScanLoop::over(&first, rest, args, most_restarts)
            }
        }
    }

    /// A subscription, whose messages arrive on the queue with this token.
    pub fn subscription(
        &self,
        queue: &Arc<Queue>,
        token: u64,
        overrides: Option<&Config>,
    ) -> Result<ShardedSubscription> {
        self.check_open()?;
        Ok(ShardedSubscription::new(&self.state.load(), queue, token, overrides))
    }

    /// The client of the shard on which a key is, and the name under which it is stored there.
    pub fn home_of(&self, key: &str) -> Result<(Arc<Client>, String)> {
        self.check_open()?;
        let state = self.state.load();
        let located = state.map.locate(key.as_bytes())?;
        Ok((Arc::clone(state.client(located.shard)), String::from_utf8_lossy(located.stored).into_owned()))
    }

    /// The shard of a key.
    pub fn shard_of(&self, key: &[u8]) -> Result<usize> {
        self.state.load().map.locate(key).map(|located| located.shard)
    }

    /// A session on the shard of this key.
    pub fn session(&self, key: Option<&[u8]>, overrides: Option<&Config>) -> Result<Arc<Client>> {
        self.check_open()?;
        let state = self.state.load();
        let shard = match (key, state.len()) {
            (Some(key), _) => state.map.locate(key)?.shard,
            (None, 1) => 0,
            (None, count) => {
                let text = format!("key is NULL: it says on which of the {count} shards the session is");
                return Err(Error::new(Status::InvalidArg, text));
            }
        };
        let home = Arc::new(OnShard::new(&state, shard));
        state.client(shard).session_at(overrides, Some(home)).map_err(|error| state.named(shard, error))
    }

    /// A map from the names of the shards to what this makes of their clients.
    fn of_each(&self, of: impl Fn(&Client) -> Result<Reply>) -> Result<Reply> {
        self.check_open()?;
        let state = self.state.load_full();
        let mut out = ReplyBuilder::new();
        out.map().text("shards").map();
        for shard in 0..state.len() {
            out.text(state.name(shard)).reply(&*of(state.client(shard))?);
        }
        out.end().end();
        out.try_finish()
    }

    /// The primary and the replicas of each shard as they are known now, without network.
    pub fn topology(&self) -> Result<Reply> {
        self.of_each(Client::topology)
    }

    /// The counters of each shard, without network.
    pub fn stats(&self) -> Result<Reply> {
        self.of_each(Client::stats)
    }

    /// The same as text for Prometheus, with a label for the shard. A server that has two names is there once, as its first shard.
    pub fn metrics(&self, open_metrics: bool) -> Result<Reply> {
        self.check_open()?;
        let state = self.state.load_full();
        let clients: Vec<(&str, &Client)> =
            state.servers().iter().map(|shard| (state.name(*shard), &**state.client(*shard))).collect();
        client::metrics_of_clients(&clients, open_metrics)
    }

    /// Closes idle connections at once, and busy ones when they are done.
    pub fn disconnect(&self) -> Result<()> {
        self.check_open()?;
        let state = self.state.load_full();
        state.servers().iter().try_for_each(|shard| state.client(*shard).disconnect())
    }

    /// Whether it was closed, or the handle that it was made from.
    pub fn is_closed(&self) -> bool {
        let state = self.state.load();
        self.closed.load(Ordering::Acquire) || state.servers().iter().any(|shard| state.client(*shard).is_closed())
    }

    /// Closes the clients of all shards, as [`Client::close`].
    pub fn close(&self, timeout: Timeout) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        // The lock first: a change of the shards under way is over then, or finds the handle closed.
        let old = self.old.lock().take();
        let state = self.state.load_full();
        let deadline = state.client(0).deadline(timeout);
        let mut outcome = Ok(());
        for state in std::iter::once(state).chain(old) {
            for shard in state.servers() {
                let closed = state.client(*shard).close(time(deadline)).map_err(|error| state.named(*shard, error));
                outcome = outcome.and(closed);
                if let Some(own) = state.own(*shard) {
                    outcome = outcome.and(client::close_all(own, time(deadline)));
                }
            }
        }
        outcome
    }

    /// Other shards from now on, if each of them answers. Those that stay keep their servers; all connections are made anew.
    pub fn set(&self, texts: &[&str]) -> Result<()> {
        self.check_open()?;
        if !self.is_old_over() {
            return Err(still_changing());
        }
        let source =
            Source { sentinel: self.sentinel.as_ref(), overrides: self.overrides.as_ref(), own: self.own.as_ref() };
        let next = Arc::new(State::new(&source, texts)?);
        self.check_reachable(&next)?;
        self.forget_old();
        let mut old = self.old.lock();
        if old.is_some() {
            return Err(still_changing());
        }
        // A close that came meanwhile has not seen the clients of these.
        self.check_open()?;
        self.has_old.store(true, Ordering::Release);
        *old = Some(self.state.swap(next));
        Ok(())
    }

    /// Gives the old map up if no call is running under it. Whether there is none any more.
    fn forget_old(&self) -> bool {
        let over = {
            let old = self.old.lock();
            // A call of a thread holds the map; one that was submitted is counted by its client.
            if old.is_some() && self.ends_old.load(Ordering::Relaxed) {
                return false;
            }
            let Some(state) = old.as_ref().filter(|state| Arc::strong_count(state) == 1 && state.is_idle()) else {
                return old.is_none();
            };
            self.ends_old.store(true, Ordering::Relaxed);
            Arc::clone(state)
        };
        // Without the lock, because the end waits for a call that a session has begun. Calls that wait for the old map begin after it: a
        // session would write keys that are elsewhere now.
        over.end();
        let mut old = self.old.lock();
        // A close may have taken it meanwhile.
        old.take_if(|state| Arc::ptr_eq(state, &over));
        self.ends_old.store(false, Ordering::Relaxed);
        self.has_old.store(old.is_some(), Ordering::Release);
        true
    }

    fn is_old_over(&self) -> bool {
        !self.has_old.load(Ordering::Acquire) || self.forget_old()
    }

    /// Whether a key of this command is elsewhere than before.
    fn moves_one(&self, state: &State, args: &[&[u8]]) -> bool {
        self.forget_old();
        let old = self.old.lock();
        let Some(old) = &*old else { return false };
        let Ok(Named::Keys(places)) = table::named(args) else { return false };
        places.iter().any(|at| old.target_of(args[at]) != state.target_of(args[at]))
    }

    fn moves(&self, state: &State, list: CommandList<'_>) -> bool {
        list.commands().any(|command| self.moves_one(state, &command.args().collect::<Vec<_>>()))
    }

    /// Whether a call of this map can begin. If its map has become the old one meanwhile, the map before it is over, and the call does not wait
    /// for itself.
    fn may_go(&self, state: &State) -> bool {
        let is_its_own = |old: &Arc<State>| std::ptr::eq(&**old, state);
        self.is_old_over() || self.old.lock().as_ref().is_none_or(is_its_own)
    }

    #[cold]
    fn await_old(&self, state: &State, commands: &[&[&[u8]]], timeout: Timeout) -> Result<()> {
        if !commands.iter().any(|args| self.moves_one(state, args)) {
            return Ok(());
        }
        self.await_end(state, state.client(0).deadline(timeout))
    }

    #[cold]
    fn await_old_for_list(&self, state: &State, list: CommandList<'_>, timeout: Timeout) -> Result<()> {
        match self.moves(state, list) {
            true => self.await_end(state, state.client(0).deadline(timeout)),
            false => Ok(()),
        }
    }

    fn await_end(&self, state: &State, deadline: Deadline) -> Result<()> {
        while !self.may_go(state) {
            if deadline.is_over() {
                return Err(still_moving(deadline));
            }
            thread::sleep(deadline.left_or(LOOK).min(LOOK));
        }
        Ok(())
    }
}

#[cold]
fn still_changing() -> Error {
    let text = "the shards are being changed: calls that began before are still running";
    Error::new(Status::InvalidState, text).with_flags(flags::RETRYABLE)
}

#[cold]
fn still_moving(deadline: Deadline) -> Error {
    let after = deadline.elapsed().as_millis();
    let text = format!(
        "a key of this call moves to another shard, and calls that began before that are still running (after {after} ms): not sent"
    );
    Error::new(Status::Timeout, text).with_flags(flags::RETRYABLE)
}

/// What a list becomes.
enum Dealt {
    /// All of it is for one shard; the commands as they are sent, if they were changed.
    One(usize, Option<Vec<u8>>),
    Several(Box<dyn Operation>),
}

/// A submitted call that can begin.
enum Prepared {
    One(usize, Vec<u8>),
    /// Whether it waits for the end of the old map.
    Several(Box<dyn Operation>, bool),
}

/// A call for one shard, as an operation.
struct Alone {
    task: Task,
    shard: usize,
    commands: Option<Vec<u8>>,
}

impl Operation for Alone {
    fn next(&mut self, told: Option<Told>) -> Next {
        match (told, self.commands.take()) {
            (Some(told), _) => Next::Over(self.task.answer(self.shard, told).map(Some)),
            (None, Some(commands)) => self.task.ask(vec![super::task::Ask { shard: self.shard, commands, form: 0 }]),
            (None, None) => Next::Over(Err(Error::new(Status::Internal, "a call without commands"))),
        }
    }
}

/// An operation that waits for the end of the old map first.
struct AfterOld {
    shards: Arc<Shards>,
    /// The map that it goes by.
    state: Arc<State>,
    operation: Box<dyn Operation>,
    deadline: Deadline,
    waits: bool,
}

impl Operation for AfterOld {
    fn next(&mut self, told: Option<Told>) -> steps::Next {
        if self.waits && !self.shards.may_go(&self.state) {
            return match self.deadline.is_over() {
                true => Next::Over(Err(still_moving(self.deadline))),
                false => Next::Pause(LOOK),
            };
        }
        self.waits = false;
        self.operation.next(told)
    }

    fn after_cancel(&self) -> AfterCancel {
        if self.waits { AfterCancel::Pauses } else { self.operation.after_cancel() }
    }
}

fn route<'a>(state: &State, args: &[&'a [u8]]) -> Result<Route<'a>> {
    if args.first().is_none_or(|name| name.is_empty()) {
        return Err(Error::new(Status::InvalidArg, "a command needs a name"));
    }
    state.map.route(args)
}

fn parse(list: &[u8]) -> Result<CommandList<'_>> {
    let list = list::parse(list)?;
    let is_nameless = |command: list::Command<'_>| command.name().is_empty();
    if list.is_empty() {
        return Err(Error::new(Status::InvalidArg, "commands: the list is empty"));
    }
    if list.commands().any(is_nameless) {
        return Err(Error::new(Status::InvalidArg, "commands: a command needs a name"));
    }
    Ok(list)
}

/// A transaction, which is on one shard.
fn atomic(state: &State, list: CommandList<'_>) -> Result<Dealt> {
    let (mut shard, mut bytes) = (None, Vec::new());
    for command in list.commands() {
        let args: Vec<&[u8]> = command.args().collect();
        let route = state.map.route(&args)?;
        let own = match &route.to {
            Where::One(own) | Where::Channel(own) => Some(*own),
            Where::Many(keys) | Where::Channels(keys) => return Err(state.map.cross_shard(&args, keys)),
            Where::Keyless if state.servers().len() > 1 && commands::is_for_all(&args) => {
                return Err(commands::all_in_one(&args));
            }
            Where::Keyless => None,
            Where::Unknown => return Err(commands::unknown(&args)),
        };
        if let (Some(first), Some(own)) = (shard, own.filter(|own| shard.is_some_and(|first| first != *own))) {
            return Err(commands::atomic_over_several(state.name(first), state.name(own)));
        }
        shard = shard.or(own);
        encode::try_command(&mut bytes, route.args(&args))?;
    }
    match shard.or_else(|| state.default_shard()) {
        Some(shard) => Ok(Dealt::One(shard, Some(bytes))),
        None => {
            let args: Vec<&[u8]> = list.commands().next().map(|command| command.args().collect()).unwrap_or_default();
            Err(commands::homeless(&args))
        }
    }
}

fn refuse_typed(flags: CallFlags) -> Result<()> {
    match flags.has(CallFlags::TYPED) {
        false => Ok(()),
        true => Err(Error::new(
            Status::InvalidArg,
            "flags: VIGIE_CALL_TYPED is for one command to one node: a command to several shards has no typed form",
        )),
    }
}
