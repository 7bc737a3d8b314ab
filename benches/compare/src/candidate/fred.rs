//! fred: tasks that share one client with one connection.

use bytes::Bytes;
use fred::prelude::{Builder, Client, ClientLike, Config, Error, KeysInterface, ListInterface};

use super::{Candidate, ELEMENTS, Job, LIST, SMALL, key, value, written};
use crate::drive::tasks::{Once, tasks};
use crate::drive::{Ground, Sample};
use crate::fail;

/// fred, at this address.
pub struct Fred {
    address: String,
}

impl Fred {
    /// At this address.
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned() }
    }
}

fn sound<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|e| fail(format!("fred: {e}")))
}

fn expect(right: bool) {
    if !right {
        fail("fred: a wrong answer");
    }
}

impl Candidate for Fred {
    fn name(&self) -> &str {
        "fred"
    }

    fn run(&self, job: Job, parallel: usize, ground: &mut Ground) -> Sample {
        tasks(parallel, ground, async {
            let config = sound(Config::from_url(&format!("redis://{}", self.address)));
            let client = sound(Builder::from_config(config).build());
            sound(client.init().await);
            let size = if let Job::Get(size) | Job::Set(size) = job { size } else { SMALL };
            let (read, written, value) = (key(size), written(size), Bytes::from(value(size)));
            move || Task {
                client: client.clone(),
                job,
                read: read.clone(),
                written: written.clone(),
                value: value.clone(),
            }
        })
    }
}

struct Task {
    client: Client,
    job: Job,
    read: String,
    written: String,
    value: Bytes,
}

impl Once for Task {
    async fn once(&mut self) -> u32 {
        match self.job {
            Job::Get(size) => {
                let value: Bytes = sound(self.client.get(&self.read).await);
                expect(value.len() == size);
            }
            Job::Set(_) => {
                let () = sound(self.client.set(&self.written, self.value.clone(), None, None, false).await);
            }
            Job::Lrange => {
                let values: Vec<Bytes> = sound(self.client.lrange(LIST, 0, -1).await);
                expect(values.len() == ELEMENTS);
            }
            Job::Pipeline(count) => {
                let pipeline = self.client.pipeline();
                for _ in 0..count {
                    let () = sound(pipeline.get(&self.read).await);
                }
                let values: Vec<Bytes> = sound(pipeline.all().await);
                expect(values.len() == count && values[count - 1].len() == SMALL);
                return count as u32;
            }
            Job::Window { .. } => fail("fred has no submit"),
        }
        1
    }
}
