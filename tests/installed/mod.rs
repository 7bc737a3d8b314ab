//! The library as its users get it: built and installed by `make`, and C programs compiled against it.
//!
//! Included by the tests that need it with `mod installed;`. Only one `make` runs at a time, whoever starts it.
#![allow(dead_code)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, OnceLock, PoisonError};

/// How every C program of this repository is compiled.
pub const C_FLAGS: &[&str] = &["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g"];

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command to its end; a failure fails the test with all that it printed.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let output =
        command.output().unwrap_or_else(|e| panic!("{command:?} cannot be started ({e}): run scripts/setup test"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}\n{out}{err}", output.status);
    output
}

/// What a command prints.
#[track_caller]
pub fn text_of(command: &mut Command) -> String {
    String::from_utf8(run(command).stdout).expect("text")
}

/// Runs `make` with nothing of this test's own environment that would change the build or the places.
#[track_caller]
pub fn make<S: AsRef<OsStr>>(arguments: &[S]) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    fs::create_dir_all(root().join("build")).expect("build/ can be made");
    let lock = File::create(root().join("build/lock")).expect("build/ is ours");
    // SAFETY: the descriptor is open for as long as `lock` lives; closing it gives the lock back.
    assert_eq!(unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) }, 0);

    let mut command = Command::new("make");
    command.arg("-C").arg(root()).args(arguments);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours =
            text.starts_with("CARGO") && text != "CARGO_HOME" || text.starts_with("MAKE") || text.starts_with("MFLAGS");
        if ours || ["PREFIX", "DESTDIR", "LIBDIR", "INCLUDEDIR", "LD_LIBRARY_PATH"].contains(&&*text) {
            command.env_remove(&name);
        }
    }
    run(&mut command);
}

/// An installed library.
pub struct Prefix {
    /// The prefix itself.
    pub root: PathBuf,
    /// Where the libraries are.
    pub lib: PathBuf,
}

impl Prefix {
    /// Installs to a fresh directory of the given name; `lib` is below it.
    #[track_caller]
    pub fn install(name: &str, lib: &str) -> Prefix {
        let root = fresh_dir(name);
        // The program beside it is built and installed by one test: it takes a build of its own.
        let places = [format!("PREFIX={}", root.display()), format!("LIBDIR={lib}")];
        make(&[&["install".to_owned(), "DOCTOR=0".to_owned()], &places[..]].concat());
        Prefix { lib: root.join(lib), root }
    }

    /// The prefix that the tests of one program share.
    pub fn shared() -> &'static Prefix {
        static SHARED: OnceLock<Prefix> = OnceLock::new();
        SHARED.get_or_init(|| Prefix::install(concat!("shared-", env!("CARGO_CRATE_NAME")), "lib"))
    }

    /// The shared library's file.
    pub fn library(&self) -> PathBuf {
        self.lib.join("libvigie.so").canonicalize().expect("libvigie.so leads to a file")
    }

    /// What pkg-config answers for this library and no other.
    #[track_caller]
    pub fn pkg_config(&self, arguments: &[&str]) -> Vec<String> {
        let mut command = Command::new("pkg-config");
        command.args(arguments).arg("vigie").env("PKG_CONFIG_PATH", self.lib.join("pkgconfig"));
        text_of(&mut command).split_whitespace().map(str::to_owned).collect()
    }

    /// Compiles a C program against the shared library, found by pkg-config; it runs as it is.
    #[track_caller]
    pub fn compile(&self, source: &Path, out: &Path) {
        let rpath = format!("-Wl,-rpath,{}", self.lib.display());
        let flags = self.pkg_config(&["--cflags", "--libs"]);
        run(cc().args(C_FLAGS).arg(source).args(flags).args([&rpath, "-lpthread", "-o"]).arg(out));
    }
}

impl Drop for Prefix {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// The C compiler.
pub fn cc() -> Command {
    Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()))
}

/// An empty directory for this test, below target/.
pub fn fresh_dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("target/ is ours");
    dir
}
