//! hiredis: a blocking connection of its own for each thread.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null_mut;

use super::{Candidate, ELEMENTS, Job, LIST, SMALL, key, value, written};
use crate::drive::{Ground, Sample, Turn, threads, timed};
use crate::fail;

const STRING: c_int = 1;
const ARRAY: c_int = 2;
const STATUS: c_int = 5;

unsafe extern "C" {
    fn redisConnect(host: *const c_char, port: c_int) -> *mut c_void;
    fn redisFree(context: *mut c_void);
    fn redisCommandArgv(
        context: *mut c_void,
        argc: c_int,
        argv: *const *const c_char,
        lens: *const usize,
    ) -> *mut c_void;
    fn redisAppendCommandArgv(
        context: *mut c_void,
        argc: c_int,
        argv: *const *const c_char,
        lens: *const usize,
    ) -> c_int;
    fn redisGetReply(context: *mut c_void, reply: *mut *mut c_void) -> c_int;
    fn freeReplyObject(reply: *mut c_void);
    fn shim_hiredis_version() -> *const c_char;
    fn shim_hiredis_error(context: *const c_void) -> *const c_char;
    fn shim_hiredis_type(reply: *const c_void) -> c_int;
    fn shim_hiredis_len(reply: *const c_void) -> usize;
    fn shim_hiredis_elements(reply: *const c_void) -> usize;
}

/// The version of the header that it was built with.
pub fn version() -> String {
    // SAFETY: a static text.
    unsafe { CStr::from_ptr(shim_hiredis_version()) }.to_string_lossy().into_owned()
}

/// hiredis, at the primary.
pub struct Hiredis {
    /// Where the primary is.
    pub host: String,
    /// Where the primary is.
    pub port: u16,
}

struct Context(*mut c_void);

impl Context {
    fn open(host: &str, port: u16) -> Self {
        let host = CString::new(host).expect("no NUL in a host");
        // SAFETY: the text outlives the call.
        let context = Self(unsafe { redisConnect(host.as_ptr(), c_int::from(port)) });
        context.check(true);
        context
    }

    fn check(&self, right: bool) {
        // SAFETY: NULL or a live context; the text belongs to it.
        let error = unsafe { shim_hiredis_error(self.0) };
        if !error.is_null() {
            // SAFETY: as above.
            fail(format!("hiredis: {}", unsafe { CStr::from_ptr(error) }.to_string_lossy()));
        }
        if !right {
            fail("hiredis: a wrong answer");
        }
    }

    fn exec(&self, args: &Args) -> Reply<'_> {
        // SAFETY: a live context; args keeps what it points at.
        let reply = unsafe { redisCommandArgv(self.0, args.count(), args.pointers.as_ptr(), args.lens.as_ptr()) };
        self.check(!reply.is_null());
        Reply(reply, self)
    }

    fn append(&self, args: &Args) {
        // SAFETY: as above.
        let status =
            unsafe { redisAppendCommandArgv(self.0, args.count(), args.pointers.as_ptr(), args.lens.as_ptr()) };
        self.check(status == 0);
    }

    fn next(&self) -> Reply<'_> {
        let mut reply = null_mut();
        // SAFETY: a live context, and room for the pointer.
        let status = unsafe { redisGetReply(self.0, &mut reply) };
        self.check(status == 0 && !reply.is_null());
        Reply(reply, self)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the last use.
        unsafe { redisFree(self.0) };
    }
}

struct Reply<'a>(*mut c_void, &'a Context);

impl Reply<'_> {
    fn is_text(&self, kind: c_int, len: usize) {
        // SAFETY: a live reply.
        let right = unsafe { shim_hiredis_type(self.0) == kind && shim_hiredis_len(self.0) == len };
        self.1.check(right);
    }

    fn is_list(&self, count: usize) {
        // SAFETY: a live reply.
        let right = unsafe { shim_hiredis_type(self.0) == ARRAY && shim_hiredis_elements(self.0) == count };
        self.1.check(right);
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        // SAFETY: the last use.
        unsafe { freeReplyObject(self.0) };
    }
}

/// Arguments with the arrays that hiredis wants, made once.
struct Args {
    pointers: Vec<*const c_char>,
    lens: Vec<usize>,
    _kept: Vec<Vec<u8>>,
}

impl Args {
    fn new(args: &[&[u8]]) -> Self {
        let kept: Vec<Vec<u8>> = args.iter().map(|arg| arg.to_vec()).collect();
        let pointers = kept.iter().map(|arg| arg.as_ptr().cast()).collect();
        Self { pointers, lens: kept.iter().map(Vec::len).collect(), _kept: kept }
    }

    fn count(&self) -> c_int {
        self.lens.len() as c_int
    }
}

impl Candidate for Hiredis {
    fn name(&self) -> &str {
        "hiredis"
    }

    fn run(&self, job: Job, parallel: usize, ground: &mut Ground) -> Sample {
        threads(parallel, ground, &|| turn(Context::open(&self.host, self.port), job))
    }
}

fn turn<'a>(context: Context, job: Job) -> Turn<'a> {
    let get = |size: usize| Args::new(&[b"GET", key(size).as_bytes()]);
    match job {
        Job::Get(size) => {
            let get = get(size);
            timed(move || {
                context.exec(&get).is_text(STRING, size);
                1
            })
        }
        Job::Set(size) => {
            let set = Args::new(&[b"SET", written(size).as_bytes(), &value(size)]);
            timed(move || {
                context.exec(&set).is_text(STATUS, 2);
                1
            })
        }
        Job::Lrange => {
            let lrange = Args::new(&[b"LRANGE", LIST.as_bytes(), b"0", b"-1"]);
            timed(move || {
                context.exec(&lrange).is_list(ELEMENTS);
                1
            })
        }
        Job::Pipeline(count) => {
            let get = get(SMALL);
            timed(move || {
                (0..count).for_each(|_| context.append(&get));
                (0..count).for_each(|_| context.next().is_text(STRING, SMALL));
                count as u32
            })
        }
        Job::Window { .. } => fail("hiredis has no submit"),
    }
}
