//! How long certificates are still valid: those that servers show, and the program's own.
//!
//! The dates are read from the certificate itself, strictly by the rules of DER; nothing is verified here, because the connection has been.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use vigie::config::{Endpoint, SENTINEL_PORT, Settings};
use vigie::net::{Conn, ConnectOptions, client_certificate};

use super::Wanted;
use super::finding::{Report, Severity};

const DAY: i64 = 86_400;
/// What ends sooner than this is complained about.
const SOON: i64 = 30 * DAY;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version of a certificate, which version 1 leaves out.
const VERSION: u8 = 0xa0;

/// From when until when a certificate is valid, in seconds since 1970.
#[derive(Debug, PartialEq, Eq)]
struct Validity {
    from: i64,
    until: i64,
}

/// Looks at the certificates of the Sentinels at these addresses, and at the program's own.
pub fn look(settings: &Settings, sentinels: &BTreeSet<String>, wanted: &Wanted, report: &mut Report) {
    report.service.clear();
    if settings.sentinel.tls.on {
        let options = ConnectOptions::of_sentinel(&settings.sentinel);
        let endpoints = sentinels.iter().filter_map(|addr| Endpoint::parse(addr, SENTINEL_PORT).ok());
        for announced in endpoints {
            let endpoint = settings.sentinel.address_map.apply(&announced);
            // One that cannot be reached was told of already.
            if let Ok(conn) = Conn::open(&endpoint, &options, wanted.deadline()) {
                of_server(&conn, &format!("the Sentinel {announced}"), report);
            }
        }
    }
    let mut own = BTreeSet::new();
    for tls in [&settings.client.tls, &settings.sentinel.tls] {
        let file = tls.cert.as_deref().filter(|file| tls.on && own.insert((*file).to_owned()));
        if let (Some(file), Ok(Some(certificate))) = (file, client_certificate(tls)) {
            tell(&certificate, &format!("this program ({file})"), report);
        }
    }
}

/// Looks at what a server has shown.
pub fn of_server(conn: &Conn, whose: &str, report: &mut Report) {
    if let Some(certificate) = conn.peer_certificate() {
        tell(&certificate, whose, report);
    }
}

fn tell(certificate: &[u8], whose: &str, report: &mut Report) {
    let Some(validity) = validity(certificate) else {
        let what = format!("the certificate of {whose} has no dates that can be read");
        let change = "See them with `openssl x509 -noout -dates`, and let it be made anew.";
        return report.add(Severity::Note, "not_asked", what, "", change);
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
    let (from, until) = (day(validity.from), day(validity.until));
    let change = "Renew it now; files of nodes are read when they start, or by `CONFIG SET tls-cert-file`; those of this library when they change.";
    let means = "Clients that check certificates in full do not connect.";
    match validity {
        Validity { from: begin, .. } if now < begin => {
            let what = format!("the certificate of {whose} is not valid before {from}");
            report.add(
                Severity::Fault,
                "certificate_over",
                what,
                means,
                "Compare the clocks of this machine and of the one that made it.",
            );
        }
        Validity { until: end, .. } if now > end => {
            let what = format!("the certificate of {whose} was valid until {until}");
            report.add(Severity::Fault, "certificate_over", what, means, change);
        }
        Validity { until: end, .. } if end - now < SOON => {
            let what =
                format!("the certificate of {whose} is valid until {until}, for {} more days", (end - now) / DAY);
            let means = "When it is over, clients that check certificates do not connect any more.";
            report.add(Severity::Warning, "certificate_ends", what, means, change);
        }
        Validity { until: end, .. } => {
            report.ok(
                "certificate",
                format!("the certificate of {whose} is valid until {until}, for {} more days", (end - now) / DAY),
            );
        }
    }
}

/// The dates of a certificate in DER; `None` if it is none.
fn validity(der: &[u8]) -> Option<Validity> {
    let (certificate, rest) = element(der, SEQUENCE)?;
    let (tbs, _) = element(certificate, SEQUENCE)?;
    let mut tbs = rest.is_empty().then_some(tbs)?;
    if tbs.first() == Some(&VERSION) {
        tbs = element(tbs, VERSION)?.1;
    }
    // The serial number, the algorithm, and who made it.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        tbs = element(tbs, tag)?.1;
    }
    let (dates, _) = element(tbs, SEQUENCE)?;
    let (from, dates) = moment(dates)?;
    let (until, dates) = moment(dates)?;
    dates.is_empty().then_some(Validity { from, until })
}

/// The contents of the element that has to come first, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // Of the long forms the shortest alone is allowed. Certificates are shorter than 16 MiB.
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            let is_shortest = length > 0x7f && bytes[0] != 0;
            is_shortest.then_some((length, rest))?
        }
        _ => return None,
    };
    (found == tag).then_some(())?;
    rest.split_at_checked(length)
}

