//! A host name that moves: a test runs itself again in a process whose resolver reads one name from a file.

use std::process::Command;

use crate::calls;

/// The name.
pub const NAME: &str = "moving.vigie.test";

/// Resolves one name from a file, so that the name can move without a name server.
const RESOLVER: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef int ask(const char *, const char *, const struct addrinfo *, struct addrinfo **);
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    ask *real = (ask *)dlsym(RTLD_NEXT, "getaddrinfo");
    char address[64] = "";
    if (name == NULL || strcmp(name, "moving.vigie.test") != 0) return real(name, service, hints, found);
    FILE *file = fopen(getenv("VIGIE_MOVING_NAME"), "r");
    if (file == NULL) return EAI_AGAIN;
    if (fgets(address, sizeof address, file) == NULL) address[0] = 0;
    fclose(file);
    return address[0] ? real(address, service, hints, found) : EAI_NONAME;
}
"#;

const ANSWER: &str = "VIGIE_MOVING_NAME";

/// Runs the test with this path again, in a process in which the file that `test` is given has the address of the name.
pub fn run(path: &str, test: fn(&str)) {
    if let Ok(answer) = std::env::var(ANSWER) {
        return test(&answer);
    }
    let name = calls::test_name(path);
    let dir = std::env::temp_dir().join(format!("vigie-moving-{}-{}", std::process::id(), name.replace("::", "-")));
    std::fs::create_dir_all(&dir).expect("a directory");
    let (source, library, answer) = (dir.join("names.c"), dir.join("names.so"), dir.join("answer"));
    std::fs::write(&source, RESOLVER).expect("written");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").output();
    let built = built.expect("a C compiler: install gcc");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let mut again = Command::new(std::env::current_exe().expect("this program"));
    again.args(["--exact", name, "--nocapture"]);
    let output = again.env("LD_PRELOAD", &library).env(ANSWER, &answer).output().expect("it runs");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
    std::fs::remove_dir_all(&dir).expect("the directory is ours");
}
