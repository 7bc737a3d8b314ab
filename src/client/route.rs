//! Which pool a call goes to: the view of a service as pools, and the choice among replicas.
//!
//! Guarantees: a view follows the topology's snapshot before the next call is routed; a pool whose node left the view is
//! retired, and whoever waits in it is answered; a replica that just failed is left alone for a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::admit::Gate;
use super::core::{Core, lock};
use super::lag::Lag;
use super::plan::{Plan, Scan};
use super::{CallFlags, Target};
use crate::config::{ClientSettings, Config, Endpoint, Fallback, Pick, Settings};
use crate::error::{Error, Result, Status, flags, quoted};
use crate::net::{Admit, ConnectOptions, Expect};
use crate::pool::{Pool, Spec};
use crate::sys::random;
use crate::time::Deadline;
use crate::topology::ReplicaView;

/// How long a replica that failed is passed over.
const COOL_DOWN: Duration = Duration::from_secs(1);
/// Among replicas chosen by latency every so manieth call goes to another, so that their figures stay fresh.
const EXPLORE: usize = 64;

/// A service as pools.
#[derive(Default)]
pub(super) struct View {
    /// The snapshot that it was made from.
    version: u64,
    configured: u64,
    pub(super) primary: Option<Arc<Pool>>,
    pub(super) replicas: Vec<Arc<Reader>>,
}

/// A replica to read from.
pub(super) struct Reader {
    pub(super) pool: Arc<Pool>,
    announced: Endpoint,
    unfit: Option<String>,
    unfit_by_link: bool,
    /// Whom the Sentinels say that it follows.
    follows: Option<Endpoint>,
    gate: Arc<Gate>,
    /// Kept from view to view.
    pub(super) lag: Arc<Lag>,
    /// Milliseconds since `born` until which it is passed over.
    rests_until: AtomicU64,
    /// How it failed last.
    failure: Mutex<String>,
    born: Instant,
}

/// Where a call goes.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) pool: Arc<Pool>,
    /// The replica that it is; `None`: the primary.
    pub(super) reader: Option<Arc<Reader>>,
    /// Other replicas that could be tried after this one.
    pub(super) alternatives: usize,
    /// No other node will do: a cursor belongs to it.
    pub(super) pinned: bool,
}

impl Route {
    pub(super) fn to(pool: &Arc<Pool>, reader: Option<&Arc<Reader>>, alternatives: usize) -> Self {
        Self { pool: Arc::clone(pool), reader: reader.cloned(), alternatives, pinned: false }
    }

    /// How long an attempt may take: a stalled replica must leave time for the others.
    pub(super) fn share_of(&self, deadline: Deadline) -> Deadline {
        match self.alternatives {
            0 => deadline,
            others => deadline.left().map_or(deadline, |left| deadline.within(left / (others as u32 + 1))),
        }
    }
}

impl Reader {
    /// It failed: pass it over for a while.
    pub(super) fn rest(&self, why: &Error) {
        why.message().clone_into(&mut lock(&self.failure));
        let until = (self.born.elapsed() + COOL_DOWN).as_millis() as u64;
        self.rests_until.store(until, Ordering::Relaxed);
    }

    fn how_it_failed(&self) -> String {
        format!("failed just now: {}", lock(&self.failure))
    }

    /// Whether it may serve where nothing better does: its link is all that is wrong, and this call has not found it wanting for that.
    fn lacks_only_its_link(&self, tried: &[String]) -> bool {
        let times = tried.iter().filter(|name| *name == self.pool.name()).count();
        (self.unfit_by_link && times == 0) || (self.gate.has_refused_by_link() && times < 2)
    }

    fn is_resting(&self) -> bool {
        let until = self.rests_until.load(Ordering::Relaxed);
        until != 0 && (self.born.elapsed().as_millis() as u64) < until
    }
}

