//! What `make install` gives: a library that links in every way, shows the API and nothing else, and goes without a trace.

use crate::installed;

use installed::{C_FLAGS, Prefix, cc, fresh_dir, make, root, run, text_of};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Uses the library without any server: a version, a setting that is refused, its error.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <string.h>
#include <vigie.h>
int main(void) {
  vigie_config *config = vigie_config_new();
  vigie_error *err = NULL;
  int refused = vigie_config_set(config, "no.such.key", "1", &err) == VIGIE_ERR_CONFIG;
  int told = strstr(vigie_error_message(err), "no.such.key") != NULL;
  printf("%s %d %d\n", vigie_version(), refused, told);
  vigie_error_free(err);
  vigie_config_free(config);
  return 0;
}
"#;

/// The same through vigie.hpp.
const CPP_PROGRAM: &str = r#"
#include <iostream>
#include <vigie.hpp>
int main() {
  try {
    vigie::config config{{"no.such.key", "1"}};
  } catch (const vigie::usage_error &error) {
    std::cout << vigie_version() << (error.status() == VIGIE_ERR_CONFIG ? " 1" : " 0")
              << (error.message().find("no.such.key") != std::string_view::npos ? " 1" : " 0") << std::endl;
  }
}
"#;

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn program(dir: &Path) -> PathBuf {
    let source = dir.join("program.c");
    fs::write(&source, PROGRAM).expect("the directory is ours");
    source
}

#[track_caller]
fn assert_runs(program: &Path) {
    assert_eq!(text_of(&mut Command::new(program)), format!("{} 1 1\n", version()));
}

/// The symbols of abi/exports.txt.
fn exports() -> BTreeSet<String> {
    let list = fs::read_to_string(root().join("abi/exports.txt")).expect("abi/exports.txt");
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// The last column of what nm prints, for defined symbols; its own headings and versions are left out.
fn defined(flags: &[&str], file: &Path) -> BTreeSet<String> {
    let text = text_of(Command::new("nm").args(flags).arg("--defined-only").arg(file));
    let symbols = text.lines().filter(|line| line.split_whitespace().count() == 3);
    symbols.filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect()
}

#[test]
fn pkg_config_links_dynamic_and_static_programs() {
    let (dir, prefix) = (fresh_dir("pkg-config"), Prefix::install("pkg-config-prefix", "lib"));
    let source = program(&dir);

    prefix.compile(&source, &dir.join("dynamic"));
    assert_runs(&dir.join("dynamic"));
    let needed = text_of(Command::new("readelf").arg("-d").arg(dir.join("dynamic")));
    assert!(needed.contains("[libvigie.so.0.1]"), "{needed}");

    // Everything static, libc included.
    let flags = prefix.pkg_config(&["--static", "--cflags", "--libs"]);
    run(cc().args(C_FLAGS).arg("-static").arg(&source).args(flags).arg("-o").arg(dir.join("static")));
    assert_runs(&dir.join("static"));

    // Only vigie static: the archive named in the place of the library.
    let flags = prefix.pkg_config(&["--static", "--cflags", "--libs"]);
    let flags = flags.iter().map(|flag| if flag == "-lvigie" { "-l:libvigie.a" } else { flag });
    run(cc().args(C_FLAGS).arg(&source).args(flags).arg("-o").arg(dir.join("archive")));
    assert_runs(&dir.join("archive"));
    let needed = text_of(Command::new("readelf").arg("-d").arg(dir.join("archive")));
    assert!(!needed.contains("libvigie"), "{needed}");
    assert_eq!(prefix.pkg_config(&["--modversion"]), [version()]);
}

/// A project with one program for each target; asked for with `wanted` as version.
fn cmake(dir: &Path, prefix: &Path, wanted: &str) -> Command {
    let lists = format!(
        "cmake_minimum_required(VERSION 3.16)\nproject(app C CXX)\nfind_package(vigie {wanted} REQUIRED)\n\
         add_executable(shared program.c)\ntarget_link_libraries(shared PRIVATE vigie::shared)\n\
         add_executable(static program.c)\ntarget_link_libraries(static PRIVATE vigie::static)\n\
         add_executable(cpp program.cpp)\ntarget_link_libraries(cpp PRIVATE vigie::cpp)\n"
    );
    fs::write(dir.join("program.cpp"), CPP_PROGRAM).expect("the directory is ours");
    fs::write(dir.join("CMakeLists.txt"), lists).expect("the directory is ours");
    let _ = fs::remove_dir_all(dir.join("out"));
    let mut command = Command::new("cmake");
    command.arg("-S").arg(dir).arg("-B").arg(dir.join("out")).arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()));
    command
}

