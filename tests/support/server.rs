//! Which server the tests run against, by its own word, and what it cannot do.
//!
//! A test that needs what the server has not got ends at once, with a line that names the test, the server and the reason. With
//! VIGIE_SKIPS the lines also go to that file, so that scripts/test-servers can count them: nothing is skipped in silence.

use super::node::server_binary;
use std::io::Write as _;
use std::process::Command;

/// What not every server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// SENTINEL DEBUG, by which tests shorten the periods of a Sentinel.
    SentinelDebug,
    /// `bind-source-addr`.
    SourceAddress,
    /// Its ports can speak TLS.
    Tls,
    /// Statistics for each sub-command, ACL rules for sub-commands and selectors.
    SubCommands,
    /// SSUBSCRIBE and SPUBLISH.
    ShardChannels,
    /// EVAL_RO and EVALSHA_RO.
    ReadOnlyScripts,
    /// FUNCTION and FCALL.
    Functions,
    /// CLIENT NO-EVICT.
    NoEvict,
    /// PEXPIRETIME.
    ExpireTime,
}

impl Feature {
    fn since(self) -> &'static str {
        match self {
            Feature::SourceAddress => "bind-source-addr comes with Redis 7.0",
            Feature::SentinelDebug => "SENTINEL DEBUG comes with Redis 7.0",
            Feature::Tls => "this server was built without TLS",
            Feature::SubCommands => "sub-commands have statistics and ACL rules of their own from Redis 7.0 on",
            Feature::ShardChannels => "shard channels come with Redis 7.0",
            Feature::ReadOnlyScripts => "EVALSHA_RO comes with Redis 7.0",
            Feature::Functions => "functions come with Redis 7.0",
            Feature::NoEvict => "CLIENT NO-EVICT comes with Redis 7.0",
            Feature::ExpireTime => "PEXPIRETIME comes with Redis 7.0",
        }
    }

    pub fn is_there(self) -> bool {
        match self {
            Feature::Tls => has_tls(),
            _ => version() >= (7, 0),
        }
    }
}

/// What `--version` says: `Redis server v=7.0.15 ...`.
fn described() -> String {
    let output = Command::new(server_binary()).arg("--version").output().expect("the server tells its version");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Major and minor version.
pub fn version() -> (u32, u32) {
    let told = described();
    let numbers = told.split_once("v=").map(|(_, rest)| rest).unwrap_or_default();
    let mut numbers = numbers.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    let (major, minor) = (numbers.next(), numbers.next());
    major.zip(minor).unwrap_or_else(|| panic!("no version in {told:?}"))
}

/// Asked to speak TLS without a certificate a server ends at once, and says whether it is this or all of TLS that it has not got: the
/// option is unknown, or known and of no use.
fn has_tls() -> bool {
    let mut command = Command::new(server_binary());
    let output = command.args(["--port", "0", "--tls-port", "1"]).output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    !said.contains("Failed finding TLS support") && !said.contains("Bad directive")
}

/// Whether the server lacks this; the test is then told as skipped, and returns.
pub fn lacks(feature: Feature) -> bool {
    let lacks = !feature.is_there();
    if lacks {
        skip(feature.since());
    }
    lacks
}

fn skip(why: &str) {
    let thread = std::thread::current();
    let told = described();
    let server: Vec<_> = told.split(' ').take(3).collect();
    let line = format!("skipped: {}: {}: {why}\n", thread.name().unwrap_or("a test"), server.join(" "));
    // Past the harness, which keeps what a test that passes prints.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("VIGIE_SKIPS") {
        let file = std::fs::File::options().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the file of the skipped tests takes a line");
    }
}
