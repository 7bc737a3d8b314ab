//! What one Sentinel says of a service: the question as bytes, the answers as data.
//!
//! Guarantees: the address and the epoch come from two different answers of one flight (rule 1); a malformed answer is
//! an error of that Sentinel alone. Leaves to others: whom to believe (judge).

use crate::config::Endpoint;
use crate::error::{Error, Result, Status, clean, clean_bytes, clean_line, quoted};
use crate::resp::{Kind, Reply, encode};
use std::ops::Range;

/// The address, the epoch and flags, the replicas, the other Sentinels: one flight. The id of the Sentinel and whether
/// it is in TILT do not depend on the service; its link asks for them.
const QUESTIONS: usize = 4;
/// Which of them is about the replicas.
const REPLICAS: usize = 2;

/// How many service names are kept from one answer.
const SERVICES: usize = 100;

/// What a Sentinel said.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its own id, if it gives one (since Redis 6.2): one Sentinel may be reached at several addresses.
    pub id: Option<String>,
    /// It is in TILT: its clock jumped, and its answers cannot be trusted for a while.
    pub tilt: bool,
    /// What it knows of the service.
    pub heard: Heard,
    /// The other Sentinels of the service.
    pub peers: Vec<Peer>,
    /// The services that it watches, as far as it names them; empty if it knows the one that was asked for.
    pub services: Vec<String>,
    /// The user is not permitted to ask for the services.
    pub hides_services: bool,
    /// The questions that the user is not permitted to ask, as the Sentinel refused them.
    pub refused: Vec<String>,
}

/// What a Sentinel says about itself, independent of the service.
#[derive(Debug, Clone, Default)]
pub struct OwnState {
    tilt: bool,
    /// The services that it watches, as far as it names them.
    services: Vec<String>,
    /// The refusal, if the user is not permitted to ask.
    refused: Option<String>,
}

impl OwnState {
    /// Reads the reply to INFO.
    pub fn read(info: &Reply) -> Self {
        let services = info.bytes(0).map(services).unwrap_or_default();
        Self { tilt: is_in_tilt(info), services, refused: not_permitted(info) }
    }
}

/// What a Sentinel knows of a service.
#[derive(Debug, Clone)]
pub enum Heard {
    /// It does not know the name.
    Unknown,
    /// It knows the name, but gives no usable address, for this reason.
    NoAddress(String),
    /// It names a primary.
    Known(ServiceView),
}

/// A service in the eyes of one Sentinel.
#[derive(Debug, Clone)]
pub struct ServiceView {
    /// The primary's address.
    pub primary: Endpoint,
    /// The configuration epoch.
    pub epoch: u64,
    /// The primary's flags, separated by commas; empty if they describe the previous primary (rule 1).
    pub flags: String,
    /// How many Sentinels must agree that the primary is down.
    pub quorum: u64,
    /// The replicas.
    pub replicas: Vec<ReplicaAnswer>,
    /// Why it does not list the replicas, as it refused to.
    pub unlisted: Option<String>,
}

/// A replica in the eyes of one Sentinel.
#[derive(Debug, Clone)]
pub struct ReplicaAnswer {
    /// Its address.
    pub announced: Endpoint,
    /// Its flags, separated by commas.
    pub flags: String,
    /// Whether its link to the primary is up; also true if the Sentinel does not say.
    pub link_ok: bool,
    /// The primary that it follows, as it reported to the Sentinel.
    pub follows: Option<Endpoint>,
    /// Its replication offset.
    pub offset: i64,
    /// Its priority for promotion.
    pub priority: i64,
    /// Whether it may be shown to clients (replica-announced).
    pub announces: bool,
}

/// Another Sentinel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub endpoint: Endpoint,
    /// Its id.
    pub id: Option<String>,
    /// The Sentinel that lists it considers it down.
    pub dead: bool,
}

/// What a Sentinel reports about its primary, and about the failover that it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The primary that it describes.
    pub primary: Option<Endpoint>,
    /// Its flags, separated by commas.
    pub flags: String,
    /// The state of its failover; not every server reports it.
    pub failover_state: Option<String>,
}

impl Shown {
    /// Whether this flag is set.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.split(',').any(|shown| shown == flag)
    }
}