#[track_caller]
fn assert_cmake_builds(dir: &Path, prefix: &Path) {
    run(&mut cmake(dir, prefix, "0.1"));
    run(Command::new("cmake").arg("--build").arg(dir.join("out")));
    assert_runs(&dir.join("out/shared"));
    assert_runs(&dir.join("out/static"));
    assert_runs(&dir.join("out/cpp"));
}

#[test]
fn cmake_finds_both_targets_wherever_the_prefix_is() {
    let (dir, prefix) = (fresh_dir("cmake"), Prefix::install("cmake-prefix", "lib"));
    program(&dir);
    assert_cmake_builds(&dir, &prefix.root);

    let moved = Prefix { root: fresh_dir("cmake-moved").join("somewhere"), lib: PathBuf::new() };
    fs::rename(&prefix.root, &moved.root).expect("the same file system");
    assert_cmake_builds(&dir, &moved.root);

    for wrong in ["0.2", "1.0", "0.0", "0.1.999"] {
        let output = cmake(&dir, &moved.root, wrong).output().expect("cmake runs");
        assert!(!output.status.success(), "version {wrong} was accepted");
    }
}

#[test]
fn destdir_and_libdir_are_honoured() {
    let stage = fresh_dir("stage");
    let places = [format!("DESTDIR={}", stage.display()), "PREFIX=/usr".into(), "LIBDIR=lib/x86_64-linux-gnu".into()];
    make(&[&["install".to_owned()], &places[..]].concat());
    let lib = stage.join("usr/lib/x86_64-linux-gnu");
    for file in ["libvigie.so", "libvigie.so.0.1", "libvigie.a", "cmake/vigie/vigie-config.cmake"] {
        assert!(lib.join(file).exists(), "{file} is missing in {lib:?}");
    }
    for header in ["vigie.h", "vigie.hpp", "vigie/error.hpp"] {
        assert!(stage.join("usr/include").join(header).exists(), "{header} is missing");
    }
    assert!(stage.join("usr/share/doc/vigie/THIRD-PARTY").exists(), "the licences of what is inside");
    for page in ["CONFIGURATION.md", "ERRORS.md", "sharding.md", "migrate.md", "jobs.md"] {
        assert!(stage.join("usr/share/doc/vigie").join(page).exists(), "{page}");
    }
    let doctor = stage.join("usr/bin/vigie-doctor");
    assert_eq!(text_of(Command::new(&doctor).arg("--version")), format!("vigie-doctor {}\n", version()));
    assert_traceless(&doctor);
    for program in ["vigie-doctor", "vigie-migrate", "resp-gen"] {
        assert_traceless(&stage.join("usr/bin").join(program));
        assert!(stage.join(format!("usr/share/man/man1/{program}.1")).exists(), "the manual of {program}");
    }
    let migrate = stage.join("usr/bin/vigie-migrate");
    assert_eq!(text_of(Command::new(&migrate).arg("--version")), format!("vigie-migrate {}\n", version()));
    let pc = fs::read_to_string(lib.join("pkgconfig/vigie.pc")).expect("vigie.pc");
    assert!(
        pc.starts_with("prefix=/usr\nlibdir=${prefix}/lib/x86_64-linux-gnu\nincludedir=${prefix}/include\n"),
        "{pc}"
    );
    assert!(!pc.contains("stage"), "the staging directory is in vigie.pc:\n{pc}");

    // A program of the staged tree, as packagers test it; the CMake config finds its way by itself.
    let dir = fresh_dir("stage-program");
    program(&dir);
    let mut configure = cmake(&dir, &stage.join("usr"), "0.1");
    run(configure.arg("-DCMAKE_LIBRARY_ARCHITECTURE=x86_64-linux-gnu"));
    run(Command::new("cmake").arg("--build").arg(dir.join("out")));
    assert_runs(&dir.join("out/shared"));

    make(&[&["uninstall".to_owned()], &places[..]].concat());
    let left = text_of(Command::new("find").arg(&stage).args(["-not", "-type", "d"]));
    assert_eq!(left, "", "uninstall left files");
}

