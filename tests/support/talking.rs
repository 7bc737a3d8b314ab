//! A C program that a test talks with, line by line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A program that talks with the test; it ends with the test.
pub struct Talking {
    pub child: Child,
    told: std::io::Lines<BufReader<ChildStdout>>,
    says: ChildStdin,
}

impl Talking {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let told = BufReader::new(child.stdout.take().expect("piped")).lines();
        let says = child.stdin.take().expect("piped");
        Self { child, told, says }
    }

    #[track_caller]
    pub fn tells(&mut self, expected: &str) {
        assert_eq!(self.told.next().and_then(Result::ok).as_deref(), Some(expected));
    }

    pub fn hears(&mut self, line: &str) {
        writeln!(self.says, "{line}").expect("it reads");
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
