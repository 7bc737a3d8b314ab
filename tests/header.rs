//! include/vigie.h: it is what the sources give, every compiler and every language takes it, and each function is documented.

#[path = "../abi/header.rs"]
mod abi_header;
mod clib;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use vigie::error::Status;
use vigie::ffi::types;
use vigie::time::Timeout;

fn header() -> String {
    std::fs::read_to_string(clib::root().join("include/vigie.h")).expect("include/vigie.h can be read")
}

/// The functions of the header: name, prototype on one line, comment.
fn functions(header: &str) -> Vec<(String, String, String)> {
    functions_in(header.split("extern \"C\" {").nth(1).expect("the header has an extern \"C\" block"))
}

fn functions_in(body: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for (at, _) in body.match_indices("\n/**\n") {
        let (comment, rest) = body[at..].split_once("*/\n").expect("comments end");
        let prototype = rest.split_once(';').expect("a prototype follows each comment").0;
        let prototype = prototype.split_whitespace().collect::<Vec<_>>().join(" ");
        let name = prototype.split('(').next().and_then(|head| head.rsplit([' ', '*']).next()).expect("it has a name");
        found.push((name.to_owned(), prototype, comment.to_owned()));
    }
    found
}

#[test]
fn the_header_is_what_the_sources_give() {
    let made = abi_header::generate(clib::root(), env!("CARGO_PKG_VERSION"));
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(clib::root().join("include/vigie.h"), &made).expect("include/vigie.h can be written");
    }
    assert!(
        made == header(),
        "include/vigie.h is not what the sources give: run `make header` and look at the difference"
    );
}

