//! Which files use each other in a circle, found from the paths in the sources.
//!
//! Guarantees: every `use`, and every path that begins with `crate::`, `super::` or the name of a child module, counts, at
//! whatever depth; a re-export counts as the file that it leads to, and is no use by itself. A component with more than one
//! file is a set of files none of which can be read before the others. Leaves to others: blanking comments, strings and unit tests.

use std::collections::{BTreeMap, BTreeSet};

type Module = Vec<String>;

/// The files of the crate: each file's path below `src`, with its code.
pub struct Crate {
    files: BTreeMap<Module, (String, String)>,
    reexports: BTreeMap<Module, (Module, Vec<String>)>,
}

impl Crate {
    pub fn new(sources: Vec<(String, String)>) -> Self {
        let files: BTreeMap<_, _> = sources.into_iter().map(|(name, code)| (module(&name), (name, code))).collect();
        let mut reexports = BTreeMap::new();
        for (me, (_, code)) in &files {
            for (path, is_public) in uses(code) {
                if let Some(last) = path.last().filter(|_| is_public) {
                    reexports.insert(child(me, last), (me.clone(), path.clone()));
                }
            }
        }
        Self { files, reexports }
    }

    /// Sets of files that use each other, directly or through others of the set.
    pub fn components(&self) -> Vec<Vec<String>> {
        let edges: BTreeMap<_, _> = self.files.keys().map(|me| (me, self.used_by(me))).collect();
        let reach: BTreeMap<_, _> = edges.keys().map(|me| (*me, reachable(&edges, me))).collect();
        let mut found = BTreeSet::new();
        for me in edges.keys() {
            let both = |other: &&&Module| reach[**other].contains(*me);
            let together: BTreeSet<_> =
                reach[*me].iter().filter(both).map(|other| self.files[*other].0.clone()).collect();
            if together.len() > 1 {
                found.insert(together);
            }
        }
        found.into_iter().map(|set| set.into_iter().collect()).collect()
    }

    fn used_by(&self, me: &Module) -> BTreeSet<&Module> {
        let code = &self.files[me].1;
        let paths = uses(code).into_iter().filter(|(_, is_public)| !is_public).map(|(path, _)| path);
        let found = paths.chain(inline(code)).filter_map(|path| self.resolve(me, &path, 0));
        found.filter(|used| *used != me && !used.is_empty()).collect()
    }

    /// The file in which a path ends; `None` if that is not of this crate.
    fn resolve(&self, me: &Module, path: &[String], depth: usize) -> Option<&Module> {
        let (mut at, mut rest) = match path.first().map(String::as_str) {
            Some("crate") => (Vec::new(), &path[1..]),
            Some("self") => (me.clone(), &path[1..]),
            Some("super") => {
                let up = path.iter().take_while(|name| *name == "super").count();
                (me[..me.len().saturating_sub(up)].to_vec(), &path[up..])
            }
            Some(name) if self.files.contains_key(&child(me, name)) => (me.clone(), path),
            _ => return None,
        };
        while let Some(name) = rest.first().filter(|name| self.files.contains_key(&child(&at, name))) {
            at = child(&at, name);
            rest = &rest[1..];
        }
        let reexport = rest.first().and_then(|name| self.reexports.get(&child(&at, name)));
        let led = reexport.filter(|_| depth < 8).and_then(|(owner, path)| self.resolve(owner, path, depth + 1));
        led.or_else(|| self.files.get_key_value(&at).map(|(known, _)| known))
    }
}

fn reachable<'a>(edges: &BTreeMap<&'a Module, BTreeSet<&'a Module>>, from: &'a Module) -> BTreeSet<&'a Module> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(at) = next.pop() {
        next.extend(edges[at].iter().filter(|used| seen.insert(**used)));
    }
    seen
}

/// `a/mod.rs` and `a.rs` are the module a, `a/b.rs` is a::b, `lib.rs` is the crate.
fn module(name: &str) -> Module {
    let mut parts: Vec<_> = name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod" || last == "lib") {
        parts.pop();
    }
    parts
}

fn child(of: &[String], name: &str) -> Module {
    of.iter().cloned().chain([name.to_owned()]).collect()
}

