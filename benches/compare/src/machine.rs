//! Where and with what it was measured.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::candidate::hiredis;
use crate::vigie;

/// What the head of the tables says.
pub struct Machine {
    /// The processor and the system.
    pub hardware: String,
    /// Everything that has a version.
    pub software: String,
    /// The day, in UTC.
    pub date: String,
}

impl Machine {
    /// This one, with a server of this version.
    pub fn look(server: &str) -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let of = |text: &str, name: &str, separator: char| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(separator));
            found.map_or("unknown", |(_, value)| value.trim().trim_matches('"')).to_owned()
        };
        let os = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        let model = of(&cpuinfo, "model name", ':');
        let redispp = option_env!("REDISPP_VERSION").map_or(String::new(), |v| format!("redis-plus-plus {v}, "));
        Self {
            hardware: format!("{cpus} cores of {model}, {}", of(&os, "PRETTY_NAME", '=')),
            software: format!(
                "vigie {}, redis-server {server} on loopback, hiredis {}, {redispp}redis-rs {}, fred {}, rustc {}",
                vigie::version(),
                hiredis::version(),
                env!("REDIS_RS_VERSION"),
                env!("FRED_VERSION"),
                env!("RUSTC_VERSION"),
            ),
            date: today(),
        }
    }
}

fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year}-{month:02}-{day:02}")
}

/// The date of a day counted from 1970-01-01.
fn civil(mut day: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    loop {
        let days = if leap(year) { 366 } else { 365 };
        if day < days {
            break;
        }
        day -= days;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::civil;

    #[test]
    fn days_have_their_dates() {
        for (day, date) in
            [(0, (1970, 1, 1)), (11_016, (2000, 2, 29)), (11_017, (2000, 3, 1)), (20_818, (2026, 12, 31))]
        {
            assert_eq!(civil(day), date);
        }
    }
}
