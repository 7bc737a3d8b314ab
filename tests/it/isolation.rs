//! Hosts that hang next to a healthy service in one process: they delay nothing of the healthy one.

use crate::calls;
use crate::completions;
use crate::support;

use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use calls::*;
use completions::*;
use support::*;
use vigie::client::{CallFlags, Client, Timeout};
use vigie::error::Status;
use vigie::queue::Queue;
use vigie::time::Deadline;

const LONG: Duration = Duration::from_secs(300);
const HANGING: usize = 8;

fn submit(client: &Client, line: &str, timeout: Timeout, queue: &Arc<Queue>, token: u64) {
    let flags = CallFlags::from_bits(EACH).expect("known flags");
    client.cmds_submit(&list(&[line]), flags, timeout, queue, token).expect("taken");
}

/// Discoveries of eight handles with a hanging Sentinel, and of eight services with primaries on a hanging host. All
/// are running from before the first step of the healthy service until after its last one.
#[test]
fn discoveries_submits_and_timers_wait_for_no_host_that_hangs() {
    alone(concat!(module_path!(), "::discoveries_submits_and_timers_wait_for_no_host_that_hangs"), || {
        let hole = blackhole();
        let patient = [("timeout.sentinel", "600s"), ("timeout.connect", "600s")];
        let names: Vec<_> = (0..HANGING).map(|number| format!("gone{number}")).collect();
        let told = Scripted::sentinel(SERVICE, &hole.addr());
        let state = told.service(SERVICE, |state| state.clone());
        told.state(|all| names.iter().for_each(|name| drop(all.services.insert(name.clone(), state.clone()))));
        let on_a_host = handle(&told, &patient);
        let services = names.iter().map(|name| on_a_host.service(name));
        // More discoveries than run at the same time.
        let handles: Vec<_> = (0..HANGING * 10).map(|_| sentinel_at(&[hole.addr()], &patient)).collect();
        let asked: Vec<_> = services.chain(handles.iter().map(|handle| handle.service(SERVICE))).collect();
        let hanging: Vec<_> =
            asked.into_iter().map(|service| spawn(move || service.discover(0, Deadline::after(LONG)))).collect();
        eventually("each primary has a thread", LONG, || proc::threads_named("vigie-dialer").len() >= HANGING);

        let node = Scripted::primary();
        let told = calls::told(&node.addr(), &[]);
        let healthy = handle(&told, &[("timeout.call", "60s")]);
        let client = to_primary(&healthy, &[]);
        let gone = to_primary(&handles[0], &[]);
        let queue = queue(16);
        for round in 0..5 {
            let service = healthy.service(SERVICE);
            service.discover(service.discovered(), Deadline::after(LONG)).expect("the healthy one is found");
            submit(&client, "SET k v", Timeout::Default, &queue, round);
            assert_eq!(said(&drain(&queue, 1)[0]), "OK");
            // The call cannot start, so a timer ends it.
            submit(&gone, "SET k v", Timeout::Ms(20), &queue, round);
            fails(Status::Timeout, one(&queue).1);
        }
        let under_way = |job: &std::sync::mpsc::Receiver<_>| matches!(job.try_recv(), Err(TryRecvError::Empty));
        assert!(hanging.iter().all(under_way), "all of them still hang");
    });
}