/// The paths of all `use` declarations, and whether they are re-exports.
fn uses(code: &str) -> Vec<(Vec<String>, bool)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let before = code[..at].trim_end_matches(' ');
        let line = &before[before.rfind(['\n', ';', '}']).map_or(0, |end| end + 1)..];
        let is_public = line.trim_start().starts_with("pub");
        if !(line.trim().is_empty() || is_public) {
            continue;
        }
        let tree = &code[at + 4..];
        let tree = &tree[..tree.find(';').unwrap_or(tree.len())];
        let mut paths = Vec::new();
        expand(&[], tree, &mut paths);
        found.extend(paths.into_iter().map(|path| (path, is_public)));
    }
    found
}

/// `a::{b, c::{d, e as f}}` gives a::b, a::c::d and a::c::e.
fn expand(prefix: &[String], tree: &str, found: &mut Vec<Vec<String>>) {
    for part in split(tree) {
        let (path, group) = match part.split_once('{') {
            Some((path, group)) => (path, Some(group.trim_end().strip_suffix('}').unwrap_or(group))),
            None => (part.split(" as ").next().unwrap_or(part), None),
        };
        let names = path.split("::").map(str::trim).filter(|name| !name.is_empty() && *name != "self");
        let mut whole = prefix.to_vec();
        // `self` at the beginning is a place, in a group it is the path before it.
        whole.extend(path.trim().starts_with("self::").then(|| "self".to_owned()));
        whole.extend(names.map(str::to_owned));
        match group {
            Some(group) => expand(&whole, group, found),
            None if whole.is_empty() => {}
            None => found.push(whole),
        }
    }
}

/// The parts between the commas that stand in no group.
fn split(tree: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(tree[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(tree[from..].trim());
    parts.into_iter().filter(|part| !part.is_empty()).collect()
}

/// The paths in the code itself, those of `use` declarations aside.
fn inline(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for line in code.lines().filter(|line| !line.trim_start().trim_start_matches("pub ").starts_with("use ")) {
        let mut rest = line;
        while let Some(at) = rest.find("::") {
            let head = &rest[..at];
            let first = &head[head.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |end| end + 1)..];
            let tail: String =
                rest[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
            let names = tail.split("::").filter(|name| !name.is_empty()).map(str::to_owned);
            found.push([first.to_owned()].into_iter().chain(names).collect());
            rest = &rest[at + tail.len()..];
        }
    }
    found.retain(|path: &Vec<String>| !path[0].is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn components(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let own = |(name, code): &(&str, &str)| (name.to_string(), code.to_string());
        Crate::new(files.iter().map(own).collect()).components()
    }

    #[test]
    fn each_form_of_a_path_closes_a_circle() {
        let forms = [
            "use crate::a::b::X;",
            "use super::b;",
            "use super::{c, b::{X, Y as Z}};",
            "use crate::{a::{c, b}, d};",
            "fn f() { super::b::g() }",
            "fn f(x: crate::a::b::X) {}",
            "fn f() { h(crate::a::X) }",
            "use super::X;",
            "use super::X as Y;",
            "use crate::a as z;\nuse crate::{\n    a::X,\n};",
        ];
        for form in forms {
            let found = components(&[
                ("lib.rs", "mod a;"),
                ("a/mod.rs", "mod b;\npub use b::X;"),
                ("a/b.rs", "use super::c::Y;"),
                ("a/c.rs", form),
            ]);
            assert_eq!(found, [["a/b.rs", "a/c.rs"]], "{form:?}");
        }
    }

    #[test]
    fn a_chain_is_no_circle() {
        let found = components(&[
            ("a/mod.rs", "mod b;\nmod c;\npub use b::X;\nuse c::Y;"),
            ("a/b.rs", "use super::c::Y;\nuse std::sync::a;"),
            ("a/c.rs", "use crate::d::X;"),
            ("d.rs", "pub struct X;"),
        ]);
        assert_eq!(found, Vec::<Vec<String>>::new());
    }

    #[test]
    fn three_in_a_row_are_found_over_rooms() {
        let found = components(&[
            ("a.rs", "use crate::b::c::X;"),
            ("b/mod.rs", "mod c;"),
            ("b/c.rs", "fn f() { crate::d::g() }"),
            ("d.rs", "use super::a;"),
        ]);
        assert_eq!(found, [["a.rs", "b/c.rs", "d.rs"]]);
    }
}
