//! Gives the shared library of `cargo build` its soname; writes include/vigie.h when the feature `header` asks for it.
//!
//! An ordinary build neither needs cbindgen nor writes outside its target directory.

use std::env;

#[cfg(feature = "header")]
#[path = "abi/header.rs"]
mod header;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=Cargo.toml");
    shared_library();
    #[cfg(feature = "header")]
    write_header();
}

/// cargo sets no soname, and programs would record the file's name; cargo-c brings flags of its own.
fn shared_library() {
    let linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if !linux || env::var_os("CARGO_FEATURE_CAPI").is_some() {
        return;
    }
    let part = |name: &str| env::var(name).unwrap_or_default();
    let version = match part("CARGO_PKG_VERSION_MAJOR").as_str() {
        "0" => format!("0.{}", part("CARGO_PKG_VERSION_MINOR")),
        major => major.to_owned(),
    };
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libvigie.so.{version}");
    // Library threads outlive dlclose, so the code must stay mapped.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}

#[cfg(feature = "header")]
fn write_header() {
    for path in ["src/ffi", "cbindgen.toml", "abi/header.rs", "include/vigie.h"] {
        println!("cargo:rerun-if-changed={path}");
    }
    let root = std::path::PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let text = header::generate(&root, &env::var("CARGO_PKG_VERSION").expect("cargo sets it"));
    let path = root.join("include/vigie.h");
    if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
        std::fs::write(&path, text).expect("include/vigie.h can be written");
    }
}
