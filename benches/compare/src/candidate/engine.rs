//! The engine of the design without all that makes a client of it: how far the design can go on this machine.

use std::ffi::{CString, c_char, c_int, c_void};

use super::{Candidate, Job, SMALL, encoded, key};
use crate::drive::{Ground, Sample, threads, timed};
use crate::fail;

/// What it is called in the tables.
pub const NAME: &str = "bare engine";

unsafe extern "C" {
    fn shim_engine_open(
        host: *const c_char,
        port: c_int,
        command: *const c_char,
        length: usize,
        reply_length: usize,
    ) -> *mut c_void;
    fn shim_engine_call(engine: *mut c_void) -> c_int;
    fn shim_engine_close(engine: *mut c_void);
}

/// At the primary.
pub struct BareEngine {
    /// Where the primary is.
    pub host: String,
    /// Where the primary is.
    pub port: u16,
}

/// Calls may come from any thread.
struct Engine(*mut c_void);

// SAFETY: the shim has a lock of its own.
unsafe impl Sync for Engine {}

impl Engine {
    fn call(&self) {
        // SAFETY: it lives as long as this.
        if unsafe { shim_engine_call(self.0) } != 0 {
            fail("the bare engine has failed");
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: the last use; all calls have ended.
        unsafe { shim_engine_close(self.0) };
    }
}

impl Candidate for BareEngine {
    fn name(&self) -> &str {
        NAME
    }

    /// Only GET of 64 bytes.
    fn run(&self, _: Job, parallel: usize, ground: &mut Ground) -> Sample {
        let command = encoded(&[b"GET", key(SMALL).as_bytes()]);
        let host = CString::new(self.host.as_str()).expect("no NUL in a host");
        let reply = format!("${SMALL}\r\n").len() + SMALL + 2;
        // SAFETY: texts that outlive the call.
        let engine = Engine(unsafe {
            shim_engine_open(host.as_ptr(), c_int::from(self.port), command.as_ptr().cast(), command.len(), reply)
        });
        if engine.0.is_null() {
            fail("the bare engine does not start");
        }
        threads(parallel, ground, &|| {
            let engine = &engine;
            timed(move || {
                engine.call();
                1
            })
        })
    }
}