/// Asks a Sentinel for its id and its view of the primary: 2 replies.
pub fn ask_shown(service: &str, out: &mut Vec<u8>) {
    encode::command(out, &[b"SENTINEL", b"MYID"]);
    encode::command(out, &[b"SENTINEL", b"MASTER", service.as_bytes()]);
}

/// The address that a Sentinel names.
pub fn named(reply: &Reply) -> Option<Endpoint> {
    let host = reply.bytes(reply.child(0, 0)?)?;
    endpoint(&String::from_utf8_lossy(host), reply.int(reply.child(0, 1)?)?)
}

/// Reads a Sentinel's view of the primary from the reply to SENTINEL MASTER.
pub fn shown(reply: &Reply) -> Option<Shown> {
    let flags = text(reply, 0, b"flags")?;
    Some(Shown { primary: address_of(reply, 0), flags, failover_state: text(reply, 0, b"failover-state") })
}

/// Asks what [`witness`] reads, after what [`ask_shown`] asks: 4 replies.
pub fn ask_witness(service: &str, out: &mut Vec<u8>) {
    ask_shown(service, out);
    encode::command(out, &[b"SENTINEL", b"SENTINELS", service.as_bytes()]);
    encode::command(out, &[b"INFO", b"sentinel"]);
}

/// The view of the primary; whether the Sentinel is in TILT; and the other Sentinels that it considers down or is not
/// connected to.
pub fn witness(replies: &[Reply]) -> Option<(Shown, bool, Vec<Peer>)> {
    let [_, primary, peers, info] = replies else { return None };
    let misses = |entry: &u32| {
        let flags = text(peers, *entry, b"flags").unwrap_or_default();
        flags.split(',').any(|flag| matches!(flag, "s_down" | "disconnected"))
    };
    let missed = entries(peers).filter(misses).filter_map(|entry| read_peer(peers, entry)).collect();
    Some((shown(primary)?, is_in_tilt(info), missed))
}

fn is_in_tilt(info: &Reply) -> bool {
    info.bytes(0).is_some_and(|info| memchr::memmem::find(info, b"sentinel_tilt:1").is_some())
}

/// The questions about a service, and how many replies they have.
pub fn questions(service: &str) -> (Vec<u8>, usize) {
    let mut out = Vec::with_capacity(256 + 4 * service.len());
    for question in ["GET-MASTER-ADDR-BY-NAME", "MASTER", "REPLICAS", "SENTINELS"] {
        encode::command(&mut out, &[b"SENTINEL", question.as_bytes(), service.as_bytes()]);
    }
    (out, QUESTIONS)
}

/// The older command for REPLICAS, if the server did not understand that one; its reply is appended to the others.
pub fn older_question(service: &str, replies: &[Reply]) -> Option<Vec<u8>> {
    let line = replies.get(REPLICAS)?.error_line(0)?.to_ascii_lowercase();
    if replies.len() > QUESTIONS || !line.starts_with(b"err unknown") {
        return None;
    }
    let mut out = Vec::with_capacity(64 + service.len());
    encode::command(&mut out, &[b"SENTINEL", b"SLAVES", service.as_bytes()]);
    Some(out)
}

/// Reads the replies to [`questions`], and that to MYID.
pub fn read(replies: &[Reply], id: &Reply, own: &OwnState, sentinel: &Endpoint) -> Result<Answer> {
    let [address, primary, replicas, peers, older @ ..] = replies else {
        return Err(Error::new(Status::Protocol, "fewer answers than questions").with_endpoint(sentinel));
    };
    let replicas = older.first().unwrap_or(replicas);
    let heard = heard(address, primary, replicas, sentinel)?;
    let is_unknown = matches!(heard, Heard::Unknown);
    Ok(Answer {
        id: read_id(id),
        tilt: own.tilt,
        heard,
        peers: entries(peers).filter_map(|entry| read_peer(peers, entry)).collect(),
        services: if is_unknown { own.services.clone() } else { Vec::new() },
        hides_services: own.refused.is_some(),
        refused: [replicas, peers, id].into_iter().filter_map(not_permitted).chain(own.refused.clone()).collect(),
    })
}