/// A moment, in one of its two forms (`YYMMDDHHMMSSZ`, `YYYYMMDDHHMMSSZ`), and what follows it.
fn moment(der: &[u8]) -> Option<(i64, &[u8])> {
    let tag = *der.first()?;
    let (text, rest) = element(der, tag)?;
    let (digits, z) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let year_digits = match (tag, digits.len(), z) {
        (UTC_TIME, 12, b"Z") => 2,
        (GENERALIZED_TIME, 14, b"Z") => 4,
        _ => return None,
    };
    let number = |digits: &[u8]| {
        let value = |sum: i64, digit: &u8| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0'));
        digits.iter().try_fold(0, value)
    };
    let (year, others) = digits.split_at(year_digits);
    let year = match (number(year)?, year_digits) {
        (year @ 0..50, 2) => 2000 + year,
        (year, 2) => 1900 + year,
        (year, _) => year,
    };
    let mut parts = others.chunks_exact(2).map(number);
    let [month, day, hour, minute, second] = std::array::from_fn(|_| parts.next().flatten().unwrap_or(-1));
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&day);
    let is_time = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..60).contains(&second);
    (is_date && is_time).then(|| (days_to(year, month, day) * DAY + hour * 3600 + minute * 60 + second, rest))
}

/// Days from 1970 to a date. Years begin in March here, so that the day that some years have more is their last.
pub fn days_to(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// The date of a moment.
fn day(seconds: i64) -> String {
    let days = seconds.div_euclid(DAY);
    // No year has fewer days than 365.
    let mut year = 1970 + days / 365;
    while days_to(year, 1, 1) > days {
        year -= 1;
    }
    let month = (1..=12).rev().find(|month| days_to(year, *month, 1) <= days).unwrap_or(1);
    format!("{year:04}-{month:02}-{:02}", days - days_to(year, month, 1) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(tag: u8, contents: &[u8]) -> Vec<u8> {
        let length = contents.len();
        let head = match length {
            0..=0x7f => vec![tag, length as u8],
            0x80..=0xff => vec![tag, 0x81, length as u8],
            _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
        };
        [head, contents.to_vec()].concat()
    }

    /// A certificate as far as it is read.
    fn certificate(version: &[u8], from: &[u8], until: &[u8]) -> Vec<u8> {
        let issuer = wrapped(SEQUENCE, &[0x05; 200]);
        let dates = wrapped(SEQUENCE, &[from, until].concat());
        let parts = [version, &[INTEGER, 1, 7], &[SEQUENCE, 0], &issuer, &dates, &[SEQUENCE, 0]].concat();
        wrapped(SEQUENCE, &wrapped(SEQUENCE, &parts))
    }

    #[test]
    fn the_dates_are_found_in_both_forms_and_versions() {
        let (utc, long) = (wrapped(UTC_TIME, b"700101000000Z"), wrapped(GENERALIZED_TIME, b"20500229235959Z"));
        let expected = Validity { from: 0, until: days_to(2050, 3, 1) * DAY - 1 };
        let leap = wrapped(GENERALIZED_TIME, b"20500228235959Z");
        for version in [&[][..], &[VERSION, 3, 2, 1, 2]] {
            assert_eq!(validity(&certificate(version, &utc, &leap)), Some(Validity { from: 0, until: expected.until }));
        }
        // A day that no calendar has is the day after.
        assert_eq!(validity(&certificate(&[], &utc, &long)).map(|found| found.until), Some(expected.until + DAY));
        let century = wrapped(UTC_TIME, b"491231235959Z");
        assert_eq!(
            validity(&certificate(&[], &utc, &century)).map(|found| day(found.until)).as_deref(),
            Some("2049-12-31")
        );
    }

    #[test]
    fn what_is_no_certificate_has_no_dates() {
        let date = wrapped(UTC_TIME, b"260101000000Z");
        let whole = certificate(&[], &date, &date);
        assert!(validity(&whole).is_some());
        for end in 0..whole.len() {
            assert_eq!(validity(&whole[..end]), None, "cut at {end}");
        }
        for bad in [&b"2601010000Z"[..], b"261301000000Z", b"260101000000+", b"26010100000xZ", b"260101240000Z", b""] {
            assert_eq!(validity(&certificate(&[], &date, &wrapped(UTC_TIME, bad))), None, "{bad:?}");
        }
        // Lengths have one form only, and nothing follows the certificate.
        assert_eq!(element(&[SEQUENCE, 0x81, 1, 0], SEQUENCE), None);
        assert_eq!(element(&[SEQUENCE, 0x80, 0, 0], SEQUENCE), None);
        assert_eq!(validity(&[&whole[..], &[0]].concat()), None);
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (date, days) in
            [((1970, 1, 1), 0), ((2000, 2, 29), 11_016), ((2024, 12, 31), 20_088), ((2100, 3, 1), 47_541)]
        {
            assert_eq!(days_to(date.0, date.1, date.2), days);
            assert_eq!(day(days * DAY + DAY - 1), format!("{:04}-{:02}-{:02}", date.0, date.1, date.2));
        }
    }
}
