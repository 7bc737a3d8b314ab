//! The text of one value to its type: numbers, durations, switches.
//!
//! Guarantees: the whole text must fit (no blanks, signs, or rest), and a range is always named with what was given.
//! Leaves to others: the ranges themselves and the option's name (table).

use std::time::Duration;

/// A value as a message shows it: quoted, escaped, cut; what may hold a password in front of an `@` is masked.
pub(super) fn shown(value: &str) -> String {
    const MOST: usize = 80;
    let (mask, rest) = match value.rfind('@') {
        Some(at) => ("***", &value[at..]),
        None => ("", value),
    };
    let scheme = match value.find("://") {
        Some(end)
            if !mask.is_empty() && value[..end].bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-') =>
        {
            &value[..end + 3]
        }
        _ => "",
    };
    let cut: String = rest.chars().take(MOST).collect();
    let dots = if cut.len() < rest.len() { "..." } else { "" };
    format!("{:?}", format!("{scheme}{mask}{cut}{dots}"))
}

/// A whole number from `min` to `max`.
pub(super) fn integer(text: &str, min: u64, max: u64) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{} is not a whole number from {min} to {max}", shown(text)));
    }
    match text.parse::<u64>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("{} is out of range: {min} to {max}", shown(text))),
    }
}

/// A duration: whole milliseconds, or with `ms`, `s` or `m` behind the number.
pub(super) fn duration(text: &str, min_ms: u64, max_ms: u64) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match &text[digits.len()..] {
        "" | "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => 0,
    };
    if digits.is_empty() || factor == 0 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{} is not a duration such as 250 (milliseconds), 250ms, 5s or 1m", shown(text)));
    }
    match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) {
        Some(ms) if (min_ms..=max_ms).contains(&ms) => Ok(Duration::from_millis(ms)),
        _ => Err(format!("{} is out of range: {min_ms} to {max_ms} milliseconds", shown(text))),
    }
}

/// A decimal number from `min` to `max`.
pub(super) fn float(text: &str, min: f64, max: f64) -> Result<f64, String> {
    let plain = text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match text.parse::<f64>() {
        Ok(number) if plain && (min..=max).contains(&number) => Ok(number),
        Ok(_) if plain => Err(format!("{} is out of range: {min} to {max}", shown(text))),
        _ => Err(format!("{} is not a decimal number from {min} to {max}", shown(text))),
    }
}

/// A switch.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("{} is neither true nor false (yes/no, on/off, 1/0)", shown(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_milliseconds_unless_they_say_otherwise() {
        for (text, ms) in [("250", 250), ("250ms", 250), ("5s", 5000), ("2m", 120_000), ("007", 7)] {
            assert_eq!(duration(text, 0, 1_000_000), Ok(Duration::from_millis(ms)));
        }
    }

    #[test]
    fn rubbish_is_no_duration() {
        for text in ["", "-1", "+1", " 1", "1 ", "1.5s", "1h", "ms", "1e3", "NaN", "inf", "1S", "5s5s", "\u{661}"] {
            assert!(duration(text, 0, u64::MAX).unwrap_err().contains("is not a duration"), "{text}");
        }
        for text in ["99999999999999999999", "307445734561825861m", "11", "1m"] {
            assert!(duration(text, 1, 10).unwrap_err().contains("out of range: 1 to 10"), "{text}");
        }
        assert!(duration("0", 1, 10).is_err());
    }

    #[test]
    fn integers_are_digits_within_the_range() {
        assert_eq!(integer("16", 2, 16), Ok(16));
        assert!(integer("17", 2, 16).unwrap_err().contains("\"17\" is out of range: 2 to 16"));
        for text in ["", "-1", "+2", "0x10", "2 ", "1_0", "2.0"] {
            assert!(integer(text, 0, 100).unwrap_err().contains("is not a whole number"), "{text}");
        }
    }

    #[test]
    fn floats_are_plain_and_finite() {
        assert_eq!(float("3.25", 1.0, 10.0), Ok(3.25));
        assert!(float("11", 1.0, 10.0).unwrap_err().contains("out of range"));
        for text in ["", "NaN", "inf", "-1", "1e1", "1.", ".5", "1.2.3", "1,5"] {
            assert!(float(text, 0.0, 10.0).unwrap_err().contains("not a decimal number"), "{text}");
        }
    }

    #[test]
    fn what_stands_before_an_at_is_masked() {
        assert_eq!(shown("redis://:pw@h:1"), "\"redis://***@h:1\"");
        assert_eq!(shown("u:pw@h"), "\"***@h\"");
        assert_eq!(shown("a\nb"), "\"a\\nb\"");
        assert!(shown(&"x".repeat(500)).len() < 100);
    }
}
