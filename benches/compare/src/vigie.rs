//! The part of vigie.h that is measured, as any language would call it: through the installed shared library.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{null, null_mut};

use crate::fail;

/// Handles are opaque.
pub enum Opaque {}

/// One node of a reply, as in the header.
#[repr(C)]
pub struct Node {
    kind: u8,
    flags: u8,
    reserved: u16,
    count: u32,
    value: u64,
    len: u64,
}

/// One event, as in the header.
#[repr(C)]
pub struct Event {
    kind: u32,
    status: i32,
    /// The number given with the call.
    pub token: u64,
    reply: *mut Opaque,
    error: *mut Opaque,
    nodes: *const Node,
    data: *const c_char,
    node_count: u64,
    data_len: u64,
}

const STRING: u8 = 2;
const COMPLETION: u32 = 1;
const TIMEOUT_DEFAULT: i64 = i32::MIN as i64;
/// A flag of the call: each command of the list is a call of its own.
pub const CALL_EACH: u32 = 1 << 5;

unsafe extern "C" {
    fn vigie_version() -> *const c_char;
    fn vigie_error_message(error: *const Opaque) -> *const c_char;
    fn vigie_config_new() -> *mut Opaque;
    fn vigie_config_set(
        config: *mut Opaque,
        key: *const c_char,
        value: *const c_char,
        error: *mut *mut Opaque,
    ) -> c_int;
    fn vigie_config_free(config: *mut Opaque);
    fn vigie_sentinel_create(
        config: *const Opaque,
        timeout_ms: i64,
        out: *mut *mut Opaque,
        error: *mut *mut Opaque,
    ) -> c_int;
    fn vigie_sentinel_free(sentinel: *mut Opaque);
    fn vigie_primary_for(
        sentinel: *mut Opaque,
        service: *const c_char,
        overrides: *const Opaque,
        out: *mut *mut Opaque,
        error: *mut *mut Opaque,
    ) -> c_int;
    fn vigie_split_for(
        sentinel: *mut Opaque,
        service: *const c_char,
        overrides: *const Opaque,
        out: *mut *mut Opaque,
        error: *mut *mut Opaque,
    ) -> c_int;
    fn vigie_client_free(client: *mut Opaque);
    fn vigie_cmd_exec(
        client: *mut Opaque,
        argc: usize,
        argv: *const *const c_char,
        argvlen: *const usize,
        flags: u32,
        timeout_ms: i64,
        out: *mut *mut Opaque,
        error: *mut *mut Opaque,
    ) -> c_int;
    fn vigie_cmds_exec(
        client: *mut Opaque,
        commands: *const c_void,
        commands_len: usize,
        flags: u32,
        timeout_ms: i64,
        out: *mut *mut Opaque,
        error: *mut *mut Opaque,
    ) -> c_int;
    fn vigie_cmds_submit(
        client: *mut Opaque,
        commands: *const c_void,
        commands_len: usize,
        flags: u32,
        timeout_ms: i64,
        queue: *mut Opaque,
        token: u64,
        error: *mut *mut Opaque,
    ) -> c_int;
    fn vigie_reply_type(reply: *const Opaque, node: u32) -> i32;
    fn vigie_reply_bytes(reply: *const Opaque, node: u32, len: *mut usize) -> *const c_char;
    fn vigie_reply_count(reply: *const Opaque, node: u32) -> u32;
    fn vigie_reply_free(reply: *mut Opaque);
    fn vigie_queue_create(capacity: usize, out: *mut *mut Opaque, error: *mut *mut Opaque) -> c_int;
    fn vigie_queue_drain(queue: *mut Opaque, timeout_ms: i64, events: *mut Event, capacity: u32) -> i32;
    fn vigie_events_clear(events: *mut Event, count: usize);
    fn vigie_queue_free(queue: *mut Opaque);
}

/// The version of the library that runs.
pub fn version() -> String {
    // SAFETY: a static text.
    unsafe { CStr::from_ptr(vigie_version()) }.to_string_lossy().into_owned()
}

/// What an error says. It is not freed: errors end the program.
fn message(error: *mut Opaque) -> String {
    // SAFETY: NULL or an error that is alive; the text is copied.
    unsafe { CStr::from_ptr(vigie_error_message(error)) }.to_string_lossy().into_owned()
}

fn check(status: c_int, error: *mut Opaque) {
    if status != 0 {
        fail(format!("vigie: {}", message(error)));
    }
}

fn text(text: &str) -> CString {
    CString::new(text).expect("no NUL in an option")
}

struct Config(*mut Opaque);

impl Config {
    fn new(options: &[(&str, &str)]) -> Result<Self, String> {
        // SAFETY: cannot fail.
        let config = Self(unsafe { vigie_config_new() });
        for (key, value) in options {
            let (key, value, mut error) = (text(key), text(value), null_mut());
            // SAFETY: live handle and texts.
            if unsafe { vigie_config_set(config.0, key.as_ptr(), value.as_ptr(), &mut error) } != 0 {
                return Err(message(error));
            }
        }
        Ok(config)
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        // SAFETY: the last use.
        unsafe { vigie_config_free(self.0) };
    }
}

/// A deployment.
pub struct Sentinel(*mut Opaque);

// SAFETY: the header calls it [T]: any thread, concurrently.
unsafe impl Sync for Sentinel {}

