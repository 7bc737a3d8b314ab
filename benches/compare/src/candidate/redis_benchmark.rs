//! redis-benchmark, the server's own: a process of its own, an event loop that does nothing else.

use std::process::Command;

use super::{Candidate, Job, SMALL, key};
use crate::drive::{Ground, Sample, cpu};
use crate::fail;

/// With so many connections and commands in each pipeline.
pub struct RedisBenchmark {
    /// Its name in the tables.
    pub name: String,
    host: String,
    port: u16,
    connections: usize,
    pipeline: usize,
    /// Commands per second in its last run: how many to ask for in the next.
    seen: std::cell::Cell<f64>,
}

impl RedisBenchmark {
    /// At this address.
    pub fn new(host: &str, port: u16, connections: usize, pipeline: usize) -> Self {
        Self {
            name: format!("redis-benchmark -c {connections} -P {pipeline}"),
            host: host.to_owned(),
            port,
            connections,
            pipeline,
            seen: std::cell::Cell::new(0.0),
        }
    }

    /// So many GETs: commands per second, and the two latencies in microseconds.
    fn get(&self, commands: usize) -> (f64, f64, f64) {
        let args = [
            "-h".to_owned(),
            self.host.clone(),
            "-p".to_owned(),
            self.port.to_string(),
            "-c".to_owned(),
            self.connections.to_string(),
            "-P".to_owned(),
            self.pipeline.to_string(),
            "-n".to_owned(),
            commands.to_string(),
            "--csv".to_owned(),
            "GET".to_owned(),
            key(SMALL),
        ];
        let output = Command::new("redis-benchmark").args(args).output();
        let output = output.unwrap_or_else(|e| fail(format!("redis-benchmark cannot be run: {e}")));
        let text = String::from_utf8_lossy(&output.stdout);
        parse(&text)
            .unwrap_or_else(|| fail(format!("redis-benchmark says: {text}{}", String::from_utf8_lossy(&output.stderr))))
    }
}

/// Rate, p50 and p99 by the names of their columns; latencies are in milliseconds there.
fn parse(csv: &str) -> Option<(f64, f64, f64)> {
    let fields = |line: &str| -> Vec<String> { line.split(',').map(|f| f.trim_matches('"').to_owned()).collect() };
    let mut lines = csv.lines().skip_while(|line| !line.starts_with("\"test\"")).map(fields);
    let (names, values) = (lines.next()?, lines.next()?);
    let of = |name: &str| names.iter().position(|n| n == name).and_then(|at| values.get(at)?.parse::<f64>().ok());
    Some((of("rps")?, of("p50_latency_ms")? * 1e3, of("p99_latency_ms")? * 1e3))
}

impl Candidate for RedisBenchmark {
    fn name(&self) -> &str {
        &self.name
    }

    /// Only GET of 64 bytes; how many at once was said when it was made.
    fn run(&self, _: Job, _: usize, ground: &mut Ground) -> Sample {
        if self.seen.get() == 0.0 {
            self.seen.set(self.get(5_000).0);
        }
        let commands = (self.seen.get() * ground.span.counted.as_secs_f64()).max(2_000.0) as usize;
        let (client, server) = (cpu(libc::RUSAGE_CHILDREN), ground.servers[0].cpu());
        let (rate, p50, p99) = self.get(commands);
        self.seen.set(rate);
        let per_command = |seconds: f64| seconds * 1e6 / commands as f64;
        Sample {
            rate,
            p50,
            p99,
            client_cpu: per_command(cpu(libc::RUSAGE_CHILDREN) - client),
            server_cpu: per_command(ground.servers[0].cpu() - server),
            connections: self.connections as f64,
            crossings: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\",\"p50_latency_ms\",\"p99_latency_ms\"\n\
                   \"GET bench:64\",\"113636.37\",\"0.292\",\"0.279\",\"0.511\"\n";
        let (rate, p50, p99) = parse(csv).expect("it is whole");
        assert_eq!((rate, p50.round(), p99.round()), (113_636.37, 279.0, 511.0));
        assert_eq!(parse("ERROR"), None);
    }
}
