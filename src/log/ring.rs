//! Lines that wait for their descriptor, bounded; the newest ones are dropped when it is full. Pure.
//!
//! Guarantees: lines leave whole and in their order; where some are missing a line says how many. Leaves to others: what lines look like
//! (format), and when they are written (the log).

use std::collections::VecDeque;
use std::time::Duration;

/// How many bytes of lines wait at most.
pub(super) const MOST: usize = 256 * 1024;

/// Makes the line about so many that were dropped, the last of them at this time.
pub(super) type Note<'a> = &'a dyn Fn((u64, Duration)) -> Vec<u8>;

#[derive(Default)]
pub(super) struct Ring {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// How much of the first line has been written.
    begun: usize,
    dropped: u64,
    /// When the last one was dropped.
    last_drop: Duration,
}

impl Ring {
    /// Takes a line of this time, or counts it.
    pub(super) fn push(&mut self, line: Vec<u8>, at: Duration, note: Note<'_>) {
        if self.bytes + line.len() > MOST {
            self.dropped += 1;
            self.last_drop = at;
            return;
        }
        self.note_dropped(note);
        self.add(line);
    }

    /// What is to be written next: as many whole lines as fit, or one, or what is left of it. Empty: nothing.
    pub(super) fn next(&mut self, most: usize, note: Note<'_>) -> Vec<u8> {
        if self.lines.is_empty() {
            self.note_dropped(note);
        }
        let mut lines = self.lines.iter();
        let mut next = lines.next().map_or_else(Vec::new, |first| first[self.begun..].to_vec());
        for line in lines.take_while(|_| self.begun == 0) {
            if next.len() + line.len() > most {
                break;
            }
            next.extend_from_slice(line);
        }
        next
    }

    /// So many bytes of what was next have been written.
    pub(super) fn wrote(&mut self, mut bytes: usize) {
        while let Some(left) = self.lines.front().map(|line| line.len() - self.begun) {
            if bytes < left {
                self.begun += bytes;
                return;
            }
            bytes -= left;
            self.begun = 0;
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
        }
    }

    fn note_dropped(&mut self, note: Note<'_>) {
        if self.dropped > 0 {
            let line = note((std::mem::take(&mut self.dropped), self.last_drop));
            self.add(line);
        }
    }

    fn add(&mut self, line: Vec<u8>) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note((count, last): (u64, Duration)) -> Vec<u8> {
        assert!(last == Duration::from_secs(9));
        format!("{count} dropped\n").into_bytes()
    }

    fn all(ring: &mut Ring) -> String {
        let mut text = Vec::new();
        loop {
            let next = ring.next(16, &note);
            if next.is_empty() {
                return String::from_utf8(text).unwrap();
            }
            // Bytes are taken as a socket takes them.
            let some = next.len().div_ceil(2);
            text.extend_from_slice(&next[..some]);
            ring.wrote(some);
        }
    }

    #[test]
    fn lines_leave_whole_and_in_order_however_they_are_taken() {
        let mut ring = Ring::default();
        for line in ["one\n", "two\n", "a longer one than fits at once\n", "four\n"] {
            ring.push(line.into(), Duration::from_secs(9), &note);
        }
        assert_eq!(ring.next(16, &note), b"one\ntwo\n");
        assert_eq!(all(&mut ring), "one\ntwo\na longer one than fits at once\nfour\n");
        assert_eq!(ring.next(16, &note), b"");
    }

    #[test]
    fn what_does_not_fit_is_counted_in_its_place() {
        let mut ring = Ring::default();
        ring.push(vec![b'x'; MOST - 4], Duration::from_secs(9), &note);
        ring.push(b"1234\n".to_vec(), Duration::from_secs(9), &note);
        ring.push(b"5678\n".to_vec(), Duration::from_secs(9), &note);
        ring.push(b"fit\n".to_vec(), Duration::from_secs(9), &note);
        assert_eq!(ring.next(0, &note).len(), MOST - 4);
        ring.wrote(MOST - 4);
        ring.push(b"behind\n".to_vec(), Duration::from_secs(9), &note);
        assert_eq!(all(&mut ring), "2 dropped\nfit\nbehind\n");
        // Without a line behind them they are told as well.
        ring.push(vec![b'x'; MOST + 1], Duration::from_secs(9), &note);
        assert_eq!(all(&mut ring), "1 dropped\n");
    }
}
