//! Which Sentinels belong together, case by case.

use super::*;
use crate::topology::answer::ServiceView;

/// A Sentinel that answers at its own address.
struct Told {
    announced: Endpoint,
    given: bool,
    answer: Answer,
}

fn place(name: &str) -> Endpoint {
    Endpoint::tcp(name, 26379).unwrap()
}

fn primary(name: &str) -> Endpoint {
    Endpoint::tcp(name, 6379).unwrap()
}

/// "a1 A a2 a3": the Sentinel a1, with the address a1 and the id a1, names A and lists a2 and a3; "-" names nothing. A
/// star means configured: "*a1 A". "a1=id" has another id, "a1=" none. A listed Sentinel with a plus, "a2+", is dead.
fn told(text: &str) -> Told {
    let mut words = text.split(' ');
    let who = words.next().unwrap();
    let (given, who) = (who.starts_with('*'), who.trim_start_matches('*'));
    let (name, id) = who.split_once('=').unwrap_or((who, who));
    let heard = match words.next().unwrap() {
        "-" => Heard::Unknown,
        named => Heard::Known(ServiceView {
            primary: primary(named),
            epoch: 1,
            flags: "master".into(),
            quorum: 2,
            unlisted: None,
            replicas: Vec::new(),
        }),
    };
    let peer = |word: &str| {
        let (dead, word) = (word.ends_with('+'), word.trim_end_matches('+'));
        let (name, id) = word.split_once('=').unwrap_or((word, word));
        Peer { endpoint: place(name), id: Some(id.to_owned()).filter(|id| !id.is_empty()), dead }
    };
    let id = Some(id.to_owned()).filter(|id| !id.is_empty());
    let answer = Answer {
        id,
        tilt: false,
        heard,
        peers: words.map(peer).collect(),
        services: Vec::new(),
        hides_services: false,
        refused: Vec::new(),
    };
    Told { announced: place(name), given, answer }
}

fn speaker(told: &Told) -> Speaker {
    let identity = Identity::new(told.answer.id.as_deref(), &told.announced);
    Speaker { identity, announced: told.announced.clone() }
}

/// A client that has joined these Sentinels.
fn joined(texts: &[&str]) -> Membership {
    let mut membership = Membership::default();
    membership.note(texts.iter().map(|text| speaker(&told(text))).collect(), Vec::new());
    membership
}

fn decide(texts: &[&str], membership: &Membership, known: Option<&str>) -> Electorate {
    decide_of(texts, membership, known, texts.iter().filter(|text| text.starts_with('*')).count())
}

/// The same if the configuration names so many, whether they answer or not.
fn decide_of(texts: &[&str], membership: &Membership, known: Option<&str>, given: usize) -> Electorate {
    let all: Vec<_> = texts.iter().map(|text| told(text)).collect();
    let mut seats = Vec::new();
    for (index, told) in all.iter().enumerate() {
        seats.push(Seat { index, announced: &told.announced, given: told.given, answer: &told.answer });
    }
    choose(&seats, membership, given, known.map(primary).as_ref())
}

/// "ours | strangers" by their addresses, "torn", or "foreign" with those that answered.
fn short(texts: &[&str], electorate: &Electorate) -> String {
    let names = |indices: &[usize]| {
        let mut indices = indices.to_vec();
        indices.sort_unstable();
        let name = |index: usize| texts[index].split([' ', '=']).next().unwrap().trim_start_matches('*');
        indices.into_iter().map(name).collect::<Vec<_>>().join(" ")
    };
    match electorate {
        Electorate::Ours { ours, strangers } => format!("{} | {}", names(ours), names(strangers)),
        Electorate::Torn(_) => String::from("torn"),
        Electorate::Foreign { strangers, .. } => format!("foreign {}", names(strangers)),
    }
}

#[track_caller]
fn check(texts: &[&str], membership: &Membership, known: Option<&str>, expected: &str) {
    let choice = decide(texts, membership, known);
    assert_eq!(short(texts, &choice), expected, "{texts:?}: {choice:?}");
}

#[track_caller]
fn fresh(texts: &[&str], expected: &str) {
    check(texts, &Membership::default(), None, expected);
}

const A: [&str; 3] = ["*a1 A a2 a3", "*a2 A a1 a3", "a3 A a1 a2"];
const B: [&str; 3] = ["b1 B b2 b3", "b2 B b1 b3", "*b3 B b1 b2"];

