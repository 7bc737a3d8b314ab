//! A value that shares its cache lines with nothing else: threads that write to it do not slow down those that read its neighbours.
//!
//! Guarantees: two lines apart, because processors fetch them in pairs.

use std::ops::Deref;

/// The value.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Apart<T>(pub T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
