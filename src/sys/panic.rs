//! Panics: their message and place, for the error that reports them. Nothing is printed.
//!
//! Guarantees: with the feature `private-std`, which only the C library has, a panic prints nothing, and [`describe`] knows its
//! place. The C library has its own copy of the standard library, which no other code in the process can reach, and so its own
//! panic hook. In a Rust program the standard library and the hook belong to the program: the hook is not changed. Leaves to
//! others: catching panics (each border of the library does).

use std::any::Any;
use std::cell::RefCell;

thread_local!(static TOLD: RefCell<Option<String>> = const { RefCell::new(None) });

/// The message and the place of a panic that was caught on this thread.
pub fn describe(panic: &(dyn Any + Send)) -> String {
    told().unwrap_or_else(|| said(panic).to_owned())
}

/// The same for a value that a panic drops, as far as it is known. Begins with a colon.
pub fn behind() -> String {
    let told = TOLD.try_with(|told| told.borrow().clone()).ok().flatten();
    told.map_or_else(String::new, |told| format!(": {told}"))
}

fn told() -> Option<String> {
    TOLD.try_with(RefCell::take).ok().flatten()
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a text")
}

/// Has panics noted instead of printed. Called with the first handle and the first thread.
pub fn keep_quiet() {
    #[cfg(feature = "private-std")]
    private::keep_quiet();
}

#[cfg(feature = "private-std")]
mod private {
    use super::{TOLD, said};
    use std::panic::PanicHookInfo;
    use std::sync::atomic::{AtomicBool, Ordering};

    static BEGUN: AtomicBool = AtomicBool::new(false);

    /// One thread does it, and the others do not wait: a child that is forked at this moment would wait forever.
    pub(super) fn keep_quiet() {
        if !BEGUN.load(Ordering::Relaxed) && !std::thread::panicking() && !BEGUN.swap(true, Ordering::AcqRel) {
            std::panic::set_hook(Box::new(note));
        }
    }

    fn note(info: &PanicHookInfo<'_>) {
        let said = said(info.payload());
        let text = info.location().map_or_else(|| said.to_owned(), |place| format!("{said} (at {place})"));
        let _ = TOLD.try_with(|told| *told.borrow_mut() = Some(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panic_said_is_told() {
        let caught = |body: fn()| std::panic::catch_unwind(body).unwrap_err();
        assert!(describe(&*caught(|| std::panic::resume_unwind(Box::new("text")))).starts_with("text"));
        assert!(describe(&*caught(|| std::panic::resume_unwind(Box::new(String::from("own"))))).starts_with("own"));
        assert_eq!(describe(&*caught(|| std::panic::resume_unwind(Box::new(7)))), "a panic without a text");
        assert_eq!(behind(), "");
    }
}
