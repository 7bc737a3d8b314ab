//! Workers that are tasks of a tokio runtime with two threads, made for the measurement and gone with it.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use super::{Ground, Phase, Sample, Tally, observe};

/// What a task does again and again.
pub trait Once: Send + 'static {
    /// Does it, and says how many commands it was.
    fn once(&mut self) -> impl Future<Output = u32> + Send;
}

/// So many tasks; `connect` gives what makes one for each.
pub fn tasks<T: Once, M: Fn() -> T>(count: usize, ground: &mut Ground, connect: impl Future<Output = M>) -> Sample {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime with two threads starts");
    let make = runtime.block_on(connect);
    let phase = Arc::new(Phase::default());
    let tasks: Vec<_> = (0..count).map(|_| runtime.spawn(again(make(), Arc::clone(&phase)))).collect();
    let readings = observe(&phase, count, ground);
    readings.sample(tasks.into_iter().map(|task| runtime.block_on(task).expect("a task does not panic")))
}

async fn again(mut task: impl Once, phase: Arc<Phase>) -> Tally {
    let mut tally = Tally::default();
    let mut began = Instant::now();
    phase.report_ready();
    while phase.goes_on(&mut tally) {
        let commands = task.once().await;
        let now = Instant::now();
        tally.add(commands, now - began);
        began = now;
    }
    tally
}
