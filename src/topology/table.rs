//! The topology as a reply: the maps of `vigie_sentinel_topology` and `vigie_client_topology`, from tables.
//!
//! Guarantees: TOPOLOGY.md is written from the same tables; keys may be added, never changed. No I/O.

use std::time::Instant;

use super::snapshot::{ReplicaView, SentinelView, Snapshot};
use super::source::Source;
use crate::error::{Error, clean};
use crate::resp::ReplyBuilder;
use crate::resp::fields::{
    self, Field, MapInfo,
    Value::{Bool, Int, IntOrNull, Maps, Text, TextOrNull},
    field,
};
use crate::sort::SortedMap;

/// What is known about a service, and what is wrong with it.
pub(super) struct ServiceRow {
    /// Its name.
    pub(super) name: String,
    /// What is known.
    pub(super) snapshot: Snapshot,
    /// Why the last discovery failed.
    pub(super) error: Option<Error>,
    /// What broke since then.
    pub(super) suspicion: Option<String>,
    /// What the Sentinels name, while they disagree.
    pub(super) split_view: Option<String>,
    /// Whether writes are held back because of a failover.
    pub(super) fenced: bool,
    /// Whether no Sentinel can be heard or asked.
    pub(super) degraded: bool,
    /// Which events are not heard, by Sentinel.
    pub(super) deaf: SortedMap<String, String>,
    /// Where its nodes are learned from.
    pub(super) source: Source,
}

/// A service of a deployment, as its Sentinels list it.
#[derive(Default)]
pub(super) struct DeploymentRow {
    /// Its primary.
    pub(super) primary: Option<String>,
    /// Whether the primary has confirmed its role.
    pub(super) verified: bool,
    /// The configuration epoch.
    pub(super) epoch: u64,
    /// The primary's flags.
    pub(super) flags: String,
    /// How many Sentinels must agree that the primary is down.
    pub(super) quorum: u64,
    /// How many replicas are listed.
    pub(super) replicas: u64,
    /// How many Sentinels list the service.
    pub(super) named_by: u64,
    /// Why it could not be discovered.
    pub(super) error: Option<String>,
}

/// A Sentinel, and which of its events are not heard.
struct SentinelRow {
    view: SentinelView,
    deaf: Option<String>,
}

const SERVICE: &[Field<ServiceRow>] = &[
    field("name", Text(|of| (&*of.name).into()), "", "The service; `service` in events."),
    field(
        "primary",
        TextOrNull(|of| of.snapshot.primary.as_ref().map(|at| at.to_string().into())),
        "",
        "Where the primary is dialled: `host:port`. NULL: none is known.",
    ),
    field(
        "announced",
        TextOrNull(|of| of.snapshot.primary_announced.as_ref().map(|at| at.to_string().into())),
        "",
        "The primary as the Sentinels announce it, before `address.map`.",
    ),
    field(
        "epoch",
        Int(|of| number(of.snapshot.epoch)),
        "",
        "The configuration epoch under which it was named; 0: none.",
    ),
    field(
        "quorum",
        Int(|of| number(of.snapshot.quorum)),
        "Sentinels",
        "How many must agree that the primary is down before it is replaced.",
    ),
    field(
        "replicas",
        Maps("replica", |of, out| of.snapshot.replicas.iter().for_each(|view| fields::write(out, REPLICA, view))),
        "",
        "The replicas, fit or not.",
    ),
    field(
        "sentinels",
        Maps("sentinel", write_sentinels),
        "",
        "The Sentinels, and what each said when it was last asked.",
    ),
    field(
        "age_ms",
        IntOrNull(|of| of.snapshot.asked.map(millis)),
        "ms",
        "The time since the primary was last confirmed. NULL: never.",
    ),
    field(
        "discoveries",
        Int(|of| number(of.snapshot.discovery)),
        "",
        "How many discoveries of this service have ended.",
    ),
    field(
        "error",
        TextOrNull(|of| of.error.as_ref().map(|error| error.message().into())),
        "",
        "Why the last discovery failed; the earlier result is used meanwhile. NULL: it did not fail.",
    ),
    field(
        "suspected",
        TextOrNull(|of| of.suspicion.as_deref().map(Into::into)),
        "",
        "What went wrong with a node since the last discovery, so that the next one is due. NULL: nothing.",
    ),
    field(
        "split_view",
        TextOrNull(|of| of.split_view.as_deref().map(Into::into)),
        "",
        "What the Sentinels name, while they disagree. NULL: they agree.",
    ),
    field(
        "fenced",
        Bool(|of| of.fenced),
        "",
        "Whether writes are held back because of a failover, as the event FENCE tells. The option `write.majority_ms`, which a client \
         may have for itself, does not count here.",
    ),
    field(
        "degraded",
        Bool(|of| of.degraded),
        "",
        "Whether no Sentinel can be reached, as the event DEGRADED tells: the primary that was found last is used meanwhile.",
    ),
    field(
        "discovery",
        Text(|of| of.source.word().into()),
        "",
        "`sentinels`: the Sentinels name the primary and list its replicas. `fixed`: the configuration gives them (`primary.addr`), and \
         what only Sentinels tell (`epoch`, `quorum`, a replica's `flags`, `offset` and `priority`) is 0 or empty.",
    ),
];

