//! Statistics as text for Prometheus: the format 0.0.4, or OpenMetrics 1.0.
//!
//! Guarantees: each family stands once, with its HELP and TYPE, and its samples together; no two samples have the same labels, because
//! clients of one service are added up; counters never go back, also when clients are freed; label values are escaped. Leaves to others:
//! counting (meter, topology), and serving the text (the program).

use std::time::Duration;

use crate::meter::{ClientFigures, Deed, End, NodeRow, SubscriptionRow, add_node};
use crate::topology::{HandleFigures, ServiceFigures};

/// The upper bounds of the buckets: 2 to these powers of microseconds, from 64 µs to 4.2 s. With +Inf there are 16.
const POWERS: [u32; 15] = [6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 22];

/// A family that has one sample for each subject.
struct Family<T> {
    name: &'static str,
    help: &'static str,
    value: Value<T>,
}

enum Value<T> {
    Counter(fn(&T) -> u64),
    /// A counter in seconds.
    Seconds(fn(&T) -> Duration),
    /// `None`: no sample.
    Gauge(fn(&T) -> Option<u64>),
    GaugeSeconds(fn(&T) -> Duration),
}

use Value::{Counter, Gauge, GaugeSeconds, Seconds};

const fn family<T>(name: &'static str, value: Value<T>, help: &'static str) -> Family<T> {
    Family { name, help, value }
}

/// A family for one of the deeds.
macro_rules! deed {
    ($name:literal, $deed:ident, $text:literal) => {
        family($name, Counter(|of| of.deeds.of(Deed::$deed)), $text)
    };
}

const HANDLE: &[Family<HandleFigures>] = &[
    family("sentinels", Gauge(|of| Some(of.sentinels)), "Sentinels that are known."),
    family("sentinels_heard", Gauge(|of| Some(of.sentinels_heard)), "Sentinels whose events are heard."),
    family("scripts", Gauge(|of| Some(of.scripts.0 as u64)), "Scripts whose bodies are kept."),
    family("script_bytes", Gauge(|of| Some(of.scripts.1 as u64)), "Bytes of these bodies."),
    family("degraded", Gauge(|of| Some(u64::from(of.is_degraded))), "1 while no Sentinel is heard."),
];

const SERVICE: &[Family<ServiceFigures>] = &[
    family("failovers", Counter(|of| of.failovers), "Times that another primary took over."),
    family(
        "failover_gap_seconds",
        Seconds(|of| of.gaps),
        "Time from the first sign of a failover until the new primary was used, all failovers together.",
    ),
    family(
        "failover_last_gap_seconds",
        GaugeSeconds(|of| of.last_gap),
        "The same for the last failover; 0 before the first.",
    ),
    family("fences", Counter(|of| of.fences), "Times that writes began to be held back because of a failover."),
    family("fence_seconds", Seconds(|of| of.fenced), "Time in which writes were held back."),
    family("fence_up", Gauge(|of| Some(u64::from(of.is_fenced))), "1 while writes are held back."),
];

const CLIENT: &[Family<ClientFigures>] = &[
    family("calls", Counter(|of| of.calls), "Calls that were begun."),
    family("call_retries", Counter(|of| of.retries), "Attempts after the first of a call."),
    family("calls_maybe_executed", Counter(|of| of.maybe_executed), "Calls that failed and may have run."),
    family("call_fallbacks", Counter(|of| of.fallbacks), "Reads for a replica that went to the primary."),
    family("calls_held_back", Counter(|of| of.held_back), "Calls that waited because writes were held back."),
    family("transactions", Counter(|of| of.transactions), "Transactions that were begun."),
    family("calls_in_flight", Gauge(|of| Some(of.in_flight)), "Calls that have begun and are not over."),
    family("subscriptions", Gauge(|of| Some(of.subscriptions)), "Subscriptions that are not freed."),
    deed!("transactions_run", TransactionRun, "Transactions that EXEC has run."),
    deed!("transactions_aborted", TransactionAborted, "Transactions that were given up because of WATCH."),
    deed!("transactions_refused", TransactionRefused, "Transactions that the server has refused."),
    deed!("scripts_shortened", ScriptShortened, "EVALs that were sent as EVALSHA."),
    deed!("scripts_healed", ScriptHealed, "Scripts that were sent once more by their bodies."),
    deed!("scan_pages", ScanPage, "Pages that scan loops have given."),
    deed!("scan_restarts", ScanRestart, "Scan loops that began anew."),
    deed!("scans_interrupted", ScanInterrupted, "Interruptions of scan loops."),
    deed!("jobs_taken", JobTaken, "Jobs that were handed out."),
    deed!("jobs_marked", JobMarked, "Jobs that were handed out with a mark."),
    deed!("jobs_acknowledged", JobAcknowledged, "Jobs that were acknowledged."),
    deed!("jobs_handed_back", JobHandedBack, "Jobs that went back to their lists."),
    deed!("jobs_set_aside", JobSetAside, "Jobs that went to the lists of those that failed."),
    deed!("leases_lost", LeaseLost, "Times that a worker found its lease gone."),
    deed!("messages", Message, "Messages of subscriptions, those included that were dropped."),
    deed!("message_bytes", MessageByte, "The memory that these messages took."),
    deed!("messages_dropped", MessageDropped, "Messages that were lost to full buffers."),
    deed!("subscription_gaps", Gap, "Gaps of subscriptions that were told."),
    family(
        "messages_buffered",
        Gauge(|of| Some(buffered(of, |row| row.buffered))),
        "Messages that wait to be drained.",
    ),
    family(
        "messages_buffered_bytes",
        Gauge(|of| Some(buffered(of, |row| row.buffered_bytes))),
        "The memory that these take.",
    ),
];

