//! Addresses and lists of them: the values of `sentinel.addrs`, `primary.addr`, `replica.preferred`, `address.map` and the like.
//!
//! Guarantees: an address given twice is kept once; a bad entry is named by number and text, its password masked; no message holds
//! a password, not even one with an unescaped comma or `@`. Leaves to others: the form of one address (endpoint) and of one URI (uri).

use std::borrow::Cow;

use super::endpoint::{AddressFault, Endpoint, SENTINEL_PORT};
use super::map::AddressMap;
use super::secret::{Credentials, Secret};
use super::uri::{self, UriFault};
use super::value::shown;
use crate::error::{Error, Status};

/// What `sentinel.addrs` holds: the addresses, the credentials if entries of the form `redis://` carry some, and whether entries of the
/// form `rediss://` ask for TLS.
#[derive(Debug, PartialEq)]
pub(super) struct SentinelList {
    pub(super) addrs: Vec<Endpoint>,
    pub(super) auth: Option<Credentials>,
    pub(super) tls: bool,
}

/// Why a list is refused: the status and a sentence without the option's name.
#[derive(Debug, PartialEq)]
pub(super) struct ListFault(pub(super) Status, pub(super) String);

impl ListFault {
    pub(super) fn named(self, key: &str) -> Error {
        Error::new(self.0, format!("option {key:?}: {}", self.1))
    }

    fn entry(number: usize, entry: &str, cause: impl std::fmt::Display) -> Self {
        Self(Status::Config, format!("entry {number} ({}): {cause}", shown(entry)))
    }
}

/// Reads `sentinel.addrs`.
pub(super) fn sentinels(text: &str) -> Result<SentinelList, ListFault> {
    let mut list = SentinelList { addrs: Vec::new(), auth: None, tls: false };
    let is_tls = |entry: &str| entry.starts_with("rediss://");
    for (number, entry) in entries(text)? {
        if list.tls && entry.starts_with("redis://") {
            let cause = "redis:// means no TLS, and an earlier entry begins with rediss://; all Sentinels share one";
            return Err(ListFault::entry(number, &no_uri(entry), cause));
        }
        if is_tls(entry) && !list.tls && !list.addrs.is_empty() {
            let cause = "rediss:// means TLS, and an earlier entry has none; all Sentinels share one";
            return Err(ListFault::entry(number, &no_uri(entry), cause));
        }
        list.tls |= is_tls(entry);
        let (address, auth) = match entry.split_once("://") {
            Some((scheme, rest)) => sentinel_uri(number, scheme, rest)?,
            None => (plain(entry).map_err(|fault| ListFault::entry(number, entry, fault))?, None),
        };
        if let Some(auth) = auth {
            match &list.auth {
                Some(known) if *known != auth => {
                    let cause = "its user or password differs from that of an earlier entry; all Sentinels share one";
                    return Err(ListFault::entry(number, &format!("redis://***@{address}"), cause));
                }
                _ => list.auth = Some(auth),
            }
        }
        if !list.addrs.contains(&address) {
            list.addrs.push(address);
        }
    }
    Ok(list)
}

/// Reads a list of data nodes' addresses, as Sentinels announce them.
pub(super) fn addresses(text: &str, default_port: u16) -> Result<Vec<Endpoint>, ListFault> {
    let mut list = Vec::new();
    if text.is_empty() {
        return Ok(list);
    }
    for (number, entry) in entries(text)? {
        let address =
            Endpoint::read_tcp(entry, default_port).map_err(|fault| ListFault::entry(number, &no_uri(entry), fault))?;
        if !list.contains(&address) {
            list.push(address);
        }
    }
    Ok(list)
}

/// Reads the address of one data node; empty is none.
pub(super) fn address(text: &str, default_port: u16) -> Result<Option<Endpoint>, ListFault> {
    if text.is_empty() {
        return Ok(None);
    }
    match entries(text)?.as_slice() {
        [(number, entry)] => {
            let read = Endpoint::read(entry, default_port);
            read.map(Some).map_err(|fault| ListFault::entry(*number, &no_uri(entry), fault))
        }
        _ => Err(ListFault(Status::Config, "it is one address, without a comma".into())),
    }
}

/// Reads `address.map`.
pub(super) fn map(text: &str) -> Result<AddressMap, ListFault> {
    let mut map = AddressMap::default();
    if text.is_empty() {
        return Ok(map);
    }
    for (number, entry) in entries(text)? {
        map.add(entry).map_err(|fault| ListFault::entry(number, &no_uri(entry), fault))?;
    }
    Ok(map)
}

/// The entries, numbered from 1. A possible piece of a torn password ends the parsing before anything is quoted.
fn entries(text: &str) -> Result<Vec<(usize, &str)>, ListFault> {
    let entries: Vec<_> = text.split(',').map(|entry| entry.trim_matches(' ')).zip(1..).map(|(e, n)| (n, e)).collect();
    for (number, entry) in &entries {
        if entry.contains('@') && !entry.starts_with("redis://") && !entry.starts_with("rediss://") {
            let cause = "has an '@' but no redis:// in front; in a password a comma is written %2C";
            return Err(ListFault(Status::Config, format!("entry {number} {cause}")));
        }
    }
    match entries.iter().find(|(_, entry)| entry.is_empty()) {
        Some(_) if entries.len() == 1 => Err(ListFault(Status::Config, "the list is empty".into())),
        Some((number, _)) => Err(ListFault(Status::Config, format!("entry {number} is empty (a comma too many?)"))),
        None => Ok(entries),
    }
}

