//! `redis-sentinel://user:password@host1:26379,host2/service?key=value`, and `redis://user:password@host:6379/db?key=value` for a
//! primary without Sentinels: split into the options that it stands for.
//!
//! Guarantees: no fault quotes anything that stands before an `@` or behind a password option, so that a password with an unescaped
//! character is not shown in pieces. The parts are wiped, but not yet known as secrets: most of them are none, and another thread that
//! shows what a server says at that moment would take them for some. Leaves to others: which of them are secrets (mod), whether an option exists and its value is good (table).

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use zeroize::Zeroizing;

use super::endpoint::{DATA_PORT, Endpoint, SENTINEL_PORT};
use super::secret::Secret;
use super::value::shown;
use crate::error::{Error, Result, Status};

/// What the hosts of a URI are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// `redis-sentinel://`: Sentinels, which name the primary.
    Sentinels,
    /// `redis://`: the primary itself.
    Primary,
}

/// The options of addresses, by the scheme that sets them.
const OF_SENTINELS: &[&str] = &["sentinel.addrs"];
const OF_PRIMARY: &[&str] = &["primary.addr", "replica.addrs"];

/// One option of a URI.
pub(super) struct Part {
    pub(super) key: String,
    pub(super) value: Secret,
    /// Whether a message may name the key: not when it may be a piece of a password with an unescaped `&`.
    pub(super) may_show: bool,
}

/// Why a piece of a URI is refused; nothing of it is quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum UriFault {
    #[error("a '%' is not followed by two hexadecimal digits (a '%' itself is written %25)")]
    Escape,
    #[error("what the percent signs stand for is not UTF-8")]
    Utf8,
    #[error("there is an '@' but no password in front of it (a user alone is not enough: user:password@)")]
    NoPassword,
}

/// The options that a URI stands for, in the order in which they are to be set.
pub(super) fn take_apart(text: &str) -> Result<Vec<Part>> {
    let (scheme, is_tls, rest) = behind_scheme(text)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    if tail.contains('@') {
        return bad("an '@' stands behind the first '/', '?' or '#'; inside a user, a password, a service name or a \
                    value write '/' as %2F, '?' as %3F, '#' as %23 and '@' as %40");
    }
    if tail.contains('#') {
        return bad("a '#' must be written %23");
    }
    let (path, query) = match tail.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (tail, None),
    };
    let mut parts = Vec::new();
    if is_tls {
        // In front of the query, whose switches count more.
        push(&mut parts, "tls", Secret::open("on".to_owned()));
        if scheme == Scheme::Sentinels {
            push(&mut parts, "sentinel.tls", Secret::open("on".to_owned()));
        }
    }
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (Some(user), hosts),
        None => (None, authority),
    };
    match scheme {
        Scheme::Sentinels => push(&mut parts, OF_SENTINELS[0], Secret::open(sentinels(hosts, user.is_some())?)),
        Scheme::Primary => push(&mut parts, OF_PRIMARY[0], Secret::open(primary(hosts, user.is_some())?)),
    }
    if let Some(user) = user {
        if has_another_user(user) {
            return bad(
                "two users or passwords: one user:password@ in front of all addresses is that of the data nodes, and the \
                        Sentinels have sentinel.username and sentinel.password (in a password '@' is written %40 and ',' %2C)",
            );
        }
        let (username, password) = userinfo(user).map_err(|fault| fault_in("user and password", fault))?;
        push(&mut parts, "auth.username", username);
        push(&mut parts, "auth.password", password);
    }
    match scheme {
        Scheme::Sentinels => service(path)?.into_iter().for_each(|name| push(&mut parts, "service", name)),
        Scheme::Primary => database(path)?.into_iter().for_each(|number| push(&mut parts, "db", number)),
    }
    if let Some(query) = query {
        read_query(query, &mut parts)?;
    }
    Ok(parts)
}

/// The options that these parts replace: a URI names Sentinels or a primary, never both.
pub(super) fn replaced_by(parts: &[Part]) -> &'static [&'static str] {
    let names_primary = parts.first().is_some_and(|part| part.key == OF_PRIMARY[0]);
    if names_primary { OF_SENTINELS } else { OF_PRIMARY }
}

