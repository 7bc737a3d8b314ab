//! What the libraries export is what abi/exports.txt lists: no more, no less, from the shared and from the static one.

use crate::clib;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;

/// The libraries as they are installed, made by the Makefile (which does nothing when they are up to date).
fn installed() -> PathBuf {
    static MADE: Once = Once::new();
    MADE.call_once(|| {
        clib::succeed(Command::new("make").current_dir(clib::root()).args(["--silent", "all"]), "make");
    });
    clib::root().join("build")
}

fn listed() -> Vec<String> {
    clib::exports().into_iter().map(|(name, _)| name).collect()
}

/// The defined symbols that `nm` shows, without the names of versions.
fn symbols(nm: &mut Command) -> Vec<String> {
    let text = clib::succeed(nm, "binutils");
    let name =
        |line: &str| line.split_whitespace().nth(2).map(|name| name.split('@').next().unwrap_or(name).to_owned());
    let mut names: Vec<_> = text.lines().filter_map(name).filter(|name| !name.starts_with("VIGIE_")).collect();
    names.sort();
    names
}

#[test]
fn the_shared_library_exports_the_list() {
    let library = installed().join("libvigie.so");
    assert_eq!(symbols(Command::new("nm").args(["-D", "--defined-only"]).arg(&library)), listed());
    let version: Vec<_> = env!("CARGO_PKG_VERSION").split('.').collect();
    let soname = if version[0] == "0" { format!("0.{}", version[1]) } else { version[0].to_owned() };
    assert_eq!(clib::soname(&library), format!("libvigie.so.{soname}"));
    let dynamic = clib::succeed(Command::new("readelf").arg("-d").arg(&library), "binutils");
    assert!(dynamic.contains("NODELETE"), "library threads outlive dlclose: the library is linked with -z nodelete");
}

#[test]
fn the_static_library_exports_the_list() {
    let library = installed().join("libvigie.a");
    assert_eq!(symbols(Command::new("nm").args(["-g", "--defined-only"]).arg(&library)), listed());
}

#[test]
fn the_library_of_cargo_exports_the_list() {
    let library = clib::library().join("libvigie.so");
    assert_eq!(symbols(Command::new("nm").args(["-D", "--defined-only"]).arg(&library)), listed());
}
