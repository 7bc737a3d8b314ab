//! Configuration: options by name or by URI, checked as a whole before anything is opened. No I/O.
//!
//! Guarantees: an unknown option or a bad value is refused where it is set, by name; secrets are never shown; a [`Config`] is only
//! read once it was handed over, so that two handles made from it never influence each other.
//! Leaves to others: acting on the settings.

mod endpoint;
mod list;
mod map;
mod nearest;
mod secret;
mod settings;
mod table;
#[cfg(test)]
mod tests;
mod uri;
mod value;

pub use endpoint::{AddressFault, DATA_PORT, Endpoint, SENTINEL_PORT};
pub use map::AddressMap;
pub use nearest::nearest;
pub use secret::{Credentials, Secret};
pub use settings::{
    ClientSettings, FailoverSettings, Fallback, FixedSettings, ForkMode, LaneSettings, LogFormat, LogLevel,
    LogSettings, MonitorMode, MonitorSettings, Overflow, Pick, PoolSettings, ProbePolicy, Protocol, ReplicaSettings,
    Replicas, RetrySettings, SentinelSettings, Settings, ShardHash, ShardSettings, ShardTags, SubSettings, TcpSettings,
    TlsSettings, TlsVerify, TlsVersion, WriteSettings,
};
use table::{OPTIONS, Opt, OptionKind};

use crate::error::{Error, Result, Status};
use crate::sort::SortedMap;

/// Options as they are set, one after the other; later ones win.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// What was set, by key. All texts are kept in the way of secrets: some are, and one store is simpler than two.
    given: SortedMap<&'static str, Secret>,
}

/// One option, as `vigie_config_describe` gives it.
#[derive(Debug, Clone)]
pub struct Described {
    /// Its name.
    pub key: &'static str,
    /// What it is set to (secrets as `***`), or its default.
    pub value: String,
    /// What it is when it is not set.
    pub default: &'static str,
    /// uri, text, secret, bool, integer, number, duration, word, addresses or map.
    pub type_name: &'static str,
    /// What it may be; "" where the text says it.
    pub range: String,
    /// What it does.
    pub text: &'static str,
    /// The version that brought it.
    pub since: &'static str,
    /// Whether `vigie_sentinel_configure` can change it.
    pub dynamic: bool,
    /// Whether a client may override it.
    pub per_client: bool,
}

impl Config {
    /// Everything at its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets one option. After an error the configuration is as it was.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let option = table::find(key)?;
        match option.kind {
            OptionKind::Uri => self.set_uri(value),
            OptionKind::Sentinels(_) => self.set_sentinels(option, value),
            _ => {
                option.put(&mut Settings::default(), value)?;
                self.keep(option.key, value, option.is_secret());
                Ok(())
            }
        }
    }

    fn keep(&mut self, key: &'static str, value: &str, is_secret: bool) {
        // What is no secret must not be taken for one where servers repeat it.
        let value = value.to_owned();
        let value = if is_secret { Secret::new(value) } else { Secret::open(value) };
        self.given.insert(key, value);
    }

    fn set_uri(&mut self, value: &str) -> Result<()> {
        let mut draft = self.clone();
        let parts = uri::take_apart(value)?;
        // A URI replaces what was set before, and with it the other way to find the primary.
        for key in uri::replaced_by(&parts) {
            draft.given.remove(key);
        }
        for part in parts {
            draft.set(&part.key, part.value.expose()).map_err(|error| match part.may_show {
                true => error.in_context("option \"uri\""),
                false => Error::new(
                    error.status(),
                    "option \"uri\": a part of the query behind a password is no option with a good value; it is not \
                     shown because it may be a piece of the password (inside a value write '&' as %26)",
                ),
            })?;
        }
        *self = draft;
        Ok(())
    }

    /// Credentials inside the list are set as what they are, so that the list itself holds nothing secret.
    fn set_sentinels(&mut self, option: &Opt, value: &str) -> Result<()> {
        let list = list::sentinels(value).map_err(|fault| fault.named(option.key))?;
        let addrs: Vec<_> = list.addrs.iter().map(ToString::to_string).collect();
        self.keep(option.key, &addrs.join(","), false);
        if list.tls {
            self.keep("sentinel.tls", "on", false);
        }
        if let Some(auth) = list.auth {
            self.keep("sentinel.username", auth.username.as_deref().unwrap_or_default(), false);
            self.keep("sentinel.password", auth.password.as_ref().map_or("", Secret::expose), true);
        }
        Ok(())
    }

    /// The settings of a sentinel handle, checked as a whole.
    pub fn settings(&self) -> Result<Settings> {
        let mut settings = Settings::default();
        for (key, value) in self.given.iter() {
            table::find(key)?.put(&mut settings, value.expose())?;
        }
        settings.settle()?;
        Ok(settings)
    }

    /// The settings of an open handle with what is set here on top. What cannot be changed has to be as it is.
    pub fn change(&self, base: &Settings) -> Result<Settings> {
        let mut next = base.clone();
        for (key, value) in self.given.iter() {
            let option = table::find(key)?;
            if option.dynamic {
                option.put(&mut next, value.expose())?;
                continue;
            }
            let mut same = base.clone();
            option.put(&mut same, value.expose())?;
            same.settle()?;
            if same != *base {
                return Err(settings::is_fixed(key));
            }
        }
        next.settle()?;
        Ok(next)
    }

    /// The settings of one client: those of its sentinel handle with what is set here on top.
    pub fn overlay(&self, base: &ClientSettings) -> Result<ClientSettings> {
        let mut settings = Settings { client: base.clone(), ..Settings::default() };
        for (key, value) in self.given.iter() {
            let option = table::find(key)?;
            if !option.per_client {
                let text = format!("option {key:?} belongs to the sentinel handle: a client cannot override it");
                return Err(Error::new(Status::Config, text));
            }
            option.put(&mut settings, value.expose())?;
        }
        settings.client.settle()?;
        Ok(settings.client)
    }

    /// Every option in the order of CONFIGURATION.md, with its present value.
    pub fn describe(&self) -> Vec<Described> {
        OPTIONS.iter().map(|option| self.describe_one(option)).collect()
    }

    fn describe_one(&self, option: &Opt) -> Described {
        let value = match self.given.get(option.key) {
            Some(value) if option.is_secret() && !value.is_empty() => "***",
            Some(value) => value.expose(),
            None => option.default,
        };
        Described {
            key: option.key,
            value: value.to_owned(),
            default: option.default,
            type_name: option.type_name(),
            range: option.range(),
            text: option.text,
            since: option.since,
            dynamic: option.dynamic,
            per_client: option.per_client,
        }
    }
}