const REPLICA: &[Field<ReplicaView>] = &[
    field("addr", Text(|of| of.endpoint.to_string().into()), "", "Where it is dialled: `host:port`."),
    field(
        "announced",
        Text(|of| of.announced.to_string().into()),
        "",
        "As the Sentinels announce it, before `address.map`.",
    ),
    field("flags", Text(|of| clean(&of.flags)), "", "Its flags, as the Sentinel that was believed writes them."),
    field("link_ok", Bool(|of| of.link_ok), "", "Whether its link to the primary is up, as that Sentinel last saw it."),
    field("offset", Int(|of| of.offset), "bytes", "Its replication offset, up to 10 s old."),
    field("priority", Int(|of| of.priority), "", "Its priority for a promotion (`replica-priority`); 0: never."),
    field(
        "unfit",
        TextOrNull(|of| of.unfit.as_ref().map(|why| why.text().into())),
        "",
        "Why it is not used for reads, as a sentence. NULL: it may be used.",
    ),
    field(
        "unfit_cause",
        TextOrNull(|of| of.unfit.as_ref().map(|why| why.cause().into())),
        "",
        "The same as a word: a cause of the event REPLICA ([EVENTS.md](EVENTS.md)).",
    ),
];

const SENTINEL: &[Field<SentinelRow>] = &[
    field("addr", Text(|of| of.view.endpoint.to_string().into()), "", "Where it is asked: `host:port`."),
    field(
        "state",
        Text(|of| of.view.state.into()),
        "",
        "`ok`: its answer counts. `unknown`: it does not know the service. `unused`: its answer does not count (TILT, or \
         no usable address). `stranger`: it is of another deployment. `failed`: it cannot be reached, or refuses. `skipped`: \
         its answer was not waited for.",
    ),
    field("text", Text(|of| (&*of.view.text).into()), "", "What it said, or what went wrong, as a sentence."),
    field("since_ms", Int(|of| millis(of.view.since)), "ms", "For how long it has been in this state."),
    field(
        "events",
        TextOrNull(|of| of.deaf.as_deref().map(Into::into)),
        "",
        "Which of its events the user may not subscribe to, the refusal, and how often it is asked instead. NULL: none are known.",
    ),
    field(
        "refused",
        TextOrNull(|of| of.view.refused.as_deref().map(Into::into)),
        "",
        "Its refusals of questions that the user may not ask. NULL: none.",
    ),
];

const DEPLOYMENT: &[Field<DeploymentRow>] = &[
    field(
        "primary",
        TextOrNull(|of| of.primary.as_deref().map(Into::into)),
        "",
        "The primary: `host:port`, where it is dialled if `verified`, else as the Sentinels announce it. NULL: they name none.",
    ),
    field(
        "verified",
        Bool(|of| of.verified),
        "",
        "Whether the service was discovered (`VIGIE_SERVICES_FOLLOW`), and the primary has confirmed its role.",
    ),
    field("epoch", Int(|of| number(of.epoch)), "", "The configuration epoch under which it was named."),
    field(
        "flags",
        Text(|of| (&*of.flags).into()),
        "",
        "The primary's flags, as the Sentinel with the highest epoch writes them.",
    ),
    field(
        "quorum",
        Int(|of| number(of.quorum)),
        "Sentinels",
        "How many must agree that the primary is down before it is replaced.",
    ),
    field("replicas", Int(|of| number(of.replicas)), "", "How many replicas are listed, fit or not."),
    field("named_by", Int(|of| number(of.named_by)), "Sentinels", "How many of those that answered list the service."),
    field(
        "error",
        TextOrNull(|of| of.error.as_deref().map(Into::into)),
        "",
        "Why it could not be discovered. NULL: it could, or that was not asked for.",
    ),
];

fn write_sentinels(of: &ServiceRow, out: &mut ReplyBuilder) {
    for view in &of.snapshot.sentinels {
        let deaf = of.deaf.get(&view.endpoint.to_string()).cloned();
        fields::write(out, SENTINEL, &SentinelRow { view: view.clone(), deaf });
    }
}

/// One service as a MAP.
pub(super) fn service(out: &mut ReplyBuilder, of: &ServiceRow) {
    fields::write(out, SERVICE, of);
}

/// One service of a deployment as a MAP.
pub(super) fn deployment(out: &mut ReplyBuilder, of: &DeploymentRow) {
    fields::write(out, DEPLOYMENT, of);
}

/// The maps, as TOPOLOGY.md has them.
pub fn topology_maps() -> Vec<MapInfo> {
    let sentinel = fields::describe("sentinel", SENTINEL);
    let deployment = fields::describe("deployment", DEPLOYMENT);
    vec![fields::describe("service", SERVICE), fields::describe("replica", REPLICA), sentinel, deployment]
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn millis(since: Instant) -> i64 {
    i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX)
}