/// The sum over the subscriptions of a client, whose number has no bound: a family has one sample for all of them.
fn buffered(of: &ClientFigures, value: fn(&SubscriptionRow) -> u64) -> u64 {
    of.subscription_rows.iter().map(value).sum()
}

const NODE: &[Family<NodeRow>] = &[
    family("connections_opened", Counter(|of| of.counted.opened), "Connections that were opened."),
    family("connections_refused", Counter(|of| of.counted.refused), "Attempts to open a connection that failed."),
    family("sent_bytes", Counter(|of| of.counted.sent), "Bytes sent, without handshakes, before encryption."),
    family(
        "received_bytes",
        Counter(|of| of.counted.received),
        "Bytes received, without handshakes, after decryption.",
    ),
    family("pool_waits", Counter(|of| of.counted.waits), "Times that a call waited for a connection."),
    family(
        "pool_wait_seconds",
        Seconds(|of| Duration::from_micros(of.counted.waited_us)),
        "How long these waits lasted, together.",
    ),
    family("pool_connections", Gauge(|of| Some(of.now?.size)), "Connections, those that are being opened included."),
    family("pool_lanes", Gauge(|of| Some(of.now?.lanes)), "Connections that calls share."),
    family("pool_submit_lanes", Gauge(|of| Some(of.now?.submit_lanes)), "Connections for submitted calls."),
    family("pool_idle", Gauge(|of| Some(of.now?.idle)), "Connections for one user at a time that are not in use."),
    family("pool_in_use", Gauge(|of| Some(of.now?.in_use)), "Connections for one user at a time that are in use."),
    family("pool_waiting", Gauge(|of| Some(of.now?.waiting)), "Calls that wait for a connection of their own."),
    family("pool_in_flight", Gauge(|of| Some(of.now?.in_flight)), "Calls that wait for replies on shared connections."),
];

/// A family as the page has it.
#[derive(Debug, Clone, Copy)]
pub struct MetricInfo {
    /// Its name, without `vigie_` and `_total`.
    pub name: &'static str,
    /// counter, gauge or histogram.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: &'static str,
    /// What it says.
    pub help: &'static str,
}

const BUILD: MetricInfo = MetricInfo {
    name: "build_info",
    kind: "gauge",
    labels: "version",
    help: "1; the label has the version of the library.",
};
const ERRORS: MetricInfo = MetricInfo {
    name: "call_errors",
    kind: "counter",
    labels: "service target status",
    help: "Calls that ended with an error, by its status.",
};
const CLOSED: MetricInfo = MetricInfo {
    name: "connections_closed",
    kind: "counter",
    labels: "service endpoint role reason",
    help: "Connections that were closed, by reason.",
};
const ROUND_TRIP: MetricInfo = MetricInfo {
    name: "round_trip_seconds",
    kind: "histogram",
    labels: "service endpoint role",
    help: "From the moment when a call is sent until its reply was read; all but blocking commands and calls of sessions.",
};

/// All families, in the order of the text.
pub fn metric_infos() -> Vec<MetricInfo> {
    let mut all = vec![BUILD];
    all.extend(HANDLE.iter().map(|family| family.info("")));
    all.extend(SERVICE.iter().map(|family| family.info("service")));
    all.extend(CLIENT.iter().map(|family| family.info("service target")));
    all.push(ERRORS);
    all.extend(NODE.iter().map(|family| family.info("service endpoint role")));
    all.extend([CLOSED, ROUND_TRIP]);
    all
}

