//! vigie-doctor: looks at a deployment of Redis or Valkey under Sentinel as the library vigie does, and says what is wrong with it, what
//! that means, and what to change. docs/doctor.md is its page.
//!
//! It reads, and changes nothing, unless `--force-failover --yes` asks for a failover.

mod certificates;
mod finding;
mod live;
mod nodes;
mod primary;
mod reach;
mod replicas;
mod sentinels;
mod shards;
mod terminal;
mod writes;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use finding::{Report, Severity, text_of};
use vigie::config::{Config, Settings};
use vigie::error::{Error, Result, Status};
use vigie::time::Deadline;
use vigie::topology::Sentinel;

const HELP: &str = "\
vigie-doctor looks at a deployment under Sentinel and says what is wrong with it.

  vigie-doctor [OPTIONS] URI
  vigie-doctor [OPTIONS] --shard node_1=... --shard node_2=... [URI]

  URI                redis-sentinel://[user:password@]host:port[,host:port...]/service, as programs give it; without a service all
                     services are looked at; rediss-sentinel:// with TLS; redis://host:port for a primary without Sentinels
  --shard node_N=... a shard of a client of vigie_shards_for(), as often as there are: sentinel:SERVICE (the URI has the Sentinels), or
                     redis://host:port, or that with its replica, redis://host:port|redis://host2:port
  --set KEY=VALUE    an option of the library, such as sentinel.password=...; as often as needed
  --json             one JSON object in place of text; with --watch one for each line
  --watch            a timeline of what happens, until Ctrl-C
  --for SECONDS      with --watch: ends after this time
  --force-failover   starts a failover of the service and shows its timeline until the replicas follow; does nothing without --yes
  --yes              means it
  --timeout SECONDS  how long each step may take (5)
  --help, --version

The exit status: 0 nothing to complain about, 1 warnings, 2 faults, 3 it could not look.
";

/// What was asked for.
#[derive(Default)]
pub struct Wanted {
    uri: String,
    options: Vec<(String, String)>,
    /// As vigie_shards_for() takes them.
    shards: Vec<String>,
    /// JSON in place of text.
    pub json: bool,
    watch: bool,
    /// How long a timeline lasts; `None`: until the program is ended.
    pub span: Option<Duration>,
    failover: bool,
    yes: bool,
    timeout: Option<Duration>,
}

impl Wanted {
    /// For each step.
    pub fn deadline(&self) -> Deadline {
        self.steps(1)
    }

    /// For what takes several steps.
    pub fn steps(&self, count: u32) -> Deadline {
        Deadline::after(self.timeout.unwrap_or(Duration::from_secs(5)) * count)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    ExitCode::from(answer(&arguments))
}

/// Does what was asked for, and returns the exit status.
fn answer(arguments: &[OsString]) -> u8 {
    let has = |flag: &str| arguments.iter().any(|one| one == flag);
    if has("--help") || has("-h") {
        return terminal::status(terminal::print(HELP), 0);
    }
    if has("--version") {
        return terminal::status(terminal::print(&format!("vigie-doctor {}\n", env!("CARGO_PKG_VERSION"))), 0);
    }
    let done = texts(arguments).and_then(|arguments| read(&arguments)).and_then(|wanted| {
        run(&wanted).map_err(|error| format!("{} ({})", error.message(), error.status().info().name))
    });
    done.unwrap_or_else(|why| {
        let told = if has("--json") { terminal::print(&(finding::failure(&why) + "\n")) } else { Ok(()) };
        terminal::tell(&format!("vigie-doctor cannot look: {}", finding::cut(&why, finding::LINE)));
        terminal::status(told, terminal::COULD_NOT)
    })
}

/// The arguments as texts. One that is none is not shown, because it may be a password.
fn texts(arguments: &[OsString]) -> std::result::Result<Vec<String>, String> {
    let text = |(place, argument): (usize, &OsString)| {
        let text = argument.to_str().map(str::to_owned);
        text.ok_or_else(|| format!("argument {} is not UTF-8: bytes of a URI are written as %XX", place + 1))
    };
    arguments.iter().enumerate().map(text).collect()
}

fn read(arguments: &[String]) -> std::result::Result<Wanted, String> {
    let mut wanted = Wanted::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().cloned().ok_or_else(|| format!("{argument} needs a value (--help)"));
        match argument.as_str() {
            "--json" => wanted.json = true,
            "--watch" => wanted.watch = true,
            "--force-failover" => wanted.failover = true,
            "--yes" => wanted.yes = true,
            "--for" => wanted.span = Some(seconds(argument, &value()?)?),
            "--shard" => wanted.shards.push(value()?),
            "--timeout" => wanted.timeout = Some(seconds(argument, &value()?)?),
            "--set" => {
                let pair = value()?;
                // The value may be a password: it is not shown.
                let (key, value) = pair.split_once('=').ok_or("--set needs KEY=VALUE (--help)")?;
                wanted.options.push((key.to_owned(), value.to_owned()));
            }
            flag if flag.starts_with('-') => {
                // Behind its name may be a password.
                let end =
                    if flag.starts_with("--") { flag.find('=') } else { flag.char_indices().nth(2).map(|two| two.0) };
                return Err(format!("unknown option {} (--help)", &flag[..end.unwrap_or(flag.len())]));
            }
            uri if wanted.uri.is_empty() => uri.clone_into(&mut wanted.uri),
            _ => return Err("more than one URI (--help)".to_owned()),
        }
    }
    match () {
        () if wanted.uri.is_empty() && wanted.shards.is_empty() => Err("no URI (--help)".to_owned()),
        () if !wanted.shards.is_empty() && (wanted.watch || wanted.failover) => {
            Err("--shard goes neither with --watch nor with --force-failover: give the URI of one service".to_owned())
        }
        () if wanted.failover && !wanted.yes => {
            Err("--force-failover interrupts writes and may lose the last of them: add --yes if you mean it".to_owned())
        }
        () if wanted.span.is_some() && !wanted.watch => Err("--for belongs to --watch (--help)".to_owned()),
        () => Ok(wanted),
    }
}