impl View {
    /// All its pools.
    pub(super) fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.primary.iter().chain(self.replicas.iter().map(|reader| &reader.pool))
    }

    /// Whether it has anything for a client of this target.
    pub(super) fn serves(&self, target: Target) -> bool {
        self.primary.is_some() || (target != Target::Primary && !self.replicas.is_empty())
    }

    /// All its pools, each with its node's role.
    pub(super) fn pools_with_roles(&self) -> impl Iterator<Item = (&Arc<Pool>, &'static str)> {
        let replicas = self.replicas.iter().map(|reader| (&reader.pool, "replica"));
        self.primary.iter().map(|pool| (pool, "primary")).chain(replicas)
    }
}

impl Core {
    /// The view that fits the topology as known now.
    pub(super) fn current_view(&self) -> arc_swap::Guard<Arc<View>> {
        let view = self.view.load();
        let fits =
            |view: &View| view.version == self.service.version() && view.configured == self.sentinel.config_version();
        // While calls are inside a client that is being closed it follows its service like any other.
        if fits(&view) || self.is_ended() {
            return view;
        }
        let _renewal = lock(&self.renewal);
        let view = self.view.load();
        if !fits(&view) && !self.is_ended() {
            let next = self.next_view(&view);
            drop(view);
            let last = self.view.swap(Arc::new(next));
            self.retire_lost(&last);
        }
        self.view.load()
    }

    fn next_view(&self, last: &View) -> View {
        let configured = self.sentinel.config_version();
        let settings = self.sentinel.settings();
        if configured != last.configured {
            self.reconfigure(last, &settings);
        }
        let snapshot = self.service.snapshot();
        let client = self.settings();
        let primary = snapshot.primary.as_ref().map(|endpoint| {
            let kept = last.primary.iter().find(|pool| pool.endpoint() == endpoint && !pool.is_retired());
            kept.cloned().unwrap_or_else(|| Pool::new(self.spec(endpoint, &client, Expect::Primary)))
        });
        let replicas = if self.target == Target::Primary { &[][..] } else { &snapshot.replicas };
        let replicas = replicas.iter().map(|replica| self.reader(replica, last, &client)).collect();
        View { version: snapshot.version, configured, primary, replicas }
    }

    fn spec(&self, endpoint: &Endpoint, settings: &ClientSettings, expect: Expect) -> Spec {
        Spec {
            endpoint: endpoint.clone(),
            connect: ConnectOptions::of_node(settings, expect),
            pool: settings.pool,
            lane: settings.lane,
            pause: self.service.pause_of(endpoint, expect == Expect::Primary),
        }
    }

    fn reader(&self, replica: &ReplicaView, last: &View, client: &ClientSettings) -> Arc<Reader> {
        let same = |reader: &&Arc<Reader>| reader.pool.endpoint() == &replica.endpoint && !reader.pool.is_retired();
        let kept = last.replicas.iter().find(same);
        let gate = kept.map(|reader| Arc::clone(&reader.gate));
        let gate = gate.unwrap_or_else(|| Arc::new(Gate::new(self.myself(), replica.endpoint.clone())));
        let pool = kept.map(|reader| Arc::clone(&reader.pool)).unwrap_or_else(|| {
            let mut spec = self.spec(&replica.endpoint, client, Expect::Replica);
            spec.connect.admit = Some(Arc::clone(&gate) as Arc<dyn Admit>);
            Pool::new(spec)
        });
        if kept.is_some_and(|reader| reader.follows != replica.follows) && self.strays(replica) {
            // It has been led elsewhere: its connections are weighed anew.
            pool.disconnect();
        }
        Arc::new(Reader {
            pool,
            follows: replica.follows.clone(),
            gate,
            announced: replica.announced.clone(),
            unfit: replica.unfit.clone(),
            unfit_by_link: replica.unfit_by_link,
            lag: kept.map_or_else(Arc::default, |reader| Arc::clone(&reader.lag)),
            rests_until: AtomicU64::new(kept.map_or(0, |reader| reader.rests_until.load(Ordering::Relaxed))),
            failure: Mutex::new(kept.map(|reader| lock(&reader.failure).clone()).unwrap_or_default()),
            born: kept.map_or_else(Instant::now, |reader| reader.born),
        })
    }

    /// Whether the Sentinels say that it follows nobody whom it should.
    fn strays(&self, replica: &ReplicaView) -> bool {
        let leaders = self.service.line_of(&replica.endpoint, false).leaders;
        replica.follows.as_ref().is_some_and(|at| !leaders.contains(at))
    }

