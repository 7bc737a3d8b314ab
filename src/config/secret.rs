//! Passwords: kept in one place in memory, wiped with their last owner, and never printed.
//!
//! Guarantees: a clone shares the text instead of copying it; `Debug` shows `***`; there is no `Display`; while it lives, what servers say
//! is shown without it (error/secrets). Leaves to others: sending it (the handshake), and wiping what the caller handed in.

use std::fmt;

use crate::error::{self, SecretText};

/// A text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(SecretText);

impl Secret {
    /// Takes the text over; nothing is copied.
    pub fn new(text: impl Into<String>) -> Self {
        Self(error::keep(text.into()))
    }

    /// Takes over a text that may be shown.
    pub fn open(text: String) -> Self {
        Self(error::hold(text))
    }

    /// The text itself: only for what sends or parses it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is the empty text, which stands for "none" in a configuration.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The credentials of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// An ACL user; `None`: the user `default`.
    pub username: Option<String>,
    /// The password; `None`: no AUTH is sent.
    pub password: Option<Secret>,
}

impl Credentials {
    /// Whether there is nothing to authenticate with.
    pub fn is_empty(&self) -> bool {
        self.password.is_none()
    }

    /// The command that authenticates with them. `None`: there is nothing to authenticate with.
    pub fn command(&self) -> Option<Vec<&[u8]>> {
        let password = self.password.as_ref()?.expose().as_bytes();
        let user = self.username.iter().map(|user| user.as_bytes());
        Some(std::iter::once(&b"AUTH"[..]).chain(user).chain([password]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_stars_even_inside_credentials() {
        let credentials = Credentials { username: Some("ann".into()), password: Some(Secret::new("hunter2")) };
        let shown = format!("{credentials:?} {:?}", Secret::new("hunter2"));
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("***") && shown.contains("ann"));
    }

    #[test]
    fn a_clone_shares_the_text() {
        let secret = Secret::new("x".repeat(100));
        assert_eq!(secret.expose().as_ptr(), secret.clone().expose().as_ptr());
    }
}
