//! The router of a client: keeps the view of its service up to date, and finds the node for each call.
//!
//! Guarantees: a view follows the topology's snapshot before the next call is routed; a pool whose node has left the view is
//! retired, and the calls that wait in it are answered; the connections are closed with the client's last handle. Leaves to others:
//! the choice itself (choice, scan).

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};

use super::admit::{Admission, Lineage};
use super::choice::Choice;
use super::commands;
use super::context::Context;
use super::lag::{self, Measured, Measurements};
use super::scan::{self, Landed, Scans, Trip};
use super::view::{ReplicaTarget, Route, View};
use crate::config::{ClientSettings, Config, Endpoint, Settings};
use crate::error::{Error, Result, Status, flags, quoted};
use crate::lane::Outcome;
use crate::log::lines;
use crate::meter::{ClientFigures, NodeNow};
use crate::net::{Admit, Conn, ConnectOptions, Expect};
use crate::plan::{CallFlags, Plan, Target};
use crate::pool::{Pool, PoolSpec};
use crate::sys::random;
use crate::sys::rank::Rank;
use crate::sys::sync::Lock;
use crate::time::Deadline;
use crate::topology::{ReplicaView, Service, Urgency};

/// How long a server may take to list its commands.
const COMMANDS_TAKE: Duration = Duration::from_secs(2);

/// The router of a client.
pub(crate) struct Router {
    pub(crate) context: Context,
    view: ArcSwap<View>,
    /// One thread at a time makes a new view.
    renewal: Lock<()>,
    /// Counts the choices among replicas.
    turn: AtomicUsize,
    scans: Lock<Scans>,
    lag: Measurements<Self>,
    me: Weak<Self>,
}

/// The view of the topology that a call was started with.
pub(crate) struct SeenView(Guard<Arc<View>>);

impl Router {
    pub(crate) fn new(
        sentinel: &Arc<crate::topology::Sentinel>,
        service: Option<&str>,
        target: Target,
        overrides: Option<&Config>,
    ) -> Result<Arc<Self>> {
        let context = Context::new(sentinel, service, target, overrides)?;
        Ok(Arc::new_cyclic(|me: &Weak<Self>| Self {
            context,
            view: ArcSwap::default(),
            renewal: Lock::new(Rank::Renewal, ()),
            turn: AtomicUsize::new(random::rng().usize(..)),
            scans: Lock::new(Rank::Scans, Scans::default()),
            lag: Measurements::new(Weak::clone(me)),
            me: Weak::clone(me),
        }))
    }

    /// The view that fits the topology as known now.
    #[inline]
    fn current_view(&self) -> Guard<Arc<View>> {
        let view = self.view.load();
        if self.fits(&view) { view } else { self.new_view(view) }
    }

    fn fits(&self, view: &View) -> bool {
        view.version == self.context.service.version() && view.configured == self.context.sentinel.config_version()
    }

    #[cold]
    fn new_view(&self, view: Guard<Arc<View>>) -> Guard<Arc<View>> {
        // While a close waits for calls the client still follows its service.
        if self.context.is_ended() {
            return view;
        }
        drop(view);
        let _renewal = self.renewal.lock();
        let view = self.view.load();
        if !self.fits(&view) && !self.context.is_ended() {
            let next = self.next_view(&view);
            drop(view);
            let last = self.view.swap(Arc::new(next));
            self.retire_lost(&last);
        }
        self.view.load()
    }

    /// Brings the view up to date.
    pub(crate) fn renew(&self) {
        drop(self.current_view());
    }

    fn next_view(&self, last: &View) -> View {
        let configured = self.context.sentinel.config_version();
        let settings = self.context.sentinel.settings();
        if configured != last.configured {
            self.reconfigure(last, &settings);
        }
        let snapshot = self.context.service.snapshot();
        let client = self.context.settings();
        // What nobody has used for long is not used before it was asked for anew.
        let primary = snapshot.primary.as_ref().filter(|_| !snapshot.forgotten).map(|endpoint| {
            let kept = last.primary.iter().find(|pool| pool.endpoint() == endpoint && !pool.is_retired());
            kept.cloned().unwrap_or_else(|| Pool::new(self.spec(endpoint, &client, Expect::Primary)))
        });
        let none = self.context.target == Target::Primary || snapshot.forgotten;
        let replicas = if none { &[][..] } else { &snapshot.replicas };
        let replicas = replicas.iter().map(|replica| self.replica_target(replica, last, &client)).collect();
        View { version: snapshot.version, configured, primary, replicas }
    }