impl<T> Family<T> {
    fn info(&self, labels: &'static str) -> MetricInfo {
        let kind = match self.value {
            Counter(_) | Seconds(_) => "counter",
            Gauge(_) | GaugeSeconds(_) => "gauge",
        };
        MetricInfo { name: self.name, kind, labels, help: self.help }
    }
}

/// The labels of a sample: names and values.
type Labels<'a> = [(&'static str, &'a str)];

/// The value of a sample.
#[derive(Clone, Copy)]
enum Number {
    Count(u64),
    /// In seconds.
    Time(Duration),
}

struct Text {
    out: String,
    open_metrics: bool,
}

/// Figures of a client or of a service, with the name of its shard; "": it is none.
pub(super) type OfShard<T> = (String, T);

/// The labels of a subject, behind that of its shard.
fn labels<'a>(shard: &'a str, own: &[(&'static str, &'a str)]) -> Vec<(&'static str, &'a str)> {
    let shard = Some(("shard", shard)).filter(|(_, name)| !name.is_empty());
    shard.into_iter().chain(own.iter().copied()).collect()
}

/// All figures of a handle as text.
pub(super) fn text(mut figures: HandleFigures, open_metrics: bool) -> String {
    let services = std::mem::take(&mut figures.services).into_iter().map(|of| (String::new(), of)).collect();
    let clients = std::mem::take(&mut figures.clients).into_iter().map(|of| (String::new(), of)).collect();
    text_of(Some(&figures), services, clients, open_metrics)
}

/// Figures of clients and their services as text, and those of a handle.
pub(super) fn text_of(
    handle: Option<&HandleFigures>,
    services: Vec<OfShard<ServiceFigures>>,
    mut clients: Vec<OfShard<ClientFigures>>,
    open_metrics: bool,
) -> String {
    let mut text = Text { out: String::new(), open_metrics };
    let nodes = nodes_of(&mut clients);
    text.head(&BUILD);
    text.sample(BUILD.name, "", &[("version", env!("CARGO_PKG_VERSION"))], Number::Count(1));
    if let Some(handle) = handle {
        HANDLE.iter().for_each(|family| text.family(family, std::iter::once((handle, &[][..]))));
    }
    let services: Vec<_> =
        services.iter().map(|(shard, of)| (of, labels(shard, &[("service", &*of.service)]))).collect();
    let clients: Vec<_> = clients
        .iter()
        .map(|(shard, of)| (of, labels(shard, &[("service", &*of.service), ("target", of.target)])))
        .collect();
    let nodes: Vec<_> = nodes
        .iter()
        .flat_map(|(shard, service, rows)| rows.iter().map(move |of| (shard, service, of)))
        .map(|(shard, service, of)| {
            (of, labels(shard, &[("service", &**service), ("endpoint", &*of.endpoint), ("role", of.role)]))
        })
        .collect();
    SERVICE.iter().for_each(|family| text.family(family, services.iter().map(|(of, labels)| (*of, &labels[..]))));
    CLIENT.iter().for_each(|family| text.family(family, clients.iter().map(|(of, labels)| (*of, &labels[..]))));
    text.head(&ERRORS);
    for (of, labels) in &clients {
        // With those of which there were none, so that the first one is seen as an increase.
        of.each_error().for_each(|(status, count)| {
            text.sample(ERRORS.name, "_total", &[labels, &[("status", status)][..]].concat(), Number::Count(count));
        });
    }
    NODE.iter().for_each(|family| text.family(family, nodes.iter().map(|(of, labels)| (*of, &labels[..]))));
    text.head(&CLOSED);
    for (of, labels) in &nodes {
        End::TABLE.iter().zip(of.counted.closed).for_each(|(info, count)| {
            let labels = [labels, &[("reason", info.word)][..]].concat();
            text.sample(CLOSED.name, "_total", &labels, Number::Count(count));
        });
    }
    text.head(&ROUND_TRIP);
    nodes.iter().for_each(|(of, labels)| text.histogram(of, labels));
    if open_metrics {
        text.out.push_str("# EOF\n");
    }
    text.out
}

