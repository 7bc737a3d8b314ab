//! Arguments from C and outputs to C.
//!
//! Guarantees: nothing is read from a NULL pointer, or for an impossible length; every refusal names the argument. Inputs are
//! borrowed for the call and never kept.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::{ptr, slice};

use super::handle::{self, Noun};
use super::types::vigie_metrics_flag;
use crate::error::{Error, Result, Status};

/// No server takes a larger call: such a length is a mistake of the caller, and is refused before anything is read.
pub(super) const MAX_BYTES: usize = if usize::BITS > 32 { 1 << 32 } else { isize::MAX as usize };

/// Up to this many arguments are gathered on the stack.
const ON_STACK: usize = 32;

/// The most arguments that a server takes.
const MAX_ARGS: usize = i32::MAX as usize;

pub(super) fn invalid(text: impl Into<String>) -> Error {
    Error::new(Status::InvalidArg, text)
}

/// Sets an output to NULL, if there is an output.
///
/// # Safety
/// `out` is NULL or writable.
pub(super) unsafe fn reset<T>(out: *mut *mut T) {
    if !out.is_null() {
        // SAFETY: as for this function.
        unsafe { out.write_unaligned(ptr::null_mut()) };
    }
}

/// Puts a value into an output as a handle. Without an output the value is dropped.
///
/// # Safety
/// `out` is NULL or writable.
pub(super) unsafe fn put<N: Noun>(out: *mut *mut N, value: N::Value) {
    if !out.is_null() {
        // SAFETY: as for this function.
        unsafe { out.write_unaligned(handle::into_raw(value)) };
    }
}

/// Refuses a NULL output, because a handle would be lost.
pub(super) fn wanted<T>(out: *mut *mut T) -> Result<()> {
    if out.is_null() { Err(invalid("out is NULL")) } else { Ok(()) }
}

/// A text that must not be NULL.
///
/// # Safety
/// `text` is NULL or ends with a NUL.
pub(super) unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<&'a str> {
    if text.is_null() {
        return Err(invalid(format!("{name} is NULL")));
    }
    // SAFETY: as for this function, and not NULL.
    let bytes = unsafe { CStr::from_ptr(text) };
    bytes.to_str().map_err(|_| invalid(format!("{name} is not UTF-8")))
}

/// A name that may be NULL, which stands for a default, but not empty.
///
/// # Safety
/// `name` is NULL or ends with a NUL.
pub(super) unsafe fn optional<'a>(name: *const c_char, what: &str, default: &str) -> Result<Option<&'a str>> {
    if name.is_null() {
        return Ok(None);
    }
    // SAFETY: as for this function.
    match unsafe { text(name, what) }? {
        "" => Err(invalid(format!("{what} is empty (NULL stands for {default})"))),
        name => Ok(Some(name)),
    }
}

/// Bytes with a length; NULL with length 0 is empty.
///
/// # Safety
/// `data` is NULL or readable for `len` bytes.
pub(super) unsafe fn bytes<'a>(data: *const u8, len: usize, name: &str) -> Result<&'a [u8]> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(invalid(format!("{name} is NULL with a length of {len}")));
    }
    if len > MAX_BYTES {
        return Err(invalid(format!("the length of {name} is {len}, above {MAX_BYTES}")));
    }
    // SAFETY: as for this function; not NULL, bytes have no alignment, and the length is below isize::MAX.
    Ok(unsafe { slice::from_raw_parts(data, len) })
}

/// A command as C passes it.
pub(super) struct Argv {
    pub argc: usize,
    pub argv: *const *const c_char,
    pub argvlen: *const usize,
}

impl Argv {
    /// Hands the arguments to `run`, gathered on the stack when they are few.
    ///
    /// # Safety
    /// `argv` is NULL or an array of `argc` pointers, each NULL or readable for its length; `argvlen` is NULL (then
    /// each ends with a NUL) or an array of `argc` lengths.
    pub(super) unsafe fn with<R>(&self, run: impl FnOnce(&[&[u8]]) -> Result<R>) -> Result<R> {
        self.check()?;
        // Not filled before, because that costs more than gathering a few.
        let mut few = [const { MaybeUninit::<&[u8]>::uninit() }; ON_STACK];
        if let Some(few) = few.get_mut(..self.argc) {
            // SAFETY: as for this function.
            return run(unsafe { self.gather(few) }?);
        }
        let mut many: Vec<&[u8]> = Vec::new();
        many.try_reserve_exact(self.argc)
            .map_err(|_| Error::new(Status::Limit, format!("argc is {}: no memory for so many", self.argc)))?;
        let places = many.spare_capacity_mut().get_mut(..self.argc).unwrap_or_default();
        // SAFETY: as for this function; so many were reserved.
        run(unsafe { self.gather(places) }?)
    }

    #[inline(always)]
    fn check(&self) -> Result<()> {
        if self.argc == 0 {
            return Err(invalid("argc is 0"));
        }
        if self.argv.is_null() {
            return Err(invalid(format!("argv is NULL with argc {}", self.argc)));
        }
        if self.argc > MAX_ARGS {
            return Err(invalid(format!("argc is {}, above {MAX_ARGS}", self.argc)));
        }
        Ok(())
    }

    /// # Safety
    /// As for [`Argv::with`]; `into` holds `argc` places.
    #[inline(always)]
    unsafe fn gather<'a, 'b>(&self, into: &'a mut [MaybeUninit<&'b [u8]>]) -> Result<&'a [&'b [u8]]> {
        let mut total = 0usize;
        for (i, place) in into.iter_mut().enumerate() {
            // SAFETY: as for this function: `i` is below `argc`.
            total = total.saturating_add(place.write(unsafe { self.argument(i) }?).len());
        }
        if total > MAX_BYTES {
            return Err(invalid(format!("the arguments have {total} bytes together, above {MAX_BYTES}")));
        }
        // SAFETY: each place has been written.
        Ok(unsafe { slice::from_raw_parts(into.as_ptr().cast(), into.len()) })
    }

    /// # Safety
    /// As for [`Argv::with`]; `i` is below `argc`.
    unsafe fn argument<'a>(&self, i: usize) -> Result<&'a [u8]> {
        // SAFETY: as for this function.
        let arg = unsafe { self.argv.add(i).read_unaligned() };
        if !self.argvlen.is_null() {
            // SAFETY: as for this function.
            let len = unsafe { self.argvlen.add(i).read_unaligned() };
            if len == 0 {
                return Ok(&[]);
            }
            if arg.is_null() || len > MAX_BYTES {
                // The name is made only here, because every command goes this way.
                // SAFETY: refused before it is read.
                return unsafe { bytes(arg.cast(), len, &format!("argv[{i}]")) };
            }
            // SAFETY: as for this function; not NULL, and the length is below isize::MAX.
            return Ok(unsafe { slice::from_raw_parts(arg.cast(), len) });
        }
        if arg.is_null() {
            return Err(invalid(format!("argv[{i}] is NULL and argvlen is NULL")));
        }
        // SAFETY: as for this function: without lengths each argument ends with a NUL.
        Ok(unsafe { CStr::from_ptr(arg) }.to_bytes())
    }
}
/// Whether metrics are wanted as OpenMetrics.
pub(super) fn is_open_metrics(flags: u32) -> Result<bool> {
    let open_metrics = vigie_metrics_flag::VIGIE_METRICS_OPENMETRICS as u32;
    match flags & !open_metrics {
        0 => Ok(flags & open_metrics != 0),
        unknown => Err(invalid(format!("flags: {unknown:#x} is unknown; VIGIE_METRICS_OPENMETRICS is known"))),
    }
}