    fn spec(&self, endpoint: &Endpoint, settings: &ClientSettings, expect: Expect) -> PoolSpec {
        PoolSpec {
            endpoint: endpoint.clone(),
            connect: ConnectOptions::of_node(settings, expect),
            pool: settings.pool,
            lane: settings.lane,
            pause: self.context.service.pause_of(endpoint, expect == Expect::Primary),
            meter: self.context.meter(&endpoint.to_string(), role_of(expect)),
        }
    }

    fn replica_target(&self, replica: &ReplicaView, last: &View, client: &ClientSettings) -> Arc<ReplicaTarget> {
        let same = |kept: &&Arc<ReplicaTarget>| kept.pool.endpoint() == &replica.endpoint && !kept.pool.is_retired();
        let kept = last.replicas.iter().find(same);
        let admission = kept.map(|kept| Arc::clone(&kept.admission)).unwrap_or_else(|| {
            let me: Weak<dyn Lineage> = Weak::clone(&self.me) as Weak<dyn Lineage>;
            Arc::new(Admission::new(me, replica.endpoint.clone()))
        });
        let pool = kept.map(|kept| Arc::clone(&kept.pool)).unwrap_or_else(|| {
            let mut spec = self.spec(&replica.endpoint, client, Expect::Replica);
            spec.connect.admit = Some(Arc::clone(&admission) as Arc<dyn Admit>);
            Pool::new(spec)
        });
        if kept.is_some_and(|kept| kept.follows != replica.follows) && self.strays(replica) {
            // It follows another node now: its connections are checked again.
            pool.disconnect();
        }
        ReplicaTarget::new(replica, pool, admission, kept)
    }

    /// Whether the Sentinels say that the replica follows a node that it should not follow.
    fn strays(&self, replica: &ReplicaView) -> bool {
        let leaders = self.context.service.line_of(&replica.endpoint, false).leaders;
        replica.follows.as_ref().is_some_and(|at| !leaders.contains(at))
    }

    /// Applies changed options to connections that are made from now on. A change of the database or of the
    /// credentials replaces existing connections, too.
    fn reconfigure(&self, view: &View, settings: &Arc<Settings>) {
        let overlay = self.context.overrides.as_ref().map(|config: &Config| config.overlay(&settings.client));
        let next = overlay.and_then(Result::ok).unwrap_or_else(|| settings.client.clone());
        let last = self.context.settings();
        let moved = next.db != last.db || next.auth != last.auth;
        drop(last);
        for (pool, role) in view.pools_with_roles() {
            let expect = if role == "primary" { Expect::Primary } else { Expect::Replica };
            pool.reconfigure(ConnectOptions::of_node(&next, expect), moved);
        }
        self.context.set_settings(next);
    }

    fn retire_lost(&self, last: &View) {
        let view = self.view.load();
        let is_lost = |pool: &Arc<Pool>| !view.pools().any(|kept| Arc::ptr_eq(kept, pool));
        for (lost, role) in last.pools_with_roles().filter(|(pool, _)| is_lost(pool)) {
            let cause = Error::new(Status::Io, self.ended(lost.name(), role, &view)).with_endpoint(lost.name());
            let counts = lost.counts();
            let name = self.context.settings().client_name.clone();
            self.context.sentinel.log().write(lines::RETIRED, &|out| {
                out.text("service").text(self.context.service.name()).text("node").text(lost.name());
                out.text("role").text(role).text("target").text(self.context.target.word()).text("client");
                match &name {
                    Some(name) => out.text(name),
                    None => out.null(),
                };
                out.text("connections").int(counts.total as i64).text("in_flight").int(counts.in_flight as i64);
            });
            lost.retire(cause.with_flags(flags::FAILOVER));
        }
    }

    /// Why a call ends that a node had in hand when it was left.
    fn ended(&self, node: &str, role: &str, now: &View) -> String {
        let name = quoted(self.context.service.name());
        match (role, &now.primary) {
            ("primary", Some(primary)) => {
                format!("{node} had not answered when {} took over as the primary of service {name}", primary.name())
            }
            ("primary", None) => format!("{node} had not answered when it ceased to be the primary of service {name}"),
            _ => format!(
                "{node} had not answered when it was left as a replica of service {name}: its role has changed, or it is \
                 not listed any more"
            ),
        }
    }