/// The nodes of each service, which clients of different targets share: by shard and service.
fn nodes_of(clients: &mut [OfShard<ClientFigures>]) -> Vec<(String, String, Vec<NodeRow>)> {
    let mut services: Vec<(String, String, Vec<NodeRow>)> = Vec::new();
    for (shard, client) in clients {
        let at =
            services.iter().position(|(of, name, _)| of == shard && *name == client.service).unwrap_or_else(|| {
                services.push((shard.clone(), client.service.clone(), Vec::new()));
                services.len() - 1
            });
        std::mem::take(&mut client.nodes).into_iter().for_each(|node| add_node(&mut services[at].2, node));
    }
    services
}

impl Text {
    /// HELP and TYPE. In the older format they have the name of the samples, in OpenMetrics that of the family.
    #[inline(never)]
    fn head(&mut self, of: &MetricInfo) {
        let MetricInfo { name, kind, help, .. } = of;
        let suffix = if *kind == "counter" && !self.open_metrics { "_total" } else { "" };
        for part in ["# HELP vigie_", name, suffix, " ", help, "\n# TYPE vigie_", name, suffix, " ", kind, "\n"] {
            self.out.push_str(part);
        }
    }

    #[inline(never)]
    fn family<'a, T: 'a>(&mut self, family: &Family<T>, subjects: impl Iterator<Item = (&'a T, &'a Labels<'a>)>) {
        self.head(&family.info(""));
        subjects.for_each(|(of, labels)| {
            let (suffix, value) = match &family.value {
                Counter(value) => ("_total", Some(Number::Count(value(of)))),
                Seconds(value) => ("_total", Some(Number::Time(value(of)))),
                Gauge(value) => ("", value(of).map(Number::Count)),
                GaugeSeconds(value) => ("", Some(Number::Time(value(of)))),
            };
            value.iter().for_each(|value| self.sample(family.name, suffix, labels, *value));
        });
    }

    #[inline(never)]
    fn histogram(&mut self, node: &NodeRow, labels: &Labels<'_>) {
        let (name, latencies) = (ROUND_TRIP.name, &node.counted.latencies);
        for power in POWERS {
            let bound = decimal(Duration::from_micros(1 << power));
            let count = latencies.count_up_to(power);
            self.sample(name, "_bucket", &[labels, &[("le", &*bound)]].concat(), Number::Count(count));
        }
        let count = Number::Count(latencies.count());
        self.sample(name, "_bucket", &[labels, &[("le", "+Inf")]].concat(), count);
        self.sample(name, "_sum", labels, Number::Time(latencies.sum()));
        self.sample(name, "_count", labels, count);
    }

    #[inline(never)]
    fn sample(&mut self, name: &str, suffix: &str, labels: &Labels<'_>, value: Number) {
        ["vigie_", name, suffix].iter().for_each(|part| self.out.push_str(part));
        for (at, (label, value)) in labels.iter().enumerate() {
            [if at == 0 { "{" } else { "," }, label, "=\""].iter().for_each(|part| self.out.push_str(part));
            self.escaped(value);
            self.out.push('"');
        }
        let number = match value {
            Number::Count(count) => count.to_string(),
            Number::Time(time) => decimal(time),
        };
        [if labels.is_empty() { " " } else { "} " }, &*number, "\n"].iter().for_each(|part| self.out.push_str(part));
    }

    #[inline(never)]
    fn escaped(&mut self, value: &str) {
        for letter in value.chars() {
            match letter {
                '\\' => self.out.push_str("\\\\"),
                '"' => self.out.push_str("\\\""),
                '\n' => self.out.push_str("\\n"),
                other => self.out.push(other),
            }
        }
    }
}

/// Seconds with all nanoseconds, and without zeros behind them.
#[inline(never)]
fn decimal(time: Duration) -> String {
    let text = format!("{}.{:09}", time.as_secs(), time.subsec_nanos());
    let short = text.trim_end_matches('0');
    if short.ends_with('.') { format!("{short}0") } else { short.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_exact() {
        let told = [0, 1, 65_536, 1_000_000_000, 4_294_967_296].map(|ns| decimal(Duration::from_nanos(ns)));
        assert_eq!(told, ["0.0", "0.000000001", "0.000065536", "1.0", "4.294967296"]);
    }

    #[test]
    fn what_would_end_a_label_is_escaped() {
        let mut text = Text { out: String::new(), open_metrics: false };
        let time = Number::Time(Duration::from_millis(1500));
        text.sample("x", "", &[("service", "a\\b\"c\nd{é}"), ("role", "primary")], time);
        assert_eq!(text.out, "vigie_x{service=\"a\\\\b\\\"c\\nd{é}\",role=\"primary\"} 1.5\n");
    }
}
