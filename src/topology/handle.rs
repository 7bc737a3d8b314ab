//! The operations of a sentinel handle: create, watch, configure, query, refresh, close.
//!
//! Guarantees: creating a handle opens no connection, unless it is to wait for a Sentinel; the monitor watches its
//! Sentinels from the first use on. Leaves to others: the services (sentinel, service), and the counting of users
//! (ffi).

use std::sync::{Arc, Weak};

use super::finish::Discovery;
use super::fixed;
use super::monitor;
use super::reach;
use super::running;
use super::sentinel::Sentinel;
use super::service::{Driver, Service, Wanted};
use super::shared::{Child, Shared, closed};
use super::source::Source;
use super::table::{self, ServiceRow};
use super::toll::ServiceFigures;
use super::watch::WATCHABLE;
use crate::config::{Config, Settings};
use crate::error::{Error, Result, Status};
use crate::log::lines;
use crate::meter::ClientFigures;
use crate::net::Connector;
use crate::queue::{Queue, kind};
use crate::resp::{Reply, ReplyBuilder};
use crate::sys::descriptor::Kept;
use crate::time::Deadline;

impl Sentinel {
    /// Creates a handle, if the files of its TLS settings are of use; with `wait`, only returns it once a Sentinel has answered, or the
    /// primary if there are no Sentinels.
    pub fn create(settings: Settings, wait: Option<Deadline>) -> Result<Arc<Self>> {
        let log = keep_log(&settings)?;
        // Kept until the handle has them, so that files are read once.
        let _read = read_certificates(&settings)?;
        let shared = Shared::new(settings, log);
        begin_log(&shared);
        if let Some(deadline) = wait {
            match shared.source() {
                Source::Sentinels => reach::reach_any(&shared.settings(), shared.list(), deadline)?,
                Source::Fixed => fixed::reach(&shared.settings(), deadline)?,
            }
        }
        Ok(Self::new(shared))
    }

    /// In a forked child: the parent's handle made anew, with its newest settings, from what is read without a lock. Nothing is
    /// connected, and nothing logged before [`Sentinel::began`].
    pub fn reopened(&self) -> Result<Arc<Self>> {
        let settings = Settings::clone(&self.settings());
        let _read = read_certificates(&settings)?;
        let made = Self::new(Shared::new(settings, self.log().inherited()));
        if self.is_closed() {
            made.close();
        }
        Ok(made)
    }

    /// The handle of a forked child is in use.
    pub fn began(&self) {
        begin_log(self.shared());
    }

    /// Sends events of these kinds to the queue from now on, with this token. A queue has one watch: a new one replaces
    /// it, and 0 ends it.
    pub fn watch(self: &Arc<Self>, kinds: u32, queue: &Arc<Queue>, token: u64) -> Result<()> {
        match kinds & !(WATCHABLE | kind::CONNECTION | kind::LOG) {
            0 if self.is_closed() => Err(closed()),
            0 => {
                self.shared().watch(queue, kinds, token);
                monitor::register(self);
                Ok(())
            }
            unknown => Err(Error::new(
                Status::InvalidArg,
                format!(
                    "event_kinds: {unknown:#x} cannot be watched; VIGIE_EVENT_TOPOLOGY, VIGIE_EVENT_NOTICE, VIGIE_EVENT_FENCE, \
                 VIGIE_EVENT_DEGRADED, VIGIE_EVENT_REPLICA and VIGIE_EVENT_SENTINEL can (all: VIGIE_EVENT_ALL), VIGIE_EVENT_CONNECTION and VIGIE_EVENT_LOG"
                ),
            )),
        }
    }

    /// Changes an option that may be changed while the handle is open.
    pub fn configure(&self, key: &str, value: &str) -> Result<()> {
        self.change(key == "log.fd", &|before| before.with(key, value))
    }

    /// Changes all options that are set here at the same moment; those that cannot be changed have to be as they are.
    pub fn configure_all(&self, config: &Config) -> Result<()> {
        self.change(false, &|before| config.change(before))
    }

    /// If `log.fd` is set, its number may stand for another file than before.
    fn change(&self, sets_log_fd: bool, next: &dyn Fn(&Settings) -> Result<Settings>) -> Result<()> {
        if self.is_closed() {
            return Err(closed());
        }
        let one_at_a_time = self.configuring();
        let before = self.settings();
        let settings = next(&before)?;
        let moves_log = sets_log_fd || settings.log.fd != before.log.fd;
        let log = if moves_log { keep_log(&settings)? } else { None };
        let about_log = moves_log || settings.log != before.log;
        let log_before = self.log().configure(&settings.log, log);
        let remapped = settings.client.address_map != before.client.address_map;
        let map = settings.client.address_map.clone();
        self.shared().set_settings(settings);
        if remapped {
            self.all().iter().for_each(|service| service.remap(&map));
        }
        drop(one_at_a_time);
        let now = self.settings();
        for (of, is_changed) in
            [("nodes", now.client.auth != before.client.auth), ("Sentinels", now.sentinel.auth != before.sentinel.auth)]
        {
            if is_changed {
                self.log().write(lines::CREDENTIALS, &|out| {
                    out.text("of").text(of);
                });
            }
        }
        // Connections that are idle are replaced now, and not with the next call.
        self.children().iter().for_each(|child| child.changed());
        // After that, so that no attempt with the former options is remembered.
        self.all().iter().for_each(|service| service.reconfigured());
        // Subscriptions that wait after a refusal try again, now that no pause and no former discovery is in their way.
        self.children().iter().for_each(|child| child.changed());
        if about_log {
            begin_log(self.shared());
        }
        log_before.wait();
        Ok(())
    }

