// How include/vigie.h comes from src/ffi: shared by build.rs (feature `header`) and tests/header.rs, so that both make
// the same bytes. cbindgen does the work; what is added here is the version of Cargo.toml and a title in front of each
// noun's functions.

use std::path::Path;

/// The files that cbindgen reads, in the order in which their functions appear, with the title of each.
const SOURCES: [(&str, &str); 14] = [
    ("types", ""),
    ("version", "the library"),
    ("error", "errors"),
    ("config", "configuration: the keys are in CONFIGURATION.md, and \"uri\" is one of them"),
    ("sentinel", "sentinels"),
    ("client", "clients"),
    ("shards", "shards: several primaries as one client"),
    ("call", "calls that can be cancelled and interrupted"),
    ("scan", "scans"),
    ("batch", "command lists (for C and C++; other languages can encode RESP themselves)"),
    ("reply", "replies"),
    ("queue", "queues"),
    ("sub", "publish and subscribe"),
    ("jobs", "jobs: lists of work that is done at least once"),
];

/// The text of include/vigie.h.
pub fn generate(root: &Path, version: &str) -> String {
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml can be read");
    config.after_includes = config.after_includes.map(|text| with_version(&text, version));
    let mut builder = cbindgen::Builder::new().with_config(config);
    for (file, _) in SOURCES {
        builder = builder.with_src(source(root, file));
    }
    let mut header = Vec::new();
    builder.generate().expect("cbindgen understands src/ffi").write(&mut header);
    let header = plain_c(&String::from_utf8(header).expect("the header is UTF-8"));
    with_titles(root, &header)
}

/// Comments of one sentence on one line; none in the style of C++, and no comma behind the last value of an enum: C89 refuses both.
fn plain_c(header: &str) -> String {
    let mut out = String::new();
    let mut lines = header.trim_start().lines().peekable();
    while let Some(line) = lines.next() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let text = lines.peek().and_then(|next| next.trim_start().strip_prefix("* ")).map(str::to_owned);
        let (code, comment) = line.split_once(" // ").unwrap_or((line, ""));
        match text {
            Some(text) if line.trim() == "/**" => {
                lines.next();
                if lines.next_if(|last| last.trim() == "*/").is_some() {
                    out += &format!("{indent}/** {text} */\n");
                } else {
                    out += &format!("{line}\n{indent} * {text}\n");
                }
            }
            _ if !comment.is_empty() => out += &format!("{} /* {} */\n", code.trim_end(), comment.trim()),
            _ => out += &format!("{}\n", line.trim_end()),
        }
    }
    out.replace(",\n}", "\n}")
}

fn source(root: &Path, file: &str) -> std::path::PathBuf {
    root.join("src/ffi").join(file).with_extension("rs")
}

fn with_version(text: &str, version: &str) -> String {
    let mut parts = version.split(['.', '-', '+']);
    let mut next = || parts.next().expect("the version has three parts");
    text.replace("@MAJOR@", next()).replace("@MINOR@", next()).replace("@PATCH@", next())
}

/// Puts the title of a noun in front of the comment of its first function.
fn with_titles(root: &Path, header: &str) -> String {
    let mut header = header.to_owned();
    for (file, title) in SOURCES.iter().filter(|(_, title)| !title.is_empty()) {
        let text = std::fs::read_to_string(source(root, file)).expect("the sources can be read");
        let name = text.split("extern \"C\" fn ").nth(1).and_then(|rest| rest.split('(').next()).expect("a function");
        let at = prototype(&header, name).unwrap_or_else(|| panic!("{name} is in the header"));
        let comment = header[..at].rfind("\n/*").expect("each function has a comment") + 1;
        let line = format!("/* ---- {title} ");
        header.insert_str(comment, &format!("{line}{} */\n\n", "-".repeat(117usize.saturating_sub(line.len()))));
    }
    header
}

/// Where a function is declared: comments name it too.
fn prototype(header: &str, name: &str) -> Option<usize> {
    let call = format!("{name}(");
    header.match_indices(&call).map(|(at, _)| at).find(|at| {
        let line = header[..*at].rfind('\n').map_or(0, |end| end + 1);
        !header[line..].trim_start().starts_with(['*', '/'])
    })
}
