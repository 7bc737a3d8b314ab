//! The timeline: what happens to a deployment, line by line, as the log of the library has it; and a failover that is started on purpose.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vigie::error::{Error, Result, Status};
use vigie::queue::{Event, Queue, kind};
use vigie::resp::{Kind, Reply};
use vigie::time::Deadline;
use vigie::topology::{Sentinel, To};

use super::Wanted;
use super::finding::text_of;
use super::sentinels::field;

/// Events that may wait to be printed.
const ROOM: usize = 10_000;
/// How long a failover may take; Sentinels give one up after their `failover-timeout`.
const FAILOVER: Duration = Duration::from_secs(60);

/// The lines of the log, as they come.
struct Timeline<'a> {
    queue: Arc<Queue>,
    begun: Instant,
    wanted: &'a Wanted,
}

impl<'a> Timeline<'a> {
    fn of(sentinel: &Arc<Sentinel>, services: &[String], wanted: &'a Wanted) -> Result<Self> {
        let queue = Queue::create(ROOM)?;
        sentinel.watch(kind::LOG, &queue, 0)?;
        for service in services {
            sentinel.refresh(Some(service), wanted.deadline())?;
        }
        Ok(Self { queue, begun: Instant::now(), wanted })
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
                        eprintln!("{} lines were lost: they came faster than they were printed", text_of(&count, 0))
                    }
                    _ => {}
                }
            }
        }
    }

    fn show(&self, line: &Reply) {
        let text = match self.wanted.json {
            true => line.to_json().map(|json| text_of(&json, 0)).unwrap_or_default(),
            false => format!("{:>9.3}s  {}", self.begun.elapsed().as_secs_f64(), sentence(line)),
        };
        // A failed write means that the reader of the output is gone.
        if writeln!(std::io::stdout(), "{text}").is_err() {
            std::process::exit(0);
        }
    }
}

/// The message, and behind it what is known beside it.
fn sentence(line: &Reply) -> String {
    const SAID: [&str; 4] = ["time", "level", "target", "message"];
    let mut text = format!("{:<8} {}", field(line, 0, "target"), field(line, 0, "message"));
    let ids: Vec<u32> = line.children(0).collect();
    for pair in ids.chunks_exact(2) {
        let (key, value) = (text_of(line, pair[0]), text_of(line, pair[1]));
        if !SAID.contains(&key.as_str()) && line.kind(pair[1]) != Kind::Null {
            text += &format!("  {key}={value}");
        }
    }
    text
}

/// Prints what happens, until the time is over or the program is ended.
pub fn watch(sentinel: &Arc<Sentinel>, services: &[String], wanted: &Wanted) -> Result<u8> {
    let timeline = Timeline::of(sentinel, services, wanted)?;
    eprintln!("watching {}", services.join(", "));
    timeline.print(wanted.span.map_or_else(Deadline::never, Deadline::after), &|_| false);
    Ok(0)
}

/// Starts a failover, and prints what happens until writes pass again.
pub fn failover(sentinel: &Arc<Sentinel>, service: &str, wanted: &Wanted) -> Result<u8> {
    let timeline = Timeline::of(sentinel, &[service.to_owned()], wanted)?;
    let before = field(&sentinel.topology(Some(service))?, 0, "primary");
    sentinel.exec(&[b"FAILOVER", service.as_bytes()], To::First, false, wanted.deadline())?;
    let is_over =
        |line: &Reply| field(line, 0, "cause") == "switched" || field(line, 0, "cause").starts_with("-failover-abort");
    timeline.print(Deadline::after(FAILOVER), &is_over);
    let after = field(&sentinel.refresh(Some(service), wanted.deadline())?, 0, "primary");
    if after == before {
        let text = format!("{before} is still the primary of {service}: the timeline says how far the failover came");
        return Err(Error::new(Status::NoPrimary, text));
    }
    eprintln!("{service} has moved from {before} to {after}");
    Ok(0)
}
