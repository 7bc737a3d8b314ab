//! The library from C: each program of tests/c runs against a real deployment: plainly and under valgrind with the library as it is
//! installed, and with ASan and UBSan against a debug build, which checks more.

use crate::clib;
use crate::installed::Prefix;
use crate::support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::Deployment;

/// How a program is built and run.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Plain,
    Valgrind,
    Sanitized,
}

/// The service of every deployment here.
const SERVICE: &str = "orders";

/// The library for programs of this mode.
fn library(mode: Mode) -> &'static Path {
    if mode == Mode::Sanitized { clib::library() } else { &Prefix::shared().lib }
}

/// The environment of a program: names and values.
type Environment = Vec<(&'static str, String)>;

fn compile(name: &str, mode: Mode, library: &Path, linked: bool) -> PathBuf {
    let sources = clib::root().join("tests/c");
    let sanitizer = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];
    let ending = if mode == Mode::Sanitized { "-sanitized" } else { "" };
    let flavour = library.file_name().expect("the library's directory has a name").to_string_lossy();
    let program = clib::scratch("c_api").join(format!("{name}-{flavour}{ending}-{:?}", std::thread::current().id()));
    let mut cc = Command::new("cc");
    cc.args(["-std=c99", "-g", "-Wall", "-Wextra", "-Werror"]).arg("-I").arg(clib::root().join("include"));
    if mode == Mode::Sanitized {
        cc.args(sanitizer);
    }
    cc.arg(sources.join(name).with_extension("c")).arg("-o").arg(&program).args(["-pthread", "-ldl"]);
    if linked {
        cc.arg("-L").arg(library).arg("-lvigie").arg(format!("-Wl,-rpath,{}", library.display()));
    }
    clib::succeed(&mut cc, "gcc");
    program
}

/// Blocks that valgrind itself takes for leaks, and loses together with another block.
const LEAKS: &str = "definite,indirect,possible";

/// `leaks`: the kinds of leaks that are errors.
fn command(program: &Path, mode: Mode, leaks: Option<&str>) -> Command {
    if mode != Mode::Valgrind {
        let mut command = Command::new(program);
        command.env("ASAN_OPTIONS", format!("detect_leaks={}:abort_on_error=0:exitcode=99", u8::from(leaks.is_some())));
        return command;
    }
    let mut command = Command::new("valgrind");
    command.args(["--tool=memcheck", "--quiet", "--error-exitcode=99", "--track-origins=no", "--fair-sched=yes"]);
    if let Some(kinds) = leaks {
        command.arg("--leak-check=full");
        command.args([format!("--show-leak-kinds={kinds}"), format!("--errors-for-leak-kinds={kinds}")]);
    }
    command.arg(program);
    command
}

/// Compiles and runs one program. It must exit with status 0, which a signal (SIGPIPE) would prevent.
fn run(name: &str, mode: Mode, environment: &Environment) {
    let linked = name != "dlopen";
    let program = compile(name, mode, library(mode), linked);
    // Memory that is in use when main returns cannot have been freed; and a forked child loses the threads of its
    // parent with all that they hold (the sanitizer looks only at the parent).
    // The stacks of threads that are running at the end, as after dlclose, are possibly lost.
    let leaks = match name {
        "exit_during_call" => None,
        "fork" if mode == Mode::Valgrind => None,
        "dlopen" => Some("definite,indirect"),
        _ => Some(LEAKS),
    };
    let mut command = command(&program, mode, leaks);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    clib::succeed(&mut command, if mode == Mode::Valgrind { "valgrind" } else { "gcc" });
}

/// A deployment and what the programs need to find it.
fn deployment(name: &str) -> (Deployment, Environment) {
    started(Deployment::new(name))
}

/// The same, with TLS only.
#[cfg(feature = "tls")]
fn deployment_with_tls(name: &str) -> (support::Ca, Deployment, Environment) {
    let ca = support::Ca::new();
    let plan = support::TlsPlan { ca: ca.file(), pair: ca.local("server"), wants_clients: false };
    let (deployment, mut environment) = started(Deployment::new(name).tls(plan.clone()).sentinel_tls(plan));
    environment.push(("VIGIE_TEST_TLS_CA", ca.file()));
    (ca, deployment, environment)
}

fn started(builder: support::deployment::Builder) -> (Deployment, Environment) {
    let deployment = builder.services([SERVICE]).start();
    let environment = vec![
        ("VIGIE_TEST_SENTINELS", deployment.sentinel_addrs().join(",")),
        ("VIGIE_TEST_SERVICE", SERVICE.to_owned()),
        ("VIGIE_TEST_LIBRARY", library(Mode::Plain).join("libvigie.so").to_string_lossy().into_owned()),
    ];
    (deployment, environment)
}

#[test]
fn each_function_is_called_by_the_programs() {
    for program in ["api_once", "api_null"] {
        let path = clib::root().join("tests/c").join(program).with_extension("c");
        let text = std::fs::read_to_string(&path).expect("the program can be read")
            + &std::fs::read_to_string(path.with_file_name("common.h")).expect("common.h can be read");
        for (name, _) in clib::exports() {
            let needs_nothing = ["vigie_version", "vigie_version_number", "vigie_threads_join", "vigie_config_new"];
            let called = text.contains(&format!("{name}("))
                || text.contains(&format!("{name},"))
                || text.contains(&format!("{name}}}"));
            assert!(called || needs_nothing.contains(&name.as_str()), "{program}.c does not call {name}");
        }
    }
}