fn both() -> Vec<&'static str> {
    A.iter().chain(&B).copied().collect()
}

#[test]
fn the_deployment_of_most_given_sentinels_is_right() {
    fresh(&both(), "a1 a2 a3 | b1 b2 b3");
    // However many were learned on the other side.
    fresh(&["*a1 A", "*a2 A", "b1 B b2 b3 b4", "b2 B", "*b3 B", "b4 B"], "a1 a2 | b1 b2 b3 b4");
    fresh(&["*a1 A a2", "*b3 B b1", "*b1 B b3"], "b3 b1 | a1");
}

#[test]
fn as_many_on_both_sides_is_an_error_that_names_both() {
    let texts = ["*a1 A a2 a3", "a2 A a1 a3", "b1 B b3", "*b3 B b1"];
    let Electorate::Torn(why) = decide(&texts, &Membership::default(), None) else { panic!() };
    for part in ["a1:26379", "a2:26379", "b1:26379", "b3:26379", "a:6379", "b:6379", "sentinel.addrs"] {
        assert!(why.contains(part), "{part}: {why}");
    }
}

#[test]
fn one_side_that_lists_the_other_is_enough() {
    fresh(&["*s1 A s2", "*s2 B"], "s1 s2 | ");
    fresh(&["*s1 A", "*s2 B s1"], "s1 s2 | ");
    // Linked by a third one.
    fresh(&["*s1 A s3", "*s2 B s3", "s3 A"], "s1 s2 s3 | ");
}

#[test]
fn dead_entries_make_no_link() {
    fresh(&["*a1 A a2 b1+", "*b1 B b2", "*a2 A"], "a1 a2 | b1");
    fresh(&["*a1 A a2 b1", "*b1 B b2", "*a2 A"], "a1 b1 a2 | ");
}

#[test]
fn ids_count_and_addresses_where_there_are_none() {
    // It is configured by name, and listed by address.
    fresh(&["*name=i1 A ip2=i2", "*ip2=i2 B", "*s3 B"], "name ip2 s3 | ");
    // Another Sentinel has its address.
    fresh(&["*s1 A s2=i2", "*s2=i9 B x", "*s3 A s1"], "s1 s3 | s2");
    // Before 6.2: no Sentinel gives its id, but others list it.
    fresh(&["*s1= A s2=i2", "*s2= B"], "s1 s2 | ");
    fresh(&["*s1= A s9=i2", "*s2= B", "*s3= A"], "s1 s3 | s2");
}

#[test]
fn that_nobody_lists_anybody_yet_is_no_conflict() {
    // Just started: the usual rules judge.
    fresh(&["*s1 A", "*s2 B", "*s3 A"], "s1 s2 s3 | ");
    // One side after a RESET, and a new Sentinel among old ones.
    fresh(&["*s1 A", "*s2 A s1 s3", "*s3 A s2"], "s1 s2 s3 | ");
    fresh(&["*s1 A", "*s2 A s3", "s3 A s2"], "s1 s2 s3 | ");
    // A Sentinel that does not know the service does no harm.
    fresh(&["*s1 -", "*s2 A s3", "*s3 A s2"], "s1 s2 s3 | ");
}

#[test]
fn one_id_with_two_primaries_is_a_conflict() {
    // A copied configuration: the ids of A's Sentinels at those of B.
    let copy = ["*a1=i1 A a2=i2", "*a2=i2 A a1=i1", "*b1=i1 B b2=i2", "b2=i2 B b1=i1"];
    fresh(&copy, "a1 a2 | b1 b2");
    fresh(&["*a1=i1 A", "*b1=i1 B"], "torn");
    // A Sentinel that switched between two questions, behind a load balancer: the others list it at its own address.
    fresh(&["*lb=i1 A p2=i2", "p1=i1 B p2=i2", "p2=i2 A p1=i1"], "lb p1 p2 | ");
    // A running client tells them apart by address.
    check(&copy, &joined(&["a1=i1 A", "a2=i2 A"]), Some("A"), "a1 a2 | b1 b2");
}