#[test]
fn uninstall_leaves_nothing() {
    let prefix = Prefix::install("uninstall-prefix", "lib64");
    let neighbour = prefix.lib.join("pkgconfig/other.pc");
    fs::write(&neighbour, "").expect("the directory is ours");
    let places = [format!("PREFIX={}", prefix.root.display()), "LIBDIR=lib64".into()];
    make(&[&["uninstall".to_owned()], &places[..]].concat());
    let left = text_of(Command::new("find").arg(&prefix.root).args(["-not", "-type", "d"]));
    assert_eq!(left.trim(), neighbour.to_string_lossy(), "another package's file stays, nothing of ours does");
    assert!(!prefix.lib.join("cmake").exists(), "an empty directory is left");
}

#[test]
fn the_shared_library_shows_the_api_and_nothing_else() {
    let library = Prefix::shared().library();
    assert_eq!(library.file_name().and_then(|n| n.to_str()), Some(&*format!("libvigie.so.{}", version())));
    let versioned: BTreeSet<String> = exports().iter().map(|name| format!("{name}@@VIGIE_0.1")).collect();
    let mut found = defined(&["-D"], &library);
    found.remove("VIGIE_0.1"); // the version itself
    assert_eq!(found, versioned);

    let dynamic = text_of(Command::new("readelf").args(["-d", "-W"]).arg(&library));
    assert!(dynamic.contains("soname: [libvigie.so.0.1]"), "{dynamic}");
    assert!(dynamic.contains("NODELETE") && dynamic.contains("NOW"), "{dynamic}");
    assert!(!dynamic.contains("RPATH") && !dynamic.contains("RUNPATH") && !dynamic.contains("TEXTREL"), "{dynamic}");
    for line in dynamic.lines().filter(|line| line.contains("(NEEDED)")) {
        let of_the_system =
            ["[libc.so", "[libgcc_s.so", "[libm.so", "[ld-linux"].iter().any(|name| line.contains(name));
        assert!(of_the_system, "needs more than the C library: {line}");
    }
    let segments = text_of(Command::new("readelf").args(["-l", "-W"]).arg(&library));
    assert!(segments.contains("GNU_RELRO"), "{segments}");
    let stack = segments.lines().find(|line| line.contains("GNU_STACK")).expect("a GNU_STACK line");
    assert!(!stack.contains('E') || !stack.contains("RWE"), "an executable stack: {stack}");
}

#[test]
fn the_archive_shows_the_api_and_nothing_else() {
    assert_eq!(defined(&["-g"], &Prefix::shared().lib.join("libvigie.a")), exports());
}

#[test]
fn row_figure_the_stripped_library_is_small() {
    let copy = fresh_dir("stripped").join("libvigie.so");
    run(Command::new("strip").arg("-o").arg(&copy).arg(Prefix::shared().library()));
    let size = fs::metadata(&copy).expect("strip wrote it").len();
    assert!(size < 4_000_000, "{size} bytes stripped");
}

#[test]
fn no_path_of_the_machine_and_no_debug_information_is_installed() {
    let prefix = Prefix::shared();
    assert_traceless(&prefix.library());
    assert_traceless(&prefix.lib.join("libvigie.a"));
}

/// No path of this machine, and no debug information.
#[track_caller]
fn assert_traceless(file: &Path) {
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME")).expect("a home");
    let bytes = fs::read(file).expect("installed");
    for path in [root().to_str().expect("text"), &home] {
        let found = bytes.windows(path.len()).position(|window| window == path.as_bytes());
        let around = found.map(|at| String::from_utf8_lossy(&bytes[at..(at + 80).min(bytes.len())]).into_owned());
        assert!(path == "/" || found.is_none(), "{file:?} holds the path {path}: {around:?}");
    }
    let sections = text_of(Command::new("readelf").args(["-S", "-W"]).arg(file));
    assert!(!sections.contains(".debug_info"), "{file:?} holds debug information");
}