fn push(parts: &mut Vec<Part>, key: &str, value: Secret) {
    parts.push(Part { key: key.to_owned(), value, may_show: true });
}

fn bad<T>(what: impl std::fmt::Display) -> Result<T> {
    Err(Error::new(Status::Config, format!("option \"uri\": {what}")))
}

fn fault_in(place: &str, fault: impl std::fmt::Display) -> Error {
    Error::new(Status::Config, format!("option \"uri\": {place}: {fault}"))
}

/// What the hosts are, whether the scheme means TLS, and what stands behind it.
fn behind_scheme(text: &str) -> Result<(Scheme, bool, &str)> {
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    match scheme.to_ascii_lowercase().as_str() {
        "redis-sentinel" => Ok((Scheme::Sentinels, false, rest)),
        "rediss-sentinel" => Ok((Scheme::Sentinels, true, rest)),
        "redis" => Ok((Scheme::Primary, false, rest)),
        "rediss" => Ok((Scheme::Primary, true, rest)),
        _ => bad("it does not begin with redis-sentinel:// or redis:// (rediss-sentinel:// or rediss:// with TLS)"),
    }
}

/// The Sentinels between user and service, as a list in its normal form.
fn sentinels(hosts: &str, has_user: bool) -> Result<String> {
    if hosts.is_empty() {
        return bad("no Sentinel is named (redis-sentinel://host1:26379,host2:26379/service)");
    }
    let mut list = Vec::new();
    for (entry, number) in hosts.split(',').zip(1..) {
        // Without an '@' what follows the colon may be a password whose host was forgotten.
        let name = if has_user { Cow::Borrowed(entry) } else { without_password(entry) };
        let place = format!("Sentinel {number} ({})", shown(&name));
        let host = decode(entry).map_err(|fault| fault_in(&place, fault))?;
        let address = Endpoint::read_tcp(&host, SENTINEL_PORT).map_err(|fault| fault_in(&place, fault))?;
        list.push(address.to_string());
    }
    Ok(list.join(","))
}

/// The primary between user and database, in its normal form.
fn primary(host: &str, has_user: bool) -> Result<String> {
    if host.is_empty() {
        return bad("no host is named (redis://host:6379/db)");
    }
    if host.contains(',') {
        return bad(
            "redis:// names one primary; its replicas are given as ?replica.addrs=host:port,host:port, and Sentinels as \
             redis-sentinel://host1,host2/service",
        );
    }
    // Without an '@' what follows the colon may be a password whose host was forgotten.
    let name = if has_user { Cow::Borrowed(host) } else { without_password(host) };
    let place = format!("primary ({})", shown(&name));
    let host = decode(host).map_err(|fault| fault_in(&place, fault))?;
    let address = Endpoint::read_tcp(&host, DATA_PORT).map_err(|fault| fault_in(&place, fault))?;
    Ok(address.to_string())
}

/// The database of `redis://host/db`.
fn database(path: &str) -> Result<Option<Secret>> {
    let number = path.strip_prefix('/').unwrap_or(path);
    if number.is_empty() {
        return Ok(None);
    }
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return bad(
            "the path of redis:// is the number of a database (redis://host:6379/0); a service has a name at Sentinels only",
        );
    }
    Ok(Some(Secret::open(number.to_owned())))
}

fn service(path: &str) -> Result<Option<Secret>> {
    let name = path.strip_prefix('/').unwrap_or(path);
    if name.is_empty() {
        return Ok(None);
    }
    if name.contains('/') {
        return bad("the path is more than the name of one service (a database is given as ?db=n)");
    }
    let name = decode(name).map_err(|fault| fault_in("service", fault))?;
    Ok(Some(Secret::open(name.as_str().to_owned())))
}

fn read_query(query: &str, parts: &mut Vec<Part>) -> Result<()> {
    let mut may_show = true;
    for (pair, number) in query.split('&').zip(1..) {
        let place = format!("part {number} of the query");
        let Some((key, value)) = pair.split_once('=') else {
            return bad(format_args!("{place} is not of the form key=value (inside a value write '&' as %26)"));
        };
        let key = decode(key).map_err(|fault| fault_in(&place, fault))?.to_string();
        if key == "uri" {
            return bad(format_args!("{place}: a uri cannot stand in a uri"));
        }
        let value = decode(value).map_err(|fault| fault_in(&place, fault))?;
        let is_secret = key.to_ascii_lowercase().contains("pass");
        parts.push(Part { key, value: Secret::open(value.as_str().to_owned()), may_show });
        may_show = may_show && !is_secret;
    }
    Ok(())
}