#[test]
fn the_exports_are_the_functions_of_the_header() {
    let header = header();
    let functions = functions(&header);
    let prototypes = header
        .lines()
        .filter(|line| line.ends_with(");") && ![" *", "typedef "].iter().any(|head| line.starts_with(head)))
        .count();
    assert_eq!(functions.len(), prototypes, "every function of the header was found");
    let exports = clib::exports();
    assert!(exports.is_sorted(), "abi/exports.txt is sorted");
    let mut names: Vec<_> = functions.iter().map(|(name, ..)| name.clone()).collect();
    names.sort();
    assert_eq!(names, exports.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
}

#[test]
fn every_section_holds_the_functions_of_its_noun() {
    let header = header();
    let sections: Vec<&str> = header.split("\n/* ---- ").skip(1).collect();
    let titles: Vec<&str> = sections.iter().map(|section| section.split([' ', ':']).next().unwrap()).collect();
    assert_eq!(
        titles,
        [
            "the",
            "errors",
            "configuration",
            "sentinels",
            "clients",
            "shards",
            "calls",
            "scans",
            "command",
            "replies",
            "queues",
            "publish",
            "jobs"
        ],
        "the titles in their order"
    );
    let nouns: [&[&str]; 13] = [
        &["version", "has", "status", "threads"],
        &["error"],
        &["config"],
        &["sentinel"],
        &["primary", "replica", "split", "session", "cmd", "cmds", "client"],
        &["shards", "client"],
        &["call"],
        &["scan"],
        &["batch"],
        &["reply"],
        &["queue", "events"],
        &["sub"],
        &["jobs"],
    ];
    for (section, nouns) in sections.iter().zip(nouns) {
        let names: Vec<_> = functions_in(section).into_iter().map(|(name, ..)| name).collect();
        assert!(!names.is_empty(), "an empty section: {section}");
        for name in names {
            let noun = name.split('_').nth(1).unwrap();
            assert!(nouns.contains(&noun), "{name} stands in the section of {nouns:?}");
        }
    }
}

#[test]
fn every_function_says_what_a_caller_must_know() {
    let since: BTreeMap<_, _> = clib::exports().into_iter().collect();
    for (name, prototype, comment) in functions(&header()) {
        let lengths = ["size_t", "timeout_ms", "_len"].iter().any(|word| prototype.contains(word));
        let sections = ["Ownership: ", "Blocks: ", "Threads: ", "Errors: ", "Since: "];
        for section in sections.into_iter().chain(lengths.then_some("Lengths: ")) {
            assert!(comment.contains(&format!("\n * {section}")), "{name} does not say {section:?}");
        }
        assert!(
            comment.contains(&format!(" * Since: {}.\n", since[&name])),
            "{name}: Since and abi/exports.txt differ"
        );
        let meaning = comment.trim_start_matches("\n/**\n * ").split("\n * Ownership").next().unwrap_or_default();
        assert!(meaning.len() > 15, "{name} does not say what it does");
    }
}

/// What the header and the library have to agree on, as assertions of the C compiler.
fn agreement() -> String {
    let mut code = String::from("#include \"vigie.h\"\n#define SAME(a, b) _Static_assert((a) == (b), #a)\n");
    let mut same = |name: &str, value: i64| writeln!(code, "SAME({name}, ({value}));").expect("a String takes it");
    for info in Status::ALL {
        same(info.name, i64::from(info.status.code()));
    }
    for (i, part) in ["MAJOR", "MINOR", "PATCH"].iter().enumerate() {
        let number = env!("CARGO_PKG_VERSION").split('.').nth(i).and_then(|part| part.parse().ok());
        same(&format!("VIGIE_VERSION_{part}"), number.expect("the version has three numbers"));
    }
    same("VIGIE_OK", 0);
    same("VIGIE_TIMEOUT_DEFAULT", Timeout::DEFAULT_MS);
    same("VIGIE_TIMEOUT_NONE", Timeout::NONE_MS);
    same("VIGIE_NONE", i64::from(types::NO_NODE));
    same("VIGIE_EF_MAYBE_EXECUTED", i64::from(vigie::error::flags::MAYBE_EXECUTED));
    same("VIGIE_EVENT_COMPLETION", i64::from(vigie::queue::kind::COMPLETION));
    same("VIGIE_CALL_EACH", i64::from(vigie::client::CallFlags::EACH));
    same("VIGIE_CALL_SLOW", types::vigie_call_flag::VIGIE_CALL_SLOW as i64);
    same("VIGIE_CALL_ALL", types::vigie_call_flag::VIGIE_CALL_ALL as i64);
    same("VIGIE_CALL_TYPED", types::vigie_call_flag::VIGIE_CALL_TYPED as i64);
    same("VIGIE_SERVICES_FOLLOW", types::vigie_services_flag::VIGIE_SERVICES_FOLLOW as i64);
    same("VIGIE_CALL_REPLICAS(255)", 255 << 24);
    same("VIGIE_CALL_REPLICAS(1)", 1 << 24);
    for wrong in ["256", "300", "-1", "0x100000001"] {
        same(&format!("VIGIE_CALL_REPLICAS({wrong})"), 1 << 23);
    }
    same("VIGIE_TYPE_PUSH", types::vigie_type::VIGIE_TYPE_PUSH as i64);
    same("sizeof(vigie_status)", 4);
    same("sizeof(vigie_node)", 24);
    for (field, offset) in [("type", 0), ("flags", 1), ("reserved", 2), ("count", 4), ("value", 8), ("len", 16)] {
        same(&format!("offsetof(vigie_node, {field})"), offset);
    }
    same("VIGIE_EVENT_TOPOLOGY", i64::from(vigie::queue::kind::TOPOLOGY));
    same("VIGIE_EVENT_NOTICE", i64::from(vigie::queue::kind::NOTICE));
    same("VIGIE_EVENT_SENTINEL", i64::from(vigie::queue::kind::SENTINEL));
    same("VIGIE_EVENT_CONNECTION", i64::from(vigie::queue::kind::CONNECTION));
    same("VIGIE_EVENT_LOG", i64::from(vigie::queue::kind::LOG));
    same("VIGIE_EVENT_ALL", i64::from(vigie::topology::WATCHABLE));
    let fields = ["kind", "", "token", "reply", "error", "nodes", "data", "node_count", "data_len"];
    same("offsetof(vigie_event, status)", 4);
    same("sizeof(vigie_packed_event)", 64);
    let packed = [("size", 0), ("token", 8), ("kind", 16), ("status", 20), ("error_flags", 24), ("node_count", 28)];
    for (field, offset) in packed.into_iter().chain([("data_len", 32), ("root", 40)]) {
        same(&format!("offsetof(vigie_packed_event, {field})"), offset);
    }
    if cfg!(target_pointer_width = "64") {
        same("sizeof(vigie_event)", 64);
        for (i, field) in fields.iter().enumerate().filter(|(_, field)| !field.is_empty()) {
            same(&format!("offsetof(vigie_event, {field})"), if i == 0 { 0 } else { 8 * (i as i64 - 1) });
        }
    }
    code
}

#[test]
fn numbers_and_layouts_agree() {
    let file = clib::scratch("header").join("agreement.c");
    std::fs::write(&file, agreement()).expect("the program can be written");
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I"]);
    clib::succeed(cc.arg(clib::root().join("include")).arg(file), "gcc");
}

#[test]
fn every_standard_compiles_it_without_a_warning() {
    let use_it = "#include \"vigie.h\"\nint main(void) { uint32_t flags = VIGIE_CALL_SLOW | VIGIE_CALL_NO_RETRY;\n\
                  flags |= VIGIE_CALL_REPLICAS(2);\n\
                  return vigie_version_number() == VIGIE_VERSION_NUMBER && flags != VIGIE_ROOT && VIGIE_TIMEOUT_NONE > 0 ? 0 : 1; }\n";
    let macros = "#include \"vigie.h\"\nint run(vigie_client *c); int run(vigie_client *c) {\n\
                  return vigie_cmd_exec(c, VIGIE_CMD(\"SET\", \"k\", \"v\"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, NULL); }\n";
    let dir = clib::scratch("header");
    let compilers = [
        ("cc", "gcc", "c", &["c89", "c99", "c11", "c17"][..]),
        ("c++", "g++", "cc", &["c++11", "c++14", "c++17", "c++20"]),
    ];
    for (compiler, package, ending, standards) in compilers {
        let file = dir.join("standards").with_extension(ending);
        for standard in standards {
            let macros = if *standard == "c89" { "" } else { macros };
            std::fs::write(&file, format!("{use_it}{macros}")).expect("the program can be written");
            let mut cc = Command::new(compiler);
            cc.arg(format!("-std={standard}")).args(["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]);
            cc.arg("-fsyntax-only").arg("-I").arg(clib::root().join("include")).arg(&file);
            clib::succeed(&mut cc, package);
        }
    }
}

/// What those who only read the header would get wrong without it.
#[test]
fn what_readers_have_missed_is_said() {
    let header = header();
    let all = functions(&header);
    for (name, words) in [
        ("vigie_queue_drain", "-1 too, which means no limit to poll()"),
        ("vigie_sentinel_create", "that is no Sentinel, is tried again until the time is over"),
        ("vigie_sentinel_watch", "followed as soon as a client is made for it"),
        ("vigie_sentinel_watch", "VIGIE_EVENT_ALL"),
        ("vigie_replica_for", "cursor"),
        ("vigie_cmds_exec", "VIGIE_ERR_SERVER only with VIGIE_CALL_EACH"),
        ("vigie_cmd_exec", "timeout.call (5 s) as a grace"),
        ("vigie_cmd_exec", "or no Sentinel tells of one, the call waits"),
        ("vigie_error_message", "where a server refuses a new connection"),
    ] {
        let (_, _, comment) = all.iter().find(|(known, ..)| known == name).expect("a function");
        let comment = comment.replace("\n *", " ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(comment.contains(words), "{name} does not say {words:?}: {comment}");
    }
    let (before, _) = header.split_once("VIGIE_EVENT_DEGRADED =").expect("a kind");
    let comment = before.rsplit("/**").next().unwrap_or_default();
    assert!(comment.contains("nothing holds writes back"), "{comment}");
}

/// Also where the whole header is in an extern "C" block, and where an argument must not be evaluated twice.
#[test]
fn vigie_cmd_gives_the_same_in_c_and_in_cpp() {
    let code = r#"
#ifdef __cplusplus
extern "C" {
#endif
#include "vigie.h"
#ifdef __cplusplus
}
#endif
#include <stdio.h>
#include <string.h>
static int asked = 0;
static const char *key(void) { ++asked; return "k"; }
static int right(size_t argc, const char *const *argv, const size_t *argvlen) {
  return argc == 3 && argvlen == NULL && !strcmp(argv[0], "SET") && !strcmp(argv[1], "k") && !strcmp(argv[2], "value");
}
int main(void) {
  char value[] = "value";
  int fine = right(VIGIE_CMD("SET", key(), value));
  printf("%d %d", fine, asked);
  return 0;
}
"#;
    let dir = clib::scratch("header");
    for (compiler, package, ending, standard) in [("cc", "gcc", "c", "c99"), ("c++", "g++", "cc", "c++11")] {
        let (file, program) = (dir.join("cmd").with_extension(ending), dir.join(format!("cmd-{ending}")));
        std::fs::write(&file, code).expect("the program can be written");
        let mut cc = Command::new(compiler);
        cc.arg(format!("-std={standard}")).args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2", "-I"]);
        cc.arg(clib::root().join("include")).arg(&file).arg("-o").arg(&program);
        clib::succeed(&mut cc, package);
        assert_eq!(clib::succeed(&mut Command::new(program), "a C compiler"), "1 1", "{standard}");
    }
}

/// The header as the preprocessor gives it, without the system's own declarations.
fn preprocessed() -> std::path::PathBuf {
    let dir = clib::scratch("header");
    for name in ["stddef.h", "stdint.h"] {
        std::fs::write(dir.join(name), "").expect("an empty header can be written");
    }
    let mut cc = Command::new("cc");
    cc.args(["-E", "-P", "-nostdinc", "-D__attribute__(x)=", "-I"]).arg(&dir).arg(clib::root().join("include/vigie.h"));
    let file = dir.join("preprocessed.h");
    std::fs::write(&file, clib::succeed(&mut cc, "gcc")).expect("the header can be written");
    file
}

#[test]
fn cffi_takes_the_whole_header() {
    let python = Command::new("python3").args(["-c", "import cffi"]).output().is_ok_and(|out| out.status.success());
    assert!(python, "cffi is not installed for python3: install python3-cffi, or run `pip install cffi`");
    let mut command = Command::new("python3");
    command.arg(clib::root().join("tests/c/header_cffi.py")).arg(preprocessed());
    command.arg(clib::library().join("libvigie.so")).args(clib::exports().into_iter().map(|(name, _)| name));
    assert_eq!(clib::succeed(&mut command, "python3").trim(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn koffi_takes_the_whole_header() {
    let modules = clib::root().join("tests/languages/node_modules");
    let mut node = Command::new("node");
    node.env("NODE_PATH", &modules).args(["-e", "require('koffi')"]);
    let there = node.output().is_ok_and(|out| out.status.success());
    assert!(there, "koffi is not installed for node: run `npm install --prefix tests/languages koffi`");
    let mut command = Command::new("node");
    command.env("NODE_PATH", &modules).arg(clib::root().join("tests/c/header_koffi.js")).arg(preprocessed());
    command.arg(clib::library().join("libvigie.so")).args(clib::exports().into_iter().map(|(name, _)| name));
    assert_eq!(clib::succeed(&mut command, "nodejs").trim(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn an_ordinary_build_needs_no_cbindgen() {
    let mut tree = Command::new(env!("CARGO"));
    tree.current_dir(clib::root()).args(["tree", "--edges", "normal,build", "--prefix", "none"]);
    let tree = clib::succeed(&mut tree, "cargo");
    assert!(tree.contains("libc v") && !tree.contains("cbindgen"), "{tree}");
}