impl Sentinel {
    /// Asks the Sentinels of a URI.
    pub fn open(uri: &str) -> Self {
        let config = Config::new(&[("uri", uri)]).unwrap_or_else(|e| fail(format!("vigie: {e}")));
        let (mut sentinel, mut error) = (null_mut(), null_mut());
        // SAFETY: a live handle, and room for what comes out.
        check(unsafe { vigie_sentinel_create(config.0, 5000, &mut sentinel, &mut error) }, error);
        Self(sentinel)
    }

    /// A client of the primary, or one that reads from the replicas, with options of its own.
    pub fn client(&self, split: bool, options: &[(&str, &str)]) -> Result<Client, String> {
        let overrides = Config::new(options)?;
        let make = if split { vigie_split_for } else { vigie_primary_for };
        let (mut client, mut error) = (null_mut(), null_mut());
        // SAFETY: live handles, and room for what comes out.
        match unsafe { make(self.0, null(), overrides.0, &mut client, &mut error) } {
            0 => Ok(Client(client)),
            _ => Err(message(error)),
        }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // SAFETY: the last use.
        unsafe { vigie_sentinel_free(self.0) };
    }
}

/// Runs commands.
pub struct Client(*mut Opaque);

// SAFETY: the header calls it [T]: any thread, concurrently.
unsafe impl Sync for Client {}

impl Client {
    /// One command.
    pub fn exec(&self, args: &[&[u8]]) -> Reply {
        let mut argv = [null(); 4];
        let mut lens = [0; 4];
        for (at, arg) in args.iter().enumerate() {
            (argv[at], lens[at]) = (arg.as_ptr().cast(), arg.len());
        }
        let (mut reply, mut error) = (null_mut(), null_mut());
        // SAFETY: argv and lens have args.len() entries; what they point at outlives the call.
        let status = unsafe {
            let (argc, flags) = (args.len(), 0);
            vigie_cmd_exec(self.0, argc, argv.as_ptr(), lens.as_ptr(), flags, TIMEOUT_DEFAULT, &mut reply, &mut error)
        };
        check(status, error);
        Reply(reply)
    }

    /// A list of encoded commands.
    pub fn exec_list(&self, list: &[u8]) -> Reply {
        let (mut reply, mut error) = (null_mut(), null_mut());
        let data = list.as_ptr().cast();
        // SAFETY: the list outlives the call.
        check(unsafe { vigie_cmds_exec(self.0, data, list.len(), 0, TIMEOUT_DEFAULT, &mut reply, &mut error) }, error);
        Reply(reply)
    }

    /// Submits a list of encoded commands.
    pub fn submit(&self, list: &[u8], flags: u32, queue: &Queue, token: u64) {
        let mut error = null_mut();
        let (data, len) = (list.as_ptr().cast(), list.len());
        // SAFETY: the list is copied before the call returns; queue and client are alive.
        check(
            unsafe { vigie_cmds_submit(self.0, data, len, flags, TIMEOUT_DEFAULT, queue.0, token, &mut error) },
            error,
        );
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: the last use.
        unsafe { vigie_client_free(self.0) };
    }
}

/// A reply, freed with this.
pub struct Reply(*mut Opaque);

impl Reply {
    /// The bytes of a text that is the whole reply.
    pub fn len_of_text(&self) -> Option<usize> {
        let mut len = 0;
        // SAFETY: a live reply.
        let bytes = unsafe { vigie_reply_bytes(self.0, 0, &mut len) };
        (!bytes.is_null()).then_some(len)
    }

    /// The children of the whole reply.
    pub fn count(&self) -> usize {
        // SAFETY: a live reply.
        unsafe { vigie_reply_count(self.0, 0) as usize }
    }

    /// Whether the node is a bulk string.
    pub fn is_string(&self, node: u32) -> bool {
        // SAFETY: a live reply; a node that is not there is none.
        unsafe { vigie_reply_type(self.0, node) == i32::from(STRING) }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // SAFETY: the last use.
        unsafe { vigie_reply_free(self.0) };
    }
}

/// Completions, and room for a batch of them.
pub struct Queue(*mut Opaque);

impl Queue {
    /// Room for so many calls.
    pub fn new(capacity: usize) -> Self {
        let (mut queue, mut error) = (null_mut(), null_mut());
        // SAFETY: room for what comes out.
        check(unsafe { vigie_queue_create(capacity, &mut queue, &mut error) }, error);
        Self(queue)
    }

    /// Waits for completions of GETs and hands over the token of each; says how many there were.
    pub fn drain(&self, room: &mut Vec<Event>, len: u64, mut each: impl FnMut(u64)) -> usize {
        let capacity = room.capacity() as u32;
        // SAFETY: there is room for as many events as the call is told.
        let count = unsafe { vigie_queue_drain(self.0, 5000, room.as_mut_ptr(), capacity) };
        let Ok(count @ 1..) = usize::try_from(count) else { fail(format!("vigie: a drain gave {count}")) };
        // SAFETY: the first `count` of them were written, and are cleared before they are forgotten.
        unsafe {
            room.set_len(count);
            for event in room.iter() {
                if event.kind != COMPLETION || event.status != 0 {
                    fail(format!("vigie: a call ended with {}: {}", event.status, message(event.error)));
                }
                let node = event.nodes.as_ref();
                if !node.is_some_and(|node| node.kind == STRING && node.len == len) {
                    fail("vigie: a wrong answer to a submitted GET");
                }
                each(event.token);
            }
            vigie_events_clear(room.as_mut_ptr(), count);
            room.set_len(0);
        }
        count
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the last use.
        unsafe { vigie_queue_free(self.0) };
    }
}