    /// Dynamic options changed: connections made from now on use them; another database moves those that exist too.
    fn reconfigure(&self, view: &View, settings: &Arc<Settings>) {
        let overlay = self.overrides.as_ref().map(|config: &Config| config.overlay(&settings.client));
        let next = overlay.and_then(Result::ok).unwrap_or_else(|| settings.client.clone());
        let moved = next.db != self.settings().db;
        for (pool, role) in view.pools_with_roles() {
            let expect = if role == "primary" { Expect::Primary } else { Expect::Replica };
            pool.reconfigure(ConnectOptions::of_node(&next, expect), moved);
        }
        self.settings.store(Arc::new(next));
    }

    fn retire_lost(&self, last: &View) {
        let view = self.view.load();
        for lost in last.pools().filter(|pool| !view.pools().any(|kept| Arc::ptr_eq(kept, pool))) {
            let text = format!("{} left its role in service {}", lost.name(), quoted(self.service.name()));
            let cause = Error::new(Status::Io, text).with_endpoint(lost.name());
            lost.retire(cause.with_flags(flags::FAILOVER));
        }
    }

    /// The pool for a call; `tried` are the replicas that failed it already.
    #[inline(always)]
    pub(super) fn route(&self, plan: &Plan<'_>, call: CallFlags, tried: &[String]) -> Result<Route> {
        match plan.scan {
            None => self.route_for(self.reads_from_replicas(plan, call), tried),
            Some(_) => self.route_scan(plan, tried),
        }
    }

    /// Whether a call goes to the replicas first.
    pub(super) fn reads_from_replicas(&self, plan: &Plan<'_>, call: CallFlags) -> bool {
        match self.target {
            Target::Primary => false,
            Target::Replica => true,
            // Rule 15: a cursor belongs to its node, and the primary is the one that stays.
            Target::Split => plan.reads && !plan.local && plan.scan.is_none() && !call.has(CallFlags::ON_PRIMARY),
        }
    }

    pub(super) fn route_for(&self, from_replicas: bool, tried: &[String]) -> Result<Route> {
        let view = self.current_view();
        if from_replicas { self.to_replica(&view, tried) } else { self.to_primary(&view) }
    }

    #[inline(always)]
    pub(super) fn to_primary(&self, view: &View) -> Result<Route> {
        match &view.primary {
            Some(pool) => Ok(Route::to(pool, None, 0)),
            None => {
                let text = format!("no primary of service {} is known", quoted(self.service.name()));
                Err(Error::new(Status::NoPrimary, text).with_flags(flags::RETRYABLE))
            }
        }
    }

    fn to_replica(&self, view: &View, tried: &[String]) -> Result<Route> {
        if view.replicas.is_empty() || view.replicas.iter().any(|reader| reader.unfit.is_some()) {
            self.service.freshen();
        }
        let untried = |reader: &&Arc<Reader>| !tried.iter().any(|name| name == reader.pool.name());
        let fit: Vec<_> = view.replicas.iter().filter(|reader| self.is_fit(reader)).filter(untried).collect();
        let rested: Vec<_> = fit.iter().copied().filter(|reader| !reader.is_resting()).collect();
        let choice = if rested.is_empty() { fit } else { rested };
        let settings = self.settings();
        if let Some(reader) = self.pick(&choice, &settings) {
            let spare = choice.len() - 1 + usize::from(settings.replica.fallback == Fallback::Primary);
            return Ok(Route::to(&reader.pool, Some(reader), spare));
        }
        if settings.replica.fallback == Fallback::Primary && view.primary.is_some() {
            self.counters.fallbacks.fetch_add(1, Ordering::Relaxed);
            return self.to_primary(view);
        }
        // Rule 32: while the primary changes every replica's link is broken, and its data are better than an error.
        let unlinked: Vec<_> = view.replicas.iter().filter(|reader| reader.lacks_only_its_link(tried)).collect();
        if let Some(reader) = self.pick(&unlinked, &settings) {
            reader.gate.stand_open();
            let spare = unlinked.len() - 1;
            return Ok(Route::to(&reader.pool, Some(reader), spare));
        }
        Err(self.no_replica(view, tried))
    }

