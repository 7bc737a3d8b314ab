//! What was found: each thing with how bad it is, what it means, and what to change; written for people or as JSON.

use vigie::error::{clean, clean_line};
use vigie::resp::{Reply, ReplyBuilder};

use super::terminal;

/// So many characters of one text of a server are shown.
const SAID: usize = 300;
/// So many characters of one line are shown.
pub const LINE: usize = 2000;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// It works now, and will not in some failure.
    Warning,
    /// It does not work now.
    Fault,
}

impl Severity {
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

/// One thing that was found.
pub struct Finding {
    pub severity: Severity,
    /// A word that scripts can choose by.
    pub code: &'static str,
    /// The service that it is about; empty: the deployment.
    pub service: String,
    /// What was seen, and where.
    pub what: String,
    /// What it means; empty for what is as it should be.
    pub means: &'static str,
    /// What to change.
    pub change: &'static str,
}

/// All that was found.
#[derive(Default)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// The service that is being looked at.
    pub service: String,
}

impl Report {
    pub fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        what: String,
        means: &'static str,
        change: &'static str,
    ) {
        let (service, what) = (self.service.clone(), cut(&what, LINE));
        self.findings.push(Finding { severity, code, service, what, means, change });
    }

    pub fn ok(&mut self, code: &'static str, what: String) {
        self.add(Severity::Ok, code, what, "", "");
    }

    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// The exit status: 0 fine, 1 warnings, 2 faults.
    pub fn status(&self) -> u8 {
        match self.findings.iter().map(|finding| finding.severity).max() {
            Some(Severity::Fault) => 2,
            Some(Severity::Warning) => 1,
            _ => 0,
        }
    }

    /// For people, the worst first.
    pub fn text(&self) -> String {
        let mut sorted: Vec<&Finding> = self.findings.iter().collect();
        sorted.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let mut text = String::new();
        for Finding { severity, code, service, what, means, change } in sorted {
            let about = if service.is_empty() { String::new() } else { format!("{service}: ") };
            text += &terminal::line(&format!("{:<8} {code:<22} {about}{what}", severity.word()));
            text += "\n";
            for (head, line) in [("means", means), ("change", change)].iter().filter(|(_, line)| !line.is_empty()) {
                text += &format!("{:9}{head}: {line}\n", "");
            }
        }
        let [faults, warnings, notes] = [Severity::Fault, Severity::Warning, Severity::Note].map(|one| self.count(one));
        let [faults, warnings, notes] =
            [(faults, "fault"), (warnings, "warning"), (notes, "note")].map(|(count, word)| counted(count, word));
        text + &format!("{faults}, {warnings}, {notes}\n")
    }

    /// One JSON object.
    pub fn json(&self) -> String {
        let mut out = ReplyBuilder::new();
        out.map().text("version").text(env!("CARGO_PKG_VERSION")).text("status").int(self.status().into());
        for severity in [Severity::Fault, Severity::Warning, Severity::Note] {
            out.text(&format!("{}s", severity.word())).int(self.count(severity) as i64);
        }
        out.text("findings").array();
        for finding in &self.findings {
            let pairs = [
                ("severity", finding.severity.word()),
                ("code", finding.code),
                ("service", &finding.service),
                ("what", &finding.what),
                ("means", finding.means),
                ("change", finding.change),
            ];
            out.map();
            for (key, value) in pairs {
                out.text(key).text(value);
            }
            out.end();
        }
        json(&out.end().end().finish())
    }
}

fn counted(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

/// The JSON object of a run that could not look.
pub fn failure(why: &str) -> String {
    let mut out = ReplyBuilder::new();
    let why = cut(why, LINE);
    out.map().text("version").text(env!("CARGO_PKG_VERSION")).text("status").int(3).text("error").text(&why).end();
    json(&out.finish())
}

/// A reply as JSON.
pub fn json(reply: &Reply) -> String {
    let json = reply.to_json().map_or_else(|error| error.message().to_owned(), |json| text_of(&json, 0));
    terminal::json(&json)
}

/// A value of a reply as text.
pub fn text_of(reply: &Reply, id: u32) -> String {
    match reply.bytes(id) {
        Some(text) => String::from_utf8_lossy(text).into_owned(),
        None => reply.int(id).map(|value| value.to_string()).unwrap_or_default(),
    }
}

/// A text of a server as it is shown: without secrets, and cut where nobody would read on.
pub fn said(text: &str) -> String {
    cut(&clean(text), SAID)
}

/// The line of a server's error as it is shown.
pub fn said_line(line: &[u8]) -> String {
    cut(&clean_line(line), SAID)
}

/// The beginning of a text that is longer than this many characters.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}[...]", &text[..end]),
        None => text.to_owned(),
    }
}
