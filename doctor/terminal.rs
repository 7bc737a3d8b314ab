//! The way of all that is printed.
//!
//! Guarantees: what a server says commands no terminal, because control characters are written as escapes; an output that cannot be written
//! ends in an exit status, and never in a panic. Leaves to others: what is said.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};

/// The exit status of a run that could not look, or could not tell.
pub const COULD_NOT: u8 = 3;

/// Whether a terminal may take it for a command, or show what follows in another order or place.
fn is_command(one: char) -> bool {
    const TURNS: [char; 15] = [
        '\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}',
        '\u{202e}', '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}', '\u{feff}',
    ];
    one.is_control() || TURNS.contains(&one)
}

/// One line for people.
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for one in text.chars() {
        if is_command(one) { out.extend(one.escape_default()) } else { out.push(one) }
    }
    out
}

/// The same object, with the escapes of JSON: such characters stand in its strings only.
pub fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for one in text.chars() {
        match is_command(one) {
            // Writing to a String cannot fail.
            true => _ = write!(out, "\\u{:04x}", u32::from(one)),
            false => out.push(one),
        }
    }
    out
}

/// Prints to the standard output.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The exit status after a print. A reader that is gone changes nothing: it has read what it wanted.
pub fn status(printed: io::Result<()>, status: u8) -> u8 {
    match printed {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            tell(&format!("vigie-doctor cannot write to its output: {error}"));
            COULD_NOT
        }
        _ => status,
    }
}

/// Tells a line on the standard error. If that fails, nobody can be told.
pub fn tell(text: &str) {
    let _ = io::stderr().write_all((line(text) + "\n").as_bytes());
}
