//! Maps that are described by a table: each key with its type, its unit and its meaning.
//!
//! Guarantees: a map has the keys of its table, in their order, with values of their types; the pages for users are generated from
//! the same table. Leaves to others: the tables (client, topology).

use std::borrow::Cow;

use super::build::ReplyBuilder;

/// A key of a map, and how its value is made.
pub struct Field<T> {
    key: &'static str,
    value: Value<T>,
    unit: &'static str,
    text: &'static str,
    since: &'static str,
}

/// The type of a value, and how it is taken from the subject of the map.
pub enum Value<T> {
    /// INT.
    Int(fn(&T) -> i64),
    /// INT or NULL.
    IntOrNull(fn(&T) -> Option<i64>),
    /// BOOL.
    Bool(fn(&T) -> bool),
    /// BOOL or NULL.
    BoolOrNull(fn(&T) -> Option<bool>),
    /// STRING.
    Text(for<'a> fn(&'a T) -> Cow<'a, str>),
    /// STRING or NULL.
    TextOrNull(for<'a> fn(&'a T) -> Option<Cow<'a, str>>),
    /// ARRAY of maps, which the table of this name describes; the function writes them one after the other.
    Maps(&'static str, fn(&T, &mut ReplyBuilder)),
}

/// A key as the pages and the tests see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldInfo {
    /// The key.
    pub key: &'static str,
    /// int, bool, text or maps.
    pub type_name: &'static str,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// The table that describes the maps of an array.
    pub maps: Option<&'static str>,
    /// Its unit; "" if it has none.
    pub unit: &'static str,
    /// What it says.
    pub text: &'static str,
    /// The version that brought it.
    pub since: &'static str,
}

/// A map as the pages and the tests see it.
#[derive(Debug, Clone)]
pub struct MapInfo {
    /// Its name among the maps of its page.
    pub name: &'static str,
    /// Its keys, in their order.
    pub fields: Vec<FieldInfo>,
}

/// A key since the first version.
pub const fn field<T>(key: &'static str, value: Value<T>, unit: &'static str, text: &'static str) -> Field<T> {
    Field { key, value, unit, text, since: "0.1.0" }
}

/// Writes a map by its table.
#[inline(never)]
pub fn write<T>(out: &mut ReplyBuilder, fields: &[Field<T>], of: &T) {
    out.map();
    append(out, fields, of);
    out.end();
}

/// Writes the keys and values of a map that is open.
pub fn append<T>(out: &mut ReplyBuilder, fields: &[Field<T>], of: &T) {
    for field in fields {
        out.text(field.key);
        field.value.write(out, of);
    }
}

/// Describes a map by its table.
pub fn describe<T>(name: &'static str, fields: &[Field<T>]) -> MapInfo {
    let info = |field: &Field<T>| {
        let (type_name, nullable, maps) = field.value.info();
        let Field { key, unit, text, since, .. } = *field;
        FieldInfo { key, type_name, nullable, maps, unit, text, since }
    };
    MapInfo { name, fields: fields.iter().map(info).collect() }
}

impl<T> Value<T> {
    fn write(&self, out: &mut ReplyBuilder, of: &T) {
        match self {
            Self::Int(get) => out.int(get(of)),
            Self::IntOrNull(get) => match get(of) {
                Some(value) => out.int(value),
                None => out.null(),
            },
            Self::Bool(get) => out.bool(get(of)),
            Self::BoolOrNull(get) => match get(of) {
                Some(value) => out.bool(value),
                None => out.null(),
            },
            Self::Text(get) => out.text(&get(of)),
            Self::TextOrNull(get) => match get(of) {
                Some(value) => out.text(&value),
                None => out.null(),
            },
            Self::Maps(_, write) => {
                out.array();
                write(of, out);
                out.end()
            }
        };
    }

    fn info(&self) -> (&'static str, bool, Option<&'static str>) {
        match self {
            Self::Int(_) => ("int", false, None),
            Self::IntOrNull(_) => ("int", true, None),
            Self::Bool(_) => ("bool", false, None),
            Self::BoolOrNull(_) => ("bool", true, None),
            Self::Text(_) => ("text", false, None),
            Self::TextOrNull(_) => ("text", true, None),
            Self::Maps(name, _) => ("maps", false, Some(name)),
        }
    }
}
