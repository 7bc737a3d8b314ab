//! libvigie: one handle for all threads, opened anew for each measurement.

use std::time::Instant;

use super::{Candidate, ELEMENTS, Job, LIST, SMALL, encoded, key, value, written};
use crate::drive::{Ground, Sample, Tally, Turn, threads, timed};
use crate::fail;
use crate::vigie::{CALL_EACH, Client, Event, Queue, Sentinel};

/// One kind of client with certain options.
pub struct Vigie<'a> {
    /// The deployment.
    pub sentinel: &'a Sentinel,
    /// Its name in the tables.
    pub name: &'static str,
    /// Whether reads go to the replicas.
    pub split: bool,
    /// What differs from the defaults.
    pub options: &'static [(&'static str, &'static str)],
}

impl Vigie<'_> {
    fn open(&self) -> Client {
        self.sentinel.client(self.split, self.options).unwrap_or_else(|e| fail(format!("vigie: {e}")))
    }
}

impl Candidate for Vigie<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn run(&self, job: Job, parallel: usize, ground: &mut Ground) -> Sample {
        let client = self.open();
        if self.split {
            // The first reads find out who the replicas are.
            (0..100).for_each(|_| drop(client.exec(&[b"GET", key(SMALL).as_bytes()])));
        }
        threads(parallel, ground, &|| turn(&client, job))
    }
}

fn turn(client: &Client, job: Job) -> Turn<'_> {
    match job {
        Job::Get(size) => {
            let key = key(size);
            timed(move || {
                let reply = client.exec(&[b"GET", key.as_bytes()]);
                expect(reply.len_of_text() == Some(size))
            })
        }
        Job::Set(size) => {
            let (key, value) = (written(size), value(size));
            timed(move || expect(client.exec(&[b"SET", key.as_bytes(), &value]).len_of_text() == Some(2)))
        }
        Job::Lrange => {
            timed(move || expect(client.exec(&[b"LRANGE", LIST.as_bytes(), b"0", b"-1"]).count() == ELEMENTS))
        }
        Job::Pipeline(count) => {
            let list = encoded(&[b"GET", key(SMALL).as_bytes()]).repeat(count);
            timed(move || {
                let reply = client.exec_list(&list);
                expect(reply.count() == count && reply.is_string(count as u32));
                count as u32
            })
        }
        Job::Window { size, single } => window(client, size, single),
    }
}

/// A wrong answer ends the run; a right one is one command.
fn expect(right: bool) -> u32 {
    if !right {
        fail("vigie: a wrong answer");
    }
    1
}

/// Keeps so many GETs outstanding: what a drain brings is submitted anew at once.
fn window(client: &Client, size: usize, single: bool) -> Turn<'_> {
    let command = encoded(&[b"GET", key(SMALL).as_bytes()]);
    let list = command.repeat(size);
    let queue = Queue::new(size);
    let mut room: Vec<Event> = Vec::with_capacity(size);
    // Tokens go round: no more than `size` are outstanding, in whatever order they come back.
    let mut since = vec![Instant::now(); size * 2];
    let (mut next, mut missing) = (0u64, size);
    Box::new(move |tally: &mut Tally| {
        let began = Instant::now();
        let at = |token: u64| token as usize % (size * 2);
        if single {
            (0..missing as u64).for_each(|n| client.submit(&command, CALL_EACH, &queue, next + n));
        } else {
            client.submit(&list[..command.len() * missing], CALL_EACH, &queue, next);
        }
        for _ in 0..missing {
            since[at(next)] = began;
            next += 1;
        }
        tally.cross(if single { missing as u32 } else { 1 } + 2);
        let now = &mut None;
        missing = queue.drain(&mut room, SMALL as u64, |token| {
            let now = *now.get_or_insert_with(Instant::now);
            tally.add(1, now - since[at(token)]);
        });
    })
}
