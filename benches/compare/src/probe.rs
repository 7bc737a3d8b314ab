//! Plain questions to a server over a connection of our own, independent of every client that is compared.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::fail;

/// Anything that goes wrong with it.
type Asked<T> = Result<T, String>;

/// One server: a connection to it, and its process.
pub struct Probe {
    stream: BufReader<TcpStream>,
    /// host:port.
    pub address: String,
    /// The id of the server's process on this machine.
    pub pid: i32,
    /// Its version.
    pub version: String,
}

impl Probe {
    /// Connects, and learns who the server is.
    pub fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|e| fail(format!("{address} does not answer: {e}")));
        let mut probe =
            Self { stream: BufReader::new(stream), address: address.to_owned(), pid: 0, version: String::new() };
        let info = probe.ask(&[b"INFO", b"server"]);
        let line = |name: &str| {
            let found = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            found.unwrap_or_else(|| fail(format!("INFO of {address} has no {name}"))).trim().to_owned()
        };
        probe.pid = line("process_id").parse().unwrap_or_else(|e| fail(format!("process_id of {address}: {e}")));
        probe.version = line("redis_version");
        probe
    }

    /// The answer as text: of an array its texts, one a line.
    pub fn ask(&mut self, args: &[&[u8]]) -> String {
        let name = String::from_utf8_lossy(args[0]).into_owned();
        self.try_ask(args).unwrap_or_else(|e| fail(format!("{name} at {}: {e}", self.address)))
    }

    fn try_ask(&mut self, args: &[&[u8]]) -> Asked<String> {
        let mut out = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            out.extend(format!("${}\r\n", arg.len()).bytes());
            out.extend(*arg);
            out.extend(b"\r\n");
        }
        self.stream.get_mut().write_all(&out).map_err(|e| e.to_string())?;
        self.answer()
    }

    fn answer(&mut self) -> Asked<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).map_err(|e| e.to_string())?;
        let (kind, rest) = line.trim_end().split_at_checked(1).ok_or("the server closed the connection")?;
        let count = || rest.parse::<usize>().map_err(|e| format!("{line:?}: {e}"));
        match kind {
            "+" | ":" => Ok(rest.to_owned()),
            "$" => {
                let mut bytes = vec![0; count()? + 2];
                self.stream.read_exact(&mut bytes).map_err(|e| e.to_string())?;
                bytes.truncate(bytes.len() - 2);
                String::from_utf8(bytes).map_err(|e| e.to_string())
            }
            "*" => Ok((0..count()?).map(|_| self.answer()).collect::<Asked<Vec<_>>>()?.join("\n")),
            _ => Err(line.trim_end().to_owned()),
        }
    }

    /// The number of the youngest connection; later ones have higher numbers.
    pub fn youngest(&mut self) -> u64 {
        self.ids().into_iter().max().unwrap_or(0)
    }

    /// How many connections are younger than that.
    pub fn younger_than(&mut self, id: u64) -> usize {
        self.ids().into_iter().filter(|other| *other > id).count()
    }

    fn ids(&mut self) -> Vec<u64> {
        let list = self.ask(&[b"CLIENT", b"LIST"]);
        list.lines().filter_map(|line| line.strip_prefix("id=")?.split(' ').next()?.parse().ok()).collect()
    }

    /// The CPU time that the server's process has used, in seconds. Does not ask the server itself.
    pub fn cpu(&self) -> f64 {
        let mut clock: libc::clockid_t = 0;
        // SAFETY: both calls write to the variables they are given, which live here.
        let time = unsafe {
            let mut time: libc::timespec = std::mem::zeroed();
            if libc::clock_getcpuclockid(self.pid, &mut clock) != 0 || libc::clock_gettime(clock, &mut time) != 0 {
                fail(format!("the CPU time of {} cannot be read", self.address));
            }
            time
        };
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    }
}
