//! The TLS settings of one kind of connections, ready for use: certificates and keys that were read, and the sessions to resume.
//!
//! Guarantees: connections with the same settings share one connector, so that a session that one of them has made is resumed by the next;
//! files are read anew when they have changed, and if what they hold then is no use, the last good state stays; a forked child makes its
//! own. Leaves to others: the connection (channel).

use std::sync::{Arc, Weak};

use rustls::client::{Resumption, UnbufferedClientConnection, WebPkiServerVerifier};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, InconsistentKeys, version};

use super::channel::Tls;
use super::explain::Facts;
use super::files::{self, Stamp};
use super::verify::{Checked, Unchecked};
use crate::config::{Endpoint, TlsSettings, TlsVerify, TlsVersion};
use crate::error::{Error, Result, Status};
use crate::sys::fork::PerProcess;
use crate::sys::rank::{Rank, may_wait};
use crate::sys::sync::Lock;

/// How many servers' sessions are kept to be resumed.
const SESSIONS: usize = 256;

/// The connectors that are in use.
static KNOWN: PerProcess<Registry> = PerProcess::new();

struct Registry {
    connectors: Lock<Vec<Weak<Connector>>>,
}

/// See the first lines of this file.
pub struct Connector {
    settings: TlsSettings,
    loaded: Lock<Option<Loaded>>,
}

#[derive(Clone)]
struct Loaded {
    config: Arc<ClientConfig>,
    stamps: Vec<Stamp>,
    /// How often changed files were no use, and what was wrong with them the last time.
    kept: (u64, String),
}

impl Connector {
    /// The one for these settings; `None` where they mean no TLS.
    #[inline(never)]
    pub fn of(settings: &TlsSettings) -> Option<Arc<Self>> {
        if !settings.on {
            return None;
        }
        let known = KNOWN.get_or_make(|| Registry { connectors: Lock::new(Rank::Connectors, Vec::new()) });
        let mut connectors = known.connectors.lock();
        connectors.retain(|connector| connector.strong_count() > 0);
        let found = connectors.iter().filter_map(Weak::upgrade).find(|connector| connector.settings == *settings);
        Some(found.unwrap_or_else(|| {
            let made = Arc::new(Self { settings: settings.clone(), loaded: Lock::new(Rank::Certificates, None) });
            connectors.push(Arc::downgrade(&made));
            made
        }))
    }

    /// Whether the files and names of these settings are of use; to be asked before the first connection. What was read stays with the
    /// connector.
    #[inline(never)]
    pub fn check(settings: &TlsSettings) -> Result<Option<Arc<Self>>> {
        let Some(connector) = Self::of(settings) else { return Ok(None) };
        if let Some(name) = &settings.server_name {
            named(settings, name)?;
        }
        connector.config()?;
        Ok(Some(connector))
    }

    /// A new session with the server at this endpoint. Not inlined, as all that TLS needs: calls without it shall not pay with their stack.
    #[inline(never)]
    pub fn begin(&self, endpoint: &Endpoint) -> Result<Tls> {
        let host = match (&self.settings.server_name, endpoint) {
            (Some(name), _) => name,
            (None, Endpoint::Tcp { host, .. }) => host,
            (None, Endpoint::Unix(_)) => return Err(Error::new(Status::Tls, "there is no TLS over Unix sockets")),
        };
        let name = named(&self.settings, host)?;
        let facts = Facts::new(&self.settings, host.clone());
        let session = UnbufferedClientConnection::new(self.config()?, name)
            .map_err(|error| Error::new(Status::Tls, facts.explain(&error)))?;
        Ok(Tls::new(session, facts))
    }

    /// What was read of the files, anew if they have changed.
    #[inline(never)]
    fn config(&self) -> Result<Arc<ClientConfig>> {
        let stamps = files::stamps(&self.settings);
        let known = self.loaded.lock().clone();
        if let Some(loaded) = known.as_ref().filter(|loaded| loaded.stamps == stamps) {
            return Ok(Arc::clone(&loaded.config));
        }
        may_wait("the files of certificates and keys");
        let (config, kept) = match (load(&self.settings), known) {
            (Ok(config), known) => (Arc::new(config), known.map(|loaded| loaded.kept).unwrap_or_default()),
            // A pair is replaced one file after the other: the next change is looked at again.
            (Err(error), Some(last_good)) => (last_good.config, (last_good.kept.0 + 1, error.message().to_owned())),
            (Err(error), None) => return Err(error),
        };
        *self.loaded.lock() = Some(Loaded { config: Arc::clone(&config), stamps, kept });
        Ok(config)
    }

    /// How often changed files were no use, so that the last good state stayed, and what was wrong with them the last time.
    pub fn kept(&self) -> Option<(u64, String)> {
        self.loaded.lock().as_ref().map(|loaded| loaded.kept.clone()).filter(|(times, _)| *times > 0)
    }
}

impl PartialEq for Connector {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings
    }
}

impl Eq for Connector {}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connector({:?})", self.settings)
    }
}

fn named(settings: &TlsSettings, host: &str) -> Result<ServerName<'static>> {
    let name = ServerName::try_from(host.to_owned());
    name.map_err(|_| {
        let option = format!("\"{}.server_name\"", settings.prefix);
        files::bad(&option, format_args!("{host:?} is no name that a certificate can be for"))
    })
}

fn load(settings: &TlsSettings) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let versions: &[_] = match settings.min_version {
        TlsVersion::Tls12 => &[&version::TLS13, &version::TLS12],
        TlsVersion::Tls13 => &[&version::TLS13],
    };
    let broken = |error: &dyn std::fmt::Display| Error::new(Status::Internal, format!("rustls: {error}"));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions);
    let builder = builder.map_err(|error| broken(&error))?.dangerous();
    let builder = if settings.verify == TlsVerify::None {
        builder.with_custom_certificate_verifier(Arc::new(Unchecked(provider)))
    } else {
        let roots = Arc::new(files::roots(settings)?);
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build();
        let inner = inner.map_err(|error| broken(&error))?;
        let names = settings.verify == TlsVerify::Full;
        builder.with_custom_certificate_verifier(Arc::new(Checked { inner, roots, provider, names }))
    };
    let mut config = match files::pair(settings)? {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| unfit(settings, &error))?,
    };
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(config)
}

fn unfit(settings: &TlsSettings, error: &rustls::Error) -> Error {
    let option = format!("\"{}.key\"", settings.prefix);
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            files::bad(&option, format_args!("it is not the key of the certificate in \"{}.cert\"", settings.prefix))
        }
        other => files::bad(&option, format_args!("it cannot be used: {other}")),
    }
}