    /// Whether the known topology has a node for this client.
    fn serves(&self) -> bool {
        self.current_view().serves(self.context.target)
    }

    fn choice<'a>(&'a self, view: &'a View) -> Choice<'a> {
        let blind = self.context.settings().replica.max_lag.is_some() && self.lag.ensure();
        Choice { context: &self.context, view, turn: &self.turn, blind }
    }

    /// The route of a call. `tried`: the replicas at which it has failed. `seen`: what [`Router::ensure_topology`] returned.
    #[inline(always)]
    pub(crate) fn route(&self, seen: SeenView, plan: &Plan<'_>, call: CallFlags, tried: &[String]) -> Result<Route> {
        let view = if self.fits(&seen.0) { seen.0 } else { self.current_view() };
        match plan.scan {
            None => self.route_in(&view, self.reads_from_replicas(plan, call), tried),
            Some(_) => scan::route(&self.scans, &self.choice(&view), plan, tried),
        }
    }

    /// Decides whether a plan with commands that the table does not have needs a connection of its own.
    #[cold]
    pub(crate) fn place(&self, plan: &mut Plan<'_>) {
        let limit = Deadline::after(self.context.settings().timeout_connect.saturating_add(COMMANDS_TAKE));
        commands::place(plan, &self.context.service, self.current_view().primary.as_ref(), limit);
    }

    /// Whether a call goes to the replicas first.
    pub(crate) fn reads_from_replicas(&self, plan: &Plan<'_>, call: CallFlags) -> bool {
        match self.context.target {
            Target::Primary => false,
            Target::Replica => true,
            // Rule 15: a cursor belongs to its node, and the primary is the one that stays.
            Target::Split => plan.reads && !plan.is_local() && plan.scan.is_none() && !call.has(CallFlags::ON_PRIMARY),
        }
    }

    /// The route of a call without scans that has not been tried yet, if the topology is known.
    pub(crate) fn route_now(&self, from_replicas: bool) -> Option<Route> {
        let view = self.current_view();
        view.serves(self.context.target).then(|| self.route_in(&view, from_replicas, &[]).ok()).flatten()
    }

    /// The route of a connection that serves no calls, without waiting. `stale`, `version`: as for [`Router::ensure_topology`]. `tried`:
    /// the replicas at which it has failed.
    pub(crate) fn route_apart(&self, from_replicas: bool, stale: u64, version: u64, tried: &[String]) -> Result<Route> {
        let seen = self.ensure_topology(stale, version, Deadline::after(Duration::ZERO))?;
        self.route_in(&seen.0, from_replicas, tried)
    }

    #[inline(always)]
    fn route_in(&self, view: &View, from_replicas: bool, tried: &[String]) -> Result<Route> {
        match from_replicas {
            true => self.choice(view).replica(tried),
            // Every write goes this way: the choice of the primary needs nothing more.
            false => Choice { context: &self.context, view, turn: &self.turn, blind: false }.primary(),
        }
    }

    /// Begins a scan that is about to be sent to this node.
    pub(crate) fn begin_scan(&self, pool: &Arc<Pool>) -> Box<Trip> {
        scan::begin(&self.scans, pool)
    }

    /// Judges the outcome of a unit with scans, which began with the command at `from`.
    pub(crate) fn land_scan(
        &self,
        plan: &Plan<'_>,
        from: usize,
        pool: &Arc<Pool>,
        trip: &Trip,
        outcome: Outcome,
    ) -> Landed {
        scan::land(&self.scans, plan, from, pool, trip, outcome)
    }

    /// The generation of a node that was scanned: it grows when the server is started anew or changes its role. 0: nothing is known.
    pub(crate) fn scan_generation(&self, pool: &Arc<Pool>) -> u64 {
        self.scans.lock().generation(pool).unwrap_or(0)
    }

    /// The node may have lost its role: its connections serve nothing new, it is not dialled for a while, and the Sentinels are
    /// asked.
    pub(crate) fn doubt(&self, pool: &Pool, why: &Error) {
        pool.refuse(why);
        self.context.service.suspect(pool.endpoint(), why.message());
        self.context.service.request_discovery(Urgency::Lazy);
    }