/// The entry without what follows a scheme: where no URI is expected it may contain a password.
fn no_uri(entry: &str) -> Cow<'_, str> {
    match entry.split_once("://") {
        Some((scheme, _)) => Cow::Owned(format!("{scheme}://***")),
        None => Cow::Borrowed(entry),
    }
}

fn plain(entry: &str) -> Result<Endpoint, AddressFault> {
    Endpoint::read_tcp(entry, SENTINEL_PORT)
}

/// An entry such as `redis://:password@host:26379`.
fn sentinel_uri(number: usize, scheme: &str, rest: &str) -> Result<(Endpoint, Option<Credentials>), ListFault> {
    let (userinfo, host) = match rest.rsplit_once('@') {
        Some((userinfo, host)) => (Some(userinfo), host),
        None => (None, rest),
    };
    let name = match userinfo {
        Some(_) => format!("{scheme}://***@{host}"),
        // Without an '@' what follows the colon may be a password whose host was forgotten.
        None => format!("{scheme}://{}", uri::without_password(host)),
    };
    let fault = |cause: &dyn std::fmt::Display| ListFault::entry(number, &name, cause);
    match scheme {
        "redis" | "rediss" => {}
        "redis-sentinel" => return Err(fault(&"a whole URI belongs in the option \"uri\"; here stands host:port")),
        _ => return Err(fault(&"it is none of host, host:port, [ipv6]:port, redis://[user][:password]@host:port")),
    }
    let address = plain(host.strip_suffix('/').unwrap_or(host)).map_err(|cause| fault(&cause))?;
    let auth = userinfo.map(credentials).transpose().map_err(|cause| fault(&cause))?;
    Ok((address, auth))
}

fn credentials(userinfo: &str) -> Result<Credentials, UriFault> {
    let (username, password) = uri::userinfo(userinfo)?;
    if password.is_empty() {
        return Err(UriFault::NoPassword);
    }
    Ok(Credentials {
        username: (!username.is_empty()).then(|| username.expose().to_owned()),
        password: Some(Secret::clone(&password)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        sentinels(text).unwrap().addrs.iter().map(ToString::to_string).collect()
    }

    fn message(text: &str) -> String {
        sentinels(text).unwrap_err().1
    }

    #[test]
    fn spellings_collapse_and_the_port_has_a_default() {
        assert_eq!(texts("H1,h1:26379, h1 ,[::1],[0::1]:26379,h2:1"), ["h1:26379", "[::1]:26379", "h2:1"]);
    }

    #[test]
    fn a_redis_uri_carries_the_password_of_the_sentinels() {
        let list = sentinels("redis://:p%40w@h1:26379,h2,redis://:p%40w@h3/").unwrap();
        assert_eq!(list.addrs.len(), 3);
        assert_eq!(list.auth.unwrap(), Credentials { username: None, password: Some(Secret::new("p@w")) });
        let list = sentinels("redis://ann:pw@h1").unwrap();
        assert_eq!(list.auth.unwrap().username.as_deref(), Some("ann"));
    }

    #[test]
    fn entries_that_disagree_about_the_password_are_refused() {
        let text = message("redis://:aaa@h1,redis://:bbb@h2");
        assert!(text.contains("entry 2") && text.contains("redis://***@h2"), "{text}");
        assert!(!text.contains("aaa") && !text.contains("bbb"), "{text}");
    }

    #[test]
    fn each_fault_has_its_own_sentence() {
        let faults = ["", "h1,,h2", "h:70000", "h:0", ":1", "h:x", "unix:/x", "ftp://h", "::1", "h/0", "redis://u@h"];
        let mut messages: Vec<_> = faults.iter().map(|text| message(text)).collect();
        messages.iter_mut().for_each(|text| *text = text.rsplit("): ").next().unwrap_or_default().to_owned());
        messages.sort();
        messages.dedup();
        assert_eq!(messages.len(), faults.len(), "{messages:?}");
    }

    #[test]
    fn entries_with_and_without_tls_do_not_mix() {
        assert!(sentinels("rediss://:pw@h1,h2").unwrap().tls && !sentinels("h1,redis://h2").unwrap().tls);
        for (text, number) in [("h1,rediss://:pw@h2", "entry 2"), ("rediss://h1,h2,redis://:pw@h3", "entry 3")] {
            let text = message(text);
            assert!(text.contains(number) && text.contains("TLS") && !text.contains("pw"), "{text}");
        }
    }

    #[test]
    fn no_piece_of_a_torn_password_is_shown() {
        for text in
            ["redis://:S1,S2@h", "redis://:S1@S2,S3@h:x", "redis://:S1:S2", "redis://u:S1", "redis://:S1/S2@h:x"]
        {
            let message = message(text);
            assert!(!message.contains('S'), "{message}");
        }
    }

    #[test]
    fn a_uri_where_none_belongs_is_not_quoted() {
        for fault in [addresses("redis://:S1", 1).unwrap_err(), map("a=redis://:S1").unwrap_err()] {
            assert!(!fault.1.contains("S1"), "{}", fault.1);
        }
    }

    #[test]
    fn the_map_names_its_bad_entry() {
        assert!(map("a:1=b:1,c").unwrap_err().1.contains("entry 2 (\"c\")"));
        assert!(map("").unwrap().is_empty());
        assert!(!map("a=b").unwrap().is_empty());
    }
}
