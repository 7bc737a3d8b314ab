//! Measures libvigie next to other clients, and tells. scripts/bench starts the servers and says by variables where they are.

use std::path::Path;
use std::process::Command;

use compare::candidate::SMALL;
use compare::drive::Ground;
use compare::fail;
use compare::machine::Machine;
use compare::options::{Options, told};
use compare::plan::{Deployment, Everybody, notes};
use compare::report::targets::{Target, from_cells, from_lines};
use compare::report::{Report, json, markdown, plot};
use compare::vigie::Sentinel;

fn deployment(which: &str) -> Deployment {
    let addresses = told(&format!("BENCH_{which}_SERVERS"));
    let addresses = addresses.split(',').map(|port| format!("127.0.0.1:{port}")).collect();
    Deployment { uri: told(&format!("BENCH_{which}_URI")), addresses }
}

/// What an open client costs, by a process of its own; and what scripts/bench measured before.
fn other_figures(deployment: &Deployment) -> Vec<Target> {
    let program = std::env::current_exe().unwrap_or_else(|e| fail(e)).with_file_name("cost");
    let output = Command::new(&program).args([deployment.uri.as_str(), &SMALL.to_string()]).output();
    let output = output.unwrap_or_else(|e| fail(format!("{}: {e}", program.display())));
    if !output.status.success() {
        fail(String::from_utf8_lossy(&output.stderr));
    }
    let before = told("BENCH_FIGURES");
    let before = std::fs::read_to_string(&before).unwrap_or_else(|e| fail(format!("{before}: {e}")));
    let text = before + &String::from_utf8_lossy(&output.stdout);
    from_lines(&text).unwrap_or_else(|e| fail(e))
}

fn save(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|e| fail(format!("{}: {e}", path.display())));
}

fn main() {
    let options = Options::read();
    let (plain, wide) = (deployment("PLAIN"), deployment("WIDE"));
    let span = options.span(500);
    let mut grounds = [Ground::new(&plain.addresses, span), Ground::new(&wide.addresses, span)];
    plain.fill(&mut grounds[0]);
    wide.fill(&mut grounds[1]);
    let figures = other_figures(&plain);

    let (sentinel, remote) = (Sentinel::open(&plain.uri), Sentinel::open(&wide.uri));
    let everybody = Everybody::new(&plain, &sentinel, &wide, &remote);
    let cells = everybody.measure(&options, &mut grounds);

    let words = options.words.join(" ");
    let command = if words.is_empty() { "make bench".to_owned() } else { format!("make bench BENCH_ARGS='{words}'") };
    let targets = from_cells(&cells).into_iter().chain(figures).collect();
    let machine = Machine::look(&grounds[0].servers[0].version);
    let report =
        Report { machine, rounds: options.rounds, command, quick: options.quick, cells, targets, notes: notes() };
    print!("{}", report.text());
    if let Some(path) = &options.json {
        save(path, &json::json(&report));
    }
    if let Some(path) = &options.svg {
        save(path, &plot::svg(&report).unwrap_or_else(|| fail("--svg wants the part threads to be measured")));
    }
    if let Some(path) = &options.markdown {
        markdown::write(&report, path, options.svg.as_deref());
    }
}