fn seconds(flag: &str, text: &str) -> std::result::Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.001..=86_400.0).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("{flag} needs a number of seconds between 0.001 and 86400 behind it"))
}

fn run(wanted: &Wanted) -> Result<u8> {
    let mut config = Config::new();
    if !wanted.uri.is_empty() {
        config.set("uri", &wanted.uri)?;
    }
    for (key, value) in &wanted.options {
        config.set(key, value)?;
    }
    if wanted.watch || wanted.failover {
        config.set("log.level", "info")?;
    }
    if !wanted.shards.is_empty() {
        return shown(&shards::look(&config, wanted)?, wanted);
    }
    let settings = config.settings()?;
    // A primary that the configuration gives is looked at, whatever it says: there is nobody else to ask.
    let looks_at_one = settings.fixed.primary.is_some() && !wanted.watch && !wanted.failover;
    let sentinel = Sentinel::create(settings.clone(), (!looks_at_one).then(|| wanted.deadline()))?;
    if wanted.failover {
        let service = settings.service.as_deref().ok_or_else(|| {
            Error::new(
                Status::Config,
                "--force-failover needs the service in the URI: redis-sentinel://host:port/service",
            )
        })?;
        return live::failover(&sentinel, service, wanted);
    }
    if wanted.watch {
        return live::watch(&sentinel, &services(&sentinel, &settings, wanted)?, wanted);
    }
    shown(&look(&sentinel, &settings, wanted)?, wanted)
}

fn shown(report: &Report, wanted: &Wanted) -> Result<u8> {
    let text = if wanted.json { report.json() + "\n" } else { report.text() };
    Ok(terminal::status(terminal::print(&text), report.status()))
}

/// The service of the URI, or all of the deployment.
fn services(sentinel: &Arc<Sentinel>, settings: &Settings, wanted: &Wanted) -> Result<Vec<String>> {
    if let Some(service) = &settings.service {
        return Ok(vec![service.clone()]);
    }
    let all = sentinel.services(false, wanted.deadline())?;
    Ok(all.children(0).step_by(2).map(|id| text_of(&all, id)).collect())
}

fn look(sentinel: &Arc<Sentinel>, settings: &Settings, wanted: &Wanted) -> Result<Report> {
    let mut report = Report::default();
    let services = services(sentinel, settings, wanted)?;
    if services.is_empty() {
        let change = "Give the Sentinels a `sentinel monitor` line, or check that these are the right ones.";
        report.add(
            Severity::Fault,
            "no_service",
            "the Sentinels watch no service".into(),
            "There is nothing to connect to.",
            change,
        );
    }
    let mut addrs: BTreeSet<String> = settings.sentinel.addrs.iter().map(ToString::to_string).collect();
    for service in services {
        report.service = if settings.service.is_some() { service.clone() } else { finding::said(&service) };
        look_at(sentinel, settings, &service, wanted, &mut report, &mut addrs)?;
    }
    certificates::look(settings, &addrs, wanted, &mut report);
    Ok(report)
}

/// Looks at one service. The address of its primary, if one was found; `addrs` gets those of its Sentinels.
fn look_at(
    sentinel: &Arc<Sentinel>,
    settings: &Settings,
    service: &str,
    wanted: &Wanted,
    report: &mut Report,
    addrs: &mut BTreeSet<String>,
) -> Result<Option<String>> {
    // The topology tells of a failure as well, with the words of each Sentinel.
    let failed = sentinel.refresh(Some(service), wanted.deadline()).err();
    let topology = sentinel.topology(Some(service))?;
    addrs.extend(
        sentinels::maps(&topology, "sentinels").into_iter().map(|row| sentinels::field(&topology, row, "addr")),
    );
    if !settings.sentinel.addrs.is_empty() && !sentinels::look(sentinel, service, &topology, wanted, report) {
        return Ok(None);
    }
    // Of Sentinels that name several nothing is said of one.
    let is_split = !sentinels::field(&topology, 0, "split_view").is_empty();
    let announced = || match &settings.fixed.primary {
        None if is_split => None,
        None => sentinels::announced(sentinel, service, wanted),
        given => given.clone(),
    };
    let failed = failed.map(|error| nodes::Undiscovered { error, announced: announced() });
    nodes::look(settings, &topology, failed.as_ref(), wanted, report);
    let primary = sentinels::field(&topology, 0, "primary");
    Ok((failed.is_none() && !primary.is_empty()).then_some(primary))
}
