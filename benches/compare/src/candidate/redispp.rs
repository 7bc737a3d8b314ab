//! redis-plus-plus, by a shim: one object with a pool as large as the number of threads. Only where the system has it.

use std::ffi::{CString, c_char, c_int, c_void};

use super::{Candidate, Job, key, value, written};
use crate::drive::{Ground, Sample, Turn, threads, timed};
use crate::fail;

unsafe extern "C" {
    fn shim_redispp_open(host: *const c_char, port: c_int, connections: usize) -> *mut c_void;
    fn shim_redispp_free(redis: *mut c_void);
    fn shim_redispp_get(redis: *mut c_void, key: *const c_char, key_len: usize) -> isize;
    fn shim_redispp_set(
        redis: *mut c_void,
        key: *const c_char,
        key_len: usize,
        value: *const c_char,
        value_len: usize,
    ) -> c_int;
}

/// redis-plus-plus, at the primary.
pub struct RedisPlusPlus {
    /// Where the primary is.
    pub host: String,
    /// Where the primary is.
    pub port: u16,
}

struct Handle(*mut c_void);

// SAFETY: an object of that class may be shared by threads.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the last use.
        unsafe { shim_redispp_free(self.0) };
    }
}

impl Candidate for RedisPlusPlus {
    fn name(&self) -> &str {
        "redis-plus-plus"
    }

    fn run(&self, job: Job, parallel: usize, ground: &mut Ground) -> Sample {
        let host = CString::new(&*self.host).expect("no NUL in a host");
        // SAFETY: the text outlives the call.
        let handle = Handle(unsafe { shim_redispp_open(host.as_ptr(), c_int::from(self.port), parallel) });
        if handle.0.is_null() {
            fail("redis-plus-plus does not start");
        }
        threads(parallel, ground, &|| turn(&handle, job))
    }
}

fn turn(handle: &Handle, job: Job) -> Turn<'_> {
    match job {
        Job::Get(size) => {
            let key = key(size);
            timed(move || {
                // SAFETY: a live object; the key outlives the call.
                let len = unsafe { shim_redispp_get(handle.0, key.as_ptr().cast(), key.len()) };
                if len != size as isize {
                    fail("redis-plus-plus: a wrong answer");
                }
                1
            })
        }
        Job::Set(size) => {
            let (key, value) = (written(size), value(size));
            timed(move || {
                let (data, len) = (value.as_ptr().cast(), value.len());
                // SAFETY: as above.
                if unsafe { shim_redispp_set(handle.0, key.as_ptr().cast(), key.len(), data, len) } != 1 {
                    fail("redis-plus-plus: a wrong answer");
                }
                1
            })
        }
        _ => fail("redis-plus-plus takes part in GET and SET only"),
    }
}
