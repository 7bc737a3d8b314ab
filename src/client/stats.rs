//! The statistics of a client as a reply, written by their tables.
//!
//! Guarantees: STATISTICS.md is written from the same tables; keys may be added, never changed. Leaves to others: the counting (meter,
//! route).

use std::time::Duration;

use crate::error::{Error, Result, Status};
use crate::meter::{ClientFigures, Deed, End, EndInfo, NodeFigures, NodeNow, NodeRow, SubscriptionRow};
use crate::resp::fields::{
    self, Field, MapInfo,
    Value::{Bool, Int, Maps, Text},
    field,
};
use crate::resp::{Reply, ReplyBuilder};
use crate::topology::{HandleFigures, ServiceFigures};

/// A client, with the sum over its nodes.
struct ClientRow {
    figures: ClientFigures,
    nodes: NodeFigures,
}

impl ClientRow {
    fn new(figures: ClientFigures) -> Self {
        Self { nodes: figures.all_nodes(), figures }
    }
}

/// A handle with its services.
struct HandleRow {
    services: Vec<ServiceRow>,
    sentinels: u64,
    sentinels_heard: u64,
    scripts: (usize, usize),
    is_degraded: bool,
}

/// A service with its clients.
struct ServiceRow {
    tolls: ServiceFigures,
    clients: Vec<ClientRow>,
}