/// The id in the reply to MYID; `None` before Redis 6.2.
pub fn read_id(reply: &Reply) -> Option<String> {
    reply.bytes(0).filter(|_| reply.kind(0) != Kind::Error).map(|id| String::from_utf8_lossy(id).into_owned())
}

/// The names in lines such as `master0:name=mymaster,status=ok,...`.
fn services(info: &[u8]) -> Vec<String> {
    let text = clean_bytes(info);
    let names = text.lines().filter_map(|line| {
        let (place, rest) = line.strip_prefix("master")?.split_once(":name=")?;
        let known = place.bytes().all(|byte| byte.is_ascii_digit());
        let name = rest.rsplit_once(",status=").map_or(rest, |(name, _)| name);
        known.then(|| name.to_owned())
    });
    names.take(SERVICES).collect()
}

fn heard(address: &Reply, primary: &Reply, replicas: &Reply, sentinel: &Endpoint) -> Result<Heard> {
    if let Some(line) = address.error_line(0) {
        return Err(refused(line, sentinel));
    }
    if let Some(line) = primary.error_line(0) {
        let unknown = line.to_ascii_lowercase().starts_with(b"err no such master");
        return if unknown { Ok(Heard::Unknown) } else { Err(refused(line, sentinel)) };
    }
    if address.kind(0) == Kind::Null {
        let knows_it = text(primary, 0, b"name").is_some();
        return Ok(if knows_it { Heard::NoAddress("names no address".into()) } else { Heard::Unknown });
    }
    let pair = (|| {
        let host = address.bytes(address.child(0, 0)?)?;
        Some((String::from_utf8_lossy(host).into_owned(), address.int(address.child(0, 1)?)?))
    })();
    let (Some((host, port)), Some(epoch)) = (pair, number(primary, 0, b"config-epoch")) else {
        return Err(Error::new(Status::Protocol, "its answer has no address or no epoch").with_endpoint(sentinel));
    };
    // The leader of a failover already names the new primary while it still describes the old one.
    let stale = address_of(primary, 0).is_some_and(|described| Some(described) != endpoint(&host, port));
    match endpoint(&host, port) {
        None => Ok(Heard::NoAddress(format!("names {} port {port}, which is no address", quoted(&clean(&host))))),
        Some(announced) => Ok(Heard::Known(ServiceView {
            primary: announced,
            epoch: u64::try_from(epoch).unwrap_or(0),
            quorum: number(primary, 0, b"quorum").and_then(|quorum| u64::try_from(quorum).ok()).unwrap_or(0),
            flags: if stale { String::new() } else { text(primary, 0, b"flags").unwrap_or_default() },
            replicas: entries(replicas).filter_map(|entry| read_replica(replicas, entry)).collect(),
            unlisted: not_permitted(replicas),
        })),
    }
}

/// The refusal of a question that the user is not permitted to ask.
fn not_permitted(reply: &Reply) -> Option<String> {
    let line = reply.error_line(0).filter(|line| line.starts_with(b"NOPERM"))?;
    Some(clean_line(line))
}

/// Whether a flag is among those separated by commas.
pub fn has_flag(flags: &str, flag: &str) -> bool {
    flags.split(',').any(|each| each == flag)
}

fn refused(line: &[u8], sentinel: &Endpoint) -> Error {
    let error = Error::from_server(line, sentinel);
    let auth = line.starts_with(b"NOAUTH") || line.starts_with(b"NOPERM") || line.starts_with(b"WRONGPASS");
    if auth { error.with_status(Status::Auth) } else { error }
}

fn read_replica(reply: &Reply, entry: u32) -> Option<ReplicaAnswer> {
    let either = |new: &[u8], old: &[u8]| number(reply, entry, new).or_else(|| number(reply, entry, old));
    let hidden = |announced: String| announced == "0" || announced == "no";
    Some(ReplicaAnswer {
        announced: address_of(reply, entry)?,
        flags: text(reply, entry, b"flags").unwrap_or_default(),
        follows: endpoint(
            &text(reply, entry, b"master-host").unwrap_or_default(),
            number(reply, entry, b"master-port").unwrap_or(0),
        ),
        link_ok: text(reply, entry, b"master-link-status").is_none_or(|status| status == "ok"),
        offset: either(b"slave-repl-offset", b"replica-repl-offset").unwrap_or(0),
        priority: either(b"slave-priority", b"replica-priority").unwrap_or(100),
        announces: !text(reply, entry, b"replica-announced").is_some_and(hidden),
    })
}