#[test]
fn row_149_null_and_rubbish_give_an_error_that_names_the_argument() {
    for mode in [Mode::Plain, Mode::Valgrind, Mode::Sanitized] {
        run("api_null", mode, &Vec::new());
    }
}

#[test]
fn row_150_a_queue_in_a_loop_of_the_application() {
    for mode in [Mode::Plain, Mode::Valgrind, Mode::Sanitized] {
        run("queue", mode, &Vec::new());
    }
}

#[test]
fn row_150_packed_drains_carry_what_events_carry() {
    let (_deployment, environment) = deployment("c-packed");
    for mode in [Mode::Plain, Mode::Valgrind, Mode::Sanitized] {
        run("packed", mode, &environment);
    }
}

#[test]
fn row_82_a_switch_reaches_the_descriptor_of_a_queue_once() {
    for (name, mode) in [("c-watch", Mode::Plain), ("c-watch-v", Mode::Valgrind), ("c-watch-s", Mode::Sanitized)] {
        let (_deployment, environment) = deployment(name);
        run("watch", mode, &environment);
    }
}

#[test]
fn row_149_a_panic_becomes_an_error_and_poisons_its_handle() {
    for mode in [Mode::Plain, Mode::Valgrind] {
        let program = compile("panic", mode, clib::library_that_panics(), true);
        let output = clib::run(&mut command(&program, mode, Some(LEAKS)), "valgrind");
        let written = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && output.stdout.is_empty() && written.is_empty(),
            "{}: {written}",
            output.status
        );
    }
}

#[test]
fn row_148_each_function_once_without_an_error_or_a_leak() {
    let (_deployment, environment) = deployment("c-once");
    for mode in [Mode::Plain, Mode::Valgrind, Mode::Sanitized] {
        run("api_once", mode, &environment);
    }
}

#[test]
fn row_148_wrong_states_and_every_order_of_freeing() {
    let (_deployment, mut environment) = deployment("c-states");
    run("api_states", Mode::Plain, &environment);
    run("api_states", Mode::Sanitized, &environment);
    environment.push(("VIGIE_TEST_STRIDE", "17".into())); // valgrind takes 20 times as long
    run("api_states", Mode::Valgrind, &environment);
}

#[test]
fn row_11_all_byte_values_in_keys_and_values() {
    let (_deployment, environment) = deployment("c-binary");
    for mode in [Mode::Plain, Mode::Valgrind, Mode::Sanitized] {
        run("binary", mode, &environment);
    }
}

#[test]
fn row_62_a_hundred_threads_on_one_handle_get_their_own_answers() {
    let (_deployment, environment) = deployment("c-threads");
    for (mode, rounds) in [(Mode::Plain, 2000), (Mode::Sanitized, 200), (Mode::Valgrind, 10)] {
        let mut environment = environment.clone();
        environment.push(("VIGIE_TEST_ROUNDS", rounds.to_string()));
        run("threads", mode, &environment);
    }
}

#[test]
fn figure_a_client_is_small_and_a_call_costs_one_allocation() {
    let (_deployment, mut environment) = deployment("c-allocations");
    // What malloc keeps for each thread counts as used; it is not the library's.
    environment.push(("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0".into()));
    run("allocations", Mode::Plain, &environment);
}

#[test]
fn a_closed_connection_raises_no_sigpipe() {
    let (_deployment, environment) = deployment("c-sigpipe");
    for mode in [Mode::Plain, Mode::Sanitized] {
        run("sigpipe", mode, &environment);
    }
}

#[test]
fn the_log_raises_no_sigpipe_and_a_forked_child_repeats_no_line() {
    let (_deployment, environment) = deployment("c-log");
    for mode in [Mode::Plain, Mode::Valgrind] {
        run("log", mode, &environment);
    }
}

/// rustls alone would write without the flag that suppresses the signal.
#[cfg(feature = "tls")]
#[test]
fn a_closed_connection_with_tls_raises_no_sigpipe() {
    let (_ca, _deployment, environment) = deployment_with_tls("c-sigpipe-tls");
    for mode in [Mode::Plain, Mode::Sanitized] {
        run("sigpipe", mode, &environment);
    }
}

/// The parent's session goes on afterwards: the child has sent nothing on it.
#[cfg(feature = "tls")]
#[test]
fn a_forked_child_has_tls_sessions_of_its_own() {
    // Not under valgrind, which does not see what the assembler of ring writes.
    let (_ca, _deployment, environment) = deployment_with_tls("c-fork-tls");
    run("fork", Mode::Plain, &environment);
}

#[test]
fn a_forked_child_gets_an_error_and_can_make_its_own() {
    let (_deployment, environment) = deployment("c-fork");
    for mode in [Mode::Plain, Mode::Valgrind, Mode::Sanitized] {
        run("fork", mode, &environment);
    }
}

#[test]
fn ends_of_threads_processes_and_plugins() {
    let (_deployment, environment) = deployment("c-ends");
    for program in ["cancel", "exit_during_call", "dlopen"] {
        for mode in [Mode::Plain, Mode::Valgrind] {
            run(program, mode, &environment);
        }
    }
}
