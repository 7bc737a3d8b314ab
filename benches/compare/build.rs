//! Finds the installed libvigie (VIGIE_PREFIX, or pkg-config) and the system's hiredis, builds the shims for what only a C or C++
//! compiler knows, and notes the versions that the tables name. redis-plus-plus is taken if its headers are there.

use std::env;
use std::process::Command;

fn main() {
    for input in ["build.rs", "Cargo.lock", "src/shim/engine.c", "src/shim/hiredis.c", "src/shim/redispp.cpp"] {
        println!("cargo:rerun-if-changed={input}");
    }
    for variable in ["VIGIE_PREFIX", "PKG_CONFIG_PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let libdir = vigie_libdir();
    println!("cargo:rustc-link-search=native={libdir}");
    println!("cargo:rustc-link-arg-bins=-Wl,-rpath,{libdir}");
    println!("cargo:rustc-link-lib=dylib=vigie");

    cc::Build::new().file("src/shim/hiredis.c").std("c99").extra_warnings(true).compile("shim_hiredis");
    println!("cargo:rustc-link-lib=dylib=hiredis");
    cc::Build::new().file("src/shim/engine.c").std("c11").extra_warnings(true).compile("shim_engine");

    println!("cargo:rustc-check-cfg=cfg(redispp)");
    if let Some(version) = redispp() {
        cc::Build::new().cpp(true).std("c++17").file("src/shim/redispp.cpp").compile("shim_redispp");
        println!("cargo:rustc-link-lib=dylib=redis++");
        println!("cargo:rustc-cfg=redispp");
        println!("cargo:rustc-env=REDISPP_VERSION={version}");
    }

    let rustc = env::var("RUSTC").expect("cargo sets it");
    let rustc = output(&rustc, &["--version"]).expect("rustc says its version");
    println!("cargo:rustc-env=RUSTC_VERSION={}", rustc.split(' ').nth(1).unwrap_or("unknown"));
    let lock = std::fs::read_to_string("Cargo.lock").expect("Cargo.lock is there");
    for (name, variable) in [("redis", "REDIS_RS_VERSION"), ("fred", "FRED_VERSION")] {
        println!("cargo:rustc-env={variable}={}", locked(&lock, name));
    }
}

/// What a program prints, if it succeeds.
fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn vigie_libdir() -> String {
    if let Ok(prefix) = env::var("VIGIE_PREFIX") {
        return format!("{prefix}/lib");
    }
    output("pkg-config", &["--variable=libdir", "vigie"])
        .expect("libvigie is not installed: set VIGIE_PREFIX, or PKG_CONFIG_PATH to where vigie.pc is")
}

fn redispp() -> Option<String> {
    output("pkg-config", &["--modversion", "redis++"])
}

/// The version of a package in the lock file; of several the one that stands first.
fn locked(lock: &str, name: &str) -> String {
    let entry = format!("name = \"{name}\"\nversion = \"");
    let version = lock.split(&entry).nth(1).and_then(|rest| rest.split('"').next());
    version.expect("the lock file names all dependencies").to_owned()
}
