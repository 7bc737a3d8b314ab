//! What stands in the place of TLS where it is not built: types without values, so that nothing of it is left in the code.
//!
//! Guarantees: no connection can be made with it; the configuration refuses `tls` before anybody asks for one.

use std::io::{self, IoSlice};
use std::sync::Arc;

use crate::config::{Endpoint, TlsSettings};
use crate::error::Result;

/// See tls/channel.rs.
#[derive(Debug)]
pub enum Tls {}

/// See tls/channel.rs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// There is no third.
    Closed,
    /// Some.
    Part,
    /// All.
    Full,
}

/// See tls/connector.rs.
#[derive(Debug, PartialEq, Eq)]
pub enum Connector {}

impl Connector {
    /// None: no settings with TLS are accepted in this build.
    pub fn of(_settings: &TlsSettings) -> Option<Arc<Self>> {
        None
    }

    /// Never called.
    pub fn begin(&self, _endpoint: &Endpoint) -> Result<Tls> {
        match *self {}
    }

    /// Never called.
    pub fn kept(&self) -> Option<(u64, String)> {
        match *self {}
    }

    /// Nothing to check.
    pub fn check(_settings: &TlsSettings) -> Result<Option<Arc<Self>>> {
        Ok(None)
    }
}

/// There is none.
pub fn client_certificate(_settings: &TlsSettings) -> Result<Option<Vec<u8>>> {
    Ok(None)
}

#[allow(missing_docs)]
impl Tls {
    pub fn advance(
        &self,
        _recv: impl FnMut(&mut [u8]) -> io::Result<usize>,
        _send: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        match *self {}
    }

    pub fn put(&self, _parts: &[IoSlice<'_>], _send: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        match *self {}
    }

    pub fn fill(
        &self,
        _cipher: &mut Vec<u8>,
        _recv: impl FnOnce(&mut [u8]) -> io::Result<usize>,
        _send: impl FnMut(&[u8]) -> io::Result<usize>,
        _sink: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Got> {
        match *self {}
    }

    pub fn look(
        &self,
        _recv: impl FnMut(&mut [u8]) -> io::Result<usize>,
        _send: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> Option<io::Result<Option<u8>>> {
        match *self {}
    }

    pub fn end(&self, _send: impl FnOnce(&[u8]) -> io::Result<usize>) {
        match *self {}
    }

    pub fn is_ahead(&self) -> bool {
        match *self {}
    }

    pub fn has_unsent(&self) -> bool {
        match *self {}
    }

    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        match *self {}
    }

    pub fn unfinished(&self) -> String {
        match *self {}
    }
}