#[test]
fn a_running_client_stays_with_the_ids_that_it_has_joined() {
    let of_a = joined(&["a1 A", "a2 A", "a3 A"]);
    check(&both(), &of_a, Some("A"), "a1 a2 a3 | b1 b2 b3");
    // While one of them answers, however many configured ones are on the other side.
    check(&["a3 A a1 a2", "*b1 B b2", "*b2 B b1"], &of_a, Some("A"), "a3 | b1 b2");
    // They may disagree: that is a failover, or a partition.
    check(&["a1 A a2+", "a2 X a3 a1+", "a3 X a2"], &of_a, Some("A"), "a1 a2 a3 | ");
    // A Sentinel that was moved to B does not bring B's others along.
    check(&["a1 A a2 a3", "a2 A a1 a3", "a3 B b1 b2", "b1 B a3", "b2 B a3"], &of_a, Some("A"), "a1 a2 a3 | ");
    // A new Sentinel counts as soon as it agrees, or as most of them are linked with it.
    check(&["a1 A a2", "a2 A a1", "a4 A"], &of_a, Some("A"), "a1 a2 a4 | ");
    check(&["a1 A a2", "a2 X a1 a4", "a4 X a1"], &of_a, Some("A"), "a1 a2 a4 | ");
    check(&["a1 A a2", "a2 X a1 a4", "a4 X"], &of_a, Some("A"), "a1 a2 | ");
}

#[test]
fn members_that_were_not_reached_before_count_when_they_know_better() {
    // The client started on the smaller side of a partition.
    check(&["*a1 A a2 a3", "*a2 B a1 a3", "*a3 B a1 a2"], &joined(&["a1 A"]), Some("A"), "a1 a2 a3 | ");
    // Two were rebuilt with new ids; the third still lists their old ones.
    let of_a = joined(&["a1 A", "a2 A", "a3 A"]);
    check(&["*a1 A a2+ a3+", "*a2=n2 B a1 a3=n3", "*a3=n3 B a1 a2=n2"], &of_a, Some("A"), "a1 a2 a3 | ");
}

#[test]
fn others_take_over_from_a_silent_deployment_only_by_what_is_configured() {
    let of_a = joined(&["a1 A", "a2 A", "a3 A"]);
    let with_given = |texts: &[&str], given| short(texts, &decide_of(texts, &of_a, Some("A"), given));
    // The Sentinel of another deployment among three configured ones, while A's are silent.
    assert_eq!(with_given(&["b1 B b3", "*b3 B b1"], 3), "foreign b1 b3");
    // The configured names now lead to another deployment.
    assert_eq!(with_given(&["*n1 N n2", "*n2 N n1"], 3), "n1 n2 | ");
    // Rebuilt with new ids; one is back already, and names the known primary.
    assert_eq!(with_given(&["*r1 A"], 3), "r1 | ");
}

#[test]
fn strangers_are_known_by_id_and_by_address_where_both_sides_share_one() {
    let who = |text: &str| speaker(&told(text));
    let mut membership = Membership::default();
    assert!(membership.is_new());
    membership.note(vec![who("a1=i1 A")], vec![who("b1=i1 B"), who("b2 B")]);
    assert!(membership.is_stranger(&who("elsewhere=b2 B")) && membership.is_stranger(&who("b1=i1 B")));
    assert!(!membership.is_stranger(&who("a1=i1 A")) && !membership.is_stranger(&who("a9 A")));
    // A Sentinel that joins is no stranger any more; and the memory is limited.
    membership.note(vec![who("b2 A")], Vec::new());
    assert!(!membership.is_stranger(&who("b2 A")) && !membership.is_new());
    for number in 0..1000 {
        membership.note(vec![who(&format!("s{number} A"))], vec![who(&format!("x{number} B"))]);
    }
    assert_eq!((membership.joined.len(), membership.strangers.len()), (REMEMBERED, REMEMBERED));
    assert!(membership.is_stranger(&who("x999 B")) && !membership.is_stranger(&who("x1 B")));
}

#[test]
fn one_that_has_just_restarted_belongs_to_those_who_still_hold_it_for_down() {
    let new = Membership::default();
    let counted = |texts: &[&str]| match decide(texts, &new, None) {
        Electorate::Ours { ours, strangers } => Some((ours.len(), strangers.len())),
        _ => None,
    };
    assert_eq!(counted(&["*a1 old", "*a2 new a1+ a3", "a3 new a1+ a2"]), Some((3, 0)));
    // One that lists others has moved to them.
    assert_eq!(counted(&["*a1 old b2", "*a2 new a1+ a3", "a3 new a1+ a2"]), None);
}
