//! How a line of the log is written: its time, and its map as `key=value` or as JSON. Pure.
//!
//! Guarantees: one line each, at most [`MOST`] bytes with its end, so that a pipe takes it as a whole; no control character is written as
//! it is. Leaves to others: what a line says (lines), and that no secret is in it.

use std::time::Duration;

use crate::config::LogFormat;
use crate::resp::{Kind, Reply, ReplyBuilder};
use crate::sys::descriptor::AT_ONCE;

/// The longest line.
pub(super) const MOST: usize = AT_ONCE;

/// The line of a map. Long values are cut short, until all of it fits.
pub(super) fn line(map: &Reply, format: LogFormat) -> Vec<u8> {
    for value_most in [2048, 512, 128, 32, 0] {
        let mut line = written(map, format, value_most);
        if line.len() < MOST {
            line.push(b'\n');
            return line;
        }
    }
    Vec::new()
}

fn written(map: &Reply, format: LogFormat, value_most: usize) -> Vec<u8> {
    match format {
        LogFormat::Json => json(&cut(map, value_most)),
        LogFormat::Text => pairs(map, value_most),
    }
}

fn pairs(map: &Reply, value_most: usize) -> Vec<u8> {
    let mut line = Vec::new();
    let mut ids = map.children(0);
    while let (Some(key), Some(value)) = (ids.next(), ids.next()) {
        if map.kind(value) == Kind::Null {
            continue;
        }
        if !line.is_empty() {
            line.push(b' ');
        }
        line.extend_from_slice(map.bytes(key).unwrap_or_default());
        line.push(b'=');
        let text = map.bytes(value).map(|text| short(text, value_most));
        match text {
            Some(text) if is_plain(text) => line.extend_from_slice(text),
            // Quoted as JSON quotes it.
            Some(text) => line.extend(json(&ReplyBuilder::new().bytes(text).finish())),
            None => line.extend(json(&map.subtree(value))),
        }
    }
    line
}

/// Whether a value can stand without quotes.
fn is_plain(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\'))
}

/// The same map with texts of at most this length.
fn cut(map: &Reply, value_most: usize) -> Reply {
    let mut out = ReplyBuilder::new();
    out.map();
    for id in map.children(0) {
        match map.bytes(id) {
            Some(text) => out.bytes(short(text, value_most)),
            None => out.part(map, id),
        };
    }
    out.end().finish()
}

fn short(text: &[u8], most: usize) -> &[u8] {
    let mut end = text.len().min(most);
    // Not in the middle of a character.
    while end > 0 && end < text.len() && text[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    &text[..end]
}

fn json(reply: &Reply) -> Vec<u8> {
    reply.to_json().ok().and_then(|json| json.bytes(0).map(<[u8]>::to_vec)).unwrap_or_default()
}

/// A time since 1970 as RFC 3339 has it, in UTC and with microseconds.
pub(super) fn stamp(since: Duration) -> String {
    let (days, of_day) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
}

/// The date of a day since 1970. Years are counted from March, so that the leap day is the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(map: &Reply, format: LogFormat) -> String {
        String::from_utf8(line(map, format)).unwrap()
    }

    #[test]
    fn what_terminals_obey_and_nobody_sees_is_written_as_a_number() {
        let unseen = "a\u{9b}b\u{2028}c\u{202e}d\u{200f}e\u{2067}f\u{61c}g";
        let mut out = ReplyBuilder::new();
        out.map().text("k").text(&format!("{unseen}\u{a0}\u{20ac}\u{e9}\u{d7ff}")).end();
        let map = out.finish();
        let written = r#""a\u009bb\u2028c\u202ed\u200fe\u2067f\u061cg"#;
        assert_eq!(text(&map, LogFormat::Text), format!("k={written}\u{a0}\u{20ac}\u{e9}\u{d7ff}\"\n"));
        assert_eq!(text(&map, LogFormat::Json), format!("{{\"k\":{written}\u{a0}\u{20ac}\u{e9}\u{d7ff}\"}}\n"));
    }

    #[test]
    fn a_line_is_pairs_or_one_object() {
        let mut out = ReplyBuilder::new();
        out.map().text("a").text("word").text("b").text("two words\n\"q\"").text("c").null().text("d").bool(true);
        out.text("e").int(-3).text("f").text("").text("g").text("x=y").end();
        let map = out.finish();
        let pairs = "a=word b=\"two words\\n\\\"q\\\"\" d=true e=-3 f=\"\" g=\"x=y\"\n";
        assert_eq!(text(&map, LogFormat::Text), pairs);
        let object = r#"{"a":"word","b":"two words\n\"q\"","c":null,"d":true,"e":-3,"f":"","g":"x=y"}"#;
        assert_eq!(text(&map, LogFormat::Json), format!("{object}\n"));
    }

    #[test]
    fn a_line_fits_into_a_pipe_whatever_its_values_are() {
        for value in ["x".repeat(100_000), "\u{1}".repeat(100_000), "\u{e9}".repeat(5001), "\u{1f600}".repeat(999)] {
            let mut out = ReplyBuilder::new();
            out.map();
            for key in ["a", "b", "c", "d"] {
                out.text(key).text(&value);
            }
            let map = out.end().finish();
            for format in [LogFormat::Text, LogFormat::Json] {
                let line = text(&map, format);
                assert!(
                    line.len() <= MOST && line.contains('a') && line.contains('d') && line.ends_with('\n'),
                    "{line}"
                );
                assert_eq!(line.chars().filter(|c| c.is_control()).count(), 1, "{line}");
            }
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |secs, micros: u32| stamp(Duration::new(secs, micros * 1000));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(951_782_400, 1), "2000-02-29T00:00:00.000001Z");
        assert_eq!(at(1_709_251_199, 999_999), "2024-02-29T23:59:59.999999Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000000Z");
        assert_eq!(at(1_795_870_000, 0), "2026-11-28T12:46:40.000000Z");
    }
}
