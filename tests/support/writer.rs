//! Writes in order until it is stopped, and finds what was acknowledged, lost or doubled.
//!
//! Not part of the kit, which never uses the library under test: test files take it in with `#[path]`.
#![allow(dead_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::calls::within;
use super::support::{Node, eventually_some, proc};
use vigie::client::Client;
use vigie::error::Error;

pub struct Writer {
    shared: Arc<Shared>,
    thread: std::thread::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    written: Mutex<Written>,
}

#[derive(Default)]
pub struct Written {
    /// Each number that was acknowledged, and when.
    pub acknowledged: Vec<(u64, Instant)>,
    pub errors: Vec<Error>,
}

impl Writer {
    /// RPUSH of 0, 1, 2, ... with this timeout, every millisecond.
    pub fn start(client: &Arc<Client>, budget_ms: u64) -> Writer {
        let (shared, client) = (Arc::new(Shared::default()), Arc::clone(client));
        let own = Arc::clone(&shared);
        let thread = proc::thread("kit-writer", move || {
            for number in 0.. {
                if own.over.load(Ordering::Acquire) {
                    return;
                }
                let outcome = within(&client, &format!("RPUSH seq {number}"), budget_ms);
                let mut written = own.written.lock().expect("no panic under the lock");
                match outcome {
                    Ok(_) => written.acknowledged.push((number, Instant::now())),
                    Err(error) => written.errors.push(error),
                }
                drop(written);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Writer { shared, thread }
    }

    fn look<T>(&self, look: impl FnOnce(&Written) -> T) -> T {
        look(&self.shared.written.lock().expect("no panic under the lock"))
    }

    /// Waits for this many acknowledgements.
    #[track_caller]
    pub fn wait(&self, count: usize) {
        super::support::eventually("acknowledged writes", Duration::from_secs(5), || {
            self.look(|written| written.acknowledged.len() >= count)
        });
    }

    /// Waits for the first acknowledgement after a moment; when it was.
    #[track_caller]
    pub fn wait_after(&self, moment: Instant) -> Instant {
        eventually_some("an acknowledged write", Duration::from_secs(10), || {
            self.look(|written| written.acknowledged.iter().map(|(_, at)| *at).find(|at| *at > moment))
        })
    }

    pub fn stop(self) -> Written {
        self.shared.over.store(true, Ordering::Release);
        self.thread.join().expect("the writer ends without a panic");
        std::mem::take(&mut *self.shared.written.lock().expect("no panic under the lock"))
    }
}

impl Written {
    fn kept(node: &Node) -> Vec<u64> {
        let kept = node.cmd(&["LRANGE", "seq", "0", "-1"]);
        kept.items().iter().filter_map(|item| item.text().parse().ok()).collect()
    }

    /// When the numbers that the node does not have were acknowledged.
    pub fn missing(&self, node: &Node) -> Vec<Instant> {
        let kept: std::collections::HashSet<u64> = Written::kept(node).into_iter().collect();
        self.acknowledged.iter().filter(|(number, _)| !kept.contains(number)).map(|(_, at)| *at).collect()
    }

    /// How many numbers the node has more than once.
    pub fn doubled(&self, node: &Node) -> usize {
        let mut kept = Written::kept(node);
        let all = kept.len();
        kept.sort_unstable();
        kept.dedup();
        all - kept.len()
    }

    /// The longest time without an acknowledgement.
    pub fn longest_gap(&self) -> Duration {
        let gaps = self.acknowledged.windows(2).map(|pair| pair[1].1.duration_since(pair[0].1));
        gaps.max().unwrap_or_default()
    }
}