    /// What is known, without asking anybody: a MAP for one service, or a MAP of such MAPs for all services that were
    /// asked for.
    pub fn topology(&self, service: Option<&str>) -> Result<Reply> {
        if self.is_closed() {
            return Err(closed());
        }
        let mut out = ReplyBuilder::new();
        match service {
            Some(name) => {
                let unknown = || Service::new(name, Arc::clone(self.shared()), Weak::<Self>::new());
                let service = self.known_service(name).unwrap_or_else(unknown);
                describe(&mut out, &service);
            }
            None => {
                out.map();
                for service in self.all() {
                    out.text(service.name());
                    describe(&mut out, &service);
                }
                out.end();
            }
        }
        out.try_finish()
    }

    /// Asks the Sentinels now, then answers as [`Sentinel::topology`]. For all services, including that of the
    /// settings: an error only if none could be found.
    pub fn refresh(self: &Arc<Self>, service: Option<&str>, deadline: Deadline) -> Result<Reply> {
        if let Some(name) = service {
            self.service(name).verify(deadline)?;
            return self.topology(Some(name));
        }
        if let Some(name) = &self.settings().service {
            self.service(name);
        }
        let outcomes: Vec<_> = self.all().iter().map(|service| service.verify(deadline)).collect();
        let found = outcomes.iter().any(Result::is_ok);
        match outcomes.into_iter().find_map(Result::err) {
            Some(error) if !found => Err(error),
            _ => self.topology(None),
        }
    }

    /// Notes a client of this handle.
    pub fn adopt(&self, service: &str, child: Weak<dyn Child>) {
        self.shared().adopt(service, child);
    }

    /// The clients of this handle.
    pub fn children(&self) -> Vec<Arc<dyn Child>> {
        self.shared().children()
    }

    /// Keeps what a client of this handle has counted, because it is gone.
    pub fn bury(&self, figures: ClientFigures) {
        self.shared().bury(figures);
    }

    /// What was counted since the handle was made.
    pub fn figures(&self) -> Result<HandleFigures> {
        if self.is_closed() {
            return Err(closed());
        }
        Ok(HandleFigures {
            services: self.all().iter().map(|service| service.figures()).collect(),
            clients: self.shared().client_figures(),
            sentinels: self.shared().list().speakers().len() as u64,
            sentinels_heard: self.shared().listening(),
            scripts: self.scripts().figures(),
            is_degraded: self.is_degraded(),
        })
    }

    /// Closes the handle: callers that wait for a discovery get CLOSED.
    pub fn close(&self) {
        self.shared().close();
        monitor::recheck();
        self.all().iter().for_each(|service| service.wake());
        self.log().end().wait();
    }
}

/// What a handle has counted, at one moment.
#[derive(Debug, Clone, Default)]
pub struct HandleFigures {
    /// Its services.
    pub services: Vec<ServiceFigures>,
    /// Its clients, by service and target.
    pub clients: Vec<ClientFigures>,
    /// How many Sentinels are known.
    pub sentinels: u64,
    /// How many of them are heard.
    pub sentinels_heard: u64,
    /// How many scripts are kept, and how many bytes they have.
    pub scripts: (usize, usize),
    /// Whether none of them is heard.
    pub is_degraded: bool,
}

impl Driver for Sentinel {
    fn watch(self: Arc<Self>) {
        monitor::register(&self);
    }

    fn run(self: Arc<Self>, wanted: Wanted) -> Result<()> {
        monitor::discover(&self, wanted).map_or(Ok(()), running::run_on_worker)
    }

    fn hurry(&self, wanted: Wanted) {
        monitor::hurry(wanted);
    }

    fn run_here(&self, service: &Arc<Service>, number: u64, until: Deadline) {
        running::run_alone(Discovery::new(Arc::clone(service), number), until);
    }

    fn recheck(&self) {
        monitor::recheck();
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // Here nobody waits for the last lines.
        let _ending = self.log().end();
        monitor::recheck();
    }
}

/// What the connections of a handle need of files.
fn read_certificates(settings: &Settings) -> Result<[Option<Arc<Connector>>; 2]> {
    Ok([Connector::check(&settings.client.tls)?, Connector::check(&settings.sentinel.tls)?])
}

/// A log says first whose it is.
fn begin_log(shared: &Shared) {
    shared.log().write(lines::BEGUN, &|out| {
        out.text("version").text(env!("CARGO_PKG_VERSION")).text("pid").int(std::process::id().into());
    });
}

/// A descriptor that nothing can be written to is refused at once, not found out at the first line.
fn keep_log(settings: &Settings) -> Result<Option<Kept>> {
    let kept = settings.log.fd.map(|fd| {
        Kept::of(fd).map_err(|error| {
            let text =
                format!("option \"log.fd\": {fd} is no descriptor of this process that is open for writing ({error})");
            Error::new(Status::Config, text)
        })
    });
    kept.transpose()
}

fn describe(out: &mut ReplyBuilder, service: &Service) {
    let (error, suspicion, split_view) = (service.last_error(), service.suspicion(), service.split_view());
    let (name, snapshot, deaf) = (service.name().to_owned(), service.shown(), service.shared.deaf());
    let (fenced, degraded, source) = (service.is_fenced(), service.shared.is_degraded(), service.source());
    table::service(out, &ServiceRow { name, snapshot, error, suspicion, split_view, fenced, degraded, deaf, source });
}