    fn pick<'a>(&self, choice: &[&'a Arc<Reader>], settings: &ClientSettings) -> Option<&'a Arc<Reader>> {
        if choice.is_empty() {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = |among: &[&'a Arc<Reader>]| among.get(turn % among.len().max(1)).copied();
        match settings.replica.pick {
            Pick::RoundRobin => in_turn(choice),
            Pick::Random => Some(choice[random::rng().usize(..choice.len())]),
            Pick::Latency if turn % EXPLORE == 0 => in_turn(choice),
            // One without a figure comes first, so that it gets one.
            Pick::Latency => choice.iter().copied().min_by_key(|reader| reader.pool.srtt().unwrap_or_default()),
            Pick::Preferred => {
                let preferred = &settings.replica.preferred;
                let place = |reader: &Reader| {
                    let same =
                        |endpoint: &Endpoint| *endpoint == reader.announced || endpoint == reader.pool.endpoint();
                    preferred.iter().position(same).unwrap_or(preferred.len())
                };
                let best = choice.iter().map(|reader| place(reader)).min()?;
                let best: Vec<_> = choice.iter().copied().filter(|reader| place(reader) == best).collect();
                in_turn(&best)
            }
        }
    }

    /// Scans of a replica client begin on one replica as long as it is fit; a cursor of which nothing is known goes there too.
    pub(super) fn to_pinned(
        &self,
        view: &View,
        scan: Option<Scan>,
        tried: &[String],
        pin: &mut Option<String>,
    ) -> Result<Route> {
        let goes_on = scan == Some(Scan::GoesOn);
        let pinned =
            pin.as_ref().and_then(|name| view.pools().find(|pool| pool.name() == name && !tried.contains(name)));
        if let Some(pool) = pinned {
            let reader = view.replicas.iter().find(|reader| Arc::ptr_eq(&reader.pool, pool));
            if goes_on || reader.is_none_or(|reader| self.is_fit(reader)) {
                return Ok(Route { pinned: true, ..Route::to(pool, reader, 0) });
            }
        }
        if goes_on {
            let node = pin.take().unwrap_or_else(|| "none".to_owned());
            let text =
                format!("the cursor belongs to a node that is not read from any more ({node}): begin with cursor 0");
            return Err(Error::new(Status::ScanInterrupted, text));
        }
        let route = self.to_replica(view, tried)?;
        *pin = Some(route.pool.name().to_owned());
        Ok(route)
    }

    /// Whether a replica may be read from.
    pub(super) fn is_fit(&self, reader: &Reader) -> bool {
        reader.unfit.is_none() && self.keeps_up(reader)
    }

    fn no_replica(&self, view: &View, tried: &[String]) -> Error {
        let mut text = format!("no fit replica of service {}", quoted(self.service.name()));
        // The view is not renewed for a reason that changed; the snapshot has it.
        let snapshot = self.service.load();
        for reader in &view.replicas {
            let failed = tried.iter().any(|name| name == reader.pool.name()).then(|| reader.how_it_failed());
            let known = snapshot.replicas.iter().find(|replica| &replica.endpoint == reader.pool.endpoint());
            let unfit = known.map_or(reader.unfit.as_deref(), |replica| replica.unfit.as_deref());
            let lags = self.settings().replica.max_lag.and_then(|max| reader.lag.objection(max));
            let weighed = self.service.objection_to(reader.pool.endpoint());
            let why = unfit.or(lags.as_deref()).or(weighed.as_deref()).or(failed.as_deref()).unwrap_or("not tried");
            text.push_str(&format!("; {}: {why}", reader.pool.name()));
        }
        let Some(line) = &snapshot.unlisted else {
            return Error::new(Status::NoReplica, text).with_flags(flags::RETRYABLE);
        };
        text.push_str(&format!(
            "; the Sentinels do not list its replicas to the ACL user of sentinel.username: {line}"
        ));
        Error::new(Status::NoReplica, text)
    }
}
