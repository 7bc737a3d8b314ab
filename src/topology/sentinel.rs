//! The sentinel handle: its settings, its Sentinels, and the services that were asked for.
//!
//! Guarantees: one [`Service`] per name; a service that nobody uses any more is kept, up to a limit. Leaves to others:
//! one service (service), the operations of the handle (handle), and its counting and fork check (ffi).

use std::fmt;
use std::sync::Arc;

use super::service::{Driver, Service};
use super::shared::Shared;
use crate::config::Settings;
use crate::log::Log;
use crate::script::Scripts;
use crate::sort::SortedMap;
use crate::sys::rank::Rank;
use crate::sys::sync::{Lock, Locked};

/// How many services are kept; beyond that, the unused one that was asked for longest ago is removed.
const FORGOTTEN: usize = 1000;

/// A deployment: its Sentinels and the services that they watch.
pub struct Sentinel {
    shared: Arc<Shared>,
    services: Lock<SortedMap<String, Arc<Service>>>,
    /// Held while the settings are changed.
    configuring: Lock<()>,
    /// The scripts that its clients have sent.
    scripts: Scripts,
}

impl Sentinel {
    pub(super) fn new(shared: Arc<Shared>) -> Arc<Self> {
        let services = Lock::new(Rank::Services, SortedMap::new());
        let configuring = Lock::new(Rank::Configuring, ());
        Arc::new(Self { shared, services, configuring, scripts: Scripts::default() })
    }

    /// Locks the settings against other changes until the guard is dropped.
    pub(super) fn configuring(&self) -> Locked<'_, ()> {
        self.configuring.lock()
    }

    /// Whether no Sentinel is heard.
    pub fn is_degraded(&self) -> bool {
        self.shared.is_degraded()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The settings as they are now.
    pub fn settings(&self) -> Arc<Settings> {
        self.shared.settings()
    }

    /// The log of the handle.
    pub fn log(&self) -> &Arc<Log> {
        self.shared.log()
    }

    /// Grows with each change of the settings.
    pub fn config_version(&self) -> u64 {
        self.shared.config_version()
    }

    /// The service of this name. Unused services are kept up to a limit.
    pub fn service(self: &Arc<Self>, name: &str) -> Arc<Service> {
        let mut services = self.services.lock();
        if let Some(service) = services.get(name) {
            return Arc::clone(service);
        }
        if services.len() >= FORGOTTEN {
            let gone = services.iter().filter(|(_, one)| Arc::strong_count(one) == 1 && one.is_forgotten());
            if let Some(oldest) = gone.min_by_key(|(_, one)| one.load().asked).map(|(name, _)| name.clone()) {
                services.remove(&oldest);
            }
        }
        let own: Arc<dyn Driver> = Arc::<Self>::clone(self);
        let service = Service::new(name, Arc::clone(&self.shared), Arc::downgrade(&own));
        services.insert(name.to_owned(), Arc::clone(&service));
        service
    }

    /// Drops a service that has no users, and of which no Sentinel has ever named a primary: its name may be mistyped. The
    /// caller has one reference.
    pub(super) fn drop_unknown(&self, service: &Arc<Service>) {
        let mut services = self.services.lock();
        // Nobody else can take it from the list meanwhile.
        if service.load().primary_announced.is_none() && Arc::strong_count(service) <= 2 {
            services.remove(service.name());
        }
    }

    /// The service of this name, if it was asked for before.
    pub(super) fn known_service(&self, name: &str) -> Option<Arc<Service>> {
        self.services.lock().get(name).cloned()
    }

    /// The scripts that its clients have sent.
    pub(crate) fn scripts(&self) -> &Scripts {
        &self.scripts
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    pub(super) fn all(&self) -> Vec<Arc<Service>> {
        self.services.lock().values().cloned().collect()
    }
}

impl fmt::Debug for Sentinel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}