/// Two archives with a Rust runtime each, perhaps of different compilers, must not clash whichever comes first.
#[test]
fn another_rust_archive_links_beside_ours_in_both_orders() {
    let dir = fresh_dir("beside");
    let other = "#[unsafe(no_mangle)]\npub extern \"C\" fn other_answer() -> i32 {\n    \
                 std::panic::set_hook(Box::new(|_| ()));\n    \
                 std::panic::catch_unwind(|| { let none: Option<i32> = std::env::args().nth(99).map(|_| 1); none.unwrap() }).unwrap_or(42)\n}\n";
    let main = "#include <stdio.h>\n#include <vigie.h>\nint other_answer(void);\n\
                int main(void) {\n  printf(\"%s %d\\n\", vigie_version(), other_answer());\n  return 0;\n}\n";
    fs::write(dir.join("other.rs"), other).expect("the directory is ours");
    fs::write(dir.join("main.c"), main).expect("the directory is ours");
    let archive = dir.join("libother.a");
    run(Command::new("rustc")
        .args(["--edition=2024", "--crate-type=staticlib", "-o"])
        .arg(&archive)
        .arg(dir.join("other.rs")));

    let ours = Prefix::shared().lib.join("libvigie.a");
    let include = format!("-I{}", Prefix::shared().root.join("include").display());
    for (name, order) in [("ours-first", [&ours, &archive]), ("ours-last", [&archive, &ours])] {
        let out = dir.join(name);
        let system = ["-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-o"];
        run(cc().arg(&include).arg(dir.join("main.c")).args(order).args(system).arg(&out));
        assert_eq!(text_of(&mut Command::new(&out)), format!("{} 42\n", version()), "{name}");
    }
}

/// The paths that programs without an installed library use.
#[test]
fn the_build_directory_can_be_used_as_it_is() {
    make(&["all"]);
    let dir = fresh_dir("build-dir");
    let source = program(&dir);
    let (lib, include) = (root().join("build"), root().join("include"));
    let rpath = format!("-Wl,-rpath,{}", lib.display());
    let mut command = cc();
    command.args(C_FLAGS).arg(&source).arg("-I").arg(include).arg("-L").arg(&lib).args(["-lvigie", &rpath, "-o"]);
    run(command.arg(dir.join("program")));
    assert_runs(&dir.join("program"));
}

/// What `cargo cinstall` reads; the header that it installs is the committed one.
#[test]
fn cargo_c_finds_its_settings() {
    let mut metadata = Command::new(env!("CARGO"));
    metadata.current_dir(root()).args(["metadata", "--no-deps", "--format-version", "1"]);
    let text = text_of(&mut metadata);
    let settings = text.split("\"capi\":{").nth(1).expect("package.metadata.capi");
    assert!(settings.contains("\"generation\":false") && settings.contains("include/vigie.h"), "{settings}");
    assert!(text.contains("\"capi\":[]"), "the feature that build.rs looks at");
}

/// Without packages to install, setup ends with what to do, and nothing is half done.
#[test]
fn setup_says_what_is_missing_when_it_may_not_install() {
    let tools = fresh_dir("tools");
    for tool in ["bash", "env", "dirname", "id", "mkdir", "make", "cc", "pkg-config", "ld", "cargo", "find", "head"] {
        let found = text_of(Command::new("sh").args(["-c", &format!("command -v {tool}")]));
        std::os::unix::fs::symlink(found.trim(), tools.join(tool)).expect("the directory is ours");
    }
    let copy = fresh_dir("setup");
    fs::create_dir(copy.join("scripts")).expect("the directory is ours");
    fs::copy(root().join("scripts/setup"), copy.join("scripts/setup")).expect("the directory is ours");
    let output = Command::new(copy.join("scripts/setup")).arg("demo").env("PATH", &tools).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("redis-server is missing: install the package redis-server"), "{said}");
    assert!(!said.contains("cargo is missing") && !said.contains("command not found"), "{said}");
}
