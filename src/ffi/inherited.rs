//! Values of handles that work in a forked child: those of the Sentinels, of clients, and of clients over shards.
//!
//! Guarantees: in a child the value is made anew once, at the first use of any handle that needs it, and the parent's is leaked: no lock of
//! it is touched, and nothing of it is dropped. Clients of one sentinel handle share one value of that in the child as well. Leaves to
//! others: what a new value takes over (client, topology, shard), and when it is asked for (handle).

use std::ops::Deref;
use std::sync::Arc;

use super::handle::forked;
use crate::client::Client;
use crate::config::ForkMode;
use crate::error::{Error, Result, Status};
use crate::shard::Shards;
use crate::sys::fork::Inherited;
use crate::topology::Sentinel;

/// What else a program can do.
const OR: &str = ", or set the option \"fork\" to reopen";

/// The value of a sentinel handle, which its clients hold as well.
#[derive(Clone)]
pub struct OpenSentinel(Arc<Inherited<Sentinel>>);

/// The value of a client of either kind.
pub struct Open<T: Reopens> {
    value: Inherited<T>,
    /// The handle that it was made from.
    sentinel: Option<OpenSentinel>,
}

/// What a client is made anew from.
pub trait Reopens: Sized {
    /// Why it is not made anew in a child, as the end of a message.
    fn stays(&self) -> Option<&'static str>;

    /// Makes it anew from the parent's.
    fn reopened(&self, sentinel: Option<&Arc<Sentinel>>) -> Result<Arc<Self>>;

    /// It is in use.
    fn began(&self) {}
}

impl Reopens for Client {
    fn stays(&self) -> Option<&'static str> {
        match (self.is_session(), self.fork_mode()) {
            (true, _) => Some(": sessions are not carried over"),
            (false, ForkMode::Error) => Some(OR),
            (false, ForkMode::Reopen) => None,
        }
    }

    fn reopened(&self, sentinel: Option<&Arc<Sentinel>>) -> Result<Arc<Self>> {
        Client::reopened(self, sentinel.ok_or_else(lost)?)
    }
}

impl Reopens for Shards {
    fn stays(&self) -> Option<&'static str> {
        (self.fork_mode() == ForkMode::Error).then_some(OR)
    }

    fn reopened(&self, sentinel: Option<&Arc<Sentinel>>) -> Result<Arc<Self>> {
        Shards::reopened(self, sentinel)
    }

    fn began(&self) {
        Shards::began(self);
    }
}

impl OpenSentinel {
    pub(super) fn new(sentinel: Arc<Sentinel>) -> Self {
        Self(Arc::new(Inherited::new(sentinel)))
    }

    /// In a forked child, as the option says. The option is never changed, so the parent's value tells it.
    pub(super) fn reopen(&self, name: &str) -> Result<()> {
        self.here(|parents| match parents.settings().client.fork {
            ForkMode::Reopen => Ok(()),
            ForkMode::Error => Err(forked(name, OR)),
        })
        .map(drop)
    }

    /// The value of this process, made anew if it has none yet.
    fn here(&self, check: impl FnOnce(&Sentinel) -> Result<()>) -> Result<&Arc<Sentinel>> {
        let is_first = self.0.renew(|parents| check(parents).and_then(|()| parents.reopened()))?;
        let sentinel = self.0.here().ok_or_else(lost)?;
        if is_first {
            sentinel.began();
        }
        Ok(sentinel)
    }
}

impl<T: Reopens> Open<T> {
    pub(super) fn new(value: Arc<T>, sentinel: Option<&OpenSentinel>) -> Self {
        Self { value: Inherited::new(value), sentinel: sentinel.cloned() }
    }

    /// In a forked child, as the option says.
    pub(super) fn reopen(&self, name: &str) -> Result<()> {
        let is_first = self.value.renew(|parents| {
            if let Some(why) = parents.stays() {
                return Err(forked(name, why));
            }
            let sentinel = self.sentinel.as_ref().map(|sentinel| sentinel.here(|_| Ok(()))).transpose()?;
            parents.reopened(sentinel)
        })?;
        if is_first {
            self.value.here().iter().for_each(|value| value.began());
        }
        Ok(())
    }
}

impl Deref for OpenSentinel {
    type Target = Arc<Sentinel>;

    #[inline(always)]
    fn deref(&self) -> &Arc<Sentinel> {
        // SAFETY: values are reached through `handle::in_use`, which goes on only when this process has made them.
        unsafe { self.0.get() }
    }
}

impl<T: Reopens> Deref for Open<T> {
    type Target = Arc<T>;

    #[inline(always)]
    fn deref(&self) -> &Arc<T> {
        // SAFETY: values are reached through `handle::in_use`, which goes on only when this process has made them.
        unsafe { self.value.get() }
    }
}

/// A client without the handle that it was made from.
#[cold]
fn lost() -> Error {
    Error::new(Status::Internal, "a client in a forked child without its sentinel handle")
}
