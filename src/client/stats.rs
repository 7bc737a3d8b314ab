//! The statistics of a client as a reply, written by their tables.
//!
//! Guarantees: STATISTICS.md is written from the same tables; keys may be added, never changed. Leaves to others: the counting (route,
//! pool).

use std::time::Duration;

use crate::error::Result;
use crate::pool::Counts;
use crate::resp::fields::{
    self, Field, MapInfo,
    Value::{Int, Maps, Text},
    field,
};
use crate::resp::{Reply, ReplyBuilder};
use crate::route::{Counted, Router};

/// The counters of a client, and its pools.
struct Stats {
    counted: Counted,
    pools: Vec<PoolStats>,
}

/// One pool of it.
struct PoolStats {
    endpoint: String,
    role: &'static str,
    counts: Counts,
    srtt: Option<Duration>,
}

const CLIENT: &[Field<Stats>] = &[
    field("calls", Int(|of| of.counted.calls as i64), "calls", "Calls that were begun, submitted ones included."),
    field("retries", Int(|of| of.counted.retries as i64), "attempts", "Attempts after the first of a call."),
    field(
        "errors",
        Int(|of| of.counted.errors as i64),
        "calls",
        "Calls that ended with an error, whatever its status: a transaction that a watched key has aborted (TXN_ABORTED) counts, too. \
         A command or list that cannot be parsed is no call.",
    ),
    field(
        "maybe_executed",
        Int(|of| of.counted.maybe_executed as i64),
        "calls",
        "Those among `errors` with the flag MAYBE_EXECUTED.",
    ),
    field(
        "fallbacks",
        Int(|of| of.counted.fallbacks as i64),
        "calls",
        "Reads for a replica that went to the primary (`replica.fallback`).",
    ),
    field(
        "pools",
        Maps("pool", |of, out| of.pools.iter().for_each(|pool| fields::write(out, POOL, pool))),
        "",
        "The pools of connections, one for each node that is used.",
    ),
];

const POOL: &[Field<PoolStats>] = &[
    field("endpoint", Text(|of| (&*of.endpoint).into()), "", "The node: `host:port`."),
    field("role", Text(|of| of.role.into()), "", "What it is used for: `primary` or `replica`."),
    field(
        "size",
        Int(|of| of.counts.total as i64),
        "connections",
        "All connections, those that are being opened included; at most `pool.max`.",
    ),
    field(
        "lanes",
        Int(|of| of.counts.lanes as i64),
        "connections",
        "Connections that calls share; at most `lane.max`.",
    ),
    field(
        "idle",
        Int(|of| of.counts.idle as i64),
        "connections",
        "Loans (connections for one call or session at a time) that are not in use.",
    ),
    field("in_use", Int(|of| of.counts.lent as i64), "connections", "Loans in use."),
    field("waiting", Int(|of| of.counts.waiting as i64), "calls", "Calls that wait for a loan."),
    field(
        "in_flight",
        Int(|of| of.counts.in_flight as i64),
        "calls",
        "Calls on shared connections that wait for replies.",
    ),
    field(
        "served",
        Int(|of| of.counts.served as i64),
        "calls",
        "Attempts of calls that were not submitted, on shared connections, whether they were answered or not, and the library's own \
         questions there.",
    ),
    field(
        "srtt_us",
        Int(|of| of.srtt.map_or(-1, |srtt| srtt.as_micros() as i64)),
        "µs",
        "The smoothed round trip of its first shared connection; -1 before the first reply.",
    ),
];

/// The statistics as they are now.
pub(super) fn of(router: &Router) -> Result<Reply> {
    let mut pools = Vec::new();
    router.each_pool(|pool, role| {
        let (endpoint, counts, srtt) = (pool.name().to_owned(), pool.counts(), pool.srtt());
        pools.push(PoolStats { endpoint, role, counts, srtt });
    });
    let mut out = ReplyBuilder::new();
    fields::write(&mut out, CLIENT, &Stats { counted: router.context.counted(), pools });
    out.try_finish()
}

/// The maps, as STATISTICS.md has them.
pub fn stats_maps() -> Vec<MapInfo> {
    vec![fields::describe("client", CLIENT), fields::describe("pool", POOL)]
}