/// `name:***` for `name:word`, which may be a user and a password whose host was forgotten. A number behind the colon is a port, and
/// so is whatever follows an address.
pub(super) fn without_password(entry: &str) -> Cow<'_, str> {
    const LONGEST_PORT: usize = 6;
    let is_ipv6 = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    if is_ipv6(entry) || entry.rsplit_once(':').is_some_and(|(host, _)| is_ipv6(host)) {
        return Cow::Borrowed(entry);
    }
    let colon = if entry.starts_with('[') { None } else { entry.find(':') };
    let Some(colon) = colon else { return Cow::Borrowed(entry) };
    let (name, behind) = (&entry[..colon], &entry[colon + 1..]);
    let is_number = behind.len() <= LONGEST_PORT && behind.bytes().all(|byte| byte.is_ascii_digit());
    match is_number || name.parse::<IpAddr>().is_ok() {
        true => Cow::Borrowed(entry),
        false => Cow::Owned(format!("{name}:***")),
    }
}

/// Whether what stands in front of the last '@' holds a whole address behind another '@': a user and a password for each Sentinel.
fn has_another_user(user: &str) -> bool {
    let Some((_, behind)) = user.split_once('@') else { return false };
    let Some((first, others)) = behind.split_once(',') else { return false };
    let is_address = |text: &str| Endpoint::read_tcp(text, SENTINEL_PORT).is_ok();
    is_address(first) && (first.contains(':') || others.contains(':'))
}

/// User and password of `user:password`; either may be empty.
pub(super) fn userinfo(text: &str) -> std::result::Result<(Secret, Secret), UriFault> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    Ok((Secret::open(decode(user)?.as_str().to_owned()), Secret::open(decode(password)?.as_str().to_owned())))
}