    /// Takes a connection to the primary that a discovery has made, unless the pool does not need it: then it is returned.
    pub(crate) fn offer(&self, conn: Conn, options: &ConnectOptions) -> Option<Conn> {
        match &self.current_view().primary {
            Some(pool) => pool.offer(conn, options),
            None => Some(conn),
        }
    }

    /// Since when the primary has answered nothing, as far as calls wait for it.
    pub(crate) fn silent_since(&self) -> Option<Instant> {
        self.view.load().primary.as_ref()?.silent_since()
    }

    /// When the primary last sent anything on a connection that is open.
    pub(crate) fn heard_at(&self) -> Option<Instant> {
        self.view.load().primary.as_ref()?.heard_at()
    }

    /// Closes idle connections at once, and busy ones when they are done.
    pub(crate) fn disconnect(&self) {
        self.view.load().pools().for_each(|pool| pool.disconnect());
    }

    /// What the client has counted, and its connections now.
    pub(crate) fn figures(&self) -> ClientFigures {
        let mut figures = self.context.figures();
        for (pool, role) in self.view.load().pools_with_roles() {
            let row = figures.nodes.iter_mut().find(|row| row.endpoint == pool.name() && row.role == role);
            row.into_iter().for_each(|row| row.now = Some(now_of(pool)));
        }
        figures
    }

    /// Ends all calls and connections. No attempt begins any more.
    pub(crate) fn end(&self) {
        let _renewal = self.renewal.lock();
        self.context.end();
        let view = self.view.swap(Arc::default());
        let cause = Error::new(Status::Closed, self.context.closed_text());
        view.pools().for_each(|pool| pool.retire(cause.clone()));
    }

    /// Makes sure that the topology is newer than the one that was found outdated: that of the discovery `stale` or an earlier one,
    /// or of this version.
    #[inline(always)]
    pub(crate) fn ensure_topology(&self, stale: u64, version: u64, deadline: Deadline) -> Result<SeenView> {
        let view = self.current_view();
        if view.serves(self.context.target) && (stale == 0 || self.is_newer(stale, version)) {
            return Ok(SeenView(view));
        }
        let serves = view.serves(self.context.target);
        drop(view);
        self.renew_topology(serves, stale, deadline)?;
        Ok(SeenView(self.current_view()))
    }

    fn is_newer(&self, stale: u64, version: u64) -> bool {
        self.context.service.version() != version || self.context.service.discovered() > stale
    }

    #[cold]
    fn renew_topology(&self, serves: bool, stale: u64, deadline: Deadline) -> Result<()> {
        let service = &self.context.service;
        if serves && self.context.sentinel.is_degraded() {
            service.request_discovery(Urgency::Lazy);
            return Ok(());
        }
        match service.discover_unless(stale, deadline, || self.context.is_closed()) {
            // Without Sentinels the last known nodes serve. A new connection to one of them verifies its role first.
            Err(error) if error.status() == Status::NoSentinel && self.serves() => Ok(()),
            other => other.map(drop),
        }
    }
}

fn role_of(expect: Expect) -> &'static str {
    if expect == Expect::Primary { "primary" } else { "replica" }
}

fn now_of(pool: &Pool) -> NodeNow {
    let counts = pool.counts();
    NodeNow {
        size: counts.total as u64,
        lanes: counts.lanes as u64,
        idle: counts.idle as u64,
        in_use: counts.lent as u64,
        waiting: counts.waiting as u64,
        in_flight: counts.in_flight as u64,
        served: counts.served as u64,
        submit_lanes: counts.submit_lanes as u64,
        submitted: counts.submitted as u64,
        srtt_us: pool.srtt().map_or(-1, |srtt| srtt.as_micros() as i64),
    }
}

impl Measured for Router {
    fn measurements(&self) -> &Measurements<Self> {
        &self.lag
    }

    fn bound(&self) -> Option<u64> {
        if self.context.is_closed() { None } else { self.context.settings().replica.max_lag }
    }

    fn measure(&self, max: u64) -> bool {
        let view = self.current_view();
        let replicas = view.replicas.iter().map(|replica| (replica.pool.endpoint(), &*replica.lag));
        lag::measure(view.primary.as_ref(), replicas, &self.context.service, max)
    }
}

impl Lineage for Router {
    fn service(&self) -> &Arc<Service> {
        &self.context.service
    }

    fn primary(&self) -> Option<Arc<Pool>> {
        self.current_view().primary.clone()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.end();
    }
}
