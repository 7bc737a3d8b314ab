//! redis-rs, twice: a blocking connection for each thread; and tasks that share one multiplexed connection.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Commands, Pipeline, RedisError, RedisResult};

use super::{Candidate, ELEMENTS, Job, LIST, SMALL, key, value, written};
use crate::drive::tasks::{Once, tasks};
use crate::drive::{Ground, Sample, Turn, threads, timed};
use crate::fail;

/// redis-rs with a connection for each thread.
pub struct Sync {
    client: Client,
}

/// redis-rs with tasks on one connection.
pub struct Async {
    client: Client,
}

fn client(address: &str) -> Client {
    Client::open(format!("redis://{address}/")).unwrap_or_else(|e| broken(&e))
}

fn broken(error: &RedisError) -> ! {
    fail(format!("redis-rs: {error}"))
}

fn sound<T>(result: RedisResult<T>) -> T {
    result.unwrap_or_else(|e| broken(&e))
}

fn expect(right: bool) {
    if !right {
        fail("redis-rs: a wrong answer");
    }
}

fn gets(count: usize) -> Pipeline {
    let mut pipeline = redis::pipe();
    for _ in 0..count {
        pipeline.get(key(SMALL));
    }
    pipeline
}

impl Sync {
    /// At this address.
    pub fn new(address: &str) -> Self {
        Self { client: client(address) }
    }
}

impl Candidate for Sync {
    fn name(&self) -> &str {
        "redis-rs"
    }

    fn run(&self, job: Job, parallel: usize, ground: &mut Ground) -> Sample {
        threads(parallel, ground, &|| turn(sound(self.client.get_connection()), job))
    }
}

fn turn<'a>(mut connection: redis::Connection, job: Job) -> Turn<'a> {
    match job {
        Job::Get(size) => {
            let key = key(size);
            timed(move || {
                let value: Vec<u8> = sound(connection.get(&key));
                expect(value.len() == size);
                1
            })
        }
        Job::Set(size) => {
            let (key, value) = (written(size), value(size));
            timed(move || {
                let () = sound(connection.set(&key, &value));
                1
            })
        }
        Job::Lrange => timed(move || {
            let values: Vec<Vec<u8>> = sound(connection.lrange(LIST, 0, -1));
            expect(values.len() == ELEMENTS);
            1
        }),
        Job::Pipeline(count) => {
            let pipeline = gets(count);
            timed(move || {
                let values: Vec<Vec<u8>> = sound(pipeline.query(&mut connection));
                expect(values.len() == count && values[count - 1].len() == SMALL);
                count as u32
            })
        }
        Job::Window { .. } => fail("redis-rs has no submit"),
    }
}

impl Async {
    /// At this address.
    pub fn new(address: &str) -> Self {
        Self { client: client(address) }
    }
}

impl Candidate for Async {
    fn name(&self) -> &str {
        "redis-rs async"
    }

    fn run(&self, job: Job, parallel: usize, ground: &mut Ground) -> Sample {
        tasks(parallel, ground, async {
            // As long as vigie's; the half second of the default would end megabytes for 64 tasks.
            let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(5)));
            let connection = sound(self.client.get_multiplexed_async_connection_with_config(&config).await);
            let what = Arc::new(what(job));
            move || Task { connection: connection.clone(), what: Arc::clone(&what) }
        })
    }
}

/// A job, prepared.
enum What {
    Get(Cmd, usize),
    Set(Cmd),
    Lrange(Cmd),
    Pipeline(Pipeline, usize),
}

fn what(job: Job) -> What {
    match job {
        Job::Get(size) => What::Get(Cmd::get(key(size)), size),
        Job::Set(size) => What::Set(Cmd::set(written(size), value(size))),
        Job::Lrange => What::Lrange(Cmd::lrange(LIST, 0, -1)),
        Job::Pipeline(count) => What::Pipeline(gets(count), count),
        Job::Window { .. } => fail("redis-rs has no submit"),
    }
}

struct Task {
    connection: MultiplexedConnection,
    what: Arc<What>,
}

impl Once for Task {
    async fn once(&mut self) -> u32 {
        match &*self.what {
            What::Get(cmd, size) => {
                let value: Vec<u8> = sound(cmd.query_async(&mut self.connection).await);
                expect(value.len() == *size);
            }
            What::Set(cmd) => {
                let () = sound(cmd.query_async(&mut self.connection).await);
            }
            What::Lrange(cmd) => {
                let values: Vec<Vec<u8>> = sound(cmd.query_async(&mut self.connection).await);
                expect(values.len() == ELEMENTS);
            }
            What::Pipeline(pipeline, count) => {
                let values: Vec<Vec<u8>> = sound(pipeline.query_async(&mut self.connection).await);
                expect(values.len() == *count && values[count - 1].len() == SMALL);
                return *count as u32;
            }
        }
        1
    }
}