/// Percent-decodes; `+` stays a plus. Allocated once, so that no shorter copy of a password is left behind.
fn decode(text: &str) -> std::result::Result<Zeroizing<String>, UriFault> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (&[high, low], behind) = rest.split_first_chunk().ok_or(UriFault::Escape)?;
        bytes.push(hex(high).ok_or(UriFault::Escape)? << 4 | hex(low).ok_or(UriFault::Escape)?);
        rest = behind;
    }
    std::str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_owned())).map_err(|_| UriFault::Utf8)
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<(String, String)> {
        take_apart(text).unwrap().iter().map(|part| (part.key.clone(), part.value.expose().to_owned())).collect()
    }

    fn message(text: &str) -> String {
        take_apart(text).err().map(|error| error.message().to_owned()).unwrap_or_default()
    }

    #[test]
    fn a_whole_uri_becomes_options() {
        let uri = "redis-sentinel://us%65r:p%3Aw%C3%A9@H1:26379,h2,[::1]:26380/my%2Dmaster?db=2&timeout.call=250";
        let wanted = [
            ("sentinel.addrs", "h1:26379,h2:26379,[::1]:26380"),
            ("auth.username", "user"),
            ("auth.password", "p:wé"),
            ("service", "my-master"),
            ("db", "2"),
            ("timeout.call", "250"),
        ];
        assert_eq!(parts(uri), wanted.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_uri_of_a_primary_becomes_options() {
        let wanted = [
            ("primary.addr", "[::1]:6380"),
            ("auth.username", "ann"),
            ("auth.password", "p:w"),
            ("db", "7"),
            ("replica.addrs", "h2,h3:1"),
        ];
        let wanted = wanted.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(parts("redis://ann:p%3Aw@[::1]:6380/7?replica.addrs=h2,h3:1"), wanted);
        for short in ["redis://H", "REDIS://h/", "redis://h:6379"] {
            assert_eq!(parts(short), [("primary.addr".to_owned(), "h:6379".to_owned())]);
        }
    }

    #[test]
    fn parts_that_are_absent_set_nothing() {
        let wanted = vec![("sentinel.addrs".to_owned(), "h:26379".to_owned())];
        assert_eq!(parts("redis-sentinel://h"), wanted);
        assert_eq!(parts("REDIS-SENTINEL://h/"), wanted);
    }

    #[test]
    fn a_password_alone_clears_the_user() {
        let parts = parts("redis-sentinel://:p@ss+,w@h");
        assert_eq!(parts[1], ("auth.username".into(), String::new()));
        assert_eq!(parts[2], ("auth.password".into(), "p@ss+,w".into()));
    }

    #[test]
    fn each_fault_has_its_own_sentence() {
        for (uri, word) in [
            ("h1,h2", "does not begin with"),
            ("http://h", "does not begin with"),
            ("redis://", "no host is named"),
            ("redis:///1", "no host is named"),
            ("redis://h1,h2", "one primary"),
            ("redis://a:b@h1:1,c:d@h2:2", "two users or passwords"),
            ("redis://h:x", "\"h:***\""),
            ("redis://a:b@h:70000", "\"h:70000\""),
            ("redis://h/mymaster", "number of a database"),
            ("redis://h/1/2", "number of a database"),
            ("redis-sentinel:///s", "no Sentinel"),
            ("redis-sentinel://h,/s", "Sentinel 2"),
            ("redis-sentinel://a:b@h:70000/s", "\"h:70000\""),
            ("redis-sentinel://h:70000/s", "\"h:70000\""),
            ("redis-sentinel://127.0.0.1:x/s", "\"127.0.0.1:x\""),
            ("redis-sentinel://[::1]:x/s", "\"[::1]:x\""),
            ("redis-sentinel://::1:26379/s", "brackets"),
            ("redis-sentinel://::1:26379/s", "\"::1:26379\""),
            ("redis-sentinel://2001:db8::7:26379/s", "\"2001:db8::7:26379\""),
            ("redis-sentinel://h:pw/s", "\"h:***\""),
            ("redis-sentinel://a:b@h1:1,c:d@h2:2/s", "two users or passwords"),
            ("redis-sentinel://a:b@h1,a:b@h2/s", "two users or passwords"),
            ("redis-sentinel://h/s/2", "?db="),
            ("redis-sentinel://h/s?db", "key=value"),
            ("redis-sentinel://h/s?db=1&", "part 2"),
            ("redis-sentinel://h/s?uri=x", "cannot stand in a uri"),
            ("redis-sentinel://h/s#x", "%23"),
            ("redis-sentinel://h/%zz", "hexadecimal"),
            ("redis-sentinel://h/%2", "hexadecimal"),
            ("redis-sentinel://h/%ff", "UTF-8"),
            ("redis-sentinel://u:%ff@h", "user and password"),
        ] {
            assert!(message(uri).contains(word), "{uri}: {}", message(uri));
        }
    }

    #[test]
    fn a_scheme_for_tls_means_both_sides_and_the_query_may_say_otherwise() {
        let texts = |wanted: &[(&str, &str)]| -> Vec<(String, String)> {
            wanted.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let wanted = [("tls", "on"), ("sentinel.tls", "on"), ("sentinel.addrs", "h:26379"), ("sentinel.tls", "off")];
        assert_eq!(parts("Rediss-Sentinel://h?sentinel.tls=off"), texts(&wanted));
        assert_eq!(parts("REDISS://h"), texts(&[("tls", "on"), ("primary.addr", "h:6379")]));
    }

    #[test]
    fn no_piece_of_a_torn_password_is_shown() {
        for password in ["S1/S2", "S1?S2", "S1#S2", "S1?db=S2", "S1%S2", "S1@S2", "S1,S2", "S1?S2=S3&S4"] {
            for scheme in ["redis-sentinel", "redis"] {
                let text = message(&format!("{scheme}://u:{password}@h:x/m?db=x"));
                assert!(!text.is_empty() && !text.replace("Sentinel", "").contains('S'), "{password}: {text}");
            }
        }
        for torn in ["redis-sentinel://u:S1/m", "redis://u:S1/m", "redis://u:S1/1"] {
            let text = message(torn);
            assert!(!text.replace("Sentinel", "").contains('S'), "{text}");
        }
    }
}