/// Errors of one status.
struct ErrorRow(&'static str, u64);

/// Connections that were closed for one reason.
struct EndRow(&'static EndInfo, u64);

const ERROR: &[Field<ErrorRow>] = &[
    field("status", Text(|of| of.0.into()), "", "The name of the status, as in ERRORS.md."),
    field("count", Int(|of| number(of.1)), "calls", "How many calls ended with it."),
];

const END: &[Field<EndRow>] = &[
    field("reason", Text(|of| of.0.word.into()), "", "The reason: one of the words below."),
    field("count", Int(|of| number(of.1)), "connections", "How many were closed for it."),
];

/// A table that ends with what is counted for nodes: `$of` takes that from the subject of the map.
macro_rules! with_counted {
    ($of:ident; $($own:expr,)*) => {
        &[
            $($own,)*
            field("opened", Int(|of| number($of(of).opened)), "connections", "Connections that were opened."),
            field(
                "refused",
                Int(|of| number($of(of).refused)),
                "attempts",
                "Attempts to open a connection that failed: no answer, or no successful handshake.",
            ),
            field("closed", Int(|of| number($of(of).all_closed())), "connections", "Connections that were closed."),
            field(
                "closed_by",
                Maps("end", |of, out| write_ends(out, $of(of))),
                "",
                "The same by reason; each reason is there.",
            ),
            field(
                "bytes_sent",
                Int(|of| number($of(of).sent)),
                "bytes",
                "What was handed to the kernel, without handshakes, and before it is encrypted.",
            ),
            field(
                "bytes_received",
                Int(|of| number($of(of).received)),
                "bytes",
                "What was received, without handshakes, and after it was decrypted.",
            ),
            field(
                "waits",
                Int(|of| number($of(of).waits)),
                "calls",
                "Times that a call waited for a connection: for a loan, or for the first connection while another call opened it.",
            ),
            field("waited_us", Int(|of| number($of(of).waited_us)), "µs", "How long these waits lasted, together."),
            field(
                "answered",
                Int(|of| number($of(of).latencies.count())),
                "calls",
                "Attempts that were answered, error replies and the library's own questions included: all but blocking commands and calls of \
                 sessions.",
            ),
            field(
                "latency_sum_us",
                Int(|of| $of(of).latencies.sum().as_micros() as i64),
                "µs",
                "The sum of their latencies. A latency lasts from the moment when the call's bytes are handed to the kernel until its reply \
                 was read: what the server and the network take. Waits before that are counted elsewhere.",
            ),
            field("p50_us", Int(|of| quantile($of(of), 500)), "µs", "The latency that half of them did not exceed; -1 if there are none. It is too high by a sixteenth at most, never too low."),
            field("p99_us", Int(|of| quantile($of(of), 990)), "µs", "The same for 99 of 100."),
            field("p999_us", Int(|of| quantile($of(of), 999)), "µs", "The same for 999 of 1000. None of the three has the time before a call was sent: for a connection, at the fence, between attempts."),
        ]
    };
}

/// A key for one of the deeds.
macro_rules! deed {
    ($key:literal, $deed:ident, $unit:literal, $text:literal) => {
        field($key, Int(|of| number(of.figures.deeds.of(Deed::$deed))), $unit, $text)
    };
}

fn of_client(of: &ClientRow) -> &NodeFigures {
    &of.nodes
}

fn of_node(of: &NodeRow) -> &NodeFigures {
    &of.counted
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn quantile(of: &NodeFigures, per_mille: u64) -> i64 {
    of.latencies.quantile(per_mille).map_or(-1, |time: Duration| time.as_micros() as i64)
}

fn write_ends(out: &mut ReplyBuilder, of: &NodeFigures) {
    End::TABLE.iter().for_each(|info| fields::write(out, END, &EndRow(info, of.closed[info.end as usize])));
}

fn ms(time: Duration) -> i64 {
    time.as_millis() as i64
}

const HANDLE: &[Field<HandleRow>] = &[
    field("sentinels", Int(|of| number(of.sentinels)), "", "Sentinels that are known."),
    field("degraded", Bool(|of| of.is_degraded), "", "Whether none of them is heard."),
    field(
        "services",
        Maps("service", |of, out| of.services.iter().for_each(|service| fields::write(out, SERVICE, service))),
        "",
        "The services that were asked for.",
    ),
    field(
        "sentinels_heard",
        Int(|of| number(of.sentinels_heard)),
        "",
        "Sentinels whose events are heard, each on a connection; none with `monitor` off or `disconnect`.",
    ),
    field("scripts", Int(|of| of.scripts.0 as i64), "", "Scripts whose bodies are kept (`script.cache`)."),
    field("script_bytes", Int(|of| of.scripts.1 as i64), "bytes", "What these bodies take."),
];

const SERVICE: &[Field<ServiceRow>] = &[
    field("service", Text(|of| (&*of.tolls.service).into()), "", "The service."),
    field("failovers", Int(|of| number(of.tolls.failovers)), "", "How often another primary took over."),
    field(
        "last_gap_ms",
        Int(|of| ms(of.tolls.last_gap)),
        "ms",
        "How long the last failover took: from its first sign (a call that the primary did not answer any more, a connection to it that \
         failed, or a word of a Sentinel that raises the fence) until the new primary was used; 0 before the first.",
    ),
    field("gaps_ms", Int(|of| ms(of.tolls.gaps)), "ms", "How long all of them took, together."),
    field(
        "fences",
        Int(|of| number(of.tolls.fences)),
        "",
        "How often writes began to be held back because of a failover.",
    ),
    field(
        "fenced_ms",
        Int(|of| ms(of.tolls.fenced)),
        "ms",
        "How long they were held back, together, the present time included.",
    ),
    field("fenced", Bool(|of| of.tolls.is_fenced), "", "Whether they are held back now."),
    field(
        "clients",
        Maps("client", |of, out| of.clients.iter().for_each(|row| fields::write(out, CLIENT, row))),
        "",
        "Its clients: one map for all clients of a target, those that were freed included.",
    ),
];

const CLIENT: &[Field<ClientRow>] = with_counted![
    of_client;
    field("calls", Int(|of| number(of.figures.calls)), "calls", "Calls that were begun, submitted ones included."),
    field("retries", Int(|of| number(of.figures.retries)), "attempts", "Attempts after the first of a call."),
    field(
        "errors",
        Int(|of| number(of.figures.all_errors())),
        "calls",
        "Calls that ended with an error, whatever its status: a transaction that a watched key has aborted (TXN_ABORTED) counts, too. \
         A command or list that cannot be parsed is no call.",
    ),
    field(
        "maybe_executed",
        Int(|of| number(of.figures.maybe_executed)),
        "calls",
        "Those among `errors` with the flag MAYBE_EXECUTED.",
    ),
    field(
        "fallbacks",
        Int(|of| number(of.figures.fallbacks)),
        "calls",
        "Reads for a replica that went to the primary (`replica.fallback`).",
    ),
    field(
        "pools",
        Maps("pool", |of, out| {
            let now = of.figures.nodes.iter().filter(|node| node.now.is_some());
            now.for_each(|node| fields::write(out, POOL, node));
        }),
        "",
        "The pools of connections, one for each node that is used.",
    ),
    field(
        "errors_by",
        Maps("error", |of, out| {
            of.figures.errors_by_name().for_each(|(name, count)| fields::write(out, ERROR, &ErrorRow(name, count)));
        }),
        "",
        "`errors` by status; those that there were.",
    ),
    field("in_flight", Int(|of| number(of.figures.in_flight)), "calls", "Calls that have begun and are not over."),
    field(
        "held_back",
        Int(|of| number(of.figures.held_back)),
        "calls",
        "Writes that waited because writes were held back, by the fence or by `write.majority_ms`, by exec and by submit; each counts once, when it waits, or a submitted one when it goes on. Calls of sessions are not counted.",
    ),
    field("transactions", Int(|of| number(of.figures.transactions)), "calls", "Transactions that were begun: calls with VIGIE_CALL_ATOMIC, and those that `vigie_jobs_*` makes."),
    field("subscriptions", Int(|of| number(of.figures.subscriptions)), "", "Subscriptions that are not freed."),
    field("service", Text(|of| (&*of.figures.service).into()), "", "The service."),
    field("target", Text(|of| of.figures.target.into()), "", "Where its calls go: `primary`, `replica` or `split`."),
    deed!("transactions_run", TransactionRun, "calls", "Those among `transactions` that EXEC has run, whatever its commands answered."),
    deed!(
        "transactions_aborted",
        TransactionAborted,
        "calls",
        "Those that were given up: a watched key was changed, or the connection of the WATCH is gone."
    ),
    deed!(
        "transactions_refused",
        TransactionRefused,
        "calls",
        "Those that the server has refused, with EXECABORT or before. What is left ended without an answer, or is under way."
    ),
    deed!("scripts_shortened", ScriptShortened, "calls", "EVALs that were sent as EVALSHA (`script.cache`)."),
    deed!(
        "scripts_healed",
        ScriptHealed,
        "calls",
        "Scripts that were sent once more by their bodies, because the server did not know the hash (NOSCRIPT)."
    ),
    deed!("scan_pages", ScanPage, "", "Pages that scan loops (`vigie_scan_for()`) have given."),
    deed!("scan_restarts", ScanRestart, "", "Scan loops that began anew."),
    deed!("scans_interrupted", ScanInterrupted, "", "Interruptions of scan loops, those included after which they began anew."),
    deed!("jobs_taken", JobTaken, "jobs", "Jobs that were handed out."),
    deed!("jobs_marked", JobMarked, "jobs", "Those among `jobs_taken` with a mark: they may have been handed out before."),
    deed!("jobs_acknowledged", JobAcknowledged, "jobs", "Jobs that were acknowledged."),
    deed!(
        "jobs_handed_back",
        JobHandedBack,
        "jobs",
        "Jobs that went back to their lists: by the program, by the end of a worker, and of workers whose leases were over."
    ),
    deed!(
        "jobs_set_aside",
        JobSetAside,
        "jobs",
        "Jobs that went to the list of those that failed (`vigie_jobs_limit_deliveries()`)."
    ),
    deed!("leases_lost", LeaseLost, "", "Times that a worker found its lease gone."),
    deed!("messages", Message, "messages", "Messages of its subscriptions, those included that were dropped."),
    deed!("message_bytes", MessageByte, "bytes", "The memory that these took, as `sub.max_bytes` counts it."),
    deed!("messages_dropped", MessageDropped, "messages", "Messages that were lost to a full buffer."),
    deed!("subscription_gaps", Gap, "", "Gaps of its subscriptions that were told (SUB_GAP)."),
    field(
        "subscription_list",
        Maps("subscription", |of, out| {
            of.figures.subscription_rows.iter().for_each(|row| fields::write(out, SUBSCRIPTION, row));
        }),
        "",
        "Its subscriptions, each by itself.",
    ),
];

const SUBSCRIPTION: &[Field<SubscriptionRow>] = &[
    field("token", Int(|of| of.token as i64), "", "The token of its events."),
    field(
        "endpoint",
        Text(|of| (&*of.endpoint).into()),
        "",
        "The node that it hears: `host:port`; empty without a connection.",
    ),
    field(
        "messages",
        Int(|of| number(of.messages)),
        "messages",
        "Messages that came, those included that were dropped.",
    ),
    field("bytes", Int(|of| number(of.bytes)), "bytes", "The memory that these took, as `sub.max_bytes` counts it."),
    field("dropped", Int(|of| number(of.dropped)), "messages", "Messages that were lost to its full buffer."),
    field("gaps", Int(|of| number(of.gaps)), "", "Gaps that were told (SUB_GAP)."),
    field("buffered", Int(|of| number(of.buffered)), "messages", "Messages that wait to be drained."),
    field("buffered_bytes", Int(|of| number(of.buffered_bytes)), "bytes", "The memory that these take."),
];

const POOL: &[Field<NodeRow>] = with_counted![
    of_node;
    field("endpoint", Text(|of| (&*of.endpoint).into()), "", "The node: `host:port`."),
    field("role", Text(|of| of.role.into()), "", "What it is used for: `primary` or `replica`."),
    field(
        "size",
        Int(|of| now(of).size as i64),
        "connections",
        "All connections, those that are being opened included; at most `pool.max`.",
    ),
    field(
        "lanes",
        Int(|of| now(of).lanes as i64),
        "connections",
        "Connections that calls share; at most `lane.max`.",
    ),
    field(
        "idle",
        Int(|of| now(of).idle as i64),
        "connections",
        "Loans (connections for one call or session at a time) that are not in use.",
    ),
    field("in_use", Int(|of| now(of).in_use as i64), "connections", "Loans in use."),
    field("waiting", Int(|of| now(of).waiting as i64), "calls", "Calls that wait for a loan."),
    field(
        "in_flight",
        Int(|of| now(of).in_flight as i64),
        "calls",
        "Calls on shared connections that wait for replies.",
    ),
    field(
        "served",
        Int(|of| now(of).served as i64),
        "calls",
        "Attempts of calls that were not submitted, on shared connections, whether they were answered or not, and the library's own \
         questions there.",
    ),
    field(
        "srtt_us",
        Int(|of| now(of).srtt_us),
        "µs",
        "The smoothed round trip of its first shared connection; -1 before the first reply.",
    ),
    field("submit_lanes", Int(|of| now(of).submit_lanes as i64), "connections", "Connections for submitted calls."),
    field(
        "submitted",
        Int(|of| now(of).submitted as i64),
        "calls",
        "Those among `in_flight` on connections for submitted calls.",
    ),
];

fn now(of: &NodeRow) -> NodeNow {
    of.now.unwrap_or_default()
}

/// The statistics as a reply.
pub(super) fn of(figures: ClientFigures) -> Result<Reply> {
    if figures.lacks_rows {
        return Err(Error::new(Status::Limit, "the statistics: no memory for those of the nodes and subscriptions"));
    }
    let mut out = ReplyBuilder::new();
    fields::write(&mut out, CLIENT, &ClientRow::new(figures));
    out.try_finish()
}

/// The statistics of a handle as a reply.
pub(super) fn of_handle(figures: HandleFigures) -> Result<Reply> {
    let HandleFigures { services, clients, sentinels, sentinels_heard, scripts, is_degraded } = figures;
    let row = |tolls| ServiceRow { tolls, clients: Vec::new() };
    let mut services: Vec<ServiceRow> = services.into_iter().map(row).collect();
    for client in clients {
        let service = &client.service;
        let at = services.iter().position(|row| row.tolls.service == *service).unwrap_or_else(|| {
            // A service is dropped some time after its last client.
            services.push(row(ServiceFigures { service: service.clone(), ..ServiceFigures::default() }));
            services.len() - 1
        });
        services[at].clients.push(ClientRow::new(client));
    }
    let handle = HandleRow { services, sentinels, sentinels_heard, scripts, is_degraded };
    let mut out = ReplyBuilder::new();
    fields::write(&mut out, HANDLE, &handle);
    out.try_finish()
}

/// The maps, as STATISTICS.md has them.
pub fn stats_maps() -> Vec<MapInfo> {
    vec![
        fields::describe("client", CLIENT),
        fields::describe("pool", POOL),
        fields::describe("error", ERROR),
        fields::describe("end", END),
        fields::describe("handle", HANDLE),
        fields::describe("service", SERVICE),
        fields::describe("subscription", SUBSCRIPTION),
    ]
}

/// The reasons for the end of a connection.
pub fn connection_ends() -> &'static [EndInfo] {
    End::TABLE
}
