//! Panics: what they said and where, for the error that tells of them; written nowhere.
//!
//! Guarantees: with the feature `private-std`, which is for the C library alone, a panic prints nothing, and [`describe`] knows its
//! place. That library has a copy of the standard library of its own, which no other code in the process can reach, and with it a
//! panic hook of its own: nothing is taken from anybody, and nobody can take it away. In a Rust program the standard library is the
//! program's, and so is the hook: it stays as it is. Leaves to others: catching (each border of the library does).

use std::any::Any;
use std::cell::RefCell;

thread_local!(static TOLD: RefCell<Option<String>> = const { RefCell::new(None) });

/// What a panic that was caught on this thread said, and where.
pub fn describe(panic: &(dyn Any + Send)) -> String {
    told().unwrap_or_else(|| said(panic).to_owned())
}

/// The same for what is dropped by a panic, as far as it is known: begins with a colon.
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

/// Has panics noted instead of printed, from the first handle or thread on.
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

    /// One thread does it and nobody waits for it: a child that is forked in this moment would wait for ever.
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
