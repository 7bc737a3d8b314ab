//! The timeline: what happens to a deployment, line by line, as the log of the library has it; and a failover that is started on purpose.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vigie::error::{Error, Result, Status};
use vigie::queue::{Event, Queue, kind};
use vigie::resp::{Kind, Reply, ReplyBuilder};
use vigie::time::Deadline;
use vigie::topology::{Sentinel, To};

use super::certificates::days_to;
use super::finding::{self, LINE, cut, said, text_of};
use super::nodes::follows;
use super::sentinels::{field, maps};
use super::{Wanted, terminal};

/// Events that may wait to be printed.
const ROOM: usize = 10_000;
/// How many steps a failover may take; Sentinels give one up after their `failover-timeout`. The replicas then have as long to follow the
/// new primary, because those that need a full copy take their turns.
const STEPS: u32 = 12;
/// How often they are asked.
const ASKED_EVERY: Duration = Duration::from_millis(200);

/// The lines of the log, as they come.
struct Timeline<'a> {
    queue: Arc<Queue>,
    /// In microseconds since 1970, by the clock of the lines.
    begun: i64,
    wanted: &'a Wanted,
    /// The exit status, once nothing can be printed any more.
    mute: Cell<Option<u8>>,
}

impl<'a> Timeline<'a> {
    fn of(sentinel: &Arc<Sentinel>, services: &[String], wanted: &'a Wanted) -> Result<Self> {
        let queue = Queue::create(ROOM)?;
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros() as i64);
        sentinel.watch(kind::LOG, &queue, 0)?;
        for service in services {
            sentinel.refresh(Some(service), wanted.deadline())?;
        }
        Ok(Self { queue, begun, wanted, mute: Cell::new(None) })
    }

    /// Prints what comes until then, or until a line is the last one. True: it was.
    fn print(&self, until: Deadline, is_last: &dyn Fn(&Reply) -> bool) -> bool {
        let mut events = Vec::new();
        loop {
            self.queue.drain(until, &mut events, 64);
            if events.is_empty() {
                return false;
            }
            for Event { kind: of, outcome, .. } in events.drain(..) {
                match outcome {
                    Ok(Some(line)) if of == kind::LOG => {
                        self.show(&line);
                        if is_last(&line) {
                            return true;
                        }
                    }
                    Ok(Some(count)) => {
                        let count = text_of(&count, 0);
                        terminal::tell(&format!("{count} lines were lost: they came faster than they were printed"));
                    }
                    _ => {}
                }
            }
        }
    }

    fn show(&self, line: &Reply) {
        let text = match self.wanted.json {
            true => finding::json(&shortened(line)),
            false => {
                let time = field(line, 0, "time");
                let after = moment(&time).map_or(0, |moment| (moment - self.begun).max(0)) as f64 / 1e6;
                terminal::line(&format!("{after:>9.3}s  {time}  {}", sentence(line)))
            }
        };
        if self.mute.get().is_none() {
            let printed = terminal::print(&(text + "\n"));
            self.mute.set(printed.is_err().then(|| terminal::status(printed, 0)));
        }
    }
}

/// A line's time in microseconds since 1970 (`2026-11-29T22:49:02.287736Z`); `None` if it is of another form.
fn moment(time: &str) -> Option<i64> {
    let digits: Vec<i64> =
        time.strip_suffix('Z')?.split(['-', 'T', ':', '.']).map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [year, month, day, hour, minute, second, micros] = digits[..] else { return None };
    let seconds = ((days_to(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * 1_000_000 + micros)
}

/// The same line with texts that somebody reads to their end.
fn shortened(line: &Reply) -> Reply {
    let mut out = ReplyBuilder::new();
    out.map();
    for id in line.children(0) {
        match line.kind(id) {
            Kind::String => _ = out.text(&cut(&text_of(line, id), LINE)),
            _ => _ = out.part(line, id),
        }
    }
    out.end().finish()
}

/// The message, and behind it what is known beside it.
fn sentence(line: &Reply) -> String {
    const SAID: [&str; 4] = ["time", "level", "target", "message"];
    let mut text = format!("{:<8} {}", field(line, 0, "target"), field(line, 0, "message"));
    let ids: Vec<u32> = line.children(0).collect();
    for pair in ids.chunks_exact(2) {
        let key = text_of(line, pair[0]);
        if !SAID.contains(&key.as_str()) && line.kind(pair[1]) != Kind::Null {
            text += &format!("  {key}={}", value(line, pair[1]));
        }
    }
    text
}

/// A value as it stands in a line: quoted if its end could not be seen.
fn value(line: &Reply, id: u32) -> String {
    match line.kind(id) {
        Kind::Bool => if line.int(id) == Some(1) { "yes" } else { "no" }.to_owned(),
        _ => {
            let text = cut(&text_of(line, id), LINE);
            let is_plain = !text.is_empty() && !text.contains(|one: char| one.is_whitespace() || one == '"');
            if is_plain { text } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) }
        }
    }
}

/// Prints what happens, until the time is over or the program is ended.
pub fn watch(sentinel: &Arc<Sentinel>, services: &[String], wanted: &Wanted) -> Result<u8> {
    let timeline = Timeline::of(sentinel, services, wanted)?;
    let names: Vec<String> = services.iter().map(|service| said(service)).collect();
    terminal::tell(&format!("watching {}", cut(&names.join(", "), LINE)));
    let until = wanted.span.map_or_else(Deadline::never, Deadline::after);
    timeline.print(until, &|_| timeline.mute.get().is_some());
    Ok(timeline.mute.get().unwrap_or(0))
}