/// The other Sentinels in a reply to SENTINELS.
pub fn peers(reply: &Reply) -> Vec<Peer> {
    entries(reply).filter_map(|entry| read_peer(reply, entry)).collect()
}

fn read_peer(reply: &Reply, entry: u32) -> Option<Peer> {
    let id = text(reply, entry, b"runid").filter(|id| !id.is_empty());
    let dead = text(reply, entry, b"flags")
        .is_some_and(|flags| ["s_down", "o_down"].iter().any(|down| has_flag(&flags, down)));
    Some(Peer { endpoint: address_of(reply, entry)?, id, dead })
}

/// A missing, empty or invalid address gives `None`: port 0 means "not known yet".
fn address_of(reply: &Reply, entry: u32) -> Option<Endpoint> {
    endpoint(&text(reply, entry, b"ip")?, number(reply, entry, b"port")?)
}

fn endpoint(host: &str, port: i64) -> Option<Endpoint> {
    Endpoint::tcp(host, u16::try_from(port).ok()?).ok()
}

fn entries(reply: &Reply) -> Range<u32> {
    if matches!(reply.kind(0), Kind::Array | Kind::Set) { reply.children(0) } else { 0..0 }
}

fn text(reply: &Reply, entry: u32, key: &[u8]) -> Option<String> {
    reply.bytes(reply.find(entry, key)?).map(|text| String::from_utf8_lossy(text).into_owned())
}

fn number(reply: &Reply, entry: u32, key: &[u8]) -> Option<i64> {
    reply.int(reply.find(entry, key)?)
}

