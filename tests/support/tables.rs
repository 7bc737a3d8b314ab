//! Compares maps with their tables, from which the pages for users are generated.
//!
//! Not part of the kit, which never uses the library under test: test files take it in with `#[path]`.
#![allow(dead_code)]

use std::collections::BTreeSet;

use vigie::queue::{Event, kind};
use vigie::resp::fields::{FieldInfo, MapInfo};
use vigie::resp::{Kind, Reply};
use vigie::topology::{connection_causes, connection_map, event_causes, event_maps};

/// The keys that were seen, as `map.key`, and those that had a value.
#[derive(Default)]
pub struct Seen {
    pub keys: BTreeSet<String>,
    pub values: BTreeSet<String>,
}

impl Seen {
    /// A map has exactly the keys of its table, in their order, with values of their types; so have the maps in it.
    #[track_caller]
    pub fn check(&mut self, reply: &Reply, id: u32, map: &MapInfo, all: &[MapInfo]) {
        assert_eq!(reply.kind(id), Kind::Map, "{}", map.name);
        let ids: Vec<u32> = reply.children(id).collect();
        let keys: Vec<_> = ids.chunks(2).map(|pair| word(reply, pair[0])).collect();
        let wanted: Vec<_> = map.fields.iter().map(|field| field.key).collect();
        assert_eq!(keys, wanted, "the keys of {}", map.name);
        for (pair, field) in ids.chunks(2).zip(&map.fields) {
            self.check_value(reply, pair[1], map.name, field, all);
        }
    }

    #[track_caller]
    fn check_value(&mut self, reply: &Reply, id: u32, map: &str, field: &FieldInfo, all: &[MapInfo]) {
        let key = format!("{map}.{}", field.key);
        self.keys.insert(key.clone());
        match (reply.kind(id), field.type_name) {
            (Kind::Null, _) if field.nullable => return,
            (Kind::Int, "int") | (Kind::Bool, "bool") | (Kind::String, "text") => {}
            (Kind::Array, "maps") => {
                let inner = all.iter().find(|one| Some(one.name) == field.maps).expect("the table of the inner maps");
                reply.children(id).for_each(|child| self.check(reply, child, inner, all));
            }
            (kind, wanted) => panic!("{key} is {kind:?}, not {wanted} (may be null: {})", field.nullable),
        }
        self.values.insert(key);
    }

    /// Every key of the tables was seen.
    #[track_caller]
    pub fn is_all_of(&self, all: &[MapInfo]) {
        for map in all {
            for field in &map.fields {
                let key = format!("{}.{}", map.name, field.key);
                assert!(self.keys.contains(&key), "{key} was never seen");
            }
        }
    }
}

fn word(reply: &Reply, id: u32) -> String {
    String::from_utf8_lossy(reply.bytes(id).unwrap_or_default()).into_owned()
}

/// An event of a watch follows its table, and its cause is one of its kind, or a Sentinel's channel.
#[track_caller]
pub fn check_event(event: &Event, seen: &mut Seen) {
    let maps = event_maps();
    let maps: Vec<_> = maps.into_iter().chain([connection_map()]).collect();
    let Some((_, map)) = maps.iter().find(|(kind, _)| *kind == event.kind) else { return };
    let reply = event.outcome.as_ref().expect("no error").as_ref().expect("a map");
    seen.check(reply, 0, map, &[]);
    let cause = word(reply, reply.find(0, b"cause").expect("a cause"));
    let of_connection = || event.kind == kind::CONNECTION && connection_causes().any(|(word, _)| word == cause);
    let is_own = event_causes().iter().any(|own| own.word == cause && own.kinds & event.kind != 0) || of_connection();
    let says = kind::FENCE | kind::NOTICE | kind::REPLICA | kind::SENTINEL;
    assert!(is_own || (cause.starts_with(['+', '-']) && event.kind & says != 0), "{}: the cause {cause}", map.name);
}