/// Starts a failover, and prints what happens until writes pass again and the replicas follow.
pub fn failover(sentinel: &Arc<Sentinel>, service: &str, wanted: &Wanted) -> Result<u8> {
    let timeline = Timeline::of(sentinel, &[service.to_owned()], wanted)?;
    let topology = sentinel.topology(Some(service))?;
    let before = field(&topology, 0, "primary");
    let replicas = usable(&topology);
    let known = addresses(&topology);
    sentinel.exec(&[b"FAILOVER", service.as_bytes()], To::First, false, wanted.deadline())?;
    let is_over =
        |line: &Reply| field(line, 0, "cause") == "switched" || field(line, 0, "cause").starts_with("-failover-abort");
    timeline.print(wanted.steps(STEPS), &is_over);
    let topology = timeline.refreshed(sentinel, service)?;
    let after = field(&topology, 0, "primary");
    if after == before {
        let text = format!("{before} is still the primary of {service}: the timeline says how far the failover came");
        return Err(Error::new(Status::NoPrimary, text));
    }
    terminal::tell(&format!("{service} has moved from {before} to {after}"));
    let status = timeline.await_replicas(sentinel, &topology, replicas, known);
    Ok(status.max(timeline.mute.get().unwrap_or(0)))
}

/// The addresses of the replicas that can be expected to follow: the Sentinels do not miss them.
fn usable(topology: &Reply) -> Vec<String> {
    let is_up = |row: &u32| {
        let is_linked = topology.find(*row, b"link_ok").and_then(|id| topology.int(id)) == Some(1);
        is_linked && !field(topology, *row, "flags").contains("down")
    };
    maps(topology, "replicas").into_iter().filter(is_up).map(|row| field(topology, row, "addr")).collect()
}

/// Each address of each node.
fn addresses(topology: &Reply) -> BTreeSet<String> {
    let rows = std::iter::once(0).chain(maps(topology, "replicas"));
    rows.flat_map(|row| ["primary", "addr", "announced"].map(|key| field(topology, row, key))).collect()
}

impl Timeline<'_> {
    /// The topology after a failover. The Sentinels connect to the new primary anew, and for a moment none of them reaches it.
    fn refreshed(&self, sentinel: &Arc<Sentinel>, service: &str) -> Result<Reply> {
        let until = self.wanted.steps(STEPS);
        loop {
            match sentinel.refresh(Some(service), self.wanted.deadline()) {
                Err(_) if !until.is_over() => _ = self.print(Deadline::after(ASKED_EVERY), &|_| false),
                outcome => return outcome,
            }
        }
    }

    /// Prints what happens until these replicas follow the new primary, and returns the exit status.
    fn await_replicas(
        &self,
        sentinel: &Arc<Sentinel>,
        topology: &Reply,
        mut replicas: Vec<String>,
        mut others: BTreeSet<String>,
    ) -> u8 {
        let [primary, announced] = ["primary", "announced"].map(|key| field(topology, 0, key));
        others.retain(|addr| *addr != primary && *addr != announced);
        replicas.retain(|addr| *addr != primary);
        let all = replicas.len();
        let settings = sentinel.settings();
        let until = self.wanted.steps(STEPS);
        loop {
            let mut missing = Vec::new();
            for addr in replicas {
                if let Err(why) = follows(&settings, &addr, topology, &others, self.wanted) {
                    missing.push((addr, why));
                }
            }
            if missing.is_empty() || until.is_over() {
                terminal::tell(&format!("{} of {all} replicas follow it", all - missing.len()));
                let found = u8::from(!missing.is_empty());
                for (addr, why) in missing {
                    let seconds = until.elapsed().as_secs();
                    terminal::tell(&format!("after {seconds} s {addr} does not follow {primary}: {why}"));
                }
                return found;
            }
            replicas = missing.into_iter().map(|(addr, _)| addr).collect();
            self.print(Deadline::after(ASKED_EVERY), &|_| false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_in_both_forms() {
        let mut out = ReplyBuilder::new();
        out.map().text("time").text("t").text("message").text("said").text("reason").text(&"\u{e9}".repeat(1 << 20));
        let line = out.text("on").bool(true).text("gone").null().end().finish();
        let (text, json) = (sentence(&line), finding::json(&shortened(&line)));
        assert!(text.len() < 5000 && text.contains("\u{e9}[...]  on=yes") && !text.contains("gone"), "{text:.300}");
        assert!(json.len() < 5000 && json.ends_with("[...]\",\"on\":true,\"gone\":null}"), "{json:.300}");
    }

    #[test]
    fn the_time_of_a_line_is_read_to_the_microsecond() {
        assert_eq!(moment("1970-01-02T00:00:01.000002Z"), Some(86_401_000_002));
        assert_eq!(
            moment("2024-03-01T00:00:00.000000Z").zip(moment("2024-02-29T23:59:59.999999Z")).map(|(a, b)| a - b),
            Some(1)
        );
        for other in ["", "2024-03-01", "2024-03-01T00:00:00.000000", "2024-03-01T00:00Z", "x-03-01T00:00:00.000000Z"] {
            assert_eq!(moment(other), None, "{other}");
        }
    }
}