/// The error of a message that was not asked for: the next one might be taken for the answer to another question.
pub(super) fn unasked(sentinel: &Endpoint) -> Error {
    Error::new(Status::Protocol, "it sent a message that was not asked for").with_endpoint(sentinel)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{Decoded, Decoder, Limits, Want};

    const MASTER: &str = "*6\r\n+name\r\n+m\r\n+flags\r\n+master,o_down\r\n+config-epoch\r\n+7\r\n";
    const ADDRESS: &str = "*2\r\n$8\r\n10.0.0.1\r\n$4\r\n6379\r\n";
    const UNKNOWN: &str = "-ERR No such master with that name\r\n";
    const NONE: &str = "*0\r\n";

    fn reply(wire: &str) -> Reply {
        match Decoder::new(Limits::default()).decode(wire.as_bytes(), Want::One).unwrap() {
            (_, Some(Decoded::Reply(reply))) => reply,
            _ => panic!("{wire:?} is no whole reply"),
        }
    }

    fn answer(wires: &[&str]) -> Result<Answer> {
        let mut replies: Vec<_> = wires.iter().map(|wire| reply(wire)).collect();
        let own = replies.split_off(4);
        read(&replies, &own[0], &OwnState::read(&own[1]), &Endpoint::tcp("s", 26379).unwrap())
    }

    #[test]
    fn an_answer_is_read_in_both_protocols() {
        let replicas =
            "*1\r\n%4\r\n+ip\r\n+10.0.0.2\r\n+port\r\n+6380\r\n+flags\r\n+slave\r\n+master-link-status\r\n+err\r\n";
        let peers =
            "*2\r\n*6\r\n+ip\r\n+10.0.0.3\r\n+port\r\n+26379\r\n+runid\r\n+abc\r\n*4\r\n+ip\r\n+x\r\n+port\r\n+0\r\n";
        let info = "$29\r\n# Sentinel\r\nsentinel_tilt:1\r\n\r\n";
        let answer = answer(&[ADDRESS, MASTER, replicas, peers, "+me\r\n", info]).unwrap();
        assert!(answer.tilt && answer.id.as_deref() == Some("me"));
        assert_eq!(
            answer.peers,
            [Peer { endpoint: Endpoint::tcp("10.0.0.3", 26379).unwrap(), id: Some("abc".into()), dead: false }]
        );
        let Heard::Known(view) = answer.heard else { panic!("{:?}", answer.heard) };
        assert_eq!((view.primary.to_string().as_str(), view.epoch), ("10.0.0.1:6379", 7));
        assert_eq!(view.flags, "master,o_down");
        assert!(!view.replicas[0].link_ok && view.replicas[0].announces && view.replicas[0].priority == 100);
    }

    #[test]
    fn a_witness_tells_of_the_primary_of_tilt_and_of_whom_it_misses() {
        let primary = "*10\r\n+ip\r\n+10.0.0.1\r\n+port\r\n+6379\r\n+flags\r\n+master,failover_in_progress\r\n\
                       +failover-state\r\n+wait_start\r\n+config-epoch\r\n+7\r\n";
        let peers = "*2\r\n*6\r\n+ip\r\n+10.0.0.3\r\n+port\r\n+26379\r\n+flags\r\n+sentinel,disconnected\r\n\
                     *6\r\n+ip\r\n+10.0.0.4\r\n+port\r\n+26379\r\n+flags\r\n+sentinel\r\n";
        let replies = ["+me\r\n", primary, peers, "+sentinel_tilt:1\r\n"].map(reply);
        let (shown, tilt, misses) = witness(&replies).unwrap();
        assert!(tilt && shown.has("failover_in_progress") && !shown.has("failover"));
        assert_eq!(shown.failover_state.as_deref(), Some("wait_start"));
        assert_eq!(shown.primary, Endpoint::tcp("10.0.0.1", 6379).ok());
        assert_eq!(misses.iter().map(|peer| peer.endpoint.to_string()).collect::<Vec<_>>(), ["10.0.0.3:26379"]);
        assert!(witness(&[reply(UNKNOWN), reply(UNKNOWN), reply(NONE), reply("+\r\n")]).is_none());
    }

    #[test]
    fn flags_of_the_primary_before_are_not_those_of_the_new_one() {
        for (described, flags) in [("10.0.0.1", "master,o_down"), ("10.0.0.9", "")] {
            let record = MASTER.replace("*6", "*10") + &format!("+ip\r\n+{described}\r\n+port\r\n+6379\r\n");
            let Heard::Known(view) = answer(&[ADDRESS, &record, NONE, NONE, "+me\r\n", "+\r\n"]).unwrap().heard else {
                panic!("it names an address")
            };
            assert_eq!(view.flags, flags);
        }
    }

    #[test]
    fn null_unknown_and_refusals_differ() {
        let unknown = answer(&["_\r\n", UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]).unwrap();
        assert!(matches!(unknown.heard, Heard::Unknown) && unknown.id.is_none());
        let null = answer(&["*-1\r\n", MASTER, NONE, NONE, "+me\r\n", "+\r\n"]).unwrap();
        assert!(matches!(null.heard, Heard::NoAddress(_)), "{:?}", null.heard);
        let port_0 = answer(&["*2\r\n+h\r\n+0\r\n", MASTER, NONE, NONE, "+me\r\n", "+\r\n"]).unwrap();
        assert!(matches!(port_0.heard, Heard::NoAddress(_)), "{:?}", port_0.heard);
        let refused = answer(&["-NOPERM no\r\n", MASTER, NONE, NONE, NONE, NONE]).unwrap_err();
        assert_eq!(refused.status(), Status::Auth);
        let strange = answer(&["+hm\r\n", MASTER, NONE, NONE, NONE, NONE]).unwrap_err();
        assert_eq!(strange.status(), Status::Protocol);
    }

    #[test]
    fn an_old_sentinel_is_asked_in_older_words_once() {
        let no = "-ERR Unknown sentinel subcommand 'REPLICAS'\r\n";
        let mut replies: Vec<_> = [ADDRESS, MASTER, no, NONE].iter().map(|wire| reply(wire)).collect();
        let older = older_question("m", &replies).unwrap();
        assert!(String::from_utf8(older).unwrap().contains("SLAVES"));
        replies.push(reply("*1\r\n*4\r\n+ip\r\n+10.0.0.2\r\n+port\r\n+6380\r\n"));
        assert!(older_question("m", &replies).is_none());
        let Heard::Known(view) =
            read(&replies, &reply(no), &OwnState::default(), &Endpoint::tcp("s", 1).unwrap()).unwrap().heard
        else {
            panic!()
        };
        assert_eq!(view.replicas.len(), 1);
    }
}
