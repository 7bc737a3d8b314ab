//! resp-gen: reads commands, one a line, and writes them as RESP, for `redis-cli --pipe`. docs/migrate.md is its page.
//!
//! Guarantees: quotes and escapes are those of redis-cli; a line that cannot be read is told with its number, and nothing of it is
//! written. Leaves to others: whether the server knows the commands.

mod words;

use std::io::{self, BufRead, BufWriter, ErrorKind, Write};
use std::process::ExitCode;

use clap::Command;
use vigie::resp::encode;

const ABOUT: &str =
    "Reads commands from the standard input, one a line, and writes them as RESP to the standard output";
const NOTES: &str = "\
Words are parted by blanks. In double quotes \\n \\r \\t \\b \\a \\xHH \\\" \\\\ are escapes, in single quotes \\' is one, as in redis-cli.
Empty lines are passed over. A line that cannot be read is told with its number, and the others are written.

The exit status: 0 all lines were written, 1 some were not, 2 bad arguments, 3 the input or the output failed.

  resp-gen < commands.txt | redis-cli --pipe";

fn main() -> ExitCode {
    let command = Command::new("resp-gen").version(env!("CARGO_PKG_VERSION")).about(ABOUT).after_help(NOTES);
    if let Err(error) = command.try_get_matches() {
        // Help and the version are among them, with status 0. If they cannot be printed, nobody can be told.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    }
    match convert(&mut io::stdin().lock(), &mut BufWriter::with_capacity(1 << 16, io::stdout().lock())) {
        Ok(bad) => ExitCode::from(u8::from(bad > 0)),
        // A reader that has left wants no more.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::from(3),
        Err(error) => {
            tell(&format!("resp-gen cannot go on: {error}"));
            ExitCode::from(3)
        }
    }
}

/// Converts all lines, and returns how many could not be read.
fn convert(input: &mut dyn BufRead, output: &mut dyn Write) -> io::Result<u64> {
    let (mut line, mut encoded, mut number, mut bad) = (Vec::new(), Vec::new(), 0u64, 0);
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            output.flush()?;
            return Ok(bad);
        }
        number += 1;
        match words::split(&line) {
            Ok(words) if words.is_empty() => {}
            Ok(words) => {
                encoded.clear();
                encode::command(&mut encoded, &words.iter().map(Vec::as_slice).collect::<Vec<_>>());
                output.write_all(&encoded)?;
            }
            Err(why) => {
                bad += 1;
                tell(&format!("resp-gen: line {number}: {why}"));
            }
        }
    }
}

/// Tells a line on the standard error. If that fails, nobody can be told.
fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
